//! The two ends of a talk with an agent, in one task: what is said, the beats among it, and what is heard.

use super::{AgentHandle, EventKind, Liveness, PendingRequests, line, locked};
use backburn_experiments::Span;
use backburn_experiments::wire::{Command, Report};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;

/// How long an agent that we hung up on is listened to: it puts everything back, and says so.
const FINAL_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How many parts of a lease there are: a beat is sent at the end of each.
const HEARTBEATS_PER_LEASE: u32 = 3;

/// An agent that has said nothing at all for so many beats does not answer. Together with the part of the lease in which it fell
/// silent, that is a lease.
const MAX_MISSED_HEARTBEATS: u32 = HEARTBEATS_PER_LEASE - 1;

/// An agent that says a longer line is no agent of ours.
const MAX_LINE_BYTES: usize = 4 << 20;

/// What is read of a link at once, in bytes.
const READ_CHUNK_BYTES: usize = 4 << 10;

/// One end of a link: what is said, and what is heard, in one task.
pub(crate) struct ConnectionDriver<S> {
    stream: S,
    outgoing: mpsc::UnboundedReceiver<Option<Arc<[u8]>>>,
    pending: PendingRequests,
    liveness: Arc<Liveness>,
    lease: Span,
    /// How many beats were sent since it said anything.
    missed: u32,
    /// When the last beat was sent.
    beat_at: tokio::time::Instant,
    incoming: Vec<u8>,
}

/// The two ends of a talk over this stream: who speaks, and the task that has to [`run`](Talk::go).
pub(crate) fn drive<S>(stream: S, lease: Span) -> (AgentHandle, ConnectionDriver<S>) {
    let (lines, outgoing) = mpsc::unbounded_channel();
    let pending: PendingRequests = Arc::new(Mutex::new(Some(BTreeMap::new())));
    let liveness = Arc::<Liveness>::default();
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
    };
    (handle, driver)
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionDriver<S> {
    /// Talks until the link closes, and returns how we know. `on_event` takes what is no answer, and that the agent does not answer or
    /// does so again; it says why not to go on, if so.
    pub(crate) async fn run(
        mut self,
        mut on_event: impl FnMut(EventKind) -> Result<(), String>,
    ) -> String {
        let why = self.until_closed(&mut on_event).await;
        *locked(&self.pending) = None;
        why
    }

    async fn until_closed(
        &mut self,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> String {
        let mut beats = tokio::time::interval(self.lease.0 / HEARTBEATS_PER_LEASE);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut speaks = true;
        // Who has been told that we say nothing more has so long to go.
        let gone = tokio::time::sleep(Duration::MAX);
        tokio::pin!(gone);
        loop {
            let said = tokio::select! {
                biased;
                () = gone.as_mut(), if !speaks => return "the link was closed".to_owned(),
                said = self.outgoing.recv(), if speaks => said.flatten(),
                _ = beats.tick(), if speaks => match self.beat(on_event) {
                    Ok(beat) => beat,
                    Err(why) => return why,
                },
                read = read_more(&mut self.stream, &mut self.incoming) => {
                    let fresh = match read {
                        Ok(0) => return "the link was closed".to_owned(),
                        Ok(fresh) => fresh,
                        Err(error) => return format!("the link broke: {error}"),
                    };
                    if let Err(why) = self.take_lines(fresh, on_event) {
                        return why;
                    }
                    continue;
                }
            };
            match said {
                // A failed write is seen by the reading side, too, which tells of it.
                Some(line) => match tokio::time::timeout(self.lease.0, self.write(&line)).await {
                    Ok(written) => speaks = written.is_ok(),
                    // Nothing is read meanwhile, so it can't be waited for.
                    Err(_) => {
                        return format!("it took nothing of what it was told for {}", self.lease);
                    }
                },
                None => {
                    speaks = false;
                    gone.as_mut()
                        .reset(tokio::time::Instant::now() + FINAL_READ_TIMEOUT);
                    self.stream.shutdown().await.ok();
                }
            }
        }
    }

    /// The next beat. Notes whether the agent has said anything since the last ones.
    fn beat(
        &mut self,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> Result<Option<Arc<[u8]>>, String> {
        let now = tokio::time::Instant::now();
        let is_late =
            now.duration_since(self.beat_at) > self.lease.0 / HEARTBEATS_PER_LEASE * 3 / 2;
        self.beat_at = now;
        self.missed = match is_late {
            // Whoever was late itself has not listened in time.
            true => 0,
            false => self.missed.saturating_add(1),
        };
        let answer = self.liveness.answers_beats.load(Ordering::Relaxed);
        let lease = self.lease;
        let beat = line(&Command::Beat { lease, answer });
        if answer
            && self.missed > MAX_MISSED_HEARTBEATS
            && !self.liveness.unresponsive.swap(true, Ordering::Relaxed)
        {
            // Nobody waits for its answers any more, so that no wait for an agent is longer than a lease.
            if let Some(pending) = locked(&self.pending).as_mut() {
                pending.clear();
            }
            on_event(EventKind::Unresponsive(self.lease))?;
        }
        Ok(beat)
    }

    /// Something was read: the agent lives.
    fn record_life(
        &mut self,
        on_event: &mut impl FnMut(EventKind) -> Result<(), String>,
    ) -> Result<(), String> {
        self.missed = 0;
        self.liveness.received.fetch_add(1, Ordering::Relaxed);
        match self.liveness.unresponsive.swap(false, Ordering::Relaxed) {
            true => on_event(EventKind::RespondsAgain),
            false => Ok(()),
        }
    }

    async fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.stream.write_all(line).await?;
        self.stream.flush().await
    }

    /// Deals with every line that is whole. So many bytes are fresh: in those before them no line ends.
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
            let report = serde_json::from_slice::<Report>(line)
                .map_err(|error| format!("it said what cannot be understood: {error}"))?;
            self.take(report, on_event)?;
        }
        self.incoming.drain(..from);
        if self.incoming.len() > MAX_LINE_BYTES {
            return Err(format!(
                "it said a line of more than {MAX_LINE_BYTES} bytes"
            ));
        }
        if self.incoming.is_empty() {
            // Ten thousand agents at rest should not each keep the room of their longest word.
            self.incoming = Vec::new();
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
            (self.liveness.answers_beats).store(hello.answers_beats, Ordering::Relaxed);
        }
        // Only what somebody waits for is answered past the runner: the rest it must see in order.
        let start_request = match &report {
            Report::Measured { request, .. }
            | Report::Planned { request, .. }
            | Report::Refused { request, .. }
            | Report::Described { request, .. }
            | Report::Probed { request, .. }
            | Report::AllReverted { request, .. } => locked(&self.pending)
                .as_mut()
                .and_then(|pending| pending.remove(request)),
            _ => None,
        };
        match start_request {
            // Whoever asked may have been ended since.
            Some(answer) => drop(answer.send(report)),
            None => on_event(EventKind::Report(Box::new(report)))?,
        }
        Ok(())
    }
}

/// Reads what there is, by way of the stack: of ten thousand who are quiet none keeps room for what it may say.
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
