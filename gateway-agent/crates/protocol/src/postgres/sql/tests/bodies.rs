//! DO blocks and the bodies of functions.

use proptest::prelude::*;

use super::*;

/// What [`brief`] says, the commands inside, how columns are used, and whether something unseen is stored, decides rows
/// or makes it fail.
fn seen(statement: &Statement) -> String {
    let mut words = vec![brief(statement)];
    if !statement.nested.is_empty() {
        words.push(format!("({})", statement.nested.join(" ")));
    }
    let uses = uses(statement);
    words.extend((!uses.is_empty()).then(|| format!("[{uses}]")));
    for (flag, word) in [
        (statement.stores_unseen, "STORES"),
        (statement.filters_unseen, "FILTERS"),
        (statement.fails_unseen, "FAILS"),
    ] {
        words.extend(flag.then(|| word.to_owned()));
    }
    words.join(" ")
}

#[track_caller]
fn check(cases: &'static [(&str, &str)]) {
    let wrong: Vec<String> = on_big_stack(|| {
        let catalogue = catalogue();
        let differs = |(sql, expected): &(&str, &str)| {
            let seen = match analyse(sql, &catalogue, 1 << 16) {
                Ok(statements) => statements.iter().map(seen).collect::<Vec<_>>().join("; "),
                Err(refused) => format!("REFUSED {refused}"),
            };
            (seen != *expected).then(|| format!("{sql}\n  is  {seen}\n  not {expected}"))
        };
        cases.iter().filter_map(differs).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn blocks_are_what_is_inside() {
    check(&[
        ("DO 'BEGIN END'", "do code"),
        ("DO $$ BEGIN DELETE FROM t WHERE a = 1; END $$", "do code public.t! (delete) [t.a:p]"),
        (
            "DO LANGUAGE plpgsql $x$ DECLARE n int; BEGIN SELECT id INTO n FROM orders; UPDATE t SET a = n; END $x$",
            "do code public.orders public.t! (select update) [orders.id:os orders_2024.id:os t.a:w]",
        ),
        ("DO $$ BEGIN PERFORM pg_sleep(1); COMMIT; END $$", "do code pg_sleep() (commit)"),
        (
            "DO $$ BEGIN CREATE TABLE n (a int); DROP TABLE t; END $$",
            "do code n# public.t# (create_table drop_table)",
        ),
        ("DO $$ BEGIN SET search_path = evil; END $$", "do code search_path=evil (set)"),
        ("DO $$ BEGIN DO 'BEGIN DELETE FROM t; END'; END $$", "do code public.t! (delete do)"),
        (
            "DO $$ BEGIN RAISE NOTICE '%', (SELECT ssn FROM customers LIMIT 1); END $$",
            "do code public.customers (select) [customers.ssn:os]",
        ),
        (
            "DO $$ DECLARE r customers := (SELECT c FROM customers c LIMIT 1); BEGIN END $$",
            "do code public.customers (select) [customers.email:os customers.id:os customers.name:os customers.ssn:os]",
        ),
        (
            "DO $$ BEGIN IF EXISTS (SELECT FROM customers WHERE ssn = 'x') THEN PERFORM 1/0; END IF; END $$",
            "do code public.customers (select) [customers.ssn:p]",
        ),
    ]);
}

#[test]
fn variables_hide_behind_columns_only() {
    check(&[
        (
            "DO $$ DECLARE r record; n int := 1; BEGIN FOR r IN SELECT id FROM customers WHERE id > n LOOP UPDATE t SET a = r.id; END LOOP; END $$",
            "do code public.t! public.customers (select update) [customers.id:ops t.a:w]",
        ),
        (
            "DO $$ <<b>> DECLARE n int; BEGIN DELETE FROM orders WHERE id = b.n; INSERT INTO t VALUES (n); END $$",
            "do code public.orders! public.t! (delete insert) [orders.id:p orders_2024.id:p t.a:w]",
        ),
        (
            "DO $$ DECLARE k refcursor; n text; BEGIN FETCH k INTO n; INSERT INTO t VALUES (n); END $$",
            "do code public.t! (insert) [t.a:w] STORES",
        ),
        (
            "DO $$ BEGIN DELETE FROM t; EXCEPTION WHEN others THEN INSERT INTO t SELECT 1 WHERE SQLERRM LIKE 'x'; END $$",
            "do code public.t! (delete insert) [t.a:w] FILTERS FAILS",
        ),
        ("DO $$ DECLARE n text; BEGIN n := unseen('x'); END $$", "do code unseen() STORES"),
    ]);
}

#[test]
fn functions_do_not_know_their_arguments() {
    check(&[
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT a FROM t'",
            "create_function code public.t (select) [t.a:o]",
        ),
        ("CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'", "create_function code"),
        (
            "CREATE FUNCTION f(k int) RETURNS int LANGUAGE sql AS 'DELETE FROM t WHERE a = k; SELECT 1'",
            "create_function code public.t! (delete) [t.a:p] FILTERS",
        ),
        (
            "CREATE FUNCTION f(v text) RETURNS void LANGUAGE sql AS 'INSERT INTO t VALUES (1, f.v)'",
            "create_function code public.t! (insert) [t.a:w t.b:w] STORES",
        ),
        (
            "CREATE FUNCTION f(v text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', v; RETURN v; END'",
            "create_function code STORES",
        ),
        (
            "CREATE FUNCTION f(v billing.money, OUT x text) LANGUAGE plpgsql AS 'BEGIN x := ''a''; END'",
            "create_function code",
        ),
        (
            "CREATE FUNCTION f(v int) RETURNS TABLE (x int) LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT id FROM orders; END'",
            "create_function code public.orders (select) [orders.id:o orders_2024.id:o]",
        ),
        (
            "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT ssn FROM customers; END",
            "create_function code public.customers (select) [customers.ssn:o]",
        ),
        (
            "CREATE FUNCTION f(v text) RETURNS text RETURN (SELECT ssn FROM customers WHERE name = v)",
            "create_function code public.customers (return) [customers.name:p customers.ssn:o] FILTERS",
        ),
        (
            "CREATE PROCEDURE f(INOUT v int) LANGUAGE plpgsql AS 'BEGIN v := 1; ROLLBACK; END'",
            "create_procedure code (rollback)",
        ),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = evil AS 'SELECT 1'",
            "create_function code search_path=evil",
        ),
    ]);
}

#[test]
fn triggers_are_given_rows() {
    check(&[
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.seen := now(); RETURN NEW; END'",
            "create_function code now()",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (OLD.id); RETURN NULL; END'",
            "create_function code public.t! (insert) [t.a:w] STORES",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a := NEW.b; RETURN NEW; END'",
            "create_function code STORES",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN ROW(1, OLD.b); END'",
            "create_function code STORES",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF TG_OP = ''INSERT'' THEN DELETE FROM t; END IF; RETURN NULL; END'",
            "create_function code public.t! (delete)",
        ),
        (
            "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', tg_tag; END'",
            "create_function code",
        ),
        (
            "CREATE TRIGGER g AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION f()",
            "create_trigger ddl public.customers# f() [customers.email:s customers.id:s customers.name:s customers.ssn:s]",
        ),
    ]);
}

