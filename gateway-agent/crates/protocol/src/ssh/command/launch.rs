//! Programs that start others, and how their command lines say which.
//!
//! Each table names its source. A word that is not understood where an option may stand makes the whole opaque: whatever
//! follows could be its argument or the program that is started.

use policy::{Certainty, FileOperation, Word};

use super::{
    collect::{Collector, Folder},
    danger, paths, transfer,
};

/// How a launcher's options go.
struct Launcher {
    names: &'static [&'static str],
    /// Short options without an argument.
    flags: &'static str,
    /// Short options with one.
    valued: &'static str,
    long_flags: &'static [&'static str],
    long_valued: &'static [&'static str],
    /// Words between the options and the program.
    before: usize,
    /// Variables may be set in front of the program.
    variables: bool,
    /// It starts the program as somebody else or somewhere else.
    changes: bool,
}

const PLAIN: Launcher = Launcher {
    names: &[],
    flags: "",
    valued: "",
    long_flags: &[],
    long_valued: &[],
    before: 0,
    variables: false,
    changes: false,
};

/// Sources: GNU coreutils 9.4 (env, nice, nohup, stdbuf, timeout, chroot), util-linux 2.40 (setsid, ionice, taskset, flock),
/// GNU time 1.9, bash 5.2 (exec, command, builtin, coproc, time), sudo 1.9.15, doas(1) of OpenBSD 7.4, busybox 1.36.
const LAUNCHERS: &[Launcher] = &[
    Launcher {
        names: &["env"],
        flags: "i0v",
        valued: "u",
        long_flags: &["ignore-environment", "null", "debug"],
        long_valued: &["unset"],
        variables: true,
        ..PLAIN
    },
    Launcher { names: &["nohup", "chronic", "coproc", "builtin"], ..PLAIN },
    Launcher { names: &["busybox", "toybox"], ..PLAIN },
    Launcher { names: &["exec"], flags: "cl", valued: "a", ..PLAIN },
    Launcher { names: &["command"], flags: "p", ..PLAIN },
    Launcher { names: &["time"], flags: "pvqa", long_flags: &["portability", "verbose", "quiet"], ..PLAIN },
    Launcher { names: &["nice"], valued: "n", long_valued: &["adjustment"], ..PLAIN },
    Launcher {
        names: &["stdbuf"],
        valued: "ioe",
        long_valued: &["input", "output", "error"],
        ..PLAIN
    },
    Launcher {
        names: &["timeout"],
        flags: "fpv",
        valued: "ks",
        long_flags: &["foreground", "preserve-status", "verbose"],
        long_valued: &["kill-after", "signal"],
        before: 1,
        ..PLAIN
    },
    Launcher { names: &["setsid"], flags: "cfw", long_flags: &["ctty", "fork", "wait"], ..PLAIN },
    Launcher {
        names: &["ionice"],
        flags: "t",
        valued: "cn",
        long_flags: &["ignore"],
        long_valued: &["class", "classdata"],
        ..PLAIN
    },
    Launcher { names: &["taskset"], flags: "ac", long_flags: &["all-tasks", "cpu-list"], before: 1, ..PLAIN },
    Launcher {
        names: &["flock"],
        flags: "ensuxoFv",
        valued: "wE",
        long_flags: &["exclusive", "nonblock", "shared", "unlock", "close", "no-fork", "verbose"],
        long_valued: &["timeout", "wait", "conflict-exit-code"],
        before: 1,
        ..PLAIN
    },
    Launcher {
        names: &["sudo"],
        flags: "ABbEHKknNPS",
        valued: "CghpTtUur",
        long_flags: &[
            "askpass", "background", "bell", "preserve-env", "set-home", "reset-timestamp", "non-interactive",
            "no-update", "preserve-groups", "stdin",
        ],
        long_valued: &["close-from", "group", "host", "prompt", "command-timeout", "type", "role", "user", "other-user"],
        variables: true,
        changes: true,
        ..PLAIN
    },
    Launcher { names: &["doas"], flags: "n", valued: "ua", changes: true, ..PLAIN },
    Launcher {
        names: &["chroot"],
        long_flags: &["skip-chdir"],
        long_valued: &["groups", "userspec"],
        before: 1,
        changes: true,
        ..PLAIN
    },
    Launcher { names: &["gosu", "su-exec", "setuidgid"], before: 1, changes: true, ..PLAIN },
];

