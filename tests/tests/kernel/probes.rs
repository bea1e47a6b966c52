//! What an agent measures for a controller: the same as the controller itself would from there,
//! without being held up or brought down by it.

use backburn::providers::{EnvironmentAccess, HostAccess, ProbeContext, measure};
use backburn_experiments::HumanDuration;
use backburn_experiments::program_environment::ProgramEnvironment;
use backburn_experiments::wire::{Cause, Command as Say, InjectionRequest, ProbeOutcome, Report};
use backburn_tests::crash::Place;
use backburn_tests::isolated::in_namespaces;
use backburn_tests::odd_web::OddWeb;
use backburn_tests::processes;
use backburn_tests::served::Served;
use backburn_tests::wait::wait_within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a thing may take on a machine with better things to do.
const PATIENCE: Duration = Duration::from_secs(30);

fn closed_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has one").port()
}

fn by_the_controller(provider: &Value) -> ProbeOutcome {
    let provider = serde_json::from_value(provider.clone()).expect("a provider");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let environment: ProgramEnvironment =
        serde_json::from_value(environment()).expect("an environment");
    let context = ProbeContext {
        access: HostAccess {
            environment: EnvironmentAccess::Policy(Arc::new(environment)),
            ..HostAccess::default()
        },
        ..ProbeContext::default()
    };
    runtime.block_on(measure(&provider, None, &context))
}

/// The environment of programs in both policies.
fn environment() -> Value {
    json!({"allow": ["X"]})
}

/// What is the same whoever measures it: a value but for the time it took, and what is said of no value but for its words.
fn essence(outcome: &ProbeOutcome) -> Value {
    match outcome {
        ProbeOutcome::Output(value) => {
            let mut value = value.clone();
            if let Some(took) = value.get_mut("took") {
                assert!(took.as_f64().is_some_and(|took| took >= 0.0), "{took}");
                *took = Value::Null;
            }
            value
        }
        ProbeOutcome::NoAnswer(_) => "no answer".into(),
        ProbeOutcome::Broken(_) => "broken".into(),
    }
}

/// Those in plain words: what speaks TLS is different each time.
fn plainly(mut seen: Vec<String>) -> Vec<String> {
    seen.retain(|request| !request.starts_with('\u{16}'));
    seen
}

/// A server with a certificate that nobody knows.
fn secure() -> String {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let fixture = |name: &str| {
        let folder = backburn_tests::programs::root().join("controller/tests/fixtures");
        std::fs::read(folder.join(name)).expect("the fixture is there")
    };
    let certificate = CertificateDer::from(fixture("loopback-cert.der"));
    let key = PrivateKeyDer::try_from(fixture("loopback-key.der")).expect("a key");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they fit");
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let url = format!("https://{}/", listener.local_addr().expect("it has one"));
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("it fits");
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut buffer = [0; 4096];
            // A client that does not like the certificate goes away.
            if stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nin")
                    .ok();
                stream.conn.send_close_notify();
                stream.flush().ok();
            }
        }
    });
    url
}

