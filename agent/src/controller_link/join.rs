//! Joining a controller and renewing the certificate. The key is created on this host and never leaves it.

use super::credentials::{Credentials, fingerprints_of_pem, now};
use super::deadline::ConnectError;
use super::proxy::Route;
use super::tls_connect::TlsConnection;
use super::verify::{config_from_credentials, config_from_token};
use crate::host::{Host, HostError};
use backburn_experiments::join::{
    JOIN_PROTOCOL, JoinAnswer, JoinRequest, JoinToken, MAX_JOIN_LINE_BYTES, PresentedToken,
};
use backburn_experiments::labels::Labels;
use backburn_experiments::wire::Refusal;
use rcgen::{CertificateParams, KeyPair};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long the controller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why an agent could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There was no conversation with the controller.
    #[error(transparent)]
    Dial(#[from] ConnectError),
    /// The controller refused, with its reason.
    #[error("the controller refused: {0}")]
    Refused(Refusal),
    /// The key or the certificate request could not be created.
    #[error("the key could not be created: {0}")]
    Key(#[from] rcgen::Error),
    /// The credentials could not be saved.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What an agent joins a controller with.
#[derive(Debug)]
pub struct JoinOptions<'a> {
    /// The controller, as `HOST[:PORT]`.
    pub controller: &'a str,
    /// The HTTP proxy to connect through, if one was given.
    pub proxy: Option<&'a str>,
    /// The token that admits the agent.
    pub token: &'a JoinToken,
    /// The name that the agent asks for.
    pub name: &'a str,
    /// The labels that a person gave the agent.
    pub given: &'a BTreeMap<String, String>,
    /// The labels that a person gave and those that were found on the host.
    pub labels: &'a BTreeMap<String, String>,
}

/// Joins a controller. Replaces the credentials of whatever controller was joined before. Also returns the labels that the
/// controller has granted; none if it takes the agent's own word for them.
///
/// # Errors
/// The agent could not join; what was there before still is.
pub fn join(
    host: &Host,
    state: &Path,
    options: &JoinOptions<'_>,
) -> Result<(Credentials, Option<Labels>), JoinError> {
    let JoinOptions {
        controller,
        proxy,
        token,
        name,
        given,
        labels,
    } = *options;
    let route = Route::new(controller, proxy)?;
    let tls = TlsConnection::connect(
        &route,
        config_from_token(&token.authority, &[JOIN_PROTOCOL]),
        None,
    )?;
    let shown = PresentedToken {
        id: token.id.clone(),
        secret: token.secret.clone(),
    };
    let (mut credentials, granted) = exchange(tls, controller, Some(shown), name, given, labels)?;
    // While an authority is being replaced, a controller names both.
    if !fingerprints_of_pem(&credentials.authority).contains(&token.authority) {
        let what = format!("{controller}: its certificate authority is not the one in the token");
        return Err(ConnectError::new(what, "use a token of this controller").into());
    }
    credentials.proxy = proxy.map(str::to_owned);
    credentials.save(host, state)?;
    Ok((credentials, granted))
}

/// Renews the certificate, with a new key, and takes over what the controller says is to be trusted: the connection is proved by
/// what is trusted now. All of it is used from the next connection on.
///
/// # Errors
/// The certificate could not be renewed; the old one stays in place.
pub fn renew(
    host: &Host,
    state: &Path,
    credentials: &Credentials,
) -> Result<Credentials, JoinError> {
    renew_at(host, state, credentials, &credentials.controller)
}

/// Renews the certificate at another address of the same controller, which is used from the next connection on.
///
/// # Errors
/// There is no controller that the agent trusts, or it did not renew the certificate; what was there before stays in place.
pub fn renew_at(
    host: &Host,
    state: &Path,
    credentials: &Credentials,
    controller: &str,
) -> Result<Credentials, JoinError> {
    let config = config_from_credentials(credentials, JOIN_PROTOCOL);
    let route = Credentials {
        controller: controller.to_owned(),
        ..credentials.clone()
    }
    .route()?;
    let tls = TlsConnection::connect(&route, config, None)?;
    let (mut renewed, _) = exchange(
        tls,
        controller,
        None,
        &credentials.name,
        &credentials.labels,
        &BTreeMap::new(),
    )?;
    if fingerprints_of_pem(&renewed.authority).is_empty() {
        let what = format!("{controller}: it names no certificate authority");
        return Err(
            ConnectError::new(what, "use the same version for agent and controller").into(),
        );
    }
    renewed.proxy.clone_from(&credentials.proxy);
    renewed.save(host, state)?;
    Ok(renewed)
}

fn exchange(
    mut tls: TlsConnection,
    controller: &str,
    token: Option<PresentedToken>,
    name: &str,
    given: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Result<(Credentials, Option<Labels>), JoinError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    let joining = JoinRequest {
        token,
        name: name.to_owned(),
        request,
        labels: labels.clone(),
    };
    let unreadable = |error: serde_json::Error| {
        let what = format!("{controller}: the answer could not be read: {error}");
        ConnectError::new(what, "use the same version for agent and controller")
    };
    let mut line = serde_json::to_vec(&joining).map_err(unreadable)?;
    line.push(b'\n');
    let answer = tls.exchange(&line, MAX_JOIN_LINE_BYTES, ANSWER_TIMEOUT)?;
    match serde_json::from_str(&answer).map_err(unreadable)? {
        JoinAnswer::Refused(refusal) => Err(JoinError::Refused(refusal)),
        JoinAnswer::Joined(joined) => Ok((
            Credentials {
                controller: controller.to_owned(),
                name: joined.name,
                // A controller that grants labels takes no other from the agent.
                labels: match &joined.labels {
                    Some(_) => BTreeMap::new(),
                    None => given.clone(),
                },
                key: key.serialize_pem(),
                certificate: joined.certificate,
                authority: joined.authority,
                lasts: joined.lasts,
                proxy: None,
                proxy_in_use: None,
                since: now(),
            },
            joined.labels,
        )),
    }
}
