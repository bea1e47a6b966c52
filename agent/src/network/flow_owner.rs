//! Whose flows a network fault is about, where a process is named: those of its network namespace
//! where it has one of its own, else those of its control group's sockets. It is exact to the processes that are
//! chosen, or refused.

use crate::plan::{Namespace, PlanContext};
use crate::processes::{Cgroup, Process, ProcessId, ProcessSelector};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{Problem, document::Select};
use std::collections::BTreeSet;
use std::path::PathBuf;

const BY_PORTS: &str = "name its ports or addresses instead";

/// How processes' packets are told from others'.
#[derive(Debug)]
pub(crate) enum FlowOwner {
    /// All packets of this namespace.
    Namespace(Namespace),
    /// In ours, those of the sockets of these; and one of the processes.
    Cgroups(Vec<Cgroup>, ProcessId),
}

/// How the packets of those that a selector means are told from others'.
///
/// # Errors
/// Nobody is meant, or they can't be told from others.
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
                "looking at another user's wants root",
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
            format!("the processes are in {many} different networks"),
            "select those of one",
        )),
    }
}

/// The control groups of these processes, where nobody else is in them.
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
                None => "one that is out of sight here".into(),
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
            "the processes' packets can't be told from others'",
        )
    }
}
