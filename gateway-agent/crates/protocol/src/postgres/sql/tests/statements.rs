//! Kind, class, relations, functions and settings of statements.

use super::{brief, offline, on_big_stack};
use crate::postgres::sql::{Catalogue, Names, analyse_as};

/// Each statement as `brief` puts it, with names as written.
fn check(cases: &'static [(&str, &str)]) {
    on_big_stack(move || {
        for (sql, expected) in cases {
            let statements = analyse_as(sql, &Catalogue::empty(), 1 << 16, Names::AsWritten)
                .unwrap_or_else(|refused| panic!("{sql}: {refused}"));
            let found: Vec<String> = statements.iter().map(brief).collect();
            assert_eq!(found.join("; "), *expected, "{sql}");
        }
    });
}

pub(super) const QUERIES: &[(&str, &str)] = &[
    ("SELECT 1", "select read"),
    ("select * from users", "select read users"),
    ("SELECT * FROM public.users u WHERE u.id = $1", "select read public.users"),
    (r#"SELECT * FROM "Users""#, "select read Users"),
    ("SELECT * FROM Users", "select read users"),
    ("SELECT * FROM db.public.users", "select read public.users"),
    ("SELECT * FROM ONLY users", "select read users"),
    ("SELECT * FROM users *", "select read users"),
    ("SELECT 1 UNION TABLE secrets", "select read secrets"),
    ("TABLE secrets", "select read secrets"),
    ("VALUES (1, 2), (3, (SELECT max(id) FROM t))", "values read t max()"),
    (r#"SELECT U&"\0070assword" FROM accounts"#, "select read accounts"),
    ("SELECT 1; DELETE FROM orders", "select read; delete write orders!"),
    ("WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone", "select write orders!"),
    ("WITH x AS (INSERT INTO a SELECT * FROM b RETURNING id) SELECT 1", "select write a! b"),
    ("WITH x AS (UPDATE a SET v = 1) SELECT * FROM x", "select write a!"),
    ("SELECT * FROM a FOR UPDATE", "select write a!"),
    ("SELECT * FROM a, b FOR SHARE OF b", "select write a b!"),
    ("SELECT * FROM (SELECT * FROM a) s FOR UPDATE", "select write a!"),
    ("SELECT a.x INTO newt FROM a", "select_into ddl a newt#"),
    ("SELECT a INTO TEMP n FROM t UNION SELECT b FROM u", "select_into ddl t n# u"),
    ("SELECT set_config('search_path', 'evil', false)", "select read set_config() search_path=evil"),
    ("SELECT set_config('search' || '_path', 'evil', false)", "select read OPAQUE set_config()"),
    (
        "SELECT pg_catalog.set_config(setting_name => 'role', new_value => x, is_local => true) FROM t",
        "select read t pg_catalog.set_config() role=?",
    ),
    ("SELECT * FROM generate_series(1, 3) g", "select read generate_series()"),
    ("SELECT * FROM ROWS FROM (f(1), g(2)) WITH ORDINALITY", "select read f() g()"),
    ("SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.id = a.id) s", "select read a b"),
    ("SELECT * FROM a LEFT JOIN b ON f(a.x) = b.y CROSS JOIN c NATURAL JOIN d", "select read a b c d f()"),
    ("SELECT * FROM t TABLESAMPLE bernoulli (10)", "select read t"),
    ("SELECT * FROM XMLTABLE('/r' PASSING (SELECT d FROM docs) COLUMNS a int)", "select read docs"),
    (
        "SELECT * FROM t, JSON_TABLE(t.j, '$[*]' COLUMNS (id int PATH '$.id', NESTED PATH '$.x[*]' COLUMNS (y int)))",
        "select read t",
    ),
    (
        "SELECT a, count(*) FROM t GROUP BY GROUPING SETS ((a), ()) HAVING f(a) > 1",
        "select read t count() f()",
    ),
    (
        "SELECT rank() OVER (PARTITION BY a ORDER BY f(b)) FROM t WINDOW w AS (ORDER BY c)",
        "select read t f() rank()",
    ),
    (
        "SELECT (SELECT x FROM u WHERE u.id = t.id), EXISTS (SELECT 1 FROM v), ARRAY(SELECT y FROM w) FROM t",
        "select read t u v w",
    ),
    (
        "SELECT * FROM t WHERE id = ANY (SELECT id FROM u) AND (a, b) IN (SELECT c, d FROM v)",
        "select read t u v",
    ),
    ("SELECT CASE WHEN EXISTS (SELECT FROM s) THEN 1 END", "select read s"),
    (
        "SELECT 'secrets'::regclass, nextval('seq'), query_to_xml('select * from secrets', true, true, ''), pg_relation_size('x')",
        "select code OPAQUE nextval() query_to_xml() pg_relation_size()",
    ),
    ("SELECT pg_read_file('/etc/passwd')", "select code pg_read_file()"),
    ("SELECT * FROM dblink('dbname=x', 'select 1') AS t(a int)", "select code OPAQUE dblink()"),
    ("SELECT lo_export(1, '/tmp/x')", "select code lo_export()"),
    ("SELECT pg_sleep(1)", "select read pg_sleep()"),
    (
        r#"SELECT lower(a) COLLATE "C" FROM t ORDER BY upper(b) LIMIT (SELECT n FROM lim)"#,
        "select read t lim lower() upper()",
    ),
    ("SELECT a OPERATOR(pg_catalog.=) b, a OPERATOR(evil.+) b FROM t", "select read t evil.+()"),
    ("SELECT * FROM pg_class", "select read pg_class"),
    (
        "SELECT * FROM pg_catalog.pg_class c JOIN information_schema.tables ON true",
        "select read pg_catalog.pg_class information_schema.tables",
    ),
    ("WITH a AS (SELECT * FROM t) SELECT * FROM a", "select read t"),
    ("WITH t AS (SELECT * FROM t) SELECT * FROM t", "select read t"),
    ("WITH t AS (SELECT 1) SELECT * FROM public.t", "select read public.t"),
    ("WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "select read"),
    ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "select read b"),
    (
        "WITH RECURSIVE r AS (SELECT id FROM t UNION ALL SELECT t.id FROM t, r WHERE t.p = r.id) SELECT * FROM r",
        "select read t",
    ),
    ("SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) s, x", "select read x"),
    (
        "SELECT EXTRACT(year FROM d), d AT TIME ZONE 'UTC', substring(a FROM 1), trim(b), coalesce(c, 1), current_date FROM t",
        "select read t pg_catalog.extract() pg_catalog.timezone() pg_catalog.substring() pg_catalog.btrim()",
    ),
    (
        "SELECT array_agg(a ORDER BY b) FILTER (WHERE c > 1), percentile_cont(0.5) WITHIN GROUP (ORDER BY d) FROM t",
        "select read t array_agg() percentile_cont()",
    ),
    ("SELECT JSON_OBJECT('a': x), JSON_ARRAYAGG(y), JSON_VALUE(j, '$.a') FROM t", "select read t"),
    (
        "SELECT xmlelement(name a, xmlattributes(b), c), xmlserialize(content d AS text) FROM t",
        "select read t",
    ),
    ("SELECT * FROM (VALUES (1, 'a')) v(x, y)", "select read"),
    ("SELECT * FROM a AS x (p, q)", "select read a"),
    (";;", ""),
    ("-- nothing", ""),
    (r#"SELECT 'it''s; DROP TABLE x', $$ ; DELETE $$, E'\'; DROP TABLE y; --'"#, "select read"),
    (
        r#"SELECT "a.b".c, "public.users"."x" FROM "public.users", "pg_catalog.lower"(1)"#,
        r#"select read public.users "pg_catalog.lower"()"#,
    ),
    ("SELECT ümlaut, ÜMLAUT FROM Ünicode", "select read Ünicode"),
    ("SELECT (ROW(a, b)).f1, (c).d, e[1], f[g:h] FROM t", "select read t"),
    ("SELECT * FROM t WHERE a = $1 AND /* WHERE */ b IN ($2, $3)", "select read t"),
    ("SELECT * FROM (a CROSS JOIN b) JOIN c USING (id)", "select read a b c"),
    (
        "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x IN (SELECT y FROM c WHERE z = (SELECT max(w) FROM d)))",
        "select read a b c d max()",
    ),
    ("SELECT pg_catalog.lower(a), public.lower(a) FROM t", "select read t pg_catalog.lower() public.lower()"),
    (
        "SELECT pg_advisory_lock(1), pg_notify('a', 'b'), pg_terminate_backend(1)",
        "select utility pg_advisory_lock() pg_notify() pg_terminate_backend()",
    ),
    ("SELECT setval('s', 1)", "select write setval()"),
    ("(SELECT 1 FROM a) EXCEPT (TABLE b) ORDER BY 1", "select read a b"),
];

/// Reading, whatever it looks like.
#[test]
fn queries() {
    check(QUERIES);
}

pub(super) const CHANGES: &[(&str, &str)] = &[
    ("/**/DELETE/**/FROM orders", "delete write orders!"),
    ("DELETE FROM orders -- WHERE id = 1", "delete write orders!"),
    ("TRUNCATE a, ONLY b", "truncate write a! b!"),
    ("TRUNCATE a CASCADE", "truncate write OPAQUE a!"),
    (
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.x > 1 THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, lower(s.v)) WHEN MATCHED THEN DELETE",
        "merge write t! s lower()",
    ),
    ("INSERT INTO t VALUES (1)", "insert write t!"),
    ("INSERT INTO t (a, b) SELECT a, b FROM s.u", "insert write t! s.u"),
    (
        "INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET b = excluded.a WHERE t.c > 1 RETURNING id",
        "insert write t!",
    ),
    ("INSERT INTO t DEFAULT VALUES", "insert write t!"),
    ("UPDATE t SET a = 1", "update write t!"),
    ("UPDATE t SET a = o.b FROM other o WHERE o.id = t.id RETURNING t.*", "update write t! other"),
    ("UPDATE t SET (a, b) = (SELECT x, y FROM u) WHERE CURRENT OF c", "update write t! u"),
    ("DELETE FROM t USING u WHERE t.id = u.id", "delete write t! u"),
    ("DELETE FROM t", "delete write t!"),
    ("COPY t TO STDOUT", "copy_to_stdout read t"),
    ("COPY t (a, b) FROM STDIN WITH (FORMAT csv)", "copy_from_stdin write t!"),
    ("COPY (SELECT a FROM t) TO STDOUT", "copy_to_stdout read t"),
    ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "copy_to_stdout write t!"),
    ("COPY t TO '/tmp/x'", "copy_to_file code t"),
    ("COPY t FROM '/etc/passwd'", "copy_from_file code t!"),
    ("COPY t TO PROGRAM 'curl x'", "copy_to_program code t"),
    ("COPY t FROM PROGRAM 'id'", "copy_from_program code t!"),
    ("WITH t AS (SELECT 1) DELETE FROM t", "delete write t!"),
    ("UPDATE pg_settings SET setting = 'x' WHERE name = 'role'", "update write OPAQUE pg_settings!"),
    ("INSERT INTO t TABLE u", "insert write t! u"),
    ("COPY (VALUES (1)) TO STDOUT WITH (FORMAT binary)", "copy_to_stdout read"),
    ("COPY s.t FROM STDIN WHERE f(a)", "copy_from_stdin write s.t! f()"),
    ("COPY (SELECT * FROM a, b) TO PROGRAM 'x'", "copy_to_program code a b"),
];

/// Changing rows, and COPY.
#[test]
fn changes() {
    check(CHANGES);
}

pub(super) const DEFINITIONS: &[(&str, &str)] = &[
    ("DROP/**/TABLE users", "drop_table ddl users#"),
    ("drop table if exists a, s.b cascade", "drop_table ddl OPAQUE a# s.b#"),
    ("DROP TABLE a", "drop_table ddl a#"),
    ("DROP VIEW v", "drop_view ddl v#"),
    ("DROP INDEX CONCURRENTLY s.i", "drop_index ddl s.i#"),
    ("DROP SCHEMA app", "drop_schema ddl OPAQUE"),
    ("DROP FUNCTION f(int)", "drop_function ddl"),
    ("DROP TRIGGER tr ON s.t", "drop_trigger ddl s.t#"),
    ("DROP TYPE ty", "drop_type ddl"),
    ("DROP EXTENSION e", "drop_extension ddl OPAQUE"),
    ("DROP DATABASE d", "drop_database ddl OPAQUE"),
    ("CREATE TABLE n AS SELECT * FROM t", "create_table_as ddl n# t"),
    ("CREATE TABLE n AS EXECUTE p(1)", "create_table_as ddl n# runs prepared:p"),
    (
        "CREATE TABLE t (id serial PRIMARY KEY, r int REFERENCES s.other (id), c text DEFAULT f('x'), CHECK (g(c) > 1), LIKE tmpl)",
        "create_table ddl t# s.other tmpl f() g()",
    ),
    ("CREATE TABLE t2 (x int) INHERITS (t)", "create_table ddl t2# t"),
    ("CREATE TABLE p PARTITION OF parent FOR VALUES FROM (1) TO (2)", "create_table ddl p# parent"),
    ("CREATE TEMP TABLE x (a int)", "create_table ddl x#"),
    ("CREATE VIEW v AS SELECT a, b FROM t JOIN u USING (id)", "create_view ddl v# t u"),
    ("CREATE MATERIALIZED VIEW mv AS SELECT * FROM t", "create_materialized_view ddl mv# t"),
    ("REFRESH MATERIALIZED VIEW mv", "refresh_materialized_view write mv!"),
    ("CREATE INDEX i ON t (lower(a)) WHERE b > 1", "create_index ddl t# lower()"),
    ("CREATE UNIQUE INDEX CONCURRENTLY ON s.t (a)", "create_index ddl s.t#"),
    ("ALTER TABLE t ADD COLUMN c int DEFAULT nextval('s'), DROP COLUMN d", "alter_table ddl t# nextval()"),
    ("ALTER TABLE t OWNER TO bob", "alter_table privilege t#"),
    ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "alter_table privilege t#"),
    ("ALTER TABLE t RENAME TO u", "alter_table ddl t#"),
    ("ALTER TABLE t RENAME COLUMN a TO b", "alter_table ddl t#"),
    ("ALTER TABLE t SET SCHEMA s", "alter_table ddl t#"),
    ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (b)", "alter_table ddl t# u"),
    ("ALTER TABLE t ATTACH PARTITION p FOR VALUES IN (1)", "alter_table ddl t# p#"),
    ("ALTER TABLE t ALTER c TYPE int USING f(c)", "alter_table ddl t# f()"),
    ("ALTER SEQUENCE s OWNED BY t.a", "alter_sequence ddl s# t"),
    ("ALTER VIEW v OWNER TO bob", "alter_view privilege v#"),
    ("ALTER FUNCTION f(int) OWNER TO bob", "alter_function privilege"),
    ("CREATE ROLE x LOGIN", "create_role privilege"),
    ("CREATE USER x PASSWORD 'y'", "create_user privilege"),
    (
        "CREATE POLICY p ON t USING (owner = current_user AND id IN (SELECT id FROM acl))",
        "create_policy privilege t# acl",
    ),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "create_function code"),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a FROM t; END",
        "create_function code t",
    ),
    ("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN END'", "create_procedure code"),
    (
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW WHEN (new.a > 1) EXECUTE FUNCTION f()",
        "create_trigger ddl t# f()",
    ),
    ("CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (new.a)", "create_rule ddl t# log!"),
    ("CREATE EXTENSION dblink", "create_extension code OPAQUE"),
    (
        "CREATE OPERATOR === (leftarg = text, rightarg = text, function = pg_read_file)",
        "create_operator code pg_read_file()",
    ),
    ("CREATE AGGREGATE agg (int) (sfunc = evil, stype = int)", "create_aggregate ddl evil()"),
    ("CREATE CAST (text AS int) WITH FUNCTION f(text)", "create_cast ddl f()"),
    ("CREATE TYPE mood AS ENUM ('a')", "create_type ddl"),
    ("CREATE TYPE comp AS (a int)", "create_type ddl"),
    ("CREATE DOMAIN d AS int CHECK (value > f(1))", "create_domain ddl f()"),
    ("CREATE SEQUENCE s", "create_sequence ddl s#"),
    ("CREATE SCHEMA s CREATE TABLE t (a int)", "create_schema ddl t#"),
    ("CREATE SCHEMA s AUTHORIZATION bob", "create_schema privilege"),
    ("CREATE DATABASE d", "create_database ddl"),
    ("CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p", "create_subscription privilege OPAQUE"),
    ("CREATE PUBLICATION p FOR TABLE t WHERE (a > 1)", "create_publication ddl t"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER f", "create_server privilege"),
    ("CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()", "create_event_trigger code f()"),
    ("CREATE STATISTICS s ON a, b FROM t", "create_statistics ddl t"),
    ("COMMENT ON TABLE t IS 'x'", "comment ddl t#"),
    ("COMMENT ON COLUMN s.t.c IS 'x'", "comment ddl s.t#"),
    ("IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", "import_foreign_schema ddl OPAQUE"),
    ("CREATE TABLE n AS TABLE u", "create_table_as ddl n# u"),
    ("CREATE UNLOGGED TABLE IF NOT EXISTS s.n (LIKE o INCLUDING ALL)", "create_table ddl s.n# o"),
    ("ALTER TABLE ONLY s.t DISABLE TRIGGER ALL", "alter_table ddl s.t#"),
    ("ALTER TABLE IF EXISTS t DROP COLUMN c CASCADE", "alter_table ddl OPAQUE t#"),
    ("ALTER TYPE mood ADD VALUE 'c'", "alter_type ddl"),
    ("ALTER INDEX i RENAME TO j", "alter_index ddl i#"),
    ("ALTER MATERIALIZED VIEW mv RENAME TO nv", "alter_materialized_view ddl mv#"),
    ("DROP FOREIGN TABLE ft", "drop_foreign_table ddl ft#"),
    ("DROP RULE r ON t", "drop_rule ddl t#"),
    ("DROP SEQUENCE s.q", "drop_sequence ddl s.q#"),
    ("CREATE FOREIGN TABLE ft (a int) SERVER s", "create_foreign_table ddl ft#"),
    ("CREATE USER MAPPING FOR bob SERVER s OPTIONS (password 'x')", "create_user_mapping privilege"),
    ("CREATE LANGUAGE plfoo HANDLER h", "create_language code OPAQUE h()"),
    ("CREATE ACCESS METHOD m TYPE INDEX HANDLER h", "create_access_method code h()"),
    ("CREATE TABLESPACE ts LOCATION '/x'", "create_tablespace privilege"),
];

