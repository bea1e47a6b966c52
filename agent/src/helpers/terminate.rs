//! Asking processes to end, and killing those that have not done so in time. When this process
//! dies first, nobody is killed.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::display::listed;
use super::evidence::effect;
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Asks processes to end, and kills those that have not done so in time. If the helper dies first, nobody is killed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Terminate {
    /// The processes that are asked to end, and killed after the grace.
    pub victims: Vec<ProcessId>,
    /// The time between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
}

impl Helper for Terminate {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(&self.victims, self.grace_ms, process)
    }

    fn describe(&self) -> String {
        format!(
            "SIGTERM to {}, and SIGKILL to those left after {}",
            listed(&self.victims),
            HumanDuration::millis(self.grace_ms)
        )
    }

    fn describe_end(&self) -> &'static str {
        "those not dead yet are not killed"
    }

    fn holds(&self) -> Vec<String> {
        self.victims
            .iter()
            .map(|id| format!("process:{id}"))
            .collect()
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, _: i32, table: &ProcessTable) -> Effect {
        let victims = &self.victims;
        let gone = victims.iter().filter(|id| !table.alive(**id)).count();
        effect(
            gone > 0,
            format!("{gone} of {} processes gone", victims.len()),
            &[("gone-processes", gone as f64)],
        )
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = MemoryBallast;

    fn substitute(_: &Value) -> Option<MemoryBallast> {
        Some(MemoryBallast::NONE)
    }

    fn effect_outlasts_helper(&self) -> bool {
        true
    }
}

fn run(victims: &[ProcessId], grace_ms: u64, process: &HelperProcess) -> Result<(), HelperError> {
    let table = ProcessTable::default();
    let mut open = Vec::new();
    for victim in victims {
        match table.open_pidfd_checked(*victim) {
            Ok(Some(descriptor)) => open.push((*victim, descriptor)),
            Ok(None) => {}
            Err(error) => {
                return Err(HelperError::new(format!(
                    "process {victim}: can't be opened: {error}"
                )));
            }
        }
    }
    let there = open.len();
    for (victim, descriptor) in &open {
        signal(*victim, descriptor, Signal::TERM)?;
    }
    process.ready(format!(
        "SIGTERM sent to {there} of {} processes",
        victims.len()
    ))?;
    let until = Instant::now() + Duration::from_millis(grace_ms);
    wait_for_ends(&mut open, Some(until))?;
    for (victim, descriptor) in &open {
        signal(*victim, descriptor, Signal::KILL)?;
    }
    wait_for_ends(&mut open, None)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the helper's one deed; being killed before it cancels it"
)]
fn signal(victim: ProcessId, descriptor: &OwnedFd, signal: Signal) -> Result<(), HelperError> {
    match pidfd_send_signal(descriptor, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(HelperError::new(format!(
            "process {victim}: SIG{} can't be sent: {error}",
            if signal == Signal::TERM {
                "TERM"
            } else {
                "KILL"
            }
        ))
        .hint("processes of another user require root or CAP_KILL")),
    }
}

/// Waits until all have ended, or the time is over; those that have ended leave the list.
fn wait_for_ends(
    open: &mut Vec<(ProcessId, OwnedFd)>,
    until: Option<Instant>,
) -> Result<(), HelperError> {
    while !open.is_empty() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(());
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut descriptors: Vec<PollFd<'_>> = open
            .iter()
            .map(|(_, descriptor)| PollFd::new(descriptor, PollFlags::IN))
            .collect();
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                return Err(HelperError::new(format!(
                    "can't wait for processes to end: {error}"
                )));
            }
        }
        let mut ended: Vec<bool> = descriptors
            .iter()
            .map(|descriptor| !descriptor.revents().is_empty())
            .collect();
        open.retain(|_| !ended.remove(0));
    }
    Ok(())
}
