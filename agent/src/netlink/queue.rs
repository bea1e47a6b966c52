//! Packets that the kernel hands to us, by number only, and takes back when we say so
//! (nfnetlink_queue). Where nobody listens, or the queue is full, packets go on by themselves; those that are
//! held when the listener dies are lost.

use super::message::{self, Body, Message, flags};
use super::socket::{Family, Socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// `NFNL_SUBSYS_QUEUE`, in the upper byte of a message's kind.
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const CONFIGURE: u16 = SUBSYSTEM | 2;
const VERDICT: u16 = SUBSYSTEM | 1;
const VERDICTS: u16 = SUBSYSTEM | 3;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// `NFQA_CFG_F_FAIL_OPEN`: what does not fit goes on.
const FAIL_OPEN: u32 = 1;
/// `NFQA_CFG_F_GSO`: large packets stay whole. Without it they come in pieces, with their sums made.
const WHOLE: u32 = 4;
/// The most packets held at a time.
const LENGTH: u32 = 1 << 18;
/// How much room the kernel has for what it tells us, in bytes.
const ROOM: usize = 32 << 20;

/// What of packets is copied to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// Nothing: they are known by number.
    Nothing,
    /// All.
    All,
}

/// A queue that we listen to.
#[derive(Debug)]
pub struct PacketQueue {
    socket: Socket,
    number: u16,
}

impl PacketQueue {
    /// Listens to the queue of this number, in the namespace of the thread.
    ///
    /// # Errors
    /// What the kernel said, e.g. that somebody else listens to it (`BUSY`).
    pub fn listen(number: u16, copied: Copied) -> io::Result<Self> {
        let queue = PacketQueue {
            socket: Socket::open(Family::Netfilter)?,
            number,
        };
        queue.socket.set_room(ROOM)?;
        let configure = |what: &str, body: Body| {
            let question = Message {
                what: format!("{what} packet queue {number}"),
                kind: CONFIGURE,
                flags: flags::REQUEST | flags::ACK,
                body,
            };
            queue.socket.ask(&question, |_| Some(())).map(|_| ())
        };
        // `NFQNL_CFG_CMD_BIND`.
        configure("listen to", queue.header().put(1, &[1, 0, 0, 0]))?;
        // `NFQNL_COPY_META`, or `NFQNL_COPY_PACKET` with so many bytes as an IP packet may have.
        let (parameters, flags) = match copied {
            Copied::Nothing => ([0, 0, 0, 0, 1], FAIL_OPEN | WHOLE),
            Copied::All => ([0, 0, 0xff, 0xff, 2], FAIL_OPEN),
        };
        let parameters = queue.header().put(2, &parameters);
        configure("set the size of", parameters.number(3, LENGTH))?;
        configure(
            "set the flags of",
            queue.header().number(4, flags).number(5, FAIL_OPEN | WHOLE),
        )?;
        Ok(queue)
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
                each(u32::from_be_bytes(*number));
            }
        })
    }

    /// The packets that have come since, each with its number; what is longer than was copied is let go as it is.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn copies(&self) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let (mut copies, mut longer) = (Vec::new(), Vec::new());
        self.socket.read_waiting(|message| {
            // `NFQA_PACKET_HDR`, `NFQA_PAYLOAD`, `NFQA_CAP_LEN`.
            if message.kind == PACKET
                && let Some(packet) = message.body.get(message::NF_HEADER..)
                && let Some(header) = message::attribute(packet, 1)
                && let Some(number) = header.first_chunk::<4>().copied().map(u32::from_be_bytes)
            {
                match message::attribute(packet, 10) {
                    Some(bytes) if message::attribute(packet, 13).is_none() => {
                        copies.push((number, bytes.to_vec()));
                    }
                    _ => longer.push(number),
                }
            }
        })?;
        longer
            .into_iter()
            .try_for_each(|number| self.let_one_go(number))?;
        Ok(copies)
    }

    /// Lets a packet go on with these bytes in place of its own, as many.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn replace(&self, number: u32, bytes: &[u8]) -> io::Result<()> {
        self.judge(number, |body| body.put(10, bytes))
    }

    /// Lets one packet go on.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn let_one_go(&self, number: u32) -> io::Result<()> {
        self.judge(number, |body| body)
    }

    fn judge(&self, number: u32, put: impl FnOnce(Body) -> Body) -> io::Result<()> {
        let verdict = [ACCEPT.to_be_bytes(), number.to_be_bytes()].concat();
        self.socket.tell(&Message {
            what: "let a packet go on".into(),
            kind: VERDICT,
            flags: flags::REQUEST,
            body: put(self.header().put(2, &verdict)),
        })
    }

    /// Lets every packet go on that came before this one, and this one.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn let_go(&self, last: u32) -> io::Result<()> {
        let verdict = [ACCEPT.to_be_bytes(), last.to_be_bytes()].concat();
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
