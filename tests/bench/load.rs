//! The latencies that `load` reports beside those of a reference that cannot omit anything: a thread for every connection, each with its
//! share of the schedule, whose latencies are all kept and sorted. Both send at 5,000 requests a second on one processor, in turns, to a
//! server whose answers take 2 to 22 ms. Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench load [ROUNDS]
//! ```

use backburn_agent::policy::HostPolicy;
use backburn_agent::probes::ProbeJob;
use backburn_experiments::document::Provider;
use backburn_experiments::wire::ProbeOutcome;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const RATE: u64 = 5000;
const SECONDS: u64 = 4;
const CONNECTIONS: u64 = 400;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--bench")
        .collect();
    match words.as_slice() {
        ["server"] => serve(),
        ["ours", port] => on_one_processor(|| ours(port)),
        ["reference", port] => on_one_processor(|| reference(port)),
        ["look", port, rate] => on_one_processor(|| measured(port, rate.parse().expect("a rate"))),
        words => compare(
            words
                .first()
                .map_or(7, |rounds| rounds.parse().expect("a number of rounds")),
        ),
    }
}

/// Prints what a load saw, with the processor time that it took.
fn on_one_processor(load: impl FnOnce() -> Value) {
    let mut first = CpuSet::new();
    first.set(0).expect("there is a first processor");
    sched_setaffinity(Pid::from_raw(0), &first).expect("a process chooses its processors");
    let mut seen = load();
    let used = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel counts");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seen["cpu"] = json!(seconds(used.user_time()) + seconds(used.system_time()));
    println!("{seen}");
}

/// A server that answers the n-th request after a time that is drawn from n, evenly from 2 to 22 ms.
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    println!("{}", listener.local_addr().expect("it is bound").port());
    let number = Arc::new(AtomicU64::new(0));
    for stream in listener.incoming().flatten() {
        let number = Arc::clone(&number);
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || {
                stream.set_nodelay(true).ok();
                let mut to = stream.try_clone().expect("a descriptor is free");
                let mut from = BufReader::new(stream);
                let mut line = String::new();
                loop {
                    line.clear();
                    match from.read_line(&mut line) {
                        Ok(0) | Err(_) => return,
                        Ok(_) if line == "\r\n" => {
                            let n = number.fetch_add(1, Ordering::Relaxed);
                            let micros = 2000 + n * 7919 % 1000 * 20;
                            std::thread::sleep(Duration::from_micros(micros));
                            to.write_all(ANSWER).ok();
                        }
                        Ok(_) => {}
                    }
                }
            })
            .expect("a thread starts");
    }
}

fn ours(port: &str) -> Value {
    measured(port, RATE)
}

fn measured(port: &str, rate: u64) -> Value {
    let provider = json!({"type": "load", "url": format!("http://127.0.0.1:{port}/"), "rate": rate,
        "duration": format!("{SECONDS}s"), "connections": CONNECTIONS});
    let provider: Provider = serde_json::from_value(provider).expect("it is right");
    let job = ProbeJob::new(provider, None, &HostPolicy::default()).expect("agents measure it");
    match serde_json::from_slice(&job.run()).expect("an outcome") {
        ProbeOutcome::Output(value) => value,
        other => panic!("{other:?}"),
    }
}

fn reference(port: &str) -> Value {
    let port: u16 = port.parse().expect("a port");
    let address = ("127.0.0.1", port);
    let streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("the server listens");
            stream.set_nodelay(true).expect("it is TCP");
            stream
        })
        .collect();
    nix::sys::prctl::set_timerslack(1).expect("a thread chooses its slack");
    let began = Instant::now() + Duration::from_millis(50);
    let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let request = &request;
        let threads: Vec<_> = (0..)
            .zip(streams)
            .map(|(first, mut stream)| {
                let body = move || {
                    let mut latencies = Vec::new();
                    let mut number: u64 = first;
                    while number < RATE * SECONDS {
                        let due = began + Duration::from_micros(number * 1_000_000 / RATE);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        stream.write_all(request.as_bytes()).expect("it is open");
                        stream
                            .read_exact(&mut [0; ANSWER.len()])
                            .expect("it answers");
                        latencies.push(due.elapsed());
                        number += CONNECTIONS;
                    }
                    latencies
                };
                std::thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn_scoped(scope, body)
                    .expect("a thread starts")
            })
            .collect();
        let of_each = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("it ends well"));
        of_each.collect()
    });
    all.sort_unstable();
    let at = |share: f64| {
        let rank = (share * all.len() as f64).ceil() as usize;
        all[rank.clamp(1, all.len()) - 1].as_secs_f64() * 1e3
    };
    json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "answered": all.len(), "failed": 0})
}

/// Runs this program in another role and reads the JSON that it prints.
fn run(role: &str, port: &str) -> Value {
    let output = Command::new(std::env::current_exe().expect("a program knows its own file"))
        .args([role, port])
        .stderr(Stdio::inherit())
        .output()
        .expect("it starts");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn compare(rounds: usize) {
    let mut server = Command::new(std::env::current_exe().expect("a program knows its own file"))
        .arg("server")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut port = String::new();
    BufReader::new(server.stdout.take().expect("it is piped"))
        .read_line(&mut port)
        .expect("it says its port");
    let port = port.trim();
    let mut seen = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (seen, role) in seen.iter_mut().zip(["ours", "reference"]) {
            let value = run(role, port);
            // The first ones find nothing in any cache.
            if round > 0 {
                seen.push(value);
            }
        }
    }
    server.kill().ok();
    server.wait().ok();
    let [ours, reference] = &seen;
    println!(
        "{RATE} requests/s for {SECONDS} s on one processor, {rounds} rounds in turns: medians of rounds, latencies in ms"
    );
    let median = |values: &[Value], key: &str| {
        let mut figures: Vec<f64> = values
            .iter()
            .filter_map(|value| value[key].as_f64())
            .collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    for key in ["p50", "p90", "p99", "p999", "answered", "failed", "cpu"] {
        let (ours, reference) = (median(ours, key), median(reference, key));
        println!(
            "  {key:9} load {ours:9.3}   reference {reference:9.3}   ratio {:.3}",
            ours / reference
        );
    }
    let ratios = ours.iter().zip(reference);
    let mut ratios: Vec<f64> = ratios
        .filter_map(|(ours, reference)| Some(ours["p99"].as_f64()? / reference["p99"].as_f64()?))
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("  ratio of p99 by round: {ratios:.3?}");
}
