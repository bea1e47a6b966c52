//! Laws for every fault of the list, and plans made from a look at a made-up host.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod made;
mod made_host;

use backburn_agent::faults::{FAULTS, Fault, PlanContext, find};
use backburn_agent::plan::{HostView, LocalHost, ProtectedPaths, RequestLimits};
use backburn_agent::processes::Protection;
use backburn_experiments::wire::{PlanView, Refusal};
use backburn_experiments::{HumanDuration, schema};
use made_host::MadeHost;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn plan(
    fault: &str,
    host: &dyn HostView,
    held: &[(String, String)],
    arguments: Value,
) -> Result<PlanView, Refusal> {
    let look = PlanContext {
        host,
        protection: &Protection::default(),
        protected_ports: &[22],
        protected_paths: &ProtectedPaths::default(),
        host_rules: &backburn_agent::plan::HostFaultRules::default(),
        request_limits: &RequestLimits::default(),
        control_connection: None,
        injection: "trial",
        first_mark: 0,
        held,
        duration: Some(HumanDuration::seconds(10)),
        seed: 1,
    };
    find(fault)
        .unwrap()
        .plan(&object(arguments), &look)
        .map(|plan| plan.view())
}

/// Every property of a schema with its path, inner objects' too.
fn properties(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}-{key}");
        properties(property, &path, found);
        for branch in property["anyOf"].as_array().into_iter().flatten() {
            properties(branch, &path, found);
        }
        found.push((path, property.clone()));
    }
}

#[test]
fn fault_descriptions_are_complete() {
    let mut names = BTreeSet::new();
    for Fault {
        name,
        summary,
        schema,
        ..
    } in FAULTS
    {
        assert!(names.insert(name), "{name} stands there twice");
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c == '-') && name.contains('-'),
            "{name}"
        );
        assert!(
            !summary.is_empty() && !summary.ends_with('.'),
            "{name}: {summary}"
        );
        let schema = schema();
        assert_eq!(
            schema["additionalProperties"], false,
            "{name} takes keys it does not know"
        );
        let mut found = Vec::new();
        properties(&schema, "", &mut found);
        let mut flags = BTreeSet::new();
        for (path, property) in found {
            let described = property["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            assert!(described, "{name}: {path} has no description");
            assert!(
                flags.insert(path.clone()),
                "{name}: two arguments make the flag -{path}"
            );
        }
    }
    assert!(
        FAULTS.is_sorted_by_key(|fault| fault.name),
        "the list is in order"
    );
}

#[test]
fn fault_examples_pass_and_unknown_keys_fail_the_check() {
    for fault in FAULTS {
        let example = object((fault.example)());
        assert_eq!(fault.check(&example), [], "{}", fault.name);
        let mut wrong = example.clone();
        wrong.insert("no-such-key".into(), json!(1));
        assert!(
            fault
                .check(&wrong)
                .iter()
                .any(|problem| problem.at.contains("no-such-key")),
            "{}",
            fault.name
        );
        // Nothing is "everything" by default: none of these takes no arguments at all and hits processes.
        if example.contains_key("process") {
            assert!(!fault.check(&Map::new()).is_empty(), "{}", fault.name);
        }
        assert_eq!(
            schema::check(&(fault.schema)(), &Value::Object(example), "$"),
            []
        );
    }
}

#[test]
fn selector_without_select_hits_one_victim() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    let workers = json!({"name": "nginx", "children-of": 30});
    let one = plan("process-kill", &host, &[], json!({"process": workers})).unwrap();
    assert_eq!(one.victims.len(), 1);
    let all =
        json!({"process": {"name": "nginx", "children-of": 30, "select": "all"}, "signal": "TERM"});
    let all = plan("process-kill", &host, &[], all).unwrap();
    assert_eq!(all.victims.len(), 3);
    assert!(
        all.changes[0].undo.starts_with("none"),
        "a kill says that it has no undo"
    );
    assert!(
        all.changes[0].apply.starts_with("SIGTERM to "),
        "{}",
        all.changes[0].apply
    );
}

#[test]
fn selection_with_the_same_seed_is_the_same() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    let two = json!({"process": {"name": "nginx", "select": {"count": 2}}});
    let pick = || plan("process-kill", &host, &[], two.clone()).unwrap();
    assert_eq!(pick(), pick());
    assert_eq!(pick().victims.len(), 2);
}

#[test]
fn kill_with_grace_is_planned_as_a_helper() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    let asked = plan(
        "process-kill",
        &host,
        &[],
        json!({"process": {"pid": 30}, "grace": "2s"}),
    )
    .unwrap();
    assert_eq!(asked.changes[0].kind, "helper");
    assert!(
        asked.changes[0].apply.contains("trial-0"),
        "what is made bears the injection's name"
    );
}

#[test]
fn plan_that_takes_resources_names_what_is_left() {
    let host = LocalHost::default();
    let memory = plan(
        "memory-fill",
        &host,
        &[],
        json!({"size": "1MiB", "reserve": "1MiB"}),
    )
    .unwrap();
    assert!(
        memory.victims[0].name.contains("1MiB kept back"),
        "{:?}",
        memory.victims
    );
    let refusal = plan(
        "memory-fill",
        &host,
        &[],
        json!({"percent": 1, "reserve": "9999TiB"}),
    )
    .unwrap_err();
    assert_eq!(refusal.rule, "reserve");
    let most = plan("memory-fill", &host, &[], json!({"percent": 100})).unwrap();
    assert!(
        most.notes[0].contains("would go below the reserve"),
        "{:?}",
        most.notes
    );
    let folder = tempfile::tempdir().unwrap();
    let full = plan(
        "disk-fill",
        &host,
        &[],
        json!({"path": folder.path(), "reserve": "9999TiB"}),
    )
    .unwrap_err();
    assert_eq!(full.rule, "reserve");
    let stress = plan(
        "cpu-stress",
        &host,
        &[],
        json!({"workers": 2, "load-percent": 30}),
    )
    .unwrap();
    assert!(
        stress.victims[0].name.starts_with("2 threads at 30 %"),
        "{:?}",
        stress.victims
    );
}
