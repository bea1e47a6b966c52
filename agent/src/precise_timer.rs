//! Being there when something is due, as exactly as the kernel lets a process be.

use rustix::event::Timespec;
use rustix::thread::set_current_timer_slack;
use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Has this thread, and those that it starts, be woken as exactly as the kernel can, not together with others up to 50 µs later.
pub(crate) fn use_precise_timers() -> io::Result<()> {
    Ok(set_current_timer_slack(NonZeroU64::new(1))?)
}

/// How long to wait at once for what is due then, at the latest. The kernel's timers are the later the longer they run, so the last bit of
/// a long wait is one of its own.
pub(crate) fn poll_timeout(due: Option<Instant>, now: Instant) -> Option<Timespec> {
    const FINAL_WAIT: Duration = Duration::from_millis(1);
    let left = due?.saturating_duration_since(now);
    let wait = if left > 3 * FINAL_WAIT {
        left - FINAL_WAIT
    } else {
        left
    };
    Timespec::try_from(wait).ok()
}
