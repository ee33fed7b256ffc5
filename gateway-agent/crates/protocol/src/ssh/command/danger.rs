//! Options by which programs run others, or code of their own language.
//!
//! Sources: the manuals of the programs as Debian 12 has them, and GTFOBins for which of them to read. It is a list of what is known:
//! a rule that grants an interpreter or an editor with any arguments grants what that can do.

use policy::Word;

use super::{
    collect::Collector,
    launch::{certainly_no_option, is_input, is_one},
};

struct Danger {
    names: &'static [&'static str],
    /// Letters of short options, alone or in a bundle.
    short: &'static str,
    /// Long options; what they may be shortened to counts as well.
    long: &'static [&'static str],
    /// Words that mean it wherever they stand.
    words: &'static [&'static str],
    /// The first word may be a bundle without its dash.
    bundle: bool,
}

const NONE: Danger = Danger { names: &[], short: "", long: &[], words: &[], bundle: false };

const DANGERS: &[Danger] = &[
    Danger {
        names: &["tar", "gtar", "bsdtar"],
        // A list of files may hold options.
        short: "IFT",
        long: &[
            "files-from",
            "checkpoint-action",
            "to-command",
            "use-compress-program",
            "info-script",
            "new-volume-script",
            "rsh-command",
            "rmt-command",
        ],
        bundle: true,
        ..NONE
    },
    Danger {
        names: &["rsync"],
        short: "eM",
        long: &["rsh", "rsync-path", "daemon", "remote-option"],
        ..NONE
    },
    Danger { names: &["scp"], short: "SoFDJs", ..NONE },
    Danger { names: &["zip"], short: "T", long: &["unzip-command", "test"], ..NONE },
    Danger { names: &["sort"], short: "", long: &["compress-program"], ..NONE },
    Danger { names: &["split"], long: &["filter"], ..NONE },
    Danger { names: &["cpio"], long: &["rsh-command"], ..NONE },
    Danger { names: &["wget"], long: &["use-askpass", "execute"], short: "e", ..NONE },
    Danger {
        names: &["apt", "apt-get", "apt-cache", "aptitude"],
        short: "oc",
        long: &["option", "config-file"],
        ..NONE
    },
    Danger { names: &["dpkg"], long: &["pre-invoke", "post-invoke", "admindir", "root", "instdir"], ..NONE },
    Danger { names: &["rpm"], short: "ED", long: &["eval", "define", "pipe", "load", "macros"], ..NONE },
    Danger { names: &["tcpdump"], short: "z", ..NONE },
    Danger { names: &["ip"], short: "b", long: &["batch"], words: &["e", "ex", "exe", "exec"], ..NONE },
    Danger {
        names: &["make", "gmake"],
        short: "E",
        long: &["eval"],
        words: &[
            "SHELL=",
            ".SHELLFLAGS=",
            "MAKEFLAGS=",
            // Its instructions come in.
            "-",
            "-f-",
            "--file=-",
            "--makefile=-",
            "/dev/stdin",
        ],
        ..NONE
    },
    Danger { names: &["nc", "ncat", "netcat"], short: "ec", long: &["exec", "sh-exec", "lua-exec"], ..NONE },
    Danger { names: &["openssl"], words: &["-engine", "-provider", "-provider-path"], ..NONE },
    Danger { names: &["journalctl", "systemctl", "loginctl"], words: &["edit", "-H", "--host"], ..NONE },
    Danger { names: &["curl"], short: "K", long: &["config"], ..NONE },
    Danger { names: &["gcc", "cc", "g++", "c++", "clang"], words: &["-wrapper"], ..NONE },
    Danger { names: &["install"], long: &["strip-program"], ..NONE },
    Danger {
        names: &["svn"],
        long: &["config-option", "diff-cmd", "diff3-cmd", "editor-cmd", "config-dir"],
        ..NONE
    },
    Danger { names: &["hg"], long: &["config", "config-file"], words: &["serve"], ..NONE },
    Danger { names: &["nmap"], long: &["script", "interactive", "datadir"], short: "A", ..NONE },
];

/// What interprets a script that it is given by name, and otherwise what it reads; and the letters in front of the name that run
/// nothing else.
const INTERPRETERS: &[(&str, &str)] = &[
    ("python", "BEIOPSbdqsuvVh"),
    ("python2", "BEOSbdqsuvVh"),
    ("python3", "BEIOPSbdqsuvVh"),
    ("pypy3", "BEIOSbdqsuvVh"),
    ("perl", "wWTtvh"),
    ("ruby", "wvh"),
    ("node", "vh"),
    ("nodejs", "vh"),
    ("php", "nqvh"),
];

