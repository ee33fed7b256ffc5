//! Programs that start others by a grammar of their own.

use policy::{Certainty, FileOperation, Word};

use super::{certainly_no_option, is_one, look};
use crate::ssh::command::collect::{Collector, Folder};

/// POSIX sh, and what bash 5.2 and dash 0.5.12 add: options up to `-c`.
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
            Some("--" | "-") => {
                return match words.next().map(Word::value) {
                    Some(Some(text)) => to.text(text, &mut folder.clone(), via),
                    _ => to.opaque("a shell is given a text that is not literal"),
                };
            }
            // Of other shells' making: what it means for the words behind it is not known.
            Some(odd) if odd.starts_with('+') || odd.starts_with("--") => {
                return to.opaque(format!("{odd} of a shell is not known here"));
            }
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
            Some(script) => {
                // A script: its path is what rules name.
                if is_input(script) {
                    to.opaque("a shell reads its commands from its input");
                }
                return to.invoked(program.clone(), arguments.to_vec(), folder, via);
            }
            None if !text_follows && certainly_no_option(word) => {
                return to.invoked(program.clone(), arguments.to_vec(), folder, via);
            }
            None => return to.opaque("a shell is given a text that is not literal"),
        }
    }
    match words.next() {
        Some(word) if !text_follows && !word.value().is_some_and(is_input) => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
        }
        _ => {
            to.invoked(program.clone(), arguments.to_vec(), folder, via);
            to.opaque("a shell reads its commands from its input");
        }
    }
}

/// Whether a file that is named as a script is what comes in.
pub(in crate::ssh::command) fn is_input(path: &str) -> bool {
    let path = path.replace("//", "/");
    path == "-" || path.starts_with("/dev/") || path.starts_with("/proc/") || path == "0"
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
            true => words.next().filter(|word| is_one(Some(word))).cloned(),
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
                            && value("").is_none()
                        {
                            return to.opaque("options of xargs that are not literal");
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

/// util-linux 2.38: su(1), runuser(1).
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
                if !is_one(words.next()) {
                    return to.opaque("a user that is not one word");
                }
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

/// docker, podman and nerdctl: `exec` is looked through; what starts containers, or speaks of other hosts, is not.
///
/// Which container it is, is for a rule about the program itself; what runs there is looked at, too.
pub(super) fn container(
    to: &mut Collector,
    name: &str,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
    /// Commands that start nothing in a container, or only what it was made for.
    const PLAIN: &[&str] = &[
        "ps", "images", "info", "version", "inspect", "logs", "pull", "push", "start", "stop", "restart",
        "kill", "rm", "rmi", "top", "stats", "port", "pause", "unpause", "wait", "events", "history", "tag",
        "diff", "rename", "ls", "df", "login", "logout", "search", "prune", "build",
    ];
    /// Groups of commands.
    const GROUPS: &[&str] = &["container", "image", "volume", "network", "system"];
    to.invoked(program.clone(), arguments.to_vec(), folder, via);
    let mut words = arguments.iter();
    let command = loop {
        match words.next().map(Word::value) {
            None => return,
            Some(Some(group)) if GROUPS.contains(&group) => {}
            Some(Some(command)) if !command.starts_with('-') => break command,
            Some(Some("--version" | "-v" | "--help" | "-h")) => return,
            Some(_) => return to.opaque(format!("options of {name} are not understood")),
        }
    };
    match command {
        "exec" => inside_container(to, name, words.as_slice(), via, &CONTAINER_EXEC),
        command if PLAIN.contains(&command) => {}
        // What a file says is started; other programs in it are not.
        "compose" => {
            let plain = |word: &Word| match word.value() {
                Some(text) => {
                    !matches!(text, "exec" | "run" | "cp" | "watch" | "alpha") && !text.starts_with("--host")
                }
                None => certainly_no_option(word),
            };
            if !words.as_slice().iter().all(plain) {
                to.opaque(format!("{name} compose can start programs that are not seen"));
            }
        }
        command => to.opaque(format!("{name} {command} can start programs that are not seen")),
    }
}

/// kubectl: as for containers; a command stands behind `--`.
pub(super) fn kubectl(
    to: &mut Collector,
    name: &str,
    program: &Word,
    arguments: &[Word],
    folder: &mut Folder,
    via: &[String],
) {
    const STARTS: &[&str] =
        &["run", "debug", "attach", "cp", "edit", "plugin", "proxy", "port-forward", "config"];
    to.invoked(program.clone(), arguments.to_vec(), folder, via);
    let mut words = arguments.iter();
    // What is no option may be the value of one, or the command: all of them are looked at.
    let mut ran = false;
    while let Some(word) = words.next() {
        match word.value() {
            Some("--") if ran => {
                return match words.as_slice().split_first() {
                    Some((inner, rest)) => look(to, inner, rest, &mut None, &deeper(via, name)),
                    None => to.opaque("kubectl exec without a command"),
                };
            }
            Some("exec") => ran = true,
            Some("--kubeconfig") => return to.opaque("another configuration of kubectl can run commands"),
            Some(text) if text.starts_with("--kubeconfig=") => {
                return to.opaque("another configuration of kubectl can run commands");
            }
            Some(text) if STARTS.contains(&text) => {
                to.opaque(format!("{name} {text} can start programs that are not seen"));
            }
            Some(_) => {}
            None if certainly_no_option(word) => {}
            None => {
                return to.opaque(format!("a word of {name} that is not literal, where an option may stand"));
            }
        }
    }
    if ran {
        to.opaque(format!("{name} exec without `--` in front of its command"));
    }
}

fn deeper(via: &[String], name: &str) -> Vec<String> {
    via.iter().cloned().chain([name.to_owned()]).collect()
}

/// How the options of `exec` go: letters without and with a value, long ones alike.
struct Options {
    flags: &'static str,
    valued: &'static str,
    long_flags: &'static [&'static str],
    long_valued: &'static [&'static str],
}

