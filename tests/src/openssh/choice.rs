//! Which of the scripts are run, and why the others are not.

use std::{collections::BTreeSet, fs};

use anyhow::{Result, ensure};

const FOLDER: &str = "/usr/lib/openssh/regress";

/// What a client does with a server, whatever lies between.
const CHOSEN: &[&str] = &[
    "connect",
    "connect-uri",
    "exit-status",
    "exit-status-signal",
    "envpass",
    "transfer",
    "banner",
    "stderr-data",
    "stderr-after-eof",
    "broken-pipe",
    "yes-head",
    "try-ciphers",
    "kextype",
    "rekey",
    "scp",
    "scp3",
    "scp-uri",
    "sftp",
    "sftp-cmds",
    "sftp-badcmds",
    "sftp-batch",
    "sftp-glob",
    "sftp-uri",
    "multiplex",
    "forwarding",
    "dynamic-forward",
    "forward-control",
    "key-options",
    "channel-timeout",
    "connection-timeout",
    "keyscan",
    "localcommand",
    "host-expand",
    "reexec",
];

/// Scripts that say nothing about what lies between client and server.
pub const LEFT_OUT: &[(&str, &[&str])] = &[
    (
        "tools for keys and signatures, without a connection",
        &[
            "keygen-change",
            "keygen-comment",
            "keygen-convert",
            "keygen-knownhosts",
            "keygen-moduli",
            "keygen-sshfp",
            "krl",
            "sshsig",
            "ssh2putty",
        ],
    ),
    (
        "what a client or server reads of its configuration, without a connection",
        &[
            "cfgparse",
            "sshcfgparse",
            "cfginclude",
            "servcfginclude",
            "addrmatch",
            "percent",
            "portnum",
            "cfgmatchlisten",
        ],
    ),
    (
        "agents, which the gateway never forwards",
        &[
            "agent",
            "agent-getpeereid",
            "agent-pkcs11",
            "agent-ptrace",
            "agent-restrict",
            "agent-subprocess",
            "agent-timeout",
            "hostkey-agent",
        ],
    ),
    (
        "by which key or certificate a client logs in: the gateway takes any, and logs in with its own",
        &[
            "allow-deny-users",
            "authinfo",
            "brokenkeys",
            "cert-file",
            "cert-userkey",
            "forcecommand",
            "hostbased",
            "keys-command",
            "keytype",
            "limit-keytype",
            "multipubkey",
            "principals-command",
        ],
    ),
    (
        "how a client knows the server's own key: the gateway shows its own",
        &["cert-hostkey", "hostkey-rotate", "knownhosts", "knownhosts-command", "sshfp-connect"],
    ),
    (
        "bytes of the server's own connection, which ends at the gateway",
        &["integrity", "proto-mismatch", "proto-version", "proxy-connect", "dhgex"],
    ),
    (
        "how a server starts, sets itself up and waits for logins",
        // The last kills by its process id what runs on the server.
        &["connect-privsep", "login-timeout", "reconfigure", "sftp-chroot", "sftp-perm", "cfgmatch"],
    ),
    (
        "PuTTY: directly too, the suite refuses its server's configuration before it connects",
        &["putty-transfer", "putty-ciphers", "putty-kex"],
    ),
    (
        "programs that Debian does not have, or measurements",
        &["conch-ciphers", "ssh-com", "ssh-com-client", "ssh-com-keygen", "ssh-com-sftp", "cipher-speed"],
    ),
];

/// Parts of the suite that are no tests.
const PARTS: &[&str] = &["test-exec", "scp-ssh-wrapper", "sshd-log-wrapper", "valgrind-unit"];

/// The scripts to run.
///
/// # Errors
/// When the suite is not installed, or has scripts of which nothing is said here.
pub fn chosen() -> Result<Vec<&'static str>> {
    let known: BTreeSet<&str> = CHOSEN
        .iter()
        .chain(LEFT_OUT.iter().flat_map(|(_, scripts)| *scripts))
        .chain(PARTS)
        .copied()
        .collect();
    let mut unknown = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(script) = name.strip_suffix(".sh")
            && !known.contains(script)
        {
            unknown.push(script.to_owned());
        }
    }
    ensure!(unknown.is_empty(), "new scripts, neither chosen nor left out: {}", unknown.join(", "));
    Ok(CHOSEN.to_vec())
}
