//! The hash chain of the audit log: the hash of each entry covers its content and the hash of the entry before, so that no
//! entry can be changed, inserted or removed without a mismatch in all later ones.

use super::records::{AuditHead, AuditMismatch, ChainVerification, Hash};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead};

/// The prefix of all hashed data, which separates it from other uses of SHA-256 and from other encodings.
const DOMAIN: &[u8] = b"backburn audit 1\n";

/// The head of an empty log.
pub(super) const EMPTY_HEAD: AuditHead = AuditHead {
    number: 0,
    hash: Hash([0; 32]),
};

/// An entry, with each part as the text that is stored.
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
    /// The entry's hash after `previous`. Each part is preceded by its length, and an absent part has a length that no text
    /// has, so that two different entries never have the same bytes.
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

/// Verifies the log, one entry after the other.
#[derive(Debug)]
pub(super) struct ChainVerifier<'a> {
    chain: ChainVerification,
    known: Option<&'a AuditHead>,
}

impl<'a> ChainVerifier<'a> {
    pub(super) fn new(known: Option<&'a AuditHead>) -> Self {
        let chain = ChainVerification {
            head: EMPTY_HEAD,
            broken: None,
        };
        ChainVerifier { chain, known }
    }

    /// Begins after this entry instead of at the first one of the log.
    fn after(mut self, head: AuditHead) -> Self {
        self.chain.head = head;
        let why = match self.known {
            Some(known) if known.number < head.number => "it comes after the known one",
            Some(known) if known.number == head.number && known.hash != head.hash => {
                "it does not follow from the known one"
            }
            _ => return self,
        };
        self.chain.broken = Some(AuditMismatch {
            number: head.number + 1,
            why: why.into(),
        });
        self
    }

    /// Verifies the next entry, given with both hashes as they are stored. Whether to continue.
    pub(super) fn step(&mut self, link: &AuditRow, previous: &str, hash: &str) -> bool {
        let head = &mut self.chain.head;
        let should = link.hash(&head.hash);
        let wrong = if link.number != head.number + 1 {
            Some(format!(
                "it is missing, and entry {} comes next",
                link.number
            ))
        } else if previous != head.hash.to_string() {
            Some("it does not follow from the entry before".to_owned())
        } else if hash != should.to_string() {
            Some("it was changed".to_owned())
        } else if self
            .known
            .is_some_and(|known| known.number == link.number && known.hash != should)
        {
            Some("its hash is not the known one".to_owned())
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

    /// Ends the verification and returns its result.
    pub(super) fn end(mut self) -> ChainVerification {
        if let (None, Some(known)) = (&self.chain.broken, self.known)
            && known.number == EMPTY_HEAD.number
            && known.hash != EMPTY_HEAD.hash
        {
            self.chain.broken = Some(AuditMismatch {
                number: known.number,
                why: "entries are counted from 1, so that no log has the known one".into(),
            });
        } else if let (None, Some(known)) = (&self.chain.broken, self.known)
            && known.number > self.chain.head.number
        {
            self.chain.broken = Some(AuditMismatch {
                number: self.chain.head.number + 1,
                why: format!("the log ends before the known entry {}", known.number),
            });
        }
        self.chain
    }
}

/// An entry as a line of JSON, in an export or as `backburn audit` prints it.
#[derive(Deserialize)]
struct AuditLine {
    number: u64,
    at: String,
    who: String,
    #[serde(default)]
    role: Option<String>,
    what: String,
    about: String,
    outcome: String,
    // The text is hashed as it is written.
    detail: Box<RawValue>,
    previous: String,
    hash: String,
}

/// The part of a line that says what it is. Lines that `backburn audit` printed have no kind.
#[derive(Deserialize)]
struct LineKind {
    #[serde(default)]
    kind: Option<String>,
}

/// Why lines could not be verified: they cannot be read, or are not of an audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditLinesError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error(
        "line {line} is not an entry of an audit log: {error}\nhint: give what `backburn export` or `backburn audit` has written"
    )]
    Line {
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// Verifies the audit log of an export, or entries that `backburn audit` printed. Those may begin with any entry, which is then
/// taken to follow from the one before; an export has to have all. Returns also the number of the first entry, 0 if there is none.
///
/// # Errors
/// The lines cannot be read, or are something else.
pub fn verify_lines(
    from: &mut dyn BufRead,
    known: Option<&AuditHead>,
) -> Result<(u64, ChainVerification), AuditLinesError> {
    let mut walk = ChainVerifier::new(known);
    let (mut first, mut is_export) = (0, false);
    for (line, text) in (1..).zip(from.lines()) {
        let text = text?;
        let wrong = |error| AuditLinesError::Line { line, error };
        let LineKind { kind } = serde_json::from_str(&text).map_err(wrong)?;
        match kind.as_deref() {
            None | Some("audit") => {}
            Some(_) => {
                is_export = true;
                continue;
            }
        }
        let entry: AuditLine = serde_json::from_str(&text).map_err(wrong)?;
        if first == 0 {
            first = entry.number;
            if let (false, Ok(hash)) = (is_export, entry.previous.parse()) {
                let number = first.saturating_sub(1);
                walk = walk.after(AuditHead { number, hash });
                if walk.chain.broken.is_some() {
                    break;
                }
            }
        }
        let link = AuditRow {
            number: entry.number,
            at: entry.at,
            who: entry.who,
            role: entry.role,
            what: entry.what,
            about: entry.about,
            outcome: entry.outcome,
            detail: entry.detail.get().to_owned(),
        };
        if !walk.step(&link, &entry.previous, &entry.hash) {
            break;
        }
    }
    Ok((first, walk.end()))
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
    fn different_entries_have_different_hashes() {
        let links = [
            link(1, "ab", "c", None),
            link(1, "a", "bc", None),
            link(1, "ab", "c", Some("")),
            link(2, "ab", "c", None),
        ];
        let hashes: std::collections::BTreeSet<String> = links
            .iter()
            .flat_map(|link| [link.hash(&EMPTY_HEAD.hash), link.hash(&Hash([1; 32]))])
            .map(|hash| hash.to_string())
            .collect();
        assert_eq!(hashes.len(), 2 * links.len());
    }

    #[test]
    fn hash_of_a_known_entry_stays_the_same() {
        // Computed with Python's hashlib from the same parts: old logs must stay valid.
        assert_eq!(
            link(1, "ada", "halt", Some("admin"))
                .hash(&EMPTY_HEAD.hash)
                .to_string(),
            "11323777fa83d1e70e0b504398e499407248e05fd7ac071b0009e074ce640448"
        );
    }
}