/// Objects.
#[test]
fn definitions() {
    check(DEFINITIONS);
}

pub(super) const PRIVILEGES: &[(&str, &str)] = &[
    ("DROP OWNED BY bob", "drop_owned privilege OPAQUE"),
    ("DROP POLICY p ON t", "drop_policy privilege t#"),
    ("DROP ROLE bob", "drop_role privilege"),
    ("ALTER ROLE bob SUPERUSER", "alter_role privilege"),
    ("ALTER ROLE bob SET search_path = x", "alter_role privilege search_path=x"),
    ("ALTER DATABASE d SET x.y = 1", "alter_database privilege x.y=1"),
    ("ALTER SYSTEM SET archive_command = 'x'", "alter_system privilege archive_command=x"),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bob", "alter_default_privileges privilege OPAQUE"),
    ("GRANT SELECT ON t, s.u TO bob", "grant privilege t# s.u#"),
    ("GRANT ALL ON ALL TABLES IN SCHEMA s TO bob", "grant privilege OPAQUE"),
    ("GRANT admin TO bob", "grant_role privilege"),
    ("REVOKE ALL ON SCHEMA s FROM public", "revoke privilege"),
    ("REASSIGN OWNED BY a TO b", "reassign_owned privilege OPAQUE"),
    ("SECURITY LABEL ON TABLE t IS 'x'", "security_label privilege t#"),
    ("ALTER POLICY p ON t USING (f(a))", "alter_policy privilege t# f()"),
    ("DROP USER MAPPING FOR bob SERVER s", "drop_user_mapping privilege"),
    ("DROP SUBSCRIPTION s", "drop_subscription privilege"),
    ("GRANT SELECT (a, b), UPDATE ON t TO bob WITH GRANT OPTION", "grant privilege t#"),
    ("GRANT EXECUTE ON FUNCTION f(int) TO bob", "grant privilege"),
    ("REVOKE admin FROM bob", "revoke_role privilege"),
];

