use std::os::unix::fs::PermissionsExt;

use rustls::{
    ClientConfig,
    pki_types::{ServerName, pem::PemObject},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    super::{Mode, upstream},
    *,
};

fn names(dns: &[&str], ips: &[&str]) -> Names {
    Names {
        dns: dns.iter().map(|d| (*d).to_owned()).collect(),
        ips: ips.iter().map(|i| i.parse().unwrap()).collect(),
    }
}

/// Both sides of a handshake; the ALPN that was chosen and whether it was resumed.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<(Option<Vec<u8>>, bool), String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (a, b) = tokio::io::duplex(64 * 1024);
    let serve = async move {
        let mut tls = TlsAcceptor::from(server).accept(a).await?;
        // Tickets travel with the first data in TLS 1.3.
        tls.write_all(b"x").await?;
        tls.shutdown().await
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let dial = async move {
        let mut tls = TlsConnector::from(client).connect(name, b).await?;
        let mut all = Vec::new();
        tls.read_to_end(&mut all).await?;
        let (_, session) = tls.get_ref();
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Ok::<_, std::io::Error>((session.alpn_protocol().map(<[u8]>::to_vec), resumed))
    };
    let (_, result) = tokio::join!(serve, dial);
    result.map_err(|e| e.to_string())
}

fn client(ca: &Path, mode: Mode, name: &str) -> Arc<ClientConfig> {
    upstream(mode, Some(ca), name, None).unwrap().unwrap().config
}

#[test]
fn the_key_is_private_and_the_ca_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(dir.path()).unwrap();
    let mode = |f: &str| std::fs::metadata(dir.path().join(f)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
    assert_eq!(Authority::open(dir.path()).unwrap().pem(), first.pem());

    let file = |name: &str| dir.path().join(name);
    let files = TrustFiles { ca: file("pub.pem"), bundle: file("bundle.pem"), java: file("bundle.jks") };
    first.publish(&files).unwrap();
    let (ca, bundle) = (&files.ca, &files.bundle);
    assert_eq!(std::fs::read_to_string(ca).unwrap(), first.pem());
    assert!(std::fs::read_to_string(bundle).unwrap().ends_with(&first.pem()));
    assert!(CertificateDer::pem_slice_iter(&std::fs::read(bundle).unwrap()).all(|c| c.is_ok()));
    assert!(!std::fs::read_to_string(bundle).unwrap().contains("PRIVATE"));
}

#[tokio::test]
async fn a_renewed_ca_is_trusted_by_jobs_that_hold_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let old = Authority::open(dir.path()).unwrap();
    let handed_out = dir.path().join("job.pem");
    std::fs::write(&handed_out, old.pem()).unwrap();
    // As after most of its life: a certificate with the same key that ends soon.
    let key = KeyPair::from_pem(&std::fs::read_to_string(dir.path().join("ca.key")).unwrap()).unwrap();
    let mut params = ca_params(SystemTime::now());
    params.not_after = (SystemTime::now() + CA_RENEW / 2).into();
    std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let renewed = Authority::open(dir.path()).unwrap();
    assert_ne!(renewed.pem(), old.pem());
    let server = renewed.job_acceptor(&names(&["db.internal"], &[]), POSTGRES).unwrap();
    handshake(server, client(&handed_out, Mode::VerifyFull, "db.internal"), "db.internal").await.unwrap();
}

#[tokio::test]
async fn leaves_are_good_for_their_names_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let ca = dir.path().join("ca.pem");
    let of = names(&["db.internal"], &["198.51.100.10", "2001:db8::10"]);
    let server = authority.job_acceptor(&of, POSTGRES).unwrap();
    assert!(Arc::ptr_eq(&server, &authority.job_acceptor(&of, POSTGRES).unwrap()), "cached");
    for good in ["db.internal", "198.51.100.10", "2001:db8::10"] {
        handshake(server.clone(), client(&ca, Mode::VerifyFull, good), good).await.unwrap();
    }
    for bad in ["other.internal", "198.51.100.11"] {
        let e = handshake(server.clone(), client(&ca, Mode::VerifyFull, bad), bad).await.unwrap_err();
        assert!(e.contains("not valid for name"), "{e}");
        handshake(server.clone(), client(&ca, Mode::VerifyCa, bad), bad).await.unwrap();
    }
}

