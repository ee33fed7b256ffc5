//! What a server's certificate binds to: channels, for SCRAM-SHA-256-PLUS, and pinned keys.

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use x509_parser::{
    oid_registry::{
        OID_HASH_SHA1, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512,
        OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
    },
    signature_algorithm::RsaSsaPssParams,
};

/// `tls-server-end-point` (RFC 5929, 4.1): the server's certificate, hashed with its signature's hash, or with
/// SHA-256 where that is MD5 or SHA-1.
///
/// `None`: the certificate cannot be read, or its signature has no such hash (Ed25519), and the RFC then
/// defines no binding.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let signature = &parsed.signature_algorithm;
    let oid = signature.oid();
    let hash = if *oid == OID_PKCS1_RSASSAPSS {
        let parameters = RsaSsaPssParams::try_from(signature.parameters()?).ok()?;
        let of = parameters.hash_algorithm_oid().clone();
        match of {
            o if o == OID_HASH_SHA1 || o == OID_NIST_HASH_SHA256 => &SHA256,
            o if o == OID_NIST_HASH_SHA384 => &SHA384,
            o if o == OID_NIST_HASH_SHA512 => &SHA512,
            _ => return None,
        }
    } else if [
        OID_PKCS1_MD5WITHRSAENC,
        OID_PKCS1_SHA1WITHRSA,
        OID_PKCS1_SHA256WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256,
    ]
    .contains(oid)
    {
        &SHA256
    } else if [OID_PKCS1_SHA384WITHRSA, OID_SIG_ECDSA_WITH_SHA384].contains(oid) {
        &SHA384
    } else if [OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA512].contains(oid) {
        &SHA512
    } else {
        return None;
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// SHA-256 of a certificate's public key, in the form SubjectPublicKeyInfo; `None`: the certificate cannot be read.
pub fn public_key_sha256(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    digest::digest(&SHA256, parsed.public_key().raw).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn signed_with(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(["db".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, hash) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256), (&rcgen::PKCS_ECDSA_P384_SHA384, &SHA384)]
        {
            let der = signed_with(algorithm);
            assert_eq!(server_end_point(&der).unwrap(), digest::digest(hash, &der).as_ref());
        }
    }

    #[test]
    fn no_binding_for_ed25519_or_garbage() {
        assert_eq!(server_end_point(&signed_with(&rcgen::PKCS_ED25519)), None);
        assert_eq!(server_end_point(b"\x30\x82\xff\xff"), None);
        assert_eq!(server_end_point(b""), None);
    }
}
