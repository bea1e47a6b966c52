//! One mistake at a time, all over the document.

use super::{full, problems};
use serde_json::{Value, json};

/// The full document with one place changed has exactly one problem, there, which says this.
fn one_problem(pointer: &str, value: Value, at: &str, says: &str) {
    let mut document = full();
    *document
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("no {pointer}")) = value;
    let found = problems(&document);
    assert_eq!(found.len(), 1, "{pointer}: {found:#?}");
    assert!(
        found[0].starts_with(&format!("{at} | ")),
        "{pointer}: {found:#?}"
    );
    assert!(found[0].contains(says), "{pointer}: {found:#?}");
}

#[test]
fn each_mistake_has_its_place_and_what_would_do() {
    let fault = "/method/0/provider";
    for (pointer, value, at, says) in [
        ("/version", json!(1), "$.version", "text is wanted"),
        (
            "/targets/web/select",
            json!({"percnt": 5}),
            "$.targets.web.select.percnt",
            "did you mean `percent`?",
        ),
        (
            "/targets/web/select",
            json!("al"),
            "$.targets.web.select",
            "`\"all\"`",
        ),
        (
            "/targets/web/select",
            json!({"percent": 0}),
            "$.targets.web.select.percent",
            "picks none",
        ),
        (
            "/targets/web/select",
            json!({"percent": 101}),
            "$.targets.web.select.percent",
            "more than 100",
        ),
        (
            "/targets/web/select",
            json!({"count": 0}),
            "$.targets.web.select.count",
            "less than 1",
        ),
        (
            "/targets/web/labels",
            json!({}),
            "$.targets.web.labels",
            "never everything",
        ),
        (
            "/blast-radius/agents/percent",
            json!("a third"),
            "$.blast-radius.agents.percent",
            "`\"25%\"`",
        ),
        (
            "/abort/0/probe",
            json!("ordr"),
            "$.abort[0].probe",
            "did you mean `order`?",
        ),
        (
            "/abort/1/host",
            json!({"metric": "load1"}),
            "$.abort[1].host",
            "exactly one",
        ),
        (
            "/abort/1/host",
            json!({"metric": "load-1", "above": 1}),
            "$.abort[1].host.metric",
            "`load1`",
        ),
        (
            "/abort/1",
            json!({"name": "b"}),
            "$.abort[1]",
            "watches nothing",
        ),
        (
            "/abort/1/name",
            json!("a"),
            "$.abort[1].name",
            "another abort rule",
        ),
        (
            "/method/0/provider/fault",
            json!("process-puase"),
            "$.method[0].provider.fault",
            "did you mean `process-pause`?",
        ),
        (
            fault,
            json!({"type": "fault", "fault": "process-pause", "arguments": {"process": "x"}}),
            "$.method[0].provider",
            "`duration` is missing",
        ),
        (
            "/method/0/provider/duration",
            json!("6m"),
            "$.method[0].provider.duration",
            "longer than the blast radius",
        ),
        (
            "/method/0/provider/duration",
            json!("soon"),
            "$.method[0].provider.duration",
            "not a duration",
        ),
        (
            "/method/0/provider/duration",
            json!(0),
            "$.method[0].provider.duration",
            "nothing",
        ),
        (
            "/method/0/provider/targets",
            json!("wbe"),
            "$.method[0].provider.targets",
            "did you mean `web`?",
        ),
        (
            "/method/0/provider/arguments",
            json!({"proces": "x"}),
            "$.method[0].provider.arguments.proces",
            "did you mean `process`?",
        ),
        (
            "/method/0/provider/arguments",
            json!({}),
            "$.method[0].provider.arguments",
            "`process` is missing",
        ),
        (
            "/method/0/provider/arguments",
            json!({"process": "x", "workers": 0}),
            "$.method[0].provider.arguments.workers",
            "less than 1",
        ),
        (
            "/method/0/type",
            json!("probe"),
            "$.method[0].type",
            "a fault is an action",
        ),
        (
            "/method/0/type",
            json!("acton"),
            "$.method[0].type",
            "did you mean `action`?",
        ),
        (
            "/method/0/provider/type",
            json!("fautl"),
            "$.method[0].provider.type",
            "did you mean `fault`?",
        ),
        (
            "/method/0/pauses/before",
            json!(-1),
            "$.method[0].pauses.before",
            "less than 0",
        ),
        (
            "/method/1/ref",
            json!("pss"),
            "$.method[1].ref",
            "did you mean `ps`?",
        ),
        (
            "/method/2/name",
            json!("pause"),
            "$.method[2].name",
            "already",
        ),
        (
            "/steady-state-hypothesis/probes/0/tolerance",
            json!(null),
            "$.steady-state-hypothesis.probes[0]",
            "`tolerance` is missing",
        ),
        (
            "/steady-state-hypothesis/probes/0/tolerance",
            json!(0.5),
            "$.steady-state-hypothesis.probes[0].tolerance",
            "wanted",
        ),
        (
            "/steady-state-hypothesis/probes/0/tolerance",
            json!({"type": "regx"}),
            "$.steady-state-hypothesis.probes[0].tolerance.type",
            "`regex`",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider/url",
            json!("shop"),
            "$.steady-state-hypothesis.probes[0].provider.url",
            "http://",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider/url",
            json!("http://127.0.0.1:18080O/"),
            "$.steady-state-hypothesis.probes[0].provider.url",
            "`18080O` is not a port",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider/url",
            json!("http://127.0.0.1:99999"),
            "$.steady-state-hypothesis.probes[0].provider.url",
            "1 to 65535",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider",
            json!({"type": "prometheus", "url": "http://127.0.0.1:-1", "query": "up"}),
            "$.steady-state-hypothesis.probes[0].provider.url",
            "`-1` is not a port",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider",
            json!({"type": "dns", "server": "127.0.0.1:0", "name": "a"}),
            "$.steady-state-hypothesis.probes[0].provider.server",
            "`0` is not a port",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider",
            json!({"type": "tcp", "host": "h", "port": 0}),
            "$.steady-state-hypothesis.probes[0].provider.port",
            "0",
        ),
        (
            "/steady-state-hypothesis/probes/0/tolerance",
            json!({"type": "probe", "name": "p", "provider": {"type": "http", "url": "http://h:0/"}}),
            "$.steady-state-hypothesis.probes[0].tolerance.provider.url",
            "`0` is not a port",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider/url",
            json!("${shp}"),
            "$.steady-state-hypothesis.probes[0].provider.url",
            "`${shop}`",
        ),
        (
            "/steady-state-hypothesis/probes/0/provider/timeout",
            json!([1, 2, 3]),
            "$.steady-state-hypothesis.probes[0].provider.timeout",
            "3 members",
        ),
        (
            "/steady-state-hypothesis/probes/1/tolerance/pattern",
            json!("("),
            "$.steady-state-hypothesis.probes[1].tolerance.pattern",
            "cannot be read",
        ),
        (
            "/steady-state-hypothesis/probes/1/provider/arguments",
            json!("a | b"),
            "$.steady-state-hypothesis.probes[1].provider.arguments",
            "\"-c\"",
        ),
        (
            "/steady-state-hypothesis/probes/1/name",
            json!("order"),
            "$.steady-state-hypothesis.probes[1].name",
            "already",
        ),
        (
            "/schedule/cron",
            json!("0 25 * * *"),
            "$.schedule.cron",
            "`25` cannot be the hour",
        ),
        (
            "/schedule/cron",
            json!("0 1 * *"),
            "$.schedule.cron",
            "4 fields",
        ),
        (
            "/schedule/blackouts/0",
            json!("24.12."),
            "$.schedule.blackouts[0]",
            "neither a date",
        ),
        (
            "/schedule/window/hours",
            json!("9to5"),
            "$.schedule.window.hours",
            "09:00-17:00",
        ),
        (
            "/schedule/window/days/0",
            json!("Mo"),
            "$.schedule.window.days[0]",
            "`MON`",
        ),
        (
            "/schedule/guard/tolerance",
            json!(null),
            "$.schedule.guard",
            "`tolerance` is missing",
        ),
        (
            "/secrets/s/token/key",
            json!("NO"),
            "$.secrets.s.token",
            "is not set",
        ),
        ("/title", json!(""), "$.title", "empty"),
    ] {
        if pointer == "/method/1/ref"
            || pointer == "/secrets/s/token/key"
            || pointer.ends_with("1/name")
        {
            // These pull other problems in; they are looked at below.
            let mut document = full();
            *document.pointer_mut(pointer).unwrap() = value;
            let found = problems(&document);
            assert!(
                found
                    .iter()
                    .any(|line| line.starts_with(&format!("{at} | ")) && line.contains(says)),
                "{found:#?}"
            );
            continue;
        }
        one_problem(pointer, value, at, says);
    }
}
