//! Commands that go to a controller: one file for each kind. They say over HTTP what anybody could say.

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

use serde_json::Value;

/// A field's text; empty where there is none.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Lines in columns, each as wide as its longest text.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let lengths = rows.iter().filter_map(|row| row.get(column));
        lengths.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{text:<width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
