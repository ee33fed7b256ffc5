//! Ways to run what a policy that allows a little does not allow.

use policy::{FileOperation, SshRequest};

use crate::support::*;

const RULES: &str = r#"
  - id: little
    effect: allow
    subjects: [job]
    resources: [web]
    connect: true
    ssh:
      commands:
        - { program: git, arguments: [fetch, "**"] }
        - { program: git, arguments: [clone, "**"] }
        - { program: ls, arguments: ["**"] }
        - { program: cat, arguments: ["/srv/app/**..."] }
        - { program: grep, arguments: ["**"] }
        - { program: tar, arguments: ["**"] }
        - { program: find, arguments: ["/srv/app/**", "**"] }
        - { program: awk, arguments: ["**"] }
        - { program: sed, arguments: ["**"] }
        - { program: rsync, arguments: ["**"] }
        - { program: python3, arguments: ["/srv/app/**", "**"] }
        - { program: xargs, arguments: ["**"] }
        - { program: sort, arguments: ["**"] }
        - { program: ssh, arguments: [db.internal, "**"] }
        - { program: ./deploy.sh, arguments: [] }
      env: [LANG, "*"]
      files:
        - { operations: [read, write, list, rename, remove, symlink, setstat], paths: ["/srv/app/**"], by: [sftp, scp, exec, rsync, git] }
"#;

