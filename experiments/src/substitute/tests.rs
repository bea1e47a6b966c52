//! Values in place, and what is missing.

use super::*;
use serde_json::json;

fn values() -> Values {
    let configuration =
        json!({"port": 8080, "host": "h", "list": [1, 2], "flag": true, "both": "configuration"});
    let secrets = json!({"a": {"token": "t0", "both": "secret"}, "b": {"token": "later"}});
    let map = |value: Value| value.as_object().cloned().unwrap();
    Values {
        configuration: map(configuration),
        secrets: map(secrets),
    }
}

fn fill(template: &str) -> (Value, Vec<Problem>) {
    let mut problems = Vec::new();
    (
        text_with(template, &values(), "$.x", &mut problems),
        problems,
    )
}

#[test]
fn a_text_that_is_one_variable_keeps_the_type() {
    assert_eq!(fill("${port}").0, json!(8080));
    assert_eq!(fill("$list").0, json!([1, 2]));
    assert_eq!(fill("${token}").0, json!("t0"));
    assert_eq!(fill("${both}").0, json!("configuration"));
}

#[test]
fn within_a_text_values_are_written_out() {
    assert_eq!(fill("http://${host}:$port/").0, json!("http://h:8080/"));
    assert_eq!(fill("${flag} ${list}").0, json!("True [1,2]"));
    assert_eq!(
        fill("cost $$5, ${x:-1}, ^a$").0,
        json!("cost $5, ${x:-1}, ^a$")
    );
    assert_eq!(fill("$unknown $${HOME}").0, json!("$unknown ${HOME}"));
}

#[test]
fn a_missing_variable_is_a_problem_with_the_nearest_name() {
    let (value, problems) = fill("${prot}");
    assert_eq!(value, json!("${prot}"));
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].hint.as_ref().unwrap().contains("`${port}`"),
        "{problems:?}"
    );
}

#[test]
fn without_any_variable_a_shells_dollars_stay() {
    let mut problems = Vec::new();
    let value = text_with(
        "kill $$; echo $${HOME}",
        &Values::default(),
        "$",
        &mut problems,
    );
    assert_eq!((value, problems.len()), (json!("kill $$; echo ${HOME}"), 0));
}

#[test]
fn sources_are_asked_and_what_they_lack_is_a_problem() {
    let document = json!({
        "configuration": {
            "n": {"type": "env", "key": "N", "env_var_type": "int"},
            "d": {"type": "env", "key": "NO", "default": "5", "env_var_type": "float"},
            "gone": {"type": "env", "key": "NO"},
            "bad": {"type": "env", "key": "S", "env_var_type": "int"},
            "dynamic": {"type": "probe", "name": "p"},
            "literal": {"type": "anything"},
            "v": 1
        },
        "secrets": {"s": {"f": {"type": "file", "path": "/f"}, "vault": {"type": "vault", "path": "x"}}}
    });
    let variables = json!({"v": 2, "extra": "e"}).as_object().cloned().unwrap();
    let sources = Sources {
        environment: &|name| match name {
            "N" => Some("7".into()),
            "S" => Some("s3cret".into()),
            _ => None,
        },
        file: &|path| {
            if path == "/f" {
                Ok("content\n".into())
            } else {
                Err("no such file".into())
            }
        },
        variables: &variables,
        secrets: &Map::new(),
    };
    let mut problems = Vec::new();
    let values = resolve(&document, &sources, &mut problems);
    assert_eq!(values.get("n"), Some(&json!(7)));
    assert_eq!(values.get("d"), Some(&json!(5.0)));
    assert_eq!(values.get("f"), Some(&json!("content")));
    assert_eq!(values.get("v"), Some(&json!(2)));
    assert_eq!(values.get("extra"), Some(&json!("e")));
    assert_eq!(values.get("literal"), Some(&json!({"type": "anything"})));
    let places: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        places,
        [
            "$.configuration.gone",
            "$.configuration.bad",
            "$.configuration.dynamic",
            "$.secrets.s.vault"
        ]
    );
    assert!(
        problems
            .iter()
            .all(|problem| !problem.to_string().contains("s3cret"))
    );
}
