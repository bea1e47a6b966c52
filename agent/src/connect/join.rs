//! Joining a controller, and renewing the certificate. The key is made here and stays here.

use super::dial::{DialError, Tls};
use super::membership::{Membership, fingerprint_of_pem, now};
use super::trust::{by_membership, by_token};
use crate::host::{Host, HostError};
use backburn_experiments::join::{
    JOIN_PROTOCOL, JoinAnswer, JoinToken, Joining, LONGEST_JOIN_LINE, ShownToken,
};
use backburn_experiments::wire::Refusal;
use rcgen::{CertificateParams, KeyPair};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long a controller may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Why an agent has not joined.
#[derive(Debug, thiserror::Error)]
pub enum NotJoined {
    /// There was no talk.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The controller's answer.
    #[error("the controller refuses: {0}")]
    Refused(Refusal),
    /// No key, or no request for a certificate, could be made.
    #[error("no key could be made: {0}")]
    Key(#[from] rcgen::Error),
    /// It could not be kept.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Joins the controller at `HOST[:PORT]`, whatever was joined before.
///
/// # Errors
/// What was there before is still there.
pub fn join(
    host: &Host,
    state: &Path,
    controller: &str,
    token: &JoinToken,
    name: &str,
    given: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Result<Membership, NotJoined> {
    let tls = Tls::dial(controller, by_token(&token.authority, JOIN_PROTOCOL), None)?;
    let shown = ShownToken {
        id: token.id.clone(),
        secret: token.secret.clone(),
    };
    let member = ask(tls, controller, Some(shown), name, given, labels)?;
    if fingerprint_of_pem(&member.authority).as_ref() != Some(&token.authority) {
        let what = format!("{controller}: it names another authority than the token");
        return Err(DialError::new(what, "a token of this controller").into());
    }
    member.keep(host, state)?;
    Ok(member)
}

/// Has the certificate renewed, with a new key; it is used from the next connection on.
///
/// # Errors
/// The old one is still there.
pub fn renew(host: &Host, state: &Path, member: &Membership) -> Result<Membership, NotJoined> {
    let config = by_membership(member, JOIN_PROTOCOL);
    let tls = Tls::dial(&member.controller, config, None)?;
    let mut renewed = ask(
        tls,
        &member.controller,
        None,
        &member.name,
        &member.labels,
        &BTreeMap::new(),
    )?;
    renewed.authority.clone_from(&member.authority);
    renewed.keep(host, state)?;
    Ok(renewed)
}

fn ask(
    mut tls: Tls,
    controller: &str,
    token: Option<ShownToken>,
    name: &str,
    given: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Result<Membership, NotJoined> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    let joining = Joining {
        token,
        name: name.to_owned(),
        request,
        labels: labels.clone(),
    };
    let unreadable = |error: serde_json::Error| {
        let what = format!("{controller}: the answer can't be read: {error}");
        DialError::new(what, "agent and controller of the same version")
    };
    let mut line = serde_json::to_vec(&joining).map_err(unreadable)?;
    line.push(b'\n');
    let answer = tls.ask(&line, LONGEST_JOIN_LINE, ANSWER_WITHIN)?;
    match serde_json::from_str(&answer).map_err(unreadable)? {
        JoinAnswer::Refused(refusal) => Err(NotJoined::Refused(refusal)),
        JoinAnswer::Joined(joined) => Ok(Membership {
            controller: controller.to_owned(),
            name: joined.name,
            labels: given.clone(),
            key: key.serialize_pem(),
            certificate: joined.certificate,
            authority: joined.authority,
            lasts: joined.lasts,
            since: now(),
        }),
    }
}
