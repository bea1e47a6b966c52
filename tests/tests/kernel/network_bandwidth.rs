//! The rate that a bandwidth fault lets through, measured over devices whose longest packets are short and long.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{DEVICE, HERE, THERE, Wire, at, ip};
use backburn_tests::network_fault::{Fault, PROGRAMS, figure};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The bits a second at which bytes arrive from somebody who sends all the time by TCP. The beginning is not counted: some comes at
/// once, and TCP looks for its windows. From there to the last byte that is counted there are several packets, however long they are.
fn measured(listener: TcpListener, connect: impl FnOnce(SocketAddr) -> TcpStream + Send) -> f64 {
    const BEGINNING: usize = 500_000;
    const COUNTED: usize = 700_000;
    const LONG: Duration = Duration::from_secs(2);
    let to = listener.local_addr().expect("it is bound");
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let mut stream = connect(to);
            // It ends when nobody reads any more.
            while stream.write_all(&[7; 65_536]).is_ok() {}
        });
        let (mut stream, _) = listener.accept().expect("it comes");
        let mut room = vec![0; 1 << 20];
        let mut read = |least: usize, long: Duration| {
            let (mut bytes, started) = (0, Instant::now());
            let mut last = started;
            while bytes < least || last - started < long {
                let some = stream.read(&mut room).expect("more comes");
                assert!(some > 0, "the other side has ended");
                bytes += some;
                last = Instant::now();
            }
            (bytes, last - started)
        };
        read(BEGINNING, Duration::ZERO);
        let (bytes, took) = read(COUNTED, LONG);
        8.0 * bytes as f64 / took.as_secs_f64()
    })
}

/// Over the loopback, or over the wire in one direction.
#[derive(Debug, Clone, Copy)]
enum Way {
    Loopback,
    Out,
    Back,
}

fn rate_is_kept(wire: &Wire, way: Way, port: u16, megabits: f64) {
    let family = usize::from(port.is_multiple_of(2));
    let (listener, server) = match way {
        Way::Loopback => {
            let server = ["127.0.0.1", "::1"][family];
            (TcpListener::bind(at(server, port)), server)
        }
        Way::Out => {
            let server = THERE[family];
            (wire.there(|| TcpListener::bind(at(server, port))), server)
        }
        Way::Back => (TcpListener::bind(at(HERE[family], port)), HERE[family]),
    };
    let listener = listener.expect("a port can be listened on");
    let arguments =
        json!({"to": server, "ports": port, "rate": format!("{}kbit/s", megabits * 1000.0)});
    let fault = Fault::inject("network-bandwidth", &arguments, "100s");
    let connect = |to| TcpStream::connect(to).expect("it listens");
    let bits = measured(listener, |to| match way {
        Way::Loopback | Way::Out => connect(to),
        Way::Back => wire.there(|| connect(to)),
    });
    let effect = fault.end();
    let share = bits / (megabits * 1e6);
    println!(
        "{way:?} to {server}: {megabits} Mbit/s asked, {:.3} measured",
        bits / 1e6
    );
    assert!(
        (0.9..1.1).contains(&share),
        "{way:?}, {megabits} Mbit/s: {share}"
    );
    assert!(figure(&effect, "shaped-packets") > 0.0, "{effect}");
}

#[test]
fn network_bandwidth_with_long_packets_is_within_a_tenth_of_the_rate() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        ip(&["link", "set", DEVICE, "mtu", "65000"]);
        wire.there(|| ip(&["link", "set", "there", "mtu", "65000"]));
        for (number, megabits) in [1.0, 5.0, 20.0, 40.0, 120.0].into_iter().enumerate() {
            let port = 8000 + 10 * number as u16;
            rate_is_kept(&wire, Way::Loopback, port, megabits);
            rate_is_kept(&wire, Way::Out, port + 1, megabits);
            rate_is_kept(&wire, Way::Back, port + 2, megabits);
        }
    });
}

#[test]
fn network_bandwidth_with_short_packets_is_within_a_tenth_of_the_rate() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        for (number, megabits) in [1.0, 10.0, 40.0].into_iter().enumerate() {
            let port = 8000 + 10 * number as u16;
            rate_is_kept(&wire, Way::Out, port, megabits);
            rate_is_kept(&wire, Way::Back, port + 1, megabits);
        }
        // Lengths that a slow interface has.
        ip(&["link", "set", DEVICE, "mtu", "9000"]);
        wire.there(|| ip(&["link", "set", "there", "mtu", "9000"]));
        rate_is_kept(&wire, Way::Out, 8101, 2.0);
    });
}
