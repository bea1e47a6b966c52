//! Documents that are too large are refused before they take time or memory.

use super::{load_given, load_value, minimal};
use crate::document::{
    MAX_ABORT_RULES, MAX_BLACKOUTS, MAX_DOCUMENT_BYTES, MAX_EXPANDED_BYTES, MAX_HYPOTHESIS_PROBES,
    MAX_KEY_BYTES, MAX_LABELS, MAX_SECRET_SCOPES, MAX_STEPS, MAX_TARGETS, MAX_TOLERANCE_DEPTH,
    MAX_VARIABLES, SIZE_LIMITS,
};
use crate::problem::MAX_PROBLEMS;
use serde_json::{Map, Value, json};

fn probe(name: &str) -> Value {
    json!({"type": "probe", "name": name, "tolerance": true, "provider": {"type": "tcp", "host": "h", "port": 1}})
}

fn probes(count: usize) -> Value {
    (0..count)
        .map(|index| probe(&format!("p{index}")))
        .collect()
}

fn named(count: usize, value: &Value) -> Value {
    let fields = (0..count).map(|index| (format!("n{index}"), value.clone()));
    Value::Object(fields.collect::<Map<String, Value>>())
}

fn first_problem(document: &Value) -> (String, String) {
    let found = load_value(document).err().unwrap_or_default();
    found.first().map_or_else(Default::default, |problem| {
        (problem.at.clone(), problem.what.clone())
    })
}

#[test]
fn part_larger_than_its_limit_is_refused_with_the_number() {
    let label = json!({"labels": {"a": "b"}});
    let many: Vec<(&str, &str, Value, usize)> = vec![
        ("$.method", "/method", probes(MAX_STEPS + 1), MAX_STEPS),
        (
            "$.rollbacks",
            "/rollbacks",
            probes(MAX_STEPS + 1),
            MAX_STEPS,
        ),
        (
            "$.steady-state-hypothesis.probes",
            "/steady-state-hypothesis/probes",
            probes(MAX_HYPOTHESIS_PROBES + 1),
            MAX_HYPOTHESIS_PROBES,
        ),
        (
            "$.abort",
            "/abort",
            json!(vec![json!({"name": "a"}); MAX_ABORT_RULES + 1]),
            MAX_ABORT_RULES,
        ),
        (
            "$.targets",
            "/targets",
            named(MAX_TARGETS + 1, &label),
            MAX_TARGETS,
        ),
        (
            "$.targets.t.labels",
            "/targets",
            json!({"t": {"labels": named(MAX_LABELS + 1, &json!("v"))}}),
            MAX_LABELS,
        ),
        (
            "$.configuration",
            "/configuration",
            named(MAX_VARIABLES + 1, &json!(1)),
            MAX_VARIABLES,
        ),
        (
            "$.secrets",
            "/secrets",
            named(MAX_SECRET_SCOPES + 1, &json!({})),
            MAX_SECRET_SCOPES,
        ),
        (
            "$.schedule.blackouts",
            "/schedule/blackouts",
            json!(vec!["2026-01-01"; MAX_BLACKOUTS + 1]),
            MAX_BLACKOUTS,
        ),
    ];
    for (at, pointer, value, most) in many {
        let mut document = minimal();
        document["steady-state-hypothesis"] = json!({"title": "h", "probes": []});
        document["schedule"] = json!({"cron": "0 0 * * *", "blackouts": []});
        for key in ["rollbacks", "abort"] {
            document[key] = json!([]);
        }
        for key in ["targets", "configuration", "secrets"] {
            document[key] = json!({});
        }
        let place = document.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("no {pointer}")) = value;
        let (found, what) = first_problem(&document);
        assert_eq!(found, at);
        assert!(what.contains(&most.to_string()), "{what}");
        assert!(SIZE_LIMITS.iter().any(|limit| limit.most == most));
    }
}

#[test]
fn list_that_a_variable_makes_too_long_is_refused() {
    let mut document = minimal();
    document["configuration"] = json!({"steps": []});
    document["method"] = json!("${steps}");
    let given = json!({"steps": probes(MAX_STEPS + 1)});
    let found = load_given(&document, &[], given).err().unwrap_or_default();
    assert_eq!(
        found.first().map(|problem| problem.at.as_str()),
        Some("$.method")
    );
}

