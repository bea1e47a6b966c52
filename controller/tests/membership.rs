//! Connections of agents: versions of the protocol, two hosts with one identity, what is recorded, and what agents say that they owe.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn::fleet::{Fleet, MembershipChange};
use backburn::store::{NewRun, Role, Store, Trigger};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::journal::{Event, JournalEntry};
use backburn_experiments::protocol::ProtocolRange;
use backburn_experiments::wire::{Command, Hello, ProbeOutcome, Report, UnrevertedInjection};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::Manners;
use support::api::TestController;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::task::JoinHandle;

/// A lease that is short, as an agent has a third of it to prove that it is alive.
fn fleet() -> Arc<Fleet> {
    Arc::new(Fleet::new(HumanDuration::millis(900)))
}

/// The agent's end of a connection, and the controller's reason for its end.
struct Link {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    write: WriteHalf<DuplexStream>,
    ended: JoinHandle<String>,
}

impl Link {
    fn open(fleet: &Arc<Fleet>, name: &str, peer: &str) -> Self {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (serving, owner) = (Arc::clone(fleet), name.to_owned());
        let peer = peer.parse().unwrap();
        let ended = tokio::spawn(async move { serving.serve(&owner, peer, ours, || false).await });
        let (read, write) = split(theirs);
        Link {
            lines: BufReader::new(read).lines(),
            write,
            ended,
        }
    }

    async fn say(&mut self, report: &Report) {
        self.say_line(&serde_json::to_string(report).unwrap()).await;
    }

    async fn say_line(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.write.write_all(line.as_bytes()).await.unwrap();
    }

    /// The next message that is no heartbeat. None once the connection is closed.
    async fn next(&mut self) -> Option<Command> {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let command = serde_json::from_str(&line).unwrap();
            if !matches!(command, Command::Heartbeat { .. }) {
                return Some(command);
            }
        }
        None
    }

    /// Answers whatever an agent that lives answers, from now on.
    fn live(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(line) = self.lines.next_line().await.unwrap_or_default() {
                let answer = match serde_json::from_str(&line).unwrap() {
                    Command::Heartbeat { answer: true, .. } => Report::HeartbeatAnswer,
                    Command::RevertAll { request, .. } => Report::AllReverted {
                        request,
                        owed: Vec::new(),
                        held: Vec::new(),
                    },
                    Command::Describe { request } => Report::Described {
                        request,
                        faults: Vec::new(),
                    },
                    _ => continue,
                };
                self.say(&answer).await;
            }
        })
    }
}

fn hello() -> Hello {
    Hello {
        version: "1".into(),
        answers_heartbeats: true,
        protocol: Some(ProtocolRange {
            oldest: 1,
            newest: 2,
        }),
        ..Hello::default()
    }
}

async fn is_connected_from(fleet: &Arc<Fleet>, name: &str, peer: &str) {
    let peer = Some(peer.parse().unwrap());
    let mut changes = fleet.changes();
    let is_in = changes.wait_for(|_| fleet.get(name).map(|agent| agent.peer) == peer);
    let is_in = tokio::time::timeout(Duration::from_secs(60), is_in).await;
    is_in.unwrap().unwrap();
}

#[tokio::test]
async fn second_host_with_the_identity_of_an_old_agent_that_lives_is_refused_too() {
    let old = Hello {
        answers_heartbeats: false,
        protocol: None,
        ..hello()
    };
    let fleet = fleet();
    let mut first = Link::open(&fleet, "a", "10.0.0.1:1");
    first.say(&Report::Hello(old)).await;
    is_connected_from(&fleet, "a", "10.0.0.1:1").await;
    let _first = first.live();
    let mut second = Link::open(&fleet, "a", "10.0.0.2:2");
    second.say(&Report::Hello(hello())).await;
    let Some(Command::Refused { refusal }) = second.next().await else {
        panic!("it is not told");
    };
    assert_eq!(refusal.rule, "duplicate");
    assert_eq!(fleet.get("a").unwrap().peer.to_string(), "10.0.0.1:1");
    assert!(fleet.duplicates().contains_key("a"));
}

