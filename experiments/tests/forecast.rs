//! What a run could show is told before it begins.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use backburn_experiments::HumanDuration;
use backburn_experiments::check::{self, Experiment, KnownFault, Sources};
use backburn_experiments::forecast::{expected_samples, warnings};
use backburn_experiments::journal::SamplePeriod;
use serde_json::{Map, Value, json};

fn experiment(document: &Value) -> Experiment {
    let empty = Map::new();
    let sources = Sources {
        environment: &|_| None,
        file: &|_| Err("no such file".into()),
        variables: &empty,
        secrets: &empty,
    };
    let fault = |name: &'static str, one_shot| KnownFault {
        name,
        one_shot,
        check: Box::new(|_| Vec::new()),
    };
    let faults = [fault("pause", false), fault("kill", true)];
    check::load(&document.to_string(), &sources, &faults).unwrap()
}

fn with(method: Value, more: Value) -> Experiment {
    let mut document = json!({
        "title": "t", "description": "d", "abort": [], "method": method,
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "p", "tolerance": 0, "provider": {"type": "process", "path": "true"}}]},
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    experiment(&document)
}

fn pause(duration: &str) -> Value {
    json!({"type": "action", "name": "pause", "provider": {"type": "fault", "fault": "pause", "duration": duration}})
}

fn looks(experiment: &Experiment, frequency: HumanDuration) -> (u64, bool) {
    let expected = expected_samples(experiment, frequency);
    assert_eq!(expected.len(), 1);
    assert_eq!(expected[0].when, SamplePeriod::During);
    (expected[0].samples, expected[0].at_least)
}

#[test]
fn expected_looks_follow_the_methods_length() {
    let each_second = HumanDuration::seconds(1);
    let plain = with(json!([pause("30s")]), json!({}));
    assert_eq!(looks(&plain, each_second), (30, false));
    assert_eq!(looks(&plain, HumanDuration::millis(100)), (300, false));
    let told = expected_samples(&plain, each_second)[0].to_string();
    assert!(
        told.contains("about 30 checks") && told.contains("above 9.5 %"),
        "{told}"
    );
    assert!(told.contains("2995 checks"), "{told}");

    let mut background = pause("30s");
    background["background"] = json!(true);
    let mut paused = pause("10s");
    paused["name"] = json!("paused");
    paused["pauses"] = json!({"before": 5, "after": 1});
    let beside = with(json!([background, paused]), json!({}));
    assert_eq!(looks(&beside, each_second), (30, false));
    let after_each_other = with(json!([pause("30s"), paused]), json!({}));
    assert_eq!(looks(&after_each_other, each_second), (46, false));

    let program =
        json!({"type": "action", "name": "a", "provider": {"type": "process", "path": "true"}});
    let longer = with(json!([pause("2s"), program]), json!({}));
    assert_eq!(looks(&longer, each_second), (2, true));

    // An abort rule that looks more often makes looks, too.
    let rule = json!({"abort": [{"name": "r", "probe": "p", "every": "100ms", "failures": 3}]});
    assert_eq!(
        looks(&with(json!([pause("2s")]), rule), each_second),
        (20, false)
    );
    let only_after = json!({"runtime": {"hypothesis": {"strategy": "after-method-only"}}});
    let expected = expected_samples(&with(json!([pause("2s")]), only_after), each_second);
    assert_eq!(
        (expected[0].when, expected[0].samples),
        (SamplePeriod::After, 1)
    );
}

#[test]
fn warnings_of_an_experiment_that_measures_nothing() {
    let unmeasured = |document: Value| warnings(&experiment(&document));
    let bare = json!({"title": "t", "description": "d", "method": [pause("1s")]});
    assert!(unmeasured(bare.clone())[0].contains("inconclusive"));
    let mut no_probes = bare.clone();
    no_probes["steady-state-hypothesis"] = json!({"title": "h", "probes": []});
    assert!(unmeasured(no_probes)[0].contains("inconclusive"));

    let mut judged = bare.clone();
    let probe = json!({"type": "probe", "name": "a", "tolerance": 0, "provider": {"type": "process", "path": "true"}});
    judged["method"].as_array_mut().unwrap().push(probe);
    assert_eq!(unmeasured(judged.clone()), Vec::<String>::new());
    judged["method"][1]
        .as_object_mut()
        .unwrap()
        .remove("tolerance");
    assert_eq!(unmeasured(judged.clone()).len(), 1);
    // The Toolkit's, only acting.
    judged["method"].as_array_mut().unwrap().remove(0);
    assert!(unmeasured(judged)[0].contains("held whatever it finds"));

    let mut restart = bare;
    restart["method"][0]["provider"] = json!({"type": "fault", "fault": "kill", "arguments": {"expect-restart": {"within": "1s"}}});
    assert_eq!(unmeasured(restart), Vec::<String>::new());
    assert_eq!(
        warnings(&with(json!([pause("1s")]), json!({}))),
        Vec::<String>::new()
    );
}