#[test]
fn what_cannot_be_seen_through() {
    let wrong: Vec<String> = on_big_stack(|| {
        let nested = (0..6).fold("DELETE FROM t".to_owned(), |inner, _| {
            format!("DO '{}'", format!("BEGIN {inner}; END").replace('\'', "''"))
        });
        let opaque = [
            "DO $$ BEGIN EXECUTE 'DROP TABLE t'; END $$",
            "DO $$ DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT 1' LOOP END LOOP; END $$",
            "DO LANGUAGE plpython3u 'x'",
            "DO LANGUAGE sql 'SELECT 1'",
            "DO 'BEGIN'",
            "DO 'BEGIN x := 1; END'",
            "DO '#option dump\nBEGIN END'",
            "DO $$ #variable_conflict use_variable\nBEGIN END $$",
            "DO $$ BEGIN PREPARE p AS SELECT 1; END $$",
            "DO $$ BEGIN LOAD 'x'; END $$",
            "DO $$ DECLARE m billing.money; BEGIN END $$",
            "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x.so', 'f'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'int4pl'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE 'PLPGSQL' AS 'BEGIN END'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELEC 1'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SUPPORT s AS 'SELECT 1'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql",
            "ALTER FUNCTION f() SECURITY DEFINER",
            &nested,
        ];
        let analysed = opaque.iter().map(|sql| (sql, offline(sql)));
        let clear =
            analysed.filter(|(_, seen)| !seen.as_ref().is_ok_and(|seen| seen.iter().all(|one| one.opaque)));
        clear.map(|(sql, seen)| format!("{sql}: {seen:?}")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Parts of bodies, put together at random.
const PARTS: &[&str] = &[
    "DECLARE",
    "BEGIN",
    "END",
    "END;",
    "EXCEPTION",
    "WHEN others THEN",
    "IF",
    "a > 1",
    "THEN",
    "ELSIF",
    "ELSE",
    "END IF;",
    "LOOP",
    "END LOOP;",
    "WHILE",
    "FOR r IN",
    "FOR i IN 1..3",
    "SELECT 1",
    "REVERSE",
    "a int;",
    "r record;",
    "r record := ROW(1);",
    "c CURSOR (k int) FOR SELECT k;",
    "k refcursor;",
    "v t.x%TYPE;",
    "w t%ROWTYPE;",
    "a := 1;",
    "r.x := 2;",
    "a[1] := 3;",
    "RETURN",
    "RETURN NEXT",
    "RETURN QUERY",
    ";",
    "RAISE NOTICE '%', a;",
    "EXECUTE 'x' USING a;",
    "INTO",
    "STRICT",
    "a,",
    "OPEN c(1);",
    "FETCH k INTO a;",
    "CLOSE k;",
    "GET STACKED DIAGNOSTICS a = MESSAGE_TEXT;",
    "PERFORM f(a);",
    "CALL p(a);",
    "COMMIT AND CHAIN;",
    "FOREACH a SLICE 1 IN ARRAY",
    "ARRAY[1]",
    "CASE a",
    "WHEN 1 THEN",
    "END CASE;",
    "<<l>>",
    "EXIT l WHEN a;",
    "CONTINUE;",
    "ASSERT a;",
    "NULL;",
    "(",
    ")",
    "'",
    "$$",
    "--\n",
    "/*",
    "*/",
    "#option dump",
    "ALIAS FOR $1;",
    "CONSTANT",
    "NOT NULL",
    "COLLATE \"C\"",
    "DEFAULT",
    "new.a := old.a;",
    "\"",
    "é",
    "..",
    "\\",
    "%",
    "DELETE FROM t;",
    "INSERT INTO t VALUES (a) RETURNING a INTO a;",
    "BEGIN DELETE FROM t; EXCEPTION WHEN division_by_zero THEN NULL; END;",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn odd_bodies_are_answered(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..24),
        header in proptest::sample::select(vec![
            "DO ", "DO LANGUAGE plpgsql ", "CREATE FUNCTION f(a int, INOUT b nosuch) LANGUAGE plpgsql AS ",
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS ", "CREATE FUNCTION f(VARIADIC text[]) RETURNS SETOF x.y LANGUAGE plpgsql AS ",
            "CREATE PROCEDURE p(a record) LANGUAGE plpgsql AS ", "CREATE FUNCTION f(a t%ROWTYPE) RETURNS TABLE (c int, d text) LANGUAGE plpgsql AS ",
            "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS ",
        ]),
        whole in any::<bool>(),
    ) {
        let inside = parts.join(" ");
        let body = if whole { format!("DECLARE a int; r record; k refcursor; BEGIN {inside} END") } else { inside };
        let sql = format!("{header}'{}'", body.replace('\'', "''"));
        // The kind is told, whatever is inside.
        let kinds = on_big_stack(move || offline(&sql).map(|all| all.iter().map(|one| one.kind).collect::<Vec<_>>()));
        let fine = kinds.as_ref().is_ok_and(|kinds| kinds.len() == 1 && kinds[0] != "unknown");
        let refused = kinds.as_ref().err().is_some_and(|refused| refused.not_sql || refused.reason.contains("too complex"));
        prop_assert!(fine || refused, "{kinds:?}");
    }
}
