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
    ] {
        assert!(!read(text.as_bytes()).opaque.is_empty(), "{text:?}: {:?}", read(text.as_bytes()));
    }
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
    ] {
        let word = word(text);
        assert_eq!((word.certainty, word.prefix.as_str()), (certainty, prefix), "{text}");
    }
    let folder = |text: &str| first(text).folder;
    assert_eq!(folder("a").as_deref(), Some("~"));
    assert_eq!(folder("cd /srv && a").as_deref(), Some("/srv"));
    assert_eq!(folder("cd /srv || exit 1; a").as_deref(), Some("/srv"));
    assert_eq!(folder("cd /srv; a"), None, "it may have failed");
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
