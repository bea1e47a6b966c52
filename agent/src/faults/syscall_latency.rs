//! `syscall-latency`: chosen system calls of a process take longer, as on a slow disk or an overloaded host.

use super::syscall_calls::{alter_calls, call_problems};
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::CallAlteration;
use crate::processes::{OneOrMany, ProcessSelector};
use crate::units::{SyscallName, range_hint};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Makes system calls of processes wait before they are done.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SyscallLatency {
    /// Which processes to hit: one of those that match, at random, unless `select` says otherwise.
    process: ProcessSelector,
    /// The system calls that wait: `fdatasync`, or a list. `strace -c -p PID` shows which ones a process makes.
    calls: OneOrMany<SyscallName>,
    /// How long each call waits.
    delay: HumanDuration,
    /// Chance of each call to wait, in percent, drawn from the seed. Default: all calls.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

/// The longest wait: what is longer would not be seen to end.
const MAX_DELAY: HumanDuration = HumanDuration::seconds(3600);

impl FaultKind for SyscallLatency {
    const NAME: &'static str = "syscall-latency";
    const SUMMARY: &'static str = "Make chosen system calls of processes take longer";

    fn example() -> Value {
        json!({"process": {"name": "redis-server"}, "calls": ["fdatasync", "write"], "delay": "20ms"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.process.problems("$.process");
        problems.extend(call_problems(&self.calls, self.percent));
        if self.delay.0.is_zero() || self.delay > MAX_DELAY {
            problems.push(
                Problem::new("$.delay", format!("a call cannot wait for {}", self.delay))
                    .hint(range_hint(self.delay, MAX_DELAY)),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let delay = CallAlteration::Delay(self.delay);
        alter_calls(
            &self.process,
            self.calls.as_slice(),
            delay,
            self.percent,
            context,
        )
    }
}
