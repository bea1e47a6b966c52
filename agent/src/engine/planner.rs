//! From a request to a plan: check the host, plan, check the policy, refuse overlap with what is owed. Nothing here changes a host, and
//! all of it may hang on what a document names, so the worker has a disposable child do it (see `children`).

use crate::changes::ReversibleChange as _;
use crate::faults::{self, Plan, PlanContext};
use crate::helpers::WHOLE_HOST;
use crate::host::{Host, HostRole, Invocation};
use crate::ledger::Ledger;
use crate::packet_filter::ControlConnection;
use crate::plan::{HostFaultRules, HostView as _, LocalHost, ProtectedPaths, resources_overlap};
use crate::plugins::{PluginPlanning, UsablePlugin};
use crate::policy::HostPolicy;
use backburn_experiments::problem::nearest;
use backburn_experiments::wire::{InjectionRequest, Refusal};
use backburn_experiments::{HumanDuration, Problem};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that a plan is made from, apart from the host itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanTask {
    /// The injection that is requested.
    pub request: InjectionRequest,
    /// What the host's owner allows.
    #[serde(with = "crate::policy::with_its_file")]
    pub policy: HostPolicy,
    /// The plug-ins of this host that can be used.
    pub plugins: Vec<UsablePlugin>,
    /// What the host's owner says of faults that hit the host as a whole.
    pub host_rules: HostFaultRules,
    /// Paths that no fault alters.
    pub protected_paths: ProtectedPaths,
    /// The state folder, whose ledger says what other injections hold.
    pub state: PathBuf,
    /// The connection that no fault may cut.
    pub link: Option<ControlConnection>,
    /// How many injections of this agent are active.
    pub acting: usize,
}

impl PlanTask {
    /// Plans, and checks the plan against the policy and against what other injections hold.
    ///
    /// # Errors
    /// The plan is impossible or not allowed: names the rule that refuses it, and what would be allowed.
    pub fn plan(&self) -> Result<Plan, Refusal> {
        let request = &self.request;
        let fault = faults::find(&request.fault);
        let plugin = (self.plugins.iter()).find(|plugin| plugin.declaration.name == request.fault);
        if fault.is_none() && plugin.is_none() {
            return Err(self.unknown_fault());
        }
        let is_one_shot = fault.is_some_and(|fault| fault.one_shot);
        check_request(request, is_one_shot)?;
        // Nothing is changed through it: the ledger's folder exists once there is a worker.
        let host = Host::new(HostRole::Command, Invocation { prefix: Vec::new() });
        let ledger = Ledger::open(&host, &self.state)
            .map_err(|error| Refusal::new("ledger", error.to_string()))?;
        let held = held(&ledger, request)?;
        let names: Vec<(String, String)> = (held.iter())
            .map(|held| (held.thing.clone(), held.injection.clone()))
            .collect();
        let local = LocalHost::default();
        let limits = self.policy.request_limits();
        let context = PlanContext {
            host: &local,
            protection: &self.policy.protect,
            protected_ports: self.policy.protected_ports(),
            protected_paths: &self.protected_paths,
            host_rules: &self.host_rules,
            request_limits: &limits,
            control_connection: self.link,
            injection: &request.id,
            first_mark: 0,
            held: &names,
            duration: request.duration,
            seed: request.seed,
        };
        let mut plan = match (fault, plugin) {
            (Some(fault), _) => fault.plan(&request.arguments, &context)?,
            (None, Some(plugin)) => {
                let planning = PluginPlanning {
                    plugin,
                    policy: &self.policy,
                    context: &context,
                };
                planning.plan(&request.arguments)?
            }
            (None, None) => return Err(self.unknown_fault()),
        };
        if !is_one_shot && let Some(group) = local.processes().freezer(std::process::id() as i32) {
            plan.notes.push(format!(
                "this agent is in the freezer control group {group}: if the group is frozen while the fault is active, the fault lasts until the group is thawed"
            ));
        }
        self.policy.permits(request, &plan.view(), self.acting)?;
        refuse_overlap(&held, &plan)?;
        Ok(plan)
    }

    fn unknown_fault(&self) -> Refusal {
        let name = &self.request.fault;
        if self
            .policy
            .plugins
            .iter()
            .any(|plugin| plugin.name == *name)
        {
            return Refusal::new("plug-in", format!("plug-in `{name}` cannot be used"))
                .hint("`backburn agent plugins` says why");
        }
        let built_in = faults::FAULTS.iter().map(|fault| fault.name);
        let plugins = (self.plugins.iter()).map(|plugin| plugin.declaration.name.as_str());
        let names: Vec<&str> = built_in.chain(plugins).collect();
        let refusal = Refusal::new("arguments", format!("there is no fault `{name}`"));
        match nearest(name, names.iter().copied()) {
            Some(near) => refusal.hint(format!("`{near}`?")),
            None => refusal.hint(format!("the faults are {}", names.join(", "))),
        }
    }
}

