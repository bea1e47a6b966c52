//! Tolerances against answers that were taken down from the Chaos Toolkit, and laws that must hold.

use super::*;
use crate::redact::Redactor;
use proptest::prelude::*;
use serde_json::json;

fn judge(tolerance: Value) -> CompiledTolerance {
    CompiledTolerance::compile(&serde_json::from_value(tolerance).unwrap()).unwrap()
}

#[test]
fn each_kind_of_tolerance_answers_as_the_toolkit_does() {
    let http = json!({"status": 200, "headers": {}, "body": "{\"a\": [1, 2]}"});
    let process = json!({"status": 0, "stdout": "12\n", "stderr": ""});
    for (tolerance, value, answer) in [
        (json!(true), json!(true), Some(true)),
        (json!(true), json!(1), Some(true)),
        (json!(200), http.clone(), Some(true)),
        (json!(200), json!({"code": 200}), Some(false)),
        (json!("x"), json!("x"), Some(true)),
        (json!([200, 204, 301]), http.clone(), Some(true)),
        (json!([1, 5]), json!(3), Some(true)),
        (json!([1, 5]), json!("3"), None),
        (json!([1, 5, 3]), json!("3"), Some(false)),
        (json!([5, 1]), json!(9), Some(false)),
        (
            json!({"type": "regex", "target": "stdout", "pattern": "^12$"}),
            process.clone(),
            Some(true),
        ),
        (
            json!({"type": "regex", "pattern": "1"}),
            process.clone(),
            None,
        ),
        (
            json!({"type": "range", "target": "stdout", "range": [1, 12]}),
            process.clone(),
            Some(true),
        ),
        (json!({"type": "range", "range": [1, 12]}), json!("x"), None),
        (
            json!({"type": "range", "range": [1, 12]}),
            json!(null),
            None,
        ),
        (
            json!({"type": "range", "range": [1, 12], "target": "x"}),
            json!(3),
            None,
        ),
        (
            json!({"type": "jsonpath", "path": "$.a[*]", "target": "body"}),
            http.clone(),
            Some(true),
        ),
        (
            json!({"type": "jsonpath", "path": "$.a[*]", "target": "body", "count": 1}),
            http.clone(),
            Some(false),
        ),
        (
            json!({"type": "jsonpath", "path": "$.a[*]", "target": "body", "expect": [1, 2]}),
            http.clone(),
            Some(true),
        ),
        (
            json!({"type": "jsonpath", "path": "$.a", "target": "body", "expect": null}),
            http.clone(),
            Some(false),
        ),
        (
            json!({"type": "compare", "path": "$.status", "op": "<", "value": 300}),
            http.clone(),
            Some(true),
        ),
        (
            json!({"type": "compare", "path": "$.nothing", "op": "<", "value": 300}),
            http.clone(),
            None,
        ),
        (
            json!({"type": "compare", "op": "contains", "value": "b"}),
            json!("abc"),
            Some(true),
        ),
        (
            json!({"type": "compare", "op": ">=", "value": "b"}),
            json!(3),
            None,
        ),
    ] {
        assert_eq!(
            judge(tolerance.clone()).accepts(&value).ok(),
            answer,
            "{tolerance} on {value}"
        );
    }
}

#[test]
fn a_probe_is_asked_with_the_value_and_its_answer_is_judged() {
    let provider = json!({"type": "python", "module": "m", "func": "f", "arguments": {"a": 1}});
    let outer =
        judge(json!({"type": "probe", "name": "p", "provider": provider, "tolerance": [1, 3]}));
    assert!(outer.is_probe() && outer.accepts(&json!(1)).is_err());
    let (provider, inner) = outer.probe(&json!(7)).unwrap().unwrap();
    assert_eq!(
        serde_json::to_value(provider).unwrap()["arguments"],
        json!({"a": 1, "value": 7})
    );
    assert_eq!(inner.accepts(&json!(2)), Ok(true));
    let bare = judge(
        json!({"type": "probe", "name": "p", "provider": {"type": "http", "url": "http://x"}}),
    );
    let (_, inner) = bare.probe(&json!(null)).unwrap().unwrap();
    assert_eq!(
        [json!(0), json!("x"), json!([])].map(|answer| inner.accepts(&answer).unwrap()),
        [false, true, false]
    );
    assert!(judge(json!(1)).probe(&json!(1)).is_none());
}

