//! How worker and guardian notice that the other hangs. While anything is being planned, active or being reverted, the worker sends a byte
//! every [`INTERVAL`] over their socket pair, and the guardian answers each. Whoever hears nothing for [`SILENCE_TIMEOUT`] treats the other
//! as dead. The guardian does the same while the worker starts, and when there is no controller left to serve; and a worker that is about
//! to exit makes sure that its guardian is alive. At rest nothing is sent and nobody wakes.
//!
//! Whoever itself woke late grants one more timeout: on a machine that slept, was frozen or is overloaded, both are late for the same
//! reason.

use crate::host::wait_readable;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a heartbeat is sent.
pub const INTERVAL: Duration = Duration::from_millis(300);
/// How long the other side may be silent. A fault must end within two seconds of its time, and reverting is part of these two seconds.
pub const SILENCE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long a worker may take from its start to its first heartbeat.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever wakes this much later than planned counts as late itself.
const LATE_WAKEUP: Duration = Duration::from_millis(300);

/// Announces that another heartbeat will follow within [`INTERVAL`].
const BEAT_BYTE: u8 = b'b';
/// Announces that the worker is idle: no heartbeat will follow.
const REST_BYTE: u8 = b'r';

/// The state of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// It answers, or nothing is expected of it.
    Alive,
    /// It has closed its end of the socket pair.
    Gone,
    /// It does not answer.
    Hung,
}

/// A deadline for hearing from the other side.
#[derive(Debug, Clone, Copy)]
struct Watchdog {
    /// When the other side counts as hung.
    due: Instant,
}

impl Watchdog {
    fn heard(now: Instant) -> Self {
        Watchdog {
            due: now + SILENCE_TIMEOUT,
        }
    }

    /// Whether the deadline has passed. Whoever checks late grants one more timeout, since both may be late for the same reason.
    fn is_over(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        if now > self.due + LATE_WAKEUP {
            *self = Watchdog::heard(now);
            return false;
        }
        true
    }
}

fn is_over(watchdog: &mut Option<Watchdog>, now: Instant) -> bool {
    watchdog
        .as_mut()
        .is_some_and(|watchdog| watchdog.is_over(now))
}

/// The worker's side of the heartbeat.
#[derive(Debug)]
pub struct Heartbeat {
    /// When the next heartbeat is sent; none while the worker is idle.
    next: Option<Instant>,
    answers: Option<Watchdog>,
    is_gone: bool,
}

impl Default for Heartbeat {
    /// The first heartbeat is due at once, because the guardian waits for it.
    fn default() -> Self {
        Heartbeat {
            next: Some(Instant::now()),
            answers: None,
            is_gone: false,
        }
    }
}

impl Heartbeat {
    /// Sends heartbeats for as long as `work` takes, which runs on a thread of its own. The guardian's answers are not checked meanwhile.
    pub fn beat_during<T: Send>(
        &mut self,
        guardian: impl AsFd,
        work: impl FnOnce() -> T + Send,
    ) -> std::thread::Result<T> {
        std::thread::scope(|threads| {
            // Its end is told by the channel and not by `is_finished`, which may still be false when the thread has said that it is done.
            let (running, ended) = mpsc::channel::<()>();
            let work = threads.spawn(move || {
                let _running = running;
                work()
            });
            loop {
                send_byte(&guardian, BEAT_BYTE);
                if ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            work.join()
        })
    }

    /// Whether the guardian answers one last heartbeat within [`SILENCE_TIMEOUT`], so that it can revert what is left.
    pub fn is_answered(&mut self, guardian: impl AsFd) -> bool {
        // Answers to earlier heartbeats do not count.
        while read(&guardian).is_some_and(|count| count > 0) {}
        send_byte(&guardian, BEAT_BYTE);
        let mut watchdog = Watchdog::heard(Instant::now());
        loop {
            let left = watchdog.due.saturating_duration_since(Instant::now());
            match wait_readable(&guardian, left) {
                Ok(true) => return read(&guardian) != Some(0),
                Ok(false) if watchdog.is_over(Instant::now()) => return false,
                Ok(false) => {}
                Err(_) => return true,
            }
        }
    }

    /// Sends what is due. Never waits: a guardian that does not read is noticed by its missing answers.
    pub fn beat(&mut self, guardian: impl AsFd, is_busy: bool, now: Instant) {
        match (is_busy, self.next) {
            (false, None) => {}
            (false, Some(_)) => {
                self.next = None;
                self.answers = None;
                send_byte(guardian, REST_BYTE);
            }
            (true, Some(next)) if now < next => {}
            (true, _) => {
                self.next = Some(now + INTERVAL);
                self.answers.get_or_insert(Watchdog::heard(now));
                send_byte(guardian, BEAT_BYTE);
            }
        }
    }

    /// Reads the guardian's answers if there are any, and checks its deadline.
    pub fn check(&mut self, guardian: impl AsFd, is_readable: bool, now: Instant) -> PeerState {
        if self.is_gone {
            return PeerState::Alive;
        }
        if is_readable {
            match read(guardian) {
                None => {
                    self.is_gone = true;
                    return PeerState::Gone;
                }
                Some(0) => {}
                Some(_) if self.answers.is_some() => self.answers = Some(Watchdog::heard(now)),
                Some(_) => {}
            }
        }
        self.is_gone = is_over(&mut self.answers, now);
        match self.is_gone {
            true => PeerState::Hung,
            false => PeerState::Alive,
        }
    }

    /// Whether the guardian has gone or was given up.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// When the worker must wake for the heartbeat.
    pub fn next_due(&self) -> Option<Instant> {
        let watchdog = self.answers.filter(|_| !self.is_gone);
        self.next
            .into_iter()
            .chain(watchdog.map(|watchdog| watchdog.due))
            .min()
    }
}

/// The guardian's side of the heartbeat.
#[derive(Debug)]
pub struct HeartbeatMonitor {
    beats: Option<Watchdog>,
    /// Whether the worker is ending, so that it may no longer be idle.
    is_ending: bool,
}

impl HeartbeatMonitor {
    /// The state right after the worker was started, which has [`START_TIMEOUT`] for its first heartbeat.
    pub fn for_started_worker(now: Instant) -> Self {
        HeartbeatMonitor {
            beats: Some(Watchdog {
                due: now + START_TIMEOUT,
            }),
            is_ending: false,
        }
    }