/// What the ledger says other injections hold, whichever agent they belong to: each resource with its injection and run.
///
/// # Errors
/// The ledger cannot be read.
pub(super) fn held(
    ledger: &Ledger,
    request: &InjectionRequest,
) -> Result<Vec<HeldResource>, Refusal> {
    let (entries, _) = ledger.entries().map_err(|error| {
        Refusal::new(
            "ledger",
            format!("{} cannot be read: {error}", ledger.folder().display()),
        )
    })?;
    let others = entries.iter().filter(|entry| entry.injection != request.id);
    let held = others.flat_map(|entry| {
        let things = entry.changes.iter().flat_map(|change| change.holds());
        things.map(|thing| HeldResource {
            thing,
            injection: entry.injection.clone(),
            run: entry.run.clone(),
        })
    });
    Ok(held.collect())
}

/// Refuses a plan that needs a resource which another injection holds: every resource is held by one injection at a time.
///
/// # Errors
/// Another injection holds a resource that the plan needs.
pub(super) fn refuse_overlap(held: &[HeldResource], plan: &Plan) -> Result<(), Refusal> {
    let wanted: Vec<String> = plan
        .changes
        .iter()
        .flat_map(|change| change.holds())
        .collect();
    let is_wanted = |held: &&HeldResource| {
        // A host that is about to go down takes nothing new.
        held.thing == WHOLE_HOST
            || wanted
                .iter()
                .any(|wanted| resources_overlap(&held.thing, wanted))
    };
    match held.iter().find(is_wanted) {
        None => Ok(()),
        Some(held) => Err(held.refusal()),
    }
}

/// A resource that an injection holds.
pub(super) struct HeldResource {
    thing: String,
    injection: String,
    run: String,
}

impl HeldResource {
    /// Why nobody else may have it, and what would help: what a run has injected is for that run to end.
    fn refusal(&self) -> Refusal {
        let HeldResource {
            thing,
            injection,
            run,
        } = self;
        let held = format!("`{thing}` is held by injection `{injection}`");
        if run.is_empty() || run == super::BY_HAND {
            return Refusal::new("overlap", held).hint(format!(
                "wait for its end, or revert it: `backburn-agent revert {injection}`"
            ));
        }
        Refusal::new("overlap", format!("{held} of run `{run}`")).hint(format!(
            "wait until that run is over; `backburn stop {run}` stops a run on a fleet, and Ctrl-C one on this host"
        ))
    }
}

/// Checks the parts of a request that do not depend on its fault's arguments.
fn check_request(request: &InjectionRequest, one_shot: bool) -> Result<(), Refusal> {
    let named = request
        .id
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let mut problems = Vec::new();
    if request.id.is_empty() || request.id.len() > 32 || !named {
        problems.push(
            Problem::new("$", format!("`{}` is not an injection id", request.id))
                .hint("use lower-case letters, digits and `-`, at most 32 characters"),
        );
    }
    match (one_shot, request.duration, request.every) {
        (false, None, _) => problems.push(
            Problem::new("$.duration", "the duration is missing")
                .hint("every fault needs an end: give its duration, e.g. `30s`"),
        ),
        (false, _, Some(_)) => problems.push(Problem::new(
            "$.every",
            "only a one-shot fault can be repeated",
        )),
        (true, None, Some(_)) => problems.push(
            Problem::new("$.duration", "the duration is missing")
                .hint("say for how long to repeat the fault, e.g. `5m`"),
        ),
        (true, Some(_), None) => problems.push(
            Problem::new("$.duration", "a one-shot fault has no duration")
                .hint("leave it out, or repeat the fault with `every`"),
        ),
        _ => {}
    }
    if request
        .duration
        .is_some_and(|duration| duration.0.is_zero())
    {
        problems.push(Problem::new("$.duration", "the duration is zero"));
    }
    for (key, span) in [("duration", request.duration), ("every", request.every)] {
        if let Some(span) = span.filter(|span| *span > HumanDuration::MAX_FAULT_DURATION) {
            let what = format!("{span} is too long: no fault may last longer than a year");
            problems.push(
                Problem::new(format!("$.{key}"), what)
                    .hint(format!("at most {}", HumanDuration::MAX_FAULT_DURATION)),
            );
        }
    }
    if request
        .every
        .is_some_and(|every| every < HumanDuration::millis(10))
    {
        problems.push(Problem::new("$.every", "the interval is too short").hint("at least 10ms"));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refusal {
            problems,
            ..Refusal::new("arguments", "the injection is invalid")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_names_the_run_and_does_not_advise_to_revert_it() {
        let held = |run: &str| HeldResource {
            thing: "process:1@2".into(),
            injection: "r1-1".into(),
            run: run.into(),
        };
        let refusal = held("r1").refusal();
        assert_eq!(
            refusal.what,
            "`process:1@2` is held by injection `r1-1` of run `r1`"
        );
        let hint = refusal.hint.unwrap();
        assert!(
            hint.contains("`backburn stop r1`") && !hint.contains("revert"),
            "{hint}"
        );
        let hint = held(crate::engine::BY_HAND).refusal().hint.unwrap();
        assert!(hint.contains("`backburn-agent revert r1-1`"), "{hint}");
    }
}
