//! What is listed.

use super::*;

fn programs(text: &str) -> Vec<String> {
    let exec = read(text.as_bytes());
    assert!(exec.opaque.is_empty(), "{text}: {:?}", exec.opaque);
    exec.invocations
        .iter()
        .map(|of| {
            let words: Vec<_> =
                std::iter::once(&of.program).chain(&of.arguments).map(|w| w.text.clone()).collect();
            words.join(" ")
        })
        .collect()
}

#[test]
fn lists_every_program() {
    for (text, expected) in [
        ("git fetch origin", vec!["git fetch origin"]),
        ("a; b & c && d || e | f", vec!["a", "b", "c", "d", "e", "f"]),
        ("echo \"$(a `b`)\" '$(c)'", vec!["b", "a `b`", "echo \"$(a `b`)\" $(c)"]),
        ("if a; then b; elif c; then d; else e; fi", vec!["a", "b", "c", "d", "e"]),
        ("for x in 1 2; do a $x; done", vec!["a $x"]),
        ("while a; do b; done", vec!["a", "b"]),
        ("case $x in a|b) c;; (d) e;; esac", vec!["c", "e"]),
        ("f() { a; }; f", vec!["a", "f"]),
        ("(a; { b; })", vec!["a", "b"]),
        ("cat <<EOF\n$(a)\nEOF\nb", vec!["a", "cat", "b"]),
        ("cat <<'EOF'\n$(a)\nEOF\nb", vec!["cat", "b"]),
        ("a <(b) >(c)", vec!["b", "c", "a <(b) >(c)"]),
        ("\\l\"s\" a\\\nb", vec!["ls ab"]),
        ("sudo -u app env X=1 nohup a b", vec!["a b"]),
        ("sh -c 'a; b'", vec!["a", "b"]),
        ("bash -euo pipefail -c 'a | b' x y", vec!["a", "b"]),
        ("find . -name x -exec rm {} \\; -print", vec!["rm {}", "find . -name x -exec rm {} ; -print"]),
        ("a | xargs -n 1 rm -f", vec!["a", "rm -f (from xargs)"]),
        ("xargs -I{} mv {} /b", vec!["mv {} /b"]),
        ("timeout 5 nice -n 3 a b", vec!["a b"]),
        ("eval a \"b; c\"", vec!["a b", "c"]),
        ("! a", vec!["a"]),
        ("a # b", vec!["a"]),
        ("time a", vec!["a"]),
        ("exec a", vec!["a"]),
        ("trap 'a' EXIT; b", vec!["a", "trap a EXIT", "b"]),
        ("${x:-$(a)} b", vec!["a", "${x:-$(a)} b"]),
        ("su - app -c 'a b'", vec!["a b"]),
        ("ssh h a b", vec!["ssh h a b", "a b"]),
        ("//usr/bin//env a", vec!["a"]),
        ("time ! a b", vec!["a b"]),
        ("time X=1 a", vec!["a"]),
        ("flock /x a -c 'b'", vec!["a -c b"]),
        ("flock -n /x -c 'a b'", vec!["a b"]),
        ("sh -c -- 'a'", vec!["a"]),
        ("sh -c - 'a'", vec!["a"]),
        ("eval -- 'a'", vec!["a"]),
        ("trap -- 'a' EXIT", vec!["a", "trap -- a EXIT"]),
        ("docker exec -u app -it web sh -c 'a; b'", vec!["docker exec -u app -it web sh -c a; b", "a", "b"]),
        ("podman ps", vec!["podman ps"]),
        ("docker compose -f x.yaml up -d --build", vec!["docker compose -f x.yaml up -d --build"]),
        ("kubectl -n x exec pod -c app -- a b", vec!["kubectl -n x exec pod -c app -- a b", "a b"]),
        ("rc=$?; exit $rc", vec!["exit $rc"]),
        ("n=3; [ $? -eq 0 ]", vec!["[ $? -eq 0 ]"]),
        ("printf '%s %5.2s%%\\n' \"$x\"", vec!["printf %s %5.2s%%\\n \"$x\""]),
        ("printf %03d 7", vec!["printf %03d 7"]),
        ("python3 -u x.py -c y", vec!["python3 -u x.py -c y"]),
        ("python3 --version", vec!["python3 --version"]),
        ("a &> b; c", vec!["a", "c"]),
        ("git --no-pager log", vec!["git --no-pager log"]),
        ("/opt/env a", vec!["/opt/env a", "a"]),
        ("./git fetch", vec!["./git fetch"]),
    ] {
        // In the order in which they are found.
        assert_eq!(programs(text), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_opaque() {
    for text in [
        "",
        "\0",
        "a \"",
        "a $(b",
        "a `b",
        "((x=1))",
        "a $((i+1))",
        "a ${!x}",
        "a ${x@P}",
        "eval $x",
        "sh",
        "sh -s",
        "| a",
        "a |",
        "if a; then b",
        "case x in a) b",
        "x=(a b)",
        "alias a=b; a",
        "a $'\\x41'",
        "sudo -s",
        "vi x",
        "tar --checkpoint-act=exec=a cf x y",
        "git -c core.sshCommand=a fetch",
        "python3 -c x",
        "perl -ne x",
        "awk 'BEGIN{system(\"a\")}'",
        "sed 's/a/b/e'",
        "sed '1e a'",
        "rsync -e a b c",
        "tar xIf a b",
        "xargs -Z a",
        "find $x",
        "git fetch $x",
        "a[0]=b",
        "unshare a",
        "git $x",
        "env -S 'a b'",
        "set -- a",
        "echo x > /dev/tcp/h/1",
        "hash -p /a b",
        "sudo $x",
        "rsync --server -s . x",
        "scp -S a -t x",
        "[[ -f x || a ]]",
        "/opt/git fetch --upload-pack=a",
        "/usr//bin/git -c core.sshcommand=a fetch",
        "cat <<E $(a\nb)\nE",
        // bash and zsh look variables up by what these say.
        "printf $x a",
        "printf \"$f\" a",
        "printf -v a b",
        "wait -p a",
        "wait $x",
        // ksh and zsh compute with these.
        "printf %d \"$x\"",
        "printf '%s %*d' a \"$x\"",
        "[ \"$x\" -eq 1 ]",
        "[ x -eq 1 ]",
        "test -t $x",
        "exit $x",
        "rc='a['; rc=$?; exit $rc",
        "for i in 1 2; do exit $i; done",
        "shift \"$x\"",
        "a $x[1]",
        // What some shells read as another command, or another file.
        "echo &> f rm x",
        "echo >! f",
        "a \"${x:-`b \\\"c\\\"`}\"",
        "sh +x -c a",
        "sh -c --rcfile f",
        "sh /dev/stdin",
        "bash /proc/self/fd/0",
        "flock /x -c 'a' b",
        "docker run x",
        "docker -H tcp://h ps",
        "docker exec --privileged=x web a",
        "docker exec $x a",
        "docker compose exec web a",
        "docker compose -f $x up",
        "kubectl exec pod a",
        "kubectl run x",
        "kubectl --kubeconfig=/x get pods",
        "python3 - x",
        "python3 -W ignore -c x",
        "python3 -m x",
        "python3 $x",
        "php -a",
        "node -r x y.js",
        "psql",
        "sftp h",
        "crontab -",
        "crontab x",
        "make -f - x",
        "tar xTf a b",
        "tar cf h:x y",
        "ip netns ex x a",
        "ssh -t h a",
        "awk -f /dev/stdin",
        "- a",
        "m4",
        "systemd-inhibit a",
    ] {
        assert!(!read(text.as_bytes()).opaque.is_empty(), "{text:?}: {:?}", read(text.as_bytes()));
    }
    for text in ["journalctl -u app", "git log", "systemctl status app", "apt-get install x"] {
        assert!(read(text.as_bytes()).opaque.is_empty(), "{text}");
        assert!(!read_for(text.as_bytes(), true).opaque.is_empty(), "{text} on a terminal");
    }
    assert!(read_for(b"journalctl --no-pager -u app; git -P log", true).opaque.is_empty());
    assert!(!read(b"\xff").opaque.is_empty());
    assert!(!read(&[b'('; 5_000]).opaque.is_empty());
    assert!(!read("$(".repeat(20_000).as_bytes()).opaque.is_empty());
    assert!(!read("a;b;".repeat(2_000).as_bytes()).opaque.is_empty());
    assert!(!read(&[b'a'; LENGTH_MAX + 1]).opaque.is_empty());
}

#[test]
fn words_and_folders() {
    use policy::Certainty::*;
    let first = |text: &str| read(text.as_bytes()).invocations.pop().unwrap();
    let word = |text: &str| first(&format!("a {text}")).arguments.pop().unwrap();
    for (text, certainty, prefix) in [
        ("'a b'", Literal, "a b"),
        ("\"$x\"", Value, ""),
        ("r-\"$x\"", Value, "r-"),
        ("$x", Words, ""),
        ("\"$@\"", Words, ""),
        ("/srv/*.log", Glob, "/srv/"),
        ("~/a", Home, "~/a"),
        ("'~/a'", Literal, "~/a"),
        ("~bob/a", Value, ""),
        ("a{b,c}", Words, ""),
        ("a{b}", Literal, "a{b}"),
        ("$?", Value, ""),
        ("=ls", Value, ""),
        // bash finds home here as well.
        ("if=~/a", Value, "if="),
        ("a=b:~/c", Value, "a=b:"),
        ("a~/b", Literal, "a~/b"),
        ("~\"/a\"", Value, ""),
        // zsh expands these.
        ("$=x", Words, ""),
        ("$^x", Words, ""),
    ] {
        let word = word(text);
        assert_eq!((word.certainty, word.prefix.as_str()), (certainty, prefix), "{text}");
    }
    let folder = |text: &str| first(text).folder;
    assert_eq!(folder("a").as_deref(), Some("~"));
    assert_eq!(folder("cd /srv && a").as_deref(), Some("/srv"));
    assert_eq!(folder("cd /srv || exit 1; a").as_deref(), Some("/srv"));
    assert_eq!(folder("cd /srv; a"), None, "it may have failed");
    assert_eq!(folder("cd /srv || return 1; a"), None, "which goes on where nothing is to be returned from");
    assert_eq!(folder("cd /srv || exit 1 > /x/y; a"), None, "which goes on when it cannot be opened");
    assert_eq!(folder("cd /srv || exit 1 2; a"), None, "which some shells refuse");
    assert_eq!(folder("cd /srv &>/dev/null && a"), None, "in the background, to some");
    assert_eq!(folder("cd /srv & a").as_deref(), Some("~"));
    assert_eq!(folder("(cd /srv && b); a").as_deref(), Some("~"));
    assert_eq!(folder("{ cd /srv && b; }; a"), None);
    assert_eq!(folder("if b; then cd /srv; fi; a"), None);
    assert_eq!(folder("for i in 1 2; do a; cd /srv; done"), None);
    assert_eq!(read(b"for i in 1 2; do a; cd /srv; done").invocations[0].folder, None);
    assert_eq!(folder("cd() { :; }; cd /srv && a"), None);
    assert_eq!(folder("HOME=/etc; cd; a"), None);
    assert_eq!(folder("eval 'cd /srv' && a").as_deref(), None);
    assert_eq!(folder("cd /srv | b; a").as_deref(), None);
}

#[test]
fn files_assignments_and_transfers() {
    let exec = read(b"X=1 a < in >> out 2>&1 > /dev/null; y=2");
    let files: Vec<_> = exec.files.iter().map(|f| (f.operation.name(), f.path.text.as_str())).collect();
    assert_eq!(files, [("read", "in"), ("write", "out")]);
    let sets: Vec<_> = exec.assignments.iter().map(|a| (a.name.as_str(), a.exported)).collect();
    assert_eq!(sets, [("X", true), ("y", false)]);
    for (text, expected) in [
        ("scp -r -t -- /srv/app", vec!["write /srv/app"]),
        ("scp -f '/srv/a b'", vec!["read /srv/a b"]),
        (
            "rsync --server -logDtpre.iLsfxCIvu --delete . /srv/app/",
            vec!["remove /srv/app/", "write /srv/app/"],
        ),
        ("rsync --server --sender -vlogDtprze.iLsfxC . /srv/a /srv/b", vec!["read /srv/a", "read /srv/b"]),
        ("git-upload-pack '/srv/git/app.git'", vec!["read /srv/git/app.git"]),
        ("git receive-pack /srv/git/app.git", vec!["write /srv/git/app.git"]),
    ] {
        let exec = read(text.as_bytes());
        assert!(exec.opaque.is_empty() && exec.invocations.iter().all(|of| of.transfer), "{text}: {exec:?}");
        let files: Vec<_> =
            exec.files.iter().map(|f| format!("{} {}", f.operation.name(), f.path.text)).collect();
        assert_eq!(files, expected, "{text}");
    }
    let exec = read(b"sudo -n systemctl restart app");
    assert_eq!(exec.invocations[0].via, ["sudo"]);
}
