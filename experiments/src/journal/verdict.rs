//! What a run comes to. A pure function of the fold, so that the journal alone gives the verdict.

use super::{AbortBy, ActivityStatus, InjectionState, Judgement, Outage, Run};
use crate::Span;
use crate::wire::{Cause, Owed};
use serde::Serialize;
use std::fmt;

/// What a run comes to, with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The hypothesis held before, during and after, the faults took effect, and all is clean.
    Held,
    /// The hypothesis failed while or after the fault acted.
    Deviated,
    /// The command line or the definition is wrong.
    Invalid,
    /// Nothing was injected: gate, blast radius, policy, or no target.
    NotStarted,
    /// Ended by an operator, an abort rule other than the hypothesis, or a lost agent.
    Aborted,
    /// A probe broke, or a fault had no effect.
    Inconclusive,
    /// Something is not proved to be put back. Outranks every other.
    NotClean,
}

impl Outcome {
    /// The exit code of a command that ends with this outcome.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Held => 0,
            Outcome::Deviated => 1,
            Outcome::Invalid => 2,
            Outcome::NotStarted => 3,
            Outcome::Aborted => 4,
            Outcome::Inconclusive => 5,
            Outcome::NotClean => 6,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Held => "held",
            Outcome::Deviated => "deviated",
            Outcome::Invalid => "invalid",
            Outcome::NotStarted => "not started",
            Outcome::Aborted => "aborted",
            Outcome::Inconclusive => "inconclusive",
            Outcome::NotClean => "not clean",
        })
    }
}

/// What a run comes to, and why.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// The process' exit code.
    pub exit_code: u8,
    /// Why, most important first; one line each. Empty where all held.
    pub reasons: Vec<String>,
    /// What would do, where a refusal said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Times out of tolerance, by probe.
    pub outages: Vec<(String, Outage)>,
    /// How long after the last revert the hypothesis held again, where the experiment asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_after: Option<Span>,
    /// What has to be looked at by a person. Empty where all is clean.
    pub owed: Vec<Owed>,
}

/// What this run comes to. For a journal that was cut short: what can be said of it.
pub fn verdict(run: &Run) -> Verdict {
    let owed = owed(run);
    let mut reasons: Vec<String> = owed
        .iter()
        .map(|o| {
            format!(
                "not proved to be put back: {} ({}): {}",
                o.injection,
                o.fault,
                o.residue.join("; ")
            )
        })
        .collect();
    let deviations = deviations(run);
    let doubts = doubts(run);
    let aborts = run.aborts.iter().filter(|abort| !abort.by.is_finding());
    let acted = run
        .injections
        .values()
        .any(|i| i.state != InjectionState::Refused);
    let refused = !acted
        && run
            .aborts
            .first()
            .is_some_and(|abort| abort.by == AbortBy::Action);
    let mut hint = None;

    let outcome = if !owed.is_empty() {
        Outcome::NotClean
    } else if run.not_started.is_some() || refused {
        Outcome::NotStarted
    } else if run.interrupted.is_some() {
        // Nobody looked to the end: whatever was seen is told, and concludes nothing.
        Outcome::Inconclusive
    } else if aborts.clone().next().is_some() || !run.lost.is_empty() {
        Outcome::Aborted
    } else if !deviations.is_empty() {
        Outcome::Deviated
    } else if !doubts.is_empty() {
        Outcome::Inconclusive
    } else {
        Outcome::Held
    };

    if let Some((rule, reason, would_do)) = &run.not_started {
        reasons.push(format!("{reason} (rule: {rule})"));
        hint.clone_from(would_do);
    }
    reasons.extend(run.interrupted.clone());
    reasons.extend(aborts.map(|abort| format!("{}: {}", abort.rule, abort.reason)));
    reasons.extend(
        run.lost
            .iter()
            .map(|(agent, why)| format!("agent `{agent}` was lost: {why}")),
    );
    reasons.extend(deviations);
    if run.not_started.is_none() {
        reasons.extend(doubts);
    }
    Verdict {
        outcome,
        exit_code: outcome.exit_code(),
        reasons,
        hint,
        outages: run
            .probes
            .iter()
            .flat_map(|(name, record)| {
                record
                    .outages
                    .iter()
                    .map(move |outage| (name.clone(), *outage))
            })
            .collect(),
        recovered_after: run.recovery.and_then(Result::ok),
        owed,
    }
}

