//! How long it takes to make and to take back a rule that drops packets: our own netlink against
//! running `nft`, in turns, in a network namespace of its own.
//!
//! ```text
//! cargo bench -p backburn-tests --bench drop_rule
//! ```

use backburn_agent::netlink::{
    Base, Compare, Expression, Family, Hook, Meta, RuleVerdict, Socket, Table, TableFamily,
};
use backburn_tests::isolated::{in_network_namespace, with_name};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 200;

fn main() {
    with_name("drop_rule", bench);
}

fn bench() {
    in_network_namespace(&["unshare", "ip", "nft"], || {
        println!(
            "no rules but these: the kernel patches its own code for the first one and after the last one"
        );
        measure();
        // As on most hosts, with a firewall or containers.
        nft("table inet standing { chain in { type filter hook input priority 10; }; }");
        println!("\nbeside a standing chain at the same hook");
        measure();
    });
}

fn measure() {
    let mut times: [Vec<Duration>; 6] = Default::default();
    for round in 0..ROUNDS + 5 {
        let timed: [Duration; 6] = {
            let (apply, undo, after) = deleted();
            let closing = closed();
            let (nft_apply, nft_undo) = with_nft();
            [apply, undo, after, closing, nft_apply, nft_undo]
        };
        // The first ones find nothing in any cache.
        if round >= 5 {
            times
                .iter_mut()
                .zip(timed)
                .for_each(|(times, time)| times.push(time));
        }
    }
    let [apply, undo, after, closing, nft_apply, nft_undo] = times.map(|mut times| {
        times.sort();
        [times[ROUNDS / 2], times[ROUNDS * 9 / 10]]
    });
    println!("{:44} {:>10} {:>10}   n = {ROUNDS}", "", "median", "90th");
    for (name, [median, ninetieth]) in [
        ("apply, netlink", apply),
        ("apply, `nft`", nft_apply),
        ("undo, netlink, and seen to be gone", undo),
        ("  closing the owner's socket after that", after),
        ("undo, closing the owner's socket only", closing),
        ("undo, `nft`", nft_undo),
    ] {
        println!(
            "{name:44} {:>7.3} ms {:>7.3} ms",
            millis(median),
            millis(ninetieth)
        );
    }
    println!(
        "apply: {:.1} times faster",
        millis(nft_apply[0]) / millis(apply[0])
    );
    println!(
        "undo: {:.1} times faster",
        millis(nft_undo[0]) / millis(undo[0])
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

const OURS: Table<'_> = Table {
    layer: TableFamily::Inet,
    name: "ours",
};

fn applied() -> Socket {
    let socket = Socket::open(Family::Netfilter).expect("root may");
    let drop_one = [
        Expression::Meta(Meta::Family),
        Expression::Compare(Compare::Equal, vec![2]),
        Expression::Payload {
            base: Base::Network,
            offset: 12,
            length: 4,
        },
        Expression::Compare(Compare::Equal, vec![192, 0, 2, 1]),
        Expression::Counter,
        Expression::Verdict(RuleVerdict::Drop),
    ];
    let messages = [
        OURS.make(),
        OURS.base_chain("in", &Hook::Input, 0),
        OURS.rule("in", &drop_one, ""),
    ];
    socket.transact(&messages).expect("the kernel does it");
    socket
}

/// To apply, to undo by a message, and to close the socket then.
fn deleted() -> (Duration, Duration, Duration) {
    let started = Instant::now();
    let socket = applied();
    let apply = started.elapsed();
    let started = Instant::now();
    socket
        .transact(&[OURS.delete()])
        .expect("the kernel does it");
    assert!(!OURS.is_there(&socket).expect("the kernel tells"));
    let undo = started.elapsed();
    let started = Instant::now();
    drop(socket);
    (apply, undo, started.elapsed())
}

/// To undo by closing the socket.
fn closed() -> Duration {
    let socket = applied();
    let started = Instant::now();
    drop(socket);
    started.elapsed()
}

fn with_nft() -> (Duration, Duration) {
    let started = Instant::now();
    nft(
        "table inet theirs { chain in { type filter hook input priority 0; ip saddr 192.0.2.1 counter drop; }; }",
    );
    let applied = started.elapsed();
    let started = Instant::now();
    nft("delete table inet theirs");
    (applied, started.elapsed())
}

fn nft(line: &str) {
    let status = Command::new("nft").arg(line).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "nft {line}");
}
