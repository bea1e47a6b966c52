//! What a report is made from, in one line that every format of it contains, so that a file can be verified against the store.

use serde::{Serialize, Serializer};
use std::fmt;

/// The word before the line.
const MARK: &str = "backburn-report ";

/// What a report is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportEvidence {
    /// The id of the run.
    pub run: String,
    /// The number of events in the run's journal.
    pub events: u64,
    /// The SHA-256 of the journal's lines, each with its line break, in hexadecimal digits. That of a local run is its file's.
    pub journal: String,
    /// The number of the run's notes.
    pub notes: u64,
    /// The hash of the last note, which covers all before it; empty if there are none.
    pub head: String,
    /// The number of the last change of an action that the report knows; 0 if there is none.
    pub actions: u64,
    /// The version of the program that wrote the report.
    pub program: String,
}

impl fmt::Display for ReportEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = match self.head.is_empty() {
            true => "none",
            false => &self.head,
        };
        write!(
            f,
            "{MARK}run={} events={} journal={} notes={} head={head} actions={} program={}",
            self.run, self.events, self.journal, self.notes, self.actions, self.program
        )
    }
}

impl Serialize for ReportEvidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl ReportEvidence {
    /// Finds the line in a written report of any format. None if there is none that is whole.
    pub fn find(text: &str) -> Option<Self> {
        let start = text.find(MARK)? + MARK.len();
        let end = text[start..].find(['"', '\n', '<', '`'])?;
        let line = text[start..].get(..end)?;
        let value = |key: &str| {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let number = |key| value(key)?.parse::<u64>().ok();
        let head = value("head")?;
        Some(ReportEvidence {
            run: value("run")?.to_owned(),
            events: number("events")?,
            journal: value("journal")?.to_owned(),
            notes: number("notes")?,
            head: match head {
                "none" => String::new(),
                hash => hash.to_owned(),
            },
            actions: number("actions")?,
            program: value("program")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_evidence_is_found_as_it_is_written() {
        let evidence = ReportEvidence {
            run: "20261101T100000-abcd".into(),
            events: 12,
            journal: "ab".repeat(32),
            notes: 3,
            head: "cd".repeat(32),
            actions: 7,
            program: "0.1.0".into(),
        };
        for text in [
            format!("<meta content=\"{evidence}\">"),
            format!("{{\"evidence\":\"{evidence}\"}}"),
            format!("text\n`{evidence}`\n"),
        ] {
            assert_eq!(ReportEvidence::find(&text).as_ref(), Some(&evidence));
        }
        assert_eq!(ReportEvidence::find("backburn-report run=x\n"), None);
        assert_eq!(ReportEvidence::find("no report"), None);
    }
}
