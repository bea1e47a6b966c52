//! `disk-fill`: fills a file system, as logs that nobody rotates would. The file has no name,
//! so the kernel frees it with the process that holds it.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{DiskBallast, HelperSpec};
use crate::units::{Amount, Fill, Size};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Fills a file system. Give at most one of `size`, `percent` and `until`; with none of them, everything but the reserve is taken.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskFill {
    /// Folder on the file system to fill; an absolute path.
    path: PathBuf,
    /// How much to take: a size, or a percentage of the file system's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Amount>,
    /// How much to take, in percent of the file system's size.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
    /// Level to fill to: as much is taken as is missing until so much of the file system is in use, as `df` shows it: `"80%"`, or a
    /// size. A level that is reached already is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Amount>,
    /// Free space that is always left to others: a size, or a percentage of the file system's size. Default: 1 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserve: Option<Amount>,
}

impl FaultKind for DiskFill {
    const NAME: &'static str = "disk-fill";
    const SUMMARY: &'static str = "Fill a file system, down to a reserve";

    fn example() -> Value {
        json!({"path": "/var/lib/postgresql", "reserve": "64MiB"})
    }

    fn problems(&self) -> Vec<Problem> {
        self.fill().problems(true)
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
        let reserve = self
            .reserve
            .map_or(system.size / 100, |reserve| reserve.of(system.size));
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
        // What `df` calls 100 %: root's own share of the blocks counts as neither used nor available there.
        let whole = match self.until {
            Some(_) => system.used.saturating_add(system.available),
            None => system.size,
        };
        let wanted = self
            .fill()
            .bytes(system.used, whole, possible)
            .map_err(|reached| {
                Refusal::new("no-match", format!("{path}: {reached}"))
                    .hint("raise `until`, or give a `size`")
            })?;
        let mut notes = Vec::new();
        if let Some(until) = self.until {
            notes.push(format!(
                "{} are in use: {} are missing until {until}",
                Size(system.used),
                Size(wanted)
            ));
        }
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

impl DiskFill {
    fn fill(&self) -> Fill {
        Fill {
            size: self.size,
            percent: self.percent,
            until: self.until,
        }
    }
}