/// Shells, whose `-c` is a text of its own.
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "rbash"];

/// Programs that start others in ways that are not known here.
const UNKNOWN: &[&str] = &[
    "at", "batch", "bwrap", "capsh", "cgexec", "chpst", "chrt", "csh", "dbus-run-session", "dbus-launch", "elvish",
    "emacs", "ed", "entr", "ex", "expect", "faketime", "fakechroot", "fakeroot", "firejail", "fish", "gdb", "gdbserver",
    "ld.so", "less", "ltrace", "lua", "man", "more", "most", "nano", "nsenter", "nu", "numactl", "parallel", "pkexec",
    "proot", "pwsh", "rescue", "rlwrap", "run-parts", "runcon", "screen", "script", "sem", "setarch", "setpriv", "sg",
    "newgrp", "socat", "start-stop-daemon", "strace", "sudoedit", "systemd-run", "tclsh", "tcsh", "tmux", "unshare",
    "uniq-exec", "unbuffer", "valgrind", "vi", "view", "vim", "vimdiff", "nvim", "watch", "xonsh", "linux32", "linux64",
    "i386", "x86_64", "s6-setuidgid", "sshpass", "dtach", "tini", "dumb-init", "catchsegv", "perf", "rvim", "rview",
];

/// Lists what a simple command runs.
pub(super) fn look(
    to: &mut Collector,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
    to.depth += 1;
    if to.depth > 40 {
        to.opaque("programs that start programs are nested too deeply");
    } else {
        named(to, program, arguments, folder, via);
    }
    to.depth -= 1;
}

fn named(to: &mut Collector, program: &Word, arguments: &[Word], folder: &mut Folder, via: &[String]) {
    let Some((name, certain)) = paths::name(program) else {
        return to.invoked(program.clone(), arguments.to_vec(), folder, via);
    };
    // One of that name somewhere else has to be granted itself, and is looked through all the same.
    if !certain {
        to.invoked(program.clone(), arguments.to_vec(), folder, via);
    }
    let bare = program.value() == Some(name);
    if bare && builtin(to, name, program, arguments, folder, via) {
        return;
    }
    if transfer::look(to, name, program, arguments, folder, via) {
        return;
    }
    match name {
        "command" if matches!(arguments.first().and_then(Word::value), Some("-v" | "-V" | "-pv" | "-pV")) => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
        }
        "env" | "exec" | "nohup" | "time" if arguments.is_empty() => {
            to.invoked(program.clone(), Vec::new(), folder, via);
        }
        "xargs" => xargs(to, program, arguments, folder, via),
        "find" => find(to, program, arguments, folder, via),
        "su" | "runuser" => su(to, name, arguments, via),
        "ssh" => ssh(to, program, arguments, folder, via),
        "sudo" if arguments.iter().all(|word| matches!(word.value(), Some("-l" | "-v" | "-k" | "-K" | "-n" | "-V"))) => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
        }
        name if SHELLS.contains(&name) => shell(to, program, arguments, folder, via),
        name if UNKNOWN.contains(&name) || name.starts_with("ld-linux") || name.starts_with("ld-musl") => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            to.opaque(format!("{name} can start programs that are not seen"));
        }
        name => match LAUNCHERS.iter().find(|launcher| launcher.names.contains(&name)) {
            Some(launcher) => through(to, launcher, name, program, arguments, folder, via),
            None => {
                danger::check(to, name, arguments);
                to.invoked(program.clone(), arguments.to_vec(), folder, via);
            }
        },
    }
}

