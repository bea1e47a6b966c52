//! SIGUSR1 and SIGUSR2 mean nothing to an agent. Without this they would kill it, and whatever it holds would end early.

use nix::sys::signal::{SigSet, Signal};

/// Ignores both signals in this thread and in those that it starts. They are blocked and not set to be ignored, because
/// programs that are started for probes begin with an empty mask.
///
/// # Errors
/// The kernel's.
pub fn ignore() -> nix::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    mask.add(Signal::SIGUSR2);
    mask.thread_block()
}
