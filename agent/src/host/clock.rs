//! The door to the time of day of the host.

use super::{Host, HostError};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use std::io;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// How often both clocks are read, to find a pair between which the reader was not interrupted.
const READS: usize = 16;

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(NANOS_PER_SECOND)
        .saturating_add(time.tv_nsec)
}

/// What the time of day is ahead of the time since boot (CLOCK_BOOTTIME), in nanoseconds. Only what sets the clock changes that.
///
/// # Errors
/// The clocks make no sense.
pub fn time_of_day_ahead() -> io::Result<i64> {
    let pairs = (0..READS).map(|_| {
        let before = nanos(ClockId::Boottime);
        let day = nanos(ClockId::Realtime);
        let took = nanos(ClockId::Boottime).saturating_sub(before);
        (took, day.saturating_sub(before.saturating_add(took / 2)))
    });
    let best = pairs.min_by_key(|(took, _)| *took);
    best.map(|(_, ahead)| ahead)
        .ok_or_else(|| io::Error::other("the clocks were not read"))
}

impl Host {
    /// Sets the time of day to what is so many nanoseconds ahead of the time since boot, where it is `from` ahead of that, give or take
    /// the tolerance.
    ///
    /// # Errors
    /// The kernel refused, or something else has set the clock.
    pub fn set_time_of_day(
        &self,
        what: &str,
        from: i64,
        to: i64,
        tolerance: u64,
    ) -> Result<(), HostError> {
        self.effect(what, || {
            if time_of_day_ahead()?.abs_diff(from) >= tolerance {
                return Err(io::Error::other("something else has set it since"));
            }
            let day = nanos(ClockId::Boottime).saturating_add(to);
            clock_settime(
                ClockId::Realtime,
                Timespec {
                    tv_sec: day.div_euclid(NANOS_PER_SECOND),
                    tv_nsec: day.rem_euclid(NANOS_PER_SECOND),
                },
            )?;
            Ok(())
        })
    }
}
