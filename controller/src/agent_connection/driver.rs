//! One task for each connection: it writes commands and heartbeats, and reads reports.

use super::handle::Liveness;
use super::requests::{PendingRequests, locked};
use super::{AgentHandle, EventKind, line};
use backburn_experiments::HumanDuration;
use backburn_experiments::protocol::UnreadableMessage;
use backburn_experiments::wire::{Command, Report};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;

/// How long reports are still read after the controller closed its side: the agent reverts everything, and reports it.
const FINAL_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How many heartbeats are sent in the time of a lease.
const HEARTBEATS_PER_LEASE: u32 = 3;

/// An agent that has sent nothing during this many heartbeats is unresponsive. Together with the part of the lease in which
/// it fell silent, that is a lease.
const MAX_MISSED_HEARTBEATS: u32 = HEARTBEATS_PER_LEASE - 1;

/// The longest line that is accepted, in bytes. A longer one does not come from an agent.
const MAX_LINE_BYTES: usize = 4 << 20;

/// How many messages that cannot be read are skipped on one connection.
const MAX_SKIPPED_MESSAGES: u32 = 10_000;

/// How much is read at once, in bytes.
const READ_CHUNK_BYTES: usize = 4 << 10;

/// The task of one connection.
pub(crate) struct ConnectionDriver<S> {
    stream: S,
    outgoing: mpsc::UnboundedReceiver<Option<Arc<[u8]>>>,
    pending: Arc<Mutex<PendingRequests>>,
    liveness: Arc<Liveness>,
    lease: HumanDuration,
    /// How many heartbeats were sent since something was received.
    missed: u32,
    /// When the last heartbeat was sent.
    beat_at: tokio::time::Instant,
    incoming: Vec<u8>,
    /// How many messages were skipped because this version cannot read them.
    skipped: u32,
}

