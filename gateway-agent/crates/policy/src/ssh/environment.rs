//! Environment variables: which of them a rule can let go of, and how.

use super::Assignment;
use crate::pattern::Glob;

/// What command lines are read by: no rule can let go of them.
pub(crate) const FIXED: &[&str] = &[
    "BASHOPTS",
    "BASH_ENV",
    "CDPATH",
    "ENV",
    "HOME",
    "PATH",
    "PROMPT_COMMAND",
    "PS4",
    "SHELLOPTS",
    "ZDOTDIR",
];

/// What makes programs run or load something else, or what shells compute with: granted only by its full name.
const SHARP: &[&str] = &[
    "AWKPATH",
    "BAUD",
    "COLUMNS",
    "DIRSTACKSIZE",
    "EDITOR",
    "EGID",
    "ERRNO",
    "EUID",
    "FUNCNEST",
    "GCONV_PATH",
    "GID",
    "GUILE_LOAD_PATH",
    "HISTCMD",
    "HISTSIZE",
    "HOSTALIASES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "KEYTIMEOUT",
    "LESSCLOSE",
    "LESSOPEN",
    "LINENO",
    "LINES",
    "LISTMAX",
    "LOCPATH",
    "LOGCHECK",
    "LUA_INIT",
    "LUA_PATH",
    "MAIL",
    "MAILCHECK",
    "MAKEFILES",
    "MAKEFLAGS",
    "MANPAGER",
    "NLSPATH",
    "OPTIND",
    "PAGER",
    "PPID",
    "RANDOM",
    "RES_OPTIONS",
    "SAVEHIST",
    "SECONDS",
    "SHELL",
    "SHLVL",
    "SRANDOM",
    "SUDO_ASKPASS",
    "SUDO_EDITOR",
    "SYSTEMD_EDITOR",
    "TAR_OPTIONS",
    "TERMCAP",
    "TERMINFO",
    "TERMINFO_DIRS",
    "TMOUT",
    "TMPDIR",
    "TRY_BLOCK_ERROR",
    "UID",
    "VISUAL",
    "ZIPOPT",
    "_JAVA_OPTIONS",
];
const SHARP_BEGINNINGS: &[&str] = &[
    "BASH_", "DYLD_", "GIT_", "GEM_", "LD_", "LUA_", "MALLOC_", "NODE_", "NPM_", "PERL", "PHP", "PIP_",
    "PYTHON", "RSYNC_", "RUBY", "SSH_", "SUDO_", "npm_",
];

/// Names that shells give a meaning of their own, although they are lower case.
const OF_SHELLS: &[&str] = &[
    "argv",
    "cdpath",
    "cwd",
    "fignore",
    "fpath",
    "histchars",
    "home",
    "mailpath",
    "manpath",
    "module_path",
    "path",
    "precmd",
    "preexec",
    "prompt",
    "psvar",
    "shell",
    "status",
    "term",
    "user",
    "watch",
];

pub(crate) fn is_fixed(name: &str) -> bool {
    FIXED.contains(&name) || name.starts_with("BASH_FUNC_")
}

/// As a grant: wildcards do not reach what is sharp, and nothing reaches what is fixed.
pub(crate) fn grants(glob: &Glob, name: &str) -> bool {
    let sharp = SHARP.contains(&name)
        || name.to_ascii_lowercase().ends_with("_proxy")
        || SHARP_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    !is_fixed(name) && (!sharp || glob.is_exact()) && glob.matches(name)
}

/// A variable of the shell's own: it reaches no program unless it is there already, and lower-case ones are not.
pub(crate) fn is_own(set: &Assignment) -> bool {
    let name = set.name.as_str();
    // It splits what is expanded, and what is expanded is unknown anyway.
    if name == "IFS" {
        return true;
    }
    let lower =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    lower
        && !set.exported
        && !OF_SHELLS.contains(&name)
        && !name.ends_with("_proxy")
        && !name.starts_with("npm_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::Word;

    #[test]
    fn wildcards_do_not_reach_what_is_sharp() {
        let glob = |text: &str| Glob::new(text).unwrap_or_else(|_| panic!("{text}"));
        assert!(grants(&glob("LC_*"), "LC_ALL") && grants(&glob("*"), "DEPLOY_ENV"));
        assert!(!grants(&glob("*"), "LD_PRELOAD") && grants(&glob("LD_PRELOAD"), "LD_PRELOAD"));
        assert!(!grants(&glob("*"), "https_proxy") && !grants(&glob("GIT_*"), "GIT_SSH_COMMAND"));
        for fixed in ["PATH", "HOME", "BASH_FUNC_ls%%"] {
            assert!(!grants(&glob("*"), fixed) && !grants(&Glob::exact(fixed.into()), fixed), "{fixed}");
        }
    }

    #[test]
    fn variables_of_the_shell() {
        let set =
            |name: &str, exported| Assignment { name: name.into(), value: Word::literal("x"), exported };
        assert!(is_own(&set("i", false)) && is_own(&set("IFS", true)));
        for (name, exported) in
            [("i", true), ("PATH", false), ("path", false), ("X", false), ("http_proxy", false)]
        {
            assert!(!is_own(&set(name, exported)), "{name}");
        }
    }
}
