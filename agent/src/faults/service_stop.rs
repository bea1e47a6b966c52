//! `service-stop`: stops a service of systemd's with all that systemd stops with it, as when somebody has switched it off. Process 1 itself
//! starts it again.

use super::{FaultKind, Plan, PlanContext, permit};
use crate::changes::{Change, StoppedUnit, StoppedUnits, UnitRole};
use crate::plan::{FoundUnit, NoServiceManager};
use crate::processes::{Process, ProcessSelector};
use backburn_experiments::document::Select;
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Stops a service, and starts it again. A service that does not run is refused.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServiceStop {
    /// The service as systemd names it, e.g. `nginx.service` or `postgresql@15-main.service`. Default suffix: `.service`.
    unit: String,
}

const SERVICE: &str = ".service";
/// The other kinds of units.
const OTHER_KINDS: [&str; 10] = [
    ".automount",
    ".device",
    ".mount",
    ".path",
    ".scope",
    ".slice",
    ".socket",
    ".swap",
    ".target",
    ".timer",
];
/// The longest name of a unit that systemd takes, in characters.
const MAX_NAME_LENGTH: usize = 255;
/// What a host cannot go on without, and what systemd needs itself. A `*` stands for anything.
const HOST_UNITS: [(&str, &str); 5] = [
    ("systemd-", "*"),
    ("dbus", SERVICE),
    ("dbus-broker", SERVICE),
    ("user@", "*"),
    ("user-runtime-dir@", "*"),
];
/// The most units that one injection stops.
const MAX_UNITS: usize = 64;

impl FaultKind for ServiceStop {
    const NAME: &'static str = "service-stop";
    const SUMMARY: &'static str = "Stop a service of systemd, then start it again";

    fn example() -> Value {
        json!({"unit": "nginx.service"})
    }

    fn problems(&self) -> Vec<Problem> {
        let problem = |what: String, hint: &str| vec![Problem::new("$.unit", what).hint(hint)];
        let unit = self.unit.as_str();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let name = self.name();
        let name = name.strip_suffix(SERVICE).unwrap_or_default();
        if let Some(kind) = OTHER_KINDS.iter().find(|kind| unit.ends_with(**kind)) {
            return problem(
                format!(
                    "`{unit}` is not a service but a unit of the kind `{}`",
                    &kind[1..]
                ),
                "name the service itself; what triggers it is stopped with it",
            );
        }
        if name.is_empty() || name == "@" || !unit.chars().all(is_plain) {
            return problem(
                format!("`{unit}` is not the name of a service"),
                "write it as `systemctl list-units --type=service` does, e.g. `nginx.service`",
            );
        }
        if name.ends_with('@') {
            return problem(
                format!("`{unit}` is a template, of which there may be many services"),
                "name one of them, e.g. `postgresql@15-main.service`",
            );
        }
        if self.name().len() > MAX_NAME_LENGTH {
            return problem(
                "the name is too long for a unit".into(),
                "at most 255 characters",
            );
        }
        Vec::new()
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let victim = find(&self.name(), context)?;
        check_runs(&victim)?;
        let set = UnitSet::around(victim, context)?;
        let mut processes = Vec::new();
        for (unit, _) in &set.units {
            check_unit(unit, context)?;
            processes.extend(unprotected_processes(unit, context)?);
        }
        let facts = context.host.facts().map_err(|error| {
            Refusal::new("failed", format!("the boot cannot be read: {error}"))
                .hint("mount `/proc`")
        })?;
        let deadline = context.deadline(HumanDuration::default());
        let units = set.units.iter().map(|(unit, role)| StoppedUnit {
            name: unit.name.clone(),
            invocation: unit.invocation.clone(),
            role: *role,
        });
        let victims = set.units.iter().map(|(unit, _)| Victim {
            kind: "unit".into(),
            id: format!("{}@{}", unit.name, unit.invocation),
            name: unit.name.clone(),
        });
        Ok(Plan {
            victims: victims.collect(),
            changes: vec![Change::StoppedUnits(StoppedUnits {
                mark: context.mark(0),
                boot: facts.boot,
                units: units.collect(),
                deadline,
                processes: processes.iter().map(|process| process.id).collect(),
            })],
            notes: set.notes(&processes),
            warnings: set.warnings(),
            ..Plan::default()
        })
    }
}

impl ServiceStop {
    /// The unit's whole name.
    fn name(&self) -> String {
        match self.unit.ends_with(SERVICE) {
            true => self.unit.clone(),
            false => format!("{}{SERVICE}", self.unit),
        }
    }
}

fn find(name: &str, context: &PlanContext<'_>) -> Result<FoundUnit, Refusal> {
    context.host.unit(name).map_err(|none| {
        let rule = match &none {
            NoServiceManager::NotPermitted => "not-permitted",
            NoServiceManager::Failed(_) => "failed",
            NoServiceManager::Absent | NoServiceManager::NotFirst => "not-available",
        };
        Refusal::new(rule, none.to_string()).hint(none.hint())
    })
}