/// Builtins that mean more than a program's start. True: nothing is left to do.
fn builtin(
    to: &mut Collector,
    name: &str,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) -> bool {
    // bash reads such an operand as a variable's name, and evaluates what stands in brackets.
    const OPERANDS: &[&str] =
        &["test", "[", "[[", "printf", "read", "unset", "let", "wait", "mapfile", "readarray", "getopts"];
    let tricky = |word: &Word| {
        word.text.contains('[') && word.certainty == Certainty::Literal && word.text.contains(['$', '`'])
    };
    if OPERANDS.contains(&name) && arguments.iter().any(tricky) {
        to.opaque(format!("an operand of {name} can run commands"));
    }
    match name {
        "eval" => {
            match arguments.iter().map(Word::value).collect::<Option<Vec<_>>>() {
                Some(words) => to.text(&words.join(" "), folder, via),
                None => to.opaque("eval of a text that is not literal"),
            }
            true
        }
        "." | "source" => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            to.lose();
            true
        }
        "export" | "readonly" | "declare" | "typeset" | "local" => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            for word in arguments {
                declared(to, name, word);
            }
            true
        }
        "read" => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            for word in arguments {
                match word.value() {
                    Some(name) if super::parse::is_name(name) => {
                        to.sets(name, Word::unknown(name, Certainty::Value), false);
                    }
                    Some("-r" | "-s" | "-e") => {}
                    _ => to.opaque("options and names of read"),
                }
            }
            true
        }
        "printf" if arguments.first().is_some_and(|word| word.prefix.starts_with('-') && word.text != "--") => {
            to.opaque("printf with options sets variables");
            false
        }
        "unset" => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            for word in arguments {
                match word.value() {
                    Some("-v" | "-f") => {}
                    Some(name) if super::parse::is_name(name) => to.sets(name, Word::literal(""), false),
                    _ => to.opaque("a name that unset is given"),
                }
            }
            true
        }
        "set" => {
            let fine = |word: &Word| {
                word.value().is_some_and(|text| {
                    matches!(text, "pipefail" | "errexit" | "nounset" | "xtrace" | "-o" | "+o" | "--")
                        || (text.starts_with(['-', '+']) && text.len() > 1 && text.chars().skip(1).all(|c| "euxCfo".contains(c)))
                })
            };
            if !arguments.iter().all(fine) {
                to.opaque("set changes how the rest is read");
            }
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            true
        }
        "trap" => {
            match arguments.first().map(|word| (word.value(), arguments.len())) {
                None => {}
                Some((Some("-" | "" | "-l" | "-p"), _)) => {}
                Some((Some(text), 2..)) => {
                    let mut anywhere = None;
                    to.text(text, &mut anywhere, via);
                }
                Some(_) => to.opaque("trap with a text that is not literal"),
            }
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            true
        }
        "alias" | "unalias" | "enable" | "shopt" | "setopt" | "unsetopt" | "emulate" | "zmodload" | "autoload"
        | "let" | "mapfile" | "readarray" | "bind" | "complete" | "compgen" | "fc" | "history" | "getopts" | "hash"
        | "dirs" | "caller" | "disown" | "suspend" | "logout" | "coproc" | "vared" | "print" | "whence" | "noglob"
        | "nocorrect" | "repeat" | "sched" | "zle" | "compdef" | "functions" | "foreach" | "disable" => {
            if name == "hash" && arguments.iter().all(|word| word.value() == Some("-r")) {
                return false;
            }
            to.opaque(format!("{name} changes how the rest is read, or runs what is not seen"));
            to.lose();
            true
        }
        "[[" => {
            double_brackets(to, arguments);
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            true
        }
        "exec" if arguments.is_empty() => true,
        _ => false,
    }
}

