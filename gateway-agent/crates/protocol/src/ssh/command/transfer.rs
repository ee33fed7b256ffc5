//! Far ends of file transfers: what they read and write is in their words.
//!
//! Sources: scp.c of OpenSSH (`-t` and `-f`), options.c of rsync (`server_options`), the manuals of git-upload-pack, git-receive-pack and
//! git-upload-archive; held against OpenSSH 9.2, rsync 3.5 and git 2.39. Options that are not known here make the whole opaque.

use policy::{FileOperation, PathUse, Route, Word};

use super::{
    collect::{Collector, Folder},
    launch::certainly_no_option,
};

/// True: it was a transfer, and nothing is left to do.
pub(super) fn look(
    to: &mut Collector,
    name: &str,
    program: &Word,
    arguments: &[Word],
    folder: &Folder,
    via: &[String],
) -> bool {
    let has = |wanted: &str| arguments.iter().any(|word| word.value() == Some(wanted));
    let found = match name {
        "scp" if arguments.iter().any(is_far_end_of_scp) => scp(arguments, folder),
        "rsync" if has("--server") => rsync(arguments, folder),
        "git-upload-pack" | "git-upload-archive" => git(arguments, FileOperation::Read, folder),
        "git-receive-pack" => git(arguments, FileOperation::Write, folder),
        "git" => match arguments.split_first().and_then(|(first, rest)| Some((first.value()?, rest))) {
            Some(("upload-pack" | "upload-archive", rest)) => git(rest, FileOperation::Read, folder),
            Some(("receive-pack", rest)) => git(rest, FileOperation::Write, folder),
            _ => return false,
        },
        _ => return false,
    };
    match found {
        Some(files) => {
            to.exec.files.extend(files);
            to.moves(program.clone(), arguments.to_vec(), folder, via, true);
        }
        None => {
            to.moves(program.clone(), arguments.to_vec(), folder, via, false);
            to.opaque(format!("what {name} reads or writes cannot be told"));
        }
    }
    true
}

fn used(operation: FileOperation, path: &Word, folder: &Folder, by: Route) -> PathUse {
    let recursive = by != Route::Scp;
    PathUse { operation, path: path.clone(), folder: folder.clone(), recursive, by }
}

fn is_far_end_of_scp(word: &Word) -> bool {
    word.value()
        .is_some_and(|text| text.starts_with('-') && !text.starts_with("--") && text.contains(['t', 'f']))
}

fn scp(arguments: &[Word], folder: &Folder) -> Option<Vec<PathUse>> {
    let mut words = arguments.iter();
    let (mut sink, mut source) = (false, false);
    let mut paths = Vec::new();
    for word in words.by_ref() {
        match word.value() {
            Some("--") => break,
            Some(options) if options.starts_with('-') && options.len() > 1 => {
                let letters = options.get(1..)?;
                if !letters.chars().all(|c| "vrpdqtf".contains(c)) {
                    return None;
                }
                sink |= letters.contains('t');
                source |= letters.contains('f');
            }
            _ if certainly_no_option(word) => {
                paths.push(word);
                break;
            }
            _ => return None,
        }
    }
    paths.extend(words);
    let operation = match (sink, source) {
        (true, false) => FileOperation::Write,
        (false, true) => FileOperation::Read,
        _ => return None,
    };
    (!paths.is_empty()).then(|| paths.iter().map(|path| used(operation, path, folder, Route::Scp)).collect())
}

