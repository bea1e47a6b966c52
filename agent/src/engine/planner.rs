//! From a request to a plan: look, plan, policy, refuse overlap with what is owed. Nothing here changes a host, and all of it
//! may hang on what a document names, so the worker has it done by a disposable child (see `children`).

use crate::changes::ReversibleChange as _;
use crate::faults::{self, Plan, PlanContext};
use crate::host::{Host, HostRole, Invocation};
use crate::ledger::Ledger;
use crate::packet_filter::Connection;
use crate::plan::{HostView as _, LocalHost};
use crate::policy::HostPolicy;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::{InjectionRequest, Refusal};
use backburn_experiments::{Problem, HumanDuration};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All that a plan is made from, besides the host that is looked at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanTask {
    /// What is wanted.
    pub request: InjectionRequest,
    /// What the host's owner allows.
    pub policy: HostPolicy,
    /// The state folder, whose ledger says what is held.
    pub state: PathBuf,
    /// The connection that no fault may cut.
    pub link: Option<Connection>,
    /// How many faults of this agent act already.
    pub acting: usize,
}

impl PlanTask {
    /// Looks at the host, plans, and holds the plan against the policy and against what others hold.
    ///
    /// # Errors
    /// It can't or may not be done: which rule, and what would do.
    pub fn plan(&self) -> Result<Plan, Refusal> {
        let request = &self.request;
        let fault = faults::find(&request.fault).ok_or_else(|| unknown_fault(&request.fault))?;
        check_request(request, fault.one_shot)?;
        // Nothing is done through it: the folder of a worker's ledger is there already.
        let host = Host::new(HostRole::Hand, Invocation { prefix: Vec::new() });
        let ledger = Ledger::open(&host, &self.state)
            .map_err(|error| Refusal::new("ledger", error.to_string()))?;
        let held = held(&ledger, request)?;
        let local = LocalHost::default();
        let context = PlanContext {
            host: &local,
            protection: &self.policy.protect,
            protected_ports: self.policy.protected_ports(),
            control_connection: self.link,
            injection: &request.id,
            held: &held,
            duration: request.duration,
            seed: request.seed,
        };
        let mut plan = fault.plan(&request.arguments, &context)?;
        if !fault.one_shot
            && let Some(group) = local.processes().freezer(std::process::id() as i32)
        {
            plan.notes.push(format!(
                "this agent is in the freezer control group {group}: should that be frozen while the fault acts, it lasts until the group is thawed"
            ));
        }
        self.policy.permits(request, &plan.view(), self.acting)?;
        refuse_overlap(&held, &plan)?;
        Ok(plan)
    }
}

/// What the ledger says is held by others than this injection, whoever's it is: each thing, with the injection's id.
///
/// # Errors
/// The ledger can't be read.
pub(super) fn held(
    ledger: &Ledger,
    request: &InjectionRequest,
) -> Result<Vec<(String, String)>, Refusal> {
    let (entries, _) = ledger.entries().map_err(|error| {
        Refusal::new(
            "ledger",
            format!("{} can't be read: {error}", ledger.folder().display()),
        )
    })?;
    let others = entries.iter().filter(|entry| entry.injection != request.id);
    let held = others.flat_map(|entry| {
        let things = entry.changes.iter().flat_map(|change| change.holds());
        things.map(|thing| (thing, entry.injection.clone()))
    });
    Ok(held.collect())
}

/// A thing is held by one injection at a time.
///
/// # Errors
/// Something that the plan wants is held by another injection.
pub(super) fn refuse_overlap(held: &[(String, String)], plan: &Plan) -> Result<(), Refusal> {
    let wanted: Vec<String> = plan
        .changes
        .iter()
        .flat_map(|change| change.holds())
        .collect();
    match held
        .iter()
        .find(|(thing, _)| wanted.iter().any(|wanted| overlap(thing, wanted)))
    {
        None => Ok(()),
        Some((thing, whose)) => Err(Refusal::new(
            "overlap",
            format!("`{thing}` is held by injection `{whose}`"),
        )
        .hint(format!(
            "wait for its end, or revert it: `backburn-agent revert {whose}`"
        ))),
    }
}

/// Whether two things that are held are one, or one is a part of the other: `cpu` and `cpu:1`.
fn overlap(one: &str, other: &str) -> bool {
    let part = |whole: &str, part: &str| {
        part.strip_prefix(whole)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    part(one, other) || part(other, one)
}

fn unknown_fault(name: &str) -> Refusal {
    let names = faults::FAULTS.iter().map(|fault| fault.name);
    let known: Vec<&str> = names.clone().collect();
    let refusal = Refusal::new("arguments", format!("there is no fault `{name}`"));
    match nearest(name, names) {
        Some(near) => refusal.hint(format!("`{near}`?")),
        None => refusal.hint(format!("there are {}", known.join(", "))),
    }
}

/// What a request must have besides its fault's arguments.
fn check_request(request: &InjectionRequest, one_shot: bool) -> Result<(), Refusal> {
    let named = request
        .id
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let mut problems = Vec::new();
    if request.id.is_empty() || request.id.len() > 32 || !named {
        problems.push(
            Problem::new("$", format!("`{}` is no injection id", request.id))
                .hint("lower-case letters, digits and `-`, at most 32"),
        );
    }
    match (one_shot, request.duration, request.every) {
        (false, None, _) => problems.push(
            Problem::new("$.duration", "a duration is missing")
                .hint("every fault ends by itself: say when, e.g. `30s`"),
        ),
        (false, _, Some(_)) => {
            problems.push(Problem::new("$.every", "only a one-shot fault is repeated"))
        }
        (true, None, Some(_)) => problems.push(
            Problem::new("$.duration", "a duration is missing").hint("say how long it is repeated"),
        ),
        (true, Some(_), None) => problems.push(
            Problem::new("$.duration", "a one-shot fault has no duration")
                .hint("leave it out, or repeat it with `every`"),
        ),
        _ => {}
    }
    if request
        .duration
        .is_some_and(|duration| duration.0.is_zero())
    {
        problems.push(Problem::new("$.duration", "a duration of nothing"));
    }
    for (key, span) in [("duration", request.duration), ("every", request.every)] {
        if let Some(span) = span.filter(|span| *span > HumanDuration::MAX_FAULT_DURATION) {
            let what = format!("{span} is too long: no fault lasts longer than a year");
            problems.push(
                Problem::new(format!("$.{key}"), what)
                    .hint(format!("{} at the most", HumanDuration::MAX_FAULT_DURATION)),
            );
        }
    }
    if request.every.is_some_and(|every| every < HumanDuration::millis(10)) {
        problems.push(Problem::new("$.every", "too often").hint("10ms at the least"));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refusal {
            problems,
            ..Refusal::new("arguments", "the injection is not usable")
        })
    }
}
