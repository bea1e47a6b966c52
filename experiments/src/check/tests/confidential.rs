//! Variables are data, and no message quotes what the environment, a file or a secret holds.

use super::{load_given, minimal};
use crate::Problem;
use crate::probes::ProbeError;
use crate::substitute::chosen_sources;
use serde_json::{Map, Value, json};

/// What the environment holds in these tests.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", "/home/of-nobody"),
    ("CONFIDENTIAL", "sesame-street-7"),
];

fn problems_of(document: &Value, variables: Value) -> Vec<Problem> {
    load_given(document, ENVIRONMENT, variables)
        .err()
        .unwrap_or_default()
}

fn probing(provider: Value) -> Value {
    let mut document = minimal();
    document["method"] = json!([{"type": "probe", "name": "p", "provider": provider}]);
    document
}

#[test]
fn variable_in_the_shape_of_a_source_is_refused() {
    let mut document = probing(json!({"type": "tcp", "host": "${x}", "port": 1}));
    document["configuration"] = json!({});
    for source in [
        json!({"type": "env", "key": "HOME"}),
        json!({"type": "env"}),
        json!({"type": "file", "path": "/etc/hostname"}),
        json!({"type": "env", "key": "NO", "default": {"type": "env", "key": "HOME"}}),
    ] {
        for given in [source.clone(), json!(source.to_string())] {
            let found = problems_of(&document, json!({"x": given}));
            assert!(!found.is_empty(), "{given}");
            let text = format!("{found:?}");
            assert!(!text.contains("of-nobody"), "{given}: {text}");
        }
        let found = problems_of(&document, json!({"x": source}));
        assert_eq!(found[0].at, "--var x");
        assert!(found[0].hint.is_some() && found[0].what.contains("data"));
    }
}

#[test]
fn variable_inside_the_configuration_never_becomes_a_source() {
    let mut document = probing(json!({"type": "python", "module": "m", "func": "f",
        "arguments": {"whole": "${whole}", "kind": "${kind}", "own": "${own}", "texts": "${text}"}}));
    document["configuration"] = json!({
        "kind": {"type": "${word}", "key": "HOME"},
        "whole": {"deep": "${object}"},
    });
    document["method"][0]["configuration"] = json!({"own": "${object}"});
    let nested = json!({"a": {"type": "env", "key": "HOME"}});
    let given = json!({"word": "env", "object": nested, "text": "${whole} $kind"});
    let experiment =
        load_given(&document, ENVIRONMENT, given).unwrap_or_else(|found| panic!("{found:#?}"));
    let crate::document::Provider::Python(python) = &experiment.method[0].provider else {
        panic!("it is a function");
    };
    let arguments = python.arguments.clone().unwrap_or_default();
    assert_eq!(arguments["kind"], json!({"type": "env", "key": "HOME"}));
    assert_eq!(arguments["whole"], json!({"deep": nested}));
    assert_eq!(arguments["own"], nested);
    // A value is put in place once.
    assert_eq!(arguments["texts"], json!("${whole} $kind"));
}

#[test]
fn variable_in_the_name_of_a_source_chooses_what_is_read() {
    let document = json!({
        "configuration": {
            "folder": "/run/${team}", "plain": {"type": "env", "key": "HOME"},
            "file": {"type": "file", "path": "${folder}/key"}, "direct": {"type": "env", "key": "$team"},
        },
        "method": [{"configuration": {"own": {"type": "file", "path": "${folder}"}}}],
    });
    let given = |variables: Value| {
        let variables: Map<String, Value> = variables.as_object().cloned().unwrap_or_default();
        let found = chosen_sources(&document, &variables);
        found
            .into_iter()
            .map(|problem| problem.at)
            .collect::<Vec<_>>()
    };
    let all = [
        "$.configuration.file",
        "$.configuration.direct",
        "$.method[0].configuration.own",
    ];
    assert_eq!(given(json!({"team": "db"})), all);
    assert_eq!(
        given(json!({"team": "db", "direct": 1, "file": 2})),
        &all[2..]
    );
    assert_eq!(given(json!({"plain": "db"})), [""; 0]);
}

