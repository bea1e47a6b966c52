//! The controller's port. TLS decides what a connection is for: the client selects a protocol by name (ALPN), and an agent
//! shows a certificate of the controller's authority.
//!
//! Slow clients cannot block the port: connections are accepted at once, a handshake has a deadline, and if there are too many,
//! [`ConnectionSlots`] says which ones make room. No TLS session is resumed, because a resumed session shows no certificate and
//! could not be refused any more.

use crate::connection_slots::{ConnectionSlots, Slot, SlotCounts, Standing};
use crate::pki::ca::{
    AgentIdentity, AuthorityKeys, CaError, CertificateAuthority, expiry, identity,
};
use crate::pki::controller_certificate::ControllerCertificate;
use crate::pki::enrolment::JoiningConnection;
use crate::pki::owner_certificate::OwnerCertificate;
use backburn_experiments::join::{API_PROTOCOL, HTTP_PROTOCOL, JOIN_PROTOCOL, LINK_PROTOCOL};
use jiff::Timestamp;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
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

/// How many connections may wait to be accepted, as far as the host allows (`net.core.somaxconn`). A client that finds no place
/// there tries again a second later.
const ACCEPT_BACKLOG: i32 = 4096;
/// How many connections are closed at a time when the file descriptors are used up.
const EVICTED_AT_ONCE: usize = 16;
/// How long to wait for connections to close when the file descriptors are used up.
const EVICTION_DELAY: Duration = Duration::from_millis(5);
/// How long to wait after another failure to accept a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How long after its end a certificate can still be renewed by default.
pub const DEFAULT_RENEWAL_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The limits of a listener.
#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// How long a handshake may take from when the connection is accepted.
    pub handshake: Duration,
    /// How many connections that are not agents' are open at a time.
    pub slots: SlotCounts,
    /// How many agents may be joining at a time.
    pub joining: usize,
    /// How long after its end a certificate can still be renewed. It is good for nothing else then.
    pub renewal_grace: Duration,
    /// How long sent data may stay unacknowledged before the kernel closes a connection. Nothing else reveals a peer that has
    /// silently vanished, and heartbeats are sent all the time (RFC 5482; tcp(7), `TCP_USER_TIMEOUT`).
    pub unacknowledged: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        ListenerLimits {
            handshake: Duration::from_secs(10),
            slots: SlotCounts::default(),
            joining: 64,
            renewal_grace: DEFAULT_RENEWAL_GRACE,
            unacknowledged: Duration::from_secs(30),
        }
    }
}

/// An accepted connection, by what it is for.
#[derive(Debug)]
pub enum Connection {
    /// An agent that connects.
    Agent(AuthenticatedAgent),
    /// An agent that asks for a certificate; see [`crate::pki::enrolment::serve`].
    Joining(JoiningConnection),
    /// A client that uses HTTP/1.1, and has shown no token yet.
    Http {
        /// The TLS stream to the client.
        stream: TlsStream<TcpStream>,
        /// The address that the client connects from.
        peer: SocketAddr,
        /// The connection's slot, which may be needed for another one.
        slot: Arc<Slot>,
    },
}

/// A connection of an agent that has shown a valid certificate.
#[derive(Debug)]
pub struct AuthenticatedAgent {
    /// The identity that its certificate proves.
    pub identity: AgentIdentity,
    /// The TLS stream. It is boxed because it is moved many times, and each waiting task would reserve space for it each time.
    pub stream: Box<TlsStream<TcpStream>>,
    /// The address that the agent connects from.
    pub peer: SocketAddr,
    /// When its certificate expires.
    pub expires: Option<Timestamp>,
    /// Whether an authority has signed it that is being replaced.
    pub is_of_retiring: bool,
}

/// Accepts connections at the controller's port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    protocols: Arc<Protocols>,
    limits: ListenerLimits,
    handshakes: JoinSet<Option<Connection>>,
    slots: ConnectionSlots,
}

/// The TLS configuration of each protocol.
#[derive(Debug)]
struct Protocols {
    link: Arc<ServerConfig>,
    join: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    api: Arc<ServerConfig>,
    /// What is shown to those who use HTTP without pinning the authority, if they ask for one of its names.
    owner: OnceLock<Arc<OwnerCertificate>>,
    joining: Arc<Semaphore>,
    authority: Arc<CertificateAuthority>,
}

