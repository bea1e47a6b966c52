//! What the owners of a controller and of its agents allow, and agents that may not come back.

use backburn_tests::fleet::{Fleet, Given, Host, LONG, PROGRAMS, Said, VICTIM};
use backburn_tests::privately::privately_networked;
use backburn_tests::software::wait_until;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde_json::{Value, json};

/// Pauses a victim on agents with this label.
fn pause(role: &str, select: Value, duration: &str) -> Value {
    json!({
        "title": role, "description": "A process stands still",
        "targets": {"all": {"labels": {"role": role}, "select": select}},
        "method": [{"type": "action", "name": "pause", "provider": {
            "type": "fault", "fault": "process-pause", "targets": "all", "duration": duration,
            "arguments": {"process": {"name": VICTIM}}}}],
    })
}

fn assert_refused(said: &Said, rule: &str, by: &str) {
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains(&format!("(rule: {rule})")), "{said:?}");
    assert!(said.err.contains(&format!("`{by}`")), "{said:?}");
}

/// The hours around now, in UTC, and a day on which they are whatever the clock does meanwhile.
fn now() -> (String, String) {
    let day = |at: Timestamp| at.strftime("%F").to_string();
    let now = Timestamp::now();
    let from = day(now - SignedDuration::from_hours(24));
    let until = day(now.checked_add(48.hours()).expect("a time"));
    ("00:00-24:00".to_owned(), format!("{from}/{until}"))
}

#[test]
fn owners_have_the_last_word_and_name_their_rule() {
    let name = "owners_have_the_last_word_and_name_their_rule";
    privately_networked(name, &PROGRAMS, || {
        let agents: [(&str, &[&str]); 8] = [
            ("who", &["role=who"]),
            ("kind", &["role=kind"]),
            ("brief", &["role=brief"]),
            ("few-1", &["role=few"]),
            ("few-2", &["role=few"]),
            ("night", &["role=night"]),
            ("feast", &["role=feast"]),
            ("pay", &["role=pay"]),
        ];
        let (hours, dates) = now();
        let policy = json!({"rules": [
            {"name": "only ops", "labels": {"role": "who"}, "who": ["ops"]},
            {"name": "only network", "labels": {"role": "kind"}, "faults": ["network-*"]},
            {"name": "brief", "labels": {"role": "brief"}, "max-duration": "1s"},
            {"name": "one", "labels": {"role": "few"}, "max-agents": 1},
            {"name": "half", "labels": {"role": "few"}, "max-percent": 50},
            {"name": "quiet", "labels": {"role": "night"}, "quiet": [{"hours": hours}]},
            {"name": "feast", "labels": {"role": "feast"}, "blackouts": [dates]},
            {"name": "two of us", "labels": {"role": "pay"}, "approval": true},
        ]});
        let given = Given {
            policy: Some(policy),
            ..Given::default()
        };
        let mut fleet = Fleet::new(&agents, given);
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let says = |fleet: &Fleet, role: &str, select: Value, duration: &str| {
            fleet.apply(role, &pause(role, select, duration));
            fleet.says(&["run", role, "--wait"])
        };
        let one = || json!({"count": 1});
        for (role, duration, by) in [
            ("who", "100ms", "only ops"),
            ("kind", "100ms", "only network"),
            ("brief", "2s", "brief"),
            ("night", "100ms", "quiet"),
            ("feast", "100ms", "feast"),
        ] {
            let said = says(&fleet, role, one(), duration);
            assert_refused(&said, "policy", by);
            let plan = fleet.says(&["plan", role]);
            assert_refused(&plan, "policy", by);
        }
        assert_refused(&says(&fleet, "few", json!("all"), "100ms"), "policy", "one");
        assert!(!victims.iter().any(|victim| victim.is_paused()));
        assert_eq!(fleet.says(&["runs", "--json"]).json(), json!([]));
        // What is within the limits may be.
        assert_eq!(says(&fleet, "brief", one(), "100ms").code, 0);
        assert_eq!(says(&fleet, "few", one(), "100ms").code, 0);
        let ops = fleet.token("ops", "operator");
        let said = fleet.says_as(&ops, &["run", "who", "--wait"]);
        assert_eq!(said.code, 0, "{said:?}");

        // A second person.
        let said = says(&fleet, "pay", one(), "100ms");
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains("`two of us`"), "{said:?}");
        assert!(!victims[7].is_paused());
        let waiting = fleet.says(&["approvals"]).out;
        let id = waiting
            .split_whitespace()
            .next()
            .expect("one waits")
            .to_owned();
        let same = fleet.says(&["approve", &id]);
        assert_eq!(same.code, 3, "{same:?}");
        assert!(same.err.contains("`admin` asked for it"), "{same:?}");
        let viewer = fleet.token("eve", "viewer");
        assert_eq!(fleet.says_as(&viewer, &["approve", &id]).code, 3);
        let begun = fleet.says_as(&ops, &["approve", &id]);
        assert_eq!(begun.code, 0, "{begun:?}");
        assert_eq!(fleet.until_over(begun.out.trim()).code, 0);
        assert_eq!(fleet.says(&["approvals"]).out, "");
        assert_ne!(
            fleet.says_as(&ops, &["approve", &id]).code,
            0,
            "it is used up"
        );

        // The agent's own.
        fleet
            .host_mut("brief")
            .obey(&json!({"deny-faults": ["process-pause"]}));
        fleet.until_connected();
        let ended = fleet.run("brief", &pause("brief", one(), "100ms"));
        assert_eq!(ended.code, 3, "{ended:#?}");
        let refused = &ended.of("not-started")[0];
        assert_eq!(refused["rule"], "policy", "{ended:#?}");
        assert!(
            refused["hint"].to_string().contains("`deny-faults`"),
            "{ended:#?}"
        );

        // Who is revoked is gone at once, and does not come back.
        let run = fleet.begin("few", &pause("few", one(), "10m"));
        let hit = |fleet: &Fleet| {
            fleet
                .hosts
                .iter()
                .zip(&victims)
                .find(|(_, victim)| victim.is_paused())
                .map(|(host, _)| host.name.clone())
        };
        wait_until("it acts", LONG, || hit(&fleet).is_some());
        let hit = hit(&fleet).expect("it was seen");
        assert_eq!(fleet.says(&["agents", "revoke", &hit]).code, 0);
        wait_until("it is put back", LONG, || {
            !victims.iter().any(|victim| victim.is_paused())
        });
        fleet.until_clean();
        let log = || {
            let log = fleet.host(&hit).state.with_extension("log");
            std::fs::read_to_string(log).unwrap_or_default()
        };
        wait_until("it is not let in", LONG, || log().contains("not connected"));
        assert!(fleet.says(&["agents"]).out.contains("revoked"));
        // Nobody can say any more whether all is gone there.
        let open = fleet.ask("GET /api/v1/runs?open=true").json();
        assert_eq!(open[0]["id"], run.as_str(), "{open:#}");
    });
}
