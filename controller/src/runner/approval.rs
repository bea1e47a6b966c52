//! What was approved is what runs: a plan has a fingerprint, which is approved, and which a run compares before it begins.

use super::selection::PlannedInjection;
use backburn_experiments::hexadecimal;
use backburn_experiments::wire::{PlanView, Victim};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The approval that a run was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunApproval {
    /// The name of the token that approved it.
    pub by: String,
    /// The fingerprint of the approved plan. The run does not begin if it would do anything else.
    pub fingerprint: String,
}

/// The fingerprint of a plan while its agents answer: each injection's activity, agent, fault, arguments and victims. What an
/// agent says in words, which may differ from one time to the next, does not belong to it.
#[derive(Debug, Default)]
pub(super) struct PlanFingerprint(BTreeMap<usize, [u8; 32]>);

impl PlanFingerprint {
    /// Adds what an agent would do for the injection at this place of the plan.
    pub(super) fn add(&mut self, index: usize, planned: &PlannedInjection, plan: &PlanView) {
        self.0.insert(index, digest(planned, plan));
    }

    /// Whether this is what was added for the injection at this place.
    pub(super) fn agrees(&self, index: usize, planned: &PlannedInjection, plan: &PlanView) -> bool {
        self.0.get(&index) == Some(&digest(planned, plan))
    }

    /// The fingerprint of everything added so far: 64 hexadecimal digits.
    pub(super) fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for (index, injection) in &self.0 {
            hash.update((*index as u64).to_be_bytes());
            hash.update(injection);
        }
        hexadecimal(hash.finalize())
    }
}

fn digest(planned: &PlannedInjection, plan: &PlanView) -> [u8; 32] {
    let request = &planned.request;
    let mut victims: Vec<[&str; 2]> = (plan.victims.iter())
        .map(|Victim { kind, id, .. }| [kind.as_str(), id.as_str()])
        .collect();
    victims.sort_unstable();
    let text = json!([
        planned.activity,
        planned.agent,
        request.fault,
        request.arguments,
        request.duration,
        request.every,
        request.max_victims,
        victims,
    ]);
    Sha256::digest(text.to_string()).into()
}
