//! The process that injects. One thread, one `poll`: the link to the controller on standard
//! input, the guardian's lifeline on standard output, signals, and the next thing that is due.
//! It wakes for nothing else, and ends in one way only: everything reverted, then gone.

use crate::engine::{Engine, NotInjected, revert_dead};
use crate::filter::Connection;
use crate::host::{self, Host, Invocation, Role};
use crate::ledger::{Ledger, Owner, boot_id};
use crate::link::{Link, Received};
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::probes::Probes;
use crate::watch::Watch;
use backburn_experiments::Span;
use backburn_experiments::wire::{Cause, Command, Hello, Refusal, Report};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the first beat may take; after that, each beat says how long the next one may.
pub const FIRST_LEASE: Span = Span::seconds(10);

/// The share of the lease in which something must be heard after an injection. A controller beats each third of it, so two
/// beats in a row are missed then.
const PROOF: f64 = 0.75;

/// How long nothing is asked of a worker until it counts as at rest.
const RESTS_AFTER: Duration = Duration::from_secs(1);

/// What a worker is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state folder, with the ledger in it.
    pub state: PathBuf,
    /// The policy's file, if not at its usual place.
    pub policy: Option<PathBuf>,
    /// The agent's name.
    pub name: String,
    /// Labels that were given.
    pub labels: BTreeMap<String, String>,
    /// The connection to the controller, where another process of ours holds it.
    pub spare: Option<Connection>,
}

/// Serves the controller on standard input until it says goodbye, goes away, or the guardian
/// dies. Returns whether nothing of ours is owed.
///
/// # Errors
/// It could not start; nothing was touched.
pub fn run(
    settings: &Settings,
    invocation: Invocation,
) -> Result<bool, Box<dyn std::error::Error>> {
    let host = Host::new(Role::Worker, invocation);
    let policy = Policy::load(settings.policy.as_deref())?;
    let ledger = Ledger::open(&host, &settings.state)?;
    let owner = owner(&host)?;

    // Ledger first, work after.
    let (recovered, _) = revert_dead(
        &host,
        &ledger,
        |entry| entry.owner.is_dead(&host.table),
        Cause::Died,
    );
    let link = Connection::of(rustix::stdio::stdin()).or(settings.spare);
    let engine = Engine::new(host, ledger, policy, owner).sparing(link);
    let hello = Hello {
        agent: settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        labels: settings.labels.clone(),
        faults: crate::faults::FAULTS
            .iter()
            .map(|fault| fault.name.to_owned())
            .collect(),
        recovered,
        owed: engine.owed(),
        held: engine.held_by_others(),
    };

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

    let mut worker = Worker {
        engine,
        link: Link::new(rustix::stdio::stdin()),
        signals,
        lease: Instant::now() + FIRST_LEASE.0,
        lasts: FIRST_LEASE,
        proof: None,
        watches: BTreeMap::new(),
        metrics: Metrics::default(),
        busy: Instant::now(),
        settled: false,
        probes: Probes::default(),
        state: settings.state.clone(),
    };
    worker.link.say(&Report::Hello(hello));
    Ok(worker.serve())
}

/// Us and our guardian, who answer for what we inject.
fn owner(host: &Host) -> std::io::Result<Owner> {
    let identify = |pid| {
        host.table
            .identify(pid)
            .ok_or_else(|| std::io::Error::other(format!("/proc has no process {pid}")))
    };
    Ok(Owner {
        boot: boot_id(),
        worker: identify(std::process::id() as i32)?,
        guardian: identify(std::os::unix::process::parent_id() as i32)?,
    })
}

struct Worker {
    engine: Engine,
    link: Link<BorrowedFd<'static>>,
    signals: SignalFd,
    /// When everything is put back unless a beat comes.
    lease: Instant,
    /// How long the last beat said that the next one may take.
    lasts: Span,
    /// When everything is put back unless anything at all is heard: what was just injected may have cut us off.
    proof: Option<Instant>,
    /// What is watched for each run.
    watches: BTreeMap<String, Watch>,
    metrics: Metrics,
    /// When something was last asked of us.
    busy: Instant,
    /// Whether pages were given back since.
    settled: bool,
    probes: Probes,
    /// The state folder.
    state: PathBuf,
}

