//! `io-stress`: keeps a disk busy, as a backup, a compaction or a noisy neighbour does.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{DiskLoad, HelperSpec};
use crate::units::{Rate, Size};
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Reads and writes a file that has no name.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IoStress {
    /// Folder on the file system whose disk is kept busy; an absolute path.
    path: PathBuf,
    /// How many reads and writes are under way at any time. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    workers: Option<u32>,
    /// How much is read or written at once, a multiple of 4 KiB. Default: 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block_size: Option<Size>,
    /// Share of reads, in percent; the rest are writes. Default: 50.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    read_percent: Option<f64>,
    /// The most that is read and written in a second: `"20MB/s"`. Default: as much as the disk does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    /// The size of the file that is read and written. It takes so much space while the fault lasts. Default: 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Size>,
}

const BLOCK_STEP_BYTES: u64 = 4096;
const MAX_BLOCK_BYTES: u64 = 16 << 20;
const DEFAULT_FILE_BYTES: u64 = 64 << 20;
/// The least file: what the helper writes at once.
const MIN_FILE_BYTES: u64 = 1 << 20;

impl IoStress {
    fn block_bytes(&self) -> u64 {
        self.block_size
            .map_or(BLOCK_STEP_BYTES, |Size(bytes)| bytes)
    }

    fn file_bytes(&self) -> u64 {
        self.size.map_or(DEFAULT_FILE_BYTES, |Size(bytes)| bytes)
    }
}

impl FaultKind for IoStress {
    const NAME: &'static str = "io-stress";
    const SUMMARY: &'static str = "Keep a disk busy with reads and writes";

    fn example() -> Value {
        json!({"path": "/var/lib/postgresql", "workers": 8, "read-percent": 30, "rate": "20MB/s"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let block = self.block_bytes();
        if block == 0 || !block.is_multiple_of(BLOCK_STEP_BYTES) || block > MAX_BLOCK_BYTES {
            problems.push(
                Problem::new("$.block-size", format!("a block cannot be {}", Size(block)))
                    .hint("give a multiple of 4KiB, at most 16MiB"),
            );
        }
        if self.rate == Some(Rate(0)) {
            problems.push(
                Problem::new("$.rate", "nothing would be read or written")
                    .hint("give more than 0, or leave it out"),
            );
        }
        if self.file_bytes() < MIN_FILE_BYTES.max(block) {
            problems.push(
                Problem::new("$.size", "the file is too small")
                    .hint("give at least 1MiB, and at least one block"),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let path = self.path.display();
        let refuse = |what: String| {
            Refusal::new("no-match", what)
                .hint("`path` must be a folder on the file system whose disk is to be busy")
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
        let (file_bytes, reserve) = (self.file_bytes(), system.size / 100);
        if system.available < file_bytes.saturating_add(reserve) {
            return Err(Refusal::new(
                "reserve",
                format!(
                    "the file takes {}, and {} is free on {path}, of which {} are kept",
                    Size(file_bytes),
                    Size(system.available),
                    Size(reserve)
                ),
            )
            .hint("lower `size`, or free some space"));
        }
        let workers = self.workers.unwrap_or(4);
        let rate = self.rate.map_or_else(
            || "as fast as the disk is".to_owned(),
            |Rate(rate)| format!("at most {} a second", Size(rate)),
        );
        Ok(Plan {
            victims: vec![Victim {
                kind: "file-system".into(),
                id: format!("device:{}", system.device),
                name: format!("{path}: {workers} reads and writes at a time, {rate}"),
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(DiskLoad {
                    directory: self.path.clone(),
                    name: format!(".backburn-{}", context.mark(0)),
                    file_bytes,
                    workers: workers as usize,
                    block_bytes: self.block_bytes() as usize,
                    read_percent: self.read_percent.unwrap_or(50.0),
                    rate: self.rate.map(|Rate(rate)| rate),
                    seed: context.seed,
                }),
            })],
            notes: vec![
                format!("{} are taken on {path} while it lasts", Size(file_bytes)),
                "writes wear flash storage".into(),
            ],
            ..Plan::default()
        })
    }
}