/// Who may do what.
#[test]
fn privileges() {
    check(PRIVILEGES);
}

pub(super) const THE_SESSION: &[(&str, &str)] = &[
    ("EXPLAIN DELETE FROM t", "explain read t!"),
    ("EXPLAIN ANALYZE DELETE FROM t", "explain_analyze write t!"),
    ("EXPLAIN (ANALYZE false) DELETE FROM t", "explain read t!"),
    ("EXPLAIN (ANALYZE, VERBOSE) SELECT f(a) FROM t", "explain_analyze read t f()"),
    ("EXPLAIN EXECUTE p", "explain read runs prepared:p"),
    ("PREPARE p AS DELETE FROM t WHERE id = $1", "prepare write t! makes prepared:p"),
    ("PREPARE p (int) AS SELECT * FROM t WHERE id = $1", "prepare read t makes prepared:p"),
    ("EXECUTE p (1, (SELECT 2))", "execute read runs prepared:p"),
    ("DEALLOCATE p", "deallocate session"),
    ("DEALLOCATE ALL", "deallocate_all session"),
    ("DECLARE c CURSOR FOR SELECT * FROM t", "declare read t makes cursor:c"),
    ("FETCH 10 FROM c", "fetch session runs cursor:c"),
    ("MOVE c", "move session runs cursor:c"),
    ("CLOSE c", "close session"),
    ("DO $$ BEGIN DELETE FROM t; END $$", "do code t!"),
    ("CALL s.p(1, f(2))", "call code f() s.p()"),
    ("SET search_path = evil, public", "set session search_path=evil, public"),
    ("SET LOCAL search_path TO 'a'", "set session search_path=a"),
    ("SET ROLE bob", "set session role=bob"),
    ("SET SESSION AUTHORIZATION bob", "set session session_authorization=bob"),
    ("RESET ROLE", "reset session role=?"),
    ("SET TIME ZONE 'UTC'", "set session timezone=UTC"),
    ("SET NAMES 'SQL_ASCII'", "set session client_encoding=SQL_ASCII"),
    ("SET Standard_Conforming_Strings = off", "set session standard_conforming_strings=off"),
    ("SET x TO DEFAULT", "set session x=?"),
    ("RESET ALL", "reset_all session all=?"),
    ("DISCARD ALL", "discard_all session all=?"),
    ("DISCARD TEMP", "discard_temp session"),
    ("SHOW search_path", "show session"),
    ("SHOW ALL", "show session"),
    (
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "set_transaction transaction transaction_isolation=serializable",
    ),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "set_session_characteristics session default_transaction_read_only=on",
    ),
    ("BEGIN", "begin transaction"),
    ("BEGIN READ WRITE", "begin transaction transaction_read_only=off"),
    ("START TRANSACTION", "start_transaction transaction"),
    ("COMMIT AND CHAIN", "commit transaction"),
    ("ROLLBACK", "rollback transaction"),
    ("ABORT", "rollback transaction"),
    ("END", "commit transaction"),
    ("SAVEPOINT a", "savepoint transaction"),
    ("RELEASE a", "release_savepoint transaction"),
    ("ROLLBACK TO a", "rollback_to_savepoint transaction"),
    ("PREPARE TRANSACTION 'x'", "prepare_transaction transaction"),
    ("COMMIT PREPARED 'x'", "commit_prepared transaction"),
    ("SET CONSTRAINTS ALL DEFERRED", "set_constraints transaction"),
    ("LISTEN ch", "listen session"),
    ("UNLISTEN *", "unlisten session"),
    ("NOTIFY ch, 'payload'", "notify write"),
    ("LOCK t IN ACCESS EXCLUSIVE MODE", "lock utility t!"),
    ("LOAD 'x.so'", "load code OPAQUE"),
    ("VACUUM", "vacuum utility OPAQUE"),
    ("VACUUM ANALYZE t, s.u (a)", "vacuum utility t! s.u!"),
    ("ANALYZE t", "analyze utility t!"),
    ("CLUSTER t USING i", "cluster utility t!"),
    ("REINDEX TABLE t", "reindex_table utility t!"),
    ("REINDEX DATABASE d", "reindex_database utility OPAQUE"),
    ("CHECKPOINT", "checkpoint utility"),
    ("EXPLAIN (FORMAT json) SELECT a FROM t WHERE b = 1", "explain read t"),
    ("EXPLAIN ANALYZE CREATE TABLE n AS SELECT * FROM t", "explain_analyze ddl n# t"),
    ("EXPLAIN (ANALYZE off, ANALYZE on) UPDATE t SET a = 1", "explain_analyze write t!"),
    ("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT * FROM t FOR UPDATE", "declare write t! makes cursor:c"),
    (r#"FETCH ALL FROM "C""#, "fetch session runs cursor:C"),
    ("RESET search_path", "reset session search_path=?"),
    ("SET LOCAL ROLE NONE", "set session role=none"),
    ("SET a.b = 1", "set session a.b=1"),
    ("SET datestyle = ISO, DMY", "set session datestyle=iso, dmy"),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "set_session_characteristics session default_transaction_isolation=read committed",
    ),
    (
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        "begin transaction transaction_isolation=serializable transaction_read_only=on transaction_deferrable=on",
    ),
    ("ROLLBACK PREPARED 'x'", "rollback_prepared transaction"),
];

/// The session, transactions and maintenance.
#[test]
fn the_session() {
    check(THE_SESSION);
}

#[test]
fn system_relations_are_found_in_their_schema() {
    on_big_stack(|| {
        let statement = offline("SELECT * FROM pg_class, pg_toast.x, users").unwrap().remove(0);
        assert_eq!(brief(&statement), "select read pg_catalog.pg_class pg_toast.x users");
    });
}
