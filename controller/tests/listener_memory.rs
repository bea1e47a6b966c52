//! What an idle agent costs at the door: TLS and its buffers, by this process's resident memory.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::listener::{Connection, Listener, ListenerLimits};
use backburn::pki::ca::{AGENT_CERTIFICATE_LIFETIME, CertificateAuthority};
use rcgen::{CertificateParams, KeyPair};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const AGENTS: usize = 1000;
/// About what an agent says of itself first: its faults with their schemas.
const INTRODUCTION: usize = 64 << 10;
/// Of the 20 KiB that a connected agent may cost in all.
const MOST: usize = 16 << 10;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.unwrap().split_whitespace().nth(1);
    words.unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn idle_agents_use_little_memory() {
    // Two descriptors each: both ends are here.
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(RLIMIT_NOFILE).unwrap();
    let wanted = 2 * AGENTS as u64 + 400;
    setrlimit(RLIMIT_NOFILE, soft.max(wanted), hard).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = Arc::new(CertificateAuthority::open(folder.path()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let names = vec!["localhost".to_owned()];
    let mut listener = Listener::open(
        listener,
        &authority,
        names,
        ListenerLimits::default(),
        |_| false,
    )
    .unwrap();
    let address = listener.address().unwrap();

    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let signed = authority
        .sign(&request.pem().unwrap(), "db-1", AGENT_CERTIFICATE_LIFETIME)
        .unwrap();
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes());
    roots.add(root.unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"backburn-agent/1".to_vec()];
    // As an agent does.
    config.max_fragment_size = Some(4096);
    let connector = TlsConnector::from(Arc::new(config));

    let (mut there, mut here) = (Vec::new(), Vec::new());
    let mut before = 0;
    let introduction = vec![b'x'; INTRODUCTION];
    for number in 0..AGENTS + 50 {
        // What the first ones need is everybody's.
        if number == 50 {
            before = resident();
        }
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.write_all(&introduction).await.unwrap();
            stream.flush().await.unwrap();
            // Of this end, the socket alone is kept.
            stream.into_inner().0
        };
        let server = async {
            let Connection::Agent(mut agent) = listener.next_connection().await else {
                panic!("it is an agent");
            };
            let mut left = INTRODUCTION;
            let mut room = [0; 4096];
            while left > 0 {
                left -= agent.stream.read(&mut room).await.unwrap();
            }
            agent.stream.write_all(b"beat\n").await.unwrap();
            // As a controller does: somebody always reads.
            let nothing = Duration::from_millis(1);
            let read = tokio::time::timeout(nothing, agent.stream.read(&mut room[..1])).await;
            assert!(read.is_err(), "nothing more is said");
            agent
        };
        let (client, server) = tokio::join!(client, server);
        there.push(client);
        here.push(server);
    }
    let each = (resident() - before) / AGENTS;
    println!("{AGENTS} agents: {each} bytes each");
    assert!(each < MOST, "{each} bytes for each agent");
}
