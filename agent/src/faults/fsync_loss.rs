//! `fsync-loss`: a process is told that its data is on the disk, which nobody has asked the disk for, as with a controller that lies
//! about its cache.

use super::syscall_calls::alter_calls;
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::CallAlteration;
use crate::processes::ProcessSelector;
use crate::units::SyscallName;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Skips the system calls by which processes have data written to the disk, and reports success. The data stays in the page cache, so
/// nothing is lost unless the machine fails meanwhile.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FsyncLoss {
    /// Which processes to hit: one of those that match, at random, unless `select` says otherwise.
    process: ProcessSelector,
}

/// What asks for data to be written to the disk.
const CALLS: [&str; 6] = [
    "fdatasync",
    "fsync",
    "msync",
    "sync",
    "sync_file_range",
    "syncfs",
];

impl FaultKind for FsyncLoss {
    const NAME: &'static str = "fsync-loss";
    const SUMMARY: &'static str = "Skip syncs to the disk and report success";

    fn example() -> Value {
        json!({"process": {"name": "postgres", "select": "all"}})
    }

    fn problems(&self) -> Vec<Problem> {
        self.process.problems("$.process")
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let calls: Vec<SyscallName> = CALLS.into_iter().filter_map(SyscallName::of).collect();
        let mut plan = alter_calls(
            &self.process,
            &calls,
            CallAlteration::Result(0),
            None,
            context,
        )?;
        plan.notes.push(
            "files opened with O_SYNC or O_DSYNC, and writes through io_uring, are synced all the same".into(),
        );
        plan.warnings.push(
            "if the machine fails before the kernel has written the data by itself, data that the process believes to be safe is lost"
                .into(),
        );
        Ok(plan)
    }
}
