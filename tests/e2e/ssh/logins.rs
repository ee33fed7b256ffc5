//! How the gateway knows hosts, and logs in to them.

use std::process::Command;

use tests::{
    process::output,
    sshd::Sshd,
    vault::{Mood, Vault},
};

use crate::support::{Ground, HOST, RULES, VAULT_JWT, VAULT_TOKEN, pinned, policy, wait_for, wait_for_audit};

const KEY: &str = "key: { file: @DIR@/secrets/ssh }";

fn login(known: &str, method: &str) -> String {
    format!("{known}\n    login: {{ user: {}, {method} }}", Sshd::USER)
}

#[track_caller]
fn works(ground: &Ground) {
    assert_eq!(ground.ssh(&[HOST, "echo in; id -un"]).run().ok().stdout, format!("in\n{}\n", Sshd::USER));
}

#[test]
fn a_host_is_known_by_its_key_by_its_digest_and_by_its_authority() {
    works(&Ground::knowing(&[], &|sshd| {
        login(&format!("host_keys: [\"{}\"]", sshd.public_key("host_ecdsa")), KEY)
    }));
    works(&Ground::knowing(&[], &|sshd| {
        let line = output(Command::new("ssh-keygen").arg("-lf").arg(sshd.key("host_ed25519.pub")))
            .expect("ssh-keygen");
        login(&format!("host_keys: [\"{}\"]", line.split(' ').nth(1).expect("a digest")), KEY)
    }));
    works(&Ground::knowing(&[], &|sshd| {
        login(&format!("host_ca: [\"{}\"]", sshd.public_key("host_ca")), KEY)
    }));
}

#[test]
fn a_host_that_shows_another_key_gets_nothing() {
    for known in ["host_keys", "host_ca"] {
        // A key that is real, and another's.
        let ground =
            Ground::knowing(&[], &|sshd| login(&format!("{known}: [\"{}\"]", sshd.public_key("login")), KEY));
        let out = ground.ssh(&[HOST, "echo in"]).run().failed();
        assert!(out.stderr.contains("its host key is not one that policy names"), "{out}");
        assert!(out.stdout.is_empty());
        assert_eq!(ground.sshd.ran(), [""; 0]);
        // It never came to a login.
        assert!(
            !ground.sshd.log().contains("Accepted") && !ground.sshd.log().contains("Failed"),
            "{}",
            ground.sshd.log()
        );
    }
}

#[test]
fn certificates_are_made_for_the_job_and_for_minutes() {
    let ground = Ground::knowing(&[], &|sshd| {
        login(
            &format!("host_keys: [\"{}\"]", sshd.public_key("host_ed25519")),
            "user_certificate: { authority: { file: @DIR@/secrets/user_ca }, valid_for: 2m, source_address: [198.51.100.1] }",
        )
    });
    works(&ground);
    let log = ground.sshd.log();
    assert!(
        log.contains("Accepted certificate ID \"gateway job ")
            && log.contains("subject payments-agent session "),
        "{log}"
    );
    let opened = wait_for_audit(&ground.world, "session_opened", |_| true);
    assert!(log.contains(opened["session"].as_str().expect("an id")), "{opened}");
    // From elsewhere the host would not take it; here, a network that the gateway is not in.
    let ground = Ground::knowing(&[], &|sshd| {
        login(
            &format!("host_keys: [\"{}\"]", sshd.public_key("host_ed25519")),
            "user_certificate: { authority: { file: @DIR@/secrets/user_ca }, source_address: [203.0.113.0/24] }",
        )
    });
    let out = ground.ssh(&[HOST, "echo in"]).run().failed();
    assert!(out.stderr.contains("does not accept the gateway's login"), "{out}");
    // A command that the host forces runs instead of any other.
    let ground = Ground::knowing(&[], &|sshd| {
        login(
            &format!("host_keys: [\"{}\"]", sshd.public_key("host_ed25519")),
            "user_certificate: { authority: { file: @DIR@/secrets/user_ca }, force_command: \"echo forced\" }",
        )
    });
    assert_eq!(ground.ssh(&[HOST, "echo in"]).run().ok().stdout, "forced\n");
}

