//! The summary of a job in Markdown: the verdicts, what was measured, a plot, and how to run each experiment again.

use super::super::completed_run::CompletedRun;
use super::escape::{markdown_text, shell_block};
use super::timeline::timeline_svg;
use super::{ExperimentEnding, ExperimentResult, worst_exit_code};
use backburn_experiments::journal::{
    Event, InjectionRecord, InjectionState, Judgement, exit_codes,
};
use std::fmt::Write;

/// The longest summary, in bytes. GitHub takes no more than 1 MiB, and nothing of a longer one.
const MAX_SUMMARY_BYTES: usize = 900_000;

/// The most samples of a probe that are shown as signs in a row.
const MAX_SIGNS: usize = 60;

/// The summary of these experiments.
pub(super) fn summary(results: &[ExperimentResult]) -> String {
    let mut out = String::new();
    if let [only] = results {
        out.push_str(&section(only, "#"));
        return out;
    }
    let held = results
        .iter()
        .filter(|result| result.exit_code() == Some(0))
        .count();
    let sign = if held == results.len() { "✅" } else { "❌" };
    let code = worst_exit_code(results);
    let meaning = exit_codes().into_iter().find(|exit| exit.code == code);
    let word = meaning.map_or("failed", |exit| exit.name);
    // Writing to a string cannot fail.
    writeln!(
        out,
        "# {sign} {held} of {} experiments held\n",
        results.len()
    )
    .ok();
    if results.is_empty() {
        out.push_str("No experiment was selected\n");
        return out;
    }
    writeln!(out, "Exit code {code}: {word}\n").ok();
    writeln!(
        out,
        "| | verdict | experiment | took | why |\n|---|---|---|--:|---|"
    )
    .ok();
    for result in results {
        let (took, why) = match &result.ending {
            ExperimentEnding::Finished(run) => (
                seconds(run.finished.run.elapsed),
                run.finished
                    .verdict
                    .reasons
                    .first()
                    .cloned()
                    .unwrap_or_default(),
            ),
            ExperimentEnding::Failed(failure) => (
                String::new(),
                failure
                    .message
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            ),
            ExperimentEnding::Skipped(why) => (String::new(), why.clone()),
        };
        let (word, title) = (result.word(), markdown_text(&result.title()));
        let (sign, why) = (sign_of(result), markdown_text(&why));
        let file = markdown_text(&result.file.display().to_string());
        writeln!(
            out,
            "| {sign} | {word} | {title}<br><sub>{file}</sub> | {took} | {why} |"
        )
        .ok();
    }
    out.push('\n');
    // What did not hold comes first: where the summary has to be cut, its end matters least.
    let (good, bad): (Vec<_>, Vec<_>) = results
        .iter()
        .partition(|result| result.exit_code() == Some(0));
    for result in bad.into_iter().chain(good) {
        let section = section(result, "##");
        if out.len() + section.len() > MAX_SUMMARY_BYTES {
            out.push_str(
                "\nThe other experiments are left out, since a summary has at most 1 MiB\n",
            );
            break;
        }
        out.push_str(&section);
    }
    out
}

fn sign_of(result: &ExperimentResult) -> &'static str {
    match result.exit_code() {
        Some(0) => "✅",
        Some(3 | 5) => "⚠️",
        Some(_) => "❌",
        None => "⏭️",
    }
}

/// The part of a summary about one experiment.
fn section(result: &ExperimentResult, heading: &str) -> String {
    let (sign, word, title) = (
        sign_of(result),
        result.word(),
        markdown_text(&result.title()),
    );
    let mut out = format!("{heading} {sign} {word}: {title}\n\n");
    match &result.ending {
        ExperimentEnding::Finished(run) => out.push_str(&of_run(run)),
        ExperimentEnding::Failed(failure) => {
            for line in failure.message.lines() {
                writeln!(out, "- {}", markdown_text(line.trim())).ok();
            }
        }
        ExperimentEnding::Skipped(why) => {
            writeln!(out, "- {}", markdown_text(why)).ok();
        }
    }
    write!(out, "\nRun it again:\n\n{}\n", shell_block(&result.rerun)).ok();
    out
}

