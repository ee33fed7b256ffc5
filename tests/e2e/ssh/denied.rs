//! Ways to run a program that is not granted, or to reach a file that is denied: none gets to the host.

use std::fs;

use crate::support::{Ground, HOST, audited};

const RULES: &str = r#"
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [web], connect: true }
  - id: some
    effect: allow
    subjects: [payments-agent]
    resources: [web]
    ssh:
      commands:
        - { program: id, arguments: ["**"] }
        - { program: cat, arguments: ["~/open/**..."] }
        - { program: git, arguments: [fetch, "**"] }
        - { program: tar, arguments: ["**"] }
        - { program: sed, arguments: ["**"] }
        - { program: awk, arguments: ["**"] }
        - { program: sort, arguments: ["**"] }
        - { program: split, arguments: ["**"] }
        - { program: find, arguments: ["**"] }
        - { program: make, arguments: ["**"] }
        - { program: python3, arguments: ["**"] }
        - { program: docker, arguments: ["**"] }
        - { program: ssh, arguments: ["**"] }
      files: [{ operations: [read, list, write], paths: ["~/open/**"] }, { operations: [read], paths: ["~/open/**"], by: [rsync, git] }]
    record: statements
  - id: secrets
    effect: deny
    resources: [web]
    ssh: { files: [{ operations: [read, list, write, remove, rename, setstat, symlink, stat], paths: ["~/secret/**"] }] }
    reason: secrets stay on the host
"#;

/// Attempts by SFTP, in a batch each.
const SFTP: &[&str] = &[
    "get secret/key /tmp/got",
    "get ./open/../secret/key /tmp/got",
    "get open/link /tmp/got",
    "get open/door/key /tmp/got",
    "ls secret",
    "ls open/door/",
    "rename secret/key open/key",
    "rename secret open/secret",
    "ln secret/key open/hard",
    "ln -s ../secret/key open/soft",
    "put /etc/hostname secret/new",
    "put /etc/hostname open/door/new",
    "put /etc/hostname mark",
    "rm secret/key",
    "rm open/door/key",
    "chmod 777 secret/key",
    "mkdir secret/new",
    "rmdir secret",
    "cp secret/key open/key",
    "reget secret/key /tmp/got",
];

/// Other ways of the client, as words of a shell; `@` is the host.
const CLIENTS: &[&str] = &[
    "ssh -s @ sftp-server",
    "ssh -s @ 'sftp '",
    "ssh -s @ SFTP",
    "ssh -s @ netconf",
    "ssh -s @ '/bin/sh -c touch mark'",
    "ssh -tt @ < /dev/null",
    "ssh -T @ < /dev/null",
    "LD_PRELOAD=/x ssh -o SendEnv=LD_PRELOAD @ touch mark",
    "ssh -o SetEnv=BASH_ENV=/tmp/x @ touch mark",
    "ssh -o SetEnv='PATH=.' @ touch mark",
    "ssh -N -o ExitOnForwardFailure=yes -R 18022:127.0.0.1:1 @",
    "ssh -N -o ExitOnForwardFailure=yes -R 18023 @",
    "ssh -W 127.0.0.1:22 @",
    "ssh -W 198.51.100.30:22 @",
    "ssh -J @ 198.51.100.30 touch mark",
    "ssh root@@ touch mark",
    "scp -O @:secret/key /tmp/got",
    "scp -s @:secret/key /tmp/got",
    "scp -O -r @:secret /tmp/got",
    "scp -O -r @:. /tmp/got",
    "scp -O '@:secr*/key' /tmp/got",
    "scp -O '@:open/*/key' /tmp/got",
    "scp -O '@:secret/key open/x' /tmp/got",
    "scp -O '@:`touch mark`' /tmp/got",
    "scp -O /etc/hostname @:mark",
    "scp -O /etc/hostname @:secret/new",
    "scp -O /etc/hostname @:open/../secret/new",
    "rsync -r @:secret/ /tmp/got",
    "rsync -r --rsync-path='touch mark; rsync' @:open/ /tmp/got",
    "rsync -r --copy-links --filter='+ secret/***' @:./ /tmp/got",
    "rsync -r /etc/hostname @:secret/",
    "git clone @:secret /tmp/got",
    "git clone --upload-pack='touch mark; git-upload-pack' @:open /tmp/got",
];

