//! How packets are shaped on this kernel, looked at from the other side: delays that vary, order, copies, turned bits,
//! losses in bursts, rates; and flows beside them are untouched.

use backburn_tests::datagrams::{
    Arrival, QUIET, exchange, exchange_until, likely, median, overtaking, receiver,
};
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{BESIDE, HERE, THERE, Wire, at, tcp};
use backburn_tests::network_fault::{Fault, PROGRAMS, SOON, figure};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

const MILLI: Duration = Duration::from_millis(1);

/// Datagrams from the other side, with a fault on what arrives.
fn arriving(
    wire: &Wire,
    family: usize,
    fault: &str,
    more: Value,
    number: u64,
) -> (Vec<Arrival>, Value) {
    let here = receiver(HERE[family], 7000);
    let mut arguments = json!({"to": HERE[family], "ports": 7000, "protocol": "udp"});
    for (key, value) in more.as_object().expect("arguments are an object") {
        arguments[key] = value.clone();
    }
    let quiet = if fault == "network-reorder" {
        3000 * MILLI
    } else {
        QUIET
    };
    let fault = Fault::inject(fault, &arguments, "60s");
    let arrived = exchange_until(quiet, &here, number, MILLI, |send| wire.there(send));
    (arrived, fault.end())
}

#[test]
fn network_latency_with_jitter_varies_and_keeps_order() {
    in_network_namespace(&PROGRAMS, || {
        const SENT: u64 = 300;
        let wire = Wire::new();
        for (family, distribution) in [
            (0, "uniform"),
            (1, "normal"),
            (0, "pareto"),
            (1, "paretonormal"),
        ] {
            let more = json!({"delay": "40ms", "jitter": "10ms", "distribution": distribution, "correlation": 25});
            let (arrived, effect) = arriving(&wire, family, "network-latency", more.clone(), SENT);
            let middle = median(&arrived);
            println!(
                "{distribution}, in order: median {middle:?}, n = {}",
                arrived.len()
            );
            assert_eq!(arrived.len() as u64, SENT);
            assert_eq!(overtaking(&arrived), 0);
            // Each waits for those before it, so that the middle one is above the mean.
            assert!((33 * MILLI..110 * MILLI).contains(&middle), "{middle:?}");
            assert_eq!(figure(&effect, "held-packets"), SENT as f64);

            let mut more = more;
            more["keep-order"] = json!(false);
            let (arrived, _) = arriving(&wire, family, "network-latency", more, SENT);
            let (middle, overtook) = (median(&arrived), overtaking(&arrived));
            println!(
                "{distribution}, in any order: median {middle:?}, {overtook} of {SENT} overtook"
            );
            assert_eq!(arrived.len() as u64, SENT);
            assert!(overtook > 20, "{overtook}");
            assert!((25 * MILLI..100 * MILLI).contains(&middle), "{middle:?}");
            // Nothing is early: the least of these four is 5.8 ms below for Pareto, and 10 ms for uniform.
            let least = arrived
                .iter()
                .map(|arrival| arrival.took)
                .min()
                .expect("some arrived");
            assert!(
                distribution != "uniform" || least >= 30 * MILLI,
                "{least:?}"
            );
            assert!(distribution != "pareto" || least >= 34 * MILLI, "{least:?}");
        }
    });
}

#[test]
fn network_reorder_lets_some_packets_overtake() {
    in_network_namespace(&PROGRAMS, || {
        const SENT: u64 = 400;
        let wire = Wire::new();
        for family in [0, 1] {
            let (arrived, _) = arriving(
                &wire,
                family,
                "network-reorder",
                json!({"delay": "1s", "percent": 25}),
                SENT,
            );
            let overtook = overtaking(&arrived);
            println!("{overtook} of {SENT} overtook at 25 %");
            assert_eq!(arrived.len() as u64, SENT);
            assert!(likely(overtook as u64, SENT, 0.25), "{overtook}");
            let (arrived, effect) = arriving(
                &wire,
                family,
                "network-reorder",
                json!({"delay": "1s", "gap": 5}),
                SENT,
            );
            assert_eq!(overtaking(&arrived) as u64, SENT / 5);
            assert!(
                arrived
                    .iter()
                    .all(|arrival| arrival.number % 5 == 4 || arrival.took >= 1000 * MILLI)
            );
            assert_eq!(effect["acts"], true);
        }
    });
}