impl Listener {
    /// Serves TLS on this socket, with a certificate for these host names and addresses. `is_revoked` is called in the
    /// handshake for every certificate that is shown, and must be fast.
    ///
    /// # Errors
    /// A name cannot be in a certificate.
    pub fn open(
        listener: TcpListener,
        authority: &Arc<CertificateAuthority>,
        names: Vec<String>,
        limits: ListenerLimits,
        is_revoked: impl Fn(&AgentIdentity) -> bool + Send + Sync + 'static,
    ) -> Result<Self, CaError> {
        let backlog = nix::sys::socket::Backlog::new(ACCEPT_BACKLOG);
        // Listening already: this only makes the queue longer.
        if let Err(error) = backlog.and_then(|backlog| nix::sys::socket::listen(&listener, backlog))
        {
            tracing::warn!(%error, "the queue of the port could not be made longer");
        }
        let own = Arc::new(ControllerCertificate::new(Arc::clone(authority), names)?);
        let is_revoked: IsRevoked = Arc::new(is_revoked);
        let config = |protocol: &[u8], who: Option<bool>, grace: Duration| {
            config(authority, &own, protocol, who, grace, &is_revoked)
                .map_err(|error| CaError::Request(error.to_string()))
        };
        Ok(Listener {
            protocols: Arc::new(Protocols {
                link: config(LINK_PROTOCOL.as_bytes(), Some(true), Duration::ZERO)?,
                join: config(JOIN_PROTOCOL.as_bytes(), Some(false), limits.renewal_grace)?,
                http: config(HTTP_PROTOCOL.as_bytes(), None, Duration::ZERO)?,
                api: config(API_PROTOCOL.as_bytes(), None, Duration::ZERO)?,
                owner: OnceLock::new(),
                joining: Arc::new(Semaphore::new(limits.joining)),
                authority: Arc::clone(authority),
            }),
            listener,
            slots: ConnectionSlots::new(limits.slots),
            limits,
            handshakes: JoinSet::new(),
        })
    }

