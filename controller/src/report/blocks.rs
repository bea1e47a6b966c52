//! The parts that a report consists of for people, whatever it is written in.

use super::model::{FaultHit, ProbePlot};

/// A numbered section of a report.
pub(super) struct ReportSection<'a> {
    pub(super) title: &'static str,
    pub(super) blocks: Vec<ReportBlock<'a>>,
}

/// A part of a section.
pub(super) enum ReportBlock<'a> {
    /// A paragraph of plain text.
    Text(String),
    /// The most important words of the report: the outcome, and how it is to be shown.
    Outcome(&'static str, String),
    /// A list of plain sentences.
    List(Vec<String>),
    /// A table with a heading for each column.
    Table {
        head: &'static [&'static str],
        rows: Vec<TableRow>,
    },
    /// A plot, with the time that faults acted and the length of the run in seconds.
    Plot(&'a ProbePlot, &'a [FaultHit], f64),
    /// Words to be typed, on a line of their own.
    Code(String),
}

/// A row of a table, and how it is to be shown: the name of a tone.
pub(super) struct TableRow {
    pub(super) tone: &'static str,
    pub(super) cells: Vec<String>,
}

impl TableRow {
    pub(super) fn plain(cells: Vec<String>) -> Self {
        TableRow {
            tone: "plain",
            cells,
        }
    }
}
