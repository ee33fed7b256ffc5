//! Who the gateway believes a host to be: the keys and authorities that policy names, and no other.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use policy::{Host, HostKey, Resource, SshUpstream, UnixTime};
use russh::{
    Channel, Names,
    client::{self, ChannelOpenHandle, Msg, Session},
    keys::{
        Algorithm, PublicKeyOrCertificate,
        ssh_key::{self, Certificate, HashAlg, certificate::CertType},
    },
};

use super::{
    algorithms,
    forwards::{Arrivals, Arrived},
    job::Forward,
    upstream::HostError,
};
use crate::credential;

/// Hosts have several keys: ask for the kinds that are pinned.
pub(super) fn preferred(of: &SshUpstream) -> russh::Preferred {
    let mut preferred = algorithms::towards_hosts(!of.host_authorities.is_empty());
    let known: Option<Vec<&str>> = of
        .host_keys
        .iter()
        .map(|pin| match pin {
            HostKey::Key(key) => Some(key.algorithm.as_str()),
            // Nobody knows of what kind.
            HostKey::Sha256(_) => None,
        })
        .collect();
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        let kept: Vec<Algorithm> =
            preferred.key.iter().filter(|kind| known.contains(&kind.as_str())).cloned().collect();
        preferred.key = Cow::Owned(kept);
    }
    preferred
}

/// What the host has to show.
pub(super) struct Pins {
    of: SshUpstream,
    authorities: Vec<ssh_key::Fingerprint>,
    /// By what names a certificate may call it.
    names: Vec<String>,
    now: UnixTime,
    seen: Seen,
    arrivals: Option<Arrivals>,
}

/// What became of a handshake, for the operator.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Handshake>>);

#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// The key that the host showed.
    pub(super) key: String,
    /// Refused for what was negotiated.
    pub(super) weak: bool,
}