/// Checks that the victim is there and runs, so that there is something to stop and to start again.
fn check_runs(unit: &FoundUnit) -> Result<(), Refusal> {
    let name = &unit.name;
    match unit.load_state.as_str() {
        "not-found" => Err(Refusal::new(
            "no-match",
            format!("there is no unit `{name}` on this host"),
        )
        .hint("`systemctl list-units --type=service` lists the services that run")),
        // Since one that is masked may run, its state is not asked.
        "masked" => Err(Refusal::new(
            "masked",
            format!("{name} is masked, so it could not be started again"),
        )
        .hint(format!(
            "`systemctl unmask {name}`, or choose another service"
        ))),
        _ if unit.is_stopped() => Err(Refusal::new(
            "not-running",
            format!("{unit}: there is nothing to stop, and what did not run is not started"),
        )
        .hint(format!("start it first, e.g. `systemctl start {name}`"))),
        _ => Ok(()),
    }
}

/// Checks a unit that would be stopped, the victim or another one.
fn check_unit(unit: &FoundUnit, context: &PlanContext<'_>) -> Result<(), Refusal> {
    let name = &unit.name;
    let is_of_host = |name: &&String| {
        HOST_UNITS.iter().any(|(begin, end)| {
            let rest = name.strip_prefix(begin);
            rest.is_some_and(|rest| *end == "*" || rest == *end)
        })
    };
    let mut names = unit.names.iter().chain([name]);
    if names.any(|name| is_of_host(&name)) {
        return Err(Refusal::new(
            "protected",
            format!("{name} is protected: the host and systemd itself need it"),
        )
        .hint("choose another service; `process-pause` stops one of its processes, where the policy allows that"));
    }
    for name in unit.names.iter().chain([name]) {
        let entry = context
            .protection
            .protecting_unit(name, &unit.control_group);
        if let Some(entry) = entry {
            return Err(Refusal::new(
                "protected",
                format!("{name} is protected: the policy protects the unit `{entry}`"),
            )
            .hint("choose another service; the owner of this host may change `protect.units` in its policy"));
        }
    }
    if unit.load_state != "loaded" {
        return Err(Refusal::new(
            "masked",
            format!(
                "{name} could not be started again: its configuration is {}",
                unit.load_state
            ),
        )
        .hint("see `systemctl status`, or choose another service"));
    }
    if unit.is_transient {
        return Err(Refusal::new(
            "transient",
            format!("{name} is transient: it exists only while it runs, so it could not be started again"),
        )
        .hint("choose a service with a unit file; `process-kill` and `process-pause` hit processes of any unit"));
    }
    if !unit.may_stop || !unit.may_start {
        return Err(Refusal::new(
            "refuses",
            format!("{name} refuses to be stopped or started by hand (RefuseManualStop=, RefuseManualStart=)"),
        )
        .hint("choose another service"));
    }
    if unit.is_changing() || !unit.is_active() {
        return Err(Refusal::new(
            "busy",
            format!("{unit}, and systemd is about to change that"),
        )
        .hint("try again when it has started or stopped"));
    }
    Ok(())
}

/// The processes of a service, none of which may be protected.
fn unprotected_processes(
    unit: &FoundUnit,
    context: &PlanContext<'_>,
) -> Result<Vec<Process>, Refusal> {
    if unit.control_group.is_empty() {
        return Ok(Vec::new());
    }
    let all = ProcessSelector {
        cgroup: Some(unit.control_group.clone()),
        select: Some(Select::All),
        ..ProcessSelector::default()
    };
    let found = all.find(
        "$.unit",
        context.host.processes(),
        context.protection,
        context.seed,
    );
    let protected = |why: String| {
        Refusal::new("protected", format!("{} is protected: {why}", unit.name)).hint(
            "choose another service; the owner of this host may change `protect` in its policy",
        )
    };
    match found {
        Ok(found) => match found.spared.first() {
            Some((process, why)) => Err(protected(format!("of its process {process}, {why}"))),
            None => {
                permit(&found.victims, context.host.user_id())?;
                Ok(found.victims)
            }
        },
        // It runs without a process, e.g. since its program has ended as it should.
        Err(refusal) if refusal.rule == "no-match" && unit.main_pid == 0 => Ok(Vec::new()),
        Err(refusal) if refusal.rule == "no-match" => Err(Refusal::new(
            "not-available",
            format!(
                "the processes of {} cannot be found in its control group {}, so whether one is protected cannot be told",
                unit.name, unit.control_group
            ),
        )
        .hint("run the agent on the host itself, in its first cgroup namespace")),
        Err(refusal) if refusal.rule == "protected" => Err(protected(refusal.what)),
        Err(refusal) => Err(refusal),
    }
}

/// The units that are stopped, in the order in which they are stopped and started: those that would start others again, the victim, and
/// those that systemd stops with it.
struct UnitSet {
    units: Vec<(FoundUnit, UnitRole)>,
    /// Timers that may start a unit of the set meanwhile.
    timers: Vec<String>,
}

