//! Whoever of ours is killed while netem acts: traffic is whole again, and nothing is left after the guardian, or the next start.

use super::{output, tell};
use backburn_tests::crash::Place;
use backburn_tests::network::{THERE, at};
use backburn_tests::network_fault::Fault;
use backburn_tests::processes::{kill_at_once, of_backburn};
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Long enough for an emulated machine on a busy one.
const PATIENCE: Duration = Duration::from_secs(30);
/// No word comes back that late by itself, and none of those that are late or lost by a fault comes sooner.
const LATE: Duration = Duration::from_millis(400);
/// The same where it does no harm to take one for late that is not.
const SHORTLY: Duration = Duration::from_millis(25);
/// Twins come right after each other.
const TWINS: Duration = Duration::from_millis(10);

/// What netem does, and so much of it that every few words show it.
fn faults() -> [(&'static str, Value); 4] {
    let all = json!({"to": THERE[0], "direction": "both", "backend": "netem"});
    let with = |more: Value| {
        let mut arguments = all.clone();
        for (key, value) in more.as_object().expect("arguments are an object") {
            arguments[key] = value.clone();
        }
        arguments
    };
    [
        ("network-latency", with(json!({"delay": "20s"}))),
        ("network-corrupt", with(json!({"percent": 100}))),
        ("network-duplicate", with(json!({"percent": 100}))),
        (
            "network-reorder",
            with(json!({"delay": "20s", "percent": 1})),
        ),
    ]
}

/// Who is killed, and where: the fourth effect is that the change is made. Whether an agent has to be started again.
const AFTER: [(&str, bool); 3] = [
    ("worker:after:4", false),
    ("worker:after:4:guardian", false),
    ("worker:after:4:both", true),
];
/// Before it, all faults are alike: these are for the first one.
const BEFORE: [(&str, bool); 3] = [
    ("worker:before:4", false),
    ("worker:before:4:guardian", false),
    ("worker:before:4:both", true),
];

/// How many answers to a word come in time, and when the first one did.
fn answers(patience: Duration) -> (usize, Instant) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket can be bound");
    socket
        .connect(at(THERE[0], 8000))
        .expect("there is a way there");
    let mut came = None;
    let mut count = 0;
    socket.send(b"word").expect("a word can be sent");
    let mut patience = patience;
    loop {
        socket
            .set_read_timeout(Some(patience))
            .expect("a socket waits so long");
        let mut room = [0; 8];
        match socket.recv(&mut room) {
            Ok(length) => {
                // What is spoilt is lost on its way, or does not count.
                count += usize::from(room[..length] == *b"word");
                came = came.or(Some(Instant::now()));
                patience = TWINS;
            }
            Err(_) => return (count, came.unwrap_or_else(Instant::now)),
        }
    }
}

/// Waits until words go there and back once each; when that began.
fn whole_since() -> Instant {
    let until = Instant::now() + PATIENCE;
    loop {
        let (count, since) = answers(SHORTLY);
        // One spoilt bit in some is one that nobody minds: several words in a row.
        if count == 1 && (0..4).all(|_| answers(SHORTLY).0 == 1) {
            return since;
        }
        assert!(Instant::now() < until, "traffic is not whole: {count}");
    }
}

/// Waits until nothing is owed, nobody of ours lives and the listings are as before.
fn settle(what: &str, place: &Place, before: &[String; 3], listings: &dyn Fn() -> [String; 3]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let (owed, left, now) = (place.ledger(), of_backburn(), listings());
        if owed.is_empty() && left.is_empty() && now == *before {
            return;
        }
        assert!(
            Instant::now() < until,
            "{what}: owed {owed:?}, left {left:?}, {now:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every fault of netem's, with everybody killed in turn.
pub fn nothing_is_left(listings: &dyn Fn() -> [String; 3]) {
    let before = listings();
    whole_since();
    let mut trials = 0;
    let mut longest = Duration::ZERO;
    for (index, (fault, arguments)) in faults().into_iter().enumerate() {
        let before_it = BEFORE.iter().filter(|_| index == 0);
        for (strike, needs_restart) in AFTER.iter().chain(before_it) {
            let place = Place::default();
            let what = format!("{fault}, {strike}");
            let text = arguments.to_string();
            let words = ["inject", fault, "--id", "trial", "--arguments", &text];
            let words = [&words[..], &["--duration", "90s"]].concat();
            place
                .agent(&words, Some(*strike))
                .status()
                .expect("the agent starts");
            let ended = Instant::now();
            assert!(place.effects("worker") >= 4, "{what}: not reached");
            if *needs_restart {
                assert_eq!(place.restart(None).code(), Some(0), "{what}");
            }
            settle(&what, &place, &before, listings);
            longest = longest.max(ended.elapsed());
            whole_since();
            trials += 1;
        }
        let times = if index == 0 { 5 } else { 1 };
        all_at_once(fault, &arguments, times, &before, listings);
    }
    tell(
        "killed before and after it acts",
        json!({"trials": trials, "residues": 0, "longest-until-as-before-ms": longest.as_millis() as u64}),
    );
}

/// The kernel lets go when nobody of ours is left; the device, to which nothing goes, is removed by the next start.
fn all_at_once(
    name: &str,
    arguments: &Value,
    times: usize,
    before: &[String; 3],
    listings: &dyn Fn() -> [String; 3],
) {
    let mut took = Vec::new();
    for _ in 0..times {
        let mut fault = Fault::inject(name, arguments, "90s");
        assert!(output("tc qdisc show").contains("netem"));
        let harmed = (0..3).any(|_| answers(LATE).0 != 1);
        assert!(harmed, "{name}: it does not act");
        let killed = kill_at_once(&fault.everybody());
        took.push(whole_since().saturating_duration_since(killed));
        fault.inject.wait().expect("it was killed");
        assert_eq!(listings()[0], before[0], "the rules are gone");
        assert_eq!(fault.place.restart(None).code(), Some(0));
        settle(name, &fault.place, before, listings);
    }
    took.sort();
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    tell(
        "all killed at once",
        json!({"fault": name, "n": times, "whole-after-ms": ms(took[times / 2]), "longest-ms": ms(took[times - 1])}),
    );
}
