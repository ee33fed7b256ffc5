//! pgbench in its three protocols, through the gateway.

use tests::World;

use crate::support::wait_for;

#[test]
fn pgbench_runs_in_all_its_modes() {
    let world = World::new();
    world.pgbench_tables(1).expect("tables");
    for mode in ["simple", "extended", "prepared"] {
        let out = world.job(&["pgbench", "-n", "-M", mode, "-c", "4", "-t", "50"]).run().ok();
        assert!(out.stdout.contains("number of transactions actually processed: 200/200"), "{out}");
        let out = world.job(&["pgbench", "-n", "-S", "-M", mode, "-c", "8", "-t", "100"]).run().ok();
        assert!(out.stdout.contains("number of failed transactions: 0"), "{out}");
    }
    // A pipeline of statements.
    let script = world.folder().join("pipeline.sql");
    std::fs::write(&script, "\\startpipeline\nSELECT 1;\nSELECT abalance FROM pgbench_accounts WHERE aid = 7;\nSELECT 3;\n\\endpipeline\n")
        .expect("a script");
    let script = script.display().to_string();
    let out =
        world.job(&["pgbench", "-n", "-M", "extended", "-c", "4", "-t", "50", "-f", &script]).run().ok();
    assert!(out.stdout.contains("number of transactions actually processed: 200/200"), "{out}");
    assert_eq!(world.db.ask("SELECT count(*) FROM pgbench_history"), "600");
    // New connections all the time.
    let out = world.job(&["pgbench", "-n", "-S", "-C", "-c", "2", "-t", "25"]).run().ok();
    assert!(out.stdout.contains("number of transactions actually processed: 50/50"), "{out}");
    wait_for("the sessions to end", || {
        (world.agent.metric("gateway_sessions_active", &[]).ok()? == 0.0).then_some(())
    });
}
