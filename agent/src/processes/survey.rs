//! The same question about many processes, asked on every processor.

use super::ProcessTable;

impl ProcessTable {
    /// What `look` says of each of these processes, in their order, without those of which it says nothing. Nearly all of the time is
    /// the kernel's, file by file, so where there are many every processor asks for its part.
    pub(super) fn survey<T: Send>(
        &self,
        pids: &[i32],
        look: impl Fn(&Self, i32) -> Option<T> + Sync,
    ) -> Vec<T> {
        const WORTH_A_THREAD: usize = 256;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let parts = (pids.len() / WORTH_A_THREAD).clamp(1, processors);
        let of = |table: &Self, part: &[i32]| -> Vec<T> {
            part.iter().filter_map(|pid| look(table, *pid)).collect()
        };
        if parts == 1 {
            return of(self, pids);
        }
        let (root, of) = (self.root(), &of);
        std::thread::scope(|scope| {
            let start = |part| {
                let thread = std::thread::Builder::new();
                let begun = thread.spawn_scoped(scope, move || of(&Self::at(root), part));
                // Where not even a thread is to be had, an undo must go on all the same.
                begun.map_err(|_| of(self, part))
            };
            let threads: Vec<_> = pids.chunks(pids.len().div_ceil(parts)).map(start).collect();
            let end = |begun: Result<std::thread::ScopedJoinHandle<'_, Vec<T>>, Vec<T>>| match begun
            {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(found) => found,
            };
            threads.into_iter().flat_map(end).collect()
        })
    }

    /// Those of `pids` whose name is one of `wanted`.
    pub(super) fn named(
        &self,
        pids: &[i32],
        wanted: impl Fn(&[u8]) -> bool + Sync,
        long: bool,
    ) -> Vec<i32> {
        self.survey(pids, |table, pid| {
            table.is_named(pid, &wanted, long).then_some(pid)
        })
    }
}
