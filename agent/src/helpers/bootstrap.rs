//! The beginning of every helper: first everything that ends it, then what it is for.

use super::HelperError;
use crate::processes::HELPER_NAME;
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use rustix::process::{getppid, set_parent_process_death_signal, setpgid};
use serde::de::DeserializeOwned;
use std::ffi::{CString, OsString};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// A helper that will end.
pub struct HelperProcess {
    /// When it ends by itself, from its start.
    pub(super) deadline: Duration,
    /// Kills it when it runs out; dropping it would disarm it.
    _deadline: Timer,
}

/// Why a helper does nothing.
pub(super) enum StartError {
    /// Its parent died before it could be tied to it.
    Orphan,
    /// The helper could not begin for another reason.
    Wrong(HelperError),
}

impl From<HelperError> for StartError {
    fn from(failed: HelperError) -> Self {
        StartError::Wrong(failed)
    }
}

/// Ties this process to its parent and to its deadline, then reads what it is for.
pub(super) fn begin<Spec: DeserializeOwned>(
    args: &[OsString],
) -> Result<(HelperProcess, Spec), StartError> {
    let usage = || {
        HelperError::new(
            "`helper MARK PARENT-PID DEADLINE-MS ROLE-JSON` is how the agent starts this",
        )
    };
    let [_mark, parent, deadline, spec] = args else {
        return Err(usage().into());
    };
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    let (Some(parent), Some(deadline)) = (number(parent), number(deadline)) else {
        return Err(usage().into());
    };
    let no = |what: &str, error: io::Error| HelperError::new(format!("{what}: {error}"));
    // In this order: a parent that dies after the first line kills this process, one that died before it is
    // found out by the second.
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| no("could not tie itself to the agent", error.into()))?;
    if getppid().map(|pid| pid.as_raw_nonzero().get() as u64) != Some(parent) {
        return Err(StartError::Orphan);
    }
    let deadline = Duration::from_millis(deadline.max(1));
    let timer = arm(deadline).map_err(|error| no("could not set its deadline", error.into()))?;
    // Ctrl-C at a terminal is for the agent, which reverts in order; a group of its own keeps it
    // from this process. Whatever the agent blocks is not to be blocked here.
    setpgid(None, None)
        .map_err(|error| no("could not leave the agent's process group", error.into()))?;
    SigSet::all()
        .thread_unblock()
        .map_err(|error| no("could not unblock signals", error.into()))?;
    let name =
        CString::new(HELPER_NAME).map_err(|error| no("could not name itself", error.into()))?;
    rustix::thread::set_name(&name).map_err(|error| no("could not name itself", error.into()))?;
    let spec = spec
        .to_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(usage)?;
    let process = HelperProcess {
        deadline,
        _deadline: timer,
    };
    Ok((process, spec))
}

/// Has the kernel kill this process after a time, even where it is stopped or stuck.
fn arm(after: Duration) -> nix::Result<Timer> {
    let kill = SigEvent::new(SigevNotify::SigevSignal {
        signal: Signal::SIGKILL,
        si_value: 0,
    });
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, kill)?;
    timer.set(
        Expiration::OneShot(TimeSpec::from_duration(after)),
        TimerSetTimeFlags::empty(),
    )?;
    Ok(timer)
}

impl HelperProcess {
    /// Says that the harm is done, and closes standard output.
    pub(super) fn ready(&self, seen: impl Into<String>) -> Result<(), HelperError> {
        say("ready", &seen.into())
            .map_err(|error| HelperError::new(format!("could not tell the agent: {error}")))
    }

    /// Offers this process to the kernel first when memory runs out.
    #[allow(
        clippy::disallowed_methods,
        reason = "about this process, and gone with it"
    )]
    pub(super) fn first_to_be_killed(&self) -> Result<(), HelperError> {
        std::fs::write("/proc/self/oom_score_adj", "1000").map_err(|error| {
            HelperError::new(format!(
                "/proc/self/oom_score_adj: could not be the first to be killed: {error}"
            ))
        })
    }

    /// Does nothing more, until it is killed.
    pub(super) fn wait_for_ever(&self) -> ! {
        loop {
            std::thread::park();
        }
    }
}

/// Says why nothing is done, and gives the exit code for it.
pub(super) fn fail(failed: &HelperError) -> ExitCode {
    let key = if failed.is_foreign {
        "foreign"
    } else {
        "failed"
    };
    if let Err(error) = say(key, &failed.to_string()) {
        // Nobody listens any more; the exit code still tells.
        tracing::debug!("the agent could not be told: {error}");
    }
    ExitCode::FAILURE
}

#[expect(
    clippy::disallowed_methods,
    reason = "`/dev/null` takes the place of the helper's own standard output"
)]
fn say(key: &str, value: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({ key: value }))?;
    out.flush()?;
    drop(out);
    let nothing = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}
