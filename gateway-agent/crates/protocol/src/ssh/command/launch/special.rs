//! Programs that start others by a grammar of their own.

use policy::{Certainty, FileOperation, Word};

use super::{certainly_no_option, look};
use crate::ssh::command::collect::{Collector, Folder};

/// POSIX sh, bash 5.2, dash 0.5.12, ksh93, zsh 5.9: options up to `-c`.
pub(super) fn shell(
    to: &mut Collector,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
    let mut words = arguments.iter();
    let mut text_follows = false;
    while let Some(word) = words.next() {
        match word.value() {
            Some("--login" | "--norc" | "--noprofile" | "--posix" | "--verbose" | "--restricted") => {}
            Some("-o" | "+o") => {
                if !words.next().and_then(Word::value).is_some_and(|name| {
                    matches!(
                        name,
                        "pipefail" | "errexit" | "nounset" | "xtrace" | "posix" | "noglob" | "noclobber"
                    )
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
pub(super) fn xargs(
    to: &mut Collector,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
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
                    "--max-args" | "--max-lines" | "--max-procs" | "--delimiter" | "--max-chars"
                    | "--eof" => {
                        if attached.is_empty()
                            && matches!(name, "--max-args" | "--max-procs" | "--delimiter" | "--max-chars")
                        {
                            value("");
                        }
                    }
                    "--replace" => {
                        replaced = Some(if attached.is_empty() { "{}" } else { attached }.to_owned())
                    }
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
pub(super) fn find(
    to: &mut Collector,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
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
                            let certainty =
                                if word.text == "{}" { Certainty::Words } else { Certainty::Value };
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
pub(super) fn su(to: &mut Collector, name: &str, arguments: &[Word], via: &[String]) {
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
pub(super) fn ssh(
    to: &mut Collector,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
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
