//! The client's first packets.

use super::{Phase, Session, Startup};
use crate::{
    postgres::{
        BackendKey, CancelKey, Refusal,
        message::{
            Malformed, frame,
            startup::{Packet, Parameters},
        },
    },
    step::{CloseReason, Leg, Step},
};

/// Newest minor version of protocol 3 that is spoken here.
const MINOR: u16 = 2;

/// Settings that a client may make at its start. None of them changes what a statement means or who runs it.
const HARMLESS: [&str; 18] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "statement_timeout",
    "tcp_keepalives_idle",
    "timezone",
    "transaction_timeout",
];

impl Session {
    pub(super) fn read_startup(&mut self) -> Option<Step> {
        let first = self.job_in.bytes().first();
        // A ClientHello where a packet's length would be. A first packet is never that long.
        if first == Some(&0x16) && !self.startup.tls && !self.encryption_asked {
            if !self.settings.job_tls {
                self.fail_job("TLS is not offered here");
                return None;
            }
            self.phase = Phase::JobTls;
            return Some(Step::StartTls(Leg::Job));
        }
        let (packet, length) = match Packet::read(self.job_in.bytes()) {
            Ok(None) => return Some(Step::Need),
            Ok(Some(read)) => read,
            Err(Malformed) => {
                self.fail_job("malformed startup packet");
                return None;
            }
        };
        match packet {
            Packet::Ssl => {
                if self.encryption_asked {
                    self.fail_job("TLS was asked for twice");
                    return None;
                }
                self.encryption_asked = true;
                self.job_in.consume(length);
                if !self.settings.job_tls {
                    self.job_out.vec().push(b'N');
                    return None;
                }
                // What was sent before the handshake would be taken for part of the protected stream.
                if self.job_in.len() > 0 {
                    self.fail_job("unprotected data after the request for TLS");
                    return None;
                }
                self.job_out.vec().push(b'S');
                self.phase = Phase::JobTls;
                Some(Step::StartTls(Leg::Job))
            }
            Packet::Gss => {
                self.job_in.consume(length);
                self.job_out.vec().push(b'N');
                None
            }
            Packet::Cancel(key) => {
                self.cancel_key = Some(key);
                self.phase = Phase::Cancelling;
                None
            }
            Packet::Version { .. } => {
                let refusal = Refusal {
                    sqlstate: "0A000",
                    message: "unsupported frontend protocol: the gateway speaks 3.0 to 3.2".to_owned(),
                    detail: None,
                    hint: None,
                };
                self.fail(&refusal, CloseReason::Job("unsupported protocol version"));
                None
            }
            Packet::Startup(parameters) => {
                match read(parameters) {
                    Ok((startup, unknown)) => {
                        self.negotiate.clear();
                        if parameters.minor > MINOR || !unknown.is_empty() {
                            negotiate(&mut self.negotiate, startup.minor, &unknown);
                        }
                        self.startup = Startup { tls: self.startup.tls, ..startup };
                        self.phase = Phase::Deciding;
                    }
                    Err(refusal) => {
                        self.log.refused(refusal.sqlstate, &refusal.message);
                        self.fail(&refusal, CloseReason::Job("startup parameters refused"));
                    }
                }
                self.job_in.consume(length);
                if self.phase != Phase::Deciding {
                    return None;
                }
                self.job_out.vec().append(&mut self.negotiate);
                Some(Step::Login)
            }
        }
    }

    /// What this client is told to cancel by.
    pub(super) fn mint_key(&mut self) -> &CancelKey {
        let BackendKey { pid, secret } = self.settings.key;
        // Clients compare this number with pg_backend_pid() and with who sent a notification.
        let pid = self.upstream_key.as_ref().map_or(pid, |key| key.pid);
        // Long keys came with protocol 3.2.
        let secret =
            if self.startup.minor >= 2 { secret.to_vec() } else { secret.iter().copied().take(4).collect() };
        self.job_key.insert(CancelKey { pid, secret })
    }
}

/// Appends NegotiateProtocolVersion.
fn negotiate(out: &mut Vec<u8>, minor: u16, unknown: &[&str]) {
    frame(out, b'v', |out| {
        // The documents say "newest minor version"; the server sends, and libpq reads, both parts.
        out.extend_from_slice(&3u16.to_be_bytes());
        out.extend_from_slice(&minor.to_be_bytes());
        out.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
        for name in unknown {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
    });
}

/// The parameters, and the names of protocol options that are not known.
fn read(parameters: Parameters<'_>) -> Result<(Startup, Vec<&str>), Refusal> {
    let mut startup = Startup { minor: parameters.minor.min(MINOR), ..Startup::default() };
    let mut unknown = Vec::new();
    for (name, value) in parameters.iter() {
        let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) else {
            return Err(refused("22021", "a startup parameter is not UTF-8".to_owned()));
        };
        match name {
            "user" => value.clone_into(&mut startup.user),
            "database" => value.clone_into(&mut startup.database),
            "options" => options(value, &mut startup)?,
            "replication" => {
                if !["false", "off", "no", "0"].contains(&value.to_ascii_lowercase().as_str()) {
                    startup.replication = Some(value.to_owned());
                }
            }
            _ if name.starts_with("_pq_.") => unknown.push(name),
            _ => setting(name, value, &mut startup)?,
        }
    }
    if startup.user.is_empty() {
        return Err(refused("28000", "no user name in the startup packet".to_owned()));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok((startup, unknown))
}

fn setting(name: &str, value: &str, startup: &mut Startup) -> Result<(), Refusal> {
    let folded = name.to_ascii_lowercase();
    match folded.as_str() {
        "client_encoding" => {
            let plain: String =
                value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
            // SQL_ASCII is what clients without a locale send. The server is asked for UTF8 all the same, and
            // says so in its ParameterStatus.
            if !["utf8", "unicode", "sqlascii"].contains(&plain.as_str()) {
                return Err(refused("22023", format!("the gateway speaks UTF8 only, not {value}")));
            }
        }
        "standard_conforming_strings" if ["on", "true", "yes", "1"].contains(&value) => {}
        _ if HARMLESS.contains(&folded.as_str()) => {
            if folded == "application_name" {
                value.clone_into(&mut startup.application);
            }
            startup.settings.retain(|(known, _)| *known != folded);
            startup.settings.push((folded, value.to_owned()));
        }
        _ => {
            return Err(refused(
                "42501",
                format!("the startup setting {name} is not passed on by the gateway"),
            ));
        }
    }
    Ok(())
}

/// The `options` parameter: a command line with `-c name=value` and `--name=value`.
fn options(text: &str, startup: &mut Startup) -> Result<(), Refusal> {
    let mut words = words(text).into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).map(str::to_owned)
        };
        match assignment.as_deref().and_then(|assignment| assignment.split_once('=')) {
            // The server reads `-` in these names as `_`.
            Some((name, value)) => setting(&name.replace('-', "_"), value, startup)?,
            None => {
                return Err(refused(
                    "42501",
                    "the gateway passes on no other options than -c name=value".to_owned(),
                ));
            }
        }
    }
    Ok(())
}

/// Splits as the server does (`pg_split_opts`): at white space, a backslash takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.extend(letters.next()),
            _ if letter.is_ascii_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn refused(sqlstate: &'static str, message: String) -> Refusal {
    Refusal {
        sqlstate,
        message,
        detail: None,
        hint: Some("Connect without it; what the gateway pins is in its documentation.".to_owned()),
    }
}
