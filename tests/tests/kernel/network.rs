//! Network faults on the real kernel, between two network namespaces: the effect is looked at
//! from the other side, flows beside the chosen ones are untouched, the head is not cut off.

use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{
    BESIDE, DEVICE, HERE, THERE, Wire, at, echo_here, ip, send, tcp, udp,
};
use backburn_tests::network_fault::{Fault, NEVER, PROGRAMS, SOON, figure};
use serde_json::json;
use std::io::ErrorKind;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn both() -> impl Iterator<Item = (&'static str, &'static str)> {
    THERE.into_iter().zip(BESIDE)
}

/// Whether a count is what `n` tries with chance `p` give, in all but one of a hundred thousand cases.
fn likely(count: u64, n: u64, p: f64) -> bool {
    let wide = 4.42 * (n as f64 * p * (1.0 - p)).sqrt() + 0.5;
    (count as f64 - n as f64 * p).abs() <= wide
}

#[test]
fn network_loss_takes_its_share_of_chosen_flows_only() {
    in_network_namespace(&PROGRAMS, || {
        const SENT: u64 = 3000;
        let wire = Wire::new();
        for (there, beside) in both() {
            let chosen = wire.count(there, 7000);
            let untouched = wire.count(beside, 7000);
            let arguments =
                json!({"to": there, "direction": "egress", "protocol": "udp", "percent": 30});
            let fault = Fault::inject("network-loss", &arguments, "60s");
            send(at(there, 7000), SENT);
            send(at(beside, 7000), SENT);
            std::thread::sleep(Duration::from_millis(200));
            let effect = fault.end();
            let lost = SENT - chosen.load(Ordering::SeqCst);
            println!(
                "{there}: {lost} of {SENT} lost at 30 %, {} beside",
                SENT - untouched.load(Ordering::SeqCst)
            );
            assert!(likely(lost, SENT, 0.3), "{lost} of {SENT}");
            assert_eq!(untouched.load(Ordering::SeqCst), SENT);
            assert_eq!(figure(&effect, "chosen-packets"), SENT as f64);
            assert_eq!(figure(&effect, "lost-packets"), lost as f64);
            assert_eq!(effect["acts"], true);
            send(at(there, 7000), 100);
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(
                chosen.load(Ordering::SeqCst),
                SENT - lost + 100,
                "none is lost afterwards"
            );
        }
    });
}

#[test]
fn network_loss_of_each_nth_packet_is_exact() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        for (number, there) in THERE.into_iter().enumerate() {
            let port = 7001 + number as u16;
            let counted = wire.count(there, port);
            let arguments =
                json!({"to": there, "ports": port, "direction": "egress", "every-nth": 10});
            let fault = Fault::inject("network-loss", &arguments, "60s");
            send(at(there, port), 1000);
            std::thread::sleep(Duration::from_millis(200));
            fault.end();
            assert_eq!(counted.load(Ordering::SeqCst), 900);
        }
        // From the other side: what arrives here.
        let here = std::net::UdpSocket::bind(at(HERE[0], 7003)).expect("a socket can be bound");
        here.set_read_timeout(Some(NEVER))
            .expect("a socket waits so long");
        let arguments =
            json!({"from": THERE[0], "ports": 7003, "direction": "ingress", "every-nth": 4});
        let fault = Fault::inject("network-loss", &arguments, "60s");
        wire.there(|| send(at(HERE[0], 7003), 100));
        fault.end();
        let mut arrived = 0;
        while here.recv(&mut [0; 8]).is_ok() {
            arrived += 1;
        }
        assert_eq!(arrived, 75);
    });
}

#[test]
fn network_partition_is_silent_and_cuts_chosen_flows_only() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(8000);
        wire.echo(8001);
        for direction in ["both", "egress", "ingress"] {
            for (there, beside) in both() {
                assert!(tcp(at(there, 8000), SOON).is_ok());
                let arguments = json!({"to": format!("[{there}]:8000"), "direction": direction});
                let fault = Fault::inject("network-partition", &arguments, "60s");
                for (what, error) in [
                    ("tcp", tcp(at(there, 8000), NEVER)),
                    ("udp", udp(at(there, 8000), NEVER)),
                ] {
                    let error = error.expect_err("it is cut");
                    // A loss has no error: only time runs out.
                    assert!(
                        matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
                        "{direction} {what} to {there}: {error}"
                    );
                }
                for other in [at(there, 8001), at(beside, 8000)] {
                    assert!(tcp(other, SOON).is_ok(), "{other}");
                    assert!(udp(other, SOON).is_ok(), "{other}");
                }
                let effect = fault.end();
                assert_eq!(effect["acts"], true, "{effect}");
                assert!(tcp(at(there, 8000), SOON).is_ok() && udp(at(there, 8000), SOON).is_ok());
            }
        }
    });
}

