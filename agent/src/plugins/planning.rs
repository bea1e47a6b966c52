//! The plan of a plug-in's fault. The agent resolves the selectors and protects what is protected; the plug-in says what it would do,
//! in a process that can change nothing.

use super::registry::UsablePlugin;
use crate::changes::{Change, PluginChange, ProcessHelper, ReversibleChange as _};
use crate::faults;
use crate::helpers::{HelperSpec, PluginHolder};
use crate::ledger::boot_id;
use crate::plan::{Plan, PlanContext, resources_overlap};
use crate::plugin_call::{Confinement, EffectLook, PluginCall, PluginKind, PluginTexts};
use crate::policy::HostPolicy;
use crate::processes::ProcessSelector;
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

/// How long `plan` may take.
const PLAN_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest data of a change, in bytes of JSON.
const MAX_DATA_BYTES: usize = 64 << 10;
/// Most faults and changes of a plan.
const MAX_PARTS: usize = 64;

/// `CAP_DAC_READ_SEARCH`, the only capability that a plan may keep: with read-only mounts it lets a plug-in look, and nothing more.
const READ_ANY_FILE: u64 = 1 << 2;

/// Plans a plug-in's fault.
#[derive(Debug)]
pub struct PluginPlanning<'a> {
    /// The plug-in whose fault is planned.
    pub plugin: &'a UsablePlugin,
    /// What the host's owner allows.
    pub policy: &'a HostPolicy,
    /// The host, and what is known of the injection.
    pub context: &'a PlanContext<'a>,
}

/// What a plug-in answers to `plan`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PlanAnswer {
    refused: Option<String>,
    hint: Option<String>,
    #[serde(default)]
    faults: Vec<PlannedFault>,
    #[serde(default)]
    changes: Vec<PlannedChange>,
    victims: Option<Vec<String>>,
    #[serde(default)]
    notes: Vec<String>,
}

/// A built-in fault that a planner chooses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlannedFault {
    fault: String,
    arguments: Map<String, Value>,
}

/// What a holder or a changer would do.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PlannedChange {
    data: Value,
    holds: Vec<String>,
    effect: EffectLook,
    apply: String,
    undo: String,
    if_agent_dies: String,
}

