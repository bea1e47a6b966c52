//! `disk-fill`: a file system is filled, as by logs that nobody rotates. The file has no name,
//! so the kernel frees it with the process that holds it.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{HelperSpec, DiskBallast};
use crate::units::{Size, bytes_of, check_size_or_percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{Problem, HumanDuration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Fills a file system. At most one of `size` and `percent`; neither: all but the reserve.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskFill {
    /// A folder on the file system.
    path: PathBuf,
    /// How much is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Size>,
    /// How much of the file system is taken, in percent of its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    percent: Option<f64>,
    /// What is left to others in any case. A hundredth of the file system where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserve: Option<Size>,
}

impl FaultKind for DiskFill {
    const NAME: &'static str = "disk-fill";
    const SUMMARY: &'static str = "A file system is filled, down to a reserve";

    fn example() -> Value {
        json!({"path": "/var/lib/postgresql", "reserve": "64MiB"})
    }

    fn problems(&self) -> Vec<Problem> {
        check_size_or_percent(self.size, self.percent, true)
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let path = self.path.display();
        let refuse = |what: String| {
            Refusal::new("no-match", what)
                .hint("`path` is a folder on the file system that is filled")
        };
        if !self.path.is_absolute() {
            return Err(refuse(format!("`{path}` is not an absolute path")));
        }
        let system = context
            .host
            .file_system(&self.path)
            .map_err(|error| refuse(format!("{path}: {error}")))?;
        if !system.is_folder {
            return Err(refuse(format!("{path} is not a folder")));
        }
        let reserve = self.reserve.map_or(system.size / 100, |size| size.0);
        let possible = system.available.saturating_sub(reserve);
        if possible == 0 {
            return Err(Refusal::new(
                "reserve",
                format!(
                    "{} is free on {path}, and {} of it is the reserve",
                    Size(system.available),
                    Size(reserve)
                ),
            )
            .hint("lower `reserve`, or free some space"));
        }
        let wanted = bytes_of(self.size, self.percent, system.size, possible);
        let mut notes = Vec::new();
        if possible < wanted {
            notes.push(format!(
                "{} would go below the reserve: {} is taken",
                Size(wanted),
                Size(possible)
            ));
        }
        let bytes = wanted.min(possible);
        let largest = context.host.max_file_bytes();
        if let Some(largest) = largest.filter(|largest| *largest < bytes) {
            notes.push(format!(
                "a file of this agent's can't be larger than {} (`ulimit -f`), so {} can't be filled",
                Size(largest),
                Size(bytes)
            ));
        }
        let name = format!(
            "{path}: {} of {} free, {} kept back",
            Size(bytes),
            Size(system.available),
            Size(reserve)
        );
        Ok(Plan {
            victims: vec![Victim {
                kind: "file-system".into(),
                id: format!("device:{}", system.device),
                name,
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(DiskBallast {
                    directory: self.path.clone(),
                    bytes,
                    reserve_bytes: reserve,
                    name: format!(".backburn-{}", context.mark(0)),
                }),
            })],
            notes,
            ..Plan::default()
        })
    }
}
