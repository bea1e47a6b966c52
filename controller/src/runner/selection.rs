//! Which agents are hit, whether the blast radius allows it, and what each is asked for. Pure functions: nothing is touched.

use super::target_addresses;
use crate::agent_connection::Inventory;
use backburn_experiments::check::{AbortCondition, Experiment};
use backburn_experiments::document::{Activity, FaultProvider, Provider, Target};
use backburn_experiments::labels::{ADDRESS, Labels, is_fact};
use backburn_experiments::select::{self, Picked};
use backburn_experiments::wire::{InjectionRequest, Refusal};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One injection of the method.
#[derive(Debug, Clone)]
pub(super) struct PlannedInjection {
    /// The place of its activity in the method.
    pub(super) activity: usize,
    /// The name of its activity.
    pub(super) activity_name: String,
    /// The agent that is asked.
    pub(super) agent: String,
    /// What the agent is asked for.
    pub(super) request: InjectionRequest,
}

/// Whether the method of this experiment injects anything: dry runs do not.
pub fn has_fault(experiment: &Experiment) -> bool {
    experiment
        .faults()
        .any(|(_, activity, _)| !experiment.is_dry(activity))
}

/// Whether a run of this experiment needs an agent, to inject or to measure its host.
pub(super) fn needs_agent(experiment: &Experiment, is_fleet: bool) -> bool {
    let of_host = |activity: &Activity| matches!(activity.provider, Provider::Host(_));
    let mut activities = experiment
        .hypothesis
        .iter()
        .chain(&experiment.method)
        .chain(&experiment.rollbacks);
    has_fault(experiment)
        || (is_fleet && experiment.measured_from().next().is_some())
        || activities.any(of_host)
        || experiment.abort.iter().any(|rule| match &rule.watch {
            AbortCondition::Host(_) => true,
            AbortCondition::Probe(probe) => of_host(probe),
            AbortCondition::Hypothesis(_) => false,
        })
}

/// The agents that a run on a fleet would reserve, with this seed.
///
/// # Errors
/// A target matches no agent, or the blast radius does not allow it.
pub fn select_agents(
    experiment: &Experiment,
    inventory: &Inventory,
    seed: u64,
) -> Result<BTreeSet<String>, Refusal> {
    select(experiment, inventory, seed, "plan", true).map(|selection| selection.agents())
}

/// The agents that any run on a fleet could target: all that match a target of its faults, whatever the seed picks of them. Empty if
/// nothing could be selected.
pub fn candidate_agents(experiment: &Experiment, inventory: &Inventory) -> BTreeSet<String> {
    let selected = select(experiment, inventory, 0, "plan", true);
    let picks = selected
        .iter()
        .flat_map(|selection| selection.picks.values());
    picks
        .flat_map(|picks| picks.matched.iter().cloned())
        .collect()
}

/// How many injections a run on a fleet would have on each agent, with this seed. Empty if nothing could be selected.
pub fn faults_by_agent(
    experiment: &Experiment,
    inventory: &Inventory,
    seed: u64,
) -> BTreeMap<String, u32> {
    let mut faults = BTreeMap::new();
    let selected = select(experiment, inventory, seed, "plan", true);
    for planned in selected.iter().flat_map(|selection| &selection.planned) {
        *faults.entry(planned.agent.clone()).or_default() += 1;
    }
    faults
}

/// How many actions of the method inject a fault.
pub fn fault_actions(experiment: &Experiment) -> u32 {
    let faults = experiment.faults();
    let real = faults.filter(|(_, activity, _)| !experiment.is_dry(activity));
    u32::try_from(real.count()).unwrap_or(u32::MAX)
}

/// The agents that were picked for each target, and what they are to be asked for.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// The targets whose agents take part.
    pub(super) picks: BTreeMap<String, Picked>,
    /// Targets that faults are only aimed at: their agents take no part.
    pub(super) aimed: BTreeMap<String, Picked>,
    /// The injections, in the method's order.
    pub(super) planned: Vec<PlannedInjection>,
}

impl Selection {
    /// The names of all agents that take part.
    pub(super) fn agents(&self) -> BTreeSet<String> {
        let picked = self.picks.values().flat_map(|picks| picks.picked.iter());
        let asked = self.planned.iter().map(|planned| &planned.agent);
        picked.chain(asked).cloned().collect()
    }
}

