//! Holding packets for a time. One thread, one queue, in order: each packet is held for the same
//! time, so that those whose time has come are always the first ones.

use super::Failed;
use crate::netlink::PacketQueue;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Holds what comes, until this process is killed.
pub(super) fn hold(queue: &PacketQueue, by: Duration) -> Failed {
    let failed = |error: std::io::Error| Failed::new(error.to_string());
    // The kernel wakes us as exactly as it can, not with others 50 µs later.
    if let Err(error) = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)) {
        return failed(error.into());
    }
    let mut held: VecDeque<(Instant, u32)> = VecDeque::new();
    loop {
        let left = held
            .front()
            .map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(queue, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return failed(error.into()),
        }
        let due = Instant::now() + by;
        if let Err(error) = queue.arrived(|packet| held.push_back((due, packet.number))) {
            return failed(error);
        }
        let now = Instant::now();
        let mut last = None;
        while let Some((_, packet)) = held.pop_front_if(|(due, _)| *due <= now) {
            last = Some(packet);
        }
        if let Some(last) = last
            && let Err(error) = queue.let_go(last)
        {
            return failed(error);
        }
    }
}