#[test]
fn network_duplicate_doubles_chosen_packets_only() {
    in_network_namespace(&PROGRAMS, || {
        const SENT: u64 = 1000;
        let wire = Wire::new();
        for (there, beside) in THERE.into_iter().zip(BESIDE) {
            let to = wire.there(|| receiver(there, 7000));
            let other = wire.there(|| receiver(beside, 7000));
            let arguments = json!({"to": there, "percent": 30});
            let fault = Fault::inject("network-duplicate", &arguments, "60s");
            let arrived = exchange(&to, SENT, Duration::ZERO, |send| send());
            let untouched = exchange(&other, SENT, Duration::ZERO, |send| send());
            let effect = fault.end();
            let more = arrived.len() as u64 - SENT;
            println!("{there}: {more} of {SENT} came twice at 30 %");
            assert!(likely(more, SENT, 0.3), "{more}");
            assert!(arrived.iter().all(|arrival| arrival.whole));
            assert_eq!(untouched.len() as u64, SENT);
            assert_eq!(figure(&effect, "duplicated-packets"), more as f64);
            assert_eq!(
                figure(&effect, "chosen-packets"),
                SENT as f64,
                "copies are not chosen again"
            );

            let fault = Fault::inject(
                "network-duplicate",
                &json!({"to": there, "percent": 100}),
                "60s",
            );
            let arrived = exchange(&to, SENT, Duration::ZERO, |send| send());
            fault.end();
            assert_eq!(arrived.len() as u64, 2 * SENT);
        }
    });
}

/// What the kernel of this namespace counts of datagrams with wrong sums.
fn wrong_sums() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("/proc can be read");
    let text6 = std::fs::read_to_string("/proc/thread-self/net/snmp6").expect("/proc can be read");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("Udp:"))
        .collect();
    let place = lines[0]
        .split(' ')
        .position(|name| name == "InCsumErrors")
        .expect("it is counted");
    let six = text6
        .lines()
        .find_map(|line| line.strip_prefix("Udp6InCsumErrors"))
        .expect("it is counted");
    let count = |text: &str| text.trim().parse::<u64>().expect("a number");
    count(
        lines[1]
            .split(' ')
            .nth(place)
            .expect("as many values as names"),
    ) + count(six)
}

#[test]
fn network_corrupt_is_detected_by_checksums() {
    in_network_namespace(&PROGRAMS, || {
        const SENT: u64 = 1000;
        let wire = Wire::new();
        for family in [0, 1] {
            let before = wrong_sums();
            let (arrived, effect) = arriving(
                &wire,
                family,
                "network-corrupt",
                json!({"percent": 30}),
                SENT,
            );
            let turned = figure(&effect, "corrupted-packets") as u64;
            let found_out = wrong_sums() - before;
            println!(
                "{turned} of {SENT} had a bit turned at 30 %, {found_out} of them found out by their sums, {} arrived",
                arrived.len()
            );
            assert!(likely(turned, SENT, 0.3), "{turned}");
            assert_eq!(arrived.len() as u64, SENT - turned);
            assert!(arrived.iter().all(|arrival| arrival.whole));
            // A turned port leads elsewhere, a turned length is found out before.
            assert!(found_out > turned / 2 && found_out <= turned, "{found_out}");
        }
        // TCP sends again what was spoilt, and nothing spoilt gets through.
        wire.echo(8000);
        let fault = Fault::inject(
            "network-corrupt",
            &json!({"to": THERE[0], "ports": 8000, "percent": 3}),
            "60s",
        );
        let words: Vec<u8> = (0..200_000u32)
            .map(|number| ((number * 31) >> 3) as u8)
            .collect();
        let mut stream = TcpStream::connect(at(THERE[0], 8000)).expect("it answers");
        let mut back = vec![0; words.len()];
        std::thread::scope(|threads| {
            let mut sending = stream.try_clone().expect("a socket can be had twice");
            let words = &words;
            threads.spawn(move || sending.write_all(words).expect("it is connected"));
            stream.read_exact(&mut back).expect("all comes back");
        });
        assert!(back == words, "something spoilt came through");
        fault.end();
    });
}

