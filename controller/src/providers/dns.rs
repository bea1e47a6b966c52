//! A DNS question. Asked of one server it goes out as a message of our own, so that no cache and
//! no `hosts` file answers; left to the system it goes the way that every program's does.

use super::{NoValue, limit, plain, tcp, within};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::DnsProvider;
use backburn_experiments::probes::address::of_name_server;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// How long a datagram's answer is waited for before it is asked again (resolv.conf(5) has 5 s,
/// which is the whole of our default).
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// `{code, answers}`: the response code in words, e.g. `No Error`, and the records' data as text.
pub(super) async fn measure(
    provider: &DnsProvider,
    longest: Option<HumanDuration>,
) -> Result<Value, NoValue> {
    within(Some(limit(provider.timeout, longest)), answer(provider)).await?
}

async fn answer(provider: &DnsProvider) -> Result<Value, NoValue> {
    let wanted = provider
        .record
        .as_deref()
        .unwrap_or("A")
        .to_ascii_uppercase();
    let wanted = RecordType::from_str(&wanted)
        .map_err(|_| NoValue::Broken(format!("`{wanted}` is no DNS record")))?;
    match (&provider.server, wanted) {
        (None, RecordType::A | RecordType::AAAA) => system(&provider.name, wanted).await,
        (None, _) => ask(&first_nameserver().await?, &provider.name, wanted).await,
        (Some(server), _) => ask(server, &provider.name, wanted).await,
    }
}

async fn system(name: &str, wanted: RecordType) -> Result<Value, NoValue> {
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|error| {
        NoValue::NoAnswer(format!("`{name}` could not be resolved: {}", plain(&error)))
    })?;
    let answers: Vec<String> = found
        .map(|address| address.ip())
        .filter(|ip| ip.is_ipv4() == (wanted == RecordType::A))
        .map(|ip| ip.to_string())
        .collect();
    Ok(json!({"code": ResponseCode::NoError.to_string(), "answers": answers}))
}

/// Source: resolv.conf(5).
async fn first_nameserver() -> Result<String, NoValue> {
    let text = tokio::fs::read_to_string("/etc/resolv.conf")
        .await
        .map_err(|error| NoValue::Broken(format!("/etc/resolv.conf: {}", plain(&error))))?;
    text.lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("nameserver")?
                .split_whitespace()
                .next()
                .map(str::to_owned)
        })
        .ok_or_else(|| NoValue::Broken("/etc/resolv.conf names no server".into()))
}

async fn ask(server: &str, name: &str, wanted: RecordType) -> Result<Value, NoValue> {
    let (host, port) = of_name_server(server).map_err(NoValue::Broken)?;
    let mut name =
        Name::from_str(name).map_err(|error| NoValue::Broken(format!("`{name}`: {error}")))?;
    name.set_fqdn(true);
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, wanted));
    let bytes = question
        .to_vec()
        .map_err(|error| NoValue::Broken(error.to_string()))?;
    let mut reply = over_udp(&host, port, &bytes, question.metadata.id).await?;
    if reply.metadata.truncation {
        reply = over_tcp(&host, port, &bytes).await?;
    }
    let answers: Vec<String> = reply
        .answers
        .iter()
        .filter(|record| record.record_type() == wanted)
        .map(|record| record.data.to_string())
        .collect();
    Ok(json!({"code": reply.metadata.response_code.to_string(), "answers": answers}))
}

async fn over_udp(host: &str, port: u16, question: &[u8], id: u16) -> Result<Message, NoValue> {
    let network = |error| NoValue::from_network(&error, &format!("asking {host}:{port}"));
    let server = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| {
            NoValue::NoAnswer(format!("`{host}` could not be resolved: {}", plain(&error)))
        })?
        .next()
        .ok_or_else(|| NoValue::NoAnswer(format!("`{host}` has no address")))?;
    let any: SocketAddr = if server.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await.map_err(network)?;
    socket.connect(server).await.map_err(network)?;
    let mut buffer = vec![0; 65_535];
    loop {
        socket.send(question).await.map_err(network)?;
        // Datagrams get lost in health too; the whole is bounded by the caller.
        let Ok(received) = tokio::time::timeout(ASK_AGAIN, socket.recv(&mut buffer)).await else {
            continue;
        };
        let length = received.map_err(network)?;
        match Message::from_vec(&buffer[..length]) {
            Ok(reply) if reply.metadata.id == id => return Ok(reply),
            // An answer to somebody else's question, or noise.
            _ => {}
        }
    }
}

async fn over_tcp(host: &str, port: u16, question: &[u8]) -> Result<Message, NoValue> {
    let mut stream = tcp::connect(host, port).await?;
    let exchange = async {
        let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(question).await?;
        let length = stream.read_u16().await?;
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await?;
        Ok(reply)
    };
    let reply = exchange
        .await
        .map_err(|error| NoValue::from_network(&error, &format!("asking {host}:{port}")))?;
    Message::from_vec(&reply)
        .map_err(|error| NoValue::NoAnswer(format!("{host}:{port} sent no DNS message: {error}")))
}
