//! `kill -9` of the controller around each thing that it writes down of a run: agents put everything back by themselves
//! before it is started again, and it closes the run with every event that it had told anybody of. Printed as a table.

use backburn_tests::fleet::{Fleet, Given, HERE_PORT, LONG, PROGRAMS, VICTIM, Victim};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::plain_http::{self, Streamed};
use backburn_tests::processes;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// More than a run writes.
const MANY: usize = 200;

/// Two agents, two kinds of fault: processes that are held, and a helper that burns.
fn experiment() -> Value {
    let fault = |name: &str, fault: &str, arguments: Value| {
        json!({"type": "action", "name": name, "background": true, "provider": {
            "type": "fault", "fault": fault, "targets": "web", "duration": "300ms", "arguments": arguments}})
    };
    json!({
        "title": "Killed at each event", "description": "Two faults on two agents",
        "targets": {"web": {"labels": {"role": "web"}, "select": "all"}},
        "steady-state-hypothesis": {"title": "There is memory", "probes": [
            {"type": "probe", "name": "memory", "tolerance": [0, 100], "from": "web",
             "provider": {"type": "host", "metric": "memory-available-percent"}}]},
        "method": [
            fault("pause", "process-pause", json!({"process": {"name": VICTIM}})),
            fault("burn", "cpu-stress", json!({"workers": 1, "load-percent": 10})),
        ],
    })
}

/// Two agents, with somebody to be hit.
struct World {
    fleet: Fleet,
    victims: Vec<Victim>,
}

/// How a trial ended, for the table.
struct Trial {
    written: usize,
    told: usize,
    last: String,
    outcome: String,
}

impl Trial {
    fn print(&self, n: usize) {
        let Trial {
            written,
            told,
            last,
            outcome,
        } = self;
        println!("{n:>3} {written:>7} {told:>5} {last:24} {outcome:>12}");
    }
}

impl World {
    fn new() -> Self {
        let agents: [(&str, &[&str]); 2] = [("web-1", &["role=web"]), ("web-2", &["role=web"])];
        let fleet = Fleet::new(&agents, Given::default());
        let victims = fleet.hosts.iter().map(|host| host.victim()).collect();
        fleet.apply("experiment", &experiment());
        World { fleet, victims }
    }

    /// Starts the controller anew, with agents that do not wait for their turn.
    fn start(&mut self, failpoint: &str, by_themselves: bool) {
        if !by_themselves {
            for host in &mut self.fleet.hosts {
                assert_eq!(
                    host.disconnect(),
                    Some(0),
                    "an agent that owes nothing ends in peace"
                );
            }
        }
        self.fleet.try_start(&[("BACKBURN_FAILPOINT", failpoint)]);
        for host in &mut self.fleet.hosts {
            host.connect();
        }
    }

    /// Nobody is held, nobody burns, nothing is owed: each host has so many processes of ours at the most.
    fn until_put_back(&self, at_rest: usize) {
        self.victims.iter().for_each(Victim::until_free);
        self.fleet.until_clean();
        wait_within("no helper is left", LONG, || {
            (self.fleet.hosts.iter()).all(|host| host.ours().len() <= at_rest)
        });
        let held = processes::alive().into_values();
        let held: Vec<_> = held
            .filter(|process| "Tt".contains(process.state))
            .collect();
        assert!(held.is_empty(), "{held:?}");
    }

    /// Has the run begin, and reads along until the controller dies, or the run is over. Nothing where not even its
    /// beginning was told.
    fn follow(&mut self) -> (Option<String>, Vec<Streamed>) {
        let begun = self.fleet.says(&["run", "experiment", "--seed", "7"]);
        if begun.code != 0 {
            return (None, Vec::new());
        }
        let run = begun.out.trim().to_owned();
        let token = std::fs::read_to_string(self.fleet.data().join("admin-token"));
        let path = format!("GET /api/v1/runs/{run}/stream");
        let mut told = Vec::new();
        if let Ok(mut stream) = plain_http::ask(HERE_PORT, &token.expect("a token"), &path) {
            told.extend(std::iter::from_fn(|| stream.event()));
        }
        (Some(run), told)
    }

    /// The newest run once it is closed, and its events.
    fn closed(&self) -> Option<(Value, Vec<Value>)> {
        let newest = || self.fleet.ask("GET /api/v1/runs?limit=1").json()[0].clone();
        let mut run = newest();
        if run.is_null() {
            return None;
        }
        wait_within("the run is closed", LONG, || {
            run = newest();
            run["outcome"].is_string()
        });
        let id = run["id"].as_str().expect("an id");
        let events = self
            .fleet
            .ask(&format!("GET /api/v1/runs/{id}/events?limit=1000"));
        let events = events.json().as_array().cloned().expect("a list");
        Some((run, events))
    }
}

