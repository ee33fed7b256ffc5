//! Tokens that are good and tokens that are not.

use serde_json::json;
use tests::{
    World,
    issuer::{Algorithm, Issuer},
    pki::Authority,
    provider::Provider,
    world::PROVIDER,
};

use crate::support::wait_for_audit;

#[test]
fn every_accepted_algorithm_is_accepted() {
    let world = World::new();
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let token = world.token().algorithm(algorithm).mint().expect("a token");
        let out = world.job_as(&token, &["psql", "-XAtc", "SELECT 1"]).expect("a job").run().ok();
        assert_eq!(out.text(), "1");
    }
    let enrolled = wait_for_audit(&world, "job_enrolled", |_| true);
    assert_eq!(enrolled["subject"], "payments-agent");
}

#[test]
fn bad_tokens_make_no_job() {
    let world = World::new();
    let stranger = Issuer::new("https://token.example").expect("keys");
    let fresh = || world.token();
    let bad = [
        ("expired", fresh().expired(60)),
        ("not yet valid", fresh().claim("nbf", tests::issuer::now() + 600)),
        ("for somebody else", fresh().claim("aud", "another-service")),
        ("of no audience", fresh().without("aud")),
        ("of another issuer", fresh().claim("iss", "https://evil.example")),
        ("of no issuer", fresh().without("iss")),
        ("of no subject", fresh().without("sub")),
        ("that never ends", fresh().without("exp")),
        ("without an id", fresh().without("jti")),
        ("unsigned", fresh().algorithm(Algorithm::None)),
        (
            "signed by a stranger",
            stranger.token("repo:acme/payments", "gateway-agent").claim("repository", "acme/payments"),
        ),
        ("naming an unknown key", fresh().kid("nobody-1")),
        ("naming the key of another algorithm", fresh().kid("rs256-1")),
        ("of no known subject", fresh().claim("repository", "acme/unknown")),
    ];
    for (what, token) in bad {
        let token = token.mint().expect("a token");
        let out = world.job_as(&token, &["sh", "-c", "echo ran"]).expect("a job").run().failed();
        assert_eq!(out.status.code(), Some(125), "a token {what}: {out}");
        assert!(!out.stdout.contains("ran"), "a token {what}: {out}");
        assert!(!out.stderr.contains(&token), "a token {what} is not repeated: {out}");
        assert!(out.stderr.len() > 40, "a token {what} is explained: {out}");
    }
    assert_eq!(jobs(&world), Vec::<std::path::PathBuf>::new());
    let garbage = ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", &"A".repeat(100_000)].map(str::to_owned);
    for token in garbage {
        let out = world.job_as(&token, &["sh", "-c", "echo ran"]).expect("a job").run().failed();
        assert!(!out.stdout.contains("ran"), "{out}");
    }
    wait_for_audit(&world, "enrolment_refused", |_| true);
    assert!(world.agent.metric("gateway_enrolments_total", &[]).expect("metrics") >= 10.0);
    assert!(!world.db.log().contains("gateway@orders"), "{}", world.db.log());
    assert_eq!(jobs(&world), Vec::<std::path::PathBuf>::new());
}

/// The cgroups of jobs.
fn jobs(world: &World) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(world.cgroup().join("gateway-jobs")).expect("jobs").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[test]
fn a_token_is_good_once() {
    let world = World::new();
    let token = world.token().mint().expect("a token");
    let _out = world.job_as(&token, &["true"]).expect("a job").run().ok();
    let out = world.job_as(&token, &["true"]).expect("a job").run().failed();
    assert!(out.stderr.contains("used") || out.stderr.contains("replay"), "{out}");
}

#[test]
fn a_token_is_good_once_also_after_a_restart() {
    let mut world = World::new();
    let token = world.token().mint().expect("a token");
    let _out = world.job_as(&token, &["true"]).expect("a job").run().ok();
    world.agent.kill();
    world.agent.start().expect("the agent again");
    let _out = world.job_as(&token, &["true"]).expect("a job").run().failed();
}

#[test]
fn the_subject_decides_what_is_allowed() {
    let world = World::new();
    let token = world.token().claim("repository", "acme/readonly").mint().expect("a token");
    let sql = "SELECT 1; INSERT INTO imports VALUES (1, 'x')";
    let out =
        world.job_as(&token, &["psql", "-XAt", "-c", "SELECT 1", "-c", sql]).expect("a job").run().failed();
    assert!(out.stdout.starts_with('1') && out.stderr.contains("denied by policy"), "{out}");
    assert_eq!(world.db.ask("SELECT count(*) FROM imports"), "0");
}

#[test]
fn keys_are_found_over_https_and_rotate() {
    let ca = Authority::new("Provider").expect("an authority");
    let url = format!("https://{PROVIDER}");
    let issuer = Issuer::new(&url).expect("keys");
    let mut world = World::builder()
        .without_agent()
        .issuer(issuer)
        .policy(&tests::sample::POLICY.replace("https://token.example", &url))
        .configure("/identity/issuers/0", json!({ "issuer": url, "audience": "gateway-agent", "nonce": true, "discovery": true, "ca": "@DIR@/provider-ca.pem" }))
        .up();
    ca.write(&world.folder().join("provider-ca.pem")).expect("written");
    let provider =
        Provider::start(&world.far, PROVIDER.parse().expect("an address"), &ca, world.issuer.jwks())
            .expect("a provider");
    world.agent.start().expect("the agent");

    // The nonce is in the audience: a token minted before is worth nothing.
    let out = world.job(&["true"]).run().failed();
    assert!(!out.stderr.is_empty());
    let command = world.mint_command().expect("a command");
    let run = |world: &World| {
        let mut words = world.agent.command(&["exec", "--token-command", &command, "--", "echo", "ran"]);
        tests::process::run(&mut words).expect("a job")
    };
    assert_eq!(run(&world).ok().text(), "ran");
    let asked = provider.requests();
    assert_eq!(run(&world).ok().text(), "ran");
    assert_eq!(provider.requests(), asked, "keys are kept");

    // New keys under new names are fetched when a token names one.
    world.issuer = world.issuer.rotated().expect("keys");
    world.write_mint_keys().expect("written");
    provider.publish(world.issuer.jwks());
    let again = tests::process::wait_for("the new keys", tests::process::LIMIT, || {
        let out = run(&world);
        out.success().then_some(out)
    });
    assert_eq!(again.expect("accepted").text(), "ran");
}