#[test]
fn network_reject_is_noticed_at_its_own_end() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(8000);
        echo_here(8100);
        for (family, (there, beside)) in both().enumerate() {
            let out = at(there, 8000);
            let fault = Fault::inject(
                "network-reject",
                &json!({"to": there, "ports": 8000}),
                "60s",
            );
            for error in [tcp(out, SOON), udp(out, SOON)] {
                let error = error.expect_err("it is rejected");
                assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionRefused,
                    "{there}: {error}"
                );
            }
            assert!(tcp(at(beside, 8000), SOON).is_ok());
            let effect = fault.end();
            assert!(figure(&effect, "rejected-packets") >= 2.0, "{effect}");
            assert!(tcp(out, SOON).is_ok() && udp(out, SOON).is_ok());

            let home = at(HERE[family], 8100);
            assert!(wire.there(|| tcp(home, SOON)).is_ok());
            let arguments = json!({"from": [there, beside], "ports": 8100, "direction": "ingress"});
            let fault = Fault::inject("network-reject", &arguments, "60s");
            for error in [
                wire.there(|| tcp(home, SOON)),
                wire.there(|| udp(home, SOON)),
            ] {
                let error = error.expect_err("it is rejected");
                assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionRefused,
                    "{home}: {error}"
                );
            }
            assert_eq!(fault.end()["acts"], true);
            assert!(wire.there(|| tcp(home, SOON)).is_ok());

            let arguments = json!({"to": there, "with": "host-unreachable"});
            let fault = Fault::inject("network-reject", &arguments, "60s");
            let error = tcp(out, SOON).expect_err("it is rejected");
            assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{error}");
            fault.end();
        }
    });
}

#[test]
fn network_loss_of_everything_spares_the_control_link() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(22);
        wire.echo(8000);
        echo_here(22);
        echo_here(8000);
        let connected = std::net::TcpStream::connect(at(THERE[0], 22)).expect("it answers");
        let fault = Fault::inject(
            "network-loss",
            &json!({"interface": DEVICE, "percent": 100}),
            "60s",
        );
        // Neighbours are to be found anew: ARP and its like of IPv6 must get through.
        ip(&["neighbour", "flush", "dev", DEVICE]);
        wire.there(|| ip(&["neighbour", "flush", "dev", "there"]));
        for there in THERE {
            assert!(tcp(at(there, 22), SOON).is_ok(), "{there}");
            assert!(tcp(at(there, 8000), NEVER).is_err(), "{there}");
            let ping = Command::new("ping")
                .args(["-q", "-c", "3", "-i", "0.05", "-W", "1", there])
                .output();
            let said = ping.expect("`ping` starts").stdout;
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains(" 0 received"), "{said}");
        }
        for here in HERE {
            assert!(wire.there(|| tcp(at(here, 22), SOON)).is_ok(), "{here}");
            assert!(wire.there(|| tcp(at(here, 8000), NEVER)).is_err(), "{here}");
        }
        // To ourselves, over the loopback.
        assert!(tcp(at(HERE[0], 8000), SOON).is_ok() && tcp(at("127.0.0.1", 8000), SOON).is_ok());
        use std::io::{Read as _, Write as _};
        let mut connected = connected;
        connected.write_all(b"still").expect("it is connected");
        connected
            .set_read_timeout(Some(SOON))
            .expect("a socket waits so long");
        connected.read_exact(&mut [0; 5]).expect("it answers still");
        assert_eq!(fault.end()["acts"], true);

        let fault = Fault::inject("network-partition", &json!({"to": "127.0.0.1:8000"}), "60s");
        assert!(
            tcp(at("127.0.0.1", 8000), NEVER).is_err(),
            "the loopback is named"
        );
        assert!(tcp(at("::1", 8000), SOON).is_ok());
        fault.end();
    });
}

