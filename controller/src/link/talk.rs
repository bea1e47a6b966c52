//! The two ends of a talk with an agent, in one task: what is said, the beats among it, and what is heard.

use super::{Caller, Waiting, line, locked};
use backburn_experiments::Span;
use backburn_experiments::wire::{Command, Report};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;

/// How long an agent that we hung up on is listened to: it puts everything back, and says so.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(60);

/// An agent that says a longer line is no agent of ours.
const LONGEST_LINE: usize = 4 << 20;

/// What is read of a link at once, in bytes.
const READ_AT_ONCE: usize = 4 << 10;

/// One end of a link: what is said, and what is heard, in one task.
pub(crate) struct Talk<S> {
    stream: S,
    to_say: mpsc::UnboundedReceiver<Option<Arc<[u8]>>>,
    waiting: Waiting,
    lease: Span,
    incoming: Vec<u8>,
}

/// The two ends of a talk over this stream: who speaks, and the task that has to [`go`](Talk::go).
pub(crate) fn talk<S>(stream: S, lease: Span) -> (Caller, Talk<S>) {
    let (lines, to_say) = mpsc::unbounded_channel();
    let waiting: Waiting = Arc::new(Mutex::new(Some(BTreeMap::new())));
    let caller = Caller {
        lines,
        waiting: Arc::clone(&waiting),
        last: Arc::default(),
    };
    let talk = Talk {
        stream,
        to_say,
        waiting,
        lease,
        incoming: Vec::new(),
    };
    (caller, talk)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// Talks until the link closes, and returns how we know. `hear` takes what is no answer, and says why not to go on, if so.
    pub(crate) async fn go(
        mut self,
        mut hear: impl FnMut(Box<Report>) -> Result<(), String>,
    ) -> String {
        let why = self.until_closed(&mut hear).await;
        *locked(&self.waiting) = None;
        why
    }

    async fn until_closed(
        &mut self,
        hear: &mut impl FnMut(Box<Report>) -> Result<(), String>,
    ) -> String {
        let mut beats = tokio::time::interval(self.lease.0 / 3);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let beat = line(&Command::Beat { lease: self.lease });
        let mut speaks = true;
        // Who has been told that we say nothing more has so long to go.
        let gone = tokio::time::sleep(Duration::MAX);
        tokio::pin!(gone);
        loop {
            let said = tokio::select! {
                biased;
                () = gone.as_mut(), if !speaks => return "the link was closed".to_owned(),
                said = self.to_say.recv(), if speaks => said.flatten(),
                _ = beats.tick(), if speaks => beat.clone(),
                read = read_more(&mut self.stream, &mut self.incoming) => {
                    let fresh = match read {
                        Ok(0) => return "the link was closed".to_owned(),
                        Ok(fresh) => fresh,
                        Err(error) => return format!("the link broke: {error}"),
                    };
                    if let Err(why) = self.take_lines(fresh, hear) {
                        return why;
                    }
                    continue;
                }
            };
            match said {
                // A failed write is seen by the reading side, too, which tells of it.
                Some(line) => speaks = self.write(&line).await.is_ok(),
                None => {
                    speaks = false;
                    gone.as_mut()
                        .reset(tokio::time::Instant::now() + LAST_WORDS_WITHIN);
                    self.stream.shutdown().await.ok();
                }
            }
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
        hear: &mut impl FnMut(Box<Report>) -> Result<(), String>,
    ) -> Result<(), String> {
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
            self.take(report, hear)?;
        }
        self.incoming.drain(..from);
        if self.incoming.len() > LONGEST_LINE {
            return Err(format!("it said a line of more than {LONGEST_LINE} bytes"));
        }
        if self.incoming.is_empty() {
            // Ten thousand agents at rest should not each keep the room of their longest word.
            self.incoming = Vec::new();
        }
        Ok(())
    }

    fn take(
        &self,
        report: Report,
        hear: &mut impl FnMut(Box<Report>) -> Result<(), String>,
    ) -> Result<(), String> {
        // Only what somebody waits for is answered past the runner: the rest it must see in order.
        let asked = match &report {
            Report::Measured { request, .. }
            | Report::Planned { request, .. }
            | Report::Refused { request, .. }
            | Report::Described { request, .. }
            | Report::Probed { request, .. }
            | Report::AllReverted { request, .. } => locked(&self.waiting)
                .as_mut()
                .and_then(|waiting| waiting.remove(request)),
            _ => None,
        };
        match asked {
            // Whoever asked may have been ended since.
            Some(answer) => drop(answer.send(report)),
            None => hear(Box::new(report))?,
        }
        Ok(())
    }
}

/// Reads what there is, by way of the stack: of ten thousand who are quiet none keeps room for what it may say.
async fn read_more(stream: &mut (impl AsyncRead + Unpin), to: &mut Vec<u8>) -> io::Result<usize> {
    std::future::poll_fn(|context| {
        let mut room = [const { MaybeUninit::uninit() }; READ_AT_ONCE];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut room))?;
        to.extend_from_slice(room.filled());
        Poll::Ready(Ok(room.filled().len()))
    })
    .await
}
