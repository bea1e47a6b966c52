//! The report of a finished run, for people.

use super::output::shown_path;
use super::palette::Palette;
use backburn::runner::FinishedRun;
use backburn_experiments::journal::{InjectionState, Outcome};
use backburn_experiments::terminal_text::{escape, escaped};
use std::fmt::Write;
use std::path::Path;

/// Formats the verdict first, then its reasons and consequences, then where the journal is.
pub(crate) fn format_report(title: &str, finished: &FinishedRun, journal: Option<&Path>) -> String {
    let (paint, run) = (Palette::stdout(), &finished.run);
    let escaped_verdict = escaped(&finished.verdict);
    let verdict = escaped_verdict.as_ref().unwrap_or(&finished.verdict);
    let word = verdict.outcome.to_string();
    let word = match verdict.outcome {
        Outcome::Held => paint.success(&word),
        Outcome::Deviated | Outcome::NotClean | Outcome::Invalid => paint.failure(&word),
        Outcome::NotStarted | Outcome::Aborted | Outcome::Inconclusive | Outcome::NotInjected => {
            paint.warning(&word)
        }
    };
    let mut out = format!("{word}: {}\n", escape(title));
    // Writing to a string cannot fail.
    for reason in &verdict.reasons {
        writeln!(out, "  {reason}").ok();
    }
    for note in &verdict.notes {
        writeln!(out, "  {note}").ok();
    }
    for abort in run.aborts.iter().filter(|abort| abort.by.is_finding()) {
        writeln!(
            out,
            "  ended by abort rule `{}`: {}",
            escape(&abort.rule),
            escape(&abort.reason)
        )
        .ok();
    }
    // A probe that failed the gate is a reason; it was no outage of the run.
    for (probe, outage) in verdict.outages.iter().filter(|_| run.not_started.is_none()) {
        let end = if outage.over { "" } else { ", not seen to end" };
        let (from, until) = (outage.from, outage.until);
        writeln!(
            out,
            "  outage of `{probe}`: {:.1} s, from {from:.1} s to {until:.1} s{end}",
            until - from
        )
        .ok();
    }
    for looks in verdict.probes.iter().filter(|probe| probe.samples > 0) {
        writeln!(out, "  probe `{}`: {looks}", looks.probe).ok();
    }
    if let Some(after) = verdict.recovered_after {
        writeln!(out, "  recovered {after} after the last revert").ok();
    }
    let ended = run
        .injections
        .values()
        .filter(|i| matches!(&i.state, InjectionState::Ended(ended) if ended.clean))
        .count();
    if ended > 0 && verdict.owed.is_empty() {
        writeln!(out, "  clean: every injection is reverted").ok();
    }
    if !verdict.owed.is_empty() {
        writeln!(
            out,
            "  a person has to check this host; `backburn revert --all` tries again to revert"
        )
        .ok();
    }
    let kept = journal.map_or(String::new(), |path| {
        format!(", journal {}", shown_path(path))
    });
    writeln!(out, "  run {}, seed {}{kept}", run.id, run.seed).ok();
    if let Some(hint) = &verdict.hint {
        writeln!(out, "\nhint: {hint}").ok();
    }
    out
}
