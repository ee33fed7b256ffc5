//! Disguises of forbidden statements: none reaches the server.
//!
//! Every statement of `deny/cases.txt` is sent by a job as simple query, in the extended protocol and in a pipeline,
//! under a policy that lets little through. The server logs every statement that it is sent: what its log holds must be
//! in the list of what is allowed, and nothing in the database may have changed.

use std::collections::{BTreeMap, BTreeSet};

use tests::World;

use crate::suite;

const CASES: &str = include_str!("deny/cases.txt");
const POLICY: &str = include_str!("deny/policy.yaml");

/// What the client sends between two cases.
const BETWEEN: [&str; 4] = ["ROLLBACK", "CLOSE ALL", "DEALLOCATE ALL", "UNLISTEN *"];

/// Everything that a forbidden statement could change.
const STATE: &str = "SELECT (SELECT md5(string_agg(c::text, ',' ORDER BY id)) FROM customers c), \
     (SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o), (SELECT count(*) FROM secrets), \
     (SELECT count(*) FROM imports WHERE id > 5), (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), \
     (SELECT count(*) FROM pg_type), (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_database), \
     (SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_db_role_setting), \
     (SELECT md5(string_agg(relacl::text, ',' ORDER BY oid)) FROM pg_class), (SELECT count(*) FROM pg_replication_slots)";

#[test]
fn no_disguise_gets_a_forbidden_statement_to_the_server() {
    let world = World::builder().policy(POLICY).up();
    let before = world.db.ask(STATE);
    let cases = suite::read(CASES);
    let token = world.token().mint().expect("a token");
    let code = world.issuer.token("repo:acme/code:ref:refs/heads/main", "gateway-agent");
    let code = code.claim("repository", "acme/code").mint().expect("a token");
    let (coded, plain): (Vec<_>, Vec<_>) =
        cases.iter().partition(|case| case.tags.iter().any(|tag| tag == "code"));
    let mut ran = suite::run(&world, &token, &plain, b"5\tcopied\n");
    ran.extend(suite::run(&world, &code, &coded, b""));

    let mut allowed: BTreeSet<&str> = BETWEEN.into();
    for case in &cases {
        let last = if case.expected == "denied" { 1 } else { 0 };
        allowed.extend(case.steps.iter().rev().skip(last).map(String::as_str));
    }
    let mut wrong = Vec::new();
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &ran {
        *tally.entry(&one.case.expected).or_default() += 1;
        let first = one.outcome.errors.first();
        let refused = first.is_some_and(|(code, text)| match code.as_str() {
            "42501" => text.starts_with("denied by policy rule") || text.starts_with("the gateway does not"),
            // The server's own code for what is no SQL.
            "42601" => text.starts_with("denied by policy rule builtin:unparsable: not valid SQL: "),
            _ => false,
        });
        match one.case.expected.as_str() {
            "denied" if !refused => wrong.push(format!("{}: not refused: {first:?}", one.title())),
            "denied" if one.outcome.ended => wrong.push(format!("{}: the session ended", one.title())),
            "runs" if first.is_some() => wrong.push(format!("{}: {first:?}", one.title())),
            "denied" | "runs" => {}
            other => panic!("`{other}` is nothing to expect"),
        }
    }
    let log = world.db.log();
    let mut reached = BTreeSet::new();
    for line in log.lines().filter(|line| line.contains(" gateway@orders/")) {
        let logged = line.split_once("LOG:  statement: ").or_else(|| {
            let (_, rest) = line.split_once("LOG:  execute ")?;
            rest.split_once(": ")
        });
        let Some((_, text)) = logged else { continue };
        // The gateway's own reading of names.
        if line.contains(" gateway@orders/gateway ") {
            continue;
        }
        reached.insert(text);
        if !allowed.contains(text) {
            wrong.push(format!("REACHED the server: {text}"));
        }
    }
    for case in cases.iter().filter(|case| case.expected == "runs") {
        for step in &case.steps {
            assert!(reached.contains(step.as_str()), "the log does not show {step}, so it proves nothing");
        }
    }
    let denied = cases.iter().filter(|case| case.expected == "denied").count();
    println!("{denied} disguises and {} others, {} ways in all: {tally:?}", cases.len() - denied, ran.len());
    assert!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), ran.len(), wrong.join("\n"));
    assert_eq!(world.db.ask(STATE), before);
    assert!(denied >= 200);
    volatile_functions(&world, &world.token().mint().expect("a token"));
}

/// Volatile functions of the server that a rule need not name, by what they do. None changes anything that outlives the
/// session, reaches outside, or tells a value of a table or another session's statement.
const HARMLESS: &[(&str, &[&str])] = &[
    ("draws at random", &["gen_random_uuid", "random"]),
    ("looks at a clock", &["clock_timestamp", "timeofday"]),
    ("is what TABLESAMPLE names; SQL cannot call it", &["bernoulli", "system"]),
    ("tells of this session alone", &["current_query", "currval", "lastval", "pg_jit_available"]),
    ("gives back locks that this session took", &["pg_advisory_unlock_all"]),
    (
        "tells who waits for whom by process and object ids, as pg_locks does",
        &["pg_blocking_pids", "pg_lock_status", "pg_safe_snapshot_blocking_pids"],
    ),
    (
        "tells how a transaction ended, by an id that the caller has to know",
        &["pg_xact_commit_timestamp", "pg_xact_status", "txid_status"],
    ),
    (
        "tells a position in the log, or of a replica its state",
        &[
            "pg_current_wal_flush_lsn",
            "pg_current_wal_insert_lsn",
            "pg_current_wal_lsn",
            "pg_is_in_recovery",
            "pg_is_wal_replay_paused",
            "pg_last_wal_receive_lsn",
            "pg_last_wal_replay_lsn",
            "pg_last_xact_replay_timestamp",
        ],
    ),
    (
        "tells sizes on disk, which catalogue readers see as pages and rows in pg_class",
        &[
            "pg_database_size",
            "pg_indexes_size",
            "pg_relation_size",
            "pg_table_size",
            "pg_tablespace_size",
            "pg_total_relation_size",
        ],
    ),
    ("tells a sequence's counter, as pg_sequences does", &["pg_sequence_last_value"]),
    (
        "tells how tables are partitioned, as pg_inherits does",
        &["pg_partition_ancestors", "pg_partition_tree"],
    ),
    (
        "tells of the server's libraries and counters",
        &[
            "pg_collation_actual_version",
            "pg_database_collation_actual_version",
            "pg_notification_queue_usage",
            "pg_stat_have_stats",
        ],
    ),
];

/// Of the functions that the server itself calls volatile, no other gets through.
fn volatile_functions(world: &World, token: &str) {
    let names = "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace \
         AND provolatile = 'v' AND prokind = 'f' ORDER BY 1";
    let text: String =
        world.db.ask(names).lines().map(|name| format!("## denied {name}\nSELECT \"{name}\"()\n")).collect();
    let cases = suite::read(&text);
    assert!(cases.len() > 100, "{} volatile functions", cases.len());
    let ran = suite::run(world, token, &cases.iter().collect::<Vec<_>>(), b"");
    let passed: BTreeSet<&str> = ran
        .iter()
        .filter(|one| {
            let first = one.outcome.errors.first();
            !first.is_some_and(|(_, text)| text.starts_with("denied by policy rule"))
        })
        .map(|one| one.case.name.as_str())
        .filter(|name| !HARMLESS.iter().any(|(_, names)| names.contains(name)))
        .collect();
    assert!(passed.is_empty(), "volatile, and let through: {passed:?}");
}