/// One operand of export and its relatives.
fn declared(to: &mut Collector, builtin: &str, word: &Word) {
    let exported = builtin == "export" || builtin == "declare" || builtin == "typeset";
    match word.value() {
        Some(flags) if flags.starts_with('-') => {
            if !flags.chars().skip(1).all(|c| "pxrg".contains(c)) {
                to.opaque(format!("options of {builtin}"));
            }
        }
        Some(text) => {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            match super::parse::is_name(name) {
                true => to.sets(name, Word::literal(value), exported),
                false => to.opaque(format!("a name that {builtin} is given")),
            }
        }
        None => match word.prefix.split_once('=') {
            Some((name, _)) if super::parse::is_name(name) => {
                to.sets(name, Word::unknown(word.text.clone(), Certainty::Value), exported);
            }
            _ => match word.text.split_once('=') {
                // Unquoted: what it is split into are more names.
                Some((name, _)) if super::parse::is_name(name) && word.certainty != Certainty::Words => {
                    to.sets(name, Word::unknown(word.text.clone(), Certainty::Value), exported);
                }
                _ => to.opaque(format!("a name that {builtin} is given")),
            },
        },
    }
}

fn double_brackets(to: &mut Collector, arguments: &[Word]) {
    const NUMERIC: &[&str] = &["-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "=~"];
    let closed = arguments.last().and_then(Word::value) == Some("]]");
    let numeric = arguments.iter().any(|word| word.value().is_some_and(|text| NUMERIC.contains(&text)));
    if !closed || numeric {
        to.opaque("a `[[` that can run commands, or that some shells read differently");
    }
}

/// Past the options of a launcher, or none when they are not understood. Variables are set on the way.
fn program_after<'w>(
    to: &mut Collector,
    launcher: &Launcher,
    name: &str,
    arguments: &'w [Word],
) -> Option<(&'w Word, &'w [Word])> {
    let mut words = arguments.iter();
    let mut before = launcher.before;
    let mut options = true;
    while let Some(word) = words.next() {
        let text = word.value();
        let odd = |to: &mut Collector| to.opaque(format!("{} of {name} is not understood", word.text));
        match text {
            Some("--") if options => options = false,
            Some("-") if options && name == "env" => {}
            Some(long) if options && long.starts_with("--") => {
                let long = long.trim_start_matches("--");
                let plain = long.split_once('=').map_or(long, |(name, _)| name);
                match (launcher.long_flags.contains(&plain), launcher.long_valued.contains(&plain)) {
                    (true, _) => {}
                    (_, true) if long.contains('=') => {}
                    (_, true) => {
                        words.next();
                    }
                    _ => {
                        odd(to);
                        return None;
                    }
                }
            }
            Some(short) if options && short.starts_with('-') && short.len() > 1 => {
                // The old way to write `nice -n 5`.
                if name == "nice" && short.chars().skip(1).all(|c| c.is_ascii_digit()) {
                    continue;
                }
                let mut letters = short.get(1..).unwrap_or_default().chars();
                while let Some(letter) = letters.next() {
                    if launcher.valued.contains(letter) {
                        if letters.as_str().is_empty() {
                            words.next();
                        }
                        break;
                    }
                    if !launcher.flags.contains(letter) {
                        odd(to);
                        return None;
                    }
                }
            }
            Some(text) if launcher.variables && before == 0 && text.contains('=') => {
                let (variable, value) = text.split_once('=')?;
                match super::parse::is_name(variable) {
                    true => to.sets(variable, Word::literal(value), true),
                    false => {
                        odd(to);
                        return None;
                    }
                }
                options = false;
            }
            None if options && !certainly_no_option(word) => {
                odd(to);
                return None;
            }
            None if word.prefix.contains('=') && launcher.variables && before == 0 => {
                let (variable, _) = word.prefix.split_once('=')?;
                if word.certainty == Certainty::Words || !super::parse::is_name(variable) {
                    odd(to);
                    return None;
                }
                to.sets(variable, Word::unknown(word.text.clone(), Certainty::Value), true);
            }
            _ if before > 0 && word.certainty == Certainty::Words => {
                odd(to);
                return None;
            }
            _ if before > 0 => {
                before -= 1;
                options = false;
            }
            _ => {
                let rest = words.as_slice();
                return Some((word, rest));
            }
        }
    }
    None
}

