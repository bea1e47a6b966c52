//! The clock of a time namespace, taken off the start times of processes.

use std::sync::OnceLock;

/// By how much the clock of this process's time namespace is ahead of the machine's. `/proc/PID/stat` tells the start of every process
/// by the clock of whoever reads it, so that is taken off: then a start is the same from everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockShift {
    /// The shift in whole clock ticks.
    Ticks(i64),
    /// By a part of a tick, or by nobody knows how much: starts can't be compared with those read elsewhere.
    Unknown,
}

impl ClockShift {
    /// The shift of the time namespace that this process is in, which it can't leave.
    pub(crate) fn own() -> Self {
        static OWN: OnceLock<ClockShift> = OnceLock::new();
        *OWN.get_or_init(|| {
            let inode = |name: &str| {
                rustix::fs::stat(format!("/proc/self/ns/{name}"))
                    .ok()
                    .map(|file| file.st_ino)
            };
            let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
            let ticks = rustix::param::clock_ticks_per_second();
            Self::of(inode("time"), inode("time_for_children"), &offsets, ticks)
        })
    }

    /// `offsets` are those of the namespace that children are born in (time_namespaces(7)).
    fn of(own: Option<u64>, childrens: Option<u64>, offsets: &str, ticks_per_second: u64) -> Self {
        // Before Linux 5.6 there were no time namespaces. The first one has a fixed number (`PROC_TIME_INIT_INO`).
        const FIRST: u64 = 0xEFFF_FFFA;
        if own.is_none() || own == Some(FIRST) {
            return ClockShift::Ticks(0);
        }
        if own != childrens {
            return ClockShift::Unknown;
        }
        let line = offsets
            .lines()
            .find_map(|line| line.strip_prefix("boottime"));
        let figures: Option<Vec<i64>> = line.map(|line| {
            let figures = line.split_ascii_whitespace();
            figures.filter_map(|figure| figure.parse().ok()).collect()
        });
        let tick = 1_000_000_000 / ticks_per_second.max(1) as i64;
        match figures.as_deref() {
            Some([seconds, nanos]) if nanos % tick == 0 => {
                ClockShift::Ticks(seconds * ticks_per_second as i64 + nanos / tick)
            }
            _ => ClockShift::Unknown,
        }
    }

    /// A start that was read here, by the machine's own clock.
    pub(crate) fn take_off(self, start: u64) -> u64 {
        match self {
            ClockShift::Ticks(shift) => start.wrapping_sub(shift as u64),
            ClockShift::Unknown => start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_shift_of_each_time_namespace_is_known_or_said_to_be_unknown() {
        let offsets = "monotonic           7         0\nboottime       -86400  20000000\n";
        for (own, childrens, offsets, shift) in [
            (None, None, "", ClockShift::Ticks(0)),
            (Some(0xEFFF_FFFA), Some(5), offsets, ClockShift::Ticks(0)),
            (Some(5), Some(5), offsets, ClockShift::Ticks(-8_639_998)),
            (Some(5), Some(6), offsets, ClockShift::Unknown),
            (Some(5), Some(5), "boottime 1 5\n", ClockShift::Unknown),
            (Some(5), Some(5), "", ClockShift::Unknown),
        ] {
            assert_eq!(
                ClockShift::of(own, childrens, offsets, 100),
                shift,
                "{offsets}"
            );
        }
        assert_eq!(ClockShift::Ticks(-500).take_off(20), 520);
        assert_eq!(ClockShift::Ticks(500).take_off(520), 20);
    }
}
