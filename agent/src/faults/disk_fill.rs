//! `disk-fill`: fills a file system, as logs that nobody rotates would. The file has no name,
//! so the kernel frees it with the process that holds it.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{DiskBallast, HelperSpec};
use crate::units::{Size, bytes_of, check_size_or_percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Fills a file system. Give at most one of `size` and `percent`; with neither, everything but the reserve is taken.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskFill {
    /// Folder on the file system to fill; an absolute path.
    path: PathBuf,
    /// How much to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Size>,
    /// How much to take, in percent of the file system's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    percent: Option<f64>,
    /// Free space that is always left to others. Default: 1 % of the file system's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserve: Option<Size>,
}

impl FaultKind for DiskFill {
    const NAME: &'static str = "disk-fill";
    const SUMMARY: &'static str = "Fill a file system, down to a reserve";

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
                .hint("`path` must be a folder on the file system to fill")
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
                    "{} is free on {path}, but the reserve is {}",
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
                "{} would go below the reserve: taking {} instead",
                Size(wanted),
                Size(possible)
            ));
        }
        let bytes = wanted.min(possible);
        let largest = context.host.max_file_bytes();
        if let Some(largest) = largest.filter(|largest| *largest < bytes) {
            notes.push(format!(
                "this agent may not write a file larger than {} (`ulimit -f`), so it cannot take {}",
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