#[test]
fn network_loss_by_gilbert_elliott_comes_in_bursts() {
    in_network_namespace(&PROGRAMS, || {
        const SENT: u64 = 6000;
        let wire = Wire::new();
        let bursts = json!({"p": 5, "r": 25});
        let outcomes = [
            {
                let to = wire.there(|| receiver(THERE[1], 7000));
                let arguments =
                    json!({"to": THERE[1], "direction": "egress", "gilbert-elliott": bursts});
                let fault = Fault::inject("network-loss", &arguments, "60s");
                let arrived = exchange(&to, SENT, Duration::ZERO, |send| send());
                (arrived, fault.end())
            },
            {
                let here = receiver(HERE[0], 7000);
                let arguments =
                    json!({"to": HERE[0], "direction": "ingress", "gilbert-elliott": bursts});
                let fault = Fault::inject("network-loss", &arguments, "60s");
                let arrived = exchange(&here, SENT, Duration::ZERO, |send| wire.there(send));
                (arrived, fault.end())
            },
        ];
        for (arrived, effect) in outcomes {
            let lost = SENT - arrived.len() as u64;
            let mut came = vec![false; SENT as usize];
            for arrival in &arrived {
                came[arrival.number as usize] = true;
            }
            let begins = (0..came.len())
                .filter(|number| !came[*number] && (*number == 0 || came[*number - 1]));
            let number = begins.count();
            let length = lost as f64 / number as f64;
            println!(
                "p 5 %, r 25 %: {lost} of {SENT} lost in {number} bursts of {length:.2} on average"
            );
            // A sixth, in bursts of four: five standard deviations either way.
            assert!(
                (0.10..0.235).contains(&(lost as f64 / SENT as f64)),
                "{lost}"
            );
            assert!((2.8..5.4).contains(&length), "{length}");
            assert_eq!(figure(&effect, "lost-packets"), lost as f64);
        }
    });
}

/// How long it takes until so many bytes have gone from one side to the other by TCP.
fn transfer(
    listener: &TcpListener,
    bytes: usize,
    connect: impl FnOnce(SocketAddr) -> TcpStream + Send,
) -> Duration {
    let to = listener.local_addr().expect("it is bound");
    let started = Instant::now();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let mut stream = connect(to);
            stream.write_all(&vec![7; bytes]).expect("it is connected");
        });
        let (mut stream, _) = listener.accept().expect("it comes");
        let mut room = vec![0; bytes];
        stream.read_exact(&mut room).expect("all comes");
    });
    started.elapsed()
}

#[test]
fn network_bandwidth_keeps_its_rate_each_way_on_chosen_flows_only() {
    in_network_namespace(&PROGRAMS, || {
        const BYTES: usize = 1_000_000;
        const RATE: f64 = 1_000_000.0;
        let wire = Wire::new();
        wire.echo(9000);
        for family in [0, 1] {
            let there = wire.there(|| {
                TcpListener::bind(at(THERE[family], 8000)).expect("a port can be listened on")
            });
            let beside = wire.there(|| {
                TcpListener::bind(at(BESIDE[family], 8000)).expect("a port can be listened on")
            });
            let here =
                TcpListener::bind(at(HERE[family], 8000)).expect("a port can be listened on");
            let arguments =
                json!({"to": [THERE[family], HERE[family]], "ports": 8000, "rate": "8Mbit/s"});
            let fault = Fault::inject("network-bandwidth", &arguments, "60s");
            let shown = Command::new("tc").args(["qdisc", "show"]).output();
            let shown = String::from_utf8(shown.expect("`tc` starts").stdout).expect("text");
            let ours = shown.matches("qdisc tbf 1: dev bb").count();
            assert!(
                ours == 2 && shown.contains("rate 8Mbit burst 10000b"),
                "{shown}"
            );
            let out = transfer(&there, BYTES, |to| {
                TcpStream::connect(to).expect("it listens")
            });
            let back = transfer(&here, BYTES, |to| {
                wire.there(|| TcpStream::connect(to).expect("it listens"))
            });
            let other = transfer(&beside, BYTES, |to| {
                TcpStream::connect(to).expect("it listens")
            });
            let effect = fault.end();
            // A burst of 10 ms goes at once.
            let least = Duration::from_secs_f64((BYTES as f64 - 20_000.0) / RATE);
            println!("1 MB at 1 MB/s: out in {out:?}, back in {back:?}, beside it in {other:?}");
            for took in [out, back] {
                assert!((least..5 * least).contains(&took), "{took:?}");
            }
            assert!(other < out, "{other:?}");
            assert!(
                figure(&effect, "shaped-bytes") >= 2.0 * BYTES as f64,
                "{effect}"
            );
            assert!(tcp(at(THERE[family], 9000), SOON).is_ok());
        }
        // What comes faster than that and has no room is lost, and said to be.
        let to = wire.there(|| receiver(THERE[0], 7000));
        let arguments = json!({"to": THERE[0], "ports": 7000, "direction": "egress", "rate": "80kbit/s", "burst": "2kB", "queue": "4kB"});
        let fault = Fault::inject("network-bandwidth", &arguments, "60s");
        let arrived = exchange(&to, 2000, Duration::ZERO, |send| send());
        let effect = fault.end();
        assert_eq!(
            figure(&effect, "dropped-packets") + arrived.len() as f64,
            2000.0,
            "{effect}"
        );
        assert!(arrived.len() < 1500, "{}", arrived.len());
    });
}
