//! What a job asks of an HTTP host, in terms a rule can name.

use serde::Serialize;

/// Anything asked of an HTTP host. Serialises as `{"action": "http", "request": "request", "method": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are requests")]
pub enum Http {
    Request(HttpRequest),
    /// To let TLS through without ending it: nothing of what is said then is seen.
    PassThrough(PassThrough),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpRequest {
    /// As sent, upper case: `GET`.
    pub method: String,
    pub scheme: Scheme,
    /// Name or address, lower case, without the last dot and without brackets.
    pub host: String,
    pub port: u16,
    pub path: HttpPath,
    /// Parameters, decoded (`+` is a space), in their order.
    pub query: Vec<(String, String)>,
    /// The query as sent, without its question mark; what is relayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_query: Option<String>,
    /// Names of the header fields, lower case, sorted, each once.
    pub headers: Vec<String>,
    /// What the connection is to become, lower case: `websocket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
}

impl HttpRequest {
    /// On one line, for people, recordings and approvals: `GET https://host/path?query`.
    pub fn line(&self) -> String {
        let Self { method, scheme, path, .. } = self;
        let mut line = format!("{method} {}://{}{}", scheme.name(), self.authority(), path.raw);
        if let Some(query) = &self.raw_query {
            line.push('?');
            line.push_str(query);
        }
        if let Some(upgrade) = &self.upgrade {
            line.push_str(" (upgrade to ");
            line.push_str(upgrade);
            line.push(')');
        }
        line
    }

    /// Host, and port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let Self { host, port, scheme, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if *port == scheme.port() { host } else { format!("{host}:{port}") }
    }
}

/// TLS that would be let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassThrough {
    /// The name in the ClientHello.
    pub host: String,
    pub port: u16,
}

/// With TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Its own port.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The path of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HttpPath {
    /// As sent; what is relayed.
    pub raw: String,
    /// Between slashes, decoded once. A slash at the end makes no segment.
    pub segments: Vec<String>,
    /// Why servers may read it differently; empty = they do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ambiguous: Vec<Ambiguity>,
    /// What else the segments could be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<Vec<String>>,
}

/// Why a path means different things to different servers.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Ambiguity {
    /// `%2F`: one segment, or two.
    EncodedSlash,
    /// `.` or `..`, encoded or not: followed, or taken for a name.
    DotSegment,
    /// `%25` and two digits: decoded once more, or not.
    DoubleEncoding,
    /// `\` or `%5C`: a slash on some systems.
    Backslash,
    /// `//`: dropped, or kept.
    EmptySegment,
    /// `;`: cut off with what follows, or kept.
    Parameter,
    /// A byte below 0x20 or 0x7f.
    Control,
    /// Encoded bytes that are no UTF-8.
    NotUtf8,
}

impl Ambiguity {
    pub const ALL: [Self; 8] = [
        Self::EncodedSlash,
        Self::DotSegment,
        Self::DoubleEncoding,
        Self::Backslash,
        Self::EmptySegment,
        Self::Parameter,
        Self::Control,
        Self::NotUtf8,
    ];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::EncodedSlash => "encoded_slash",
            Self::DotSegment => "dot_segment",
            Self::DoubleEncoding => "double_encoding",
            Self::Backslash => "backslash",
            Self::EmptySegment => "empty_segment",
            Self::Parameter => "parameter",
            Self::Control => "control",
            Self::NotUtf8 => "not_utf8",
        }
    }
}
