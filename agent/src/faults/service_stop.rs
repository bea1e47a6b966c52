//! `service-stop`: stops a service of systemd's with all that systemd stops with it, as when somebody has switched it off. Process 1 itself
//! starts it again.

use super::unit_set::{UnitSet, find_unit};
use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, StoppedUnit, StoppedUnits};
use crate::plan::FoundUnit;
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
        let victim = find_unit(&self.name(), context)?;
        check_runs(&victim)?;
        let set = UnitSet::around(victim, context)?;
        for (unit, _) in &set.units {
            check_unit(unit, context)?;
        }
        let processes = set.unprotected_processes(context)?;
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
