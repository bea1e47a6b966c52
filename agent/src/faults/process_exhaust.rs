//! `process-exhaust`: the kernel starts hardly any process or thread more, as after a fork bomb or a leak of threads.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, ThreadBallast};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Takes the room for processes and threads. Give at most one of `count` and `percent`; with neither, everything but the reserve is taken.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessExhaust {
    /// How many threads to start. To the kernel, a process counts as its threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    count: Option<u32>,
    /// How many threads to start, in percent of the tightest limit that the agent is under.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
    /// How many threads others can always start. Default: 5 % of the limit, and at least 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64))]
    reserve: Option<u32>,
}

/// The least that is kept by default, so that the fault can be ended and the host be entered.
const MIN_RESERVE: u64 = 256;
/// The most threads of one helper: each takes two of the 65,530 mappings that the kernel allows a process by default (`vm.max_map_count`).
const MAX_THREADS: u64 = 30_000;
/// What a thread takes of the host's memory, in bytes, rounded up.
const THREAD_BYTES: u64 = 48 << 10;

impl FaultKind for ProcessExhaust {
    const NAME: &'static str = "process-exhaust";
    const SUMMARY: &'static str = "Take the room for processes and threads, down to a reserve";

    fn example() -> Value {
        json!({"percent": 80, "reserve": 1000})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.count.is_some() && self.percent.is_some() {
            problems.push(
                Problem::new("$.percent", "`count` and `percent` exclude each other")
                    .hint("give one of them"),
            );
        }
        if self.percent.is_some_and(|percent| percent <= 0.0) {
            problems.push(
                Problem::new("$.percent", "no thread would be started").hint("give more than 0"),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let failed = |what: String| {
            Refusal::new("failed", what).hint("`backburn-agent doctor` tells what this kernel has")
        };
        let room = context
            .host
            .thread_room()
            .map_err(|error| failed(format!("no limit of threads is known: {error}")))?;
        let reserve = match self.reserve {
            Some(reserve) => reserve.into(),
            None => (room.limit / 20).max(MIN_RESERVE),
        };
        let possible = room.free().saturating_sub(reserve);
        if possible == 0 {
            return Err(Refusal::new(
                "reserve",
                format!("there are {room}, and the reserve is {reserve}"),
            )
            .hint("lower `reserve`, or end some processes"));
        }
        let wanted = match (self.count, self.percent) {
            (Some(count), _) => count.into(),
            (None, Some(percent)) => ((room.limit as f64 * percent / 100.0) as u64).max(1),
            (None, None) => possible,
        };
        let mut notes = vec![format!("there are {room}")];
        let memory = context
            .host
            .memory()
            .map_err(|error| failed(format!("{}: {}", error.at, error.what)))?;
        let mut count = wanted;
        for (most, why) in [
            (possible, format!("{reserve} are kept in reserve")),
            (MAX_THREADS, "one helper has no more".into()),
            (
                memory.available / 2 / THREAD_BYTES,
                "half of the available memory stays to others".into(),
            ),
        ] {
            if count > most {
                notes.push(format!("{most} threads instead of {count}: {why}"));
                count = most;
            }
        }
        if count == 0 {
            return Err(
                Refusal::new("reserve", "there is no memory for threads").hint("free some memory")
            );
        }
        notes.push(
            "the limit is that of the agent: other control groups may have limits of their own"
                .into(),
        );
        Ok(Plan {
            victims: vec![Victim {
                kind: "threads".into(),
                id: "threads".into(),
                name: format!("{count} threads more, {reserve} kept free"),
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(ThreadBallast { count, reserve }),
            })],
            notes,
            ..Plan::default()
        })
    }
}
