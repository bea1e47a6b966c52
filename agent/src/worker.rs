//! The process that injects faults. Its own thread owns deadlines, leases and the connection, and has one `poll`, on the controller
//! (standard input), the guardian (standard output), signals, completions of other threads, answers of children, and the next deadline.
//! It wakes for nothing else and waits for nothing else, and it always ends in the same way: everything is reverted, then it exits.

mod child_tasks;
mod commands;

use crate::child_task::ChildTask;
use crate::children::Children;
use crate::controller_socket::{ControllerSocket, IncomingCommand};
use crate::engine::{Engine, revert_matching};
use crate::heartbeat::{Heartbeat, PeerState};
use crate::host::{self, Host, HostRole, Invocation, timespec};
use crate::ledger::{Ledger, LedgerCopy, Owner, boot_id};
use crate::local_abort_rules::LocalAbortRules;
use crate::metrics::Metrics;
use crate::packet_filter::ControlConnection;
use crate::plugins::PluginRegistry;
use crate::policy::HostPolicy;
use crate::processes::ProcessId;
use backburn_experiments::HumanDuration;
use backburn_experiments::protocol::PROTOCOL;
use backburn_experiments::wire::{Cause, Command, Hello, ProbeOutcome, Refusal, Report};
use child_tasks::ChildPurpose;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the first heartbeat may take. Every heartbeat says how long the next one may take.
pub const FIRST_LEASE: HumanDuration = HumanDuration::seconds(10);

/// The share of the lease within which the controller must be heard after an injection, since the fault may have cut the connection. A
/// controller sends a heartbeat every third of the lease, so two in a row are missed then.
const PROOF_SHARE: f64 = 0.75;

/// How long without a command until a worker counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// How long reverting everything may take when the worker ends. The guardian waits a little longer.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long measuring a metric of the host that is read from a path may take.
const METRIC_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker is started with.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The state folder, which contains the ledger.
    pub state: PathBuf,
    /// The policy file, if it is not at its usual place.
    pub policy: Option<PathBuf>,
    /// The name that the agent reports to the controller.
    pub name: String,
    /// The labels that were given.
    pub labels: BTreeMap<String, String>,
    /// The connection to the controller, if the connector process holds it.
    pub spare: Option<ControlConnection>,
    /// Whether that connection goes through a proxy.
    pub through_proxy: bool,
    /// The descriptor number, in the guardian's process, of the memory in which it keeps a copy of what is owed.
    pub ledger_copy: Option<i32>,
}

/// Serves the controller on standard input until it says goodbye or disconnects, or the guardian dies. Returns whether nothing of this
/// worker's is owed.
///
/// # Errors
/// The worker could not start; nothing was changed.
pub fn run(
    config: &WorkerConfig,
    invocation: Invocation,
) -> Result<bool, Box<dyn std::error::Error>> {
    let host = Host::new(HostRole::Worker, invocation);
    let policy = HostPolicy::load(config.policy.as_deref())?;
    let copy = config.ledger_copy.map(LedgerCopy::of_parent);
    let ledger = Ledger::open(&host, &config.state)?.copied_to(copy.and_then(Result::ok));
    let owner = owner(&host)?;

    // What dead agents owe is reverted before any new work.
    let mut heartbeat = Heartbeat::default();
    let (recovery_host, recovery_ledger) = (host.for_thread(), ledger.clone());
    let recover = move || {
        revert_matching(
            &recovery_host,
            &recovery_ledger,
            // An entry whose owner cannot be seen from here is reported by `owed` instead.
            |entry| entry.is_abandoned(&recovery_host.table).unwrap_or(false),
            Cause::AgentDied,
        )
    };
    let (recovered, _) = heartbeat
        .beat_during(rustix::stdio::stdout(), recover)
        .map_err(|_| "what dead agents owe could not be reverted: a thread failed")?;
    let (plugin_host, plugin_state, plugin_policy) =
        (host.for_thread(), config.state.clone(), policy.clone());
    let load = move || PluginRegistry::load(&plugin_host, &plugin_state, &plugin_policy);
    let plugins = heartbeat
        .beat_during(rustix::stdio::stdout(), load)
        .map_err(|_| "the plug-ins could not be loaded: a thread failed")?;
    let link = ControlConnection::of(rustix::stdio::stdin()).or(config.spare);
    let guardian = owner.guardian;
    crate::user_signals::ignore()?;
    // Blocked before any thread is started, so that no other thread receives a signal that is to be read here.
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let state = config.state.clone();
    let engine = Engine::start(host, ledger, state, (policy, plugins), owner, link)?;
    let hello = Hello {
        agent: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        labels: config.labels.clone(),
        faults: (crate::faults::FAULTS.iter().map(|fault| fault.name))
            .chain((engine.plugins().usable()).map(|plugin| plugin.declaration.name.as_str()))
            .map(str::to_owned)
            .collect(),
        recovered,
        owed: engine.owed(),
        held: engine.held_by_others(),
        answers_heartbeats: true,
        protocol: Some(PROTOCOL),
        through_proxy: config.through_proxy,
        boot: boot_id().ok(),
    };

    let mut worker = Worker {
        engine,
        link: ControllerSocket::new(rustix::stdio::stdin()),
        signals,
        lease: Instant::now() + FIRST_LEASE.0,
        lease_length: FIRST_LEASE,
        proof_deadline: None,
        watches: BTreeMap::new(),
        metrics: Metrics::default(),
        last_command_at: Instant::now(),
        is_memory_released: false,
        children: Children::default(),
        probe_results: VecDeque::new(),
        unknown_messages: BTreeSet::new(),
        heartbeat,
        guardian,
        state: config.state.clone(),
    };
    // Before the controller hears of this worker: the guardian learns whether to expect heartbeats.
    worker.process_engine_output();
    worker.link.send(&Report::Hello(hello));
    Ok(worker.run_until_end())
}

