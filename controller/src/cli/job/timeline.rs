//! A run as an inline SVG: a row for each fault with the time while it acted, and a row for each probe with its samples.

use super::super::completed_run::CompletedRun;
use backburn_experiments::journal::{Event, JournalEntry, Judgement};
use backburn_experiments::terminal_text::for_xml;
use std::fmt::Write;

/// The height of a row, in units of the picture.
const ROW: f64 = 18.0;
/// Where the rows begin, and how wide they are.
const LEFT: f64 = 200.0;
const WIDTH: f64 = 560.0;
/// The most rows; a suite has one picture for each experiment, and a summary has an end.
const MAX_ROWS: usize = 40;
/// The most marks in a row. Of more, those out of tolerance are kept first.
const MAX_MARKS: usize = 400;
/// The longest name of a row, in characters.
const MAX_NAME: usize = 28;

/// The time while a fault acted, in seconds since the run started.
struct FaultSpan {
    injection: String,
    name: String,
    from: f64,
    until: f64,
}

/// The picture; empty if nothing was measured or injected.
pub(super) fn timeline_svg(completed: &CompletedRun) -> String {
    let entries = &completed.entries;
    let total = completed.finished.run.elapsed.max(0.001);
    let faults = fault_spans(entries, total);
    let probes: Vec<&String> = completed.finished.run.probes.keys().collect();
    let rows = (faults.len() + probes.len()).min(MAX_ROWS);
    if rows == 0 {
        return String::new();
    }
    let (height, right) = (rows as f64 * ROW + 22.0, LEFT + WIDTH);
    let x = |at: f64| LEFT + WIDTH * (at / total).clamp(0.0, 1.0);
    // No empty line: in Markdown it would end the picture.
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{0}\" height=\"{height}\" viewBox=\"0 0 {0} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n",
        right + 20.0
    );
    // Writing to a string cannot fail.
    writeln!(
        out,
        "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
    )
    .ok();
    for span in &faults {
        let (from, wide) = (x(span.from), (x(span.until) - x(span.from)).max(1.0));
        let high = rows as f64 * ROW;
        writeln!(out, "<rect x=\"{from:.1}\" y=\"0\" width=\"{wide:.1}\" height=\"{high}\" fill=\"#fde2d8\" fill-opacity=\"0.5\"/>").ok();
    }
    for (row, span) in faults.iter().take(rows).enumerate() {
        let top = row as f64 * ROW;
        label(&mut out, top, &span.name);
        let (from, wide) = (x(span.from), (x(span.until) - x(span.from)).max(2.0));
        writeln!(out, "<rect x=\"{from:.1}\" y=\"{}\" width=\"{wide:.1}\" height=\"10\" rx=\"2\" fill=\"#c8502e\"/>", top + 4.0).ok();
    }
    for (row, probe) in probes
        .iter()
        .enumerate()
        .take(rows.saturating_sub(faults.len()))
    {
        let top = (faults.len() + row) as f64 * ROW;
        label(&mut out, top, probe);
        for (at, judgement) in marks(entries, probe) {
            let (x, y) = (x(at), top + 9.0);
            let colour = match judgement {
                Judgement::Within => "#2a7f3f",
                Judgement::Outside => "#b3202c",
                Judgement::Unknown => "#9a7400",
            };
            // Shape says the same as colour.
            match judgement {
                Judgement::Within => writeln!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>"
                )
                .ok(),
                _ => writeln!(
                    out,
                    "<rect x=\"{:.1}\" y=\"{}\" width=\"6\" height=\"12\" fill=\"{colour}\"/>",
                    x - 3.0,
                    y - 6.0
                )
                .ok(),
            };
        }
    }
    let bottom = height - 6.0;
    writeln!(out, "<text x=\"{LEFT}\" y=\"{bottom}\">0 s</text>").ok();
    writeln!(
        out,
        "<text x=\"{right}\" y=\"{bottom}\" text-anchor=\"end\">{total:.1} s</text>"
    )
    .ok();
    out.push_str("</svg>\n");
    out
}

/// The name of a row, shortened.
fn label(out: &mut String, top: f64, name: &str) {
    let mut short: String = name.chars().take(MAX_NAME).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    let mut safe = String::new();
    for character in for_xml(&short).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '\n' | '\r' | '\t' => safe.push(' '),
            character => safe.push(character),
        }
    }
    writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{safe}</text>",
        LEFT - 8.0,
        top + 13.0
    )
    .ok();
}

/// When each fault acted. One whose end is not known acted to the end of the run.
fn fault_spans(entries: &[JournalEntry], total: f64) -> Vec<FaultSpan> {
    let mut spans: Vec<FaultSpan> = Vec::new();
    let mut requested: Vec<(&String, String)> = Vec::new();
    for entry in entries {
        match &entry.event {
            Event::InjectionRequested {
                injection,
                fault,
                agent,
                ..
            } => {
                requested.push((injection, format!("{fault} on {agent}")));
            }
            Event::Injected { injection, .. } => {
                let known = requested.iter().find(|(known, _)| *known == injection);
                spans.push(FaultSpan {
                    injection: injection.clone(),
                    name: known.map_or_else(|| injection.clone(), |(_, name)| name.clone()),
                    from: entry.elapsed,
                    until: total,
                });
            }
            Event::InjectionEnded(ended) => {
                let span = spans
                    .iter_mut()
                    .find(|span| span.injection == ended.injection);
                if let Some(span) = span {
                    span.until = entry.elapsed;
                }
            }
            _ => {}
        }
    }
    spans
}

/// The samples of a probe: when, and what they were judged to be.
fn marks(entries: &[JournalEntry], name: &str) -> Vec<(f64, Judgement)> {
    let all: Vec<(f64, Judgement)> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Sampled {
                probe, judgement, ..
            } if probe == name => Some((entry.elapsed, *judgement)),
            _ => None,
        })
        .collect();
    let step = all.len().div_ceil(MAX_MARKS).max(1);
    let is_kept =
        |place: usize, judgement| place.is_multiple_of(step) || judgement != Judgement::Within;
    all.into_iter()
        .enumerate()
        .filter(|(place, (_, judgement))| is_kept(*place, *judgement))
        .map(|(_, mark)| mark)
        .take(2 * MAX_MARKS)
        .collect()
}
