//! The programs that an experiment would run on the controller's own host: those of every provider that agents do not
//! measure. Every place that can hold a provider is checked, because one that is missed would bypass the policy.

use backburn_experiments::Problem;
use backburn_experiments::check::Experiment;
use backburn_experiments::providers::{LocatedProvider, all_providers};

/// A problem for each program that the experiment would run on the controller's host.
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
        // Tolerances are evaluated here, whoever measured the value.
        let runs_here = judges || activity.from.is_none();
        let known = problems.last().is_some_and(|problem| problem.at == at);
        if is_program && runs_here && !known {
            let what = format!(
                "`{}` would run a program on the controller's host, which the controller's policy does not allow",
                activity.name
            );
            problems.push(Problem::new(at, what).hint(
                "measure it on agents, with `from`, or set `allow-programs` in the controller's policy",
            ));
        }
    }
    problems
}
