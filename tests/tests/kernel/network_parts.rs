//! Partitions between the members of a set: five network namespaces on one bridge, each cut off
//! by an injection of its own, with the same arguments. Who hears whom is asked of all pairs.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{at, ip, keeper, within};
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 3] = ["unshare", "ip", "sleep"];
const MEMBERS: usize = 5;
const PORT: u16 = 7000;

/// Members in namespaces of their own.
struct Members {
    keepers: Vec<Child>,
    sockets: Vec<UdpSocket>,
}

fn address(member: usize) -> String {
    format!("10.8.0.{}", member + 1)
}

impl Members {
    fn new() -> Self {
        ip(&["link", "add", "middle", "type", "bridge"]);
        ip(&["link", "set", "middle", "up"]);
        let mut members = Members {
            keepers: Vec::new(),
            sockets: Vec::new(),
        };
        for member in 0..MEMBERS {
            let keeper = keeper();
            let (inner, outer) = (keeper.id().to_string(), format!("m{member}"));
            ip(&[
                "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &inner,
            ]);
            ip(&["link", "set", &outer, "master", "middle", "up"]);
            members.keepers.push(keeper);
            let socket = within(members.keepers[member].id(), || {
                ip(&[
                    "address",
                    "add",
                    &format!("{}/24", address(member)),
                    "dev",
                    "eth0",
                ]);
                ip(&["link", "set", "eth0", "up"]);
                UdpSocket::bind(at("0.0.0.0", PORT)).expect("a socket can be bound")
            });
            socket.set_nonblocking(true).expect("a socket can be so");
            members.sockets.push(socket);
        }
        members
    }

    /// Who hears whom, as pairs of the one that speaks and the one that hears. Said again and
    /// again until everybody that is `expected` to be heard was, and for some time in any case.
    fn heard(&self, expected: &BTreeSet<(usize, usize)>) -> BTreeSet<(usize, usize)> {
        let mut room = [0; 8];
        for socket in &self.sockets {
            while socket.recv(&mut room).is_ok() {}
        }
        let mut heard = BTreeSet::new();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(300)
            || (!expected.is_subset(&heard) && started.elapsed() < Duration::from_secs(5))
        {
            for (from, socket) in self.sockets.iter().enumerate() {
                for to in (0..MEMBERS).filter(|to| *to != from) {
                    socket
                        .send_to(&[from as u8], at(&address(to), PORT))
                        .expect("whoever sends is not told of a loss");
                }
            }
            std::thread::sleep(Duration::from_millis(20));
            for (to, socket) in self.sockets.iter().enumerate() {
                while let Ok(1) = socket.recv(&mut room) {
                    heard.insert((usize::from(room[0]), to));
                }
            }
        }
        heard
    }

    /// The arguments of the fault for one of them.
    fn arguments(&self, member: usize, shape: &str, one_way: bool) -> Value {
        let members: Vec<String> = (0..MEMBERS).map(address).collect();
        let mut between = json!({"members": members, "shape": shape});
        if one_way {
            between["one-way"] = json!(true);
        }
        let namespace = format!("/proc/{}/ns/net", self.keepers[member].id());
        json!({"namespace": namespace, "between": between})
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for keeper in &mut self.keepers {
            keeper.kill().ok();
            keeper.wait().ok();
        }
    }
}

fn wait(for_what: &str, so: impl FnMut() -> bool) {
    wait_within(&format!("no {for_what}"), Duration::from_secs(10), so);
}

/// One of several injections at the same time, each with an agent of its own.
struct Injection {
    program: Child,
    _place: Place,
}

