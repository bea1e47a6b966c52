//! `fd-exhaust`: processes cannot open more files or sockets, as after a leak of descriptors.

use super::{FaultKind, Plan, PlanContext, process_victim, select};
use crate::changes::{Change, FileLimit, LimitedProcess};
use crate::processes::ProcessSelector;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Takes away the file descriptors that processes have left. Give at most one of `leave` and `count`; with neither, none is left.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FdExhaust {
    /// Which processes to hit: one of those that match, at random, unless `select` says otherwise.
    process: ProcessSelector,
    /// How many descriptors each process may still open. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leave: Option<u32>,
    /// How many of its free descriptors each process loses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    count: Option<u32>,
}

impl FaultKind for FdExhaust {
    const NAME: &'static str = "fd-exhaust";
    const SUMMARY: &'static str = "Leave processes no file descriptors to open files and sockets";

    fn example() -> Value {
        json!({"process": {"name": "nginx"}, "leave": 5})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.process.problems("$.process");
        if self.leave.is_some() && self.count.is_some() {
            problems.push(
                Problem::new("$.count", "`leave` and `count` exclude each other")
                    .hint("`leave` is what remains, `count` what is taken away; give one of them"),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let (found, mut notes) = select(&self.process, context)?;
        let (mut victims, mut limited) = (Vec::new(), Vec::new());
        for process in &found {
            let descriptors = context.host.descriptors(process.id).map_err(|error| {
                Refusal::new(
                    "not-permitted",
                    format!("the limit of open files of {process} cannot be changed: {error}"),
                )
                .hint("run the agent as root with CAP_SYS_RESOURCE, or as the user of the process")
            })?;
            let Some(descriptors) = descriptors else {
                notes.push(format!("{process} has ended meanwhile"));
                continue;
            };
            let free = descriptors.free_below(descriptors.soft);
            let leave = match self.count {
                Some(count) => free.saturating_sub(count.into()),
                None => self.leave.unwrap_or_default().into(),
            };
            let Some(limit) = descriptors.limit_that_leaves(leave) else {
                notes.push(format!(
                    "{process} may open {free} more files and is left alone"
                ));
                continue;
            };
            notes.push(format!(
                "{process} has {} descriptors and may open {free} more; {leave} are left",
                descriptors.open.len()
            ));
            victims.push(process_victim(process));
            limited.push(LimitedProcess {
                process: process.id,
                before: descriptors.soft,
                limit,
                since: descriptors.read_at,
            });
        }
        if limited.is_empty() {
            return Err(Refusal::new(
                "no-match",
                format!("no process has more descriptors left: {}", notes.join("; ")),
            )
            .hint("lower `leave`, or select others"));
        }
        notes.push(
            "descriptors that a process closes can be opened again, so its count does not fall below what it has now"
                .into(),
        );
        notes.push("children that the processes start meanwhile inherit the lowered limit, and get the former one back with them unless they outlive their parents".into());
        Ok(Plan {
            victims,
            changes: vec![Change::FileLimit(FileLimit { victims: limited })],
            notes,
            ..Plan::default()
        })
    }
}
