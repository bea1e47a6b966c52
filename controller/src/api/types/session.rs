//! The session of a browser, and how the controller is set up.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Who uses the controller.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Session)]
#[serde(rename_all = "kebab-case")]
pub struct SessionInfo {
    /// The name of the token.
    pub name: String,
    /// The person or job that the token belongs to.
    pub person: String,
    /// The role of the token: `viewer`, `operator` or `admin`.
    pub role: String,
    /// The teams whose experiments, runs and agents the token may use; empty for all.
    pub teams: BTreeSet<String>,
    /// When the cookie that was just set expires; null where none was set.
    pub expires: Option<String>,
    /// The version of the program.
    pub version: String,
    /// Whether the token is for participants of game days, who do not see what a game day does until it is revealed.
    pub blind: bool,
    /// Whether this is the page of one run on one host, without a controller.
    pub local: bool,
    /// The time of the controller's clock.
    pub now: String,
    /// Whether people can log in with an identity provider.
    pub identity_provider: bool,
}

/// How the controller is set up.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Settings)]
#[serde(rename_all = "kebab-case")]
pub struct SettingsInfo {
    /// The version of the program.
    pub version: String,
    /// How long agents keep faults without contact to the controller.
    pub lease: String,
    /// How long a run waits for approval.
    pub approval_expires: String,
    /// The SHA-256 of the authority's certificate, in hexadecimal digits.
    pub authority: String,
    /// The owner's certificate that browsers are shown; null where it is one of the controller's authority.
    pub tls_certificate: Option<TlsCertificateInfo>,
    /// The issuer that people can log in with; null if there is none.
    pub identity_provider: Option<String>,
    /// The policy in force; null for a token that is limited to teams.
    pub policy: Option<Value>,
}

/// A certificate of the owner's that browsers are shown.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = TlsCertificate)]
#[serde(rename_all = "kebab-case")]
pub struct TlsCertificateInfo {
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// When it expires.
    pub expires: String,
    /// Whether its files could not be used when they were read last, so that the certificate before is still shown.
    pub stale: bool,
}
