//! One way through one connection: what comes at one end, held, cut, slowed, and given to the
//! other. Never blocks. What is not held is spliced from socket to socket through a pipe: its
//! bytes stay in the kernel, uncopied.

use super::counters::ConnectionCounter;
use super::stream_effects::StreamEffects;
use super::throttle::Throttle;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::collections::VecDeque;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// The most that is held of what is late: a little more than the widest TCP window by Linux'
/// defaults (`tcp_rmem`), so that a connection is as fast as over a real line of this length.
const MAX_HELD_BYTES: usize = 8 << 20;
/// The most that is read at once of what is to be late.
const MAX_READ_BYTES: usize = 128 << 10;
/// What a pipe holds, 16 pages at first, and when it was seen to be filled: the most that a user
/// may ask for by Linux' defaults.
const PIPE_BYTES: [usize; 2] = [64 << 10, 1 << 20];
/// What a piece that is held costs besides its bytes.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// One way through a connection.
pub(super) struct StreamRelay {
    harm: StreamEffects,
    throttle: Throttle,
    buffer: Buffer,
    rng: ChaCha8Rng,
    /// What may still be taken.
    left: u64,
    state: RelayState,
    /// Whether the one end may have something, and the other may take something: so until it is seen not to be.
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// What is on its way.
enum Buffer {
    /// The bytes wait in a pipe of the kernel and never enter this process.
    Pipe {
        out: OwnedFd,
        into: OwnedFd,
        filled: usize,
        /// Whether a larger one was asked for.
        grown: bool,
    },
    /// In this process, each piece with the time when it goes on.
    Late {
        pieces: VecDeque<(Instant, Vec<u8>)>,
        /// How much of the first piece has gone.
        gone: usize,
        held: usize,
        room: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RelayState {
    Open,
    /// Nothing more comes; that is told at this time, when all has gone.
    Ending(Instant),
    Ended,
    /// One end has failed; that is told at this time, when all has gone.
    Broken(Instant),
}

/// What a passage waits for, besides the time.
pub(super) struct Wants {
    pub(super) input: bool,
    pub(super) output: bool,
    pub(super) due: Option<Instant>,
}

impl StreamRelay {
    pub(super) fn new(
        harm: StreamEffects,
        mut rng: ChaCha8Rng,
        now: Instant,
    ) -> rustix::io::Result<Self> {
        let buffer = if harm.latency.is_some() {
            Buffer::Late {
                pieces: VecDeque::new(),
                gone: 0,
                held: 0,
                room: vec![0; MAX_READ_BYTES],
            }
        } else {
            let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            Buffer::Pipe {
                out,
                into,
                filled: 0,
                grown: false,
            }
        };
        let paced = rng.clone();
        // Two users of one stream of numbers, the second far behind the first.
        rng.set_word_pos(1 << 40);
        Ok(StreamRelay {
            throttle: Throttle::new(&harm, paced, now),
            left: harm.limit_data.map_or(u64::MAX, |size| size.0),
            harm,
            buffer,
            rng,
            state: RelayState::Open,
            readable: true,
            writable: true,
        })
    }

    /// Takes and gives what it can. Whether anything came of it.
    pub(super) fn advance(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        now: Instant,
        counter: &ConnectionCounter<'_>,
    ) -> bool {
        self.take(from, now, counter) | self.give(to, now, counter) | self.end(to, now)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state == RelayState::Ended
    }

    /// Whether it was closed because so much had passed.
    pub(super) fn is_at_its_limit(&self) -> bool {
        self.left == 0
    }

    /// Whether an end has failed, and its time to be told has come.
    pub(super) fn is_broken(&self, now: Instant) -> bool {
        matches!(self.state, RelayState::Broken(at) if at <= now)
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        match &self.buffer {
            Buffer::Pipe { filled, .. } => *filled == 0,
            Buffer::Late { pieces, .. } => pieces.is_empty(),
        }
    }

    /// What it waits for, when nothing came of a turn.
    pub(super) fn wants(&self, now: Instant) -> Wants {
        let at = self.ready_at();
        let ready = at.is_some_and(|at| at <= now);
        let told = match self.state {
            RelayState::Ending(at) | RelayState::Broken(at) if self.is_empty() => Some(at),
            _ => None,
        };
        Wants {
            input: self.takes() && !self.readable,
            output: ready && !self.writable,
            due: [at.filter(|_| !ready), told].into_iter().flatten().min(),
        }
    }

    /// Whether it would take something.
    fn takes(&self) -> bool {
        self.state == RelayState::Open
            && self.harm.timeout.is_none()
            && match &self.buffer {
                // An empty one only: a full pipe and an empty socket say the same.
                Buffer::Pipe { filled, .. } => *filled == 0,
                Buffer::Late { held, .. } => *held < MAX_HELD_BYTES,
            }
    }

    /// When something may go on, if there is something.
    fn ready_at(&self) -> Option<Instant> {
        match &self.buffer {
            Buffer::Pipe { filled: 0, .. } => None,
            Buffer::Pipe { .. } => Some(self.throttle.next()),
            Buffer::Late { pieces, .. } => {
                let (due, _) = pieces.front()?;
                Some(self.throttle.next().max(*due))
            }
        }
    }

    fn take(&mut self, from: &TcpStream, now: Instant, counter: &ConnectionCounter<'_>) -> bool {
        if !self.readable || !self.takes() {
            return false;
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let taken = match &mut self.buffer {
            Buffer::Pipe {
                into,
                filled,
                grown,
                ..
            } => {
                let most = PIPE_BYTES[1].min(left).min(self.throttle.portion());
                let taken = splice(from, None, &*into, None, most, SpliceFlags::NONBLOCK);
                *filled += taken.unwrap_or(0);
                if *filled >= PIPE_BYTES[0] && !*grown {
                    *grown = true;
                    // Where a user has too many pipes already, this one stays as it is.
                    fcntl_setpipe_size(&*into, PIPE_BYTES[1]).ok();
                }
                taken
            }
            Buffer::Late { room, .. } => {
                let most = MAX_READ_BYTES.min(left);
                rustix::io::read(from, &mut room[..most])
            }
        };
        match taken {
            Ok(0) => {
                if self.harm.slow_close.is_some() {
                    counter.affected();
                }
                let slow = self.harm.slow_close.unwrap_or_default().0;
                self.state = RelayState::Ending(self.late(now) + slow);
            }
            Ok(count) => {
                self.left -= count as u64;
                self.hold(count, now, counter);
                if self.left == 0 {
                    counter.affected();
                    self.state = RelayState::Ending(now);
                }
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                return false;
            }
            Err(Errno::INTR) => {}
            Err(_) => self.state = RelayState::Broken(self.late(now)),
        }
        true
    }

    /// Keeps what was read until its time.
    fn hold(&mut self, count: usize, now: Instant, counter: &ConnectionCounter<'_>) {
        if self.harm.latency.is_none() {
            return;
        }
        let due = self.late(now);
        if let Buffer::Late {
            pieces, held, room, ..
        } = &mut self.buffer
        {
            *held += count + PIECE_OVERHEAD_BYTES;
            pieces.push_back((due, room[..count].to_vec()));
            counter.affected();
        }
    }

    /// When what comes now arrives: never before what came earlier.
    fn late(&mut self, now: Instant) -> Instant {
        let Some(latency) = self.harm.latency else {
            return now;
        };
        let jitter = self.harm.jitter.unwrap_or_default().0;
        // From 0 to 1, of which either end is as likely as what lies between.
        let chance = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let due = now + latency.0.saturating_sub(jitter) + jitter.mul_f64(2.0 * chance);
        match &self.buffer {
            Buffer::Late { pieces, .. } => pieces.back().map_or(due, |(last, _)| due.max(*last)),
            Buffer::Pipe { .. } => due,
        }
    }

    fn give(&mut self, to: &TcpStream, now: Instant, counter: &ConnectionCounter<'_>) -> bool {
        if !self.writable || self.ready_at().is_none_or(|at| at > now) {
            return false;
        }
        let most = self.throttle.portion();
        let given = match &mut self.buffer {
            Buffer::Pipe { out, filled, .. } => {
                let most = most.min(*filled);
                let given = splice(out, None, to, None, most, SpliceFlags::NONBLOCK);
                *filled -= given.unwrap_or(0);
                given
            }
            Buffer::Late {
                pieces, gone, held, ..
            } => {
                let Some((_, piece)) = pieces.front() else {
                    return false;
                };
                let end = piece.len().min(gone.saturating_add(most));
                let given = rustix::io::write(to, &piece[*gone..end]);
                *gone += given.unwrap_or(0);
                if *gone == piece.len() {
                    *held -= piece.len() + PIECE_OVERHEAD_BYTES;
                    *gone = 0;
                    pieces.pop_front();
                }
                given
            }
        };
        match given {
            Ok(count) => {
                counter.bytes(count);
                if self.throttle.limits() {
                    counter.affected();
                    self.throttle.passed(count, now);
                }
            }
            Err(Errno::AGAIN) => {
                self.writable = false;
                return false;
            }
            Err(Errno::INTR) => {}
            Err(_) => {
                // Nobody is there to take it.
                match &mut self.buffer {
                    Buffer::Pipe { filled, .. } => *filled = 0,
                    Buffer::Late { pieces, .. } => pieces.clear(),
                }
                self.state = RelayState::Broken(now);
            }
        }
        true
    }

    /// Tells the other end that nothing more comes, when it is time.
    fn end(&mut self, to: &TcpStream, now: Instant) -> bool {
        if !matches!(self.state, RelayState::Ending(at) if at <= now) || !self.is_empty() {
            return false;
        }
        self.state = match shutdown(to, Shutdown::Write) {
            Ok(()) => RelayState::Ended,
            Err(_) => RelayState::Broken(now),
        };
        true
    }
}
