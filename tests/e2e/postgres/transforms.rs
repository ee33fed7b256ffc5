//! Masked values keep their types: a driver that decodes them in binary gets what it gets in text.

use serde_json::json;
use tests::World;

use crate::support::json;

const MASKS: &str = r#"masks:
  - { id: hashed, resources: [orders], columns: [public.typed.h4, public.typed.h8, public.typed.hu, public.typed.hb, public.typed.hn], transform: hash }
  - { id: tokens, resources: [orders], columns: [public.typed.t4, public.typed.tn, public.typed.tu, public.typed.tt], transform: tokenise }
  - { id: moved, resources: [orders], columns: [public.typed.d, public.typed.ts], transform: { date_shift: { days: 90 } } }
  - { id: coarse, resources: [orders], columns: [public.typed.b4, public.typed.bn, public.typed.bf, public.typed.bd], transform: { bucket: { size: 100, unit: month } } }
  - { id: gone, resources: [orders], columns: [public.typed.r4, public.typed.rb], transform: redact }
"#;

const TABLE: &str = "SET ROLE gateway;
CREATE TABLE typed (id int, h4 int, h8 bigint, hu uuid, hb bytea, hn numeric, t4 int, tn numeric, tu uuid, tt text, d date,
    ts timestamptz, b4 int, bn numeric, bf float8, bd date, r4 int, rb bytea);
INSERT INTO typed SELECT n, 4711, 4711, '5ca1ab1e-0dad-4bad-8f00-c0ffee513467', 'bytes', 4711, 48151623 + n, -481516.2342,
    '5ca1ab1e-0dad-4bad-8f00-c0ffee513467', 'Jane 0815-4711', DATE '2024-02-29' + 10 * n, '2024-02-29 11:22:33+00', 4711, -4711.5,
    4711.5, '2024-02-29', 4711, 'bytes' FROM generate_series(1, 2) AS n;";

#[test]
fn masked_values_keep_their_types_in_text_and_in_binary() {
    let (rules, _) = tests::sample::POLICY.split_once("masks:\n").expect("masks at the end");
    let rules = rules.replace(
        "public.imports, \"public.pgbench_*\"]\n      functions",
        "public.imports, public.typed]\n      functions",
    );
    let world = World::builder().policy(&format!("{rules}{MASKS}")).up();
    world.db.ask(TABLE);
    let script = r#"
import psycopg, json
said = {}
with psycopg.connect() as db:
    for name, binary in (("text", False), ("binary", True)):
        said[name] = [[type(v).__name__ for v in row] + [str(v) for v in row] for row in
            db.cursor(binary=binary).execute("SELECT * FROM typed ORDER BY id").fetchall()]
    rows = db.execute("SELECT d, h4, t4, tt FROM typed ORDER BY id").fetchall()
    said["days"] = (rows[1][0] - rows[0][0]).days
    said["same"] = [rows[0][1] == rows[1][1], rows[0][2] != rows[1][2], rows[0][3] == rows[1][3]]
    said["made"] = db.execute("SELECT greatest(h4, 0), upper(tt), greatest(d, d) FROM typed LIMIT 1").fetchone()
print(json.dumps(said))
"#;
    let said = json(&world.job(&[&world.python(), "-c", script]).run().ok().stdout);
    assert_eq!(said["text"], said["binary"], "{said}");
    let row: Vec<&str> =
        said["text"][0].as_array().expect("a row").iter().filter_map(|v| v.as_str()).collect();
    let (types, values) = row.split_at(18);
    assert_eq!(
        types,
        [
            "int", "int", "int", "UUID", "bytes", "Decimal", "int", "Decimal", "UUID", "str", "date",
            "datetime", "int", "Decimal", "float", "date", "NoneType", "bytes"
        ]
    );
    for hidden in
        ["4711", "48151624", "-481516.2342", "5ca1ab1e-0dad-4bad-8f00-c0ffee513467", "2024-03-10", "b'bytes'"]
    {
        assert!(!values[1..].contains(&hidden), "{hidden} in {values:?}");
    }
    assert_eq!(values[12..18], ["4700", "-4800", "4700.0", "2024-02-01", "None", "b'[redacted]'"]);
    assert_eq!(values[9].len(), "Jane 0815-4711".len());
    // Intervals stay, equal values stay equal, different ones different.
    assert_eq!((&said["days"], &said["same"]), (&json!(10), &json!([true, true, true])));
    // What is computed from them is not shown in any way.
    assert_eq!(said["made"], json!([null, "[redacted]", null]));
}
