//! The clock of a host set to another time and set back, in a small virtual machine: the body of this test runs there and nowhere else, so
//! the clock of the machine that tests run on is never touched.

use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, Command as Say, EndedInjection, Report};
use backburn_tests::crash::Place;
use backburn_tests::crash_plugins::POLICY;
use backburn_tests::machine::{found, in_virtual_machine};
use backburn_tests::processes::{kill_at_once, of_backburn, process};
use backburn_tests::served::Served;
use backburn_tests::wait::wait_within;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::{Value, json};
use std::process::{Child, Command};
use std::time::Duration;

/// Longer than the test.
const LEASE: HumanDuration = HumanDuration::seconds(600);
/// Long enough for an emulated machine on a busy one.
const PATIENCE: Duration = Duration::from_secs(60);
/// How far the clock may be from where it is expected, in seconds.
const TOLERANCE: f64 = 0.05;

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock).expect("there is such a clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// What the time of day is ahead of the time since boot: the least of some readings, between which nothing else ran.
fn ahead() -> f64 {
    let readings = (0..20).map(|_| {
        let before = seconds(ClockId::CLOCK_BOOTTIME);
        let day = seconds(ClockId::CLOCK_REALTIME);
        let after = seconds(ClockId::CLOCK_BOOTTIME);
        (after - before, day - f64::midpoint(before, after))
    });
    let best = readings.min_by(|one, other| one.0.total_cmp(&other.0));
    best.expect("it was read").1
}

fn is_off_by(offset: f64, from: f64) -> bool {
    (ahead() - from - offset).abs() < TOLERANCE
}

/// A process that looks like a time daemon.
fn time_daemon() -> Child {
    let sleep = found("sleep").expect("it is in the machine");
    let daemon = std::env::temp_dir().join("chronyd");
    if !daemon.exists() {
        std::fs::copy(sleep, &daemon).expect("a file can be copied");
    }
    Command::new(daemon).arg("3000").spawn().expect("it starts")
}

fn state(child: &Child) -> char {
    process(child.id() as i32).expect("it is there").state
}

struct Agent {
    served: Served,
    place: Place,
}

impl Agent {
    fn start(policy: &Value) -> Self {
        let place = Place::default();
        let (mut served, _) = Served::start(&place, policy);
        served.beats(LEASE);
        Agent { served, place }
    }

    fn injects(&mut self, id: &str, offset: &str, lasts: &str) -> Report {
        let request = json!({"id": id, "run": "by-hand", "fault": "clock-skew", "duration": lasts, "seed": 1, "arguments": {"host": true, "offset": offset}});
        self.served.says(&Say::Inject {
            request: 7,
            injection: serde_json::from_value(request).expect("a request"),
        });
        loop {
            let heard = self.served.hears();
            if matches!(heard, Report::Injected { .. } | Report::Refused { .. }) {
                return heard;
            }
        }
    }

    #[track_caller]
    fn acts(&mut self, id: &str, offset: &str, lasts: &str) {
        let answer = self.injects(id, offset, lasts);
        assert!(matches!(answer, Report::Injected { .. }), "{answer:?}");
    }

    #[track_caller]
    fn is_refused(&mut self, id: &str, offset: &str, rule: &str, says: &str) {
        match self.injects(id, offset, "9s") {
            Report::Refused { refusal, .. } => {
                assert!(
                    refusal.rule == rule && refusal.to_string().contains(says),
                    "{refusal}"
                );
            }
            answer => panic!("it is not refused: {answer:?}"),
        }
    }

    fn ended(&mut self, id: &str) -> EndedInjection {
        loop {
            if let Report::Ended(ended) = self.served.hears() {
                assert_eq!(ended.injection, id);
                return ended;
            }
        }
    }

    fn reverts(&mut self, id: &str) -> EndedInjection {
        self.served.says(&Say::Revert {
            injection: id.into(),
        });
        self.ended(id)
    }
}

fn acts_and_ends(daemon: &Child, before: f64) {
    let mut agent = Agent::start(&json!({}));
    agent.is_refused(
        "refused",
        "+1h",
        "policy",
        r#""allow-host-faults": ["clock-skew"]"#,
    );
    drop(agent);
    let mut agent = Agent::start(&json!({"allow-host-faults": ["clock-skew"]}));
    agent.is_refused("refused", "+100ms", "arguments", "at least 1 s");
    agent.acts("hour", "+1h", "500s");
    assert!(is_off_by(3600.0, before), "{}", ahead() - before);
    assert_eq!(state(daemon), 't', "the time daemon is paused");
    agent.is_refused("second", "-1h", "overlap", "hour");
    let ended = agent.reverts("hour");
    assert!(ended.clean, "{ended:?}");
    assert!(is_off_by(0.0, before), "{}", ahead() - before);
    println!(
        "after an hour's skew the clock is off by {:.6} s",
        ahead() - before
    );
    assert_eq!(state(daemon), 'S', "the time daemon goes on");
    // Deadlines and leases are on other clocks, in whichever direction this one is set.
    for (id, offset, off) in [
        ("back", "-400d", -34_560_000.0),
        ("forth", "+400d", 34_560_000.0),
    ] {
        let began = seconds(ClockId::CLOCK_BOOTTIME);
        agent.acts(id, offset, "1s");
        assert!(is_off_by(off, before), "{}", ahead() - before);
        let ended = agent.ended(id);
        let took = seconds(ClockId::CLOCK_BOOTTIME) - began;
        assert!(ended.clean && ended.cause == Cause::Finished, "{ended:?}");
        assert!((1.0..20.0).contains(&took), "{took} s");
        assert!(is_off_by(0.0, before), "{}", ahead() - before);
    }
    // Whoever else sets the clock keeps it, and that is told.
    agent.acts("contested", "+1h", "500s");
    set(before + 600.0);
    let ended = agent.reverts("contested");
    let residue = ended.residue.join(" ");
    assert!(
        !ended.clean && residue.contains("something else has set the clock"),
        "{ended:?}"
    );
    assert!(is_off_by(600.0, before), "it is left alone");
    set(before);
    assert_eq!(agent.place.restart(None).code(), Some(0));
    assert!(agent.place.ledger().is_empty());
}

/// Sets the clock of this virtual machine.
fn set(ahead: f64) {
    let day = seconds(ClockId::CLOCK_BOOTTIME) + ahead;
    let time = TimeSpec::new(day.floor() as i64, (day.fract() * 1e9) as i64);
    clock_settime(ClockId::CLOCK_REALTIME, time).expect("the clock of this machine can be set");
}

/// Whoever of ours dies while the fault acts, the clock is set back by whoever is left, or by the next that is started.
fn survives_deaths(daemon: &Child, before: f64) {
    for strike in ["worker", "serve", "helper", "all"] {
        let mut agent = Agent::start(&json!({"allow-host-faults": ["clock-skew"]}));
        agent.acts("struck", "-1d", "500s");
        assert!(is_off_by(-86_400.0, before));
        let words =
            |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let struck: Vec<i32> = (of_backburn().iter())
            .map(|process| process.pid)
            .filter(|pid| strike == "all" || words(*pid).split('\0').any(|word| word == strike))
            .collect();
        assert!(!struck.is_empty(), "{strike}");
        kill_at_once(&struck);
        if strike == "helper" {
            // Only the time daemon goes on; the clock is as wrong as before until the end.
            wait_within("the time daemon goes on", PATIENCE, || state(daemon) == 'S');
            assert!(is_off_by(-86_400.0, before));
            let ended = agent.reverts("struck");
            assert!(ended.clean, "{ended:?}");
        }
        if strike == "all" {
            wait_within("all are dead", PATIENCE, || of_backburn().is_empty());
            assert!(is_off_by(-86_400.0, before), "nobody was left");
            assert_eq!(agent.place.restart(None).code(), Some(0));
        }
        wait_within(
            &format!("{strike}: the clock is set back"),
            PATIENCE,
            || is_off_by(0.0, before) && agent.place.ledger().is_empty(),
        );
        assert_eq!(state(daemon), 'S');
        drop(agent);
        wait_within("nobody of ours is left", PATIENCE, || {
            of_backburn().is_empty()
        });
    }
}

/// The agent and its guardian are killed after each effect, and the next start finds what is owed.
fn is_whole_after_any_effect(daemon: &Child, before: f64) {
    for n in 1.. {
        let place = Place::default();
        let policy = place.state().with_file_name(POLICY);
        std::fs::write(policy, r#"{"allow-host-faults": ["clock-skew"]}"#)
            .expect("it can be written");
        let failpoint = format!("worker:after:{n}:both");
        let words = [
            "inject",
            "clock-skew",
            "--id",
            "trial",
            "--host",
            "true",
            "--offset",
            "+2h",
            "--duration",
            "100ms",
        ];
        let mut command = place.agent(&words, Some(&failpoint));
        command.status().expect("the agent starts");
        wait_within("nobody of ours is left", PATIENCE, || {
            of_backburn().is_empty()
        });
        place.restart(None);
        let what = format!("{failpoint}: the clock is as it was");
        wait_within(&what, PATIENCE, || {
            is_off_by(0.0, before) && place.ledger().is_empty() && state(daemon) == 'S'
        });
        if place.effects("worker") < n {
            println!("{} trials", n - 1);
            assert!(n > 6, "{n}");
            return;
        }
    }
}

#[test]
fn host_clock_that_is_skewed_is_set_back_by_whoever_is_left() {
    in_virtual_machine(&[], &["sleep"], || {
        let before = ahead();
        let mut daemon = time_daemon();
        wait_within("the time daemon runs", PATIENCE, || state(&daemon) == 'S');
        acts_and_ends(&daemon, before);
        survives_deaths(&daemon, before);
        is_whole_after_any_effect(&daemon, before);
        daemon.kill().expect("it is there");
        daemon.wait().expect("it was killed");
    });
}
