//! What every part of the controller may ask of an agent, over one connection.

use super::line;
use super::requests::{PendingRequests, locked};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::{HostProvider, Provider};
use backburn_experiments::suggest::SeenService;
use backburn_experiments::wire::{
    Command, FaultDescription, InjectionId, InjectionRequest, PlanView, ProbeOutcome, Refusal,
    Report, UnrevertedInjection,
};
use jiff::Timestamp;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

/// The reason that a request failed because of the connection.
const NO_ANSWER: &str = "the agent does not answer any more";

/// Sends commands to an agent and awaits its answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    /// Lines to send, or `None` to close the sending side. Commands are encoded before they are queued: a queued line takes
    /// less memory than a command.
    pub(super) lines: mpsc::UnboundedSender<Option<Arc<[u8]>>>,
    pub(super) pending: Arc<Mutex<PendingRequests>>,
    pub(super) liveness: Arc<Liveness>,
}

/// What is known of whether the agent at the other end lives.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// The number of the last request.
    last_request: AtomicU64,
    /// How many times something was received.
    pub(super) received: AtomicU64,
    /// When something was last received, in milliseconds since 1970.
    pub(super) heard: AtomicI64,
    /// Whether the agent has said that it answers heartbeats.
    pub(super) answers_heartbeats: AtomicBool,
    /// Whether the agent does not answer.
    pub(super) unresponsive: AtomicBool,
}

impl AgentHandle {
    /// Queues a command. If the connection is closed, that is reported as an event and not here.
    pub fn send(&self, command: Command) {
        let Some(line) = line(&command) else { return };
        let mut pending = locked(&self.pending);
        if matches!(command, Command::Inject { .. }) {
            pending.injection_requested();
        }
        // Under the lock, so that what was sent first is also known to be so.
        self.lines.send(Some(line)).ok();
    }

    /// Closes the sending side, which the agent notices. What it still reports is received.
    pub fn close(&self) {
        self.lines.send(None).ok();
    }

