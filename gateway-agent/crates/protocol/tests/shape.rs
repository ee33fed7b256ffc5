//! Texts of one shape share one decision: whatever the numbers are, full analysis has to rule alike.

use std::{cell::Cell, fmt::Write};

use policy::{Policy, Source, UnixTime};
use proptest::{prelude::*, test_runner::TestRunner};
use protocol::postgres::{
    gate::{self, Context, Outcome},
    sql::{self, Catalogue},
};

/// Where numbers go.
const HOLE: &str = "@";

/// Numbers, and what somebody may put in place of one.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        40 => (0_u32..1_000_000_000).prop_map(|n| n.to_string()),
        20 => (0_u32..10).prop_map(|n| n.to_string()),
        1 => Just("007".to_owned()),
        1 => Just("2147483648".to_owned()),
        1 => Just("99999999999999999999".to_owned()),
        1 => proptest::sample::select(vec![
            "1.5", "-3", "0x10", "1e3", "1_000", "$1", "'5'", "5::text", "5::regclass", "(5)", "NULL", "a", "5 + 1",
            "pg_sleep(5)", "5 OR true", "5 UNION SELECT ssn FROM customers", "5 -- ", "5 /* */", "5; DELETE FROM t",
            "\"x\"", "ANY (SELECT 1)", "5[1]", "B'1'", "E'5'", "U&'5'",
        ])
        .prop_map(str::to_owned),
    ]
}

fn pick(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(of).prop_map(str::to_owned)
}

/// A condition, mostly of what has a shape.
fn condition() -> impl Strategy<Value = String> {
    let one = pick(&[
        "id = @",
        "id=@",
        "a <> @",
        "b >= @",
        "(a < @)",
        "a = @ AND b = @",
        "id = (SELECT max(customer_id) FROM orders WHERE total > @)",
        "id IN (SELECT id FROM customers WHERE ssn = @)",
        "EXISTS (SELECT FROM t AS x WHERE x.a = @)",
        "a = CASE WHEN b = @ THEN @ ELSE @ END",
        "@ = a",
        "a = -@",
        "a = @::int",
        "a = @ + b",
        "a = b[@]",
        "a = f(@)",
        "a = 'x = @'",
        "\"a\" = @",
        "a IN (@, @)",
        "a BETWEEN @ AND @",
        "a = @ IS NULL",
        "a != @ AND true",
        "a = $1 AND b = @",
        "a = @ -- b = @\n",
        "a = /* b = @ */ @",
        "a = $$ @ $$",
        "a = E'\\' AND b = @' AND b = @",
        "a operator(pg_catalog.=) @",
        "a @> @",
        "a => @",
        "a =@",
        "(a, b) = (@, @)",
        "a = ALL (ARRAY[@])",
        "a = @ COLLATE \"C\"",
        "a = @ AT TIME ZONE 'x'",
    ]);
    proptest::collection::vec(one, 1..4).prop_flat_map(|parts| {
        pick(&[" AND ", " OR ", "\nand\t"]).prop_map(move |between| parts.join(&between))
    })
}

fn statement() -> impl Strategy<Value = String> {
    let tail = pick(&[
        "",
        ";",
        " ORDER BY 1",
        " ORDER BY @",
        " LIMIT @",
        " OFFSET @",
        " GROUP BY @",
        " FOR UPDATE",
        " GROUP BY a HAVING count(*) > @",
        " UNION SELECT ssn, 1 FROM customers WHERE id = @",
        "; SELECT a, b FROM t WHERE a = @",
        "; SET x = @",
    ]);
    let head = pick(&[
        "SELECT a, b FROM t WHERE ",
        "SELECT * FROM customers WHERE ",
        "SELECT id = @, name FROM customers WHERE ",
        "SELECT mail FROM v WHERE ",
        "SELECT count(*) FILTER (WHERE a = @) FROM t WHERE ",
        "SELECT f(a = @), @ FROM t WHERE ",
        "SELECT a = @ AS email FROM t JOIN orders AS o ON o.id = @ WHERE ",
        "WITH w AS (SELECT * FROM customers WHERE id = @) SELECT ssn FROM w WHERE ",
        "WITH d AS (DELETE FROM t WHERE a = @ RETURNING a, b) SELECT * FROM d WHERE ",
        "UPDATE t SET a = @, b = a + @ WHERE ",
        "UPDATE t SET a = @ FROM customers WHERE ",
        "DELETE FROM t WHERE ",
        "DELETE FROM t USING orders WHERE ",
        "INSERT INTO t SELECT id, customer_id FROM orders WHERE ",
        "INSERT INTO t VALUES (@, @) ON CONFLICT (a) DO UPDATE SET b = @ WHERE ",
        "SELECT * FROM generate_series(@, @) AS g(a) WHERE ",
        "EXPLAIN SELECT * FROM t WHERE ",
        "DECLARE c CURSOR FOR SELECT * FROM t WHERE ",
        "PREPARE p AS SELECT * FROM t WHERE ",
        "COPY (SELECT * FROM t WHERE a = @) TO STDOUT; SELECT 1 WHERE ",
    ]);
    (head, condition(), tail).prop_map(|(head, condition, tail)| head + &condition + &tail)
}

