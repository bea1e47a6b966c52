//! Several faults on one host: those that do not meet act and end each by itself, and one that would meet another is refused with the
//! name of the other. One agent's state folder stands for the host, as on a real one.

use backburn_tests::crash::Place;
use backburn_tests::isolated::{in_namespaces, in_network_namespace};
use backburn_tests::network::{HERE, THERE, Wire, at, tcp};
use backburn_tests::wait::wait_within;
use backburn_tests::{crash_plugins, processes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// An injection that acts until it is ended.
struct Injected(Child);

fn words(fault: &str, id: &str, arguments: &Value) -> Vec<String> {
    let words = [
        "inject",
        fault,
        "--id",
        id,
        "--duration",
        "60s",
        "--arguments",
    ];
    let words = words.iter().map(|word| (*word).to_owned());
    words.chain([arguments.to_string()]).collect()
}

impl Injected {
    fn start(place: &Place, fault: &str, id: &str, arguments: &Value) -> Self {
        let words = words(fault, id, arguments);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let child = place.agent(&words, None).spawn();
        Injected(child.expect("the agent starts"))
    }

    /// Ends it as Ctrl-C does, and waits until all is reverted.
    fn end(mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT).expect("it is there");
        let ended = self.0.wait().expect("it ends");
        assert!(ended.code().is_some(), "{ended}");
    }
}

fn inject(place: &Place, fault: &str, id: &str, arguments: &Value) -> Output {
    let words = words(fault, id, arguments);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = place.agent(&words, None);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().expect("the agent starts")
}

/// The fault is refused since this injection holds what it needs.
#[track_caller]
fn refused_for(holder: &str, place: &Place, fault: &str, arguments: &Value) {
    let output = inject(place, fault, "late", arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{fault} {arguments}: {said}");
    let named = format!("is held by injection `{holder}`");
    assert!(
        said.contains("overlap") && said.contains(&named),
        "{fault} {arguments}: {said}"
    );
}

/// A process that is killed when it goes out of scope.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Sleeper(
            Command::new("sleep")
                .arg("1000")
                .spawn()
                .expect("`sleep` starts"),
        )
    }

    fn state(&self) -> char {
        processes::process(self.0.id() as i32)
            .expect("it is there")
            .state
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A file with text in a folder of its own.
fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("data");
    std::fs::write(&file, "as it was\n".repeat(1000)).expect("a file can be written");
    (folder, file)
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).expect("it is there")).into_owned()
}

#[test]
fn combination_without_overlap_acts_and_ends_each_by_itself() {
    in_network_namespace(&["unshare", "sleep"], || {
        let place = Place::default();
        let sleeper = Sleeper::start();
        let (_folder, file) = file();
        let before = text(&file);
        let pause = json!({"process": {"pid": sleeper.0.id()}});
        let proxy = json!({"listen": "127.0.0.1:18080", "upstream": "127.0.0.1:9", "status": 503});
        let other =
            json!({"listen": "127.0.0.1:18081", "upstream": "127.0.0.1:9", "error": "ERR no"});
        let corrupt = json!({"path": file});
        let pause = Injected::start(&place, "process-pause", "pause", &pause);
        let proxy = Injected::start(&place, "http-fail", "proxy", &proxy);
        let other = Injected::start(&place, "redis-fail", "other", &other);
        let corrupt = Injected::start(&place, "file-corrupt", "corrupt", &corrupt);
        wait_within("all do not act", SOON, || {
            sleeper.state() == 't' && listens(18080) && listens(18081) && text(&file) != before
        });
        assert_eq!(place.ledger().len(), 4);
        proxy.end();
        assert!(!listens(18080) && listens(18081));
        assert!(sleeper.state() == 't' && text(&file) != before);
        corrupt.end();
        assert_eq!(text(&file), before);
        assert!(sleeper.state() == 't' && listens(18081));
        pause.end();
        other.end();
        assert!(sleeper.state() != 't' && !listens(18081));
        assert!(place.ledger().is_empty());
    });
}