/// `rm`, a shell or another program that nobody grants; or a file outside of /srv/app.
const EXECS: &[&str] = &[
    // plainly
    "rm -rf /",
    "sh",
    "bash -i",
    "/bin/rm x",
    "/tmp/git fetch",
    "./git fetch",
    "../bin/git fetch",
    // quotes and escapes
    "'rm' x",
    "\"rm\" x",
    "r'm' x",
    "r\"\"m x",
    "\\rm x",
    "r\\m x",
    "r\\\nm x",
    "'r''m' x",
    "$'rm' x",
    "$'\\x72m' x",
    "$\"rm\" x",
    // expansions in a program's place
    "$X",
    "${X}",
    "\"$X\"",
    "$(echo rm) x",
    "`echo rm` x",
    "${X:-rm} x",
    "r${X}m x",
    "/bin/r? x",
    "/bin/[r]m x",
    "/b*/rm x",
    "{rm,x}",
    "~/rm x",
    "r$@m x",
    "r$*m x",
    "$0",
    // lists
    "git fetch; rm x",
    "git fetch & rm x",
    "git fetch && rm x",
    "git fetch || rm x",
    "git fetch | rm x",
    "git fetch\nrm x",
    "git fetch |& rm x",
    "git fetch;rm x",
    "git fetch;\n\n rm x",
    "! rm x",
    "git fetch & \n rm x &",
    // where whitespace is made
    "rm${IFS}x",
    "cat${IFS}/etc/shadow",
    "cat$IFS/etc/shadow",
    "cat</etc/shadow",
    "{cat,/etc/shadow}",
    "cat\t/etc/shadow",
    // substitutions in arguments
    "ls $(rm x)",
    "ls `rm x`",
    "ls \"$(rm x)\"",
    "ls \"`rm x`\"",
    "ls ${X:-$(rm x)}",
    "ls ${X:=`rm x`}",
    "ls $((`rm x`))",
    "ls $(( $(rm x) ))",
    "ls <(rm x)",
    "ls >(rm x)",
    "ls \"${X:-\"$(rm x)\"}\"",
    "X=$(rm x)",
    "X=`rm x` ls",
    "ls > $(rm x)",
    "ls \"$(ls \"$(rm x)\")\"",
    "ls $(ls\nrm x)",
    "ls `ls \\`rm x\\``",
    // here-documents
    "cat /srv/app/a <<E\n$(rm x)\nE",
    "cat /srv/app/a <<-E\n\t`rm x`\n\tE",
    "sh <<E\nrm x\nE",
    "cat /srv/app/a <<E\nE\nrm x",
    "sh <<< 'rm x'",
    "ls <<\"E\"\nE\nrm x",
    // compound commands
    "if rm x; then ls; fi",
    "if ls; then rm x; fi",
    "while rm x; do ls; done",
    "for i in a; do rm x; done",
    "for i in $(rm x); do ls; done",
    "case x in x) rm x;; esac",
    "case $(rm x) in x) ls;; esac",
    "{ rm x; }",
    "(rm x)",
    "f() { rm x; }; f",
    "f() (rm x)",
    "function f { rm x; }",
    "until rm x; do ls; done",
    "case x in $(rm x)) ls;; esac",
    "ls() { rm x; }; ls",
    "((rm))",
    "[[ a || rm ]]",
    "select i in a; do rm x; done",
    // programs that start programs
    "env rm x",
    "env -i rm x",
    "env X=1 rm x",
    "env -S 'rm x'",
    "nohup rm x",
    "time rm x",
    "command rm x",
    "builtin eval rm x",
    "exec rm x",
    "eval rm x",
    "eval 'r''m x'",
    "eval \"$X\"",
    "sh -c 'rm x'",
    "bash -c \"rm x\"",
    "/bin/sh -c 'rm x'",
    "sh -ec 'rm x'",
    "bash -lc 'rm x'",
    "sh -c \"$X\"",
    "sudo rm x",
    "sudo -u root sh -c 'rm x'",
    "sudo -s",
    "sudo git fetch",
    "su -c 'rm x'",
    "su root -c 'rm x'",
    "doas rm x",
    "nice -n 5 rm x",
    "timeout 5 rm x",
    "setsid rm x",
    "stdbuf -o0 rm x",
    "ionice -c 3 rm x",
    "busybox rm x",
    "chroot / rm x",
    "xargs rm",
    "echo x | xargs rm",
    "xargs -I{} rm {}",
    "xargs -I{} {} x",
    "xargs sh -c 'rm x'",
    "find /srv/app -exec rm {} +",
    "find /srv/app -exec rm {} \\;",
    "find /srv/app -execdir sh -c 'rm x' \\;",
    "find /srv/app -ok rm {} \\;",
    "find /srv/app $X",
    "find /srv/app -fprint /etc/cron.d/x",
    "trap 'rm x' EXIT",
    "coproc rm x",
    "ssh db.internal rm x",
    "ssh db.internal 'git fetch; rm x'",
    "ssh -o ProxyCommand='rm x' db.internal ls",
    "ssh -L 1:a:2 db.internal ls",
    "ssh db.internal",
    "parallel rm ::: x",
    "watch rm x",
    "script -c 'rm x'",
    "strace rm x",
    "schedtool -e rm x",
    "torsocks rm x",
    "xvfb-run rm x",
    "unshare rm x",
    "setpriv rm x",
    "systemd-run rm x",
    "at now",
    "flock /srv/app/l rm x",
    "flock /srv/app/l -c 'rm x'",
    "taskset 1 rm x",
    "gosu root rm x",
    "runuser -u app -- rm x",
    "ld.so /bin/rm x",
    "/lib64/ld-linux-x86-64.so.2 /bin/rm x",
    "repeat 2 rm x",
    "noglob rm x",
    "awk 'BEGIN { system(\"rm x\") }'",
    "awk 'BEGIN { \"rm x\" | getline }'",
    "awk '{ print > \"/etc/x\" }'",
    "sed '1e rm x' /srv/app/a",
    "sed 's/a/rm x/e' /srv/app/a",
    "sed -n 'w /etc/x' /srv/app/a",
    "sed 's/a/b/w /etc/x' /srv/app/a",
    "sed -e p -e '1r /etc/shadow'",
    "python3 -c 'import os'",
    "python3 -",
    "python3",
    "python3 < /srv/app/a",
    "python3 $X",
    "sort --compress-program=rm /srv/app/a",
    "sort --compress-prog rm a",
    // options that run programs
    "git -c core.sshCommand='rm x' fetch",
    "git -c alias.fetch='!rm x' fetch",
    "git fetch --upload-pack='rm x'",
    "git fetch --upload-pa='rm x' .",
    "git --exec-path=/tmp fetch",
    "git clone -c core.hooksPath=/tmp a",
    "git clone -u 'rm x' a b",
    "git clone ext::'rm x' b",
    "git clone --template=/tmp/hooks a b",
    "git clone --config core.fsmonitor=x a",
    "git -C /tmp $X",
    "git fetch $X",
    "GIT_SSH_COMMAND='rm x' git fetch",
    "GIT_EXTERNAL_DIFF=rm git fetch",
    "tar cf a b --checkpoint=1 --checkpoint-action=exec='rm x'",
    "tar --to-command='rm x' -xf a",
    "tar -I 'rm x' -xf a",
    "tar xIf 'rm x' a",
    "tar --use-compress='rm x' -xf a",
    "tar cf a $X",
    "rsync -e 'rm x' a b:",
    "rsync -ave 'rm x' a b:",
    "rsync --rsh='rm x' a b:",
    "rsync --rsync-path='rm x' a b:",
    "rsync -e'rm x' a b:",
    "rsync --daemon",
    "rsync --server --daemon .",
    "rsync --server -logDtpre.iLsfxCIvu . /etc",
    "rsync --server -logDtpre.iLsfxCIvu --log-file=/etc/x . /srv/app",
    "rsync --server -s . /srv/app",
    "rsync --server --sender -logDtpre.iLsfxC . /srv/app /etc",
    "rsync --server -logDtpre.iLsfxCIvu --temp-dir=/etc . /srv/app",
    "rsync --server --filter='merge /etc/shadow' . /srv/app",
    "rsync --server -logDtpre.iLsfxCIvu . /srv/app/../../etc",
    "scp -t /etc",
    "scp -f /etc/shadow",
    "scp -r -f /",
    "scp -t /srv/app/../../etc",
    "scp -S /tmp/x -t /srv/app",
    "scp -f /srv/app/a /etc/shadow",
    "scp -f /srv/app/$X",
    "scp -t -- -x",
    "git-upload-pack /etc",
    "git-receive-pack '/srv/app/../x'",
    "git upload-pack --upload-pack=rm /srv/app",
    "git-shell -c 'rm x'",
    // what bash evaluates
    "x='a[$(rm x)]'; [ -v $x ]",
    "[ -v 'a[$(rm x)]' ]",
    "read x < /srv/app/f; [ $x = 1 ]",
    "[ \"$a\" \"$b\" ]",
    "test $a",
    "[[ $x -eq 1 ]]",
    "ls ${x:y}",
    "ls ${a[x]}",
    "printf -v 'a[$(rm x)]' y",
    "LANG='a[$(rm x)]' ls",
    // words that are none or several
    "sudo -u $X git fetch",
    "timeout $X git fetch",
    "nice -n $X git fetch",
    "env -u $X git fetch",
    "xargs -a $X git fetch",
    "awk -v $X '{print}'",
    "sed -f $X /srv/app/a",
    "ssh -p $X db.internal git fetch",
    "timeout * git fetch",
    "cd /srv/app && cat ~/*",
    "cat <<{E}\n$(rm x)\n{E}",
    "cat <<[E\n$(rm x)\n[E",
    "ls ${X:-<(rm x)}",
    "ls ${X:->(rm x)}",
    // by other paths
    "//usr/bin/git fetch --upload-pack=x",
    "/usr/bin/./git -c core.sshCommand=x fetch",
    "cd /usr/bin && ./env rm x",
    "//bin/sh -c 'rm x'",
    "/usr//bin/python3 -c x",
    "/usr/bin/../bin/git fetch",
    "/srv/app/git fetch",
    // variables
    "PATH=/tmp git fetch",
    "LD_PRELOAD=/tmp/x.so ls",
    "BASH_ENV=/tmp/x ls",
    "export PATH=/tmp; ls",
    "PATH=/tmp; ls",
    "for PATH in /tmp; do ls; done",
    "read PATH; ls",
    "HOME=/etc ls",
    "env LD_PRELOAD=x ls",
    "env PATH=/tmp ls",
    "declare -x PATH=/tmp; ls",
    "X=1 PATH=/tmp ls",
    "PS4='$(rm x)' ls",
    "IFS=x LD_LIBRARY_PATH=/tmp ls",
    "unset PATH; ls",
    "readonly HOME=/etc",
    "printf -v PATH x; ls",
    "BASH_FUNC_ls%%='() { rm x; }' ls",
    // what changes how the rest is read
    "alias ls=rm; ls x",
    "alias ls=rm\nls x",
    "hash -p /bin/rm ls; ls",
    "enable -n cd",
    "set -- rm; \"$@\"",
    ". /tmp/x",
    "source /tmp/x; ls",
    "shopt -s expand_aliases",
    "eval \"ls() { rm x; }\"",
    "set -o vi",
    // paths
    "cat /etc/shadow",
    "cat /srv/app/../../etc/shadow",
    "cat ../../etc/shadow",
    "cat ~/.ssh/id",
    "cat /srv/app/a /etc/shadow",
    "cat /srv/*/shadow",
    "cat /srv/app/.*/x",
    "cat \"/srv/app/$X\"",
    "cat /srv/app/$X",
    "cat -- /etc/shadow",
    "cd /etc && cat shadow",
    "cd /srv/app; cat shadow",
    "cd /srv/app && cd .. && cat x",
    "cat /srv/app/{a,../../etc/shadow}",
    "cat //etc/shadow",
    "cat /srv/app2/x",
    "cat /SRV/app/x",
    "cat /srv/a\u{301}pp/x",
    "cat /srv\u{2215}app/x",
    // redirections
    "ls > /etc/x",
    "ls >> ~/.ssh/authorized_keys",
    "ls >| /etc/x",
    "ls &> /etc/x",
    "ls >& /etc/x",
    "ls 3> /etc/x",
    "> /etc/x",
    "ls < /etc/shadow",
    "ls <> /etc/x",
    "ls > /dev/tcp/h/1",
    "ls < /dev/udp/h/1",
    "ls > \"$X\"",
    "ls > /srv/app/../x",
    "{ ls; } > /etc/x",
    "if ls; then ls; fi > /etc/x",
    "ls > x",
    "cd /srv/app; ls > x",
    // characters
    "rm\u{a0}x",
    "\u{ff52}m x",
    "r\u{200b}m x",
    "ls\r\nrm x",
    "ls\u{b}; rm x",
    "ls \0; rm x",
    "\u{feff}ls",
    "l\u{73}\u{301} x",
    // not a command line
    "",
    " ",
    "#",
    ";",
    "|",
    "\"",
    "'",
    "$(",
    "`",
    "(",
    "((",
    "{",
    "if",
    "ls )",
    "ls <<E\n$(",
    "ls >",
    "ls ;;",
];

