//! Each provider against something real and small on loopback: what it gives, what it calls no
//! answer, and what it calls broken.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use backburn::providers::{EnvironmentAccess, HostAccess, ProbeContext, measure};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::Provider;
use backburn_experiments::wire::ProbeOutcome;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

async fn ask(provider: Value) -> ProbeOutcome {
    ask_with(provider, &of_a_local_run()).await
}

/// The context of a run on this host, whose programs are the user's own.
fn of_a_local_run() -> ProbeContext {
    ProbeContext {
        access: HostAccess {
            environment: EnvironmentAccess::User,
            ..HostAccess::default()
        },
        ..ProbeContext::default()
    }
}

async fn ask_with(provider: Value, context: &ProbeContext) -> ProbeOutcome {
    let provider: Provider = serde_json::from_value(provider).unwrap();
    tokio::time::timeout(Duration::from_secs(20), measure(&provider, None, context))
        .await
        .unwrap()
}

fn output(measured: ProbeOutcome) -> Value {
    match measured {
        ProbeOutcome::Output(value) => value,
        other => panic!("{other:?}"),
    }
}

fn no_answer(measured: &ProbeOutcome) -> bool {
    matches!(measured, ProbeOutcome::NoAnswer(_))
}

/// A server that answers each request by its path, and keeps what it was sent.
async fn server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let length = stream.read(&mut buffer).await.unwrap_or(0);
                    request.extend_from_slice(&buffer[..length]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
                    let wanted = text
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "))
                        .map_or(0, |n| n.parse().unwrap());
                    // A client that speaks TLS where we do not.
                    let is_tls = request.first() == Some(&0x16);
                    if length == 0 || is_tls || body.is_some_and(|body| body >= wanted) {
                        break;
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split_whitespace().nth(1).unwrap_or("").to_owned();
                keep.lock().unwrap().push(text);
                let answer = |status: &str, kind: &str, body: &str| {
                    format!(
                        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                };
                let answer = match path.split('?').next().unwrap() {
                    "/json" => answer(
                        "200 OK",
                        "application/json; charset=utf-8",
                        "{\"a\": [1, 2]}",
                    ),
                    "/broken-json" => answer("200 OK", "application/json", "{nope"),
                    "/moved" => {
                        "HTTP/1.1 302 Found\r\nLocation: /json\r\nContent-Length: 0\r\n\r\n".into()
                    }
                    "/round" => {
                        "HTTP/1.1 302 Found\r\nLocation: /round\r\nContent-Length: 0\r\n\r\n".into()
                    }
                    "/slow" => {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        String::new()
                    }
                    "/reset" => return drop(stream.set_zero_linger()),
                    "/noise" => "this is no HTTP\r\n\r\n".into(),
                    "/api/v1/query" => answer(
                        "200 OK",
                        "application/json",
                        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.25"]}]}}"#,
                    ),
                    _ => answer("503 Service Unavailable", "text/plain", "gone fishing"),
                };
                stream.write_all(answer.as_bytes()).await.ok();
            });
        }
    });
    (format!("http://{address}"), seen)
}

/// A port where nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[tokio::test]
async fn http_probe_returns_status_headers_and_body() {
    let (url, seen) = server().await;
    let arguments = json!({"q": "a b&c", "n": 1, "yes": true, "many": [1, 2], "none": null});
    let value = output(
        ask(json!({"type": "http", "url": format!("{url}/json"), "arguments": arguments})).await,
    );
    assert_eq!(value["status"], 200);
    assert_eq!(value["body"], json!({"a": [1, 2]}));
    assert_eq!(
        value["headers"]["Content-Type"],
        "application/json; charset=utf-8"
    );
    assert_eq!(value["headers"]["X-Two"], "1, 2");
    assert!(
        seen.lock().unwrap()[0]
            .starts_with("GET /json?q=a+b%26c&n=1&yes=True&many=1&many=2 HTTP/1.1\r\n")
    );

    let value = output(ask(json!({"type": "http", "url": format!("{url}/else")})).await);
    assert_eq!(
        (&value["status"], &value["body"]),
        (&json!(503), &json!("gone fishing"))
    );
    let value = output(ask(json!({"type": "http", "url": format!("{url}/broken-json")})).await);
    assert_eq!(value["body"], "{nope");
}

#[tokio::test]
async fn http_probe_sends_forms_json_and_text() {
    let (url, seen) = server().await;
    for (headers, arguments) in [
        (json!({}), json!({"a": "x y"})),
        (
            json!({"Content-Type": "application/json"}),
            json!({"a": "x y"}),
        ),
        (json!({"X-Token": 12}), json!("as it is")),
    ] {
        output(ask(json!({"type": "http", "method": "post", "url": &url, "headers": headers, "arguments": arguments})).await);
    }
    let seen = seen.lock().unwrap();
    assert!(
        seen[0].contains("content-type: application/x-www-form-urlencoded")
            && seen[0].ends_with("\r\n\r\na=x+y")
    );
    assert!(seen[1].ends_with("\r\n\r\n{\"a\":\"x y\"}"), "{}", seen[1]);
    assert!(seen[2].ends_with("\r\n\r\nas it is") && seen[2].contains("x-token: 12"));
}