impl UnitSet {
    /// Finds the units around a victim.
    fn around(victim: FoundUnit, context: &PlanContext<'_>) -> Result<Self, Refusal> {
        let mut known = BTreeSet::from([victim.name.clone()]);
        let (mut triggers, mut dependants, mut timers) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = vec![victim.clone()];
        while let Some(unit) = open.pop() {
            for name in &unit.upheld_by {
                let upholder = find(name, context)?;
                if !upholder.is_stopped() {
                    return Err(Refusal::new(
                        "upheld",
                        format!(
                            "{} would be started again at once: {name} upholds it",
                            unit.name
                        ),
                    )
                    .hint(format!("stop {name} first, or choose another service")));
                }
            }
            let related = unit
                .stops_with
                .iter()
                .map(|name| (name, UnitRole::Dependant));
            let triggered = unit
                .triggered_by
                .iter()
                .map(|name| (name, UnitRole::Trigger));
            for (name, role) in related.chain(triggered) {
                if known.contains(name) {
                    continue;
                }
                let found = find(name, context)?;
                if !known.insert(found.name.clone()) || found.is_stopped() {
                    continue;
                }
                match (found.kind(), role) {
                    ("timer", UnitRole::Trigger) => {
                        timers.push(found.name);
                        continue;
                    }
                    ("service" | "socket" | "path", _) => {}
                    _ => {
                        return Err(Refusal::new(
                            "dependants",
                            format!(
                                "{} would be stopped with {}, and starting it again may start more than ran before",
                                found.name, unit.name
                            ),
                        )
                        .hint("choose a service on which only services, sockets and paths depend; `systemctl list-dependencies --reverse` shows them"));
                    }
                }
                if known.len() > MAX_UNITS {
                    return Err(Refusal::new(
                        "dependants",
                        format!("more than {MAX_UNITS} units would be stopped"),
                    )
                    .hint("choose a service on which fewer depend"));
                }
                open.push(found.clone());
                match role {
                    UnitRole::Trigger => triggers.push((found, role)),
                    _ => dependants.push((found, role)),
                }
            }
        }
        triggers.push((victim, UnitRole::Victim));
        triggers.extend(dependants);
        Ok(UnitSet {
            units: triggers,
            timers,
        })
    }

    fn names(&self, wanted: UnitRole) -> String {
        let units = self.units.iter().filter(|(_, role)| *role == wanted);
        let names: Vec<&str> = units.map(|(unit, _)| unit.name.as_str()).collect();
        names.join(", ")
    }

    fn notes(&self, processes: &[Process]) -> Vec<String> {
        let mut notes = vec![match processes.len() {
            0 => "no process is ended: the service runs without one".to_owned(),
            1 => "systemd ends its process as at any stop".to_owned(),
            number => format!("systemd ends {number} processes as at any stop"),
        }];
        let dependants = self.names(UnitRole::Dependant);
        if !dependants.is_empty() {
            notes.push(format!(
                "systemd stops these with it, and they are started again as well: {dependants}"
            ));
        }
        let triggers = self.names(UnitRole::Trigger);
        if !triggers.is_empty() {
            notes.push(format!(
                "these are stopped before and started again, since they would start it meanwhile: {triggers}"
            ));
        }
        let limits = self.units.iter().filter_map(|(unit, _)| unit.stop_limit);
        if let Some(longest) = limits.max() {
            notes.push(format!(
                "to stop may take up to {} (TimeoutStopSec=); at the end of the fault, what still stops starts once it has",
                HumanDuration(longest)
            ));
        }
        let restarts = self.units.iter().find(|(unit, role)| {
            *role == UnitRole::Victim && !["", "no"].contains(&unit.restart.as_str())
        });
        if let Some((unit, _)) = restarts {
            notes.push(format!(
                "its Restart={} does not act: systemd restarts nothing that was stopped by hand",
                unit.restart
            ));
        }
        notes
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (unit, _) in &self.units {
            let name = &unit.name;
            if unit.kind() == "service" && unit.stop_limit.is_none() {
                warnings.push(format!(
                    "{name} may take as long as it likes to stop, and starts only after that, also at the end of the fault"
                ));
            }
            if !unit.bus_name.is_empty() {
                warnings.push(format!(
                    "whoever asks for `{}` on the message bus may start {name} meanwhile",
                    unit.bus_name
                ));
            }
            if !unit.starts_after.is_empty() {
                warnings.push(format!(
                    "when {name} has stopped, systemd starts what its OnSuccess= says: {}",
                    unit.starts_after.join(", ")
                ));
            }
            if unit.kind() == "service" && unit.sub_state == "exited" {
                warnings.push(format!(
                    "{name} has run to its end and counts as active: starting it runs its program once more"
                ));
            }
        }
        if !self.timers.is_empty() {
            warnings.push(format!(
                "these timers are not stopped, and may start it meanwhile: {}",
                self.timers.join(", ")
            ));
        }
        warnings
    }
}
