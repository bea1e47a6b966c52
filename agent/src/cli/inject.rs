//! `inject`: the smallest controller. It starts an agent of its own, requests one injection, prints what is observed, and waits for the
//! end. If either dies on the way, the agent and its guardian revert the fault as they would for any other controller.

use super::fault_flags::FaultRequest;
use super::{CommandError, output};
use crate::exit_code;
use crate::host::{Host, HostRole, Invocation};
use crate::hung_agent::{
    AgentExit, HungAgentOutcome, end_hung_agent, revert_for_guardian, wait_for_exit,
};
use crate::processes::ProcessId;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, Command, Effect, EndedInjection, Refusal, Report};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long after its time a fault may end, including the time that injecting took.
const END_GRACE: Duration = Duration::from_secs(2);

/// How long the agent keeps the fault without hearing from this process.
const LEASE: HumanDuration = HumanDuration::seconds(5);

/// How long the agent may take to introduce itself. It reverts what dead agents have left before that.
const HELLO_TIMEOUT: HumanDuration = HumanDuration::seconds(30);

/// The heartbeat, which keeps the fault and asks whether the agent is alive.
const HEARTBEAT: Command = Command::Heartbeat {
    lease: LEASE,
    answer: true,
};

/// How much later than planned a wait may end before this process counts as late itself.
const LATE_WAKEUP: Duration = Duration::from_millis(500);

/// Injects a fault and waits for its end. `revert` is the command that reverts what is left. Returns the exit code.
pub(super) fn run(
    request: &FaultRequest,
    state: &Path,
    invocation: &Invocation,
    serve_arguments: &[String],
    revert: &str,
) -> Result<u8, CommandError> {
    // No agent has been asked for anything yet.
    let failed = |error: std::io::Error| {
        Refusal::new("failed", format!("the agent could not be reached: {error}"))
            .hint("check the limits of processes and memory, e.g. with `ulimit -a`")
    };
    crate::user_signals::ignore().map_err(|error| failed(error.into()))?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block().map_err(|error| failed(error.into()))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|error| failed(error.into()))?;
    let (ours, its) = UnixStream::pair().map_err(failed)?;
    ours.set_read_timeout(Some(LEASE.0)).map_err(failed)?;
    ours.set_write_timeout(Some(LEASE.0)).map_err(failed)?;
    let agent = invocation
        .command("serve")
        .args(serve_arguments)
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        // A process group of its own, so that it can be killed with everything that belongs to it.
        .process_group(0)
        .spawn()
        .map_err(|error| {
            Refusal::new("failed", format!("the agent could not be started: {error}"))
                .hint("check the limits of processes and memory, e.g. with `ulimit -a`")
        })?;
    let host = Host::new(HostRole::Command, invocation.clone());
    let mut session = InjectSession {
        request,
        // A child that was not waited for still has its id, dead or alive.
        guardian: host.table.identify(agent.id() as i32),
        host,
        state,
        revert,
        reader: BufReader::new(ours),
        agent,
        heard: None,
        hello_by: Instant::now() + HELLO_TIMEOUT.0,
        beat_at: Instant::now(),
        is_ending: false,
        asked: Instant::now(),
        was_injected: false,
        acted: false,
        ended: None,
    };
    let serve = session.serve(&signals);
    serve.map_err(|error| CommandError::Invalid(format!("the agent could not be reached: {error}")))
}

struct InjectSession<'a> {
    request: &'a FaultRequest,
    host: Host,
    /// The agent's state folder.
    state: &'a Path,
    /// The command that reverts what is left.
    revert: &'a str,
    reader: BufReader<UnixStream>,
    agent: Child,
    /// The guardian's identity, which no other process can have.
    guardian: Option<ProcessId>,
    /// When the agent was last heard, once it has introduced itself.
    heard: Option<Instant>,
    /// When the agent must have introduced itself.
    hello_by: Instant,
    /// When the next heartbeat is due.
    beat_at: Instant,
    is_ending: bool,
    /// When the injection was requested.
    asked: Instant,
    /// Whether the agent has reported that the fault was injected.
    was_injected: bool,
    /// Whether the fault was ever observed to act.
    acted: bool,
    ended: Option<EndedInjection>,
}

