//! This host's SSH keys towards jobs: a host key, and the authority that vouches for it under the names of resources.
//!
//! Both are ed25519, live in `state_dir` (`ssh_host_ca`, `ssh_host_key`, 0600) and never leave it; jobs get the public
//! parts as a known_hosts file. What bounds the authority: it signs host certificates only, each for the names of one
//! resource and for [`LIFE`], and only the file that jobs are given trusts it.

mod known_hosts;

pub use known_hosts::{KnownHosts, known_hosts};

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use policy::UnixTime;
use russh::keys::{
    Certificate, PrivateKey,
    ssh_key::{
        self, LineEnding,
        certificate::{Builder, CertType},
        private::{Ed25519Keypair, KeypairData},
    },
};
use zeroize::Zeroizing;

/// How long a host certificate is good; it is made again at half of that.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Clocks of a job and its host are the same; this is for the second that is cut off.
const EARLY: u64 = 60;
/// Certificates kept; a full cache is emptied, which costs one signature a name.
const MAX_CERTIFICATES: usize = 1024;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}; remove the file to have a new key made", path.display())]
    Content { path: PathBuf, source: ssh_key::Error },
    #[error("an SSH key or certificate cannot be made: {0}")]
    Make(#[from] ssh_key::Error),
    #[error("the system gives no randomness")]
    Random,
}

/// Signs what jobs' SSH clients verify.
pub struct Authority {
    ca: PrivateKey,
    host: PrivateKey,
    certificates: Mutex<HashMap<Vec<String>, Made>>,
}

struct Made {
    certificate: Certificate,
    renew: u64,
}

impl Authority {
    /// Loads the keys from `state_dir`, or makes them.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds no key.
    pub fn open(state_dir: &Path) -> Result<Self, KeyError> {
        Ok(Self {
            ca: key(&state_dir.join("ssh_host_ca"))?,
            host: key(&state_dir.join("ssh_host_key"))?,
            certificates: Mutex::default(),
        })
    }

    /// The key that is shown to every job.
    pub fn host_key(&self) -> &PrivateKey {
        &self.host
    }

    /// The key that signs certificates of the host key.
    pub fn ca_key(&self) -> &PrivateKey {
        &self.ca
    }

    /// A certificate of the host key for these names and addresses. Cached; cheap when it hits.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn certificate(&self, names: Vec<String>, now: UnixTime) -> Result<Certificate, KeyError> {
        let mut made = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(&names).filter(|known| now.0 < known.renew) {
            return Ok(known.certificate.clone());
        }
        if made.len() >= MAX_CERTIFICATES {
            made.clear();
        }
        let (from, until) = (now.0.saturating_sub(EARLY), now.0.saturating_add(LIFE.as_secs()));
        let mut builder =
            Builder::new(random::<32>()?, self.host.public_key().key_data().clone(), from, until)?;
        builder.cert_type(CertType::Host)?.key_id("gateway")?;
        for name in &names {
            builder.valid_principal(name)?;
        }
        let certificate = builder.sign(&self.ca)?;
        let renew = now.0.saturating_add(LIFE.as_secs() / 2);
        made.insert(names, Made { certificate: certificate.clone(), renew });
        Ok(certificate)
    }
}

/// An ed25519 key that nobody has had before.
///
/// # Errors
/// Without randomness.
pub fn fresh_key() -> Result<PrivateKey, KeyError> {
    let seed = Zeroizing::new(random::<32>()?);
    Ok(PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)), "")?)
}

/// # Errors
/// Without randomness.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

fn key(path: &Path) -> Result<PrivateKey, KeyError> {
    let file = |source| KeyError::File { path: path.to_owned(), source };
    match std::fs::read(path).map(Zeroizing::new) {
        Ok(text) => PrivateKey::from_openssh(text.as_slice())
            .map_err(|source| KeyError::Content { path: path.to_owned(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = fresh_key()?;
            let text = key.to_openssh(LineEnding::LF)?;
            crate::files::put(path, text.as_bytes(), 0o600).map_err(file)?;
            Ok(key)
        }
        Err(error) => Err(file(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        for name in ["ssh_host_ca", "ssh_host_key"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let again = Authority::open(dir.path()).unwrap();
        assert_eq!(first.ca_key().public_key(), again.ca_key().public_key());
        assert_eq!(first.host_key().public_key(), again.host_key().public_key());
        assert_ne!(first.ca_key().public_key(), first.host_key().public_key());
        std::fs::write(dir.path().join("ssh_host_ca"), "no key").unwrap();
        assert!(matches!(Authority::open(dir.path()), Err(KeyError::Content { .. })));
    }

    #[test]
    fn a_certificate_is_for_its_names_for_a_day_and_made_again_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let names = || vec!["web.internal".to_owned(), "198.51.100.40".to_owned()];
        let now = UnixTime(1_800_000_000);
        let made = authority.certificate(names(), now).unwrap();
        assert_eq!(made.cert_type(), CertType::Host);
        assert_eq!(made.valid_principals(), names());
        let ca = authority.ca_key().fingerprint(ssh_key::HashAlg::Sha256);
        made.validate_at(now.0, [&ca]).unwrap();
        assert!(made.validate_at(now.0 + 25 * 3600, [&ca]).is_err());
        assert_eq!(authority.certificate(names(), UnixTime(now.0 + 3600)).unwrap(), made);
        assert_ne!(authority.certificate(names(), UnixTime(now.0 + 13 * 3600)).unwrap(), made);
    }
}
