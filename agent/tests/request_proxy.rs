//! Requests that fail, wait or get other answers on their way through a proxy: HTTP of `curl` to a server in Python, and commands to a
//! real Redis.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod look;
mod made;
mod made_host;
mod proxied;

use common::{VictimProcess, until};
use look::plan;
use made_host::MadeHost;
use proxied::{Proxied, free_port};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Answers each request with its method, path and body: of a known length; in chunks below `/chunks`; to the end below `/end`.
const SERVER: &str = "
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do(self):
        length = int(self.headers.get('Content-Length') or 0)
        text = f'{self.command} {self.path} '.encode() + self.rfile.read(length)
        self.send_response(200)
        self.send_header('Etag', 'one')
        if self.path.startswith('/chunks'):
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            for byte in text:
                self.wfile.write(b'1\\r\\n' + bytes([byte]) + b'\\r\\n')
            self.wfile.write(b'0\\r\\n\\r\\n')
        elif self.path.startswith('/end'):
            self.send_header('Connection', 'close')
            self.end_headers()
            self.wfile.write(text)
        else:
            self.send_header('Content-Length', str(len(text)))
            self.end_headers()
            if self.command != 'HEAD': self.wfile.write(text)
    do_GET = do_POST = do_HEAD = do
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()";

fn http_server() -> (VictimProcess, u16) {
    let mut server = VictimProcess::start(Command::new("python3").args(["-c", SERVER]));
    let port = server.line().parse().unwrap();
    (server, port)
}

#[test]
fn http_fail_chosen_requests_fail_and_others_pass_on_one_connection() {
    let (_server, upstream) = http_server();
    let proxied = Proxied::start(
        "http-fail",
        upstream,
        json!({"method": ["get", "HEAD"], "path": "^/api/", "header": {"X-Team": "^pay"}, "status": 503, "body": "broken",
               "response-headers": {"retry-after": "30", "etag": null}}),
    );
    let team = "Host: a\r\nX-Team: payments\r\n";
    let came = proxied.talk(&format!(
        "GET /api/1 HTTP/1.1\r\n{team}\r\n\
         POST /api/1 HTTP/1.1\r\n{team}Content-Length: 4\r\n\r\nword\
         GET /other HTTP/1.1\r\n{team}\r\n\
         GET /api/2 HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /chunks HTTP/1.1\r\n{team}\r\n\
         HEAD /api/3 HTTP/1.1\r\n{team}\r\n\
         GET /api/4 HTTP/1.1\r\n{team}Content-Length: 6\r\n\r\nunread\
         GET /end HTTP/1.1\r\n{team}\r\n"
    ));
    let statuses: Vec<&str> = came
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(
        statuses,
        ["503", "200", "200", "200", "200", "503", "503", "200"],
        "{came}"
    );
    assert_eq!(
        came.matches("broken").count(),
        2,
        "HEAD has no body: {came}"
    );
    assert_eq!(came.matches("retry-after: 30").count(), 3);
    for passed in [
        "POST /api/1 word",
        "GET /other ",
        "GET /api/2 ",
        "GET /end ",
    ] {
        assert!(came.contains(passed), "{passed}: {came}");
    }
    assert_eq!(proxied.figure("requests"), 8.0);
    assert_eq!(proxied.figure("affected-requests"), 3.0);
}