#[tokio::test]
async fn http_probe_follows_a_limited_number_of_redirects() {
    let (url, _) = server().await;
    let value = output(ask(json!({"type": "http", "url": format!("{url}/moved")})).await);
    assert_eq!(value["body"]["a"][0], 1);
    assert!(no_answer(
        &ask(json!({"type": "http", "url": format!("{url}/round")})).await
    ));
}

#[tokio::test]
async fn http_probe_distinguishes_no_answer_from_broken() {
    let (url, _) = server().await;
    let closed = format!("http://127.0.0.1:{}/", closed_port().await);
    for (url, timeout) in [
        (closed, 5.0),
        // Whoever answers there speaks no TLS: nobody who asks gets an answer.
        (url.replace("http", "https"), 5.0),
        (format!("{url}/slow"), 0.2),
        (format!("{url}/reset"), 5.0),
        (format!("{url}/noise"), 5.0),
    ] {
        let began = Instant::now();
        let measured =
            ask(json!({"type": "http", "url": &url, "timeout": timeout, "max_retries": 2})).await;
        assert!(no_answer(&measured), "{url}: {measured:?}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }
    for provider in [
        json!({"type": "http", "url": "no address"}),
        json!({"type": "http", "url": "ftp://127.0.0.1/"}),
        json!({"type": "http", "url": &url, "method": "G E T"}),
        json!({"type": "http", "url": &url, "headers": {"a b": "c"}}),
    ] {
        let measured = ask(provider.clone()).await;
        assert!(
            matches!(measured, ProbeOutcome::Broken(_)),
            "{provider}: {measured:?}"
        );
    }
}

#[tokio::test]
async fn https_probe_checks_the_certificate_unless_disabled() {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from(include_bytes!("fixtures/loopback-cert.der").as_slice());
    let key =
        PrivateKeyDer::try_from(include_bytes!("fixtures/loopback-key.der").as_slice()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not like the certificate goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
            stream.shutdown().await.ok();
        }
    });
    match ask(json!({"type": "http", "url": &url})).await {
        ProbeOutcome::Broken(why) => assert!(why.contains("certificate"), "{why}"),
        other => panic!("{other:?}"),
    }
    let value = output(ask(json!({"type": "http", "url": &url, "verify_tls": false})).await);
    assert_eq!(value["status"], 204);
}

#[tokio::test]
async fn process_probe_returns_status_and_output() {
    let value = output(ask(json!({"type": "process", "path": "sh", "arguments": ["-c", "echo out; echo err >&2; echo $X; exit 3"],
        "env": {"X": 7}})).await);
    assert_eq!(
        value,
        json!({"status": 3, "stdout": "out\n7\n", "stderr": "err\n"})
    );
    let value =
        output(ask(json!({"type": "process", "path": "echo", "arguments": "a 'b  c'"})).await);
    assert_eq!(value["stdout"], "a b  c\n");
    let value = output(
        ask(json!({"type": "process", "path": "sh", "arguments": ["-c", "kill -TERM $$"]})).await,
    );
    assert_eq!(value["status"], -15);
    assert!(matches!(
        ask(json!({"type": "process", "path": "/no/such"})).await,
        ProbeOutcome::Broken(_)
    ));
    assert!(matches!(
        ask(json!({"type": "process", "path": "echo", "arguments": "a | b"})).await,
        ProbeOutcome::Broken(_)
    ));
}

#[tokio::test]
async fn tcp_probe_connects_or_gets_no_answer() {
    let (url, _) = server().await;
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let value = output(ask(json!({"type": "tcp", "host": "127.0.0.1", "port": port})).await);
    assert_eq!(value["connected"], true);
    assert!(value["took"].as_f64().unwrap() < 1.0);
    assert!(no_answer(
        &ask(json!({"type": "tcp", "host": "127.0.0.1", "port": closed_port().await})).await
    ));
    assert!(no_answer(
        &ask(json!({"type": "tcp", "host": "nobody.invalid", "port": 80, "timeout": 3})).await
    ));
}

#[tokio::test]
async fn prometheus_probe_returns_a_number_and_its_failure_is_unknown() {
    let (url, seen) = server().await;
    let value = output(
        ask(json!({"type": "prometheus", "url": format!("{url}/"), "query": "up{a=\"b\"}"})).await,
    );
    assert_eq!(value, json!(0.25));
    assert!(seen.lock().unwrap()[0].starts_with("GET /api/v1/query?query=up%7Ba%3D%22b%22%7D "));
    let closed = format!("http://127.0.0.1:{}", closed_port().await);
    assert!(matches!(
        ask(json!({"type": "prometheus", "url": closed, "query": "up"})).await,
        ProbeOutcome::Broken(_)
    ));
}

