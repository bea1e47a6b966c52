//! Shows the progress of a run. A separate thread does the writing: a terminal that is stopped with Ctrl-S, or a pipe that
//! nobody reads, must not block the run, and least of all its revert.

use super::palette::Palette;
use super::progress_tty::TtyProgress;
use super::{print, print_stderr};
use backburn::runner::EventObserver;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{Event, JournalEntry, Judgement};
use backburn_experiments::terminal_text::{escape, escaped};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

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
    /// Starts the thread. `lengths` holds the duration of each action's fault, by the action's name.
    pub(super) fn start(style: OutputStyle, lengths: BTreeMap<String, HumanDuration>) -> Self {
        let (to, from) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || show(style, lengths, &from));
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

fn show(
    style: OutputStyle,
    lengths: BTreeMap<String, HumanDuration>,
    from: &mpsc::Receiver<ProgressMessage>,
) -> Vec<JournalEntry> {
    let mut entries: Vec<JournalEntry> = Vec::new();
    let mut lines = LineFormatter {
        paint: Palette::stderr(),
        last: BTreeMap::new(),
    };
    let mut live = (style == OutputStyle::Live).then(|| TtyProgress::new(lines.paint, lengths));
    loop {
        let said = match &mut live {
            Some(live) => match from.recv_timeout(REDRAW_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {
                    live.draw();
                    continue;
                }
                said => said.ok(),
            },
            None => from.recv().ok(),
        };
        match said {
            None => break,
            Some(ProgressMessage::Warning(warning)) => {
                let warning = escape(&warning);
                match &live {
                    Some(live) => live.line(&lines.paint.warning(&warning)),
                    None => print_stderr(&format!("{warning}\n")),
                }
            }
            Some(ProgressMessage::Entry(entry)) => {
                if style == OutputStyle::Json {
                    if let Ok(line) = serde_json::to_string(&entry) {
                        print(&format!("{line}\n"));
                    }
                } else if let Some(shown) = escaped(&*entry) {
                    let line = lines.line(&shown);
                    match (&mut live, line) {
                        (Some(live), line) => {
                            live.take(&shown);
                            if !matches!(shown.event, Event::Sampled { .. })
                                && let Some(line) = line
                            {
                                live.line(&line);
                            }
                        }
                        (None, Some(line)) => print_stderr(&format!("{line}\n")),
                        (None, None) => {}
                    }
                }
                entries.push(*entry);
            }
        }
    }
    if let Some(live) = live {
        live.end();
    }
    entries
}

/// Formats events as lines.
struct LineFormatter {
    paint: Palette,
    /// The last judgement of each probe: only changes are shown, since a line for each sample would bury the rest.
    last: BTreeMap<String, Judgement>,
}

impl LineFormatter {
    fn line(&mut self, entry: &JournalEntry) -> Option<String> {
        let text = self.text(&entry.event)?;
        let at = self.paint.dim(&format!("{:>8.3}s", entry.elapsed));
        Some(format!("{at}  {text}"))
    }

    fn text(&mut self, event: &Event) -> Option<String> {
        if let Event::Sampled {
            probe, judgement, ..
        } = event
            && self.last.insert(probe.clone(), *judgement) == Some(*judgement)
        {
            return None;
        }
        let pieces = event.describe();
        let pieces = pieces
            .iter()
            .map(|(tone, text)| self.paint.toned(*tone, text));
        (pieces.len() > 0).then(|| pieces.collect())
    }
}
