//! `inject`: the smallest controller there is. It starts an agent of its own, asks for one
//! injection, says what is seen, and waits for its end; whoever dies on the way, the agent and
//! its guardian put it back as they would for any other controller.

use super::arguments::Wanted;
use super::{Failure, NOT_STARTED, show};
use crate::guardian::NOT_CLEAN;
use crate::host::Invocation;
use backburn_experiments::Span;
use backburn_experiments::wire::{Cause, Command, Ended, Report};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The exit code where the agent died or hung and what it had done was put back.
const ABORTED: u8 = 4;

/// How long the agent keeps the fault when nothing is heard from us.
const LEASE: Span = Span::seconds(5);

/// Injects and waits for the end.
pub(super) fn run(
    wanted: &Wanted,
    invocation: &Invocation,
    words: &[String],
) -> Result<u8, Failure> {
    let failed =
        |error: std::io::Error| Failure::Wrong(format!("the agent could not be reached: {error}"));
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block().map_err(|error| failed(error.into()))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|error| failed(error.into()))?;
    let (ours, its) = UnixStream::pair().map_err(failed)?;
    let agent = invocation
        .command("serve")
        .args(words)
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut session = Session {
        wanted,
        reader: BufReader::new(ours),
        agent,
        asked_to_end: false,
        ended: None,
    };
    session.serve(&signals).map_err(failed)
}

struct Session<'a> {
    wanted: &'a Wanted,
    reader: BufReader<UnixStream>,
    agent: Child,
    asked_to_end: bool,
    ended: Option<Ended>,
}

impl Session<'_> {
    fn serve(&mut self, signals: &SignalFd) -> std::io::Result<u8> {
        self.say(&Command::Beat { lease: LEASE })?;
        self.say(&Command::Inject {
            request: 1,
            injection: self.wanted.request.clone(),
        })?;
        loop {
            if self.reader.buffer().is_empty() && !self.wait(signals)? {
                continue;
            }
            let mut line = String::new();
            // A link that is reset, and a line that breaks off, are what a death on the way looks
            // like from here.
            let is_whole = match self.reader.read_line(&mut line) {
                Ok(_) => line.ends_with('\n'),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
                Err(error) => return Err(error),
            };
            if !is_whole {
                return self.agent_left();
            }
            // A guardian that speaks for a dead worker begins with the end of a line.
            if line == "\n" {
                continue;
            }
            let report: Report = serde_json::from_str(&line)?;
            if let Some(code) = self.hear(report)? {
                self.say(&Command::Goodbye)?;
                // The guardian sees it as well: a worker that does not take leave in time is ended.
                self.reader.get_ref().shutdown(Shutdown::Write).ok();
                let code = if self.agent.wait()?.code() == Some(i32::from(NOT_CLEAN)) {
                    NOT_CLEAN
                } else {
                    code
                };
                return Ok(code);
            }
        }
    }

    /// Waits for the agent's word, beating meanwhile. Whether there is one.
    fn wait(&mut self, signals: &SignalFd) -> std::io::Result<bool> {
        let timeout: Duration = LEASE.0 / 3;
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let (agent, signal) = {
            let mut fds = [
                PollFd::new(self.reader.get_ref(), PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [agent, signal] = fds.map(|fd| !fd.revents().is_empty());
            (agent, signal)
        };
        if signal && signals.read_signal()?.is_some() && !self.asked_to_end {
            self.asked_to_end = true;
            eprintln!("ending: everything is put back first");
            self.say(&Command::RevertAll {
                request: 2,
                run: None,
            })?;
        }
        self.say(&Command::Beat { lease: LEASE })?;
        Ok(agent)
    }

    /// Takes one word. Some exit code when that was the last.
    fn hear(&mut self, report: Report) -> std::io::Result<Option<u8>> {
        if self.wanted.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            show::report(&report);
        }
        Ok(match report {
            Report::Ended(ended) if ended.injection == self.wanted.request.id => {
                let code = match ended.cause {
                    _ if !ended.clean => NOT_CLEAN,
                    Cause::Died => {
                        eprintln!("error: the agent died or hung; what it had done was put back");
                        ABORTED
                    }
                    _ => 0,
                };
                self.ended = Some(ended);
                Some(code)
            }
            Report::Refused { refusal, .. } => {
                let clean = self.ended.as_ref().is_none_or(|ended| ended.clean);
                let code = if refusal.rule == "arguments" {
                    super::INVALID
                } else {
                    NOT_STARTED
                };
                Some(if clean { code } else { NOT_CLEAN })
            }
            // Nothing acts any more and our own end was not told: it had been before.
            Report::AllReverted { owed, .. } if self.asked_to_end => {
                Some(if owed.is_empty() { 0 } else { NOT_CLEAN })
            }
            _ => None,
        })
    }

    /// The link closed: the guardian's exit code says whether everything is back.
    fn agent_left(&mut self) -> std::io::Result<u8> {
        let status = self.agent.wait()?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        match (&self.ended, code) {
            (Some(_), Some(code)) => Ok(code),
            (None, Some(0)) => {
                eprintln!("error: the agent died; what it had done was put back");
                Ok(ABORTED)
            }
            (None, Some(NOT_CLEAN)) => {
                eprintln!(
                    "error: the agent died, and not all that it had done is seen to be put back\nhint: `status` shows what is owed"
                );
                Ok(NOT_CLEAN)
            }
            (_, Some(code)) => Ok(code),
            (_, None) => {
                eprintln!(
                    "error: the agent and its guardian died\nhint: `revert --all` puts back what they owe"
                );
                Ok(NOT_CLEAN)
            }
        }
    }

    fn say(&mut self, command: &Command) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        match self.reader.get_mut().write_all(&line) {
            // It has left; reading says how.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}