#[test]
fn agent_probes_agree_with_the_controllers() {
    let (web, place) = (OddWeb::start(), Place::default());
    let policy = json!({"allow-programs": ["sh", "echo", "sleep", "/no/such"], "program-environment": environment()});
    let (mut served, _) = Served::start(&place, &policy);
    let url = format!("http://{}", web.address);
    let (closed, secure) = (closed_port(), secure());
    let at = |path: &str| json!({"type": "http", "url": format!("{url}{path}"), "timeout": 20});
    let with = |path: &str, more: Value| {
        let mut provider = at(path);
        let more = more.as_object().expect("an object").clone();
        provider.as_object_mut().expect("an object").extend(more);
        provider
    };
    let arguments = json!({"q": "a b&c", "n": 1, "yes": true, "many": [1, 2], "none": null});
    let is_json = json!({"Content-Type": "application/json"});
    let cases = [
        with("/json?x=1", json!({"arguments": arguments})),
        at("/json#part"),
        at("/problem"),
        at("/broken-json"),
        at("/none"),
        at("/old"),
        at("/chunks"),
        at("/soon"),
        at("/else with spaces"),
        at("/short"),
        with("/json", json!({"method": "head"})),
        with("/json", json!({"method": "options"})),
        with("/json", json!({"method": "delete"})),
        with("/json", json!({"method": "delete", "arguments": "why"})),
        with("/json", json!({"method": "PROPFIND", "arguments": "<x/>"})),
        with("/json", json!({"method": "post"})),
        with("/json", json!({"method": "put", "arguments": {"a": "x y"}})),
        with(
            "/json",
            json!({"method": "post", "arguments": {"a": "ä y"}, "headers": is_json}),
        ),
        with(
            "/json",
            json!({"method": "patch", "arguments": [1], "headers": {"X-Token": 12, "User-Agent": "me", "Host": "them"}}),
        ),
        json!({"type": "http", "url": url.replace("//", "//me:p%40ss@")}),
        at("/moved"),
        at("/moved-301"),
        with("/moved-301", json!({"method": "post", "arguments": "x"})),
        with(
            "/moved-303",
            json!({"method": "put", "arguments": {"a": 1}}),
        ),
        with("/moved-307", json!({"method": "post", "arguments": "x"})),
        at("/moved-308"),
        at("/nowhere"),
        at("/round"),
        at("/silent"),
        at("/noise"),
        with("/slow", json!({"timeout": 0.2})),
        with("/slow", json!({"timeout": [5, 0.2]})),
        json!({"type": "http", "url": format!("http://127.0.0.1:{closed}/"), "max_retries": 2}),
        json!({"type": "http", "url": "http://nobody.invalid/"}),
        json!({"type": "http", "url": "no address"}),
        json!({"type": "http", "url": "ftp://127.0.0.1/"}),
        with("/json", json!({"method": "G E T"})),
        with("/json", json!({"headers": {"a b": "c"}})),
        json!({"type": "http", "url": url.replace("http", "https"), "verify_tls": false}),
        json!({"type": "http", "url": secure}),
        json!({"type": "http", "url": secure, "verify_tls": false}),
        json!({"type": "tcp", "host": "127.0.0.1", "port": web.address.port()}),
        json!({"type": "tcp", "host": "[::ffff:127.0.0.1]", "port": web.address.port()}),
        json!({"type": "tcp", "host": "127.0.0.1", "port": closed}),
        json!({"type": "tcp", "host": "nobody.invalid", "port": 80}),
        json!({"type": "prometheus", "url": format!("{url}/"), "query": "up{a=\"b\"}"}),
        json!({"type": "prometheus", "url": format!("{url}/else"), "query": "up"}),
        json!({"type": "prometheus", "url": format!("http://127.0.0.1:{closed}"), "query": "up"}),
        json!({"type": "dns", "name": "localhost"}),
        json!({"type": "dns", "name": "localhost", "record": "aaaa"}),
        json!({"type": "dns", "name": "nobody.invalid"}),
        json!({"type": "process", "path": "sh", "arguments": ["-c", "echo out; echo err >&2; echo $X $0; exit 3"], "env": {"X": 7}}),
        json!({"type": "process", "path": "echo", "arguments": "a 'b  c'"}),
        json!({"type": "process", "path": "echo", "arguments": "a | b"}),
        json!({"type": "process", "path": "sh", "arguments": ["-c", "kill -TERM $$"]}),
        json!({"type": "process", "path": "sleep", "arguments": [600], "timeout": 0.2}),
        json!({"type": "process", "path": "/no/such"}),
    ];
    let mut different = Vec::new();
    for provider in &cases {
        web.seen();
        let controllers = by_the_controller(provider);
        let asked = web.seen();
        let agents = served.measures(provider, None);
        let same = essence(&controllers) == essence(&agents)
            && plainly(asked.clone()) == plainly(web.seen());
        if !same {
            different.push(format!(
                "{provider}\n  controller: {controllers:?}\n  agent: {agents:?}\n  asked: {asked:?}"
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn agent_probe_out_of_scope_is_refused_with_a_reason() {
    let (web, place) = (OddWeb::start(), Place::default());
    // A link to a program that is allowed is another program: where many are one file, each counts.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let linked = folder.path().join("echo");
    std::os::unix::fs::symlink("/bin/echo", &linked).expect("a link can be made");
    let (mut served, _) = Served::start(&place, &json!({"allow-programs": ["echo"]}));
    let url = format!("http://{}", web.address);
    for (provider, said) in [
        (
            json!({"type": "process", "path": "sh", "arguments": ["-c", "true"]}),
            "allow-programs",
        ),
        (json!({"type": "process", "path": linked}), "allow-programs"),
        (
            json!({"type": "process", "path": "./echo"}),
            "allow-programs",
        ),
        (
            json!({"type": "process", "path": "echo", "env": {"LD_PRELOAD": "x"}}),
            "LD_PRELOAD",
        ),
        (
            json!({"type": "python", "module": "m", "func": "f"}),
            "leave out `from`",
        ),
        (json!({"type": "host", "metric": "load1"}), "host"),
        (
            json!({"type": "fault", "fault": "cpu-stress"}),
            "is a fault",
        ),
        (
            json!({"type": "dns", "name": "x", "server": "127.0.0.1"}),
            "`server`",
        ),
        (
            json!({"type": "dns", "name": "x", "record": "MX"}),
            "`A` and `AAAA`",
        ),
    ] {
        match served.measures(&provider, None) {
            ProbeOutcome::Broken(why) => assert!(why.contains(said), "{provider}: {why}"),
            other => panic!("{provider}: {other:?}"),
        }
    }
    // A body that is too long is no reason to doubt the status.
    match served.measures(&json!({"type": "http", "url": format!("{url}/long")}), None) {
        ProbeOutcome::Output(answer) => {
            assert_eq!(answer["status"], 200, "{answer}");
            assert!(answer["body"].is_null(), "{answer}");
            let why = answer["body_error"].as_str().unwrap_or_default();
            assert!(why.contains("1 MiB"), "{answer}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        served.measures(&json!({"type": "process", "path": "echo"}), None),
        ProbeOutcome::Output(json!({"status": 0, "stdout": "\n", "stderr": ""}))
    );
    // Without a policy, no program at all.
    let place = Place::default();
    let (mut served, _) = Served::start(&place, &json!({}));
    let echo = json!({"type": "process", "path": "echo"});
    assert!(matches!(
        served.measures(&echo, None),
        ProbeOutcome::Broken(_)
    ));
}

#[test]
fn probe_without_its_own_timeout_has_the_activitys() {
    let place = Place::default();
    let (mut served, _) = Served::start(&place, &json!({"allow-programs": ["sleep"]}));
    let sleep = json!({"type": "process", "path": "sleep", "arguments": [600]});
    let outcome = served.measures(&sleep, Some(HumanDuration::millis(200)));
    assert_eq!(essence(&outcome), "no answer", "{outcome:?}");
}

#[test]
fn probes_beyond_thirty_two_at_a_time_are_refused() {
    let (web, place) = (OddWeb::start(), Place::default());
    let (mut served, _) = Served::start(&place, &json!({}));
    let slow =
        json!({"type": "http", "url": format!("http://{}/slow", web.address), "timeout": "10m"});
    let asked: Vec<u64> = (0..40).map(|_| served.asks(&slow, None)).collect();
    for late in &asked[32..] {
        match served.hears() {
            Report::Probed {
                request,
                outcome: ProbeOutcome::Broken(why),
            } => assert!(request == *late && why.contains("32"), "{request}: {why}"),
            other => panic!("{other:?}"),
        }
    }
}

struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn hung_probe_delays_neither_heartbeat_nor_revert() {
    in_namespaces(&["unshare", "sleep"], || {
        // In the namespaces of the test, `sleep` is looked at by its own /proc.
        let victim = Victim(
            Command::new("sleep")
                .arg("1000")
                .spawn()
                .expect("it starts"),
        );
        let place = Place::default();
        let policy = json!({"allow-programs": ["sleep"]});
        let (mut served, _) = Served::start(&place, &policy);
        let lease = HumanDuration::seconds(4);
        served.beats(lease);
        for _ in 0..8 {
            let hangs =
                json!({"type": "process", "path": "sleep", "arguments": [900], "timeout": "10m"});
            served.asks(&hangs, None);
        }
        let request = json!({
            "id": "trial", "run": "run", "fault": "process-pause", "duration": "60s", "seed": 1,
            "arguments": {"process": {"pid": victim.0.id()}},
        });
        let injection: InjectionRequest = serde_json::from_value(request).expect("a request");
        served.says(&Say::Inject {
            request: 1000,
            injection,
        });
        // Twice the lease: it is the beats that keep the fault. The worker answers whatever else it is asked.
        let began = Instant::now();
        let mut acts = false;
        while began.elapsed() < lease.0 * 2 {
            served.beats(lease);
            let metric = serde_json::from_value(json!({"metric": "load1"})).expect("a metric");
            served.says(&Say::Measure {
                request: 1001,
                metric,
            });
            loop {
                match served.hears() {
                    Report::Effect { effect, .. } => acts = effect.acts,
                    Report::Injected { .. } => {}
                    Report::Measured { .. } => break,
                    other => panic!("{other:?}"),
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(acts);
        served.says(&Say::Revert {
            injection: "trial".into(),
        });
        let ended = loop {
            match served.hears() {
                Report::Ended(ended) => break ended,
                Report::Effect { .. } => {}
                other => panic!("nothing was measured yet, and it says {other:?}"),
            }
        };
        assert_eq!((ended.cause, ended.clean), (Cause::ControllerRequest, true));
        let hanging = || {
            let all = processes::named("sleep").into_iter();
            all.filter(|process| process.pid != victim.0.id() as i32)
                .count()
        };
        assert_eq!(hanging(), 8);
        // The agent ends, and what it measures with it.
        drop(served);
        wait_within("all are gone", PATIENCE, || hanging() == 0);
    });
}

fn pid_in(file: &Path) -> i32 {
    let mut pid = None;
    wait_within("a process id is written", PATIENCE, || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        pid.is_some()
    });
    pid.expect("it was waited for")
}

fn is_gone(pid: i32) -> bool {
    processes::process(pid).is_none_or(|process| matches!(process.state, 'Z' | 'X'))
}

/// What a program has left running; a test ends it.
struct Left(i32);

impl Drop for Left {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.0), Signal::SIGKILL).ok();
    }
}

#[test]
fn probe_that_leaves_a_daemon_ends_with_its_own_exit() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let place = Place::default();
    let (mut served, _) = Served::start(&place, &json!({"allow-programs": ["sh"]}));
    let (pid, marks) = (folder.path().join("pid"), folder.path().join("marks"));
    let daemon = format!(
        "echo $$ > {pid}; while sleep 0.05; do echo out && echo err >&2 && echo x >> {marks}; done",
        pid = pid.display(),
        marks = marks.display()
    );
    let script = format!("sh -c '{daemon}' & echo ok");
    let leaves = json!({"type": "process", "path": "sh", "arguments": ["-c", script]});
    let outcome = served.measures(&leaves, None);
    let value = essence(&outcome);
    assert_eq!(value["status"], 0, "{outcome:?}");
    assert!(
        value["stdout"]
            .as_str()
            .is_some_and(|said| said.contains("ok")),
        "{outcome:?}"
    );
    let left = Left(pid_in(&pid));
    let marked = || std::fs::metadata(&marks).map_or(0, |file| file.len());
    let before = marked();
    wait_within("the daemon writes on", PATIENCE, || marked() > before + 8);
    // Nor does the agent's end end it.
    drop(served);
    let before = marked();
    wait_within("the daemon writes on", PATIENCE, || marked() > before + 8);
    assert!(!is_gone(left.0));
}

#[test]
fn probe_that_is_ended_takes_its_program_with_it() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let place = Place::default();
    let (mut served, _) = Served::start(&place, &json!({"allow-programs": ["sh"]}));
    let provider = |file: &Path, timeout: &str| {
        let script = format!("echo $$ > {}; while :; do sleep 0.1; done", file.display());
        json!({"type": "process", "path": "sh", "arguments": ["-c", script], "timeout": timeout})
    };
    // Its time is over.
    let file = folder.path().join("late");
    let outcome = served.measures(&provider(&file, "2s"), None);
    assert_eq!(essence(&outcome), "no answer", "{outcome:?}");
    let program = pid_in(&file);
    wait_within("the late one is gone", PATIENCE, || is_gone(program));
    // The worker is killed.
    let file = folder.path().join("killed");
    served.asks(&provider(&file, "10m"), None);
    let program = pid_in(&file);
    assert!(!is_gone(program));
    let guardian = served.agent.id() as i32;
    let worker = processes::of_backburn()
        .into_iter()
        .find(|process| process.parent == guardian)
        .expect("the guardian has a worker");
    kill(Pid::from_raw(worker.pid), Signal::SIGKILL).expect("it is there");
    wait_within("the killed worker's program is gone", PATIENCE, || {
        is_gone(program)
    });
}
