//! The TCP connections of the namespace that the thread is in, listed and closed for good, over sock_diag.

use super::message::{self, Message, Payload, flags};
use super::socket::{Family, Socket, errno};
use rustix::io::Errno;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Requests of sock_diag(7): `SOCK_DIAG_BY_FAMILY` lists sockets, `SOCK_DESTROY` closes one.
const LIST: u16 = 20;
const DESTROY: u16 = 21;
/// The families of addresses: `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// The protocol TCP: `IPPROTO_TCP`.
const TCP: u8 = 6;
/// A bit for each state but for those that listen, are closed, or only wait for stray packets: 1 is ESTABLISHED.
const LIVE: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12;
/// The length of `struct inet_diag_msg`, and where in it `struct inet_diag_sockid` lies.
const HEADER: usize = 72;
const ID: std::ops::Range<usize> = 4..52;
/// `INET_DIAG_CGROUP_ID`. Since Linux 5.8.
const CGROUP: u16 = 21;

/// One end of a live TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpConnection {
    /// The address and port on this host.
    pub here: SocketAddr,
    /// The address and port of the peer.
    pub there: SocketAddr,
    /// The control group (version 2) that its socket was made in, by the kernel's number.
    pub cgroup: Option<u64>,
    family: u8,
    /// How the kernel knows it, with a number that no other socket ever has.
    id: Vec<u8>,
}

/// A socket that takes what comes to it from anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListeningSocket {
    /// Whether it is one of TCP; else it is one of UDP.
    pub tcp: bool,
    /// The address and port that the socket is bound to.
    pub at: SocketAddr,
}

fn question(what: String, kind: u16, more: u16, family: u8, id: &[u8]) -> Message {
    about(what, kind, more, (family, TCP, LIVE), id)
}

fn about(
    what: String,
    kind: u16,
    more: u16,
    (family, protocol, states): (u8, u8, u32),
    id: &[u8],
) -> Message {
    Message {
        what,
        kind,
        flags: flags::REQUEST | more,
        // `struct inet_diag_req_v2`: nothing more is wanted than what always comes.
        body: Payload::of(&[&[family, protocol, 0, 0][..], &states.to_ne_bytes(), id].concat()),
    }
}

/// Every live TCP connection.
///
/// # Errors
/// What the kernel said.
pub fn tcp_connections() -> io::Result<Vec<TcpConnection>> {
    let socket = Socket::open(Family::Diagnosis)?;
    let mut found = Vec::new();
    for family in FAMILIES {
        let question = question(
            "list the TCP connections".into(),
            LIST,
            flags::DUMP,
            family,
            &[0; 48],
        );
        found.extend(socket.ask(&question, |answer| read(answer.body))?);
    }
    Ok(found)
}

/// Every socket that listens: of TCP, and those of UDP that are connected to nobody.
///
/// # Errors
/// What the kernel said.
pub fn listening() -> io::Result<Vec<ListeningSocket>> {
    // `IPPROTO_UDP`; `TCP_LISTEN` and `TCP_CLOSE`.
    const UDP: u8 = 17;
    let socket = Socket::open(Family::Diagnosis)?;
    let mut found = Vec::new();
    for family in FAMILIES {
        for (protocol, state) in [(TCP, 10), (UDP, 7)] {
            let states = 1 << state;
            let what = "list the listening sockets".into();
            let question = about(
                what,
                LIST,
                flags::DUMP,
                (family, protocol, states),
                &[0; 48],
            );
            found.extend(socket.ask(&question, |answer| {
                let tcp = protocol == TCP;
                read(answer.body).map(|one| ListeningSocket { tcp, at: one.here })
            })?);
        }
    }
    Ok(found)
}

/// Whether an address is of this namespace itself, so that what goes there goes over the loopback: only such a one can be bound to.
pub fn is_own_address(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

/// Reads what the kernel says of a socket, for tests/fuzz.
#[cfg(fuzzing)]
pub fn fuzz_connection(body: &[u8]) {
    read(body);
}

fn read(body: &[u8]) -> Option<TcpConnection> {
    let id = body.get(ID)?;
    let family = *body.first()?;
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(*id.get(port..)?.first_chunk()?);
        let ip: IpAddr = match family {
            2 => Ipv4Addr::from(*id.get(address..)?.first_chunk::<4>()?).into(),
            _ => Ipv6Addr::from(*id.get(address..)?.first_chunk::<16>()?).into(),
        };
        // What an IPv6 socket says of a connection over IPv4.
        Some(SocketAddr::new(ip.to_canonical(), port))
    };
    let cgroup = body
        .get(HEADER..)
        .and_then(|attributes| message::attribute(attributes, CGROUP))
        .and_then(|number| Some(u64::from_ne_bytes(number.try_into().ok()?)));
    Some(TcpConnection {
        here: end(0, 4)?,
        there: end(2, 20)?,
        cgroup,
        family,
        id: id.to_vec(),
    })
}

impl TcpConnection {
    /// Closes it for good: whoever holds its socket is told that it was aborted, and the other end by a reset. Returns
    /// whether it was there.
    ///
    /// # Errors
    /// What the kernel said, e.g. that it does not do this.
    pub fn close(&self) -> io::Result<bool> {
        let what = format!("close the connection from {} to {}", self.here, self.there);
        destroy(question(what, DESTROY, flags::ACK, self.family, &self.id))
    }
}

/// Asks whether the kernel would close connections: by asking for one that there is not.
///
/// # Errors
/// What it said.
pub fn closes_connections() -> io::Result<()> {
    let nobody = question(
        "close TCP connections".into(),
        DESTROY,
        flags::ACK,
        FAMILIES[0],
        &[0; 48],
    );
    destroy(nobody).map(|_| ())
}

fn destroy(question: Message) -> io::Result<bool> {
    match Socket::open(Family::Diagnosis)?.ask(&question, |_| Some(())) {
        Ok(_) => Ok(true),
        Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
