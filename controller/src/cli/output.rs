//! Where a command's words go: data to standard output, talk to standard error, reports to files. What could not be written
//! is said, and costs the exit code 0: whoever reads the output of a command that succeeded must be able to rely on it.

use super::CommandError;
use backburn_experiments::journal::REPORT_NOT_WRITTEN;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether something that was to be written could not be.
static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Whether standard output takes nothing more: what comes after a hole would be taken for the whole.
static STDOUT_FAILED: AtomicBool = AtomicBool::new(false);

/// Data, for standard output.
pub(crate) fn print(text: &str) {
    if STDOUT_FAILED.load(Ordering::Relaxed) {
        return;
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written {
        STDOUT_FAILED.store(true, Ordering::Relaxed);
        not_written("standard output", &error);
    }
}

/// Talk, for standard error.
pub(crate) fn print_stderr(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// The exit code of a command that would end with this one: 7 instead of 0 where something could not be written.
pub(super) fn exit_code(code: u8) -> u8 {
    match code {
        0 if OUTPUT_LOST.load(Ordering::Relaxed) => REPORT_NOT_WRITTEN,
        code => code,
    }
}

fn not_written(what: &str, error: &io::Error) {
    OUTPUT_LOST.store(true, Ordering::Relaxed);
    let why = backburn_experiments::probes::io_error_text(error);
    print_stderr(&format!("error: {what} could not be written: {why}\n"));
}

/// A file for a report, opened before there is anything to report: that it cannot be written is found out before anything is
/// broken. What is in it stays until the report is written.
#[derive(Debug)]
pub(super) struct ReportFile {
    file: File,
    path: PathBuf,
    /// Whether it was made here; then it goes again where no report is written.
    is_new: bool,
}

impl ReportFile {
    /// Opens the file, and makes it where it is not there.
    ///
    /// # Errors
    /// It cannot be written to. A named pipe that nobody reads is one of these.
    pub(super) fn open(path: &Path) -> Result<Self, CommandError> {
        let failed = |error: io::Error| {
            let why = backburn_experiments::probes::io_error_text(&error);
            CommandError::invalid(format!("{}: {why}", path.display()))
        };
        let open = |create_new| {
            // Not to wait for whoever may read a named pipe some day.
            let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
            OpenOptions::new()
                .write(true)
                .create_new(create_new)
                .custom_flags(flags)
                .open(path)
        };
        let (file, is_new) = match open(false) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (open(true).map_err(failed)?, true)
            }
            Err(error) => return Err(failed(error)),
        };
        let report = ReportFile {
            file,
            path: path.to_owned(),
            is_new,
        };
        nix::fcntl::fcntl(
            &report.file,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
        )
        .map_err(|error| failed(error.into()))?;
        Ok(report)
    }

    /// Whether both are one regular file: the second report would overwrite the first.
    pub(super) fn is_same(&self, other: &ReportFile) -> bool {
        let of = |report: &ReportFile| {
            let file = report.file.metadata().ok()?;
            file.is_file().then_some((file.dev(), file.ino()))
        };
        of(self).is_some_and(|own| of(other) == Some(own))
    }

    /// Writes the report in place of what was there. Says so where it could not be written, which [`exit_code`] knows then.
    pub(super) fn write(mut self, text: &str) {
        let written = self.replace(text);
        self.is_new = false;
        if let Err(error) = written {
            not_written(&self.path.display().to_string(), &error);
        }
    }

    fn replace(&mut self, text: &str) -> io::Result<()> {
        let kind = self.file.metadata()?.file_type();
        if kind.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(text.as_bytes())?;
        match kind.is_char_device() || kind.is_fifo() {
            true => Ok(()),
            // A file system may find out only now that it has no room.
            false => self.file.sync_all(),
        }
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.is_new {
            // An empty file of ours is no report; one that cannot be removed does no harm.
            std::fs::remove_file(&self.path).ok();
        }
    }
}