#[test]
fn what_cannot_be_compiled_says_why() {
    for tolerance in [
        json!({"type": "regex", "pattern": "("}),
        json!({"type": "jsonpath", "path": "$["}),
        json!({"type": "range", "range": [3, 1]}),
    ] {
        assert!(CompiledTolerance::compile(&serde_json::from_value(tolerance).unwrap()).is_err());
    }
}

#[test]
fn a_comparison_of_text_is_of_numbers_or_unknown() {
    let compare = |value: Value, op: &str, with: Value| {
        judge(json!({"type": "compare", "op": op, "value": with})).accepts(&value)
    };
    for (value, op, with, answer) in [
        (json!("15"), "<", json!("9"), Some(false)),
        (json!("15"), ">", json!("9"), Some(true)),
        (json!(" 15\n"), ">=", json!(15), Some(true)),
        (json!(15), "<=", json!("15.0"), Some(true)),
        (json!("-1.5e1"), "<", json!(-14), Some(true)),
        (
            json!("12345678901234567891"),
            ">",
            json!("12345678901234567890"),
            Some(true),
        ),
        (json!(u64::MAX), ">", json!(i64::MAX), Some(true)),
        (json!("5ms"), "<", json!(9), None),
        (json!("abc"), "<", json!("abd"), None),
        (json!(5), ">", json!("low"), None),
        (json!("nan"), "<", json!(1), None),
        (json!("inf"), ">", json!(1), None),
        (json!("1e999"), ">", json!(1), None),
        (json!(""), "<", json!(1), None),
        (json!("-"), "<", json!(1), None),
        (json!("0x10"), "<", json!(100), None),
        (json!("1_000"), ">", json!(1), None),
        (json!(true), "<", json!(2), None),
        (json!(null), "<", json!(2), None),
        (json!([1]), "<", json!(2), None),
        (json!("5"), "==", json!(5), Some(true)),
        (json!("5"), "!=", json!(5), Some(false)),
        (json!("5ms"), "==", json!(5), Some(false)),
        (json!("1.10"), "==", json!("1.1"), Some(false)),
        (json!("a"), "!=", json!("b"), Some(true)),
    ] {
        assert_eq!(
            compare(value.clone(), op, with.clone()).ok(),
            answer,
            "{value} {op} {with}"
        );
    }
    let range = judge(json!({"type": "range", "range": [0, 10]}));
    for (value, answer) in [
        (json!("5"), Some(true)),
        (json!("50"), Some(false)),
        (json!("5ms"), None),
        (json!("inf"), None),
        (json!(""), None),
        (json!({"status": 5}), None),
    ] {
        assert_eq!(range.accepts(&value).ok(), answer, "{value}");
    }
}

