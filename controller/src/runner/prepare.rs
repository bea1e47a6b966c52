//! Before anything is done: who is hit, whether the blast radius allows it, and what exactly each
//! fault would do. Nothing is touched here, and every refusal is one before the run.

use super::record::{clean_plan, clean_refusal};
use super::{Note, Runner};
use crate::link::{Link, Start};
use backburn_experiments::check::Experiment;
use backburn_experiments::document::{Activity, FaultProvider, Target};
use backburn_experiments::journal::Event;
use backburn_experiments::select::{self, Picked};
use backburn_experiments::wire::{InjectionRequest, PlanView, Refusal};
use std::collections::BTreeMap;
use std::time::Duration;

/// One injection of the method.
pub(super) struct Planned {
    /// Its action's place in the method.
    pub(super) index: usize,
    /// The action's name.
    activity: String,
    /// What the agent is asked for.
    pub(super) request: InjectionRequest,
    /// Whether the agent has said what it would do.
    answered: bool,
}

/// What would be hit on this host now.
#[derive(Debug, serde::Serialize)]
pub struct Preview {
    /// The agent's name; none where the method injects nothing.
    pub agent: Option<String>,
    /// Each injection, in the method's order.
    pub injections: Vec<PreviewedInjection>,
}

/// What one injection would do, or why it would not be done.
#[derive(Debug, serde::Serialize)]
pub struct PreviewedInjection {
    /// The action's name.
    pub activity: String,
    /// The fault's name.
    pub fault: String,
    /// How long it would last; none for a one-shot fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<backburn_experiments::Span>,
    /// What would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanView>,
    /// Why it would not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Who takes part: names and labels.
type Agents = [(String, BTreeMap<String, String>)];

/// Asks a local agent what the experiment would do here now. Nothing is touched.
///
/// # Errors
/// Why nothing would be: no agent, no match, the blast radius. An agent's refusals are in the preview.
pub async fn preview(
    experiment: &Experiment,
    seed: u64,
    start: &mut Start,
) -> Result<Preview, Refusal> {
    if !super::has_fault(experiment) {
        return Ok(Preview {
            agent: None,
            injections: Vec::new(),
        });
    }
    let refused = |what: String| Refusal::new("agent", what);
    let mut link: Link = start()
        .map_err(|error| refused(format!("the local agent could not be started: {error}")))?;
    let hello = link
        .hello()
        .await
        .map_err(|why| refused(format!("the local agent did not come up: {why}")))?;
    let outcome = requests(
        experiment,
        &[(hello.agent.clone(), hello.labels.clone())],
        seed,
        "plan",
    );
    let mut injections = Vec::new();
    let planned = outcome.map(|(_, planned)| planned);
    for planned in planned.iter().flatten() {
        let mut outcome = link.caller().plan(planned.request.clone()).await;
        match &mut outcome {
            Ok(plan) => clean_plan(plan, &experiment.redactor),
            Err(refusal) => clean_refusal(refusal, &experiment.redactor),
        }
        let (plan, refusal) =
            outcome.map_or_else(|refusal| (None, Some(refusal)), |plan| (Some(plan), None));
        let (fault, duration) = (planned.request.fault.clone(), planned.request.duration);
        injections.push(PreviewedInjection {
            activity: planned.activity.clone(),
            fault,
            duration,
            plan,
            refusal,
        });
    }
    link.goodbye(Duration::from_secs(10)).await;
    planned.map(|_| Preview {
        agent: Some(hello.agent),
        injections,
    })
}

impl Runner {
    /// Everything up to the gate: agent, targets, blast radius, plans.
    pub(super) async fn prepare(&mut self) {
        if self.over() || !self.needs_agent() {
            return;
        }
        self.join().await;
        let Some(agent) = self.agent.as_ref().filter(|_| !self.over()) else {
            return;
        };
        let caller = agent.link.caller();
        let agents = [(agent.name.clone(), agent.labels.clone())];
        let (picks, plans) = match requests(
            &self.experiment,
            &agents,
            self.settings.seed,
            &self.settings.run,
        ) {
            Ok(found) => found,
            Err(refusal) => return self.not_started(&refusal.rule, refusal.what, refusal.hint),
        };
        for (target, Picked { matched, picked }) in picks {
            self.put(Event::TargetPicked {
                target,
                matched,
                picked,
            });
        }
        self.plans = plans;
        for (at, planned) in self.plans.iter().enumerate() {
            let (caller, request, tell) =
                (caller.clone(), planned.request.clone(), self.tell.clone());
            self.timers.spawn(async move {
                let outcome = caller.plan(request).await;
                tell.send(Note::Planned { at, outcome }).ok();
            });
        }
        while !self.over() && self.plans.iter().any(|planned| !planned.answered) {
            self.turn().await;
        }
    }

