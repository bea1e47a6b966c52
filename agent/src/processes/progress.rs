//! Whether a process gets anywhere: figures that grow only while it runs.

use super::{ProcessId, ProcessTable};

impl ProcessTable {
    /// How long the first thread of exactly this process has had a processor, in nanoseconds; none where the kernel does not
    /// count that (the first figure of `/proc/PID/schedstat`, Documentation/scheduler/sched-stats.rst).
    pub fn run_time(&self, id: ProcessId) -> Option<u64> {
        let figures = self.read(id.pid, "schedstat", |line| {
            String::from_utf8_lossy(line)
                .split(' ')
                .next()
                .and_then(|figure| figure.parse().ok())
        })?;
        figures.filter(|_| self.alive(id))
    }

    /// How often the first thread of exactly this process has left a processor, by waiting or by being made to
    /// (proc_pid_status(5), `voluntary_ctxt_switches` and `nonvoluntary_ctxt_switches`). One that its tracer stops leaves it each time.
    pub fn context_switches(&self, id: ProcessId) -> Option<u64> {
        let of = |key| self.status(id.pid, key, |value| value.trim().parse::<u64>().ok());
        let switches = of("voluntary_ctxt_switches:")? + of("nonvoluntary_ctxt_switches:")?;
        self.alive(id).then_some(switches)
    }
}
