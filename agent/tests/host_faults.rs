//! Plans of faults that hit a host as a whole, on a made-up host. Nothing is applied here: what they do is tried in a virtual machine.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod made;
mod made_host;

use backburn_agent::faults::{HOST_FAULTS, PlanContext, find};
use backburn_agent::packet_filter::ControlConnection;
use backburn_agent::plan::{HostFaultRules, Plan, ProtectedPaths};
use backburn_agent::policy::HostPolicy;
use backburn_agent::processes::Protection;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Refusal;
use made_host::MadeHost;
use serde_json::{Value, json};

/// What a test alters of the circumstances.
struct Circumstances {
    host: MadeHost,
    rules: HostFaultRules,
    link: Option<ControlConnection>,
    duration: Option<HumanDuration>,
}

fn plan(
    fault: &str,
    arguments: Value,
    alter: impl FnOnce(&mut Circumstances),
) -> Result<Plan, Refusal> {
    let made = made::Made::new();
    let mut now = Circumstances {
        host: MadeHost::new(&made),
        rules: HostFaultRules {
            allowed: HOST_FAULTS.iter().map(|name| (*name).to_owned()).collect(),
            policy: "/etc/backburn/agent.json".into(),
            state: "/state".into(),
            is_local_run: false,
        },
        link: Some(ControlConnection {
            here: "10.0.0.1:40000".parse().unwrap(),
            there: "10.0.0.9:7777".parse().unwrap(),
        }),
        duration: None,
    };
    alter(&mut now);
    let context = PlanContext {
        host: &now.host,
        protection: &Protection::default(),
        protected_ports: &[22],
        protected_paths: &ProtectedPaths::default(),
        host_rules: &now.rules,
        request_limits: &backburn_agent::plan::RequestLimits::default(),
        control_connection: now.link,
        injection: "trial",
        first_mark: 0,
        held: &[],
        duration: now.duration,
        seed: 1,
    };
    find(fault)
        .unwrap()
        .plan(arguments.as_object().unwrap(), &context)
}

#[track_caller]
fn assert_refused(rule: &str, says: &str, alter: impl Fn(&mut Circumstances)) {
    for fault in ["host-reboot", "host-shutdown"] {
        let refusal = plan(fault, json!({}), &alter).unwrap_err();
        assert_eq!(refusal.rule, rule, "{refusal}");
        assert!(refusal.hint.is_some(), "{refusal}");
        assert!(refusal.to_string().contains(says), "{refusal}");
    }
}

#[test]
fn host_clock_is_planned_with_what_it_was_and_holds_time_daemons() {
    let arguments = json!({"host": true, "offset": "-1h"});
    let skew = plan("clock-skew", arguments.clone(), |_| {}).unwrap();
    let change = serde_json::to_value(&skew.changes).unwrap();
    assert_eq!(
        change,
        json!([{"change": "host-clock", "offset-ms": -3_600_000, "ahead-ns": 1_700_000_000_000_000_000_i64, "boot": skew.victims[0].id}])
    );
    assert!(skew.warnings[0].contains("TLS"), "{:?}", skew.warnings);
    assert!(skew.notes[0].contains("no time daemon"), "{:?}", skew.notes);
    for (rule, alter) in [
        (
            "policy",
            (|now| now.rules.allowed = vec!["host-reboot".into()]) as fn(&mut Circumstances),
        ),
        ("local-run", |now| now.rules.is_local_run = true),
        ("not-available", |now| {
            now.host.facts.is_first_pid_namespace = false
        }),
        ("not-permitted", |now| now.host.facts.may_set_clock = false),
        ("controller-host", |now| {
            now.host.facts.controllers = vec!["backburn controller (7)".into()]
        }),
    ] {
        let refusal = plan("clock-skew", arguments.clone(), alter).unwrap_err();
        assert_eq!(refusal.rule, rule, "{refusal}");
        assert!(refusal.hint.is_some(), "{refusal}");
    }
    for (wrong, at) in [
        (
            json!({"host": true, "process": {"pid": 30}, "offset": "1h"}),
            "$.host",
        ),
        (json!({"offset": "1h"}), "$"),
        (json!({"host": false, "offset": "1h"}), "$"),
        (json!({"host": true, "offset": "999ms"}), "$.offset"),
        (json!({"host": true, "offset": "0s"}), "$.offset"),
    ] {
        let refusal = plan("clock-skew", wrong.clone(), |_| {}).unwrap_err();
        let places: Vec<&str> = refusal
            .problems
            .iter()
            .map(|problem| problem.at.as_str())
            .collect();
        assert_eq!(places, [at], "{wrong}");
    }
}

