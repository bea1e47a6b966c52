//! The records of agents, people and what they may do.

use super::hash::Hash;
use backburn_experiments::labels::Labels;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// An agent that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrolledAgent {
    /// The name of the agent.
    pub name: String,
    /// The serial numbers of its valid certificates, in hexadecimal digits.
    pub serials: Vec<String>,
    /// The labels that the agent is granted. Without `labels_by` they are what the agent said of itself when it joined, before labels were
    /// granted; facts are not among them.
    pub labels: Labels,
    /// The name of the token that granted the labels last, itself or by a join token that it made.
    pub labels_by: Option<String>,
    /// When the agent joined last.
    pub enrolled: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it was last heard, as far as it was recorded; none if it never was connected.
    pub heard: Option<Timestamp>,
}

/// A join token, with which one agent may join once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// The public part of the token.
    pub id: String,
    /// The hash of the secret.
    pub hash: Hash,
    /// The name of the API token that created it.
    pub who: String,
    /// When the token can no longer be used.
    pub expires: Timestamp,
    /// The only agent that may use it; none means any agent.
    pub agent: Option<String>,
    /// The labels that it grants.
    pub labels: Labels,
}

/// What a token allows. A later role includes all earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Read, and change nothing.
    Viewer,
    /// Run experiments and end them.
    Operator,
    /// Do everything, with people and agents as well.
    Admin,
}

/// How a token came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenOrigin {
    /// An admin made it, or it is the first token of a controller.
    #[default]
    Made,
    /// Its person logged in with an identity provider.
    Login,
    /// It was made on the controller's host, without another token.
    BreakGlass,
}

/// What lets somebody use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRecord {
    /// The public part of the token.
    pub id: String,
    /// The hash of the secret.
    pub hash: Hash,
    /// The name of the token.
    pub name: String,
    /// The person or job that the token belongs to. Several tokens may belong to one.
    pub person: String,
    /// The teams whose experiments, runs and agents the token may use; none means all.
    pub teams: BTreeSet<String>,
    /// How it came to be.
    pub origin: TokenOrigin,
    /// What the token's owner may do.
    pub role: Role,
    /// Whether it is the token of a participant of game days, who may not know what they do before it is revealed.
    pub is_blind: bool,
    /// When it was created.
    pub created: Timestamp,
    /// When it expires; none means never.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl ApiTokenRecord {
    /// Whether the token is neither revoked nor expired at this time.
    pub fn is_valid(&self, at: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| at < expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_by_what_they_allow() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
