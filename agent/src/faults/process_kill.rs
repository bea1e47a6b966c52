//! `process-kill`: sends a signal to processes, as when one crashes or the kernel's OOM killer
//! selects it. Restarting it is up to its supervisor, and the experiment shows whether that works.

use super::{Expectation, FaultKind, Plan, PlanContext, process_victim, select};
use crate::changes::{Change, Kill, ProcessHelper};
use crate::helpers::{HelperSpec, Terminate};
use crate::processes::{Process, ProcessId, ProcessSelector, SIGKILL, SignalName, signal_number};
use backburn_experiments::document::Select;
use backburn_experiments::problem::meant;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Sends a signal to processes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessKill {
    /// Which processes to hit: one of those that match, at random, unless `select` says otherwise.
    process: ProcessSelector,
    /// Signal to send: `KILL`, `TERM`, `INT`, `HUP`, `QUIT`, `ABRT`, `SEGV`, `BUS`, `USR1` or `USR2`, also with `SIG` before it, in small
    /// letters, or by its number. Default: `KILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<SignalName>,
    /// Sends TERM first, and the signal only to processes that are still there after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace: Option<HumanDuration>,
    /// Records whether a supervisor restarts the process, and how soon. A restart that does not come in time is a deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect_restart: Option<ExpectRestart>,
}

/// The restart that is expected of a supervisor.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectRestart {
    /// Time within which the process must be restarted.
    within: HumanDuration,
}

/// Signals that end a process, or that daemons give a meaning to. STOP is not among them: nothing would undo it.
const SIGNALS: [&str; 10] = [
    "KILL", "TERM", "INT", "HUP", "QUIT", "ABRT", "SEGV", "BUS", "USR1", "USR2",
];

/// Those of [`SIGNALS`] that are sent to end a process; daemons give a meaning to the others.
const TERMINATING: [&str; 7] = ["KILL", "TERM", "INT", "QUIT", "ABRT", "SEGV", "BUS"];

impl FaultKind for ProcessKill {
    const NAME: &'static str = "process-kill";
    const SUMMARY: &'static str = "Send a signal to processes, KILL by default";
    const ONE_SHOT: bool = true;

    fn example() -> Value {
        json!({"process": {"name": "nginx", "select": {"count": 1}}, "expect-restart": {"within": "5s"}})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.process.problems("$.process");
        if let Some(signal) = &self.signal
            && !SIGNALS.contains(&signal.0.as_str())
        {
            let problem = Problem::new(
                "$.signal",
                format!("`{}` is not a signal that is sent", signal.0),
            );
            let hint = match signal.0.as_str() {
                "STOP" | "TSTP" | "CONT" => {
                    "`process-pause` stops processes and continues them".into()
                }
                other => meant(other, &SIGNALS).unwrap_or_default(),
            };
            problems.push(problem.hint(hint));
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let (victims, mut notes) = select(&self.process, context)?;
        let ids: Vec<ProcessId> = victims.iter().map(|process| process.id).collect();
        let name = self.signal.as_ref().map_or("KILL", |signal| &signal.0);
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

/// What would keep a signal other than KILL from having its effect, as far as that shows beforehand.
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
