//! Experiments that run by themselves: each kind of schedule on a real fleet, and times that come while the last run goes on
//! or while no controller runs.

use backburn_tests::fleet::{Fleet, Given, Host, LONG, PROGRAMS, pause};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::wait::wait_within;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde_json::{Value, json};

/// When, so many seconds ahead.
fn ahead(seconds: i64) -> String {
    written(Timestamp::now() + SignedDuration::from_secs(seconds))
}

fn written(at: Timestamp) -> String {
    at.strftime("%FT%TZ").to_string()
}

/// The same, on this schedule.
fn on_schedule(role: &str, duration: &str, schedule: Value) -> Value {
    let mut document = pause(role, duration);
    document["schedule"] = schedule;
    document
}

/// What the audit log has of scheduled runs of an experiment.
fn scheduled(fleet: &Fleet, name: &str) -> Vec<Value> {
    let log = fleet.says(&["audit"]).out;
    let entries = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let text = format!("\"{name}\"");
    let is = |entry: &Value| {
        let entry = entry.to_string();
        entry.contains("scheduled run") && entry.contains(&text)
    };
    entries.filter(is).collect()
}

#[test]
fn schedule_runs_once_despite_restarts() {
    in_network_namespace(&PROGRAMS, || {
        let agents: [(&str, &[&str]); 3] =
            [("a", &["role=a"]), ("b", &["role=b"]), ("c", &["role=c"])];
        let mut fleet = Fleet::new(&agents, Given::default());
        let _victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let mut guarded = pause("b", "100ms");
        guarded["schedule"] = json!({"at": ahead(5), "guard": {
            "type": "probe", "name": "calm", "tolerance": 200,
            "provider": {"type": "http", "url": "http://127.0.0.1:1/"}}});
        fleet.apply("guarded", &guarded);
        let mut soon = pause("a", "100ms");
        soon["schedule"] = json!({"at": ahead(5)});
        fleet.apply("soon", &soon);
        let mut later = pause("c", "100ms");
        later["schedule"] = json!({"at": ahead(12)});
        fleet.apply("later", &later);
        let listed = fleet.says(&["schedules"]);
        assert_eq!(listed.code, 0, "{listed:?}");
        assert!(listed.out.contains("later"), "{listed:?}");

        wait_within("both were due", LONG, || {
            !scheduled(&fleet, "soon").is_empty() && !scheduled(&fleet, "guarded").is_empty()
        });
        let refused = scheduled(&fleet, "guarded");
        assert_eq!(refused[0]["outcome"], "refused", "{refused:#?}");
        assert!(refused[0].to_string().contains("calm"), "{refused:#?}");
        let begun = scheduled(&fleet, "soon");
        assert_eq!(begun[0]["outcome"], "started", "{begun:#?}");
        let run = run_of(&begun[0]);
        assert_eq!(fleet.until_over(&run).code, 0);
        assert_eq!(fleet.shown(&run)["because"], "schedule");

        // The one that is still to come is not forgotten, and what was is not done again.
        fleet.kill();
        fleet.start(&[]);
        fleet.until_connected();
        wait_within("it was due", LONG, || {
            !scheduled(&fleet, "later").is_empty()
        });
        let begun = scheduled(&fleet, "later");
        assert_eq!(begun[0]["outcome"], "started", "{begun:#?}");
        let run = run_of(&begun[0]);
        assert_eq!(fleet.until_over(&run).code, 0);
        fleet.kill();
        fleet.start(&[]);
        fleet.until_connected();
        assert_eq!(fleet.run("free", &pause("c", "100ms")).code, 0);
        for name in ["soon", "later", "guarded"] {
            assert_eq!(scheduled(&fleet, name).len(), 1, "{name}");
        }
        let all = fleet.says(&["runs", "--json"]).json();
        // One of them was kept from starting by its guard.
        assert_eq!(all.as_array().map(Vec::len), Some(4), "{all:#}");

        // What comes while the last run goes on is left out, and not made up for.
        let random = json!({"random": {"mean-time-between": "1s"}});
        fleet.apply("often", &on_schedule("a", "10m", random));
        let of = |outcome: &str| answered(&fleet, "often", outcome);
        wait_within("it was due again", LONG, || of("skipped").len() > 1);
        let begun = of("started");
        assert_eq!(begun.len(), 1, "{begun:#?}");
        assert_eq!(
            of("skipped")[0]["detail"]["why"],
            "the last run is still active"
        );
        assert_eq!(fleet.says(&["experiments", "remove", "often"]).code, 0);
        let run = run_of(&begun[0]);
        assert_eq!(fleet.says(&["stop", &run]).code, 0);
        assert_eq!(fleet.until_over(&run).code, 4);
    });
}