impl Injection {
    fn of(arguments: &Value) -> Self {
        let place = Place::default();
        let said = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let arguments = arguments.to_string();
        let words = [
            "inject",
            "network-partition",
            "--json",
            "--duration",
            "5m",
            "--arguments",
            &arguments,
        ];
        let program = place
            .agent(&words, None)
            .stdout(Stdio::from(said.reopen().expect("it is there")))
            .spawn()
            .expect("the agent starts");
        wait("injection", || {
            let said = std::fs::read_to_string(said.path()).expect("it is there");
            said.contains("\"injected\"")
        });
        Injection {
            program,
            _place: place,
        }
    }

    fn end(mut self) {
        kill(Pid::from_raw(self.program.id() as i32), Signal::SIGINT).expect("it is there");
        let status = self.program.wait().expect("it ends");
        assert_eq!(status.code(), Some(0));
    }
}

/// All pairs but those between these two sets; one way only, or both.
fn all_but(cut: &[(usize, usize)], one_way: bool) -> BTreeSet<(usize, usize)> {
    let mut pairs: BTreeSet<_> = (0..MEMBERS)
        .flat_map(|from| (0..MEMBERS).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect();
    for (from, to) in cut {
        pairs.remove(&(*from, *to));
        if !one_way {
            pairs.remove(&(*to, *from));
        }
    }
    pairs
}

#[test]
fn partition_topologies_cut_off_chosen_members_only() {
    in_network_namespace(&PROGRAMS, || {
        let members = Members::new();
        let whole = all_but(&[], false);
        assert_eq!(members.heard(&whole), whole, "before");
        let isolate = [(0, 1), (0, 2), (0, 3), (0, 4)];
        let halves = [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)];
        let ring = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 4)];
        let bridge = [(0, 3), (0, 4), (1, 3), (1, 4)];
        for (shape, one_way, cut) in [
            ("isolate", false, &isolate[..]),
            ("isolate", true, &isolate[..]),
            ("halves", false, &halves[..]),
            ("halves", true, &halves[..]),
            ("ring", false, &ring[..]),
            ("bridge", false, &bridge[..]),
        ] {
            let hit = (0..MEMBERS).filter(|member| (shape, *member) != ("bridge", 2));
            let injections: Vec<Injection> = hit
                .map(|member| Injection::of(&members.arguments(member, shape, one_way)))
                .collect();
            let left = all_but(cut, one_way);
            assert_eq!(members.heard(&left), left, "{shape}, one way: {one_way}");
            for injection in injections {
                injection.end();
            }
            assert_eq!(members.heard(&whole), whole, "after {shape}");
        }
    });
}

#[test]
fn partition_needs_one_side_and_refuses_a_non_member() {
    in_network_namespace(&PROGRAMS, || {
        let members = Members::new();
        let alone = Injection::of(&members.arguments(0, "isolate", false));
        let left = all_but(&[(0, 1), (0, 2), (0, 3), (0, 4)], false);
        assert_eq!(members.heard(&left), left);
        alone.end();

        let refusal = |arguments: &Value| {
            let place = Place::default();
            let words = [
                "plan",
                "network-partition",
                "--arguments",
                &arguments.to_string(),
            ];
            let output = place
                .agent(&words, None)
                .stderr(Stdio::piped())
                .output()
                .expect("the agent starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), said)
        };
        let (code, said) = refusal(&members.arguments(2, "bridge", false));
        assert!(
            code == Some(3) && said.contains("10.8.0.3 is the bridge"),
            "{code:?} {said}"
        );
        // Here, at the bridge, nobody of them is.
        let mut here = members.arguments(0, "isolate", false);
        here.as_object_mut().expect("an object").remove("namespace");
        let (code, said) = refusal(&here);
        assert!(
            code == Some(3) && said.contains("none of the members is this host"),
            "{code:?} {said}"
        );
        let both = json!({"to": "10.8.0.9", "between": {"members": ["10.8.0.1", "10.8.0.1"], "shape": "isolate"}});
        let (code, said) = refusal(&both);
        for part in ["$.to", "$.between.members[1]"] {
            assert!(code == Some(2) && said.contains(part), "{code:?} {said}");
        }
    });
}
