//! The output of a program, kept in a file in memory rather than in a pipe. A program that leaves a daemon behind hands its streams down:
//! a pipe would not end while the daemon lives, and would break under it once nobody reads it any more.

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

/// One output stream of a program.
#[derive(Debug)]
pub(super) struct ProgramOutput(File);

impl ProgramOutput {
    /// An empty file, which is gone when the last process that has it open closes it.
    ///
    /// # Errors
    /// The kernel refuses another file.
    pub(super) fn new() -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"output", flags)?;
        // A program that opens its stream anew, as `/dev/stdout`, appends to it, too.
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        Ok(ProgramOutput(file.into()))
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
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::empty()))?;
        // A file longer than this process may write would end it (SIGXFSZ). Source: setrlimit(2).
        let (allowed, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
        self.0.set_len(self.length()?.max(most.min(allowed)))?;
        fcntl(&self.0, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW))?;
        Ok(bytes)
    }
}