#[test]
fn nothing_that_is_denied_reaches_the_host() {
    let ground = Ground::with(RULES, &[], &[]);
    let home = ground.sshd.home();
    for folder in ["open", "secret"] {
        fs::create_dir(home.join(folder)).expect("a folder");
    }
    fs::write(home.join("secret/key"), "hidden-content\n").expect("a file");
    fs::write(home.join("open/x"), "open\n").expect("a file");
    std::os::unix::fs::symlink("../secret/key", home.join("open/link")).expect("a link");
    std::os::unix::fs::symlink("../secret", home.join("open/door")).expect("a link");
    tests::process::must(
        std::process::Command::new("chown").args(["-R", "-h", "--reference"]).arg(&home).arg(&home),
    )
    .expect("chown");

    let commands: Vec<&str> =
        include_str!("denied.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let mut script = String::from(
        "export HOME=/tmp RSYNC_RSH='ssh -o BatchMode=yes' GIT_SSH_COMMAND='ssh -o BatchMode=yes'; cd /tmp\n\
         ssh -o BatchMode=yes -o ControlMaster=yes -o ControlPath=/tmp/mux -N -f HOST\n\
         try() { ssh -n -o ControlPath=/tmp/mux HOST -- \"$1\" > out 2> err; status=$?; \
         grep -q 'denied by policy rule' err && [ $status = 126 ] || { echo \"GOT THROUGH ($status): $1\"; cat out err; }; cat out; }\n",
    );
    for command in &commands {
        script += &format!("try {}\n", quoted(command));
    }
    script += "other() { timeout 20 sh -c \"$1\" > out 2> err < /dev/null && { echo \"SUCCEEDED: $1\"; cat err; }; cat out; }\n";
    for batch in SFTP {
        script += &format!(
            "other {}\n",
            quoted(&format!("echo {} | sftp -o BatchMode=yes -b - HOST", quoted(batch)))
        );
    }
    for client in CLIENTS {
        script += &format!(
            "other {}\n",
            quoted(&client.replace('@', HOST).replace(&format!("root{HOST}{HOST}"), &format!("root@{HOST}")))
        );
    }
    script += "cat /tmp/got/* /tmp/got 2>/dev/null; echo the end";
    let out = ground
        .job(&["bash", "-c", &script.replace("HOST", HOST)])
        .limit(std::time::Duration::from_secs(240))
        .run();

    assert!(commands.len() + SFTP.len() + CLIENTS.len() >= 200);
    assert!(out.stdout.trim_end().ends_with("the end"), "{out}");
    for trace in ["GOT THROUGH", "SUCCEEDED", "hidden-content"] {
        assert!(!out.stdout.contains(trace), "{}", out.stdout);
    }
    // What the host itself says: it started SFTP and nothing else, and nothing in it was touched.
    let ran = ground.sshd.ran();
    assert!(ran.iter().all(|line| line.starts_with("/usr/lib/openssh/sftp-server")), "{ran:?}");
    let log = ground.sshd.log();
    let acts = [
        "open \"",
        "opendir \"",
        "remove name",
        "rename old",
        "symlink old",
        "mkdir name",
        "rmdir name",
        "set \"",
    ];
    for line in log.lines().filter(|line| line.contains("secret") || line.contains("mark")) {
        assert!(!acts.iter().any(|act| line.contains(act)), "{line}");
    }
    assert!(!log.contains("direct-tcpip") && !log.contains("tcpip-forward"), "{log}");
    assert_eq!(fs::read_to_string(home.join("secret/key")).expect("the key"), "hidden-content\n");
    let mut there: Vec<_> = [home.clone(), home.join("open"), home.join("secret")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"))
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    there.sort();
    assert_eq!(there, ["door", "key", "link", "open", "secret", "x"]);
    let denied = audited(&ground.world, "decision").iter().filter(|line| line["verdict"] == "deny").count();
    assert!(denied >= commands.len(), "{denied}");
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
