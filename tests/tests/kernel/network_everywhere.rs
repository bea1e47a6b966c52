//! Every network fault in every place: the host's own network, a namespace with a name, that of a process, and that
//! of a container of a real runtime. Each has an effect there, and leaves nothing.

use backburn_tests::container::{self, Container};
use backburn_tests::isolated::{in_network_namespace, skip};
use backburn_tests::machine;
use backburn_tests::network::{THERE, Wire, at, ip, tcp, udp};
use backburn_tests::network_fault::{Fault, PROGRAMS, SOON, ruleset};
use backburn_tests::programs;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

const PORT: u16 = 8000;

/// Each fault with what it wants besides its flows. Those of name servers have tests of their own: they want one to ask.
const FAULTS: &[(&str, &str)] = &[
    ("network-bandwidth", r#"{"rate": "1MB"}"#),
    ("network-corrupt", r#"{"percent": 50}"#),
    ("network-duplicate", r#"{"percent": 50}"#),
    ("network-latency", r#"{"delay": "5ms"}"#),
    ("network-loss", r#"{"percent": 50}"#),
    ("network-partition", "{}"),
    ("network-reject", "{}"),
    ("network-reorder", r#"{"delay": "5ms", "percent": 50}"#),
];

/// Something goes by, there and back, whatever comes of it.
fn traffic() {
    for _ in 0..20 {
        udp(at(THERE[0], PORT), Duration::from_millis(20)).ok();
        udp(at(THERE[1], PORT), Duration::from_millis(20)).ok();
    }
    tcp(at(THERE[0], PORT), Duration::from_millis(100)).ok();
}

fn is_whole() -> bool {
    THERE
        .iter()
        .all(|there| udp(at(there, PORT), SOON).is_ok() && tcp(at(there, PORT), SOON).is_ok())
}

fn devices() -> String {
    let output = Command::new("ip")
        .args(["-brief", "link"])
        .output()
        .expect("`ip` starts");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn network_faults_act_in_every_kind_of_namespace() {
    if let Some(missing) = container::WANTED
        .iter()
        .find(|program| machine::found(program).is_none())
    {
        return skip(&format!("`{missing}` is not there; `tests/run` fetches it"));
    }
    in_network_namespace(&PROGRAMS, || {
        let listed = Command::new(programs::backburn_agent())
            .args(["faults", "--json"])
            .output()
            .expect("the agent starts");
        let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).expect("JSON");
        let known: BTreeSet<&str> = listed
            .iter()
            .filter_map(|fault| fault["name"].as_str())
            .filter(|name| name.starts_with("network-"))
            .collect();
        let tried: BTreeSet<&str> = FAULTS.iter().map(|(name, _)| *name).collect();
        assert_eq!(known, tried, "every network fault is tried here");

        let wire = Wire::new();
        wire.echo(PORT);
        // Names are files, and this folder is the machine's: ours is laid over it.
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "none", "/run"])
            .status();
        assert!(mounted.expect("`mount` starts").success());
        ip(&["netns", "attach", "blue", &wire.pid().to_string()]);
        let container = Container::new(&format!("/proc/{}/ns/net", wire.pid()));
        let places = [
            ("the host's own", json!({})),
            ("named", json!({"namespace": "blue"})),
            ("a process's", json!({"of": {"pid": wire.pid()}})),
            ("a container's", json!({"of": {"pid": container.pid()}})),
        ];
        for (place, more) in &places {
            for (fault, arguments) in FAULTS {
                let before = [devices(), wire.there(devices)];
                let mut arguments: Map<String, Value> =
                    serde_json::from_str(arguments).expect("an object");
                arguments.insert("ports".into(), json!(PORT));
                arguments.extend(more.as_object().expect("an object").clone());
                let injected = Fault::inject(fault, &Value::Object(arguments), "60s");
                traffic();
                let effect = injected.end();
                println!("{place}: {fault}: {}", effect["seen"]);
                assert_eq!(effect["acts"], true, "{place}: {fault}: {effect}");
                assert_eq!(ruleset() + &wire.there(ruleset), "", "{place}: {fault}");
                assert_eq!([devices(), wire.there(devices)], before, "{place}: {fault}");
                let started = Instant::now();
                while !is_whole() {
                    assert!(
                        started.elapsed() < Duration::from_secs(20),
                        "{place}: {fault}: not whole again"
                    );
                }
            }
        }
    });
}
