//! The controller's one port. TLS says who comes and what for: the protocol is chosen by name
//! (ALPN), an agent shows a certificate of our authority, everybody else is asked for what their
//! protocol asks for.
//!
//! Nobody holds the door: a handshake has a deadline, so many go on at a time, and while others
//! wait, the oldest that is slow makes room. No session is resumed, since a resumed one shows no
//! certificate and so could not be refused any more.

use crate::pki::ca::{
    AgentIdentity, CaError, CertificateAuthority, ControllerCertificate, identity,
};
use backburn_experiments::join::{JOIN_PROTOCOL, LINK_PROTOCOL};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme, version::TLS13,
};
use tokio_rustls::server::TlsStream;

/// What is spoken with people and programs: the interface, and later the page.
const HTTP: &[u8] = b"http/1.1";

/// What the door puts up with.
#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// How long a handshake may take, from the connection on.
    pub handshake: Duration,
    /// How long it may while others wait.
    pub handshake_when_full: Duration,
    /// How many go on at a time.
    pub handshakes: usize,
    /// How many may be joining at a time.
    pub joining: usize,
    /// How long what was sent may go unacknowledged before the kernel gives a connection up. Somebody who has vanished
    /// without a word is known by nothing else, and beats are sent all the time (RFC 5482; tcp(7), `TCP_USER_TIMEOUT`).
    pub unacknowledged: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        ListenerLimits {
            handshake: Duration::from_secs(10),
            handshake_when_full: Duration::from_secs(1),
            handshakes: 256,
            joining: 64,
            unacknowledged: Duration::from_secs(30),
        }
    }
}

/// Who has come in.
#[derive(Debug)]
pub enum Connection {
    /// An agent, over its link.
    Agent(AuthenticatedAgent),
    /// Somebody who asks for a certificate; see [`crate::pki::enrolment::serve`].
    JoinRequest(JoiningConnection),
    /// Somebody who speaks HTTP/1.1, and has shown nothing yet.
    Http {
        /// The connection.
        stream: TlsStream<TcpStream>,
        /// From where.
        peer: SocketAddr,
    },
}

/// An agent, over its link.
#[derive(Debug)]
pub struct AuthenticatedAgent {
    /// Who it is.
    pub identity: AgentIdentity,
    /// The link, in a place of its own: it is handed on many times, and each task that waits would keep room for it at each.
    pub stream: Box<TlsStream<TcpStream>>,
    /// From where.
    pub peer: SocketAddr,
}

/// Somebody who asks for a certificate.
#[derive(Debug)]
pub struct JoiningConnection {
    /// Who it is, where it has shown a certificate that is to be renewed.
    pub identity: Option<AgentIdentity>,
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// From where.
    pub peer: SocketAddr,
    /// One of [`ListenerLimits::joining`], as long as this lives.
    _place: OwnedSemaphorePermit,
}

/// The controller's one port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    protocols: Arc<Protocols>,
    limits: ListenerLimits,
    handshakes: JoinSet<Option<Connection>>,
    /// The handshakes by age, finished ones among them.
    oldest: VecDeque<(Instant, AbortHandle)>,
}

/// What TLS is like, by protocol.
#[derive(Debug)]
struct Protocols {
    link: Arc<ServerConfig>,
    join: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    joining: Arc<Semaphore>,
}

impl Listener {
    /// Opens the door on this listener, with a certificate for these host names and addresses.
    /// `is_revoked` is asked for every certificate that is shown, within the handshake: it is to be fast.
    ///
    /// # Errors
    /// A name can't be in a certificate.
    pub fn open(
        listener: TcpListener,
        authority: &Arc<CertificateAuthority>,
        names: Vec<String>,
        limits: ListenerLimits,
        is_revoked: impl Fn(&AgentIdentity) -> bool + Send + Sync + 'static,
    ) -> Result<Self, CaError> {
        let own = Arc::new(ControllerCertificate::new(Arc::clone(authority), names)?);
        let is_revoked: IsRevoked = Arc::new(is_revoked);
        let config = |protocol: &[u8], who: Option<bool>| {
            config(authority, &own, protocol, who, &is_revoked)
                .map_err(|error| CaError::Request(error.to_string()))
        };
        Ok(Listener {
            protocols: Arc::new(Protocols {
                link: config(LINK_PROTOCOL.as_bytes(), Some(true))?,
                join: config(JOIN_PROTOCOL.as_bytes(), Some(false))?,
                http: config(HTTP, None)?,
                joining: Arc::new(Semaphore::new(limits.joining)),
            }),
            listener,
            limits,
            handshakes: JoinSet::new(),
            oldest: VecDeque::new(),
        })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// What the socket said.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next one who has come in. May be dropped and asked again; nobody comes in while nobody asks.
    pub async fn next_connection(&mut self) -> Connection {
        loop {
            while self
                .oldest
                .front()
                .is_some_and(|(_, handshake)| handshake.is_finished())
            {
                self.oldest.pop_front();
            }
            // Those that finished behind a slow one go when they are many.
            if self.oldest.len() > 2 * self.limits.handshakes {
                self.oldest
                    .retain(|(_, handshake)| !handshake.is_finished());
            }
            let is_full = self.handshakes.len() >= self.limits.handshakes;
            let evict_at = self
                .oldest
                .front()
                .map(|(since, _)| *since + self.limits.handshake_when_full)
                .unwrap_or_else(Instant::now);
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                () = tokio::time::sleep_until(evict_at), if is_full => {
                    if let Some((_, handshake)) = self.oldest.pop_front() {
                        handshake.abort();
                    }
                }
                accepted = self.listener.accept(), if !is_full => self.accepted(accepted).await,
            }
        }
    }

