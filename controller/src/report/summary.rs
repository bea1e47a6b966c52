//! What follows from a journal, in sentences: the question and its answer, objectives, what held, what surprised, and what was
//! not tested. They speak of systems and conditions.

use super::builder::ReportBuilder;
use super::model::{FaultHit, Objective, TimelineItem, outage_seconds};
use super::timeline::marked;
use backburn_experiments::confidence::percent;
use backburn_experiments::journal::{
    ActivityStatus, InjectionState, Judgement, Outcome, Phase, ProbeSamples, Run, Verdict,
};
use backburn_experiments::wire::Cause;
use std::collections::BTreeSet;

/// The objective for the mark by which somebody noticed.
pub(super) const DETECTED_BY_PEOPLE: &str = "time to detect, by people";
/// The objective for the mark by which users did not suffer any more.
pub(super) const MITIGATED: &str = "time to mitigate";

/// The most names that a sentence lists.
const MAX_NAMES: usize = 5;

/// Names as a list within a sentence, of which no more than [`MAX_NAMES`] are written.
pub(super) fn listed(names: &[String]) -> String {
    match names.len() > MAX_NAMES {
        true => format!(
            "{} and {} more",
            names[..MAX_NAMES].join(", "),
            names.len() - MAX_NAMES
        ),
        false => names.join(", "),
    }
}

