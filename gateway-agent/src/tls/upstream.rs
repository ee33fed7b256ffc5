//! The client side: who the gateway believes an upstream to be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

use super::{TlsError, provider};

/// How much of an upstream's certificate is checked; PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Chain and name.
    VerifyFull,
    /// Chain only: any certificate of that CA will do.
    VerifyCa,
    /// No TLS. Has to be written out in policy.
    Disable,
}

/// What a connector needs.
#[derive(Clone)]
pub struct UpstreamTls {
    pub config: Arc<ClientConfig>,
    /// For SNI and, with verify-full, for the check.
    pub server_name: ServerName<'static>,
}

/// Who the gateway is to servers that ask.
pub struct ClientIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl ClientIdentity {
    /// From PEM; `path` names the chain's file in errors, `key_path` the key's.
    pub fn from_pem(chain: &[u8], path: &Path, key: &[u8], key_path: &Path) -> Result<Self, TlsError> {
        let bad = |path: &Path, what: String| TlsError::Content { path: path.into(), what };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| bad(path, error.to_string()))?;
        if chain.is_empty() {
            return Err(bad(path, "no certificate in it".to_owned()));
        }
        // What is wrong with a key is said without any of it.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| bad(key_path, "no private key in PEM in it".to_owned()))?;
        Ok(Self { chain, key })
    }
}

/// `None` for [`Mode::Disable`]. `server_name`: a DNS name or an address.
pub fn upstream(
    mode: Mode,
    ca: Option<&Path>,
    server_name: &str,
    client: Option<ClientIdentity>,
) -> Result<Option<UpstreamTls>, TlsError> {
    if mode == Mode::Disable {
        return Ok(None);
    }
    let name =
        ServerName::try_from(server_name.to_owned()).map_err(|_| TlsError::Name(server_name.to_owned()))?;
    let mut config = match client {
        Some(ClientIdentity { chain, key }) => verifying(ca)?.with_client_auth_cert(chain, key)?,
        None => roots_config(ca)?,
    };
    if mode == Mode::VerifyCa {
        let roots = Arc::new(roots(ca)?);
        let full = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        config.dangerous().set_certificate_verifier(Arc::new(ChainOnly { roots, full }));
    }
    Ok(Some(UpstreamTls { config: Arc::new(config), server_name: name }))
}

/// A client that trusts `ca`, or the host's roots, verifies fully and resumes sessions.
pub fn roots_config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    Ok(verifying(ca)?.with_no_client_auth())
}

fn verifying(ca: Option<&Path>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_root_certificates(roots(ca)?))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            let bad = |what: String| TlsError::Content { path: PathBuf::from(path), what };
            let pem = std::fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|e| bad(e.to_string()))?;
                store.add(certificate).map_err(|e| bad(e.to_string()))?;
            }
            if store.is_empty() {
                return Err(bad("no certificate in it".into()));
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    Ok(store)
}

/// Everything that full verification does, but for the name.
#[derive(Debug)]
struct ChainOnly {
    roots: Arc<RootCertStore>,
    full: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.full.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.full.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.full.supported_verify_schemes()
    }
}
