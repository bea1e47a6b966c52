//! Requests that `http-load` sends to a real nginx, and what it may not be asked for.
// Tests start and make what they harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod look;
mod made;
mod made_host;
mod proxied;

use backburn_agent::helpers::HelperSpec;
use backburn_agent::plan::LocalHost;
use backburn_agent::policy::HostPolicy;
use backburn_agent::probes::ProbeJob;
use backburn_agent::processes::ProcessTable;
use backburn_experiments::document::Provider;
use backburn_experiments::wire::{Effect, ProbeOutcome};
use common::{Helper, VictimProcess, until};
use look::{assert_refused_at, helper_of, plan};
use made_host::MadeHost;
use proxied::free_port;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::process::Command;

/// nginx on a free port, whose log has a line for each request.
struct Nginx {
    _process: VictimProcess,
    folder: tempfile::TempDir,
    port: u16,
}

impl Nginx {
    fn start() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let at = folder.path().display();
        let port = free_port();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
             events {{ worker_connections 1024; }}
             http {{ access_log {at}/access.log; client_body_temp_path {at}/body; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
                     uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                     server {{ listen 127.0.0.1:{port}; location / {{ return 200 'hello'; }} location /no {{ return 503; }} }} }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let process = VictimProcess::start(Command::new("nginx").arg("-c").arg(&file));
        until("nginx answers", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Nginx {
            _process: process,
            folder,
            port,
        }
    }

    /// The requests that it has served.
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }
}

fn spec(arguments: Value) -> HelperSpec {
    helper_of(&plan(&LocalHost::default(), "http-load", arguments).unwrap())
}

fn effect(spec: &HelperSpec, helper: &Helper) -> Effect {
    spec.helper()
        .effect(helper.id.pid, &ProcessTable::default())
}

#[test]
fn http_load_nginx_serves_what_is_counted_until_the_helper_dies() {
    let nginx = Nginx::start();
    let url = format!("http://127.0.0.1:{}/orders?n=1", nginx.port);
    let load =
        spec(json!({"url": url, "rate": 300, "headers": {"user-agent": "peak"}, "body": "{}"}));
    let mut helper = Helper::start(&load, 60_000);
    helper.ready();
    until("600 requests are sent", || {
        effect(&load, &helper).figures["answered-requests"] >= 600.0
    });
    let seen = effect(&load, &helper);
    assert!(seen.acts, "{seen:?}");
    assert_eq!(seen.figures["failed-requests"], 0.0);
    let p99 = seen.figures["p99-milliseconds"];
    assert!(
        p99 > 0.0 && p99 <= seen.figures["longest-milliseconds"],
        "{seen:?}"
    );
    helper.kill();
    assert!(!effect(&load, &helper).acts);
    let log = nginx.log();
    let posts = log
        .lines()
        .filter(|line| line.contains("\"POST /orders?n=1 HTTP/1.1\" 200 5 \"-\" \"peak\""));
    let posts = posts.count() as f64;
    assert!(
        posts >= seen.figures["answered-requests"],
        "{posts}: {seen:?}"
    );
    // Nothing is sent once it is dead.
    assert!(
        posts <= seen.figures["answered-requests"] + 300.0,
        "{posts}"
    );
}

#[test]
fn http_load_failures_count_and_a_target_that_is_not_there_is_no_effect() {
    let nginx = Nginx::start();
    let load = spec(json!({"url": format!("http://127.0.0.1:{}/no", nginx.port), "rate": 100}));
    let helper = Helper::start(&load, 60_000);
    until("requests fail", || {
        effect(&load, &helper).figures["failed-requests"] >= 50.0
    });
    assert!(
        effect(&load, &helper).acts,
        "the service is loaded all the same"
    );
    let load = spec(json!({"url": format!("http://127.0.0.1:{}/", free_port()), "rate": 100}));
    let helper = Helper::start(&load, 60_000);
    until("requests are refused", || {
        effect(&load, &helper).figures["failed-requests"] >= 50.0
    });
    let seen = effect(&load, &helper);
    assert!(
        !seen.acts && seen.figures["sent-requests"] == 0.0,
        "{seen:?}"
    );
}

#[test]
fn load_probe_on_an_agent_obeys_its_policy() {
    let nginx = Nginx::start();
    let measured = |policy: Value, rate: f64| {
        let url = format!("http://localhost:{}/", nginx.port);
        let provider = json!({"type": "load", "url": url, "rate": rate, "duration": "300ms"});
        let provider: Provider = serde_json::from_value(provider).unwrap();
        let policy: HostPolicy = serde_json::from_value(policy).unwrap();
        let job = ProbeJob::new(provider, None, &policy).unwrap();
        serde_json::from_slice::<ProbeOutcome>(&job.run()).unwrap()
    };
    let ProbeOutcome::Output(value) = measured(json!({"max-request-rate": 100}), 100.0) else {
        panic!("it is measured")
    };
    assert_eq!(
        (&value["answered"], &value["error_rate"]),
        (&json!(30), &json!(0.0))
    );
    for (policy, rate, rule) in [
        (json!({"max-request-rate": 100}), 101.0, "max-request-rate"),
        (
            json!({"deny-http": ["127.0.0.0/8", "::1"]}),
            5.0,
            "deny-http",
        ),
    ] {
        let outcome = measured(policy, rate);
        assert!(
            matches!(&outcome, ProbeOutcome::Broken(why) if why.contains(rule)),
            "{outcome:?}"
        );
    }
}

#[test]
fn http_load_bad_input_is_refused_with_its_place() {
    let made = made::Made::new();
    let host = MadeHost::new(&made);
    for (more, at) in [
        (json!({"url": "ftp://a/"}), "$.url"),
        (json!({"url": "http:///"}), "$"),
        (json!({"url": "http://127.0.0.1:0/"}), "$"),
        (json!({"rate": 0}), "$.rate"),
        (json!({"rate": -5}), "$.rate"),
        (json!({"rate": 1e9}), "$.rate"),
        (json!({"rate": "fast"}), "$.rate"),
        (json!({"burst": 0}), "$.burst"),
        (json!({"connections": 0}), "$.connections"),
        (json!({"connections": 5000}), "$.connections"),
        (json!({"timeout": "0s"}), "$.timeout"),
        (json!({"timeout": "2h"}), "$.timeout"),
        (json!({"ramp": "2h"}), "$.ramp"),
        (json!({"method": "G T"}), "$"),
        (json!({"method": "get", "body": "x"}), "$.body"),
        (json!({"headers": {"a b": "c"}}), "$"),
        (json!({"headers": {"a": "b\r\nc: d"}}), "$"),
        (json!({"requests": 5}), "$.requests"),
    ] {
        let arguments = json!({"url": "http://10.9.0.2/", "rate": 5});
        assert_refused_at(&host, "http-load", arguments, &more, at);
    }
}

#[test]
fn http_load_never_at_what_the_policy_protects() {
    let host = LocalHost::default();
    for (url, rule, said) in [
        ("http://127.0.0.1:22/", "protected", "port 22"),
        (
            "http://169.254.169.254/latest/meta-data/",
            "policy",
            "allow-http",
        ),
        ("http://nobody.invalid/", "no-match", ""),
    ] {
        let refusal = plan(&host, "http-load", json!({"url": url, "rate": 5})).unwrap_err();
        assert_eq!(refusal.rule, rule, "{refusal:?}");
        assert!(refusal.what.contains(said), "{refusal:?}");
    }
}
