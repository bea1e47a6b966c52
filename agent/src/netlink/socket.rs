//! A socket to the kernel: what is asked goes out, what is answered comes in, and an error says
//! what was asked. Close-on-exec, or a child would keep a table alive that its owner has left.

use super::message::{self, KernelMessage, Message, flags};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::set_socket_timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// `NLMSG_ERROR`, an error or an acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`, the end of a list.
const DONE: u16 = 3;
/// What begins and ends a batch: `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`, whom a batch is for.
const NFTABLES: u16 = 10;
/// How long the kernel may take to answer; it answers before `send` returns, but for a list.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much is read at once: any packet, with what is said of it.
const RECEIVE_BUFFER_BYTES: usize = 72 * 1024;
/// How often a list that changed while it was read is read again.
const MAX_DUMP_TRIES: usize = 20;

/// Which part of the kernel is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Interfaces, addresses, routes and qdiscs (`NETLINK_ROUTE`).
    Route,
    /// nf_tables and queues of packets (`NETLINK_NETFILTER`).
    Netfilter,
    /// Sockets, of everybody in the namespace.
    Diagnosis,
}

/// A socket to one part of the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
}

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// What the kernel said, e.g. that it has no such part.
    pub fn open(family: Family) -> io::Result<Self> {
        let (protocol, name) = match family {
            Family::Route => (None, "routes"),
            Family::Netfilter => (Some(netlink::NETFILTER), "netfilter"),
            Family::Diagnosis => (Some(netlink::SOCK_DIAG), "list of sockets"),
        };
        let open = || -> Result<OwnedFd, Errno> {
            let socket = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                protocol,
            )?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            set_socket_timeout(
                &socket,
                rustix::net::sockopt::Timeout::Recv,
                Some(REPLY_TIMEOUT),
            )?;
            Ok(socket)
        };
        let socket =
            open().map_err(|error| named(&format!("speak to the kernel's {name}"), error))?;
        Ok(Socket { socket })
    }

    /// Has the kernel do all of this, or nothing of it.
    ///
    /// # Errors
    /// What the kernel said to the first message that it did not like, and what that asked for.
    pub fn transact(&self, messages: &[Message]) -> io::Result<()> {
        self.batch(messages, true)
    }

    /// Asks whether the kernel would do all of this; nothing of it is done. This is the kernel's own way of
    /// checking: a batch without an end is looked through and dropped.
    ///
    /// # Errors
    /// What the kernel said to the first message that it did not like, and what that asked for.
    pub fn check(&self, messages: &[Message]) -> io::Result<()> {
        self.batch(messages, false)
    }

    fn batch(&self, messages: &[Message], for_good: bool) -> io::Result<()> {
        let Some(last) = messages.len().checked_sub(1) else {
            return Ok(());
        };
        let edge = |kind: u16| Message {
            what: String::new(),
            kind,
            flags: flags::REQUEST,
            // `struct nfgenmsg`: any family, version 0, and whom the batch is for.
            body: message::Payload::of(&[&[0, 0][..], &NFTABLES.to_be_bytes()].concat()),
        };
        let mut bytes = edge(BATCH_BEGIN).encode(0);
        for (number, message) in messages.iter().enumerate() {
            let mut message = message.clone();
            if number == last {
                message.flags |= flags::ACK;
            }
            bytes.extend(message.encode(number as u32 + 1));
        }
        if for_good {
            bytes.extend(edge(BATCH_END).encode(last as u32 + 2));
        }
        let asked = |sequence: u32| {
            let message = (sequence as usize)
                .checked_sub(1)
                .and_then(|number| messages.get(number));
            message.map_or_else(
                || "commit what was asked for".to_owned(),
                |message| message.what.clone(),
            )
        };
        self.send(&bytes)
            .map_err(|error| named("ask the kernel", error))?;
        let mut first: Option<(u32, Errno)> = None;
        let mut answered = false;
        // All answers are there by now; none is waited for.
        loop {
            let answer = match self.receive(RecvFlags::DONTWAIT) {
                Ok(answer) => answer,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(named("hear the kernel's answer", error)),
            };
            for message in message::messages(&answer) {
                match outcome(&message) {
                    Some(Err(error)) if first.is_none_or(|(at, _)| message.sequence < at) => {
                        first = Some((message.sequence, error));
                    }
                    Some(_) => answered = true,
                    None => {}
                }
            }
        }
        match first {
            Some((sequence, error)) => Err(named(&asked(sequence), error)),
            None if answered => Ok(()),
            None => Err(io::Error::other(format!(
                "could not {}: the kernel gave no answer",
                asked(last as u32 + 1)
            ))),
        }
    }

    /// Asks for a list, or for one thing, and hands each message of the answer to `each`.
    ///
    /// # Errors
    /// What the kernel said, e.g. that there is no such thing; or the list changed every time it was read.
    pub fn ask<T>(
        &self,
        question: &Message,
        mut each: impl FnMut(&KernelMessage<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        'again: for sequence in 1..=MAX_DUMP_TRIES as u32 {
            self.send(&question.encode(sequence))
                .map_err(|error| named(&question.what, error))?;
            let (mut found, mut changed) = (Vec::new(), false);
            loop {
                let answer = self
                    .receive(RecvFlags::empty())
                    .map_err(|error| named(&question.what, error))?;
                for message in message::messages(&answer) {
                    if message.sequence != sequence {
                        continue;
                    }
                    changed |= message.flags & flags::INTERRUPTED != 0;
                    match outcome(&message) {
                        Some(Err(error)) => return Err(named(&question.what, error)),
                        Some(Ok(())) if changed => continue 'again,
                        Some(Ok(())) => return Ok(found),
                        None => found.extend(each(&message)),
                    }
                }
            }
        }
        Err(io::Error::other(format!(
            "could not {}: it changed every time it was read",
            question.what
        )))
    }

    /// Gives the kernel this much room for what it reports, in bytes; more than others may have, if the agent may.
    pub(super) fn set_room(&self, bytes: usize) -> io::Result<()> {
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.socket, bytes)
            .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&self.socket, bytes))
            .map_err(|error| named("make room for packets", error))
    }

    /// Says something that has no answer.
    pub(super) fn tell(&self, message: &Message) -> io::Result<()> {
        self.send(&message.encode(0))
            .map_err(|error| named(&message.what, error))
    }

    /// Reads what is there already; none is waited for.
    pub(super) fn read_waiting(&self, mut each: impl FnMut(&KernelMessage<'_>)) -> io::Result<()> {
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(some) => message::messages(&some).iter().for_each(&mut each),
                Err(Errno::AGAIN) => return Ok(()),
                // More came than there is room for; what was not told goes on by itself.
                Err(Errno::NOBUFS) => {}
                Err(error) => return Err(named("hear of packets", error)),
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, bytes, SendFlags::empty(), &kernel).map(|_| ())
    }

    fn receive(&self, flags: RecvFlags) -> Result<Vec<u8>, Errno> {
        // The kernel fits a list's parts to the reader's room; of an error only the beginning is of use, and the message that
        // it is about, which comes after, may be cut off.
        let mut room = Vec::with_capacity(RECEIVE_BUFFER_BYTES);
        loop {
            let spare = rustix::buffer::spare_capacity(&mut room);
            match rustix::net::recv(&self.socket, spare, flags) {
                Ok(_) => return Ok(room),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What an error, an acknowledgement or the end of a list says; nothing where it is none of them.
fn outcome(message: &KernelMessage<'_>) -> Option<Result<(), Errno>> {
    match message.kind {
        ERROR | DONE => {
            let code = message::long_at(message.body, 0).map_or(0, |code| code as i32);
            Some(match code {
                0 => Ok(()),
                code => Err(Errno::from_raw_os_error(code.wrapping_neg())),
            })
        }
        _ => None,
    }
}

/// An error of the kernel's, of the same kind, with what was asked.
fn named(what: &str, error: Errno) -> io::Error {
    io::Error::new(
        error.kind(),
        NetlinkError {
            what: what.to_owned(),
            errno: error,
        },
    )
}

/// What the kernel said to what was asked of it.
#[derive(Debug, thiserror::Error)]
#[error("could not {what}: {errno}")]
pub struct NetlinkError {
    /// What was asked, as `verb object`.
    pub what: String,
    /// What the kernel said.
    pub errno: Errno,
}

/// The kernel's own error in an error of this room, where it is one.
pub fn errno(error: &io::Error) -> Option<Errno> {
    let refused = error.get_ref()?.downcast_ref::<NetlinkError>()?;
    Some(refused.errno)
}