#[test]
fn references_to_a_large_activity_are_refused_before_they_are_copied() {
    let mut document = minimal();
    let mut large = probe("large");
    large["provider"] = json!({"type": "process", "path": "p", "arguments": ["x".repeat(400_000)]});
    let mut steps = vec![large];
    steps.resize(MAX_STEPS, json!({"ref": "large"}));
    document["method"] = steps.into();
    let (at, what) = first_problem(&document);
    let most = MAX_EXPANDED_BYTES >> 20;
    assert!(what.contains(&format!("{most} MiB")), "{at}: {what}");
    let copies = MAX_EXPANDED_BYTES / 400_000;
    assert!(
        (copies - 2..=copies + 2).any(|index| at == format!("$.method[{index}]")),
        "{at}"
    );
}

#[test]
fn large_configuration_is_not_copied_for_each_activity() {
    let mut document = minimal();
    document["configuration"] = named(MAX_VARIABLES, &json!("x".repeat(3_000)));
    let mut own = probe("own");
    own["configuration"] = json!({"mine": "${n1}"});
    own["provider"]["host"] = json!("${mine}");
    document["method"] = json!(vec![own; MAX_STEPS]);
    let (at, _) = first_problem(&document);
    assert_eq!(at, "", "the document is large, and within the limits");
}

#[test]
fn long_key_above_many_mistakes_takes_no_memory() {
    let mut document = minimal();
    document["configuration"] = json!({"a": 1});
    let long = "k".repeat(400_000);
    document["x-note"] = json!({(long): vec!["${missing}"; 8_000]});
    document["extra"] = document["x-note"].clone();
    let (_, what) = first_problem(&document);
    assert!(what.contains(&MAX_KEY_BYTES.to_string()), "{what}");
    let mut document = minimal();
    document["configuration"] = json!({"a": 1});
    document["extra"] = json!(vec!["${missing}"; 100_000]);
    let found = load_value(&document).err().unwrap_or_default();
    assert_eq!(found.len(), MAX_PROBLEMS + 1);
}

#[test]
fn text_longer_than_the_limit_is_refused_unread() {
    let mut document = minimal();
    document["description"] = json!("x".repeat(MAX_DOCUMENT_BYTES));
    let (at, what) = first_problem(&document);
    assert_eq!(at, "$");
    assert!(what.contains("4 MiB"), "{what}");
}

#[test]
fn tolerances_within_each_other_are_limited() {
    let nested = |depth: usize| {
        let judge = json!({"type": "probe", "name": "j", "provider": {"type": "process", "path": "p"}, "tolerance": 0});
        let outer = (1..depth).fold(judge, |inner, _| {
            json!({"type": "probe", "name": "j", "provider": {"type": "process", "path": "p"}, "tolerance": inner})
        });
        let mut document = minimal();
        document["method"] = json!([probe("p")]);
        document["method"][0]["tolerance"] = outer;
        document
    };
    assert_eq!(first_problem(&nested(MAX_TOLERANCE_DEPTH - 1)).1, "");
    let (at, what) = first_problem(&nested(MAX_TOLERANCE_DEPTH));
    assert_eq!(at, "$.method[0].tolerance");
    assert!(what.contains(&MAX_TOLERANCE_DEPTH.to_string()), "{what}");
}

#[test]
fn method_at_its_limit_is_accepted() {
    let mut document = minimal();
    document["targets"] = named(MAX_TARGETS, &json!({"labels": {"a": "b"}}));
    document["method"] = probes(MAX_STEPS);
    assert_eq!(first_problem(&document).1, "");
}

#[test]
fn random_schedule_with_a_mean_of_a_century_is_refused() {
    let mut document = minimal();
    for mean in ["876000h", "8761h"] {
        document["schedule"] = json!({"random": {"mean-time-between": mean}});
        let (at, what) = first_problem(&document);
        assert_eq!(at, "$.schedule.random.mean-time-between");
        assert!(what.contains("8760h"), "{what}");
    }
    document["schedule"] = json!({"random": {"mean-time-between": "8760h"}, "jitter": "1h",
        "window": {"days": ["MON"], "hours": "09:00-09:01"}});
    assert_eq!(first_problem(&document).1, "");
}