#[test]
fn http_fail_answers_of_the_upstream_are_changed_whatever_their_framing() {
    let (_server, upstream) = http_server();
    let changed = json!({"body": "other", "response-headers": {"etag": null, "x-new": "1"}});
    let proxied = Proxied::start("http-fail", upstream, changed);
    for path in ["/length", "/chunks", "/end"] {
        let came = proxied.talk(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(came.ends_with("Content-Length: 5\r\n\r\nother"), "{came}");
        assert!(
            came.contains("x-new: 1") && !came.contains("Etag"),
            "{came}"
        );
        assert!(!came.to_lowercase().contains("transfer-encoding"), "{came}");
    }
    // Headers alone leave the body as it is.
    let proxied = Proxied::start(
        "http-fail",
        upstream,
        json!({"response-headers": {"x-new": "1"}}),
    );
    let came = proxied.talk("GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        came.contains("x-new: 1") && came.ends_with("0\r\n\r\n"),
        "{came}"
    );
}

#[test]
fn http_fail_delays_resets_and_ends_with_its_helper() {
    let (_server, upstream) = http_server();
    let delayed = Proxied::start(
        "http-fail",
        upstream,
        json!({"path": "slow", "delay": "300ms"}),
    );
    let begin = Instant::now();
    assert!(
        delayed
            .talk("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            .contains("200")
    );
    assert!(begin.elapsed() >= Duration::from_millis(300));
    let mut reset = Proxied::start(
        "http-fail",
        upstream,
        json!({"path": "^/lost", "abort": true}),
    );
    let mut stream = reset.connect();
    stream
        .write_all(b"GET /lost HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(
        reset
            .talk("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n")
            .contains("200")
    );
    assert_eq!(reset.figure("affected-requests"), 1.0);
    // In the middle of a connection.
    reset.kill();
    assert!(TcpStream::connect(("127.0.0.1", reset.port)).is_err());
    assert!(!reset.acts());
}

#[test]
fn http_fail_what_is_no_http_1_passes_unchanged() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().port();
    let echo = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut came = Vec::new();
            stream.read_to_end(&mut came).unwrap();
            stream.write_all(&came).unwrap();
        }
    });
    let proxied = Proxied::start("http-fail", upstream, json!({"status": 500}));
    for sent in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes",
        "\u{16}\u{3}\u{1} a hello of TLS",
    ] {
        assert_eq!(proxied.talk(sent), sent);
    }
    echo.join().unwrap();
    assert_eq!(proxied.figure("affected-requests"), 0.0);
}

#[test]
fn http_fail_share_of_requests_is_affected_for_that_share() {
    let (_server, upstream) = http_server();
    let proxied = Proxied::start("http-fail", upstream, json!({"status": 429, "percent": 30}));
    let came = proxied.talk(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200));
    let failed = came.matches("HTTP/1.1 429").count();
    assert!((30..=90).contains(&failed), "{failed}");
    assert_eq!(came.matches("HTTP/1.1 200").count(), 200 - failed);
}

