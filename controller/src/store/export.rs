//! The format of an export, whatever the store: lines of JSON, with a header first and a count last.
//!
//! ```text
//! {"kind":"backburn-export","format":2}
//! {"kind":"experiment","name":"db","version":1,"document":{…},"who":"ada","at":"2026-01-01T00:00:00Z"}
//! …
//! {"kind":"end","records":1}
//! ```
//!
//! A record's fields are the columns of the store's tables. JSON in a column is written as it is stored.

use super::error::StoreError;
use std::fmt;

/// The version of the format that this program writes, and the latest that it reads.
pub const FORMAT: u64 = 2;

/// A problem of one line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineProblem {
    /// The line's number, from 1.
    pub line: u64,
    /// What is wrong with the line.
    pub what: String,
}

/// Why an export was not imported. Nothing of it is in the store.
#[derive(Debug)]
pub enum ImportError {
    /// The problems of the export, in the order of its lines.
    Problems(Vec<LineProblem>),
    /// The store could not be written.
    Store(StoreError),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Store(error) => error.fmt(f),
            ImportError::Problems(problems) => {
                f.write_str("the export is incomplete or has invalid lines")?;
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
