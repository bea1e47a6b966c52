//! What the faults on operations on files share: their plan.

use super::{Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{FileOperation, FileTamper, FileVerdict, HelperSpec};
use crate::processes::OneOrMany;
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use std::io;
use std::path::PathBuf;

/// The most files and folders of one fault.
const MAX_PATHS: usize = 1000;

/// Which operations on which files are affected, as the arguments say.
pub(super) struct Operations<'a> {
    pub(super) path: &'a OneOrMany<PathBuf>,
    pub(super) on: Option<&'a OneOrMany<FileOperation>>,
    pub(super) percent: Option<f64>,
}

impl Operations<'_> {
    /// What is wrong with them beyond what their schema says.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let paths = self.path.as_slice();
        if paths.is_empty() || paths.len() > MAX_PATHS {
            problems.push(
                Problem::new("$.path", format!("{} paths are given", paths.len())).hint(format!(
                    "give 1 to {MAX_PATHS}; a folder stands for the files in it"
                )),
            );
        }
        for path in paths.iter().filter(|path| !path.is_absolute()) {
            problems.push(
                Problem::new(
                    "$.path",
                    format!("`{}` is not an absolute path", path.display()),
                )
                .hint("begin with `/`"),
            );
        }
        if self.on.is_some_and(|on| on.as_slice().is_empty()) {
            problems.push(
                Problem::new("$.on", "no operation is given").hint("leave it out for `open`"),
            );
        }
        if self.percent.is_some_and(|percent| percent <= 0.0) {
            problems.push(
                Problem::new("$.percent", "no operation would be affected")
                    .hint("give more than 0"),
            );
        }
        problems
    }

    /// Plans what becomes of them.
    pub(super) fn plan(
        &self,
        verdict: FileVerdict,
        context: &PlanContext<'_>,
    ) -> Result<Plan, Refusal> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in self.path.as_slice() {
            let real = context.host.real_path(path).map_err(|error| {
                Refusal::new("no-match", format!("{}: {error}", path.display()))
                    .hint("`path` must be a file, or a folder that stands for the files in it")
            })?;
            context.protected_paths.check(&real)?;
            if !paths.contains(&real) {
                paths.push(real);
            }
        }
        let mut on = self
            .on
            .map_or(vec![FileOperation::Open], |on| on.as_slice().to_vec());
        on.sort_unstable();
        on.dedup();
        let victims = paths.iter().map(|path| Victim {
            kind: "file".into(),
            id: path.display().to_string(),
            name: path.display().to_string(),
        });
        let victims = victims.collect();
        let tamper = FileTamper {
            paths,
            on,
            verdict,
            percent: self.percent.unwrap_or(100.0),
            seed: context.seed,
        };
        context.host.check_file_events(&tamper).map_err(refusal)?;
        let mut notes = vec![
            "a folder stands for the files directly in it, and not for those in folders below"
                .into(),
            "the agent itself is not affected".into(),
        ];
        if tamper.on != [FileOperation::Open] {
            notes.push("descriptors that were open before are not affected".into());
        }
        Ok(Plan {
            victims,
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(tamper),
            })],
            notes,
            ..Plan::default()
        })
    }
}

/// What the kernel said when it was asked for events of files.
fn refusal(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Refusal::new(
            "not-permitted",
            format!("events of files require CAP_SYS_ADMIN: {error}"),
        )
        .hint("run the agent as root"),
        _ => Refusal::new(
            "not-available",
            format!("the kernel gives no such events of these files: {error}"),
        )
        .hint("`\"on\": \"access\"` and errors other than EPERM require Linux 6.14, and `access` ext4, xfs or btrfs; `backburn-agent doctor` tells what this kernel has"),
    }
}