const CONTAINER_EXEC: Options = Options {
    flags: "itd",
    valued: "uw",
    long_flags: &["interactive", "tty", "detach"],
    long_valued: &["user", "workdir"],
};

fn inside_container(to: &mut Collector, name: &str, arguments: &[Word], via: &[String], of: &Options) {
    let odd = |to: &mut Collector, word: &Word| {
        to.opaque(format!("{} of {name} exec is not understood", word.text))
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.value() {
            Some(long) if long.starts_with("--") => {
                let plain = long.trim_start_matches("--");
                let known = plain.split_once('=').map_or(plain, |(known, _)| known);
                let whole = of.long_flags.contains(&plain)
                    || (of.long_valued.contains(&known) && (plain.contains('=') || is_one(words.next())));
                if !whole {
                    return odd(to, word);
                }
            }
            Some(short) if short.starts_with('-') => {
                let mut letters = short.chars().skip(1);
                let valued = letters.find(|letter| !of.flags.contains(*letter));
                let whole = match valued {
                    None => short.len() > 1,
                    Some(letter) if of.valued.contains(letter) => {
                        letters.next().is_some() || is_one(words.next())
                    }
                    Some(_) => false,
                };
                if !whole {
                    return odd(to, word);
                }
            }
            // The container.
            _ if certainly_no_option(word) => {
                return match words.as_slice().split_first() {
                    Some((inner, rest)) => look(to, inner, rest, &mut None, &deeper(via, name)),
                    None => to.opaque(format!("{name} exec without a command")),
                };
            }
            _ => return odd(to, word),
        }
    }
    to.opaque(format!("{name} exec without a command"));
}

/// OpenSSH 9.2, ssh(1). Whom it connects to is for a rule about `ssh` itself; what runs there is looked at, too.
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
                    if "46aCknqTvVx".contains(letter) {
                        continue;
                    }
                    if !"bcilmp".contains(letter) {
                        return to.opaque(format!("{option} of ssh runs programs or opens tunnels"));
                    }
                    if letters.as_str().is_empty() && !is_one(words.next()) {
                        return to.opaque("options of ssh that are not literal");
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
