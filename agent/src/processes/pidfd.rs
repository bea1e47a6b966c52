//! A descriptor of a process that can't come to mean another.

use super::{ProcessId, ProcessTable};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::{io, os::fd::OwnedFd};

impl ProcessTable {
    /// Opens a descriptor of exactly this process; none where it is gone, even when its id is in
    /// use again. Opened first and compared after: the other way round, the id could be given out
    /// between the two.
    ///
    /// # Errors
    /// Where the kernel has no pidfds (before 5.3), there are too many open files, or the process may be there and can't be seen.
    pub fn open_pidfd_checked(&self, id: ProcessId) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(id.pid).filter(|_| id.pid > 0) else {
            return Ok(None);
        };
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            // A thread has the id now (EINVAL, and ENOENT since 6.13), so that process is gone.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(self.find(id)?.map(|_| descriptor))
    }
}
