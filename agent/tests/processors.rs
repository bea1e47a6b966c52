//! The helper that takes processor time: how much of what is asked, beside others too, and where.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use backburn_agent::helpers::{CpuLoad, HelperSpec};
use backburn_agent::processes::ProcessTable;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use common::{Helper, VictimProcess, alone, in_one_of_twenty};
use std::process::Command;
use std::time::{Duration, Instant};

const LONG: u64 = 60_000;

#[test]
fn cpu_stress_load_stays_below_its_share() {
    let _alone = alone();
    let table = ProcessTable::default();
    let role = HelperSpec::from(CpuLoad {
        workers: 1,
        load_percent: 30.0,
        cpus: None,
        ramp: None,
    });
    let helper = Helper::start(&role, LONG);
    helper.ready();
    let (begin, before) = (Instant::now(), table.cpu_seconds(helper.id).unwrap());
    std::thread::sleep(Duration::from_secs(2));
    let share = (table.cpu_seconds(helper.id).unwrap() - before) / begin.elapsed().as_secs_f64();
    println!("30% wanted, {:.1}% used", share * 100.0);
    // A crowded machine gives less, and what it gave less before the look is made up for within it.
    assert!((0.05..0.41).contains(&share), "{share}");
    let effect = role.helper().effect(helper.id.pid, &table);
    assert_eq!(
        effect.acts,
        effect.figures["cpu-percent"] >= 15.0,
        "{effect:?}"
    );
}

/// Processes that keep one processor busy.
fn hogs(processor: usize, count: usize) -> Vec<VictimProcess> {
    let hog = |_| {
        let words = [
            "-c",
            &processor.to_string(),
            "sh",
            "-c",
            "while :; do :; done",
        ];
        VictimProcess::start(Command::new("taskset").args(words))
    };
    (0..count).map(hog).collect()
}

/// What a helper was seen to do once it had lived for this long, while `others` were busy on its processor; and how much of it
/// one of those got meanwhile, in percent.
fn load_among(others: usize, load_percent: f64, seconds: u64) -> (Effect, f64) {
    let table = ProcessTable::default();
    let hogs = hogs(0, others);
    let role = HelperSpec::from(CpuLoad {
        workers: 1,
        load_percent,
        cpus: Some(vec![0]),
        ramp: None,
    });
    let helper = Helper::start(&role, LONG);
    helper.ready();
    let used = || table.cpu_seconds(hogs[0].id).unwrap();
    let (begin, before) = (Instant::now(), used());
    std::thread::sleep(Duration::from_secs(seconds));
    let share = (used() - before) / begin.elapsed().as_secs_f64();
    let effect = role.helper().effect(helper.id.pid, &table);
    println!("{}; another got {:.0}%", effect.seen, share * 100.0);
    (effect, share * 100.0)
}

#[test]
fn cpu_stress_on_a_busy_processor_reaches_its_share() {
    let _alone = alone();
    in_one_of_twenty("a busy processor gives what is asked", || {
        // Where a crowd leaves less than what is asked, it is as much as another gets that never sleeps.
        let (effect, other) = load_among(1, 40.0, 3);
        let got = effect.figures["cpu-percent"];
        effect.acts == (got >= 20.0) && got < 46.0 && got >= 0.8 * other.min(40.0)
    });
}

#[test]
fn cpu_stress_below_half_of_the_request_has_no_effect() {
    let _alone = alone();
    let (effect, _) = load_among(15, 80.0, 3);
    assert!(!effect.acts, "{effect:?}");
    assert!(
        effect.seen.contains("of 80% asked: less than half"),
        "{effect:?}"
    );
    assert!(effect.figures["cpu-percent"] < 40.0, "{effect:?}");
}

#[test]
fn cpu_stress_workers_stay_on_their_processors() {
    let table = ProcessTable::default();
    let role = HelperSpec::from(CpuLoad {
        workers: 2,
        load_percent: 5.0,
        cpus: Some(vec![0]),
        ramp: Some(HumanDuration::seconds(1)),
    });
    let helper = Helper::start(&role, LONG);
    assert!(
        helper.ready().starts_with("2 threads used"),
        "{}",
        helper.said
    );
    for thread in table
        .threads(helper.id.pid)
        .into_iter()
        .filter(|thread| *thread != helper.id.pid)
    {
        let status =
            std::fs::read_to_string(format!("/proc/{}/task/{thread}/status", helper.id.pid))
                .unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    let role = HelperSpec::from(CpuLoad {
        workers: 1,
        load_percent: 5.0,
        cpus: Some(vec![1000]),
        ramp: None,
    });
    let helper = Helper::start(&role, LONG);
    assert!(
        helper.failed().contains("processor 1000"),
        "{}",
        helper.said
    );
    assert!(helper.failed().contains("hint: "), "{}", helper.said);
}
