//! Values in place, and what is missing.

use super::*;
use serde_json::json;

fn values() -> Values {
    let configuration =
        json!({"port": 8080, "host": "h", "list": [1, 2], "flag": true, "both": "configuration"});
    let secrets = json!({"a": {"token": "t0", "both": "secret"}, "b": {"token": "later"}});
    let map = |value: Value| value.as_object().cloned().unwrap();
    Values {
        texts: Default::default(),
        configuration: map(configuration),
        secrets: map(secrets),
        ..Values::default()
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
        "secrets": {"s": {"f": {"type": "file", "path": "/f"}, "vault": {"type": "vault", "path": "x"}}},
        "method": ["${extra}"]
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

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// What a document's configuration and its `x` come to, with these variables.
fn filled(document: &Value, variables: Value) -> (Value, Vec<Problem>) {
    let variables = map(variables);
    let sources = Sources {
        environment: &|name| (name == "E").then(|| "${s} $$".into()),
        file: &|path| Ok(format!("content of {path}")),
        variables: &variables,
        secrets: &Map::new(),
    };
    let mut problems = Vec::new();
    let values = resolve(document, &sources, &mut problems);
    let (filled, _) = super::document(document, &values, &sources, &mut problems);
    (filled["method"].clone(), problems)
}

#[test]
fn text_given_stays_text_within_text_and_is_typed_where_the_document_types_it() {
    let env = |kind: &str| json!({"type": "env", "key": "NO", "env_var_type": kind});
    let untyped = json!({"type": "env", "key": "NO", "default": "d"});
    let digits = "12345678901234567890123";
    for (declared, given, alone, within) in [
        (json!("d"), "1.10", json!("1.10"), "v1.10"),
        (json!("d"), "5", json!("5"), "v5"),
        (json!("d"), "true", json!("true"), "vtrue"),
        (json!("d"), "[1, 2]", json!("[1, 2]"), "v[1, 2]"),
        (json!(5), "7", json!(7), "v7"),
        (json!(5), "1.10", json!(1.1), "v1.10"),
        (json!(5), digits, json!(digits), "v12345678901234567890123"),
        (json!(5), "10s", json!("10s"), "v10s"),
        (json!(true), "false", json!(false), "vfalse"),
        (json!([1]), "[1, 2]", json!([1, 2]), "v[1, 2]"),
        (untyped.clone(), "5", json!(5), "v5"),
        (untyped.clone(), "1.10", json!("1.10"), "v1.10"),
        (untyped.clone(), "true", json!(true), "vtrue"),
        (
            untyped.clone(),
            digits,
            json!(digits),
            "v12345678901234567890123",
        ),
        (
            untyped.clone(),
            "{\"a\": 1.10}",
            json!({"a": 1.1}),
            "v{\"a\": 1.10}",
        ),
        (untyped, "\"5\"", json!("5"), "v5"),
        (env("int"), "28080", json!(28080), "v28080"),
        (env("float"), "5", json!(5.0), "v5.0"),
        (env("str"), "5", json!("5"), "v5"),
        (env("bool"), "no", json!(false), "vFalse"),
        (env("json"), "[1]", json!([1]), "v[1]"),
        (json!({"type": "file", "path": "/f"}), "5", json!("5"), "v5"),
    ] {
        let document = json!({"configuration": {"v": declared}, "method": ["${v}", "v${v}"]});
        let (found, problems) = filled(&document, json!({"v": given}));
        assert_eq!(problems, [], "{declared} given {given}");
        assert_eq!(found, json!([alone, within]), "{declared} given {given}");
    }
    let document = json!({"configuration": {"v": env("int")}, "method": ["${v}"]});
    for wrong in [json!("s3cret"), json!(digits), json!([1])] {
        let (_, problems) = filled(&document, json!({"v": wrong}));
        assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
        assert_eq!(problems[0].at, "--var v");
        assert!(!problems[0].to_string().contains("s3cret"));
    }
    let twice = filled(
        &json!({"method": ["${v}"]}),
        json!({"v": "{\"a\": [{\"b\": 1, \"b\": 2}]}"}),
    )
    .1;
    assert_eq!(twice[0].at, "--var v.a[0].b");
}

#[test]
fn where_only_text_can_stand_a_given_text_stays_as_it_was_written() {
    let provider = json!({"type": "process", "path": "p", "arguments": ["${flag}", {"k": "${n}"}, "${list}"], "env": {"E": "${flag}"},
        "timeout": "${n}"});
    let http = json!({"type": "http", "headers": {"H": "${flag}"}, "arguments": {"q": "${flag}"}, "verify_tls": "${flag}"});
    let document = json!({"configuration": {"n": 1.5, "flag": false}, "method": [provider, http]});
    let given = json!({"flag": "true", "n": "1.50", "list": "[1, 2]"});
    let (found, problems) = filled(&document, given);
    assert_eq!(problems, []);
    assert_eq!(
        found,
        json!([
            {"type": "process", "path": "p", "arguments": ["true", {"k": "1.50"}, [1, 2]], "env": {"E": "true"}, "timeout": 1.5},
            {"type": "http", "headers": {"H": "true"}, "arguments": {"q": true}, "verify_tls": true}
        ])
    );
}

#[test]
fn a_value_that_nothing_asks_for_is_a_problem_with_the_nearest_name() {
    let document = json!({
        "configuration": {"port": 1, "made": "${host}"},
        "method": ["${user}", "${a-b}"],
        "title": "${no}"
    });
    for known in ["port", "made", "host", "user", "a-b"] {
        let (_, problems) = filled(
            &document,
            json!({known: 1, "host": "h", "user": "u", "a-b": 1}),
        );
        assert_eq!(problems, [], "{known}");
    }
    let given = json!({"prt": 1, "no": 1, "host": "h", "user": "u", "a-b": 1});
    let (_, problems) = filled(&document, given);
    let places: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(places, ["--var prt", "--var no"], "{problems:?}");
    assert!(problems[0].hint.as_ref().unwrap().contains("`port`"));
}

#[test]
fn the_configurations_own_texts_have_values_put_in_place() {
    let document = json!({
        "configuration": {
            "a": "${b}", "b": {"deep": ["$c", "x${d}"]}, "c": 5, "d": {"type": "env", "key": "NO", "default": "${e-f}"},
            "e-f": "y", "plain": "kill $$ ^a$$ $5", "outside": {"type": "env", "key": "E"},
            "file": {"type": "file", "path": "/${e-f}"}, "dsn": "u:${s}@h", "kept": "$${b}"
        },
        "secrets": {"k": {"s": "s3cret", "literal": "${b}"}},
        "method": ["${a}", "${plain}", "${outside}", "${file}", "${dsn}", "${kept}", "${literal}", "in ${e-f}"]
    });
    let (found, problems) = filled(&document, json!({}));
    assert_eq!(problems, []);
    assert_eq!(
        found,
        json!([
            {"deep": [5, "xy"]}, "kill $$ ^a$$ $5", "${s} $$", "content of /y", "u:s3cret@h", "${b}", "${b}", "in y"
        ])
    );
}

#[test]
fn a_circle_of_variables_is_a_problem_that_names_it() {
    let configuration =
        json!({"a": "x${b}", "b": ["$c"], "c": {"k": "${a}"}, "me": "${me}", "fine": "${a}"});
    let document = json!({"configuration": configuration, "method": ["${fine}"]});
    let (_, problems) = filled(&document, json!({}));
    let said: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.at, problem.what))
        .collect();
    assert_eq!(
        said,
        [
            "$.configuration.a: `a` is made of itself: `a` → `b` → `c` → `a`",
            "$.configuration.me: `me` is made of itself: `me` → `me`"
        ]
    );
    // A value that is given ends the circle.
    assert_eq!(
        filled(&document, json!({"b": 1, "me": 1})),
        (json!(["x1"]), vec![])
    );
    let mut chain: Map<String, Value> = (0..1000)
        .map(|number| (format!("v{number}"), json!(format!("${{v{}}}", number + 1))))
        .collect();
    chain.insert("v1000".into(), json!(1));
    let (_, problems) = filled(&json!({"configuration": chain, "method": []}), json!({}));
    assert_eq!(
        problems[0].at,
        format!("$.configuration.v{MAX_VARIABLE_CHAIN}")
    );
}

