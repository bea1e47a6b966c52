//! What probes may use of the host that measures them: no environment but what is allowed, and no link-local address.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::providers::{EnvironmentAccess, HostAccess, ProbeContext, measure};
use backburn_experiments::destination::DestinationRules;
use backburn_experiments::document::Provider;
use backburn_experiments::program_environment::{DEFAULT_PATH, ProgramEnvironment};
use backburn_experiments::wire::ProbeOutcome;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn ask(provider: Value, access: HostAccess) -> ProbeOutcome {
    let provider: Provider = serde_json::from_value(provider).unwrap();
    let context = ProbeContext {
        access,
        ..ProbeContext::default()
    };
    let measured = measure(&provider, None, &context);
    tokio::time::timeout(Duration::from_secs(60), measured)
        .await
        .unwrap()
}

fn broken(measured: ProbeOutcome) -> String {
    match measured {
        ProbeOutcome::Broken(why) => why,
        other => panic!("{other:?}"),
    }
}

/// The environment of `env`, as it prints it.
async fn environment(env: Value, environment: EnvironmentAccess) -> Vec<String> {
    let access = HostAccess {
        environment,
        ..HostAccess::default()
    };
    match ask(
        json!({"type": "process", "path": "env", "env": env}),
        access,
    )
    .await
    {
        ProbeOutcome::Output(value) => {
            let printed = value["stdout"].as_str().unwrap().to_owned();
            printed.lines().map(str::to_owned).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn policy(policy: Value) -> EnvironmentAccess {
    let policy: ProgramEnvironment = serde_json::from_value(policy).unwrap();
    EnvironmentAccess::Policy(Arc::new(policy))
}

#[tokio::test]
async fn program_by_policy_has_only_the_variables_that_it_names() {
    let path = format!("PATH={DEFAULT_PATH}");
    let found = environment(json!({}), EnvironmentAccess::default()).await;
    assert_eq!(found, std::slice::from_ref(&path));
    let named = policy(json!({
        "pass": ["CARGO_MANIFEST_DIR", "NO_SUCH_VARIABLE"], "set": {"LANG": "C"}, "allow": ["PGUSER"],
    }));
    let mut found = environment(json!({"PGUSER": "x"}), named).await;
    found.sort();
    let manifest = format!("CARGO_MANIFEST_DIR={}", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(found, [manifest, "LANG=C".into(), path, "PGUSER=x".into()]);
}

#[tokio::test]
async fn probe_variable_that_the_policy_does_not_allow_is_refused() {
    for name in ["PGHOST", "LD_PRELOAD", "PERL5OPT", "BASH_ENV", "PATH"] {
        let provider = json!({"type": "process", "path": "env", "env": {name: "x"}});
        let why = broken(ask(provider, HostAccess::default()).await);
        assert!(why.contains(&format!("`{name}`")), "{why}");
    }
}

#[tokio::test]
async fn program_of_a_local_run_has_the_users_environment() {
    let found = environment(json!({"MINE": "here"}), EnvironmentAccess::User).await;
    let has = |start: &str| found.iter().any(|line| line.starts_with(start));
    assert!(has("CARGO_MANIFEST_DIR=") && has("MINE=here"), "{found:?}");
}

#[tokio::test]
async fn python_function_by_policy_has_no_environment() {
    // `os.environ` is an object that knows its variables: its keys are the answer.
    let provider = json!({"type": "python", "module": "os.environ.keys", "func": "__call__"});
    let said = format!("{:?}", ask(provider, HostAccess::default()).await);
    assert!(!said.contains("CARGO_"), "{said}");
    let provider = json!({"type": "python", "module": "os", "func": "getenv", "arguments": {"key": "CARGO_MANIFEST_DIR"}});
    let found = ask(provider, HostAccess::default()).await;
    assert_eq!(found, ProbeOutcome::Output(Value::Null));
}

#[tokio::test]
async fn link_local_address_is_refused_at_once_in_every_spelling() {
    let began = Instant::now();
    for host in [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[fe80::1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
    ] {
        let url = format!("http://{host}/latest/meta-data/");
        for provider in [
            json!({"type": "http", "url": url, "max_retries": 3}),
            json!({"type": "tcp", "host": host, "port": 80}),
            json!({"type": "prometheus", "url": url, "query": "up"}),
        ] {
            let why = broken(ask(provider.clone(), HostAccess::default()).await);
            assert!(
                why.contains("link-local") && why.contains("`allow-http`"),
                "{why}: {provider}"
            );
        }
    }
    let provider = json!({"type": "dns", "name": "x.example", "server": "169.254.169.253"});
    let why = broken(ask(provider, HostAccess::default()).await);
    assert!(why.contains("link-local"), "{why}");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "something was connected to"
    );
}

#[tokio::test]
async fn policy_says_which_destinations_may_be_asked() {
    let (address, _) = server(|_| "HTTP/1.1 204 No Content\r\n\r\n".into()).await;
    let access = |allow: Option<Value>, deny: Value| HostAccess {
        destinations: Arc::new(DestinationRules {
            allow: allow.map(|allow| serde_json::from_value(allow).unwrap()),
            deny: serde_json::from_value(deny).unwrap(),
        }),
        ..HostAccess::default()
    };
    let provider = json!({"type": "http", "url": format!("http://{address}/")});
    let fine = access(Some(json!(["127.0.0.0/8"])), json!([]));
    let answered = ask(provider.clone(), fine).await;
    assert!(matches!(answered, ProbeOutcome::Output(_)), "{answered:?}");
    let other = access(Some(json!(["127.0.0.1:1", "shop.example"])), json!([]));
    let why = broken(ask(provider.clone(), other).await);
    assert!(why.contains("`allow-http`"), "{why}");
    let why = broken(ask(provider, access(None, json!(["127.0.0.1"]))).await);
    assert!(why.contains("`deny-http`"), "{why}");
}

/// A server that answers each request by its text, and keeps what it was sent.
async fn server(
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let answer = answer(&text);
            keep.lock().unwrap().push(text);
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (address, seen)
}

#[tokio::test]
async fn redirect_to_a_link_local_address_is_refused() {
    let redirect = |_: &str| {
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
            .into()
    };
    let (address, _) = server(redirect).await;
    let provider = json!({"type": "http", "url": format!("http://{address}/")});
    let why = broken(ask(provider, HostAccess::default()).await);
    assert!(why.contains("link-local"), "{why}");
}

#[tokio::test]
async fn redirect_to_another_origin_carries_no_header_of_the_document() {
    let (other, seen) = server(|_| "HTTP/1.1 204 No Content\r\n\r\n".into()).await;
    let to = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{other}/\r\nContent-Length: 0\r\n\r\n"
    );
    let (address, first) = server(move |_| to.clone()).await;
    let provider = json!({"type": "http", "url": format!("http://me:pass@{address}/"),
        "headers": {"X-Api-Key": "secret-1", "Cookie": "secret-2", "Accept": "text/plain", "Host": "secret-3"}});
    let answered = ask(provider, HostAccess::default()).await;
    assert!(matches!(answered, ProbeOutcome::Output(_)), "{answered:?}");
    let first = first.lock().unwrap().join("");
    assert!(
        first.contains("secret-1") && first.to_lowercase().contains("authorization"),
        "{first}"
    );
    let seen = seen.lock().unwrap().join("");
    assert!(!seen.contains("secret"), "{seen}");
    assert!(!seen.to_lowercase().contains("authorization"), "{seen}");
    assert!(seen.contains("text/plain"), "{seen}");
}
