//! What a fault costs the flows that it is not about: how much one TCP stream carries between two
//! network namespaces while a fault acts on another address, against none, in turns.
//!
//! ```text
//! cargo bench -p backburn-tests --bench beside
//! ```

use backburn_tests::isolated::{in_network_namespace, with_name};
use backburn_tests::network::{BESIDE, THERE, Wire, at};
use backburn_tests::network_fault::{Fault, PROGRAMS};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;
const LONG: Duration = Duration::from_millis(400);

fn main() {
    with_name("beside", bench);
}

fn bench() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        let listener = wire.there(|| TcpListener::bind(at(THERE[0], 9000)).expect("a port"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut room = vec![0; 1 << 20];
                    while stream.read(&mut room).is_ok_and(|count| count > 0) {}
                });
            }
        });
        let mut stream = TcpStream::connect(at(THERE[0], 9000)).expect("it answers");
        let cases: [(&str, Value); 5] = [
            ("network-partition", json!({})),
            ("network-loss", json!({"percent": 30})),
            ("network-latency", json!({"delay": "10ms"})),
            ("network-reject", json!({})),
            ("network-bandwidth", json!({"rate": "1Mbit/s"})),
        ];
        carried(&mut stream);
        println!("one TCP stream beside a fault, against none; n = {ROUNDS}");
        println!(
            "{:20} {:>14} {:>14} {:>8} {:>17}",
            "", "none, MB/s", "beside, MB/s", "ratio", "least .. most"
        );
        for (fault, mut arguments) in cases {
            arguments["to"] = json!(BESIDE);
            let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let none = carried(&mut stream);
                let acting = Fault::inject(fault, &arguments, "60s");
                let beside = carried(&mut stream);
                acting.end();
                without.push(none);
                with.push(beside);
                ratios.push(beside / none);
            }
            for numbers in [&mut without, &mut with, &mut ratios] {
                numbers.sort_by(f64::total_cmp);
            }
            println!(
                "{fault:20} {:>14.0} {:>14.0} {:>8.3} {:>8.2} .. {:.2}",
                without[ROUNDS / 2],
                with[ROUNDS / 2],
                ratios[ROUNDS / 2],
                ratios[0],
                ratios[ROUNDS - 1]
            );
        }
    });
}

/// In megabytes a second.
fn carried(stream: &mut TcpStream) -> f64 {
    let bytes = vec![0; 1 << 18];
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < LONG {
        stream.write_all(&bytes).expect("it is connected");
        sent += bytes.len();
    }
    sent as f64 / started.elapsed().as_secs_f64() / 1e6
}
