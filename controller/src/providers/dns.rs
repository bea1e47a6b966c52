//! The transport of DNS. A question to a server is a message of its own, so that no cache and no `hosts` file answers it; a question
//! without one goes to the system's resolver, as every program's does.

use super::dns_message::{Reply, read_reply, record_type};
use super::{ProbeError, ProbeResult, io_error_text, tcp};
use backburn_experiments::destination::DestinationRules;
use backburn_experiments::dns_message::question;
use backburn_experiments::probes::address::of_name_server;
use backburn_experiments::probes::{DnsProvider, dns_answers, no_address, not_resolved};
use ring::rand::SecureRandom as _;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// How long the answer to a datagram is waited for before it is sent again (resolv.conf(5) has 5 s, which is the default for the whole
/// probe here).
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Asks the question. The caller bounds how long all of it may take.
pub(super) async fn measure(
    provider: &DnsProvider,
    destinations: &DestinationRules,
) -> ProbeResult {
    let (name, record) = (&provider.name, provider.record_type());
    let record = record_type(&record)
        .ok_or_else(|| ProbeError::Broken(format!("`{record}` is not a type of DNS record")))?;
    if provider.is_for_system() {
        let found = tokio::net::lookup_host((name.as_str(), 0))
            .await
            .map_err(|error| not_resolved(name, &error))?;
        return Ok(provider.system_value(found.map(|address| address.ip())));
    }
    match &provider.server {
        Some(server) => ask(server, name, record, destinations).await,
        // The owner of this host has chosen it, and clouds have theirs at a link-local address.
        None => {
            let chosen = DestinationRules::any();
            ask(&first_nameserver().await?, name, record, &chosen).await
        }
    }
}

/// The first name server of the system. Source: resolv.conf(5).
async fn first_nameserver() -> Result<String, ProbeError> {
    let text = tokio::fs::read_to_string("/etc/resolv.conf")
        .await
        .map_err(|error| {
            ProbeError::Broken(format!("/etc/resolv.conf: {}", io_error_text(&error)))
        })?;
    text.lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("nameserver")?
                .split_whitespace()
                .next()
                .map(str::to_owned)
        })
        .ok_or_else(|| ProbeError::Broken("/etc/resolv.conf names no server".into()))
}

async fn ask(
    server: &str,
    name: &str,
    record_type: u16,
    destinations: &DestinationRules,
) -> ProbeResult {
    let (host, port) = of_name_server(server).map_err(ProbeError::Broken)?;
    // Nobody who cannot see the question can answer it.
    let mut id = [0; 2];
    ring::rand::SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| ProbeError::Broken("the system has no random numbers".into()))?;
    let question = question(u16::from_be_bytes(id), name, record_type)
        .map_err(|why| ProbeError::Broken(format!("`{name}`: {why}")))?;
    let read = |message: &[u8]| {
        read_reply(message, record_type).filter(|reply| reply.id == u16::from_be_bytes(id))
    };
    let mut reply = over_udp(&host, port, &question, destinations, read).await?;
    if reply.is_truncated {
        reply = over_tcp(&host, port, &question, destinations, read).await?;
    }
    Ok(dns_answers(reply.code, reply.answers))
}

/// `read` gives the answer to the question in a message; none if it is no such answer.
async fn over_udp(
    host: &str,
    port: u16,
    question: &[u8],
    destinations: &DestinationRules,
    read: impl Fn(&[u8]) -> Option<Reply>,
) -> Result<Reply, ProbeError> {
    let network = |error| ProbeError::from_network(&error, &format!("asking {host}:{port}"));
    let server = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| not_resolved(host, &error))?
        .next()
        .ok_or_else(|| no_address(host))?;
    destinations
        .check(host, server)
        .map_err(ProbeError::Broken)?;
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
        // Datagrams get lost in a healthy network, too.
        let Ok(received) = tokio::time::timeout(RETRY_INTERVAL, socket.recv(&mut buffer)).await
        else {
            continue;
        };
        let length = received.map_err(network)?;
        // Anything else is an answer to another question, or noise.
        if let Some(reply) = read(&buffer[..length]) {
            return Ok(reply);
        }
    }
}

/// As [`over_udp`].
async fn over_tcp(
    host: &str,
    port: u16,
    question: &[u8],
    destinations: &DestinationRules,
    read: impl Fn(&[u8]) -> Option<Reply>,
) -> Result<Reply, ProbeError> {
    let mut stream = tcp::connect(host, port, destinations).await?;
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
        .map_err(|error| ProbeError::from_network(&error, &format!("asking {host}:{port}")))?;
    read(&reply).ok_or_else(|| {
        ProbeError::NoAnswer(format!(
            "{host}:{port} sent something that is not an answer to the question"
        ))
    })
}
