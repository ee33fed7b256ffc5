//! Settings that statements are read by stay as they are, whichever way they are asked to change.

use tests::World;

use crate::support::ran;

#[test]
fn what_statements_are_read_by_cannot_be_changed() {
    let world = World::new();
    let refused = [
        "SET search_path TO evil",
        "SET LOCAL search_path = evil, public",
        "SET SESSION search_path = ''",
        "RESET search_path",
        "SELECT set_config('search_path', 'evil', false)",
        "SELECT pg_catalog.set_config(setting_name => 'search_path', new_value => 'evil', is_local => true)",
        "SELECT set_config('search' || '_path', 'evil', false)",
        "SELECT set_config(name, 'evil', false) FROM pg_settings WHERE name = 'search_path'",
        "SET SCHEMA 'evil'",
        "SET ROLE postgres",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION postgres",
        "SELECT set_config('role', 'postgres', false)",
        "SET client_encoding TO 'SJIS'",
        "SET NAMES 'LATIN1'",
        "RESET client_encoding",
        "SET standard_conforming_strings = off",
        "SET backslash_quote = on",
        "SET session_replication_role = replica",
        "SET row_security = off",
        "SET no_such_setting = 1",
        "SET my.own = 1",
        "ALTER ROLE gateway SET search_path = evil",
        "ALTER ROLE ALL IN DATABASE orders SET standard_conforming_strings = off",
        "ALTER DATABASE orders SET search_path = evil",
        "ALTER SYSTEM SET search_path = evil",
    ];
    let script: String = refused.iter().map(|sql| format!("{sql};\n")).collect();
    // psql itself follows SET NAMES and the like only when the server says that it happened.
    let out = world.job(&["psql", "-XAt"]).stdin(format!("{script}SHOW search_path;\n")).run().ok();
    let denied = out.stderr.matches("denied by policy rule").count();
    assert_eq!(denied, refused.len(), "{out}");
    assert_eq!(out.text(), "\"public\"");
    for word in ["evil", "SJIS", "LATIN1", "replica"] {
        assert_eq!(ran(&world, word), 0, "{word} reached the server");
    }
}

#[test]
fn what_is_harmless_may_change_and_goes_back() {
    let world = World::new();
    let script = "SET DateStyle TO 'German';\nSHOW DateStyle;\nRESET ALL;\nSHOW search_path;\nDISCARD ALL;\nSHOW search_path;\n\
        BEGIN;\nSET LOCAL statement_timeout = '7s';\nSHOW statement_timeout;\nROLLBACK;\nSHOW statement_timeout;\n\
        SELECT set_config('TimeZone', 'Asia/Tokyo', false);\nSET search_path TO public;\nSET client_encoding TO 'UTF8';\nSET row_security = on;\n\
        SHOW standard_conforming_strings;\nSELECT count(*) FROM customers;\n";
    let out = world.job(&["psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-q"]).stdin(script).run().ok();
    assert_eq!(out.text(), "German, DMY\n\"public\"\n\"public\"\n7s\n0\nAsia/Tokyo\non\n200", "{out}");
}

#[test]
fn defaults_of_the_role_the_database_and_the_client_do_not_move_names() {
    let world = World::new();
    world.db.ask(
        "CREATE SCHEMA evil; CREATE VIEW evil.customers AS SELECT id, ssn AS name FROM public.customers; \
         GRANT USAGE ON SCHEMA evil TO public; GRANT SELECT ON evil.customers TO public; \
         CREATE FUNCTION evil.contact_of(int) RETURNS text LANGUAGE sql AS 'SELECT ssn FROM public.customers WHERE id = $1'; \
         ALTER ROLE gateway SET search_path = evil; ALTER DATABASE orders SET search_path = evil, public; \
         ALTER ROLE gateway IN DATABASE orders SET search_path = evil",
    );
    let sql = "SHOW search_path; SELECT name FROM customers WHERE id = 1; BEGIN; SELECT name FROM customers WHERE id = 2; ROLLBACK;";
    let psql = ["psql", "-XAtqc", sql];
    for before in [&[][..], &["env", "PGOPTIONS=-c search_path=evil"][..]] {
        let out = world.job(&[before, &psql[..]].concat()).run();
        // A client that asks for it may as well be refused.
        let text = out.text();
        assert!(
            text == "\"public\"\nCustomer 1\nCustomer 2" || (text.is_empty() && !before.is_empty()),
            "{out}"
        );
    }
}
