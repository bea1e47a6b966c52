//! `process-kill`: a process gets a signal, as when it crashes or the kernel's memory killer
//! chooses it. What brings it back is its supervisor, and whether that works is what one learns.

use super::{Expectation, FaultKind, Plan, PlanContext, process_victim, select};
use crate::changes::{Change, Kill, ProcessHelper};
use crate::helpers::{HelperSpec, Terminate};
use crate::processes::{Process, ProcessId, ProcessSelector, SIGKILL, signal_number};
use backburn_experiments::document::Select;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, HumanDuration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Sends a signal to processes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessKill {
    /// Who. One at random of those that match, unless `select` says otherwise.
    process: ProcessSelector,
    /// The signal, e.g. `TERM` or `HUP`. `KILL` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = SIGNALS))]
    signal: Option<String>,
    /// Asks first: TERM, and the signal only to those that are still there after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace: Option<HumanDuration>,
    /// Records whether a supervisor brought the process back, and how soon; not in time is a deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect_restart: Option<ExpectRestart>,
}

/// That a supervisor brings a process back.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectRestart {
    /// How soon.
    within: HumanDuration,
}

/// The signals that end a process, or that daemons give a meaning to. Not STOP: nothing would undo it.
const SIGNALS: [&str; 10] = [
    "KILL", "TERM", "INT", "HUP", "QUIT", "ABRT", "SEGV", "BUS", "USR1", "USR2",
];

/// Those of them that are sent so that a process ends; the others daemons give a meaning to.
const TERMINATING: [&str; 7] = ["KILL", "TERM", "INT", "QUIT", "ABRT", "SEGV", "BUS"];

impl FaultKind for ProcessKill {
    const NAME: &'static str = "process-kill";
    const SUMMARY: &'static str = "Processes get a signal, KILL unless told otherwise";
    const ONE_SHOT: bool = true;

    fn example() -> Value {
        json!({"process": {"name": "nginx", "select": {"count": 1}}, "expect-restart": {"within": "5s"}})
    }

    fn problems(&self) -> Vec<Problem> {
        self.process.problems("$.process")
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let (victims, mut notes) = select(&self.process, context)?;
        let ids: Vec<ProcessId> = victims.iter().map(|process| process.id).collect();
        let name = self.signal.as_deref().unwrap_or("KILL");
        let signal = signal_number(name).ok_or_else(|| {
            Refusal::new("arguments", format!("`{name}` is not a signal")).hint(SIGNALS.join(", "))
        })?;
        if self.grace.is_none() && signal != SIGKILL {
            notes.extend(signal_notes(&victims, name, signal, context));
        }
        let expect = match &self.expect_restart {
            None => None,
            Some(expect) => {
                let everyone = ProcessSelector {
                    select: Some(Select::All),
                    ..self.process.clone()
                };
                let known = everyone
                    .find(
                        "$.process",
                        context.host.processes(),
                        context.protection,
                        context.seed,
                    )?
                    .victims;
                Some(Expectation {
                    number: ids.len(),
                    known: known.iter().map(|process| process.id).collect(),
                    selector: everyone,
                    within: expect.within,
                })
            }
        };
        let kill = Change::Kill(Kill {
            victims: ids.clone(),
            signal,
            name: name.into(),
        });
        let changes = match self.grace {
            None => vec![kill],
            Some(grace) => vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(grace),
                spec: HelperSpec::from(Terminate {
                    victims: ids,
                    grace_ms: grace.0.as_millis() as u64,
                }),
            })],
        };
        Ok(Plan {
            victims: victims.iter().map(process_victim).collect(),
            changes,
            notes,
            expect,
            ..Plan::default()
        })
    }
}

/// What keeps a signal other than KILL from doing what it is sent for, as it shows beforehand.
fn signal_notes(
    victims: &[Process],
    name: &str,
    signal: i32,
    context: &PlanContext<'_>,
) -> Vec<String> {
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for victim in victims {
        let Some(state) = context.host.processes().signal_state(victim.id, signal) else {
            continue;
        };
        let note = if state.is_ignored {
            format!("SIG{name} is ignored: it has no effect")
        } else if state.is_dropped() {
            format!(
                "it is the first process of a pid namespace and has no handler for SIG{name}: the kernel drops it"
            )
        } else if state.is_blocked {
            format!("SIG{name} is blocked: it has no effect unless the process asks for it")
        } else if victim.state == 'T' {
            format!("it is stopped: SIG{name} waits until it goes on")
        } else if !TERMINATING.contains(&name) && state.is_caught {
            format!("that SIG{name} is taken can be seen, not what is done about it")
        } else {
            continue;
        };
        notes.entry(note).or_default().push(victim.to_string());
    }
    let shown = |(note, victims): (String, Vec<String>)| match victims.len() {
        0..=8 => format!("{}: {note}", victims.join(", ")),
        many => format!("{} and {} more: {note}", victims[..3].join(", "), many - 3),
    };
    notes.into_iter().map(shown).collect()
}
