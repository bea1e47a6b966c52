//! What an agent notes beside the journal of a local run when it reverts something that the run can no longer hear of.

use crate::wire::{Cause, InjectionId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An injection that was reverted late, and seen to be gone: the content of a file beside the journal of its run, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateRevert {
    /// The id of the injection.
    pub injection: InjectionId,
    /// On what occasion it was reverted.
    pub cause: Cause,
    /// When, in seconds since 1970 by the host's clock.
    pub at: u64,
}

impl LateRevert {
    /// The file for an injection of a run, in the folder of the journals. None if an id has a character that could lead elsewhere: both are a
    /// controller's words.
    pub fn path(runs: &Path, run: &str, injection: &str) -> Option<PathBuf> {
        let is_plain = |id: &str| {
            let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            (1..=128).contains(&id.len()) && id.chars().all(is_plain)
        };
        (is_plain(run) && is_plain(injection))
            .then(|| runs.join(format!("{run}.{injection}.reverted")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_revert_of_an_id_that_leads_elsewhere_has_no_file() {
        let path = |run, injection| LateRevert::path(Path::new("runs"), run, injection);
        assert_eq!(
            path("20260101T000000-abcd", "20260101T000000-abcd-1"),
            Some("runs/20260101T000000-abcd.20260101T000000-abcd-1.reverted".into())
        );
        let long = "a".repeat(129);
        for wrong in ["", "..", "../out", "a/b", "a.b", "a b", "ä", &long] {
            assert_eq!(path(wrong, "a"), None, "{wrong}");
            assert_eq!(path("a", wrong), None, "{wrong}");
        }
    }
}