#[test]
fn redis_fail_chosen_commands_fail_and_others_pass_in_order() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let upstream = free_port();
    let _server = VictimProcess::start(
        Command::new("redis-server")
            .args(["--save", "", "--port", &upstream.to_string()])
            .current_dir(folder.path()),
    );
    until("Redis answers", || {
        TcpStream::connect(("127.0.0.1", upstream)).is_ok()
    });
    let error = "LOADING not yet";
    let proxied = Proxied::start(
        "redis-fail",
        upstream,
        json!({"command": ["get", "SET"], "key": "^session:", "error": error}),
    );
    let command = |words: &[&str]| {
        let words: String = words
            .iter()
            .map(|word| format!("${}\r\n{word}\r\n", word.len()))
            .collect();
        words
    };
    let sent = |words: &[&str]| format!("*{}\r\n{}", words.len(), command(words));
    let all = [
        sent(&["SET", "other", "value"]),
        sent(&["GET", "other"]),
        sent(&["set", "session:1", &"v".repeat(100_000)]),
        sent(&["GET", "session:1"]),
        sent(&["MGET", "other", "session:1"]),
        sent(&["SET", "session:2", "v", "EX", "10"]),
        sent(&["HGETALL", "none"]),
        "PING\r\n".to_owned(),
    ];
    let came = proxied.talk(&all.concat());
    let failed = format!("-{error}\r\n");
    let wanted = format!(
        "+OK\r\n$5\r\nvalue\r\n{failed}{failed}*2\r\n$5\r\nvalue\r\n$-1\r\n{failed}*0\r\n+PONG\r\n"
    );
    assert_eq!(came, wanted);
    assert_eq!(proxied.figure("affected-requests"), 3.0);
    // Values of version 3, and a subscription, of which messages come without commands.
    let mut subscriber = proxied.connect();
    let subscribe = sent(&["HELLO", "3"]) + &sent(&["SUBSCRIBE", "news"]);
    subscriber.write_all(subscribe.as_bytes()).unwrap();
    let mut came = String::new();
    let mut room = [0; 4096];
    let mut read_until = |end: &str| {
        while !came.ends_with(end) {
            let count = subscriber.read(&mut room).unwrap();
            assert!(count > 0, "{came}");
            came += &String::from_utf8_lossy(&room[..count]);
        }
    };
    read_until(">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    assert_eq!(proxied.talk(&sent(&["PUBLISH", "news", "hello"])), ":1\r\n");
    read_until("$5\r\nhello\r\n");
    let delayed = Proxied::start(
        "redis-fail",
        upstream,
        json!({"command": "PING", "delay": "200ms"}),
    );
    let begin = Instant::now();
    assert_eq!(delayed.talk("PING\r\n"), "+PONG\r\n");
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[test]
fn request_faults_bad_input_is_refused_with_its_place() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    for (fault, more, at) in [
        ("http-fail", json!({"status": 503}), ""),
        ("http-fail", json!({}), "$"),
        ("http-fail", json!({"status": 99}), "$.status"),
        ("http-fail", json!({"status": 503, "path": "("}), "$.path"),
        (
            "http-fail",
            json!({"status": 503, "header": {"a": "("}}),
            "$.header.a",
        ),
        (
            "http-fail",
            json!({"status": 503, "header": {"a b": "x"}}),
            "$.header.a b",
        ),
        (
            "http-fail",
            json!({"status": 503, "method": "G E T"}),
            "$.method",
        ),
        (
            "http-fail",
            json!({"status": 503, "abort": true}),
            "$.abort",
        ),
        (
            "http-fail",
            json!({"status": 503, "percent": 0}),
            "$.percent",
        ),
        ("http-fail", json!({"delay": "2h"}), "$.delay"),
        (
            "http-fail",
            json!({"response-headers": {"Content-Length": "1"}}),
            "$.response-headers.Content-Length",
        ),
        (
            "http-fail",
            json!({"response-headers": {"a": "1\r\nb: 2"}}),
            "$.response-headers.a",
        ),
        ("postgres-fail", json!({"code": "40001"}), ""),
        ("postgres-fail", json!({}), "$"),
        ("postgres-fail", json!({"code": "00000"}), "$.code"),
        ("postgres-fail", json!({"code": "4000"}), "$.code"),
        (
            "postgres-fail",
            json!({"delay": "1s", "message": "no"}),
            "$.message",
        ),
        (
            "postgres-fail",
            json!({"code": "40001", "abort": true}),
            "$.abort",
        ),
        (
            "postgres-fail",
            json!({"code": "40001", "command": "SELECT 1"}),
            "$.command",
        ),
        (
            "postgres-fail",
            json!({"code": "40001", "statement": "("}),
            "$.statement",
        ),
        ("redis-fail", json!({"error": "ERR no"}), ""),
        ("redis-fail", json!({}), "$"),
        ("redis-fail", json!({"error": "two\nlines"}), "$.error"),
        (
            "redis-fail",
            json!({"error": "ERR no", "key": "["}),
            "$.key",
        ),
        (
            "redis-fail",
            json!({"error": "ERR no", "command": "G T"}),
            "$.command",
        ),
        (
            "redis-fail",
            json!({"error": "ERR no", "listen": "nowhere"}),
            "$.listen",
        ),
        (
            "redis-fail",
            json!({"error": "ERR no", "upstream": "db.example"}),
            "$.upstream",
        ),
        (
            "redis-fail",
            json!({"error": "ERR no", "upstream": "127.0.0.1:18080"}),
            "$.upstream",
        ),
    ] {
        let mut arguments = json!({"listen": "127.0.0.1:18080", "upstream": "10.0.0.7:80"});
        arguments
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let refused = plan(&host, fault, arguments.clone()).err();
        let places = refused.map_or(vec![String::new()], |refusal| {
            let problems = refusal.problems.iter();
            problems.map(|problem| problem.at.clone()).collect()
        });
        assert_eq!(places, [at], "{fault} {arguments}");
    }
    let protected = json!({"listen": "127.0.0.1:18080", "upstream": "10.0.0.7:22", "status": 500});
    assert_eq!(
        plan(&host, "http-fail", protected).unwrap_err().rule,
        "protected"
    );
}
