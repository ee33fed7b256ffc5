//! Scripts that come out otherwise through the gateway, and why they must.

/// Script and reason.
const KNOWN: &[(&str, &str)] = &[
    ("banner", "the gateway logs in to the host itself: what a host says before that is not said to the job"),
    (
        "connection-timeout",
        "a host's timeout of unused connections ends the gateway's own connection to it; the job's is bounded by `limits`",
    ),
    (
        "key-options",
        "it fails directly too (`from=`: here the server sees an address); where the host no longer takes the gateway's login, the gateway says so",
    ),
    ("keyscan", "the gateway shows one host key, Ed25519, whatever types the host has"),
    (
        "multiplex",
        "a forward to a declared host ends at the gateway, which closes on what is no SSH without the words of OpenSSH's server",
    ),
    (
        "rekey",
        "the host's limits change the keys of the host's leg, where the client does not see it; those of the client's leg are the gateway's",
    ),
    ("sftp-cmds", "`cp` needs the extension copy-data, by which a host copies unseen: it is not offered"),
];

pub(super) fn reason(script: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(known, _)| *known == script).map(|(_, reason)| *reason)
}
