//! What an export is, whatever the store: lines of JSON, a header first and a count last.
//!
//! ```text
//! {"kind":"backburn-export","format":1}
//! {"kind":"experiment","name":"db","version":1,"document":{…},"who":"ada","at":"2026-01-01T00:00:00Z"}
//! …
//! {"kind":"end","records":1}
//! ```
//!
//! A record's fields are the columns of the store's tables, and JSON in them is written as it is.

use super::error::StoreError;
use std::fmt;

/// The version of the lines that this program writes, and the latest that it reads.
pub const FORMAT: u64 = 1;

/// What is wrong with a line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineProblem {
    /// Which line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Why an export was not taken in. Nothing of it is in the store.
#[derive(Debug)]
pub enum ImportError {
    /// What is wrong with it, in the order of its lines.
    Problems(Vec<LineProblem>),
    /// What the store does.
    Store(StoreError),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Store(error) => error.fmt(f),
            ImportError::Problems(problems) => {
                f.write_str("the export is not whole or not right")?;
                problems
                    .iter()
                    .try_for_each(|problem| write!(f, "\nline {}: {}", problem.line, problem.what))
            }
        }
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ImportError::Store(error) => error.source(),
            ImportError::Problems(_) => None,
        }
    }
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        ImportError::Store(error)
    }
}