/// Programs that show their output by a pager where it goes to a terminal, or ask there and offer a shell; and the words that keep them
/// from it.
const PAGED: &[(&[&str], &[&str])] = &[
    (
        &[
            "journalctl",
            "systemctl",
            "loginctl",
            "timedatectl",
            "hostnamectl",
            "localectl",
            "networkctl",
            "resolvectl",
            "coredumpctl",
            "bootctl",
            "systemd-analyze",
            "systemd-cgls",
            "userdbctl",
            "homectl",
        ],
        &["--no-pager"],
    ),
    (&["git"], &["--no-pager", "-P"]),
    (&["apt", "apt-get", "aptitude", "dpkg", "dpkg-reconfigure", "dmesg", "bat", "hg", "aws", "gh"], &[]),
];

/// Marks what runs unseen.
pub(super) fn check(to: &mut Collector, name: &str, arguments: &[Word]) {
    if to.terminal
        && let Some((_, without)) = PAGED.iter().find(|of| of.0.contains(&name))
        && !arguments.iter().any(|word| word.value().is_some_and(|text| without.contains(&text)))
    {
        to.opaque(format!("{name} may show a pager on a terminal, which runs what is typed"));
    }
    match name {
        "git" => return git(to, arguments),
        "awk" | "gawk" | "mawk" | "nawk" | "original-awk" => return awk(to, name, arguments),
        "sed" | "gsed" => return sed(to, arguments),
        _ => {}
    }
    if let Some((_, letters)) = INTERPRETERS.iter().find(|of| of.0 == name) {
        return interpreter(to, name, letters, arguments);
    }
    if name == "crontab" && !matches!(arguments, [only] if matches!(only.value(), Some("-l" | "-r"))) {
        return to.opaque("crontab has commands run later that are not seen");
    }
    let remote = |word: &Word| word.text.split_once(':').is_some_and(|(host, _)| !host.contains('/'));
    if matches!(name, "tar" | "gtar" | "cpio") && arguments.iter().any(remote) {
        to.opaque(format!("{name} goes to another host for an archive with a colon in its name"));
    }
    let Some(danger) = DANGERS.iter().find(|danger| danger.names.contains(&name)) else { return };
    for (at, word) in arguments.iter().enumerate() {
        let Some(text) = word.value() else {
            if !certainly_no_option(word) {
                to.opaque(format!("{} may be an option of {name} that runs commands", word.text));
            }
            continue;
        };
        if text == "--" {
            break;
        }
        if danger.is(text, at == 0) {
            to.opaque(format!("{text} of {name} can run commands"));
        }
    }
}

/// Options, then the name of a script, which is for rules to name; what stands behind it is the script's.
fn interpreter(to: &mut Collector, name: &str, letters: &str, arguments: &[Word]) {
    let mut words = arguments.iter();
    let mut asked = false;
    while let Some(word) = words.next() {
        let script = match word.value() {
            Some("--version" | "--help") => {
                asked = true;
                continue;
            }
            Some("--") => words.next(),
            Some(text) if text.starts_with('-') && text.len() > 1 => {
                if !text.chars().skip(1).all(|letter| letters.contains(letter)) {
                    return to.opaque(format!("{text} of {name} can run code that is not seen"));
                }
                asked |= matches!(text, "-V" | "-v" | "-h");
                continue;
            }
            Some(_) => Some(word),
            None if certainly_no_option(word) => Some(word),
            None => return to.opaque(format!("{} may be an option of {name} that runs code", word.text)),
        };
        return match script {
            Some(script) if !script.value().is_some_and(is_input) => {}
            _ => to.opaque(format!("{name} reads its code from its input")),
        };
    }
    if !asked {
        to.opaque(format!("{name} reads its code from its input"));
    }
}

impl Danger {
    fn is(&self, text: &str, first: bool) -> bool {
        if self.words.iter().any(|word| text == *word || (word.ends_with('=') && text.starts_with(word))) {
            return true;
        }
        if let Some(long) = text.strip_prefix("--") {
            let name = long.split_once('=').map_or(long, |(name, _)| name);
            return self.long.iter().any(|known| !name.is_empty() && known.starts_with(name));
        }
        match text.strip_prefix('-') {
            Some(letters) => letters.contains(|c| self.short.contains(c)),
            None => self.bundle && first && text.contains(|c| self.short.contains(c)),
        }
    }
}

