//! What an experiment would have run on the controller's own host: whatever names a program and is not measured by
//! agents. Every place that a provider can stand in is looked at, since one that is not would be a way around the policy.

use backburn_experiments::Problem;
use backburn_experiments::check::{Experiment, Watch};
use backburn_experiments::document::{Activity, Provider, Tolerance, ToleranceRule};

/// Each of them, with its place.
pub(super) fn problems(experiment: &Experiment) -> Vec<Problem> {
    let lists: [(&str, &[Activity]); 3] = [
        ("steady-state-hypothesis.probes", &experiment.hypothesis),
        ("method", &experiment.method),
        ("rollbacks", &experiment.rollbacks),
    ];
    let listed = lists.into_iter().flat_map(|(list, activities)| {
        let numbered = activities.iter().enumerate();
        numbered.map(move |(index, activity)| (format!("$.{list}[{index}]"), activity))
    });
    let rules = experiment.abort.iter().enumerate();
    let rules = rules.filter_map(|(index, rule)| match &rule.watch {
        Watch::Probe(probe) => Some((format!("$.abort[{index}].probe"), &**probe)),
        Watch::Hypothesis(_) | Watch::Host(_) => None,
    });
    let schedule = experiment.document.schedule.iter();
    let guard = schedule.filter_map(|schedule| schedule.guard.as_deref());
    let guard = guard.map(|guard| ("$.schedule.guard".to_owned(), guard));
    let mut problems = Vec::new();
    for (at, activity) in listed.chain(rules).chain(guard) {
        // What comes back is judged here, whoever measured it.
        if runs_here(activity) || judges_by_program(activity.tolerance.as_ref()) {
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

fn runs_here(activity: &Activity) -> bool {
    activity.from.is_none() && is_program(&activity.provider)
}

fn is_program(provider: &Provider) -> bool {
    matches!(provider, Provider::Process(_) | Provider::Python(_))
}

/// Whether a tolerance is a probe that is a program, or one whose own tolerance is, in turn.
fn judges_by_program(tolerance: Option<&Tolerance>) -> bool {
    let Some(Tolerance::Rule(rule)) = tolerance else {
        return false;
    };
    match &**rule {
        ToleranceRule::Probe(probe) => {
            is_program(&probe.provider) || judges_by_program(probe.tolerance.as_ref())
        }
        ToleranceRule::Regex(_)
        | ToleranceRule::Jsonpath(_)
        | ToleranceRule::Range(_)
        | ToleranceRule::Compare(_) => false,
    }
}
