//! `mount-read-only`: a mount becomes read-only, as when the kernel protects a file system after an error of its disk.

use super::mount_point::{find_mount, path_problems, some};
use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ReadOnlyMount};
use backburn_experiments::Problem;
use backburn_experiments::wire::{Refusal, Victim};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Makes a mount read-only, and writable again. What programs try to write there fails with `EROFS`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MountReadOnly {
    /// Where the file system is mounted; an absolute path.
    path: PathBuf,
}

impl FaultKind for MountReadOnly {
    const NAME: &'static str = "mount-read-only";
    const SUMMARY: &'static str = "Make a mount read-only, then writable again";

    fn example() -> Value {
        json!({"path": "/var/lib/postgresql"})
    }

    fn problems(&self) -> Vec<Problem> {
        path_problems(&self.path)
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let found = find_mount(&self.path, context)?;
        let path = found.path.display();
        if found.mount.is_read_only() || found.mount.is_file_system_read_only {
            return Err(Refusal::new(
                "no-match",
                format!("{path} is read-only already, so nothing would change"),
            )
            .hint("choose a mount that is writable"));
        }
        let users = context.host.mount_users(&[&found.mount]);
        let writers: Vec<_> = users.iter().filter(|user| user.writes).collect();
        if !writers.is_empty() {
            return Err(Refusal::new(
                "busy",
                format!(
                    "the kernel makes no mount read-only while files of it are open for writing, and these have some on {path}: {}",
                    some(&writers)
                ),
            )
            .hint("stop or kill them first, e.g. by `process-kill` in an earlier step; `file-error` fails the writes of programs that keep files open"));
        }
        let paths = |paths: &[PathBuf]| {
            let paths: Vec<_> = paths.iter().map(|path| path.display()).collect();
            some(&paths)
        };
        let mut notes = vec![
            "what would alter files there fails with EROFS, also for root".to_owned(),
            format!(
                "this is about the mount in the agent's mount namespace {} alone; it is not passed on to others",
                found.namespace
            ),
        ];
        let mut warnings = Vec::new();
        match found.processes_elsewhere {
            0 => {}
            number => warnings.push(format!(
                "processes in other mount namespaces, as in containers and sandboxed services, have mounts of their own and go on writing: there are {number} on this host"
            )),
        }
        let others: Vec<PathBuf> = (found.same_file_system.iter())
            .filter(|other| {
                other.number != found.mount.number && !found.below.contains(&other.path)
            })
            .map(|other| other.path.clone())
            .collect();
        if !others.is_empty() {
            notes.push(format!(
                "the same file system stays writable where it is mounted elsewhere: {}",
                paths(&others)
            ));
        }
        if !found.below.is_empty() {
            notes.push(format!(
                "the mounts below stay writable: {}",
                paths(&found.below)
            ));
        }
        Ok(Plan {
            victims: vec![Victim {
                kind: "mount".into(),
                id: format!("mount:{}", found.mount.number),
                name: format!("{path} ({})", found.mount.kind),
            }],
            changes: vec![Change::ReadOnlyMount(ReadOnlyMount {
                mark: context.mark(0),
                mount: found.identity,
            })],
            notes,
            warnings,
            ..Plan::default()
        })
    }
}
