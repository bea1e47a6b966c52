//! Where a run came out otherwise than it would with the Chaos Toolkit (seen on its 1.19, lib 1.44),
//! so that who moves from there to here is told when it matters and not only in the documentation.

use crate::journal::{HypothesisTiming, Outcome, Run, Verdict};

/// What decided this run that decides nothing there. Only a method without a fault could have been
/// played there as it is: of any other there is nothing to say.
pub fn toolkit_differences(timing: HypothesisTiming, run: &Run, verdict: &Verdict) -> Vec<String> {
    let mut found = Vec::new();
    let stopped_by = run.not_started.as_ref().map(|(rule, ..)| rule.as_str());
    if stopped_by == Some("gate") && run.probes.values().any(|probe| probe.before.outside > 0) {
        found.push(
            "where the hypothesis fails before the method, the Chaos Toolkit plays the rollbacks and exits with 0; here nothing is done, and the exit code is 3".to_owned(),
        );
    }
    let failed_during = run.probes.values().any(|probe| probe.during.outside > 0);
    let failed_after = run.probes.values().any(|probe| probe.after.outside > 0);
    if verdict.outcome == Outcome::Deviated && failed_during && !failed_after {
        let strategy = match timing {
            HypothesisTiming { after: false, .. } => "during-method-only",
            _ => "continuously",
        };
        found.push(format!(
            "with `{strategy}`, the Chaos Toolkit exits with 0 if the hypothesis failed only during the method; here that outage counts, and the exit code is 1"
        ));
    }
    found
}