    /// A new request number, which comes back with the answer.
    pub fn next_request_id(&self) -> u64 {
        self.liveness.last_request.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the agent is connected and has sent nothing for a lease, although it was asked.
    pub fn is_unresponsive(&self) -> bool {
        self.liveness.unresponsive.load(Ordering::Relaxed)
    }

    /// Whether the agent has said that it answers heartbeats.
    pub(crate) fn answers_heartbeats(&self) -> bool {
        self.liveness.answers_heartbeats.load(Ordering::Relaxed)
    }

    /// Asks the agent for a sign of life now. Returns false if it does not answer heartbeats, so that silence proves nothing.
    pub(crate) fn request_heartbeat(&self, lease: HumanDuration) -> bool {
        let answer = self.liveness.answers_heartbeats.load(Ordering::Relaxed);
        if answer {
            self.send(Command::Heartbeat { lease, answer });
        }
        answer
    }

    /// How many times something was received from the agent.
    pub(crate) fn messages_received(&self) -> u64 {
        self.liveness.received.load(Ordering::Relaxed)
    }

    /// When something was last received from the agent; the time at which it connected if nothing was.
    pub fn last_heard(&self) -> Timestamp {
        let heard = self.liveness.heard.load(Ordering::Relaxed);
        Timestamp::from_millisecond(heard).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Measures a metric of the agent's host.
    ///
    /// # Errors
    /// The agent could not measure it, or does not answer.
    pub async fn measure(&self, metric: HostProvider) -> Result<f64, String> {
        let request = self.next_request_id();
        let command = Command::Measure { request, metric };
        match self.request(request, command).await {
            Some(Report::Measured { value, .. }) => value,
            Some(Report::Refused { refusal, .. }) => Err(refusal.to_string()),
            _ => Err(NO_ANSWER.into()),
        }
    }

    /// Runs a probe from the agent's host.
    pub async fn probe(&self, provider: Provider, timeout: Option<HumanDuration>) -> ProbeOutcome {
        let request = self.next_request_id();
        let command = Command::Probe {
            request,
            provider,
            timeout,
        };
        match self.request(request, command).await {
            Some(Report::Probed { outcome, .. }) => outcome,
            Some(Report::Refused { refusal, .. }) => ProbeOutcome::Broken(refusal.to_string()),
            _ => ProbeOutcome::Broken(NO_ANSWER.into()),
        }
    }

    /// Plans an injection: what it would do, without touching anything.
    ///
    /// # Errors
    /// The agent's refusal; its rule is `agent` if the agent does not answer.
    pub async fn plan(&self, injection: InjectionRequest) -> Result<PlanView, Refusal> {
        let request = self.next_request_id();
        let command = Command::Plan { request, injection };
        match self.request(request, command).await {
            Some(Report::Planned { plan, .. }) => Ok(plan),
            Some(Report::Refused { refusal, .. }) => Err(refusal),
            _ => Err(Refusal::new("agent", NO_ANSWER)),
        }
    }

    /// Examines what the agent's host can do and what is missing: a list of findings.
    pub async fn examine(&self) -> ProbeOutcome {
        let request = self.next_request_id();
        match self.request(request, Command::Examine { request }).await {
            Some(Report::Probed { outcome, .. }) => outcome,
            Some(Report::Refused { refusal, .. }) => ProbeOutcome::Broken(refusal.to_string()),
            _ => ProbeOutcome::Broken(NO_ANSWER.into()),
        }
    }

    /// Lists the services of the agent's host that its policy does not protect.
    ///
    /// # Errors
    /// Why there is no list: the agent is too old, does not answer, or failed.
    pub async fn services(&self) -> Result<Vec<SeenService>, String> {
        let request = self.next_request_id();
        let command = Command::Services { request };
        match self.request(request, command).await {
            Some(Report::Probed { outcome, .. }) => match outcome {
                ProbeOutcome::Output(services) => {
                    serde_json::from_value(services).map_err(|error| error.to_string())
                }
                ProbeOutcome::NoAnswer(why) | ProbeOutcome::Broken(why) => Err(why),
            },
            Some(Report::Refused { refusal, .. }) => Err(refusal.to_string()),
            _ => Err(NO_ANSWER.into()),
        }
    }

    /// Describes the faults that the agent can inject. None if it does not answer.
    pub async fn describe(&self) -> Option<Vec<FaultDescription>> {
        let request = self.next_request_id();
        match self.request(request, Command::Describe { request }).await? {
            Report::Described { faults, .. } => Some(faults),
            _ => None,
        }
    }

    /// Has the agent revert everything of a run, and waits for that. Returns what could not be proved gone, and the
    /// injections that other agents of its host still hold. None if it does not answer.
    pub async fn revert_run(
        &self,
        run: &str,
    ) -> Option<(Vec<UnrevertedInjection>, Vec<InjectionId>)> {
        let (request, run) = (self.next_request_id(), Some(run.to_owned()));
        let command = Command::RevertAll { request, run };
        match self.request(request, command).await? {
            Report::AllReverted { owed, held, .. } => Some((owed, held)),
            _ => None,
        }
    }

    /// Has the agent revert everything of a run. Returns the number of the request whose answer
    /// ([`Report::AllReverted`]) comes as an event, after every report of an injection's end. A request to revert
    /// everything of every run that is not yet answered serves this one, too: nothing more is sent then.
    pub(crate) fn start_revert_run(&self, run: &str) -> u64 {
        if let Some(request) = locked(&self.pending).join_revert_all() {
            return request;
        }
        let (request, run) = (self.next_request_id(), Some(run.to_owned()));
        self.send(Command::RevertAll { request, run });
        request
    }

    /// Announces that [`start_revert_all`](Self::start_revert_all) follows, so that runs that are told to end in between
    /// wait for its answer instead of sending requests of their own.
    pub(crate) fn announce_revert_all(&self) {
        let request = self.next_request_id();
        locked(&self.pending).announce_revert_all(request);
    }

    /// Has the agent revert everything of every run. The receiver gets its answer, and fails if the agent does not answer.
    pub(crate) fn start_revert_all(&self) -> oneshot::Receiver<Report> {
        let (answer, answered) = oneshot::channel();
        let next = self.next_request_id();
        let mut pending = locked(&self.pending);
        // An unresponsive agent is to revert once it goes on; nobody waits for its answer.
        let answer = (!self.is_unresponsive()).then_some(answer);
        if let Some(request) = pending.revert_all(next, answer)
            && let Some(line) = line(&Command::RevertAll { request, run: None })
        {
            self.lines.send(Some(line)).ok();
        }
        answered
    }

    /// Sends a request and waits for its answer. None if the agent is unresponsive or the connection closes.
    async fn request(&self, request: u64, command: Command) -> Option<Report> {
        let answered = {
            let (answer, answered) = oneshot::channel();
            // Checked under the lock: whoever finds out that the agent is unresponsive ends all waits after that.
            let mut pending = locked(&self.pending);
            if !self.is_unresponsive() {
                pending.insert(request, answer);
            } else if !matches!(command, Command::RevertAll { .. }) {
                // An unresponsive agent is to revert once it goes on, and is asked nothing else.
                return None;
            }
            answered
        };
        self.send(command);
        answered.await.ok()
    }
}
