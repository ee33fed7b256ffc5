//! The language's part for SSH, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{FileOperation, Route};
use crate::raw::RawSecret;

/// What may be asked of SSH hosts.
///
/// An allow rule grants these; a command line is allowed when allow rules together cover every program in it, every file that its
/// redirections open and every variable that it sets. A deny or approve rule applies as soon as one part could be what it names.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSsh {
    /// Only for these login names, with wildcards. Default: all that the resource has.
    pub(crate) users: Option<Vec<String>>,
    /// Programs that a command line may start.
    pub(crate) commands: Vec<RawCommand>,
    /// A login shell. What is typed into it is not seen as commands: grant it by an approve rule.
    pub(crate) shell: bool,
    /// A terminal.
    pub(crate) pty: bool,
    /// Environment variables that may be set, by the client or in front of a command, with wildcards.
    pub(crate) env: Vec<String>,
    /// Subsystems other than sftp, which `files` grants.
    pub(crate) subsystems: Vec<String>,
    /// Files, by SFTP, scp, redirections, rsync and git.
    pub(crate) files: Vec<RawFiles>,
    /// Tunnels. Nothing of them is granted unless it is named.
    pub(crate) forward: RawForward,
    /// Signals, for deny rules: whoever may run something may end it.
    pub(crate) signals: Vec<String>,
    /// Command lines that cannot be read, or that start programs which cannot be seen.
    pub(crate) opaque: bool,
    /// A copy is kept of what is written by SFTP or scp under this rule.
    pub(crate) quarantine: bool,
    /// Bounds. Of several rules that grant something the strictest count.
    pub(crate) limits: RawSshLimits,
}

/// A program, and what it may be given.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCommand {
    /// `git`: by that name, or in one of the folders that programs are in. `/opt/app/bin/*`: by its path.
    pub(crate) program: String,
    /// One entry a word: text with wildcards, a path with `**`; `*` is any one word that is no option, `**` any words whatever,
    /// and `…...` an entry any number of times. Deny rules: any when missing.
    pub(crate) arguments: Option<Vec<String>>,
    /// Run through these: `sudo`, `su`, `doas`, `chroot`, `ssh`. Default: through none; for deny rules through any.
    #[serde(default)]
    pub(crate) via: Vec<String>,
    /// The folder that it runs in.
    pub(crate) folder: Option<String>,
}

/// Files and what may be done to them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFiles {
    pub(crate) operations: Vec<FileOperation>,
    /// Absolute, or below `~`. `*` and `?` within a name, `**` for any names; `/srv/**` is `/srv` and everything below.
    pub(crate) paths: Vec<String>,
    /// Default: sftp, scp and exec (redirections); for deny rules all.
    pub(crate) by: Option<Vec<Route>>,
}

/// Tunnels.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawForward {
    /// `host:port` that the host may connect to (direct-tcpip); `*` for any host or port.
    pub(crate) to: Vec<String>,
    /// Unix sockets of the host (direct-streamlocal).
    pub(crate) sockets: Vec<String>,
    /// `address:port` on which the host may listen (tcpip-forward).
    pub(crate) listen: Vec<String>,
    /// Unix sockets that may be made there (streamlocal-forward).
    pub(crate) listen_sockets: Vec<String>,
    /// The job's ssh-agent, for deny rules: it is never lent to a host.
    pub(crate) agent: bool,
    pub(crate) x11: bool,
}

/// Bounds on connections and channels.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSshLimits {
    /// Without a byte in either direction, as `10m`.
    pub(crate) idle: Option<String>,
    /// From being allowed until the end, as `1h`.
    pub(crate) duration: Option<String>,
    /// Bytes in both directions together.
    pub(crate) bytes: Option<u64>,
    /// Channels open at once; in a rule with `connect: true`.
    pub(crate) channels: Option<u32>,
    /// Commands, shells and subsystems that the rule grants, in any 60 seconds.
    pub(crate) per_minute: Option<u32>,
}

/// A short-lived user certificate, from an authority of the gateway's own or from Vault's: exactly one of `authority` and `vault`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawUserCertificate {
    /// The authority's private key, in OpenSSH's format.
    pub(crate) authority: Option<RawSecret>,
    /// Vault's SSH secrets engine signs.
    pub(crate) vault: Option<RawVault>,
    /// Default: the name that is logged in as.
    #[serde(default)]
    pub(crate) principals: Vec<String>,
    /// From being signed, `5m` by default, at most `24h`.
    pub(crate) valid_for: Option<String>,
    /// Networks that the host accepts it from.
    #[serde(default)]
    pub(crate) source_address: Vec<String>,
    /// The only command that the host runs for it.
    pub(crate) force_command: Option<String>,
}

/// Where Vault's SSH secrets engine is, and how the gateway logs in to it: exactly one of `token` and `jwt`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawVault {
    /// `https://host:port`.
    pub(crate) address: String,
    /// Absolute path of PEM certificates to trust instead of the host's own.
    pub(crate) ca: Option<String>,
    pub(crate) namespace: Option<String>,
    /// Where the engine is mounted. Default: `ssh`.
    pub(crate) mount: Option<String>,
    /// The engine's role.
    pub(crate) role: String,
    pub(crate) token: Option<RawSecret>,
    /// The gateway's own JWT, for `auth/jwt`.
    pub(crate) jwt: Option<RawVaultJwt>,
    /// Name job, subject and session in the certificate, which the host logs; the role needs `allow_user_key_ids`.
    #[serde(default)]
    pub(crate) key_id: bool,
}

/// A login by JWT.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawVaultJwt {
    pub(crate) role: String,
    /// Where the method is mounted below `auth/`. Default: `jwt`.
    pub(crate) mount: Option<String>,
    pub(crate) token: RawSecret,
}

/// Login names that jobs ask for, and whom the gateway logs in as then.
pub(crate) type RawUsers = BTreeMap<String, String>;
