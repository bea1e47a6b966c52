//! Runs over several agents, which are tasks that speak the wire's messages: who takes part, what
//! they measure, and what one of them that fails does to the run and to the others.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn::agent_pool::AgentPool;
use backburn::fleet::{Fleet, GrantedLabels, Reservation};
use backburn::runner::{self, JournalFile, RunSettings};
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{AbortBy, Event, JournalEntry, Judgement, Outcome};
use backburn_experiments::wire::{Command, ProbeOutcome, Refusal};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Done, Manners, load};
use tokio::sync::mpsc;

type Told = Arc<Mutex<Vec<(Instant, Command)>>>;

/// A fleet, whose agents each have a file that their fault removes.
struct World {
    fleet: Arc<Fleet>,
    folder: tempfile::TempDir,
    told: BTreeMap<String, Told>,
}

impl World {
    /// With agents `a`, `b` and so on, each with the granted label `role=web` and the fact `host=NAME`.
    async fn new(manners: impl IntoIterator<Item = Manners>) -> Self {
        let mut world = World {
            fleet: Arc::new(Fleet::new(HumanDuration::seconds(30))),
            folder: tempfile::tempdir().unwrap(),
            told: BTreeMap::new(),
        };
        for (name, mut manners) in ["a", "b", "c"].into_iter().zip(manners) {
            let labels = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            manners.labels.push(labels("host", name));
            let granted = GrantedLabels {
                labels: [labels("role", "web")].into(),
                is_confirmed: true,
            };
            world.fleet.grant(name, granted);
            std::fs::write(world.file(name), "").unwrap();
            world.connect(name, manners);
        }
        let count = world.told.len();
        let fleet = Arc::clone(&world.fleet);
        let mut changes = fleet.changes();
        changes.wait_for(|_| fleet.count() == count).await.unwrap();
        world
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connect(&mut self, name: &str, manners: Manners) {
        let told = Arc::clone(self.told.entry(name.to_owned()).or_default());
        connect(&self.fleet, name, manners, told, self.file(name));
    }

    /// Starts a run; how it ends, and the operator's word.
    fn start(
        &self,
        run: &str,
        document: &Value,
    ) -> (tokio::task::JoinHandle<Done>, mpsc::UnboundedSender<String>) {
        let (stop, stopped) = mpsc::unbounded_channel();
        let seen: Arc<Mutex<Vec<JournalEntry>>> = Arc::default();
        let watching = Arc::clone(&seen);
        let journal = self.folder.path().join(format!("{run}.jsonl"));
        let settings = RunSettings {
            access: backburn::providers::HostAccess {
                environment: backburn::providers::EnvironmentAccess::User,
                ..Default::default()
            },
            run: run.into(),
            seed: 7,
            frequency: HumanDuration::millis(20),
            sha256: None,
            approval: None,
            agent_pool: AgentPool::Fleet(Reservation::new(Arc::clone(&self.fleet), run)),
            journal: Box::new(JournalFile::open(journal.clone()).unwrap()),
            observers: vec![Box::new(move |entry| {
                watching.lock().unwrap().push(entry.clone())
            })],
            stop: stopped,
        };
        let experiment = load(document);
        let run = tokio::spawn(async move {
            // Whatever a test gets wrong, it ends.
            let finished =
                tokio::time::timeout(Duration::from_secs(60), runner::run(experiment, settings));
            let finished = finished.await.unwrap();
            assert!(finished.illegal.is_none(), "{:?}", finished.illegal);
            let entries = std::mem::take(&mut *seen.lock().unwrap());
            let journal = std::fs::read_to_string(journal).unwrap();
            Done {
                finished,
                entries,
                journal,
            }
        });
        (run, stop)
    }

    async fn run(&self, document: &Value) -> Done {
        let (run, _stop) = self.start("test", document);
        run.await.unwrap()
    }

    /// What an agent was told, in words of the wire; nothing of beats.
    fn told(&self, name: &str) -> Vec<String> {
        let told = self.told[name].lock().unwrap();
        let say = |(_, command): &(Instant, Command)| {
            let command = serde_json::to_value(command).unwrap();
            command["say"].as_str().unwrap().to_owned()
        };
        told.iter().map(say).collect()
    }

    /// Waits until an agent was told this.
    async fn was_told(&self, name: &str, word: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.told(name).iter().any(|told| told == word) {
            assert!(
                Instant::now() < until,
                "{name} was told {:?}",
                self.told(name)
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn connect(fleet: &Arc<Fleet>, name: &str, manners: Manners, told: Told, file: PathBuf) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(support::agent(
        theirs,
        name.to_owned(),
        manners,
        told,
        file,
        1,
    ));
    let (fleet, name) = (Arc::clone(fleet), name.to_owned());
    tokio::spawn(async move {
        let peer = ([127, 0, 0, 1], 1).into();
        fleet.serve(&name, peer, ours, || false).await
    });
}

fn well(number: usize) -> Vec<Manners> {
    vec![Manners::default(); number]
}

/// The fault hits `victim`; every agent measures whether its file is there. `more` goes over the probe.
fn experiment(victim: &str, duration: &str, more: Value) -> Value {
    let mut probe = json!({"type": "probe", "name": "file", "tolerance": true, "from": "all",
        "provider": {"type": "tcp", "host": "127.0.0.1", "port": 1}});
    for (key, value) in more.as_object().unwrap() {
        probe[key] = value.clone();
    }
    json!({
        "title": "the files are there", "description": "a test",
        "targets": {
            "all": {"labels": {"role": "web"}, "select": "all"},
            "victim": {"labels": {"host": victim}},
            "each": {"labels": {"role": "web"}, "select": "all"},
        },
        "steady-state-hypothesis": {"title": "they are there", "probes": [probe]},
        "method": [{"type": "action", "name": "pause", "provider":
            {"type": "fault", "fault": "process-pause", "duration": duration, "targets": "victim"}}],
    })
}

fn joined(done: &Done) -> Vec<String> {
    let joined = done.entries.iter().filter_map(|entry| match &entry.event {
        Event::AgentJoined { agent, .. } => Some(agent.clone()),
        _ => None,
    });
    joined.collect()
}

/// Each judgement of the hypothesis, with what was said.
fn judged(done: &Done) -> Vec<(Judgement, Option<String>)> {
    let sampled = done.entries.iter().filter_map(|entry| match &entry.event {
        Event::Sampled { judgement, why, .. } => Some((*judgement, why.clone())),
        _ => None,
    });
    sampled.collect()
}

#[tokio::test]
async fn probe_of_agents_holds_if_all_are_in_tolerance() {
    let world = World::new(well(3)).await;
    // Who is hit is none of those who measure.
    let mut document = experiment("a", "300ms", json!({}));
    document["targets"]["all"]["labels"] = json!({"host": ["b", "c"]});
    let done = world.run(&document).await;
    let reasons = done.reasons();
    assert_eq!(done.finished.verdict.outcome, Outcome::Held, "{reasons}");
    assert_eq!(joined(&done), ["a", "b", "c"]);
    assert!(world.told("b").contains(&"probe".into()));
    assert!(!world.told("b").contains(&"inject".into()));
    assert!(!world.told("a").contains(&"probe".into()));
    // What each said is in the journal, by its name.
    let outputs = done.entries.iter().find_map(|entry| match &entry.event {
        Event::Sampled { output, .. } => Some(output.clone()),
        _ => None,
    });
    assert_eq!(outputs, Some(json!({"b": true, "c": true})));
    // Whoever took part may be held again.
    assert!(world.fleet.list().iter().all(|agent| agent.runs.is_empty()));
}

#[tokio::test]
async fn probe_of_agents_with_one_out_of_tolerance_deviates_unless_the_quorum_allows_it() {
    let world = World::new(well(2)).await;
    let done = world.run(&experiment("a", "300ms", json!({}))).await;
    assert_eq!(done.finished.verdict.outcome, Outcome::Deviated);
    let said = "1 of 2 in tolerance, and 2 must be; on `a`: ";
    assert!(
        judged(&done).iter().any(|(judgement, why)| {
            *judgement == Judgement::Outside
                && why.as_ref().is_some_and(|why| why.starts_with(said))
        }),
        "{:?}",
        judged(&done)
    );
    assert!(world.file("a").exists(), "it was put back");

    let done = world
        .run(&experiment("a", "300ms", json!({"quorum": 1})))
        .await;
    let reasons = done.reasons();
    assert_eq!(done.finished.verdict.outcome, Outcome::Held, "{reasons}");
}

#[tokio::test]
async fn probe_of_agents_that_breaks_is_unknown_and_one_without_answer_deviates() {
    for (probed, rule) in [
        (
            ProbeOutcome::Broken("no Python".into()),
            "could not be measured",
        ),
        (ProbeOutcome::NoAnswer("refused".into()), "on `b`: refused"),
    ] {
        let mut manners = well(2);
        manners[1].probed = Some(probed);
        let world = World::new(manners).await;
        let done = world.run(&experiment("a", "300ms", json!({}))).await;
        assert_eq!(done.finished.verdict.outcome, Outcome::NotStarted);
        assert!(done.reasons().contains(rule), "{}", done.reasons());
        assert!(!world.told("a").contains(&"inject".into()));
    }
    // The one that is well is enough, until it is hit: then one is outside, and one could be within.
    let mut manners = well(2);
    manners[1].probed = Some(ProbeOutcome::Broken("no Python".into()));
    let world = World::new(manners).await;
    let done = world
        .run(&experiment("a", "300ms", json!({"quorum": 1})))
        .await;
    assert_eq!(done.finished.verdict.outcome, Outcome::Inconclusive);
}

#[tokio::test]
async fn agent_that_is_not_selected_takes_no_part() {
    let world = World::new(well(3)).await;
    let mut document = experiment("a", "200ms", json!({"from": "victim"}));
    document["targets"]["victim"] = json!({"labels": {"role": "web"}, "select": {"count": 2}});
    let done = world.run(&document).await;
    let joined = joined(&done);
    assert_eq!(joined.len(), 2, "{joined:?}");
    for name in ["a", "b", "c"] {
        let told = world.told(name);
        assert_eq!(told.is_empty(), !joined.contains(&name.into()), "{told:?}");
    }
}

#[tokio::test]
async fn fault_without_a_target_is_not_started() {
    let world = World::new(well(2)).await;
    let mut document = experiment("a", "300ms", json!({}));
    let provider = document["method"][0]["provider"].as_object_mut().unwrap();
    provider.remove("targets");
    let done = world.run(&document).await;
    assert_eq!(done.finished.verdict.outcome, Outcome::NotStarted);
    assert!(
        done.has(|event| matches!(event, Event::NotStarted { rule, .. } if rule == "no-target"))
    );
    assert!(world.told("a").is_empty() && world.told("b").is_empty());
}

#[tokio::test]
async fn agent_is_never_reserved_by_two_runs() {
    let world = World::new(well(2)).await;
    let hypothesis = json!({"quorum": 1});
    let (first, stop) = world.start("first", &experiment("a", "50s", hypothesis.clone()));
    world.was_told("a", "inject").await;
    let running = world.fleet.list();
    assert!(running.iter().all(|agent| agent.runs == ["first"]));
    let second = experiment("b", "100ms", hypothesis);
    let (run, _stop) = world.start("second", &second);
    let done = run.await.unwrap();
    assert_eq!(done.finished.verdict.outcome, Outcome::NotStarted);
    assert!(done.has(
        |event| matches!(event, Event::NotStarted { rule, reason, .. }
        if rule == "overlap" && reason.contains("`first`"))
    ));
    assert!(!world.told("b").contains(&"inject".into()));
    stop.send("a test".into()).unwrap();
    let done = first.await.unwrap();
    assert_eq!(done.finished.verdict.outcome, Outcome::Aborted);
    assert!(world.file("a").exists());
    // Now it may.
    let (run, _stop) = world.start("third", &second);
    let done = run.await.unwrap();
    let reasons = done.reasons();
    assert_eq!(done.finished.verdict.outcome, Outcome::Held, "{reasons}");
}

/// The fault hits every agent.
fn all_hit(duration: &str) -> Value {
    let mut document = experiment("a", duration, json!({}));
    document["method"][0]["provider"]["targets"] = json!("each");
    let document = document.as_object_mut().unwrap();
    document.remove("steady-state-hypothesis");
    document.clone().into()
}

#[tokio::test]
async fn injection_refused_by_one_agent_reverts_the_others() {
    let mut manners = well(3);
    manners[1].refuse_inject = Some(Refusal::new("policy", "not here"));
    let world = World::new(manners).await;
    let done = world.run(&all_hit("50s")).await;
    assert_eq!(done.finished.verdict.outcome, Outcome::Aborted);
    assert!(done.reasons().contains("not here"), "{}", done.reasons());
    for name in ["a", "c"] {
        assert!(world.told(name).contains(&"revert-all".into()), "{name}");
        assert!(world.file(name).exists(), "{name}");
    }
    assert!(done.finished.verdict.owed.is_empty());
}

#[tokio::test]
async fn agent_that_is_lost_ends_the_run_and_is_believed_when_it_reconnects() {
    let mut manners = well(2);
    manners[1].vanish = true;
    let mut world = World::new(manners).await;
    let (run, _stop) = world.start("test", &all_hit("50s"));
    world.was_told("b", "inject").await;
    world.was_told("a", "revert-all").await;
    // It has put back what it did, and owes nothing.
    world.connect("b", Manners::default());
    let done = run.await.unwrap();
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Aborted,
        "{}",
        done.reasons()
    );
    assert!(done.has(|event| matches!(event, Event::AgentLost { agent, .. } if agent == "b")));
    assert!(done.has(|event| matches!(event, Event::Aborted(abort) if abort.by == AbortBy::Agent)));
    assert_eq!(joined(&done), ["a", "b", "b"]);
    assert!(world.file("a").exists());
    assert!(world.fleet.list().iter().all(|agent| agent.runs.is_empty()));
}

#[tokio::test]
async fn agent_that_is_lost_stays_reserved_until_it_reconnects() {
    let mut manners = well(2);
    manners[1].vanish = true;
    let mut world = World::new(manners).await;
    let (first, _stop) = world.start("first", &all_hit("50s"));
    world.was_told("a", "revert-all").await;
    // It is away, and not another's.
    let (run, _second_stop) = world.start("second", &experiment("b", "100ms", json!({})));
    let done = run.await.unwrap();
    assert_eq!(done.finished.verdict.outcome, Outcome::NotStarted);
    world.connect("b", Manners::default());
    let done = first.await.unwrap();
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Aborted,
        "{}",
        done.reasons()
    );
}

/// The host of `b` goes down; `a` is measured.
fn goes_down(fault: &str, arguments: Value) -> Value {
    let mut document = experiment("b", "1s", json!({"from": "still"}));
    document["targets"]["still"] = json!({"labels": {"host": "a"}});
    document["method"][0]["provider"] =
        json!({"type": "fault", "fault": fault, "arguments": arguments, "targets": "victim"});
    document
}

fn in_boot(boot: &str, goes_down: bool) -> Manners {
    Manners {
        boot: Some(boot.into()),
        goes_down,
        ..Manners::default()
    }
}

/// The effect of the run's only injection, as it was at its end.
fn last_effect(done: &Done) -> Option<backburn_experiments::wire::Effect> {
    done.entries.iter().find_map(|entry| match &entry.event {
        Event::InjectionEnded(ended) => ended.effect.clone(),
        _ => None,
    })
}

#[tokio::test]
async fn agent_whose_host_restarts_is_awaited_and_its_new_boot_is_the_evidence() {
    let mut world = World::new([Manners::default(), in_boot("one", true)]).await;
    let (run, _stop) = world.start("test", &goes_down("host-reboot", json!({"within": "30s"})));
    world.was_told("b", "inject").await;
    world.connect("b", in_boot("two", false));
    let done = run.await.unwrap();
    let said = done.reasons();
    assert_eq!(done.finished.verdict.outcome, Outcome::Held, "{said}");
    assert!(!done.has(|event| matches!(event, Event::AgentLost { .. })));
    let effect = last_effect(&done).unwrap();
    assert!(
        effect.acts && effect.seen.contains("boot id is two, and was one"),
        "{effect:?}"
    );
    assert_eq!(joined(&done), ["a", "b", "b"]);
}

#[tokio::test]
async fn agent_that_is_back_in_the_same_boot_was_not_restarted_and_ends_the_run() {
    let mut world = World::new([Manners::default(), in_boot("one", true)]).await;
    let (run, _stop) = world.start("test", &goes_down("host-reboot", json!({})));
    world.was_told("b", "inject").await;
    world.connect("b", in_boot("one", false));
    let done = run.await.unwrap();
    assert_eq!(
        done.finished.verdict.outcome,
        Outcome::Aborted,
        "{}",
        done.reasons()
    );
    let effect = last_effect(&done).unwrap();
    assert!(
        !effect.acts && effect.seen.contains("same boot"),
        "{effect:?}"
    );
}

#[tokio::test]
async fn agent_whose_host_does_not_come_back_in_time_is_lost() {
    let world = World::new([Manners::default(), in_boot("one", true)]).await;
    let done = world
        .run(&goes_down("host-reboot", json!({"within": "200ms"})))
        .await;
    assert_eq!(done.finished.verdict.outcome, Outcome::NotClean);
    assert!(
        done.reasons().contains("did not reconnect within 200ms"),
        "{}",
        done.reasons()
    );
    assert!(done.has(|event| matches!(event, Event::AgentLost { agent, .. } if agent == "b")));
    assert!(last_effect(&done).is_none());
}

#[tokio::test]
async fn host_that_was_switched_off_lets_the_run_go_on_and_is_evidence_when_it_is_back() {
    let mut world = World::new([Manners::default(), in_boot("one", true)]).await;
    let mut document = goes_down("host-shutdown", json!({}));
    let pause = json!({"type": "action", "name": "next", "provider":
        {"type": "fault", "fault": "process-pause", "duration": "300ms", "targets": "still"}});
    document["method"].as_array_mut().unwrap().push(pause);
    document
        .as_object_mut()
        .unwrap()
        .remove("steady-state-hypothesis");
    let (run, _stop) = world.start("test", &document);
    world.was_told("a", "inject").await;
    world.connect("b", in_boot("two", false));
    let done = run.await.unwrap();
    let said = done.reasons();
    assert!(
        !done.has(|event| matches!(event, Event::Aborted(_) | Event::AgentLost { .. })),
        "{said}"
    );
    let effect = last_effect(&done);
    let is_there = done.entries.iter().any(|entry| matches!(&entry.event, Event::InjectionEnded(ended)
        if ended.clean && ended.effect.as_ref().is_some_and(|effect| effect.seen.contains("boot id is two"))));
    assert!(is_there, "{effect:?} {said}");
}
