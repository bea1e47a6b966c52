//! Checking a document takes a bounded time, whatever is wrong with it.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn_experiments::Problem;
use backburn_experiments::check::{self, Sources};
use backburn_experiments::document::{MAX_STEPS, MAX_TARGETS};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Longer than any of these checks takes in a debug build on a busy machine. Before there were limits, they took this long or longer
/// on an idle one.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

fn problems_in_time(document: &Value) -> Vec<Problem> {
    let empty = Map::new();
    let sources = Sources {
        environment: &|_| None,
        file: &|_| Err("no such file".into()),
        variables: &empty,
        secrets: &empty,
    };
    let began = Instant::now();
    let found = check::load(&document.to_string(), &sources, &[]);
    let took = began.elapsed();
    assert!(took < CHECK_TIMEOUT, "the check took {took:?}");
    found.err().unwrap_or_default()
}

fn with_steps(steps: impl Iterator<Item = Value>) -> Value {
    let target = json!({"labels": {"a": "b"}});
    let targets = (0..MAX_TARGETS).map(|index| (format!("n{index}"), target.clone()));
    json!({
        "title": "t", "description": "d", "targets": targets.collect::<Map<String, Value>>(),
        "method": steps.collect::<Vec<Value>>(),
    })
}

fn probe(index: usize) -> Value {
    json!({"type": "probe", "name": format!("p{index}"), "tolerance": true, "from": format!("m{index}"),
        "provider": {"type": "tcp", "host": "h", "port": 1}})
}

#[test]
fn method_of_unknown_names_is_refused_in_time() {
    let found = problems_in_time(&with_steps((0..MAX_STEPS).map(probe)));
    assert!(found.len() > 100, "{}", found.len());
    let references = (1..MAX_STEPS / 2).map(|index| json!({"ref": format!("q{index}")}));
    let probes = (0..MAX_STEPS / 2).map(|index| {
        let mut probe = probe(index);
        probe["from"] = "n1".into();
        probe
    });
    let found = problems_in_time(&with_steps(probes.chain(references)));
    assert!(found.len() > 100, "{}", found.len());
}

#[test]
fn document_of_eight_thousand_steps_is_refused_in_time() {
    let found = problems_in_time(&with_steps((0..8_000).map(probe)));
    assert_eq!(found[0].at, "$.method");
}

#[test]
fn random_schedules_of_long_means_are_checked_in_time() {
    for (mean, is_fine) in [("876000h", false), ("8760h", true)] {
        let mut document = with_steps(std::iter::empty());
        document["schedule"] = json!({"random": {"mean-time-between": mean}, "jitter": "1h",
            "window": {"days": ["MON"], "hours": "09:00-09:01"}});
        assert_eq!(problems_in_time(&document).is_empty(), is_fine, "{mean}");
    }
}
