//! Hundreds of agents at one controller: a run over all of them, a halt that ends another, and a
//! controller that is killed while nothing happens.

use backburn_tests::daemon::Daemon;
use backburn_tests::swarm::Swarm;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::time::Duration;

const COUNT: u64 = 300;

/// Keeps processors busy on every agent, for so long.
fn experiment(duration: &str) -> Value {
    json!({
        "title": "Everybody is busy",
        "description": "Nothing is measured: it is about how many they are",
        "targets": {"all": {"labels": {"role": "swarm"}, "select": "all"}},
        "method": [{
            "type": "action", "name": "busy",
            "provider": {"type": "fault", "fault": "cpu-stress", "duration": duration, "targets": "all"},
        }],
    })
}

fn count(events: &[Value], event: &str) -> u64 {
    let found = events.iter().filter(|found| found["event"] == event);
    found.count() as u64
}

/// The faults acted on everybody, and all is clean; only that nothing was measured keeps it from being held.
fn assert_only_unmeasured(closed: &Value) {
    assert_eq!(closed["outcome"], "inconclusive", "{closed}");
    let reasons = closed["verdict"]["reasons"].as_array().expect("a list");
    assert_eq!(reasons.len(), 1, "{closed}");
    assert!(
        reasons[0].to_string().contains("nothing was measured"),
        "{closed}"
    );
}

#[test]
fn hundreds_of_agents_run_halt_and_reconnect() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut swarm = Swarm::enrolled(env!("CARGO_BIN_EXE_swarm"), folder.path(), COUNT as usize);
    let mut controller = Daemon::start(folder.path());
    for (name, duration) in [("short", "1s"), ("long", "600s")] {
        let path = format!("/api/v1/experiments/{name}");
        controller.done("PUT", &path, Some(&experiment(duration)));
    }
    swarm.connect(controller.address);
    swarm.wait("everybody there", |state| state.connected == COUNT);
    come(&controller);

    // One that comes to its end.
    let run = controller.run("short");
    let closed = controller.closed(&run);
    assert_only_unmeasured(&closed);
    let events = controller.events(&run);
    for event in [
        "agent-joined",
        "planned",
        "injection-requested",
        "injected",
        "effect-seen",
        "injection-ended",
    ] {
        assert_eq!(count(&events, event), COUNT, "{event}");
    }
    assert_eq!(swarm.state().faults, 0);

    // One that is halted while everything acts.
    let run = controller.run("long");
    swarm.wait("everything acts", |state| state.faults == COUNT);
    let halted = controller.done("POST", "/api/v1/halt", Some(&json!({})));
    assert_eq!(swarm.state().faults, 0, "the answer comes when all is gone");
    assert_eq!(halted["clean"], true, "{halted}");
    assert_eq!(halted["runs"], json!([run]));
    let agents = halted["agents"].as_array().expect("a list");
    assert_eq!(agents.len() as u64, COUNT);
    let closed = controller.closed(&run);
    assert_eq!(closed["outcome"], "aborted", "{closed}");
    let events = controller.events(&run);
    assert_eq!(
        count(&events, "injection-ended") + count(&events, "injection-refused"),
        count(&events, "injection-requested")
    );
    controller.done("DELETE", "/api/v1/halt", None);

    // The controller is killed while nothing happens: nothing does.
    let before = swarm.state().links;
    controller.dies_and_comes_again();
    swarm.wait("everybody there again", |state| {
        state.connected == COUNT && state.links >= before + COUNT
    });
    come(&controller);
    let runs = controller.done("GET", "/api/v1/runs?open=true", None);
    assert_eq!(runs, json!([]));
    let run = controller.run("short");
    let closed = controller.closed(&run);
    assert_only_unmeasured(&closed);
}

/// Waits until the controller has heard everybody's first word.
fn come(controller: &Daemon) {
    let is_there = |page: &Value| {
        let agents = page.as_array().expect("a list");
        agents.len() as u64 == COUNT && agents.iter().all(|agent| agent["connected"] == true)
    };
    wait_within("not everybody is there", Duration::from_secs(60), || {
        is_there(&controller.done("GET", "/api/v1/agents?limit=1000", None))
    });
}