/// Vault's SSH CA signs, in what stands for Vault; `more`: lines of the login.
fn signed_by_vault(more: &str) -> (Ground, Vault) {
    let ground = Ground::knowing(&[], &|sshd| {
        login(
            &format!("host_keys: [\"{}\"]", sshd.public_key("host_ed25519")),
            &format!(
                "user_certificate: {{ valid_for: 2m, source_address: [198.51.100.1], vault: {{ address: \"https://{VAULT}\", \
                 mount: ssh-ci, role: deploy, {more} }} }}"
            ),
        )
    });
    let vault = Vault::start(
        &ground.world.far,
        VAULT.parse().expect("an address"),
        &ground.world.authority,
        (&ground.world.folder().join("vault"), &ground.sshd.key("user_ca")),
        (VAULT_TOKEN, VAULT_JWT),
    );
    (ground, vault.expect("what stands for Vault"))
}

const VAULT: &str = "198.51.100.30:8200";
const BY_TOKEN: &str = "ca: @DIR@/db-ca.pem, token: { file: @DIR@/secrets/vault_token }";

#[test]
fn vault_signs_for_each_connection_what_was_asked_for_or_nothing_happens() {
    let (ground, vault) = signed_by_vault(&format!("{BY_TOKEN}, key_id: true"));
    works(&ground);
    assert!(
        ground.sshd.log().contains("Accepted certificate ID \"gateway job "),
        "the host reads who it was:\n{}",
        ground.sshd.log()
    );
    let asked = vault.asked();
    let (path, body) = asked.first().expect("a request");
    assert_eq!(path, "/v1/ssh-ci/sign/deploy");
    assert_eq!(
        (&body["valid_principals"], &body["ttl"], &body["critical_options"]["source-address"]),
        (&Sshd::USER.into(), &"120s".into(), &"198.51.100.1/32".into()),
        "{body}"
    );
    let logins = || ground.sshd.log().matches("Accepted").count();
    let before = logins();
    for (mood, why) in [
        (Mood::OtherPrincipal, "its certificate names other principals"),
        (Mood::Longer, "is good for longer than policy says"),
        (Mood::OtherKey, "is for another key"),
        (Mood::Generous, "has other extensions"),
        (Mood::Refuses, "status 400: deploy is not a valid value for valid_principals"),
        (Mood::Nonsense, "it answers without a certificate"),
        (Mood::Endless, "answers with more than 64 KiB"),
    ] {
        vault.set(mood);
        let out = ground.ssh(&[HOST, "echo in"]).run().failed();
        assert!(out.stderr.contains("the gateway's own credential cannot be used"), "{mood:?}: {out}");
        // What Vault says is for the operator.
        assert!(!out.stderr.contains(why), "{mood:?}: {out}");
        wait_for("the operator to be told", || ground.world.agent.log().contains(why).then_some(()));
    }
    assert_eq!(logins(), before, "{}", ground.sshd.log());
    vault.set(Mood::Right);
    works(&ground);
    drop(vault);
    let out = ground.ssh(&[HOST, "echo in"]).run().failed();
    assert!(out.stderr.contains("the gateway's own credential cannot be used"), "{out}");
    let audit = std::fs::read_to_string(ground.world.agent.audit_file()).expect("an audit log");
    for text in [&ground.world.agent.log(), &audit] {
        assert!(!text.contains(VAULT_TOKEN), "{text}");
    }
}

#[test]
fn the_gateway_logs_in_to_vault_by_jwt_and_gives_the_token_back() {
    let (ground, vault) = signed_by_vault(
        "ca: @DIR@/db-ca.pem, jwt: { role: gateway, token: { file: @DIR@/secrets/vault_jwt } }",
    );
    works(&ground);
    let paths: Vec<_> = vault.asked().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/v1/ssh-ci/sign/deploy", "/v1/auth/token/revoke-self"]);
    std::fs::write(ground.world.folder().join("secrets/vault_jwt"), "eyJ.another").expect("written");
    let out = ground.ssh(&[HOST, "echo in"]).run().failed();
    assert!(out.stderr.contains("the gateway's own credential cannot be used"), "{out}");
    wait_for("the operator to be told", || {
        ground.world.agent.log().contains("auth/jwt/login: status 400: error validating token").then_some(())
    });
    assert_eq!(vault.asked().len(), 2);
}

