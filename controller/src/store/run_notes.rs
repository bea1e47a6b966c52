//! The hash chains of the notes of runs: what is added to a run after its journal was sealed. Each run has a chain of its own,
//! and each hash covers the run, the note, and the hash of the note before. The audit log has the hash of each note, so that a
//! chain that was cut short is noticed.

use super::records::Hash;
use sha2::{Digest as _, Sha256};

/// The prefix of all hashed data, which separates it from other uses of SHA-256.
const DOMAIN: &[u8] = b"backburn run note 1\n";

/// The hash before a run's first note.
pub(super) const NO_NOTE: Hash = Hash([0; 32]);

/// A note, with each part as the text that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunNoteRow {
    pub(super) run: String,
    pub(super) number: u64,
    pub(super) at: String,
    pub(super) who: String,
    pub(super) kind: String,
    pub(super) body: String,
}

impl RunNoteRow {
    /// The note's hash after `previous`. Each part is preceded by its length, so that two different notes never have the same
    /// bytes.
    pub(super) fn hash(&self, previous: &Hash) -> Hash {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(previous.0);
        hash.update(self.number.to_be_bytes());
        for part in [&self.run, &self.at, &self.who, &self.kind, &self.body] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Hash(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_note_hash_differs_with_each_part_and_stays_the_same() {
        let note = RunNoteRow {
            run: "r".into(),
            number: 1,
            at: "2026-01-01T00:00:00Z".into(),
            who: "controller".into(),
            kind: "cleaned".into(),
            body: "{}".into(),
        };
        let mut others = vec![note.clone(); 6];
        others[0].run = "other".into();
        others[1].number = 2;
        others[2].at = "2026-01-02T00:00:00Z".into();
        others[3].who = "ada".into();
        others[4].kind = "note".into();
        others[5].body = "[]".into();
        let own = note.hash(&NO_NOTE);
        assert!(others.iter().all(|other| other.hash(&NO_NOTE) != own));
        assert_ne!(note.hash(&Hash([1; 32])), own);
        // Notes that were written stay verifiable.
        let known = "0eda51b6acc3537849e407a7a479aab4491ee75382bac43cac3ce006aee94f11";
        assert_eq!(own.to_string(), known);
    }
}
