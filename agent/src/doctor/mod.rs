//! What this host supports, and what is missing: tried where that harms nobody, else read from the system.

mod alterations;
mod network;

use crate::capabilities::{
    CAP_KILL, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_RESOURCE, has_capability,
};
use crate::helpers::yama_scope;
use crate::memory_limits::MemoryLimits;
use crate::processes::ProcessTable;
use backburn_experiments::terminal_text::escape;
use nix::sys::ptrace;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::Timer;
use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Whether a host supports something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// The host supports it.
    Yes,
    /// The host does not support it.
    No,
    /// The host supports it with a limit, which the finding names.
    Partly,
}

/// What was found about one facility of the host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostFinding {
    /// The facility's name, in a word or two.
    pub name: &'static str,
    /// Whether the host supports it.
    pub ok: Availability,
    /// What was found, for people to read.
    pub seen: String,
    /// What a missing facility means for faults, and what to do about it; none if nothing is missing.
    pub hint: Option<String>,
}

impl fmt::Display for HostFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ok = match self.ok {
            Availability::Yes => "yes",
            Availability::No => "no",
            Availability::Partly => "partly",
        };
        write!(f, "{:<22} {ok:<7} {}", self.name, escape(&self.seen))?;
        match &self.hint {
            Some(hint) => write!(f, "\n{:30} hint: {}", "", escape(hint)),
            None => Ok(()),
        }
    }
}

fn finding(
    name: &'static str,
    ok: Availability,
    seen: impl Into<String>,
    hint: &str,
) -> HostFinding {
    let hint = (ok != Availability::Yes).then(|| hint.to_owned());
    HostFinding {
        name,
        ok,
        seen: seen.into(),
        hint,
    }
}

/// Examines this host. `state_dir` is the agent's state folder.
pub fn examine(state_dir: &Path) -> Vec<HostFinding> {
    let mut findings = vec![
        kernel(),
        rights(),
        processes(),
        pidfds(),
        tracing(),
        timers(),
        control_groups(),
        pressure(),
        memory(),
        swap(),
        nameless_files(),
        state_folder(state_dir),
    ];
    findings.extend(alterations::examine());
    findings.extend(network::examine());
    findings
}

fn kernel() -> HostFinding {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let ok = if version >= (5, 4) {
        Availability::Yes
    } else {
        Availability::No
    };
    let seen = format!("Linux {release} {}", system.machine().to_string_lossy());
    finding("kernel", ok, seen, "Linux 5.4 or later is required")
}

fn rights() -> HostFinding {
    // include/uapi/linux/capability.h
    const WANTED: [(u32, &str, &str); 5] = [
        (CAP_KILL, "CAP_KILL", "signals to other users' processes"),
        (
            CAP_SYS_PTRACE,
            "CAP_SYS_PTRACE",
            "tracing and inspecting other users' processes",
        ),
        (
            CAP_SYS_ADMIN,
            "CAP_SYS_ADMIN",
            "namespaces, mounts and control groups",
        ),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN", "network faults"),
        (
            CAP_SYS_RESOURCE,
            "CAP_SYS_RESOURCE",
            "raising limits, and an `oom_score_adj` below the one inherited",
        ),
    ];
    let user = rustix::process::geteuid();
    let seen = if user.is_root() {
        "root".to_owned()
    } else {
        format!("user {}", user.as_raw())
    };
    let missing: Vec<_> = WANTED
        .iter()
        .filter(|(number, _, _)| !has_capability(*number))
        .collect();
    if missing.is_empty() {
        return finding(
            "rights",
            Availability::Yes,
            format!("{seen}, with every capability that faults use"),
            "",
        );
    }
    let ok = if missing.len() == WANTED.len() && !user.is_root() {
        Availability::No
    } else {
        Availability::Partly
    };
    let names: Vec<&str> = missing.iter().map(|(_, name, _)| *name).collect();
    let lost: Vec<String> = missing
        .iter()
        .map(|(_, name, what)| format!("{what} ({name})"))
        .collect();
    let hint = format!(
        "missing for {}; run as root for them. Faults on this user's own processes work in any case",
        lost.join(", ")
    );
    finding(
        "rights",
        ok,
        format!("{seen}, without {}", names.join(", ")),
        &hint,
    )
}

