//! What a fleet costs its controller: a thousand and ten thousand simulated agents (`src/bin/swarm.rs` says what is
//! real of them) at the real `backburn controller`, all on this machine. Memory and processor time at rest, how long a
//! halt takes with a fault on every agent and with none, and how long a run over all of them takes to begin. Beside
//! it, in the same run and with the same agents: a bare server behind the same door, which writes one line to each
//! and waits for one back. Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench fleet            # BACKBURN_FLEET=1000,10000
//! ```

use backburn::listener::{AuthenticatedAgent, Connection, Listener, ListenerLimits};
use backburn::pki::ca::CertificateAuthority;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Command, Report};
use backburn_tests::daemon::Daemon;
use backburn_tests::programs::root;
use backburn_tests::swarm::Swarm;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

/// How often a halt is measured.
const ROUNDS: usize = 7;
/// How long the processor time at rest is measured: a beat comes each ten seconds.
const REST: Duration = Duration::from_secs(30);
/// By when a controller at rest has given back what it does not need: it looks once a minute.
const GIVEN_BACK: Duration = Duration::from_secs(70);

fn main() {
    let counts = std::env::var("BACKBURN_FLEET").unwrap_or_else(|_| "1000,10000".into());
    for count in counts.split(',') {
        measure(count.parse().expect("a number of agents"));
    }
}

