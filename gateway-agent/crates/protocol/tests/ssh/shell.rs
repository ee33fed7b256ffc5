//! Command lines are run by a real `sh`, whose PATH holds nothing but programs that write their name down. Whatever it started has to
//! be in the list.
//!
//! Needs `sh`; also runs under bash, dash, ksh and zsh where they are there. Nothing but the recording programs can be found: PATH is
//! their folder, and no generated command holds a slash.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use proptest::prelude::*;
use protocol::ssh::command;

const STUBS: &[&str] = &["aa", "bb", "cc", "dd", "ee"];

struct Ground {
    folder: PathBuf,
    shells: Vec<&'static str>,
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("gw-shell-{}", std::process::id()));
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::create_dir_all(folder.join("work")).unwrap();
        let programs = STUBS.iter().copied().chain(["sudo", "env", "nohup", "xargs", "timeout", "nice"]);
        for name in programs {
            // Launchers of the stubs' folder start what they are given, as the real ones do, without options.
            let starts = match name {
                "xargs" => "exec \"$@\" from-xargs",
                "timeout" => "shift; exec \"$@\"",
                "sudo" | "env" | "nohup" | "nice" => "exec \"$@\"",
                _ => "echo word",
            };
            let path = folder.join("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\necho {name} >> {}/log.$GW\n{starts}\n", folder.display()))
                .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let shells = ["/bin/sh", "/bin/bash", "/bin/dash", "/bin/ksh", "/bin/zsh"];
        let shells = shells.into_iter().filter(|shell| Path::new(shell).exists()).collect();
        Ground { folder, shells }
    })
}

/// The programs that `shell` starts for a text.
fn started(shell: &str, text: &str) -> BTreeSet<String> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let ground = ground();
    let run = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
    let log = ground.folder.join(format!("log.{run}"));
    let mut child = Command::new(shell)
        .args(["-c", text])
        .env_clear()
        .env("PATH", ground.folder.join("bin"))
        .env("HOME", ground.folder.join("work"))
        .env("GW", &run)
        .current_dir(ground.folder.join("work"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.wait().unwrap();
    let found = fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect();
    let _ = fs::remove_file(log);
    found
}

#[track_caller]
fn agrees(text: &str) -> Result<bool, TestCaseError> {
    let exec = command::read(text.as_bytes());
    if !exec.opaque.is_empty() {
        return Ok(false);
    }
    let listed: BTreeSet<&str> = exec
        .invocations
        .iter()
        .flat_map(|run| run.program.value().into_iter().chain(run.via.iter().map(String::as_str)))
        .collect();
    // Such a program can be granted by no rule.
    if exec.invocations.iter().any(|run| run.program.value().is_none()) {
        return Ok(false);
    }
    for shell in &ground().shells {
        for name in started(shell, text) {
            // Launchers are looked through: what they start is listed instead of them.
            let through = ["env", "nohup", "xargs", "timeout", "nice"].contains(&name.as_str());
            prop_assert!(
                through || listed.contains(name.as_str()),
                "{shell} runs {name} for {text:?}: {exec:?}"
            );
        }
    }
    Ok(true)
}

/// A simple command, in one of many disguises.
fn simple() -> impl Strategy<Value = String> {
    let name = prop::sample::select(STUBS).prop_flat_map(|name| {
        let (first, rest) = name.split_at(1);
        prop::sample::select(vec![
            name.to_owned(),
            format!("\\{name}"),
            format!("'{name}'"),
            format!("\"{name}\""),
            format!("{first}''{rest}"),
            format!("{first}\\\n{rest}"),
            format!("sudo {name}"),
            format!("env {name}"),
            format!("env x=1 {name}"),
            format!("nohup {name}"),
            format!("timeout 5 {name}"),
            format!("xargs {name}"),
            format!("command {name}"),
            format!("eval {name}"),
            format!("eval '{name}; :'"),
            format!("x=1 {name}"),
            format!("exec {name}"),
        ])
    });
    let arguments = prop::sample::select(vec![
        "",
        " x",
        " 'a;b'",
        " \"a|b\"",
        " \\;",
        " $x",
        " \"$x\"",
        " -- -x",
        " >out",
        " 2>&1",
        " <out",
        " >out 2>&1",
        " a#b",
        " #x",
        " *",
        " {a,b}",
        " ~",
        " `aa`",
        " \"`bb`\"",
        " $(cc)",
        " \"$(dd)\"",
        " '$(ee)'",
        " ${x:-$(aa)}",
        " \"${x:-`bb`}\"",
        " $((1+2))",
        " <<E\n$(cc)\nE\n",
        " <<'E'\n$(dd)\nE\n",
        " \"\\$(ee)\"",
        " \\`aa\\`",
        " \"\\`bb\\`\"",
        " \"'$(cc)'\"",
        " '\"'$(dd)'\"'",
    ]);
    (name, prop::collection::vec(arguments, 0..3)).prop_map(|(name, arguments)| {
        let mut text = name;
        let mut tail = String::new();
        for argument in arguments {
            match argument.split_once('\n') {
                // At most one here-document, whose body goes last.
                Some((head, body)) if tail.is_empty() => {
                    text.push_str(head);
                    tail = format!("\n{body}");
                }
                Some(_) => {}
                None if argument == " #x" && !tail.is_empty() => {}
                None => text.push_str(argument),
            }
        }
        text + &tail
    })
}

fn script() -> impl Strategy<Value = String> {
    simple().prop_recursive(4, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            (pair.clone(), prop::sample::select(vec!["\n", " &\n", " &&\n", " ||\n", " |\n"])).prop_map(
                |((a, b), join)| if a.contains("<<") || a.contains('#') {
                    format!("{a}\n{b}")
                } else {
                    format!("{a}{join}{b}")
                }
            ),
            inner.clone().prop_map(|a| format!("({a}\n)")),
            inner.clone().prop_map(|a| format!("{{ {a}\n}}")),
            inner.clone().prop_map(|a| format!("! {a}")),
            inner.clone().prop_map(|a| format!("if {a}\nthen aa\nelse bb\nfi")),
            inner.clone().prop_map(|a| format!("for i in 1 2\ndo {a}\ndone")),
            inner.clone().prop_map(|a| format!("case x in\nx) {a}\n;;\nesac")),
            inner.clone().prop_map(|a| format!("f() {{ {a}\n}}\nf")),
            inner.clone().prop_map(|a| format!("cc $({a}\n)")),
            inner.clone().prop_map(|a| format!("cc \"$({a}\n)\"")),
            inner.clone().prop_map(|a| format!("y=$({a}\n)\ndd")),
            inner.clone().prop_map(|a| if a.contains(['`', '\\', '\'']) { a } else { format!("ee `{a}\n`") }),
            inner.prop_map(|a| if a.contains('\'') { a } else { format!("eval '{a}\n'") }),
        ]
    })
}

