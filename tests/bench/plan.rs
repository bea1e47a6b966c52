//! How long a plan takes on a host with 2,000 processes, for each fault: its example, with processes that are there. A fault on
//! processes is planned three times: for ten of them by their name, for ten by their command line, and for all. In a process
//! namespace of its own; needs root. Nothing is asserted. Without `BACKBURN_FAULT`, of all.
//!
//! ```text
//! BACKBURN_FAULT=process-kill cargo bench -p backburn-tests --bench plan
//! ```

use backburn_agent::faults::{FAULTS, Fault, PlanContext};
use backburn_agent::plan::{HostFaultRules, LocalHost, ProtectedPaths, RequestLimits};
use backburn_agent::processes::Protection;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Refusal;
use backburn_tests::isolated::{in_network_namespace, with_name};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

const PROCESSES: usize = 2000;
const ROUNDS: usize = 51;

fn main() {
    with_name("plan", || {
        in_network_namespace(&["unshare", "sleep", "ip"], bench)
    });
}

/// The processes that a fault is planned for, by name; none for one that is not about processes.
const SELECTORS: [(&str, &str); 3] = [
    ("10 by name", r#"{"name": "ten", "select": "all"}"#),
    (
        "10 by command line",
        r#"{"command-line": "ten 1000$", "select": "all"}"#,
    ),
    (
        "all",
        r#"{"command-line": "^sleep [0-9]+$", "select": "all"}"#,
    ),
];

/// The example of a fault, about what is there.
fn arguments(example: &Value, file: &Path, processes: &str) -> Map<String, Value> {
    let Value::Object(mut arguments) = example.clone() else {
        return Map::new();
    };
    for (key, value) in &mut arguments {
        match key.as_str() {
            "process" | "of" => {
                *value = serde_json::from_str(processes).expect("a selector is JSON");
            }
            "upstream" => *value = json!("127.0.0.1:9"),
            "to" | "from" => *value = json!(["127.0.0.1"]),
            "url" => *value = json!("http://127.0.0.1:9/"),
            "path" if value.is_string() => *value = json!(file),
            "path" => *value = json!([file]),
            _ => {}
        }
    }
    arguments
}

fn bench() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let ten = folder.path().join("ten");
    std::fs::copy("/usr/bin/sleep", &ten).expect("a program can be copied");
    let start = |number| {
        let mut sleeper = match number {
            0..10 => Command::new(&ten),
            _ => Command::new("sleep"),
        };
        sleeper.arg("1000").spawn().expect("`sleep` starts")
    };
    let mut sleepers: Vec<Child> = (0..PROCESSES).map(start).collect();
    let file = folder.path().join("file");
    std::fs::write(&file, vec![1; 1 << 20]).expect("a file can be written");
    let protected = ProtectedPaths::new(Path::new("/none"), Path::new("/none"), &[]);
    println!("a plan with {PROCESSES} processes, ms, n = {ROUNDS}");
    println!("{:40} {:>8} {:>8}", "", "median", "90th");
    let wanted = std::env::var("BACKBURN_FAULT").ok();
    let is_wanted = |name| wanted.as_ref().is_none_or(|wanted| wanted == name);
    for fault in FAULTS.iter().filter(|fault| is_wanted(fault.name)) {
        let path = match fault.name {
            "disk-fill" | "io-stress" => folder.path(),
            _ => &file,
        };
        let example = (fault.example)();
        let is_of_processes = example.get("process").or(example.get("of")).is_some();
        let selectors = if is_of_processes {
            &SELECTORS[..]
        } else {
            &[("", "")]
        };
        for (which, processes) in selectors {
            let arguments = arguments(&example, path, processes);
            let (times, refused) = plan_often(fault, &arguments, &protected);
            let said = refused.map_or_else(String::new, |refusal| {
                format!("   refused: {}", refusal.what)
            });
            let name = [fault.name, which].join(" ");
            println!(
                "{name:40} {:8.2} {:8.2}{said}",
                times[ROUNDS / 2],
                times[ROUNDS * 9 / 10]
            );
        }
    }
    for sleeper in &mut sleepers {
        sleeper.kill().ok();
        sleeper.wait().ok();
    }
}

/// How long each plan took, in ms and ascending, and why there was none.
fn plan_often(
    fault: &Fault,
    arguments: &Map<String, Value>,
    protected_paths: &ProtectedPaths,
) -> (Vec<f64>, Option<Refusal>) {
    let mut times = Vec::new();
    let mut refused = None;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let host = LocalHost::default();
        let context = PlanContext {
            host: &host,
            protection: &Protection::default(),
            protected_ports: &[22],
            protected_paths,
            host_rules: &HostFaultRules::default(),
            request_limits: &RequestLimits::default(),
            control_connection: None,
            injection: "bench",
            first_mark: 0,
            held: &[],
            duration: (!fault.one_shot).then_some(HumanDuration::seconds(10)),
            seed: 1,
        };
        let plan = fault.plan(arguments, &context);
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        refused = plan.err();
    }
    times.sort_by(f64::total_cmp);
    (times, refused)
}
