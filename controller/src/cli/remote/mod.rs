//! Commands that are sent to a controller over its HTTP API: one file for each kind of resource.

pub(super) mod agents;
mod client;
mod experiment_ref;
pub(super) mod experiments;
mod follow;
pub(super) mod halt;
pub(super) mod runs;
pub(super) mod tokens;

pub(super) use client::ControllerOptions;
pub(super) use experiment_ref::RemoteExperiment;

use backburn_experiments::terminal_text::escape;

/// Formats rows in columns, each as wide as its longest cell. Cells are escaped.
fn columns(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|text| escape(text)).collect())
        .collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let lengths = rows.iter().filter_map(|row| row.get(column));
        lengths.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{text:<width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
