//! How the gateway logs in to SSH hosts.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use policy::{LoginMethod, Permit, Resource, Signer, SshUpstream, UnixTime, UserCertificate};
use russh::keys::{
    Certificate, PrivateKey,
    ssh_key::{
        self,
        certificate::{Builder, CertType},
    },
};
use secrecy::{ExposeSecret, SecretString};

use super::{CredentialError, check, read, vault};
use crate::ssh::{KeyError, fresh_key, random};

/// A certificate counts a little earlier than it was signed: the host's clock may be behind.
const EARLY: u64 = 60;
/// How errors call the authority's key.
const AUTHORITY: &str = "user_certificate.authority";
/// Longest key id; hosts write it into their logs.
const KEY_ID: usize = 512;

/// Whom a login is for; it is what the host's own log will say of it.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    /// The name that the job asked for.
    pub user: &'a str,
    pub job: u64,
    pub subject: &'a str,
    pub session: &'a str,
    pub now: UnixTime,
    /// What the certificate lets the host open, besides programs.
    pub terminal: bool,
    pub forwarding: bool,
}

/// A user and the proof.
#[derive(Debug)]
pub struct SshLogin {
    pub user: String,
    pub proof: Proof,
}

/// Private keys wipe themselves when dropped, and Debug shows none of them.
#[derive(Debug)]
pub enum Proof {
    Password(SecretString),
    Key(Arc<PrivateKey>),
    Certificate(Arc<PrivateKey>, Box<Certificate>),
}

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum SshLoginError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("the resource is no SSH host")]
    Kind,
    #[error(
        "login.{0}: the secret is no OpenSSH private key without a passphrase (`ssh-keygen -p -N ''` takes it off)"
    )]
    NoKey(&'static str),
    #[error("login.{0}: RSA and DSA keys are not used here; `ssh-keygen -t ed25519` makes another")]
    Algorithm(&'static str),
    #[error(transparent)]
    Make(#[from] KeyError),
    #[error("Vault at {address}: {why}")]
    Vault { address: String, why: String },
}

impl From<ssh_key::Error> for SshLoginError {
    fn from(error: ssh_key::Error) -> Self {
        Self::Make(error.into())
    }
}

/// Reads or makes the login of an SSH host. Only a permit for that resource opens it.
///
/// # Errors
/// When the secret cannot be had, is no key, or the permit is for something else.
pub async fn ssh_login(
    permit: &Permit,
    resource: &Resource,
    whom: &For<'_>,
) -> Result<SshLogin, SshLoginError> {
    check(permit, resource)?;
    let SshUpstream { login, .. } = resource.ssh().ok_or(SshLoginError::Kind)?;
    let user = login.upstream_user(whom.user).to_owned();
    let proof = match &login.method {
        LoginMethod::Password(secret) => Proof::Password(read(secret)?),
        LoginMethod::Key(secret) => Proof::Key(Arc::new(private(&read(secret)?, "key")?)),
        LoginMethod::Certificate(terms) => {
            let key = fresh_key()?;
            let wanted = Wanted::new(terms, &user, whom);
            let certificate = match &terms.signer {
                Signer::Own(secret) => sign(&private(&read(secret)?, AUTHORITY)?, &key, &wanted, whom.now)?,
                Signer::Vault(of) => vault::sign(of, key.public_key(), &wanted, whom.now)
                    .await
                    .map_err(|why| SshLoginError::Vault { address: of.address.clone(), why })?,
            };
            Proof::Certificate(Arc::new(key), Box::new(certificate))
        }
    };
    Ok(SshLogin { user, proof })
}

/// Whether the secret is there, safe and of use, to say so at start.
pub(super) fn probe(method: &LoginMethod) -> Result<(), CredentialError> {
    let (secret, what) = match method {
        LoginMethod::Password(secret) => return read(secret).map(drop),
        LoginMethod::Key(secret) => (secret, "key"),
        LoginMethod::Certificate(terms) => match &terms.signer {
            Signer::Own(secret) => (secret, AUTHORITY),
            Signer::Vault(of) => return vault::probe(of),
        },
    };
    private(&read(secret)?, what).map(drop).map_err(|error| CredentialError::Unusable(error.to_string()))
}

fn private(text: &SecretString, what: &'static str) -> Result<PrivateKey, SshLoginError> {
    let key = PrivateKey::from_openssh(text.expose_secret()).map_err(|_| SshLoginError::NoKey(what))?;
    if key.is_encrypted() {
        return Err(SshLoginError::NoKey(what));
    }
    match key.algorithm() {
        ssh_key::Algorithm::Ed25519 | ssh_key::Algorithm::Ecdsa { .. } => Ok(key),
        _ => Err(SshLoginError::Algorithm(what)),
    }
}

/// What a certificate for one connection of one job has to say, and nothing more.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) principals: Vec<String>,
    pub(super) key_id: String,
    pub(super) valid_for: u64,
    pub(super) critical_options: BTreeMap<&'static str, String>,
    /// Without values.
    pub(super) extensions: BTreeMap<&'static str, &'static str>,
}

impl Wanted {
    fn new(terms: &UserCertificate, user: &str, whom: &For<'_>) -> Self {
        let principals = match terms.principals.as_slice() {
            [] => vec![user.to_owned()],
            named => named.to_vec(),
        };
        let mut critical_options = BTreeMap::new();
        if !terms.source_address.is_empty() {
            let nets: Vec<_> = terms.source_address.iter().map(ToString::to_string).collect();
            critical_options.insert("source-address", nets.join(","));
        }
        if let Some(command) = &terms.force_command {
            critical_options.insert("force-command", command.clone());
        }
        let opened = [("permit-pty", whom.terminal), ("permit-port-forwarding", whom.forwarding)];
        let extensions = opened.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| (*name, "")).collect();
        let valid_for = terms.valid_for.as_secs().max(1);
        Self { principals, key_id: key_id(whom), valid_for, critical_options, extensions }
    }
}

