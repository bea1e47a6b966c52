//! Whose flows a network fault affects, where a process is named: those of its network namespace
//! where it has one of its own, else those of its control group's sockets. The selection is exact to the processes,
//! or refused.

use crate::plan::{Namespace, PlanContext};
use crate::processes::{Cgroup, Process, ProcessId, ProcessSelector};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, document::Select};
use std::collections::BTreeSet;
use std::path::PathBuf;

const BY_PORTS: &str = "name its ports or addresses instead";

/// How the packets of processes are told from those of others.
#[derive(Debug)]
pub(crate) enum FlowOwner {
    /// All packets of this network namespace are theirs.
    Namespace(Namespace),
    /// In the agent's own namespace, packets of the sockets of these control groups are theirs; with one of the processes.
    Cgroups(Vec<Cgroup>, ProcessId),
}

/// How the packets of the processes that a selector finds are told from those of others.
///
/// # Errors
/// The selector finds no process, or their packets cannot be told from those of others.
pub(crate) fn flow_owner(
    of: &ProcessSelector,
    own: &Namespace,
    context: &PlanContext<'_>,
) -> Result<FlowOwner, Refusal> {
    let all = ProcessSelector {
        select: of.select.or(Some(Select::All)),
        ..of.clone()
    };
    let found = all.find(
        "$.of",
        context.host.processes(),
        context.protection,
        context.seed,
    )?;
    let mut namespaces = Vec::new();
    for process in &found.victims {
        let path = PathBuf::from(format!("/proc/{}/ns/net", process.id.pid));
        let namespace = context.host.namespace_at(&path).map_err(|error| {
            refuse(
                format!("{}: {error}", path.display()),
                "reading another user's namespace requires root",
            )
        })?;
        namespaces.push(namespace);
    }
    let different: BTreeSet<u64> = namespaces.iter().map(|namespace| namespace.inode).collect();
    match (different.len(), namespaces.into_iter().next()) {
        (1, Some(namespace)) if namespace.inode != own.inode => Ok(FlowOwner::Namespace(namespace)),
        (1, _) if let Some(first) = found.victims.first() => {
            let cgroups = cgroups(&found.victims, context)?;
            Ok(FlowOwner::Cgroups(cgroups, first.id))
        }
        (many, _) => Err(refuse(
            format!("the processes are in {many} different network namespaces"),
            "select processes of one of them",
        )),
    }
}

/// The control groups of these processes.
///
/// # Errors
/// A process has none, or others are in it too.
fn cgroups(processes: &[Process], context: &PlanContext<'_>) -> Result<Vec<Cgroup>, Refusal> {
    let mut cgroups: Vec<Cgroup> = Vec::new();
    for process in processes {
        let shares = format!("{process} shares the network of this host");
        let cgroup = context.host.cgroup(process.id.pid)
            .map_err(|error| refuse(format!("{shares}, and {error}"), BY_PORTS))?
            .ok_or_else(|| {
                refuse(
                    format!("{shares}, and is in no control group of its own"),
                    "start it in one, e.g. by `systemd-run --scope`, or name its ports or addresses",
                )
            })?;
        if cgroups.iter().any(|known| known.id == cgroup.id) {
            continue;
        }
        let members = context
            .host
            .cgroup_members(&cgroup)
            .map_err(|error| refuse(format!("{}: {error}", cgroup.folder.display()), BY_PORTS))?;
        let others: Vec<String> = members
            .into_iter()
            .filter(|pid| !processes.iter().any(|process| process.id.pid == *pid))
            .map(|pid| match context.host.processes().name(pid) {
                Some(name) => format!("{name} ({pid})"),
                None => "a process of another process namespace".into(),
            })
            .collect();
        if let Some(other) = others.first() {
            let more = match others.len() {
                1 => String::new(),
                many => format!(" and {} more", many - 1),
            };
            return Err(refuse(
                format!(
                    "{shares}, and its control group {} also holds {other}{more}",
                    cgroup.folder.display()
                ),
                "select all of them, e.g. by `cgroup`, or name ports or addresses",
            ));
        }
        cgroups.push(cgroup);
    }
    Ok(cgroups)
}

fn refuse(what: String, hint: &str) -> Refusal {
    Refusal {
        problems: vec![Problem::new("$.of", what).hint(hint)],
        ..Refusal::new(
            "no-match",
            "the packets of these processes cannot be told from those of others",
        )
    }
}
