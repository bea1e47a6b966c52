//! The audit log's chain: each entry's hash covers what it says and the hash of the one before, so
//! that none can be altered, put in or taken out without every later one showing it.

use super::records::{AuditHead, AuditMismatch, AuditVerification, Hash};
use sha2::{Digest, Sha256};

/// What each hash begins with, so that it is one of ours and of this encoding.
const DOMAIN: &[u8] = b"backburn audit 1\n";

/// Before the first entry.
pub(super) const START: AuditHead = AuditHead {
    number: 0,
    hash: Hash([0; 32]),
};

/// An entry, each part as the text that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuditRow {
    pub(super) number: u64,
    pub(super) at: String,
    pub(super) who: String,
    pub(super) role: Option<String>,
    pub(super) what: String,
    pub(super) about: String,
    pub(super) outcome: String,
    pub(super) detail: String,
}

impl AuditRow {
    /// Its hash after `previous`. Each part goes in with its length before it, and an absent one as
    /// a length that none has, so that two different entries are never the same bytes.
    pub(super) fn hash(&self, previous: &Hash) -> Hash {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(previous.0);
        hash.update(self.number.to_be_bytes());
        for part in [
            Some(&self.at),
            Some(&self.who),
            self.role.as_ref(),
            Some(&self.what),
            Some(&self.about),
            Some(&self.outcome),
            Some(&self.detail),
        ] {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(part.map_or("", String::as_str));
        }
        Hash(hash.finalize().into())
    }
}

/// A walk along the log, one entry after the other.
#[derive(Debug)]
pub(super) struct ChainVerifier<'a> {
    chain: AuditVerification,
    known: Option<&'a AuditHead>,
}

impl<'a> ChainVerifier<'a> {
    pub(super) fn new(known: Option<&'a AuditHead>) -> Self {
        let chain = AuditVerification {
            head: START,
            broken: None,
        };
        ChainVerifier { chain, known }
    }

    /// Looks at the next entry, with the two hashes as they are stored. Whether to go on.
    pub(super) fn step(&mut self, link: &AuditRow, previous: &str, hash: &str) -> bool {
        let head = &mut self.chain.head;
        let should = link.hash(&head.hash);
        let wrong = if link.number != head.number + 1 {
            Some(format!("it is missing, and {} comes next", link.number))
        } else if previous != head.hash.to_string() {
            Some("it does not follow from the one before".to_owned())
        } else if hash != should.to_string() {
            Some("it was altered".to_owned())
        } else if self
            .known
            .is_some_and(|known| known.number == link.number && known.hash != should)
        {
            Some("it is not the one whose hash is known".to_owned())
        } else {
            None
        };
        match wrong {
            Some(why) => {
                let number = head.number + 1;
                self.chain.broken = Some(AuditMismatch { number, why });
                false
            }
            None => {
                *head = AuditHead {
                    number: link.number,
                    hash: should,
                };
                true
            }
        }
    }

    /// What was found.
    pub(super) fn end(mut self) -> AuditVerification {
        if let (None, Some(known)) = (&self.chain.broken, self.known)
            && known.number > self.chain.head.number
        {
            self.chain.broken = Some(AuditMismatch {
                number: self.chain.head.number + 1,
                why: format!("the log ends before the known number {}", known.number),
            });
        }
        self.chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u64, who: &str, what: &str, role: Option<&str>) -> AuditRow {
        AuditRow {
            number,
            at: "2026-01-01T00:00:00Z".into(),
            who: who.into(),
            role: role.map(str::to_owned),
            what: what.into(),
            about: "db".into(),
            outcome: "done".into(),
            detail: "null".into(),
        }
    }

    #[test]
    fn no_two_entries_are_the_same_bytes() {
        let links = [
            link(1, "ab", "c", None),
            link(1, "a", "bc", None),
            link(1, "ab", "c", Some("")),
            link(2, "ab", "c", None),
        ];
        let hashes: std::collections::BTreeSet<String> = links
            .iter()
            .flat_map(|link| [link.hash(&START.hash), link.hash(&Hash([1; 32]))])
            .map(|hash| hash.to_string())
            .collect();
        assert_eq!(hashes.len(), 2 * links.len());
    }

    #[test]
    fn the_encoding_stays_what_it_is() {
        // Made by Python's hashlib from the same parts; old logs must go on to verify.
        assert_eq!(
            link(1, "ada", "halt", Some("admin"))
                .hash(&START.hash)
                .to_string(),
            "11323777fa83d1e70e0b504398e499407248e05fd7ac071b0009e074ce640448"
        );
    }
}
