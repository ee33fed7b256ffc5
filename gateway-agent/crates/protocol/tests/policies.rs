//! The decisions expected of the shipped policies, with statements as this crate reads them.

use std::{fs, path::PathBuf};

use policy::{Policy, Source, Statement, UnixTime, kinds, testing};
use protocol::{http, kubernetes, postgres::sql, ssh};

fn source(name: &str) -> Source {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../policies").join(name);
    Source { name: name.into(), text: fs::read_to_string(path).unwrap() }
}

fn deep<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(sql::STACK).spawn(run).unwrap().join().unwrap()
}

fn analyse(text: &str) -> Result<Vec<Statement>, sql::Refused> {
    sql::analyse(text, &sql::Catalogue::empty(), 65_536)
}

#[test]
fn shipped_examples_decide_as_expected() {
    for name in ["postgres", "ssh", "https", "kubernetes"] {
        decides_as_expected("examples", name);
    }
    for name in ["packages", "git-forge", "containers"] {
        decides_as_expected("presets", name);
    }
}

fn decides_as_expected(folder: &'static str, name: &'static str) {
    let outcomes = deep(move || {
        let policy = Policy::load(&[source(&format!("{folder}/{name}.yaml"))]).unwrap();
        let cases = testing::cases(&source(&format!("{folder}/{name}.tests.yaml"))).unwrap();
        let read = |text: &str| ssh::command::read(text.as_bytes());
        testing::run(
            &policy,
            &cases,
            UnixTime(1_780_000_000),
            analyse,
            read,
            http::target::case,
            kubernetes::case,
        )
    });
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed())
        .map(|outcome| format!("{}:{} {}: {:?}", outcome.file, outcome.line, outcome.name, outcome.failures))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(outcomes.len() >= if folder == "examples" { 30 } else { 10 });
}

/// Rules name commands by kind; one that policy does not know could be in no rule.
#[test]
fn every_kind_is_one_that_rules_can_name() {
    const SQL: &[&str] = &[
        "BEGIN; COMMIT; ROLLBACK; SAVEPOINT a; RELEASE a; ROLLBACK TO a; START TRANSACTION",
        "PREPARE TRANSACTION 'x'; COMMIT PREPARED 'x'; ROLLBACK PREPARED 'x'",
        "SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED; SET x = 1; RESET x; RESET ALL; SHOW x",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "DISCARD ALL; DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; LISTEN a; UNLISTEN a; NOTIFY a",
        "PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p; DEALLOCATE ALL",
        "DECLARE c CURSOR FOR SELECT 1; FETCH c; MOVE c; CLOSE c",
        "SELECT 1; VALUES (1); TABLE t; SELECT 1 INTO t; EXPLAIN SELECT 1; EXPLAIN ANALYZE DELETE FROM t",
        "COPY t TO STDOUT; COPY t FROM STDIN; COPY t TO '/x'; COPY t FROM '/x'; COPY t TO PROGRAM 'x'",
        "INSERT INTO t VALUES (1); UPDATE t SET a = 1; DELETE FROM t; TRUNCATE t; REFRESH MATERIALIZED VIEW v",
        "VACUUM t; ANALYZE t; CLUSTER t; LOCK t; CHECKPOINT; REINDEX TABLE t; REINDEX INDEX i",
        "CREATE TABLE t (a int); CREATE TABLE t AS SELECT 1; CREATE VIEW v AS SELECT 1; CREATE INDEX i ON t (a)",
        "CREATE MATERIALIZED VIEW v AS SELECT 1; CREATE SEQUENCE s; CREATE SCHEMA s; CREATE TYPE e AS ENUM ('a')",
        "ALTER TABLE t ADD b int; ALTER TABLE t RENAME TO u; ALTER TABLE t OWNER TO x; ALTER SEQUENCE s RESTART",
        "ALTER VIEW v RENAME TO w; ALTER INDEX i RENAME TO j; ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b",
        "DROP TABLE t; DROP VIEW v; DROP INDEX i; DROP SCHEMA s; DROP FUNCTION f; DROP TYPE e; DROP DATABASE d",
        "COMMENT ON TABLE t IS 'x'; SECURITY LABEL ON TABLE t IS 'x'; IMPORT FOREIGN SCHEMA a FROM SERVER s INTO b",
        "GRANT SELECT ON t TO x; REVOKE SELECT ON t FROM x; GRANT a TO b; REVOKE a FROM b; DROP OWNED BY x",
        "CREATE ROLE a; CREATE USER a; CREATE GROUP a; ALTER ROLE a LOGIN; DROP ROLE a; REASSIGN OWNED BY a TO b",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x; CREATE POLICY p ON t; ALTER POLICY p ON t TO x",
        "DROP POLICY p ON t; CREATE USER MAPPING FOR a SERVER s; DROP USER MAPPING FOR a SERVER s",
        "ALTER SYSTEM SET x = 1; CREATE DATABASE d; ALTER DATABASE d SET x = 1; CREATE TABLESPACE a LOCATION '/x'",
        "CREATE EXTENSION e; ALTER EXTENSION e UPDATE; DROP EXTENSION e; CREATE LANGUAGE l; LOAD 'x'; CALL p()",
        "DO 'BEGIN END'; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() STABLE",
        "CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f(); CREATE RULE r AS ON INSERT TO t DO NOTHING",
        "CREATE EVENT TRIGGER g ON ddl_command_end EXECUTE FUNCTION f(); ALTER EVENT TRIGGER g DISABLE",
        "CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE t () SERVER s",
        "CREATE PUBLICATION p FOR TABLE t; CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p; DROP SUBSCRIPTION s",
        "CREATE DOMAIN d AS int; ALTER DOMAIN d DROP NOT NULL; CREATE AGGREGATE a (int) (sfunc = f, stype = int)",
        "CREATE CAST (a AS b) WITHOUT FUNCTION; CREATE COLLATION c (locale = 'C'); CREATE STATISTICS s ON a, b FROM t",
        "CREATE TEXT SEARCH CONFIGURATION c (parser = p); CREATE OPERATOR CLASS o FOR TYPE a USING btree AS STORAGE a",
    ];
    let statements = deep(|| SQL.iter().flat_map(|text| analyse(text).unwrap()).collect::<Vec<_>>());
    assert!(statements.len() > 120);
    for statement in &statements {
        for kind in statement.nested.iter().chain([&statement.kind]) {
            assert!(kinds::class_of(kind).is_some(), "{kind}");
        }
    }
}

#[test]
fn commands_inside_are_told() {
    let nested = |text: &'static str| deep(move || analyse(text).unwrap().remove(0).nested);
    assert_eq!(nested("WITH d AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM d"), ["delete"]);
    assert_eq!(nested("INSERT INTO a VALUES (1) ON CONFLICT (x) DO UPDATE SET y = 2"), ["update"]);
    assert!(nested("INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING").is_empty());
    let merge =
        "MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)";
    assert_eq!(nested(merge), ["delete", "insert"]);
    assert_eq!(nested("PREPARE p AS DELETE FROM a"), ["delete"]);
    assert_eq!(nested("COPY (DELETE FROM a RETURNING *) TO STDOUT"), ["delete"]);
    assert!(nested("EXPLAIN ANALYZE DELETE FROM a").contains(&"delete"));
    assert!(nested("SELECT 1").is_empty());
}