#[test]
fn no_disguise_gets_through() {
    let policy = policy(&RULES.replace("./deploy.sh", "/srv/app/deploy.sh"));
    assert_eq!(exec(&policy, "git fetch --all"), None, "the little that is allowed");
    assert_eq!(exec(&policy, "cd /srv/app && ls -l > out && cat /srv/app/out"), None);
    let through: Vec<_> = EXECS.iter().filter(|text| exec(&policy, text).is_none()).collect();
    assert!(through.is_empty(), "{} of {}: {through:#?}", through.len(), EXECS.len());
    assert!(EXECS.len() >= 250);
}

#[test]
fn files_are_no_way_out() {
    use FileOperation::*;
    let policy = policy(&RULES.replace("./deploy.sh", "/srv/app/deploy.sh"));
    assert_eq!(file(&policy, Rename, "/srv/app/a", Some("/srv/app/b")), None, "the little that is allowed");
    for (operation, path, target) in [
        (Read, "/etc/shadow", None),
        (Read, "/srv/app/../../etc/shadow", None),
        (Read, "/srv/app2", None),
        (Write, "/home/deploy/.ssh/authorized_keys", None),
        (Rename, "/srv/app/a", Some("/etc/a")),
        (Rename, "/etc/a", Some("/srv/app/a")),
        (Symlink, "/srv/app/a", Some("/etc/shadow")),
        (Symlink, "/etc/a", Some("/srv/app/a")),
        (Remove, "/srv", None),
        (Setstat, "/", None),
        (List, "/", None),
        (Stat, "/etc", None),
        (Read, "srv/app/a", None),
        (Read, "", None),
    ] {
        assert!(file(&policy, operation, path, target).is_some(), "{operation:?} {path} {target:?}");
    }
}