/// Connects to an agent over this stream. Returns a handle to it, and the task that has to [`run`](ConnectionDriver::run).
pub(crate) fn drive<S>(stream: S, lease: HumanDuration) -> (AgentHandle, ConnectionDriver<S>) {
    let (lines, outgoing) = mpsc::unbounded_channel();
    let pending = Arc::<Mutex<PendingRequests>>::default();
    let liveness = Arc::<Liveness>::default();
    record_heard(&liveness);
    let handle = AgentHandle {
        lines,
        pending: Arc::clone(&pending),
        liveness: Arc::clone(&liveness),
    };
    let driver = ConnectionDriver {
        stream,
        outgoing,
        pending,
        liveness,
        lease,
        missed: 0,
        beat_at: tokio::time::Instant::now(),
        incoming: Vec::new(),
        skipped: 0,
    };
    (handle, driver)
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionDriver<S> {
    /// Runs until the connection closes, and returns the reason. `on_event` takes every report that nobody waits for, and
    /// changes of whether the agent responds; its error ends the connection, and is the reason then.
    pub(crate) async fn run(
        mut self,
        mut on_event: impl FnMut(EventKind) -> Result<(), String>,
    ) -> String {
        let why = self.until_closed(&mut on_event).await;
        locked(&self.pending).close();
        why
    }

    async fn until_closed(
        &mut self,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> String {
        let mut beats = tokio::time::interval(self.lease.0 / HEARTBEATS_PER_LEASE);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_open = true;
        // Once the sending side is closed, the agent has this long to go.
        let gone = tokio::time::sleep(Duration::MAX);
        tokio::pin!(gone);
        loop {
            let line = tokio::select! {
                biased;
                () = gone.as_mut(), if !is_open => return "the connection was closed".to_owned(),
                line = self.outgoing.recv(), if is_open => line.flatten(),
                _ = beats.tick(), if is_open => match self.beat(on_event) {
                    Ok(beat) => beat,
                    Err(why) => return why,
                },
                read = read_more(&mut self.stream, &mut self.incoming) => {
                    let fresh = match read {
                        Ok(0) => return "the connection was closed".to_owned(),
                        Ok(fresh) => fresh,
                        Err(error) => return format!("the connection broke: {error}"),
                    };
                    if let Err(why) = self.take_lines(fresh, on_event) {
                        return why;
                    }
                    continue;
                }
            };
            match line {
                // If a write fails, so does reading, which reports the reason.
                Some(line) => match tokio::time::timeout(self.lease.0, self.write(&line)).await {
                    Ok(written) => is_open = written.is_ok(),
                    // Nothing is read meanwhile, so this must not take long.
                    Err(_) => {
                        return format!("it accepted no data for {}", self.lease);
                    }
                },
                None => {
                    is_open = false;
                    gone.as_mut()
                        .reset(tokio::time::Instant::now() + FINAL_READ_TIMEOUT);
                    self.stream.shutdown().await.ok();
                }
            }
        }
    }

    /// The next heartbeat. Reports the agent as unresponsive if it has missed too many.
    fn beat(
        &mut self,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> Result<Option<Arc<[u8]>>, String> {
        let now = tokio::time::Instant::now();
        let is_late =
            now.duration_since(self.beat_at) > self.lease.0 / HEARTBEATS_PER_LEASE * 3 / 2;
        self.beat_at = now;
        self.missed = match is_late {
            // This task was late itself, and may not have read what was there.
            true => 0,
            false => self.missed.saturating_add(1),
        };
        let answer = self.liveness.answers_heartbeats.load(Ordering::Relaxed);
        let lease = self.lease;
        let beat = line(&Command::Heartbeat { lease, answer });
        if answer
            && self.missed > MAX_MISSED_HEARTBEATS
            && !self.liveness.unresponsive.swap(true, Ordering::Relaxed)
        {
            // No wait for an agent is longer than a lease.
            locked(&self.pending).give_up();
            on_event(EventKind::Unresponsive(self.lease))?;
        }
        Ok(beat)
    }

    /// Something was received: the agent lives.
    fn record_life(
        &mut self,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> Result<(), String> {
        self.missed = 0;
        self.liveness.received.fetch_add(1, Ordering::Relaxed);
        record_heard(&self.liveness);
        match self.liveness.unresponsive.swap(false, Ordering::Relaxed) {
            true => on_event(EventKind::RespondsAgain),
            false => Ok(()),
        }
    }

    async fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.stream.write_all(line).await?;
        self.stream.flush().await
    }

    /// Handles every complete line. The last `fresh` bytes are new: no line ends before them.
    fn take_lines(
        &mut self,
        fresh: usize,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> Result<(), String> {
        self.record_life(on_event)?;
        let mut from = 0;
        let mut unseen = self.incoming.len().saturating_sub(fresh);
        while let Some(length) = self
            .incoming
            .get(unseen..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let end = unseen + length;
            let line = self.incoming.get(from..end).unwrap_or_default();
            from = end + 1;
            unseen = from;
            // A guardian that speaks for a dead worker begins with the end of a line.
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Report>(line) {
                Ok(report) => self.take(report, on_event)?,
                Err(error) => {
                    let unreadable = UnreadableMessage::of(line)
                        .ok_or_else(|| format!("it sent an unknown report: {error}"))?;
                    self.skip(unreadable, &error)?;
                }
            }
        }
        self.incoming.drain(..from);
        if self.incoming.len() > MAX_LINE_BYTES {
            return Err(format!(
                "it sent a line of more than {MAX_LINE_BYTES} bytes"
            ));
        }
        if self.incoming.is_empty() {
            // Ten thousand idle agents should not each keep the memory of their longest line.
            self.incoming = Vec::new();
        }
        Ok(())
    }

    /// Skips a message that this version does not know or cannot read, as a newer agent may send.
    fn skip(
        &mut self,
        message: UnreadableMessage,
        error: &serde_json::Error,
    ) -> Result<(), String> {
        if message.say == "hello" {
            return Err(format!("its introduction cannot be read: {error}"));
        }
        if let Some(request) = message.request {
            locked(&self.pending).forget(request);
        }
        self.skipped += 1;
        match self.skipped {
            1 => {
                tracing::warn!(say = message.say, %error, "an agent sent a message that this version cannot read; upgrade the controller")
            }
            2..=MAX_SKIPPED_MESSAGES => {}
            _ => {
                return Err(format!(
                    "it sent more than {MAX_SKIPPED_MESSAGES} messages that this version cannot read"
                ));
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        report: Report,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> Result<(), String> {
        if let Report::Hello(hello) = &report {
            self.missed = 0;
            (self.liveness.answers_heartbeats).store(hello.answers_heartbeats, Ordering::Relaxed);
        }
        // Only what somebody waits for bypasses the events, which runs must get in order.
        let request = match &report {
            Report::Measured { request, .. }
            | Report::Planned { request, .. }
            | Report::Refused { request, .. }
            | Report::Described { request, .. }
            | Report::Probed { request, .. }
            | Report::AllReverted { request, .. } => Some(*request),
            _ => None,
        };
        let event = match request {
            Some(request) => locked(&self.pending).answer(request, report),
            None => Some(report),
        };
        if let Some(report) = event {
            on_event(EventKind::Report(Box::new(report)))?;
        }
        Ok(())
    }
}

fn record_heard(liveness: &Liveness) {
    let now = jiff::Timestamp::now().as_millisecond();
    liveness.heard.store(now, Ordering::Relaxed);
}

/// Reads what is there into a buffer on the stack first, so that ten thousand idle connections keep no buffers.
async fn read_more(stream: &mut (impl AsyncRead + Unpin), to: &mut Vec<u8>) -> io::Result<usize> {
    std::future::poll_fn(|context| {
        let mut room = [const { MaybeUninit::uninit() }; READ_CHUNK_BYTES];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut room))?;
        to.extend_from_slice(room.filled());
        Poll::Ready(Ok(room.filled().len()))
    })
    .await
}
