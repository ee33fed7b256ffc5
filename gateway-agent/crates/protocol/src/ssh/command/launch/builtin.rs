//! Builtins of shells.

use policy::{Certainty, Word};

use crate::ssh::command::{
    collect::{Collector, Folder},
    parse::is_name,
};

/// Builtins that mean more than a program's start. True: nothing is left to do.
pub(super) fn builtin(
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
                    Some(name) if is_name(name) => {
                        to.sets(name, Word::unknown(name, Certainty::Value), false);
                    }
                    Some("-r" | "-s" | "-e") => {}
                    _ => to.opaque("options and names of read"),
                }
            }
            true
        }
        "printf"
            if arguments.first().is_some_and(|word| word.prefix.starts_with('-') && word.text != "--") =>
        {
            to.opaque("printf with options sets variables");
            false
        }
        "unset" => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            for word in arguments {
                match word.value() {
                    Some("-v" | "-f") => {}
                    Some(name) if is_name(name) => to.sets(name, Word::literal(""), false),
                    _ => to.opaque("a name that unset is given"),
                }
            }
            true
        }
        "set" => {
            let fine = |word: &Word| {
                word.value().is_some_and(|text| {
                    matches!(text, "pipefail" | "errexit" | "nounset" | "xtrace" | "-o" | "+o" | "--")
                        || (text.starts_with(['-', '+'])
                            && text.len() > 1
                            && text.chars().skip(1).all(|c| "euxCfo".contains(c)))
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
        "alias" | "unalias" | "enable" | "shopt" | "setopt" | "unsetopt" | "emulate" | "zmodload"
        | "autoload" | "let" | "mapfile" | "readarray" | "bind" | "complete" | "compgen" | "fc"
        | "history" | "getopts" | "hash" | "dirs" | "caller" | "disown" | "suspend" | "logout" | "coproc"
        | "vared" | "print" | "whence" | "noglob" | "nocorrect" | "repeat" | "sched" | "zle" | "compdef"
        | "functions" | "foreach" | "disable" => {
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
            match is_name(name) {
                true => to.sets(name, Word::literal(value), exported),
                false => to.opaque(format!("a name that {builtin} is given")),
            }
        }
        None => match word.prefix.split_once('=') {
            Some((name, _)) if is_name(name) => {
                to.sets(name, Word::unknown(word.text.clone(), Certainty::Value), exported);
            }
            _ => match word.text.split_once('=') {
                // Unquoted: what it is split into are more names.
                Some((name, _)) if is_name(name) && word.certainty != Certainty::Words => {
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
