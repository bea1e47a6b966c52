//! How much variables may make of a document: a text of a few bytes can stand for megabytes, and
//! variables within variables multiply.

use crate::Problem;
use serde_json::Value;

/// The most that all variables of a document together put in place, in bytes: each text's length,
/// and [`VALUE_BYTES`] for each value.
pub const MAX_SUBSTITUTED_BYTES: usize = 8 << 20;

/// What each value counts besides its text, in bytes: about what it takes in memory.
pub const VALUE_BYTES: usize = 64;

/// The most lists and objects that stand within each other once every value is in place. Whatever reads
/// JSON gives up at 128, and messages between controller and agent put some around a document's parts.
pub const MAX_DEPTH: usize = 100;

/// The most variables that lead from one to the next, each named by the one before.
pub const MAX_VARIABLE_CHAIN: usize = 64;

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

/// What a value takes in memory, in bytes: each text's length, and [`VALUE_BYTES`] for each value.
pub(crate) fn size_in_memory(value: &Value) -> usize {
    measure(value).0
}

/// The bytes that a value counts, and how many lists and objects stand within each other in it.
fn measure(value: &Value) -> (usize, usize) {
    let inner = |members: &mut dyn Iterator<Item = &Value>| {
        members.fold((0, 0), |(bytes, depth), member| {
            let (more, deep) = measure(member);
            (bytes + more, depth.max(deep))
        })
    };
    let (bytes, depth) = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => (0, 0),
        Value::String(text) => (text.len(), 0),
        Value::Array(list) => {
            let (bytes, depth) = inner(&mut list.iter());
            (bytes, depth + 1)
        }
        Value::Object(fields) => {
            let (bytes, depth) = inner(&mut fields.values());
            let keys: usize = fields.keys().map(String::len).sum();
            (bytes + keys, depth + 1)
        }
    };
    (bytes + VALUE_BYTES, depth)
}