/// This worker and its guardian, which answer for what it injects.
fn owner(host: &Host) -> std::io::Result<Owner> {
    // A process table that does not show this process correctly cannot name an owner.
    host.table.check_visibility()?;
    let identify = |pid| {
        host.table
            .identify(pid)
            .ok_or_else(|| std::io::Error::other(format!("/proc has no process {pid}")))
    };
    Ok(Owner {
        boot: boot_id()?,
        worker: identify(std::process::id() as i32)?,
        guardian: identify(std::os::unix::process::parent_id() as i32)?,
    })
}

struct Worker {
    engine: Engine,
    link: ControllerSocket<BorrowedFd<'static>>,
    signals: SignalFd,
    /// When everything is reverted unless a heartbeat arrives.
    lease: Instant,
    /// The length of the lease that the last heartbeat granted.
    lease_length: HumanDuration,
    /// When everything is reverted unless anything is heard from the controller: the last injection may have cut the connection.
    proof_deadline: Option<Instant>,
    /// The abort rules that are watched here, by run.
    watches: BTreeMap<String, LocalAbortRules>,
    metrics: Metrics,
    /// When the controller's last command arrived, heartbeats left out.
    last_command_at: Instant,
    /// Whether free memory was returned to the system since.
    is_memory_released: bool,
    children: Children<ChildPurpose>,
    /// The outcomes of probes that are still to be sent, each with the number of its command.
    probe_results: VecDeque<(u64, ProbeOutcome)>,
    /// The kinds of messages that this version does not know and that were logged.
    unknown_messages: BTreeSet<String>,
    heartbeat: Heartbeat,
    guardian: ProcessId,
    /// The state folder, for examining the host.
    state: PathBuf,
}

/// What the worker woke for.
#[derive(Default)]
struct PollReadiness {
    link: bool,
    guardian: bool,
    signals: bool,
    engine: bool,
    /// The numbers of the children whose output is readable.
    children: Vec<usize>,
}

impl Worker {
    /// Runs until something ends the worker, and reverts everything. Returns whether nothing is owed.
    fn run_until_end(&mut self) -> bool {
        let cause = loop {
            if let Some(cause) = self.step() {
                break cause;
            }
        };
        self.end(cause);
        self.link.flush(Duration::from_secs(1));
        let is_clean = self.engine.owed().is_empty();
        // A guardian that hangs would stay, and whoever waits for the agent's end waits for its guardian.
        if !self.heartbeat.is_gone() && !self.heartbeat.is_answered(rustix::stdio::stdout()) {
            self.kill_guardian();
        }
        is_clean
    }

    fn kill_guardian(&self) {
        tracing::error!("the guardian does not answer and is killed");
        let kill = rustix::process::Signal::KILL;
        if let Err(error) = self.engine.host().signal(self.guardian, kill) {
            tracing::error!(%error, "the guardian could not be killed");
        }
    }

    /// Reverts everything, within [`SHUTDOWN_TIMEOUT`]. The guardian reverts what is left.
    fn end(&mut self, cause: Cause) {
        self.engine.end_all(None, cause);
        // Nobody needs these answers any more.
        self.children.cancel(self.engine.host(), |_| true);
        let until = Instant::now() + SHUTDOWN_TIMEOUT;
        while !self.engine.is_idle() && Instant::now() < until {
            self.process_engine_output();
            match self.wait(Some(until), false) {
                Ok(readiness) => {
                    let now = Instant::now();
                    // The worker is ending already, so further reasons to end do not matter.
                    self.check_guardian(&readiness, now);
                    self.take_signals();
                    self.engine.handle_completions(now);
                    self.engine.tick(now);
                }
                Err(error) => {
                    tracing::error!(%error, "waiting for events failed");
                    break;
                }
            }
        }
        self.process_engine_output();
    }

