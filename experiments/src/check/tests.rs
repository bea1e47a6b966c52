//! Whole documents: what is wrong with them, where, and what would do.

mod confidential;
mod mistakes;
mod sizes;

use super::*;
use crate::chaostoolkit::without_controls;
use serde_json::json;

fn faults() -> Vec<KnownFault<'static>> {
    let fault = |name: &'static str, one_shot: bool| KnownFault {
        name,
        one_shot,
        check: Box::new(|arguments| {
            let schema = json!({
                "type": "object", "additionalProperties": false, "required": ["process"],
                "properties": {"process": {"type": "string"}, "workers": {"type": "integer", "minimum": 1}}
            });
            schema::check(&schema, &Value::Object(arguments.clone()), "$")
        }),
    };
    vec![fault("process-pause", false), fault("process-kill", true)]
}

fn load_value(document: &Value) -> Result<Experiment, Vec<Problem>> {
    load_with(document, &[("TOKEN", "hunter2")])
}

fn load_with(document: &Value, environment: &[(&str, &str)]) -> Result<Experiment, Vec<Problem>> {
    load_given(document, environment, json!({}))
}

fn load_given(
    document: &Value,
    environment: &[(&str, &str)],
    variables: Value,
) -> Result<Experiment, Vec<Problem>> {
    let empty = Map::new();
    let variables = variables.as_object().cloned().unwrap_or_default();
    let sources = Sources {
        environment: &|name| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        },
        file: &|_| Err("no such file".into()),
        variables: &variables,
        secrets: &empty,
    };
    load(&document.to_string(), &sources, &faults())
}

fn minimal() -> Value {
    json!({"title": "t", "description": "d", "method": []})
}

fn full() -> Value {
    json!({
        "version": "1.0.0", "title": "t ${x}", "description": "d", "tags": ["a"],
        "configuration": {"shop": "http://127.0.0.1:1", "limit": 2.5, "list": [1]},
        "secrets": {"s": {"token": {"type": "env", "key": "TOKEN"}}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "order", "tolerance": 200, "x-note": 1,
             "provider": {"type": "http", "url": "${shop}/order", "timeout": "${limit}", "headers": {"x-token": "${token}"}}},
            {"type": "probe", "name": "ps", "tolerance": {"type": "regex", "pattern": "^1$", "target": "stdout"},
             "provider": {"type": "process", "path": "pgrep", "arguments": "-c 'ngi nx'"}}
        ]},
        "targets": {"web": {"labels": {"role": "web", "zone": ["a", "b"]}, "select": {"percent": 25}, "spread": "zone"}},
        "blast-radius": {"agents": {"max": 2, "percent": 34}, "duration": "5m", "victims-per-agent": 3},
        "abort": [
            {"name": "a", "probe": "order", "every": "1s", "failures": 3},
            {"name": "b", "host": {"metric": "memory-available-percent", "below": 5}}
        ],
        "method": [
            {"type": "action", "name": "pause", "background": true, "pauses": {"before": 1, "after": "500ms"},
             "provider": {"type": "fault", "fault": "process-pause", "targets": "web", "duration": "60s", "arguments": {"process": "nginx"}}},
            {"ref": "ps"},
            {"type": "action", "name": "kill",
             "provider": {"type": "fault", "fault": "process-kill", "targets": {"labels": {"role": "db"}, "select": "all"}, "arguments": {"process": "x"}}}
        ],
        "rollbacks": [{"ref": "order"}],
        "recovery": {"within": "30s"},
        "runtime": {"rollbacks": {"strategy": "always"}},
        "schedule": {"cron": "*/5 10-12 1,15 * MON-FRI", "time-zone": "Europe/Amsterdam",
            "window": {"days": ["MON-FRI"], "hours": "09:00-17:00"}, "blackouts": ["2026-12-24/2027-01-01"],
            "guard": {"type": "probe", "name": "g", "tolerance": true, "provider": {"type": "tcp", "host": "h", "port": 1}}},
        "x-own": {"anything": 1}
    })
}

/// Where and what, one line each.
fn problems(document: &Value) -> Vec<String> {
    match load_value(document) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|problem| {
                format!(
                    "{} | {}",
                    problem.at,
                    problem.to_string().replace('\n', " ")
                )
            })
            .collect(),
    }
}