const RSYNC_LETTERS: &str = "logDtprvcHAXSzuxnqbWRIJOUNmhCLKkdiyEfa";
const RSYNC_LONG: &[&str] = &[
    "--server",
    "--sender",
    "--numeric-ids",
    "--inplace",
    "--partial",
    "--delay-updates",
    "--ignore-errors",
    "--ignore-existing",
    "--existing",
    "--size-only",
    "--force",
    "--stats",
    "--new-compress",
    "--old-compress",
    "--no-r",
    "--no-implied-dirs",
    "--fuzzy",
    "--omit-dir-times",
    "--append",
    "--append-verify",
    "--sparse",
    "--preallocate",
    "--fsync",
    "--safe-links",
    "--munge-links",
    "--super",
    "--no-W",
    "--open-noatime",
    "--no-specials",
    "--devices",
    "--no-D",
    "--copy-unsafe-links",
    "--use-qsort",
    "--list-only",
    "--dirs",
    "--no-msgs2stderr",
    "--msgs2stderr",
    "--mkpath",
];
const RSYNC_VALUED: &[&str] = &[
    "--compress-choice=",
    "--checksum-choice=",
    "--checksum-seed=",
    "--compress-level=",
    "--bwlimit=",
    "--timeout=",
    "--max-size=",
    "--min-size=",
    "--max-delete=",
    "--modify-window=",
    "--block-size=",
    "--suffix=",
    "--log-format=",
    "--out-format=",
    "--iconv=",
    "--usermap=",
    "--groupmap=",
    "--chown=",
    "--skip-compress=",
    "--max-alloc=",
    "--stop-after=",
    "--stop-at=",
    "--debug=",
    "--info=",
    "--outbuf=",
];
const RSYNC_DELETES: &[&str] = &[
    "--delete",
    "--delete-before",
    "--delete-during",
    "--delete-delay",
    "--delete-after",
    "--delete-excluded",
    "--delete-missing-args",
    "--remove-source-files",
    "--remove-sent-files",
];
/// Folders of their own, which are read or written.
const RSYNC_READS: &[&str] = &["--compare-dest", "--copy-dest", "--link-dest"];
const RSYNC_WRITES: &[&str] = &["--temp-dir", "--partial-dir", "--backup-dir"];

fn rsync(arguments: &[Word], folder: &Folder) -> Option<Vec<PathUse>> {
    let mut words = arguments.iter();
    let mut sender = false;
    let mut operations = Vec::new();
    let mut files = Vec::new();
    let mut started = false;
    while let Some(word) = words.next() {
        let Some(text) = word.value() else {
            // Between the options only the literal `.` stands for their end.
            return None;
        };
        if text == "." {
            started = true;
            break;
        }
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if RSYNC_READS.contains(&name) || RSYNC_WRITES.contains(&name) {
            let path = if value.is_empty() { words.next()?.clone() } else { Word::literal(value) };
            // A relative one starts from the folder that is written to.
            if path.value().is_none_or(|path| !path.starts_with('/')) {
                return None;
            }
            let operation =
                if RSYNC_READS.contains(&name) { FileOperation::Read } else { FileOperation::Write };
            files.push(used(operation, &path, folder, Route::Rsync));
        } else if RSYNC_DELETES.contains(&text) {
            operations.push(FileOperation::Remove);
        } else if text == "--sender" {
            sender = true;
        } else if RSYNC_LONG.contains(&text) || RSYNC_VALUED.iter().any(|known| text.starts_with(known)) {
        } else {
            let letters = text.strip_prefix('-')?;
            // What follows `e` names the abilities of the client.
            let (letters, abilities) = letters.split_once('e').unwrap_or((letters, ""));
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
            if !letters.chars().all(|c| RSYNC_LETTERS.contains(c)) || !abilities.chars().all(plain) {
                return None;
            }
        }
    }
    operations.push(if sender { FileOperation::Read } else { FileOperation::Write });
    let paths = words.as_slice();
    if !started || paths.is_empty() || (!sender && paths.len() != 1) {
        return None;
    }
    for path in paths {
        // It does without `--`: a name that begins with `-` after the dot is a name, an unknown one may be several.
        files.extend(operations.iter().map(|operation| used(*operation, path, folder, Route::Rsync)));
    }
    Some(files)
}

fn git(arguments: &[Word], operation: FileOperation, folder: &Folder) -> Option<Vec<PathUse>> {
    let (path, options) = arguments.split_last()?;
    let known = |word: &Word| {
        word.value().is_some_and(|text| {
            matches!(text, "--strict" | "--no-strict" | "--stateless-rpc" | "--advertise-refs" | "--")
                || text == "--http-backend-info-refs"
                || text.strip_prefix("--timeout=").is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()))
        })
    };
    (options.iter().all(known) && certainly_no_option(path))
        .then(|| vec![used(operation, path, folder, Route::Git)])
}
