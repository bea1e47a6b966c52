//! `filesystem-freeze`: a file system takes no writes for a while, as during a snapshot or when its disk stalls.

use super::mount_point::{find_mount, path_problems, some};
use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{FrozenMount, HelperSpec};
use crate::plan::FoundMount;
use backburn_experiments::wire::{Refusal, Victim};
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Freezes a file system, and thaws it. Whoever writes there waits meanwhile, and cannot be killed; whoever reads goes on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilesystemFreeze {
    /// Where the file system is mounted; an absolute path.
    path: PathBuf,
}

/// The kinds of file systems that can be frozen and thawed again by everybody.
const KINDS: [&str; 10] = [
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "gfs2", "jfs", "nilfs2", "xfs",
];
/// What every host needs to go on, and where the agent's log may end up.
const HOST_PATHS: [&str; 6] = ["/", "/tmp", "/var/tmp", "/run", "/dev/shm", "/var/log"];

impl FaultKind for FilesystemFreeze {
    const NAME: &'static str = "filesystem-freeze";
    const SUMMARY: &'static str = "Have a file system take no writes, then thaw it";

    fn example() -> Value {
        json!({"path": "/var/lib/postgresql"})
    }

    fn problems(&self) -> Vec<Problem> {
        path_problems(&self.path)
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let found = find_mount(&self.path, context)?;
        let path = found.path.display();
        let kind = &found.mount.kind;
        if !KINDS.contains(&kind.as_str()) {
            return Err(Refusal::new(
                "no-freeze",
                format!("{path}: a file system of the kind `{kind}` cannot be frozen and thawed for sure"),
            )
            .hint(format!("it must be one of {}", KINDS.join(", "))));
        }
        if found.mount.is_read_only() || found.mount.is_file_system_read_only {
            return Err(Refusal::new(
                "no-match",
                format!("{path} is read-only, so nobody would wait"),
            )
            .hint("choose a file system that is written to"));
        }
        check_paths(&found, context)?;
        let users = context
            .host
            .mount_users(&found.same_file_system.iter().collect::<Vec<_>>());
        if let Some(own) = users.iter().find(|user| user.is_own) {
            return Err(protected(format!(
                "{path} is protected: {own} is a process of Backburn and uses the same file system"
            )));
        }
        let system = context.host.file_system(&found.path);
        let system = system.map_err(|error| {
            Refusal::new("no-match", format!("{path}: {error}")).hint("`findmnt` lists mounts")
        })?;
        if !system.is_folder {
            return Err(Refusal::new("no-match", format!("{path} is not a folder"))
                .hint("give another mount of the same file system"));
        }
        let takes_writes = context.host.takes_writes(&found.identity);
        let takes_writes = takes_writes.map_err(|error| {
            Refusal::new("failed", format!("{path}: {error}"))
                .hint("try again when its disk answers")
        })?;
        if !takes_writes {
            return Err(Refusal::new(
                "frozen",
                format!("{path} takes no writes already: somebody else has frozen it, or its disk does not answer"),
            )
            .hint("it is left as it is; once nobody needs it frozen, `fsfreeze --unfreeze` thaws it"));
        }
        let writers: Vec<_> = users.iter().filter(|user| user.writes).collect();
        let mut warnings = vec![
            "whoever writes there waits until the end and cannot be killed, and so does whoever waits for that process".to_owned(),
        ];
        if !writers.is_empty() {
            warnings.push(format!(
                "these have files open for writing there: {}",
                some(&writers)
            ));
        }
        let others: Vec<_> = found
            .same_file_system
            .iter()
            .map(|mount| mount.path.display())
            .collect();
        let mut notes = vec![
            "reads go on; what is written into memory first is written when it thaws".to_owned(),
            "disks of virtual machines and loop devices that are files there stand still as well"
                .to_owned(),
        ];
        if others.len() > 1 {
            notes.push(format!(
                "it is frozen wherever it is mounted: {}",
                some(&others)
            ));
        }
        Ok(Plan {
            victims: vec![Victim {
                kind: "file-system".into(),
                id: format!("device:{}", system.device),
                name: format!("{path} ({kind})"),
            }],
            changes: vec![Change::Helper(ProcessHelper {
                mark: context.mark(0),
                deadline: context.deadline(HumanDuration::default()),
                spec: HelperSpec::from(FrozenMount {
                    mount: found.identity,
                    device: system.device,
                }),
            })],
            notes,
            warnings,
            ..Plan::default()
        })
    }
}

/// Checks that no path lies on the file system, wherever it is mounted, that the host or Backburn needs to go on.
fn check_paths(found: &FoundMount, context: &PlanContext<'_>) -> Result<(), Refusal> {
    let at = found.path.display();
    let own = context.protected_paths.paths();
    for path in HOST_PATHS.map(Path::new).into_iter().chain(own) {
        // What is not there yet would be made in the nearest folder that is.
        let mut there = path
            .ancestors()
            .filter_map(|path| context.host.mount(path).ok());
        if there
            .next()
            .is_some_and(|there| there.mount.device == found.mount.device)
        {
            let path = path.display();
            return Err(protected(format!(
                "{at} is protected: {path} lies on the same file system"
            )));
        }
    }
    Ok(())
}

fn protected(what: String) -> Refusal {
    Refusal::new("protected", what)
        .hint("choose a file system that holds nothing but the data of a service")
}
