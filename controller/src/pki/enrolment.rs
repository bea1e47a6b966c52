//! The protocol by which an agent joins the fleet or renews its certificate: one line from the agent, one line back. An
//! [`EnrolmentPolicy`] decides which agents may join.

use crate::pki::ca::{AgentIdentity, CertificateAuthority, read_request};
use backburn_experiments::join::{
    JoinAnswer, JoinRequest, JoinResponse, MAX_JOIN_LINE_BYTES, PresentedToken, problem_with_name,
};
use backburn_experiments::labels::Labels;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, json};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;

/// How long a join request may take, whatever the client does.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Decides which agents may join.
pub trait EnrolmentPolicy: Send + Sync {
    /// Admits an agent by a token, which is used up. `name` is the name that the agent asks for, and `labels` are its own words, which
    /// grant nothing. The refusal of a token has the rule `token`, and that of a name that is taken has the rule `name`.
    fn admit(
        &self,
        token: &PresentedToken,
        name: &str,
        labels: &Labels,
    ) -> impl Future<Output = Result<Admission, Refusal>> + Send;

    /// Records a certificate that is about to be issued, signed by the authority with the fingerprint `issuer`. Returns the labels that the agent is granted. A refusal
    /// withholds the certificate. What must be known about an agent after a crash is stored when this returns.
    fn issue(
        &self,
        issued: &AgentIdentity,
        reason: CertificateReason<'_>,
        issuer: &str,
    ) -> impl Future<Output = Result<Labels, Refusal>> + Send;
}

/// What a join token admits.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// The name of the agent: the one that it asked for, or another.
    pub name: String,
    /// The labels that the token grants.
    pub labels: Labels,
    /// The id of the token.
    pub token: String,
    /// The name of the API token that created it.
    pub by: String,
    /// Whether the token was created for this name, so that it may replace the agent of that name.
    pub replaces: bool,
}

/// Why a certificate is issued.
#[derive(Debug, Clone, Copy)]
pub enum CertificateReason<'a> {
    /// An agent joins.
    Joining(&'a Admission),
    /// An agent renews this certificate, which it has shown.
    Renewal(&'a AgentIdentity),
    /// An agent renews this certificate, which has expired a short while ago.
    LateRenewal(&'a AgentIdentity),
}

/// A connection of an agent that asks for a certificate.
#[derive(Debug)]
pub struct JoiningConnection {
    /// The agent, if it has shown a certificate that is to be renewed.
    pub identity: Option<AgentIdentity>,
    /// Whether that certificate has expired. It can be renewed for a while, and is good for nothing else.
    pub is_late: bool,
    /// The TLS stream to the agent.
    pub stream: TlsStream<TcpStream>,
    /// The address that the agent connects from.
    pub peer: SocketAddr,
    /// One of the limited number of such connections, as long as this lives.
    pub(crate) _slot: OwnedSemaphorePermit,
}

/// Serves one join request with a certificate of this lifetime. Returns the agent that got it; none if it was refused, which
/// is an answer and not an error.
///
/// # Errors
/// The client disconnected, took too long, or violated the protocol.
pub async fn serve(
    connection: JoiningConnection,
    authority: &CertificateAuthority,
    lifetime: Duration,
    enrol: &impl EnrolmentPolicy,
) -> io::Result<Option<AgentIdentity>> {
    let visit = async {
        let mut stream = BufReader::with_capacity(1024, connection.stream);
        let answer = match read_request_line(&mut stream).await? {
            Ok(joining) => {
                answer(
                    &joining,
                    connection.identity.as_ref(),
                    connection.is_late,
                    authority,
                    lifetime,
                    enrol,
                )
                .await
            }
            Err(refusal) => Err(refusal),
        };
        let (said, agent) = match answer {
            Ok((joined, agent)) => (JoinAnswer::Joined(joined), Some(agent)),
            Err(refusal) => {
                let peer = connection.peer;
                tracing::info!(%peer, %refusal, "refused a join request");
                (JoinAnswer::Refused(refusal), None)
            }
        };
        let mut line = serde_json::to_vec(&said)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        stream.shutdown().await?;
        Ok(agent)
    };
    tokio::time::timeout(JOIN_TIMEOUT, visit)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn read_request_line(
    stream: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> io::Result<Result<JoinRequest, Refusal>> {
    let mut line = Vec::new();
    stream
        .take(MAX_JOIN_LINE_BYTES as u64 + 1)
        .read_until(b'\n', &mut line)
        .await?;
    if line.last() != Some(&b'\n') {
        if line.len() <= MAX_JOIN_LINE_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let what = format!("the request is longer than {MAX_JOIN_LINE_BYTES} bytes");
        return Ok(Err(
            Refusal::new("request", what).hint("give the agent fewer labels")
        ));
    }
    let unreadable = |why: String| {
        Refusal::new("request", format!("the request cannot be parsed: {why}"))
            .hint("use the same version of agent and controller")
    };
    let asked = json::read_bytes(&line).map_err(|problems| json::in_one_line(&problems));
    let asked =
        asked.and_then(|asked| serde_json::from_value(asked).map_err(|error| error.to_string()));
    Ok(asked.map_err(unreadable))
}

async fn answer(
    joining: &JoinRequest,
    client_identity: Option<&AgentIdentity>,
    is_late: bool,
    authority: &CertificateAuthority,
    lifetime: Duration,
    enrol: &impl EnrolmentPolicy,
) -> Result<(JoinResponse, AgentIdentity), Refusal> {
    let request = |error: crate::pki::ca::CaError| {
        Refusal::new("request", error.to_string())
            .hint("send a certificate request (PKCS #10) in PEM that is signed by its own key")
    };
    // Checked first, so that no token is used up in vain.
    read_request(&joining.request).map_err(request)?;
    let bad_name = |problem| Refusal::new("name", problem).hint("choose another one with `--name`");
    if let Some(problem) = problem_with_name(&joining.name) {
        return Err(bad_name(problem));
    }
    let admission;
    let (name, reason) = match (&joining.token, client_identity) {
        // A token takes precedence over a certificate, because somebody has just created it.
        (Some(token), _) => {
            admission = enrol.admit(token, &joining.name, &joining.labels).await?;
            (
                admission.name.clone(),
                CertificateReason::Joining(&admission),
            )
        }
        (None, Some(client_identity)) if client_identity.name == joining.name => (
            client_identity.name.clone(),
            match is_late {
                true => CertificateReason::LateRenewal(client_identity),
                false => CertificateReason::Renewal(client_identity),
            },
        ),
        (None, Some(client_identity)) => {
            let what = format!(
                "the certificate is that of `{}`, not of `{}`",
                client_identity.name, joining.name
            );
            return Err(Refusal::new("name", what).hint("a new name requires a join token"));
        }
        (None, None) => {
            let what = "the request has neither a join token nor a certificate";
            return Err(Refusal::new("token", what)
                .hint("an admin of the controller creates one with `backburn join-token`"));
        }
    };
    let signed = authority
        .sign(&joining.request, &name, lifetime)
        .map_err(request)?;
    let agent = AgentIdentity {
        name: name.clone(),
        serial: signed.serial,
    };
    let labels = enrol.issue(&agent, reason, &signed.issuer).await?;
    let joined = JoinResponse {
        name,
        certificate: signed.certificate,
        authority: authority.trusted_certificates(),
        lasts: HumanDuration(lifetime),
        labels: Some(labels),
    };
    Ok((joined, agent))
}