/// What is not proved to be put back.
fn owed(run: &Run) -> Vec<Owed> {
    let mut owed = run.owed.clone();
    for (id, injection) in &run.injections {
        let residue = match &injection.state {
            InjectionState::Refused => continue,
            InjectionState::Ended(ended) if ended.clean => continue,
            InjectionState::Ended(ended) => ended.residue.clone(),
            InjectionState::Requested | InjectionState::Acting => {
                vec![format!(
                    "its end on agent `{}` is not known",
                    injection.agent
                )]
            }
        };
        if !owed.iter().any(|known| known.injection == *id) {
            owed.push(Owed {
                injection: id.clone(),
                fault: injection.fault.clone(),
                residue,
            });
        }
    }
    owed
}

/// Where the hypothesis failed.
fn deviations(run: &Run) -> Vec<String> {
    let mut found = Vec::new();
    for (name, probe) in &run.probes {
        let why = probe
            .why
            .as_deref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        if probe.during.outside > 0 {
            let length: f64 = probe
                .outages
                .iter()
                .map(|outage| outage.until - outage.from)
                .sum();
            found.push(format!(
                "probe `{name}` was out of tolerance in {} of {} samples while the method went on, for {length:.1} s{why}",
                probe.during.outside,
                probe.during.within + probe.during.outside + probe.during.unknown,
            ));
        }
        // With a recovery time, the last look is judged by whether it was kept.
        if probe.after.outside > 0 && run.recovery_within.is_none() {
            found.push(format!(
                "probe `{name}` was out of tolerance after the method{why}"
            ));
        }
    }
    if let Some(Err(within)) = run.recovery {
        found.push(format!("the hypothesis did not hold again within {within}"));
    }
    for injection in run.injections.values() {
        if let Some(unmet) = injection
            .effect
            .as_ref()
            .and_then(|effect| effect.unmet.as_deref())
        {
            found.push(format!(
                "fault `{}` on `{}`: {unmet}",
                injection.fault, injection.agent
            ));
        }
    }
    for activity in &run.activities {
        if activity.judgement == Some(Judgement::Outside) {
            let why = activity
                .why
                .as_deref()
                .unwrap_or("its output was out of tolerance");
            found.push(format!("activity `{}`: {why}", activity.name));
        }
    }
    found
}

/// Why nothing can be concluded.
fn doubts(run: &Run) -> Vec<String> {
    let mut found = Vec::new();
    if !run.ended {
        found.push("the journal was cut short".into());
    }
    for (name, probe) in &run.probes {
        if probe.during.unknown + probe.after.unknown > 0 {
            let why = probe.why.as_deref().unwrap_or("no reason was given");
            found.push(format!("probe `{name}` could not be measured: {why}"));
        }
        let after = probe.after.within + probe.after.outside + probe.after.unknown;
        if run.ended && run.looks.is_some_and(|looks| looks.after) && after == 0 {
            found.push(format!("probe `{name}` was not looked at after the method"));
        }
    }
    for injection in run
        .injections
        .values()
        .filter(|i| i.state != InjectionState::Refused)
    {
        let early =
            matches!(&injection.state, InjectionState::Ended(e) if e.cause == Cause::Failed);
        if !injection.acted {
            let seen = injection
                .effect
                .as_ref()
                .map_or("nothing was seen of it", |e| e.seen.as_str());
            found.push(format!(
                "fault `{}` on `{}` had no effect: {seen}",
                injection.fault, injection.agent
            ));
        } else if early {
            found.push(format!(
                "fault `{}` on `{}` ended before its time",
                injection.fault, injection.agent
            ));
        }
    }
    for activity in &run.activities {
        let why = activity.why.as_deref().unwrap_or("no reason was given");
        match (activity.status, activity.judgement) {
            (ActivityStatus::Failed, _) => {
                found.push(format!("activity `{}` failed: {why}", activity.name))
            }
            (_, Some(Judgement::Unknown)) => {
                found.push(format!(
                    "activity `{}` could not be judged: {why}",
                    activity.name
                ));
            }
            _ => {}
        }
    }
    found
}
