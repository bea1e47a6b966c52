//! How exact added delay is: of words over TCP, there and back, between two network namespaces, by
//! `network-latency`, by `tcp-proxy`, by Noxious and by the kernel's own netem, in turns. Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench latency
//! ```
//!
//! On a machine that has other work the 99th percentiles are that work's.

use backburn_tests::isolated::{in_network_namespace, with_name};
use backburn_tests::machine::{found, in_virtual_machine};
use backburn_tests::network::{THERE, Wire, at};
use backburn_tests::network_fault::{Fault, PROGRAMS};
use backburn_tests::other_proxies::{Other, noxious, percentiles};
use backburn_tests::programs::backburn_agent;
use backburn_tests::proxied::Proxied;
use serde_json::json;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const HERE: &str = "latency_here";
const MACHINE: &str = "latency_in_a_machine";
/// What the machine's kernel is given: netem and what forwards packets to it, and a packet queue.
const MODULES: &[&str] = &[
    "ifb numifbs=0",
    "veth",
    "sch_netem",
    "nf_tables",
    "nft_fwd_netdev",
    "nft_reject_inet",
    "nfnetlink_queue",
    "nft_queue",
];
/// Each delay in milliseconds, and how many words go there and back; in the machine it is [`FEWER`].
const DELAYS: [(u64, usize); 3] = [(1, 500), (10, 400), (100, 200)];
const FEWER: usize = 200;

/// How words are made late.
enum Way {
    /// Not at all.
    Direct,
    /// By `tc qdisc add dev … root netem` at the other end of the wire.
    Netem,
    /// By `network-latency` with this backend.
    Packets(&'static str),
    /// By `tcp-proxy`.
    Proxy,
    /// By Noxious, which is here.
    Noxious(PathBuf),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::Direct => "direct",
            Way::Netem => "tc netem",
            Way::Packets("netem") => "network-latency, netem",
            Way::Packets(_) => "network-latency, queue",
            Way::Proxy => "tcp-proxy",
            Way::Noxious(_) => "noxious",
        })
    }
}

impl Way {
    /// How long words took that were made late by so many milliseconds on their way back.
    fn words(&self, wire: &Wire, millis: u64, count: usize) -> Vec<f64> {
        let server = at(THERE[0], 8000);
        match self {
            Way::Direct => words(server, count),
            Way::Netem => {
                let tc = |line: String| {
                    let status = Command::new("tc").args(line.split(' ')).status();
                    assert!(status.is_ok_and(|status| status.success()), "tc {line}");
                };
                wire.there(|| {
                    tc(format!(
                        "qdisc add dev there root netem delay {millis}ms limit 10000"
                    ))
                });
                let times = words(server, count);
                wire.there(|| tc("qdisc delete dev there root".to_owned()));
                times
            }
            Way::Packets(backend) => {
                let arguments = json!({"to": THERE[0], "ports": 8000, "direction": "ingress",
                    "delay": format!("{millis}ms"), "backend": backend});
                let fault = Fault::inject("network-latency", &arguments, "10m");
                let times = words(server, count);
                let effect = fault.end();
                assert_eq!(effect["acts"], true, "{effect}");
                times
            }
            Way::Proxy => {
                let harm = json!({"to-client": {"latency": format!("{millis}ms")}});
                let proxy = Proxied::by(Command::new(backburn_agent()), server, harm, "10m");
                let times = words(proxy.address, count);
                proxy.end();
                times
            }
            Way::Noxious(program) => {
                let (_noxious, address) = Other::noxious(program, server, Some(millis));
                words(address, count)
            }
        }
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(HERE) => with_name(HERE, here),
        Some(MACHINE) => with_name(MACHINE, machine),
        _ => {
            with_name(HERE, here);
            with_name(MACHINE, machine);
        }
    }
}

fn here() {
    // Built before there is a network namespace without a way out.
    let noxious = noxious();
    in_network_namespace(&PROGRAMS, || {
        println!("between two network namespaces of this machine");
        let ways = [Way::Direct, Way::Packets("nfqueue"), Way::Proxy];
        let others = noxious.map(Way::Noxious);
        measure(
            &ways.into_iter().chain(others).collect::<Vec<_>>(),
            10,
            None,
        );
    });
}

fn machine() {
    let noxious = match found("noxious-proxy") {
        // Inside.
        Some(program) => Some(program),
        None => noxious(),
    };
    let path = noxious.as_ref().map(|path| path.display().to_string());
    let mut needed = vec!["ip", "tc", "nft", "unshare", "sleep"];
    needed.extend(path.as_deref());
    in_virtual_machine(MODULES, &needed, || {
        println!(
            "in a small virtual machine with netem, emulated without hardware help: coarse, and only good for comparing"
        );
        let ways = [
            Way::Direct,
            Way::Netem,
            Way::Packets("netem"),
            Way::Packets("nfqueue"),
            Way::Proxy,
        ];
        let others = noxious.map(Way::Noxious);
        let ways: Vec<Way> = ways.into_iter().chain(others).collect();
        measure(&ways, 2, Some(FEWER));
    });
}

/// Measures every way in turns, in so many rounds, and prints how much later than they should be words were.
fn measure(ways: &[Way], rounds: usize, fewer: Option<usize>) {
    let wire = Wire::new();
    wire.echo(8000);
    println!(
        "how much later than they should be words over TCP are, direct time and delay taken off, in ms; in {rounds} turns"
    );
    for (millis, count) in DELAYS {
        let count = fewer.unwrap_or(count);
        let mut times = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for (times, way) in times.iter_mut().zip(ways) {
                times.extend(way.words(&wire, millis, count / rounds));
            }
        }
        let [direct, most, last] = percentiles(times[0].clone());
        println!(
            "  {millis:3} ms  direct                  median {direct:7.3}   90th {most:7.3}   99th {last:7.3}   n = {}",
            times[0].len()
        );
        let late: Vec<[f64; 3]> = times[1..]
            .iter()
            .map(|times| {
                let late = times.iter().map(|time| time - direct - millis as f64);
                percentiles(late.collect())
            })
            .collect();
        let ways = &ways[1..];
        for ((way, times), [median, most, last]) in ways.iter().zip(&times[1..]).zip(&late) {
            print!(
                "  {millis:3} ms  {way:22}  median {median:+7.3}   90th {most:+7.3}   99th {last:+7.3}   n = {}",
                times.len()
            );
            for (other, [its_median, its_most, its_last]) in ways.iter().zip(&late) {
                let is_beside = matches!(other, Way::Noxious(_) | Way::Netem);
                if is_beside && !std::ptr::eq(way, other) {
                    print!(
                        "   {:.2}, {:.2} and {:.2} of {other}'s",
                        median / its_median,
                        most / its_most,
                        last / its_last
                    );
                }
            }
            println!();
        }
    }
}

/// Words there and back, one after the other, with breaks of other lengths each: how long each took, in milliseconds.
fn words(to: SocketAddr, count: usize) -> Vec<f64> {
    /// The first ones find nothing in any cache.
    const FIRST: usize = 3;
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_nodelay(true).expect("it is a TCP socket");
    let mut times = Vec::with_capacity(count);
    for number in 0..count + FIRST {
        // Timers that tick would otherwise always be met at the same time of their tick.
        std::thread::sleep(Duration::from_micros(number as u64 * 137 % 1000));
        let start = Instant::now();
        stream.write_all(b"word").expect("it is sent");
        stream.read_exact(&mut [0; 4]).expect("it comes back");
        if number >= FIRST {
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    times
}