fn processes() -> HostFinding {
    let table = ProcessTable::default();
    let hint =
        "other users' processes cannot be found; run as root, or mount `/proc` without `hidepid`";
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let options = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next()? == "/proc").then_some(fields.nth(1)?)
    });
    let hidden = options
        .flat_map(|options| options.split(','))
        .find(|option| option.starts_with("hidepid="));
    match (table.pids(), hidden) {
        (Err(error), _) => finding(
            "process table",
            Availability::No,
            format!("/proc: {error}"),
            "mount `/proc`",
        ),
        (Ok(pids), Some(option))
            if !matches!(option, "hidepid=0" | "hidepid=off")
                && !has_capability(CAP_SYS_PTRACE) =>
        {
            finding(
                "process table",
                Availability::Partly,
                format!("{} processes, the rest hidden by {option}", pids.len()),
                hint,
            )
        }
        (Ok(pids), _) => finding(
            "process table",
            Availability::Yes,
            format!("{} processes", pids.len()),
            "",
        ),
    }
}

fn pidfds() -> HostFinding {
    let hint = "a process could be mistaken for a later one with the same id, so faults on processes are refused; requires Linux 5.3, and a seccomp profile may block it";
    let table = ProcessTable::default();
    let own = table.identify(std::process::id() as i32);
    match own.map(|own| table.open_pidfd_checked(own)) {
        Some(Ok(Some(_))) => finding(
            "pidfd",
            Availability::Yes,
            "a process can be referred to unambiguously",
            "",
        ),
        Some(Err(error)) => finding(
            "pidfd",
            Availability::No,
            format!("pidfd_open: {error}"),
            hint,
        ),
        _ => finding(
            "pidfd",
            Availability::No,
            "the agent's own process could not be found",
            hint,
        ),
    }
}

/// Traces a child process for a moment.
fn tracing() -> HostFinding {
    let scope = yama_scope();
    let hint = "`process-pause` uses SIGSTOP and SIGCONT instead, which only the guardian reverts, not the kernel";
    let mut child = match idle_child() {
        Ok(child) => child,
        Err(error) => {
            return finding(
                "tracing",
                Availability::Partly,
                format!("not tried: `cat`: {error}"),
                hint,
            );
        }
    };
    let seized = ptrace::seize(
        Pid::from_raw(child.id() as i32),
        ptrace::Options::PTRACE_O_EXITKILL,
    );
    let outcome = seized
        .map_err(std::io::Error::from)
        .and(child.kill())
        .and_then(|()| child.wait());
    match outcome {
        Err(error) => finding(
            "tracing",
            Availability::No,
            format!("a child process cannot be traced: {error}"),
            hint,
        ),
        Ok(_) if has_capability(CAP_SYS_PTRACE) && scope < 3 => finding(
            "tracing",
            Availability::Yes,
            format!("tried, with CAP_SYS_PTRACE, Yama's scope {scope}"),
            "",
        ),
        Ok(_) if scope == 0 => {
            let seen = "tried, without CAP_SYS_PTRACE: processes of this user only";
            finding(
                "tracing",
                Availability::Partly,
                seen,
                "run as root to pause other users' processes by tracing",
            )
        }
        Ok(_) => {
            let seen = format!("children only: `kernel.yama.ptrace_scope` is {scope}");
            finding("tracing", Availability::Partly, seen, hint)
        }
    }
}