    /// Shows this certificate to clients that ask for one of its names and are neither agents nor pin the controller's authority. It can
    /// be set once.
    pub fn show_owner_certificate(&self, certificate: Arc<OwnerCertificate>) {
        if self.protocols.owner.set(certificate).is_err() {
            tracing::error!("the owner's certificate was set twice");
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The socket's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the next connection. Cancelling it loses nothing; no connections are accepted while nobody waits.
    pub async fn next_connection(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                accepted = self.listener.accept() => self.accepted(accepted).await,
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
                let slot = self.slots.enter(peer.ip());
                self.handshakes.spawn(async move {
                    let connection = tokio::time::timeout(
                        deadline,
                        handshake(&protocols, stream, peer, &slot),
                    );
                    let connection = tokio::select! {
                        connection = connection => connection,
                        () = slot.evicted() => {
                            tracing::debug!(%peer, "closed a connection to make room for another");
                            return None;
                        }
                    };
                    match connection {
                        Ok(Ok(connection)) => Some(connection.into_connection(slot)),
                        Ok(Err(error)) => {
                            tracing::info!(%peer, %error, "refused a connection");
                            None
                        }
                        Err(_) => {
                            tracing::info!(%peer, "refused a connection: the handshake took too long");
                            None
                        }
                    }
                });
            }
            // The client disconnected before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "a connection could not be accepted");
                let is_out_of_descriptors = error
                    .raw_os_error()
                    .map(nix::errno::Errno::from_raw)
                    .is_some_and(|errno| {
                        matches!(errno, nix::errno::Errno::EMFILE | nix::errno::Errno::ENFILE)
                    });
                let delay = match is_out_of_descriptors && self.slots.evict(EVICTED_AT_ONCE) {
                    true => EVICTION_DELAY,
                    false => ACCEPT_RETRY_DELAY,
                };
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// A connection whose handshake is complete.
enum Handshaken {
    Agent(AuthenticatedAgent),
    Joining(JoiningConnection),
    Http(TlsStream<TcpStream>, SocketAddr),
}

impl Handshaken {
    /// The connection, which keeps its slot only while its client has to prove more.
    fn into_connection(self, slot: Slot) -> Connection {
        match self {
            Handshaken::Agent(agent) => Connection::Agent(agent),
            Handshaken::Joining(joining) => Connection::Joining(joining),
            Handshaken::Http(stream, peer) => {
                slot.raise(Standing::Anonymous);
                let slot = Arc::new(slot);
                Connection::Http { stream, peer, slot }
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
    slot: &Slot,
) -> io::Result<Handshaken> {
    stream.set_nodelay(true)?;
    stream.readable().await?;
    slot.raise(Standing::Handshake);
    let address = stream.local_addr()?.ip();
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
            .ok_or_else(|| io::Error::other("the agent shows no certificate"))?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(|chain| chain.first());
        let expires = shown.and_then(expiry);
        let is_of_retiring = shown.is_some_and(|shown| protocols.authority.is_of_retiring(shown));
        return Ok(Handshaken::Agent(AuthenticatedAgent {
            identity,
            expires,
            is_of_retiring,
            stream: Box::new(stream),
            peer,
        }));
    }
    if offers(JOIN_PROTOCOL) {
        let slot = Arc::clone(&protocols.joining)
            .try_acquire_owned()
            .map_err(|_| io::Error::other("too many agents are joining at a time"))?;
        let stream = start.into_stream(Arc::clone(&protocols.join)).await?;
        return Ok(Handshaken::Joining(JoiningConnection {
            identity: client_identity(&stream)?,
            is_late: shows_expired_certificate(&stream),
            stream,
            peer,
            _slot: slot,
        }));
    }
    let config = if offers(API_PROTOCOL) {
        Arc::clone(&protocols.api)
    } else {
        let host = start.client_hello().server_name().map(str::to_owned);
        let owner = protocols.owner.get();
        owner
            .and_then(|owner| owner.config_for(host.as_deref(), address))
            .unwrap_or_else(|| Arc::clone(&protocols.http))
    };
    let stream = start.into_stream(config).await?;
    Ok(Handshaken::Http(stream, peer))
}

/// The agent whose certificate the client has shown, if any.
fn client_identity(stream: &TlsStream<TcpStream>) -> io::Result<Option<AgentIdentity>> {
    let (_, connection) = stream.get_ref();
    connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| identity(certificate).map_err(io::Error::other))
        .transpose()
}

/// Whether the client has shown a certificate that has expired, which is accepted for a renewal only.
fn shows_expired_certificate(stream: &TlsStream<TcpStream>) -> bool {
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates();
    let end = chain.and_then(|chain| chain.first()).and_then(end_of);
    end.is_some_and(|end| end < UnixTime::now())
}

/// When a certificate expires. None if it cannot be read.
fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let end = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(end)))
}

type IsRevoked = Arc<dyn Fn(&AgentIdentity) -> bool + Send + Sync>;

/// The TLS configuration of one protocol. Clients must show a certificate (`Some(true)`), may show one (`Some(false)`), or are
/// not asked for one (`None`). A certificate is accepted until `grace` after its end.
fn config(
    authority: &Arc<CertificateAuthority>,
    own: &Arc<ControllerCertificate>,
    protocol: &[u8],
    asked: Option<bool>,
    grace: Duration,
    is_revoked: &IsRevoked,
) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?;
    let builder = match asked {
        None => builder.with_no_client_auth(),
        Some(is_mandatory) => {
            builder.with_client_cert_verifier(Arc::new(AgentCertificateVerifier {
                certificates: Mutex::new(IssuedVerifier::new(authority)?),
                authority: Arc::clone(authority),
                is_mandatory,
                grace,
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

/// Verifies what an authority has signed, with the keys that it had when this was made.
struct IssuedVerifier {
    keys: Arc<AuthorityKeys>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl IssuedVerifier {
    fn new(authority: &CertificateAuthority) -> Result<Self, Box<dyn std::error::Error>> {
        let keys = authority.keys();
        let (roots, provider) = (Arc::new(keys.roots()?), Arc::new(ring::default_provider()));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        Ok(IssuedVerifier { keys, verifier })
    }
}

/// Accepts certificates of the controller's authority that name an agent and are not revoked. TLS itself reports what is wrong,
/// so that an agent can show it.
struct AgentCertificateVerifier {
    authority: Arc<CertificateAuthority>,
    certificates: Mutex<IssuedVerifier>,
    is_mandatory: bool,
    grace: Duration,
    is_revoked: IsRevoked,
}

impl std::fmt::Debug for AgentCertificateVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentCertificateVerifier")
            .field("is_mandatory", &self.is_mandatory)
            .finish_non_exhaustive()
    }
}

impl AgentCertificateVerifier {
    /// What the authority has signed, by the keys that it has now.
    fn issued(&self) -> Arc<dyn ClientCertVerifier> {
        let mut issued = (self.certificates.lock()).unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&issued.keys, &self.authority.keys()) {
            match IssuedVerifier::new(&self.authority) {
                Ok(new) => *issued = new,
                Err(error) => {
                    tracing::error!(%error, "the authority's new certificate cannot be used");
                }
            }
        }
        Arc::clone(&issued.verifier)
    }

    /// The last moment at which an expired certificate was valid. None unless that is less than the grace ago.
    fn last_moment(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
        let end = end_of(certificate)?;
        let until = end.as_secs().checked_add(self.grace.as_secs())?;
        (!self.grace.is_zero() && now.as_secs() <= until).then_some(end)
    }
}

impl ClientCertVerifier for AgentCertificateVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: an agent has one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verify = |at| self.issued().verify_client_cert(certificate, between, at);
        let verified = match (verify(now), self.last_moment(certificate, now)) {
            (
                Err(Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                )),
                // Everything else about it is verified as of then.
                Some(last_moment),
            ) => verify(last_moment)?,
            (verified, _) => verified?,
        };
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
        self.issued()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued().supported_verify_schemes()
    }
}
