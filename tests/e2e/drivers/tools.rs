//! pg_dump and pg_restore of a real database.

use tests::{postgres::Postgres, process::run};

use crate::{direct, world};

/// What a dump has to carry: every kind of object an application makes.
const OBJECTS: &str = r"
SET ROLE gateway;
CREATE TYPE public.mood AS ENUM ('sad', 'happy');
CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE public.numbers START 7 INCREMENT 3;
CREATE TABLE public.everything (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feeling public.mood DEFAULT 'happy',
    amount public.positive,
    doc jsonb,
    raw bytea,
    many text[],
    at timestamptz DEFAULT '2026-01-01 00:00:00+00',
    twice int GENERATED ALWAYS AS (amount * 2) STORED
);
INSERT INTO public.everything (amount, doc, raw, many)
    SELECT n, jsonb_build_object('n', n, 'text', E'tab\there'), decode(md5(n::text), 'hex'), ARRAY['a b', NULL, E'\\', n::text]
    FROM generate_series(1, 5000) AS n;
CREATE INDEX everything_doc ON public.everything USING gin (doc);
CREATE TABLE public.parted (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE public.parted_low PARTITION OF public.parted FOR VALUES FROM (0) TO (100);
CREATE TABLE public.parted_high PARTITION OF public.parted DEFAULT;
INSERT INTO public.parted SELECT n, 'v' || n FROM generate_series(1, 300) AS n;
CREATE VIEW public.happy AS SELECT * FROM public.everything WHERE feeling = 'happy';
CREATE MATERIALIZED VIEW public.sums AS SELECT feeling, sum(amount) FROM public.everything GROUP BY feeling;
CREATE FUNCTION public.add(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); RETURN NEW; END $$;
CREATE TRIGGER stamped BEFORE UPDATE ON public.everything FOR EACH ROW EXECUTE FUNCTION public.stamp();
COMMENT ON TABLE public.everything IS 'it''s all here';
SELECT lo_from_bytea(4711, decode(repeat('00ff', 10000), 'hex'));
";

const EVERYTHING: &str = "    statements: { everything: true }\n    record: statements\n";

#[test]
fn pg_dump_and_pg_restore_move_the_same_bytes() {
    // A restore runs as whoever owns everything: nothing in it is refused.
    let (head, _) = crate::POLICY.split_once("    statements:\n").expect("statements");
    let world = tests::World::builder().policy(&format!("{head}{EVERYTHING}")).up();
    world.db.admin(Postgres::DATABASE, OBJECTS).expect("objects");
    let dump = ["pg_dump", "--no-sync"];
    let plain = run(&mut direct(&world, &dump)).expect("pg_dump").ok();
    let through = world.job(&dump).run().ok();
    // Newer versions write a random key for psql's restricted mode.
    let body = |text: &str| -> Vec<String> {
        let key = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
        text.lines().filter(key).map(str::to_owned).collect()
    };
    assert!(plain.stdout.len() > 500_000 && plain.stdout.contains("CREATE TRIGGER"), "a real dump");
    assert_eq!(body(&plain.stdout), body(&through.stdout), "pg_dump");

    // What is restored through the gateway dumps as what was restored directly.
    let file = world.folder().join("programs-dump");
    let mut custom = direct(&world, &["pg_dump", "--format=custom", "--file"]);
    custom.arg(&file);
    let _ = run(&mut custom).expect("pg_dump").ok();
    let _ = run(std::process::Command::new("chmod").arg("a+r").arg(&file)).expect("chmod").ok();
    let file = file.display().to_string();
    let mut dumps = Vec::new();
    for way in ["direct", "gateway"] {
        world
            .db
            .admin("postgres", &format!("CREATE DATABASE restored_{way} OWNER gateway"))
            .expect("a database");
        let name = format!("--dbname=restored_{way}");
        let restore = ["pg_restore", "--no-owner", "--exit-on-error", &name, &file];
        let _ = match way {
            "direct" => run(&mut direct(&world, &restore)).expect("pg_restore").ok(),
            _ => world.job(&restore).run().ok(),
        };
        let mut again = world.db.client("pg_dump", &format!("restored_{way}"));
        dumps.push(body(&run(&mut again).expect("pg_dump").ok().stdout));
    }
    assert!(dumps[0].len() > 5000 && dumps[0] == dumps[1], "what was restored differs");
    assert_eq!(
        dumps[0],
        body(&run(&mut world.db.client("pg_dump", Postgres::DATABASE)).expect("pg_dump").ok().stdout)
    );
}

/// pg_dump empties search_path, by which statements are read: an ordinary rule does not let it.
#[test]
fn pg_dump_under_an_ordinary_policy_is_told_what_refuses_it() {
    let world = world();
    let refused = world.job(&["pg_dump", "--no-sync"]).run().failed();
    assert!(refused.stderr.contains("builtin:pinned-setting"), "{refused}");
    assert!(refused.stderr.contains("changing the setting search_path"), "{refused}");
}

/// Physical and logical replication, where a rule lets it.
#[test]
fn backups_and_logical_decoding_where_a_rule_lets_them() {
    let (head, _) = crate::POLICY.split_once("    statements:\n").expect("statements");
    let world = tests::World::builder()
        .policy(&format!("{head}    replication: true\n{EVERYTHING}"))
        .postgres(tests::postgres::Options {
            settings: vec!["wal_level = logical".to_owned()],
            ..tests::postgres::Options::default()
        })
        .up();
    world.db.admin("postgres", "ALTER ROLE gateway REPLICATION").expect("the right to replicate");
    let out = world.job(&[
        "pg_basebackup",
        "--pgdata=-",
        "--format=tar",
        "--wal-method=fetch",
        "--checkpoint=fast",
        "--no-manifest",
    ]);
    let out = out.run().ok();
    assert!(
        out.stdout.len() > 10_000_000 && out.stdout.contains("PG_VERSION"),
        "a backup of {} bytes",
        out.stdout.len()
    );

    // The decoded stream ends at a position that is known beforehand.
    world.db.ask("SELECT pg_create_logical_replication_slot('driver', 'test_decoding')");
    world.db.ask("CREATE TABLE public.streamed (id int PRIMARY KEY, what text); ALTER TABLE public.streamed OWNER TO gateway");
    world.db.ask("INSERT INTO public.streamed SELECT n, 'row ' || n FROM generate_series(1, 500) AS n");
    let end = format!("--endpos={}", world.db.ask("SELECT pg_current_wal_insert_lsn()"));
    let words =
        ["pg_recvlogical", "--slot=driver", "--start", "--file=-", &end, "--no-loop", "--dbname=orders"];
    let out = world.job(&words).run().ok();
    assert_eq!(out.stdout.matches("table public.streamed: INSERT").count(), 500, "{out}");
}