#[tokio::test]
async fn second_host_with_the_identity_of_a_live_agent_is_refused_and_raises_an_alert() {
    let fleet = fleet();
    let mut records = fleet.membership_records().unwrap();
    let mut first = Link::open(&fleet, "a", "10.0.0.1:1");
    first.say(&Report::Hello(hello())).await;
    is_connected_from(&fleet, "a", "10.0.0.1:1").await;
    let _first = first.live();
    for _ in 0..3 {
        let mut second = Link::open(&fleet, "a", "10.0.0.2:2");
        second.say(&Report::Hello(hello())).await;
        let Some(Command::Refused { refusal }) = second.next().await else {
            panic!("it is not told");
        };
        assert_eq!(refusal.rule, "duplicate");
        assert!(second.next().await.is_none(), "it is closed");
        drop((second.lines, second.write));
        assert!(second.ended.await.unwrap().contains("refused"));
        // The one that may owe something stays.
        assert_eq!(fleet.get("a").unwrap().peer.to_string(), "10.0.0.1:1");
    }
    let alert = fleet.duplicates()["a"];
    assert_eq!(alert.peer.to_string(), "10.0.0.2:2");
    let mut changes = Vec::new();
    while let Ok(record) = records.try_recv() {
        changes.push(record.change);
    }
    let refused = MembershipChange::Duplicated("10.0.0.1:1".parse().unwrap());
    assert!(matches!(
        changes[0],
        MembershipChange::Connected { protocol: 2, .. }
    ));
    assert_eq!(changes[1..], vec![refused; 3][..]);
}

#[tokio::test]
async fn agent_whose_old_link_is_dead_takes_its_place() {
    for hello in [
        hello(),
        Hello {
            answers_heartbeats: false,
            ..hello()
        },
    ] {
        let fleet = fleet();
        let mut silent = Link::open(&fleet, "a", "10.0.0.1:1");
        silent.say(&Report::Hello(hello.clone())).await;
        is_connected_from(&fleet, "a", "10.0.0.1:1").await;
        let mut second = Link::open(&fleet, "a", "10.0.0.1:2");
        second.say(&Report::Hello(hello)).await;
        is_connected_from(&fleet, "a", "10.0.0.1:2").await;
        assert!(matches!(
            second.next().await,
            Some(Command::Welcome { protocol: 2, .. })
        ));
        while silent.next().await.is_some() {}
        assert!(fleet.duplicates().is_empty());
    }
}

#[tokio::test]
async fn agent_that_flaps_is_recorded_a_few_times_with_the_count_of_the_rest() {
    let fleet = fleet();
    let mut records = fleet.membership_records().unwrap();
    for _ in 0..50 {
        let mut link = Link::open(&fleet, "a", "10.0.0.1:1");
        link.say(&Report::Hello(Hello::default())).await;
        is_connected_from(&fleet, "a", "10.0.0.1:1").await;
        drop((link.lines, link.write));
        link.ended.await.unwrap();
    }
    let mut count = 0;
    while records.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, 10, "of 100 changes");
}

#[tokio::test]
async fn connections_are_in_the_audit_log_and_the_agent_has_the_time_it_was_heard() {
    let world = TestController::new();
    let fleet = Arc::clone(world.service.fleet());
    let records = fleet.membership_records().unwrap();
    tokio::spawn(Arc::clone(&world.service).keep_membership(records));
    world.agent("a", &[], Manners::default()).await;
    let heard = fleet.get("a").unwrap().heard;
    fleet.disconnect("a");
    let audited = || {
        let entries = world.store.audited(0, 100).unwrap().into_iter();
        entries.map(|entry| entry.record).collect::<Vec<_>>()
    };
    world
        .until("both are recorded", || audited().len() == 2)
        .await;
    let [connected, disconnected] = &audited()[..] else {
        panic!("two entries");
    };
    assert_eq!(
        (connected.who.as_str(), connected.what.as_str()),
        ("agent a", "connect")
    );
    assert_eq!(connected.detail["peer"], "127.0.0.1:1");
    assert_eq!(disconnected.what, "disconnect");
    assert_eq!(disconnected.detail["reason"], "it was disconnected");
    world
        .until("it is stored", || {
            world.store.agent("a").unwrap().heard >= Some(heard)
        })
        .await;
    let viewer = world.token("eve", Role::Viewer);
    let (_, agents) = world.ask("GET", "/api/v1/agents", &viewer, None).await;
    assert!(agents[0]["heard"].is_string(), "{agents}");
    assert_eq!(agents[0]["duplicate"], Value::Null);
}

/// Feeds recorded lines of an agent, after the introduction asks it for a probe, and returns its answer and the agreed version.
async fn replay(lines: &str) -> (ProbeOutcome, u32) {
    let fleet = fleet();
    let mut link = Link::open(&fleet, "web-1", "10.0.0.1:1");
    let (introduction, rest) = lines.split_once('\n').unwrap();
    link.say_line(introduction).await;
    is_connected_from(&fleet, "web-1", "10.0.0.1:1").await;
    let handle = fleet.handle("web-1").unwrap();
    let provider: Provider =
        serde_json::from_value(json!({"type": "tcp", "host": "127.0.0.1", "port": 1})).unwrap();
    let asking = tokio::spawn(async move { handle.probe(provider, None).await });
    while !matches!(link.next().await.unwrap(), Command::Probe { .. }) {}
    for line in rest.lines() {
        link.say_line(line).await;
    }
    let protocol = fleet.get("web-1").unwrap().protocol;
    (asking.await.unwrap(), protocol)
}