#[test]
fn a_full_document_comes_out_with_everything_in_place() {
    let experiment = load_value(&full()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(experiment.document.title, "t ${x}");
    assert_eq!(experiment.method.len(), 3);
    assert_eq!(experiment.method[1].name, "ps");
    assert_eq!(experiment.rollbacks[0].name, "order");
    let Provider::Http(http) = &experiment.hypothesis[0].provider else {
        panic!()
    };
    assert_eq!(http.url, "http://127.0.0.1:1/order");
    assert_eq!(http.headers.as_ref().unwrap()["x-token"], json!("hunter2"));
    assert_eq!(experiment.abort.len(), 2);
    assert!(matches!(
        experiment.abort[0].watch,
        AbortCondition::Hypothesis(0)
    ));
    assert_eq!(
        (experiment.abort[1].failures, experiment.abort[1].every),
        (1, DEFAULT_SAMPLING_INTERVAL)
    );
    assert_eq!(
        experiment.hypothesis_timing,
        HypothesisTiming {
            before: true,
            during: true,
            after: true
        }
    );
    assert_eq!(experiment.rollback_strategy, RollbackStrategy::Always);
    assert_eq!(experiment.redactor.text("a hunter2 b"), "a *** b");
    assert_eq!(
        experiment.target_of(&experiment.method[0]).unwrap().0,
        "web"
    );
    assert_eq!(
        experiment.target_of(&experiment.method[2]).unwrap().0,
        "kill"
    );
    assert_eq!(experiment.faults().count(), 2);
}

#[test]
fn what_is_left_out_has_its_default() {
    let mut document = full();
    document.as_object_mut().unwrap().remove("abort");
    let experiment = load_value(&document).unwrap();
    assert_eq!(experiment.abort.len(), 2);
    assert_eq!(
        (experiment.abort[1].failures, experiment.abort[1].every),
        (3, DEFAULT_SAMPLING_INTERVAL)
    );
    document["abort"] = json!([]);
    assert!(load_value(&document).unwrap().abort.is_empty());

    let experiment = load_value(&minimal()).unwrap();
    assert!(experiment.abort.is_empty() && !experiment.has_fault());
    assert_eq!(
        experiment.hypothesis_timing,
        HypothesisTiming {
            before: false,
            during: false,
            after: false
        }
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    let found = problems(&json!({
        "titel": "t", "description": "d",
        "steady-state-hypothesis": {"title": "h", "probes": [{"type": "probe", "name": "p", "provider": {"type": "htp", "url": "x"}}]},
        "method": [
            {"type": "action", "name": "f", "provider": {"type": "fault", "fault": "process-pause", "arguments": {"process": 1}}},
            {"ref": "nobody"},
            {"type": "action", "name": "s", "provider": {"type": "process", "path": "p", "arguments": "$(x)", "timeout": "long"}}
        ],
        "schedule": {}
    }));
    let places: Vec<&str> = found
        .iter()
        .map(|line| line.split(" | ").next().unwrap())
        .collect();
    for at in [
        "$.titel",
        "$.steady-state-hypothesis.probes[0].provider.type",
        "$.method[0].provider",
        "$.method[0].provider.arguments.process",
        "$.method[1].ref",
        "$.method[2].provider.timeout",
        "$.schedule",
    ] {
        assert!(places.contains(&at), "{at}: {found:#?}");
    }
    assert!(
        !found.iter().any(|line| line.contains("`title` is missing")),
        "{found:#?}"
    );
}

#[test]
fn one_shot_faults_need_a_duration_only_to_be_repeated() {
    let with = |provider: Value| {
        let mut document = minimal();
        document["method"] = json!([{"type": "action", "name": "k", "provider": provider}]);
        problems(&document)
    };
    let kill = |more: Value| {
        let mut provider =
            json!({"type": "fault", "fault": "process-kill", "arguments": {"process": "x"}});
        provider
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap());
        provider
    };
    assert_eq!(with(kill(json!({}))), Vec::<String>::new());
    assert_eq!(
        with(kill(json!({"every": "5s", "duration": "1m"}))),
        Vec::<String>::new()
    );
    assert!(with(kill(json!({"every": "5s"})))[0].contains("`duration` is missing"));
    let pause = json!({"type": "fault", "fault": "process-pause", "duration": 1, "every": 1, "arguments": {"process": "x"}});
    assert!(with(pause)[0].contains("nothing to repeat"));
}

#[test]
fn faults_elsewhere_than_in_the_method_are_refused() {
    let fault = json!({"type": "action", "name": "k", "provider": {"type": "fault", "fault": "process-kill", "arguments": {"process": "x"}}});
    let mut document = minimal();
    document["rollbacks"] = json!([fault]);
    assert!(problems(&document)[0].contains("injected by the method"));
    document["method"] = json!([fault]);
    document["rollbacks"] = json!([{"ref": "k"}]);
    assert!(problems(&document)[0].starts_with("$.rollbacks[0].ref | "));
}

#[test]
fn no_secret_gets_into_a_problem_or_into_the_raw_document() {
    let mut document = full();
    document["steady-state-hypothesis"]["probes"][0]["provider"]["url"] = json!("${token}");
    let found = problems(&document).join("\n");
    assert!(
        found.contains("***") && !found.contains("hunter2"),
        "{found}"
    );
    let mut document = full();
    document["secrets"]["s"]["literal"] = json!("s3cret");
    let experiment = load_value(&document).unwrap();
    assert!(!experiment.raw.to_string().contains("s3cret"));
    assert!(experiment.raw.to_string().contains("\"TOKEN\""));
}

#[test]
fn a_chaos_toolkit_experiment_runs_unchanged() {
    let document = json!({
        "version": "1.0.0", "title": "t", "description": "d", "tags": [],
        "contributions": {"reliability": "high"}, "extensions": [{"name": "x", "own": {}}],
        "controls": [],
        "configuration": {"a": {"type": "env", "key": "A", "default": 5, "env_var_type": "integer"}, "b": [1, {"c": null}], "d": {"type": "other"}},
        "secrets": {"k8s": {"CTX": {"type": "env", "key": "TOKEN"}, "verify": false}},
        "runtime": {"hypothesis": {"strategy": "continuously"}, "rollbacks": {"strategy": "deviated"}},
        "steady-state-hypothesis": {"title": "h", "probes": [
            {"type": "probe", "name": "p", "tolerance": [200, 301], "secrets": ["k8s"], "configuration": {"x": "y"},
             "controls": [], "pauses": {"before": 0.5}, "timeout": 3,
             "provider": {"type": "http", "url": "http://x", "timeout": [3, 5.5], "verify_tls": false, "max_retries": 2, "arguments": {"q": 1}}},
            {"type": "probe", "name": "q", "tolerance": {"type": "probe", "name": "inner",
                "provider": {"type": "python", "module": "m", "func": "f", "arguments": {"expect": 1}}},
             "provider": {"type": "python", "module": "m", "func": "f", "secrets": ["k8s"], "arguments": {"n": "${a}"}}}
        ]},
        "method": [
            {"ref": "p"},
            {"type": "action", "name": "same", "background": false, "dry": "pause", "provider": {"type": "process", "path": "true", "arguments": {"-n": "1"}, "timeout": 2}},
            {"type": "action", "name": "same", "provider": {"type": "process", "path": "true", "arguments": ["-n", 1]}, "pauses": {"after": "${a}"}}
        ],
        "rollbacks": []
    });
    let experiment = load_value(&document).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(
        experiment.method[2].pauses.unwrap().after,
        Some(HumanDuration::seconds(5))
    );
    assert!(!experiment.pauses(&experiment.method[1]) && experiment.pauses(&experiment.method[2]));
    assert_eq!(
        experiment.configuration_of(&experiment.hypothesis[0])["x"],
        json!("y")
    );
}

#[test]
fn controls_are_refused_wherever_they_stand_until_they_are_left_out() {
    let controls = json!([{"name": "safeguards", "provider": {"type": "python", "module": "m"}}]);
    let mut document = full();
    document["abort"] = json!([{"name": "a", "probe": {"type": "probe", "name": "own", "tolerance": 1,
        "provider": {"type": "host", "metric": "load1"}}}]);
    for holder in [
        "",
        "/steady-state-hypothesis",
        "/steady-state-hypothesis/probes/1",
        "/method/0",
        "/abort/0/probe",
    ] {
        let holder = document.pointer_mut(holder).unwrap();
        holder["controls"] = controls.clone();
    }
    let found = load_value(&document).unwrap_err();
    let places: Vec<&str> = found.iter().map(|problem| problem.at.as_str()).collect();
    let wanted = [
        "$.controls",
        "$.steady-state-hypothesis.controls",
        "$.steady-state-hypothesis.probes[1].controls",
        "$.method[0].controls",
        "$.abort[0].probe.controls",
    ];
    assert_eq!(places, wanted, "{found:#?}");
    assert!(
        found[0]
            .hint
            .as_ref()
            .unwrap()
            .contains("--ignore-controls")
    );
    assert_eq!(without_controls(&mut document), wanted);
    assert!(load_value(&document).is_ok());
    for none in [json!([]), json!(null), json!({})] {
        document["controls"] = none;
        assert!(load_value(&document).is_ok());
        assert_eq!(without_controls(&mut document), [""; 0]);
    }
}

#[test]
fn a_repeated_key_is_a_problem_beside_the_others() {
    let text = r#"{"title": "a", "title": "b", "description": "d", "methods": [], "method": [
        {"type": "action", "name": "n", "provider": {"type": "process", "path": "a", "path": "b"}}]}"#;
    let empty = Map::new();
    let sources = Sources {
        environment: &|_| None,
        file: &|_| Err("no such file".into()),
        variables: &empty,
        secrets: &empty,
    };
    let found = load(text, &sources, &faults()).unwrap_err();
    let places: Vec<&str> = found.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        places,
        ["$.title", "$.method[0].provider.path", "$.methods"],
        "{found:#?}"
    );
}