    /// Waits for one event and handles it. Returns the cause if the worker is to end.
    fn step(&mut self) -> Option<Cause> {
        self.process_engine_output();
        self.forward_results();
        let readiness = match self.wait(None, true) {
            Ok(readiness) => readiness,
            Err(error) => {
                tracing::error!(%error, "waiting for events failed");
                return Some(Cause::Shutdown);
            }
        };
        let now = Instant::now();
        if let Some(cause) = self.check_guardian(&readiness, now) {
            return Some(cause);
        }
        if readiness.signals
            && let Some(cause) = self.take_signals()
        {
            return Some(cause);
        }
        // Deadlines go before commands: no revert may wait behind a busy connection.
        if readiness.engine {
            self.engine.handle_completions(now);
        }
        self.tick(now);
        let host = self.engine.host();
        let mut answers = self.children.read_ready(host, &readiness.children);
        answers.extend(self.children.kill_overdue(host, now));
        for (purpose, answer) in answers {
            self.handle_answer(purpose, answer, now);
        }
        if readiness.link {
            return self.take_commands();
        }
        None
    }

    /// Sends the engine's reports, starts its tasks, and tells the guardian whether to expect heartbeats.
    fn process_engine_output(&mut self) {
        for report in self.engine.take_reports() {
            if matches!(report, Report::Injected { .. }) {
                self.proof_deadline =
                    Some(Instant::now() + self.lease_length.0.mul_f64(PROOF_SHARE));
            }
            self.link.send(&report);
        }
        for (task, timeout, purpose) in self.engine.take_tasks() {
            let task = ChildTask::Engine(task);
            self.start_task(&task, timeout, ChildPurpose::Engine(purpose));
        }
        let engine = &self.engine;
        self.children.cancel(
            engine.host(),
            |purpose| matches!(purpose, ChildPurpose::Engine(purpose) if engine.is_stale(purpose)),
        );
        let is_busy = !self.engine.is_idle();
        let now = Instant::now();
        self.heartbeat.beat(rustix::stdio::stdout(), is_busy, now);
    }

