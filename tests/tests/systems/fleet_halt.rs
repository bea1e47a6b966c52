//! The halt lever: everything that acts is gone when it returns, nothing starts until it is let go of, a restart does
//! not let go of it; and it works while the store does not.

use backburn_tests::fleet::{Fleet, Given, Host, LONG, PROGRAMS, VICTIM};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::runs;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// How many processes an agent is at rest: connector, guardian, worker.
const AT_REST: usize = 3;

/// Faults on one agent, all at once, for long.
fn faults(agent: &str, faults: &[(&str, Value)]) -> Value {
    let method: Vec<Value> = faults
        .iter()
        .map(|(fault, arguments)| {
            json!({"type": "action", "name": fault, "background": true, "provider": {
                "type": "fault", "fault": fault, "targets": "one", "duration": "10m",
                "arguments": arguments}})
        })
        .collect();
    json!({
        "title": agent, "description": "Faults on one agent",
        "targets": {"one": {"labels": {"name": agent}}},
        "steady-state-hypothesis": backburn_tests::fleet::hypothesis(),
        "method": method,
    })
}

fn held() -> (&'static str, Value) {
    ("process-pause", json!({"process": {"name": VICTIM}}))
}

/// What a program on a host prints.
fn on(host: &Host, program: &str, words: &[&str]) -> String {
    let output = host.command(program).args(words).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the kernel has of filters and shaping on a host.
fn network(host: &Host) -> String {
    on(host, "nft", &["list", "ruleset"]) + &on(host, "tc", &["qdisc", "show"])
}

fn outcome(fleet: &Fleet, run: &str) -> (String, i32) {
    let ended = fleet.until_over(run);
    let outcome = ended.verdict["outcome"].as_str().expect("an outcome");
    assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
    (outcome.to_owned(), ended.code)
}

#[test]
fn halt_returns_when_every_fault_is_gone() {
    let programs = [&PROGRAMS[..], &["nft", "tc"]].concat();
    in_network_namespace(&programs, || {
        let agents: [(&str, &[&str]); 3] = [
            ("one", &["name=one"]),
            ("two", &["name=two"]),
            ("three", &["name=three"]),
        ];
        let mut fleet = Fleet::new(&agents, Given::default());
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let before: Vec<String> = fleet.hosts.iter().map(network).collect();
        let burn = ("cpu-stress", json!({"workers": 1, "load-percent": 10}));
        let fill = ("memory-fill", json!({"size": "16MiB"}));
        let slow = (
            "network-latency",
            json!({"to": "10.8.0.77", "delay": "20ms"}),
        );
        let lose = (
            "dns-fail",
            json!({"names": ["db.example.org"], "with": "timeout"}),
        );
        let several = [
            ("one", vec![held(), burn.clone()]),
            ("two", vec![fill, slow.clone()]),
            ("three", vec![held(), lose, burn]),
        ];
        let all: usize = several.iter().map(|(_, faults)| faults.len()).sum();
        let running: Vec<String> = several
            .iter()
            .map(|(agent, list)| fleet.begin(agent, &faults(agent, list)))
            .collect();
        wait_within("everything acts", LONG, || {
            let events = running.iter().flat_map(|run| {
                let path = format!("GET /api/v1/runs/{run}/events?limit=1000");
                fleet.ask(&path).json().as_array().cloned().expect("a list")
            });
            events
                .filter(|event| event["entry"]["event"] == "injected")
                .count()
                == all
        });
        assert!(victims[0].is_paused() && victims[2].is_paused());
        assert!(fleet.hosts.iter().all(|host| host.ours().len() > AT_REST));
        assert_ne!(network(&fleet.hosts[1]), before[1]);

        let halt = fleet.says(&["halt", "--why", "the shop is on fire", "--json"]);
        // Looked at once, with no patience at all.
        assert!(!victims.iter().any(|victim| victim.is_paused()));
        let now: Vec<String> = fleet.hosts.iter().map(network).collect();
        assert_eq!(now, before);
        for host in &fleet.hosts {
            assert_eq!(runs::owed(&host.state), "", "{}", host.name);
            assert_eq!(host.ours().len(), AT_REST, "{:?}", host.ours());
        }
        assert_eq!(halt.code, 0, "{halt:?}");
        let report = halt.json();
        assert_eq!(report["clean"], true, "{report:#}");
        assert_eq!(report["remembered"], true, "{report:#}");
        assert_eq!(report["unknown"], json!([]), "{report:#}");
        let ended = report["runs"].as_array().expect("a list");
        assert!(
            running.iter().all(|run| ended.contains(&json!(run))),
            "{report:#}"
        );
        let told = report["agents"].as_array().expect("a list");
        assert_eq!(told.len(), 3, "{report:#}");
        let took = report["took-ms"].as_f64().expect("a number");
        for agent in told {
            let own = agent["took-ms"].as_f64().expect("it has answered");
            assert!(own > 0.0 && own <= took, "{report:#}");
            assert_eq!(agent["owed"], json!([]), "{report:#}");
        }
        println!("{report:#}");
        for run in &running {
            assert_eq!(outcome(&fleet, run), ("aborted".into(), 4));
        }

        // Nothing starts, now and after a crash.
        let refused = |fleet: &Fleet| {
            let refused = fleet.says(&["run", "one", "--wait"]);
            assert_eq!(refused.code, 3, "{refused:?}");
            assert!(refused.err.contains("(rule: halt)"), "{refused:?}");
            assert!(refused.err.contains("the shop is on fire"), "{refused:?}");
        };
        refused(&fleet);
        fleet.kill();
        fleet.start(&[]);
        wait_within("the log says that nothing starts", LONG, || {
            fleet.log().contains("a halt is in force")
        });
        fleet.until_connected();
        refused(&fleet);
        assert!(!victims.iter().any(|victim| victim.is_paused()));
        assert_eq!(fleet.says(&["resume"]).code, 0);
        let mut short = faults("one", &[held()]);
        short["method"][0]["provider"]["duration"] = "100ms".into();
        assert_eq!(fleet.run("short", &short).code, 0);
        fleet.kill();
        fleet.start(&[]);
        fleet.until_connected();
        assert_eq!(fleet.run("short", &short).code, 0);
    });
}

/// Fills a file system to its last byte.
fn fill(folder: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("filler")).expect("a file can be made");
    for size in [1 << 16, 1 << 12, 1 << 8, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[test]
fn full_disk_under_the_store_ends_runs_and_spares_halt() {
    let programs = [&PROGRAMS[..], &["mount"]].concat();
    in_network_namespace(&programs, || {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=700", "small"])
            .arg(folder.path())
            .status();
        assert!(mounted.is_ok_and(|status| status.success()), "a small disk");
        let data = folder.path().join("controller");
        let given = Given {
            data: Some(data),
            ..Given::default()
        };
        let agents: [(&str, &[&str]); 2] = [("one", &["name=one"]), ("two", &["name=two"])];
        let fleet = Fleet::new(&agents, given);
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let mut document = faults("one", &[held()]);
        // Something to be written again and again.
        document["abort"] = json!([{"name": "memory", "every": "50ms", "probe": {
            "type": "probe", "name": "memory", "tolerance": [0, 100],
            "provider": {"type": "host", "metric": "memory-available-percent"}, "from": "one"}}]);
        let run = fleet.begin("one", &document);
        victims[0].until_paused();
        fill(folder.path());
        victims[0].until_free();
        fleet.until_clean();
        // It can't be told to anybody who would keep it, and goes on all the same.
        let halt = fleet.says(&["halt", "--json"]);
        let report = halt.json();
        assert_eq!(halt.code, 0, "{report:#}");
        assert_eq!(report["clean"], true, "{report:#}");
        assert_eq!(report["remembered"], false, "{report:#}");
        assert_eq!(
            report["agents"].as_array().map(Vec::len),
            Some(2),
            "{report:#}"
        );
        let shown = fleet.says(&["halt"]);
        assert!(
            shown.err.contains("the halt could not be stored"),
            "{shown:?}"
        );
        let refused = fleet.says(&["run", "one"]);
        assert_ne!(
            refused.code, 0,
            "what can't be written down is not done: {refused:?}"
        );
        assert!(!victims.iter().any(|victim| victim.is_paused()));

        // There is room again: the run is closed, and what comes next goes on as ever.
        std::fs::remove_file(folder.path().join("filler")).expect("it is there");
        let ended = fleet.until_over(&run);
        assert_eq!(ended.verdict["outcome"], "aborted", "{ended:#?}");
        assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
        assert!(
            ended.verdict["reasons"].to_string().contains("journal"),
            "{ended:#?}"
        );
        let refused = fleet.says(&["run", "one", "--wait"]);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert_eq!(fleet.says(&["resume"]).code, 0);
        document["method"][0]["provider"]["duration"] = "100ms".into();
        assert_eq!(fleet.run("one", &document).code, 0);
        let chain = fleet.says(&["audit", "--verify"]);
        assert_eq!(chain.code, 0, "{chain:?}");
    });
}
