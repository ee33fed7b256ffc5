//! Proving to the server who the gateway is: SCRAM-SHA-256 and -PLUS, md5, cleartext under TLS.

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
};
use zeroize::Zeroizing;

use super::message::authentication::{self, Authentication};

/// The client's side of one login.
pub(crate) struct Authenticator {
    user: String,
    password: Option<Zeroizing<Vec<u8>>>,
    tls: bool,
    server_end_point: Option<Vec<u8>>,
    state: State,
}

enum State {
    /// The server asked for nothing yet.
    Fresh,
    /// A password or its hash was sent.
    Sent,
    /// SCRAM: our first message was sent.
    First(Box<ScramSha256>),
    /// SCRAM: our proof was sent; the server has to prove itself too.
    Proof(Box<ScramSha256>),
    /// SCRAM: the server knows the password as well.
    Verified,
    Done,
}

/// What came of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Done,
}

impl Authenticator {
    pub(crate) fn new(user: String, password: Option<Zeroizing<Vec<u8>>>) -> Self {
        let password = password.filter(|password| !password.is_empty());
        Self { user, password, tls: false, server_end_point: None, state: State::Fresh }
    }

    /// The connection is under TLS.
    pub(crate) fn secured(&mut self, server_end_point: Option<Vec<u8>>) {
        self.tls = true;
        self.server_end_point = server_end_point;
    }

    /// Answers one message of the server. An error says, without any secret, why the login cannot go on.
    pub(crate) fn answer(
        &mut self,
        message: Authentication<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, &'static str> {
        let state = std::mem::replace(&mut self.state, State::Done);
        self.state = match (message, state) {
            (Authentication::Ok, State::Fresh | State::Sent | State::Verified) => {
                self.password = None;
                return Ok(Progress::Done);
            }
            // A server that skips its own proof may not know the password at all.
            (Authentication::Ok, _) => return Err("the server did not finish SCRAM"),
            (Authentication::Cleartext, State::Fresh) => {
                if !self.tls {
                    return Err("the server wants the password in clear text on a connection without TLS");
                }
                authentication::password(out, self.secret()?);
                State::Sent
            }
            (Authentication::Md5(salt), State::Fresh) => {
                let hash = Zeroizing::new(md5_hash(self.user.as_bytes(), self.secret()?, salt));
                authentication::password(out, hash.as_bytes());
                State::Sent
            }
            (Authentication::Sasl(mechanisms), State::Fresh) => {
                let plus = Authentication::offers(mechanisms, SCRAM_SHA_256_PLUS);
                let (mechanism, binding) = match &self.server_end_point {
                    Some(hash) if plus => {
                        (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.clone()))
                    }
                    _ if !Authentication::offers(mechanisms, SCRAM_SHA_256) => {
                        return Err("the server offers no SCRAM mechanism that the gateway speaks");
                    }
                    // Says "we could have", so that a server that could as well notices a downgrade.
                    Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
                    None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
                };
                let scram = ScramSha256::new(self.secret()?, binding);
                authentication::sasl_initial(out, mechanism, scram.message());
                State::First(Box::new(scram))
            }
            (Authentication::SaslContinue(data), State::First(mut scram)) => {
                scram.update(data).map_err(|_| "the server's SCRAM challenge is wrong")?;
                authentication::sasl(out, scram.message());
                State::Proof(scram)
            }
            (Authentication::SaslFinal(data), State::Proof(mut scram)) => {
                scram.finish(data).map_err(|_| "the server does not know the password itself")?;
                self.password = None;
                State::Verified
            }
            (Authentication::Other(_), _) => {
                return Err("the server wants an authentication method not supported");
            }
            _ => return Err("the server's authentication messages are out of order"),
        };
        Ok(Progress::More)
    }

    fn secret(&self) -> Result<&[u8], &'static str> {
        self.password
            .as_ref()
            .map(|password| password.as_slice())
            .ok_or("the server wants a password and none is configured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(password: &str) -> Authenticator {
        Authenticator::new("gateway".to_owned(), Some(Zeroizing::new(password.as_bytes().to_vec())))
    }

    #[test]
    fn md5_bytes() {
        let mut out = Vec::new();
        let mut login = authenticator("secret");
        assert_eq!(login.answer(Authentication::Md5(*b"salt"), &mut out), Ok(Progress::More));
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("p\0\0\0\x28md5") && text.len() == 41, "{text:?}");
        assert_eq!(login.answer(Authentication::Ok, &mut Vec::new()), Ok(Progress::Done));
    }

    #[test]
    fn clear_text_needs_tls() {
        let mut out = Vec::new();
        assert!(authenticator("pw").answer(Authentication::Cleartext, &mut out).is_err());
        assert!(out.is_empty());
        let mut login = authenticator("pw");
        login.secured(None);
        assert_eq!(login.answer(Authentication::Cleartext, &mut out), Ok(Progress::More));
        assert_eq!(out, b"p\0\0\0\x07pw\0");
    }

    #[test]
    fn channel_binding_where_both_can() {
        let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0";
        let mut out = Vec::new();
        let mut login = authenticator("pw");
        login.secured(Some(vec![1; 32]));
        login.answer(Authentication::Sasl(both), &mut out).unwrap();
        assert!(out[5..].starts_with(b"SCRAM-SHA-256-PLUS\0"));
        assert!(out.windows(24).any(|part| part == b"p=tls-server-end-point,,"));
        out.clear();
        authenticator("pw").answer(Authentication::Sasl(both), &mut out).unwrap();
        assert!(out[5..].starts_with(b"SCRAM-SHA-256\0"));
        assert!(out.windows(3).any(|part| part == b"n,,"));
    }

    #[test]
    fn ok_before_the_servers_proof_is_refused() {
        let mut login = authenticator("pw");
        login.answer(Authentication::Sasl(b"SCRAM-SHA-256\0"), &mut Vec::new()).unwrap();
        assert!(login.answer(Authentication::Ok, &mut Vec::new()).is_err());
    }

    #[test]
    fn out_of_order_is_refused() {
        assert!(authenticator("pw").answer(Authentication::SaslContinue(b""), &mut Vec::new()).is_err());
        assert!(authenticator("pw").answer(Authentication::Other(7), &mut Vec::new()).is_err());
        let mut empty = Authenticator::new("u".to_owned(), None);
        assert!(empty.answer(Authentication::Md5([0; 4]), &mut Vec::new()).is_err());
    }
}