    /// Handles what the guardian sends. Returns the cause if it is dead, hangs, or tells this worker to end.
    fn check_guardian(&mut self, readiness: &PollReadiness, now: Instant) -> Option<Cause> {
        let stdout = rustix::stdio::stdout();
        match self.heartbeat.check(stdout, readiness.guardian, now) {
            PeerState::Alive => None,
            PeerState::Gone => Some(Cause::Shutdown),
            PeerState::Hung => {
                self.kill_guardian();
                Some(Cause::AgentDied)
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.engine.tick(now);
        if self.engine.is_idle() {
            return;
        }
        if now >= self.lease
            || self
                .proof_deadline
                .is_some_and(|proof_deadline| now >= proof_deadline)
        {
            self.proof_deadline = None;
            return self.engine.end_all(None, Cause::LeaseExpired);
        }
        let mut struck = Vec::new();
        let mut child_tasks = Vec::new();
        for (run, local_abort_rules) in &mut self.watches {
            // A run without active injections has nothing that a rule could end.
            if !self.engine.acts_for(run) {
                continue;
            }
            for (rule, task) in local_abort_rules.due_from_paths(now) {
                let purpose = ChildPurpose::Rule {
                    run: run.clone(),
                    rule,
                };
                child_tasks.push((task, purpose));
            }
            if let Some((rule, seen)) = local_abort_rules.strike(&mut self.metrics, now) {
                struck.push((run.clone(), rule, seen));
            }
        }
        // These rules are evaluated when their values arrive.
        for (task, purpose) in child_tasks {
            self.start_task(&task, METRIC_TIMEOUT, purpose);
        }
        for (run, rule, seen) in struck {
            self.link.send(&Report::AbortRuleTriggered {
                run: run.clone(),
                rule,
                seen,
            });
            self.engine.end_all(Some(&run), Cause::AbortRule);
        }
    }

    /// When to wake although nothing happens: never while nothing is active and nothing is being measured.
    fn next_due(&self) -> Option<Instant> {
        let mut due = [
            self.engine.next_due(),
            self.children.next_due(),
            self.heartbeat.next_due(),
        ];
        if self.engine.is_idle() {
            return due.into_iter().flatten().min();
        }
        let watches = self.watches.iter();
        let watched = watches
            .filter(|(run, _)| self.engine.acts_for(run))
            .filter_map(|(_, local_abort_rules)| local_abort_rules.next_due())
            .min();
        due.iter_mut()
            .filter_map(|due| *due)
            .chain([self.lease])
            .chain(self.proof_deadline)
            .chain(watched)
            .min()
    }

    /// Waits until something happens, at the latest until `until`. The controller's commands are ignored unless `with_link` is set.
    fn wait(&self, until: Option<Instant>, with_link: bool) -> std::io::Result<PollReadiness> {
        let due = self.next_due().into_iter().chain(until).min();
        let timeout = due.map(|due| timespec(due.saturating_duration_since(Instant::now())));
        let stdin = rustix::stdio::stdin();
        let stdout = rustix::stdio::stdout();
        let mut link_wants = PollFlags::IN;
        link_wants.set(PollFlags::IN, with_link);
        link_wants.set(PollFlags::OUT, self.link.has_unsent());
        let mut guardian_wants = PollFlags::empty();
        guardian_wants.set(PollFlags::IN, !self.heartbeat.is_gone());
        // The kernel always reports a hang-up, so a descriptor that no longer matters is left out.
        let nobody = self.engine.completions();
        let mut fds = vec![
            match with_link {
                true => PollFd::new(&stdin, link_wants),
                false => PollFd::from_borrowed_fd(nobody, PollFlags::IN),
            },
            match self.heartbeat.is_gone() {
                false => PollFd::new(&stdout, guardian_wants),
                true => PollFd::from_borrowed_fd(nobody, PollFlags::IN),
            },
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.engine.completions(), PollFlags::IN),
        ];
        let outputs = self.children.outputs();
        fds.extend(outputs.map(|output| PollFd::from_borrowed_fd(output, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
                let own = [0, 1, 2, 3].map(|own| fds.get(own).is_some_and(is_ready));
                let [link, guardian, signals, engine] = own;
                let children = fds.iter().skip(own.len()).enumerate();
                let children = children.filter(|(_, fd)| is_ready(fd));
                Ok(PollReadiness {
                    link: link && with_link,
                    guardian: guardian && !self.heartbeat.is_gone(),
                    signals,
                    engine,
                    children: children.map(|(number, _)| number).collect(),
                })
            }
            Err(rustix::io::Errno::INTR) => Ok(PollReadiness::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_signals(&mut self) -> Option<Cause> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGCHLD as u32 {
                self.engine.observe_all(Instant::now());
            } else {
                return Some(Cause::Shutdown);
            }
        }
        None
    }

    fn take_commands(&mut self) -> Option<Cause> {
        self.link.send_unsent();
        loop {
            match self.link.receive() {
                IncomingCommand::Nothing => return None,
                IncomingCommand::Closed => return Some(Cause::ConnectionClosed),
                IncomingCommand::Malformed(error) => {
                    // A peer that does not follow the protocol cannot be trusted to end a fault.
                    tracing::error!(error, "the controller sent an invalid message");
                    return Some(Cause::ConnectionClosed);
                }
                IncomingCommand::Unknown(message, why) => self.answer_unknown(message, &why),
                IncomingCommand::Command(Command::Shutdown) => {
                    return Some(Cause::ControllerRequest);
                }
                IncomingCommand::Command(Command::Refused { refusal }) => {
                    tracing::error!(%refusal, "the controller does not serve this agent");
                    return Some(Cause::ConnectionClosed);
                }
                IncomingCommand::Command(Command::Welcome { protocol, version }) => {
                    if !PROTOCOL.has(protocol) {
                        tracing::error!(
                            protocol,
                            version,
                            "the controller chose a version of the protocol that this agent does not speak: upgrade the older of the two"
                        );
                        return Some(Cause::ConnectionClosed);
                    }
                    tracing::debug!(protocol, version, "the controller serves this agent");
                }
                IncomingCommand::Command(command) => self.handle_command(command),
            }
            self.process_engine_output();
        }
    }

    /// Returns free memory to the system if no command has arrived for a while. A heartbeat is what wakes an idle worker.
    fn release_memory_when_idle(&mut self) {
        if !self.is_memory_released
            && self.engine.is_idle()
            && self.last_command_at.elapsed() > IDLE_AFTER
        {
            host::settle();
            self.is_memory_released = true;
        }
    }
}

/// The refusal of `serve` without a controller on standard input.
pub fn no_controller_socket() -> Refusal {
    Refusal::new(
        "link",
        "`serve` talks to a controller over a socket on its standard input, and standard input is not a socket",
    )
    .hint("to inject by hand, use `backburn-agent inject`; `backburn run` starts its own agent")
}