#[test]
fn what_a_shell_starts_is_listed() {
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    let mut read = 0;
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let counted = std::cell::Cell::new(0u32);
    runner
        .run(&script(), |text| {
            counted.set(counted.get() + u32::from(agrees(&text)?));
            Ok(())
        })
        .unwrap();
    read += counted.get();
    assert!(read > 50, "only {read} of them could be read");
    assert!(!ground().shells.is_empty());
}

/// Texts on which readers of shell are known to go wrong.
#[test]
fn known_traps() {
    for text in [
        "aa \"$(bb \"$(cc)\")\"",
        "aa $(bb; (cc)) dd",
        "aa $(case x in x) bb;; esac)",
        "aa $(bb # )\n)",
        "aa \"${x:-\"$(bb)\"}\"",
        "aa ${x:-'$(bb)'}",
        "cc \"a`bb \\`aa\\``\"",
        "cc <<E\n\\$(aa) $(bb)\nE\naa",
        "cc <<'E F'\n$(bb)\nE F\naa",
        "cc <<A <<B\n$(aa)\nA\n$(bb)\nB\ndd",
        "cc <<-E\n\t$(bb)\n\tE\naa",
        "aa;bb&cc|dd",
        "if aa; then bb; else cc; fi | dd",
        "for f in aa bb; do $f; cc; done",
        "aa && { bb; } || (cc)",
        "case $(aa) in *) bb;; esac",
        "f() { aa; }; g() { f; bb; }; g",
        "until aa; do bb; done",
        "while ! aa; do bb; done",
        "! aa | bb",
        "x=$(aa) bb",
        "aa > \"$(bb)\"",
        "eval 'aa; eval \"bb\"'",
        "aa \\\n bb; cc",
        "\naa\n\nbb\n",
        "aa#bb; cc",
        "aa '#' bb; cc",
        "aa \\# $(bb)",
        "set -e; aa; bb",
        "trap aa EXIT; bb",
        "(aa; exit 1; bb) || cc",
        "{ aa; }; { bb; } | cc",
        "aa <<E; bb\n$(cc)\nE\ndd",
        "aa $(cat <<E\n$(bb)\nE\n)",
        "aa 2>&1 >&2; bb",
        "aa &\nbb & cc",
        "case aa in (aa) bb;; esac",
        "case x in y) ;; *) aa\nesac",
        "x=1; [ $x = 1 ] && aa",
        "test -n \"`aa`\" || bb",
        "eval aa \\; bb",
        "xargs aa; timeout 1 env nice bb",
    ] {
        if let Err(error) = agrees(text) {
            panic!("{error}");
        }
    }
}