fn measure(count: u64) {
    let folder = tempfile::tempdir_in(root().join("target")).expect("the build has a folder");
    let program = env!("CARGO_BIN_EXE_swarm");
    let mut swarm = Swarm::enrolled(program, folder.path(), count as usize);
    let controller = Daemon::start(folder.path());
    println!("\n{count} agents");
    controller.done("PUT", "/api/v1/experiments/busy", Some(&experiment()));
    let process = Process(controller.pid());

    let (memory, processor, began) = (process.memory(), process.processor(), Instant::now());
    swarm.connect(controller.address);
    swarm.wait("everybody there", |state| state.connected == count);
    let took = began.elapsed();
    std::thread::sleep(Duration::from_secs(3));
    println!(
        "  to connect them all       {:>8.2} s, {:.0} µs of the controller's processor for each",
        took.as_secs_f64(),
        micros(process.processor() - processor) / count as f64
    );
    println!(
        "  memory at rest            {:>8.2} KiB for each, {:.1} MiB in all",
        (process.memory() - memory) / count as f64,
        process.memory() / 1024.0
    );
    let (commands, processor) = (swarm.state().commands, process.processor());
    std::thread::sleep(REST);
    let beats = swarm.state().commands - commands;
    println!(
        "  processor at rest         {:>8.2} µs for each of {beats} beats",
        micros(process.processor() - processor) / beats as f64
    );

    let mut idle = Halts::default();
    for _ in 0..ROUNDS {
        idle.measure(&controller, &process, &mut swarm);
        controller.done("DELETE", "/api/v1/halt", None);
    }
    idle.print("halt, no faults");

    let (mut busy, mut begins, mut closes) = (Halts::default(), Begins::default(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let run = controller.run("busy");
        swarm.wait("everything acts", |state| state.faults == count);
        let acting = began.elapsed();
        // Until the controller knows, too.
        wait_until_heard(&controller, &run, count);
        busy.measure(&controller, &process, &mut swarm);
        let halted = Instant::now();
        controller.closed(&run);
        closes.push(halted.elapsed().as_secs_f64() * 1e3);
        begins.look(&controller.events(&run), acting);
        controller.done("DELETE", "/api/v1/halt", None);
    }
    begins.print();
    busy.print("halt, a fault on each");
    println!("  run closed after that     {} ms", spread(&mut closes));
    for (when, wait) in [("", Duration::ZERO), (", later", GIVEN_BACK)] {
        std::thread::sleep(wait);
        println!(
            "  {:<25} {:>8.2} KiB for each",
            format!("memory after {ROUNDS} runs{when}"),
            (process.memory() - memory) / count as f64
        );
    }
    let address = controller.address;
    drop(controller);
    bare(folder.path(), address, count);
}

fn experiment() -> Value {
    json!({
        "title": "Everybody is busy",
        "description": "Nothing is measured: it is about how many they are",
        "targets": {"all": {"labels": {"role": "swarm"}, "select": "all"}},
        "method": [{
            "type": "action", "name": "busy",
            "provider": {"type": "fault", "fault": "cpu-stress", "duration": "600s", "targets": "all"},
        }],
    })
}

/// Waits until the journal has the end of every injection's beginning: joined, planned, asked for, injected, seen.
fn wait_until_heard(controller: &Daemon, run: &str, count: u64) {
    let path = format!("/api/v1/runs/{run}");
    let until = Instant::now() + Duration::from_secs(300);
    while controller.done("GET", &path, None)["events"].as_u64() < Some(5 * count) {
        assert!(Instant::now() < until, "the run does not get on");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Halts that were measured, in milliseconds.
#[derive(Default)]
struct Halts {
    wall: Vec<f64>,
    took: Vec<f64>,
    median: Vec<f64>,
    late: Vec<f64>,
    last: Vec<f64>,
    /// Of the controller's processor, for each command that an agent heard, in microseconds.
    processor: Vec<f64>,
}

impl Halts {
    fn measure(&mut self, controller: &Daemon, process: &Process, swarm: &mut Swarm) {
        let (processor, commands) = (process.processor(), swarm.state().commands);
        let began = Instant::now();
        let report = controller.done("POST", "/api/v1/halt", Some(&json!({})));
        self.wall.push(began.elapsed().as_secs_f64() * 1e3);
        let heard = swarm.state().commands - commands;
        let spent = micros(process.processor() - processor);
        self.processor.push(spent / heard.max(1) as f64);
        assert_eq!(report["clean"], true, "not clean");
        self.took
            .push(report["took-ms"].as_f64().expect("a number"));
        let agents = report["agents"].as_array().expect("a list");
        let mut each: Vec<f64> = agents
            .iter()
            .map(|agent| agent["took-ms"].as_f64().expect("it said so"))
            .collect();
        each.sort_by(f64::total_cmp);
        self.median.push(each[each.len() / 2]);
        self.late.push(each[each.len() * 99 / 100]);
        self.last.push(each[each.len() - 1]);
    }

    fn print(&mut self, what: &str) {
        println!("  {what}; n = {}", self.wall.len());
        println!(
            "    an agent, median        {} ms",
            spread(&mut self.median)
        );
        println!("    an agent, 99 of 100     {} ms", spread(&mut self.late));
        println!("    the last agent          {} ms", spread(&mut self.last));
        println!("    all observed gone       {} ms", spread(&mut self.took));
        println!("    the HTTP call           {} ms", spread(&mut self.wall));
        println!(
            "    processor a command     {} µs",
            spread(&mut self.processor)
        );
    }
}

/// How runs began, in milliseconds.
#[derive(Default)]
struct Begins {
    method: Vec<f64>,
    asked: Vec<f64>,
    known: Vec<f64>,
    acting: Vec<f64>,
}

impl Begins {
    fn look(&mut self, events: &[Value], acting: Duration) {
        let at = |found: &Value| found["elapsed"].as_f64().expect("a number") * 1e3;
        let last = |event: &str| {
            let found = events.iter().rev().find(|found| found["event"] == event);
            found.map(at).expect("it is there")
        };
        let method = events.iter().find(|found| found["phase"] == "method");
        self.method.push(method.map(at).expect("it began"));
        self.asked.push(last("injection-requested"));
        self.known.push(last("injected"));
        self.acting.push(acting.as_secs_f64() * 1e3);
    }

    fn print(&mut self) {
        println!(
            "  a run over all, since it began; n = {}",
            self.method.len()
        );
        println!(
            "    the method begins       {} ms",
            spread(&mut self.method)
        );
        println!("    the last is asked       {} ms", spread(&mut self.asked));
        println!(
            "    the last acts           {} ms",
            spread(&mut self.acting)
        );
        println!("    the last is known to    {} ms", spread(&mut self.known));
    }
}

/// The median, the least and the most.
fn spread(found: &mut [f64]) -> String {
    found.sort_by(f64::total_cmp);
    let (least, most) = (found[0], found[found.len() - 1]);
    format!("{:>8.1} ({least:.1}–{most:.1})", found[found.len() / 2])
}

/// A process, and what it has used.
struct Process(u32);

impl Process {
    /// What it holds of the memory now, in KiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.expect("a process has memory")
    }

    /// What it has had of the processors: to the hundredth of a second (proc(5)), dead threads with it.
    fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("it lives");
        let (_, after) = stat.rsplit_once(") ").expect("a name in parentheses");
        let ticks = after.split(' ').skip(11).take(2);
        let ticks: u64 = ticks
            .map(|ticks| ticks.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 10)
    }
}

fn micros(spent: Duration) -> f64 {
    spent.as_secs_f64() * 1e6
}

/// The same agents come to a server that does nothing but write a line to each and wait for the answer.
fn bare(data: &Path, address: SocketAddr, count: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime is made");
    let authority =
        Arc::new(CertificateAuthority::open(&data.join("authority")).expect("it is there"));
    let (mut late, mut last) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await;
        let names = vec!["localhost".to_owned()];
        let listener = listener.expect("the controller has gone");
        let limits = ListenerLimits::default();
        let listener = Listener::open(listener, &authority, names, limits, |_| false);
        let mut listener = listener.expect("the door opens");
        let (answer, mut answered) = mpsc::unbounded_channel();
        let mut peers = Vec::new();
        while (peers.len() as u64) < count {
            if let Connection::Agent(agent) = listener.next_connection().await {
                let (tell, told) = mpsc::unbounded_channel();
                let (came, is_there) = tokio::sync::oneshot::channel();
                tokio::spawn(converse(agent, came, told, answer.clone()));
                peers.push((tell, is_there));
            }
        }
        let mut tells = Vec::new();
        for (tell, is_there) in peers {
            is_there.await.expect("it introduces itself");
            tells.push(tell);
        }
        for round in 0..=ROUNDS {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let began = Instant::now();
            for tell in &tells {
                tell.send(()).expect("its task lives");
            }
            let mut each = Vec::new();
            while (each.len() as u64) < count {
                answered.recv().await.expect("they answer");
                each.push(began.elapsed().as_secs_f64() * 1e3);
            }
            if round > 0 {
                late.push(each[each.len() * 99 / 100]);
                last.push(each[each.len() - 1]);
            }
        }
    });
    println!("  bare fan-out and answer over the same TLS; n = {ROUNDS}");
    println!("    an agent, 99 of 100     {} ms", spread(&mut late));
    println!("    the last agent          {} ms", spread(&mut last));
    runtime.shutdown_background();
}

