//! A certificate of the owner's: browsers are shown it for its names, agents and commands never; a renewed one takes its place, a bad one
//! does not.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "support/controller.rs"]
mod support;

use backburn::pki::owner_certificate::OwnerCertificate;
use backburn_experiments::join::{API_PROTOCOL, HTTP_PROTOCOL};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use support::Controller;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const PATIENCE: Duration = Duration::from_secs(30);

/// The two files of a certificate.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Files {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("site.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("site.key")
    }

    /// Writes a certificate for these names, which `change` may alter, and its key. The certificate in DER.
    fn make(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let made = params.self_signed(&key).unwrap();
        put(&self.key(), &key.serialize_pem(), 0o600);
        put(&self.certificate(), &made.pem(), 0o644);
        made.der().clone()
    }

    fn load(&self) -> Result<OwnerCertificate, String> {
        OwnerCertificate::load(&self.certificate(), &self.key()).map_err(|error| error.to_string())
    }
}

/// Writes a file atomically.
fn put(path: &Path, text: &str, mode: u32) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// The certificate that a client is shown which offers these protocols and asks for this host.
async fn shown(controller: &Controller, protocols: &[&str], host: &str) -> CertificateDer<'static> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let verifier = backburn_experiments::server_verifier::ServerVerifier::new(Anything);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(verifier));
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(controller.address).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// Accepts every certificate: the test looks at it itself.
#[derive(Debug)]
struct Anything;

impl backburn_experiments::server_verifier::AcceptServer for Anything {
    fn accept(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: tokio_rustls::rustls::pki_types::UnixTime,
    ) -> Result<(), tokio_rustls::rustls::Error> {
        Ok(())
    }
}

async fn started(files: &Files) -> (tempfile::TempDir, Controller) {
    let owner = Arc::new(files.load().unwrap());
    let data = tempfile::tempdir().unwrap();
    let controller =
        Controller::start_with(data.path(), |service| service.set_owner_certificate(owner)).await;
    (data, controller)
}

