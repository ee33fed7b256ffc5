//! psycopg 3, asyncpg and tokio-postgres, unchanged, inside jobs.

use serde_json::{Value, json};
use tests::{World, process::LIMIT};

use crate::support::{CARD, EMAIL, REDACTED, json, ran, wait_for};

#[track_caller]
fn python(world: &World, script: &str) -> Value {
    let out = world.job(&[&world.python(), "-c", script]).run().ok();
    json(&out.stdout)
}

#[track_caller]
fn tokio(world: &World, scenario: &str) -> Value {
    json(&world.job(&[&world.program("tokio-client"), scenario]).run().ok().stdout)
}

#[test]
fn psycopg_reads_masked_rows_in_text_and_binary() {
    let world = World::new();
    let said = python(
        &world,
        r#"
import psycopg, json
with psycopg.connect() as db:
    said = {"ssl": db.info.status.name, "encrypted": db.pgconn.ssl_in_use}
    for name, binary in (("text", False), ("binary", True)):
        cur = db.cursor(binary=binary)
        cur.execute("SELECT id, email, card, upper(ssn) FROM customers WHERE id <= %s ORDER BY id", (2,))
        said[name] = cur.fetchall()
    for _ in range(8):
        row = db.execute("SELECT amount::text, note FROM orders WHERE id = %s", (10,), prepare=True).fetchone()
    said["prepared"] = row
    with db.cursor(name="held") as cur:
        cur.execute("SELECT email FROM customers")
        said["cursor"] = len({row[0] for row in cur})
print(json.dumps(said))
"#,
    );
    let row = |id: i32| json!([id, REDACTED, CARD, REDACTED]);
    assert_eq!(said["encrypted"], true);
    assert_eq!(said["text"], json!([row(1), row(2)]));
    assert_eq!(said["binary"], json!([row(1), row(2)]));
    assert_eq!(said["prepared"], json!(["70.50", format!("reach me at {EMAIL}")]));
    assert_eq!(said["cursor"], 1);
}

