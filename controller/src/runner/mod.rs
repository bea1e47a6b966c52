//! Drives one run, from the document to the verdict, and is the only writer of its journal.
//!
//! What is to be done is decided by a state machine without I/O ([`machine`]): events go in, commands come out. The
//! [`driver`] does what they say, and turns what comes of it into events: samples, agents' reports, the ends of activities, an
//! operator's signal. Events have one order, and an abort is on its way to the agents before anything else gets a chance.
//!
//! prepare → gate → method ‖ samples ‖ abort rules → revert, always → rollbacks → samples again.

mod agent_ports;
mod approval;
mod driver;
mod evaluation;
mod events;
pub mod journal;
mod machine;
mod preview;
mod selection;
#[cfg(test)]
mod simulation;
mod target_addresses;

pub use approval::RunApproval;
pub use journal::{EventObserver, Journal, JournalFile};
pub use preview::{Preview, PreviewedInjection, preview};
pub use selection::{candidate_agents, fault_actions, faults_by_agent, has_fault, select_agents};

use crate::agent_pool::AgentPool;
use crate::providers::HostAccess;
use backburn_experiments::HumanDuration;
use backburn_experiments::check::Experiment;
use backburn_experiments::journal::{IllegalEvent, Run, Verdict};
use tokio::sync::mpsc;

/// What a run needs besides its experiment.
pub struct RunSettings {
    /// The run's id: lower-case letters, digits and `-`, at most 24 of them, so that the ids of its injections, which begin
    /// with it, have at most 32.
    pub run: String,
    /// The seed for random selection.
    pub seed: u64,
    /// How often the hypothesis is sampled while the method runs; at least 1 ms.
    pub frequency: HumanDuration,
    /// The SHA-256 of the document's text, in hexadecimal, where no name and version identify it.
    pub sha256: Option<String>,
    /// What probes may use of this host.
    pub access: HostAccess,
    /// The approval that the run was started with, where one is required.
    pub approval: Option<RunApproval>,
    /// The agents that may take part, where the experiment needs any.
    pub agent_pool: AgentPool,
    /// Where events are written before anything is done about them.
    pub journal: Box<dyn Journal>,
    /// Each of these sees every event after that.
    pub observers: Vec<EventObserver>,
    /// An operator's requests to end the run, in words, e.g. `SIGINT received`. The first ends the run, and later ones leave
    /// out what may be left out: the rollbacks and the last samples.
    pub stop: mpsc::UnboundedReceiver<String>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct FinishedRun {
    /// All that is known of the run: the fold of its journal.
    pub run: Run,
    /// What the run comes to.
    pub verdict: Verdict,
    /// An event that could not stand in the journal where it did, or that could not be written: a bug to report.
    pub illegal: Option<IllegalEvent>,
}

/// Runs the experiment to its end. Whatever happens, what was injected is reverted first, and the
/// verdict says so.
pub async fn run(experiment: Experiment, settings: RunSettings) -> FinishedRun {
    driver::Driver::new(experiment, settings).run().await
}

/// A new run's id: the time, to the second, and four random letters that tell apart two runs of the same second.
pub fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let mut random = random();
    let letters: String = (0..4)
        .map(|_| {
            let letter = char::from(b'a' + u8::try_from(random % 26).unwrap_or(0));
            random /= 26;
            letter
        })
        .collect();
    format!("{now}-{letters}")
}

/// A random number below 2^53, so that it stays exact in tools that read JSON's numbers as floats.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library keys its hash maps from the system's random source.
    std::hash::RandomState::new().build_hasher().finish() >> 11
}
