//! What a run comes to. A pure function of the fold, so that the journal alone gives the verdict.

use super::measured::{ProbeSamples, is_measured, probe_samples};
use super::{
    AbortBy, ActivityStatus, InjectionRecord, InjectionState, Judgement, Outage, Outcome, Run,
};
use crate::HumanDuration;
use crate::wire::{Cause, UnrevertedInjection};
use serde::Serialize;
use std::collections::BTreeSet;

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
    /// What has to be known to read the outcome as it is meant, e.g. that nothing was measured where nothing was injected
    /// either. One line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How often each probe of the hypothesis was looked at, and what that can show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeSamples>,
    /// Times out of tolerance, by probe.
    pub outages: Vec<(String, Outage)>,
    /// How long after the last revert the hypothesis held again, where the experiment asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_after: Option<HumanDuration>,
    /// What has to be looked at by a person. Empty where all is clean.
    pub owed: Vec<UnrevertedInjection>,
    /// The agents on whose hosts a person has to look, each once. Empty where all is clean, and in verdicts of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owing_agents: Vec<String>,
}

/// The command that reverts what is left on an agent's host, for whoever reads of it elsewhere. The state folder is that of the
/// delivered unit; an agent may have been started with another one.
pub const AGENT_REVERT_COMMAND: &str = "sudo backburn-agent revert --all --state /var/lib/backburn";

/// What to do on the hosts of these agents: which command, run where.
pub fn revert_hint(agents: &[String]) -> String {
    let names: Vec<String> = agents.iter().map(|agent| format!("`{agent}`")).collect();
    let hosts = match &names[..] {
        [one] => format!("the host of agent {one}"),
        all => format!("each of the hosts of the agents {}", all.join(", ")),
    };
    format!(
        "run `{AGENT_REVERT_COMMAND}` on {hosts}, with the state folder that its agent was started with: it reverts what is left, or says what is in the way"
    )
}

/// What this run comes to. For a journal that was cut short: what can be said of it.
pub fn verdict(run: &Run) -> Verdict {
    let owed = owed(run);
    let mut reasons: Vec<String> = owed
        .iter()
        .map(|o| {
            let host = run.agent_of(&o.injection);
            let host = host.map(|agent| format!(" on `{agent}`"));
            format!(
                "not proved to be reverted{}: {} ({}): {}",
                host.unwrap_or_default(),
                o.injection,
                o.fault,
                o.residue.join("; ")
            )
        })
        .collect();
    let owing_agents: BTreeSet<&str> = owed
        .iter()
        .filter_map(|o| run.agent_of(&o.injection))
        .collect();
    let owing_agents: Vec<String> = owing_agents.into_iter().map(str::to_owned).collect();
    let deviations = deviations(run);
    let doubts = doubts(run);
    let failures = failures(run);
    // The abort that follows from a failed inject only repeats its reason.
    let aborts = run.aborts.iter().filter(|abort| {
        !abort.by.is_finding() && (failures.is_empty() || abort.by != AbortBy::Action)
    });
    let acted = run
        .injections
        .values()
        .any(|i| i.state != InjectionState::Refused);
    let by_action = run
        .aborts
        .first()
        .is_some_and(|abort| abort.by == AbortBy::Action);
    let refused = !acted && by_action;
    let mut hint = None;

    let outcome = if !owed.is_empty() {
        Outcome::NotClean
    } else if run.not_started.is_some() || refused {
        Outcome::NotStarted
    } else if run.interrupted.is_some() {
        // Nobody looked to the end: whatever was seen is told, and concludes nothing.
        Outcome::Inconclusive
    } else if by_action && !failures.is_empty() {
        Outcome::NotInjected
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
    let failed = run.injections.values().filter_map(|i| i.failure.as_ref());
    let mut would_do = failed.filter_map(|why| Some(why.split_once("\nhint: ")?.1.to_owned()));
    hint = hint.or_else(|| would_do.next());
    if !owing_agents.is_empty() {
        // What is left behind comes before everything else.
        hint = Some(revert_hint(&owing_agents));
    }
    reasons.extend(run.interrupted.clone());
    reasons.extend(failures.iter().cloned());
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
    let mut notes = Vec::new();
    if outcome == Outcome::Held && !is_measured(run) {
        notes.push(nothing_measured(run));
    }
    Verdict {
        outcome,
        exit_code: outcome.exit_code(),
        reasons,
        hint,
        notes,
        probes: probe_samples(run),
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
        owing_agents,
    }
}

/// What is not proved to be put back.
fn owed(run: &Run) -> Vec<UnrevertedInjection> {
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
            owed.push(UnrevertedInjection {
                injection: id.clone(),
                fault: injection.fault.clone(),
                residue,
            });
        }
    }
    owed
}

/// Injections that an agent tried to make and could not.
fn failures(run: &Run) -> Vec<String> {
    let failed = run.injections.values().filter_map(|injection| {
        let (fault, agent) = (&injection.fault, &injection.agent);
        // What would do comes after it, on a line of its own.
        let why = injection.failure.as_ref()?.lines().next()?;
        Some(format!(
            "fault `{fault}` on `{agent}` could not be injected: {why}"
        ))
    });
    failed.collect()
}

fn nothing_measured(run: &Run) -> String {
    let hypothesis = match run.probes.is_empty() {
        true => "the hypothesis has no probes",
        false => "no probe of the hypothesis was measured",
    };
    format!("nothing was measured: {hypothesis}, and no activity has a tolerance")
}

/// Whether a fault acted, and was not seen to act any more when it ended: its victims or its helper had gone, and nobody of
/// ours had ended it. Its last effect is from just before it was put back.
fn stopped_early(injection: &InjectionRecord) -> bool {
    let ended = matches!(injection.state, InjectionState::Ended(_));
    let acts = injection.effect.as_ref().is_none_or(|effect| effect.acts);
    ended && injection.acted && !acts
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
                "probe `{name}` was out of tolerance in {} of {} samples during the method, for {length:.1} s{why}",
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
        if run.ended && run.hypothesis_timing.is_some_and(|timing| timing.after) && after == 0 {
            found.push(format!("probe `{name}` was not checked after the method"));
        }
    }
    let mut injected = run
        .injections
        .values()
        .filter(|i| i.state != InjectionState::Refused && i.failure.is_none())
        .peekable();
    if injected.peek().is_some() && !is_measured(run) {
        found.push(nothing_measured(run));
    }
    for injection in injected {
        let (fault, agent) = (&injection.fault, &injection.agent);
        let seen = injection.effect.as_ref().map(|effect| effect.seen.as_str());
        let failed =
            matches!(&injection.state, InjectionState::Ended(e) if e.cause == Cause::Failed);
        if !injection.acted {
            let seen = seen.unwrap_or("nothing was seen of it");
            found.push(format!(
                "fault `{fault}` on `{agent}` had no effect: {seen}"
            ));
        } else if failed || stopped_early(injection) {
            let seen = seen.map(|seen| format!(": {seen}")).unwrap_or_default();
            found.push(format!(
                "fault `{fault}` on `{agent}` stopped acting before its time{seen}"
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
