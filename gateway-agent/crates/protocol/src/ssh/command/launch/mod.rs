//! Programs that start others, and how their command lines say which.
//!
//! Each table names its source. A word that is not understood where an option may stand makes the whole opaque: whatever
//! follows could be its argument or the program that is started.

mod builtin;
mod special;
mod table;

use policy::{Certainty, Word};

use self::{
    builtin::builtin,
    special::{container, find, kubectl, shell, ssh, su, xargs},
    table::{LAUNCHERS, Launcher, SHELLS, UNKNOWN},
};
use super::{
    collect::{Collector, Folder},
    danger, parse, paths, transfer,
};

pub(super) use self::special::is_input;

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
        "docker" | "podman" | "nerdctl" => container(to, name, program, arguments, folder, via),
        "kubectl" | "oc" => kubectl(to, name, program, arguments, folder, via),
        "sudo"
            if arguments
                .iter()
                .all(|word| matches!(word.value(), Some("-l" | "-v" | "-k" | "-K" | "-n" | "-V"))) =>
        {
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
                    (_, true) if is_one(words.next()) => {}
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
                        if letters.as_str().is_empty() && !is_one(words.next()) {
                            odd(to);
                            return None;
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
                match parse::is_name(variable) {
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
                if word.certainty == Certainty::Words || !parse::is_name(variable) {
                    odd(to);
                    return None;
                }
                to.sets(variable, Word::unknown(word.text.clone(), Certainty::Value), true);
            }
            _ if before > 0 && !is_one(Some(word)) => {
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

/// Whether it is one word for certain: an option's argument that is none, or several, moves what follows.
pub(super) fn is_one(word: Option<&Word>) -> bool {
    word.is_some_and(|word| !matches!(word.certainty, Certainty::Words | Certainty::Glob))
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
    let mut deeper = via.to_vec();
    if launcher.changes {
        deeper.push(name.to_owned());
    }
    match program_after(to, launcher, name, arguments) {
        // Only there, and with nothing behind it, is it the text of a command.
        Some((inner, rest)) if name == "flock" && matches!(inner.value(), Some("-c" | "--command")) => {
            match rest {
                [text] if text.value().is_some() => to.text(&text.text, &mut folder.clone(), &deeper),
                _ => to.opaque("flock -c of a text that is not literal"),
            }
        }
        // In front of a command, to shells that know it as a word of their own.
        Some((inner, rest)) if name == "time" && inner.value() == Some("!") => {
            through(to, launcher, name, inner, rest, folder, via);
        }
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
            let starts_nothing =
                matches!(name, "flock") && arguments.iter().all(|word| word.value().is_some());
            if !starts_nothing && !arguments.is_empty() {
                to.opaque(format!("what {name} starts cannot be told"));
            }
        }
    }
}