#[test]
fn combination_with_overlap_is_refused_with_the_name_of_the_holder() {
    in_network_namespace(&["unshare", "sleep"], || {
        let place = Place::default();
        let sleeper = Sleeper::start();
        let (folder, file) = file();
        let before = text(&file);
        let process = json!({"pid": sleeper.0.id()});
        let upstream = "127.0.0.1:9";
        let held = [
            Injected::start(
                &place,
                "process-pause",
                "pause",
                &json!({"process": process}),
            ),
            Injected::start(
                &place,
                "http-fail",
                "proxy",
                &json!({"listen": "127.0.0.1:18080", "upstream": upstream, "status": 503}),
            ),
            Injected::start(&place, "file-corrupt", "corrupt", &json!({"path": file})),
            Injected::start(
                &place,
                "http-load",
                "load",
                &json!({"url": "http://127.0.0.1:18080/", "rate": 5}),
            ),
        ];
        wait_within("all do not act", SOON, || {
            sleeper.state() == 't'
                && listens(18080)
                && text(&file) != before
                && place.ledger().len() == 4
        });
        for (holder, fault, arguments) in [
            ("pause", "process-pause", json!({"process": process})),
            (
                "pause",
                "syscall-error",
                json!({"process": process, "calls": "read", "error": "EIO"}),
            ),
            (
                "pause",
                "clock-skew",
                json!({"process": process, "offset": "+1h"}),
            ),
            (
                "proxy",
                "http-fail",
                json!({"listen": "127.0.0.1:18080", "upstream": upstream, "abort": true}),
            ),
            (
                "proxy",
                "tcp-proxy",
                json!({"listen": "0.0.0.0:18080", "upstream": upstream, "reset": "1s"}),
            ),
            (
                "proxy",
                "grpc-fail",
                json!({"listen": "localhost:18080", "upstream": upstream, "status": 14}),
            ),
            ("corrupt", "file-corrupt", json!({"path": file})),
            (
                "corrupt",
                "file-latency",
                json!({"path": folder.path(), "delay": "10ms"}),
            ),
            (
                "load",
                "http-load",
                json!({"url": "http://127.0.0.1:18080/other", "rate": 9}),
            ),
        ] {
            refused_for(holder, &place, fault, &arguments);
        }
        assert!(sleeper.state() == 't' && listens(18080) && text(&file) != before);
        held.into_iter().for_each(Injected::end);
        assert!(sleeper.state() != 't' && !listens(18080) && text(&file) == before);
        assert!(place.ledger().is_empty());
        // What somebody else listens on is no injection's.
        let taken = std::net::TcpListener::bind("127.0.0.1:18080").expect("it is free again");
        let proxy = json!({"listen": "127.0.0.1:18080", "upstream": upstream, "status": 503});
        let output = inject(&place, "http-fail", "late", &proxy);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("no-match") && said.contains("$.listen"),
            "{said}"
        );
        drop(taken);
    });
}

#[test]
fn combination_in_two_network_namespaces_acts_in_both() {
    in_network_namespace(&["unshare", "ip", "sleep"], || {
        let wire = Wire::new();
        wire.echo(8000);
        let place = Place::default();
        // A connection and an echo: two ways there and back. The shortest of three, since others use this machine too.
        let took = || {
            let times = (0..3).map(|_| {
                let began = Instant::now();
                tcp(at(THERE[0], 8000), SOON).expect("it answers");
                began.elapsed().as_millis()
            });
            times.min().expect("there are three")
        };
        let bare = took();
        assert!(bare < 200, "{bare} ms");
        let own = json!({"to": THERE[0], "delay": "100ms"});
        let there = json!({"to": HERE[0], "delay": "150ms", "namespace": wire.namespace()});
        let own = Injected::start(&place, "network-latency", "own", &own);
        wait_within("the first does not act", SOON, || took() >= 200);
        let there = Injected::start(&place, "network-latency", "there", &there);
        wait_within("both do not act", SOON, || took() >= 500);
        own.end();
        let alone = took();
        assert!((300..500).contains(&alone), "{alone} ms");
        there.end();
        let after = took();
        assert!(after < 200, "{after} ms");
        assert!(place.ledger().is_empty());
    });
}

#[test]
fn combination_of_a_plug_in_and_a_fault_that_do_the_same_is_refused() {
    in_namespaces(&["unshare", "sleep"], || {
        let place = Place::default();
        let state = place.state();
        let folder = state.parent().expect("it has a folder");
        crash_plugins::install("trial-changer", folder);
        let (data, file) = file();
        let before = text(&file);
        // The plug-in makes a file where there is none; the fault corrupts what is there.
        let flag = data.path().join("flag");
        let plugin = Injected::start(&place, "trial-changer", "plugin", &json!({"marker": flag}));
        wait_within("the plug-in does not act", SOON, || flag.exists());
        std::fs::write(&flag, "some text").expect("it can be written to");
        refused_for("plugin", &place, "file-corrupt", &json!({"path": flag}));
        refused_for(
            "plugin",
            &place,
            "file-error",
            &json!({"path": data.path(), "error": "EIO"}),
        );
        let corrupt = Injected::start(&place, "file-corrupt", "corrupt", &json!({"path": file}));
        wait_within("the fault does not act beside it", SOON, || {
            text(&file) != before
        });
        refused_for("corrupt", &place, "trial-changer", &json!({"marker": file}));
        plugin.end();
        corrupt.end();
        assert!(!flag.exists() && text(&file) == before);
        assert!(place.ledger().is_empty());
    });
}