/// What woke the worker.
#[derive(Default)]
struct Woken {
    link: bool,
    lifeline: bool,
    signals: bool,
    /// Which probes have something to say.
    probes: Vec<usize>,
}

impl Worker {
    /// Until the end, whatever brings it.
    fn serve(&mut self) -> bool {
        let cause = loop {
            if let Some(cause) = self.turn() {
                break cause;
            }
        };
        self.revert_all(None, cause);
        self.link.flush(Duration::from_secs(1));
        self.engine.owed().is_empty()
    }

    /// Waits for one thing and does it. Some cause, when it is to end.
    fn turn(&mut self) -> Option<Cause> {
        self.hand_on();
        let woken = match self.wait() {
            Ok(woken) => woken,
            Err(error) => {
                tracing::error!(%error, "nothing can be waited for any more");
                return Some(Cause::Shutdown);
            }
        };
        if woken.lifeline {
            // The guardian is dead, or tells us to end.
            return Some(Cause::Shutdown);
        }
        if woken.signals
            && let Some(cause) = self.take_signals()
        {
            return Some(cause);
        }
        // What is due goes before what is asked: an end must not wait behind a busy link.
        let now = Instant::now();
        self.tick(now);
        self.probes.take(&woken.probes);
        self.probes.tick(self.engine.place().0, now);
        if woken.link {
            return self.take_commands();
        }
        None
    }

    /// Hands on what was measured, one answer after the other: many at once could be more than may wait on the link.
    fn hand_on(&mut self) {
        while !self.link.has_unsent()
            && let Some((request, outcome)) = self.probes.answer()
        {
            self.link.say(&Report::Probed { request, outcome });
        }
    }

    fn tick(&mut self, now: Instant) {
        for report in self.engine.tick(now) {
            self.link.say(&report);
        }
        if self.engine.is_idle() {
            return;
        }
        if now >= self.lease || self.proof.is_some_and(|proof| now >= proof) {
            self.proof = None;
            return self.revert_all(None, Cause::Lease);
        }
        let mut struck = Vec::new();
        for (run, watch) in &mut self.watches {
            // A run of which nothing acts has nothing to be ended.
            if self.engine.acts_for(run)
                && let Some((rule, seen)) = watch.strike(&mut self.metrics, now)
            {
                struck.push((run.clone(), rule, seen));
            }
        }
        for (run, rule, seen) in struck {
            self.link.say(&Report::Struck {
                run: run.clone(),
                rule,
                seen,
            });
            self.revert_all(Some(&run), Cause::Rule);
        }
    }

    fn revert_all(&mut self, run: Option<&str>, cause: Cause) {
        for ended in self.engine.revert_all(run, cause) {
            self.link.say(&Report::Ended(ended));
        }
    }

    /// When to wake without being woken: never while nothing acts and nothing is measured.
    fn next_due(&self) -> Option<Instant> {
        let watches = self.watches.iter();
        let watched = watches
            .filter(|(run, _)| self.engine.acts_for(run))
            .filter_map(|(_, watch)| watch.next_due())
            .min();
        let acting = self.engine.next_due().map(|engine| {
            [Some(self.lease), self.proof, watched]
                .into_iter()
                .flatten()
                .fold(engine, Instant::min)
        });
        acting.into_iter().chain(self.probes.next_due()).min()
    }