/// A length of time for people: milliseconds below a second, minutes from two minutes on.
pub(super) fn length(seconds: f64) -> String {
    match seconds {
        short if short < 1.0 => format!("{:.0} ms", short * 1e3),
        long if long >= 120.0 => format!("{} min {:.0} s", (long / 60.0).floor(), long % 60.0),
        seconds => format!("{seconds:.1} s"),
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let names: BTreeSet<&String> = names.collect();
    names.into_iter().cloned().collect()
}

/// What was asked, in one sentence.
pub(super) fn question(read: &ReportBuilder, hits: &[FaultHit]) -> String {
    let faults = sorted(hits.iter().map(|hit| &hit.fault));
    let agents = sorted(hits.iter().map(|hit| &hit.agent));
    let condition = match (faults.is_empty(), agents.is_empty()) {
        (false, false) => format!(" while {} acts on {}", listed(&faults), listed(&agents)),
        _ => String::new(),
    };
    let hypothesis = read
        .question
        .as_deref()
        .filter(|question| !question.is_empty());
    let held = match (hypothesis, read.run.probes.is_empty()) {
        (Some(title), _) => format!("does it hold that “{title}”"),
        (None, false) => {
            let probes: Vec<String> = read.run.probes.keys().cloned().collect();
            format!("do the probes {} stay in tolerance", listed(&probes))
        }
        (None, true) => "what happens".into(),
    };
    format!("{}: {held}{condition}?", read.run.title)
}

/// The answer, in one sentence.
pub(super) fn answer(run: &Run, verdict: &Verdict) -> String {
    let first = verdict.reasons.first().map(String::as_str);
    let because = first.map_or(String::new(), |reason| format!(": {reason}"));
    match verdict.outcome {
        Outcome::Held if verdict.probes.is_empty() => {
            "Nothing deviated, but the experiment has no hypothesis that was measured.".into()
        }
        Outcome::Held => {
            let samples: usize = verdict.probes.iter().map(|probe| probe.samples).sum();
            format!("Yes: it held in all {samples} checks that count, and everything is reverted.")
        }
        Outcome::Deviated => format!("No{because}."),
        Outcome::NotStarted => format!("It was not tested{because}."),
        Outcome::NotInjected => {
            format!("It was not tested: the fault could not be injected{because}.")
        }
        Outcome::Aborted => format!("It is not known: the run was ended before its time{because}."),
        Outcome::Inconclusive if run.ended => format!("It is not known{because}."),
        Outcome::Inconclusive => "It is not known: the journal was cut short.".into(),
        Outcome::NotClean => format!("Something was not seen to be reverted{because}."),
        Outcome::Invalid => format!("The document is wrong{because}."),
    }
}

/// What was wanted, beside what was measured.
pub(super) fn objectives(
    read: &ReportBuilder,
    verdict: &Verdict,
    hits: &[FaultHit],
    items: &[TimelineItem],
) -> Vec<Objective> {
    let run = &read.run;
    let first_fault = hits
        .iter()
        .filter_map(|hit| hit.from)
        .min_by(f64::total_cmp);
    let since = |at: Option<f64>| Some(at? - first_fault?);
    let timed = |name: &str, seconds: Option<f64>, missing: &str| Objective {
        name: name.into(),
        wanted: None,
        measured: seconds.map_or(missing.to_owned(), length),
        seconds,
        met: None,
    };
    let mut all = Vec::new();
    let during = run.hypothesis_timing.is_some_and(|timing| timing.during);
    if during && !run.probes.is_empty() {
        let counted = run.probes.values().map(|probe| probe.during);
        let (checks, failed) = counted.fold((0, 0), |(checks, failed), tally| {
            (checks + tally.judged(), failed + tally.outside)
        });
        all.push(Objective {
            name: "hypothesis during the method".into(),
            wanted: Some("no check out of tolerance".into()),
            measured: format!("{failed} of {checks} checks out of tolerance"),
            seconds: None,
            met: (checks > 0).then_some(failed == 0),
        });
    }
    let never = "nothing was out of tolerance";
    all.push(timed(
        "time to detect, by the probes",
        since(read.first_failure),
        never,
    ));
    let after = first_fault.unwrap_or_default();
    let marks = [("detected", DETECTED_BY_PEOPLE), ("mitigated", MITIGATED)];
    for (mark, name) in marks {
        all.push(timed(
            name,
            since(marked(items, mark, after)),
            "nobody marked it",
        ));
    }
    let recovered = verdict.recovered_after.map(|after| after.0.as_secs_f64());
    let mut recovery = timed(
        "time to recover after the last revert",
        recovered,
        "not measured",
    );
    if let Some(within) = run.recovery_within {
        recovery.wanted = Some(format!("within {within}"));
        recovery.met = run.recovery.map(|recovery| recovery.is_ok());
        if let Some(Err(within)) = run.recovery {
            recovery.measured = format!("not within {within}");
        }
    }
    all.push(recovery);
    let hurt = outage_seconds(verdict);
    let share = match run.elapsed > 0.0 {
        true => format!("{} of the run", percent((hurt / run.elapsed).min(1.0))),
        false => "the whole run".into(),
    };
    all.push(Objective {
        name: "time out of tolerance (error budget spent)".into(),
        wanted: None,
        measured: match hurt > 0.0 {
            true => format!("{}, {share}", length(hurt)),
            false => "none".into(),
        },
        seconds: Some(hurt),
        met: None,
    });
    let reverts = hits.iter().filter(|hit| hit.clean == Some(true));
    let slowest = reverts
        .filter_map(|hit| hit.revert_seconds)
        .max_by(f64::total_cmp);
    let mut clean = timed(
        "time to clean, of the slowest fault",
        slowest,
        "nothing was reverted",
    );
    if hits.iter().any(|hit| hit.clean.is_some()) {
        clean.wanted = Some("everything is seen to be gone".into());
        clean.met = Some(verdict.owed.is_empty());
    }
    all.push(clean);
    all
}

/// What held, a line each.
pub(super) fn held(run: &Run, verdict: &Verdict) -> Vec<String> {
    let mut held = Vec::new();
    for probe in verdict
        .probes
        .iter()
        .filter(|probe| probe.samples > 0 && probe.failures == 0)
    {
        held.push(format!("probe {}: {probe}", probe.probe));
    }
    for activity in &run.activities {
        if activity.judgement == Some(Judgement::Within) {
            held.push(format!("activity {} was in tolerance", activity.name));
        }
    }
    if let Some(after) = verdict.recovered_after {
        held.push(format!(
            "the hypothesis held again {after} after the last revert"
        ));
    }
    let ended = run
        .injections
        .values()
        .any(|record| matches!(record.state, InjectionState::Ended(_)));
    if ended && verdict.owed.is_empty() {
        held.push("every fault was seen to be gone".into());
    }
    held
}

/// What surprised, a line each: whatever speaks against the hypothesis, or kept it from being tested.
pub(super) fn surprises(run: &Run, verdict: &Verdict) -> Vec<String> {
    let mut found = verdict.reasons.clone();
    found.extend(verdict.notes.iter().cloned());
    for record in run.injections.values() {
        let warnings = record.plan.iter().flat_map(|plan| &plan.warnings);
        found.extend(
            warnings.map(|warning| format!("{} on {}: {warning}", record.fault, record.agent)),
        );
    }
    let aborts = run.aborts.iter().filter(|abort| abort.by.is_finding());
    found.extend(
        aborts.map(|abort| format!("ended by abort rule {}: {}", abort.rule, abort.reason)),
    );
    found
}

/// What was not tested, a line each.
pub(super) fn untested(read: &ReportBuilder, verdict: &Verdict, hits: &[FaultHit]) -> Vec<String> {
    let run = &read.run;
    let mut found = Vec::new();
    for reach in &read.targets {
        let spared = reach
            .matched
            .iter()
            .filter(|agent| !reach.picked.contains(agent));
        let spared: Vec<String> = spared.cloned().collect();
        if !spared.is_empty() {
            found.push(format!(
                "target {}: {} matched and were not picked",
                reach.target,
                listed(&spared)
            ));
        }
    }
    for hit in hits {
        if !hit.acted && hit.from.is_some() {
            found.push(format!(
                "fault {} on {} was not seen to act",
                hit.fault, hit.agent
            ));
        }
        if hit.from.is_none() {
            found.push(format!(
                "fault {} on {} was not injected",
                hit.fault, hit.agent
            ));
        }
    }
    for activity in &run.activities {
        if activity.status == ActivityStatus::Aborted {
            found.push(format!("activity {} did not go to its end", activity.name));
        }
    }
    for (name, probe) in &run.probes {
        let unknown = probe.before.unknown + probe.during.unknown + probe.after.unknown;
        if unknown > 0 {
            found.push(format!(
                "probe {name} could not be judged in {unknown} checks"
            ));
        }
        if probe.before.judged() + probe.during.judged() + probe.after.judged() == 0 {
            found.push(format!("probe {name} was never judged"));
        }
    }
    if let Some(timing) = run.hypothesis_timing.filter(|_| !run.probes.is_empty()) {
        let periods = [
            (timing.before, "before"),
            (timing.during, "during"),
            (timing.after, "after"),
        ];
        for (_, when) in periods.iter().filter(|(is_checked, _)| !is_checked) {
            found.push(format!(
                "the experiment does not check the hypothesis {when} the method"
            ));
        }
    }
    if run.probes.is_empty() {
        found.push("the experiment has no hypothesis: nothing says what should hold".into());
    }
    if matches!(run.phase, None | Some(Phase::Gate)) {
        found.push("the method did not begin".into());
    }
    // What was seen to fail is no open question.
    let held = |probe: &&ProbeSamples| probe.samples > 0 && probe.failures == 0;
    for probe in verdict.probes.iter().filter(held) {
        let bound = percent(probe.upper_bound);
        let rate = format!(
            "whether probe {} fails in up to {bound} of all cases",
            probe.probe
        );
        found.push(format!(
            "{rate}: {} checks cannot exclude that",
            probe.samples
        ));
    }
    found
}

/// Why an injection ended, in words.
pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Finished => "its time was over, or it was done",
        Cause::ControllerRequest => "the run ended it",
        Cause::LeaseExpired => "the agent did not hear from the controller",
        Cause::ConnectionClosed => "the connection to the controller closed",
        Cause::AbortRule => "an abort rule of the host",
        Cause::Failed => "it failed, or was gone by itself",
        Cause::Shutdown => "the agent was told to end",
        Cause::AgentDied => "the agent died",
        Cause::Manual => "reverted by hand",
    }
}
