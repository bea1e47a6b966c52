//! The check against schemas that schemars writes for types like ours.

use super::*;
use crate::HumanDuration;
use proptest::prelude::*;
use serde_json::{Map, from_value};

fn says(schema: &Value, value: Value) -> Vec<String> {
    check(schema, &value, "$")
        .iter()
        .map(|problem| problem.to_string().replace("\n  hint: ", " / "))
        .collect()
}

/// Arguments as a fault has them.
#[derive(Debug, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Arguments {
    /// Who is hit.
    process: Selector,
    /// How many at a time.
    #[schemars(range(min = 1, max = 8))]
    workers: Option<u32>,
    #[serde(default)]
    grace: Option<HumanDuration>,
    #[serde(default)]
    signals: Vec<Signal>,
    #[schemars(regex(pattern = "^[a-z]+$"))]
    label: Option<String>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Selector {
    name: Option<String>,
    pid: Option<i32>,
    #[serde(default)]
    except: Option<Box<Selector>>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize, JsonSchema)]
enum Signal {
    Kill,
    Term,
}

#[test]
fn each_problem_of_a_faults_arguments_has_its_place_and_a_hint() {
    for schema in [
        of::<Arguments>(),
        schemars::schema_for!(Arguments).to_value(),
    ] {
        if schema["properties"]["process"]["properties"]["except"].is_null()
            && schema["$defs"].is_null()
        {
            panic!("no schema of the selector: {schema}");
        }
        assert_eq!(
            says(
                &schema,
                json!({"process": {"name": "x", "except": {"pid": 1}}, "grace": "5s", "workers": null})
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            says(
                &schema,
                json!({"proces": {}, "workers": 9, "grace": "x", "signals": ["Kil", 3], "label": "A"})
            ),
            [
                "$.proces: `proces` is not known here / did you mean `process`? There are also `workers`, `grace`, `signals`, `label`",
                "$.workers: `9` is more than 8",
                "$.grace: `x` is not a duration: write `1m30s`, `250ms`, `PT90S` or a number of seconds",
                "$.signals[0]: `Kil` is not known here / did you mean `Kill`? There are also `Term`",
                "$.signals[1]: `3` stands where text is wanted",
                "$.label: `A` is not written as expected",
            ]
        );
        assert_eq!(
            says(&schema, json!({"process": {"except": {"naem": "x"}}})).len(),
            1
        );
        assert_eq!(
            says(&schema, json!({"process": {"pid": 4_000_000_000_u64}})),
            ["$.process.pid: `4000000000` is more than 2147483647"]
        );
        assert_eq!(
            says(&schema, json!({"process": {"pid": "7"}})),
            ["$.process.pid: `\"7\"` stands where a whole number is wanted / leave out the quotes"]
        );
        assert_eq!(
            says(&schema, json!({})),
            ["$: `process` is missing / `process`: Who is hit"]
        );
        assert_eq!(
            says(&schema, json!([])),
            ["$: a list stands where an object is wanted"]
        );
    }
}

#[test]
fn extension_keys_are_let_through_everywhere_but_only_in_documents() {
    let schema = document_schema();
    let document = json!({"title": "t", "description": "d", "x-a": 1, "method": [
        {"type": "probe", "name": "n", "x-b": {}, "provider": {"type": "tcp", "host": "h", "port": 1, "x-c": []}}
    ], "targets": {"t": {"labels": {"a": "b"}, "select": {"count": 1, "x-d": 1}}}});
    assert_eq!(says(&schema, document), Vec::<String>::new());
    assert_eq!(
        says(&of::<Arguments>(), json!({"process": {}, "x-a": 1})).len(),
        1
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z-]{0,8}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        "process",
        "name",
        "pid",
        "except",
        "workers",
        "grace",
        "signals",
        "title",
        "method",
        "type",
        "[a-z-]{0,4}"
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn the_check_never_panics_and_what_it_lets_through_has_the_type(value in any_json()) {
        let problems = check(&of::<Arguments>(), &value, "$");
        if problems.is_empty() {
            prop_assert!(from_value::<Arguments>(value).is_ok());
        } else {
            prop_assert!(problems.iter().all(|problem| problem.at.starts_with('$')));
        }
    }

    #[test]
    fn arguments_that_were_written_by_the_type_have_no_problem(
        names in prop::collection::vec(prop::option::of("[a-z]{1,5}"), 1..4),
        pid: i32, workers in prop::option::of(1u32..=8), grace in prop::option::of(0u64..100_000),
    ) {
        let selector = names.into_iter().fold(None, |inner: Option<Box<Selector>>, name| {
            Some(Box::new(Selector { name, pid: Some(pid), except: inner }))
        });
        let arguments = Arguments {
            process: *selector.unwrap(), workers, grace: grace.map(HumanDuration::millis), signals: vec![Signal::Kill, Signal::Term], label: None,
        };
        prop_assert_eq!(says(&of::<Arguments>(), serde_json::to_value(arguments).unwrap()), Vec::<String>::new());
    }
}
