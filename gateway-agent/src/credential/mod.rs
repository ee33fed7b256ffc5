//! Permit to login: the secrets that only the gateway holds.
//!
//! A secret is read when it is needed, so that rotation needs no restart, and lives in [`SecretString`]:
//! redacted in Debug, wiped on drop. No error repeats any of its bytes.

mod kubernetes;
mod roles;
mod scram;
mod ssh;
mod vault;

pub use kubernetes::{KubernetesAccess, KubernetesTokens, kubernetes_login, left};
pub use roles::{RoleError, RoleRow, Roles, SWEEP, template};
pub use ssh::{For, Proof, SshLogin, SshLoginError, public_key, ssh_login};

use std::{
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use policy::{KubernetesMethod, Permit, PostgresUpstream, Resource, ResourceKind, SecretRef, Upstream};
use rustix::fs::{Mode, OFlags};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Longest secret read.
const MAX: u64 = 64 * 1024;

/// How to log in upstream.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: String,
    /// Empty where there is a certificate instead.
    pub password: SecretString,
}

impl Login {
    /// The password as the wire takes it, in memory that is wiped too.
    pub fn password_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.password.expose_secret().as_bytes().to_vec())
    }
}

/// How the sessions of a job log in.
#[derive(Debug, Clone)]
pub enum Account {
    /// With the resource's own secret, read when needed.
    Resource {
        /// The resource's own user, or one of the roles that jobs may ask for.
        user: String,
    },
    /// With the role that was made for the job.
    Role(Login),
}

impl Account {
    /// # Errors
    /// Fails when the secret cannot be had, or the permit is for something else.
    pub fn login(&self, permit: &Permit, resource: &Resource) -> Result<Login, CredentialError> {
        match self {
            Self::Resource { user } => Ok(Login { user: user.clone(), ..for_resource(permit, resource)? }),
            Self::Role(login) => {
                check(permit, resource)?;
                Ok(login.clone())
            }
        }
    }
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the permit is for resource `{permit}`, the credential for `{resource}`")]
    Permit { permit: String, resource: Arc<str> },
    #[error("resource `{resource}` is of kind {kind} now: it has no login for PostgreSQL")]
    Kind { resource: Arc<str>, kind: ResourceKind },
    #[error("secret file {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "secret file {} may be read or changed by others (mode {mode:04o}, owner {owner}): chmod 0600 and chown it to the gateway's user",
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32, owner: u32 },
    #[error("environment variable {0} is not set or not text")]
    Env(String),
    #[error("systemd credential `{0}`: CREDENTIALS_DIRECTORY is not set; use LoadCredential= in the unit")]
    NoDirectory(String),
    #[error("systemd credential name `{0}` is not a plain file name")]
    Name(String),
    #[error("the secret from {0} is empty, too long or not UTF-8")]
    Content(String),
    #[error("{0}")]
    Unusable(String),
}

/// Reads the login of a resource. Only a permit for that resource opens it.
///
/// A file has to be private to the gateway's user (or root's), and loses one trailing newline. Blocks on a small
/// local file.
pub fn for_resource(permit: &Permit, resource: &Resource) -> Result<Login, CredentialError> {
    check(permit, resource)?;
    let Some(PostgresUpstream { login, .. }) = resource.postgres() else {
        return Err(CredentialError::Kind { resource: resource.name.clone(), kind: resource.kind() });
    };
    let password = login.password.as_ref().map(read).transpose()?.unwrap_or_default();
    Ok(Login { user: login.user.clone(), password })
}

/// The header fields that the gateway sets on requests to a resource: their names, lower case, and values. Only a permit for that
/// resource opens them. Blocks on small local files.
///
/// # Errors
/// Fails when a secret cannot be had.
pub fn injected(
    permit: &Permit,
    resource: &Resource,
) -> Result<Vec<(String, SecretString)>, CredentialError> {
    check(permit, resource)?;
    let fields = resource.http().map(|http| http.inject.as_slice()).unwrap_or_default();
    fields.iter().map(|field| Ok((field.header.clone(), value(field)?))).collect()
}

fn value(field: &policy::Inject) -> Result<SecretString, CredentialError> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let secret = read(&field.value)?;
    let text = Zeroizing::new(match &field.basic_user {
        Some(user) => {
            let pair = Zeroizing::new(format!("{user}:{}", secret.expose_secret()));
            format!("Basic {}", STANDARD.encode(pair.as_bytes()))
        }
        None => format!("{}{}", field.prefix, secret.expose_secret()),
    });
    checked(text.to_string(), || format!("the header field {}", field.header))
}

fn check(permit: &Permit, resource: &Resource) -> Result<(), CredentialError> {
    match permit.resource() == &*resource.name {
        true => Ok(()),
        false => Err(CredentialError::Permit {
            permit: permit.resource().to_owned(),
            resource: resource.name.clone(),
        }),
    }
}

