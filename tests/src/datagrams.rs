//! Numbered datagrams over a wire: which arrive, in which order, and how long each took.

use crate::network::at;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long after the last one nothing more is expected, where nothing is held for longer.
pub const QUIET: Duration = Duration::from_millis(700);

/// One that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Its number, from 0.
    pub number: u64,
    /// From its sending.
    pub took: Duration,
    /// Whether its content is what was sent.
    pub whole: bool,
}

/// A socket with room for all that a test sends, however slowly it is read.
///
/// # Panics
/// It can't be made.
pub fn receiver(address: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(at(address, port)).expect("a socket can be bound");
    setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).expect("root may have room");
    socket
}

/// Sends so many datagrams, with this time between them, and receives what arrives until it is quiet. `from` is called to send them, and may enter
/// another place first. Sender and receiver are one process, so that they have one clock.
///
/// # Panics
/// One can't be sent: harm is silent.
pub fn exchange(
    to: &UdpSocket,
    number: u64,
    pause: Duration,
    from: impl FnOnce(&(dyn Fn() + Sync)) + Send,
) -> Vec<Arrival> {
    exchange_until(QUIET, to, number, pause, from)
}

/// As [`exchange`], until nothing has come for this long: longer than any is held.
///
/// # Panics
/// One can't be sent.
pub fn exchange_until(
    quiet: Duration,
    to: &UdpSocket,
    number: u64,
    pause: Duration,
    from: impl FnOnce(&(dyn Fn() + Sync)) + Send,
) -> Vec<Arrival> {
    let address = to.local_addr().expect("it is bound");
    let started = Instant::now();
    to.set_read_timeout(Some(quiet))
        .expect("a socket waits so long");
    let send = || {
        let to: SocketAddr = address;
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let socket = UdpSocket::bind(at(any, 0)).expect("a socket can be bound");
        for number in 0..number {
            let now = started.elapsed().as_nanos() as u64;
            let words = [number, now, number ^ now].map(u64::to_be_bytes).concat();
            socket
                .send_to(&words, to)
                .expect("whoever sends is not told of harm");
            std::thread::sleep(pause);
        }
    };
    let mut arrived = Vec::new();
    std::thread::scope(|threads| {
        let sending = threads.spawn(|| from(&send));
        let mut room = [0; 64];
        loop {
            match to.recv(&mut room) {
                Ok(length) => {
                    let now = started.elapsed();
                    let word = |at: usize| {
                        let bytes = room.get(at..at + 8).and_then(|bytes| bytes.first_chunk());
                        bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
                    };
                    arrived.push(Arrival {
                        number: word(0),
                        took: now.saturating_sub(Duration::from_nanos(word(8))),
                        whole: length == 24 && word(0) ^ word(8) == word(16),
                    });
                }
                Err(_) if sending.is_finished() => break,
                Err(_) => {}
            }
        }
    });
    arrived
}

/// How many arrived before one that was sent earlier.
pub fn overtaking(arrived: &[Arrival]) -> usize {
    let mut lowest_later = u64::MAX;
    let mut count = 0;
    for arrival in arrived.iter().rev() {
        if arrival.number > lowest_later {
            count += 1;
        }
        lowest_later = lowest_later.min(arrival.number);
    }
    count
}

/// The middle one of the times that they took.
///
/// # Panics
/// None arrived.
pub fn median(arrived: &[Arrival]) -> Duration {
    let mut times: Vec<Duration> = arrived.iter().map(|arrival| arrival.took).collect();
    times.sort();
    times[times.len() / 2]
}

/// Whether a count is what `n` tries with chance `p` give, in all but one of a million cases.
pub fn likely(count: u64, n: u64, p: f64) -> bool {
    let wide = 4.9 * (n as f64 * p * (1.0 - p)).sqrt() + 0.5;
    (count as f64 - n as f64 * p).abs() <= wide
}