#[test]
fn restart_is_planned_with_the_boot_that_it_ends() {
    let reboot = plan("host-reboot", json!({"after": "3s"}), |_| {}).unwrap();
    assert_eq!(reboot.victims.len(), 1);
    let change = serde_json::to_value(&reboot.changes[0]).unwrap();
    assert_eq!(change["role"]["deed"], "reboot");
    assert_eq!(change["role"]["notice"], "3s");
    assert_eq!(
        change["role"]["boot"],
        "00000000-0000-4000-8000-000000000000"
    );
    assert_eq!(change["role"]["policy"], "/etc/backburn/agent.json");
    assert!(
        reboot.warnings[0].contains("services are not stopped"),
        "{reboot:?}"
    );
    let off = plan("host-shutdown", json!({}), |_| {}).unwrap();
    assert!(
        off.notes
            .iter()
            .any(|note| note.contains("nobody here switches it on")),
        "{off:?}"
    );
}

#[test]
fn restart_is_refused_unless_the_policy_names_it() {
    assert_refused("policy", "\"allow-host-faults\": [\"host-", |now| {
        now.rules = HostFaultRules::default();
    });
    assert_refused("policy", "does not allow", |now| {
        now.rules.allowed = vec!["cpu-stress".into()];
    });
}

#[test]
fn restart_of_the_host_of_the_run_itself_is_refused() {
    assert_refused("local-run", "--controller", |now| {
        now.rules.is_local_run = true
    });
    assert_refused("controller-host", "backburn controller", |now| {
        now.host.facts.controllers = vec!["`backburn controller` (process 7)".into()];
    });
    for there in ["127.0.0.1:7777", "10.0.0.1:7777", "[::1]:7777"] {
        assert_refused("controller-host", there, |now| {
            now.link.as_mut().unwrap().there = there.parse().unwrap();
        });
    }
}

#[test]
fn restart_from_a_container_or_without_the_capability_is_refused() {
    assert_refused("not-available", "container", |now| {
        now.host.facts.is_first_pid_namespace = false;
    });
    assert_refused("not-permitted", "CAP_SYS_BOOT", |now| {
        now.host.facts.may_restart = false;
    });
    assert_refused("arguments", "repeated", |now| {
        now.duration = Some(HumanDuration::seconds(60));
    });
}

#[test]
fn restart_times_out_of_range_are_refused() {
    for (arguments, at) in [
        (json!({"after": "61s"}), "$.after"),
        (json!({"after": "1ms"}), "$.after"),
        (json!({"within": "0s"}), "$.within"),
        (json!({"within": "2h"}), "$.within"),
    ] {
        let refusal = plan("host-reboot", arguments, |_| {}).unwrap_err();
        assert_eq!(refusal.problems[0].at, at, "{refusal}");
        assert!(refusal.problems[0].hint.is_some());
    }
}

#[test]
fn policy_with_another_fault_among_those_of_hosts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    std::fs::write(
        &path,
        r#"{"allow-host-faults": ["host-reboot", "cpu-stress"]}"#,
    )
    .unwrap();
    let refused = HostPolicy::load(Some(&path)).unwrap_err().to_string();
    assert!(refused.contains("$.allow-host-faults[1]"), "{refused}");
    assert!(refused.contains("host-reboot, host-shutdown"), "{refused}");
}