#[test]
fn nothing_else_is_granted() {
    let policy = policy(&RULES.replace("./deploy.sh", "/srv/app/deploy.sh"));
    let tcp = |host: &str, port| SshRequest::DirectTcpip { host: host.into(), port };
    for request in [
        SshRequest::Shell,
        SshRequest::Pty { term: "xterm".into() },
        SshRequest::Subsystem { name: "netconf".into() },
        SshRequest::Subsystem { name: "SFTP".into() },
        SshRequest::Subsystem { name: "sftp ".into() },
        tcp("db.internal", 5432),
        tcp("127.0.0.1", 22),
        SshRequest::TcpipForward { host: String::new(), port: 0 },
        SshRequest::DirectStreamlocal { path: "/run/docker.sock".into() },
        SshRequest::StreamlocalForward { path: "/srv/app/x".into() },
        SshRequest::AgentForwarding,
        SshRequest::X11,
        SshRequest::Env { name: "LD_PRELOAD".into(), value: "x".into() },
        SshRequest::Env { name: "PATH".into(), value: "x".into() },
        SshRequest::Env { name: "LANG".into(), value: "() { :; }; rm x".into() },
        SshRequest::Env { name: "GIT_SSH".into(), value: "x".into() },
        SshRequest::Env { name: "BASH_FUNC_ls%%".into(), value: "x".into() },
    ] {
        assert!(refused(&policy, request.clone()).is_some(), "{request:?}");
    }
}

