//! The key that signs recordings, as files that openssl reads too: PKCS#8 and SubjectPublicKeyInfo in PEM.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use record::{PublicKey, SigningKey};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use zeroize::Zeroizing;

/// DER of an Ed25519 key up to its 32 bytes (RFC 8410).
const PRIVATE: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Why a key file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: mode {mode:o} lets others read the key; chmod 600 it, or make a new one", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: record::KeyError },
    #[error(
        "not an Ed25519 public key: give a PEM file (the .pub beside the signing key) or 64 hexadecimal digits"
    )]
    Public,
}

/// Reads the signing key, or makes one where there is none; the public part is written beside it as `….pub`.
pub fn load_or_create(path: &Path) -> Result<SigningKey, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let bad = |source| KeyFileError::Key { path: path.to_owned(), source };
    let key = match File::open(path) {
        Ok(file) => {
            let mode = file.metadata().map_err(io)?.mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyFileError::Mode { path: path.to_owned(), mode });
            }
            let text = Zeroizing::new(io::read_to_string(file).map_err(io)?);
            let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
                .map_err(|_| bad(record::KeyError::Private))?;
            SigningKey::from_pkcs8(der.secret_pkcs8_der()).map_err(bad)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::generate().map_err(bad)?;
            let seed = Zeroizing::new(key.seed().map_err(bad)?);
            let der = Zeroizing::new([&PRIVATE[..], &seed[..]].concat());
            write_whole(path, &pem("PRIVATE KEY", &der), 0o600).map_err(io)?;
            key
        }
        Err(error) => return Err(io(error)),
    };
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    let text = pem("PUBLIC KEY", &[&PUBLIC[..], &key.public().0].concat());
    if fs::read_to_string(&public).ok().as_deref() != Some(text.as_str()) {
        write_whole(&public, &text, 0o644).map_err(|source| KeyFileError::Io { path: public, source })?;
    }
    Ok(key)
}

/// A public key as a person gives it: the path of a PEM file, or 64 hexadecimal digits.
pub fn public_key(given: &str) -> Result<PublicKey, KeyFileError> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let text = fs::read_to_string(given).map_err(|source| KeyFileError::Io { path: given.into(), source })?;
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyFileError::Public)?;
    let key = der.as_ref().strip_prefix(&PUBLIC).and_then(|key| key.try_into().ok());
    key.map(PublicKey).ok_or(KeyFileError::Public)
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", *body))
}

/// Either the whole file is there afterwards, or none of it.
fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording.key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).unwrap().public(), made.public());
        let public = dir.path().join("recording.key.pub");
        assert_eq!(public_key(public.to_str().unwrap()).unwrap(), made.public());
        assert_eq!(public_key(&made.public().to_string()).unwrap(), made.public());
    }

    #[test]
    fn a_key_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording.key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_create(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn rubbish_is_refused_with_the_file_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording.key");
        write_whole(&path, "rubbish", 0o600).unwrap();
        assert!(load_or_create(&path).unwrap_err().to_string().contains("recording.key"));
        assert!(public_key(path.to_str().unwrap()).is_err());
    }
}