    fn wait(&self) -> std::io::Result<Woken> {
        let timeout = self.next_due().map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let stdin = rustix::stdio::stdin();
        let stdout = rustix::stdio::stdout();
        let mut link_wants = PollFlags::IN;
        if self.link.has_unsent() {
            link_wants |= PollFlags::OUT;
        }
        let mut fds = vec![
            PollFd::new(&stdin, link_wants),
            PollFd::new(&stdout, PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let outputs = self.probes.outputs();
        fds.extend(outputs.map(|output| PollFd::from_borrowed_fd(output, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
                let own = [0, 1, 2].map(|own| fds.get(own).is_some_and(is_ready));
                let [link, lifeline, signals] = own;
                let probes = fds.iter().skip(own.len()).enumerate();
                let probes = probes.filter(|(_, fd)| is_ready(fd));
                Ok(Woken {
                    link,
                    lifeline,
                    signals,
                    probes: probes.map(|(number, _)| number).collect(),
                })
            }
            Err(rustix::io::Errno::INTR) => Ok(Woken::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_signals(&mut self) -> Option<Cause> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGCHLD as u32 {
                for report in self.engine.look_again(Instant::now()) {
                    self.link.say(&report);
                }
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
                Received::Nothing => return None,
                Received::Closed => return Some(Cause::Link),
                Received::Nonsense(error) => {
                    // Whoever does not speak our language is not a controller that could be trusted to end a fault.
                    tracing::error!(error, "the controller said what can't be understood");
                    return Some(Cause::Link);
                }
                Received::Command(Command::Goodbye) => return Some(Cause::Asked),
                Received::Command(command) => self.obey(command),
            }
        }
    }

    /// Gives pages back where nothing was asked of us for a while: a beat is what wakes us at rest.
    fn settle(&mut self) {
        if !self.settled && self.engine.is_idle() && self.busy.elapsed() > RESTS_AFTER {
            host::settle();
            self.settled = true;
        }
    }

    fn obey(&mut self, command: Command) {
        // We hear our controller.
        self.proof = None;
        if !matches!(command, Command::Beat { .. }) {
            self.busy = Instant::now();
            self.settled = false;
        }
        match command {
            Command::Beat { lease } => {
                self.lasts = lease;
                self.lease = Instant::now() + lease.0;
                self.settle();
            }
            Command::Plan { request, injection } => {
                let report = match self.engine.plan(&injection) {
                    Ok(plan) => Report::Planned { request, plan },
                    Err(refusal) => Report::Refused { request, refusal },
                };
                self.link.say(&report);
            }
            Command::Inject { request, injection } => {
                let id = injection.id.clone();
                match self.engine.inject(&injection) {
                    Ok(plan) => {
                        self.link.say(&Report::Injected {
                            request,
                            injection: id,
                            plan,
                        });
                        self.proof = Some(Instant::now() + self.lasts.0.mul_f64(PROOF));
                    }
                    Err(NotInjected { refusal, ended }) => {
                        if let Some(ended) = ended {
                            self.link.say(&Report::Ended(*ended));
                        }
                        self.link.say(&Report::Refused { request, refusal });
                    }
                }
            }
            Command::Revert { injection } => {
                if let Some(ended) = self.engine.revert(&injection, Cause::Asked) {
                    self.link.say(&Report::Ended(ended));
                }
            }
            Command::RevertAll { request, run } => {
                self.revert_all(run.as_deref(), Cause::Asked);
                let owed = self.engine.owed();
                let held = self.engine.held_by_others();
                self.link.say(&Report::AllReverted {
                    request,
                    owed,
                    held,
                });
            }
            Command::Measure { request, metric } => {
                let value = self
                    .metrics
                    .measure(metric.metric, metric.path.as_deref())
                    .map_err(|error| error.to_string());
                self.link.say(&Report::Measured { request, value });
            }
            Command::Probe {
                request,
                provider,
                timeout,
            } => {
                let (host, policy) = self.engine.place();
                self.probes.start(host, policy, request, provider, timeout);
            }
            Command::Examine { request } => {
                let is_idle = self.engine.is_idle();
                let host = self.engine.place().0;
                self.probes.examine(host, request, &self.state, is_idle);
            }
            Command::Describe { request } => {
                let faults = crate::faults::FAULTS
                    .iter()
                    .map(crate::faults::Fault::describe)
                    .collect();
                self.link.say(&Report::Described { request, faults });
            }
            Command::Watch { run, rules } if rules.is_empty() => drop(self.watches.remove(&run)),
            Command::Watch { run, rules } => drop(self.watches.insert(run, Watch::new(rules))),
            // Taken by the caller: it ends the loop.
            Command::Goodbye => {}
        }
    }
}

/// What a person is told when there is nobody to serve.
pub fn not_a_link() -> Refusal {
    Refusal::new(
        "link",
        "`serve` speaks to a controller over a socket on its standard input, and there is none",
    )
    .hint("`backburn-agent inject` injects by hand; `backburn run` starts its own agent")
}
