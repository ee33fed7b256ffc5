//! The transport on both legs: changes of keys, and key exchanges that somebody tampers with.

use std::{fs, time::Duration};

use serde_json::json;

use crate::support::{FILES, Ground, HOST, RULES, SECOND, audited, wait_for_audit};

const MIB: usize = 1024 * 1024;
const MIDDLE: &str = include_str!("middle.py");

/// How often a log speaks of a change of keys.
fn changes(log: &str) -> usize {
    log.matches("SSH2_MSG_NEWKEYS received").count().max(log.matches("rekey in after").count())
}

#[track_caller]
fn with_rekey(rules: &str, bytes: usize, after: &str) -> Ground {
    let settings = [("/sessions/ssh_rekey_bytes", json!(bytes)), ("/sessions/ssh_rekey_after", json!(after))];
    Ground::with(rules, &[], &settings)
}

#[test]
fn keys_are_changed_by_volume_on_both_legs() {
    let ground = with_rekey(RULES, MIB, "1h");
    let out = ground.ssh(&["-v", HOST, "head -c 8000000 /dev/zero; cat | wc -c"]);
    let out = out.stdin(vec![b'x'; 8_000_000]).run().ok();
    assert!(out.stdout.len() == 8_000_008 && out.stdout.ends_with("8000000\n"), "{} bytes", out.stdout.len());
    // Once at the start, and then again and again.
    assert!(changes(&out.stderr) > 4, "{}", out.stderr);
    assert!(changes(&ground.sshd.log()) > 4, "{}", ground.sshd.log());
    // Files, either way, by both protocols.
    drop(ground);
    let ground = with_rekey(FILES, MIB, "1h");
    let script = format!(
        "set -e; cd /tmp; head -c 20000000 /dev/urandom > one\n\
         for p in -s -O; do scp $p -q -o BatchMode=yes one {HOST}:there$p; scp $p -q -o BatchMode=yes {HOST}:there$p two$p; cmp one two$p; done\n\
         rsync -a -e 'ssh -o BatchMode=yes -o RekeyLimit=300K' one {HOST}:three; rsync -a -e 'ssh -o BatchMode=yes' {HOST}:three four; cmp one four; echo same"
    );
    let out = ground.job(&["bash", "-c", &script]).limit(Duration::from_secs(120)).run().ok();
    assert_eq!(out.text(), "same", "{out}");
}

#[test]
fn keys_are_changed_by_time_on_both_legs() {
    let ground = with_rekey(RULES, 1 << 30, "1s");
    let out = ground.ssh(&["-v", HOST, "for n in 1 2 3 4 5 6; do echo $n; sleep 1; done"]).run().ok();
    assert_eq!(out.stdout, "1\n2\n3\n4\n5\n6\n");
    assert!(changes(&out.stderr) > 3, "{}", out.stderr);
    assert!(changes(&ground.sshd.log()) > 3, "{}", ground.sshd.log());
    // And when nobody says anything.
    let out = ground.ssh(&["-v", HOST, "sleep 4; echo after"]).run().ok();
    assert_eq!(out.stdout, "after\n");
    assert!(changes(&out.stderr) > 2, "{}", out.stderr);
}

#[test]
fn a_job_that_refuses_other_keys_is_let_go() {
    let ground = with_rekey(RULES, MIB, "1h");
    let before = ground.world.agent.memory().expect("memory");
    let script = include_str!("stubborn.py");
    let out =
        ground.job(&[&ground.world.python(), "-c", script, HOST]).limit(Duration::from_secs(90)).run().ok();
    let said: serde_json::Value = serde_json::from_str(out.text()).expect("JSON");
    assert!(said["asked"].as_u64().is_some_and(|asked| asked > 0), "{out}");
    assert_eq!(said["closed"], true, "{out}");
    assert!(said["sent"].as_u64().is_some_and(|sent| sent < 32 * MIB as u64), "{out}");
    let peak = ground.world.agent.peak_memory().expect("memory");
    assert!(peak < before + 64 * MIB as u64, "{before} to {peak}");
    assert_eq!(ground.ssh(&[HOST, "echo alive"]).run().ok().text(), "alive");
}

