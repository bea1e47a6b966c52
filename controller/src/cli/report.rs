//! The report of a finished run, for people.

use super::default_state;
use super::output::shown_path;
use super::palette::Palette;
use super::shell_words::shell_words;
use backburn::runner::FinishedRun;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{InjectionRecord, InjectionState, Outcome, Run, Verdict};
use backburn_experiments::terminal_text::{escape, escaped};
use jiff::Timestamp;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

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
    if let Some(who) = &run.approved_by {
        writeln!(out, "  approved by `{who}`").ok();
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
    let kept = journal.map_or(String::new(), |path| {
        format!(", journal {}", shown_path(path))
    });
    writeln!(out, "  run {}, seed {}{kept}", run.id, run.seed).ok();
    if let Some(hint) = &verdict.hint {
        writeln!(out, "\nhint: {hint}").ok();
    }
    out
}

/// Names the command that reverts what a local run left, in place of that for an agent of a fleet.
pub(super) fn name_local_revert(verdict: &mut Verdict, state: &Path) {
    if verdict.owed.is_empty() {
        return;
    }
    let mut words: Vec<OsString> = ["backburn", "revert", "--all"].map(OsString::from).into();
    if nix::unistd::geteuid().is_root() {
        words.insert(0, "sudo".into());
    }
    if default_state().is_ok_and(|usual| usual != state) {
        words.push("--state".into());
        words.push(std::path::absolute(state).map_or(state.into(), Into::into));
    }
    verdict.hint = Some(format!(
        "run `{}` on this host: it reverts what is left, or says what is in the way",
        shell_words(words)
    ));
}

/// Formats a run that goes on: its phase, and each fault with the time that is left of it. `now` is in seconds since the run
/// started.
pub(super) fn format_open_run(run: &Run, now: f64) -> String {
    let mut out = format!("running: {}\n", escape(&run.title));
    // Writing to a string cannot fail.
    if let Some(phase) = run.phase {
        let phase = phase.headline().trim_start_matches(['─', ' ']);
        writeln!(out, "  phase: {phase}").ok();
    }
    for abort in &run.aborts {
        writeln!(
            out,
            "  ending: {}: {}",
            escape(&abort.rule),
            escape(&abort.reason)
        )
        .ok();
    }
    for (_, record) in run.open() {
        let (activity, fault, agent) = (
            escape(&record.activity),
            escape(&record.fault),
            escape(&record.agent),
        );
        let time = time_of(record, now);
        writeln!(out, "  fault: {activity} ({fault}) on {agent}, {time}").ok();
    }
    writeln!(
        out,
        "  run {}, seed {}, for {}",
        escape(&run.id),
        run.seed,
        whole_seconds(now)
    )
    .ok();
    out
}

/// How long an injection still acts, or has acted where that is not known, in words. `now` is in seconds since the run started.
pub(super) fn time_of(record: &InjectionRecord, now: f64) -> String {
    match (record.since, record.duration) {
        (None, _) => "requested".into(),
        (Some(since), Some(duration)) => {
            let left = since + duration.0.as_secs_f64() - now;
            match left > 0.0 {
                true => format!("{} left", whole_seconds(left)),
                false => "ending".into(),
            }
        }
        (Some(since), None) => format!("for {}", whole_seconds(now - since)),
    }
}

/// The time since then by the wall clock, in seconds; never negative.
pub(super) fn seconds_since(then: Timestamp) -> f64 {
    Timestamp::now().duration_since(then).as_secs_f64().max(0.0)
}

fn whole_seconds(seconds: f64) -> HumanDuration {
    // A conversion of a float to an integer saturates.
    HumanDuration(Duration::from_secs(seconds.max(0.0).round() as u64))
}