/// Picks agents for each target and decides what each is asked for. `run` begins the injections' ids.
///
/// # Errors
/// A target matches no agent, an action of a fleet's run has no target, or the blast radius does not allow it.
pub(super) fn select(
    experiment: &Experiment,
    inventory: &Inventory,
    seed: u64,
    run: &str,
    is_fleet: bool,
) -> Result<Selection, Refusal> {
    let sees_secrets = match is_fleet {
        true => targets_with_secrets(experiment),
        false => BTreeSet::new(),
    };
    let entitled = match sees_secrets.is_empty() {
        true => Vec::new(),
        false => inventory.entitled(),
    };
    let pick = |name: &str, target: &Target| match sees_secrets.contains(name) {
        true => select::pick_agents(target, &entitled, seed, name).map_err(|none| {
            let facts = target
                .labels
                .keys()
                .any(|label| is_fact(label) || label == ADDRESS);
            secrets_need_grants(Refusal::from(none), name, facts)
        }),
        false => pick(name, target, &inventory.selectable, seed, is_fleet),
    };
    let mut picks: BTreeMap<String, Picked> = BTreeMap::new();
    let mut planned = Vec::new();
    let real = experiment
        .faults()
        .filter(|(_, activity, _)| !experiment.is_dry(activity));
    for (index, activity, fault) in real {
        let picked = match experiment.target_of(activity) {
            None if is_fleet => return Err(no_target(&activity.name)),
            // A local run without a target means this host.
            None => (inventory.selectable.iter())
                .map(|(name, _)| name.clone())
                .collect(),
            Some((name, target)) => match picks.get(name) {
                Some(known) => known.picked.clone(),
                None => {
                    let new = pick(name, target)?;
                    picks.entry(name.to_owned()).or_insert(new).picked.clone()
                }
            },
        };
        for agent in picked {
            let number = planned.len() as u64 + 1;
            planned.push(PlannedInjection {
                activity: index,
                activity_name: activity.name.clone(),
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
            let new = pick(name, target)?;
            picks.insert(name.to_owned(), new);
        }
    }
    let aimed = match is_fleet {
        true => aim_at(
            experiment,
            &inventory.selectable,
            seed,
            &picks,
            &mut planned,
        )?,
        false => BTreeMap::new(),
    };
    Ok(Selection {
        picks,
        aimed,
        planned,
    })
}

/// The targets whose agents are given a secret of the experiment: in the arguments of a fault, or in a probe that they measure.
fn targets_with_secrets(experiment: &Experiment) -> BTreeSet<String> {
    let has_secret = |written: serde_json::Result<String>| {
        // What cannot be written is treated as a secret.
        written.map_or(true, |text| {
            matches!(experiment.redactor.text(&text), Cow::Owned(_))
        })
    };
    let mut targets = BTreeSet::new();
    for (_, activity, fault) in experiment.faults() {
        if has_secret(serde_json::to_string(&fault.arguments))
            && let Some((name, _)) = experiment.target_of(activity)
        {
            targets.insert(name.to_owned());
        }
    }
    let rules = experiment
        .abort
        .iter()
        .filter_map(|rule| match &rule.watch {
            AbortCondition::Probe(probe) => Some(&**probe),
            AbortCondition::Host(_) | AbortCondition::Hypothesis(_) => None,
        });
    let activities = (experiment.hypothesis.iter())
        .chain(&experiment.method)
        .chain(&experiment.rollbacks)
        .chain(rules);
    for activity in activities {
        if let Some(from) = &activity.from
            && has_secret(serde_json::to_string(&activity.provider))
        {
            targets.insert(from.clone());
        }
    }
    targets
}

/// The refusal of a target that would be given a secret and has no agent that is entitled to it.
fn secrets_need_grants(refusal: Refusal, target: &str, has_facts: bool) -> Refusal {
    let what = format!(
        "{}; its agents are given a secret, so only labels that are granted to them count",
        refusal.what
    );
    let hint = match has_facts {
        true => format!("select target `{target}` by granted labels instead of what agents say of their hosts: `backburn agents label NAME KEY=VALUE` grants them"),
        false => "`backburn agents` shows the granted labels; `backburn agents label NAME` confirms those of an agent that joined before labels were granted".to_owned(),
    };
    Refusal::new(&refusal.rule, what).hint(hint)
}

/// Puts the addresses of agents where faults are aimed at their targets. Returns those that are not hit themselves.
fn aim_at(
    experiment: &Experiment,
    inventory: &[(String, Labels)],
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
        planned.request.arguments = target_addresses::addressed(
            &planned.request.arguments,
            &all,
            inventory,
            &planned.agent,
        )?;
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
    inventory: &[(String, Labels)],
    seed: u64,
    is_fleet: bool,
) -> Result<Picked, Refusal> {
    select::pick_agents(target, inventory, seed, name).map_err(|none| {
        let refusal = Refusal::from(none);
        match inventory {
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
        let own = planned.iter().filter(|planned| planned.activity == index);
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
    matches!(activity.provider, Provider::Fault(_))
}
