//! The interfaces of the namespace that the thread is in, over rtnetlink.

use super::message::{self, Message, Payload, flags};
use super::socket::{Family, Socket};
use std::io;
use std::net::IpAddr;

/// Lists interfaces: `RTM_GETLINK` of rtnetlink(7).
const GET_LINK: u16 = 18;
/// Lists addresses: `RTM_GETADDR` of rtnetlink(7).
const GET_ADDRESS: u16 = 22;
/// The length of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// The length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `ARPHRD_LOOPBACK` of the kernel's `include/uapi/linux/if_arp.h`.
pub const LOOPBACK: u16 = 772;

/// An interface of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The number of the interface in its namespace.
    pub index: u32,
    /// The name of the interface, at most 15 bytes long.
    pub name: String,
    /// Its kind, e.g. `veth`; nothing where the kernel names none.
    pub kind: String,
    /// What somebody has written to it as its alias; nothing where nobody has.
    pub alias: String,
    /// The longest packet that it takes, in bytes, without the header of its own layer.
    pub mtu: u32,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Whether it is up (`IFF_UP`).
    pub up: bool,
    /// The queueing discipline at its root; `noop` before it has one.
    pub discipline: String,
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
        body: Payload::of(&[0; ADDRESS_HEADER]),
    };
    let found = Socket::open(Family::Route)?.ask(&question, |address| {
        let attributes = address.body.get(ADDRESS_HEADER..)?;
        // `IFA_LOCAL` is the own address if the interface has two ends; otherwise there is only `IFA_ADDRESS`.
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
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let question = Message {
        what: "list the interfaces".into(),
        kind: GET_LINK,
        flags: flags::REQUEST | flags::DUMP,
        body: Payload::of(&[0; LINK_HEADER]),
    };
    Socket::open(Family::Route)?.ask(&question, |link| {
        let kind = link.body.get(2..4)?;
        let state = message::long_at(link.body, 8)?;
        // `IFLA_IFNAME`.
        let name = message::attribute(link.body.get(LINK_HEADER..)?, 3)?;
        // `IFLA_LINKINFO`, and in it `IFLA_INFO_KIND`.
        let made = message::attribute(link.body.get(LINK_HEADER..)?, 18)
            .and_then(|info| message::attribute(info, 1));
        // `IFLA_IFALIAS` and `IFLA_MTU`.
        let alias = message::attribute(link.body.get(LINK_HEADER..)?, 20);
        let mtu = message::attribute(link.body.get(LINK_HEADER..)?, 4);
        // `IFLA_QDISC`.
        let discipline = message::attribute(link.body.get(LINK_HEADER..)?, 6);
        Some(Interface {
            index: message::long_at(link.body, 4)?,
            name: message::text(name),
            kind: made.map(message::text).unwrap_or_default(),
            alias: alias.map(message::text).unwrap_or_default(),
            mtu: mtu
                .and_then(|mtu| message::long_at(mtu, 0))
                .unwrap_or_default(),
            loopback: kind == LOOPBACK.to_ne_bytes(),
            up: state & 1 != 0,
            discipline: discipline.map(message::text).unwrap_or_default(),
        })
    })
}
