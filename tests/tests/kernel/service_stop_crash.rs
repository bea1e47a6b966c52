//! Crash trials of `service-stop` under a real systemd: at each effect the effect fails, or somebody is killed, stopped or frozen. Afterwards the
//! service runs, and nothing is left of the agent, neither in the ledger nor among systemd's units.

use backburn_tests::crash::{Trial, trial, trial_of_the_rescue};
use backburn_tests::crash_cases::{PROGRAMS, SERVICE_CASE};
use backburn_tests::crash_strike::Strike;
use backburn_tests::service_manager::{UnitFile, VICTIM, systemctl, under_systemd};

/// The victim, which may be started as often as there are trials.
const UNITS: &[UnitFile<'static>] = &[(
    VICTIM,
    "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sleep 3000\n",
)];

/// Tries this at each effect until there are no more, and how many there were.
fn at_each_effect(
    role: &str,
    way: &str,
    residues: &mut Vec<String>,
    run: impl Fn(&Strike) -> Trial,
) -> usize {
    for number in 1.. {
        let failpoint = format!("{role}:{}", way.replace("{n}", &number.to_string()));
        let outcome = run(&Strike::Failpoint(failpoint.clone()));
        residues.extend(
            outcome
                .residue
                .map(|residue| format!("{failpoint}: {residue}")),
        );
        if !outcome.reached {
            return number - 1;
        }
    }
    0
}

fn conclude(trials: usize, least: usize, residues: &[String]) {
    println!("{trials} trials, {} residues", residues.len());
    assert!(residues.is_empty(), "{}", residues.join("\n"));
    assert!(trials >= least, "{trials} trials");
}

fn with_victim(test: impl FnOnce()) {
    under_systemd(&PROGRAMS, UNITS, || {
        let said = systemctl(&["start", VICTIM]);
        assert!(said.is_empty(), "{said}");
        test();
    });
}

#[test]
fn service_stop_struck_at_any_effect_leaves_nothing() {
    with_victim(|| {
        let (mut trials, mut residues) = (0, Vec::new());
        for way in ["fail:{n}", "after:{n}", "after:{n}:both"] {
            let run = |strike: &Strike| trial(&SERVICE_CASE, strike);
            trials += at_each_effect("worker", way, &mut residues, run);
        }
        conclude(trials, 20, &residues);
    });
}

#[test]
fn service_stop_whose_rescuer_is_struck_leaves_nothing() {
    with_victim(|| {
        let (mut trials, mut residues) = (0, Vec::new());
        for (role, way) in [
            ("guardian", "fail:{n}"),
            ("guardian", "after:{n}"),
            ("hand", "after:{n}"),
        ] {
            let run = |strike: &Strike| trial_of_the_rescue(&SERVICE_CASE, strike, role == "hand");
            trials += at_each_effect(role, way, &mut residues, run);
        }
        conclude(trials, 6, &residues);
    });
}

#[test]
fn service_stop_of_stopped_or_frozen_agents_ends() {
    with_victim(|| {
        let mut residues = Vec::new();
        let strikes = [
            "at:60:stop:worker",
            "at:60:stop:guardian",
            "at:60:stop:controller",
            "at:60:kill:both",
            "at:60:freeze:v2:1000",
        ];
        for text in strikes {
            let strike: Strike = text.parse().expect("it is one");
            let outcome = trial(&SERVICE_CASE, &strike);
            residues.extend(outcome.residue.map(|residue| format!("{text}: {residue}")));
        }
        conclude(strikes.len(), strikes.len(), &residues);
    });
}