impl InjectSession<'_> {
    fn serve(&mut self, signals: &SignalFd) -> std::io::Result<u8> {
        self.send(&HEARTBEAT)?;
        self.send(&Command::Inject {
            request: 1,
            injection: self.request.injection.clone(),
        })?;
        loop {
            if self.reader.buffer().is_empty() && !self.wait(signals)? {
                if self.hangs_at() <= Instant::now() {
                    let silence = self.heard.map_or(HELLO_TIMEOUT, |_| LEASE);
                    say!("error: the agent has not answered for {silence}");
                    let hung = end_hung_agent(&self.host, self.state, &mut self.agent)?;
                    return self.report_hung_agent(&hung);
                }
                continue;
            }
            let mut line = String::new();
            // A connection that is reset, and a line that ends early, are signs that the agent died.
            let is_whole = match self.reader.read_line(&mut line) {
                Ok(_) => line.ends_with('\n'),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
                // The agent hangs in the middle of a line, which takes no time otherwise.
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => return Err(error),
            };
            if !is_whole {
                return self.handle_agent_exit();
            }
            // A guardian that reports for a dead worker ends the worker's line first.
            if line == "\n" {
                continue;
            }
            let report: Report = serde_json::from_str(&line)?;
            if self.heard.is_some()
                || matches!(&report, Report::Hello(hello) if hello.answers_heartbeats)
            {
                self.heard = Some(Instant::now());
            }
            if let Some(code) = self.handle_report(report)? {
                self.send(&Command::Shutdown)?;
                // The guardian sees this as well: it ends a worker that does not exit in time.
                self.reader.get_ref().shutdown(Shutdown::Write).ok();
                return Ok(
                    match wait_for_exit(&self.host, self.state, &mut self.agent)? {
                        AgentExit::Exited(status)
                            if status.code() == Some(i32::from(exit_code::NOT_CLEAN)) =>
                        {
                            exit_code::NOT_CLEAN
                        }
                        AgentExit::Exited(_) => code,
                        AgentExit::Hung(hung) if hung.is_clean() => code,
                        AgentExit::Hung(hung) => self.report_hung_agent(&hung)?,
                    },
                );
            }
        }
    }

    /// When the agent counts as hung unless it is heard.
    fn hangs_at(&self) -> Instant {
        self.heard.map_or(self.hello_by, |heard| heard + LEASE.0)
    }

    /// Waits until the agent can be read, and sends heartbeats meanwhile. Returns whether it can.
    fn wait(&mut self, signals: &SignalFd) -> std::io::Result<bool> {
        let began = Instant::now();
        let due = self.hangs_at().min(self.beat_at);
        let longest = due.saturating_duration_since(began);
        let timeout = Timespec {
            tv_sec: longest.as_secs() as i64,
            tv_nsec: longest.subsec_nanos().into(),
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
        if began.elapsed() > longest + LATE_WAKEUP {
            // This process did not run for a while, so it could not hear the agent, which may have been stopped together with it.
            self.heard = self.heard.map(|_| Instant::now());
            self.hello_by = Instant::now() + HELLO_TIMEOUT.0;
        }
        if signal && signals.read_signal()?.is_some() && !self.is_ending {
            self.is_ending = true;
            say!("ending: the fault is being reverted");
            self.send(&Command::RevertAll {
                request: 2,
                run: None,
            })?;
        }
        if self.beat_at <= Instant::now() {
            self.beat_at = Instant::now() + LEASE.0 / 3;
            self.send(&HEARTBEAT)?;
        }
        Ok(agent)
    }

    /// Handles one report. Returns the exit code if it was the last.
    fn handle_report(&mut self, report: Report) -> std::io::Result<Option<u8>> {
        // Heartbeats are of no interest to people or scripts.
        if !matches!(report, Report::HeartbeatAnswer) {
            self.show(&report)?;
        }
        let own = &self.request.injection.id;
        Ok(match report {
            Report::Injected { injection, .. } if injection == *own => {
                self.was_injected = true;
                None
            }
            Report::Effect { injection, effect } if injection == *own => {
                self.acted |= effect.acts;
                None
            }
            Report::Ended(ended) if ended.injection == *own => {
                let code = self.exit_code_for(&ended);
                // If injecting failed halfway, the end is reported before the refusal that gives the reason.
                let refusal_follows =
                    !self.was_injected && matches!(ended.cause, Cause::Failed | Cause::Manual);
                self.ended = Some(ended);
                (!refusal_follows).then_some(code)
            }
            Report::Refused { refusal, .. } => {
                let clean = self.ended.as_ref().is_none_or(|ended| ended.clean);
                let code = if refusal.rule == "arguments" {
                    exit_code::INVALID
                } else {
                    exit_code::NOT_STARTED
                };
                Some(if clean { code } else { exit_code::NOT_CLEAN })
            }
            // Nothing is active any more, and the injection's own end was not reported: it had ended before.
            Report::AllReverted { owed, .. } if self.is_ending => Some(if owed.is_empty() {
                0
            } else {
                exit_code::NOT_CLEAN
            }),
            _ => None,
        })
    }

    /// The exit code for the end of an injected fault. Prints an error if the fault stopped acting too early.
    fn exit_code_for(&self, ended: &EndedInjection) -> u8 {
        if !ended.clean {
            return exit_code::NOT_CLEAN;
        }
        if ended.cause == Cause::AgentDied {
            say!("error: the agent died or hung; everything that it had done was reverted");
            return exit_code::ABORTED;
        }
        // An observation long after the fault's time, because an agent hung, says nothing about the fault.
        let duration = self.request.injection.duration.unwrap_or_default();
        let is_late = self.asked.elapsed() > duration.0.saturating_add(END_GRACE);
        let no_longer = |effect: &Effect| self.acted && !effect.acts && !is_late;
        let what = match (ended.cause, &ended.effect) {
            (Cause::Failed, _) if self.was_injected => "ended before its time",
            (Cause::Finished, Some(effect)) if no_longer(effect) => "no longer acted when it ended",
            _ => return 0,
        };
        let seen = ended.effect.as_ref().map(|effect| effect.seen.as_str());
        say!(
            "error: {} {what}: {}",
            ended.injection,
            seen.unwrap_or("its last effect is unknown")
        );
        exit_code::FAULT_FAILED
    }

    /// Handles the end of the connection. The guardian's exit code says whether everything is reverted.
    fn handle_agent_exit(&mut self) -> std::io::Result<u8> {
        let status = match wait_for_exit(&self.host, self.state, &mut self.agent)? {
            AgentExit::Exited(status) => status,
            AgentExit::Hung(hung) => return self.report_hung_agent(&hung),
        };
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        match (&self.ended, code) {
            // An end was reported, but no refusal followed: the fault was never injected completely.
            (_, Some(0)) => {
                say!("error: the agent died; everything that it had done was reverted");
                Ok(exit_code::ABORTED)
            }
            (None, Some(exit_code::NOT_CLEAN)) => {
                say!(
                    "error: the agent died, and not everything that it had done is known to be reverted\nhint: `status` shows what is owed"
                );
                Ok(exit_code::NOT_CLEAN)
            }
            // The arguments and the policy are valid, so the agent could not start, and has reported why.
            (None, Some(exit_code::INVALID)) if !self.was_injected => Ok(exit_code::NOT_STARTED),
            (_, Some(code)) => Ok(code),
            // The worker notices that its guardian died and reverts everything; the ledger shows whether it has.
            (_, None) => match self.guardian {
                Some(guardian) => {
                    say!("error: the agent's guardian died");
                    let left = revert_for_guardian(&self.host, self.state, guardian)?;
                    self.report_reverted(&left)
                }
                None => {
                    say!(
                        "error: the agent and its guardian died\nhint: `revert --all` reverts what they owe"
                    );
                    Ok(exit_code::NOT_CLEAN)
                }
            },
        }
    }

    /// Reports that the agent hung and was killed, and how reverting what it owed ended.
    fn report_hung_agent(&self, hung: &HungAgentOutcome) -> std::io::Result<u8> {
        say!("error: the agent hung and was killed; what it owed is reverted now");
        self.report_reverted(hung)
    }

    fn report_reverted(&self, agent: &HungAgentOutcome) -> std::io::Result<u8> {
        for ended in &agent.ended {
            self.show(&Report::Ended(ended.clone()))?;
        }
        output::owed(&agent.owed, self.revert);
        Ok(if agent.is_clean() {
            exit_code::ABORTED
        } else {
            exit_code::NOT_CLEAN
        })
    }

    /// Prints a report, as text or as a line of JSON.
    fn show(&self, report: &Report) -> std::io::Result<()> {
        if self.request.json {
            output::print(&(serde_json::to_string(report)? + "\n"));
        } else {
            output::report(report, self.revert);
        }
        Ok(())
    }

    fn send(&mut self, command: &Command) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        match self.reader.get_mut().write_all(&line) {
            // It has exited; reading from it says how.
            Err(error)
                if matches!(
                    error.kind(),
                    // An agent that does not read is noticed by its silence.
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::WouldBlock
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}
