//! Packets that the kernel hands over, by number only or with their beginning, and takes back on a verdict
//! (nfnetlink_queue). Where nobody listens, or the queue is full, packets go on by themselves; those that are
//! held when the listener dies are lost.

use super::message::{self, Message, Payload, flags};
use super::socket::{Family, Socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// `NFNL_SUBSYS_QUEUE`, in the upper byte of a message's kind.
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIGURE: u16 = SUBSYSTEM | 2;
const VERDICTS: u16 = SUBSYSTEM | 3;
/// `NFQA_CFG_F_FAIL_OPEN`: what does not fit goes on.
const FAIL_OPEN: u32 = 1;
/// `NFQA_CFG_F_GSO`: large packets stay whole.
const WHOLE: u32 = 4;
/// How much of a packet is read, where it is read, in bytes: a header and a question are at its beginning.
const COPIED_BYTES: u32 = 16 << 10;
/// The most packets held at a time.
const MAX_QUEUED_PACKETS: u32 = 1 << 18;
/// How much room the kernel has for what it reports, in bytes.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// A packet queue that this process reads.
#[derive(Debug)]
pub struct PacketQueue {
    socket: Socket,
    number: u16,
    /// The number of the last packet that was heard of.
    last: AtomicU32,
}

/// A packet that has arrived in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedPacket<'a> {
    /// Its number in the queue.
    pub number: u32,
    /// The mark that it bears.
    pub mark: u32,
    /// Its beginning, from its IP header; empty where packets are not read.
    pub bytes: &'a [u8],
    /// Whether there is more of it than that.
    pub cut: bool,
}

/// How a packet goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PacketVerdict {
    /// The packet goes on as it came.
    Unchanged,
    /// The packet goes on with this mark.
    Marked(u32),
    /// With this mark, and as these bytes from the IP header on.
    Replaced(u32, Vec<u8>),
}

impl PacketQueue {
    /// Listens to the queue of this number, in the namespace of the thread.
    ///
    /// # Errors
    /// What the kernel said, e.g. that somebody else listens to it (`BUSY`).
    pub fn listen(number: u16) -> io::Result<Self> {
        // `NFQNL_COPY_META`: nothing of what is in them.
        Self::open(number, 1, 0, FAIL_OPEN | WHOLE)
    }

    /// As [`PacketQueue::listen`], and reads the beginning of each packet, cut to what is on a wire.
    ///
    /// # Errors
    /// What the kernel said, e.g. that somebody else listens to it (`BUSY`).
    pub fn read(number: u16) -> io::Result<Self> {
        // `NFQNL_COPY_PACKET`.
        Self::open(number, 2, COPIED_BYTES, FAIL_OPEN)
    }

    /// As [`PacketQueue::read`], and reads all of each packet.
    ///
    /// # Errors
    /// What the kernel said, e.g. that somebody else listens to it (`BUSY`).
    pub fn read_whole(number: u16) -> io::Result<Self> {
        // As much as an IP packet may be.
        Self::open(number, 2, 0xffff, FAIL_OPEN)
    }

    fn open(number: u16, copy: u8, length: u32, wanted: u32) -> io::Result<Self> {
        let queue = Self::swallow(number)?;
        queue.socket.set_room(RECEIVE_BUFFER_BYTES)?;
        let copied = [&length.to_be_bytes()[..], &[copy]].concat();
        let meta = queue.header().put(2, &copied);
        queue.configure("set the size of", meta.number(3, MAX_QUEUED_PACKETS))?;
        queue.configure(
            "set the flags of",
            queue.header().number(4, wanted).number(5, wanted),
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

    fn configure(&self, what: &str, body: Payload) -> io::Result<()> {
        let question = Message {
            what: format!("{what} packet queue {}", self.number),
            kind: CONFIGURE,
            flags: flags::REQUEST | flags::ACK,
            body,
        };
        self.socket.ask(&question, |_| Some(())).map(|_| ())
    }

    fn header(&self) -> Payload {
        // `struct nfgenmsg`: any family, version 0, the queue.
        Payload::of(&[&[0, 0][..], &self.number.to_be_bytes()].concat())
    }

    /// The number of the queue, which rules name.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Hands the packets that have come since to `each`, in the order in which they came.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn arrived(&self, mut each: impl FnMut(QueuedPacket<'_>)) -> io::Result<()> {
        self.socket.read_waiting(|message| {
            if message.kind == PACKET
                && let Some(packet) = message.body.get(message::NF_HEADER..)
                && let Some(header) = message::attribute(packet, 1)
                && let Some(number) = header.first_chunk::<4>()
            {
                let number = u32::from_be_bytes(*number);
                self.last.store(number, Ordering::Relaxed);
                let mark = message::attribute(packet, 3).and_then(|mark| mark.try_into().ok());
                each(QueuedPacket {
                    number,
                    mark: mark.map_or(0, u32::from_be_bytes),
                    bytes: message::attribute(packet, 10).unwrap_or_default(),
                    // `NFQA_CAP_LEN` is there only then.
                    cut: message::attribute(packet, 13).is_some(),
                });
            }
        })
    }

    /// Lets every packet go on that is held now, those that were not yet heard of too.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn accept_all(&self) -> io::Result<()> {
        // The kernel compares numbers as they go round; no queue is as long as this.
        self.accept_up_to(self.last.load(Ordering::Relaxed).wrapping_add(1 << 30))
    }

    /// Lets every packet go on that came before this one, and this one.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn accept_up_to(&self, last: u32) -> io::Result<()> {
        // `NF_ACCEPT`.
        let verdict = [1u32.to_be_bytes(), last.to_be_bytes()].concat();
        self.socket.tell(&Message {
            what: "let packets go on".into(),
            kind: VERDICTS,
            flags: flags::REQUEST,
            body: self.header().put(2, &verdict),
        })
    }

    /// Lets one packet go on. One that is not there any more is none.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn send_verdict(&self, number: u32, onward: &PacketVerdict) -> io::Result<()> {
        // `NF_ACCEPT`.
        let verdict = [1u32.to_be_bytes(), number.to_be_bytes()].concat();
        let body = self.header().put(2, &verdict);
        self.socket.tell(&Message {
            what: "let a packet go on".into(),
            kind: VERDICT,
            flags: flags::REQUEST,
            body: match onward {
                PacketVerdict::Unchanged => body,
                PacketVerdict::Marked(mark) => body.number(3, *mark),
                PacketVerdict::Replaced(mark, bytes) => body.number(3, *mark).put(10, bytes),
            },
        })
    }
}

/// Whether anybody listens to a queue in the network namespace of this thread. Without a look, nobody does.
pub fn any_queue_in_use() -> bool {
    let queues = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue");
    queues.is_ok_and(|queues| !queues.trim().is_empty())
}

impl AsFd for PacketQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
