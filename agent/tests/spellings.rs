//! What people write first for each kind of argument: accepted where it can mean one thing only, otherwise refused with an example.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn_agent::faults::{FAULTS, find};
use serde_json::{Map, Value, json};

fn problems(fault: &str, arguments: &Value) -> Vec<(String, String)> {
    let arguments: Map<String, Value> = serde_json::from_value(arguments.clone()).unwrap();
    let problems = find(fault).unwrap().check(&arguments);
    let text = |problem: backburn_experiments::Problem| {
        let hint = problem.hint.unwrap_or_default();
        (problem.at, format!("{} — {hint}", problem.what))
    };
    problems.into_iter().map(text).collect()
}

#[test]
fn spelling_usual_ones_are_accepted() {
    let flows = |more: Value| {
        let mut arguments = json!({"to": "10.0.0.5:5432"});
        arguments
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        arguments
    };
    let process = |more: Value| json!({"process": more});
    let cases = [
        ("host-reboot", json!({"after": "5 s", "within": "3min"})),
        ("host-reboot", json!({})),
        ("host-shutdown", json!({"after": "1000ms"})),
        (
            "clock-skew",
            json!({"process": {"name": "x"}, "offset": "- 1h 30m"}),
        ),
        (
            "clock-skew",
            json!({"process": {"name": "x"}, "offset": -300}),
        ),
        (
            "clock-skew",
            json!({"process": {"name": "x"}, "offset": "1 hour"}),
        ),
        ("clock-skew", json!({"host": true, "offset": "-5 min"})),
        ("service-stop", json!({"unit": "nginx"})),
        (
            "service-stop",
            json!({"unit": "postgresql@15-main.service"}),
        ),
        ("cpu-stress", json!({"load-percent": "80%"})),
        ("cpu-stress", json!({"load-percent": 80, "ramp": "1h30m"})),
        ("disk-fill", json!({"path": "/data", "size": "100m"})),
        (
            "disk-fill",
            json!({"path": "/data", "size": "1G", "reserve": "10%"}),
        ),
        ("disk-fill", json!({"path": "/data", "size": "50%"})),
        ("disk-fill", json!({"path": "/data", "percent": "50%"})),
        (
            "disk-fill",
            json!({"path": "/data", "until": "80%", "reserve": "64mb"}),
        ),
        ("disk-fill", json!({"path": "/data", "until": "10GiB"})),
        ("memory-fill", json!({"size": "512Mi", "ramp": "90 s"})),
        ("memory-fill", json!({"until": "80%", "reserve": "5 %"})),
        (
            "dns-fail",
            json!({"names": "*.example.org", "with": "NXDOMAIN"}),
        ),
        ("dns-fail", json!({"names": "*", "percent": "25%"})),
        (
            "dns-slow",
            json!({"names": "db.example.org", "delay": "1 second"}),
        ),
        (
            "dns-spoof",
            json!({"names": "a.example", "addresses": "192.0.2.1"}),
        ),
        ("network-bandwidth", flows(json!({"rate": "1Mbps"}))),
        (
            "network-bandwidth",
            flows(json!({"rate": "1mbit", "burst": "64k"})),
        ),
        (
            "network-bandwidth",
            flows(json!({"rate": "1 Mbit/s", "queue": "1m"})),
        ),
        ("network-bandwidth", flows(json!({"rate": "1MB/s"}))),
        (
            "network-corrupt",
            flows(json!({"percent": "0.1%", "backend": "Netem"})),
        ),
        ("network-duplicate", flows(json!({"percent": "5 %"}))),
        (
            "network-latency",
            flows(
                json!({"delay": "100 ms", "jitter": "20ms", "distribution": "Normal", "correlation": "25%"}),
            ),
        ),
        (
            "network-latency",
            flows(json!({"delay": "100ms", "protocol": "TCP", "direction": "Both"})),
        ),
        ("network-latency", flows(json!({"delay": 0.1}))),
        ("network-loss", flows(json!({"percent": "30%"}))),
        (
            "network-loss",
            flows(json!({"gilbert-elliott": {"p": "1%", "r": "10%", "loss-when-bad": "80%"}})),
        ),
        (
            "network-partition",
            json!({"to": ["[fd00::1]:443", "fd00::1", "fd00::/8", "db.example:8000-8010"]}),
        ),
        ("network-partition", json!({"ports": "8000-8010"})),
        (
            "network-partition",
            json!({"ports": [80, "443", "8000:8010", "9000..9010"]}),
        ),
        ("network-reject", flows(json!({"with": "Reset"}))),
        (
            "network-reorder",
            flows(json!({"delay": "10ms", "percent": "25%"})),
        ),
        (
            "process-kill",
            process(json!({"name": "nginx", "select": "50%"})),
        ),
        (
            "process-kill",
            process(json!({"name": "nginx", "select": 2})),
        ),
        (
            "process-kill",
            process(json!({"name": "nginx", "select": "ALL", "order": "Oldest"})),
        ),
        ("process-kill", process(json!({"listening": "8000-8010"}))),
        (
            "process-kill",
            process(json!({"listening": [80, "443", "8000-8010"]})),
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": "SIGTERM"}),
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": "sigterm", "grace": "5 seconds"}),
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": "term"}),
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": 15}),
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": "9"}),
        ),
        (
            "process-pause",
            process(json!({"name": "x", "select": {"percent": "50%"}})),
        ),
        (
            "tcp-proxy",
            json!({"listen": "localhost:15432", "upstream": "db:5432", "reset": "0s", "share": "50%"}),
        ),
        (
            "tcp-proxy",
            json!({"listen": "[::1]:15432", "upstream": "db:5432", "to-client": {"bandwidth": "1Mbps"}}),
        ),
        (
            "fd-exhaust",
            json!({"process": {"name": "x", "select": "100%"}, "leave": 5}),
        ),
        (
            "process-exhaust",
            json!({"percent": "80%", "reserve": 1000}),
        ),
        (
            "io-stress",
            json!({"path": "/data", "block-size": "64k", "read-percent": "30%", "rate": "20MB/s", "size": "1g"}),
        ),
        (
            "syscall-error",
            json!({"process": {"name": "x"}, "calls": "fsync", "error": "eio", "percent": "10%"}),
        ),
        (
            "syscall-latency",
            json!({"process": {"name": "x"}, "calls": "fsync", "delay": "20 ms", "percent": "10%"}),
        ),
        ("fsync-loss", process(json!({"name": "x", "select": "50%"}))),
        (
            "file-latency",
            json!({"path": "/data", "delay": "20 ms", "jitter": "5 ms", "on": "Read", "percent": "10%"}),
        ),
        (
            "file-error",
            json!({"path": "/data", "error": "enospc", "percent": "10 %"}),
        ),
        (
            "file-corrupt",
            json!({"path": "/data/file", "from": "1k", "length": "10%"}),
        ),
        ("mount-read-only", json!({"path": "/data/"})),
        ("filesystem-freeze", json!({"path": "/data/"})),
        (
            "http-fail",
            json!({"listen": "localhost:18080", "upstream": "web:80", "method": "get", "status": 503, "delay": "1 second", "percent": "20%"}),
        ),
        (
            "grpc-fail",
            json!({"listen": "localhost:12379", "upstream": "etcd:2379", "method": "Range", "status": "unavailable", "delay": "1 second", "percent": "20%"}),
        ),
        (
            "http-load",
            json!({"url": "HTTP://web:8080", "rate": 100, "ramp": "1 minute", "method": "post", "timeout": 2}),
        ),
        (
            "redis-fail",
            json!({"listen": "localhost:16379", "upstream": "cache:6379", "command": "get", "error": "LOADING", "percent": "20%"}),
        ),
        (
            "postgres-fail",
            json!({"listen": "localhost:15432", "upstream": "db:5432", "command": "insert", "delay": "1s", "percent": "20%"}),
        ),
    ];
    let mut wrong = Vec::new();
    for (fault, arguments) in &cases {
        let found = problems(fault, arguments);
        if !found.is_empty() {
            wrong.push(format!("{fault} {arguments}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for fault in FAULTS {
        assert!(
            cases.iter().any(|(name, _)| *name == fault.name),
            "{}",
            fault.name
        );
    }
}

#[test]
fn spelling_others_are_refused_with_an_example() {
    for (fault, arguments, at, said) in [
        (
            "network-bandwidth",
            json!({"ports": 80, "rate": "fast"}),
            "$.rate",
            "expected a rate, got `\"fast\"` — for example `\"10Mbit/s\"` or `\"1MiB/s\"`",
        ),
        (
            "network-bandwidth",
            json!({"ports": 80, "rate": "10Mbit/h"}),
            "$.rate",
            "`\"10Mbit/s\"`",
        ),
        (
            "disk-fill",
            json!({"path": "/", "size": "lots"}),
            "$.size",
            "`\"100MiB\"` or `\"10%\"`",
        ),
        (
            "disk-fill",
            json!({"path": "/", "reserve": "some"}),
            "$.reserve",
            "`\"10%\"`",
        ),
        (
            "disk-fill",
            json!({"path": "/", "until": "120%"}),
            "$.until",
            "at most `100%`",
        ),
        (
            "disk-fill",
            json!({"path": "/", "until": "0%"}),
            "$.until",
            "above zero",
        ),
        (
            "disk-fill",
            json!({"path": "/", "until": "80%", "size": "1G"}),
            "$",
            "more than one of `size`, `percent` and `until`",
        ),
        (
            "memory-fill",
            json!({"until": "80%", "percent": 10}),
            "$",
            "more than one",
        ),
        (
            "memory-fill",
            json!({}),
            "$",
            "none of `size`, `percent` and `until`",
        ),
        (
            "network-loss",
            json!({"ports": 80, "percent": "lots"}),
            "$.percent",
            "`25` or `\"25%\"`",
        ),
        (
            "network-loss",
            json!({"ports": 80, "percent": "150%"}),
            "$.percent",
            "`150 %` is more than 100",
        ),
        (
            "network-latency",
            json!({"ports": 80, "delay": 100}),
            "$.delay",
            "a number without a unit is seconds, and `100ms` is milliseconds",
        ),
        (
            "network-latency",
            json!({"ports": 80, "delay": "soon"}),
            "$.delay",
            "`250ms`",
        ),
        (
            "dns-slow",
            json!({"names": "*", "delay": 500}),
            "$.delay",
            "`500ms`",
        ),
        (
            "tcp-proxy",
            json!({"listen": "127.0.0.1:1", "upstream": "a:1", "to-client": {"latency": 5000}}),
            "$.to-client.latency",
            "`5000ms`",
        ),
        (
            "tcp-proxy",
            json!({"listen": 15432, "upstream": "a:1", "reset": "1s"}),
            "$.listen",
            "`\"127.0.0.1:15432\"`",
        ),
        (
            "tcp-proxy",
            json!({"listen": ":15432", "upstream": "a:1", "reset": "1s"}),
            "$.listen",
            "`127.0.0.1:15432`",
        ),
        (
            "process-kill",
            json!({"process": "nginx"}),
            "$.process",
            "`{\"name\":\"nginx\"}`",
        ),
        (
            "process-kill",
            json!({"process": {"name": "x", "select": "half"}}),
            "$.process.select",
            "`\"all\"`, `2` or `\"50%\"`",
        ),
        (
            "process-kill",
            json!({"process": {"listening": "http"}}),
            "$.process.listening",
            "`5432` or `\"8000-8010\"`",
        ),
        (
            "process-kill",
            json!({"process": {"listening": 0}}),
            "$.process.listening",
            "",
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": "STOP"}),
            "$.signal",
            "process-pause",
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": 28}),
            "$.signal",
            "`KILL`",
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": "SIGTREM"}),
            "$.signal",
            "did you mean `TERM`?",
        ),
        (
            "process-kill",
            json!({"process": {"name": "x"}, "signal": "kill -9"}),
            "$.signal",
            "`\"SIGTERM\"`",
        ),
        (
            "network-partition",
            json!({"ports": "https"}),
            "$.ports",
            "`5432`",
        ),
        (
            "network-partition",
            json!({"to": "https://db.example/x"}),
            "$.to",
            "`db.example:443`",
        ),
        (
            "network-partition",
            json!({"to": "postgres://me@db.example:5432/x"}),
            "$.to",
            "`db.example:5432`",
        ),
        (
            "network-partition",
            json!({"to": "10.0.0.*"}),
            "$.to",
            "`10.0.0.0/8`",
        ),
        (
            "network-partition",
            json!({"to": "10.0.0.1-10.0.0.9"}),
            "$.to",
            "`10.0.0.0/28`",
        ),
        (
            "network-partition",
            json!({"to": "10.0.0.1, 10.0.0.2"}),
            "$.to",
            "[\"10.0.0.1\", \"10.0.0.2\"]",
        ),
        (
            "network-partition",
            json!({"to": "fe80::1%eth0"}),
            "$.to",
            "`interface`",
        ),
        (
            "clock-skew",
            json!({"process": {"name": "x"}, "offset": "soon"}),
            "$.offset",
            "`\"+1h\"` or `\"-5m\"`",
        ),
        (
            "clock-skew",
            json!({"process": {"name": "x"}, "offset": "--5m"}),
            "$.offset",
            "`\"-5m\"`",
        ),
        (
            "clock-skew",
            json!({"process": {"name": "x"}, "offset": "0s"}),
            "$.offset",
            "at least 1 ms",
        ),
        (
            "cpu-stress",
            json!({"cpus": 2}),
            "$.cpus",
            "`[0]` or `[0,1]`",
        ),
        (
            "network-latency",
            json!({"ports": 80, "delay": "1s", "protocol": "sctp"}),
            "$.protocol",
            "`tcp`",
        ),
    ] {
        let found = problems(fault, &arguments);
        let [(place, text)] = &found[..] else {
            panic!("{fault} {arguments}: {found:?}");
        };
        assert_eq!(place, at, "{fault} {arguments}: {text}");
        assert!(text.contains(said), "{fault} {arguments}: {text}");
        assert!(!text.contains("\\s") && !text.contains("`^"), "{text}");
    }
}

/// No message about any argument of any fault shows a pattern, whatever is written.
#[test]
fn spelling_of_nonsense_never_shows_a_pattern() {
    fn replaced(value: &Value, nonsense: &Value, into: &mut Vec<Value>) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    let mut inner = Vec::new();
                    replaced(field, nonsense, &mut inner);
                    for value in inner {
                        let mut fields = fields.clone();
                        fields.insert(key.clone(), value);
                        into.push(Value::Object(fields));
                    }
                }
            }
            _ => into.push(nonsense.clone()),
        }
    }
    for fault in FAULTS {
        for nonsense in [
            json!("?!"),
            json!(-1),
            json!(1e300),
            json!([]),
            json!({"?": 1}),
            json!(true),
        ] {
            let mut mistakes = Vec::new();
            replaced(&(fault.example)(), &nonsense, &mut mistakes);
            for arguments in mistakes {
                for (_, text) in problems(fault.name, &arguments) {
                    assert!(
                        !text.contains("`^") && !text.contains("\\s"),
                        "{} {arguments}: {text}",
                        fault.name
                    );
                }
            }
        }
    }
}