fn of_run(completed: &CompletedRun) -> String {
    let (run, verdict) = (&completed.finished.run, &completed.finished.verdict);
    let mut out = String::new();
    for line in verdict.reasons.iter().chain(&verdict.notes) {
        writeln!(out, "- {}", markdown_text(line)).ok();
    }
    if let Some(hint) = &verdict.hint {
        writeln!(out, "- hint: {}", markdown_text(hint)).ok();
    }
    if !run.probes.is_empty() {
        writeln!(out, "\n| probe | within | outside | unknown | samples in order | what that shows |\n|---|--:|--:|--:|---|---|").ok();
    }
    for (name, probe) in &run.probes {
        let sum = |of: fn(&backburn_experiments::journal::SampleCounts) -> usize| {
            of(&probe.before) + of(&probe.during) + of(&probe.after)
        };
        let shows = verdict.probes.iter().find(|samples| samples.probe == *name);
        let shows = shows.map_or_else(String::new, |samples| markdown_text(&samples.to_string()));
        let (within, outside, unknown) =
            (sum(|c| c.within), sum(|c| c.outside), sum(|c| c.unknown));
        let (name, signs) = (markdown_text(name), signs(completed, name));
        writeln!(
            out,
            "| {name} | {within} | {outside} | {unknown} | {signs} | {shows} |"
        )
        .ok();
    }
    if !run.injections.is_empty() {
        writeln!(out, "\n| action | fault | agent | end |\n|---|---|---|---|").ok();
    }
    for record in run.injections.values() {
        let [action, fault, agent] =
            [&record.activity, &record.fault, &record.agent].map(|text| markdown_text(text));
        writeln!(out, "| {action} | {fault} | {agent} | {} |", end_of(record)).ok();
    }
    let plot = timeline_svg(completed);
    if !plot.is_empty() {
        write!(out, "\n{plot}\n").ok();
    }
    let id = markdown_text(&run.id);
    writeln!(
        out,
        "\nRun {id}, seed {}, {}",
        run.seed,
        seconds(run.elapsed)
    )
    .ok();
    out
}

/// How an injection ended, for people.
fn end_of(record: &InjectionRecord) -> &'static str {
    match &record.state {
        InjectionState::Ended(ended) if ended.clean => "reverted",
        InjectionState::Ended(_) => "**not seen to be reverted**",
        InjectionState::Refused => "refused",
        InjectionState::Requested | InjectionState::Acting => "**its end is not known**",
    }
}

/// The judgements of a probe in their order, a sign each. Of many, runs of equal ones are shortened.
fn signs(completed: &CompletedRun, name: &str) -> String {
    let samples = completed
        .entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Sampled {
                probe, judgement, ..
            } if probe == name => Some(*judgement),
            _ => None,
        });
    let mut runs: Vec<(Judgement, usize)> = Vec::new();
    for judgement in samples {
        match runs.last_mut() {
            Some((last, count)) if *last == judgement => *count += 1,
            _ => runs.push((judgement, 1)),
        }
    }
    let total: usize = runs.iter().map(|(_, count)| count).sum();
    let mut out = String::new();
    for (place, (judgement, count)) in runs.iter().enumerate() {
        if place == MAX_SIGNS {
            out.push('…');
            break;
        }
        let (_, sign) = judgement.mark();
        match total > MAX_SIGNS && *count > 2 {
            true => write!(out, "{sign}×{count} ").ok(),
            false => write!(out, "{}", sign.repeat(*count)).ok(),
        };
    }
    out
}

fn seconds(elapsed: f64) -> String {
    format!("{elapsed:.1} s")
}
