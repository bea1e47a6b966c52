//! The controller's commands, and what the worker does for each.

use super::Worker;
use crate::local_abort_rules::LocalAbortRules;
use crate::probes::ProbeJob;
use backburn_experiments::wire::{Cause, Command, Report};
use std::time::Instant;

impl Worker {
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
            Command::Describe { request } => {
                let faults = crate::faults::FAULTS
                    .iter()
                    .map(crate::faults::Fault::describe)
                    .collect();
                self.link.send(&Report::Described { request, faults });
            }
            Command::Watch { run, rules } if rules.is_empty() => drop(self.watches.remove(&run)),
            Command::Watch { run, rules } => {
                drop(self.watches.insert(run, LocalAbortRules::new(rules)))
            }
            // Handled by the caller, whose loop it ends.
            Command::Shutdown => {}
        }
    }
}
