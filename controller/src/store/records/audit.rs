//! The records of the audit log, whose entries each cover the one before.

use super::access::Role;
use super::hash::Hash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// An action for the audit log: who did what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditRecord {
    /// The time at which it happened.
    pub at: Timestamp,
    /// The name of the token.
    pub who: String,
    /// The role of the token; none if there was no valid token.
    pub role: Option<Role>,
    /// What was done or attempted.
    pub what: String,
    /// The object of the action.
    pub about: String,
    /// What came of it: `done`, `refused` or another word.
    pub outcome: String,
    /// Further details, by name.
    pub detail: Value,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its number, from 1, without gaps.
    pub number: u64,
    /// Who did what, and when.
    #[serde(flatten)]
    pub record: AuditRecord,
    /// The hash of the entry before; zeros for the first.
    pub previous: Hash,
    /// The hash of this entry, which covers all entries before it.
    pub hash: Hash,
}

/// The last entry of the audit log. A copy kept elsewhere reveals whether the log was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Its number; 0 if the log is empty.
    pub number: u64,
    /// Its hash; zeros if the log is empty.
    pub hash: Hash,
}

/// A text that is not a head of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected NUMBER:HASH with a hash of 64 hexadecimal digits, as `backburn audit --verify` prints it"
)]
pub struct InvalidAuditHead;

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl FromStr for AuditHead {
    type Err = InvalidAuditHead;

    fn from_str(text: &str) -> Result<Self, InvalidAuditHead> {
        let (number, hash) = text.trim().split_once(':').ok_or(InvalidAuditHead)?;
        Ok(AuditHead {
            number: number.parse().map_err(|_| InvalidAuditHead)?,
            hash: hash.parse().map_err(|_| InvalidAuditHead)?,
        })
    }
}

/// The result of verifying the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainVerification {
    /// The last entry that is intact.
    pub head: AuditHead,
    /// The first entry that is not as it was written, if any.
    pub broken: Option<AuditMismatch>,
}

/// An entry of the audit log that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditMismatch {
    /// Number of the first entry that does not match.
    pub number: u64,
    /// What is wrong with it.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_head_parses_as_it_is_displayed() {
        let head = AuditHead {
            number: 7,
            hash: Hash::of(b"abc"),
        };
        assert_eq!(head.to_string().parse(), Ok(head));
        let shown = Hash::of(b"abc").to_string();
        for wrong in [
            "",
            "7",
            &shown,
            ":",
            "7:ab",
            &format!("x:{shown}"),
            &format!("-1:{shown}"),
        ] {
            assert_eq!(wrong.parse::<AuditHead>(), Err(InvalidAuditHead), "{wrong}");
        }
    }
}
