//! Entries of the audit log, and the result of its verification.

use crate::store::ChainVerification;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One entry of the audit log: who did what.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditLogEntry {
    /// The entry's number, counted from 1.
    pub number: u64,
    /// When it happened.
    pub at: String,
    /// The name of the token that was used.
    pub who: String,
    /// The role of that token; null if no token was involved.
    pub role: Option<String>,
    /// The operation, e.g. `apply` or `halt`.
    pub what: String,
    /// The object of the operation, e.g. the name of an experiment.
    pub about: String,
    /// The result of the operation, e.g. `done` or `refused`.
    pub outcome: String,
    /// Further details, which depend on the operation.
    pub detail: Value,
    /// The hash of the entry before, in hexadecimal digits.
    pub previous: String,
    /// The hash of this entry, in hexadecimal digits.
    pub hash: String,
}

/// The result of verifying the audit log's chain of hashes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditVerification {
    /// The number of the last entry. Keep it elsewhere together with the hash: they reveal a log that was cut short.
    pub number: u64,
    /// The hash of the last entry, in hexadecimal digits.
    pub hash: String,
    /// Number and hash as `NUMBER:HASH`, for the parameter `head` of a later verification.
    #[serde(default)]
    pub head: String,
    /// The first entry that does not follow from the one before, and why; null if the log is intact.
    pub broken: Option<String>,
}

impl From<ChainVerification> for AuditVerification {
    fn from(chain: ChainVerification) -> Self {
        AuditVerification {
            number: chain.head.number,
            hash: chain.head.hash.to_string(),
            head: chain.head.to_string(),
            broken: chain
                .broken
                .map(|broken| format!("entry {}: {}", broken.number, broken.why)),
        }
    }
}
