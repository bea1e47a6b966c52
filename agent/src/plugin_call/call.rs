//! One call of a plug-in: one process, one JSON object on its standard input, one line of JSON back. Whatever it does wrong is a
//! [`PluginFailure`]; when the call returns, all that it had started is dead.

use super::process::{Confinement, kill_plugin, spawn_plugin};
use super::program::PinnedPlugin;
use backburn_experiments::terminal_text::escape;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How much of what a plug-in writes to standard error is kept, in bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// How much of a wrong answer is shown, in bytes.
const SHOWN_BYTES: usize = 200;
/// How many of the last lines of standard error are shown, and how many bytes of them.
const SHOWN_ERROR_LINES: usize = 6;
const SHOWN_ERROR_BYTES: usize = 600;
/// How long a killed process may take to leave. One that waits for a device is left to itself.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// A call of a plug-in that did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plug-in `{plugin}` {what}{}", shown(.stderr))]
pub struct PluginFailure {
    /// The name of the plug-in.
    pub plugin: String,
    /// What it did wrong, e.g. `did not answer `undo` within 10s`.
    pub what: String,
    /// What it wrote to standard error, as far as that is kept.
    pub stderr: String,
}

/// How a plug-in's standard error is shown in a message: its last lines, since that is where Python and shells say what was wrong, on
/// one line and escaped. Empty where it wrote nothing.
pub(crate) fn shown(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() {
        return String::new();
    }
    let mut lines = Vec::new();
    let mut length = 0;
    for line in text.lines().rev() {
        length += line.len();
        if !lines.is_empty() && (length > SHOWN_ERROR_BYTES || lines.len() == SHOWN_ERROR_LINES) {
            break;
        }
        let start = line.len().saturating_sub(SHOWN_ERROR_BYTES);
        let start = (start..=line.len()).find(|at| line.is_char_boundary(*at));
        lines.push(escape(
            line.get(start.unwrap_or_default()..)
                .unwrap_or_default()
                .trim(),
        ));
    }
    let left = text.lines().count() - lines.len();
    lines.reverse();
    let before = match left {
        0 => String::new(),
        _ => format!(" ends after {left} other lines with"),
    };
    let hint = match text.contains("ModuleNotFoundError") {
        true => {
            "; an agent runs a copy of this one file: pack the modules that it imports into it with `python3 -m zipapp`, as docs/plugins.md shows"
        }
        false => "",
    };
    format!("; its standard error{before}: {}{hint}", lines.join(" / "))
}

/// The beginning of a text from outside.
fn beginning(text: &[u8]) -> String {
    let end = text.len().min(SHOWN_BYTES);
    let begin = String::from_utf8_lossy(text.get(..end).unwrap_or_default());
    match end < text.len() {
        true => format!("{begin}…"),
        false => begin.into_owned(),
    }
}

/// One call of a plug-in with one verb.
#[derive(Debug)]
pub struct PluginCall<'a> {
    /// The plug-in that is called.
    pub program: &'a PinnedPlugin,
    /// What it is asked, with its `verb`.
    pub request: Value,
    /// How long it may take.
    pub timeout: Duration,
    /// What its process may do.
    pub confinement: Confinement,
}

/// How a process ended, as far as that is known.
#[derive(Debug, Default)]
struct Ended {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    is_late: bool,
    /// What was wrong with its exit; none where it exited with 0, or where another thread has reaped it.
    exit: Option<String>,
}

impl PluginCall<'_> {
    fn verb(&self) -> &str {
        self.request
            .get("verb")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The verb as messages show it: what `conform` says instead of one is in words.
    fn named_verb(&self) -> String {
        match self.verb() {
            words if words.contains([' ', '`']) => words.to_owned(),
            verb => format!("`{verb}`"),
        }
    }

    fn failure(&self, what: String, stderr: &[u8]) -> PluginFailure {
        PluginFailure {
            plugin: self.program.name.clone(),
            what,
            stderr: String::from_utf8_lossy(stderr).into_owned(),
        }
    }

    /// Makes the call and reads the answer.
    ///
    /// # Errors
    /// The pinned copy is not what it was; it could not be started, did not answer in time, crashed, or its answer is not what is
    /// asked for.
    pub fn run<Answer: DeserializeOwned>(&self) -> Result<Answer, PluginFailure> {
        // A shell's `read` fails on a line without an end.
        let text = format!("{}\n", self.request);
        let ended = self
            .run_with_input(text.as_bytes())
            .map_err(|error| self.failure(format!("could not be run: {error}"), &[]))?;
        self.read(&ended)
    }

    /// Makes the call with another input than a request; says what it answered.
    ///
    /// # Errors
    /// As those of [`PluginCall::run`].
    pub fn run_raw(&self, input: &[u8]) -> Result<Value, PluginFailure> {
        let ended = self
            .run_with_input(input)
            .map_err(|error| self.failure(format!("could not be run: {error}"), &[]))?;
        self.read(&ended)
    }

    fn read<Answer: DeserializeOwned>(&self, ended: &Ended) -> Result<Answer, PluginFailure> {
        let verb = self.named_verb();
        let fail = |what: String| Err(self.failure(what, &ended.stderr));
        if ended.is_late {
            let limit = backburn_experiments::HumanDuration(self.timeout);
            return fail(format!(
                "did not answer {verb} within {limit} and was killed"
            ));
        }
        if ended.stdout.len() > MAX_ANSWER_BYTES {
            return fail(format!(
                "answered {verb} with more than {MAX_ANSWER_BYTES} bytes"
            ));
        }
        if let Some(exit) = &ended.exit {
            return fail(format!("crashed at {verb}: {exit}"));
        }
        let line = ended.stdout.strip_suffix(b"\n").unwrap_or(&ended.stdout);
        if line.is_empty() {
            return fail(format!("answered {verb} with nothing"));
        }
        if line.contains(&b'\n') {
            let all = beginning(line);
            return fail(format!("answered {verb} with more than one line: {all}"));
        }
        serde_json::from_slice(line).or_else(|error| {
            let all = beginning(line);
            fail(format!(
                "answered {verb} with something else ({error}): {all}"
            ))
        })
    }

    /// Runs the process on a thread of its own, whose children are in a process namespace of their own.
    fn run_with_input(&self, input: &[u8]) -> io::Result<Ended> {
        self.program.check()?;
        // A file in memory, not a pipe: writing must not wait for a reader.
        let file = rustix::fs::memfd_create("plugin", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(input)?;
        file.rewind()?;
        retry_while_busy(|| {
            let input = OwnedFd::from(file.try_clone()?);
            std::thread::scope(|scope| {
                let work = || {
                    let child = spawn_plugin(&self.program.file, input, self.confinement)?;
                    wait_for_end(child, Instant::now() + self.timeout)
                };
                let thread = std::thread::Builder::new().name("plugin".into());
                let thread = thread.spawn_scoped(scope, work)?;
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread failed")))
            })
        })
    }
}

/// Starts a program again while its file is busy: a process that another thread starts at the same time has it open for writing, for a
/// moment, if the file was just written.
pub(crate) fn retry_while_busy<T>(start: impl Fn() -> io::Result<T>) -> io::Result<T> {
    const RETRY_DELAY: Duration = Duration::from_millis(10);
    for _ in 0..20 {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(RETRY_DELAY);
            }
            started => return started,
        }
    }
    start()
}

