//! What a call of a plug-in in Python costs beside the start of the same program without an agent, in turns. Needs root, since a plug-in
//! runs in a process namespace of its own. Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench plugin
//! ```

use backburn_agent::plugin_call::{Confinement, PinnedPlugin, PluginCall};
use backburn_tests::other_proxies::percentiles;
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 101;

/// Reads one request and answers it, with the modules that a plug-in needs.
const PROGRAM: &str = r#"#!/usr/bin/python3 -B
import json, sys
request = json.load(sys.stdin)
print(json.dumps({"absent": request["verb"]}))
"#;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder
        .path()
        .canonicalize()
        .expect("it is there")
        .join("plugin");
    std::fs::write(&file, PROGRAM).expect("a file can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&file, mode).expect("the file is this user's");
    let said = Command::new("sha256sum")
        .arg(&file)
        .output()
        .expect("`sha256sum` starts");
    let program = PinnedPlugin {
        name: "trial".into(),
        sha256: String::from_utf8_lossy(&said.stdout)
            .chars()
            .take(64)
            .collect(),
        file: file.clone(),
    };
    let request = json!({"verb": "observe", "data": {}});
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS + 5 {
        let timed = [
            time(|| {
                let mut child = Command::new(&file)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("it starts");
                let input = request.to_string();
                let mut stdin = child.stdin.take().expect("it is piped");
                stdin.write_all(input.as_bytes()).expect("it reads");
                drop(stdin);
                assert!(child.wait_with_output().expect("it ends").status.success());
            }),
            time(|| call(&program, &request, false)),
            time(|| call(&program, &request, true)),
        ];
        // The first ones find nothing in any cache.
        if round >= 5 {
            times
                .iter_mut()
                .zip(timed)
                .for_each(|(times, time)| times.push(time));
        }
    }
    println!("ms, n = {ROUNDS} in turns: median, 90th, 99th");
    let [bare, called, sealed] = times.map(percentiles);
    for (name, figures) in [
        ("start alone", bare),
        ("call", called),
        ("sealed call (plan)", sealed),
    ] {
        let more = figures[0] - bare[0];
        println!(
            "  {name:20} {:6.2} {:6.2} {:6.2}   {more:+.2} beside the start",
            figures[0], figures[1], figures[2]
        );
    }
}

fn time(deed: impl FnOnce()) -> f64 {
    let began = Instant::now();
    deed();
    began.elapsed().as_secs_f64() * 1e3
}

fn call(program: &PinnedPlugin, request: &serde_json::Value, is_sealed: bool) {
    let call = PluginCall {
        program,
        request: request.clone(),
        timeout: Duration::from_secs(5),
        confinement: Confinement {
            capabilities: 0,
            is_sealed,
            max_file_bytes: None,
            is_traced: false,
        },
    };
    let answer: serde_json::Value = call.run().expect("it answers");
    assert_eq!(answer["absent"], "observe");
}
