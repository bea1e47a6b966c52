//! A link to an agent that is there and says nothing.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::agent_connection::{AgentConnection, EventKind};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Command, Hello, Report};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

const LEASE: HumanDuration = HumanDuration::millis(600);
/// More than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// The agent's end of a link.
struct Agent(BufReader<DuplexStream>);

impl Agent {
    async fn says(&mut self, report: &Report) {
        let line = serde_json::to_string(report).unwrap() + "\n";
        self.0.write_all(line.as_bytes()).await.unwrap();
    }

    async fn hears(&mut self) -> Command {
        let mut line = String::new();
        let read = tokio::time::timeout(LONG, self.0.read_line(&mut line));
        read.await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// A link over which an agent has introduced itself.
async fn link(answers_heartbeats: bool) -> (AgentConnection, Agent) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let mut link = AgentConnection::over(ours, None, LEASE);
    let mut agent = Agent(BufReader::new(theirs));
    let hello = Hello {
        answers_heartbeats,
        ..Hello::default()
    };
    agent.says(&Report::Hello(hello)).await;
    link.hello().await.unwrap();
    (link, agent)
}

#[tokio::test]
async fn agent_that_falls_silent_is_unresponsive_within_a_lease_and_requests_fail() {
    let (mut link, mut agent) = link(true).await;
    let handle = link.handle();
    let asked = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.describe().await })
    };
    let began = Instant::now();
    let heard = tokio::time::timeout(LONG, link.next_event()).await.unwrap();
    assert!(matches!(heard, EventKind::Unresponsive(LEASE)), "{heard:?}");
    assert!(began.elapsed() >= LEASE.0 / 3, "it was asked before");
    assert!(handle.is_unresponsive());
    let answer = tokio::time::timeout(LONG, asked).await.unwrap();
    assert!(answer.unwrap().is_none());
    // Who asks now does not wait for a lease again.
    let answer = tokio::time::timeout(LEASE.0 / 6, handle.describe()).await;
    assert!(answer.unwrap().is_none());

    // It was told all the same to put everything back, and of what else was asked since it hears nothing.
    assert!(handle.revert_run("run").await.is_none());
    let mut described = 0;
    loop {
        match agent.hears().await {
            Command::Heartbeat { .. } => {}
            Command::Describe { .. } => described += 1,
            Command::RevertAll { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(described, 1);

    agent.says(&Report::HeartbeatAnswer).await;
    let heard = tokio::time::timeout(LONG, link.next_event()).await.unwrap();
    assert!(matches!(heard, EventKind::RespondsAgain), "{heard:?}");
    assert!(!handle.is_unresponsive());
}

#[tokio::test]
async fn agent_that_answers_every_heartbeat_is_never_unresponsive() {
    let (mut link, mut agent) = link(true).await;
    for _ in 0..12 {
        let beat = agent.hears().await;
        if matches!(beat, Command::Heartbeat { answer: true, .. }) {
            agent.says(&Report::HeartbeatAnswer).await;
        }
    }
    agent
        .says(&Report::AllReverted {
            request: 1,
            owed: Vec::new(),
            held: Vec::new(),
        })
        .await;
    loop {
        match tokio::time::timeout(LONG, link.next_event()).await.unwrap() {
            EventKind::Report(report) if matches!(*report, Report::HeartbeatAnswer) => {}
            EventKind::Report(_) => return,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn agent_that_cannot_answer_heartbeats_is_never_unresponsive_or_asked() {
    let (mut link, mut agent) = link(false).await;
    // Four leases long.
    for _ in 0..12 {
        let beat = agent.hears().await;
        assert!(
            matches!(beat, Command::Heartbeat { answer: false, .. }),
            "{beat:?}"
        );
    }
    agent
        .says(&Report::AllReverted {
            request: 1,
            owed: Vec::new(),
            held: Vec::new(),
        })
        .await;
    let heard = tokio::time::timeout(LONG, link.next_event()).await.unwrap();
    assert!(matches!(heard, EventKind::Report(_)), "{heard:?}");
    assert!(!link.handle().is_unresponsive());
}

#[test]
fn heartbeat_without_a_question_is_what_older_agents_know() {
    let beat = Command::Heartbeat {
        lease: HumanDuration::seconds(5),
        answer: false,
    };
    let line = serde_json::to_string(&beat).unwrap();
    assert!(!line.contains("answer"), "{line}");
    let read: Command = serde_json::from_str(&line).unwrap();
    assert!(matches!(read, Command::Heartbeat { answer: false, .. }));
    let hello = serde_json::to_string(&Report::Hello(Hello::default())).unwrap();
    assert!(!hello.contains("answers_beats"), "{hello}");
}