/// What the restarted controller makes of a run that was cut short.
fn check(run: &Value, events: &[Value], told: &[Streamed]) -> Trial {
    for (kept, told) in events
        .iter()
        .zip(told.iter().filter(|event| event.kind == "entry"))
    {
        assert_eq!(kept["number"], told.id);
        assert_eq!(kept["entry"], told.data);
    }
    let told = told.iter().filter(|event| event.kind == "entry").count();
    assert!(
        events.len() >= told,
        "{told} were told, and {} are kept",
        events.len()
    );
    let mut counts = BTreeMap::<&str, usize>::new();
    for event in events {
        let kind = event["entry"]["event"].as_str().expect("a kind");
        *counts.entry(kind).or_default() += 1;
    }
    let count = |kind: &str| counts.get(kind).copied().unwrap_or_default();
    let over = count("injection-ended") + count("injection-refused");
    assert_eq!(count("injection-requested"), over, "{events:#?}");
    assert_eq!(run["verdict"]["owed"], json!([]), "{run:#}");
    let outcome = run["outcome"].as_str().expect("an outcome");
    let written = events
        .iter()
        .take_while(|event| event["entry"]["event"] != "interrupted");
    let written: Vec<&Value> = written.collect();
    let last = written
        .last()
        .map(|event| event["entry"]["event"].to_string());
    match last.as_deref() {
        None => assert_eq!(outcome, "not-started"),
        // All was over; only its closing was cut short.
        Some("\"run-ended\"") => assert_eq!(outcome, "held"),
        Some(_) => {
            assert_eq!(outcome, "inconclusive", "{run:#}");
            // Once for each time that it died.
            assert!((1..=2).contains(&count("interrupted")), "{events:#?}");
            assert_eq!(count("run-ended"), 1, "{events:#?}");
        }
    }
    Trial {
        written: written.len(),
        told,
        last: last.unwrap_or_default(),
        outcome: outcome.to_owned(),
    }
}

fn killed(when: &str) {
    let mut world = World::new();
    world.fleet.end();
    println!(
        "{:>3} {:>7} {:>5} {:24} {:>12}",
        "n", "written", "told", "last event", "outcome"
    );
    let mut before: Option<(Option<String>, Vec<Streamed>)> = None;
    for n in 1..=MANY {
        // Most agents do not wait for their turn, so that this takes no minutes; some come back as they would.
        world.start(&format!("controller:{when}:{n}"), n % 8 == 0);
        // What was cut short is closed, whatever is to come.
        if let Some((id, told)) = before.take() {
            match world.closed() {
                Some((run, events)) => {
                    assert!(id.is_none_or(|id| run["id"] == id.as_str()), "{run:#}");
                    check(&run, &events, &told).print(n - 1);
                }
                None => assert_eq!((when, n), ("before", 2), "a run that was begun is known"),
            }
        }
        world.fleet.until_connected();
        let (id, told) = world.follow();
        let is_closed = told.last().is_some_and(|last| last.kind == "closed");
        if is_closed && world.fleet.says(&["runs"]).code == 0 {
            // There is no n-th: this run has gone its way, with everybody who was in those before.
            assert_eq!(told[told.len() - 1].data["outcome"], "held", "{told:#?}");
            // 27 were counted at one time and 20 on a busier machine, which writes more of them at once.
            assert!(n > 10, "only {n} writes");
            let (run, events) = world.closed().expect("it was told");
            check(&run, &events, &told).print(n);
            return world.until_put_back(3);
        }
        wait_within("the controller is dead", LONG, || world.fleet.is_over());
        world.until_put_back(1);
        before = Some((id, told));
    }
    panic!("more than {MANY} writes");
}

#[test]
fn controller_killed_after_each_write_keeps_every_event() {
    in_network_namespace(&PROGRAMS, || killed("after"));
}

#[test]
fn controller_killed_before_each_write_leaves_no_fault() {
    in_network_namespace(&PROGRAMS, || killed("before"));
}

#[test]
fn controller_killed_in_recovery_recovers_again() {
    in_network_namespace(&PROGRAMS, || {
        let mut world = World::new();
        world.fleet.end();
        println!(
            "{:>9} {:>7} {:>5} {:24} {:>12}",
            "n", "written", "told", "last event", "outcome"
        );
        let mut reached = 0;
        for (when, n) in ["after", "before"]
            .into_iter()
            .flat_map(|when| (1..7).map(move |n| (when, n)))
        {
            // All four injections were asked for, and some act.
            world.start("controller:after:16", false);
            world.fleet.until_connected();
            let (_, told) = world.follow();
            wait_within("the controller is dead", LONG, || world.fleet.is_over());
            world.until_put_back(1);
            world.start(&format!("recovery:{when}:{n}"), false);
            // It dies of its own recovery, or has fewer things to write.
            let mut run = Value::Null;
            wait_within("the controller is dead, or the run is closed", LONG, || {
                if world.fleet.is_over() {
                    return true;
                }
                let runs = world.fleet.says(&["runs", "--count", "1", "--json"]);
                run = serde_json::from_str::<Value>(&runs.out).unwrap_or_default()[0].clone();
                run["outcome"].is_string()
            });
            if world.fleet.is_over() {
                reached += 1;
                world.until_put_back(1);
                world.start("", false);
            }
            let (run, events) = world.closed().expect("it was begun");
            let trial = check(&run, &events, &told);
            assert_eq!(trial.outcome, "inconclusive");
            print!("{when:>6}");
            trial.print(n);
            world.fleet.until_connected();
            world.fleet.end();
        }
        // The interruption, the ends of all four together, the end, the closing.
        assert_eq!(reached, 8);
    });
}
