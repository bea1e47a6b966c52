//! The output of a program, kept in a file in memory rather than in a pipe. A program that leaves a daemon behind hands its streams down:
//! a pipe would not end while the daemon lives, and would break under it once nobody reads it any more.

use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, memfd_create};
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

/// One output stream of a program.
#[derive(Debug)]
pub(super) struct OutputCapture(File);

impl OutputCapture {
    /// An empty file, which is gone when the last process that has it open closes it.
    ///
    /// # Errors
    /// The kernel refuses another file.
    pub(super) fn new() -> io::Result<Self> {
        let file = memfd_create("output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // A program that opens its stream anew, as `/dev/stdout`, appends to it, too.
        fcntl_setfl(&file, OFlags::APPEND)?;
        Ok(OutputCapture(file.into()))
    }

    /// The file as a stream of a program that is about to be started.
    ///
    /// # Errors
    /// The process has too many files open.
    pub(super) fn stream(&self) -> io::Result<Stdio> {
        self.0.try_clone().map(Stdio::from)
    }

    /// The number of bytes written.
    ///
    /// # Errors
    /// The file's length cannot be read.
    pub(super) fn length(&self) -> io::Result<u64> {
        self.0.metadata().map(|file| file.len())
    }

    /// The bytes that were written. A process that the program left behind may write on, up to `most` bytes in all: nobody reads that, and
    /// it must not fill the memory.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn take(self, most: u64) -> io::Result<Vec<u8>> {
        let length = self.length()?.min(most.saturating_add(1));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.0.read_exact_at(&mut bytes, 0)?;
        fcntl_setfl(&self.0, OFlags::empty())?;
        // A file longer than this process may write would end it (SIGXFSZ). Source: setrlimit(2).
        let allowed = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        self.0.set_len(self.length()?.max(most.min(allowed)))?;
        fcntl_add_seals(&self.0, SealFlags::GROW)?;
        Ok(bytes)
    }
}