#[test]
fn a_key_exchange_that_somebody_adds_to_on_the_job_s_leg_ends() {
    let ground = Ground::new();
    let python = ground.world.python();
    let ssh = |attack: &str| {
        fs::write(ground.sshd.home().join("middle.py"), MIDDLE).expect("a file");
        let middle = ground.sshd.home().join("middle.py");
        let way = format!("ProxyCommand={python} {} stdio %h %p {attack}", middle.display());
        ground.ssh(&["-o", &way, "-o", "ConnectTimeout=15", HOST, "echo in"]).run()
    };
    assert_eq!(ssh("none").ok().text(), "in");
    let out = ssh("to-server").failed();
    assert!(out.stdout.is_empty(), "{out}");
    let ended = wait_for_audit(&ground.world, "session_closed", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("strict key exchange"))
    });
    assert!(ended["reason"].as_str().is_some_and(|reason| reason.contains("message 2")), "{ended}");
    // What the gateway says cannot be cut either: it resets what is counted, and the client notices.
    let out = ssh("to-client").failed();
    assert!(out.stdout.is_empty(), "{out}");
    assert_eq!(ground.sshd.ran(), ["echo in"]);
    assert_eq!(audited(&ground.world, "session_opened").len(), 1);
}

#[test]
fn a_key_exchange_that_somebody_adds_to_on_the_host_s_leg_ends() {
    // With the cipher that lets messages be cut out unseen, if nothing else keeps an eye on it.
    let ground = Ground::with(RULES, &["Ciphers chacha20-poly1305@openssh.com"], &[]);
    for (attack, works) in [("none", true), ("to-client", false), ("none", true)] {
        let middle = ground.there(MIDDLE, &["listen", SECOND, HOST, "22", attack]);
        ground.moved(RULES);
        let out = ground.ssh(&[SECOND, "echo in"]).run();
        match works {
            true => assert_eq!(out.ok().text(), "in", "{attack}"),
            false => {
                let ran = ground.sshd.ran().len();
                let out = out.failed();
                assert!(out.stderr.contains("strict key exchange"), "{out}");
                assert_eq!(ground.sshd.ran().len(), ran);
            }
        }
        drop(middle);
    }
    assert!(ground.sshd.log().contains("chacha20"), "{}", ground.sshd.log());
}

#[test]
fn a_host_without_strict_key_exchange_needs_a_cipher_that_bears_it() {
    let ground = Ground::new();
    let key = ground.sshd.key("host_ed25519").display().to_string();
    let loose = include_str!("loose.py");
    for (ciphers, works) in [
        (&["chacha20-poly1305@openssh.com"][..], false),
        (&["aes256-gcm@openssh.com"], true),
        (&["aes128-ctr"], true),
    ] {
        let words: Vec<&str> = [SECOND, &key].into_iter().chain(ciphers.iter().copied()).collect();
        let host = ground.there(loose, &words);
        ground.moved(RULES);
        let out = ground.ssh(&[SECOND, "echo in"]).run();
        match works {
            true => assert_eq!(out.text(), "ran echo in", "{ciphers:?}: {out}\n{}", ground.said_there()),
            false => {
                let out = out.failed();
                assert!(out.stderr.contains("without strict key exchange"), "{out}");
                assert!(!out.stdout.contains("ran"), "{out}");
            }
        }
        drop(host);
    }
}

#[test]
fn a_client_without_strict_key_exchange_gets_no_cipher_that_needs_it() {
    let ground = Ground::new();
    let script = "import paramiko, sys\n\
                  client = paramiko.Transport((sys.argv[1], 22), strict_kex=False)\n\
                  client.start_client(timeout=30); client.auth_none('job')\n\
                  channel = client.open_session(timeout=20); channel.exec_command('echo in')\n\
                  print(client.agreed_on_strict_kex, channel.makefile().read().decode().strip(), client.local_cipher)";
    let out = ground.job(&[&ground.world.python(), "-c", script, HOST]).run().ok();
    let words: Vec<_> = out.text().split(' ').collect();
    assert_eq!(words[..2], ["False", "in"], "{out}");
    assert!(words[2].starts_with("aes") && !words[2].contains("cbc"), "{out}");
    let chacha = "import asyncio, asyncssh, sys\nasync def main():\n  try:\n    \
                  await asyncssh.connect(sys.argv[1], known_hosts=None, encryption_algs=['chacha20-poly1305@openssh.com', 'aes128-cbc'])\n    \
                  print('connected')\n  except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost):\n    print('refused')\nasyncio.run(main())";
    let out = ground.job(&[&ground.world.python(), "-c", chacha, HOST]).run().ok();
    assert_eq!(out.text(), "refused", "{out}");
    assert_eq!(ground.sshd.ran(), ["echo in"]);
}