fn audited(controller: &Controller) -> Vec<(String, serde_json::Value)> {
    let log = controller.store.audited(0, 1000).unwrap();
    log.iter()
        .filter(|entry| entry.record.what == "load tls-certificate")
        .map(|entry| (entry.record.outcome.clone(), entry.record.detail.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_certificate_is_shown_to_browsers_for_its_names_only() {
    let files = Files::new();
    let owned = files.make(
        &["chaos.example.org", "*.pages.example.org", "127.0.0.1"],
        |_| {},
    );
    let (_data, controller) = started(&files).await;
    let browser = ["h2", HTTP_PROTOCOL];
    for host in [
        "chaos.example.org",
        "CHAOS.example.org",
        "a.pages.example.org",
    ] {
        assert_eq!(
            shown(&controller, &browser[1..], host).await,
            owned,
            "{host}"
        );
        assert_eq!(shown(&controller, &browser, host).await, owned, "{host}");
        assert_eq!(shown(&controller, &[], host).await, owned, "{host}");
    }
    // A client names no address in TLS: it counts where it has connected to.
    assert_eq!(shown(&controller, &browser, "127.0.0.1").await, owned);
    for host in ["localhost", "example.org", "a.b.pages.example.org"] {
        assert_ne!(shown(&controller, &browser, host).await, owned, "{host}");
    }
    // The command line pins the authority, under whatever name.
    let command = [API_PROTOCOL, HTTP_PROTOCOL];
    assert_ne!(
        shown(&controller, &command, "chaos.example.org").await,
        owned
    );
    assert_eq!(
        controller.ask("GET", "/api/v1/session", None).await.status,
        200
    );
    let settings = controller.ask("GET", "/api/v1/settings", None).await.json();
    let names = &settings["tls-certificate"]["names"];
    assert_eq!(
        *names,
        serde_json::json!(["chaos.example.org", "*.pages.example.org", "127.0.0.1"])
    );
    let metrics = controller.ask("GET", "/metrics", None).await.body;
    assert!(
        metrics.contains("backburn_certificate_days_left{certificate=\"tls\"}"),
        "{metrics}"
    );
    assert!(
        metrics.contains("backburn_tls_certificate_stale 0"),
        "{metrics}"
    );
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_certificate_changed_is_shown_and_a_bad_one_is_not() {
    let files = Files::new();
    let first = files.make(&["chaos.example.org"], |_| {});
    let (_data, controller) = started(&files).await;
    let old_key = std::fs::read_to_string(files.key()).unwrap();
    // Nothing asks for it: the files change.
    let second = files.make(&["chaos.example.org"], |_| {});
    let becomes = async {
        while shown(&controller, &[HTTP_PROTOCOL], "chaos.example.org").await != second {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, becomes).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(audited(&controller).len(), 1);
    assert_eq!(audited(&controller)[0].0, "done");
    // The files as they are, by SIGHUP: nothing happens, and nothing is recorded.
    assert!(!controller.service.reload_owner_certificate().unwrap());
    assert_eq!(audited(&controller).len(), 1);
    // The key of another certificate.
    let new_key = std::fs::read_to_string(files.key()).unwrap();
    put(&files.key(), &old_key, 0o600);
    let refused = controller.service.reload_owner_certificate().unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("not the key of the first certificate"),
        "{refused}"
    );
    assert_eq!(
        shown(&controller, &[HTTP_PROTOCOL], "chaos.example.org").await,
        second
    );
    let last = audited(&controller).pop().unwrap();
    assert_eq!(last.0, "refused");
    assert!(
        last.1["why"].as_str().unwrap().contains("site.key"),
        "{last:?}"
    );
    let metrics = controller.ask("GET", "/metrics", None).await.body;
    assert!(
        metrics.contains("backburn_tls_certificate_stale 1"),
        "{metrics}"
    );
    put(&files.key(), &new_key, 0o600);
    assert!(!controller.service.reload_owner_certificate().unwrap());
    assert!(!controller.service.is_owner_certificate_stale());
    controller.stop().await;
}

#[test]
fn owner_certificate_that_no_browser_would_accept_is_refused_with_path_and_hint() {
    let names = ["chaos.example.org"];
    let refused = |change: &dyn Fn(&Files), file: &str, expected: &[&str]| {
        let files = Files::new();
        files.make(&names, |_| {});
        change(&files);
        let why = files.load().unwrap_err();
        for part in [file, "\nhint: "].iter().chain(expected) {
            assert!(why.contains(part), "{part}: {why}");
        }
    };
    let write = |path: PathBuf, text: &[u8]| std::fs::write(path, text).unwrap();
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let (crt, key) = ("site.pem: ", "site.key: ");
    refused(
        &|files| std::fs::remove_file(files.certificate()).unwrap(),
        crt,
        &["No such file"],
    );
    refused(
        &|files| std::fs::remove_file(files.key()).unwrap(),
        key,
        &["No such file"],
    );
    refused(
        &|files| write(files.certificate(), b"hello"),
        crt,
        &["no certificate in PEM"],
    );
    refused(
        &|files| write(files.certificate(), b"\x30\x82\xff\x01"),
        crt,
        &["UTF-8", "DER"],
    );
    refused(
        &|files| write(files.certificate(), &read(files.key())),
        crt,
        &["private key and no certificate", "swapped"],
    );
    refused(
        &|files| write(files.key(), &read(files.certificate())),
        key,
        &["certificate and no private key", "swapped"],
    );
    refused(
        &|files| {
            write(files.key(), b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
        },
        key,
        &["encrypted", "openssl pkey"],
    );
    refused(
        &|files| write(files.key(), b""),
        key,
        &["no private key in PEM"],
    );
    refused(
        &|files| {
            std::fs::set_permissions(files.key(), std::fs::Permissions::from_mode(0o644)).unwrap()
        },
        key,
        &["every user of this host", "mode 0644", "chmod"],
    );
    refused(
        &|files| {
            put(
                &files.key(),
                &KeyPair::generate().unwrap().serialize_pem(),
                0o600,
            )
        },
        key,
        &["not the key of the first certificate"],
    );
    let made = |change: &dyn Fn(&mut CertificateParams), names: &[&str], expected: &str| {
        let files = Files::new();
        files.make(names, |params| change(params));
        let why = files.load().unwrap_err();
        assert!(why.contains(crt) && why.contains(expected), "{why}");
    };
    made(
        &|params| params.not_after = date_time_ymd(2020, 1, 1),
        &names,
        "has expired at 2020-01-01",
    );
    made(
        &|params| params.not_before = date_time_ymd(2090, 1, 1),
        &names,
        "not valid before 2090-01-01",
    );
    made(&|_| {}, &[], "names no host");
    made(
        &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        &names,
        "not for servers",
    );
    // What its group may read is the owner's affair, and so is what follows the first certificate.
    let files = Files::new();
    files.make(&names, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
    });
    std::fs::set_permissions(files.key(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let other = Files::new();
    other.make(&["authority.example.org"], |_| {});
    let chain = [read(files.certificate()), read(other.certificate())].concat();
    write(files.certificate(), &chain);
    assert_eq!(files.load().unwrap().current().names, names);
}
