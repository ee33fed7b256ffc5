//! Where result columns come from, and what columns are used for.

use super::{Catalogue, analyse, catalogue, on_big_stack, outputs, uses};

fn check(catalogue: fn() -> Catalogue, cases: &'static [(&str, &str, &str)]) {
    on_big_stack(move || {
        let catalogue = catalogue();
        let mut wrong = Vec::new();
        for (sql, expected, used) in cases {
            let statements =
                analyse(sql, &catalogue, 1 << 16).unwrap_or_else(|refused| panic!("{sql}: {refused}"));
            let seen = (outputs(&statements[0]), uses(&statements[0]));
            if (seen.0.as_str(), seen.1.as_str()) != (*expected, *used) {
                wrong.push(format!("{sql}\n  outputs {}\n  uses    {}", seen.0, seen.1));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// With the functions and the operator that `catalogue` knows. `!` = decided by, or stores, what cannot be told.
#[test]
fn known_functions() {
    check(
        catalogue,
        &[
            ("SELECT secret_of(1)", "[customers.ssn]", "customers.id:p customers.ssn:o"),
            ("SELECT secret_of(a) FROM t", "[customers.ssn]", "customers.id:p customers.ssn:o t.a:p"),
            ("SELECT name_of(a) FROM t", "[customers.name]", "customers.id:p customers.name:o t.a:p"),
            ("SELECT is_ssn('1')", "[]", "customers.ssn:p"),
            (
                "SELECT shout(email), twice(name) FROM customers",
                "[customers.email] [customers.name]",
                "customers.email:o customers.name:o",
            ),
            ("SELECT a ### 'x' FROM t", "[customers.ssn t.a]", "customers.id:p customers.ssn:o t.a:op"),
            ("SELECT a FROM t WHERE a ### 'x' = ''", "[t.a]", "customers.id:p customers.ssn:p t.a:op"),
            ("SELECT unseen(a) FROM t", "?", "t.a:o"),
            ("SELECT a FROM t WHERE unseen(1)", "[t.a]", "t.a:o"),
            ("SELECT keeper()", "?", ""),
            (
                "SELECT name FROM rows_of()",
                "[customers.email customers.id customers.name customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            ("SELECT b FROM t", "[t.a t.b]", "t.a:o t.b:o"),
            (
                "SELECT total FROM orders",
                "[orders.total orders_2024.total]",
                "orders.total:o orders_2024.total:o",
            ),
            (
                "SELECT mail FROM v WHERE id = 1",
                "[customers.email v.mail]",
                "customers.email:o customers.id:p v.id:p v.mail:o",
            ),
        ],
    );
}

/// With the relations that `catalogue` knows.
#[test]
fn known_relations() {
    check(
        catalogue,
        &[
            (
                "SELECT id, email AS e FROM customers",
                "[customers.id] [customers.email]",
                "customers.email:o customers.id:o",
            ),
            (
                "SELECT * FROM customers",
                "[customers.id] [customers.name] [customers.email] [customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT c.*, o.total FROM customers c JOIN orders o ON o.customer_id = c.id",
                "[customers.id] [customers.name] [customers.email] [customers.ssn] [orders.total orders_2024.total]",
                "customers.email:o customers.id:op customers.name:o customers.ssn:o orders.customer_id:p orders.total:o orders_2024.customer_id:p orders_2024.total:o",
            ),
            (
                "SELECT lower(email) || name, count(*), 1 FROM customers GROUP BY name",
                "[customers.email customers.name] [] []",
                "customers.email:o customers.name:op",
            ),
            (
                "SELECT row_to_json(c) FROM customers c",
                "[customers.email customers.id customers.name customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT c FROM customers c",
                "[customers.email customers.id customers.name customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT customers FROM customers",
                "[customers.email customers.id customers.name customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT c.row_to_json FROM customers c",
                "[customers.email customers.id customers.name customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT c.myfunc FROM customers c",
                "?",
                "customers.email:op customers.id:op customers.name:op customers.ssn:op",
            ),
            (
                "SELECT (c).email, (c).* FROM customers c",
                "unknown",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT x FROM (SELECT email AS x, id FROM customers) s",
                "[customers.email]",
                "customers.email:o customers.id:",
            ),
            (
                "SELECT s.* FROM (SELECT email, id + 1 FROM customers) s",
                "[customers.email] [customers.id]",
                "customers.email:o customers.id:o",
            ),
            (
                "SELECT q FROM (SELECT email, id FROM customers) s (p, q)",
                "[customers.id]",
                "customers.email: customers.id:o",
            ),
            (
                "WITH w AS (SELECT ssn AS s FROM customers) SELECT s, s || 'x' FROM w",
                "[customers.ssn] [customers.ssn]",
                "customers.ssn:o",
            ),
            (
                "WITH w (p) AS (SELECT ssn FROM customers) SELECT p FROM w",
                "[customers.ssn]",
                "customers.ssn:o",
            ),
            (
                "SELECT id FROM orders UNION ALL SELECT ssn FROM customers",
                "[customers.ssn orders.id orders_2024.id]",
                "customers.ssn:o orders.id:o orders_2024.id:o",
            ),
            (
                "SELECT id FROM orders UNION SELECT ssn FROM customers",
                "[customers.ssn orders.id orders_2024.id]",
                "customers.ssn:op orders.id:op orders_2024.id:op",
            ),
            ("SELECT ssn FROM customers INTERSECT SELECT '123'", "[customers.ssn]", "customers.ssn:op"),
            ("SELECT id FROM customers JOIN v USING (id)", "[customers.id v.id]", "customers.id:op v.id:op"),
            (
                "SELECT * FROM customers NATURAL JOIN orders",
                "[customers.id orders.id orders_2024.id] [customers.name] [customers.email] [customers.ssn] [orders.customer_id orders_2024.customer_id] [orders.total orders_2024.total]",
                "customers.email:o customers.id:op customers.name:o customers.ssn:o orders.customer_id:o orders.id:op orders.total:o orders_2024.customer_id:o orders_2024.id:op orders_2024.total:o",
            ),
            (
                "SELECT * FROM customers JOIN orders USING (id)",
                "[customers.id orders.id orders_2024.id] [customers.name] [customers.email] [customers.ssn] [orders.customer_id orders_2024.customer_id] [orders.total orders_2024.total]",
                "customers.email:o customers.id:op customers.name:o customers.ssn:o orders.customer_id:o orders.id:op orders.total:o orders_2024.customer_id:o orders_2024.id:op orders_2024.total:o",
            ),
            (
                "SELECT u.id FROM customers JOIN orders USING (id) AS u",
                "[customers.id orders.id orders_2024.id]",
                "customers.id:op orders.id:op orders_2024.id:op",
            ),
            (
                "SELECT j.ssn FROM (customers JOIN orders USING (id)) j",
                "[customers.ssn]",
                "customers.id:p customers.ssn:o orders.id:p orders_2024.id:p",
            ),
            (
                "SELECT mail, id FROM v",
                "[customers.email v.mail] [customers.id v.id]",
                "customers.email:o customers.id:o v.id:o v.mail:o",
            ),
            (
                "SELECT total FROM orders_2024",
                "[orders.total orders_2024.total]",
                "orders.total:o orders_2024.total:o",
            ),
            (
                "SELECT CASE WHEN ssn = '1' THEN 1 ELSE 0 END FROM customers",
                "[customers.ssn]",
                "customers.ssn:o",
            ),
            (
                "SELECT (SELECT email FROM customers c WHERE c.id = o.customer_id AND ssn > '1') FROM orders o",
                "[customers.email]",
                "customers.email:o customers.id:p customers.ssn:p orders.customer_id:p orders_2024.customer_id:p",
            ),
            ("SELECT EXISTS (SELECT 1 FROM customers WHERE ssn = '1')", "[]", "customers.ssn:p"),
            (
                "SELECT id FROM customers WHERE ssn LIKE '1%' ORDER BY email LIMIT 1",
                "[customers.id]",
                "customers.email:p customers.id:o customers.ssn:p",
            ),
            ("SELECT id AS ssn FROM customers ORDER BY ssn", "[customers.id]", "customers.id:op"),
            ("SELECT ssn AS x FROM customers ORDER BY x", "[customers.ssn]", "customers.ssn:op"),
            (
                "SELECT ssn, id FROM customers ORDER BY 1",
                "[customers.ssn] [customers.id]",
                "customers.id:o customers.ssn:op",
            ),
            ("SELECT ssn AS x, count(*) FROM customers GROUP BY x", "[customers.ssn] []", "customers.ssn:op"),
            (
                "SELECT email, count(*) FROM customers GROUP BY 1 HAVING max(ssn) > '1'",
                "[customers.email] []",
                "customers.email:op customers.ssn:p",
            ),
            ("SELECT DISTINCT email FROM customers", "[customers.email]", "customers.email:op"),
            (
                "SELECT DISTINCT ON (ssn) id FROM customers",
                "[customers.id]",
                "customers.id:o customers.ssn:p",
            ),
            (
                "SELECT rank() OVER (PARTITION BY ssn ORDER BY email) FROM customers",
                "[]",
                "customers.email:p customers.ssn:p",
            ),
            (
                "SELECT sum(total) FILTER (WHERE id > 1) OVER w FROM orders WINDOW w AS (ORDER BY customer_id)",
                "[orders.total orders_2024.total]",
                "orders.customer_id:p orders.id:p orders.total:o orders_2024.customer_id:p orders_2024.id:p orders_2024.total:o",
            ),
            (
                "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ssn) FROM customers",
                "[customers.ssn]",
                "customers.ssn:op",
            ),
            ("SELECT evil(email), lower(email) FROM customers", "? [customers.email]", "customers.email:op"),
            ("SELECT x FROM evil(1) AS f (x int)", "?", ""),
            ("SELECT g FROM generate_series(1, 3) g", "[]", ""),
            ("SELECT * FROM unnest(ARRAY[1]) u", "unknown", ""),
            (
                "SELECT key FROM customers, json_each(row_to_json(customers))",
                "[customers.email customers.id customers.name customers.ssn]",
                "customers.email:op customers.id:op customers.name:op customers.ssn:op",
            ),
            ("SELECT * FROM json_each('{}')", "unknown", ""),
            (
                "INSERT INTO t (a, b) SELECT ssn, id FROM customers RETURNING a",
                "[customers.ssn t.a]",
                "customers.id:s customers.ssn:os t.a:ow t.b:w",
            ),
            (
                "INSERT INTO t SELECT ssn FROM customers RETURNING *",
                "[customers.ssn t.a] [t.a t.b]",
                "customers.ssn:os t.a:ow t.b:o",
            ),
            (
                "UPDATE t SET a = c.ssn FROM customers c WHERE c.id = t.b RETURNING a, b",
                "[customers.ssn t.a] [t.a t.b]",
                "customers.id:p customers.ssn:os t.a:opw t.b:op",
            ),
            ("UPDATE t SET a = a + 1 RETURNING old.a, new.a", "[t.a] [t.a]", "t.a:osw"),
            (
                "DELETE FROM customers c USING orders o WHERE o.customer_id = c.id RETURNING c.email, o.total",
                "[customers.email] [orders.total orders_2024.total]",
                "customers.email:o customers.id:p orders.customer_id:p orders.total:o orders_2024.customer_id:p orders_2024.total:o",
            ),
            (
                "MERGE INTO t USING customers c ON c.id = t.b WHEN MATCHED THEN UPDATE SET a = c.email WHEN NOT MATCHED THEN INSERT VALUES (c.ssn, c.id) RETURNING merge_action(), t.a",
                "[] [customers.email customers.ssn t.a]",
                "customers.email:os customers.id:ps customers.ssn:os t.a:opw t.b:pw",
            ),
            (
                "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.a RETURNING b",
                "[t.a t.b]",
                "t.a:opw t.b:ow",
            ),
            ("CREATE TABLE n AS SELECT ssn FROM customers", "none", "customers.ssn:s"),
            ("SELECT ssn INTO n FROM customers", "none", "customers.ssn:s"),
            (
                "COPY customers TO STDOUT",
                "[customers.id] [customers.name] [customers.email] [customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "COPY customers (id, ssn) TO STDOUT",
                "[customers.id] [customers.ssn]",
                "customers.id:o customers.ssn:o",
            ),
            ("COPY (SELECT ssn FROM customers) TO STDOUT", "[customers.ssn]", "customers.ssn:o"),
            ("COPY customers (id, email) FROM STDIN", "none", "customers.email:w customers.id:w"),
            ("PREPARE p AS SELECT ssn FROM customers", "[customers.ssn]", "customers.ssn:o"),
            ("EXPLAIN SELECT ssn FROM customers WHERE email = 'x'", "[]", "customers.email:p customers.ssn:"),
            (
                "WITH RECURSIVE r (n, s) AS (SELECT id, 'x' FROM customers UNION ALL SELECT o.id, r.n FROM orders o JOIN r ON r.n = o.customer_id) SELECT n, s FROM r",
                "[customers.id orders.id orders_2024.id] [customers.id orders.id orders_2024.id]",
                "customers.id:op orders.customer_id:p orders.id:op orders_2024.customer_id:p orders_2024.id:op",
            ),
            (
                "WITH RECURSIVE r (n, s) AS (SELECT id, ssn FROM customers UNION ALL SELECT r.n + 1, r.s FROM r WHERE r.s > '1') SELECT n FROM r",
                "[customers.id]",
                "customers.id:o customers.ssn:p",
            ),
            (
                "WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT ssn FROM customers) SELECT * FROM a",
                "[customers.ssn]",
                "customers.ssn:o",
            ),
            (
                "WITH RECURSIVE r AS (SELECT id, customer_id FROM orders UNION ALL SELECT o.id, o.customer_id FROM orders o, r) SEARCH DEPTH FIRST BY id SET ord CYCLE id SET is_cycle USING path SELECT * FROM r",
                "[orders.id orders_2024.id] [orders.customer_id orders_2024.customer_id] [orders.id orders_2024.id] [orders.id orders_2024.id] [orders.id orders_2024.id]",
                "orders.customer_id:o orders.id:o orders_2024.customer_id:o orders_2024.id:o",
            ),
            (
                "WITH x AS (DELETE FROM customers RETURNING ssn) SELECT * FROM x",
                "[customers.ssn]",
                "customers.ssn:o",
            ),
            (
                "SELECT * FROM customers c, LATERAL (SELECT c.ssn AS z) s",
                "[customers.id] [customers.name] [customers.email] [customers.ssn] [customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT z FROM customers c CROSS JOIN LATERAL (VALUES (c.email), (c.name)) l (z)",
                "[customers.email customers.name]",
                "customers.email:o customers.name:o",
            ),
            ("SELECT column1 FROM (VALUES (1, 'a')) v", "[]", ""),
            ("SELECT nope FROM customers", "?", "*.nope:o"),
            (
                "SELECT c.nope FROM customers c",
                "?",
                "customers.email:op customers.id:op customers.name:op customers.ssn:op",
            ),
            (
                "SELECT ctid, c.xmin FROM customers c",
                "[customers.ctid] [customers.xmin]",
                "customers.ctid:o customers.xmin:o",
            ),
            (
                "SELECT COALESCE(email, 'x'), NULLIF(ssn, ''), GREATEST(id, 1), email IS NULL, ARRAY[ssn], ROW(id, name) FROM customers",
                "[customers.email] [customers.ssn] [customers.id] [customers.email] [customers.ssn] [customers.id customers.name]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT array_agg(ssn ORDER BY email) FROM customers",
                "[customers.ssn]",
                "customers.email:p customers.ssn:o",
            ),
            (
                r#"SELECT "email" FROM public.customers WHERE public.customers.ssn = ''"#,
                "[customers.email]",
                "customers.email:o customers.ssn:p",
            ),
            ("SELECT e FROM customers AS c (i, n, e)", "[customers.email]", "customers.email:o"),
            ("SELECT email FROM customers AS c (i, n, e)", "?", "*.email:o"),
            ("SELECT * FROM t AS c (x)", "[t.a] [t.a t.b]", "t.a:o t.b:o"),
            (
                "SELECT count(c), count(*) FROM customers c",
                "[customers.email customers.id customers.name customers.ssn] []",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            (
                "SELECT max(x) FROM (SELECT DISTINCT ssn AS x FROM customers) s",
                "[customers.ssn]",
                "customers.ssn:op",
            ),
            (
                "SELECT id FROM customers WHERE (id, ssn) IN (SELECT id, name FROM customers)",
                "[customers.id]",
                "customers.id:op customers.name:p customers.ssn:p",
            ),
            ("SELECT exists FROM (SELECT EXISTS (SELECT 1)) s", "[]", ""),
            (
                r#"SELECT coalesce, "case", "array", int4, current_user FROM (SELECT COALESCE(ssn, ''), CASE WHEN true THEN 1 END, ARRAY[id], '1'::int, CURRENT_USER FROM customers) s"#,
                "[customers.ssn] [] [customers.id] [] []",
                "customers.id:o customers.ssn:o",
            ),
            (
                "TABLE customers",
                "[customers.id] [customers.name] [customers.email] [customers.ssn]",
                "customers.email:o customers.id:o customers.name:o customers.ssn:o",
            ),
            ("VALUES (1), (2)", "[]", ""),
            ("SHOW x", "[]", ""),
            ("EXECUTE p", "unknown", ""),
            ("FETCH c", "unknown", ""),
        ],
    );
}

/// Columns that definitions and grants name.
#[test]
fn named_columns() {
    check(
        catalogue,
        &[
            ("ALTER TABLE customers RENAME COLUMN ssn TO x", "none", "customers.ssn:sw"),
            ("ALTER TABLE customers DROP COLUMN ssn, ADD COLUMN z int", "none", "customers.ssn:w"),
            (
                "ALTER TABLE customers ALTER email TYPE text USING ssn",
                "none",
                "customers.email:w customers.ssn:s",
            ),
            ("GRANT SELECT (ssn) ON customers TO bob", "none", "customers.ssn:w"),
            (
                "CREATE INDEX ON customers (lower(ssn)) WHERE email > ''",
                "none",
                "customers.email:p customers.ssn:s",
            ),
            ("CREATE VIEW w AS SELECT ssn FROM customers", "none", "customers.ssn:s"),
            ("CREATE POLICY p ON customers USING (ssn = current_user)", "none", "customers.ssn:p"),
        ],
    );
}

/// Without a catalogue.
#[test]
fn unknown_relations() {
    check(
        Catalogue::empty,
        &[
            ("SELECT * FROM t", "unknown", "t.*:o"),
            ("SELECT x FROM t", "[t.x]", "t.x:o"),
            ("SELECT x FROM t, u", "[*.x]", "*.x:o"),
            ("SELECT t.x, u.* FROM t, u", "unknown", "t.x:o u.*:o"),
            ("SELECT x FROM (SELECT * FROM t) s", "[t.x]", "t.x:o"),
            ("SELECT x FROM (SELECT * FROM t, u) s", "[*.x]", "*.x:o"),
            ("SELECT a FROM (SELECT * FROM t AS z (a)) s", "[t.*]", "t.*:o"),
            ("SELECT a FROM t AS z (a)", "[t.*]", "t.*:o"),
            ("SELECT row_to_json(t) FROM t", "[t.*]", "t.*:o"),
            ("SELECT t FROM t", "[t.*]", "t.*:o"),
            ("SELECT a FROM a, b", "[a.* b.a]", "a.*:o b.a:o"),
            ("SELECT t.row_to_json FROM t", "[t.* t.row_to_json]", "t.*:o t.row_to_json:o"),
            ("SELECT x FROM t JOIN u USING (x)", "[t.x u.x]", "t.x:op u.x:op"),
            ("SELECT x FROM t NATURAL JOIN u", "[*.x]", "*.x:o t.*:p u.*:p"),
            ("SELECT (SELECT y FROM u) FROM t", "[*.y]", "*.y:o"),
            ("SELECT x FROM t ORDER BY 1", "[t.x]", "t.x:op"),
            ("SELECT x FROM (SELECT * FROM t UNION ALL SELECT * FROM u) s", "[t.* u.*]", "t.*:o u.*:o"),
            ("SELECT * FROM t WHERE x = 1", "unknown", "t.*:o t.x:p"),
            (
                "WITH RECURSIVE r AS (SELECT * FROM t UNION ALL SELECT u.* FROM u, r WHERE r.id = u.p) SELECT id FROM r",
                "[t.* u.*]",
                "t.*:o t.id:p u.*:o u.p:p",
            ),
            ("INSERT INTO t SELECT * FROM u RETURNING x", "[t.x u.*]", "t.*:w t.x:o u.*:os"),
            ("INSERT INTO t (a) SELECT x FROM u RETURNING a, b", "[t.a u.x] [t.b]", "t.a:ow t.b:o u.x:os"),
            ("UPDATE t SET x = y", "none", "t.x:w t.y:s"),
            ("COPY t TO STDOUT", "unknown", "t.*:o"),
            (
                "SELECT relname FROM pg_class c, pg_namespace n WHERE n.oid = c.relnamespace",
                "[*.relname]",
                "*.relname:o pg_class.relnamespace:p pg_namespace.oid:p",
            ),
            ("SELECT j.x FROM (t JOIN u ON true) j", "[*.x]", "*.x:o"),
            ("SELECT e FROM t, json_each(t.j) e", "[t.e t.j]", "t.e:o t.j:op"),
            ("SELECT x.key FROM t, json_each(t.j) x", "[t.j]", "t.j:op"),
            ("SELECT public.t.x FROM public.t", "[t.x]", "t.x:o"),
            ("SELECT public.t.x FROM t", "[t.x]", "t.x:o"),
        ],
    );
}

/// Columns on which it depends whether a statement fails, or how long it takes; `?` = and something that cannot be told.
#[test]
fn what_may_fail() {
    on_big_stack(|| {
        let catalogue = catalogue();
        let mut wrong = Vec::new();
        for (sql, expected) in [
            ("SELECT a, a::text, a = 1, upper(a) || 'x', count(a), to_json(t) FROM t", ""),
            ("SELECT a::int FROM t", "t.a"),
            ("SELECT a + 1 FROM t", "t.a"),
            ("SELECT email || (id + 1) FROM customers", "customers.id"),
            ("SELECT id + 1 || email FROM customers", "customers.id"),
            ("SELECT email LIKE 'x' FROM customers", "customers.email"),
            ("SELECT id BETWEEN 1 AND 2, id IN (1, 2), nullif(id, 1) FROM customers", ""),
            ("SELECT substr(email, 1, 2), left(email, id) FROM customers", ""),
            ("SELECT substr(email, id) FROM customers", "customers.email customers.id"),
            ("SELECT substr('x', 1, $1) FROM customers", ""),
            ("SELECT CASE WHEN email = 'x' THEN name ELSE 'y' END FROM customers", ""),
            ("SELECT CASE WHEN email = 'x' THEN id / 0 END FROM customers", "customers.email customers.id"),
            ("SELECT CASE WHEN email = 'x' THEN substr('x', 1, $1) END FROM customers", "customers.email"),
            ("SELECT CASE WHEN email = 'x' THEN (SELECT 1) END FROM customers", "customers.email"),
            ("SELECT email = 'x' AND name::int = 1 FROM customers", "customers.email customers.name"),
            ("SELECT coalesce(email, pg_sleep(1)::text) FROM customers", "? customers.email"),
            ("SELECT json_build_object('a', email, name, id) FROM customers", "customers.name"),
            ("SELECT json_build_object(VARIADIC ARRAY[email]) FROM customers", "customers.email"),
            ("SELECT shout(email), secret_of(1) FROM customers", ""),
            ("SELECT unseen(email) FROM customers", "customers.email"),
            ("SELECT unseen(1)::int FROM customers", "?"),
            ("WITH x AS (SELECT email AS e FROM customers) SELECT e::int FROM x", "customers.email"),
        ] {
            let statements =
                analyse(sql, &catalogue, 1 << 16).unwrap_or_else(|refused| panic!("{sql}: {refused}"));
            let statement = &statements[0];
            let columns = statement.columns.iter().filter(|used| used.fails).map(|used| {
                format!("{}.{}", used.column.relation.as_deref().unwrap_or("?"), used.column.name)
            });
            let mut found: Vec<String> =
                columns.chain(statement.fails_unseen.then(|| "?".to_owned())).collect();
            found.sort();
            if found.join(" ") != expected {
                wrong.push(format!("{sql}: {}", found.join(" ")));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
