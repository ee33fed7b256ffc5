//! What a recording holds.
//!
//! Events borrow from whoever records them, so that recording a statement allocates nothing.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq};

/// Who, what and when: the first frame of every recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Names the session everywhere: audit, logs, file name.
    pub session: String,
    /// Nanoseconds since 1970; all other times count from here.
    pub started_unix_ns: u64,
    pub subject: String,
    pub job: String,
    pub resource: String,
    /// `postgres`, …
    pub protocol: String,
    /// The process that opened the connection, as seen at that moment.
    pub process: Process,
    /// Where the process meant to connect to, before redirection.
    pub destination: String,
    /// Database and user that the client asked for.
    pub database: Option<String>,
    pub user: Option<String>,
    /// Policy in force at the start.
    pub policy: String,
    /// Version of the recording agent and the host it ran on.
    pub agent: String,
    pub host: String,
    /// Whatever else a protocol wants to say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// A process. Never used to identify anybody; only shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    pub uid: u32,
    pub command: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A statement was decided.
    Statement {
        /// Counts statements of the session; other events refer to it.
        n: u64,
        sql: Cow<'a, str>,
        params: Params<'a>,
        verdict: Verdict,
        rules: List<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        approval: Option<Cow<'a, str>>,
    },
    /// A statement ended.
    Finished {
        n: u64,
        /// What the server said it did, or empty.
        tag: Cow<'a, str>,
        rows: u64,
        /// Bytes of result sent to the job.
        bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        sqlstate: Option<Cow<'a, str>>,
        micros: u64,
        /// Cells replaced by masks.
        masked: u64,
    },
    /// The columns of a result.
    Columns { n: u64, names: List<'a> },
    /// A run of result rows as the job saw them, masked, in the text format of [`crate::text`].
    Rows {
        n: u64,
        #[serde(serialize_with = "text_or_hex")]
        data: Cow<'a, [u8]>,
    },
    /// A statement waited for a human: `asked`, `approved`, `denied`, `expired`.
    Approval { n: u64, id: Cow<'a, str>, outcome: Cow<'a, str>, by: List<'a> },
    /// Words to the client that no statement asked for.
    Notice { text: Cow<'a, str> },
    /// A channel of the session carries what statement `n` asked for from now on.
    Channel {
        n: u64,
        /// Counts channels of the session; other events refer to it.
        channel: u64,
        what: Cow<'a, str>,
    },
    /// A channel has a terminal, or it has another size.
    Terminal {
        channel: u64,
        columns: u64,
        rows: u64,
        /// The kind of terminal; empty when only the size is new.
        #[serde(skip_serializing_if = "str::is_empty")]
        term: Cow<'a, str>,
    },
    /// Bytes of a channel as the job saw or sent them; what the job was shown is masked here as it was there.
    Data {
        channel: u64,
        stream: Stream,
        #[serde(serialize_with = "text_or_hex")]
        data: Cow<'a, [u8]>,
    },
    /// An operation on files ended.
    File {
        channel: u64,
        /// The statement that asked for it.
        n: u64,
        operation: Cow<'a, str>,
        /// The file, and where it goes to if it is renamed or linked.
        paths: List<'a>,
        /// `ok`, or how it failed.
        outcome: Cow<'a, str>,
        /// Bytes of content that were read or written.
        bytes: u64,
        /// SHA-256 of the content, where it was read or written from its beginning to its end.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<Cow<'a, str>>,
    },
    /// Contents of a file of which a copy is kept.
    Contents {
        channel: u64,
        /// The statement that opened it.
        n: u64,
        /// It was written; otherwise read.
        write: bool,
        offset: u64,
        #[serde(serialize_with = "text_or_hex")]
        data: Cow<'a, [u8]>,
    },
    /// A channel is closed.
    ChannelClosed {
        channel: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u32>,
        /// The signal that ended the program, without `SIG`.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<Cow<'a, str>>,
    },
    /// The session ended.
    Closed { reason: Cow<'a, str> },
    /// Written by a later version of this format.
    Other { kind: u8 },
}

/// Where bytes of a channel went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// From the job.
    Input,
    /// To the job.
    Output,
    /// To the job, as standard error.
    Error,
}

/// How a statement was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    /// Allowed because a human agreed.
    Approved,
    Deny,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Approved => "approved",
            Verdict::Deny => "deny",
        }
    }
}

/// A list of names, borrowed from a decision or read back.
#[derive(Debug, Clone)]
pub enum List<'a> {
    Shared(&'a [Arc<str>]),
    Owned(Vec<String>),
}

impl List<'_> {
    pub fn none() -> Self {
        List::Shared(&[])
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (shared, owned): (&[Arc<str>], &[String]) = match self {
            List::Shared(names) => (names, &[]),
            List::Owned(names) => (&[], names),
        };
        shared.iter().map(AsRef::as_ref).chain(owned.iter().map(String::as_str))
    }
}

impl PartialEq for List<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

/// Parameters of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Params<'a> {
    None,
    /// There were as many, and policy keeps their values out of the recording.
    Hidden(u64),
    /// On the way in: whole values; what exceeds [`crate::limits::PARAM`] is cut when written.
    Shared(&'a [Option<&'a [u8]>]),
    /// Read back.
    Kept(Vec<Param>),
}

/// A parameter as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    Null,
    /// `total` is the length of the value, of which `data` is the beginning.
    Value {
        data: Vec<u8>,
        total: u64,
    },
}

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Hidden {
            hidden: u64,
        }
        #[derive(Serialize)]
        struct Cut<'a> {
            #[serde(serialize_with = "text_or_hex")]
            start: &'a [u8],
            total: u64,
        }
        struct Whole<'a>(&'a [u8]);
        impl Serialize for Whole<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                text_or_hex(self.0, to)
            }
        }
        match self {
            Params::None => to.serialize_seq(Some(0))?.end(),
            Params::Hidden(hidden) => Hidden { hidden: *hidden }.serialize(to),
            Params::Shared(values) => to.collect_seq(values.iter().map(|value| value.map(Whole))),
            Params::Kept(values) => {
                let mut list = to.serialize_seq(Some(values.len()))?;
                for value in values {
                    match value {
                        Param::Null => list.serialize_element(&())?,
                        Param::Value { data, total } if u64::try_from(data.len()) == Ok(*total) => {
                            list.serialize_element(&Whole(data))?;
                        }
                        Param::Value { data, total } => {
                            list.serialize_element(&Cut { start: data, total: *total })?;
                        }
                    }
                }
                list.end()
            }
        }
    }
}

/// Text as a JSON string, anything else as `{"hex": "…"}`.
fn text_or_hex<S: Serializer>(bytes: impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Hex {
        hex: String,
    }
    match std::str::from_utf8(bytes.as_ref()) {
        Ok(text) => to.serialize_str(text),
        Err(_) => Hex { hex: crate::text::hex(bytes.as_ref()) }.serialize(to),
    }
}
