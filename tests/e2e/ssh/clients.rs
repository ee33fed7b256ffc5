//! Everything that moves files, and clients of other makes.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use tests::process::{must, output};

use crate::support::{ANYTHING, FILES, Ground, HOST, recordings, wait_for_audit};

/// A file of some size, with every byte in it.
fn sample(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// A file of the host, which is the account's.
#[track_caller]
fn put(ground: &Ground, name: &str, bytes: &[u8]) {
    let path = ground.sshd.home().join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(&path, bytes).expect("a file");
    must(
        Command::new("chown")
            .arg("-R")
            .arg(format!("--reference={}", ground.sshd.home().display()))
            .arg(ground.sshd.home()),
    )
    .expect("chown");
}

#[track_caller]
fn got(ground: &Ground, name: &str) -> Vec<u8> {
    fs::read(ground.sshd.home().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

const SCP: &str = "scp -q -o BatchMode=yes -o StrictHostKeyChecking=yes";

#[test]
fn scp_copies_by_both_protocols() {
    let ground = Ground::with(FILES, &[], &[]);
    let bytes = sample(3_000_000);
    put(&ground, "there", &bytes);
    put(&ground, "folder/a", b"a");
    put(&ground, "folder/b/c", b"c");
    for protocol in ["-s", "-O"] {
        let script = format!(
            "set -e; cd /tmp; {SCP} {protocol} {HOST}:there here; sha256sum < here | cut -c1-64\n\
             {SCP} {protocol} here {HOST}:back{protocol}; {SCP} {protocol} -p here {HOST}:folder/in{protocol}\n\
             {SCP} {protocol} -r {HOST}:folder copy; cat copy/a copy/b/c; {SCP} {protocol} -r copy {HOST}:again{protocol}"
        );
        let out = ground.job(&["bash", "-c", &script]).run().ok();
        let digest =
            output(Command::new("sha256sum").arg(ground.sshd.home().join("there"))).expect("sha256sum");
        assert_eq!(out.stdout, format!("{}\nac", &digest[..64]), "{out}");
    }
    for name in ["back-s", "back-O", "folder/in-s", "folder/in-O"] {
        assert!(got(&ground, name) == bytes, "{name}");
    }
    for name in ["again-s/b/c", "again-O/b/c"] {
        assert_eq!(got(&ground, name), b"c", "{name}");
    }
}

#[test]
fn a_transfer_that_is_sent_ahead_arrives_and_one_that_is_cut_off_is_written_down() {
    let ground = Ground::with(FILES, &[], &[]);
    put(&ground, "up/x", b"");
    // All at once, its end included.
    let script = format!(
        "printf 'C0644 6 ahead\\nhello\\n\\0' | ssh -o BatchMode=yes {HOST} scp -t up | tr '\\0' .\n\
         (printf 'C0644 1000 cut\\nhell\\n') | ssh -o BatchMode=yes {HOST} scp -t up > /dev/null; true"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.stdout, "...", "{out}");
    assert_eq!(got(&ground, "up/ahead"), b"hello\n");
    let cut = wait_for_audit(&ground.world, "completed", |line| {
        line["statement_kind"] == "ssh_file" && line["bytes_in"] == 5
    });
    assert_eq!(cut["outcome"], "closed", "{cut}");
}

#[test]
fn files_that_are_not_granted_are_neither_read_nor_written() {
    let ground = Ground::with(FILES, &[], &[]);
    put(&ground, "secret/key", b"hidden-content");
    put(&ground, "open", b"open");
    std::os::unix::fs::symlink("secret/key", ground.sshd.home().join("link")).expect("a link");
    std::os::unix::fs::symlink("secret", ground.sshd.home().join("door")).expect("a link");
    for protocol in ["-s", "-O"] {
        for path in [
            "secret/key",
            "/etc/passwd",
            "./secret/../secret/key",
            "folder/../../../../etc/passwd",
            "link",
            "door/key",
            "-r door",
        ] {
            let (options, path) = path.split_once(' ').unwrap_or(("", path));
            let script = format!(
                "cd /tmp; {SCP} {protocol} {options} {HOST}:{path} out; ! grep -r -e hidden-content -e root: out"
            );
            let out = ground.job(&["bash", "-c", &script]).run();
            assert!(out.success(), "{protocol} {path}: {out}");
        }
        for path in ["secret/new", "/tmp/gateway-ssh-new", "door/new"] {
            let script = format!("cd /tmp; echo x > in; {SCP} {protocol} in {HOST}:{path}");
            let _ = ground.job(&["bash", "-c", &script]).run().failed();
        }
    }
    // By SFTP links and what leads upwards are behind.
    let batch = "-get link out1\n-get door/key out2\n-ls secret\n-rename open secret/open\n-rename secret/key stolen\n-symlink secret/key other\n-rm secret/key\n-chmod 777 secret/key\n-get open out3\n";
    let script = format!(
        "cd /tmp; sftp -o BatchMode=yes -b - {HOST} <<< $'{}'; cat out1 out2; cat out3",
        batch.replace('\n', "\\n")
    );
    let out = ground.job(&["bash", "-c", &script]).run();
    assert!(out.stdout.ends_with("open"), "{out}");
    assert!(!out.stdout.contains("hidden-content"), "{out}");
    assert!(out.stderr.contains("Permission denied") || out.stderr.contains("secrets"), "{out}");
    assert_eq!(got(&ground, "secret/key"), b"hidden-content");
    for name in ["secret/new", "secret/open", "stolen", "other"] {
        assert!(fs::symlink_metadata(ground.sshd.home().join(name)).is_err(), "{name}");
    }
    let mode = fs::metadata(ground.sshd.home().join("secret/key")).expect("the key").permissions().mode();
    assert_ne!(mode & 0o777, 0o777);
    assert!(!std::path::Path::new("/tmp/gateway-ssh-new").exists());
    let line = wait_for_audit(&ground.world, "decision", |line| {
        line["statement_kind"] == "ssh_file" && line["verdict"] == "deny"
    });
    assert_eq!(line["rules"][0], "secrets", "{line}");
}

#[test]
fn sftp_does_what_it_is_for() {
    let without_deny = FILES.split("  - id: secrets").next().expect("rules");
    let ground = Ground::with(without_deny, &[], &[]);
    put(&ground, "docs/a", b"first");
    let batch = "ls docs\nget docs/a one\n!printf second > two\nput two docs/b\nrename docs/b docs/c\nmkdir docs/d\nln -s a docs/l\nchmod 600 docs/c\nrm docs/a\nrmdir docs/d\nls -l docs\n";
    let script = format!(
        "cd /tmp; sftp -o BatchMode=yes -b - {HOST} <<< $'{}' && cat one",
        batch.replace('\n', "\\n")
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert!(out.stdout.ends_with("first"), "{out}");
    assert_eq!(got(&ground, "docs/c"), b"second");
    assert!(!ground.sshd.home().join("docs/a").exists() && !ground.sshd.home().join("docs/d").exists());
    // Every operation is in the recording, with what went through it.
    let file = ground.recording();
    let text = ground.world.agent.cli(&["replay", &file]).expect("the command line").ok().stdout;
    for part in [
        "read /",
        "write /",
        "rename /",
        "docs/b -> ",
        "symlink",
        "remove /",
        ", 5 bytes, sha256 a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_copy_of_what_is_dropped_is_kept() {
    let ground = Ground::with(FILES, &[], &[]);
    put(&ground, "drop/x", b"");
    let script = format!("cd /tmp; echo what was dropped > in; {SCP} in {HOST}:drop/new");
    let _ = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(got(&ground, "drop/new"), b"what was dropped\n");
    let file = ground.recording();
    let json = ground.world.agent.cli(&["replay", &file, "--json"]).expect("the command line").ok().stdout;
    let kept: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|event: &serde_json::Value| event["event"] == "contents")
        .collect();
    assert_eq!(kept.len(), 1, "{json}");
    assert_eq!((&kept[0]["data"], &kept[0]["write"]), (&"what was dropped\n".into(), &true.into()));
}

#[test]
fn rsync_and_git_go_both_ways() {
    let ground = Ground::with(FILES, &[], &[]);
    put(&ground, "tree/a", &sample(100_000));
    put(&ground, "tree/b/c", b"c");
    let home = ground.sshd.home();
    must(Command::new("git").args(["init", "-q", "--bare"]).arg(home.join("repo.git"))).expect("git");
    put(&ground, "tree/d", b"d");
    let script = format!(
        "set -e; cd /tmp; export RSYNC_RSH='ssh -o BatchMode=yes' GIT_SSH_COMMAND='ssh -o BatchMode=yes' HOME=/tmp\n\
         rsync -a {HOST}:tree/ copy; cat copy/b/c; echo more > copy/e; rsync -a copy/ {HOST}:tree2\n\
         git clone -q {HOST}:repo.git work 2>/dev/null; cd work; git config user.email a@b; git config user.name a\n\
         echo text > file; git add file; git commit -qm one; git push -q origin HEAD:main; cd ..; git clone -q -b main {HOST}:repo.git again; cat again/file"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.stdout, "ctext\n", "{out}");
    assert!(got(&ground, "tree2/a") == sample(100_000));
    assert_eq!(got(&ground, "tree2/e"), b"more\n");
    for command in
        ["rsync -a in {HOST}:secret/in", "rsync -a {HOST}:/etc/passwd out", "git clone -q {HOST}:/etc out"]
    {
        let script = format!(
            "cd /tmp; echo x > in; export RSYNC_RSH='ssh -o BatchMode=yes' HOME=/tmp; {}",
            command.replace("{HOST}", HOST)
        );
        let out = ground.job(&["bash", "-c", &script]).run().failed();
        assert!(out.stderr.contains("denied by policy rule"), "{command}: {out}");
    }
}

#[test]
fn python_s_clients_work_unchanged() {
    let ground = Ground::with(ANYTHING, &[], &[]);
    put(&ground, "there", b"from the host");
    let python = ground.world.python();
    for script in [include_str!("paramiko_.py"), include_str!("asyncssh_.py")] {
        let out = ground.job(&[&python, "-c", script, HOST]).run().ok();
        assert_eq!(out.stdout, "out\nerr\n3\nfrom the host\n['new', 'there']\n", "{out}");
        assert_eq!(got(&ground, "new"), b"from the job");
        fs::remove_file(ground.sshd.home().join("new")).expect("it was there");
    }
}

#[test]
fn ansible_pings_and_copies() {
    let ground = Ground::with(ANYTHING, &[], &[]);
    // By its interpreter: the path in its first line may be one that no job sees.
    let python = ground.world.python();
    let ansible = format!("{python} {}", python.replace("/python", "/ansible"));
    let script = format!(
        "set -e; export HOME=/tmp ANSIBLE_LOCAL_TEMP=/tmp/a ANSIBLE_HOST_KEY_CHECKING=True; cd /tmp; echo copied > in\n\
         {ansible} all -i {HOST}, -e ansible_python_interpreter=/usr/bin/python3 -m ping\n\
         {ansible} all -i {HOST}, -e ansible_python_interpreter=/usr/bin/python3 -m copy -a 'src=in dest=copied'"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert!(out.stdout.contains("\"ping\": \"pong\"") && out.stdout.contains("CHANGED"), "{out}");
    assert_eq!(got(&ground, "copied"), b"copied\n");
}

#[test]
fn curl_reads_by_sftp() {
    let ground = Ground::with(FILES, &[], &[]);
    put(&ground, "there", b"from the host");
    let script = format!(
        "key=$(grep '^{HOST} ' /etc/ssh/ssh_known_hosts | cut -d' ' -f3 | base64 -d | openssl dgst -sha256 -binary | base64); \
         curl -sS --hostpubsha256 ${{key%=}} -u job:any sftp://{HOST}/~/there"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.stdout, "from the host", "{out}");
}

#[test]
fn ssh_keyscan_prints_the_key_that_jobs_know() {
    let ground = Ground::with(FILES, &[], &[]);
    let script = format!(
        "set -o pipefail; ssh-keyscan -t ed25519 {HOST} 2>/dev/null | sort > /tmp/scanned; grep '^{HOST} ' /etc/ssh/ssh_known_hosts > /tmp/known; \
         cmp /tmp/scanned /tmp/known && ssh-keyscan -c {HOST} 2>/dev/null | grep -o 'ssh-ed25519-cert-v01@openssh.com'"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.text(), "ssh-ed25519-cert-v01@openssh.com", "{out}");
    // It is the gateway's own, and the host heard of nothing.
    assert!(!ground.sshd.log().contains("Connection from"), "{}", ground.sshd.log());
}

#[test]
fn any_login_of_a_job_s_is_taken_and_none_reaches_the_host() {
    let ground = Ground::with(FILES, &[], &[]);
    put(&ground, "there", b"from the host");
    let script = format!(
        "sshpass -p my-own-password scp -q -o PreferredAuthentications=password -o PubkeyAuthentication=no someone@{HOST}:there /tmp/out && cat /tmp/out"
    );
    let out = ground.job(&["bash", "-c", &script]).run().ok();
    assert_eq!(out.stdout, "from the host");
    let log = ground.sshd.log();
    assert!(log.contains("Accepted publickey for deploy") && !log.contains("someone"), "{log}");
    assert!(!recordings(&ground.world).is_empty());
}