#[tokio::test]
async fn recorded_lines_of_an_older_and_of_a_newer_agent_are_served() {
    let answer = ProbeOutcome::Output(json!({"connected": true}));
    let older = include_str!("fixtures/wire/agent-protocol-1.jsonl");
    assert_eq!(replay(older).await, (answer.clone(), 1));
    // What this version does not know or cannot read is skipped, and the link stays.
    let newer = include_str!("fixtures/wire/agent-newer.jsonl");
    assert_eq!(replay(newer).await, (answer, 2));
}

#[tokio::test]
async fn agent_without_a_common_version_is_told_what_to_upgrade() {
    let fleet = fleet();
    let mut link = Link::open(&fleet, "a", "10.0.0.1:1");
    let future = ProtocolRange {
        oldest: 7,
        newest: 9,
    };
    link.say(&Report::Hello(Hello {
        protocol: Some(future),
        ..hello()
    }))
    .await;
    let Some(Command::Refused { refusal }) = link.next().await else {
        panic!("it is not told");
    };
    assert_eq!(refusal.rule, "protocol");
    assert!(refusal.hint.unwrap().contains("upgrade the controller"));
    assert!(link.next().await.is_none());
    assert_eq!(fleet.count(), 0);
}

#[tokio::test]
async fn flood_of_unreadable_messages_is_cut() {
    let fleet = fleet();
    let mut link = Link::open(&fleet, "a", "10.0.0.1:1");
    link.say(&Report::Hello(hello())).await;
    is_connected_from(&fleet, "a", "10.0.0.1:1").await;
    let flood = tokio::spawn(async move {
        for _ in 0..10_001 {
            let line = b"{\"say\":\"noise\"}\n";
            if link.write.write_all(line).await.is_err() {
                break;
            }
        }
        link.ended.await.unwrap()
    });
    let why = flood.await.unwrap();
    assert!(why.contains("cannot read"), "{why}");
}

fn owes(injection: &str) -> UnrevertedInjection {
    UnrevertedInjection {
        injection: injection.into(),
        fault: "process-pause".into(),
        residue: vec!["something".into()],
    }
}

#[tokio::test]
async fn debt_that_an_agent_invents_neither_blocks_a_run_nor_spoils_its_verdict() {
    let world = TestController::new();
    let operator = world.token("ada", Role::Operator);
    // A run of before that asked agent `a` for an injection, and not `b`.
    world
        .store
        .open_run(&NewRun {
            id: "r1".into(),
            experiment: None,
            title: "before".into(),
            seed: 1,
            who: "ada".into(),
            because: Trigger::Asked,
            started: Timestamp::now(),
        })
        .unwrap();
    let requested: Event = serde_json::from_value(json!({
        "event": "injection-requested", "injection": "r1-1", "activity": "pause", "fault": "process-pause", "agent": "a",
    }))
    .unwrap();
    let entry = JournalEntry {
        at: Timestamp::now(),
        elapsed: 0.0,
        event: requested,
    };
    world.store.append("r1", &entry).unwrap();
    let run = |role: &str| {
        let document = json!({
            "title": "t", "description": "d", "targets": {"t": {"labels": {"role": role}}},
            "method": [{"type": "action", "name": "pause", "provider":
                {"type": "fault", "fault": "process-pause", "duration": "100ms", "targets": "t"}}],
        });
        json!({"experiment": document.to_string()})
    };
    let all = ["r1-1", "nothing", "r1-2", "unknown-run-1", ""].map(owes);
    for (name, owed) in [("a", &all[..]), ("b", &all[..]), ("c", &all[1..])] {
        let manners = Manners {
            owed: owed.to_vec(),
            ..Manners::default()
        };
        world.agent(name, &[("role", name)], manners).await;
    }
    for (role, clean) in [("a", false), ("b", true), ("c", true)] {
        let (status, started) = world
            .ask("POST", "/api/v1/runs", &operator, Some(run(role)))
            .await;
        assert!((200..300).contains(&status), "{started}");
        let id = started["run"]
            .as_str()
            .or(started["id"].as_str())
            .unwrap()
            .to_owned();
        let ended = || world.store.run(&id).unwrap().end;
        world.until("the run is over", || ended().is_some()).await;
        let verdict = ended().unwrap().verdict;
        assert_eq!(
            verdict["owed"],
            if clean {
                json!([])
            } else {
                json!([owes("r1-1")])
            },
            "{verdict}"
        );
    }
    // They are shown as what that agent says.
    assert_eq!(world.service.fleet().get("c").unwrap().owed.len(), 4);
}
