//! `syscall-error`: chosen system calls of a process fail, as on a broken disk or an exhausted system.

use super::syscall_calls::{alter_calls, call_problems};
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::CallAlteration;
use crate::processes::{OneOrMany, ProcessSelector};
use crate::units::{ErrorName, SyscallName};
use backburn_experiments::Problem;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Makes system calls of processes fail. A call that fails is not done.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SyscallError {
    /// Which processes to hit: one of those that match, at random, unless `select` says otherwise.
    process: ProcessSelector,
    /// The system calls that fail: `openat`, or a list. `strace -c -p PID` shows which ones a process makes.
    calls: OneOrMany<SyscallName>,
    /// The error that they fail with, such as `ENOSPC`.
    error: ErrorName,
    /// Chance of each call to fail, in percent, drawn from the seed. Default: all calls.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

impl FaultKind for SyscallError {
    const NAME: &'static str = "syscall-error";
    const SUMMARY: &'static str = "Make chosen system calls of processes fail";

    fn example() -> Value {
        json!({"process": {"name": "postgres"}, "calls": ["pwrite64", "fallocate"], "error": "ENOSPC", "percent": 10})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.process.problems("$.process");
        problems.extend(call_problems(&self.calls, self.percent));
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let result = CallAlteration::Result(-self.error.number());
        alter_calls(
            &self.process,
            self.calls.as_slice(),
            result,
            self.percent,
            context,
        )
    }
}
