//! Text made to break a parser: every case is answered, on the stack that the analysis asks for, in time.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Some text of about 64 KiB, and what has to become of it.
fn deep() -> Vec<(&'static str, String)> {
    let fill = |before: &str, part: &str, after: &str, times: usize| {
        format!("{before}{}{after}", part.repeat(times))
    };
    vec![
        ("parentheses", format!("SELECT {}1{}", "(".repeat(32_000), ")".repeat(32_000))),
        ("joins without ON", fill("SELECT * FROM t", " JOIN t", "", 9_000)),
        ("crossed joins", fill("SELECT * FROM t", " CROSS JOIN t", "", 4_500)),
        ("sums", fill("SELECT 1", "+1", "", 32_000)),
        ("signs", fill("SELECT ", "- ", "1", 32_000)),
        ("negations", fill("SELECT ", "NOT ", "true", 16_000)),
        ("casts", fill("SELECT 1", "::int", "", 12_000)),
        ("subscripts", fill("SELECT a", "[1]", " FROM t", 20_000)),
        ("nested subscripts", format!("SELECT {}1{} FROM t", "a[".repeat(20_000), "]".repeat(20_000))),
        ("cases", format!("SELECT {}1{}", "CASE WHEN ".repeat(3_500), " THEN 1 END".repeat(3_500))),
        ("subqueries", format!("SELECT {}1{}", "(SELECT ".repeat(7_000), ")".repeat(7_000))),
        ("from subqueries", format!("{}SELECT 1{}", "SELECT * FROM (".repeat(3_500), ") s".repeat(3_500))),
        ("unions", fill("SELECT 1", " UNION SELECT 1", "", 4_000)),
        ("right unions", format!("SELECT 1{}{}", " UNION (SELECT 1".repeat(3_500), ")".repeat(3_500))),
        ("withs", format!("{}SELECT 1{}", "WITH a AS (".repeat(4_500), ") SELECT 1".repeat(1_000))),
        ("calls", format!("SELECT {}1{}", "f(".repeat(20_000), ")".repeat(20_000))),
        ("arrays", format!("SELECT {}1{}", "ARRAY[".repeat(8_000), "]".repeat(8_000))),
        ("fields", fill("SELECT (a)", ".b", " FROM t", 30_000)),
        (
            "exists",
            format!("SELECT 1 WHERE {}true{}", "EXISTS (SELECT 1 WHERE ".repeat(2_500), ")".repeat(2_500)),
        ),
        ("conditions", fill("SELECT 1 WHERE a = 1", " AND a = 1", "", 6_000)),
        ("mixed conditions", fill("SELECT 1 WHERE a = 1", " AND a = 1 OR b = 2", "", 3_000)),
        ("collations", fill("SELECT a", " COLLATE \"C\"", "", 5_000)),
        ("concatenations", fill("SELECT a", " || b", " FROM t", 13_000)),
    ]
}

#[test]
fn depth_is_answered() {
    let answers = on_big_stack(|| {
        deep()
            .into_iter()
            .map(|(what, sql)| {
                let start = Instant::now();
                let answer = offline(&sql);
                (what, answer.err().map(|refused| refused.reason), start.elapsed())
            })
            .collect::<Vec<_>>()
    });
    for (what, refused, took) in answers {
        let flat = ["conditions", "mixed conditions"].contains(&what);
        assert_eq!(refused.is_none(), flat, "{what}: {refused:?}");
        assert!(took < Duration::from_secs(20), "{what} took {took:?}");
    }
}

/// Just below the limits: parsed, walked and dropped.
#[test]
fn allowed_depth_fits_the_stack() {
    on_big_stack(|| {
        for (what, sql) in [
            ("sums", format!("SELECT 1{}", "+1".repeat(1_900))),
            ("casts", format!("SELECT 1{}", "::int".repeat(900))),
            ("calls", format!("SELECT {}1{}", "f(".repeat(900), ")".repeat(900))),
            ("unions", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(900))),
            ("joins", format!("SELECT * FROM t{}", " CROSS JOIN t".repeat(900))),
            ("subqueries", format!("SELECT {}1{}", "(SELECT ".repeat(450), ")".repeat(450))),
            ("from subqueries", format!("{}SELECT 1{}", "SELECT * FROM (".repeat(400), ") s".repeat(400))),
            ("cases", format!("SELECT {}1{}", "CASE WHEN ".repeat(400), " THEN 1 END".repeat(400))),
        ] {
            let answer = offline(&sql);
            assert!(answer.is_ok(), "{what}: {answer:?}");
        }
    });
}