#[test]
fn network_reject_closes_chosen_live_connections_only() {
    in_network_namespace(&PROGRAMS, || {
        use std::io::{Read as _, Write as _};
        use std::net::TcpStream;
        let wire = Wire::new();
        for port in [8000, 8001, 8010, 22] {
            wire.echo(port);
        }
        echo_here(8100);
        let lives = |stream: &mut TcpStream| {
            stream
                .set_read_timeout(Some(SOON))
                .expect("a socket waits so long");
            stream
                .write_all(b"word")
                .and_then(|()| stream.read_exact(&mut [0; 4]))
                .map_err(|error| error.kind())
        };
        let connect = |address: &str, port| {
            let mut stream = TcpStream::connect(at(address, port)).expect("it answers");
            lives(&mut stream).expect("it answers");
            stream
        };
        for (family, (there, beside)) in both().enumerate() {
            let mut chosen: Vec<TcpStream> = (0..3).map(|_| connect(there, 8000)).collect();
            let mut others = vec![
                connect(there, 8010),
                connect(there, 22),
                connect(beside, 8000),
                connect(HERE[family], 8100),
                wire.there(|| connect(HERE[family], 8100)),
            ];
            let arguments = json!({"to": there, "ports": [8000, 22], "established": "kill"});
            let fault = Fault::inject("network-reject", &arguments, "60s");
            for stream in &mut chosen {
                // Nothing was sent: the kernel has told it.
                let heard = stream.read(&mut [0; 1]).map_err(|error| error.kind());
                assert_eq!(heard, Err(ErrorKind::ConnectionAborted));
            }
            for stream in &mut others {
                assert_eq!(lives(stream), Ok(()), "{stream:?}");
            }
            let effect = fault.end();
            assert_eq!(figure(&effect, "closed-connections"), 3.0, "{effect}");
            assert_eq!(effect["acts"], true);
            // What was closed stays closed; new ones are made.
            assert!(lives(&mut chosen[0]).is_err() && tcp(at(there, 8000), SOON).is_ok());

            // By whoever comes, in another namespace, and by what is excepted.
            let mut chosen = connect(there, 8001);
            let mut excepted = connect(beside, 8001);
            let from = format!("{}/{}", HERE[family], if family == 0 { 24 } else { 64 });
            let arguments = json!({"from": from, "ports": "8001-8009", "except": beside, "established": "kill", "namespace": wire.namespace()});
            let fault = Fault::inject("network-reject", &arguments, "60s");
            assert!(lives(&mut chosen).is_err());
            assert_eq!(lives(&mut excepted), Ok(()));
            assert_eq!(figure(&fault.end(), "closed-connections"), 1.0);
        }
    });
}

/// The times from a word to its echo, sorted.
fn round_trips(to: std::net::SocketAddr, number: usize) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..number)
        .map(|_| {
            let started = Instant::now();
            udp(to, SOON).expect("it answers");
            started.elapsed()
        })
        .collect();
    times.sort();
    times
}

#[test]
fn network_latency_delays_chosen_flows_only() {
    in_network_namespace(&PROGRAMS, || {
        const TRIPS: usize = 60;
        let wire = Wire::new();
        wire.echo(8000);
        for (there, beside) in both() {
            let idle = round_trips(at(there, 8000), TRIPS)[TRIPS / 2];
            let unharmed = Duration::from_millis(1).max(idle * 10);
            for delay in [1, 10, 50] {
                let arguments = json!({"to": there, "delay": format!("{delay}ms")});
                let fault = Fault::inject("network-latency", &arguments, "60s");
                let times = round_trips(at(there, 8000), TRIPS);
                let others = round_trips(at(beside, 8000), TRIPS);
                let started = Instant::now();
                tcp(at(there, 8000), SOON).expect("it answers");
                // A connection is made in one round, and the word takes another.
                assert!(started.elapsed() >= Duration::from_millis(2 * delay));
                let effect = fault.end();
                let added = times[TRIPS / 2].saturating_sub(idle);
                println!(
                    "{there} {delay} ms: median {added:?} more, longest {:?} of {TRIPS}; beside it median {:?}",
                    times[TRIPS - 1].saturating_sub(idle),
                    others[TRIPS / 2]
                );
                assert!(times[0] >= Duration::from_millis(delay), "{times:?}");
                assert!(added < Duration::from_millis(delay + 10), "{times:?}");
                assert!(others[TRIPS / 2] < unharmed, "{others:?}");
                assert!(figure(&effect, "held-packets") >= TRIPS as f64, "{effect}");
                assert!(round_trips(at(there, 8000), TRIPS)[TRIPS / 2] < unharmed);
            }
        }
    });
}