    /// An agent's word on what it would do. A refusal ends the run before it began.
    pub(super) fn planned(&mut self, at: usize, outcome: Result<PlanView, Refusal>) {
        let Some(planned) = self.plans.get_mut(at) else {
            return;
        };
        planned.answered = true;
        let activity = planned.activity.clone();
        match outcome {
            Ok(plan) => {
                let agent = self
                    .agent
                    .as_ref()
                    .map(|agent| agent.name.clone())
                    .unwrap_or_default();
                self.put(Event::Planned {
                    activity,
                    agent,
                    plan,
                });
            }
            Err(refusal) => {
                let problems: String = refusal
                    .problems
                    .iter()
                    .map(|problem| format!("; {}: {}", problem.at, problem.what))
                    .collect();
                let hint = refusal.hint.or_else(|| {
                    refusal
                        .problems
                        .iter()
                        .find_map(|problem| problem.hint.clone())
                });
                let reason = format!("action `{activity}`: {}{problems}", refusal.what);
                self.not_started(&refusal.rule, reason, hint);
            }
        }
    }
}

/// Who is picked for which target, and what they are to be asked for.
fn requests(
    experiment: &Experiment,
    agents: &Agents,
    seed: u64,
    run: &str,
) -> Result<(BTreeMap<String, Picked>, Vec<Planned>), Refusal> {
    let mut picks: BTreeMap<String, Picked> = BTreeMap::new();
    let mut planned = Vec::new();
    let real = experiment
        .faults()
        .filter(|(_, activity, _)| !experiment.is_dry(activity));
    for (index, activity, fault) in real {
        let picked = match experiment.target_of(activity) {
            // A local run without a target means this host.
            None => agents.iter().map(|(name, _)| name.clone()).collect(),
            Some((name, target)) => match picks.get(name) {
                Some(known) => known.picked.clone(),
                None => {
                    let new = pick(name, target, agents, seed)?;
                    picks.entry(name.to_owned()).or_insert(new).picked.clone()
                }
            },
        };
        for _agent in &picked {
            let number = planned.len() as u64 + 1;
            planned.push(Planned {
                index,
                activity: activity.name.clone(),
                request: request(experiment, fault, seed, run, number),
                answered: false,
            });
        }
    }
    if let Some(ceiling) = experiment
        .document
        .blast_radius
        .as_ref()
        .and_then(|radius| radius.agents)
    {
        select::keeps_within(&ceiling, &picks)?;
    }
    faults_allowed(experiment, &planned)?;
    Ok((picks, planned))
}

fn request(
    experiment: &Experiment,
    fault: &FaultProvider,
    seed: u64,
    run: &str,
    number: u64,
) -> InjectionRequest {
    InjectionRequest {
        id: format!("{run}-{number}"),
        run: run.to_owned(),
        fault: fault.fault.clone(),
        arguments: fault.arguments.clone(),
        duration: fault.duration,
        every: fault.every,
        // Each injection picks for itself, and the same again with the same seed.
        seed: seed.wrapping_add(number),
        max_victims: experiment
            .document
            .blast_radius
            .as_ref()
            .and_then(|radius| radius.victims_per_agent),
    }
}

fn pick(name: &str, target: &Target, agents: &Agents, seed: u64) -> Result<Picked, Refusal> {
    select::pick_agents(target, agents, seed, name).map_err(|none| {
        let refusal = Refusal::from(none);
        match agents {
            [(agent, labels)] if !select::matches(target, labels) => refusal.hint(format!(
                "a local run has one agent, this host `{agent}`, with the labels {}; `--label KEY=VALUE` gives it more",
                list(labels)
            )),
            _ => refusal,
        }
    })
}

fn list(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("`{key}={value}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Refuses what is sure to pass the ceiling of faults at a time: what one action asks for, and faults
/// that begin right after each other while earlier ones go on in the background. Other activities
/// take a time that nobody knows; what they bring together is caught when it is about to happen.
fn faults_allowed(experiment: &Experiment, planned: &[Planned]) -> Result<(), Refusal> {
    let Some(most) = experiment
        .document
        .blast_radius
        .as_ref()
        .and_then(|radius| radius.concurrent_faults)
    else {
        return Ok(());
    };
    let mut now = Duration::ZERO;
    // Until when each injection is sure to act.
    let mut acting: Vec<Duration> = Vec::new();
    for (index, activity) in experiment.method.iter().enumerate() {
        let pauses = activity
            .pauses
            .filter(|_| experiment.pauses(activity))
            .unwrap_or_default();
        now += pauses.before.unwrap_or_default().0;
        let own = planned.iter().filter(|planned| planned.index == index);
        let lengths: Vec<Duration> = own
            .map(|planned| planned.request.duration.unwrap_or_default().0)
            .collect();
        if lengths.is_empty() && !activity.background && !is_fault(activity) {
            acting.clear();
        }
        acting.retain(|until| *until > now);
        acting.extend(lengths.iter().map(|length| now + *length));
        if acting.len() > most as usize {
            let what = format!(
                "{} faults at a time with `{}`, where the blast radius allows {most}",
                acting.len(),
                activity.name
            );
            return Err(Refusal::new("blast-radius", what)
                .hint("raise `concurrent-faults`, or let one fault end before the next"));
        }
        if !activity.background {
            now += lengths.into_iter().max().unwrap_or_default();
        }
        now += pauses.after.unwrap_or_default().0;
    }
    Ok(())
}

fn is_fault(activity: &Activity) -> bool {
    matches!(
        activity.provider,
        backburn_experiments::document::Provider::Fault(_)
    )
}
