//! What the plan of a network fault warns of, each shown by making it so, and not said where it is not so.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{DEVICE, HERE, THERE, Wire, echo_here, ip};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// What a plan says besides what it would do.
fn notes(fault: &str, arguments: &Value) -> String {
    let arguments = arguments.to_string();
    let words = [
        "plan",
        fault,
        "--json",
        "--duration",
        "5s",
        "--arguments",
        &arguments,
    ];
    let output = Place::default()
        .agent(&words, None)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the agent starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}");
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let notes = plan["notes"].as_array().cloned().unwrap_or_default();
    let notes: Vec<&str> = notes.iter().filter_map(Value::as_str).collect();
    notes.join("\n")
}

fn nft(rules: &str) {
    let status = Command::new("nft").arg(rules).status();
    assert!(status.is_ok_and(|status| status.success()), "nft {rules}");
}

/// Asks the kernel for its old packet filter's table, which it makes then, as `iptables-legacy` does first.
const LEGACY: &str = "
import ctypes, socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
room = ctypes.create_string_buffer(b'filter', 84)
ctypes.CDLL(None).getsockopt(s.fileno(), 0, 64, room, ctypes.byref(ctypes.c_uint(84)))
";

#[test]
fn plan_warns_of_what_would_hide_a_fault() {
    in_network_namespace(&["unshare", "ip", "nft", "python3"], || {
        let cut = "network-partition";
        let wire = Wire::new();
        let usual = json!({"to": [THERE[0], THERE[1]], "ports": 8000});
        assert_eq!(notes(cut, &usual), "");

        // A route, and none.
        let nowhere = json!({"to": ["192.0.2.1", "fd99::1", THERE[0]]});
        let said = notes(cut, &nowhere);
        assert!(
            said.contains("no route leads to 192.0.2.1, fd99::1"),
            "{said}"
        );

        // Somebody who listens, and nobody.
        let home = json!({"to": HERE, "ports": 8100, "direction": "ingress"});
        let said = notes(cut, &home);
        assert!(
            said.contains("nothing listens at 10.9.0.1:8100, [fd09::1]:8100"),
            "{said}"
        );
        echo_here(8100);
        assert_eq!(notes(cut, &home), "");

        // Others' rules: those that come later, that let all through or that are of the other direction are not told of.
        nft(
            "table inet later { chain out { type filter hook output priority 0; accept; }; chain in { type filter hook input priority 0; policy drop; }; }",
        );
        let out = json!({"to": THERE[0], "direction": "egress"});
        let reject = json!({"to": THERE[0], "direction": "ingress"});
        assert_eq!(
            notes(cut, &json!({"to": THERE[0], "direction": "ingress"})),
            ""
        );
        nft(
            "table ip wall { chain out { type filter hook output priority -100; policy drop; }; chain in { type filter hook input priority -100; jump deep; }; chain deep { tcp dport 9 drop; }; }",
        );
        assert!(
            notes(cut, &out)
                .contains("other rules come first and drop or reject some packets: `ip wall out`")
        );
        let said = notes("network-reject", &reject);
        assert!(
            said.contains("`ip wall in`") && !said.contains("later"),
            "{said}"
        );
        nft("flush ruleset");
        assert_eq!(notes(cut, &out), "");

        // An interface that carries nothing.
        ip(&[
            "link", "add", "idle", "type", "veth", "peer", "name", "idler",
        ]);
        let said = notes(cut, &json!({"interface": "idle"}));
        assert!(said.contains("`idle` is down"), "{said}");
        assert_eq!(notes(cut, &json!({"interface": DEVICE})), "");

        // In another namespace as here.
        let mut elsewhere = nowhere.clone();
        elsewhere["namespace"] = json!(wire.namespace());
        assert!(notes(cut, &elsewhere).contains("no route leads to 192.0.2.1, fd99::1"));

        // The old packet filter, where the kernel has it.
        assert!(!notes(cut, &usual).contains("legacy"));
        let names = "/proc/net/ip_tables_names";
        let asked = Command::new("python3").args(["-c", LEGACY]).status();
        assert!(asked.is_ok_and(|status| status.success()));
        if std::fs::read_to_string(names).is_ok_and(|names| !names.is_empty()) {
            let said = notes(cut, &usual);
            assert!(said.contains("legacy iptables (tables `filter`)"), "{said}");
        }

        // IPv6, and none.
        let sixth = json!({"to": THERE[1], "direction": "ingress"});
        assert!(!notes(cut, &sixth).contains("IPv6 is off"));
        ip(&["-6", "address", "flush", "dev", DEVICE]);
        assert!(notes(cut, &sixth).contains("IPv6 is off"));
    });
}

/// A plan, or why it is refused.
fn planned(fault: &str, arguments: &Value) -> (bool, Value) {
    let arguments = arguments.to_string();
    let words = [
        "plan",
        fault,
        "--json",
        "--duration",
        "5s",
        "--arguments",
        &arguments,
    ];
    let output = Place::default()
        .agent(&words, None)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the agent starts");
    let said = match output.status.success() {
        true => serde_json::from_slice(&output.stdout).expect("JSON"),
        false => Value::String(String::from_utf8_lossy(&output.stderr).into_owned()),
    };
    (output.status.success(), said)
}

#[test]
fn plan_of_another_effect_than_requested_warns_and_strict_refuses() {
    in_network_namespace(&["unshare", "ip", "nft"], || {
        let _wire = Wire::new();
        let mut cases = vec![(
            "network-bandwidth",
            json!({"interface": DEVICE, "rate": "8Mbit/s", "burst": "1600B", "queue": "1600B"}),
            None,
        )];
        // Where addresses are translated.
        nft("table ip nat { chain out { type nat hook output priority -100; }; }");
        cases.push((
            "network-bandwidth",
            json!({"to": THERE[0], "rate": "8Mbit/s"}),
            Some("addresses are translated here"),
        ));
        // Where the kernel has no netem, which others have.
        let netem = json!({"to": THERE[0], "delay": "50ms", "backend": "netem"});
        if !planned("network-latency", &netem).0 {
            for (fault, more) in [
                ("network-latency", json!({"delay": "50ms"})),
                ("network-reorder", json!({"delay": "50ms", "percent": 5})),
                ("network-corrupt", json!({"percent": 5})),
                ("network-duplicate", json!({"percent": 5})),
            ] {
                let mut arguments = more;
                arguments["to"] = json!(THERE[0]);
                cases.push((fault, arguments, Some("netem is not available")));
            }
        }
        for (fault, mut arguments, warning) in cases {
            let (may, plan) = planned(fault, &arguments);
            assert!(may, "{fault} {arguments}: {plan}");
            let warnings = plan["warnings"].to_string();
            let expected = warning.unwrap_or("null");
            assert!(warnings.contains(expected), "{fault} {arguments}: {plan}");
            arguments["strict"] = json!(true);
            let (may, said) = planned(fault, &arguments);
            assert_eq!(may, warning.is_none(), "{fault} {arguments}: {said}");
            let said = said.to_string();
            assert!(
                warning.is_none() || said.contains("would do something else"),
                "{said}"
            );
        }
        // What is asked for by its name is what is asked for.
        let named = json!({"to": THERE[0], "delay": "50ms", "backend": "nfqueue", "strict": true});
        let (may, plan) = planned("network-latency", &named);
        assert!(may && plan["warnings"].is_null(), "{plan}");
    });
}
