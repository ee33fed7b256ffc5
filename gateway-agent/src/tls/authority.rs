//! The local CA and the leaves it signs.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::{TlsError, keystore, provider};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The CA certificate is made again, with the same key and name, when less than `CA_RENEW` of this is left:
/// jobs that hold the old one go on.
const CA_LIFE: Duration = Duration::from_secs(730 * 24 * 3600);
const CA_RENEW: Duration = Duration::from_secs(60 * 24 * 3600);
/// Leaves live in memory only and are made again at half of this.
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Leaves kept; a full cache is emptied, which costs one signature a name.
const MAX_LEAVES: usize = 1024;
const COMMON_NAME: &str = "Gateway CA of this host";

/// Where clients of jobs find what they trust.
#[derive(Debug, Clone)]
pub struct TrustFiles {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The host's roots and the CA.
    pub bundle: PathBuf,
    /// The same for Java.
    pub java: PathBuf,
}

/// Signs what jobs' clients verify.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: RwLock<CertificateDer<'static>>,
    cert_file: PathBuf,
    /// One key for all leaves, made at start, never on disk.
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<(Names, Protocols), Leaf>>,
}

struct Leaf {
    config: Arc<ServerConfig>,
    renew: SystemTime,
}

/// What is spoken behind TLS (RFC 7301), the most wanted first. Chosen when a client offers it; clients that offer none are served
/// too.
pub type Protocols = &'static [&'static str];

/// PostgreSQL 17's direct TLS.
pub const POSTGRES: Protocols = &["postgresql"];
/// HTTP in both versions, and in the older one alone.
pub const HTTP: Protocols = &["h2", "http/1.1"];
pub const HTTP_1: Protocols = &["http/1.1"];

/// What a leaf is valid for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Names {
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
}

impl Authority {
    /// Loads the CA from `state_dir` (`ca.key`, `ca.pem`) or makes it, and renews its certificate when due.
    pub fn open(state_dir: &Path) -> Result<Self, TlsError> {
        super::install_providers();
        let (key_file, cert_file) = (state_dir.join("ca.key"), state_dir.join("ca.pem"));
        let key = match read(&key_file)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|e| content(&key_file, &e.to_string()))?,
            None => {
                let key = KeyPair::generate()?;
                put(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
                key
            }
        };
        let now = SystemTime::now();
        let params = ca_params(now);
        let good = match read(&cert_file)? {
            Some(pem) => usable(&cert_file, &pem, &key, now)?,
            None => None,
        };
        let certificate = match good {
            Some(der) => der,
            None => {
                let made = params.self_signed(&key)?;
                put(&cert_file, made.pem().as_bytes(), 0o644)?;
                made.der().clone()
            }
        };
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate: RwLock::new(certificate),
            cert_file,
            leaf_key: KeyPair::generate()?,
            leaves: Mutex::default(),
        })
    }

    /// The public part, for jobs.
    pub fn pem(&self) -> String {
        to_pem(&self.certificate())
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bounds what the authority can speak for to these DNS names and what is below them; addresses are not bounded. True: its
    /// certificate is another one now, with the same key.
    ///
    /// # Errors
    /// Fails when it cannot be made or kept; then nothing has changed.
    pub fn constrain(&self, names: &BTreeSet<String>) -> Result<bool, TlsError> {
        let mut names = names.clone();
        if names.is_empty() {
            // No constraint on names would be all of them; this one is nobody's (RFC 6761).
            names.insert("invalid".to_owned());
        }
        if permitted(&self.certificate()).is_some_and(|now| now == names) {
            return Ok(false);
        }
        let permitted_subtrees = names.into_iter().map(GeneralSubtree::DnsName).collect();
        let mut params = ca_params(SystemTime::now());
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let made = params.self_signed(self.issuer.key())?;
        put(&self.cert_file, made.pem().as_bytes(), 0o644)?;
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = made.der().clone();
        // Each is shown with the certificate of the authority.
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(true)
    }

    /// Writes the public part, alone and with the host's roots, for everyone to read.
    /// A host without roots gets a bundle with this CA alone.
    pub fn publish(&self, files: &TrustFiles) -> Result<(), TlsError> {
        put(&files.ca, self.pem().as_bytes(), 0o644)?;
        let mut all = rustls_native_certs::load_native_certs().certs;
        all.push(self.certificate());
        let bundle: String = all.iter().map(|root| to_pem(root)).collect();
        put(&files.bundle, bundle.as_bytes(), 0o644)?;
        put(&files.java, &keystore::write(&all, SystemTime::now()), 0o644)
    }

    /// The server side of a job's connection to a resource of these names. Cached; cheap when it hits.
    pub fn job_acceptor(&self, names: &Names, protocols: Protocols) -> Result<Arc<ServerConfig>, TlsError> {
        let now = SystemTime::now();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (names.clone(), protocols);
        if let Some(leaf) = leaves.get(&key)
            && now < leaf.renew
        {
            return Ok(leaf.config.clone());
        }
        if leaves.len() >= MAX_LEAVES {
            leaves.clear();
        }
        let config = Arc::new(self.make(names, protocols, now)?);
        leaves.insert(key, Leaf { config: config.clone(), renew: now + LEAF_LIFE / 2 });
        Ok(config)
    }

    fn make(&self, names: &Names, protocols: Protocols, now: SystemTime) -> Result<ServerConfig, TlsError> {
        let mut params = CertificateParams::default();
        for name in &names.dns {
            let dns = name.as_str().try_into().map_err(|_| TlsError::Name(name.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.subject_alt_names.extend(names.ips.iter().copied().map(SanType::IpAddress));
        if params.subject_alt_names.is_empty() {
            return Err(TlsError::Name(String::new()));
        }
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::OrganizationName, "Gateway");
        params.not_before = (now - DAY).into();
        params.not_after = (now + LEAF_LIFE).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), self.certificate()], key)?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(config)
    }
}

fn ca_params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.not_before = (now - DAY).into();
    params.not_after = (now + CA_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The DNS names that a certificate of an authority is bounded to.
fn permitted(der: &[u8]) -> Option<BTreeSet<String>> {
    use x509_parser::extensions::GeneralName;
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let constraints = parsed.name_constraints().ok()??.value;
    let subtrees = constraints.permitted_subtrees.as_ref()?;
    let name = |base: &GeneralName<'_>| match base {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    subtrees.iter().map(|subtree| name(&subtree.base)).collect()
}

/// The certificate in `pem`, unless it is due for renewal or not this key's.
fn usable(
    file: &Path,
    pem: &str,
    key: &KeyPair,
    now: SystemTime,
) -> Result<Option<CertificateDer<'static>>, TlsError> {
    use rustls::pki_types::pem::PemObject;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| content(file, &e.to_string()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| content(file, &e.to_string()))?;
    let left = u64::try_from(parsed.validity().not_after.timestamp())
        .ok()
        .and_then(|end| (SystemTime::UNIX_EPOCH + Duration::from_secs(end)).duration_since(now).ok());
    let ours = parsed.public_key().subject_public_key.data == key.public_key_raw();
    let fresh = left.is_some_and(|l| l > CA_RENEW);
    Ok((ours && fresh).then_some(der.into_owned()))
}

fn read(path: &Path) -> Result<Option<String>, TlsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TlsError::File { path: path.to_owned(), source }),
    }
}

fn content(path: &Path, what: &str) -> TlsError {
    TlsError::Content { path: path.to_owned(), what: what.to_owned() }
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    crate::files::put(path, bytes, mode).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn to_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = String::with_capacity(body.len() + body.len() / 64 + 64);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