/// git(1) 2.39: options before the command, and those of commands that name programs.
fn git(to: &mut Collector, arguments: &[Word]) {
    /// Keys whose value starts nothing.
    const KEYS: &[&str] = &[
        "advice.",
        "color.",
        "commit.gpgsign=false",
        "core.abbrev=",
        "core.autocrlf=",
        "core.filemode=",
        "core.longpaths=",
        "core.quotepath=",
        "fetch.prune=",
        "fetch.parallel=",
        "gc.auto=",
        "http.extraheader=",
        "http.postbuffer=",
        "http.sslverify=",
        "init.defaultbranch=",
        "log.showsignature=",
        "pack.threads=",
        "protocol.version=",
        "pull.ff=",
        "pull.rebase=",
        "push.default=",
        "safe.directory=",
        "tag.gpgsign=false",
        "user.email=",
        "user.name=",
    ];
    const LONG: &[&str] = &[
        "upload-pack",
        "receive-pack",
        "exec",
        "exec-path",
        "config",
        "config-env",
        "open-files-in-pager",
        "extcmd",
        "ext-diff",
        "textconv",
        "gpg-sign",
        "signed",
        "tree-filter",
        "env-filter",
        "index-filter",
        "msg-filter",
        "parent-filter",
        "commit-filter",
        "tag-name-filter",
        "interactive",
        "editor",
        "tool",
        "to-command",
        "template",
        "git-dir",
        "work-tree",
        "separate-git-dir",
        "strategy",
        "namespace",
        "remote",
    ];
    const COMMANDS: &[&str] = &[
        "bisect",
        "config",
        "difftool",
        "filter-branch",
        "hook",
        "mergetool",
        "instaweb",
        "daemon",
        "shell",
        "send-email",
        "svn",
        "p4",
        "cvsimport",
        "credential",
        "remote-ext",
        "remote-fd",
        "web--browse",
        "gui",
        "citool",
        "help",
        "maintenance",
        "for-each-repo",
        "fast-import",
    ];
    let mut words = arguments.iter();
    let command = loop {
        let Some(word) = words.next() else { return };
        let Some(text) = word.value() else {
            return to.opaque("a word of git that is not literal, where an option may stand");
        };
        match text {
            "-c" => {
                let setting = words.next().and_then(Word::value).unwrap_or_default().to_ascii_lowercase();
                if !KEYS.iter().any(|key| setting.starts_with(key)) {
                    to.opaque(format!("git -c {setting} may run commands"));
                }
            }
            "-C" => {
                if words.next().is_none_or(|folder| folder.value().is_none()) {
                    to.opaque("git -C of a folder that is not literal");
                }
            }
            "--no-pager"
            | "-P"
            | "--version"
            | "--help"
            | "--bare"
            | "--no-replace-objects"
            | "--literal-pathspecs"
            | "--no-optional-locks"
            | "--html-path"
            | "--man-path" => {}
            option if option.starts_with('-') => {
                return to.opaque(format!("{option} of git may change what it runs"));
            }
            command => break command,
        }
    };
    if COMMANDS.contains(&command) {
        to.opaque(format!("git {command} can run commands"));
    }
    let mut after_dashes = false;
    for word in words {
        match word.value() {
            Some("--") => after_dashes = true,
            Some("foreach") if command == "submodule" => to.opaque("git submodule foreach runs commands"),
            // ext:: and its like are transports that run what they name.
            Some(text) if text.contains("::") => to.opaque(format!("{text} may name a program")),
            Some(_) if after_dashes => {}
            Some(text) if text.starts_with("--") => {
                let name = text.trim_start_matches('-');
                let name = name.split_once('=').map_or(name, |(name, _)| name);
                if LONG.iter().any(|known| known.starts_with(name)) {
                    to.opaque(format!("{text} of git {command} can run commands"));
                }
            }
            Some(text) if text.starts_with('-') => {
                let letters: &str = match command {
                    "clone" => "ucC",
                    "grep" => "O",
                    "commit" | "tag" => "S",
                    "ls-remote" | "archive" => "",
                    "rebase" => "xi",
                    _ => "",
                };
                if text.contains(|c| letters.contains(c)) {
                    to.opaque(format!("{text} of git {command} can run commands"));
                }
            }
            Some(_) => {}
            None if after_dashes || certainly_no_option(word) => {}
            None => to.opaque(format!("{} may be an option of git that runs commands", word.text)),
        }
    }
}

/// POSIX awk, gawk 5.2: a program may start others and open files.
fn awk(to: &mut Collector, name: &str, arguments: &[Word]) {
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.value() {
            Some("-F" | "-v" | "--field-separator" | "--assign") => {
                if !is_one(words.next()) {
                    return to.opaque(format!("options of {name} that are not literal"));
                }
            }
            Some("--") => {
                program_of_awk(to, name, words.next());
                return;
            }
            Some(text) if text.starts_with("-F") || text.starts_with("-v") => {}
            Some("-f") => {
                // A script is named: rules name it.
                if words.next().is_none_or(|script| script.value().is_some_and(is_input)) {
                    to.opaque(format!("{name} reads its program from its input"));
                }
                return;
            }
            Some(option) if option.starts_with('-') && option.len() > 1 => {
                return to.opaque(format!("{option} of {name} is not understood"));
            }
            _ => return program_of_awk(to, name, Some(word)),
        }
    }
}