/// Whatever it expands to, no word of it begins with `-`.
pub(super) fn certainly_no_option(word: &Word) -> bool {
    match word.certainty {
        Certainty::Literal => !word.text.starts_with('-'),
        Certainty::Home => true,
        Certainty::Glob | Certainty::Value => !word.prefix.is_empty() && !word.prefix.starts_with('-'),
        Certainty::Words => false,
    }
}

fn through(
    to: &mut Collector,
    launcher: &Launcher,
    name: &str,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
    if name == "flock"
        && let Some(at) = arguments.iter().position(|word| matches!(word.value(), Some("-c" | "--command")))
    {
        return match arguments.get(at + 1..) {
            Some([text]) if text.value().is_some() => to.text(&text.text, folder, via),
            _ => to.opaque("flock -c of a text that is not literal"),
        };
    }
    let mut deeper = via.to_vec();
    if launcher.changes {
        deeper.push(name.to_owned());
    }
    match program_after(to, launcher, name, arguments) {
        Some((inner, rest)) => {
            // A shell's builtin means nothing to a program that starts programs, apart from these.
            let shells_own = matches!(name, "command" | "builtin" | "time" | "coproc" | "exec");
            let mut inside = if name == "chroot" { None } else { folder.clone() };
            if shells_own && matches!(inner.value(), Some("cd" | "chdir" | "pushd" | "popd")) {
                to.lose();
            }
            look(to, inner, rest, &mut inside, &deeper);
        }
        None => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            // `flock 9` and its like start nothing.
            let starts_nothing = matches!(name, "flock") && arguments.iter().all(|word| word.value().is_some());
            if !starts_nothing && !arguments.is_empty() {
                to.opaque(format!("what {name} starts cannot be told"));
            }
        }
    }
}

/// POSIX sh, bash 5.2, dash 0.5.12, ksh93, zsh 5.9: options up to `-c`.
fn shell(to: &mut Collector, program: &Word, arguments: &[Word], folder: &mut Folder, via: &[String]) {
    let mut words = arguments.iter();
    let mut text_follows = false;
    while let Some(word) = words.next() {
        match word.value() {
            Some("--login" | "--norc" | "--noprofile" | "--posix" | "--verbose" | "--restricted") => {}
            Some("-o" | "+o") => {
                if !words.next().and_then(Word::value).is_some_and(|name| {
                    matches!(name, "pipefail" | "errexit" | "nounset" | "xtrace" | "posix" | "noglob" | "noclobber")
                }) {
                    return to.opaque("an option of a shell that is not known here");
                }
            }
            Some("--" | "-") if !text_follows => break,
            Some(short) if short.starts_with('-') && short.len() > 1 && !short.starts_with("--") => {
                let mut letters = short.chars().skip(1);
                if !letters.all(|c| "ceuxlifvnoCh".contains(c)) {
                    return to.opaque(format!("{short} of a shell is not known here"));
                }
                text_follows |= short.contains('c');
                if short.contains('o') && words.next().and_then(Word::value) != Some("pipefail") {
                    return to.opaque("an option of a shell that is not known here");
                }
            }
            Some(text) if text_follows => return to.text(text, &mut folder.clone(), via),
            Some(_) => {
                // A script: its path is what rules name.
                return to.invoked(program.clone(), arguments.to_vec(), folder, via);
            }
            None if !text_follows && certainly_no_option(word) => {
                return to.invoked(program.clone(), arguments.to_vec(), folder, via);
            }
            None => return to.opaque("a shell is given a text that is not literal"),
        }
    }
    match words.next() {
        Some(word) if certainly_no_option(word) && !text_follows => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
        }
        _ => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            to.opaque("a shell reads its commands from its input");
        }
    }
}

