//! HTTP as far as it is pure: what a request asks for, which header fields pass, how bodies are decoded and masked.
//!
//! The transport (RFC 9112, RFC 9113) is hyper's; what it lets through is read here strictly, and written anew for the other leg.
//! Nothing of a message's framing is ever relayed.

pub mod body;
pub mod coding;
pub mod fields;
pub mod target;

/// Why a request is not looked at any further. Told to the client; nothing of it reaches the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("the method {0} is not relayed")]
    Method(String),
    #[error("the request target is not `/path`")]
    Form,
    #[error("the request target is longer than {0} bytes")]
    TargetLong(usize),
    #[error("the request target has a character that has to be encoded")]
    Character,
    #[error("`%` in the request target is not followed by two hexadecimal digits")]
    Escape,
    #[error("there has to be exactly one Host")]
    HostCount,
    #[error("Host and the request's authority disagree")]
    HostAuthority,
    #[error("Host is no host and port")]
    Host,
    #[error("Host is {host}, the connection is to {to}")]
    Misdirected { host: String, to: String },
    #[error("the header field {0} may not be there")]
    Field(String),
    #[error("the header field {0} may be there once")]
    Twice(&'static str),
    #[error("Content-Length and Transfer-Encoding together")]
    Framing,
    #[error("Transfer-Encoding is not `chunked`")]
    TransferEncoding,
    #[error("Content-Length is no number")]
    ContentLength,
    #[error("Expect is not `100-continue`")]
    Expect,
    #[error("HTTP/1.0 is not spoken here")]
    Version,
}

impl BadRequest {
    /// The status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Self::Method(_) => 405,
            Self::TargetLong(_) => 414,
            Self::Misdirected { .. } => 421,
            Self::Expect => 417,
            Self::Version => 505,
            _ => 400,
        }
    }
}
