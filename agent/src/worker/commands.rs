//! The controller's commands, and what the worker does for each.

use super::Worker;
use crate::local_abort_rules::LocalAbortRules;
use crate::probes::ProbeJob;
use backburn_experiments::protocol::UnreadableMessage;
use backburn_experiments::wire::{Cause, Command, Refusal, Report};
use std::time::Instant;

/// How many kinds of unknown messages are logged.
const MAX_LOGGED_UNKNOWN: usize = 16;

impl Worker {
    /// Answers a message that this version does not know or cannot read: a request is refused, and anything else is skipped. Rules that cannot
    /// be watched count as triggered, since nobody else watches them.
    pub(super) fn answer_unknown(&mut self, message: UnreadableMessage, why: &str) {
        if self.unknown_messages.len() < MAX_LOGGED_UNKNOWN
            && self.unknown_messages.insert(message.say.clone())
        {
            tracing::warn!(
                say = message.say,
                why,
                "the controller sent a message that this version cannot read; upgrade the agent"
            );
        }
        let what = format!(
            "version {} of the agent cannot read the message `{}`",
            env!("CARGO_PKG_VERSION"),
            message.say
        );
        let hint = "upgrade the agent to the controller's version";
        match (message.request, message.run) {
            (Some(request), _) => self.link.send(&Report::Refused {
                request,
                refusal: Refusal::new("protocol", what).hint(hint),
            }),
            (None, Some(run)) if message.say == "watch" => {
                self.link.send(&Report::AbortRuleTriggered {
                    run: run.clone(),
                    rule: "watch".into(),
                    seen: format!("{what}; {hint}"),
                });
                self.engine.end_all(Some(&run), Cause::AbortRule);
            }
            (None, _) => {}
        }
    }

    /// Carries out a command of the controller. Nothing here waits.
    pub(super) fn handle_command(&mut self, command: Command) {
        // The controller is heard, so the last injection has not cut the connection.
        self.proof_deadline = None;
        if !matches!(command, Command::Heartbeat { .. }) {
            self.last_command_at = Instant::now();
            self.is_memory_released = false;
        }
        match command {
            Command::Heartbeat { lease, answer } => {
                self.lease_length = lease;
                self.lease = Instant::now() + lease.0;
                if answer {
                    self.link.send(&Report::HeartbeatAnswer);
                }
                self.release_memory_when_idle();
            }
            Command::Plan { request, injection } => self.engine.plan(request, injection),
            Command::Inject { request, injection } => self.engine.inject(request, injection),
            Command::Revert { injection } => self.engine.end(&injection, Cause::ControllerRequest),
            Command::RevertAll { request, run } => {
                self.engine.revert_all(request, run);
                self.engine.tick(Instant::now());
            }
            Command::Measure { request, metric } => self.measure(request, &metric),
            Command::Probe {
                request,
                provider,
                timeout,
            } => {
                let policy = self.engine.policy();
                self.probe(request, ProbeJob::new(provider, timeout, policy));
            }
            Command::Examine { request } => {
                self.examine(request);
            }
            Command::Services { request } => self.list_services(request),
            Command::Describe { request } => {
                let faults = (crate::faults::FAULTS.iter())
                    .map(crate::faults::Fault::describe)
                    .chain(self.engine.plugins().descriptions())
                    .collect();
                self.link.send(&Report::Described { request, faults });
            }
            Command::Watch { run, rules } if rules.is_empty() => drop(self.watches.remove(&run)),
            Command::Watch { run, rules } => {
                drop(self.watches.insert(run, LocalAbortRules::new(rules)))
            }
            // Handled by the caller, whose loop they may end.
            Command::Shutdown | Command::Welcome { .. } | Command::Refused { .. } => {}
        }
    }
}