#[test]
fn an_address_from_a_variable_is_judged_when_it_is_asked() {
    let mut document = full();
    document["configuration"]["shop"] = json!("http://127.0.0.1:99999");
    assert!(load_value(&document).is_ok());
}

#[test]
fn fault_longer_than_a_year_is_a_problem() {
    let with = |key: &str, length: &str| {
        let mut document = minimal();
        let mut fault = json!({"type": "fault", "fault": "process-kill", "duration": "1h", "every": "1m", "arguments": {"process": "x"}});
        fault[key] = json!(length);
        document["method"] = json!([{"type": "action", "name": "k", "provider": fault}]);
        problems(&document)
    };
    for key in ["duration", "every"] {
        assert_eq!(with(key, "8760h"), Vec::<String>::new());
        let found = with(key, "8760h1s");
        assert!(
            found[0].contains(&format!("`{key}` is 8760h1s")) && found[0].contains("a year"),
            "{found:?}"
        );
    }
}

#[test]
fn a_given_text_is_text_where_only_text_fits_and_a_number_where_only_a_number_fits() {
    let mut document = minimal();
    document["targets"] = json!({"t": {"labels": {"zone": "${n}"}}});
    document["method"] = json!([
        {"type": "action", "name": "${n}", "provider": {"type": "fault", "fault": "process-pause", "targets": "t",
            "duration": "${n}", "arguments": {"process": "${n}", "workers": "${n}"}}},
        {"type": "probe", "name": "p", "provider": {"type": "tcp", "host": "${n}", "port": "${n}"}}
    ]);
    let experiment =
        load_given(&document, &[], json!({"n": "7"})).unwrap_or_else(|found| panic!("{found:#?}"));
    let Provider::Fault(fault) = &experiment.method[0].provider else {
        panic!("it is a fault");
    };
    assert_eq!(fault.arguments["process"], json!("7"));
    assert_eq!(fault.arguments["workers"], json!(7));
    assert_eq!(fault.duration, Some(HumanDuration::seconds(7)));
    assert_eq!(experiment.method[0].name, "7");
    let found = load_given(&document, &[], json!({"n": "7.5"})).unwrap_err();
    let places: Vec<&str> = found.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        places,
        [
            "$.method[1].provider.port",
            "$.method[0].provider.arguments.workers"
        ],
        "{found:#?}"
    );
}
