//! Every provider of an experiment with its place in the document, wherever one can stand: who looks at all of them misses none.

use crate::check::{AbortCondition, Experiment};
use crate::document::{Activity, Provider, Tolerance, ToleranceRule};
use crate::problem::{at_index, at_key};

/// A provider, and where it stands.
#[derive(Debug, Clone)]
pub struct LocatedProvider<'a> {
    /// The JSON path of its activity.
    pub at: String,
    /// The activity that it belongs to.
    pub activity: &'a Activity,
    /// The provider: the activity's own, or that of a probe which is its tolerance.
    pub provider: &'a Provider,
    /// Whether it is a tolerance's.
    pub judges: bool,
}

/// Each provider of the hypothesis, the method, the rollbacks, the abort rules and the schedule's guard, with those of tolerances
/// that are probes.
pub fn all_providers(experiment: &Experiment) -> Vec<LocatedProvider<'_>> {
    let lists: [(&str, &[Activity]); 3] = [
        (
            "$.steady-state-hypothesis.probes",
            experiment.hypothesis.as_slice(),
        ),
        ("$.method", &experiment.method),
        ("$.rollbacks", &experiment.rollbacks),
    ];
    let listed = lists.into_iter().flat_map(|(list, activities)| {
        let numbered = activities.iter().enumerate();
        numbered.map(move |(index, activity)| (at_index(list, index), activity))
    });
    let rules = experiment.abort.iter().enumerate();
    let rules = rules.filter_map(|(index, rule)| match &rule.watch {
        AbortCondition::Probe(probe) => {
            Some((at_key(&at_index("$.abort", index), "probe"), &**probe))
        }
        AbortCondition::Hypothesis(_) | AbortCondition::Host(_) => None,
    });
    let schedule = experiment.document.schedule.iter();
    let guard = schedule.filter_map(|schedule| schedule.guard.as_deref());
    let guard = guard.map(|guard| ("$.schedule.guard".to_owned(), guard));
    let mut found = Vec::new();
    for (at, activity) in listed.chain(rules).chain(guard) {
        let placed = |provider, judges| LocatedProvider {
            at: at.clone(),
            activity,
            provider,
            judges,
        };
        found.push(placed(&activity.provider, false));
        let mut tolerance = activity.tolerance.as_ref();
        while let Some(Tolerance::Rule(rule)) = tolerance {
            let ToleranceRule::Probe(probe) = &**rule else {
                break;
            };
            found.push(placed(&probe.provider, true));
            tolerance = probe.tolerance.as_ref();
        }
    }
    found
}