#[test]
fn message_about_a_value_from_a_source_never_quotes_it() {
    let by_source = json!({"type": "env", "key": "CONFIDENTIAL"});
    let providers = [
        json!({"type": "tcp", "host": "h", "port": "${x}"}),
        json!({"type": "http", "url": "${x}"}),
        json!({"type": "tcp", "host": "h", "port": 1, "timeout": "${x}"}),
        json!({"type": "fault", "fault": "${x}", "arguments": {}}),
        json!({"type": "fault", "fault": "process-kill", "arguments": {"process": "p", "workers": "${x}"}}),
        json!({"type": "${x}"}),
        json!({"type": "process", "path": "p", "arguments": "a | ${x}"}),
    ];
    let mut documents: Vec<Value> = providers.into_iter().map(probing).collect();
    for tolerance in [
        json!({"type": "jsonpath", "path": "${x}"}),
        json!({"type": "regex", "pattern": "(${x}"}),
        json!({"type": "range", "range": ["${x}", 1]}),
    ] {
        let mut document = probing(json!({"type": "tcp", "host": "h", "port": 1}));
        document["method"][0]["tolerance"] = tolerance;
        documents.push(document);
    }
    for (key, value) in [
        ("from", json!("${x}")),
        ("type", json!("${x}")),
        ("dry", json!("${x}")),
    ] {
        let mut document = probing(json!({"type": "tcp", "host": "h", "port": 1}));
        document["method"][0][key] = value;
        documents.push(document);
    }
    let mut scheduled = minimal();
    scheduled["schedule"] = json!({"cron": "${x}"});
    documents.push(scheduled);
    let mut referring = minimal();
    referring["method"] = json!([{"ref": "${x}"}]);
    documents.push(referring);
    for mut document in documents {
        for section in ["configuration", "secrets"] {
            let written = document.clone();
            document[section] = match section {
                "secrets" => json!({"s": {"x": by_source}}),
                _ => json!({"x": by_source, "made": "a${x}"}),
            };
            let found = problems_of(&document, json!({}));
            assert!(!found.is_empty(), "{document}");
            for problem in &found {
                let text = problem.to_string();
                assert!(
                    !text.contains("sesame") && !text.contains("street"),
                    "{text}\n{document}"
                );
            }
            document = written;
        }
    }
}

#[test]
fn message_about_a_value_made_of_a_source_keeps_what_is_expected() {
    let mut document = probing(json!({"type": "tcp", "host": "h", "port": "${made}"}));
    document["configuration"] =
        json!({"x": {"type": "env", "key": "CONFIDENTIAL"}, "made": "a${x}"});
    let found = problems_of(&document, json!({}));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].what.contains("`made`") && found[0].what.contains("a whole number"),
        "{found:?}"
    );
}

#[test]
fn error_while_measuring_never_quotes_a_value_from_a_source() {
    let mut document = probing(json!({"type": "tcp", "host": "${x}", "port": 1}));
    document["configuration"] = json!({"x": {"type": "env", "key": "CONFIDENTIAL"}});
    let experiment =
        load_given(&document, ENVIRONMENT, json!({})).unwrap_or_else(|found| panic!("{found:#?}"));
    let probe = experiment.method[0].provider.probe();
    let probe = probe.unwrap_or_else(|| panic!("it is a probe"));
    let said = "`sesame-street-7` could not be resolved";
    let answer = probe.judge(Err(ProbeError::NoAnswer(said.into())));
    let Err(ProbeError::NoAnswer(why)) = answer else {
        panic!("it has no answer");
    };
    let shown = experiment.redactor.errors().text(&why).into_owned();
    assert_eq!(shown, "`***` could not be resolved");
    // What was measured is not an error.
    assert_eq!(experiment.redactor.text(&why), said);
}

#[test]
fn variable_in_place_of_a_secret_is_redacted_as_one() {
    let mut document = probing(json!({"type": "tcp", "host": "${token}", "port": 1}));
    document["secrets"] = json!({"s": {"token": "first-secret"}});
    let experiment = load_given(&document, &[], json!({"token": "second-secret"}))
        .unwrap_or_else(|found| panic!("{found:#?}"));
    let text = experiment
        .redactor
        .errors()
        .text("second-secret")
        .into_owned();
    assert_eq!(text, "***");
}