#[tokio::test]
async fn the_authority_speaks_for_no_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let before = authority.pem();
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert!(authority.constrain(&of(&["db.internal", "example"])).unwrap());
    assert!(!authority.constrain(&of(&["db.internal", "example"])).unwrap(), "the same");
    assert_ne!(authority.pem(), before);
    assert_eq!(Authority::open(dir.path()).unwrap().pem(), authority.pem(), "kept");
    let ca = dir.path().join("ca.pem");
    for (name, good) in
        [("db.internal", true), ("a.example", true), ("other.internal", false), ("xexample", false)]
    {
        let server = authority.job_acceptor(&names(&[name], &["198.51.100.10"]), POSTGRES).unwrap();
        let met = handshake(server, client(&ca, Mode::VerifyFull, name), name).await;
        assert_eq!(met.is_ok(), good, "{name}: {met:?}");
    }
    // Nobody's name, and still every address.
    assert!(authority.constrain(&of(&[])).unwrap());
    let server = authority.job_acceptor(&names(&["db.internal"], &[]), POSTGRES).unwrap();
    handshake(server, client(&ca, Mode::VerifyFull, "db.internal"), "db.internal").await.unwrap_err();
    let server = authority.job_acceptor(&names(&[], &["198.51.100.10"]), POSTGRES).unwrap();
    handshake(server, client(&ca, Mode::VerifyFull, "198.51.100.10"), "198.51.100.10").await.unwrap();
}

#[tokio::test]
async fn another_ca_is_refused_in_both_verifying_modes() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Authority::open(dir.path()).unwrap().job_acceptor(&names(&["db"], &[]), POSTGRES).unwrap();
    Authority::open(other.path()).unwrap();
    for mode in [Mode::VerifyFull, Mode::VerifyCa] {
        let client = client(&other.path().join("ca.pem"), mode, "db");
        let e = handshake(server.clone(), client, "db").await.unwrap_err();
        assert!(e.contains("invalid peer certificate"), "{e}");
    }
    assert!(upstream(Mode::Disable, None, "db", None).unwrap().is_none());
}

#[tokio::test]
async fn alpn_is_answered_when_offered_and_sessions_resume() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let server = authority.job_acceptor(&names(&["db"], &[]), POSTGRES).unwrap();
    let plain = client(&dir.path().join("ca.pem"), Mode::VerifyFull, "db");
    let mut direct = (*plain).clone();
    direct.alpn_protocols = vec![b"postgresql".to_vec()];
    assert_eq!(handshake(server.clone(), plain.clone(), "db").await.unwrap(), (None, false));
    assert_eq!(handshake(server.clone(), plain, "db").await.unwrap(), (None, true));
    let alpn = handshake(server.clone(), Arc::new(direct.clone()), "db").await.unwrap().0;
    assert_eq!(alpn.as_deref(), Some(&b"postgresql"[..]));
    direct.alpn_protocols = vec![b"h2".to_vec()];
    assert!(handshake(server, Arc::new(direct), "db").await.is_err(), "another protocol is no PostgreSQL");
}

#[test]
fn bad_inputs_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    assert!(authority.job_acceptor(&names(&[], &[]), POSTGRES).is_err());
    assert!(authority.job_acceptor(&names(&["naïve"], &[]), POSTGRES).is_err());
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    assert!(upstream(Mode::VerifyFull, Some(&empty), "db", None).is_err());
    assert!(upstream(Mode::VerifyFull, Some(&dir.path().join("absent")), "db", None).is_err());
    assert!(upstream(Mode::VerifyFull, Some(&dir.path().join("ca.pem")), "not a name", None).is_err());
    std::fs::write(dir.path().join("ca.key"), "broken").unwrap();
    assert!(Authority::open(dir.path()).is_err(), "a damaged key is not replaced silently");
}
