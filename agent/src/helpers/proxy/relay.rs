//! One way through one connection: what comes at one end, held, cut, slowed, and given to the
//! other. Never blocks. What is not held is spliced from socket to socket through a pipe: its
//! bytes stay in the kernel, uncopied.

use super::counters::Tally;
use super::stream_effects::StreamEffects;
use super::throttle::Pace;
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
const HELD: usize = 8 << 20;
/// The most that is read at once of what is to be late.
const PIECE: usize = 128 << 10;
/// What a pipe holds, 16 pages at first, and when it was seen to be filled: the most that a user
/// may ask for by Linux' defaults.
const PIPE: [usize; 2] = [64 << 10, 1 << 20];
/// What a piece that is held costs besides its bytes.
const EACH: usize = 64;

/// One way through a connection.
pub(super) struct Passage {
    harm: StreamEffects,
    pace: Pace,
    store: Store,
    rng: ChaCha8Rng,
    /// What may still be taken.
    left: u64,
    state: State,
    /// Whether the one end may have something, and the other may take something: so until it is seen not to be.
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// What is on its way.
enum Store {
    /// In the kernel.
    Pipe {
        out: OwnedFd,
        into: OwnedFd,
        filled: usize,
        /// Whether a larger one was asked for.
        grown: bool,
    },
    /// With us, each piece with the time when it goes on.
    Late {
        pieces: VecDeque<(Instant, Vec<u8>)>,
        /// How much of the first piece has gone.
        gone: usize,
        held: usize,
        room: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
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

impl Passage {
    pub(super) fn new(
        harm: StreamEffects,
        mut rng: ChaCha8Rng,
        now: Instant,
    ) -> rustix::io::Result<Self> {
        let store = if harm.latency.is_some() {
            Store::Late {
                pieces: VecDeque::new(),
                gone: 0,
                held: 0,
                room: vec![0; PIECE],
            }
        } else {
            let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            Store::Pipe {
                out,
                into,
                filled: 0,
                grown: false,
            }
        };
        let paced = rng.clone();
        // Two users of one stream of numbers, the second far behind the first.
        rng.set_word_pos(1 << 40);
        Ok(Passage {
            pace: Pace::new(&harm, paced, now),
            left: harm.limit_data.map_or(u64::MAX, |size| size.0),
            harm,
            store,
            rng,
            state: State::Open,
            readable: true,
            writable: true,
        })
    }

    /// Takes and gives what it can. Whether anything came of it.
    pub(super) fn turn(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        now: Instant,
        tally: &Tally<'_>,
    ) -> bool {
        self.take(from, now, tally) | self.give(to, now, tally) | self.end(to, now)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether it was closed because so much had passed.
    pub(super) fn is_at_its_limit(&self) -> bool {
        self.left == 0
    }

    /// Whether an end has failed, and its time to be told has come.
    pub(super) fn is_broken(&self, now: Instant) -> bool {
        matches!(self.state, State::Broken(at) if at <= now)
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        match &self.store {
            Store::Pipe { filled, .. } => *filled == 0,
            Store::Late { pieces, .. } => pieces.is_empty(),
        }
    }

    /// What it waits for, when nothing came of a turn.
    pub(super) fn wants(&self, now: Instant) -> Wants {
        let at = self.ready_at();
        let ready = at.is_some_and(|at| at <= now);
        let told = match self.state {
            State::Ending(at) | State::Broken(at) if self.is_empty() => Some(at),
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
        self.state == State::Open
            && self.harm.timeout.is_none()
            && match &self.store {
                // An empty one only: a full pipe and an empty socket say the same.
                Store::Pipe { filled, .. } => *filled == 0,
                Store::Late { held, .. } => *held < HELD,
            }
    }

    /// When something may go on, if there is something.
    fn ready_at(&self) -> Option<Instant> {
        match &self.store {
            Store::Pipe { filled: 0, .. } => None,
            Store::Pipe { .. } => Some(self.pace.next()),
            Store::Late { pieces, .. } => {
                let (due, _) = pieces.front()?;
                Some(self.pace.next().max(*due))
            }
        }
    }

    fn take(&mut self, from: &TcpStream, now: Instant, tally: &Tally<'_>) -> bool {
        if !self.readable || !self.takes() {
            return false;
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let taken = match &mut self.store {
            Store::Pipe {
                into,
                filled,
                grown,
                ..
            } => {
                let most = PIPE[1].min(left).min(self.pace.portion());
                let taken = splice(from, None, &*into, None, most, SpliceFlags::NONBLOCK);
                *filled += taken.unwrap_or(0);
                if *filled >= PIPE[0] && !*grown {
                    *grown = true;
                    // Where a user has too many pipes already, this one stays as it is.
                    fcntl_setpipe_size(&*into, PIPE[1]).ok();
                }
                taken
            }
            Store::Late { room, .. } => {
                let most = PIECE.min(left);
                rustix::io::read(from, &mut room[..most])
            }
        };
        match taken {
            Ok(0) => {
                if self.harm.slow_close.is_some() {
                    tally.harmed();
                }
                let slow = self.harm.slow_close.unwrap_or_default().0;
                self.state = State::Ending(self.late(now) + slow);
            }
            Ok(count) => {
                self.left -= count as u64;
                self.hold(count, now, tally);
                if self.left == 0 {
                    tally.harmed();
                    self.state = State::Ending(now);
                }
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                return false;
            }
            Err(Errno::INTR) => {}
            Err(_) => self.state = State::Broken(self.late(now)),
        }
        true
    }

    /// Keeps what was read until its time.
    fn hold(&mut self, count: usize, now: Instant, tally: &Tally<'_>) {
        if self.harm.latency.is_none() {
            return;
        }
        let due = self.late(now);
        if let Store::Late {
            pieces, held, room, ..
        } = &mut self.store
        {
            *held += count + EACH;
            pieces.push_back((due, room[..count].to_vec()));
            tally.harmed();
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
        match &self.store {
            Store::Late { pieces, .. } => pieces.back().map_or(due, |(last, _)| due.max(*last)),
            Store::Pipe { .. } => due,
        }
    }

    fn give(&mut self, to: &TcpStream, now: Instant, tally: &Tally<'_>) -> bool {
        if !self.writable || self.ready_at().is_none_or(|at| at > now) {
            return false;
        }
        let most = self.pace.portion();
        let given = match &mut self.store {
            Store::Pipe { out, filled, .. } => {
                let most = most.min(*filled);
                let given = splice(out, None, to, None, most, SpliceFlags::NONBLOCK);
                *filled -= given.unwrap_or(0);
                given
            }
            Store::Late {
                pieces, gone, held, ..
            } => {
                let Some((_, piece)) = pieces.front() else {
                    return false;
                };
                let end = piece.len().min(gone.saturating_add(most));
                let given = rustix::io::write(to, &piece[*gone..end]);
                *gone += given.unwrap_or(0);
                if *gone == piece.len() {
                    *held -= piece.len() + EACH;
                    *gone = 0;
                    pieces.pop_front();
                }
                given
            }
        };
        match given {
            Ok(count) => {
                tally.bytes(count);
                if self.pace.limits() {
                    tally.harmed();
                    self.pace.passed(count, now);
                }
            }
            Err(Errno::AGAIN) => {
                self.writable = false;
                return false;
            }
            Err(Errno::INTR) => {}
            Err(_) => {
                // Nobody is there to take it.
                match &mut self.store {
                    Store::Pipe { filled, .. } => *filled = 0,
                    Store::Late { pieces, .. } => pieces.clear(),
                }
                self.state = State::Broken(now);
            }
        }
        true
    }

    /// Tells the other end that nothing more comes, when it is time.
    fn end(&mut self, to: &TcpStream, now: Instant) -> bool {
        if !matches!(self.state, State::Ending(at) if at <= now) || !self.is_empty() {
            return false;
        }
        self.state = match shutdown(to, Shutdown::Write) {
            Ok(()) => State::Ended,
            Err(_) => State::Broken(now),
        };
        true
    }
}
