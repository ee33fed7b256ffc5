//! Policies that change under live sessions.

use tests::{World, process::LIMIT};

use crate::support::{assert_nothing_left, json, put_in_force, ran, version, wait_for, wait_for_audit};

/// A psql that runs what it is told, line by line.
fn session(world: &World) -> tests::process::Running {
    world.job(&["psql", "-XAt"]).open().expect("a job")
}

#[test]
fn a_live_session_is_decided_by_the_new_policy() {
    let world = World::new();
    let mut psql = session(&world);
    psql.write(b"SELECT 'first', id FROM orders WHERE id = 1;\n").expect("written");
    wait_for("the first answer", || (ran(&world, "'first'") == 1).then_some(()));

    let policy = world.policy().expect("a policy");
    put_in_force(&world, &policy.replace("public.orders, public.contacts", "public.contacts"));
    psql.write(
        b"SELECT 'second', id FROM orders WHERE id = 1;\nSELECT 'third', id FROM customers WHERE id = 1;\n",
    )
    .expect("written");
    let out = psql.finish(LIMIT).expect("an end").ok();
    assert!(out.stdout.contains("first|1") && !out.stdout.contains("second|1"), "{out}");
    assert!(out.stderr.contains("denied by policy"), "{out}");
    assert!(out.stdout.contains("third|1"), "{out}");
}

#[test]
fn what_a_session_defined_for_itself_does_not_outlive_the_masks() {
    let policy = tests::sample::POLICY
        .replace("classes: [ddl, privilege, code]", "classes: [privilege, code]")
        .replace("{ classes: [write], relations: [", "{ classes: [write, ddl], relations: [public.v, ")
        .replace("relations: [public.customers, ", "relations: [public.v, public.customers, ");
    let world = World::builder().policy(&policy).up();
    let mut psql = session(&world);
    psql.write(
        b"CREATE TEMP VIEW v AS SELECT id, name FROM customers;\nSELECT 'first', name FROM v WHERE id = 1;\n",
    )
    .expect("written");
    wait_for("the first answer", || (ran(&world, "'first'") == 1).then_some(()));
    let policy = world.policy().expect("a policy");
    // Other sessions do not see the view: the gateway knows no definition of it.
    put_in_force(
        &world,
        &policy.replace("public.customers.ssn]", "public.customers.ssn, public.customers.name]"),
    );
    psql.write(b"SELECT 'second', name FROM v WHERE id = 1;\n").expect("written");
    let out = psql.finish(LIMIT).expect("an end");
    assert!(out.stdout.contains("first|Customer 1") && !out.stdout.contains("second|"), "{out}");
    assert!(out.stderr.contains("masks changed after this session defined objects"), "{out}");
    assert_eq!(ran(&world, "'second'"), 0);
}

#[test]
fn a_prepared_statement_is_decided_again() {
    let world = World::new();
    let mut client = world.job(&[&world.program("tokio-client"), "held"]).open().expect("a job");
    wait_for("the statement", || (ran(&world, "SELECT amount::text") >= 1).then_some(()));
    let policy = world.policy().expect("a policy");
    put_in_force(&world, &policy.replace("public.orders, public.contacts", "public.contacts"));
    client.write(b"go\n").expect("written");
    let said = json(&client.finish(LIMIT).expect("an end").ok().stdout);
    assert_eq!(said["refused"]["code"], "42501", "{said}");
    assert_eq!(said["other"], serde_json::Value::Null, "the session goes on: {said}");
}

#[test]
fn a_subject_that_may_not_connect_any_more_loses_its_sessions() {
    let world = World::new();
    let mut psql = session(&world);
    psql.write(b"SELECT 'first';\n").expect("written");
    wait_for("the session", || (ran(&world, "'first'") == 1).then_some(()));
    let policy = world.policy().expect("a policy");
    world
        .write_policy(&policy.replace(
            "{ id: connect, effect: allow, subjects: [agents]",
            "{ id: connect, effect: allow, subjects: [readonly-agent]",
        ))
        .expect("written");
    wait_for("the session to end", || {
        (world.agent.metric("gateway_sessions_active", &[]).ok()? == 0.0).then_some(())
    });
    // Neither its own nor those by which the gateway read names for it and looked after it.
    assert_nothing_left(&world);
    drop(psql);
    let out = world.psql("SELECT 'second';").run().failed();
    assert!(!out.stdout.contains("second"), "{out}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let world = World::new();
    let before = version(&world);
    let good = world.policy().expect("a policy");
    let broken = [
        (
            "unknown field",
            good.replace("effect: allow\n    subjects: [agents]", "efect: allow\n    subjects: [agents]"),
        ),
        ("duplicate rule", good.replace("id: session", "id: read")),
        ("no YAML", "version: [1".to_owned()),
        ("cycle", good.replace("members: [payments-agent, readonly-agent]", "members: [agents]")),
        (
            "unknown subject",
            good.replace("members: [payments-agent, readonly-agent]", "members: [nobody-here]"),
        ),
        ("empty", String::new()),
    ];
    for (what, text) in broken {
        assert_ne!(text, good, "{what}");
        let refused =
            world.agent.metric("gateway_policy_reloads_total", &["result=\"failure\""]).expect("metrics");
        world.write_policy(&text).expect("written");
        world.agent.hang_up();
        wait_for(what, || {
            let now = world.agent.metric("gateway_policy_reloads_total", &["result=\"failure\""]).ok()?;
            (now > refused).then_some(())
        });
        assert_eq!(version(&world), before, "{what}");
        let file = world.folder().join("policy.yaml").display().to_string();
        let out = world.agent.cli(&["policy", "check", &file]).expect("checked").failed();
        assert!(
            format!("{}{}", out.stdout, out.stderr).contains("policy.yaml"),
            "{what} names the file: {out}"
        );
    }
    wait_for_audit(&world, "policy_refused", |_| true);
    assert_eq!(world.psql("SELECT 'served';").run().ok().text(), "served");
}