#[test]
fn a_vault_that_cannot_prove_itself_is_told_nothing() {
    let (ground, vault) = signed_by_vault("token: { file: @DIR@/secrets/vault_token }");
    let out = ground.ssh(&[HOST, "echo in"]).run().failed();
    assert!(out.stderr.contains("the gateway's own credential cannot be used"), "{out}");
    assert_eq!(vault.asked(), []);
    assert_eq!(ground.sshd.ran(), [""; 0]);
}

#[test]
fn passwords_stay_with_the_gateway() {
    let ground = Ground::knowing(&["PubkeyAuthentication no"], &|sshd| {
        login(
            &format!("host_keys: [\"{}\"]", sshd.public_key("host_ed25519")),
            "password: { file: @DIR@/secrets/ssh_password }",
        )
    });
    works(&ground);
    assert!(ground.sshd.log().contains("Accepted password for deploy"), "{}", ground.sshd.log());
    let env = ground.job(&["bash", "-c", "env; cat /etc/ssh/ssh_known_hosts"]).run().ok();
    let log = ground.world.agent.log();
    let audit = std::fs::read_to_string(ground.world.agent.audit_file()).expect("an audit log");
    for text in [&env.stdout, &log, &audit] {
        assert!(!text.contains(ground.sshd.password()), "{text}");
    }
}

#[test]
fn what_policy_takes_back_ends_at_once() {
    let ground = Ground::new();
    let job = ground.ssh(&[HOST, "echo here; exec sleep 600"]).start().expect("a job");
    wait_for("the command", || (!ground.sshd.ran().is_empty()).then_some(()));
    let without =
        RULES.replace("{ program: sleep, arguments: [\"**\"] }", "{ program: whoami, arguments: [] }");
    ground.world.write_policy(&policy(&pinned(&ground.sshd), &without)).expect("written");
    let out = job.finish(tests::process::LIMIT).expect("an end").failed();
    assert!(out.stderr.contains("the policy no longer allows it"), "{out}");
    // The connection itself.
    let job = ground.ssh(&[HOST, "cat"]).open().expect("a job");
    wait_for("the command", || (ground.sshd.ran().len() == 2).then_some(()));
    let none = without.replace("connect: true }", "connect: false, ssh: { pty: true } }");
    ground.world.write_policy(&policy(&pinned(&ground.sshd), &none)).expect("written");
    // Its input stays open until then.
    wait_for_audit(&ground.world, "session_closed", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("no longer allows the connection"))
    });
    let out = job.finish(tests::process::LIMIT).expect("an end").failed();
    assert!(out.stderr.contains("no longer allows the connection"), "{out}");
    let out = ground.ssh(&[HOST, "echo in"]).run().failed();
    assert!(out.stderr.contains("denied by policy rule builtin:default-deny"), "{out}");
}

#[test]
fn limits_end_what_exceeds_them() {
    let limited = |limits: &str| {
        RULES.replace(
            "      pty: true\n      env",
            &format!("      limits: {{ {limits} }}\n      pty: true\n      env"),
        )
    };
    for (limits, command, why) in [
        ("duration: 2s", "sleep 600", "open for 2s"),
        ("idle: 2s", "sleep 600", "idle for 2s"),
        ("bytes: 1000000", "yes", "more than 1000000 bytes"),
    ] {
        let ground = Ground::with(&limited(limits), &[], &[]);
        let job = ground.ssh(&[HOST, command]).open().expect("a job");
        let out = job.finish(tests::process::LIMIT).expect("an end").failed();
        assert!(
            out.stderr.contains(&format!("ended by policy rule commands: {why}")),
            "{limits}: {}",
            out.stderr
        );
        wait_for("the command to end", || {
            ground.sshd.processes().iter().all(|line| !line.contains("600")).then_some(())
        });
        let line = wait_for_audit(&ground.world, "limit_exceeded", |_| true);
        assert_eq!(line["rule"], "commands", "{line}");
    }
    let ground = Ground::with(&limited("per_minute: 2"), &[], &[]);
    for _ in 0..2 {
        let _ = ground.ssh(&[HOST, "echo in"]).run().ok();
    }
    // Each job has its own.
    let script = format!("for n in 1 2 3; do ssh -o BatchMode=yes {HOST} \"echo $n\"; done");
    let out = ground.job(&["bash", "-c", &script]).run().failed();
    assert_eq!(out.stdout, "1\n2\n", "{out}");
    assert!(out.stderr.contains("more than 2 requests in a minute"), "{out}");
}