#[tokio::test]
async fn python_probe_calls_the_function_and_ignores_its_prints() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("extension.py"),
        r#"
import os
class ActivityFailed(Exception): pass
def add(a, b=1, configuration=None, secrets=None):
    print("noise"); os.system("echo more noise")
    return {"sum": a + b, "configuration": configuration, "secrets": secrets}
def unhealthy(): raise ActivityFailed("two pods are missing")
def refused(): raise ConnectionRefusedError("nobody there")
def wrong(): raise KeyError("x")
def leaves(): os._exit(3)
"#,
    )
    .unwrap();
    let old = std::env::var("PYTHONPATH").unwrap_or_default();
    // SAFETY: no other test of this program reads or writes this variable.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("PYTHONPATH", format!("{}:{old}", folder.path().display()))
    };
    let mut context = of_a_local_run();
    context
        .configuration
        .insert("url".into(), json!("http://x"));
    context
        .secrets
        .insert("scope".into(), json!({"token": "t"}));
    let call = |func: &str, arguments: Value| json!({"type": "python", "module": "extension", "func": func, "arguments": arguments, "secrets": ["scope"]});
    let value = output(ask_with(call("add", json!({"a": 2})), &context).await);
    assert_eq!(
        value,
        json!({"sum": 3, "configuration": {"url": "http://x"}, "secrets": {"token": "t"}})
    );
    for func in ["unhealthy", "refused"] {
        assert!(
            no_answer(&ask_with(call(func, json!({})), &context).await),
            "{func}"
        );
    }
    for (func, arguments, said) in [
        ("wrong", json!({}), "KeyError"),
        ("leaves", json!({}), "without an answer"),
        ("nowhere", json!({}), "AttributeError"),
        ("add", json!({"c": 1}), "TypeError"),
    ] {
        match ask_with(call(func, arguments), &context).await {
            ProbeOutcome::Broken(why) => assert!(why.contains(said), "{func}: {why}"),
            other => panic!("{func}: {other:?}"),
        }
    }
    let missing = json!({"type": "python", "module": "no_such_module", "func": "f"});
    assert!(
        matches!(ask(missing).await, ProbeOutcome::Broken(why) if why.contains("ModuleNotFoundError"))
    );
}

#[tokio::test]
async fn host_probe_requires_an_agent() {
    assert!(matches!(
        ask(json!({"type": "host", "metric": "load1"})).await,
        ProbeOutcome::Broken(_)
    ));
}

/// Answers one kind of question: an address for `here.test`, and over UDP only that it is cut short for `long.test`.
async fn name_server() -> String {
    use hickory_proto::op::{Message, MessageType, ResponseCode};
    use hickory_proto::rr::{RData, Record, rdata::A};
    let answer = |bytes: &[u8], tcp: bool| {
        let mut message = Message::from_vec(bytes).unwrap();
        message.metadata.message_type = MessageType::Response;
        let name = message.queries[0].name().clone();
        match name.to_string().as_str() {
            "long.test." if !tcp => message.metadata.truncation = true,
            "here.test." | "long.test." => {
                message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 7))));
            }
            _ => message.metadata.response_code = ResponseCode::NXDomain,
        }
        message.to_vec().unwrap()
    };
    let (udp, tcp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = tcp.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let mut first = true;
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            // The first datagram gets lost.
            if !std::mem::take(&mut first) {
                udp.send_to(&answer(&buffer[..length], false), from)
                    .await
                    .unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.unwrap();
            let reply = answer(&question, true);
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn dns_probe_asks_one_server_or_the_system() {
    let server = name_server().await;
    for name in ["here.test", "long.test"] {
        let value = output(ask(json!({"type": "dns", "server": &server, "name": name})).await);
        assert_eq!(value["answers"], json!(["192.0.2.7"]), "{name}");
    }
    let value = output(ask(json!({"type": "dns", "server": &server, "name": "gone.test"})).await);
    assert_eq!(value["answers"], json!([]));
    assert_ne!(value["code"], "No Error");
    let value = output(ask(json!({"type": "dns", "name": "localhost"})).await);
    assert!(
        value["answers"]
            .as_array()
            .unwrap()
            .contains(&json!("127.0.0.1")),
        "{value}"
    );
    let nobody = format!("127.0.0.1:{}", closed_port().await);
    assert!(no_answer(
        &ask(json!({"type": "dns", "server": nobody, "name": "here.test", "timeout": 1})).await
    ));
    assert!(matches!(
        ask(json!({"type": "dns", "server": &server, "name": "x", "record": "NO"})).await,
        ProbeOutcome::Broken(_)
    ));
}

#[tokio::test]
async fn probe_timeout_is_the_activity_s_if_the_provider_has_none() {
    let provider: Provider =
        serde_json::from_value(json!({"type": "process", "path": "sleep", "arguments": ["20"]}))
            .unwrap();
    let measured = measure(
        &provider,
        Some(HumanDuration::millis(100)),
        &ProbeContext::default(),
    )
    .await;
    assert!(no_answer(&measured));
}