/// GNU findutils 4.9, xargs(1).
fn xargs(to: &mut Collector, program: &Word, arguments: &[Word], folder: &mut Folder, via: &[String]) {
    let mut words = arguments.iter();
    let mut replaced: Option<String> = None;
    let inner = loop {
        let Some(word) = words.next() else { break None };
        let Some(text) = word.value() else {
            if certainly_no_option(word) {
                break Some(word);
            }
            return to.opaque("options of xargs that are not literal");
        };
        let mut value = |attached: &str| match attached.is_empty() {
            true => words.next().cloned(),
            false => Some(Word::literal(attached)),
        };
        match text {
            "--" => break words.next(),
            "--null" | "--no-run-if-empty" | "--verbose" | "--exit" | "--open-tty" | "--interactive" => {}
            long if long.starts_with("--") => {
                let (name, attached) = long.split_once('=').unwrap_or((long, ""));
                match name {
                    "--max-args" | "--max-lines" | "--max-procs" | "--delimiter" | "--max-chars" | "--eof" => {
                        if attached.is_empty() && matches!(name, "--max-args" | "--max-procs" | "--delimiter" | "--max-chars") {
                            value("");
                        }
                    }
                    "--replace" => replaced = Some(if attached.is_empty() { "{}" } else { attached }.to_owned()),
                    "--arg-file" => match value(attached) {
                        Some(file) => to.opens(FileOperation::Read, file, folder),
                        None => to.opaque("xargs without a file"),
                    },
                    _ => return to.opaque(format!("{name} of xargs is not understood")),
                }
            }
            short if short.starts_with('-') && short.len() > 1 => {
                let mut letters = short.get(1..).unwrap_or_default().chars();
                while let Some(letter) = letters.next() {
                    match letter {
                        '0' | 'o' | 'p' | 'r' | 't' | 'x' => continue,
                        'i' => {
                            let attached = letters.as_str();
                            replaced = Some(if attached.is_empty() { "{}" } else { attached }.to_owned());
                        }
                        'e' | 'l' => {}
                        'I' | 'J' => match value(letters.as_str()) {
                            Some(Word { text, certainty: Certainty::Literal, .. }) if !text.is_empty() => {
                                replaced = Some(text);
                            }
                            _ => return to.opaque("what xargs replaces is not literal"),
                        },
                        'a' => match value(letters.as_str()) {
                            Some(file) => to.opens(FileOperation::Read, file, folder),
                            None => to.opaque("xargs without a file"),
                        },
                        'd' | 'E' | 'L' | 'n' | 'P' | 's' => {
                            if value(letters.as_str()).is_none_or(|value| value.value().is_none()) {
                                return to.opaque("options of xargs that are not literal");
                            }
                        }
                        _ => return to.opaque(format!("{short} of xargs is not understood")),
                    }
                    break;
                }
            }
            _ => break Some(word),
        }
    };
    let Some(inner) = inner else {
        // It then runs echo.
        return to.invoked(program.clone(), arguments.to_vec(), folder, via);
    };
    let replace = |word: &Word| match &replaced {
        Some(mark) if word.text.contains(mark.as_str()) => {
            let prefix = word.text.split(mark.as_str()).next().unwrap_or_default().to_owned();
            Word { text: word.text.clone(), certainty: Certainty::Value, prefix }
        }
        _ => word.clone(),
    };
    let mut given: Vec<Word> = words.map(replace).collect();
    if replaced.is_none() {
        given.push(Word::unknown("(from xargs)", Certainty::Words));
    }
    look(to, &replace(inner), &given, &mut folder.clone(), via);
}

/// GNU findutils 4.9, find(1).
fn find(to: &mut Collector, program: &Word, arguments: &[Word], folder: &mut Folder, via: &[String]) {
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.value() {
            Some("-exec" | "-ok" | "-execdir" | "-okdir") => {
                let mut inner = Vec::new();
                let mut ended = false;
                for word in words.by_ref() {
                    if word.value() == Some(";") || (word.value() == Some("+") && !inner.is_empty()) {
                        ended = true;
                        break;
                    }
                    inner.push(match word.text.contains("{}") {
                        true => {
                            let prefix = word.text.split("{}").next().unwrap_or_default().to_owned();
                            // `{} +` is many words; a found name begins as the path it was found below.
                            let certainty = if word.text == "{}" { Certainty::Words } else { Certainty::Value };
                            Word { text: word.text.clone(), certainty, prefix }
                        }
                        false => word.clone(),
                    });
                }
                match inner.split_first() {
                    Some((program, rest)) if ended => {
                        let mut inside = if word.text.ends_with("dir") { None } else { folder.clone() };
                        look(to, program, rest, &mut inside, via);
                    }
                    _ => to.opaque("an action of find that does not end"),
                }
            }
            Some("-fprint" | "-fprint0" | "-fls" | "-fprintf") => match words.next() {
                Some(file) => to.opens(FileOperation::Write, file.clone(), folder),
                None => to.opaque("find without a file"),
            },
            Some("-files0-from") => match words.next() {
                Some(file) => to.opens(FileOperation::Read, file.clone(), folder),
                None => to.opaque("find without a file"),
            },
            Some(_) => {}
            None if certainly_no_option(word) => {}
            None => to.opaque("a word that find may take for an action"),
        }
    }
    to.invoked(program.clone(), arguments.to_vec(), folder, via);
}

