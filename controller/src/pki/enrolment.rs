//! How somebody becomes an agent of this fleet: one line from it, one line back, and a certificate.
//! Who may is decided elsewhere, behind [`EnrolmentPolicy`].

use crate::listener::JoiningConnection;
use crate::pki::ca::{AgentIdentity, CertificateAuthority, read_request};
use backburn_experiments::join::{
    JoinAnswer, Joined, Joining, LONGEST_JOIN_LINE, ShownToken, problem_with_name,
};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// How long one visit may take, whatever the visitor does.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may join: the store of tokens and agents.
pub trait EnrolmentPolicy: Send + Sync {
    /// Whether this token lets an agent in, and what the agent is called: the name that it asked for, or another. A token
    /// that is good once is used up by this. A refusal of it has the rule `token`; of a name that somebody else has, `name`.
    fn admit(
        &self,
        token: &ShownToken,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// This certificate is about to be handed out, for so long; `replaced` is the one that was shown, where it is a renewal. A
    /// refusal keeps it back. What must be known about an agent after a crash is to be stored when this returns.
    fn issue(
        &self,
        issued: &AgentIdentity,
        replaced: Option<&AgentIdentity>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Serves one visitor: certificates of this life. Returns the agent that has got one.
///
/// # Errors
/// The visitor has gone, took too long, or did not speak its protocol. A refusal is no error: it was answered, and there is no agent.
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
                tracing::info!(%peer, %refusal, "may not join");
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
) -> io::Result<Result<Joining, Refusal>> {
    let mut line = Vec::new();
    stream
        .take(LONGEST_JOIN_LINE as u64 + 1)
        .read_until(b'\n', &mut line)
        .await?;
    if line.last() != Some(&b'\n') {
        if line.len() <= LONGEST_JOIN_LINE {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let what = format!("a line of more than {LONGEST_JOIN_LINE} bytes");
        return Ok(Err(Refusal::new("request", what).hint("fewer labels")));
    }
    let unreadable = |why: String| {
        Refusal::new("request", format!("what was asked can't be read: {why}"))
            .hint("agent and controller of the same version")
    };
    let asked = json::read_bytes(&line).map_err(|problems| json::in_one_line(&problems));
    let asked =
        asked.and_then(|asked| serde_json::from_value(asked).map_err(|error| error.to_string()));
    Ok(asked.map_err(unreadable))
}

async fn answer(
    joining: &Joining,
    client_identity: Option<&AgentIdentity>,
    authority: &CertificateAuthority,
    lifetime: Duration,
    enrol: &impl EnrolmentPolicy,
) -> Result<(Joined, AgentIdentity), Refusal> {
    let request = |error: crate::pki::ca::CaError| {
        Refusal::new("request", error.to_string())
            .hint("a certificate request (PKCS #10) in PEM, signed by its own key")
    };
    // Looked at first: a token is not to be used up for nothing.
    read_request(&joining.request).map_err(request)?;
    let bad_name =
        |problem| Refusal::new("name", problem).hint("`--name` gives the agent another one");
    if let Some(problem) = problem_with_name(&joining.name) {
        return Err(bad_name(problem));
    }
    let (name, replaced) = match (&joining.token, client_identity) {
        // A token goes before a certificate: it is what somebody has just handed out.
        (Some(token), _) => (
            enrol.admit(token, &joining.name, &joining.labels).await?,
            None,
        ),
        (None, Some(client_identity)) if client_identity.name == joining.name => {
            (client_identity.name.clone(), Some(client_identity))
        }
        (None, Some(client_identity)) => {
            let what = format!(
                "the certificate shown is that of `{}`, not of `{}`",
                client_identity.name, joining.name
            );
            return Err(Refusal::new("name", what).hint("another name needs a join token"));
        }
        (None, None) => {
            let what = "neither a join token nor a certificate was shown";
            return Err(
                Refusal::new("token", what).hint("an operator of the controller makes a token")
            );
        }
    };
    let signed = authority
        .sign(&joining.request, &name, lifetime)
        .map_err(request)?;
    let agent = AgentIdentity {
        name: name.clone(),
        serial: signed.serial,
    };
    enrol.issue(&agent, replaced, lifetime).await?;
    let joined = Joined {
        name,
        certificate: signed.certificate,
        authority: authority.certificate().into(),
        lasts: HumanDuration(lifetime),
    };
    Ok((joined, agent))
}
