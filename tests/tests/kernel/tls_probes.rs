//! What a server's certificate and TLS mean for a probe: whether users are down, and whom this host trusts. The same whoever measures.

use backburn::providers::{ProbeContext, measure};
use backburn_experiments::wire::ProbeOutcome;
use backburn_tests::crash::Place;
use backburn_tests::isolated::test_name;
use backburn_tests::served::Served;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;

/// The variable that names the file of those whom a host trusts. Source: SSL_CTX_load_verify_locations(3).
const TRUSTED: &str = "SSL_CERT_FILE";

fn by_the_controller(provider: &Value) -> ProbeOutcome {
    let provider = serde_json::from_value(provider.clone()).expect("a provider");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(measure(&provider, None, &ProbeContext::default()))
}

struct Identity {
    pem: String,
    chain: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// A certificate for these names that signs itself; it may issue others, as `openssl req -x509` makes it.
fn own(names: &[&str], is_expired: bool) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(names, is_expired)
        .self_signed(&key)
        .expect("it signs");
    Identity {
        pem: certificate.pem(),
        chain: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
    }
}

fn params(names: &[&str], is_expired: bool) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = match is_expired {
        true => date_time_ymd(2002, 1, 1),
        false => date_time_ymd(4000, 1, 1),
    };
    params
}

/// A certificate for these names, issued by another.
fn issued(names: &[&str]) -> (String, Identity) {
    let issuing = KeyPair::generate().expect("a key");
    let authority = params(&["authority"], false);
    let root = authority.self_signed(&issuing).expect("it signs");
    let issuer = Issuer::new(authority, issuing);
    let key = KeyPair::generate().expect("a key");
    let mut leaf = params(names, false);
    leaf.is_ca = IsCa::NoCa;
    let leaf = leaf.signed_by(&key, &issuer).expect("it signs");
    let identity = Identity {
        pem: leaf.pem(),
        chain: leaf.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
    };
    (root.pem(), identity)
}

/// A server with this certificate; its port.
fn serve(identity: Identity) -> u16 {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![identity.chain], identity.key)
        .expect("they fit");
    let config = Arc::new(config);
    answer(move |stream| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("it fits");
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let mut buffer = [0; 4096];
        // A client that does not like the certificate goes away.
        if stream.read(&mut buffer).is_ok_and(|length| length > 0) {
            let said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nin";
            stream.write_all(said).ok();
            stream.conn.send_close_notify();
            stream.flush().ok();
        }
    })
}

fn answer(with: impl Fn(std::net::TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("it has one").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(with));
    port
}

/// A server that reads what it is sent and answers with these bytes.
fn says(bytes: &'static [u8]) -> u16 {
    answer(move |mut stream| {
        let mut buffer = [0; 4096];
        if stream.read(&mut buffer).is_ok_and(|length| length > 0) {
            stream.write_all(bytes).ok();
        }
    })
}

#[test]
fn tls_probe_fails_like_users_and_is_unknown_without_trust() {
    let Some(file) = std::env::var_os("TLS_PROBES_INNER") else {
        // Whom a process trusts it finds out once: this one must not have looked yet.
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("trusted.pem");
        let own = std::env::current_exe().expect("a test knows its own program");
        let ran = Command::new(own)
            .args([&*test_name(), "--exact", "--nocapture"])
            .env("TLS_PROBES_INNER", &file)
            .env(TRUSTED, &file)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&ran.stdout);
        print!("{said}");
        // A name that no test has would succeed, too.
        assert!(ran.status.success() && said.contains("1 passed"), "{ran:?}");
        return;
    };
    let here = ["127.0.0.1"];
    let (trusted, expired, elsewhere) = (
        own(&here, false),
        own(&here, true),
        own(&["elsewhere.test"], false),
    );
    let (authority, for_another) = issued(&["elsewhere.test"]);
    let (other_authority, for_here) = issued(&here);
    let all = [
        &trusted.pem,
        &expired.pem,
        &elsewhere.pem,
        &authority,
        &other_authority,
    ];
    std::fs::write(&file, all.map(String::as_str).concat()).expect("it can be written");
    let place = Place::default();
    let (mut served, _) = Served::start(&place, &json!({}));
    // An alert: fatal, handshake failure. Source: RFC 8446, 6.
    let alert = says(&[0x15, 3, 3, 0, 2, 2, 40]);
    let cases = [
        ("it is trusted itself", serve(trusted), "output"),
        ("its issuer is trusted", serve(for_here), "output"),
        ("it is trusted, and expired", serve(expired), "no answer"),
        (
            "it is trusted, for another name",
            serve(elsewhere),
            "no answer",
        ),
        (
            "its issuer is trusted, for another name",
            serve(for_another),
            "no answer",
        ),
        ("nobody trusts it", serve(own(&here, false)), "broken"),
        (
            "plain HTTP",
            says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "no answer",
        ),
        ("an alert", alert, "no answer"),
        ("it hangs up", says(b""), "no answer"),
    ];
    for (case, port, wanted) in cases {
        let url = format!("https://127.0.0.1:{port}/");
        let provider = json!({"type": "http", "url": url, "timeout": 20});
        for (who, outcome) in [
            ("controller", by_the_controller(&provider)),
            ("agent", served.measures(&provider, None)),
        ] {
            let found = match &outcome {
                ProbeOutcome::Output(value) => {
                    assert_eq!(value["status"], 200, "{case}, {who}");
                    "output"
                }
                ProbeOutcome::NoAnswer(_) => "no answer",
                ProbeOutcome::Broken(why) => {
                    assert!(why.contains(TRUSTED), "{case}, {who}: {why}");
                    "broken"
                }
            };
            assert_eq!(found, wanted, "{case}, {who}: {outcome:?}");
        }
    }
}