async fn converse(
    agent: AuthenticatedAgent,
    came: tokio::sync::oneshot::Sender<()>,
    mut told: mpsc::UnboundedReceiver<()>,
    answer: mpsc::UnboundedSender<()>,
) {
    let mut stream = BufReader::new(agent.stream);
    let mut line = String::new();
    // Its introduction; then a lease that outlasts the bench.
    stream.read_line(&mut line).await.expect("it speaks");
    let lease = HumanDuration::seconds(600);
    say(
        &mut stream,
        &Command::Heartbeat {
            lease,
            answer: false,
        },
    )
    .await;
    came.send(()).expect("somebody waits");
    while told.recv().await.is_some() {
        say(
            &mut stream,
            &Command::RevertAll {
                request: 1,
                run: None,
            },
        )
        .await;
        line.clear();
        stream.read_line(&mut line).await.expect("it answers");
        let report: Report = serde_json::from_str(&line).expect("a report");
        assert!(matches!(report, Report::AllReverted { .. }), "{line}");
        if answer.send(()).is_err() {
            return;
        }
    }
}

async fn say(stream: &mut (impl tokio::io::AsyncWrite + Unpin), command: &Command) {
    let line = serde_json::to_string(command).expect("it can be written") + "\n";
    let written = stream.write_all(line.as_bytes()).await;
    written.and(stream.flush().await).expect("it listens");
}
