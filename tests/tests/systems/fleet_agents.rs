//! What a controller knows of its agents: who is there, what they can inject, and what their hosts can do; and what it tells
//! others of its runs.

use backburn_tests::fleet::{Fleet, Given, PROGRAMS, VICTIM};
use backburn_tests::isolated::in_network_namespace;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

#[test]
fn agents_report_their_host_and_capabilities() {
    in_network_namespace(&PROGRAMS, || {
        let fleet = Fleet::new(&[("web-1", &["role=web"])], Given::default());
        let agents = fleet.says(&["agents", "--json"]).json();
        let agent = &agents[0];
        assert_eq!(agent["name"], "web-1", "{agents}");
        assert_eq!(agent["connected"], true, "{agents}");
        assert_eq!(agent["labels"]["role"], "web", "{agents}");
        assert_eq!(agent["facts"]["address"], fleet.host("web-1").address);
        assert!(agent["facts"]["kernel"].is_string(), "{agents}");

        let faults = fleet.ask("GET /api/v1/agents/web-1/faults").json();
        let names = |list: &Value| -> Vec<Value> {
            let list = list.as_array().expect("a list").iter();
            list.map(|fault| fault["name"].clone()).collect()
        };
        assert_eq!(json!(names(&faults)), agent["faults"]);
        assert!(faults[0]["schema"].is_object(), "{faults}");

        // The same that its owner is told by hand.
        let findings = fleet.says(&["agents", "doctor", "web-1", "--json"]).json();
        let found = names(&findings);
        for thing in ["kernel", "nf_tables", "tracing", "state folder"] {
            assert!(found.contains(&json!(thing)), "{thing}: {findings}");
        }
        let shown = fleet.says(&["agents", "doctor", "web-1"]);
        assert_eq!(shown.code, 0, "{shown:?}");
        assert!(shown.out.contains("nf_tables"), "{shown:?}");

        // What would suit it, planned on it just now; a document is ready to be planned by anybody.
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let folder = folder.path().to_str().expect("a path is text");
        let suggested = fleet.says(&["suggest", "--write", folder, "--json"]);
        assert_eq!(suggested.code, 0, "{suggested:?}");
        let suggested = suggested.json();
        let busy = suggested.as_array().expect("a list").iter();
        let busy = busy.filter(|one| one["name"] == "busy-host");
        let busy: Vec<&Value> = busy.collect();
        assert_eq!(
            (busy.len(), &busy[0]["agent"]),
            (1, &json!("web-1")),
            "{suggested}"
        );
        let file = format!("{folder}/web-1-busy-host.json");
        let planned = fleet.says(&["plan", &file]);
        assert_eq!(planned.code, 0, "{planned:?}");
        assert!(planned.out.contains("cpu-stress"), "{planned:?}");

        // Some of it is tried, on what faults hold.
        let victim = fleet.host("web-1").victim();
        let pause = json!({
            "title": "Pause", "description": "A process stands still",
            "targets": {"web": {"labels": {"role": "web"}}},
            "method": [{"type": "action", "name": "pause", "provider": {
                "type": "fault", "fault": "process-pause", "targets": "web", "duration": "10m",
                "arguments": {"process": {"name": VICTIM}},
            }}],
        });
        let run = fleet.begin("pause", &pause);
        victim.until_paused();
        let refused = fleet.says(&["agents", "doctor", "web-1"]);
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(refused.err.contains("faults are active"), "{refused:?}");
        fleet.says(&["stop", &run]);
        fleet.until_over(&run);

        let nobody = fleet.says(&["agents", "doctor", "nobody"]);
        assert_eq!(nobody.code, 2, "{nobody:?}");
    });
}

/// Takes one request, and gives its path and its body.
fn collected(listener: &TcpListener) -> (String, Value) {
    let (stream, _) = listener.accept().expect("somebody calls");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request");
    let path = line.split(' ').nth(1).expect("a path").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let answer =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    reader.get_mut().write_all(answer).expect("it listens");
    (path, serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn run_with_otlp_exports_its_trace() {
    in_network_namespace(&PROGRAMS, || {
        let mut fleet = Fleet::new(&[("web-1", &["role=web"])], Given::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        fleet.end();
        let collector = format!("http://{address}/");
        fleet.start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector)]);
        fleet.until_connected();
        let _victim = fleet.host("web-1").victim();
        let document = json!({
            "title": "Pause", "description": "A process stands still for a moment",
            "steady-state-hypothesis": backburn_tests::fleet::hypothesis(),
            "targets": {"web": {"labels": {"role": "web"}}},
            "method": [{"type": "action", "name": "pause", "provider": {
                "type": "fault", "fault": "process-pause", "targets": "web", "duration": "300ms",
                "arguments": {"process": {"name": VICTIM}},
            }}],
        });
        let ended = fleet.run("pause", &document);
        assert_eq!(ended.verdict["outcome"], "held", "{ended:#?}");
        let (path, trace) = collected(&listener);
        assert_eq!(path, "/v1/traces");
        let spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
        let spans = spans.expect("spans");
        let injection = spans.iter().find(|span| span["name"] == "process-pause");
        let injection = injection.unwrap_or_else(|| panic!("{trace:#}"));
        let length = |key: &str| -> i128 {
            let text = injection[key].as_str().expect("a text");
            text.parse().expect("nanoseconds")
        };
        let took = length("endTimeUnixNano") - length("startTimeUnixNano");
        assert!(took >= 300_000_000, "{injection:#}");
        assert_eq!(injection["status"]["code"], 1, "{injection:#}");
        // The same to whoever asks.
        let runs = fleet.says(&["runs", "--json"]).json();
        let run = runs[0]["id"].as_str().expect("an id").to_owned();
        let asked = fleet.ask(&format!("GET /api/v1/runs/{run}/trace")).json();
        assert_eq!(asked, trace);
    });
}