/// shadow 4.13 and util-linux 2.40: su(1), runuser(1).
fn su(to: &mut Collector, name: &str, arguments: &[Word], via: &[String]) {
    let mut deeper = via.to_vec();
    deeper.push(name.to_owned());
    let mut words = arguments.iter();
    let mut user = false;
    let mut text: Option<&Word> = None;
    while let Some(word) = words.next() {
        match word.value() {
            Some("-" | "-l" | "--login" | "-m" | "-p" | "--preserve-environment" | "-f") => {}
            Some("-c" | "--command") => text = words.next(),
            Some("-u" | "--user") if name == "runuser" => {
                words.next();
                user = true;
            }
            Some("--") if name == "runuser" && user => {
                let rest = words.as_slice();
                return match rest.split_first() {
                    Some((program, rest)) => look(to, program, rest, &mut None, &deeper),
                    None => to.opaque("an interactive shell"),
                };
            }
            Some(option) if option.starts_with('-') => {
                return to.opaque(format!("{option} of {name} is not understood"));
            }
            Some(_) if !user => user = true,
            Some(_) if name == "runuser" => return to.opaque("arguments of runuser"),
            Some(_) => return to.opaque("arguments of su"),
            None if certainly_no_option(word) && !user => user = true,
            None => return to.opaque(format!("a word of {name} that is not literal")),
        }
    }
    match text.map(Word::value) {
        Some(Some(text)) => to.text(text, &mut None, &deeper),
        Some(None) => to.opaque(format!("{name} is given a text that is not literal")),
        None => to.opaque(format!("{name} starts an interactive shell")),
    }
}

/// OpenSSH 9.6, ssh(1). Whom it connects to is for a rule about `ssh` itself; what runs there is looked at, too.
fn ssh(to: &mut Collector, program: &Word, arguments: &[Word], folder: &mut Folder, via: &[String]) {
    to.invoked(program.clone(), arguments.to_vec(), folder, via);
    let mut deeper = via.to_vec();
    deeper.push("ssh".to_owned());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.value() {
            Some(option) if option.starts_with('-') && option.len() > 1 => {
                let mut letters = option.get(1..).unwrap_or_default().chars();
                while let Some(letter) = letters.next() {
                    if "46aCknqTtvVx".contains(letter) {
                        continue;
                    }
                    if !"bcilmp".contains(letter) {
                        return to.opaque(format!("{option} of ssh runs programs or opens tunnels"));
                    }
                    if letters.as_str().is_empty() {
                        words.next();
                    }
                    break;
                }
            }
            Some(_) => break,
            None if certainly_no_option(word) => break,
            None => return to.opaque("options of ssh that are not literal"),
        }
    }
    let rest = words.as_slice();
    if rest.is_empty() {
        return to.opaque("ssh opens a shell");
    }
    match rest.iter().map(Word::value).collect::<Option<Vec<_>>>() {
        // The far end's shell reads the words joined by blanks; options may still stand in front of them.
        Some(texts) if !texts.first().is_some_and(|text| text.starts_with('-')) => {
            to.text(&texts.join(" "), &mut None, &deeper);
        }
        _ => to.opaque("ssh is given a command that is not literal"),
    }
}
