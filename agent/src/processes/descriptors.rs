//! The file descriptors of a process, and its limit of them.

use super::{ProcessId, ProcessTable};
use std::io;

/// The descriptors that a process has open, and how many it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// The numbers that are in use.
    pub open: Vec<i32>,
    /// The soft limit (`RLIMIT_NOFILE`): every number is below it. Those that were opened under a higher limit stay.
    pub soft: u64,
    /// The hard limit, up to which the process may raise the soft one.
    pub hard: u64,
    /// When this was read, in clock ticks since the machine's boot.
    pub read_at: u64,
}

impl Descriptors {
    /// How many numbers below `limit` are free.
    pub fn free_below(&self, limit: u64) -> u64 {
        let used = self.open.iter().filter(|number| (**number as u64) < limit);
        limit.saturating_sub(used.count() as u64)
    }

    /// The highest limit below which exactly so many numbers are free; none where not more than so many are free today.
    pub fn limit_that_leaves(&self, leave: u64) -> Option<u64> {
        let mut free = 0;
        (0..self.soft).find(|number| {
            let is_free = i32::try_from(*number).is_ok_and(|number| !self.open.contains(&number));
            free += u64::from(is_free);
            free > leave
        })
    }
}

impl ProcessTable {
    /// The descriptors of exactly this process; none where it has ended.
    ///
    /// # Errors
    /// They cannot be read, e.g. since the process belongs to another user.
    pub fn descriptors(&self, id: ProcessId) -> io::Result<Option<Descriptors>> {
        let read_at = self.now().unwrap_or(u64::MAX);
        let open = self.entries(id.pid, "fd");
        let limits = self.open_file_limits(id);
        if !self.alive(id) {
            return Ok(None);
        }
        let (soft, hard) = limits.ok_or_else(|| io::Error::other("its limits cannot be read"))?;
        let mut open = open?;
        open.sort_unstable();
        Ok(Some(Descriptors {
            open,
            soft,
            hard,
            read_at,
        }))
    }

    /// The soft and the hard limit of open files of exactly this process; none where it has ended.
    pub fn open_file_limits(&self, id: ProcessId) -> Option<(u64, u64)> {
        let limits = self.root().join(format!("{}/limits", id.pid));
        let limits = std::fs::read_to_string(limits).ok()?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        let mut figures = line.split_whitespace().map(|figure| match figure {
            "unlimited" => Some(u64::MAX),
            figure => figure.parse().ok(),
        });
        let found = (figures.next()??, figures.next()??);
        self.alive(id).then_some(found)
    }
}

impl ProcessTable {
    /// The descendants of this process that began at this time or later, in clock ticks since the machine's boot.
    ///
    /// # Errors
    /// The process table cannot be listed.
    pub(crate) fn descendants_since(
        &self,
        id: ProcessId,
        since: u64,
    ) -> io::Result<Vec<ProcessId>> {
        let stats: Vec<_> = self
            .pids()?
            .into_iter()
            .filter_map(|pid| self.stat(pid))
            .collect();
        let mut family = vec![id.pid];
        let mut found = Vec::new();
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            next += 1;
            for stat in &stats {
                if stat.parent == parent && !family.contains(&stat.id.pid) {
                    family.push(stat.id.pid);
                    if stat.id.start >= since && !stat.is_dead() {
                        found.push(stat.id);
                    }
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_limit_leaves_as_many_as_asked() {
        let some = Descriptors {
            open: vec![0, 1, 2, 5, 900],
            soft: 10,
            hard: 20,
            read_at: 0,
        };
        assert_eq!(some.free_below(10), 6);
        for (leave, limit) in [
            (0, Some(3)),
            (1, Some(4)),
            (2, Some(6)),
            (5, Some(9)),
            (6, None),
        ] {
            assert_eq!(some.limit_that_leaves(leave), limit, "{leave}");
            assert_eq!(limit.map_or(leave, |limit| some.free_below(limit)), leave);
        }
    }
}