/// The same text twice, with numbers of its own each time.
fn pair() -> impl Strategy<Value = (String, String)> {
    statement().prop_flat_map(|text| {
        let holes = text.matches(HOLE).count();
        let fill = move |text: &str, with: &[String]| {
            let mut filled = String::new();
            let mut with = with.iter();
            for (at, piece) in text.split(HOLE).enumerate() {
                if at > 0 {
                    filled.push_str(with.next().map_or("", String::as_str));
                }
                filled.push_str(piece);
            }
            filled
        };
        let numbers = || proptest::collection::vec(number(), holes);
        (Just(text), numbers(), numbers())
            .prop_map(move |(text, one, other)| (fill(&text, &one), fill(&text, &other)))
    })
}

fn catalogue() -> Catalogue {
    let row = |cells: &[&str]| cells.iter().map(|cell| Some((*cell).to_owned())).collect::<Vec<_>>();
    let relations = [
        ("1", "customers", "r", ["id", "name", "email", "ssn"].as_slice()),
        ("2", "orders", "r", &["id", "customer_id", "total"]),
        ("3", "t", "r", &["a", "b"]),
        ("4", "v", "v", &["id", "mail"]),
    ];
    let columns = relations.iter().flat_map(|(oid, _, _, columns)| {
        columns.iter().zip(["1", "2", "3", "4"]).map(|(name, at)| row(&[oid, at, name, "25", "false"]))
    });
    Catalogue::build(&[
        relations.iter().map(|(oid, name, kind, _)| row(&[oid, "public", name, kind])).collect(),
        columns.collect(),
        vec![row(&["4", "1", "1", "false"]), row(&["4", "1", "3", "false"])],
        vec![],
        vec![row(&["pg_catalog"]), row(&["public"])],
        vec![],
        vec![row(&["4", " SELECT customers.id, customers.email AS mail FROM public.customers;"])],
        vec![],
        vec![],
        vec![],
        vec![],
    ])
    .unwrap()
}

const POLICY: &str = r#"
version: 1
subjects: [{ name: job, issuer: https://token.example, claims: { repository: acme/payments } }]
resources:
  - name: orders
    kind: postgres
    hosts: [198.51.100.10]
    ports: [5432]
    databases: [orders]
    login: { user: gateway, password: { file: /nonexistent } }
    tls: { mode: disable }
    search_path: [public]
rules:
  - id: read
    effect: allow
    subjects: [job]
    resources: [orders]
    statements: { classes: [read, session, utility], relations: ["public.*"], functions: ["pg_catalog.*", "public.*"] }
    limits: { rows: 1000 }
  - { id: write, effect: allow, subjects: [job], resources: [orders], statements: { classes: [write], relations: [public.t] } }
masks:
  - { id: pii, resources: [orders], columns: [public.customers.email, public.customers.ssn], transform: redact }
"#;

/// What full analysis makes of a text, in words, and whether answers to its shape would be shared.
fn ruled(text: &str, policy: &Policy, catalogue: &Catalogue) -> (String, bool) {
    let subject = policy.subject_named("job").unwrap();
    let cx = Context {
        policy,
        subject: &subject,
        resource: policy.resource_named("orders").unwrap(),
        catalogue,
        now: UnixTime(1_780_000_000),
        grant: None,
        max_bytes: 65_536,
    };
    let ruling = gate::decide(&cx, text, &|_| None);
    let shared =
        ruling.cacheable && matches!(ruling.outcome, Outcome::Allow(_)) && sql::shape_counts(&ruling.kinds);
    let mut words = String::new();
    let seen = sql::analyse(text, catalogue, 65_536);
    write!(words, "{ruling:?} {seen:?}").unwrap();
    (words, shared)
}

#[test]
fn a_decision_found_by_shape_is_the_one_that_analysis_makes() {
    let run = || {
        let (policy, catalogue) = (
            Policy::load(&[Source { name: "shape.yaml".into(), text: POLICY.into() }]).unwrap(),
            catalogue(),
        );
        let shared = Cell::new(0_u32);
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 20_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let proved = runner.run(&pair(), |(one, other)| {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            if one == other
                || !sql::shape(&one, &mut first)
                || !sql::shape(&other, &mut second)
                || first != second
            {
                return Ok(());
            }
            let (kept, may_be_shared) = ruled(&one, &policy, &catalogue);
            if may_be_shared {
                shared.set(shared.get() + 1);
                prop_assert_eq!(kept, ruled(&other, &policy, &catalogue).0, "{} and {}", one, other);
            }
            Ok(())
        });
        (proved, shared.get())
    };
    let (proved, shared) =
        std::thread::Builder::new().stack_size(sql::STACK).spawn(run).unwrap().join().unwrap();
    if let Err(wrong) = proved {
        panic!("{wrong}");
    }
    assert!(shared > 200, "only {shared} pairs would have shared a decision");
}
