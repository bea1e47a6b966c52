//! Before anything is done: who is hit, whether the blast radius allows it, and what exactly each
//! fault would do. Nothing is touched here, and every refusal is one before the run.

use super::event_log::{clean_plan, clean_refusal};
use super::{Runner, RunnerEvent, target_addresses};
use crate::agent_pool::{AgentPool, Inventory};
use crate::providers::{self, ProbeContext};
use backburn_experiments::check::Experiment;
use backburn_experiments::document::{Activity, FaultProvider, Target};
use backburn_experiments::forecast::{ExpectedLooks, expected_looks, warnings};
use backburn_experiments::journal::Event;
use backburn_experiments::select::{self, Picked};
use backburn_experiments::wire::{InjectionRequest, PlanView, Refusal};
use backburn_experiments::{Problem, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One injection of the method.
pub(super) struct PlannedInjection {
    /// Its action's place in the method.
    pub(super) index: usize,
    /// The action's name.
    activity: String,
    /// Who is asked.
    pub(super) agent: String,
    /// What the agent is asked for.
    pub(super) request: InjectionRequest,
}

/// What would be hit now.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Preview {
    /// The names of the agents that would take part; none where the method injects nothing.
    pub agents: Vec<String>,
    /// Each injection, in the method's order.
    pub injections: Vec<PreviewedInjection>,
    /// How often each probe of the hypothesis would be looked at, and what so many good looks would exclude.
    #[serde(default)]
    pub looks: Vec<ExpectedLooks>,
    /// Programs and Python functions that it would run where it is planned, and that are not there: it would not be started.
    #[serde(default)]
    pub missing: Vec<Problem>,
    /// What should be known before it is run, e.g. that nothing would be measured.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What one injection would do, or why it would not be done.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct PreviewedInjection {
    /// The action's name.
    pub activity: String,
    /// On which agent.
    pub agent: String,
    /// The fault's name.
    pub fault: String,
    /// How long it would last; none for a one-shot fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
    /// What would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanView>,
    /// Why it would not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Asks agents what the experiment would do now. Nothing is touched, and nobody is held.
///
/// # Errors
/// Why nothing would be: no agent, no match, the blast radius. An agent's refusals are in the preview.
pub async fn preview(
    experiment: &Experiment,
    seed: u64,
    frequency: Span,
    mut agent_pool: AgentPool,
) -> Result<Preview, Refusal> {
    let mut injections = Vec::new();
    let mut looks = expected_looks(experiment, frequency);
    for expected in &mut looks {
        expected.probe = experiment.redactor.text(&expected.probe).into_owned();
    }
    let warnings = warnings(experiment);
    let missing = providers::missing(experiment, agent_pool.is_fleet()).await;
    if !super::has_fault(experiment) {
        return Ok(Preview {
            agents: Vec::new(),
            injections,
            looks,
            missing,
            warnings,
        });
    }
    let inventory = agent_pool.discover().await?;
    let chosen = select(experiment, &inventory, seed, "plan", agent_pool.is_fleet());
    let chosen =
        chosen.and_then(|chosen| agent_pool.check_admission(&chosen.names()).map(|()| chosen));
    let names = chosen.as_ref().map(Selection::names).unwrap_or_default();
    let handles = agent_pool.handles(&names);
    let asked = chosen.iter().flat_map(|chosen| &chosen.planned);
    let mut answers = tokio::task::JoinSet::new();
    for (at, planned) in asked.enumerate() {
        let (handle, request) = (
            handles.get(&planned.agent).cloned(),
            planned.request.clone(),
        );
        answers.spawn(async move {
            let outcome = match handle {
                Some(handle) => handle.plan(request).await,
                None => Err(Refusal::new("agent", "the agent has gone")),
            };
            (at, outcome)
        });
    }
    let mut answers = answers.join_all().await;
    answers.sort_unstable_by_key(|(at, _)| *at);
    let asked = chosen.iter().flat_map(|chosen| &chosen.planned);
    for (planned, (_, mut outcome)) in asked.zip(answers) {
        match &mut outcome {
            Ok(plan) => clean_plan(plan, &experiment.redactor),
            Err(refusal) => clean_refusal(refusal, &experiment.redactor),
        }
        let (plan, refusal) =
            outcome.map_or_else(|refusal| (None, Some(refusal)), |plan| (Some(plan), None));
        let (fault, duration) = (planned.request.fault.clone(), planned.request.duration);
        injections.push(PreviewedInjection {
            activity: planned.activity.clone(),
            agent: planned.agent.clone(),
            fault,
            duration,
            plan,
            refusal,
        });
    }
    agent_pool.release().await;
    chosen.map(|_| Preview {
        agents: names.into_iter().collect(),
        injections,
        looks,
        missing,
        warnings,
    })
}

impl Runner {
    /// Looks whether all is there that will be run: what is not would be found out after the harm, by a rollback at the latest.
    pub(super) async fn look_for_programs(&mut self) {
        let experiment = Arc::clone(&self.experiment);
        let is_fleet = self.settings.agent_pool.is_fleet();
        let missing = tokio::select! {
            missing = providers::missing(&experiment, is_fleet) => missing,
            Some(by) = self.stop.recv() => return self.asked_to_stop(&by),
        };
        let Some(first) = missing.first() else {
            return;
        };
        let told: Vec<String> = missing
            .iter()
            .map(|problem| format!("{}: {}", problem.at, problem.what))
            .collect();
        self.not_started("missing", told.join("; "), first.hint.clone());
    }

    /// Everything up to the gate: agents, targets, blast radius, plans.
    pub(super) async fn prepare(&mut self) {
        if self.over() || !self.needs_agent() {
            return;
        }
        let Some(inventory) = self.discover().await else {
            return;
        };
        let chosen = select(
            &self.experiment,
            &inventory,
            self.settings.seed,
            &self.settings.run,
            self.settings.agent_pool.is_fleet(),
        );
        let names = chosen.as_ref().map(Selection::names).unwrap_or_default();
        self.join(&names);
        if self.over() {
            return;
        }
        let Selection {
            picks,
            aimed,
            planned,
        } = match chosen {
            Ok(chosen) => chosen,
            Err(refusal) => return self.not_started(&refusal.rule, refusal.what, refusal.hint),
        };
        let mut context = ProbeContext::clone(&self.context);
        for (target, Picked { matched, picked }) in picks.into_iter().chain(aimed) {
            context.picks.insert(target.clone(), picked.clone());
            self.record(Event::TargetPicked {
                target,
                matched,
                picked,
            });
        }
        self.context = Arc::new(context);
        self.unanswered = planned.len();
        self.plans = planned;
        for (at, planned) in self.plans.iter().enumerate() {
            let Some(agent) = self.agents.get(&planned.agent) else {
                continue;
            };
            let (handle, request, tell) = (
                agent.handle().clone(),
                planned.request.clone(),
                self.tell.clone(),
            );
            self.timers.spawn(async move {
                let outcome = handle.plan(request).await;
                tell.send(RunnerEvent::Planned { at, outcome }).ok();
            });
        }
        while !self.over() && self.unanswered > 0 {
            self.step().await;
        }
    }

    /// An agent's word on what it would do. A refusal ends the run before it began.
    pub(super) fn planned(&mut self, at: usize, outcome: Result<PlanView, Refusal>) {
        let Some(planned) = self.plans.get_mut(at) else {
            return;
        };
        self.unanswered = self.unanswered.saturating_sub(1);
        let (activity, agent) = (planned.activity.clone(), planned.agent.clone());
        match outcome {
            Ok(plan) => {
                self.record_buffered(Event::Planned {
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
                let on = match self.settings.agent_pool.is_fleet() {
                    true => format!(" on `{agent}`"),
                    false => String::new(),
                };
                let reason = format!("action `{activity}`{on}: {}{problems}", refusal.what);
                self.not_started(&refusal.rule, reason, hint);
            }
        }
    }
}

/// Whom a run on a fleet would hold, with this seed.
///
/// # Errors
/// No match, or the blast radius.
pub fn select_agents(
    experiment: &Experiment,
    inventory: &Inventory,
    seed: u64,
) -> Result<BTreeSet<String>, Refusal> {
    select(experiment, inventory, seed, "plan", true).map(|chosen| chosen.names())
}

/// Who is picked for which target, and what they are to be asked for.
struct Selection {
    picks: BTreeMap<String, Picked>,
    /// Targets that are only aimed at: their agents take no part.
    aimed: BTreeMap<String, Picked>,
    planned: Vec<PlannedInjection>,
}

impl Selection {
    /// Everybody who takes part.
    fn names(&self) -> BTreeSet<String> {
        let picked = self.picks.values().flat_map(|picks| picks.picked.iter());
        let asked = self.planned.iter().map(|planned| &planned.agent);
        picked.chain(asked).cloned().collect()
    }
}

/// What is asked of whom, and who measures for others.
fn select(
    experiment: &Experiment,
    inventory: &Inventory,
    seed: u64,
    run: &str,
    is_fleet: bool,
) -> Result<Selection, Refusal> {
    let mut picks: BTreeMap<String, Picked> = BTreeMap::new();
    let mut planned = Vec::new();
    let real = experiment
        .faults()
        .filter(|(_, activity, _)| !experiment.is_dry(activity));
    for (index, activity, fault) in real {
        let picked = match experiment.target_of(activity) {
            None if is_fleet => return Err(no_target(&activity.name)),
            // A local run without a target means this host.
            None => inventory.iter().map(|(name, _)| name.clone()).collect(),
            Some((name, target)) => match picks.get(name) {
                Some(known) => known.picked.clone(),
                None => {
                    let new = pick(name, target, inventory, seed, is_fleet)?;
                    picks.entry(name.to_owned()).or_insert(new).picked.clone()
                }
            },
        };
        for agent in picked {
            let number = planned.len() as u64 + 1;
            planned.push(PlannedInjection {
                index,
                activity: activity.name.clone(),
                agent,
                request: request(experiment, fault, seed, run, number),
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
    // Who only measures is not hit, so no ceiling is about them.
    for name in experiment.measured_from() {
        if let (None, Some(target)) = (picks.get(name), experiment.document.targets.get(name)) {
            let new = pick(name, target, inventory, seed, is_fleet)?;
            picks.insert(name.to_owned(), new);
        }
    }
    let aimed = match is_fleet {
        true => aim_at(experiment, inventory, seed, &picks, &mut planned)?,
        false => BTreeMap::new(),
    };
    Ok(Selection {
        picks,
        aimed,
        planned,
    })
}

/// Puts the addresses of agents where faults are aimed at their targets. Returns those that are not hit themselves.
fn aim_at(
    experiment: &Experiment,
    inventory: &Inventory,
    seed: u64,
    picks: &BTreeMap<String, Picked>,
    planned: &mut [PlannedInjection],
) -> Result<BTreeMap<String, Picked>, Refusal> {
    let targets = &experiment.document.targets;
    let mut new = BTreeMap::new();
    let names =
        (planned.iter()).flat_map(|planned| target_addresses::aimed(&planned.request.arguments));
    for name in names.collect::<BTreeSet<String>>() {
        if picks.contains_key(&name) {
            continue;
        }
        let Some(target) = targets.get(&name) else {
            let what = format!("a fault is aimed at `@{name}`, and there is no such target");
            let names = targets.keys().map(String::as_str).collect::<Vec<_>>();
            return Err(Refusal::new("no-target", what)
                .hint(format!("`targets` has: {}", names.join(", "))));
        };
        let picked = pick(&name, target, inventory, seed, true)?;
        new.insert(name, picked);
    }
    let all = picks.clone().into_iter().chain(new.clone()).collect();
    for planned in planned {
        planned.request.arguments =
            target_addresses::addressed(&planned.request.arguments, &all, inventory)?;
    }
    Ok(new)
}

fn no_target(activity: &str) -> Refusal {
    Refusal::new(
        "no-target",
        format!(
            "action `{activity}` does not say whom it hits, and a fleet is never hit as a whole"
        ),
    )
    .hint("name a target in `targets`, e.g. `\"targets\": {\"labels\": {\"role\": \"checkout\"}}`")
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

fn pick(
    name: &str,
    target: &Target,
    inventory: &Inventory,
    seed: u64,
    is_fleet: bool,
) -> Result<Picked, Refusal> {
    select::pick_agents(target, inventory, seed, name).map_err(|none| {
        let refusal = Refusal::from(none);
        match inventory.as_slice() {
            [(agent, labels)] if !is_fleet && !select::matches(target, labels) => refusal.hint(format!(
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
fn faults_allowed(experiment: &Experiment, planned: &[PlannedInjection]) -> Result<(), Refusal> {
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
