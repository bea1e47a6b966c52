//! Shaping by the kernel's own netem, which the machine that tests run on may not have: in a small virtual machine, between
//! two network namespaces, looked at from the other side. Each result is a line of JSON on the machine's console.

use backburn_tests::datagrams::{
    QUIET, exchange, exchange_until, likely, median, overtaking, receiver,
};
use backburn_tests::machine::in_virtual_machine;
use backburn_tests::network::{BESIDE, DEVICE, HERE, THERE, Wire, at, udp};
use backburn_tests::network_fault::{Fault, figure};
use backburn_tests::programs;
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

mod crashes;

const MODULES: &[&str] = &[
    // `machine::ON_DEMAND`: it makes `ifb0` and `ifb1` when it is loaded.
    "ifb on-demand",
    "veth",
    "sch_netem",
    "sch_tbf",
    "sch_htb",
    "nf_tables",
    "nft_fwd_netdev",
    "nft_dup_netdev",
    "nft_numgen",
    "nft_reject_inet",
    "nfnetlink_queue",
    "nft_queue",
];
const SOON: Duration = Duration::from_secs(5);

fn output(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    String::from_utf8(output.stdout).expect("text")
}

/// The interface's own disciplines, which nobody touches.
fn theirs() -> String {
    output("tc qdisc show dev here") + &output("tc class show dev here")
}

/// Tells a result, and what it was looked for.
fn tell(what: &str, figures: Value) {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc can be read");
    let since = uptime.split(' ').next().unwrap_or_default();
    println!(
        "{}",
        json!({"netem": what, "figures": figures, "uptime-s": since})
    );
}

fn injected(fault: &str, arguments: &Value, discipline: &str) -> Fault {
    let before = theirs();
    let fault = Fault::inject(fault, arguments, "100s");
    assert_eq!(theirs(), before, "{arguments}");
    assert!(
        output("tc qdisc show").contains(discipline),
        "{arguments}: not by {discipline}"
    );
    fault
}

