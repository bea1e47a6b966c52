//! Tokens of people and jobs, and join tokens of agents.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A request for a join token.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The only name under which an agent may join with the token. A known agent of that name is replaced.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub agent: Option<String>,
    /// How long the token is valid, e.g. `2h`. The default is `1h`.
    #[serde(default)]
    #[schema(pattern = "^([0-9]{1,4}[dhms]|[0-9]{1,4}h[0-9]{1,4}m|[0-9]{1,4}m[0-9]{1,4}s)$")]
    pub lasts: Option<String>,
    /// The labels that the agent is granted; it cannot give itself any. A name has 1 to 64 letters, digits, `.`, `-`, `_` and `/`, a letter or
    /// digit first; a value has 1 to 256 bytes, none of them of a control character or an invisible one.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A join token, with which one agent may join once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenInfo {
    /// The id of the token. It is not secret.
    pub id: String,
    /// The token itself, which is shown only once: in the answer to the request that makes it.
    pub token: Option<String>,
    /// The name of the token that was used to make it.
    pub who: String,
    /// When the token expires.
    pub expires: String,
    /// The only name under which an agent may join with the token.
    pub agent: Option<String>,
    /// The labels that the agent is granted.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A request for a token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The name of the token, as it appears in the audit log.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub name: String,
    /// The person or job that the token belongs to. The default is the token's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")]
    pub person: Option<String>,
    /// The role of the token: `viewer`, `operator` or `admin`.
    #[schema(pattern = "^(viewer|operator|admin)$")]
    pub role: String,
    /// The teams whose experiments, runs and agents the token may use. The default is all; an admin has all. A name has 1 to 64 letters,
    /// digits, `.`, `-` and `_`, a letter or digit first.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub teams: BTreeSet<String>,
    /// Whether the token is for a participant of game days, who may not know what they do before it is revealed. Only for `viewer` and
    /// `operator`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
    /// How long the token is valid, e.g. `30d`. By default it does not expire.
    #[serde(default)]
    #[schema(pattern = "^([0-9]{1,4}[dhms]|[0-9]{1,4}h[0-9]{1,4}m|[0-9]{1,4}m[0-9]{1,4}s)$")]
    pub lasts: Option<String>,
}

/// A token of a person or a job.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// The id of the token. It is not secret.
    pub id: String,
    /// The token itself, which is shown only once: in the answer to the request that makes it.
    pub token: Option<String>,
    /// The name of the token.
    pub name: String,
    /// The person or job that the token belongs to.
    #[serde(default)]
    pub person: String,
    /// The role of the token: `viewer`, `operator` or `admin`.
    pub role: String,
    /// The teams whose experiments, runs and agents the token may use; empty for all.
    #[serde(default)]
    pub teams: BTreeSet<String>,
    /// Whether the token is for a participant of game days, who may not know what they do before it is revealed.
    #[serde(default)]
    pub blind: bool,
    /// When the token was made.
    pub created: String,
    /// When the token expires; null if it does not.
    pub expires: Option<String>,
    /// When the token was revoked; null if it is not.
    pub revoked: Option<String>,
}

/// The tokens of a person that were revoked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokedTokens {
    /// The ids of the tokens that were valid until now.
    pub revoked: Vec<String>,
}