#[test]
fn growth_is_bounded() {
    let copies = {
        let mut sql = "SELECT 1, 2".to_owned();
        for _ in 0..40 {
            sql = format!("WITH y AS (UPDATE t SET (a, b) = ({sql}) RETURNING 1) SELECT 1, 2");
        }
        sql
    };
    let wide = {
        let names: Vec<String> = (0..8_000).map(|at| format!("c{at}")).collect();
        format!("UPDATE t SET ({}) = (SELECT {})", names.join(","), "1,".repeat(9_000) + "1")
    };
    let stars = {
        let mut sql = "WITH a0 AS (SELECT * FROM customers)".to_owned();
        for at in 1..60 {
            sql += &format!(", a{at} AS (SELECT * FROM a{0} x, a{0} y)", at - 1);
        }
        sql + " SELECT * FROM a59"
    };
    let rows = {
        let columns: Vec<String> = (0..1_600).map(|at| format!("email || ssn c{at}")).collect();
        format!("SELECT {} FROM (SELECT {} FROM customers) s", vec!["s"; 10_000].join(","), columns.join(","))
    };
    let natural = {
        let columns: Vec<String> = (0..1_600).map(|at| format!("1 c{at}")).collect();
        format!(
            "WITH w AS (SELECT {}) SELECT 1 FROM w{}",
            columns.join(","),
            (0..1_000).map(|at| format!(" NATURAL JOIN w w{at}")).collect::<String>()
        )
    };
    let recursion = {
        let mut sql = "SELECT 1 AS n".to_owned();
        for at in 0..60 {
            sql = format!("WITH RECURSIVE r{at} AS (SELECT 1 AS n UNION ALL ({sql})) SELECT n FROM r{at}");
        }
        sql
    };
    on_big_stack(move || {
        let catalogue = catalogue();
        for (what, sql, refused) in [
            ("copies", copies, true),
            ("wide", wide, true),
            ("stars", stars, true),
            ("rows", rows, true),
            ("natural", natural, true),
            ("recursion", recursion, false),
        ] {
            let start = Instant::now();
            let answer = analyse(&sql, &catalogue, 1 << 17);
            assert_eq!(answer.is_err(), refused, "{what}: {answer:?}");
            assert!(start.elapsed() < Duration::from_secs(20), "{what} took {:?}", start.elapsed());
        }
    });
}

#[test]
fn long_lists_are_no_problem() {
    on_big_stack(|| {
        let values = vec!["(1, 'x', -2.5, $1 || 'y')"; 2_000].join(", ");
        let list: Vec<String> = (0..9_000).map(|at| at.to_string()).collect();
        let columns: Vec<String> = (0..1_600).map(|at| format!("t.column_{at}")).collect();
        for sql in [
            format!("INSERT INTO t VALUES {values}"),
            format!("SELECT * FROM t WHERE id IN ({})", list.join(", ")),
            format!("SELECT {} FROM t", columns.join(", ")),
            vec!["SELECT 1"; 5_000].join(";"),
            vec!["SELECT id FROM t WHERE id = 1"; 500].join(" UNION ALL "),
        ] {
            let start = Instant::now();
            let answer = offline(&sql);
            assert!(answer.is_ok(), "{:?}", answer.err());
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    });
}

#[test]
fn refusals_say_why_and_what_to_do() {
    on_big_stack(|| {
        for (sql, reason) in [
            ("SELECT 1\0", "NUL"),
            ("SELEC 1", "syntax error at or near \"SELEC\""),
            ("SELECT 'x", "unterminated quoted string"),
            ("SELECT 1 /* open", "unterminated /* comment"),
            ("SELECT $$x", "unterminated dollar-quoted string"),
            ("SELECT * FROM", "syntax error at end of input"),
        ] {
            let refused = offline(sql).unwrap_err();
            assert!(refused.reason.contains(reason), "{sql}: {refused}");
            assert!(!refused.hint.is_empty());
        }
        assert!(analyse("SELECT 1", &Catalogue::empty(), 4).unwrap_err().reason.contains("limit"));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
        let _ = offline(&text);
        let _ = crate::postgres::sql::report(&text);
    }

    #[test]
    fn arbitrary_words_never_panic(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "SELECT", "*", "FROM", "t", "u", "WHERE", "a", "=", "1", ",", "(", ")", "WITH", "x", "AS", "UPDATE",
            "SET", "INSERT", "INTO", "VALUES", "DELETE", "RETURNING", "UNION", "ALL", "JOIN", "USING", "ON",
            "ORDER", "BY", "GROUP", "RECURSIVE", ";", "'s'", "lower", ".", "CASE", "WHEN", "THEN", "END", "COPY",
            "TO", "STDOUT", "CREATE", "TABLE", "DROP", "ALTER", "GRANT", "LATERAL", "NATURAL", "[", "]", "::",
        ]), 0..24))
    {
        let sql = words.join(" ");
        let known = analyse(&sql, &catalogue(), 1 << 16);
        let unknown = offline(&sql);
        prop_assert!(known.is_ok() == unknown.is_ok() || known.is_err());
    }
}
