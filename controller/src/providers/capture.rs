//! What a program writes to one of its standard streams, kept in a file in memory rather than in a pipe. A program that leaves a
//! daemon behind hands its streams down: a pipe would not end while the daemon lives, and would break under it when nobody
//! reads it any more.

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

/// One stream of a program.
#[derive(Debug)]
pub(super) struct Capture(File);

impl Capture {
    /// An empty file, which is gone when the last process that has it open closes it.
    ///
    /// # Errors
    /// The kernel gives out no more files.
    pub(super) fn new() -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"output", flags)?;
        // A program that opens its stream anew, as `/dev/stdout`, writes to its end like any other.
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        Ok(Capture(file.into()))
    }

    /// The file as a stream of a program that is about to be started.
    ///
    /// # Errors
    /// The process has too many files open.
    pub(super) fn stream(&self) -> io::Result<Stdio> {
        self.0.try_clone().map(Stdio::from)
    }

    /// How many bytes were written.
    ///
    /// # Errors
    /// The file can't be looked at.
    pub(super) fn length(&self) -> io::Result<u64> {
        self.0.metadata().map(|file| file.len())
    }

    /// What was written. Whoever the program left behind with the stream may write on, up to `most` bytes in all: nobody reads
    /// that, and it must not fill the memory.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn take(self, most: u64) -> io::Result<Vec<u8>> {
        let length = self.length()?.min(most.saturating_add(1));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.0.read_exact_at(&mut bytes, 0)?;
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::empty()))?;
        // A file that is longer than this process may write would be its end (SIGXFSZ). Source: setrlimit(2).
        let (allowed, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
        self.0.set_len(self.length()?.max(most.min(allowed)))?;
        fcntl(&self.0, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW))?;
        Ok(bytes)
    }
}
