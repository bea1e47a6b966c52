//! Random experiments: everything in them that decides what a run does.

use super::random::Random;
use backburn_experiments::HumanDuration;
use backburn_experiments::check::{
    self, AbortCondition, EffectiveAbortRule, Experiment, KnownFault, Sources,
};
use backburn_experiments::document::{
    Activity, HypothesisStrategy, Pauses, Provider, Recovery, RollbackStrategy, TargetRef,
};
use serde_json::{Map, json};
use std::sync::OnceLock;
use std::time::Duration;

/// An experiment with one of each kind of activity. A random one is made from its parts, since checking a document takes
/// longer than a whole simulated run.
fn template() -> &'static Experiment {
    static TEMPLATE: OnceLock<Experiment> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let program = json!({"type": "process", "path": "true"});
        let document = json!({
            "title": "a simulation", "description": "a simulation",
            "targets": {
                "all": {"labels": {"role": "web"}, "select": "all"},
                "one": {"labels": {"role": "web"}, "select": {"count": 1}},
                "half": {"labels": {"role": "web"}, "select": {"percent": 50}},
            },
            "steady-state-hypothesis": {"title": "it holds", "probes": [
                {"type": "probe", "name": "probe", "tolerance": 0, "provider": program}]},
            "method": [
                {"type": "action", "name": "fault", "provider":
                    {"type": "fault", "fault": "pause", "duration": "1s", "targets": "all"}},
                {"type": "action", "name": "program", "provider": program},
            ],
            "blast-radius": {"duration": "1h"},
            "recovery": {"within": "1s"},
        });
        let none = Map::new();
        let sources = Sources {
            environment: &|_| None,
            file: &|_| Err("there are no files".into()),
            variables: &none,
            secrets: &none,
        };
        let faults = [KnownFault {
            name: "pause",
            one_shot: false,
            check: Box::new(|_| Vec::new()),
        }];
        check::load(&document.to_string(), &sources, &faults).unwrap()
    })
}

fn length(random: &mut Random) -> Duration {
    let longest = random.pick(&[10, 1_000, 30_000]).unwrap();
    random.millis(1, longest)
}

fn pauses(random: &mut Random) -> Option<Pauses> {
    let pause = |random: &mut Random| {
        random
            .chance(50)
            .then(|| HumanDuration(random.millis(0, 5_000)))
    };
    random.chance(30).then(|| Pauses {
        before: pause(random),
        after: pause(random),
    })
}

fn activity(random: &mut Random, name: String, is_fleet: bool) -> Activity {
    let [fault, program] = template().method.as_slice() else {
        panic!("the template has two activities");
    };
    let mut activity = match random.chance(70) {
        true => fault.clone(),
        false => program.clone(),
    };
    activity.name = name;
    activity.background = random.chance(40);
    activity.pauses = pauses(random);
    if let Provider::Fault(fault) = &mut activity.provider {
        // A one-shot fault has no duration.
        fault.duration = random.chance(85).then(|| HumanDuration(length(random)));
        let targets = ["all", "one", "half"];
        let target = TargetRef::Name(random.pick(&targets).unwrap().into());
        fault.targets = is_fleet.then_some(target);
    }
    activity
}

/// An experiment that nobody would write.
pub(super) fn experiment(random: &mut Random, is_fleet: bool) -> Experiment {
    let mut experiment = template().clone();
    let probe = experiment.hypothesis[0].clone();
    let named = |name: String| Activity {
        name,
        ..probe.clone()
    };
    let probes = random.below(4);
    experiment.hypothesis = (0..probes).map(|n| named(format!("probe {n}"))).collect();
    let activities = random.below(5);
    experiment.method = (0..activities)
        .map(|n| activity(random, format!("activity {n}"), is_fleet))
        .collect();
    let program = template().method[1].clone();
    experiment.rollbacks = (0..random.below(3))
        .map(|n| Activity {
            name: format!("rollback {n}"),
            background: random.chance(30),
            pauses: pauses(random),
            ..program.clone()
        })
        .collect();
    experiment.abort = (0..random.below(3))
        .map(|n| EffectiveAbortRule {
            name: format!("rule {n}"),
            watch: match probes > 0 && random.chance(70) {
                true => AbortCondition::Hypothesis(random.below(probes)),
                false => AbortCondition::Probe(Box::new(named(format!("watch {n}")))),
            },
            every: HumanDuration(random.millis(0, 3_000)),
            failures: random.below(4) as u32,
        })
        .collect();
    let strategies = [
        None,
        None,
        Some(HypothesisStrategy::Default),
        Some(HypothesisStrategy::BeforeMethodOnly),
        Some(HypothesisStrategy::AfterMethodOnly),
        Some(HypothesisStrategy::DuringMethodOnly),
        Some(HypothesisStrategy::Continuously),
    ];
    experiment.hypothesis_timing =
        experiment.hypothesis_timing_by(random.pick(&strategies).unwrap());
    let strategies = [
        RollbackStrategy::Default,
        RollbackStrategy::Always,
        RollbackStrategy::Never,
        RollbackStrategy::Deviated,
    ];
    experiment.rollback_strategy = random.pick(&strategies).unwrap();
    if let Some(radius) = &mut experiment.document.blast_radius {
        radius.duration = random.chance(20).then(|| HumanDuration(length(random)));
        radius.concurrent_faults = random.chance(10).then(|| 1 + random.below(4) as u32);
    }
    experiment.document.recovery = random.chance(40).then(|| Recovery {
        within: HumanDuration(random.millis(0, 20_000)),
    });
    experiment
}
