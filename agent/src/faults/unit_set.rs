//! The units that `service-stop` stops: the victim, those that would start it again, and those that systemd stops with it.

use super::{PlanContext, permit};
use crate::changes::UnitRole;
use crate::plan::{FoundUnit, NoServiceManager};
use crate::processes::{OneOrMany, Process, ProcessSelector};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Select;
use backburn_experiments::wire::Refusal;
use std::collections::BTreeSet;

/// The most units that one injection stops.
const MAX_UNITS: usize = 64;

/// The unit of this name, as systemd describes it.
pub(super) fn find_unit(name: &str, context: &PlanContext<'_>) -> Result<FoundUnit, Refusal> {
    context.host.unit(name).map_err(|none| {
        let rule = match &none {
            NoServiceManager::NotPermitted => "not-permitted",
            NoServiceManager::Failed(_) => "failed",
            NoServiceManager::Absent | NoServiceManager::NotFirst => "not-available",
        };
        Refusal::new(rule, none.to_string()).hint(none.hint())
    })
}

/// The units that are stopped, in the order in which they are stopped and started: those that would start others again, the victim, and
/// those that systemd stops with it.
pub(super) struct UnitSet {
    pub(super) units: Vec<(FoundUnit, UnitRole)>,
    /// Timers that may start a unit of the set meanwhile.
    timers: Vec<String>,
}

impl UnitSet {
    /// Finds the units around a victim.
    pub(super) fn around(victim: FoundUnit, context: &PlanContext<'_>) -> Result<Self, Refusal> {
        let mut known = BTreeSet::from([victim.name.clone()]);
        let (mut triggers, mut dependants, mut timers) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = vec![victim.clone()];
        while let Some(unit) = open.pop() {
            for name in &unit.upheld_by {
                let upholder = find_unit(name, context)?;
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
                let found = find_unit(name, context)?;
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
                if triggers.len() + dependants.len() + 2 > MAX_UNITS {
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

    /// The processes of all units, none of which may be protected.
    pub(super) fn unprotected_processes(
        &self,
        context: &PlanContext<'_>,
    ) -> Result<Vec<Process>, Refusal> {
        let ids = self.units.iter().flat_map(|(unit, _)| &unit.processes);
        let ids: Vec<i32> = ids.copied().collect();
        if ids.is_empty() {
            // They run without any, e.g. since their programs have ended as they should.
            return Ok(Vec::new());
        }
        let all = ProcessSelector {
            pid: Some(OneOrMany::Many(ids)),
            select: Some(Select::All),
            ..ProcessSelector::default()
        };
        let protected = |unit: &str, why: &str| {
            Refusal::new("protected", format!("{unit} is protected: {why}")).hint(
                "choose another service; the owner of this host may change `protect` in its policy",
            )
        };
        let host = context.host;
        let found = all.find("$.unit", host.processes(), context.protection, context.seed);
        match found {
            Ok(found) => match found.spared.first() {
                Some((process, why)) => {
                    let mut units = self.units.iter();
                    let unit = units.find(|(unit, _)| unit.processes.contains(&process.id.pid));
                    let unit = unit.map_or("it", |(unit, _)| &unit.name);
                    Err(protected(unit, &format!("of its process {process}, {why}")))
                }
                None => {
                    permit(&found.victims, host.user_id())?;
                    Ok(found.victims)
                }
            },
            Err(refusal) if refusal.rule == "no-match" => Err(Refusal::new(
                "not-available",
                "none of the service's processes can be seen, so whether one is protected cannot be told",
            )
            .hint("try again; if they do not show in `ps`, run the agent as root on the host itself")),
            Err(refusal) if refusal.rule == "protected" => {
                let names = self.names(UnitRole::Victim);
                Err(protected(&names, &refusal.what))
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn names(&self, wanted: UnitRole) -> String {
        let units = self.units.iter().filter(|(_, role)| *role == wanted);
        let names: Vec<&str> = units.map(|(unit, _)| unit.name.as_str()).collect();
        names.join(", ")
    }

    pub(super) fn notes(&self, processes: &[Process]) -> Vec<String> {
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

    pub(super) fn warnings(&self) -> Vec<String> {
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
