//! The interfaces of the namespace that the thread is in, over rtnetlink.

use super::message::{self, Body, Message, flags};
use super::socket::{Family, Socket, errno};
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;

/// `RTM_GETLINK`.
const GET_LINK: u16 = 18;
/// `RTM_GETADDR`.
const GET_ADDRESS: u16 = 22;
/// The length of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `RTM_NEWQDISC`.
const NEW_DISCIPLINE: u16 = 36;
/// The length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `ARPHRD_LOOPBACK` of the kernel's `include/uapi/linux/if_arp.h`.
pub const LOOPBACK: u16 = 772;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Whether it is up (`IFF_UP`).
    pub up: bool,
}

/// Whether the kernel knows this kind of queueing discipline: one without arguments is asked for, at an interface that
/// nobody needs. Some kinds do without arguments, and are then there.
///
/// # Errors
/// What the kernel said, but for that it does not know the kind, or that arguments are missing.
pub fn knows_discipline(kind: &str, index: u32) -> io::Result<bool> {
    // `struct tcmsg`: the interface, no handle, `TC_H_ROOT`.
    let mut header = vec![0; 20];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
    let question = Message {
        what: format!("ask for the queueing discipline {kind}"),
        kind: NEW_DISCIPLINE,
        flags: flags::REQUEST | flags::ACK | flags::CREATE | flags::EXCLUSIVE,
        body: Body::of(&header).text(1, kind),
    };
    match Socket::open(Family::Route)?.ask(&question, |_| Some(())) {
        Ok(_) => Ok(true),
        Err(error) => match errno(&error) {
            Some(Errno::NOENT) => Ok(false),
            Some(Errno::INVAL) => Ok(true),
            _ => Err(error),
        },
    }
}

/// Every address of every interface but the loopback, in the namespace of the thread.
///
/// # Errors
/// What the kernel said.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let question = Message {
        what: "list the addresses".into(),
        kind: GET_ADDRESS,
        flags: flags::REQUEST | flags::DUMP,
        body: Body::of(&[0; ADDRESS_HEADER]),
    };
    let found = Socket::open(Family::Route)?.ask(&question, |address| {
        let attributes = address.body.get(ADDRESS_HEADER..)?;
        // `IFA_LOCAL` is ours where the interface has two ends; else there is only `IFA_ADDRESS`.
        let bytes = message::attribute(attributes, 2).or(message::attribute(attributes, 1))?;
        match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    })?;
    Ok(found
        .into_iter()
        .filter(|address| !address.is_loopback())
        .collect())
}

/// Every interface.
///
/// # Errors
/// What the kernel said.
pub fn links() -> io::Result<Vec<Link>> {
    let question = Message {
        what: "list the interfaces".into(),
        kind: GET_LINK,
        flags: flags::REQUEST | flags::DUMP,
        body: Body::of(&[0; LINK_HEADER]),
    };
    Socket::open(Family::Route)?.ask(&question, |link| {
        let kind = link.body.get(2..4)?;
        let state = message::long_at(link.body, 8)?;
        // `IFLA_IFNAME`.
        let name = message::attribute(link.body.get(LINK_HEADER..)?, 3)?;
        Some(Link {
            index: message::long_at(link.body, 4)?,
            name: message::text(name),
            loopback: kind == LOOPBACK.to_ne_bytes(),
            up: state & 1 != 0,
        })
    })
}
