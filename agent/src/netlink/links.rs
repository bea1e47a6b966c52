//! The interfaces of the namespace that the thread is in, over rtnetlink.

use super::message::{self, Body, Message, flags};
use super::socket::{Family, Socket};
use std::io;

/// `RTM_GETLINK`.
const GET_LINK: u16 = 18;
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
    /// Its kind, e.g. `veth`; nothing where the kernel names none.
    pub kind: String,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Whether it is up (`IFF_UP`).
    pub up: bool,
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
        // `IFLA_LINKINFO`, and in it `IFLA_INFO_KIND`.
        let made = message::attribute(link.body.get(LINK_HEADER..)?, 18)
            .and_then(|info| message::attribute(info, 1));
        Some(Link {
            index: message::long_at(link.body, 4)?,
            name: message::text(name),
            kind: made.map(message::text).unwrap_or_default(),
            loopback: kind == LOOPBACK.to_ne_bytes(),
            up: state & 1 != 0,
        })
    })
}