    /// Expects heartbeats from now on, because the worker is ending and sends them for as long as that takes.
    pub fn expect_beat(&mut self, now: Instant) {
        self.is_ending = true;
        self.beats = Some(Watchdog::heard(now));
    }

    /// Reads and answers the worker's heartbeats if there are any, and checks its deadline.
    pub fn check(&mut self, worker: impl AsFd, is_readable: bool, now: Instant) -> PeerState {
        if is_readable {
            let mut buffer = [0; 64];
            match recv(&worker, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return PeerState::Gone,
                Ok((count, _)) => {
                    let last = buffer.get(count.saturating_sub(1)).copied();
                    let follows = last == Some(BEAT_BYTE);
                    self.beats = (follows || self.is_ending).then(|| Watchdog::heard(now));
                    if follows {
                        send_byte(worker, BEAT_BYTE);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return PeerState::Gone,
            }
        }
        match is_over(&mut self.beats, now) {
            true => PeerState::Hung,
            false => PeerState::Alive,
        }
    }

    /// When the guardian must wake for the heartbeat: never while the worker is idle.
    pub fn next_due(&self) -> Option<Instant> {
        self.beats.map(|watchdog| watchdog.due)
    }
}

fn send_byte(to: impl AsFd, word: u8) {
    // A full or closed socket is noticed by the answers that do not come.
    send(to, &[word], SendFlags::DONTWAIT | SendFlags::NOSIGNAL).ok();
}

/// Reads what is there. Returns how many bytes it was; none if the other side has closed.
fn read(from: impl AsFd) -> Option<usize> {
    let mut buffer = [0; 64];
    match recv(from, &mut buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => None,
        Ok((count, _)) => Some(count),
        Err(Errno::AGAIN | Errno::INTR) => Some(0),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn watchdog_silent_is_over_after_its_timeout() {
        let start = Instant::now();
        let mut watchdog = Watchdog::heard(start);
        assert!(!watchdog.is_over(start + SILENCE_TIMEOUT - Duration::from_millis(1)));
        assert!(watchdog.is_over(start + SILENCE_TIMEOUT));
    }

    #[test]
    fn watchdog_looked_at_late_grants_one_timeout_more() {
        let start = Instant::now();
        let woke = start + Duration::from_secs(60);
        let mut watchdog = Watchdog::heard(start);
        assert!(!watchdog.is_over(woke));
        assert!(!watchdog.is_over(woke + SILENCE_TIMEOUT - Duration::from_millis(1)));
        assert!(watchdog.is_over(woke + SILENCE_TIMEOUT));
    }

    #[test]
    fn guardian_silent_start_gives_the_worker_up() {
        let (guardian, _worker) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let mut watch = HeartbeatMonitor::for_started_worker(start);
        let before = start + START_TIMEOUT - Duration::from_millis(1);
        assert_eq!(watch.check(&guardian, false, before), PeerState::Alive);
        let after = start + START_TIMEOUT;
        assert_eq!(watch.check(&guardian, false, after), PeerState::Hung);
    }

    #[test]
    fn guardian_idle_worker_waits_until_it_is_to_end() {
        let (guardian, worker) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let mut watch = HeartbeatMonitor::for_started_worker(start);
        Heartbeat::default().beat(&worker, false, start);
        assert_eq!(watch.check(&guardian, true, start), PeerState::Alive);
        assert_eq!(watch.next_due(), None);
        watch.expect_beat(start);
        // Sent before the worker knew that it is to end.
        send_byte(&worker, REST_BYTE);
        assert_eq!(watch.check(&guardian, true, start), PeerState::Alive);
        assert_eq!(
            watch.check(&guardian, false, start + SILENCE_TIMEOUT),
            PeerState::Hung
        );
    }

    #[test]
    fn worker_whose_work_ends_at_once_does_not_wait_for_the_next_beat() {
        const ROUNDS: usize = 100;
        let (guardian, worker) = UnixStream::pair().unwrap();
        let mut beats = 0;
        for round in 0..ROUNDS {
            let done = Heartbeat::default().beat_during(&worker, || round).unwrap();
            assert_eq!(done, round);
            beats += read(&guardian).unwrap();
        }
        // One beat each; whoever misses the end sends a second. A machine that stands still for a whole interval may add some.
        assert!((ROUNDS..ROUNDS + ROUNDS / 5).contains(&beats), "{beats}");
        let panicked = Heartbeat::default().beat_during(&worker, || panic!("on purpose"));
        assert!(panicked.is_err());
    }

    #[test]
    fn worker_leaving_knows_whether_its_guardian_answers() {
        let (guardian, worker) = UnixStream::pair().unwrap();
        assert!(!Heartbeat::default().is_answered(&worker));
        let answering = std::thread::spawn(move || {
            let mut watch = HeartbeatMonitor::for_started_worker(Instant::now());
            while wait_readable(&guardian, SILENCE_TIMEOUT).unwrap() {
                watch.check(&guardian, true, Instant::now());
            }
        });
        assert!(Heartbeat::default().is_answered(&worker));
        answering.join().unwrap();
    }
}
