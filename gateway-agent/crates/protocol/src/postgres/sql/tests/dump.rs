use super::*;
#[test]
fn dump() {
    let sql = std::env::var("DUMP").unwrap();
    let what = std::env::var("WHAT").unwrap_or_default();
    on_big_stack(move || {
        for line in std::fs::read_to_string(sql).unwrap().lines().filter(|l| !l.trim().is_empty()) {
            let line = line.replace("\\n", "\n");
            let cat = if let Ok(dir) = std::env::var("CAT") {
                load(&dir)
            } else if what.contains('c') {
                catalogue()
            } else {
                Catalogue::empty()
            };
            match analyse(&line, &cat, 65536) {
                Err(r) => println!("({line:?}, {:?}),", format!("REFUSED {}", r.reason)),
                Ok(s) if what.contains('l') => {
                    println!("({line:?}, {:?}, {:?}),", outputs(&s[0]), uses(&s[0]))
                }
                Ok(s) => println!("({line:?}, {:?}),", s.iter().map(brief).collect::<Vec<_>>().join("; ")),
            }
        }
    });
}

fn load(dir: &str) -> Catalogue {
    let results: Vec<Vec<Row>> = (0..5)
        .map(|q| {
            std::fs::read_to_string(format!("{dir}/{q}.tsv"))
                .unwrap()
                .lines()
                .map(|l| l.split('\t').map(|c| Some(c.to_owned())).collect())
                .collect()
        })
        .collect();
    let now = std::time::Instant::now();
    let c = Catalogue::build(&results).unwrap();
    if std::env::var("TIME").is_ok() {
        eprintln!("build {:?}", now.elapsed());
    }
    c
}
#[test]
fn queries() {
    for q in super::super::CATALOGUE_SQL {
        println!("@@{q}");
    }
}
#[test]
fn dump_speed() {
    on_big_stack(|| {
        let sql = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
        let cat = load(&std::env::var("CAT").unwrap());
        for (name, f) in [
            (
                "parse",
                Box::new(|| {
                    pg_query::parse(sql, 0).unwrap();
                }) as Box<dyn Fn()>,
            ),
            (
                "analyse",
                Box::new(|| {
                    analyse(sql, &cat, 65536).unwrap();
                }),
            ),
            (
                "report",
                Box::new(|| {
                    crate::postgres::sql::report(sql);
                }),
            ),
        ] {
            for _ in 0..200 {
                f();
            }
            let now = std::time::Instant::now();
            for _ in 0..5000 {
                f();
            }
            println!("{name}: {:?}", now.elapsed() / 5000);
        }
    });
}
