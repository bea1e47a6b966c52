//! The Chaos Toolkit's library as a live oracle for values: tolerances, substitutions and
//! configurations give what they give there.

use backburn_experiments::document::Tolerance;
use backburn_experiments::substitute::{self, Sources, Values, text_with};
use backburn_experiments::tolerance::CompiledTolerance;
use backburn_tests::toolkit::oracle;
use backburn_tests::values::ask;
use serde_json::{Map, Value, json};

fn tolerances() -> Vec<Value> {
    let mut all = vec![
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(200),
        json!(-3),
        json!(""),
        json!("ok"),
        json!("200"),
        json!([]),
        json!([200]),
        json!([200, 204]),
        json!([200, 204, 301]),
        json!([1, 5]),
        json!([5, 1]),
        json!([0.5, 2.5]),
        json!(["a", "c"]),
        json!(["ok", "fine", "good"]),
        json!([true, false, null]),
        json!([[1], [3]]),
        json!([1, "a"]),
        json!([null, null]),
        json!([{"a": 1}, {"b": 2}, 3]),
    ];
    for (pattern, target) in [
        ("ok", None),
        ("^ok$", None),
        ("^ok$", Some("stdout")),
        ("[0-9]+", Some("body")),
        ("^$", None),
        ("o{1,2}k", Some("missing")),
        ("(?i)OK", None),
        ("(?P<x>o)k", Some("stdout")),
        ("\\d+\\s*$", Some("stdout")),
        ("200", Some("status")),
        ("(", None),
        ("a\\.b|ok", None),
        ("^\\w+\\n?$", Some("stdout")),
    ] {
        all.push(match target {
            Some(target) => json!({"type": "regex", "pattern": pattern, "target": target}),
            None => json!({"type": "regex", "pattern": pattern}),
        });
    }
    for (range, target) in [
        (json!([1, 5]), None),
        (json!([0.5, 2.5]), None),
        (json!([12, 12]), Some("stdout")),
        (json!([200, 299]), Some("status")),
        (json!([-1, 1]), Some("missing")),
    ] {
        all.push(match target {
            Some(target) => json!({"type": "range", "range": range, "target": target}),
            None => json!({"type": "range", "range": range}),
        });
    }
    for path in [
        "$",
        "$.a",
        "$.a[*]",
        "$.a[0]",
        "$.a[-1]",
        "$.a[0:2]",
        "$.a[*].n",
        "$..n",
        "$.*",
        "$.status",
        "$.a[*][?(@.n = 2)].m",
        "$.a[*][?(@.n > 1)].n",
        "$.a[*][?(@.n != 1)].n",
        "$.a[*][?(@.n = 1 or @.m)].n",
        "$.a[*][?(not @.m)]",
        "$.a[*][?(@.m = \"x y\")].n",
        "$[\"a\"][1]",
        "$.missing",
        " $.a ",
        "",
        "a",
        "$.a[",
        "$.a[*][?(@.n >= 1 and @.n <= 2)].n",
    ] {
        for more in [
            json!({}),
            json!({"target": "body"}),
            json!({"count": 2}),
            json!({"expect": [1, 2], "target": "body"}),
            json!({"expect": 1}),
            json!({"expect": null}),
            json!({"expect": [], "count": 1}),
            json!({"count": 0, "target": "missing"}),
        ] {
            let mut rule = json!({"type": "jsonpath", "path": path});
            rule.as_object_mut()
                .expect("an object")
                .extend(more.as_object().cloned().expect("an object"));
            all.push(rule);
        }
    }
    all
}

fn values() -> Vec<Value> {
    let list = json!({"a": [{"n": 1}, {"n": 2, "m": "x y"}], "status": 3});
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(3),
        json!(200),
        json!(2.5),
        json!(1.0),
        json!(-3),
        json!(""),
        json!("ok"),
        json!("ok\n"),
        json!("200"),
        json!(" 3 "),
        json!("b"),
        json!([]),
        json!([1, 2]),
        json!([2]),
        json!({}),
        json!({"status": 200}),
        json!({"status": 0, "stdout": "ok\n", "stderr": ""}),
        json!({"status": 0, "stdout": "12\n", "stderr": ""}),
        json!({"status": null}),
        json!({"status": 200, "headers": {}, "body": list.to_string()}),
        json!({"status": 200.0, "headers": {}, "body": list.clone()}),
        list,
        json!({"n": 1, "b": {"n": 2}}),
        json!({"b": 2}),
        json!("[1, 2]"),
        json!("{\"a\": [1, 2]}"),
        json!({"body": "not JSON", "status": 500}),
    ]
}

