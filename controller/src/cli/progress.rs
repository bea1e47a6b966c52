//! Shows the progress of a run. A separate thread does the writing: a terminal that is stopped with Ctrl-S, or a pipe that
//! nobody reads, must not block the run, and least of all its revert.

use super::palette::Palette;
use super::progress_lines::LineFormatter;
use super::progress_tty::{TerminalSize, TtyProgress};
use super::{print, print_stderr};
use backburn::runner::EventObserver;
use backburn_experiments::journal::{Event, JournalEntry};
use backburn_experiments::terminal_text::{escape, escaped, is_plain};
use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the live display is redrawn while nothing happens.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// How to show the progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStyle {
    /// The run's events on stdout, as JSON lines.
    Json,
    /// A display on stderr that is updated in place.
    Live,
    /// A line on stderr for each event.
    Lines,
    /// Nothing: several runs go on at the same time.
    Quiet,
}

impl OutputStyle {
    /// The style for people: a live display if stderr is a capable terminal, otherwise lines.
    pub(crate) fn for_people() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if std::io::stderr().is_terminal() && !dumb {
            OutputStyle::Live
        } else {
            OutputStyle::Lines
        }
    }
}

enum ProgressMessage {
    Entry(Box<JournalEntry>),
    Warning(String),
}

/// The thread that shows the progress of a run.
pub(super) struct ProgressThread {
    to: mpsc::Sender<ProgressMessage>,
    thread: Option<JoinHandle<Vec<JournalEntry>>>,
}

impl ProgressThread {
    /// Starts the thread.
    pub(super) fn start(style: OutputStyle) -> Self {
        let (to, from) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || show(style, &from));
        ProgressThread {
            to,
            thread: thread.ok(),
        }
    }

    pub(super) fn watcher(&self) -> EventObserver {
        let to = self.to.clone();
        // If the thread is gone, nothing is shown, and the run goes on.
        Box::new(move |entry| drop(to.send(ProgressMessage::Entry(Box::new(entry.clone())))))
    }

    pub(super) fn warner(&self) -> impl FnMut(String) + Send + 'static {
        let to = self.to.clone();
        move |warning| drop(to.send(ProgressMessage::Warning(warning)))
    }

    /// Waits until everything is shown, and returns all events.
    pub(super) fn end(self) -> Vec<JournalEntry> {
        drop(self.to);
        self.thread
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

/// The entry with everything escaped. None if it cannot be escaped.
fn shown(entry: &JournalEntry) -> Option<Cow<'_, JournalEntry>> {
    match is_plain(entry) {
        true => Some(Cow::Borrowed(entry)),
        false => escaped(entry).map(Cow::Owned),
    }
}

fn show(style: OutputStyle, from: &mpsc::Receiver<ProgressMessage>) -> Vec<JournalEntry> {
    let mut entries: Vec<JournalEntry> = Vec::new();
    let paint = Palette::stderr();
    let mut formatter = LineFormatter::new(paint);
    let mut live = (style == OutputStyle::Live)
        .then(|| TtyProgress::new(paint, std::io::stderr(), TerminalSize::of_stderr()));
    loop {
        let said = match live.is_some() || formatter.holds_back() {
            true => match from.recv_timeout(REDRAW_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(said) => Some(said),
            },
            false => match from.recv() {
                Ok(said) => Some(said),
                Err(_) => break,
            },
        };
        let now = Instant::now();
        let mut lines = Vec::new();
        if !matches!(style, OutputStyle::Json | OutputStyle::Quiet) {
            lines.extend(formatter.due(now));
        }
        match said {
            None => {}
            Some(ProgressMessage::Warning(warning)) => lines.push(match &live {
                Some(_) => paint.warning(&escape(&warning)),
                None => escape(&warning).into_owned(),
            }),
            Some(ProgressMessage::Entry(entry)) => {
                if style == OutputStyle::Json {
                    if let Ok(line) = serde_json::to_string(&entry) {
                        print(&format!("{line}\n"));
                    }
                } else if style == OutputStyle::Quiet {
                    // The events are only kept.
                } else if let Some(shown) = shown(&entry) {
                    let line = formatter.line(&shown, now);
                    // Samples are in the display already.
                    let is_sample = matches!(shown.event, Event::Sampled { .. });
                    lines.extend(line.filter(|_| live.is_none() || !is_sample));
                    if let Some(live) = &mut live {
                        live.take(&shown, now);
                    }
                }
                entries.push(*entry);
            }
        }
        match &mut live {
            Some(live) => live.draw(&lines, TerminalSize::of_stderr(), now),
            None => {
                for line in lines {
                    print_stderr(&format!("{line}\n"));
                }
            }
        }
    }
    if let Some(live) = live {
        live.end(Instant::now());
    }
    entries
}