    async fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => {
                let protocols = Arc::clone(&self.protocols);
                let deadline = self.limits.handshake;
                if let Err(error) = set_user_timeout(&stream, self.limits.unacknowledged) {
                    return tracing::error!(%peer, %error, "a connection could not be set up");
                }
                let handshake = self.handshakes.spawn(async move {
                    let connection =
                        tokio::time::timeout(deadline, handshake(&protocols, stream, peer)).await;
                    match connection {
                        Ok(Ok(connection)) => Some(connection),
                        Ok(Err(error)) => {
                            tracing::info!(%peer, %error, "not let in");
                            None
                        }
                        Err(_) => {
                            tracing::info!(%peer, "not let in: the handshake took too long");
                            None
                        }
                    }
                });
                self.oldest.push_back((Instant::now(), handshake));
            }
            // Whoever has gone before we came to the door is not our trouble.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of descriptors, mostly: whoever leaves gives one back.
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn set_user_timeout(stream: &TcpStream, unacknowledged: Duration) -> nix::Result<()> {
    let millis = u32::try_from(unacknowledged.as_millis()).unwrap_or(u32::MAX);
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::TcpUserTimeout, &millis)
}

async fn handshake(
    protocols: &Protocols,
    stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let offers = |protocol: &str| {
        start
            .client_hello()
            .alpn()
            .is_some_and(|mut offered| offered.any(|name| name == protocol.as_bytes()))
    };
    if offers(LINK_PROTOCOL) {
        let stream = start.into_stream(Arc::clone(&protocols.link)).await?;
        let identity = client_identity(&stream)?
            .ok_or_else(|| io::Error::other("an agent that shows no certificate"))?;
        return Ok(Connection::Agent(AuthenticatedAgent {
            identity,
            stream: Box::new(stream),
            peer,
        }));
    }
    if offers(JOIN_PROTOCOL) {
        let place = Arc::clone(&protocols.joining)
            .try_acquire_owned()
            .map_err(|_| io::Error::other("too many are joining at a time"))?;
        let stream = start.into_stream(Arc::clone(&protocols.join)).await?;
        return Ok(Connection::JoinRequest(JoiningConnection {
            identity: client_identity(&stream)?,
            stream,
            peer,
            _place: place,
        }));
    }
    let stream = start.into_stream(Arc::clone(&protocols.http)).await?;
    Ok(Connection::Http { stream, peer })
}

/// The agent whose certificate was shown, if any.
fn client_identity(stream: &TlsStream<TcpStream>) -> io::Result<Option<AgentIdentity>> {
    let (_, connection) = stream.get_ref();
    connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| identity(certificate).map_err(io::Error::other))
        .transpose()
}

type IsRevoked = Arc<dyn Fn(&AgentIdentity) -> bool + Send + Sync>;

/// TLS for one protocol: who has to show a certificate (`Some(true)`), may (`Some(false)`), or is not asked.
fn config(
    authority: &CertificateAuthority,
    own: &Arc<ControllerCertificate>,
    protocol: &[u8],
    asked: Option<bool>,
    is_revoked: &IsRevoked,
) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?;
    let builder = match asked {
        None => builder.with_no_client_auth(),
        Some(is_mandatory) => {
            let roots = Arc::new(authority.roots()?);
            let certificates =
                WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(Arc::new(AgentCertificateVerifier {
                certificates,
                is_mandatory,
                is_revoked: Arc::clone(is_revoked),
            }))
        }
    };
    let own: Arc<ControllerCertificate> = Arc::clone(own);
    let mut config = builder.with_cert_resolver(own);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Who shows a certificate of our authority that names an agent and is not revoked. What is wrong
/// is told by TLS itself, so that an agent can say it.
struct AgentCertificateVerifier {
    certificates: Arc<dyn ClientCertVerifier>,
    is_mandatory: bool,
    is_revoked: IsRevoked,
}

impl std::fmt::Debug for AgentCertificateVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents")
            .field("is_mandatory", &self.is_mandatory)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for AgentCertificateVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.certificates.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .certificates
            .verify_client_cert(certificate, between, now)?;
        let identity = identity(certificate).map_err(|_| {
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        })?;
        if (self.is_revoked)(&identity) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.certificates
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.certificates
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.certificates.supported_verify_schemes()
    }
}