#[test]
fn a_reason_shows_what_was_judged_and_never_a_part_of_a_secret() {
    let process = |stdout: &str| json!({"status": 0, "stdout": stdout, "stderr": ""});
    let http = |body: Value| json!({"status": 503, "headers": {}, "body": body});
    let redactor = Redactor::new(&[json!("hunter2")]);
    let compare = json!({"type": "compare", "path": "$.body.queue", "op": "<", "value": 10});
    for (tolerance, value, reason) in [
        (
            json!({"type": "regex", "target": "stdout", "pattern": "lag is [0-9] s"}),
            process("replication lag is 42 s\n"),
            "stdout `replication lag is 42 s` is out of tolerance: no match of `lag is [0-9] s`",
        ),
        (
            json!(200),
            http(json!("x")),
            "status 503 is out of tolerance 200",
        ),
        (
            json!([200, 204, 301]),
            http(json!("x")),
            "status 503 is out of tolerance [200,204,301]",
        ),
        (json!(true), json!(false), "false is out of tolerance true"),
        (
            json!("up"),
            json!("down"),
            "`down` is out of tolerance \"up\"",
        ),
        (
            json!({"type": "jsonpath", "path": "$.state", "target": "body", "expect": "up"}),
            http(json!({"state": "down"})),
            "`$.state` finds `down` in body, which is out of tolerance: \"up\" is wanted",
        ),
        (
            json!({"type": "jsonpath", "path": "$.*", "target": "body", "count": 3}),
            http(json!("[1, 2]")),
            "`$.*` finds 2 values [1,2] in body, which is out of tolerance: 3 are wanted",
        ),
        (
            json!({"type": "jsonpath", "path": "$.state", "target": "body"}),
            http(json!("<h1>Oops</h1>")),
            "the body is not JSON (`<h1>Oops</h1>`), which is out of tolerance: something is wanted",
        ),
        (
            json!({"type": "jsonpath", "path": "$.state", "target": "body"}),
            http(json!({"other": 1})),
            "`$.state` finds nothing in body {\"other\":1}, which is out of tolerance: something is wanted",
        ),
        (
            json!({"type": "range", "target": "stdout", "range": [0, 1.5]}),
            process("2\n"),
            "stdout `2` is out of tolerance: 0 to 1.5 is wanted",
        ),
        (
            json!({"type": "range", "target": "stdout", "range": [0, 10]}),
            process("5ms\n"),
            "a range needs a number, and this is text that is no number: stdout `5ms`",
        ),
        (
            compare.clone(),
            http(json!({"queue": 12})),
            "`$.body.queue` finds 12, which is out of tolerance: `< 10` is wanted",
        ),
        (
            compare,
            http(json!({})),
            "the path finds 0 values, and one is compared: `$.body.queue` finds nothing in {\"status\":503,\"headers\":{},\"body\":{}}",
        ),
        (
            json!({"type": "jsonpath", "path": "$.a", "target": "body"}),
            http(json!("{\"a\": 1, \"a\": 2}")),
            "the JSON is ambiguous: $.a: the key `a` is there more than once: body `{\"a\": 1, \"a\": 2}`",
        ),
        (
            json!({"type": "regex", "target": "stdout", "pattern": "ok"}),
            process(&format!(
                "{}hunter2hunter2{}",
                "x".repeat(115),
                "y".repeat(1_000_000)
            )),
            &format!(
                "stdout `{}***…` is out of tolerance: no match of `ok`",
                "x".repeat(115)
            ),
        ),
    ] {
        let judge = judge(tolerance.clone());
        let said = judge
            .reason(&value, &judge.accepts(&value), &redactor)
            .unwrap();
        assert!(!said.contains("hunter"), "{said}");
        if !said.contains("***") {
            assert_eq!(said, reason);
        } else {
            assert!(
                said.starts_with(&reason[..115]) && said.chars().count() < 250,
                "{said}"
            );
        }
    }
    let within = judge(json!(true));
    assert_eq!(
        within.reason(&json!(true), &within.accepts(&json!(true)), &redactor),
        None
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5i64..5).prop_map(Value::from),
        (-5.0f64..5.0).prop_map(Value::from),
        "[a-c0-9]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop_oneof!["status", "body", "[ab]"], inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_tolerance() -> impl Strategy<Value = Value> {
    let target = prop_oneof![
        Just(json!(null)),
        Just(json!("body")),
        Just(json!("status"))
    ];
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-5i64..5).prop_map(Value::from),
        "[a-c0-9]{0,3}".prop_map(Value::from),
        prop::collection::vec(any_value(), 0..4).prop_map(Value::from),
        ("[a-c().*^$|\\[\\]]{0,5}", target.clone()).prop_map(
            |(pattern, target)| json!({"type": "regex", "pattern": pattern, "target": target})
        ),
        (
            "\\$[a-c.*@?()\\[\\]=0-9 ]{0,8}",
            target.clone(),
            prop::option::of(any_value())
        )
            .prop_map(|(path, target, expect)| {
                let mut rule = json!({"type": "jsonpath", "path": path, "target": target});
                if let Some(expect) = expect {
                    rule["expect"] = expect;
                }
                rule
            }),
        (-5.0f64..5.0, -5.0f64..5.0, target)
            .prop_map(|(a, b, target)| json!({"type": "range", "range": [a, b], "target": target})),
        (
            prop_oneof!["<", "<=", "==", "!=", ">=", ">", "contains"],
            any_value()
        )
            .prop_map(|(op, value)| json!({"type": "compare", "op": op, "value": value})),
    ]
}

