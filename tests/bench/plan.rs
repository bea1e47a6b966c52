//! How long a plan takes on a host with 2,000 processes, for each fault: its example, with processes that are there. In a process
//! namespace of its own; needs root. Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench plan
//! ```

use backburn_agent::faults::{FAULTS, PlanContext};
use backburn_agent::plan::{LocalHost, ProtectedPaths, RequestLimits};
use backburn_agent::processes::Protection;
use backburn_experiments::HumanDuration;
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

/// The example of a fault, about what is there.
fn arguments(example: Value, file: &Path) -> Map<String, Value> {
    let Value::Object(mut arguments) = example else {
        return Map::new();
    };
    for (key, value) in &mut arguments {
        match key.as_str() {
            "process" | "of" => *value = json!({"command-line": "^sleep [0-9]+$", "select": "all"}),
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
    let mut sleepers: Vec<Child> = (0..PROCESSES)
        .map(|_| {
            Command::new("sleep")
                .arg("1000")
                .spawn()
                .expect("`sleep` starts")
        })
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("file");
    std::fs::write(&file, vec![1; 1 << 20]).expect("a file can be written");
    let protected = ProtectedPaths::new(Path::new("/none"), Path::new("/none"), &[]);
    println!("a plan with {PROCESSES} processes, ms, n = {ROUNDS}");
    println!("{:24} {:>8} {:>8}", "", "median", "90th");
    for fault in FAULTS {
        let path = match fault.name {
            "disk-fill" | "io-stress" => folder.path(),
            _ => &file,
        };
        let arguments = arguments((fault.example)(), path);
        let mut times = Vec::new();
        let mut refused = None;
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let host = LocalHost::default();
            let context = PlanContext {
                host: &host,
                protection: &Protection::default(),
                protected_ports: &[22],
                protected_paths: &protected,
                host_rules: &backburn_agent::plan::HostFaultRules::default(),
                request_limits: &RequestLimits::default(),
                control_connection: None,
                injection: "bench",
                first_mark: 0,
                held: &[],
                duration: (!fault.one_shot).then_some(HumanDuration::seconds(10)),
                seed: 1,
            };
            let plan = fault.plan(&arguments, &context);
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            refused = plan.err();
        }
        times.sort_by(f64::total_cmp);
        let said = refused.map_or_else(String::new, |refusal| {
            format!("   refused: {}", refusal.what)
        });
        println!(
            "{:24} {:8.2} {:8.2}{said}",
            fault.name,
            times[ROUNDS / 2],
            times[ROUNDS * 9 / 10]
        );
    }
    for sleeper in &mut sleepers {
        sleeper.kill().ok();
        sleeper.wait().ok();
    }
}