impl Seen {
    pub(super) fn take(&self) -> Handshake {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Handshake> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pins {
    pub(super) fn new(
        of: &SshUpstream,
        resource: &Resource,
        address: SocketAddr,
        arrivals: Option<Arrivals>,
    ) -> Result<Self, HostError> {
        let authorities = of
            .host_authorities
            .iter()
            .map(|key| Ok(credential::public_key(key)?.fingerprint(HashAlg::Sha256)))
            .collect::<Result<_, _>>()
            .map_err(HostError::Key)?;
        let named = resource.hosts.iter().filter_map(|host| match host {
            Host::Name(name) => Some(name.clone()),
            Host::Net(_) => None,
        });
        let names = named.chain([address.ip().to_canonical().to_string()]).collect();
        Ok(Self {
            of: of.clone(),
            authorities,
            names,
            now: crate::clock::now(),
            seen: Seen::default(),
            arrivals,
        })
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Nobody who waits for it, or too many already: dropping the reply refuses it.
    fn arrived(&self, arrived: Arrived) {
        if let Some(arrivals) = &self.arrivals {
            let _ = arrivals.try_send(arrived);
        }
    }

    fn trusts(&self, shown: &PublicKeyOrCertificate) -> bool {
        let Ok(blob) = shown.public_key().to_bytes() else { return false };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &blob);
        let pinned = <&[u8; 32]>::try_from(digest.as_ref()).is_ok_and(|sha| self.of.trusts_key(&blob, sha));
        pinned || shown.certificate().is_some_and(|certificate| self.trusts_certificate(certificate))
    }

    fn trusts_certificate(&self, certificate: &Certificate) -> bool {
        certificate.cert_type() == CertType::Host
            && certificate.critical_options().is_empty()
            // Without names it would be any host's.
            && certificate.valid_principals().iter().any(|name| self.names.contains(&name.to_ascii_lowercase()))
            && certificate.validate_at(self.now.0, &self.authorities).is_ok()
    }
}

impl client::Handler for Pins {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let key = shown.public_key();
        self.seen.lock().key = format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        Ok(self.trusts(shown))
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if algorithms::needs_strictness(&names.cipher) && !names.strict_kex() {
            self.seen.lock().weak = true;
            return Err(russh::Error::Inconsistent);
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let at = Forward::Tcpip { host: host.to_owned(), port };
        self.arrived(Arrived { at, from: format!("{from}:{from_port}"), channel, reply });
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let at = Forward::Streamlocal { path: path.to_owned() };
        self.arrived(Arrived { at, from: "a process of the host".to_owned(), channel, reply });
        Ok(())
    }

    // Hosts open no other channels to jobs: a reply that is dropped refuses. The library's own would accept.

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::{PrivateKey, ssh_key::certificate::Builder};

    use super::*;
    use crate::ssh::fresh_key;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn of(authority: &PrivateKey) -> SshUpstream {
        let public = authority.public_key();
        SshUpstream {
            host_keys: Vec::new(),
            host_authorities: vec![policy::PublicKey {
                algorithm: public.algorithm().to_string(),
                blob: public.to_bytes().unwrap(),
            }],
            users: Vec::new(),
            login: policy::SshLogin {
                user: None,
                users: Vec::new(),
                method: policy::LoginMethod::Password(policy::SecretRef::Env("unused".into())),
            },
        }
    }

    fn pins(of: &SshUpstream) -> Pins {
        let key = credential::public_key(&of.host_authorities[0]).unwrap();
        Pins {
            of: of.clone(),
            authorities: vec![key.fingerprint(HashAlg::Sha256)],
            names: vec!["web.internal".into(), "198.51.100.40".into()],
            now: NOW,
            seen: Seen::default(),
            arrivals: None,
        }
    }

    fn certificate(
        authority: &PrivateKey,
        kind: CertType,
        name: &str,
        until: u64,
        option: bool,
    ) -> PublicKeyOrCertificate {
        let key = fresh_key().unwrap();
        let mut builder =
            Builder::new([7; 32], key.public_key().key_data().clone(), NOW.0 - 100, until).unwrap();
        builder.cert_type(kind).unwrap().valid_principal(name).unwrap();
        if option {
            builder.critical_option("verify-required", "").unwrap();
        }
        PublicKeyOrCertificate::Certificate(builder.sign(authority).unwrap())
    }

    #[test]
    fn a_host_certificate_counts_if_it_is_of_the_authority_for_this_host_and_now() {
        let (ours, theirs) = (fresh_key().unwrap(), fresh_key().unwrap());
        let pins = pins(&of(&ours));
        let until = NOW.0 + 100;
        assert!(pins.trusts(&certificate(&ours, CertType::Host, "web.internal", until, false)));
        assert!(pins.trusts(&certificate(&ours, CertType::Host, "198.51.100.40", until, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::Host, "db.internal", until, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::User, "web.internal", until, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::Host, "web.internal", NOW.0 - 1, false)));
        assert!(!pins.trusts(&certificate(&ours, CertType::Host, "web.internal", until, true)));
        assert!(!pins.trusts(&certificate(&theirs, CertType::Host, "web.internal", until, false)));
        // A bare key is none of the authority's words.
        assert!(!pins.trusts(&ours.public_key().clone().into()));
    }

    #[test]
    fn a_pinned_key_counts_by_itself_and_by_its_digest() {
        let key = fresh_key().unwrap();
        let blob = key.public_key().to_bytes().unwrap();
        let sha = key.fingerprint(HashAlg::Sha256).sha256().unwrap();
        let ca = fresh_key().unwrap();
        let pin = policy::PublicKey { algorithm: "ssh-ed25519".into(), blob };
        for pin in [HostKey::Key(pin), HostKey::Sha256(sha)] {
            let pins = pins(&SshUpstream { host_keys: vec![pin], ..of(&ca) });
            assert!(pins.trusts(&key.public_key().clone().into()));
            assert!(!pins.trusts(&fresh_key().unwrap().public_key().clone().into()));
        }
    }

    #[test]
    fn only_the_kinds_of_pinned_keys_are_asked_for() {
        let ca = fresh_key().unwrap();
        let pin = policy::PublicKey { algorithm: "ecdsa-sha2-nistp256".into(), blob: Vec::new() };
        let pinned = SshUpstream { host_keys: vec![HostKey::Key(pin)], host_authorities: vec![], ..of(&ca) };
        let kinds = |of: &SshUpstream| preferred(of).key.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(kinds(&pinned), ["ecdsa-sha2-nistp256"]);
        assert_eq!(kinds(&of(&ca)).len(), 4);
        assert!(preferred(&pinned).host_key_certificates.is_empty());
        assert_eq!(preferred(&of(&ca)).host_key_certificates.len(), 4);
    }
}
