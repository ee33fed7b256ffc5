//! Why an identity was refused. `code()` is a metric label: short, fixed, without input in it.

use std::path::PathBuf;

/// Why a token was refused. `Display` is shown to whoever presented it and never repeats the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the token is unsigned (alg none)")]
    Unsigned,
    #[error("the token's algorithm {0} is not accepted for this issuer")]
    Algorithm(String),
    #[error("issuer `{0}` is not allowed here")]
    Issuer(String),
    #[error("the token is for audience {found}, not `{wanted}`")]
    Audience { found: String, wanted: String },
    #[error("the token has no `{0}` claim")]
    Missing(&'static str),
    #[error("the token expired {0} s ago")]
    Expired(u64),
    #[error("the token is not valid for another {0} s")]
    NotYet(u64),
    #[error("the token's lifetime of {0} s is longer than this issuer's max_lifetime")]
    Lifetime(u64),
    #[error("the signature does not match the issuer's key")]
    Signature,
    #[error("the issuer has no usable key `{0}`")]
    UnknownKey(String),
    #[error("the token was used before; every enrolment needs a fresh one")]
    Replayed,
    #[error("the enrolment nonce is unknown, used, expired or another cgroup's; begin again")]
    Nonce,
    #[error("the issuer's keys cannot be had: {0}")]
    Keys(String),
    #[error("state cannot be written: {0}")]
    State(String),
}

impl TokenError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unsigned => "unsigned",
            Self::Algorithm(_) => "algorithm",
            Self::Issuer(_) => "wrong_issuer",
            Self::Audience { .. } => "wrong_audience",
            Self::Missing(_) => "missing_claim",
            Self::Expired(_) => "expired",
            Self::NotYet(_) => "not_yet_valid",
            Self::Lifetime(_) => "lifetime",
            Self::Signature => "bad_signature",
            Self::UnknownKey(_) => "unknown_key",
            Self::Replayed => "replayed",
            Self::Nonce => "nonce",
            Self::Keys(_) => "keys_unavailable",
            Self::State(_) => "state",
        }
    }

    /// Whether the same token may succeed later.
    pub fn retry(&self) -> bool {
        matches!(self, Self::NotYet(_) | Self::Keys(_) | Self::State(_))
    }
}

/// Why a process has no place in the cgroup tree that could be a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("the caller's process {0} is gone or not visible to the gateway")]
    Gone(i32),
    #[error("process {0} is in no cgroup of the v2 hierarchy")]
    NoCgroup(i32),
    #[error("cgroup {} cannot be read", .0.display())]
    Unreadable(PathBuf),
    #[error("cgroup {} is not below the attach root {}", cgroup.display(), root.display())]
    Outside { cgroup: PathBuf, root: PathBuf },
    #[error("cgroup {} is the gateway's own or holds it", .0.display())]
    Own(PathBuf),
    #[error("`{0}` is no container id; write at least 12 of its hexadecimal digits")]
    ContainerId(String),
    #[error(
        "no container below the attach root has an id that begins with {0}; is it running, in cgroup v2?"
    )]
    NoContainer(String),
    #[error("several containers have ids that begin with {0}; write more of it")]
    Ambiguous(String),
    #[error("{} holds too many cgroups to look for a container; name its cgroup", .0.display())]
    TooMany(PathBuf),
}

/// Why an enrolment was refused.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cgroup {} is already a job, or inside or around one; first bind wins", .0.display())]
    Bound(PathBuf),
    #[error("{reason}; {hint}")]
    Subject { reason: String, hint: String },
    #[error("too many enrolments are waiting for a token")]
    Busy,
    #[error("every user of jobs.uids ({0}) is in use by a job or a process; end jobs, or widen the range")]
    NoUid(String),
    #[error("the kernel did not take the job: {0}")]
    Kernel(String),
    #[error("state cannot be written: {0}")]
    State(String),
}

impl EnrolError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(e) => e.code(),
            Self::Place(_) => "place",
            Self::Bound(_) => "already_bound",
            Self::Subject { .. } => "no_subject",
            Self::Busy => "busy",
            Self::NoUid(_) => "no_uid",
            Self::Kernel(_) => "kernel",
            Self::State(_) => "state",
        }
    }
}