#[test]
fn tolerances_agree_with_the_chaos_toolkit() {
    let Some(python) = oracle() else {
        return;
    };
    let cases: Vec<(Value, Value)> = tolerances()
        .iter()
        .flat_map(|tolerance| values().into_iter().map(|value| (tolerance.clone(), value)))
        .collect();
    let questions: Vec<Value> = cases.iter().map(|(tolerance, value)| json!({"ask": "tolerance", "tolerance": tolerance, "value": value})).collect();
    let mut wrong = Vec::new();
    let mut tally = [0; 4];
    for ((tolerance, value), there) in cases.iter().zip(ask(python, &questions)) {
        let compiled = serde_json::from_value::<Tolerance>(tolerance.clone())
            .map_err(|error| error.to_string());
        let here = compiled
            .and_then(|tolerance| CompiledTolerance::compile(&tolerance))
            .map(|judge| judge.accepts(value));
        let same = match (&here, there.get("answer"), there.get("raises")) {
            (Ok(Ok(answer)), Some(there), _) => {
                tally[usize::from(*answer)] += 1;
                there == &Value::Bool(*answer)
            }
            (Ok(Err(_)), None, Some(_)) => {
                tally[2] += 1;
                true
            }
            (Err(_), None, None) => {
                tally[3] += 1;
                true
            }
            // Text that is no number is false there. Here nobody knows what the figure is.
            (Ok(Err(why)), Some(Value::Bool(false)), _) => {
                why.starts_with("a range needs a number, and this is text that is no number")
            }
            _ => false,
        };
        if !same {
            wrong.push(format!(
                "{tolerance} on {value}: there {there}, here {here:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(tally.iter().all(|count| *count > 20), "{tally:?}");
    println!(
        "{} tolerances: {} false, {} true, {} broken, {} refused, all as there",
        cases.len(),
        tally[0],
        tally[1],
        tally[2],
        tally[3]
    );
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

#[test]
fn substitutions_agree_with_the_chaos_toolkit() {
    let Some(python) = oracle() else {
        return;
    };
    let templates = [
        "",
        "plain",
        "${a}",
        "$a",
        "$$a",
        "$${a}",
        "${n}",
        "${n}1",
        "x${n}y$f-${b}",
        "${none}",
        "is ${none}",
        "${t}/${n}",
        "$$",
        "a$$b",
        "$",
        "$1",
        "^a$",
        "$.a.b",
        "${a",
        "${}",
        "${a b}",
        "${a-b}",
        "${missing}",
        "x ${missing} $missing",
        "$a_",
        "$A",
        "${a}${a}",
        "é${a}é",
        "$é",
        "$aé",
        "${list}",
        "${object}",
        "${both}",
        "$both!",
        "${secret} and ${later}",
        "$_x",
        "${_x}",
        "${a}\n",
        "${f}",
        "${big}",
        "${small} ",
        "${ a}",
        "$$$a",
        "$$$$",
        "${true}",
        "cost: $5",
        "${x:-1}",
        "a$ b",
        "${n}%",
        "\\${a}",
        "{a}",
        "$(a)",
        "${text}",
    ];
    let variables = [
        (
            json!({"a": "A", "n": 1, "f": 1.5, "b": true, "none": null, "t": "t", "list": [1, "two"], "object": {"k": 1}, "both": "c", "_x": "u", "big": 12_345_678_901_i64, "small": -0.25}),
            json!({"s": {"secret": "S", "both": "s", "later": 1}, "z": {"later": 2}}),
        ),
        (
            json!({"a": "${n}", "n": "$a", "text": "two\nlines"}),
            json!({}),
        ),
        (
            json!({}),
            json!({"b": {"a": "first"}, "a": {"a": "second"}}),
        ),
    ];
    let cases: Vec<(&str, &Value, &Value)> = variables
        .iter()
        .flat_map(|(configuration, secrets)| {
            templates
                .iter()
                .map(move |template| (*template, configuration, secrets))
        })
        .collect();
    let questions: Vec<Value> = cases
        .iter()
        .map(|(data, configuration, secrets)| json!({"ask": "substitution", "data": data, "configuration": configuration, "secrets": secrets}))
        .collect();
    let mut wrong = Vec::new();
    for ((template, configuration, secrets), there) in cases.iter().zip(ask(python, &questions)) {
        let values = Values {
            configuration: map((*configuration).clone()),
            secrets: map((*secrets).clone()),
            ..Values::default()
        };
        let mut problems = Vec::new();
        let here = text_with(template, &values, "$", &mut problems);
        if Some(&here) != there.get("answer") {
            wrong.push(format!(
                "{template:?} with {configuration} and {secrets}: there {there}, here {here}"
            ));
        }
        // What stays as it is there is a problem here, so that nobody's URL has a `${…}` in it.
        let stays = ["${missing}", "${true}"]
            .iter()
            .any(|missing| template.contains(missing));
        assert!(!stays || problems.len() == 1, "{template}: {problems:?}");
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    println!("{} substitutions, all as there", cases.len());
}

#[test]
fn list_or_object_within_a_text_is_json_not_python() {
    let Some(python) = oracle() else {
        return;
    };
    let configuration = json!({"list": [1, "two", null], "object": {"k": true}});
    let question = json!({"ask": "substitution", "data": "is ${list} ${object}", "configuration": configuration, "secrets": {}});
    assert_eq!(
        ask(python, &[question])[0]["answer"],
        json!("is [1, 'two', None] {'k': True}")
    );
    let values = Values {
        configuration: map(configuration),
        ..Values::default()
    };
    let here = text_with("is ${list} ${object}", &values, "$", &mut Vec::new());
    assert_eq!(here, json!("is [1,\"two\",null] {\"k\":true}"));
}

#[test]
fn configurations_agree_with_the_chaos_toolkit() {
    let Some(python) = oracle() else {
        return;
    };
    let texts = [
        "",
        "5",
        " 5 ",
        "-7",
        "+3",
        "5.5",
        "1e3",
        "abc",
        "true",
        "False",
        "no",
        "0",
        "1_000",
        "[1, {\"a\": null}]",
        "{",
        "inf",
        "null",
        "\"q\"",
    ];
    let kinds = [
        None,
        Some("str"),
        Some("string"),
        Some("int"),
        Some("integer"),
        Some("float"),
        Some("number"),
        Some("bool"),
        Some("json"),
    ];
    let defaults = [
        None,
        Some(json!("5")),
        Some(json!(5)),
        Some(json!(true)),
        Some(json!(null)),
        Some(json!("no")),
        Some(json!(2.7)),
        Some(json!([1])),
    ];
    let mut cases: Vec<(Value, Option<&str>, Value)> = Vec::new();
    for kind in kinds {
        let with = |default: Option<&Value>| {
            let mut written = json!({"type": "env", "key": "BACKBURN_TEST_VALUE"});
            if let Some(kind) = kind {
                written["env_var_type"] = json!(kind);
            }
            if let Some(default) = default {
                written["default"] = default.clone();
            }
            json!({"v": written})
        };
        cases.extend(
            texts
                .iter()
                .map(|text| (with(None), Some(*text), json!({}))),
        );
        cases.extend(
            defaults
                .iter()
                .map(|default| (with(default.as_ref()), None, json!({}))),
        );
    }
    for literal in [
        json!("x"),
        json!(1),
        json!(null),
        json!({"a": 1}),
        json!({"type": "other"}),
        json!([1]),
        // What names a variable is put in place here, and left as it is there.
        json!("$5 and $$ and ^a$"),
    ] {
        cases.push((json!({"v": literal}), None, json!({})));
        cases.push((json!({"v": literal}), None, json!({"v": 7})));
        cases.push((
            json!({"v": literal}),
            Some("9"),
            json!({"v": {"type": "env", "key": "BACKBURN_TEST_VALUE", "env_var_type": "int"}}),
        ));
    }
    let questions: Vec<Value> = cases
        .iter()
        .map(|(configuration, text, variables)| {
            let environment = text.map_or(json!({}), |text| json!({"BACKBURN_TEST_VALUE": text}));
            json!({"ask": "configuration", "configuration": configuration, "environment": environment, "variables": variables})
        })
        .collect();
    let mut wrong = Vec::new();
    for ((configuration, text, variables), there) in cases.iter().zip(ask(python, &questions)) {
        let variables = map(variables.clone());
        let sources = Sources {
            environment: &|name| {
                text.filter(|_| name == "BACKBURN_TEST_VALUE")
                    .map(str::to_owned)
            },
            file: &|_| Err("no file".into()),
            variables: &variables,
            secrets: &Map::new(),
        };
        let mut problems = Vec::new();
        let values = substitute::resolve(
            &json!({"configuration": configuration}),
            &sources,
            &mut problems,
        );
        let here = problems
            .is_empty()
            .then(|| Value::Object(values.configuration));
        // A variable is data here: what names a source is refused, and there it is read.
        let is_source = variables
            .get("v")
            .is_some_and(|value| value["type"] == "env");
        if is_source {
            let told = problems
                .iter()
                .any(|problem| problem.to_string().contains("source"));
            if here.is_some() || !told {
                wrong.push(format!("{configuration}: here {here:?}, {problems:?}"));
            }
            continue;
        }
        if here.as_ref() != there.get("answer") {
            wrong.push(format!(
                "{configuration} with {text:?}: there {there}, here {here:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    println!("{} configurations, all as there", cases.len());
}