/// Reads all that a plug-in writes until its process, and so all that it had started, has ended. Kills it when its time is over.
fn wait_for_end(mut child: Child, until: Instant) -> io::Result<Ended> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it has no id"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut ended = Ended::default();
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let mut until = until;
    let mut is_alive = true;
    while is_alive || stdout.is_some() || stderr.is_some() {
        let mut fds = Vec::new();
        if is_alive {
            fds.push(PollFd::new(&pidfd, PollFlags::IN));
        }
        let outputs = [
            stdout.as_ref().map(|fd| fd.as_fd()),
            stderr.as_ref().map(|fd| fd.as_fd()),
        ];
        for output in outputs.iter().flatten() {
            fds.push(PollFd::from_borrowed_fd(*output, PollFlags::IN));
        }
        let left = until.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&left)) {
            Ok(0) if ended.is_late => break,
            Ok(0) => {
                ended.is_late = true;
                kill_plugin(&pidfd).ok();
                until = Instant::now() + KILL_TIMEOUT;
                continue;
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let has_ended = is_alive && ready.next() == Some(true);
        let can_read = outputs.map(|output| output.is_some() && ready.next() == Some(true));
        is_alive &= !has_ended;
        if can_read[0] && !read_some(&mut stdout, &mut ended.stdout, MAX_ANSWER_BYTES + 1)? {
            stdout = None;
        }
        if can_read[1] && !read_some(&mut stderr, &mut ended.stderr, MAX_ERROR_BYTES)? {
            stderr = None;
        }
        if ended.stdout.len() > MAX_ANSWER_BYTES {
            kill_plugin(&pidfd).ok();
        }
    }
    // Another thread of this process may have reaped it, which leaves its exit unknown; its answer still counts then.
    if let Ok(Some(status)) = child.try_wait()
        && !status.success()
        && !ended.is_late
    {
        ended.exit = Some(status.to_string());
    }
    Ok(ended)
}

/// Reads once; what is beyond the limit is read and forgotten. False at the end.
fn read_some(
    from: &mut Option<impl io::Read>,
    into: &mut Vec<u8>,
    limit: usize,
) -> io::Result<bool> {
    let Some(from) = from else {
        return Ok(false);
    };
    let mut buffer = [0; 64 << 10];
    match from.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(count) => {
            let room = limit.saturating_sub(into.len()).min(count);
            into.extend_from_slice(buffer.get(..room).unwrap_or_default());
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn traceback_shown_ends_with_its_exception() {
        let frames = "  File \"/x\", line 1, in f\n    g()\n".repeat(100);
        let text =
            format!("Traceback (most recent call last):\n{frames}KeyError: 'port\u{1b}[2J'\n");
        let said = shown(&text);
        assert!(
            said.ends_with("KeyError: 'port\\u{1b}[2J'") || said.contains("KeyError"),
            "{said}"
        );
        assert!(said.contains("ends after 196 other lines"), "{said}");
        assert!(
            !said.contains(['\n', '\u{1b}']) && said.len() < 1_000,
            "{said}"
        );
        // One long line: its end.
        let said = shown(&format!("{}é the end", "é".repeat(5_000)));
        assert!(said.ends_with("the end") && said.len() < 1_000, "{said}");
        assert_eq!(shown(" \n"), "");
    }

    #[test]
    fn missing_module_shown_names_what_packs_it() {
        let said = shown("Traceback …\nModuleNotFoundError: No module named 'backburn_plugin'");
        assert!(
            said.contains("'backburn_plugin'") && said.contains("zipapp"),
            "{said}"
        );
    }
}
