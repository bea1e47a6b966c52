//! What an agent's certificate says.

use super::ca_error::{CaError, wrong};
use backburn_experiments::hexadecimal;
use backburn_experiments::join::problem_with_name;
use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// The prefix of an agent's name in the URI of its certificate.
pub(super) const AGENT_URI: &str = "backburn://agent/";

/// The identity of an agent, as its certificate has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The name of the agent.
    pub name: String,
    /// The certificate's serial number, in lower-case hexadecimal digits.
    pub serial: String,
}

/// The agent that a certificate names. TLS has verified the certificate before.
///
/// # Errors
/// The certificate does not name exactly one agent.
pub fn identity(certificate: &CertificateDer<'_>) -> Result<AgentIdentity, CaError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(wrong)?;
    let names = certificate.subject_alternative_name().map_err(wrong)?;
    let mut names = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix(AGENT_URI),
            _ => None,
        });
    match (names.next(), names.next()) {
        (Some(name), None) if problem_with_name(name).is_none() => Ok(AgentIdentity {
            name: name.into(),
            serial: hexadecimal(certificate.raw_serial()),
        }),
        _ => Err(CaError::Request(
            "the certificate does not name an agent".into(),
        )),
    }
}

/// When a certificate expires. None if it cannot be parsed.
pub fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
