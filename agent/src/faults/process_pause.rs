//! `process-pause`: pauses processes, as a long garbage collection, a stalled disk or an
//! overcommitted host does: they keep their connections and answer nothing.

use super::{FaultKind, Plan, PlanContext, process_victim, select};
use crate::changes::{Change, ProcessHelper, Stop, is_stopped};
use crate::helpers::{Freeze, HelperSpec};
use crate::processes::{ProcessId, ProcessSelector};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Pauses processes until the fault ends.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessPause {
    /// Which processes to hit: one of those that match, at random, unless `select` says otherwise.
    process: ProcessSelector,
}

impl FaultKind for ProcessPause {
    const NAME: &'static str = "process-pause";
    const SUMMARY: &'static str = "Pause processes, then let them continue";

    fn example() -> Value {
        json!({"process": {"name": "redis-server"}})
    }

    fn problems(&self) -> Vec<Problem> {
        self.process.problems("$.process")
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let (found, mut notes) = select(&self.process, context)?;
        // A process that was stopped before stays stopped: continuing it would not restore what was. One that
        // another injection holds is refused as held, not left alone as stopped.
        let (still, victims): (Vec<_>, Vec<_>) = found.into_iter().partition(|process| {
            !context.is_held(process.id) && is_stopped(context.host.processes(), process.id)
        });
        notes.extend(still.iter().map(|process| {
            let tracer = context.host.processes().tracer(process.id.pid);
            let tracer = tracer.and_then(|tracer| context.host.processes().process(tracer));
            match tracer {
                Some(tracer) => {
                    format!("{process} is stopped by its tracer {tracer} and is left alone")
                }
                None => format!("{process} is stopped already and is left alone"),
            }
        }));
        if victims.is_empty() {
            return Err(Refusal::new(
                "no-match",
                format!(
                    "every process that matches is stopped already: {}",
                    notes.join("; ")
                ),
            )
            .hint("let them run first, or select others"));
        }
        let mut hold: Vec<ProcessId> = Vec::new();
        let mut stop: Vec<ProcessId> = Vec::new();
        for process in &victims {
            match context.host.check_freezable(process.id) {
                Ok(()) => hold.push(process.id),
                Err(why) => {
                    notes.push(format!(
                        "{process} is paused by signals, which only the agent and its guardian revert: {why}"
                    ));
                    stop.push(process.id);
                }
            }
        }
        let mut changes = Vec::new();
        if !hold.is_empty() {
            changes.push(Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(Freeze { victims: hold }),
            }));
        }
        if !stop.is_empty() {
            changes.push(Change::Stop(Stop { victims: stop }));
        }
        Ok(Plan {
            victims: victims.iter().map(process_victim).collect(),
            changes,
            notes,
            ..Plan::default()
        })
    }
}