#[test]
fn an_activitys_own_configuration_is_resolved_over_the_experiments() {
    let activity = |own: Value| {
        json!({"configuration": {"host": "outer", "port": 1}, "method": [
            {"provider": {"type": "http", "url": "${url}"}, "configuration": own}]})
    };
    let own = json!({"url": "http://${host}:${port}/", "host": "inner"});
    let (found, problems) = filled(&activity(own), json!({"port": "8080"}));
    assert_eq!(problems, []);
    assert_eq!(found[0]["provider"]["url"], "http://inner:8080/");
    let (_, problems) = filled(&activity(json!({"url": "${a}", "a": "${url}"})), json!({}));
    assert_eq!(problems[0].at, "$.method[0].configuration.url");
    assert_eq!(
        problems[0].what,
        "`url` is made of itself: `url` → `a` → `url`"
    );
}

#[test]
fn a_name_that_nothing_can_say_is_refused_where_it_is_declared() {
    let document = json!({"configuration": {"a}": 1, "": 2, "a b": 3}, "secrets": {"s": {"x$": 1}}, "method": ["${a b}"]});
    let (found, problems) = filled(&document, json!({}));
    let places: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        places,
        [
            "$.configuration['a}']",
            "$.configuration['']",
            "$.secrets.s['x$']"
        ]
    );
    assert_eq!(found, json!([3]));
}

