//! Roles that are made for jobs.

use std::fs;

use tests::{World, process::LIMIT, sample};

use crate::support::{wait_for, wait_for_audit};

/// A world whose jobs get roles of their own.
fn world(template: &str) -> World {
    let fixed = "    login: { user: gateway, password: { file: @DIR@/secrets/orders } }\n";
    let made = format!(
        "    login: {{ user: gw_admin, password: {{ file: @DIR@/secrets/orders }} }}\n    credential: ephemeral\n    role: {template}\n"
    );
    let world = World::builder().policy(&sample::POLICY.replace(fixed, &made)).up();
    world.db.ask(&format!(
        "SET log_statement = 'none'; CREATE ROLE gw_admin LOGIN CREATEROLE PASSWORD '{}'; GRANT gateway TO gw_admin; \
         CREATE ROLE app_reader; GRANT app_reader TO gw_admin WITH ADMIN OPTION; GRANT SELECT ON public.customers, public.contacts TO app_reader;",
        world.password()
    ));
    world
}

const TEMPLATE: &str = "{ valid_for: 1h, connections: 7, member_of: [app_reader], grants: [{ privileges: [select], tables: [public.orders] }, \
     { privileges: [usage, create], schemas: [public] }] }";

fn roles(world: &World) -> String {
    world.db.ask("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'gw\\_%\\_%\\_%'")
}

#[test]
fn a_job_has_a_role_of_its_own_as_long_as_it_lives() {
    let world = world(TEMPLATE);
    let script = r#"
import psycopg, sys
one, two = psycopg.connect(autocommit=True), psycopg.connect(autocommit=True)
print(one.execute("SELECT count(*) FROM orders").fetchone()[0], two.execute("SELECT count(*) FROM customers").fetchone()[0])
try:
    one.execute("SELECT * FROM imports")
except psycopg.Error as e:
    print(e.sqlstate, "permission denied" in str(e))
print("ready", flush=True)
sys.stdin.read()
"#;
    let mut job = world.job(&[&world.python(), "-c", script]).open().expect("a job");
    wait_for("two sessions of one role", || {
        let who = world.db.ask(
            "SELECT count(*) || ' ' || count(DISTINCT usename) FROM pg_stat_activity WHERE usename LIKE 'gw\\_%\\_%\\_%'",
        );
        (who == "2 1").then_some(())
    });
    let made = world.db.ask(
        "SELECT rolcanlogin, rolsuper, rolcreaterole, rolconnlimit, rolvaliduntil > now() AND rolvaliduntil < now() + interval '61 min', \
         rolpassword LIKE 'SCRAM-SHA-256$4096:%' FROM pg_authid WHERE rolname LIKE 'gw\\_%\\_%\\_%'",
    );
    assert_eq!(made, "t|f|f|7|t|t");
    // What it made stays, with another owner.
    let role = world.db.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'gw\\_%\\_%\\_%'");
    world.db.ask(&format!("SET ROLE {role}; CREATE TABLE public.left_behind (id int)"));
    job.close_stdin();
    let out = job.finish(LIMIT).expect("an end").ok();
    // The server itself refuses what the template does not grant, though policy would allow it.
    assert_eq!(out.text(), "1000 200\n42501 True\nready");
    wait_for("the role to go", || (roles(&world) == "0").then_some(()));
    assert_eq!(world.db.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'left_behind'"), "gw_admin");
    let line = wait_for_audit(&world, "role_dropped", |_| true);
    assert_eq!(line["role"], role.as_str());

    // Neither password nor verifier is anywhere but on the server.
    for file in ["state/audit.jsonl", "agent.log"] {
        let text = fs::read_to_string(world.folder().join(file)).expect("a file");
        assert!(!text.contains("SCRAM-SHA-256$") && !text.contains("PASSWORD"), "{file}");
    }
}

#[test]
fn what_a_killed_agent_left_is_dropped_by_the_next() {
    let mut world = world(TEMPLATE);
    let mut job = world.job(&["psql", "-XAt"]).open().expect("a job");
    job.write(b"SELECT count(*) FROM orders;\n").expect("written");
    wait_for("the role", || (roles(&world) == "1").then_some(()));
    // Another host's, and nobody's.
    world.db.ask("CREATE ROLE gw_other_1_x; COMMENT ON ROLE gw_other_1_x IS 'made by gateway-agent for a job; host other'");
    let mine = world.db.ask(
        "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname LIKE 'gw\\_%\\_%\\_%' AND rolname <> 'gw_other_1_x'",
    );
    world.db.ask(&format!(
        "SET ROLE gw_admin; CREATE ROLE gw_forgotten_1_x; GRANT gw_forgotten_1_x TO gw_admin; COMMENT ON ROLE gw_forgotten_1_x IS '{mine}'"
    ));
    world.agent.kill();
    assert_eq!(roles(&world), "3", "nobody has dropped anything");
    world.agent.start().expect("started again");
    wait_for("the roles to go", || (roles(&world) == "1").then_some(()));
    assert_eq!(
        world.db.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'gw\\_%\\_%\\_%'"),
        "gw_other_1_x"
    );
    // The next job gets one again.
    assert_eq!(world.psql("SELECT count(*) FROM orders;").run().ok().text(), "1000");
    drop(job);
}

#[test]
fn a_job_without_a_role_is_refused() {
    let world = world("{ member_of: [no_such_role] }");
    let out = world.psql("SELECT 1;").run().failed();
    assert!(out.stderr.contains("no role could be made for the job: making the role a member: the server answers with SQLSTATE 42704"), "{out}");
    assert_eq!(roles(&world), "0");
}