/// Whether a secret is there and safe, to say so at start; its value is dropped at once.
pub fn probe(resource: &Resource) -> Result<(), CredentialError> {
    match &resource.upstream {
        Upstream::Postgres(PostgresUpstream { login, .. }) => {
            if let Some(password) = &login.password {
                read(password)?;
            }
            match &login.certificate {
                Some(certificate) => private_key(&certificate.key).map(drop),
                None => Ok(()),
            }
        }
        Upstream::Ssh(of) => ssh::probe(&of.login.method),
        Upstream::Https(of) => of.inject.iter().try_for_each(|field| read(&field.value).map(drop)),
        Upstream::Kubernetes(of) => match &of.login.method {
            KubernetesMethod::Token(token) => read(token).map(drop),
            KubernetesMethod::Certificate(certificate) => private_key(&certificate.key).map(drop),
            KubernetesMethod::Plugin(plugin) => {
                plugin.env.iter().try_for_each(|(_, value)| read(value).map(drop))
            }
        },
    }
}

/// The PEM text of a private key, from a file as private as a password's.
pub fn private_key(path: &Path) -> Result<SecretString, CredentialError> {
    file(path, false)
}

/// Keeps secrets of this process out of core dumps and other processes' reach.
pub fn harden_process() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn read(source: &SecretRef) -> Result<SecretString, CredentialError> {
    match source {
        SecretRef::File(path) => file(path, false),
        SecretRef::Env(name) => {
            let value = std::env::var(name).map_err(|_| CredentialError::Env(name.clone()))?;
            checked(value, || format!("variable {name}"))
        }
        SecretRef::Credential(name) => {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(CredentialError::Name(name.clone()));
            }
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| CredentialError::NoDirectory(name.clone()))?;
            file(&Path::new(&folder).join(name), true)
        }
    }
}

/// `systemd`: the folder is the service's own ramfs, whose ACLs show up as group bits.
fn file(path: &Path, systemd: bool) -> Result<SecretString, CredentialError> {
    let io = |source: std::io::Error| CredentialError::File { path: path.to_owned(), source };
    // Non-blocking, so that a FIFO in the secret's place cannot hang the caller.
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|e| io(e.into()))?;
    let file = std::fs::File::from(fd);
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(io(std::io::Error::other("not a regular file")));
    }
    let me = rustix::process::geteuid().as_raw();
    let exposed = if systemd { 0o007 } else { 0o077 };
    if meta.mode() & exposed != 0 || (meta.uid() != me && meta.uid() != 0) {
        return Err(CredentialError::Exposed {
            path: path.to_owned(),
            mode: meta.mode() & 0o7777,
            owner: meta.uid(),
        });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let room = usize::try_from(meta.len().min(MAX)).unwrap_or_default().saturating_add(2);
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.take(MAX + 1)
        .read_to_string(&mut text)
        .map_err(|_| CredentialError::Content(path.display().to_string()))?;
    let value = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text);
    checked(value.to_owned(), || path.display().to_string())
}

fn checked(value: String, from: impl Fn() -> String) -> Result<SecretString, CredentialError> {
    let fine = !value.is_empty() && value.len() as u64 <= MAX && !value.contains('\0');
    let value = SecretString::from(value);
    if fine { Ok(value) } else { Err(CredentialError::Content(from())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_private_file_is_read_without_its_newline() {
        let (_dir, path) = secret(b"s3cret word\n", 0o600);
        assert_eq!(read(&SecretRef::File(path)).unwrap().expose_secret(), "s3cret word");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_its_content_not_shown() {
        for mode in [0o604, 0o640, 0o620, 0o602] {
            let (_dir, path) = secret(b"s3cret", mode);
            let e = read(&SecretRef::File(path)).unwrap_err();
            assert!(matches!(e, CredentialError::Exposed { .. }), "{mode:o}");
            assert!(!format!("{e} {e:?}").contains("s3cret"));
        }
    }

    #[test]
    fn empty_binary_huge_and_special_files_are_refused() {
        for content in [&b""[..], b"\n", b"a\0b", b"\xff\xfe", &vec![b'x'; 70_000]] {
            let (_dir, path) = secret(content, 0o600);
            assert!(matches!(read(&SecretRef::File(path)), Err(CredentialError::Content(_))));
        }
        let dir = tempfile::tempdir().unwrap();
        let e = read(&SecretRef::File(dir.path().to_owned())).unwrap_err();
        assert!(matches!(e, CredentialError::File { .. }));
    }

    #[test]
    fn debug_of_a_login_does_not_show_the_password() {
        let login = Login { user: "gateway".into(), password: "hunter2hunter2".into() };
        assert!(!format!("{login:?}").contains("hunter2"));
    }

    #[test]
    fn absent_sources_say_what_is_missing() {
        let e = read(&SecretRef::Env("GATEWAY_TEST_ABSENT".into())).unwrap_err();
        assert!(e.to_string().contains("GATEWAY_TEST_ABSENT"));
        assert!(matches!(read(&SecretRef::Credential("../x".into())), Err(CredentialError::Name(_))));
    }
}
