//! How an agent joins a controller: the token that a person carries from one to the other, and
//! what the two say then, one JSON object a line. On the port of a controller the protocol is
//! chosen by name in the TLS handshake (ALPN, RFC 7301).
//!
//! Certificates and requests travel as PEM (RFC 7468); the life of a certificate as a length,
//! since no two machines' clocks are compared.

pub use crate::token::{InvalidToken, JoinToken};

use crate::HumanDuration;
use crate::labels::Labels;
use crate::wire::Refusal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The link: the lines of [`crate::wire`]. Whoever speaks it shows a certificate.
pub const LINK_PROTOCOL: &str = "backburn-agent/1";
/// One [`JoinRequest`] from an agent, one [`JoinAnswer`] back.
pub const JOIN_PROTOCOL: &str = "backburn-join/1";
/// HTTP/1.1 for browsers and for programs (RFC 7301).
pub const HTTP_PROTOCOL: &str = "http/1.1";
/// HTTP/1.1 for programs that pin the controller's authority, as the command line does by its token. A controller that does not know this
/// name yet is asked for [`HTTP_PROTOCOL`], too.
pub const API_PROTOCOL: &str = "backburn-api/1";
/// The longest line of [`JOIN_PROTOCOL`], in bytes.
pub const MAX_JOIN_LINE_BYTES: usize = 16 << 10;
/// The longest name of an agent: a host's may have as many, and so may the common name of a certificate (RFC 5280, A.1).
pub const MAX_AGENT_NAME_BYTES: usize = 64;

/// The port of a controller where none is said.
pub const DEFAULT_PORT: u16 = 7420;

/// The host and the port of `HOST`, `HOST:DEFAULT_PORT`, `10.0.0.7:7420`, `fd00::1` or `[fd00::1]:7420`. None where it is none of them.
pub fn host_and_port(controller: &str) -> Option<(&str, u16)> {
    let bare = |host: &'_ str| !host.is_empty() && !host.contains(['[', ']', '/']);
    if let Some(rest) = controller.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return None,
        };
        return bare(host).then_some((host, port));
    }
    let (host, port) = match controller.rsplit_once(':') {
        // More than one colon: IPv6, which has a port only in brackets.
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()?),
        _ => (controller, DEFAULT_PORT),
    };
    bare(host).then_some((host, port))
}

/// The part of a token that is shown to the controller.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentedToken {
    /// The token's id, by which the controller finds it.
    pub id: String,
    /// The token's secret, of which the controller keeps a hash.
    pub secret: String,
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// An agent asks for a certificate. A controller ignores fields that it does not know; controllers before protocol 2 refuse them, so this
/// version sends none that those did not know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Leave to join; none where a certificate is shown in the handshake, which is to be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<PresentedToken>,
    /// What the agent would be called; the controller has the last word.
    pub name: String,
    /// The request for a certificate (PKCS #10) in PEM. Of it, only the key is used.
    pub request: String,
    /// What was given on the agent's command line and found on its host. It grants nothing; controllers before protocol 2 take it as the
    /// agent's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What the controller answers to a request to join.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum JoinAnswer {
    /// The agent has joined, and this is its certificate.
    Joined(JoinResponse),
    /// The agent may not join, and gets no certificate.
    Refused(Refusal),
}

/// What an agent has joined with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// What the agent is called from now on.
    pub name: String,
    /// Its certificate in PEM, with those between it and the authority's, if any.
    pub certificate: String,
    /// The authority's certificate in PEM.
    pub authority: String,
    /// How long the certificate is good for, from now.
    pub lasts: HumanDuration,
    /// The labels that the agent is granted. None from a controller that takes an agent's own word for its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// What an agent can't be called, and why: names appear in certificates, paths and commands.
pub fn problem_with_name(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let fine = first && name.len() <= MAX_AGENT_NAME_BYTES && name.bytes().all(allowed);
    (!fine).then(|| {
        let shown: String = name.chars().take(MAX_AGENT_NAME_BYTES).collect();
        format!("`{}` can't be an agent's name: it has 1 to {MAX_AGENT_NAME_BYTES} letters, digits, `.`, `-` and `_`, a letter or digit first", shown.escape_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_found_by_its_host_with_a_port_or_without() {
        for (text, found) in [
            ("chaos.example", Some(("chaos.example", DEFAULT_PORT))),
            ("chaos.example:80", Some(("chaos.example", 80))),
            ("10.0.0.7:80", Some(("10.0.0.7", 80))),
            ("fd00::1", Some(("fd00::1", DEFAULT_PORT))),
            ("[fd00::1]", Some(("fd00::1", DEFAULT_PORT))),
            ("[fd00::1]:80", Some(("fd00::1", 80))),
            ("", None),
            (":80", None),
            ("host:", None),
            ("host:port", None),
            ("host:70000", None),
            ("[fd00::1]80", None),
            ("[fd00::1", None),
            ("https://host", None),
        ] {
            assert_eq!(host_and_port(text), found, "{text}");
        }
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "db-1.example.org", "7", &"n".repeat(64)] {
            assert_eq!(problem_with_name(good), None, "{good}");
        }
        for bad in [
            "",
            "-a",
            ".",
            "a b",
            "a/b",
            "ä",
            "a\n",
            "a\0b",
            &"n".repeat(65),
        ] {
            assert!(problem_with_name(bad).is_some(), "{bad:?}");
        }
    }
}