#[test]
fn psycopg_goes_on_after_a_refusal_in_a_pipeline() {
    let world = World::new();
    let said = python(
        &world,
        r#"
import psycopg, json
said = {}
with psycopg.connect(autocommit=True) as db:
    try:
        db.execute("DROP TABLE orders")
    except psycopg.errors.InsufficientPrivilege as refused:
        said["denied"] = [refused.sqlstate, str(refused), refused.diag.message_hint]
    said["usable"] = db.execute("SELECT 1").fetchone()[0]
    try:
        with db.pipeline():
            first = db.execute("SELECT 2")
            db.execute("SELECT value FROM secrets")
            db.execute("SELECT 3")
    except psycopg.errors.InsufficientPrivilege as refused:
        said["pipeline"] = refused.sqlstate
    said["first"] = first.fetchone()[0]
    said["after"] = db.execute("SELECT 4").fetchone()[0]
    with db.transaction():
        try:
            with db.transaction():
                db.execute("TRUNCATE orders")
        except psycopg.errors.InsufficientPrivilege:
            said["savepoint"] = db.execute("SELECT 5").fetchone()[0]
    cur = db.cursor()
    with cur.copy("COPY imports FROM STDIN") as copy:
        for n in range(1000):
            copy.write_row((n, f"row {n}"))
    with cur.copy("COPY imports FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        copy.write_row((7777, "binary"))
    said["copied"] = db.execute("SELECT count(*) FROM imports").fetchone()[0]
    with cur.copy("COPY (SELECT id, email FROM customers ORDER BY id LIMIT 2) TO STDOUT") as copy:
        said["out"] = [list(row) for row in copy.rows()]
print(json.dumps(said))
"#,
    );
    assert_eq!(said["denied"][0], "42501");
    assert!(said["denied"][1].as_str().is_some_and(|text| text.contains("no-ddl")), "{said}");
    assert_eq!(said["usable"], 1);
    assert_eq!(said["pipeline"], "42501");
    assert_eq!((&said["first"], &said["after"], &said["savepoint"]), (&json!(2), &json!(4), &json!(5)));
    assert_eq!(said["copied"], 1001);
    assert_eq!(said["out"], json!([["1", REDACTED], ["2", REDACTED]]));
    assert_eq!(ran(&world, "secrets"), 0);
    assert_eq!(world.db.ask("SELECT payload FROM imports WHERE id = 7777"), "binary");
}

#[test]
fn psycopg_binary_copy_out_is_masked() {
    let world = World::new();
    let said = python(
        &world,
        r#"
import psycopg, json
said = []
with psycopg.connect() as db:
    cur = db.cursor()
    for what in ("(SELECT id, email FROM customers WHERE id = 1)", "(SELECT id, upper(email) FROM customers WHERE id = 2)", "customers (id, ssn)"):
        with cur.copy(f"COPY {what} TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            rows = [list(row) for row in copy.rows()]
        said.append([len(rows), rows[0]])
print(json.dumps(said))
"#,
    );
    // A table's own columns are masked in their type; of what is computed from them none is known, so it becomes NULL.
    assert_eq!(said, json!([[1, [1, REDACTED]], [1, [2, null]], [200, [1, REDACTED]]]));
}

#[test]
fn psycopg_cancels_and_listens() {
    let world = World::new();
    let said = python(
        &world,
        r#"
import psycopg, json, threading, time
said = {}
with psycopg.connect(autocommit=True) as db:
    done = threading.Event()
    def cancel():
        while not done.wait(0.3):
            db.cancel()
    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        db.execute("SELECT pg_sleep(60)")
    except psycopg.errors.QueryCanceled as ended:
        said["cancelled"] = ended.sqlstate
    done.set()
    thread.join()
    db.execute("LISTEN news")
    with psycopg.connect(autocommit=True) as other:
        other.execute("NOTIFY news, 'from another session'")
    for note in db.notifies():
        said["note"] = note.payload
        break
print(json.dumps(said))
"#,
    );
    assert_eq!(said, json!({ "cancelled": "57014", "note": "from another session" }));
}

#[test]
fn asyncpg_with_its_pool_and_its_binary_protocol() {
    let world = World::new();
    let said = python(
        &world,
        r#"
import asyncio, asyncpg, json
async def main():
    said = {}
    async with asyncpg.create_pool(min_size=2, max_size=4) as pool:
        async def one(n):
            async with pool.acquire() as db:
                return await db.fetchval("SELECT amount::text FROM orders WHERE id = $1", n)
        said["many"] = len(await asyncio.gather(*[one(n) for n in range(1, 101)]))
        async with pool.acquire() as db:
            rows = await db.fetch("SELECT id, email AS e, card, lower(ssn) AS s FROM customers WHERE id = ANY($1) ORDER BY id", [1, 2])
            said["rows"] = [list(row.values()) for row in rows]
            try:
                await db.execute("DROP TABLE orders")
            except asyncpg.InsufficientPrivilegeError as refused:
                said["denied"] = [refused.sqlstate, refused.hint is not None]
            async with db.transaction():
                async for row in db.cursor("SELECT email FROM customers", prefetch=50):
                    assert row[0] == "[redacted]", row
            await db.copy_records_to_table("imports", records=[(n, "x") for n in range(500)])
            said["copied"] = await db.fetchval("SELECT count(*) FROM imports")
            try:
                await db.fetchval("SELECT pg_sleep(60)", timeout=1)
            except asyncio.TimeoutError:
                said["timeout"] = await db.fetchval("SELECT 6")
    print(json.dumps(said))
asyncio.run(main())
"#,
    );
    assert_eq!(said["many"], 100);
    assert_eq!(said["rows"], json!([[1, REDACTED, CARD, REDACTED], [2, REDACTED, CARD, REDACTED]]));
    assert_eq!(said["denied"], json!(["42501", true]));
    assert_eq!((&said["copied"], &said["timeout"]), (&json!(500), &json!(6)));
}

#[test]
fn tokio_postgres_reads_binary_and_pipelines() {
    let world = World::new();
    let row = |id: i32| json!([id, format!("Customer {id}"), REDACTED, REDACTED, CARD]);
    assert_eq!(tokio(&world, "binary"), json!([row(1), row(2), row(3)]));
    let said = tokio(&world, "pipeline");
    assert_eq!(said["answers"].as_array().map(Vec::len), Some(10));
    assert_eq!(said["answers"][0], "7.50");
    assert_eq!(said["secret"]["code"], "42501");
    assert_eq!(said["after"], "77.50");
    let said = tokio(&world, "portal");
    assert_eq!(said, json!({ "sizes": [75, 75, 50], "clear": 0, "count": "200" }));
}

#[test]
fn tokio_postgres_survives_refusals_and_cancels() {
    let world = World::new();
    let said = tokio(&world, "denied");
    assert_eq!((&said["outside"]["code"], &said["inside"]["code"]), (&json!("42501"), &json!("42501")));
    assert!(said["outside"]["hint"].is_string(), "{said}");
    assert_eq!((&said["usable"], &said["again"]), (&json!(1), &json!(4)));
    let mut job = world.job(&[world.program("tokio-client"), "cancel".to_owned()]).open().expect("a job");
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'";
    wait_for("the statement", || (world.db.ask(sleeping) == "1").then_some(()));
    job.write(b"\n").expect("told");
    let said = json(&job.finish(LIMIT).expect("its end").ok().stdout);
    assert_eq!((&said["ended"]["code"], &said["after"]), (&json!("57014"), &json!(5)));
    let said = tokio(&world, "copy");
    assert_eq!(said["written"], 2);
    assert_eq!(said["read"], format!("1\t{REDACTED}\n2\t{REDACTED}\n"));
    assert_eq!(tokio(&world, "notify"), "news: hello");
}
