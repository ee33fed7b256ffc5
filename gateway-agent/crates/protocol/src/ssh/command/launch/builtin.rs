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
    if matches!(name, "test" | "[") {
        if may_look_up(arguments) {
            to.opaque(format!("an operand of {name} may be the name of a variable, which bash evaluates"));
        }
        compared(to, name, arguments);
    }
    match name {
        "eval" => {
            match without_dashes(arguments).iter().map(Word::value).collect::<Option<Vec<_>>>() {
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
        "printf" => {
            printed(to, arguments);
            false
        }
        "wait" => {
            // `-p` names a variable.
            let job = |word: &Word| {
                word.value().is_some_and(|text| text == "-n" || text == "-f" || !text.starts_with('-'))
                    || word.text.trim_matches('"') == "$!"
            };
            if !arguments.iter().all(job) {
                to.opaque("wait with options, or with what may be one");
            }
            false
        }
        "exit" | "return" | "shift" | "break" | "continue" => {
            for word in arguments {
                to.computes(word, name);
            }
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
            let words = without_dashes(arguments);
            match words.first().map(|word| (word.value(), words.len())) {
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

/// Past the end of options, where none is given.
fn without_dashes(arguments: &[Word]) -> &[Word] {
    match arguments.split_first() {
        Some((first, rest)) if first.value() == Some("--") => rest,
        _ => arguments,
    }
}

/// `printf`: its format has to be known, because `-v` names a variable, and what stands for a number is computed by ksh and zsh.
fn printed(to: &mut Collector, arguments: &[Word]) {
    let Some((format, operands)) = without_dashes(arguments).split_first() else { return };
    let Some(text) = format
        .value()
        .filter(|text| !text.starts_with('-') || without_dashes(arguments).len() < arguments.len())
    else {
        return to.opaque("a format of printf that is not literal, or an option, which sets variables");
    };
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let kind = after.find(|c: char| !matches!(c, '-' | '+' | ' ' | '#' | '.' | '0'..='9'));
        let kind = kind.and_then(|at| after.get(at..)).unwrap_or_default();
        if !kind.starts_with(['s', 'b', 'q', 'c', '%']) {
            operands.iter().for_each(|word| to.computes(word, "printf"));
            return;
        }
        let mut chars = kind.chars();
        chars.next();
        rest = chars.as_str();
    }
}

/// Numbers that `test` compares.
fn compared(to: &mut Collector, name: &str, arguments: &[Word]) {
    for (at, word) in arguments.iter().enumerate() {
        let around = match word.value() {
            Some("-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge") => [at.checked_sub(1), Some(at + 1)],
            Some("-t") => [None, Some(at + 1)],
            _ => continue,
        };
        for word in around.into_iter().flatten().filter_map(|at| arguments.get(at)) {
            if word.value() != Some("]") {
                to.computes(word, name);
            }
        }
    }
}

/// Whether `test` may come to look a variable up by a name that is not written here (`-v`): bash runs what stands in its brackets.
fn may_look_up(arguments: &[Word]) -> bool {
    const AFTER: &[&str] = &[
        "]", ")", "=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef",
        "-a", "-o",
    ];
    arguments.iter().enumerate().any(|(at, word)| match (word.value(), word.certainty) {
        (Some(text), _) => matches!(text, "-v" | "-R"),
        (None, Certainty::Words | Certainty::Glob) => true,
        (None, _) => {
            let operator = word.prefix.is_empty() || word.prefix.starts_with('-');
            let next = arguments.get(at + 1);
            operator && next.is_some_and(|next| next.value().is_none_or(|text| !AFTER.contains(&text)))
        }
    })
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
