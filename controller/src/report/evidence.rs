//! What a report is made from, in one line that every format of it contains, so that a file can be verified against the store.

use serde::{Serialize, Serializer};
use std::fmt;

/// The word before the line.
const MARK: &str = "backburn-report ";

/// What a report is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportEvidence {
    /// The id of the run or of the game day.
    pub run: String,
    /// The number of events in the run's journal, or in those of all runs of the game day.
    pub events: u64,
    /// The SHA-256 of the journal's lines, each with its line break, in hexadecimal digits. That of a local run is its file's. That of
    /// a game day covers the journals and the notes of its runs.
    pub journal: String,
    /// The number of the run's or of the game day's notes.
    pub notes: u64,
    /// How many notes each run of a game day has, by step; empty for a run.
    pub run_notes: Vec<u64>,
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
        )?;
        match self.run_notes.is_empty() {
            true => Ok(()),
            false => write!(f, " run-notes={}", counts_text(&self.run_notes)),
        }
    }
}

/// Counts as a list without spaces, e.g. `3,0,2`.
pub fn counts_text(counts: &[u64]) -> String {
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    counts.join(",")
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
            run_notes: match value("run-notes") {
                Some(list) => (list.split(','))
                    .map(|count| count.parse().ok())
                    .collect::<Option<_>>()?,
                None => Vec::new(),
            },
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
            run_notes: Vec::new(),
        };
        let of_game_day = ReportEvidence {
            run_notes: vec![3, 0, 12],
            ..evidence.clone()
        };
        for evidence in [evidence, of_game_day] {
            for text in [
                format!("<meta content=\"{evidence}\">"),
                format!("{{\"evidence\":\"{evidence}\"}}"),
                format!("text\n`{evidence}`\n"),
            ] {
                assert_eq!(ReportEvidence::find(&text).as_ref(), Some(&evidence));
            }
        }
        assert_eq!(ReportEvidence::find("backburn-report run=x\n"), None);
        assert_eq!(ReportEvidence::find("no report"), None);
    }
}
