//! Logging in upstream.

use super::{Phase, Session, Upstream};
use crate::{
    postgres::{
        CancelKey, Refusal,
        message::{
            Header, Malformed, Reader,
            authentication::{self, Authentication},
            body, frame,
            ready::Status,
            report, startup,
        },
        scram::Progress,
    },
    step::{CloseReason, Leg, Step},
};

/// No message of a login is longer than this.
const MESSAGE_MAX: usize = 64 * 1024;

impl Session {
    /// Sends the StartupMessage upstream.
    pub(super) fn introduce(&mut self) {
        let Some(login) = &self.login else { return };
        let Upstream { user, database, settings, .. } = &**login;
        let own = [
            ("user", user.as_str()),
            ("database", database.as_str()),
            // As the parser reads statements.
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
        ];
        let pinned = |name: &str| {
            own.iter().any(|(known, _)| *known == name)
                || settings.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let theirs = self.startup.settings.iter().filter(|(name, _)| !pinned(name));
        let all = settings.iter().chain(theirs).map(|(name, value)| (name.as_str(), value.as_str()));
        let all = all.chain(self.startup.replication.iter().map(|value| ("replication", value.as_str())));
        startup::startup(self.up_out.vec(), own.into_iter().chain(all));
        self.phase = Phase::Authenticating;
    }

    pub(super) fn log_in(&mut self) -> Option<Step> {
        self.up_need = true;
        if self.phase == Phase::UpstreamTls {
            return Some(Step::Need);
        }
        if self.phase == Phase::UpstreamSsl {
            return self.read_ssl_answer();
        }
        let header = match Header::read(self.up_in.bytes()) {
            Ok(Some(header)) if header.total <= MESSAGE_MAX => header,
            Ok(None) => return self.starved(),
            _ => return self.login_failed("08P01", "malformed message"),
        };
        if self.up_in.len() < header.total {
            return self.starved();
        }
        let input = std::mem::take(&mut self.up_in);
        let message = input.bytes().get(..header.total).unwrap_or_default();
        let step = self.login_message(header.tag, message);
        self.up_in = input;
        self.up_in.consume(header.total);
        step
    }

    fn starved(&mut self) -> Option<Step> {
        if !self.gone {
            return Some(Step::Need);
        }
        self.login_failed("08006", "the connection was closed")
    }

    fn read_ssl_answer(&mut self) -> Option<Step> {
        let answer = match self.up_in.bytes() {
            [] => return self.starved(),
            [answer] => *answer,
            // Unprotected bytes must not be taken for part of the protected stream.
            _ => {
                return self
                    .login_failed("08P01", "unprotected data after the answer to the request for TLS");
            }
        };
        self.up_in.consume(1);
        match answer {
            b'S' => {
                self.phase = Phase::UpstreamTls;
                Some(Step::StartTls(Leg::Upstream))
            }
            b'N' => self.login_failed("08001", "the server does not offer TLS, which its resource requires"),
            _ => self.login_failed("08P01", "the request for TLS was not understood"),
        }
    }

    fn login_message(&mut self, tag: u8, message: &[u8]) -> Option<Step> {
        match (tag, &self.phase) {
            (b'R', Phase::Authenticating) => {
                let Some(login) = &mut self.login else { return self.login_failed("08P01", "no login") };
                let answered = Authentication::read(body(message))
                    .map_err(|Malformed| "malformed authentication request")
                    .and_then(|request| login.authenticator.answer(request, self.up_out.vec()));
                match answered {
                    Ok(Progress::More) => None,
                    Ok(Progress::Done) => {
                        self.login = None;
                        authentication::ok(self.job_out.vec());
                        self.phase = Phase::Preparing;
                        None
                    }
                    Err(why) => self.login_failed("28000", why),
                }
            }
            (b'S', Phase::Preparing) => match self.parameter(message) {
                Ok(()) => {
                    self.job_out.vec().extend_from_slice(message);
                    None
                }
                Err(why) => self.login_failed("08P01", why),
            },
            (b'K', Phase::Preparing) => {
                let mut reader = Reader::new(body(message));
                match (reader.u32(), reader.rest()) {
                    (Ok(pid), secret) if (4..=CancelKey::MAX_SECRET).contains(&secret.len()) => {
                        self.upstream_key = Some(CancelKey { pid, secret: secret.to_vec() });
                        None
                    }
                    _ => self.login_failed("08P01", "malformed cancel key"),
                }
            }
            (b'Z', Phase::Preparing) => {
                let Ok(status) = Status::read(body(message)) else {
                    return self.login_failed("08P01", "malformed transaction status");
                };
                self.status = status;
                let key = self.mint_key().clone();
                frame(self.job_out.vec(), b'K', |out| {
                    out.extend_from_slice(&key.pid.to_be_bytes());
                    out.extend_from_slice(&key.secret);
                });
                status.write(self.job_out.vec());
                self.phase = Phase::Ready;
                None
            }
            (b'N', Phase::Authenticating | Phase::Preparing) => None,
            (b'E', Phase::Authenticating | Phase::Preparing) => {
                let text = |letter| {
                    String::from_utf8_lossy(report::field(body(message), letter).unwrap_or(b"?")).into_owned()
                };
                let (sqlstate, message) = (text(b'C'), text(b'M'));
                self.login_refused(sqlstate, message)
            }
            _ => self.login_failed("08P01", "a message that has no place in a login"),
        }
    }

    /// The pins that reading statements relies on.
    pub(super) fn parameter(&mut self, message: &[u8]) -> Result<(), &'static str> {
        let mut reader = Reader::new(body(message));
        let (Ok(name), Ok(value), Ok(())) = (reader.cstr(), reader.cstr(), reader.end()) else {
            return Err("malformed parameter status");
        };
        match name {
            _ if self.unread => Ok(()),
            b"search_path" if self.own => Ok(()),
            // Servers from 18 on tell it. What changes it without the gateway's leave is code on the server.
            b"search_path" if self.phase == Phase::Preparing => {
                self.search_path = Some(value.into());
                Ok(())
            }
            b"search_path"
                if !self.search_path.as_deref().is_some_and(|own| schemas(own).eq(schemas(value))) =>
            {
                Err("search_path is no longer what names are resolved by")
            }
            b"client_encoding" if value != b"UTF8" => Err("client_encoding is no longer UTF8"),
            b"standard_conforming_strings" if value != b"on" => {
                Err("standard_conforming_strings is no longer on")
            }
            _ => Ok(()),
        }
    }

