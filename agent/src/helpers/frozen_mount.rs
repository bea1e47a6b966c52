//! A file system that is frozen, so that whoever writes to it waits. The kernel keeps it frozen when this process dies, so everybody can
//! end it: this process when it is asked to, when the agent dies, and before its deadline; and the agent, its guardian or the next one,
//! when this process is gone or hangs. Thawing writes nothing.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::evidence::{effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::written::field;
use crate::mounts::{LOOK_NAME, MountIdentity, OpenFileSystem, WriteLook};
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::Effect;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};

/// How long before its deadline, at which the kernel kills it, it thaws by itself.
const SPARE: Duration = Duration::from_secs(1);
/// How long a write may take to be seen to wait.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// Freezes a file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FrozenMount {
    /// A mount of the file system, which took writes when this was planned.
    pub mount: MountIdentity,
    /// The kernel's number of its device, as `stat` tells it.
    pub device: u64,
}

impl FrozenMount {
    fn thaw(&self) -> io::Result<()> {
        match OpenFileSystem::of(&self.mount)? {
            Some(system) => Ok(system.thaw()?),
            None => Ok(()),
        }
    }
}

impl Helper for FrozenMount {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        let path = self.mount.path.display();
        let failed =
            |what: &str, error: io::Error| HelperError::new(format!("{path}: {what}: {error}"));
        let system = OpenFileSystem::of(&self.mount)
            .and_then(|system| system.ok_or_else(|| io::Error::other("it is gone")))
            .map_err(|error| failed("cannot be opened", error))?;
        // From here on it is asked to end, and not killed, when the agent dies.
        let mut asked = SigSet::empty();
        asked.add(Signal::SIGTERM);
        let signals = asked
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&asked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            })
            .map_err(|error| failed("no signal can be waited for", error.into()))?;
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .map_err(|error| failed("could not tie itself to the agent", error.into()))?;
        let is_free = system.takes_writes();
        if !is_free.map_err(|error| failed("cannot be seen", error))? {
            return Err(foreign(&self.mount));
        }
        match system.freeze() {
            Ok(()) => {}
            Err(Errno::BUSY) => return Err(foreign(&self.mount)),
            Err(error) => {
                return Err(failed("cannot be frozen", error.into()).hint(
                    "ext4, xfs and btrfs can be frozen, by root in the first user namespace",
                ));
            }
        }
        let acted = witness(&system).and_then(|_witness| {
            process.ready("writes wait").map_err(io::Error::other)?;
            wait_for(&signals, process.deadline.saturating_sub(SPARE))
        });
        // Whatever went wrong, this comes next.
        let thawed = system.thaw();
        acted.map_err(|error| failed("was frozen and is thawed", error))?;
        thawed.map_err(|error| failed("cannot be thawed", error.into()))
    }

    fn describe(&self) -> String {
        format!(
            "freeze the file system at {} (device {})",
            self.mount.path.display(),
            self.mount.device
        )
    }

    fn describe_end(&self) -> &'static str {
        "it thaws the file system, and whoever ends it does so if it has not; nothing is written for that"
    }

    fn describe_agent_death(&self) -> Option<String> {
        Some(format!(
            "the helper thaws the file system, and does so before its deadline in any case; if it is killed as well, the guardian does, or the next start or `revert --all`; by hand, `fsfreeze --unfreeze {}`; a reboot ends it",
            self.mount.path.display()
        ))
    }

    fn holds(&self) -> Vec<String> {
        // With all that would wait for the file system when it is to be reverted.
        vec![
            format!("file:{}", self.mount.path.display()),
            format!("disk:{}", self.device),
            format!("disk-load:{}", self.device),
        ]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Mounts
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        let path = self.mount.path.display();
        effect_of_living(helper, table, |id, table| {
            let waits = has_waiting_look(id, table);
            let seen = match waits {
                true => format!("a write to {path} waits"),
                false => format!("{path} takes writes: others have thawed it"),
            };
            let figures = [("frozen-file-systems", f64::from(u8::from(waits)))];
            Some(effect(waits, seen, &figures))
        })
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        let Some(system) = OpenFileSystem::of(&self.mount)? else {
            return Ok(None);
        };
        Ok(match system.takes_writes()? {
            true => None,
            false => Some(format!(
                "{} takes no writes: it is frozen, or its disk does not answer",
                self.mount.path.display()
            )),
        })
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        self.thaw()
    }

    type Substitute = FrozenMount;

    fn substitute(written: &Value) -> Option<FrozenMount> {
        Some(FrozenMount {
            mount: field(written, "mount")?,
            device: field(written, "device").unwrap_or_default(),
        })
    }

    fn ends_on_sigterm(&self) -> bool {
        true
    }
}

/// Waits for a signal, at the most this long.
fn wait_for(signals: &SignalFd, patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&timeout)) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Somebody else has frozen it, so it is not to be thawed.
fn foreign(mount: &MountIdentity) -> HelperError {
    HelperError {
        is_foreign: true,
        ..HelperError::new(format!(
            "{}: somebody else has frozen it since this was planned",
            mount.path.display()
        ))
        .hint("try again when it takes writes")
    }
}

/// A process that waits as long as the file system is frozen: who looks at it from outside sees that.
fn witness(system: &OpenFileSystem) -> io::Result<WriteLook> {
    let look = WriteLook::start(system)?;
    let until = Instant::now() + WAIT_TIMEOUT;
    while !look.waits() {
        if look.has_ended()? || Instant::now() >= until {
            return Err(io::Error::other("it takes writes all the same"));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(look)
}

/// Whether a process that the helper has started to look at its file system waits for it.
fn has_waiting_look(helper: ProcessId, table: &ProcessTable) -> bool {
    let path = table
        .root()
        .join(format!("{0}/task/{0}/children", helper.pid));
    // Not every kernel lists children (CONFIG_PROC_CHILDREN).
    let children: Vec<i32> = match std::fs::read_to_string(path) {
        Ok(list) => list
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect(),
        Err(_) => table.pids().unwrap_or_default(),
    };
    children.into_iter().any(|pid| {
        table.stat(pid).is_some_and(|stat| {
            stat.parent == helper.pid && stat.comm == LOOK_NAME && stat.state == 'D'
        })
    })
}