fn sign(
    authority: &PrivateKey,
    key: &PrivateKey,
    wanted: &Wanted,
    now: UnixTime,
) -> Result<Certificate, SshLoginError> {
    let until = now.0.saturating_add(wanted.valid_for);
    let public = key.public_key().key_data().clone();
    let mut builder = Builder::new(random::<32>()?, public, now.0.saturating_sub(EARLY), until)?;
    builder.cert_type(CertType::User)?;
    builder.key_id(wanted.key_id.as_str())?;
    builder.serial(u64::from_be_bytes(random::<8>()?))?;
    for principal in &wanted.principals {
        builder.valid_principal(principal)?;
    }
    for (name, value) in &wanted.critical_options {
        builder.critical_option(*name, value.as_str())?;
    }
    for (name, value) in &wanted.extensions {
        builder.extension(*name, *value)?;
    }
    Ok(builder.sign(authority)?)
}

/// Names job, subject and session; what a subject is called cannot break the host's log.
fn key_id(whom: &For<'_>) -> String {
    let text = format!("gateway job {} subject {} session {}", whom.job, whom.subject, whom.session);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(KEY_ID).collect()
}

/// A public key of a policy, as this library has it.
///
/// # Errors
/// When the text is no public key that is used here.
pub fn public_key(key: &policy::PublicKey) -> Result<ssh_key::PublicKey, ssh_key::Error> {
    ssh_key::PublicKey::from_str(&key.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::SecretRef;
    use russh::keys::ssh_key::HashAlg;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn whom() -> For<'static> {
        For {
            user: "deploy",
            job: 7,
            subject: "payments\nagent",
            session: "s1",
            now: NOW,
            terminal: true,
            forwarding: false,
        }
    }

    fn terms() -> UserCertificate {
        UserCertificate {
            signer: Signer::Own(SecretRef::Env("unused".into())),
            principals: Vec::new(),
            valid_for: Duration::from_secs(300),
            source_address: vec!["198.51.100.1/32".parse().unwrap()],
            force_command: Some("/usr/bin/deploy".into()),
        }
    }

    #[test]
    fn a_certificate_says_for_whom_for_how_long_and_what_only() {
        let (authority, key) = (fresh_key().unwrap(), fresh_key().unwrap());
        let signed = |terms: &UserCertificate| {
            sign(&authority, &key, &Wanted::new(terms, "deploy", &whom()), NOW).unwrap()
        };
        let made = signed(&terms());
        made.validate_at(NOW.0, [&authority.fingerprint(HashAlg::Sha256)]).unwrap();
        assert!(made.validate_at(NOW.0 + 301, [&authority.fingerprint(HashAlg::Sha256)]).is_err());
        assert_eq!(made.cert_type(), CertType::User);
        assert_eq!(made.valid_principals(), ["deploy"]);
        assert_eq!(made.key_id(), "gateway job 7 subject payments?agent session s1");
        let options: Vec<_> = made.critical_options().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(options, [("force-command", "/usr/bin/deploy"), ("source-address", "198.51.100.1/32")]);
        let extensions: Vec<_> = made.extensions().keys().map(String::as_str).collect();
        assert_eq!(extensions, ["permit-pty"]);
        let named = UserCertificate { principals: vec!["a".into(), "b".into()], ..terms() };
        assert_eq!(signed(&named).valid_principals(), ["a", "b"]);
    }

    #[test]
    fn what_is_no_key_is_said_without_showing_it() {
        let error = private(&"-----BEGIN hunter2".to_owned().into(), "key").unwrap_err();
        assert!(error.to_string().contains("login.key") && !format!("{error:?}").contains("hunter2"));
        let text = fresh_key().unwrap().to_openssh(ssh_key::LineEnding::LF).unwrap();
        assert!(private(&text.to_string().into(), "key").is_ok());
        let proof = Proof::Key(Arc::new(fresh_key().unwrap()));
        assert!(!format!("{proof:?}").contains("seed: ["), "{proof:?}");
    }
}