/// What was done about a time, and what came of it.
fn answered(fleet: &Fleet, name: &str, outcome: &str) -> Vec<Value> {
    let mut found = scheduled(fleet, name);
    found.retain(|entry| entry["outcome"] == outcome);
    found
}

/// The run that was started for a time.
fn run_of(entry: &Value) -> String {
    let run = entry["detail"]["run"].as_str();
    run.unwrap_or_else(|| panic!("no run: {entry:#}"))
        .to_owned()
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().expect("a time");
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The times that are listed as the next ones of an experiment.
fn listed(fleet: &Fleet, name: &str) -> Vec<Timestamp> {
    let all = fleet.ask("GET /api/v1/schedules").json();
    let all = all.as_array().expect("a list");
    let found = all.iter().find(|listed| listed["experiment"] == name);
    let times = found.unwrap_or_else(|| panic!("{name} is not in {all:#?}"))["times"].as_array();
    times.expect("a list").iter().map(time).collect()
}

#[test]
fn schedule_keeps_its_zone_and_window() {
    in_network_namespace(&PROGRAMS, || {
        let roles = ["zone", "other", "closed", "dark", "late"];
        let labels = roles.map(|role| [format!("role={role}")]);
        let labels = labels.each_ref().map(|[label]| [label.as_str()]);
        let agents: Vec<(&str, &[&str])> = (roles.into_iter())
            .zip(labels.iter().map(|label| &label[..]))
            .collect();
        let fleet = Fleet::new(&agents, Given::default());
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        // Every minute of this hour and the next one in Kathmandu, which are not these hours in Greenwich.
        let zone = TimeZone::get("Asia/Kathmandu").expect("a zone");
        let hour = |hours: i64| {
            let at = Timestamp::now() + SignedDuration::from_hours(hours);
            at.to_zoned(zone.clone()).hour()
        };
        let cron = format!("* {},{} * * *", hour(0), hour(1));
        let often = "* * * * *";
        let day = |days: i64| {
            let at = Timestamp::now() + SignedDuration::from_hours(24 * days);
            (
                at.strftime("%F").to_string(),
                at.strftime("%a").to_string().to_uppercase(),
            )
        };
        let dark = format!("{}/{}", day(-1).0, day(2).0);
        for (role, schedule) in [
            ("zone", json!({"cron": cron, "time-zone": "Asia/Kathmandu"})),
            ("other", json!({"cron": cron, "time-zone": "Europe/London"})),
            (
                "closed",
                json!({"cron": often, "window": {"days": [day(3).1]}}),
            ),
            ("dark", json!({"cron": often, "blackouts": [dark]})),
            ("late", json!({"cron": often, "jitter": "20s"})),
        ] {
            fleet.apply(role, &on_schedule(role, "100ms", schedule));
        }
        let late = listed(&fleet, "late")[0];
        for role in ["other", "closed", "dark"] {
            assert!(
                listed(&fleet, role)[0] > Timestamp::now() + 1.hour(),
                "{role}"
            );
        }

        wait_within("a minute begins", LONG, || {
            !answered(&fleet, "zone", "started").is_empty()
        });
        let begun = &answered(&fleet, "zone", "started")[0];
        let due = time(&begun["detail"]["due"]);
        assert_eq!(due.as_second() % 60, 0, "{begun:#}");
        assert!(time(&begun["at"]) >= due, "{begun:#}");
        assert_eq!(fleet.until_over(&run_of(begun)).code, 0);
        // The minute is the schedule's; the seconds after it are chance's.
        let minute = late.as_second().div_euclid(60) * 60;
        let of_late = || {
            let mut found = scheduled(&fleet, "late");
            found.retain(|entry| time(&entry["detail"]["due"]).as_second() == minute);
            found
        };
        wait_within("the late one begins", LONG, || !of_late().is_empty());
        let begun = of_late();
        assert_eq!(begun.len(), 1, "{begun:#?}");
        assert!(time(&begun[0]["at"]) >= late, "{late}: {begun:#?}");
        assert_eq!(begun[0]["outcome"], "started", "{begun:#?}");
        assert_eq!(fleet.until_over(&run_of(&begun[0])).code, 0);
        for role in ["other", "closed", "dark"] {
            assert_eq!(scheduled(&fleet, role), Vec::<Value>::new(), "{role}");
        }
        assert!(!victims.iter().any(|victim| victim.is_paused()));
    });
}

#[test]
fn schedule_waits_for_the_previous_run_despite_restarts() {
    in_network_namespace(&PROGRAMS, || {
        let mut fleet = Fleet::new(&[("a", &["role=a"])], Given::default());
        let victim = fleet.host("a").victim();
        let random = json!({"random": {"mean-time-between": "3s"}, "overlap": "queue"});
        fleet.apply("queue", &on_schedule("a", "10m", random));
        wait_within("one waits", LONG, || {
            !answered(&fleet, "queue", "waits").is_empty()
        });
        let begun = answered(&fleet, "queue", "started");
        assert_eq!(begun.len(), 1, "{begun:#?}");
        victim.until_paused();
        let first = run_of(&begun[0]);
        assert_eq!(fleet.says(&["stop", &first]).code, 0);
        assert_eq!(fleet.until_over(&first).code, 4);
        // The one that waited is next, and another one waits for it.
        wait_within("the next one waits", LONG, || {
            answered(&fleet, "queue", "waits").len() > 1
        });
        let (begun, waits) = (
            answered(&fleet, "queue", "started"),
            answered(&fleet, "queue", "waits"),
        );
        assert_eq!(begun.len(), 2, "{begun:#?}");
        assert_eq!(begun[1]["detail"]["due"], waits[0]["detail"]["due"]);
        victim.until_paused();
        let second = run_of(&begun[1]);
        // It waits on until what a crash cut short is closed.
        fleet.kill();
        fleet.start(&[]);
        wait_within("the third one begins", LONG, || {
            answered(&fleet, "queue", "started").len() > 2
        });
        let third = &answered(&fleet, "queue", "started")[2];
        assert_eq!(third["detail"]["due"], waits[1]["detail"]["due"]);
        assert_eq!(fleet.until_over(&second).code, 5);
        victim.until_paused();
        assert_eq!(answered(&fleet, "queue", "refused"), Vec::<Value>::new());
        assert_eq!(fleet.says(&["experiments", "remove", "queue"]).code, 0);
        assert_eq!(fleet.says(&["stop", &run_of(third)]).code, 0);
        assert_eq!(fleet.until_over(&run_of(third)).code, 4);
        victim.until_free();
    });
}

/// What is later than this was missed.
const GRACE: i64 = 60;

#[test]
fn missed_schedule_is_caught_up_once_on_request() {
    in_network_namespace(&PROGRAMS, || {
        let mut fleet = Fleet::new(&[("a", &["role=a"]), ("b", &["role=b"])], Given::default());
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        // Applied and killed before the time has come, however slow that is.
        let due = (1..).map(|trial| {
            let at = Timestamp::now() + SignedDuration::from_secs(10 * trial);
            let schedule = |catch_up: &str| json!({"at": written(at), "catch-up": catch_up});
            fleet.apply("once", &on_schedule("a", "100ms", schedule("once")));
            fleet.apply("skip", &on_schedule("b", "100ms", schedule("skip")));
            fleet.kill();
            if Timestamp::now() < at - 1.second() {
                return Some(at);
            }
            fleet.start(&[]);
            None
        });
        let due = due.flatten().next().expect("some time is far enough");
        let missed = due + SignedDuration::from_secs(GRACE + 2);
        let left = Timestamp::now().duration_until(missed);
        std::thread::sleep(left.try_into().unwrap_or_default());
        assert!(!victims.iter().any(|victim| victim.is_paused()));

        // Its agents have not come back when it starts.
        fleet.start(&[]);
        let of = |fleet: &Fleet, name: &str| {
            let mut found = scheduled(fleet, name);
            found.retain(|entry| time(&entry["detail"]["due"]) == time(&json!(written(due))));
            found
        };
        wait_within("both are dealt with", LONG, || {
            !of(&fleet, "once").is_empty() && !of(&fleet, "skip").is_empty()
        });
        let (once, skip) = (of(&fleet, "once"), of(&fleet, "skip"));
        assert_eq!(skip[0]["outcome"], "skipped", "{skip:#?}");
        assert_eq!(
            skip[0]["detail"]["why"],
            "the controller was not running at that time"
        );
        assert_eq!(once[0]["outcome"], "started", "{once:#?}");
        assert_eq!(fleet.until_over(&run_of(&once[0])).code, 0);
        fleet.kill();
        fleet.start(&[]);
        fleet.until_connected();
        // Put again after it was removed, it has missed nothing.
        let at = json!({"at": written(due), "catch-up": "once"});
        assert_eq!(fleet.says(&["experiments", "remove", "once"]).code, 0);
        fleet.apply("once", &on_schedule("a", "100ms", at));
        assert_eq!(fleet.run("free", &pause("b", "100ms")).code, 0);
        assert_eq!(of(&fleet, "once").len(), 1);
        assert_eq!(of(&fleet, "skip").len(), 1);
    });
}