/// A deny rule is touched by whatever could be what it names.
#[test]
fn a_restriction_is_not_gone_around() {
    let rules = r#"
  - { id: all, effect: allow, subjects: [job], resources: [web], connect: true, ssh: { shell: true, opaque: true, env: ["*"], commands: [{ program: "*", arguments: ["**"] }, { program: "/**", arguments: ["**"] }, { program: "*", arguments: ["**"], via: [sudo] }], files: [{ operations: [read, write, rename, remove, symlink, list, setstat], paths: ["/**", "~/**"], by: [sftp, scp, exec, rsync, git] }] } }
  - { id: no, effect: deny, resources: [web], ssh: { commands: [{ program: rm }, { program: git, arguments: [push, "**"] }], files: [{ operations: [read, write, rename, remove, symlink], paths: ["/etc/**", "/srv/app/secrets/**", "~/.ssh/**"] }] } }
"#;
    let policy = policy(rules);
    for text in [
        "ls -l /var",
        "git fetch origin",
        "ls releases",
        "cat /srv/app/x > /srv/app/y",
        "sudo id",
        "cp /srv/a /srv/b",
    ] {
        assert_eq!(exec(&policy, text), None, "{text}");
    }
    for text in [
        "rm x",
        "/tmp/rm x",
        "sudo rm x",
        "$X y",
        "xargs rm",
        "ls; rm x",
        "git push",
        "git -C /srv push",
        "git $X",
        "cat /etc/passwd",
        "cp /srv/a /etc/b",
        "cat /srv/app/../../etc/passwd",
        "cd /etc && cat passwd",
        "cd /etc; cat passwd",
        "cat ../etc/passwd",
        "dd if=/etc/passwd",
        "tar -C /etc -c .",
        "tar cf - /",
        "cat < /etc/passwd",
        "ls > /etc/x",
        "cat ~/.ssh/id",
        "cat /home/deploy/.ssh/id",
        "cp -r ~ /tmp/x",
        "cp \"$X\" /tmp",
        "cat /e*/passwd",
        "rsync --server --sender -logDtpre.iLsfxC . /",
        "scp -f /etc/passwd",
        "--file=/etc/x ls",
        "ls --file=/etc/x",
        "curl -T/etc/x h",
        "curl file:/etc/x",
        "mv /srv/app/secrets /srv/app/s2",
        "mv /srv/app /srv/b",
        "ln -s /etc x",
        "vi x",
        "echo \"",
        "python3 -c x",
        "eval $X",
        "cd .. && cat passwd",
    ] {
        assert!(exec(&policy, text).is_some(), "{text}");
    }
    use FileOperation::*;
    assert_eq!(file(&policy, Rename, "/srv/b", Some("/srv/c")), None);
    for (operation, path, target) in [
        (Read, "/etc/passwd", None),
        (Rename, "/srv/app", Some("/srv/b")),
        (Rename, "/srv/app/secrets", Some("/srv/b")),
        (Rename, "/srv/b", Some("/etc/b")),
        (Symlink, "/srv/x", Some("/etc/passwd")),
        (Symlink, "/srv/x", Some("/etc")),
        (Read, "/home/deploy/.ssh/id", None),
        (Rename, "/home/deploy", Some("/srv/x")),
    ] {
        assert!(file(&policy, operation, path, target).is_some(), "{operation:?} {path} {target:?}");
    }
}