/// A child that waits for input, which never comes.
#[allow(
    clippy::disallowed_methods,
    reason = "a child of this process, which is dead again before the answer"
)]
fn idle_child() -> std::io::Result<Child> {
    Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn timers() -> HostFinding {
    let kill = SigEvent::new(SigevNotify::SigevSignal {
        signal: Signal::SIGKILL,
        si_value: 0,
    });
    match Timer::new(ClockId::CLOCK_MONOTONIC, kill) {
        Ok(_) => finding(
            "deadline",
            Availability::Yes,
            "timers can kill a process, so the kernel ends helpers in time",
            "",
        ),
        Err(error) => finding(
            "deadline",
            Availability::No,
            format!("timer_create: {error}"),
            "helpers cannot be given a deadline, so none is started; a seccomp profile or the limit of pending signals (`ulimit -i`) may be the cause",
        ),
    }
}

fn control_groups() -> HostFinding {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let kinds = |wanted: &str| -> Vec<String> {
        let fields = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        fields
            .filter(|fields| fields.get(2) == Some(&wanted))
            .map(|fields| fields[1].to_owned())
            .collect()
    };
    let (one, two) = (kinds("cgroup"), kinds("cgroup2"));
    let controllers: Vec<String> = two
        .iter()
        .filter_map(|folder| {
            std::fs::read_to_string(Path::new(folder).join("cgroup.controllers")).ok()
        })
        .map(|controllers| controllers.trim().to_owned())
        .filter(|controllers| !controllers.is_empty())
        .collect();
    let freezer_v1 = one.iter().any(|folder| folder.ends_with("/freezer"));
    let seen = match (one.is_empty(), two.is_empty()) {
        (true, true) => {
            return finding(
                "control groups",
                Availability::No,
                "none mounted",
                "mount them at `/sys/fs/cgroup`; only selectors by `unit`, `cgroup` and `container` require them",
            );
        }
        (true, false) => "version 2",
        (false, true) => "version 1",
        (false, false) => "hybrid: version 1, and version 2 beside it",
    };
    let controllers = if controllers.is_empty() {
        "none".into()
    } else {
        controllers.join(" ")
    };
    let freezer = match (freezer_v1, two.is_empty()) {
        (true, false) => "versions 1 and 2",
        (true, true) => "version 1, in which a killed process exits only when it is thawed",
        (false, false) => "version 2",
        (false, true) => "none",
    };
    let seen = format!("{seen}; controllers of version 2: {controllers}; freezer: {freezer}");
    finding("control groups", Availability::Yes, seen, "")
}

fn pressure() -> HostFinding {
    match std::fs::read_to_string("/proc/pressure/cpu") {
        Ok(_) => finding(
            "pressure",
            Availability::Yes,
            "pressure stall information is available",
            "",
        ),
        Err(error) => finding(
            "pressure",
            Availability::No,
            format!("/proc/pressure/cpu: {error}"),
            "the `*-pressure-percent` metrics are not available; start the kernel with `psi=1`",
        ),
    }
}

fn memory() -> HostFinding {
    let mib = |bytes: u64| bytes >> 20;
    match MemoryLimits::of_this_process().usable() {
        Ok(memory) => finding(
            "memory",
            Availability::Yes,
            format!(
                "{} MiB available of {} MiB{}",
                mib(memory.available),
                mib(memory.total),
                match memory.is_limited {
                    true => ", the limit of this agent's control group",
                    false => "",
                }
            ),
            "",
        ),
        Err(error) => finding(
            "memory",
            Availability::No,
            format!("{}: {}", error.at, error.what),
            &error.hint,
        ),
    }
}

fn swap() -> HostFinding {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    match swaps.lines().count().saturating_sub(1) {
        0 => finding(
            "swap",
            Availability::Yes,
            "none: memory that `memory-fill` takes stays in memory",
            "",
        ),
        areas => finding(
            "swap",
            Availability::Partly,
            format!("{areas} in use"),
            "memory that `memory-fill` takes may be swapped out, which slows the storage instead of filling memory",
        ),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a nameless file that is closed at once: the only way to find out whether the file system supports them"
)]
fn nameless_files() -> HostFinding {
    let folder = std::env::temp_dir();
    let mode = Mode::RUSR | Mode::WUSR;
    let hint = "`disk-fill` creates a file with a name instead, and removes the name at once";
    match rustix::fs::open(
        &folder,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC,
        mode,
    ) {
        Ok(_) => finding(
            "nameless files",
            Availability::Yes,
            format!("in {}", folder.display()),
            "",
        ),
        Err(error) => finding(
            "nameless files",
            Availability::No,
            format!("{}: {error}", folder.display()),
            hint,
        ),
    }
}

fn state_folder(folder: &Path) -> HostFinding {
    let name = "state folder";
    let shown = folder.display();
    let hint =
        "nothing is injected without a ledger; name another folder with `--state`, or run as root";
    // The first injection creates the folder, so until then its nearest ancestor counts.
    let Some(there) = folder.ancestors().find(|folder| folder.is_dir()) else {
        return finding(
            name,
            Availability::No,
            format!("{shown}: no such folder"),
            hint,
        );
    };
    if let Err(error) = rustix::fs::access(
        there,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    ) {
        return finding(
            name,
            Availability::No,
            format!("{}: not writable: {error}", there.display()),
            hint,
        );
    }
    let kind = file_system(there);
    let made = if there == folder {
        ""
    } else {
        ", not created yet"
    };
    match kind.as_str() {
        "tmpfs" | "ramfs" => finding(
            name,
            Availability::Partly,
            format!("{shown} on {kind}{made}"),
            "a reboot clears the ledger, together with everything that faults did to processes, memory and nameless files",
        ),
        kind => finding(
            name,
            Availability::Yes,
            format!("{shown} on {kind}{made}"),
            "",
        ),
    }
}

/// The kind of file system that a folder is on: that of the mount with the longest path above it.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let at = fields.next()?;
        folder.starts_with(at).then_some((at.len(), fields.next()?))
    });
    // Of two mounts at one place, the later one is on top.
    mounted
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "an unknown file system".into(), |(_, kind)| kind.into())
}
