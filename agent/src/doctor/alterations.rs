//! What faults on system calls, files and limits require.

use super::{Availability, HostFinding, finding};
use crate::boot::is_first_pid_namespace;
use crate::capabilities::{
    CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_RESOURCE, CAP_SYS_TIME, has_capability,
};
use crate::changes::SkewedProcess;
use crate::helpers::{FileOperation, FileTamper, FileVerdict};
use crate::processes::ProcessTable;
use crate::systemd::ServiceManager;
use crate::units::SYSCALLS;
use crate::vdso::MAX_MARK_BYTES;
use backburn_experiments::HumanDuration;

/// Examines what these faults require.
pub(super) fn examine() -> Vec<HostFinding> {
    vec![
        system_calls(),
        clocks(),
        file_events(),
        limits(),
        threads(),
        mounts(),
        service_manager(),
        whole_host(),
        host_clock(),
    ]
}

fn system_calls() -> HostFinding {
    let name = "system calls";
    match SYSCALLS.len() {
        0 => finding(
            name,
            Availability::No,
            "not known on this kind of machine",
            "`syscall-error`, `syscall-latency` and `fsync-loss` require 64-bit x86",
        ),
        known => finding(
            name,
            Availability::Yes,
            format!("{known} can be altered, where tracing is possible"),
            "",
        ),
    }
}

/// Looks at the agent's own vDSO, which is that of every 64-bit process.
fn clocks() -> HostFinding {
    let name = "clocks";
    let hint = "`clock-skew` requires 64-bit x86 and a kernel with a vDSO";
    let table = ProcessTable::default();
    let own = table.identify(std::process::id() as i32);
    let tried = match own.map(|own| (own, table.vdso(own))) {
        None => Err("/proc does not show the agent".to_owned()),
        Some((_, Err(error))) => Err(error.to_string()),
        Some((own, Ok(vdso))) => {
            SkewedProcess::of(own, vdso, &"m".repeat(MAX_MARK_BYTES)).map_err(|why| why.to_string())
        }
    };
    match tried {
        Ok(_) => finding(
            name,
            Availability::Yes,
            "those of 64-bit processes can be altered, where tracing is possible",
            "",
        ),
        Err(why) => finding(name, Availability::No, why, hint),
    }
}

/// Asks for events of the agent's own program, and takes that back at once.
fn file_events() -> HostFinding {
    let name = "file events";
    let tried = |operation| {
        FileTamper {
            paths: std::env::current_exe().into_iter().collect(),
            on: vec![operation],
            verdict: FileVerdict::Delay {
                delay: HumanDuration::default(),
                jitter: HumanDuration::default(),
            },
            percent: 100.0,
            seed: 0,
        }
        .check()
    };
    match (tried(FileOperation::Open), tried(FileOperation::Access)) {
        (Ok(()), Ok(())) => finding(
            name,
            Availability::Yes,
            "opens, reads and writes, with any of the errors of `file-error`",
            "",
        ),
        (Ok(()), Err(error)) => finding(
            name,
            Availability::Partly,
            format!("opens and reads; writes: {error}"),
            "`file-latency` and `file-error` with `\"on\": \"access\"` require Linux 6.14 and ext4, xfs or btrfs; before 6.14, `file-error` gives EPERM only",
        ),
        (Err(error), _) => finding(
            name,
            Availability::No,
            format!("fanotify: {error}"),
            "`file-latency` and `file-error` require root and a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS",
        ),
    }
}

fn mounts() -> HostFinding {
    let name = "mounts";
    match (crate::mounts::mounts(), has_capability(CAP_SYS_ADMIN)) {
        (Err(error), _) => finding(
            name,
            Availability::No,
            format!("not listed: {error}"),
            "`mount-read-only` and `filesystem-freeze` require /proc",
        ),
        (Ok(_), false) => finding(
            name,
            Availability::No,
            "they cannot be altered",
            "`mount-read-only` and `filesystem-freeze` require root or CAP_SYS_ADMIN",
        ),
        (Ok(mounts), true) => finding(
            name,
            Availability::Yes,
            format!(
                "{} in the agent's mount namespace; processes in others have mounts of their own",
                mounts.len()
            ),
            "",
        ),
    }
}

fn service_manager() -> HostFinding {
    let name = "service manager";
    let version = ServiceManager::connect().map(|mut manager| manager.version());
    match version {
        Ok(Ok(version)) => finding(
            name,
            Availability::Yes,
            format!("systemd {version}, which starts again what `service-stop` has stopped"),
            "",
        ),
        Ok(Err(error)) => finding(
            name,
            Availability::No,
            error.to_string(),
            "`service-stop` requires a systemd that answers",
        ),
        Err(none) => finding(
            name,
            Availability::No,
            none.to_string(),
            &format!(
                "`service-stop` requires systemd as process 1: {}",
                none.hint()
            ),
        ),
    }
}

fn limits() -> HostFinding {
    let name = "limits";
    match has_capability(CAP_SYS_RESOURCE) {
        true => finding(name, Availability::Yes, "those of any process", ""),
        false => finding(
            name,
            Availability::Partly,
            "those of processes of the agent's own user and group",
            "`fd-exhaust` on other processes requires CAP_SYS_RESOURCE",
        ),
    }
}

/// Whether the host could be restarted; the policy has to allow it besides.
fn whole_host() -> HostFinding {
    let name = "host";
    match (is_first_pid_namespace(), has_capability(CAP_SYS_BOOT)) {
        (true, true) => finding(
            name,
            Availability::Yes,
            "could be restarted and switched off",
            "`host-reboot` and `host-shutdown` also require that the policy names them in `allow-host-faults`",
        ),
        (false, _) => finding(
            name,
            Availability::No,
            "the agent is in a container (a pid namespace of its own)",
            "`host-reboot` and `host-shutdown` require an agent on the host itself",
        ),
        (true, false) => finding(
            name,
            Availability::No,
            "the agent lacks CAP_SYS_BOOT",
            "`host-reboot` and `host-shutdown` require it",
        ),
    }
}

/// Whether the clock of the host could be set; the policy has to allow it besides.
fn host_clock() -> HostFinding {
    let name = "host clock";
    let hint = "`clock-skew` with `host` requires an agent on the host itself with CAP_SYS_TIME";
    match (is_first_pid_namespace(), has_capability(CAP_SYS_TIME)) {
        (true, true) => finding(
            name,
            Availability::Yes,
            "could be set",
            "`clock-skew` with `host` also requires that the policy names it in `allow-host-faults`",
        ),
        (false, _) => finding(
            name,
            Availability::No,
            "the agent is in a container (a pid namespace of its own)",
            hint,
        ),
        (true, false) => finding(name, Availability::No, "the agent lacks CAP_SYS_TIME", hint),
    }
}

fn threads() -> HostFinding {
    let name = "threads";
    match ProcessTable::default().thread_room() {
        Ok(room) => finding(name, Availability::Yes, room.to_string(), ""),
        Err(error) => finding(
            name,
            Availability::No,
            error.to_string(),
            "`process-exhaust` does not know how much it may take",
        ),
    }
}
