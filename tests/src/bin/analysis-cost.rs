//! What deciding about a statement that nobody saw before costs, beside parsing it with libpg_query alone: medians of
//! interleaved rounds, in ns, one line a statement. `analysis-cost [ROUNDS]`

use std::{env, hint::black_box, thread, time::Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use policy::{Policy, Source, UnixTime};
use protocol::postgres::{
    gate::{self, Context, Outcome},
    sql::{Catalogue, STACK},
};

/// What transactions are made of: pgbench's own, and what mappers of objects write.
const STATEMENTS: &[(&str, &str)] = &[
    ("pgbench select", "SELECT abalance FROM accounts WHERE aid = 4711"),
    ("pgbench update", "UPDATE accounts SET abalance = abalance + -42 WHERE aid = 4711"),
    (
        "pgbench insert",
        "INSERT INTO history (tid, bid, aid, delta, mtime) VALUES (7, 1, 4711, -42, CURRENT_TIMESTAMP)",
    ),
    (
        "mapper select",
        "SELECT \"customers\".\"id\", \"customers\".\"name\", \"customers\".\"city\" FROM \"customers\" \
         WHERE \"customers\".\"id\" = $1 AND \"customers\".\"deleted\" IS FALSE ORDER BY \"customers\".\"id\" ASC LIMIT 1",
    ),
    (
        "join of three",
        "SELECT o.id, o.total, c.name, count(i.id) AS items FROM orders AS o JOIN customers AS c ON c.id = o.customer_id \
         LEFT JOIN items AS i ON i.order_id = o.id WHERE c.city = $1 AND o.total > $2 GROUP BY o.id, o.total, c.name \
         ORDER BY o.total DESC LIMIT 20 OFFSET 40",
    ),
    ("delete", "DELETE FROM items WHERE order_id = $1 AND id <> ALL ($2)"),
    (
        "upsert",
        "INSERT INTO customers (id, name, city) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
         city = excluded.city RETURNING id",
    ),
];

const POLICY: &str = r#"
version: 1
subjects: [{ name: job, issuer: https://token.example, claims: { repository: acme/payments } }]
resources:
  - name: orders
    kind: postgres
    hosts: [198.51.100.10]
    databases: [orders]
    login: { user: gateway, password: { file: /nonexistent } }
    tls: { mode: disable }
    search_path: [public]
rules:
  - { id: use, effect: allow, subjects: [job], resources: [orders], statements: { classes: [read, write], relations: ["public.*"] } }
masks:
  - { id: pii, resources: [orders], columns: [public.customers.email], transform: redact }
"#;

fn main() -> Result<()> {
    let rounds = env::args().nth(1).map_or(Ok(200), |count| count.parse())?;
    // As the gateway does.
    let measuring = thread::Builder::new().stack_size(STACK).spawn(move || measure(rounds))?;
    measuring.join().map_err(|_| anyhow!("it panicked"))?
}

fn measure(rounds: usize) -> Result<()> {
    let source = Source { name: "cost.yaml".to_owned(), text: POLICY.to_owned() };
    let policy = Policy::load(&[source]).map_err(|wrong| anyhow!("{wrong:?}"))?;
    let catalogue = catalogue()?;
    let subject = policy.subject_named("job").context("the subject")?;
    let cx = Context {
        policy: &policy,
        subject: &subject,
        resource: policy.resource_named("orders").context("the resource")?,
        catalogue: &catalogue,
        now: UnixTime(1_780_000_000),
        grant: None,
        max_bytes: 65_536,
    };
    for (name, sql) in STATEMENTS {
        let ruling = gate::decide(&cx, sql, &|_| None);
        ensure!(matches!(ruling.outcome, Outcome::Allow(_)), "{name}: {ruling:?}");
        let (mut parse, mut decide) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
        for _ in 0..rounds {
            let began = Instant::now();
            black_box(pg_query::parse(black_box(sql), 0).map_err(|error| anyhow!("{error}"))?);
            parse.push(began.elapsed().as_nanos());
            let began = Instant::now();
            black_box(gate::decide(&cx, black_box(sql), &|_| None));
            decide.push(began.elapsed().as_nanos());
        }
        println!("{} {} {name}", median(parse), median(decide));
    }
    Ok(())
}

fn median(mut all: Vec<u128>) -> u128 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn catalogue() -> Result<Catalogue> {
    let row = |cells: &[&str]| cells.iter().map(|cell| Some((*cell).to_owned())).collect::<Vec<_>>();
    let tables: [(&str, &str, &[&str]); 5] = [
        ("1", "accounts", &["aid", "bid", "abalance", "filler"]),
        ("2", "history", &["tid", "bid", "aid", "delta", "mtime", "filler"]),
        ("3", "customers", &["id", "name", "city", "email", "deleted"]),
        ("4", "orders", &["id", "customer_id", "total"]),
        ("5", "items", &["id", "order_id", "what"]),
    ];
    let columns = tables.iter().flat_map(|(oid, _, columns)| {
        columns.iter().enumerate().map(|(at, name)| row(&[oid, &(at + 1).to_string(), name, "25", "false"]))
    });
    let results = [
        tables.iter().map(|(oid, name, _)| row(&[oid, "public", name, "r"])).collect(),
        columns.collect(),
        vec![],
        vec![],
        vec![row(&["pg_catalog"]), row(&["public"])],
        vec![],
        vec![],
        vec![],
        vec![],
        vec![],
        vec![],
    ];
    Ok(Catalogue::build(&results)?)
}
