//! The agent never cuts off its own head: its link to the controller, when that is a TCP connection
//! over the very network that is cut; and it puts everything back when it hears nobody any more.

use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{Cause, Command as Say, InjectionRequest, Report};
use backburn_tests::crash::Place;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{DEVICE, THERE, Wire, at, ip, tcp};
use backburn_tests::network_fault::{NEVER, PROGRAMS, SOON, ruleset};
use serde_json::json;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A controller on the other side, and an agent here that hears it over the wire.
struct Controller {
    agent: Child,
    to: TcpStream,
    from: BufReader<TcpStream>,
    lease: HumanDuration,
}

impl Controller {
    fn new(wire: &Wire, place: &Place, there: &str, lease: HumanDuration) -> Self {
        let listener = wire.there(|| TcpListener::bind(at(there, 0)).expect("a port is free"));
        let port = listener.local_addr().expect("it has one").port();
        let link = TcpStream::connect(at(there, port)).expect("it listens");
        let (to, _) = listener.accept().expect("somebody has come");
        let agent = place
            .agent(&["serve"], None)
            .stdin(Stdio::from(OwnedFd::from(link)))
            .spawn()
            .expect("the agent starts");
        let from = to.try_clone().expect("a socket can be shared");
        from.set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket waits so long");
        let from = BufReader::new(from);
        let mut controller = Controller {
            agent,
            to,
            from,
            lease,
        };
        assert!(matches!(controller.hears(), Report::Hello(_)));
        controller.beats();
        controller
    }

    fn says(&mut self, what: &Say) {
        let line = serde_json::to_string(what).expect("it can be written");
        writeln!(self.to, "{line}").expect("the link is there");
    }

    fn beats(&mut self) {
        let lease = self.lease;
        self.says(&Say::Heartbeat {
            lease,
            answer: false,
        });
    }

    fn hears(&mut self) -> Report {
        let mut line = String::new();
        self.from
            .read_line(&mut line)
            .expect("the agent says something");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Cuts everything, in both families.
    fn cuts_everything(&mut self) {
        let request = json!({
            "id": "trial", "run": "run", "fault": "network-loss", "duration": "60s", "seed": 1,
            "arguments": {"to": ["0.0.0.0/0", "::/0"], "percent": 100},
        });
        let injection: InjectionRequest = serde_json::from_value(request).expect("a request");
        self.says(&Say::Inject {
            request: 1,
            injection,
        });
        let heard = self.hears();
        assert!(matches!(heard, Report::Injected { .. }), "{heard:?}");
    }

    fn hears_of_the_end(&mut self) -> Cause {
        loop {
            if let Report::Ended(ended) = self.hears() {
                assert!(ended.clean, "{:?}", ended.residue);
                return ended.cause;
            }
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.to.shutdown(std::net::Shutdown::Both).ok();
        self.agent.wait().ok();
    }
}

#[test]
fn control_link_survives_the_loss_of_everything_else() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        wire.echo(8000);
        for there in THERE {
            let place = Place::default();
            // Long enough for a beat on a busy machine, and outlived twice.
            let lease = HumanDuration::seconds(4);
            let mut controller = Controller::new(&wire, &place, there, lease);
            controller.cuts_everything();
            // Neighbours are to be found anew: ARP and its like of IPv6 get through.
            ip(&["neighbour", "flush", "dev", DEVICE]);
            wire.there(|| ip(&["neighbour", "flush", "dev", "there"]));
            let started = Instant::now();
            while started.elapsed() < lease.0 * 2 {
                controller.beats();
                for other in THERE {
                    assert!(tcp(at(other, 8000), NEVER).is_err(), "all else is lost");
                }
            }
            assert!(ruleset().contains("backburn-trial-0"), "it acts still");
            controller.says(&Say::Revert {
                injection: "trial".into(),
            });
            assert_eq!(controller.hears_of_the_end(), Cause::ControllerRequest);
            assert_eq!(ruleset(), "");
            assert!(tcp(at(there, 8000), SOON).is_ok());
            drop(controller);
            assert!(place.ledger().is_empty());
        }
    });
}

#[test]
fn agent_cut_off_by_its_own_fault_reverts_before_its_lease_ends() {
    in_network_namespace(&PROGRAMS, || {
        let wire = Wire::new();
        let place = Place::default();
        let lease = HumanDuration::seconds(16);
        let mut controller = Controller::new(&wire, &place, THERE[0], lease);
        controller.cuts_everything();
        let started = Instant::now();
        assert_eq!(controller.hears_of_the_end(), Cause::LeaseExpired);
        let took = started.elapsed();
        println!("nobody was heard, with a lease of {lease}: put back after {took:?}");
        assert!(took < lease.0, "{took:?}");
        assert_eq!(ruleset(), "");
    });
}
