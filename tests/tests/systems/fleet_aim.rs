//! Faults that agents of a fleet are hit with because of each other: partitions between the agents of a target, flows
//! towards another target; and a fleet that goes on being commanded while everything else is lost.

use backburn_tests::fleet::{Fleet, Given, Host, LONG, PROGRAMS};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::runs;
use backburn_tests::software::Software;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::process::{Child, Stdio};

const SERVED: u16 = 8000;

/// Hosts with a web server each.
fn served(agents: &[(&str, &[&str])]) -> (Fleet, Vec<Software>) {
    let fleet = Fleet::new(agents, Given::default());
    let servers = fleet.hosts.iter().map(|host| {
        let mut command = host.command("python3");
        command
            .args(["-m", "http.server", &SERVED.to_string()])
            .current_dir(fleet.folder())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Software::start(&mut command)
    });
    let servers = servers.collect();
    for one in &fleet.hosts {
        for other in &fleet.hosts {
            wait_within("everybody reaches everybody", LONG, || reaches(one, other));
        }
    }
    (fleet, servers)
}

/// Asks one host's server from another; whoever gets no page within some seconds does not reach it.
fn ask(from: &Host, to: &Host) -> Child {
    let url = format!("http://{}:{SERVED}/", to.address);
    let mut curl = from.command("curl");
    curl.args(["--silent", "--output", "/dev/null", "--max-time", "3", &url]);
    curl.spawn().expect("it starts")
}

fn reaches(from: &Host, to: &Host) -> bool {
    ask(from, to).wait().expect("it ends").success()
}

/// Who reaches whom, by name. All are asked at once.
fn reached(fleet: &Fleet) -> Vec<String> {
    let mut asked = Vec::new();
    for from in &fleet.hosts {
        for to in fleet.hosts.iter().filter(|to| to.name != from.name) {
            asked.push((format!("{} {}", from.name, to.name), ask(from, to)));
        }
    }
    let answered = asked.into_iter().filter_map(|(way, mut curl)| {
        let ended = curl.wait().expect("it ends");
        ended.success().then_some(way)
    });
    answered.collect()
}

fn partition(targets: Value, on: &str, arguments: Value) -> Value {
    json!({
        "title": "Cut off", "description": "Some do not reach others",
        "targets": targets,
        "steady-state-hypothesis": backburn_tests::fleet::hypothesis(),
        "method": [{
            "type": "action", "name": "cut", "provider": {
                "type": "fault", "fault": "network-partition", "targets": on, "duration": "10m",
                "arguments": arguments,
            },
        }],
    })
}

/// Runs it until it acts, looks who reaches whom, and stops it.
fn reached_under(fleet: &Fleet, name: &str, document: &Value, agents: usize) -> Vec<String> {
    let run = fleet.begin(name, document);
    wait_within("it acts on each", LONG, || {
        let events = fleet
            .ask(&format!("GET /api/v1/runs/{run}/events?limit=1000"))
            .json();
        let injected = events.as_array().expect("a list").iter();
        let injected = injected.filter(|event| event["entry"]["event"] == "injected");
        injected.count() == agents
    });
    let found = reached(fleet);
    let stopped = fleet.says(&["stop", &run]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let ended = fleet.until_over(&run);
    assert_eq!(ended.verdict["outcome"], "aborted", "{ended:#?}");
    assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
    for host in &fleet.hosts {
        assert_eq!(runs::owed(&host.state), "");
    }
    assert_eq!(
        reached(fleet).len(),
        12,
        "everybody reaches everybody again"
    );
    found
}

#[test]
fn agents_partitioned_from_each_other_keep_their_controller() {
    let programs: Vec<&str> = PROGRAMS.into_iter().chain(["python3", "curl"]).collect();
    in_network_namespace(&programs, || {
        let (fleet, _servers) = served(&[
            ("db-1", &["role=db"]),
            ("db-2", &["role=db"]),
            ("db-3", &["role=db"]),
            ("web", &["role=web"]),
        ]);
        let db = json!({"labels": {"role": "db"}, "select": "all"});

        // The first of a target from the others of it; the agents are in the order of their names.
        let between = json!({"between": {"members": ["@db"], "shape": "isolate"}});
        let document = partition(json!({"db": db}), "db", between);
        let found = reached_under(&fleet, "isolate", &document, 3);
        let expected = [
            "db-1 web",
            "db-2 db-3",
            "db-2 web",
            "db-3 db-2",
            "db-3 web",
            "web db-1",
            "web db-2",
            "web db-3",
        ];
        assert_eq!(found, expected);

        // Flows from one target to a port of another, which takes no part.
        let web = json!({"labels": {"role": "web"}});
        let to = json!({"to": format!("@db:{SERVED}")});
        let document = partition(json!({"db": db, "web": web}), "web", to);
        let found = reached_under(&fleet, "flows", &document, 1);
        let cut: Vec<&String> = found.iter().filter(|way| way.starts_with("web")).collect();
        assert!(cut.is_empty(), "{found:?}");
        // Its answers to them are not of such a flow.
        assert_eq!(found.len(), 9, "{found:?}");

        // Everything is lost, but for what the controller says: it ends it.
        let everything = json!({"to": ["0.0.0.0/0", "::/0"], "from": ["0.0.0.0/0", "::/0"]});
        let document = partition(json!({"db": db}), "db", everything);
        let found = reached_under(&fleet, "everything", &document, 3);
        assert_eq!(found, [""; 0]);

        // A target that nobody wrote down.
        let ended = fleet.run(
            "nobody",
            &partition(json!({"db": db}), "db", json!({"to": "@dbs"})),
        );
        assert_eq!(ended.verdict["outcome"], "not-started", "{ended:#?}");
        assert!(
            format!("{ended:?}").contains("no such target"),
            "{ended:#?}"
        );
    });
}
