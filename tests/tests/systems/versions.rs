//! This version and the one before, as a fleet meets them while it is upgraded, and as a host has them one after the other. Which one is
//! the version before, `tests/previous` says; without it, these tests hold this version against itself, and a rolling restart.

use backburn_tests::crash::Place;
use backburn_tests::fleet::{Ended, Fleet, Given, Host, PROGRAMS, VICTIM, Victim, pause, said};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::paused_victim::{self, kill_all_of_ours};
use backburn_tests::programs::{backburn, previous_backburn};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

const AGENTS: [(&str, &[&str]); 2] = [("web-1", &["role=web"]), ("web-2", &["role=web"])];

/// Runs an experiment on all agents, which holds and leaves nothing.
fn holds(fleet: &Fleet, when: &str) -> Ended {
    let ended = fleet.run("pause", &pause("web", "2s"));
    assert_eq!(ended.verdict["outcome"], "held", "{when}: {ended:#?}");
    assert_eq!(ended.verdict["owed"], json!([]), "{when}: {ended:#?}");
    assert_eq!(ended.hit(), ["web-1", "web-2"], "{when}");
    fleet.until_clean();
    ended
}

/// Halts a run while its faults act: all of them end, and the run says that nothing is left.
fn is_halted(fleet: &Fleet, victims: &[Victim], when: &str) {
    let run = fleet.begin("long", &pause("web", "10m"));
    victims.iter().for_each(Victim::until_paused);
    let halt = fleet.says(&["halt", "--why", "the upgrade"]);
    assert_eq!(halt.code, 0, "{when}: {halt:?}");
    assert!(!victims.iter().any(Victim::is_paused), "{when}: {halt:?}");
    let ended = fleet.until_over(&run);
    assert_eq!(ended.verdict["outcome"], "aborted", "{when}: {ended:#?}");
    assert_eq!(ended.verdict["owed"], json!([]), "{when}: {ended:#?}");
    fleet.until_clean();
    let resumed = fleet.says(&["resume"]);
    assert_eq!(resumed.code, 0, "{when}: {resumed:?}");
}

#[test]
fn rolling_upgrade_from_the_version_before_runs_and_halts_at_each_step() {
    in_network_namespace(&PROGRAMS, || {
        let given = Given {
            controller: previous_backburn(),
            agents: previous_backburn(),
            ..Given::default()
        };
        let mut fleet = Fleet::new(&AGENTS, given);
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        let before = holds(&fleet, "all are of the version before");
        fleet.replace_controller(backburn());
        fleet.connect();
        holds(&fleet, "the controller is upgraded");
        is_halted(&fleet, &victims, "the controller is upgraded");
        for (name, _) in AGENTS {
            let host = fleet.host_mut(name);
            assert_eq!(host.disconnect(), Some(0), "{name}");
            host.program = backburn();
            fleet.connect();
            holds(&fleet, &format!("{name} is upgraded"));
        }
        is_halted(&fleet, &victims, "all are upgraded");
        // What the version before wrote is as good as new.
        let run = fleet.shown(&before.run);
        assert_eq!(run["verdict"]["outcome"], "held", "{run:#}");
        let checked = fleet.says(&["audit", "--verify"]);
        assert_eq!(checked.json()["broken"], Value::Null, "{checked:?}");
    });
}

#[test]
fn agents_of_this_version_serve_a_controller_of_the_version_before() {
    in_network_namespace(&PROGRAMS, || {
        let given = Given {
            controller: previous_backburn(),
            ..Given::default()
        };
        let fleet = Fleet::new(&AGENTS, given);
        let victims: Vec<_> = fleet.hosts.iter().map(Host::victim).collect();
        holds(&fleet, "the agents are upgraded");
        is_halted(&fleet, &victims, "the agents are upgraded");
    });
}

/// What a program says with this state folder.
fn local(program: &Path, place: &Place, words: &[&str]) -> backburn_tests::fleet::Said {
    let mut command = Command::new(program);
    said(command.args(words).arg("--state").arg(place.state()))
}

#[test]
fn journal_and_ledger_of_the_version_before_are_read_and_reverted() {
    in_network_namespace(&["sleep", "strace", "tail"], || {
        let place = Place::default();
        let previous = previous_backburn();
        let port = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port_number = port.local_addr().expect("it has an address").port();
        let mut tail = Command::new(VICTIM)
            .args(["-f", "/dev/null"])
            .spawn()
            .expect("`tail` starts");
        let mut document = pause("web", "2s");
        let probe = &mut document["steady-state-hypothesis"]["probes"][0]["provider"];
        probe["host"] = json!("127.0.0.1");
        probe["port"] = json!(port_number);
        document
            .as_object_mut()
            .expect("an object")
            .remove("targets");
        let provider = &mut document["method"][0]["provider"];
        provider
            .as_object_mut()
            .expect("an object")
            .remove("targets");
        let file = place.state().with_extension("experiment.json");
        std::fs::write(&file, document.to_string()).expect("it can be written");
        let ran = local(&previous, &place, &["run", &file.display().to_string()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        tail.kill().ok();
        tail.wait().expect("it ends");
        let runs = local(&backburn(), &place, &["runs", "--json"]).json();
        let id = runs[0]["id"].as_str().expect("an id");
        let run = local(&backburn(), &place, &["runs", id, "--json"]);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.json()["verdict"]["outcome"], "held", "{run:?}");

        let victim = paused_victim::Victim::start();
        let inject = paused_victim::pause_by(&place, &victim, |words| {
            let mut command = Command::new(&previous);
            command.arg("agent").args(words);
            command.arg("--state").arg(place.state());
            command
        });
        kill_all_of_ours(inject);
        let owed = local(&backburn(), &place, &["agent", "status"]);
        assert_eq!(owed.code, 6, "{owed:?}");
        assert!(victim.is_stopped());
        let reverted = local(&backburn(), &place, &["revert", "--all"]);
        assert_eq!(reverted.code, 0, "{reverted:?}");
        assert!(!victim.is_stopped() && place.ledger().is_empty());
    });
}
