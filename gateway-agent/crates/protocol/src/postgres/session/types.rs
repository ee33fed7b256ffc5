//! What goes into a session and what it asks.

use std::sync::Arc;

use super::Params;
use crate::postgres::{BackendKey, Decision, Origins};

/// Fixed for the session's life.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the job may cancel by. Not the server's own key.
    pub key: BackendKey,
    /// Answer SSLRequest with `S`. Otherwise `N`.
    pub job_tls: bool,
    /// Longest query text, in bytes. Longer ones get an error. 64 KiB by default.
    pub sql_max: usize,
    /// Longest message that has to be held as a whole: Bind, a row that is masked. 64 MiB by default.
    pub message_max: usize,
    /// Outputs above this many bytes stop the work that fills them. 256 KiB by default.
    pub high_water: usize,
    /// Messages sent upstream whose replies are outstanding. 4096 by default.
    pub pipeline_max: usize,
    /// Prepared statements plus portals that a client may hold. 8192 by default.
    pub names_max: usize,
    /// Bind parameters longer than this in sum are cut in events. 64 KiB by default.
    pub params_max: usize,
}

impl Settings {
    /// The defaults.
    pub fn new(key: BackendKey) -> Self {
        Self {
            key,
            job_tls: true,
            sql_max: 64 * 1024,
            message_max: 64 * 1024 * 1024,
            high_water: 256 * 1024,
            pipeline_max: 4096,
            names_max: 8192,
            params_max: 64 * 1024,
        }
    }
}

/// Who the client said it wants to be. Nothing in it is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    pub user: String,
    /// The user's name where the client gave none.
    pub database: String,
    /// Empty where the client gave none.
    pub application: String,
    /// Harmless settings from the startup packet, `options` included, that `login` passes on: `TimeZone`, ….
    pub settings: Vec<(String, String)>,
    /// Minor protocol version: 0 or 2.
    pub minor: u16,
    /// The leg is under TLS.
    pub tls: bool,
    /// It asks for replication: the parameter's value.
    pub replication: Option<String>,
}

/// How to log in upstream.
pub struct Login {
    pub user: String,
    /// Wiped when no longer needed.
    pub password: Option<zeroize::Zeroizing<Vec<u8>>>,
    pub database: String,
    /// Ask the server for TLS, and refuse one that says no.
    pub tls: bool,
    /// More settings for the startup packet, e.g. `search_path`. They win over the client's.
    pub settings: Vec<(String, String)>,
    /// The policy epoch to begin with.
    pub epoch: u64,
    /// Decisions will be open ones; the session takes no other kind, and pins no settings.
    pub open: bool,
    /// Its statements are the gateway's own, which may change what names are resolved by.
    pub own: bool,
    /// Names of columns, for masks by origin.
    pub origins: Arc<dyn Origins + Send + Sync>,
    /// For masks that hash.
    pub mask_key: Arc<mask::Key>,
}

/// The statement that waits.
#[derive(Debug, Clone, Copy)]
pub struct Pending<'a> {
    /// Counts up from 1 in the session; runs carry it in [`Event::Started`].
    pub ask: u64,
    pub kind: AskKind,
    pub sql: &'a str,
    /// Of `Bind`, `Execute` and `Function`; empty otherwise.
    pub params: Params<'a>,
    /// Of `Execute`: parameter types as the client named them, a count and oids; empty where it named none.
    pub types: &'a [u8],
    /// Of `Bind` and `Execute`: what was decided before, under another epoch or deferred.
    pub previous: Option<&'a Arc<Decision>>,
}

/// When a statement is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AskKind {
    /// A simple query; it runs when allowed.
    Query,
    /// A statement is prepared. It may be deferred.
    Parse,
    /// A prepared statement, decided under an older epoch, is bound. It may be deferred.
    Bind,
    /// A portal whose statement was deferred, or decided under an older epoch, is about to run. The answer holds for this portal.
    Execute,
    /// A function is called without SQL; it runs when allowed. The text is SQL that would do the same, or none that
    /// could be read.
    Function,
}
