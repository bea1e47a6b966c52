//! Real servers whose clocks are wrong: what they tell their clients of the time, while the fault acts and after it.

use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::software::{Software, free_port};
use backburn_tests::wait::wait_within;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// How far a server's clock may be from this test's, in seconds, on a busy machine.
const TOLERANCE: i64 = 30;

fn inject(place: &Place, process: &Value, offset: &str) -> Child {
    let process = process.to_string();
    // As a person would write it: a flag whose value begins with a sign.
    let arguments = format!("{{\"process\": {process}}}");
    let words = [
        "inject",
        "clock-skew",
        "--duration",
        "60s",
        "--arguments",
        &arguments,
        "--offset",
        offset,
    ];
    place.agent(&words, None).spawn().expect("the agent starts")
}

fn end(mut injecting: Child, place: &Place) {
    kill(Pid::from_raw(injecting.id() as i32), Signal::SIGINT).expect("it is there");
    injecting.wait().expect("it ends");
    assert!(place.ledger().is_empty());
}

/// How far this clock is ahead of this test's, in seconds.
fn ahead(seconds: i64) -> i64 {
    seconds - Timestamp::now().as_second()
}

#[track_caller]
fn comes_to(what: &str, offset: i64, mut clock: impl FnMut() -> i64) {
    wait_within(&format!("{what} is ahead by {offset} s"), SOON, || {
        (ahead(clock()) - offset).abs() < TOLERANCE
    });
}

#[test]
fn redis_with_skewed_clock_reports_wrong_time_until_the_end() {
    in_namespaces(&["redis-server", "redis-cli"], || {
        let (place, port) = (Place::default(), free_port());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new("redis-server");
        command
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--port",
                &port.to_string(),
                "--dir",
            ])
            .arg(folder.path())
            .stdout(Stdio::null());
        let mut redis = Software::start(&mut command);
        redis.wait_for_port(port);
        let cli = |words: &[&str]| {
            let output = Command::new("redis-cli")
                .args(["-p", &port.to_string()])
                .args(words)
                .output();
            String::from_utf8_lossy(&output.expect("it starts").stdout)
                .trim()
                .to_owned()
        };
        let time = || {
            let said = cli(&["time"]);
            said.lines()
                .next()
                .and_then(|line| line.parse().ok())
                .unwrap_or_default()
        };
        comes_to("the clock of Redis", 0, time);
        assert_eq!(cli(&["set", "session", "open", "ex", "1800"]), "OK");
        let injecting = inject(&place, &json!({"name": "redis-server"}), "+1h");
        comes_to("the clock of Redis", 3600, time);
        // What people want to know of a wrong clock: the session has expired before its time.
        assert_eq!(cli(&["get", "session"]), "");
        end(injecting, &place);
        comes_to("the clock of Redis", 0, time);
        let injecting = inject(&place, &json!({"pid": redis.pid()}), "-1d");
        comes_to("the clock of Redis", -86_400, time);
        end(injecting, &place);
        comes_to("the clock of Redis", 0, time);
        assert_eq!(cli(&["ping"]), "PONG");
    });
}

#[test]
fn nginx_with_skewed_clock_dates_its_answers_wrong_until_the_end() {
    in_namespaces(&["nginx"], || {
        let (place, port) = (Place::default(), free_port());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let here = folder.path().display();
        let text = format!(
            "user root; worker_processes 2; daemon off; pid {here}/pid; error_log stderr crit;\n\
             events {{}}\nhttp {{ access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 'well'; }} }} }}\n"
        );
        let configuration = folder.path().join("nginx.conf");
        std::fs::write(&configuration, text).expect("a temporary folder can be written to");
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-c"]).arg(&configuration);
        let mut nginx = Software::start(&mut command);
        nginx.wait_for_port(port);
        let date = || {
            let mut stream =
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("nginx answers");
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(request).expect("nginx reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("nginx answers");
            let line = answer.lines().find_map(|line| line.strip_prefix("Date: "));
            let date = rfc2822::parse(line.expect("an answer has a date")).expect("it is one");
            date.timestamp().as_second()
        };
        comes_to("the clock of nginx", 0, date);
        let all = json!({"name": "nginx", "select": "all"});
        let injecting = inject(&place, &all, "-1h");
        comes_to("the clock of nginx", -3600, date);
        // Either worker answers.
        for _ in 0..20 {
            assert!((ahead(date()) + 3600).abs() < TOLERANCE);
        }
        // A worker that the master forks meanwhile has inherited the clock, and gets the right one at the end, too.
        kill(Pid::from_raw(nginx.pid()), Signal::SIGHUP).expect("it is there");
        comes_to("the clock of nginx", -3600, date);
        end(injecting, &place);
        for _ in 0..20 {
            comes_to("the clock of nginx", 0, date);
        }
    });
}
