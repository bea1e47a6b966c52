//! Calls of gRPC that fail or wait on their way through a proxy: those of a real `etcdctl` to a real etcd, and several at once on one
//! connection, written frame by frame.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod look;
mod made;
mod made_host;
mod proxied;

use common::{VictimProcess, until};
use look::assert_refused_at;
use made_host::MadeHost;
use proxied::{Proxied, free_port};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// etcd on free ports.
struct Etcd {
    _process: VictimProcess,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Etcd {
    fn start() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let port = free_port();
        let (client, peer) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{}", free_port()),
        );
        let process = VictimProcess::start(
            Command::new("etcd")
                .args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                ])
                .args([
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ])
                .args([
                    "--initial-cluster",
                    &format!("default={peer}"),
                    "--log-level",
                    "error",
                ])
                .arg("--data-dir")
                .arg(folder.path())
                .stderr(std::process::Stdio::null()),
        );
        let etcd = Etcd {
            _process: process,
            _folder: folder,
            port,
        };
        until("etcd answers", || etcdctl(port, &["put", "foo", "bar"]).0);
        etcd
    }
}

/// Whether the command went well, and all that it said.
fn etcdctl(port: u16, words: &[&str]) -> (bool, String) {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=http://127.0.0.1:{port}"))
        .args(["--dial-timeout=5s", "--command-timeout=5s"])
        .args(words)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn grpc_fail_etcdctl_gets_the_status_and_other_calls_of_its_connection_pass() {
    let etcd = Etcd::start();
    let proxied = Proxied::start(
        "grpc-fail",
        etcd.port,
        json!({"service": "etcdserverpb.KV", "method": ["DeleteRange", "Compact"], "status": "permission-denied", "message": "not today: 100 %"}),
    );
    let (is_done, said) = etcdctl(proxied.port, &["del", "foo"]);
    assert!(
        !is_done && said.contains("PermissionDenied") && said.contains("not today: 100 %"),
        "{said}"
    );
    assert_eq!(
        etcdctl(proxied.port, &["get", "foo", "--print-value-only"]),
        (true, "bar\n".into())
    );
    let long = "v".repeat(500_000);
    assert_eq!(
        etcdctl(proxied.port, &["put", "long", &long[..120_000]]),
        (true, "OK\n".into())
    );
    let (_, came) = etcdctl(proxied.port, &["get", "long", "--print-value-only"]);
    assert_eq!(came.len(), 120_001);
    assert_eq!(proxied.figure("affected-requests"), 1.0);
    // A lock is a lease, a stream that keeps it alive, a transaction, and at its end a call that fails: all on one connection.
    let (_, said) = etcdctl(proxied.port, &["lock", "door", "echo", "inside"]);
    assert!(
        said.contains("inside") && said.contains("PermissionDenied"),
        "{said}"
    );
    assert!(proxied.figure("affected-requests") >= 2.0);
    assert!(proxied.figure("requests") >= 7.0);
    assert_eq!(
        etcdctl(etcd.port, &["get", "foo", "--print-value-only"]),
        (true, "bar\n".into())
    );
}

#[test]
fn grpc_fail_etcdctl_waits_or_is_reset_and_a_watch_goes_on() {
    let etcd = Etcd::start();
    let delayed = Proxied::start(
        "grpc-fail",
        etcd.port,
        json!({"method": "Range", "delay": "400ms"}),
    );
    let mut watch = VictimProcess::start(
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=http://127.0.0.1:{}", delayed.port))
            .args(["watch", "news"]),
    );
    let begin = Instant::now();
    assert_eq!(
        etcdctl(delayed.port, &["get", "foo", "--print-value-only"]),
        (true, "bar\n".into())
    );
    assert!(begin.elapsed() >= Duration::from_millis(400));
    until("the watch has begun", || delayed.figure("requests") >= 2.0);
    // It may be known to the proxy a moment before it is to etcd.
    until("the watch sees a change", || {
        etcdctl(etcd.port, &["put", "news", "hello"]);
        watch.line() == "PUT"
    });
    let reset = Proxied::start(
        "grpc-fail",
        etcd.port,
        json!({"method": "Range", "abort": true}),
    );
    let (is_done, said) = etcdctl(reset.port, &["get", "foo"]);
    assert!(
        !is_done && said.contains("Internal") && said.contains("INTERNAL_ERROR"),
        "{said}"
    );
    let late = Proxied::start(
        "grpc-fail",
        etcd.port,
        json!({"method": "Range", "status": 9, "delay": "300ms"}),
    );
    let begin = Instant::now();
    let (is_done, said) = etcdctl(late.port, &["get", "foo"]);
    assert!(!is_done && said.contains("FailedPrecondition"), "{said}");
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header fields of a call, which enter the dynamic table of whoever reads them: names and values as they are.
fn call(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let fields = [
        (":path", path),
        (":authority", "etcd"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields.iter().chain(more) {
        block.push(0x40);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(1, 4, stream, &block)
}

/// A request for the key `foo`, padded with so many bytes that the server does not know.
fn message(stream: u32, padding: usize) -> Vec<u8> {
    let mut message = vec![0x0a, 3, b'f', b'o', b'o'];
    if padding > 0 {
        // Field 100, bytes, whose length is written in two bytes.
        message.extend([0xa2, 0x06, padding as u8 | 0x80, (padding >> 7) as u8]);
        message.extend(vec![0; padding]);
    }
    let length = (message.len() as u32).to_be_bytes();
    frame(0, 1, stream, &[&[0], &length[..], &message].concat())
}

/// Frames as they come: kind, flags, stream and payload.
fn next(from: &mut TcpStream) -> (u8, u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    from.read_exact(&mut head).unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    from.read_exact(&mut payload).unwrap();
    (
        head[3],
        head[4],
        u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        payload,
    )
}

/// Reads until these streams have ended: in which order they did, and how much room came back for the connection.
fn ends(from: &mut TcpStream, count: usize) -> (Vec<u32>, u32) {
    let (mut ended, mut room) = (Vec::new(), 0);
    while ended.len() < count {
        let (kind, flags, stream, payload) = next(from);
        match kind {
            1 | 0 if flags & 1 != 0 => ended.push(stream),
            3 if !ended.contains(&stream) => panic!("{stream} is reset: {payload:?}"),
            8 if stream == 0 => room += u32::from_be_bytes(payload.try_into().unwrap()),
            // What asks whether somebody is there wants an answer.
            6 if flags & 1 == 0 => from.write_all(&frame(6, 1, 0, &payload)).unwrap(),
            7 => panic!("the connection ends: {payload:?}"),
            _ => {}
        }
    }
    (ended, room)
}

const RANGE: &str = "/etcdserverpb.KV/Range";

#[test]
fn grpc_fail_calls_on_one_connection_wait_and_fail_each_by_itself() {
    let etcd = Etcd::start();
    let begin = |proxied: &Proxied| {
        let mut stream = proxied.connect();
        let preface = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(4, 0, 0, &[]),
        ]
        .concat();
        stream.write_all(&preface).unwrap();
        stream
    };
    let slow = [("x-slow", "very")];
    let delayed = Proxied::start(
        "grpc-fail",
        etcd.port,
        json!({"header": {"X-Slow": "^v"}, "delay": "400ms"}),
    );
    let mut stream = begin(&delayed);
    let calls = [
        call(1, RANGE, &slow),
        call(3, RANGE, &[("x-slow", "not")]),
        message(1, 0),
        message(3, 0),
        call(5, RANGE, &slow),
        message(5, 0),
        call(7, RANGE, &[]),
        message(7, 0),
    ];
    stream.write_all(&calls.concat()).unwrap();
    let (mut ended, _) = ends(&mut stream, 4);
    ended[..2].sort_unstable();
    ended[2..].sort_unstable();
    assert_eq!(ended, [3, 7, 1, 5]);
    // Far more than the 65,535 bytes that a connection has room for, of which the upstream gets nothing.
    let failing = Proxied::start(
        "grpc-fail",
        etcd.port,
        json!({"header": {"x-slow": "very"}, "status": "INTERNAL"}),
    );
    let mut stream = begin(&failing);
    let mut room = 0;
    let mut sent = 0;
    for number in 0..20 {
        let id = 4 * number + 1;
        let failing = message(id, 8000);
        sent += failing.len() as u32 - 9;
        let calls = [
            call(id, RANGE, &slow),
            failing,
            call(id + 2, RANGE, &[]),
            message(id + 2, 0),
        ];
        stream.write_all(&calls.concat()).unwrap();
        let (mut ended, came) = ends(&mut stream, 2);
        ended.sort_unstable();
        assert_eq!(ended, [id, id + 2]);
        room += came;
    }
    assert!(sent > 160_000);
    // The room for the last one may still be on its way.
    assert!(room >= sent - 8100, "{room} of {sent}");
    assert_eq!(failing.figure("affected-requests"), 20.0);
    assert_eq!(failing.figure("requests"), 40.0);
}

#[test]
fn grpc_fail_what_is_no_http_2_passes_unchanged() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().port();
    let echo = std::thread::spawn(move || {
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            let mut came = Vec::new();
            stream.read_to_end(&mut came).unwrap();
            stream.write_all(&came).unwrap();
        }
    });
    let proxied = Proxied::start("grpc-fail", upstream, json!({"status": 14}));
    for sent in [
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1} a hello of TLS",
    ] {
        assert_eq!(proxied.talk(sent), sent);
    }
    echo.join().unwrap();
    // Frames that are none end the connection, not the proxy.
    let nonsense = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\u{1}\u{1}\u{4}\0\0\0\u{1}\u{7f}";
    let mut stream = proxied.connect();
    stream.write_all(nonsense.as_bytes()).ok();
    stream.read_to_end(&mut Vec::new()).ok();
    assert!(TcpStream::connect(("127.0.0.1", proxied.port)).is_ok());
}

#[test]
fn grpc_fail_bad_input_is_refused_with_its_place() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    for (more, at) in [
        (json!({}), "$"),
        (json!({"status": "OK"}), "$.status"),
        (json!({"status": 0}), "$.status"),
        (json!({"status": 17}), "$.status"),
        (json!({"status": "BROKEN"}), "$.status"),
        (
            json!({"status": 14, "service": "/etcdserverpb.KV"}),
            "$.service",
        ),
        (json!({"status": 14, "method": "KV/Range"}), "$.method"),
        (json!({"status": 14, "header": {"a": "("}}), "$.header.a"),
        (
            json!({"status": 14, "header": {"a b": "c"}}),
            "$.header.a b",
        ),
        (json!({"status": 14, "abort": true}), "$.abort"),
        (json!({"status": 14, "percent": 0}), "$.percent"),
        (json!({"delay": "2h"}), "$.delay"),
        (json!({"delay": "1s", "message": "no"}), "$.message"),
        (json!({"status": 14, "listen": "nowhere"}), "$.listen"),
        (json!({"status": 14, "path": "/"}), "$.path"),
    ] {
        let arguments = json!({"listen": "127.0.0.1:18080", "upstream": "10.9.0.2:80"});
        assert_refused_at(&host, "grpc-fail", arguments, &more, at);
    }
}