/// The middle one of the times of some words there and back.
fn round_trip(to: std::net::SocketAddr) -> Duration {
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let started = Instant::now();
            udp(to, SOON).expect("it answers");
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn latency(wire: &Wire) {
    wire.echo(8000);
    for (direction, times, family) in [("ingress", 1, 0), ("egress", 1, 1), ("both", 2, 0)] {
        let (there, beside) = (THERE[family], BESIDE[family]);
        let idle = round_trip(at(there, 8000));
        let arguments = json!({"to": there, "delay": "50ms", "direction": direction});
        let fault = injected("network-latency", &arguments, "delay 50ms");
        let (harmed, untouched) = (round_trip(at(there, 8000)), round_trip(at(beside, 8000)));
        // The last look before the end may be too late on a slow machine, and then the one before it counts.
        wait_within("it is seen to act", Duration::from_secs(20), || {
            fault.seen()["acts"] == true
        });
        let effect = fault.end();
        let added = harmed.saturating_sub(idle);
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        tell(
            "latency",
            json!({"to": there, "direction": direction, "asked-ms": 50 * times, "added-ms": ms(added), "beside-ms": ms(untouched)}),
        );
        let asked = Duration::from_millis(50) * times;
        assert!(
            harmed >= asked && added < asked + Duration::from_millis(60),
            "{harmed:?}"
        );
        assert!(untouched < Duration::from_millis(45), "{untouched:?}");
        assert_eq!(effect["acts"], true, "{effect}");
    }
}

fn jitter(wire: &Wire) {
    const SENT: u64 = 200;
    for (keep, distribution) in [(true, "normal"), (false, "pareto"), (false, "paretonormal")] {
        let here = receiver(HERE[0], 7000);
        let arguments = json!({"to": HERE[0], "ports": 7000, "direction": "ingress", "delay": "60ms", "jitter": "20ms",
            "distribution": distribution, "keep-order": keep});
        let fault = injected("network-latency", &arguments, "delay 60ms  20ms");
        let arrived = exchange(&here, SENT, Duration::from_millis(1), |send| {
            wire.there(send)
        });
        fault.end();
        let (overtook, middle) = (overtaking(&arrived), median(&arrived));
        tell(
            "jitter",
            json!({"distribution": distribution, "keep-order": keep, "arrived": arrived.len(), "overtook": overtook, "median-ms": middle.as_millis() as u64}),
        );
        assert_eq!(arrived.len() as u64, SENT);
        assert_eq!(overtook == 0, keep, "{overtook}");
        assert!(
            (Duration::from_millis(40)..Duration::from_millis(200)).contains(&middle),
            "{middle:?}"
        );
    }
}

/// What arrives of so many, in each direction, with what is beside it.
fn each_way(
    wire: &Wire,
    fault: &str,
    more: &Value,
    discipline: &str,
    number: u64,
    look: impl Fn(&str, usize, usize, u64, &Value),
) {
    for direction in ["egress", "ingress"] {
        let out = direction == "egress";
        let address = if out { THERE[1] } else { HERE[1] };
        let bind = |port: u16| {
            if out {
                wire.there(|| receiver(address, port))
            } else {
                receiver(address, port)
            }
        };
        let (to, beside) = (bind(7000), bind(7001));
        let mut arguments = json!({"to": address, "ports": 7000, "direction": direction});
        for (key, value) in more.as_object().expect("arguments are an object") {
            arguments[key] = value.clone();
        }
        let quiet = if fault == "network-reorder" {
            SOON
        } else {
            QUIET
        };
        let fault = injected(fault, &arguments, discipline);
        let send = |send: &(dyn Fn() + Sync)| if out { send() } else { wire.there(send) };
        let pause = Duration::from_micros(500);
        let arrived = exchange_until(quiet, &to, number, pause, send);
        let untouched = exchange(&beside, number, pause, send);
        let effect = fault.end();
        assert_eq!(
            (untouched.len() as u64, overtaking(&untouched)),
            (number, 0),
            "beside it"
        );
        assert!(arrived.iter().all(|arrival| arrival.whole));
        assert_eq!(figure(&effect, "chosen-packets"), number as f64, "{effect}");
        look(
            direction,
            arrived.len(),
            overtaking(&arrived),
            number,
            &effect,
        );
    }
}

#[test]
fn netem_faults_shape_only_chosen_flows() {
    let needed = ["ip", "tc", "nft", "unshare", "sleep"];
    in_virtual_machine(MODULES, &needed, || {
        let links = output("ip link");
        let ifb = std::path::Path::new("/sys/module/ifb");
        assert!(!ifb.exists(), "it is to be loaded by us");
        let doctor = Command::new(programs::backburn_agent())
            .arg("doctor")
            .output();
        let doctor = String::from_utf8(doctor.expect("the agent starts").stdout).expect("text");
        let netem = doctor
            .lines()
            .find(|line| line.starts_with("netem"))
            .expect("it tells of netem");
        assert!(netem.contains("yes"), "{doctor}");
        assert!(ifb.exists());
        assert_eq!(
            output("ip link"),
            links,
            "what the module makes when it is loaded"
        );
        let wire = Wire::new();
        for line in [
            "tc qdisc add dev here root handle 1: htb default 20",
            "tc class add dev here parent 1: classid 1:20 htb rate 900mbit",
        ] {
            output(line);
        }
        assert!(theirs().contains("htb"));
        let listings = || ["nft list ruleset", "ip link", "tc qdisc show"].map(output);
        let before = listings();

        latency(&wire);
        jitter(&wire);
        each_way(
            &wire,
            "network-duplicate",
            &json!({"percent": 30}),
            "duplicate 30%",
            500,
            |direction, arrived, _, sent, _| {
                let twice = arrived as u64 - sent;
                tell(
                    "duplicate",
                    json!({"direction": direction, "sent": sent, "twice": twice, "asked": 0.3}),
                );
                assert!(likely(twice, sent, 0.3), "{twice}");
            },
        );
        each_way(
            &wire,
            "network-corrupt",
            &json!({"percent": 30}),
            "corrupt 30%",
            500,
            |direction, arrived, _, sent, _| {
                // A bit may be turned anywhere: in the 86 bytes of a datagram over IPv6 and Ethernet, nobody minds
                // one in the sender's hardware address, the traffic class, the flow label or the hop limit.
                const MINDED: f64 = 1.0 - (6.0 + 3.5 + 1.0) / 86.0;
                let missing = sent - arrived as u64;
                tell(
                    "corrupt",
                    json!({"direction": direction, "sent": sent, "missing": missing, "asked": 0.3}),
                );
                assert!(likely(missing, sent, 0.3 * MINDED), "{missing}");
            },
        );
        each_way(
            &wire,
            "network-reorder",
            &json!({"delay": "1s", "percent": 25}),
            "reorder 25%",
            300,
            |direction, arrived, overtook, sent, _| {
                tell(
                    "reorder",
                    json!({"direction": direction, "sent": sent, "overtook": overtook, "asked": 0.25}),
                );
                assert_eq!(arrived as u64, sent);
                assert!(likely(overtook as u64, sent, 0.25), "{overtook}");
            },
        );
        let to = wire.there(|| receiver(THERE[0], 7002));
        let arguments = json!({"interface": DEVICE, "ports": 7002, "direction": "egress", "rate": "80kbit/s", "burst": "2kB", "queue": "100kB"});
        let fault = injected("network-bandwidth", &arguments, "rate 80Kbit burst 2000b");
        let started = Instant::now();
        let arrived = exchange(&to, 500, Duration::ZERO, |send| send());
        let effect = fault.end();
        let took = started.elapsed();
        tell(
            "bandwidth",
            json!({"arrived": arrived.len(), "took-ms": took.as_millis() as u64}),
        );
        assert_eq!(arrived.len(), 500, "{effect}");
        // 24 bytes with the headers of UDP, IPv4 and Ethernet are 66: 33 kB at 10 kB a second, but for the burst.
        let least = Duration::from_millis(3100);
        assert!((least..8 * least).contains(&took), "{took:?}");
        assert_eq!(listings(), before);
        crashes::nothing_is_left(&listings);
    });
}
