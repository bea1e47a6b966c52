//! What an experiment would have run on the controller's own host: whatever names a program and is not measured by
//! agents. Every place that a provider can stand in is looked at, since one that is not would be a way around the policy.

use backburn_experiments::Problem;
use backburn_experiments::check::Experiment;
use backburn_experiments::providers::{LocatedProvider, all_providers};

/// Each of them, with its place.
pub(super) fn problems(experiment: &Experiment) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for LocatedProvider {
        at,
        activity,
        provider,
        judges,
    } in all_providers(experiment)
    {
        let is_program = provider.probe().is_some_and(|probe| probe.runs_program());
        // What comes back is judged here, whoever measured it.
        let runs_here = judges || activity.from.is_none();
        let known = problems.last().is_some_and(|problem| problem.at == at);
        if is_program && runs_here && !known {
            let what = format!(
                "`{}` would run a program on the controller's host, which its policy does not allow",
                activity.name
            );
            problems.push(Problem::new(at, what).hint(
                "measure it with `from` on agents, or set `allow-programs` in the controller's policy",
            ));
        }
    }
    problems
}
