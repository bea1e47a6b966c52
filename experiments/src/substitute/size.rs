//! How much variables may make of a document: a text of a few bytes can stand for megabytes, and
//! variables within variables multiply.

use crate::Problem;
use crate::size_in_memory::{MAX_DEPTH, MAX_SUBSTITUTED_BYTES, measure};
use serde_json::Value;

/// What is left for variables to put in place in a document.
pub(super) struct Budget {
    left: Option<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            left: Some(MAX_SUBSTITUTED_BYTES),
        }
    }
}

impl Budget {
    /// Whether this value may be put at this depth. The first that may not is a problem.
    pub(super) fn take(
        &mut self,
        value: &Value,
        depth: usize,
        at: &str,
        problems: &mut Vec<Problem>,
    ) -> bool {
        if self.left.is_none() {
            return false;
        }
        let (bytes, own_depth) = measure(value);
        if depth + own_depth > MAX_DEPTH {
            problems.push(too_deep(at));
            return false;
        }
        self.take_text(bytes, at, problems)
    }

    /// Whether a text of so many bytes may be put in place.
    pub(super) fn take_text(
        &mut self,
        bytes: usize,
        at: &str,
        problems: &mut Vec<Problem>,
    ) -> bool {
        let Some(left) = self.left else {
            return false;
        };
        self.left = left.checked_sub(bytes);
        if self.left.is_none() {
            let most = MAX_SUBSTITUTED_BYTES >> 20;
            problems.push(
                Problem::new(at, format!("with this, variables put more than {most} MiB in place"))
                    .hint("a large value that is used many times belongs into a file that a probe or an action reads"),
            );
        }
        self.left.is_some()
    }
}

/// That values are nested too deep at this place.
pub(super) fn too_deep(at: &str) -> Problem {
    Problem::new(
        at,
        format!("more than {MAX_DEPTH} lists and objects stand within each other here"),
    )
    .hint("nest it less deep")
}
