//! Packets that the kernel hands to us, by number only, and takes back when we say so
//! (nfnetlink_queue). Where nobody listens, or the queue is full, packets go on by themselves; those that are
//! held when the listener dies are lost.

use super::message::{self, Body, Message, flags};
use super::socket::{Family, Socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// `NFNL_SUBSYS_QUEUE`, in the upper byte of a message's kind.
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const CONFIGURE: u16 = SUBSYSTEM | 2;
const VERDICTS: u16 = SUBSYSTEM | 3;
/// `NFQA_CFG_F_FAIL_OPEN` and `NFQA_CFG_F_GSO`: what does not fit goes on, and large packets stay whole.
const FLAGS: u32 = 1 | 4;
/// The most packets held at a time.
const LENGTH: u32 = 1 << 18;
/// How much room the kernel has for what it tells us, in bytes.
const ROOM: usize = 32 << 20;

/// A queue that we listen to.
#[derive(Debug)]
pub struct PacketQueue {
    socket: Socket,
    number: u16,
    /// The number of the last packet that was heard of.
    last: AtomicU32,
}

impl PacketQueue {
    /// Listens to the queue of this number, in the namespace of the thread.
    ///
    /// # Errors
    /// What the kernel said, e.g. that somebody else listens to it (`BUSY`).
    pub fn listen(number: u16) -> io::Result<Self> {
        let queue = Self::swallow(number)?;
        queue.socket.set_room(ROOM)?;
        // `NFQNL_COPY_META`: nothing of what is in them.
        let meta = queue.header().put(2, &[0, 0, 0, 0, 1]);
        queue.configure("set the size of", meta.number(3, LENGTH))?;
        queue.configure(
            "set the flags of",
            queue.header().number(4, FLAGS).number(5, FLAGS),
        )?;
        Ok(queue)
    }

    /// Takes the queue of this number, in the namespace of the thread, and has the kernel free what comes to it
    /// (`NFQNL_COPY_NONE`, as every queue begins).
    ///
    /// # Errors
    /// What the kernel said, e.g. that somebody else has it (`BUSY`).
    pub fn swallow(number: u16) -> io::Result<Self> {
        let queue = PacketQueue {
            socket: Socket::open(Family::Netfilter)?,
            number,
            last: AtomicU32::new(0),
        };
        // `NFQNL_CFG_CMD_BIND`.
        queue.configure("listen to", queue.header().put(1, &[1, 0, 0, 0]))?;
        Ok(queue)
    }

    fn configure(&self, what: &str, body: Body) -> io::Result<()> {
        let question = Message {
            what: format!("{what} packet queue {}", self.number),
            kind: CONFIGURE,
            flags: flags::REQUEST | flags::ACK,
            body,
        };
        self.socket.ask(&question, |_| Some(())).map(|_| ())
    }

    fn header(&self) -> Body {
        // `struct nfgenmsg`: any family, version 0, the queue.
        Body::of(&[&[0, 0][..], &self.number.to_be_bytes()].concat())
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Hands the numbers of the packets that have come since to `each`, in the order in which they came.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn arrived(&self, mut each: impl FnMut(u32)) -> io::Result<()> {
        self.socket.read_waiting(|message| {
            if message.kind == PACKET
                && let Some(packet) = message.body.get(message::NF_HEADER..)
                && let Some(header) = message::attribute(packet, 1)
                && let Some(number) = header.first_chunk::<4>()
            {
                let number = u32::from_be_bytes(*number);
                self.last.store(number, Ordering::Relaxed);
                each(number);
            }
        })
    }

    /// Lets every packet go on that is held now, those that were not yet heard of too.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn let_all_go(&self) -> io::Result<()> {
        // The kernel compares numbers as they go round; no queue is as long as this.
        self.let_go(self.last.load(Ordering::Relaxed).wrapping_add(1 << 30))
    }

    /// Lets every packet go on that came before this one, and this one.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn let_go(&self, last: u32) -> io::Result<()> {
        // `NF_ACCEPT`.
        let verdict = [1u32.to_be_bytes(), last.to_be_bytes()].concat();
        self.socket.tell(&Message {
            what: "let packets go on".into(),
            kind: VERDICTS,
            flags: flags::REQUEST,
            body: self.header().put(2, &verdict),
        })
    }
}

impl AsFd for PacketQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