proptest! {
    #[test]
    fn no_tolerance_panics_on_any_value(tolerance in any_tolerance(), value in any_value()) {
        let tolerance: Tolerance = serde_json::from_value(tolerance).unwrap();
        if let Ok(judge) = CompiledTolerance::compile(&tolerance) {
            prop_assert_eq!(judge.accepts(&value), judge.accepts(&value.clone()));
        }
    }

    #[test]
    fn a_range_accepts_exactly_what_lies_in_it(a in -50i64..50, b in -50i64..50, x in -60i64..60) {
        let (least, most) = (a.min(b), a.max(b));
        let within = least <= x && x <= most;
        prop_assert_eq!(judge(json!({"type": "range", "range": [least, most]})).accepts(&json!(x)), Ok(within));
        prop_assert_eq!(judge(json!([least, most])).accepts(&json!(x)), Ok(within));
        prop_assert_eq!(judge(json!({"type": "range", "range": [least, most]})).accepts(&json!(x.to_string())), Ok(within));
    }

    #[test]
    fn a_list_accepts_its_members_as_values_and_as_status(list in prop::collection::vec(-9i64..9, 3..8), x in -9i64..9) {
        let judge = judge(json!(list));
        prop_assert_eq!(judge.accepts(&json!(x)), Ok(list.contains(&x)));
        prop_assert_eq!(judge.accepts(&json!({"status": x})), Ok(list.contains(&x)));
    }

    #[test]
    fn the_comparisons_agree_with_each_other(a in any_value(), b in any_value()) {
        let with = |op: &str| judge(json!({"type": "compare", "op": op, "value": b})).accepts(&a);
        prop_assert_eq!(with("=="), with("!=").map(|unequal| !unequal));
        prop_assert_eq!(with("<"), with(">=").map(|not_less| !not_less));
        prop_assert_eq!(with(">"), with("<=").map(|not_more| !not_more));
    }
}

#[test]
fn answer_without_its_body_is_judged_by_its_status_and_is_unknown_otherwise() {
    let value = json!({"status": 200, "headers": {"A": "b"}, "body": null, "body_error": "the body is longer than 16 MiB"});
    let accepts = |tolerance: Value| {
        let tolerance = serde_json::from_value(tolerance).unwrap_or_else(|error| panic!("{error}"));
        let compiled = CompiledTolerance::compile(&tolerance).unwrap_or_else(|why| panic!("{why}"));
        compiled.accepts(&value)
    };
    for tolerance in [
        json!(200),
        json!([200, 204]),
        json!({"type": "range", "range": [200, 299], "target": "status"}),
        json!({"type": "jsonpath", "path": "$.A", "target": "headers"}),
        json!({"type": "compare", "path": "$.status", "op": "==", "value": 200}),
    ] {
        assert_eq!(accepts(tolerance.clone()), Ok(true), "{tolerance}");
    }
    assert_eq!(accepts(json!(201)), Ok(false));
    for tolerance in [
        json!({"type": "regex", "pattern": "x", "target": "body"}),
        json!({"type": "jsonpath", "path": "$.a", "target": "body"}),
        json!({"type": "jsonpath", "path": "$.body.a", "count": 0}),
        json!({"type": "compare", "path": "$.body", "op": "!=", "value": 1}),
        json!({"type": "compare", "path": "$..status", "op": "==", "value": 1}),
    ] {
        let said = accepts(tolerance.clone());
        assert!(
            said.as_ref().is_err_and(|why| why.contains("16 MiB")),
            "{tolerance}: {said:?}"
        );
    }
}

#[test]
fn true_of_tcp_and_dns_means_connected_and_resolved() {
    let accepts = |flag: bool, value: Value| {
        CompiledTolerance::compile(&Tolerance::Boolean(flag))
            .unwrap()
            .accepts(&value)
            .unwrap()
    };
    let connected = json!({"connected": true, "took": 0.01});
    let resolved = json!({"code": "No Error", "answers": ["192.0.2.1"]});
    assert!(accepts(true, connected.clone()) && !accepts(false, connected));
    assert!(accepts(true, resolved.clone()) && !accepts(false, resolved));
    for unresolved in [
        json!({"code": "No Error", "answers": []}),
        json!({"code": "Non-Existent Domain", "answers": []}),
    ] {
        assert!(!accepts(true, unresolved.clone()), "{unresolved}");
    }
    // Values of other probes are compared as the Chaos Toolkit does.
    assert!(accepts(true, json!(true)) && accepts(false, json!(false)));
    for other in [
        json!({"status": 200, "body": "", "headers": {}}),
        json!({"connected": true}),
        json!({"connected": true, "took": 1, "more": 1}),
        json!("true"),
    ] {
        assert!(!accepts(true, other.clone()), "{other}");
    }
}
