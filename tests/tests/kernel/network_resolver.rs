//! Names are found as whoever is hit finds them: by its own hosts file and its own name servers, asked from its network; and nothing that
//! it may put there is waited for.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_network_namespace;
use backburn_tests::network::{BESIDE, HERE, THERE, at, ip, tcp, within};
use backburn_tests::network_fault::{Fault, NEVER, PROGRAMS, SOON, figure};
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn run(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status();
    assert!(status.is_ok_and(|status| status.success()), "{words:?}");
}

/// What a plan hits, in words, or why it is refused; and how long it took.
fn planned(arguments: &Value) -> (Result<String, String>, Duration) {
    let started = Instant::now();
    let arguments = arguments.to_string();
    let words = [
        "plan",
        "network-partition",
        "--json",
        "--duration",
        "5s",
        "--arguments",
        &arguments,
    ];
    let output = Place::default()
        .agent(&words, None)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the agent starts");
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return (Err(said), took);
    }
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = plan["victims"][0]["name"].as_str().unwrap_or_default();
    (Ok(name.to_owned()), took)
}

/// A process with a network and files of its own, joined to this network by a wire.
struct Victim {
    process: Child,
    folder: tempfile::TempDir,
}

impl Victim {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["hosts", "resolv.conf", "nsswitch.conf"] {
            std::fs::write(folder.path().join(name), "").expect("a file can be made");
        }
        let path = folder.path().display();
        // Its root is a copy of this one, with another `/etc`.
        let script = format!(
            "mount -t tmpfs etc /etc && for name in hosts resolv.conf nsswitch.conf; do ln -s {path}/$name /etc/$name; done && touch /etc/ready && exec sleep 1000"
        );
        let process = Command::new("unshare")
            .args(["--net", "--mount", "--", "sh", "-c", &script])
            .spawn()
            .expect("`unshare` starts");
        let pid = process.id();
        let ready = format!("/proc/{pid}/root") + "/etc/ready";
        wait_within("the victim is ready", Duration::from_secs(20), || {
            Path::new(&ready).exists()
        });
        ip(&[
            "link",
            "add",
            "here",
            "type",
            "veth",
            "peer",
            "name",
            "there",
            "netns",
            &pid.to_string(),
        ]);
        for (address, bits) in HERE.into_iter().chain(BESIDE).zip([24, 64, 24, 64]) {
            ip(&[
                "address",
                "add",
                &format!("{address}/{bits}"),
                "dev",
                "here",
                "nodad",
            ]);
        }
        ip(&["link", "set", "here", "up"]);
        within(pid, || {
            for (address, bits) in THERE.into_iter().zip([24, 64]) {
                ip(&[
                    "address",
                    "add",
                    &format!("{address}/{bits}"),
                    "dev",
                    "there",
                    "nodad",
                ]);
            }
            ip(&["link", "set", "lo", "up"]);
            ip(&["link", "set", "there", "up"]);
        });
        Victim { process, folder }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("it is this test's own");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A name server at an address in the network of a process, which is not this host's.
struct NameServer(Child);

impl NameServer {
    fn start(pid: u32, address: &str) -> Self {
        let many = (1..=60).map(|number| format!("--host-record=many.example.org,10.1.0.{number}"));
        let mut command = Command::new("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
            ])
            .args([
                "--pid-file=",
                "--user=root",
                "--bind-interfaces",
                "--local=/org/",
            ])
            .arg(format!("--listen-address={address}"))
            .arg("--host-record=db.example.org,192.0.2.1,2001:db8::1")
            .arg("--host-record=db.other.org,192.0.2.7")
            .arg("--cname=alias.example.org,db.example.org")
            .args(many);
        let process = within(pid, || command.spawn().expect("`dnsmasq` starts"));
        let server = NameServer(process);
        let to = at(address, 53);
        wait_within("the name server listens", Duration::from_secs(20), || {
            within(pid, || std::net::TcpStream::connect(to).is_ok())
        });
        server
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn host_name_is_resolved_as_the_process_resolves_it() {
    let programs = [&PROGRAMS[..], &["mount", "dnsmasq"]].concat();
    in_network_namespace(&programs, || {
        let victim = Victim::new();
        let _server = NameServer::start(victim.pid(), "127.0.0.7");
        let by = [
            json!({"of": {"pid": victim.pid()}}),
            json!({"namespace": format!("/proc/{}/ns/net", victim.pid())}),
        ];
        let plan = |number: usize, to: &str| {
            let mut arguments = by[number % 2].clone();
            arguments["to"] = json!(to);
            planned(&arguments)
        };
        victim.write(
            "hosts",
            "10.9.0.3 service.test # its own\nfd09::3 SERVICE.test\n",
        );
        victim.write(
            "resolv.conf",
            "nameserver 127.0.0.7\nsearch nothing.org other.org\n",
        );
        for (number, (to, expected)) in [
            ("service.test:8000", Ok("10.9.0.3 fd09::3 port 8000")),
            ("db.example.org", Ok("192.0.2.1 2001:db8::1")),
            ("alias.example.org", Ok("192.0.2.1 2001:db8::1")),
            ("DB.Example.org.", Ok("192.0.2.1 2001:db8::1")),
            ("db", Ok("192.0.2.7")),
            ("many.example.org", Ok("10.1.0.1 10.1.0.2")),
            ("localhost", Ok("127.0.0.1 ::1")),
            (
                "nobody.example.org",
                Err("name server 127.0.0.7:53 says that there is no such name"),
            ),
            ("db.", Err("REFUSED")),
        ]
        .into_iter()
        .enumerate()
        {
            let (said, _) = plan(number, to);
            match (said, expected) {
                (Ok(said), Ok(expected)) => assert!(said.contains(expected), "{to}: {said}"),
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{to}: {said}"),
                (said, _) => panic!("{to}: {said:?}"),
            }
        }
        let (said, _) = plan(0, "many.example.org");
        let said = said.expect("a plan");
        assert!(
            said.contains("60 in all"),
            "a long answer comes by TCP: {said}"
        );

        // A server that says nothing, before one that does, and alone.
        victim.write("resolv.conf", "nameserver 10.9.0.1\nnameserver 127.0.0.7\n");
        let silent = std::net::UdpSocket::bind(at(HERE[0], 53)).expect("a port can be bound");
        assert!(plan(0, "db.example.org").0.is_ok());
        victim.write(
            "resolv.conf",
            "nameserver 10.9.0.1\noptions timeout:30 attempts:5\n",
        );
        let (said, took) = plan(1, "db.example.org");
        let said = said.expect_err("nobody says it");
        assert!(
            said.contains("no answer came in time") || said.contains("too long"),
            "{said}"
        );
        assert!(took < Duration::from_secs(60), "{took:?}");
        drop(silent);

        // Nothing that it puts there is waited for or followed out of its root.
        victim.write("resolv.conf", "nameserver 127.0.0.7\n");
        std::fs::remove_file(victim.file("hosts")).expect("it is there");
        nix::unistd::mkfifo(&victim.file("hosts"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        assert!(plan(0, "db.example.org").0.is_ok());
        victim.write("nsswitch.conf", "hosts: files\n");
        let said = plan(1, "db.example.org")
            .0
            .expect_err("only files are asked");
        assert!(said.contains("its hosts file does not have it"), "{said}");
        std::fs::remove_file(victim.file("hosts")).expect("it is there");
        std::os::unix::fs::symlink("/dev/zero", victim.file("hosts")).expect("a link");
        assert!(plan(0, "db.example.org").0.is_err());
    });
}

#[test]
fn host_name_in_a_named_namespace_is_resolved_by_its_own_files() {
    let programs = [&PROGRAMS[..], &["mount", "umount"]].concat();
    in_network_namespace(&programs, || {
        // Where namespaces have their names and files, for this test only.
        run("mount -t tmpfs run /run");
        let hosts = std::fs::read_to_string("/etc/hosts").expect("it can be read");
        run("mount -t tmpfs etc /etc");
        std::fs::write(
            "/etc/hosts",
            hosts + "\n192.0.2.4 usual.test service.test\n",
        )
        .expect("ours");
        std::fs::write("/etc/resolv.conf", "nameserver 192.0.2.53\n").expect("ours");
        ip(&["netns", "add", "blue"]);
        let plan =
            |namespace: &str, to: &str| planned(&json!({"namespace": namespace, "to": to})).0;
        let usual = plan("blue", "usual.test").expect("this host's own files");
        assert!(usual.contains("192.0.2.4"), "{usual}");
        std::fs::create_dir_all("/etc/netns/blue").expect("ours");
        std::fs::write("/etc/netns/blue/hosts", "192.0.2.5 service.test\n").expect("ours");
        let own = plan("blue", "service.test").expect("its own files");
        assert!(
            own.contains("192.0.2.5") && !own.contains("192.0.2.4"),
            "{own}"
        );
        let said = plan("blue", "usual.test").expect_err("its hosts file has not this");
        assert!(
            said.contains("in network namespace /run/netns/blue"),
            "{said}"
        );

        // A path that is nobody's, with nobody in it.
        std::fs::write("/run/elsewhere", "").expect("ours");
        run("mount --bind /run/netns/blue /run/elsewhere");
        let said = plan("/run/elsewhere", "service.test").expect_err("it is not known");
        assert!(said.contains("no process is in it"), "{said}");
        assert!(plan("/run/elsewhere", "192.0.2.5").is_ok());

        // What is no namespace is refused at once.
        nix::unistd::mkfifo("/run/netns/fifo", nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        for path in [
            "fifo",
            "/dev/zero",
            "/etc",
            "/etc/hosts",
            "/proc/self/ns/uts",
        ] {
            let (said, took) = planned(&json!({"namespace": path, "to": "192.0.2.5"}));
            let said = said.expect_err("it is none");
            assert!(said.contains("namespace"), "{path}: {said}");
            assert!(took < Duration::from_secs(60), "{path}: {took:?}");
        }
    });
}

#[test]
fn network_fault_on_a_name_follows_it_as_the_victim_resolves_it() {
    let programs = [&PROGRAMS[..], &["mount"]].concat();
    in_network_namespace(&programs, || {
        let victim = Victim::new();
        for address in HERE.into_iter().chain(BESIDE) {
            let listener = TcpListener::bind(at(address, 8000)).expect("a port");
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let mut back = stream.try_clone().expect("a socket can be had twice");
                    std::thread::spawn(move || std::io::copy(&mut &stream, &mut back));
                }
            });
        }
        let reached = |to: SocketAddr, patience| within(victim.pid(), || tcp(to, patience).is_ok());
        victim.write("hosts", &format!("{} service.test\n", HERE[0]));
        let arguments = json!({"of": {"pid": victim.pid()}, "to": "service.test:8000"});
        let acting = Fault::inject("network-partition", &arguments, "100s");
        assert!(!reached(at(HERE[0], 8000), NEVER));
        assert!(reached(at(BESIDE[0], 8000), SOON));
        victim.write(
            "hosts",
            &format!("{} service.test\n{} service.test\n", BESIDE[0], BESIDE[1]),
        );
        for beside in BESIDE {
            wait_within("the new address is cut", Duration::from_secs(60), || {
                !reached(at(beside, 8000), NEVER)
            });
        }
        assert!(reached(at(HERE[1], 8000), SOON));
        let effect = acting.end();
        assert_eq!(figure(&effect, "added-addresses"), 2.0, "{effect}");
        assert!(reached(at(HERE[0], 8000), SOON));
    });
}