    /// The gateway cannot log in. Why is for the operator; the client learns that it is so.
    fn login_failed(&mut self, sqlstate: &'static str, why: &str) -> Option<Step> {
        self.login_refused(sqlstate.to_owned(), why.to_owned())
    }

    fn login_refused(&mut self, sqlstate: String, message: String) -> Option<Step> {
        self.login = None;
        let refusal = Refusal {
            sqlstate: told(&sqlstate),
            message: "the gateway could not log in to the database".to_owned(),
            detail: Some(format!("SQLSTATE {}", shown(&sqlstate))),
            hint: Some("The gateway's log says more; ask its operator.".to_owned()),
        };
        self.fail(&refusal, CloseReason::LoginFailed { sqlstate, message });
        None
    }
}

/// The schemas of a search path, in quotes or not; `None` for one that the server would fold.
fn schemas(path: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    path.split(|byte| *byte == b',').map(|name| {
        let name = name.trim_ascii();
        let quoted = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\""));
        quoted.or_else(|| (!name.iter().any(u8::is_ascii_uppercase)).then_some(name))
    })
}

/// The server's SQLSTATE where clients act upon it (by trying again, by another database), else a general one.
fn told(sqlstate: &str) -> &'static str {
    ["3D000", "53300", "57P03", "57P01", "57P02", "08006", "08001", "53200", "53100"]
        .into_iter()
        .find(|known| *known == sqlstate)
        .unwrap_or("28000")
}

/// What may be a SQLSTATE and nothing else.
fn shown(sqlstate: &str) -> &str {
    let fine = sqlstate.len() == 5 && sqlstate.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fine { sqlstate } else { "unknown" }
}
