//! Who comes in at the controller's port, and who does not: certificates of all sorts, those who
//! say nothing, those who say too much; and how a certificate is had and renewed.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::connection_slots::SlotCounts;
use backburn::listener::{Connection, Listener, ListenerLimits};
use backburn::pki::ca::{AGENT_CERTIFICATE_LIFETIME, AgentIdentity, CertificateAuthority};
use backburn::pki::enrolment::{self, Admission, CertificateReason, EnrolmentPolicy};
use backburn_experiments::join::{
    JOIN_PROTOCOL, JoinAnswer, JoinRequest, LINK_PROTOCOL, MAX_JOIN_LINE_BYTES, PresentedToken,
};
use backburn_experiments::wire::Refusal;
use rcgen::{CertificateParams, KeyPair};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const LONG: Duration = Duration::from_secs(60);

/// A door with somebody who opens it, and what came in.
struct Fleet {
    authority: Arc<CertificateAuthority>,
    address: SocketAddr,
    came: mpsc::UnboundedReceiver<Connection>,
    revoked: Arc<Mutex<BTreeSet<String>>>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn new(limits: ListenerLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(CertificateAuthority::open(folder.path()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let revoked = Arc::new(Mutex::new(BTreeSet::new()));
        let struck = Arc::clone(&revoked);
        let mut listener = Listener::open(
            listener,
            &authority,
            vec!["localhost".into(), "127.0.0.1".into()],
            limits,
            move |agent| struck.lock().unwrap().contains(&agent.serial),
        )
        .unwrap();
        let address = listener.address().unwrap();
        let (come, came) = mpsc::unbounded_channel();
        tokio::spawn(async move { while come.send(listener.next_connection().await).is_ok() {} });
        Fleet {
            authority,
            address,
            came,
            revoked,
            _folder: folder,
        }
    }

    async fn next(&mut self) -> Connection {
        tokio::time::timeout(LONG, self.came.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

/// An agent's key, and the certificate that it has.
struct Papers {
    key: KeyPair,
    certificate: Option<String>,
}

impl Papers {
    fn none() -> Self {
        Papers {
            key: KeyPair::generate().unwrap(),
            certificate: None,
        }
    }

    fn of(authority: &CertificateAuthority, name: &str, lasts: Duration) -> (Self, String) {
        let mut papers = Papers::none();
        let signed = authority.sign(&papers.request(), name, lasts).unwrap();
        papers.certificate = Some(signed.certificate);
        (papers, signed.serial)
    }

    fn request(&self) -> String {
        let params = CertificateParams::default();
        params.serialize_request(&self.key).unwrap().pem().unwrap()
    }

    async fn connect(
        &self,
        fleet: &Fleet,
        protocol: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(fleet.address).await?;
        self.over(stream, fleet, protocol).await
    }

    async fn over(
        &self,
        stream: TcpStream,
        fleet: &Fleet,
        protocol: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(fleet.authority.certificate().as_bytes());
        roots.add(root.unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes());
                builder.with_client_auth_cert(chain, key.unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// Why this one is not let in, in the words of TLS: the other side's verdict comes with the first byte that is read.
    async fn refused(&self, fleet: &Fleet, protocol: &str) -> String {
        let mut stream = match self.connect(fleet, protocol).await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        match tokio::time::timeout(LONG, stream.read(&mut [0; 1]))
            .await
            .unwrap()
        {
            Ok(count) => format!("{count} bytes"),
            Err(error) => error.to_string(),
        }
    }

    /// Asks for a certificate.
    async fn ask(
        &mut self,
        fleet: &Fleet,
        name: &str,
        token: Option<&str>,
    ) -> Result<String, Refusal> {
        let joining = JoinRequest {
            token: token.map(|id| PresentedToken {
                id: id.into(),
                secret: "s".into(),
            }),
            name: name.into(),
            request: self.request(),
            labels: BTreeMap::new(),
        };
        let line = serde_json::to_string(&joining).unwrap() + "\n";
        match said(fleet, self, &line).await {
            JoinAnswer::Joined(joined) => {
                self.certificate = Some(joined.certificate);
                assert_eq!(joined.authority, fleet.authority.certificate());
                assert_eq!(joined.lasts.0, AGENT_CERTIFICATE_LIFETIME);
                Ok(joined.name)
            }
            JoinAnswer::Refused(refusal) => Err(refusal),
        }
    }
}

/// What is answered to a line.
async fn said(fleet: &Fleet, papers: &Papers, line: &str) -> JoinAnswer {
    let mut stream = papers.connect(fleet, JOIN_PROTOCOL).await.unwrap();
    stream.write_all(line.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // Whoever says too much is answered before all of it was read.
    stream.read_to_string(&mut answer).await.ok();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer}: {error}"))
}

/// Tokens that are good once; one agent's name is taken.
#[derive(Default)]
struct Store {
    tokens: Mutex<BTreeSet<String>>,
    issued: Mutex<Vec<(AgentIdentity, Option<AgentIdentity>)>>,
    /// Whoever renewed an expired certificate.
    late: Mutex<Vec<String>>,
}

impl EnrolmentPolicy for Store {
    async fn admit(
        &self,
        token: &PresentedToken,
        name: &str,
        _: &BTreeMap<String, String>,
    ) -> Result<Admission, Refusal> {
        if !self.tokens.lock().unwrap().remove(&token.id) {
            return Err(Refusal::new("token", "the token was used before"));
        }
        Ok(Admission {
            name: name.into(),
            ..Admission::default()
        })
    }

    async fn issue(
        &self,
        issued: &AgentIdentity,
        reason: CertificateReason<'_>,
        _: &str,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        if let CertificateReason::LateRenewal(replaced) = reason {
            self.late.lock().unwrap().push(replaced.name.clone());
        }
        let replaced = match reason {
            CertificateReason::Joining(_) => None,
            CertificateReason::Renewal(replaced) | CertificateReason::LateRenewal(replaced) => {
                Some(replaced.clone())
            }
        };
        self.issued.lock().unwrap().push((issued.clone(), replaced));
        Ok(BTreeMap::new())
    }
}

/// Serves all who join.
fn welcome(mut fleet: Fleet, store: Arc<Store>) -> Arc<Fleet> {
    let (_, nobody) = mpsc::unbounded_channel();
    let mut came = std::mem::replace(&mut fleet.came, nobody);
    let authority = Arc::clone(&fleet.authority);
    tokio::spawn(async move {
        while let Some(connection) = came.recv().await {
            let Connection::Joining(connection) = connection else {
                continue;
            };
            let served =
                enrolment::serve(connection, &authority, AGENT_CERTIFICATE_LIFETIME, &*store).await;
            drop(served);
        }
    });
    Arc::new(fleet)
}

#[tokio::test]
async fn agent_is_identified_by_its_certificate() {
    let mut fleet = Fleet::new(ListenerLimits::default()).await;
    let (papers, serial) = Papers::of(&fleet.authority, "db-1", AGENT_CERTIFICATE_LIFETIME);
    let mut stream = papers.connect(&fleet, LINK_PROTOCOL).await.unwrap();
    stream.write_all(b"word").await.unwrap();
    let Connection::Agent(mut agent) = fleet.next().await else {
        panic!("it is an agent");
    };
    assert_eq!(agent.identity.name, "db-1");
    assert_eq!(agent.identity.serial, serial);
    let mut word = [0; 4];
    agent.stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"word");
}

#[tokio::test]
async fn agent_without_a_valid_certificate_is_refused() {
    let limits = ListenerLimits {
        renewal_grace: Duration::ZERO,
        ..ListenerLimits::default()
    };
    let mut fleet = Fleet::new(limits).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = CertificateAuthority::open(elsewhere.path()).unwrap();
    let (of_another, _) = Papers::of(&elsewhere, "db-1", AGENT_CERTIFICATE_LIFETIME);
    let (old, _) = Papers::of(&fleet.authority, "db-1", Duration::ZERO);
    // Certificates count in seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (revoked, serial) = Papers::of(&fleet.authority, "db-1", AGENT_CERTIFICATE_LIFETIME);
    fleet.revoked.lock().unwrap().insert(serial);
    for (papers, protocol, why) in [
        (&Papers::none(), LINK_PROTOCOL, "CertificateRequired"),
        (&of_another, LINK_PROTOCOL, "UnknownCA"),
        (&old, LINK_PROTOCOL, "CertificateExpired"),
        (&revoked, LINK_PROTOCOL, "CertificateRevoked"),
        (&of_another, JOIN_PROTOCOL, "UnknownCA"),
        (&old, JOIN_PROTOCOL, "CertificateExpired"),
        (&revoked, JOIN_PROTOCOL, "CertificateRevoked"),
        (&Papers::none(), "backburn-agent/7", "NoApplicationProtocol"),
    ] {
        let said = papers.refused(&fleet, protocol).await;
        assert!(said.contains(why), "{why}: {said}");
    }
    assert!(fleet.came.try_recv().is_err(), "nobody came in");
    // Nor has any of them hurt the door.
    let web = Papers::none().connect(&fleet, "http/1.1").await.unwrap();
    assert!(matches!(fleet.next().await, Connection::Http { .. }));
    drop(web);
}

#[tokio::test]
async fn handshake_that_is_slow_is_ended() {
    let limits = ListenerLimits {
        handshake: Duration::from_millis(300),
        ..ListenerLimits::default()
    };
    let fleet = Fleet::new(limits).await;
    let mut silent = TcpStream::connect(fleet.address).await.unwrap();
    let mut slow = TcpStream::connect(fleet.address).await.unwrap();
    let heard = tokio::time::timeout(LONG, async {
        // The first bytes of a hello that would be long.
        slow.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        (silent.read(&mut [0; 1]).await, slow.read(&mut [0; 1]).await)
    });
    let (silent, slow) = heard.await.expect("they are ended");
    assert_eq!(silent.unwrap_or_default(), 0);
    assert_eq!(slow.unwrap_or_default(), 0);
}

#[tokio::test]
async fn silent_connections_do_not_block_the_port() {
    let limits = ListenerLimits {
        handshake: Duration::from_secs(3600),
        slots: SlotCounts {
            silent: 8,
            handshakes: 8,
            clients: 8,
        },
        joining: 2,
        ..ListenerLimits::default()
    };
    let mut fleet = Fleet::new(limits).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(fleet.address).await.unwrap());
    }
    let (papers, _) = Papers::of(&fleet.authority, "db-1", AGENT_CERTIFICATE_LIFETIME);
    let agent = papers.connect(&fleet, LINK_PROTOCOL).await.unwrap();
    assert!(matches!(fleet.next().await, Connection::Agent(_)));
    drop((agent, crowd));
}

#[tokio::test]
async fn joining_connections_are_limited() {
    let limits = ListenerLimits {
        joining: 2,
        ..ListenerLimits::default()
    };
    let mut fleet = Fleet::new(limits).await;
    let papers = Papers::none();
    let first = papers.connect(&fleet, JOIN_PROTOCOL).await.unwrap();
    let second = papers.connect(&fleet, JOIN_PROTOCOL).await.unwrap();
    let served = (fleet.next().await, fleet.next().await);
    assert!(papers.connect(&fleet, JOIN_PROTOCOL).await.is_err());
    // An agent is let in all the same.
    let (agent, _) = Papers::of(&fleet.authority, "db-1", AGENT_CERTIFICATE_LIFETIME);
    let link = agent.connect(&fleet, LINK_PROTOCOL).await.unwrap();
    assert!(matches!(fleet.next().await, Connection::Agent(_)));
    drop(served);
    let third = papers.connect(&fleet, JOIN_PROTOCOL).await.unwrap();
    drop((first, second, third, link));
}

#[tokio::test]
async fn join_token_admits_one_agent_once_and_its_certificate_can_be_renewed() {
    let store = Arc::new(Store::default());
    store.tokens.lock().unwrap().insert("one".into());
    let fleet = welcome(
        Fleet::new(ListenerLimits::default()).await,
        Arc::clone(&store),
    );
    let mut papers = Papers::none();
    assert_eq!(
        papers
            .ask(&fleet, "no/name", Some("one"))
            .await
            .unwrap_err()
            .rule,
        "name"
    );
    assert_eq!(
        papers.ask(&fleet, "db-1", None).await.unwrap_err().rule,
        "token"
    );
    assert_eq!(
        papers.ask(&fleet, "db-1", Some("one")).await.unwrap(),
        "db-1"
    );
    let refusal = Papers::none()
        .ask(&fleet, "db-2", Some("one"))
        .await
        .unwrap_err();
    assert_eq!(refusal.rule, "token");

    // Renewal: another key, the same name, and never another's.
    papers.key = {
        let old = std::mem::replace(&mut papers.key, KeyPair::generate().unwrap());
        let refusal = Papers {
            key: KeyPair::from_pem(&old.serialize_pem()).unwrap(),
            certificate: papers.certificate.clone(),
        };
        let mut other = refusal;
        assert_eq!(
            other.ask(&fleet, "db-2", None).await.unwrap_err().rule,
            "name"
        );
        other.ask(&fleet, "db-1", None).await.unwrap();
        papers.certificate = other.certificate;
        other.key
    };
    let issued = store.issued.lock().unwrap().clone();
    let [(first, None), (second, Some(replaced))] = issued.as_slice() else {
        panic!("{issued:?}");
    };
    assert_eq!(replaced, first);
    assert_eq!(second.name, first.name);
    assert_ne!(second.serial, first.serial);
    assert!(papers.connect(&fleet, LINK_PROTOCOL).await.is_ok());
}

#[tokio::test]
async fn certificate_that_has_expired_is_renewed_within_the_grace_and_good_for_nothing_else() {
    let store = Arc::new(Store::default());
    let fleet = Fleet::new(ListenerLimits::default()).await;
    let (mut old, _) = Papers::of(&fleet.authority, "db-1", Duration::ZERO);
    let (revoked, serial) = Papers::of(&fleet.authority, "db-1", Duration::ZERO);
    fleet.revoked.lock().unwrap().insert(serial);
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = CertificateAuthority::open(elsewhere.path()).unwrap();
    let (foreign, _) = Papers::of(&elsewhere, "db-1", Duration::ZERO);
    // Certificates count in seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let link = old.refused(&fleet, LINK_PROTOCOL).await;
    assert!(link.contains("CertificateExpired"), "{link}");
    for (papers, why) in [(&revoked, "CertificateRevoked"), (&foreign, "UnknownCA")] {
        let said = papers.refused(&fleet, JOIN_PROTOCOL).await;
        assert!(said.contains(why), "{said}");
    }
    let fleet = welcome(fleet, Arc::clone(&store));
    assert_eq!(
        old.ask(&fleet, "db-2", None).await.unwrap_err().rule,
        "name"
    );
    assert_eq!(old.ask(&fleet, "db-1", None).await.unwrap(), "db-1");
    assert_eq!(*store.late.lock().unwrap(), ["db-1"]);
}

#[tokio::test]
async fn join_request_that_is_invalid_is_answered_and_uses_up_no_token() {
    let store = Arc::new(Store::default());
    store.tokens.lock().unwrap().insert("one".into());
    let fleet = welcome(
        Fleet::new(ListenerLimits::default()).await,
        Arc::clone(&store),
    );
    let none = Papers::none();
    let long = format!("{}\n", "x".repeat(MAX_JOIN_LINE_BYTES + 10));
    let no_request = r#"{"token":{"id":"one","secret":"s"},"name":"db-1","request":"none"}"#;
    for line in ["\n", "{}\n", &format!("{no_request}\n"), &long] {
        let JoinAnswer::Refused(refusal) = said(&fleet, &none, line).await else {
            panic!("{line} is refused");
        };
        assert_eq!(refusal.rule, "request", "{line}: {refusal}");
        assert!(refusal.hint.is_some());
    }
    assert!(store.tokens.lock().unwrap().contains("one"));
}
