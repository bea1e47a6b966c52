//! How much passes through `tcp-proxy` and how exact its latency is, beside a bare copy by tokio
//! and beside Noxious, all in one run and in turns. Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench tcp_proxy
//! ```

use backburn_tests::other_proxies::{Other, noxious, percentiles};
use backburn_tests::programs::backburn_agent;
use backburn_tests::proxied::{Proxied, echo, free, serve};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long each measurement of throughput takes, and how often it is done.
const SPAN: Duration = Duration::from_millis(500);
const ROUNDS: usize = 15;
/// Each latency, in milliseconds, and how many words go there and back.
const LATENCIES: [(u64, usize); 3] = [(1, 400), (10, 300), (100, 100)];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [role, listen, upstream] = words.as_slice()
        && role == "tokio-copy"
    {
        return copy(listen, upstream);
    }
    let noxious = noxious();
    backburn_agent();
    throughput(noxious.as_ref());
    latency(noxious.as_ref());
}

/// A bare copy, as short as it can be written with tokio.
fn copy(listen: &str, upstream: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("tokio starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .expect("it is free");
        while let Ok((mut client, _)) = listener.accept().await {
            let upstream = upstream.to_owned();
            tokio::spawn(async move {
                let mut upstream = tokio::net::TcpStream::connect(upstream).await?;
                tokio::io::copy_bidirectional(&mut client, &mut upstream).await
            });
        }
    });
}

fn throughput(noxious: Option<&PathBuf>) {
    // Takes all, and says at the end how much that was; not over the connection, of which not every
    // proxy leaves one way open when the other is closed.
    let (tell, taken) = mpsc::channel();
    let sink = serve(move |mut stream| {
        let mut room = vec![0; 1 << 20];
        let mut total: u64 = 0;
        while let Ok(count @ 1..) = stream.read(&mut room) {
            total += count as u64;
        }
        tell.send(total).ok();
    });
    // Nothing is harmed but the end, by a millisecond.
    let ours = Proxied::by(
        Command::new(backburn_agent()),
        sink,
        json!({"to-client": {"slow-close": "1ms"}}),
        "10m",
    );
    let copy_at = free();
    let mut copy = Command::new(std::env::current_exe().expect("a program knows its own file"));
    copy.args(["tokio-copy", &copy_at.to_string(), &sink.to_string()]);
    let _copy = Other::start(copy, copy_at);
    let noxious = noxious.map(|program| Other::noxious(program, sink, None));

    let mut ways = vec![
        ("direct", sink),
        ("tcp-proxy", ours.address),
        ("tokio copy", copy_at),
    ];
    ways.extend(noxious.iter().map(|(_, address)| ("noxious", *address)));
    println!("throughput, MB/s: median of {ROUNDS} rounds in turns, least to most");
    for streams in [1, 4] {
        let mut figures = vec![Vec::new(); ways.len()];
        for round in 0..=ROUNDS {
            for (figures, (_, address)) in figures.iter_mut().zip(&ways) {
                let figure = push(*address, streams, &taken);
                // The first ones find nothing in any cache.
                if round > 0 {
                    figures.push(figure);
                }
            }
        }
        for figures in &mut figures {
            figures.sort_by(f64::total_cmp);
        }
        let ours = figures[1][ROUNDS / 2];
        for (figures, (name, _)) in figures.iter().zip(&ways) {
            let median = figures[ROUNDS / 2];
            println!(
                "  {streams} streams  {name:12} {median:7.0}  ({:.0} to {:.0})   tcp-proxy is {:.2} of it",
                figures[0],
                figures[ROUNDS - 1],
                ours / median
            );
        }
    }
    ours.end();
}

/// Sends for a while on so many connections; MB/s from the first byte to the last that was taken.
fn push(to: SocketAddr, streams: usize, taken: &mpsc::Receiver<u64>) -> f64 {
    // Whoever looked whether somebody listens took nothing.
    while taken.try_recv().is_ok() {}
    let start = Instant::now();
    let sending: Vec<_> = (0..streams)
        .map(|_| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(to).expect("it listens");
                let block = vec![0xb5; 256 << 10];
                while start.elapsed() < SPAN {
                    stream.write_all(&block).expect("it is taken");
                }
            })
        })
        .collect();
    for sending in sending {
        sending.join().expect("it is sent");
    }
    let total: u64 = (0..streams)
        .map(|_| taken.recv().expect("the server is there"))
        .sum();
    total as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn latency(noxious: Option<&PathBuf>) {
    let server = serve(echo);
    let direct = percentiles(words(server, 500));
    println!(
        "latency: by how much a word and its echo are later than they should be, in ms (direct: {:.3})",
        direct[0]
    );
    for (millis, count) in LATENCIES {
        let late = |address| {
            let times = words(address, count);
            percentiles(
                times
                    .into_iter()
                    .map(|time| time - millis as f64 - direct[0])
                    .collect(),
            )
        };
        let harm = json!({"to-client": {"latency": format!("{millis}ms")}});
        let ours = Proxied::by(Command::new(backburn_agent()), server, harm, "10m");
        let other = noxious.map(|program| Other::noxious(program, server, Some(millis)));
        let mut figures = vec![("tcp-proxy", late(ours.address))];
        figures.extend(other.iter().map(|(_, address)| ("noxious", late(*address))));
        for (name, [median, _, last]) in figures {
            println!(
                "  {millis:3} ms  {name:12} median {median:+7.3}   99th {last:+7.3}   n = {count}"
            );
        }
        ours.end();
    }
}

/// Words there and back, one after the other: how long each took, in milliseconds.
fn words(to: SocketAddr, count: usize) -> Vec<f64> {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_nodelay(true).expect("it is a TCP socket");
    let mut times = Vec::with_capacity(count);
    for number in 0..count + 5 {
        let start = Instant::now();
        stream.write_all(b"word").expect("it is sent");
        stream.read_exact(&mut [0; 4]).expect("it comes back");
        if number >= 5 {
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    times
}
