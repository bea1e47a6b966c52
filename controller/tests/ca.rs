//! The certificate authority's folder over crashes and mishaps, and what its certificates are good for.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::pki::ca::{AGENT_CERTIFICATE_LIFETIME, CertificateAuthority, identity};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn request(key: &KeyPair, params: &CertificateParams) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn authority_reopened_is_the_same_and_its_files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("controller");
    let first = CertificateAuthority::open(&folder).unwrap().fingerprint();
    assert_eq!(first.len(), 64);
    assert_eq!(
        CertificateAuthority::open(&folder).unwrap().fingerprint(),
        first
    );
    for file in ["authority.key", "authority.crt"] {
        let mode = folder.join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        2,
        "nothing is left beside them"
    );

    // Killed between the two files: a key that nobody was told of.
    std::fs::remove_file(folder.join("authority.crt")).unwrap();
    let second = CertificateAuthority::open(&folder).unwrap().fingerprint();
    assert_ne!(second, first);

    std::fs::remove_file(folder.join("authority.key")).unwrap();
    let said = CertificateAuthority::open(&folder).unwrap_err().to_string();
    assert!(
        said.contains("key is missing") && said.contains("hint:"),
        "{said}"
    );
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(folder.join("authority.key"), other).unwrap();
    let said = CertificateAuthority::open(&folder).unwrap_err().to_string();
    assert!(said.contains("does not belong"), "{said}");
    std::fs::write(folder.join("authority.key"), "none").unwrap();
    assert!(CertificateAuthority::open(&folder).is_err());
}

#[test]
fn certificate_request_contributes_only_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::open(folder.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    // It asks to be the controller, and another agent.
    let mut params = CertificateParams::new(vec!["controller.example.org".into()]).unwrap();
    let uri = "backburn://agent/somebody-else".try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let signed = authority
        .sign(&request(&key, &params), "db-1", AGENT_CERTIFICATE_LIFETIME)
        .unwrap();
    let certificate = der(&signed.certificate);
    let agent = identity(&certificate).unwrap();
    assert_eq!(agent.name, "db-1");
    assert_eq!(agent.serial, signed.serial);

    let mut roots = RootCertStore::empty();
    roots.add(der(&authority.certificate())).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
    let verified = verifier.build().unwrap().verify_server_cert(
        &certificate,
        &[],
        &ServerName::try_from("controller.example.org").unwrap(),
        &[],
        UnixTime::now(),
    );
    let Err(Error::InvalidCertificate(why)) = verified else {
        panic!("an agent passes for the controller: {verified:?}");
    };
    assert!(
        matches!(
            why,
            CertificateError::InvalidPurpose
                | CertificateError::InvalidPurposeContext { .. }
                | CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. }
        ),
        "{why:?}"
    );
    let again = authority
        .sign(&request(&key, &params), "db-1", AGENT_CERTIFICATE_LIFETIME)
        .unwrap();
    assert_ne!(
        again.serial, signed.serial,
        "a serial number is one certificate's"
    );
}

#[test]
fn certificate_request_that_is_invalid_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::open(folder.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let good = request(&key, &CertificateParams::default());
    for name in ["", "a/b", "a\0b", "../a", &"n".repeat(65)] {
        assert!(
            authority
                .sign(&good, name, AGENT_CERTIFICATE_LIFETIME)
                .is_err(),
            "{name:?}"
        );
    }
    // One byte of the signature is another: whoever asks does not have the key.
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    let flipped: String = lines[last]
        .char_indices()
        .map(|(at, byte)| match (at, byte) {
            (4, 'A') => 'B',
            (4, _) => 'A',
            (_, byte) => byte,
        })
        .collect();
    lines[last] = flipped;
    assert!(
        authority
            .sign(&lines.join("\n"), "db-1", AGENT_CERTIFICATE_LIFETIME)
            .is_err()
    );
    assert!(
        authority
            .sign("", "db-1", AGENT_CERTIFICATE_LIFETIME)
            .is_err()
    );
    // A certificate that names no agent is nobody's.
    assert!(identity(&der(&authority.certificate())).is_err());
}