fn program_of_awk(to: &mut Collector, name: &str, program: Option<&Word>) {
    const ACTS: &[&str] = &["system", "getline", "|", ">", "@", "close", "fflush", "printf >", "extension"];
    match program.map(Word::value) {
        Some(Some(text)) if ACTS.iter().any(|act| text.contains(act)) => {
            to.opaque(format!("the program of {name} may run commands or open files"));
        }
        Some(Some(_)) => {}
        _ => to.opaque(format!("the program of {name} is not literal")),
    }
}

/// POSIX sed, GNU sed 4.9: scripts that only match, print, delete and substitute.
fn sed(to: &mut Collector, arguments: &[Word]) {
    let mut words = arguments.iter();
    let mut scripts: Vec<Option<&str>> = Vec::new();
    let mut first: Option<&Word> = None;
    let mut named = false;
    while let Some(word) = words.next() {
        match word.value() {
            Some("-e" | "--expression") => scripts.push(words.next().and_then(Word::value)),
            Some("-f" | "--file") => {
                // A script is named: rules name it.
                let script = words.next();
                if !is_one(script) || script.and_then(Word::value).is_some_and(is_input) {
                    return to.opaque("options of sed that are not literal, or a script that comes in");
                }
                named = true;
            }
            Some(
                "-n" | "-E" | "-r" | "-s" | "-u" | "-z" | "-i" | "--quiet" | "--silent" | "--regexp-extended"
                | "--separate" | "--unbuffered" | "--null-data" | "--in-place" | "--posix" | "--debug"
                | "-nE" | "-En" | "-nr" | "-rn" | "-ni" | "-Ei" | "-iE" | "-ri" | "--sandbox",
            ) => {}
            Some(text) if text.starts_with("-i") || text.starts_with("--in-place=") => {}
            Some(text) if text.starts_with("--expression=") => {
                scripts.push(text.split_once('=').map(|(_, s)| s))
            }
            Some("--") => {
                first = first.or(words.next());
                break;
            }
            Some(option) if option.starts_with('-') && option.len() > 1 => {
                return to.opaque(format!("{option} of sed is not understood"));
            }
            None if !certainly_no_option(word) && first.is_none() => {
                return to.opaque("a word of sed that is not literal, where an option may stand");
            }
            None if !certainly_no_option(word) => to.opaque("a word that sed may take for an option"),
            // GNU sed takes options anywhere.
            _ => first = first.or(Some(word)),
        }
    }
    if scripts.is_empty() && !named {
        scripts.push(first.and_then(Word::value));
    }
    for script in scripts {
        if !script.is_some_and(|script| script.split(['\n', ';']).all(is_plain_sed)) {
            to.opaque("a script of sed that may run commands or open files");
        }
    }
}

/// One command of sed: an address, and one of `p d q = s y` and their like, without flags that run or write.
fn is_plain_sed(command: &str) -> bool {
    let rest = after_addresses(command.trim());
    let mut chars = rest.chars();
    match chars.next() {
        None | Some('#') => true,
        Some('p' | 'd' | 'D' | 'P' | 'q' | 'Q' | '=' | 'n' | 'N' | 'h' | 'H' | 'g' | 'G' | 'x') => {
            chars.as_str().trim().chars().all(|c| c.is_ascii_digit())
        }
        Some('s' | 'y') => {
            let Some(mark) =
                chars.next().filter(|c| !c.is_alphanumeric() && *c != '\\' && !c.is_whitespace())
            else {
                return false;
            };
            let mut left = 2;
            while left > 0 {
                match chars.next() {
                    None => return false,
                    Some('\\') => {
                        chars.next();
                    }
                    Some(c) if c == mark => left -= 1,
                    Some(_) => {}
                }
            }
            chars.as_str().trim().chars().all(|c| "gpiI0123456789".contains(c))
        }
        _ => false,
    }
}

fn after_addresses(command: &str) -> &str {
    let mut rest = command;
    loop {
        rest = rest.trim_start();
        let mut chars = rest.chars();
        rest = match chars.next() {
            Some(c) if c.is_ascii_digit() || "$,!~+".contains(c) => chars.as_str(),
            Some('/') => {
                let mut escaped = false;
                let end = chars.as_str().char_indices().find(|(_, c)| {
                    let here = *c == '/' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    here
                });
                match end.and_then(|(at, _)| chars.as_str().get(at + 1..)) {
                    Some(rest) => rest,
                    None => return "?",
                }
            }
            _ => return rest,
        };
    }
}
