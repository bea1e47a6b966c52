//! The output of commands: data to stdout, everything else to stderr, reports to files. A command whose output could not be
//! written reports that and does not exit with 0: the output of a command that succeeds is complete.

use super::CommandFailure;
use backburn_experiments::journal::REPORT_NOT_WRITTEN;
use backburn_experiments::terminal_text::{escape, guard};
use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether any output could not be written.
static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Whether a write to stdout has failed. Nothing more is written then: output with a gap would be taken for complete.
static STDOUT_FAILED: AtomicBool = AtomicBool::new(false);

/// Whether a line that GitHub would take for a workflow command is escaped.
static WORKFLOW_COMMANDS_GUARDED: AtomicBool = AtomicBool::new(false);

/// Escapes from now on what GitHub's runner would take for a workflow command, in whatever is printed: a title or an answer of a server must not
/// command the runner. Source: `ActionCommand` of the runner, which reads `::` at the beginning of a line and `##[` anywhere.
pub(super) fn guard_workflow_commands() {
    WORKFLOW_COMMANDS_GUARDED.store(true, Ordering::Relaxed);
}

/// The text without workflow commands. The escapes are JSON's, so that JSON keeps its values.
fn without_workflow_commands(text: &str) -> Cow<'_, str> {
    if !text.contains("##[") && !text.contains("::") {
        return text.into();
    }
    let lines = text.split_inclusive('\n').map(|line| {
        let line = line.replace("##[", "##\\u005b");
        let content = line.trim_start();
        match content.strip_prefix("::") {
            Some(rest) => format!("{}\\u003a:{rest}", &line[..line.len() - content.len()]),
            None => line,
        }
    });
    lines.collect::<String>().into()
}

/// The text as it may be written: nothing that a terminal or a pipeline would obey.
fn guarded(text: &str) -> Cow<'_, str> {
    let text = guard(text);
    match WORKFLOW_COMMANDS_GUARDED.load(Ordering::Relaxed) {
        true => without_workflow_commands(&text).into_owned().into(),
        false => text,
    }
}

/// Writes commands of the program's own for the pipeline to stderr, among the progress that they belong to.
pub(super) fn print_command(commands: &str) {
    io::stderr().lock().write_all(commands.as_bytes()).ok();
}

/// Writes commands of the program's own for the pipeline to stdout.
pub(super) fn print_command_to_stdout(commands: &str) {
    write_stdout(commands);
}

/// Prints the help or the error of an invalid command line: help to stdout, an error to stderr.
pub(super) fn print_clap_error(error: &clap::Error) {
    let (text, stream_colours) = match error.use_stderr() {
        true => (error.render(), anstream::AutoStream::choice(&io::stderr())),
        false => (error.render(), anstream::AutoStream::choice(&io::stdout())),
    };
    let text = match stream_colours {
        anstream::ColorChoice::Never => text.to_string(),
        _ => text.ansi().to_string(),
    };
    match error.use_stderr() {
        true => print_stderr(&text),
        false => print(&text),
    }
}

/// Writes data to stdout. What a terminal would obey is escaped, see [`guard`].
pub(crate) fn print(text: &str) {
    write_stdout(&guarded(text));
}

fn write_stdout(text: &str) {
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

/// Writes a message to stderr. What a terminal would obey is escaped, see [`guard`]. A failure to do so is ignored.
pub(crate) fn print_stderr(text: &str) {
    io::stderr().lock().write_all(guarded(text).as_bytes()).ok();
}

/// A path for a message, in one line: a file may have any name.
pub(super) fn shown_path(path: &Path) -> String {
    escape(&path.display().to_string()).into_owned()
}

/// The exit code of a command that would otherwise exit with `code`: 7 instead of 0 if any output could not be written.
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

/// A file for a report, opened before the run, so that a path that cannot be written to is found before anything is injected.
/// The file keeps its content until the report is written.
#[derive(Debug)]
pub(super) struct ReportFile {
    file: File,
    path: PathBuf,
    /// Whether the file was created here. It is removed again if no report is written.
    is_new: bool,
}

impl ReportFile {
    /// Opens the file, or creates it if it does not exist.
    ///
    /// # Errors
    /// The file cannot be written to. That includes a named pipe without a reader.
    pub(super) fn open(path: &Path) -> Result<Self, CommandFailure> {
        let failed = |error: io::Error| {
            let why = backburn_experiments::probes::io_error_text(&error);
            CommandFailure::invalid(format!("{}: {why}", shown_path(path)))
        };
        let open = |create_new| {
            // Do not wait for a reader of a named pipe.
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

    /// Whether both are the same regular file, so that the second report would overwrite the first.
    pub(super) fn is_same(&self, other: &ReportFile) -> bool {
        let of = |report: &ReportFile| {
            let file = report.file.metadata().ok()?;
            file.is_file().then_some((file.dev(), file.ino()))
        };
        of(self).is_some_and(|own| of(other) == Some(own))
    }

    /// Replaces the content of the file by the report. A failure is reported, and counts for [`exit_code`].
    pub(super) fn write(mut self, text: &str) {
        let written = self.replace(text);
        self.is_new = false;
        if let Err(error) = written {
            not_written(&shown_path(&self.path), &error);
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
            // A file system may report only now that it is full.
            false => self.file.sync_all(),
        }
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.is_new {
            // The file is still empty. One that cannot be removed does no harm.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_workflow_commands;

    #[test]
    fn workflow_commands_in_output_are_escaped() {
        for (text, wanted) in [
            ("a::b ## [c]", "a::b ## [c]"),
            ("::set-env name=A::b\nx\n", "\\u003a:set-env name=A::b\nx\n"),
            ("x\n  ::add-mask::y", "x\n  \\u003a:add-mask::y"),
            ("{\"a\":\"##[error]b\"}", "{\"a\":\"##\\u005berror]b\"}"),
        ] {
            assert_eq!(without_workflow_commands(text), wanted);
        }
    }
}