#[test]
fn what_variables_put_in_place_is_limited_in_size_and_depth() {
    let large = "x".repeat(100_000);
    let within: String = "${large}".repeat(40_000);
    let doubled: Map<String, Value> = (0..40)
        .map(|number| {
            let next = number + 1;
            (
                format!("v{number}"),
                json!([format!("${{v{next}}}"), format!("${{v{next}}}")]),
            )
        })
        .chain([("v40".to_owned(), json!(1))])
        .collect();
    for (document, at) in [
        (
            json!({"configuration": {"large": large}, "method": vec!["${large}"; 40_000]}),
            "$.method[83]",
        ),
        (
            json!({"configuration": {"large": large}, "method": [within]}),
            "$.method[0]",
        ),
        (
            json!({"configuration": doubled, "method": ["${v0}"]}),
            "$.configuration.v",
        ),
    ] {
        let (_, problems) = filled(&document, json!({}));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].at.starts_with(at), "{problems:?}");
        assert!(problems[0].what.contains("8 MiB"), "{problems:?}");
    }
    let nested =
        |depth: usize, inner: &str| (0..depth).fold(json!(inner), |value, _| json!([value]));
    let configuration = json!({"a": nested(60, "${b}"), "b": nested(60, "x")});
    let (_, problems) = filled(
        &json!({"configuration": configuration, "method": []}),
        json!({}),
    );
    assert!(
        problems[0].at.starts_with("$.configuration.a[0]"),
        "{problems:?}"
    );
    let configuration = json!({"b": nested(60, "x")});
    let fits = json!({"configuration": configuration, "method": nested(39, "${b}")});
    assert_eq!(filled(&fits, json!({})).1, []);
    let deep = json!({"configuration": configuration, "method": nested(40, "${b}")});
    assert!(
        filled(&deep, json!({})).1[0]
            .what
            .contains("within each other")
    );
}
