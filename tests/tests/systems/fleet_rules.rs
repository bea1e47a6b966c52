//! What the owners of a controller and of its agents allow, and agents that may not come back.

use backburn::store::{NewRun, RunEnd, SqliteStore, Store as _, Trigger};
use backburn_experiments::journal::Outcome;
use backburn_tests::fleet::{Fleet, Given, Host, LONG, PROGRAMS, Said, Victim, strike};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::wait::wait_within;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Stdio;

/// Pauses a victim on agents with this label.
fn pause(role: &str, select: Value, duration: &str) -> Value {
    let mut document = backburn_tests::fleet::pause(role, duration);
    document["targets"]["all"]["select"] = select;
    document
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
fn agent_policy_overrides_the_controller_and_names_its_rule() {
    in_network_namespace(&PROGRAMS, || {
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
        // Each is a run that was not started; plans are none.
        let runs = fleet.says(&["runs", "--json"]).json();
        let runs = runs.as_array().expect("a list");
        assert_eq!(runs.len(), 6, "{runs:#?}");
        assert!(
            runs.iter()
                .all(|run| run["outcome"] == "not-started" && run["exit-code"] == 3)
        );
        // What is within the limits may be.
        assert_eq!(says(&fleet, "brief", one(), "100ms").code, 0);
        assert_eq!(says(&fleet, "few", one(), "100ms").code, 0);
        let ops = fleet.token("ops", "operator");
        let said = fleet.says_as(&ops, &["run", "who", "--wait"]);
        assert_eq!(said.code, 0, "{said:?}");

        // A second person.
        fleet.apply("pay", &pause("pay", one(), "100ms"));
        let said = fleet.says(&["run", "pay"]);
        assert_eq!(said.code, 8, "{said:?}");
        assert!(said.err.contains("`two of us`"), "{said:?}");
        assert!(!victims[7].is_paused());
        let told = said.out.trim().to_owned();
        let waiting = fleet.says(&["approvals", "--json"]).json();
        let id = waiting[0]["id"].as_str().expect("one waits").to_owned();
        assert_eq!(id, told);
        let shown = fleet.says(&["approvals", &id]).out;
        assert!(
            shown.contains("on pay, seed") && shown.contains("hits process"),
            "{shown}"
        );
        assert_eq!(fleet.shown(&id)["state"], "waiting-for-approval");
        let same = fleet.says(&["approve", &id]);
        assert_eq!(same.code, 3, "{same:?}");
        assert!(same.err.contains("`admin` asked for this run"), "{same:?}");
        let viewer = fleet.token("eve", "viewer");
        assert_eq!(fleet.says_as(&viewer, &["approve", &id]).code, 3);
        let begun = fleet.says_as(&ops, &["approve", &id]);
        assert_eq!(begun.code, 0, "{begun:?}");
        assert_eq!(begun.out.trim(), id, "it keeps its id");
        assert_eq!(fleet.until_over(&id).code, 0);
        assert_eq!(fleet.says(&["approvals"]).out, "");
        assert_ne!(
            fleet.says_as(&ops, &["approve", &id]).code,
            0,
            "it is used up"
        );

        // Whoever waits for the approval gets the run's exit code.
        let waits = fleet
            .command(&["run", "pay", "--wait"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let waiting = || fleet.says(&["approvals", "--json"]).json();
        wait_within("it waits", LONG, || {
            waiting().as_array().is_some_and(|all| all.len() == 1)
        });
        let id = waiting()[0]["id"].as_str().expect("an id").to_owned();
        assert_eq!(fleet.says_as(&ops, &["approve", &id]).code, 0);
        let ended = waits.wait_with_output().expect("it ends");
        let (out, err) = (
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr),
        );
        assert_eq!(ended.status.code(), Some(0), "{out}{err}");
        assert!(
            out.contains("approved by `ops`") && err.contains("waiting for approval"),
            "{out}{err}"
        );

        // A policy that is wrong changes nothing; the next one is in force at once.
        let file = fleet.folder().join("policy.json");
        let loads = |outcome: &str| {
            let audit = fleet.says(&["audit"]).out;
            let of = audit.lines().filter(|line| {
                line.contains("load-policy") && line.contains(&format!(r#""outcome":"{outcome}""#))
            });
            of.count()
        };
        for (text, outcome) in [("{", "refused"), ("{}", "done")] {
            assert_refused(&fleet.says(&["run", "who", "--wait"]), "policy", "only ops");
            std::fs::write(&file, text).expect("it can be written");
            fleet.signal(Signal::SIGHUP);
            wait_within("it is loaded", LONG, || loads(outcome) == 1);
        }
        assert_eq!(fleet.says(&["run", "who", "--wait"]).code, 0);

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
    });
}

#[test]
fn revoked_agent_reverts_and_stays_away() {
    in_network_namespace(&PROGRAMS, || {
        let agents: [(&str, &[&str]); 4] = [
            ("web-1", &["role=web"]),
            ("web-2", &["role=web"]),
            ("db", &["role=db"]),
            ("rest", &["role=rest"]),
        ];
        let fleet = Fleet::new(&agents, Given::default());
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let log = |name: &str| {
            let log = fleet.host(name).state.with_extension("log");
            std::fs::read_to_string(log).unwrap_or_default()
        };
        let is_kept_out = |name: &str| {
            wait_within("it is not let in", LONG, || {
                log(name).contains("not connected")
            });
            let shown = fleet.ask(&format!("GET /api/v1/agents/{name}")).json();
            assert!(shown["revoked"].is_string(), "{shown:#}");
            assert_eq!(shown["connected"], false, "{shown:#}");
        };
        let begun = |role: &str, victims: &[Victim]| {
            let run = fleet.begin(role, &pause(role, json!("all"), "10m"));
            victims.iter().for_each(Victim::until_paused);
            run
        };
        let other = begun("rest", &victims[3..]);

        // In good order: all that its run did, there and elsewhere, is gone when the word is taken.
        let run = begun("web", &victims[..2]);
        let revoked = fleet.says(&["agents", "revoke", "web-1"]);
        assert_eq!(revoked.code, 0, "{revoked:?}");
        assert!(!victims[0].is_paused() && !victims[1].is_paused());
        let ended = fleet.until_over(&run);
        assert_eq!(ended.code, 4, "{ended:#?}");
        assert_eq!(ended.verdict["owed"], json!([]), "{ended:#?}");
        let why = ended.of("aborted")[0]["reason"].to_string();
        assert!(why.contains("`web-1` is about to be revoked"), "{why}");
        is_kept_out("web-1");
        // Who is left goes on.
        assert_eq!(
            fleet.run("web", &pause("web", json!("all"), "100ms")).code,
            0
        );

        // At once: it puts everything back all the same, and can't tell anybody.
        let run = begun("db", &victims[2..3]);
        let revoked = fleet.says(&["agents", "revoke", "db", "--force"]);
        assert_eq!(revoked.code, 0, "{revoked:?}");
        victims[2].until_free();
        is_kept_out("db");
        let open = fleet.ask("GET /api/v1/runs?open=true").json();
        let open: Vec<&Value> = open.as_array().expect("a list").iter().collect();
        let is_open = |run: &str| open.iter().any(|open| open["id"] == run);
        assert!(is_open(&run) && is_open(&other), "{open:#?}");
        assert!(victims[3].is_paused());
        assert_eq!(fleet.says(&["stop", &other]).code, 0);
        assert_eq!(fleet.until_over(&other).code, 4);

        // One that can't be heard is not revoked in good order.
        let run = begun("web", &victims[1..2]);
        // All of it: a part that hangs would be ended by the others, which put everything back.
        let processes = fleet.host("web-2").processes();
        for process in &processes {
            strike(*process, Signal::SIGSTOP);
        }
        let refused = fleet.says(&["agents", "revoke", "web-2"]);
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(refused.err.contains("--force"), "{refused:?}");
        let shown = fleet.ask("GET /api/v1/agents/web-2").json();
        assert!(shown["revoked"].is_null(), "{shown:#}");
        for process in &processes {
            strike(*process, Signal::SIGCONT);
        }
        victims[1].until_free();
        assert_eq!(fleet.until_over(&run).code, 4);
        fleet.until_clean();
    });
}

/// A run that began this many days ago; over at once, if at all.
fn past(store: &SqliteStore, id: &str, days: i64, is_over: bool) {
    let at = Timestamp::now() - SignedDuration::from_hours(24 * days);
    let run = NewRun {
        id: id.into(),
        experiment: None,
        title: id.into(),
        seed: 7,
        who: "ada".into(),
        because: Trigger::Asked,
        started: at,
    };
    store.open_run(&run).expect("it is opened");
    let entry = json!({"at": at, "elapsed": 0.0, "event": "run-started", "run": id, "title": id, "seed": 7,
        "version": "0", "hypothesis": [], "looks": {"before": false, "during": false, "after": false}});
    let entry = serde_json::from_value(entry).expect("an entry");
    store.append(id, &entry).expect("it is written");
    if is_over {
        let end = RunEnd {
            ended: at,
            outcome: Outcome::Held,
            verdict: json!({}),
        };
        store.close_run(id, &end).expect("it is closed");
    }
}

#[test]
fn runs_past_retention_are_forgotten() {
    in_network_namespace(&PROGRAMS, || {
        let mut fleet = Fleet::new(&[], Given::default());
        assert_eq!(fleet.end(), Some(0));
        let store = SqliteStore::open(&fleet.data().join("store")).expect("it is there");
        past(&store, "old", 91, true);
        past(&store, "cut-short", 91, false);
        past(&store, "young", 89, true);
        drop(store);
        let ids = |fleet: &Fleet| {
            let runs = fleet.says(&["runs", "--json"]).json();
            let runs = runs.as_array().expect("a list").iter();
            let ids: Vec<String> = runs
                .map(|run| run["id"].as_str().expect("an id").to_owned())
                .collect();
            ids.join(" ")
        };
        // For ever, where nothing is said.
        fleet.start(&[]);
        assert_eq!(ids(&fleet), "young cut-short old");
        assert_eq!(fleet.end(), Some(0));
        fleet.start(&[("BACKBURN_KEEP_RUNS_FOR", "90d")]);
        wait_within("the old one is forgotten", LONG, || {
            fleet.says(&["audit"]).out.contains("forget runs")
        });
        // What the crash cut short was closed by the first start, so it is not old.
        assert_eq!(ids(&fleet), "young cut-short");
        assert_ne!(fleet.says(&["runs", "old"]).code, 0);
        assert_eq!(fleet.shown("cut-short")["outcome"], "inconclusive");
        let audit = fleet.says(&["audit"]).out;
        let forgot: Vec<&str> = audit
            .lines()
            .filter(|line| line.contains("forget runs"))
            .collect();
        assert_eq!(forgot.len(), 1, "{audit}");
        assert!(forgot[0].contains(r#""detail":{"runs":1}"#), "{audit}");
        assert_eq!(fleet.says(&["audit", "--verify"]).code, 0);
        assert_eq!(fleet.end(), Some(0));
        assert!(!fleet.try_start(&[("BACKBURN_KEEP_RUNS_FOR", "59m")]));
    });
}