impl PluginPlanning<'_> {
    /// Makes the plan of the fault.
    ///
    /// # Errors
    /// The arguments are wrong, the plug-in refuses or fails, or what it would do is not allowed.
    pub fn plan(&self, arguments: &Map<String, Value>) -> Result<Plan, Refusal> {
        let declaration = &self.plugin.declaration;
        let arguments = Value::Object(arguments.clone());
        let arguments =
            schema::accept(&declaration.schema, &arguments, "$").map_err(|problems| Refusal {
                problems,
                ..Refusal::new("arguments", "the fault's arguments are wrong")
            })?;
        let (victims, notes) = self.select(&arguments)?;
        let answer = self.ask(&arguments, &victims)?;
        if let Some(why) = answer.refused {
            let refusal = Refusal::new(
                "plug-in",
                format!("plug-in `{}` refuses: {why}", declaration.name),
            );
            return Err(match answer.hint {
                Some(hint) => refusal.hint(hint),
                None => refusal,
            });
        }
        let parts = answer.faults.len() + answer.changes.len();
        if parts == 0 || parts > MAX_PARTS {
            return Err(self.wrong(format!(
                "planned {parts} faults and changes, and 1 to {MAX_PARTS} are possible"
            )));
        }
        let mut plan = match (
            declaration.kind,
            answer.changes.is_empty(),
            answer.faults.is_empty(),
        ) {
            (PluginKind::Planner, true, _) => self.plan_faults(&answer.faults)?,
            (PluginKind::Planner, false, _) => {
                return Err(self.wrong("is a planner and planned changes of its own".into()));
            }
            (_, _, false) => {
                return Err(self.wrong("planned built-in faults and is no planner".into()));
            }
            (_, _, true) => self.plan_changes(answer.changes, answer.victims, victims)?,
        };
        plan.notes.extend(notes);
        plan.notes.extend(answer.notes);
        Ok(plan)
    }

    fn wrong(&self, what: String) -> Refusal {
        Refusal::new(
            "plug-in",
            format!("plug-in `{}` {what}", self.plugin.declaration.name),
        )
        .hint("this is a mistake in the plug-in: docs/plugins.md says what each verb answers")
    }

    /// The processes that the selectors among the arguments find.
    fn select(&self, arguments: &Value) -> Result<(Vec<Victim>, Vec<String>), Refusal> {
        let (mut victims, mut notes) = (Vec::new(), Vec::new());
        for name in &self.plugin.declaration.selectors {
            let Some(written) = arguments.get(name) else {
                continue;
            };
            let at = format!("$.{name}");
            let selector: ProcessSelector =
                serde_json::from_value(written.clone()).map_err(|error| Refusal {
                    problems: vec![backburn_experiments::Problem::new(
                        at.clone(),
                        error.to_string(),
                    )],
                    ..Refusal::new("arguments", "the fault's arguments are wrong")
                })?;
            let problems = selector.problems(&at);
            if !problems.is_empty() {
                return Err(Refusal {
                    problems,
                    ..Refusal::new("arguments", "the fault's arguments are wrong")
                });
            }
            let context = self.context;
            let found = selector.find(
                &at,
                context.host.processes(),
                context.protection,
                context.seed,
            )?;
            notes.extend(found.notes());
            victims.extend(found.victims.iter().map(|process| Victim {
                kind: "process".into(),
                id: process.id.to_string(),
                name: process.to_string(),
            }));
        }
        Ok((victims, notes))
    }

    fn ask(&self, arguments: &Value, victims: &[Victim]) -> Result<PlanAnswer, Refusal> {
        let context = self.context;
        let offered: Vec<Value> = victims
            .iter()
            .map(|victim| {
                let pid = victim
                    .id
                    .split('@')
                    .next()
                    .and_then(|pid| pid.parse::<i32>().ok());
                json!({"kind": victim.kind, "id": victim.id, "pid": pid, "name": victim.name})
            })
            .collect();
        let paths: Vec<&Path> = context.protected_paths.paths().collect();
        let held: Vec<&str> = context
            .held
            .iter()
            .map(|(thing, _)| thing.as_str())
            .collect();
        let call = PluginCall {
            program: &self.plugin.program,
            request: json!({
                "verb": "plan",
                "arguments": arguments,
                "victims": offered,
                "injection": context.injection,
                "seed": context.seed,
                "duration": context.duration,
                "held": held,
                "protected": {"paths": paths, "ports": context.protected_ports},
            }),
            timeout: PLAN_TIMEOUT,
            confinement: Confinement {
                is_sealed: true,
                capabilities: self.plugin.capabilities & READ_ANY_FILE,
                ..Confinement::default()
            },
        };
        call.run()
            .map_err(|failure| Refusal::new("plug-in", failure.to_string()))
    }

    /// Plans the built-in faults that a planner has chosen, each as if somebody had asked for it.
    fn plan_faults(&self, chosen: &[PlannedFault]) -> Result<Plan, Refusal> {
        let mut all = Plan::default();
        for chosen in chosen {
            let fault = faults::find(&chosen.fault)
                .filter(|fault| !fault.one_shot)
                .ok_or_else(|| {
                    self.wrong(format!(
                        "chose `{}`, which is not a built-in fault with a duration",
                        chosen.fault
                    ))
                })?;
            self.policy.permits_fault(&chosen.fault)?;
            let context = PlanContext {
                first_mark: all.changes.len(),
                ..*self.context
            };
            let plan = fault
                .plan(&chosen.arguments, &context)
                .map_err(|refusal| Refusal {
                    what: format!(
                        "`{}`, which plug-in `{}` chose: {}",
                        chosen.fault, self.plugin.declaration.name, refusal.what
                    ),
                    ..refusal
                })?;
            let taken: Vec<String> = all
                .changes
                .iter()
                .flat_map(|change| change.holds())
                .collect();
            let twice = plan
                .changes
                .iter()
                .flat_map(|change| change.holds())
                .find(|thing| taken.iter().any(|taken| resources_overlap(taken, thing)));
            if let Some(twice) = twice {
                return Err(self.wrong(format!("chose two faults that both need `{twice}`")));
            }
            all.victims.extend(plan.victims);
            all.changes.extend(plan.changes);
            all.notes.extend(plan.notes);
            all.warnings.extend(plan.warnings);
        }
        Ok(all)
    }

    fn plan_changes(
        &self,
        planned: Vec<PlannedChange>,
        chosen: Option<Vec<String>>,
        offered: Vec<Victim>,
    ) -> Result<Plan, Refusal> {
        let mut victims = offered;
        if let Some(chosen) = chosen {
            if let Some(other) = chosen
                .iter()
                .find(|id| victims.iter().all(|victim| victim.id != **id))
            {
                return Err(self.wrong(format!(
                    "chose the victim `{other}`, which it was not offered"
                )));
            }
            victims.retain(|victim| chosen.contains(&victim.id));
        }
        let mut changes = Vec::new();
        for (number, planned) in planned.into_iter().enumerate() {
            self.check(&planned)?;
            if victims.is_empty() {
                victims.extend(planned.holds.iter().map(|thing| Victim {
                    kind: thing.split(':').next().unwrap_or_default().to_owned(),
                    id: thing.clone(),
                    name: thing.clone(),
                }));
            }
            changes.push(self.change(number, planned)?);
        }
        Ok(Plan {
            victims,
            changes,
            ..Plan::default()
        })
    }

    fn check(&self, planned: &PlannedChange) -> Result<(), Refusal> {
        let is_thing = |thing: &String| {
            thing
                .split_once(':')
                .is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty())
        };
        if planned.holds.is_empty() {
            return Err(self.wrong(
                "planned a change whose `holds` is empty; name what it needs for itself, e.g. `file:/etc/app.conf`".into(),
            ));
        }
        if let Some(thing) = planned.holds.iter().find(|thing| !is_thing(thing)) {
            return Err(self.wrong(format!(
                "planned a change that holds `{thing}`, which is not `kind:name`, e.g. `file:/etc/app.conf`"
            )));
        }
        let length = planned.data.to_string().len();
        if length > MAX_DATA_BYTES {
            return Err(self.wrong(format!("planned a change with {length} bytes of data, and at most {MAX_DATA_BYTES} are possible")));
        }
        if planned
            .effect
            .path()
            .is_some_and(|path| !path.is_absolute())
        {
            return Err(self.wrong("planned an `effect` whose path is not absolute".into()));
        }
        for path in planned
            .holds
            .iter()
            .filter_map(|thing| thing.strip_prefix("file:"))
        {
            // By both names, where a link leads there.
            let path = Path::new(path);
            self.context.protected_paths.check(path)?;
            if let Ok(whole) = path.canonicalize() {
                self.context.protected_paths.check(&whole)?;
            }
        }
        Ok(())
    }

    fn change(&self, number: usize, planned: PlannedChange) -> Result<Change, Refusal> {
        let plugin = self.plugin;
        let mark = self.context.mark(number);
        let texts = PluginTexts {
            apply: planned.apply,
            undo: planned.undo,
            if_agent_dies: planned.if_agent_dies,
        };
        Ok(match plugin.declaration.kind {
            PluginKind::Holder => Change::Helper(ProcessHelper {
                deadline: self.context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(PluginHolder {
                    program: plugin.program.clone(),
                    capabilities: plugin.capabilities,
                    mark: mark.clone(),
                    data: planned.data,
                    holds: planned.holds,
                    effect: planned.effect,
                    texts,
                }),
                mark,
            }),
            PluginKind::Changer | PluginKind::Planner => Change::Plugin(Box::new(PluginChange {
                mark,
                program: plugin.program.clone(),
                capabilities: plugin.capabilities,
                timeout: plugin.declaration.timeout,
                survives_reboot: plugin.declaration.survives_reboot,
                boot: boot_id().map_err(|error| Refusal::new("failed", error.to_string()))?,
                data: planned.data,
                holds: planned.holds,
                effect: planned.effect,
                texts,
            })),
        })
    }
}
