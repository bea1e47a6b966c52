//! An agent behind an HTTP proxy: its link is a connection to the proxy, and no fault cuts that off.

use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Cause;
use backburn_tests::connector::{Connector, join};
use backburn_tests::controller::Controller;
use backburn_tests::crash::Place;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{DEVICE, THERE, Wire, at, ip, tcp};
use backburn_tests::network_fault::{NEVER, PROGRAMS, SOON, ruleset};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connects each client to this address, whatever it asks for.
fn tunnel(listener: TcpListener, to: impl Fn() -> TcpStream + Clone + Send + 'static) {
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let to = to.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if client.read_exact(&mut byte).is_err() {
                        return;
                    }
                    head.extend(byte);
                }
                assert!(head.starts_with(b"CONNECT "), "{head:?}");
                let mut server = to();
                client
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                    .expect("the agent waits");
                let (mut back, mut forth) = (
                    server.try_clone().expect("a socket can be shared"),
                    client.try_clone().expect("a socket can be shared"),
                );
                std::thread::spawn(move || {
                    std::io::copy(&mut back, &mut client).ok();
                    client.shutdown(std::net::Shutdown::Both).ok();
                });
                std::io::copy(&mut forth, &mut server).ok();
                server.shutdown(std::net::Shutdown::Both).ok();
            });
        }
    });
}

#[test]
fn link_through_a_proxy_survives_the_loss_of_everything_else() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(8000);
        let place = Place::default();
        // The controller has no port that this side reaches: it is on the other side's loopback.
        let listener = wire.there(|| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let lease = HumanDuration::seconds(3);
        let controller = Controller::new(listener, Duration::from_secs(3600), lease);
        let address: SocketAddr = controller.address;
        let listener = wire.there(|| TcpListener::bind(at(THERE[0], 0)).expect("a port is free"));
        let proxy = listener.local_addr().expect("it has one").to_string();
        let pid = wire.pid();
        tunnel(listener, move || {
            backburn_tests::network::within(pid, || {
                TcpStream::connect(address).expect("the controller listens")
            })
        });
        let token = controller.token("1");
        let named = address.to_string();
        let wrong = at(THERE[0], 9).to_string();
        join(
            &place,
            &named,
            &token,
            &["--name", "db-1", "--proxy", &proxy],
        )
        .expect("it joins");

        let everything = json!({"to": ["0.0.0.0/0", "::/0"], "percent": 100});
        for (kept, words) in [(&proxy, vec![]), (&wrong, vec!["--proxy", proxy.as_str()])] {
            // What `connect` is told counts, and is not kept.
            let file = place.state().join("controller.json");
            let mut credentials: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&file).expect("it joined")).expect("JSON");
            credentials["proxy"] = json!(kept);
            std::fs::write(&file, credentials.to_string()).expect("it can be written");
            let mut connector = Connector::with(&place, &words);
            let link = controller.link();
            assert!(link.hello().through_proxy);
            link.injects("trial", "network-loss", &everything);
            // Neighbours are to be found anew, on both sides of the proxy's address.
            ip(&["neighbour", "flush", "dev", DEVICE]);
            wire.there(|| ip(&["neighbour", "flush", "dev", "there"]));
            let started = Instant::now();
            while started.elapsed() < lease.0 + Duration::from_secs(1) {
                for other in THERE {
                    assert!(tcp(at(other, 8000), NEVER).is_err(), "all else is lost");
                }
            }
            assert!(ruleset().contains("backburn-trial-0"), "it acts still");
            assert_eq!(link.reverts("trial"), Cause::ControllerRequest);
            assert_eq!(ruleset(), "");
            assert!(tcp(at(THERE[0], 8000), SOON).is_ok());
            assert_eq!(connector.ends(), Some(0));
            let text = std::fs::read_to_string(&file).expect("it is there");
            assert!(text.contains(kept.as_str()), "{text}");
        }
    });
}
