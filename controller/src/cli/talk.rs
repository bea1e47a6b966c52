//! Shows a run while it goes on. A thread of its own does the writing: a terminal that is held
//! with Ctrl-S, or a pipe that nobody reads, must not hold the run, and above all not its revert.

use super::live::Live;
use super::{print, say};
use backburn::runner::EventObserver;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{JournalEntry, Event, Judgement, Phase};
use backburn_experiments::wire::EndedInjection;
use owo_colors::OwoColorize;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a live picture is drawn again where nothing happens.
const REDRAW: Duration = Duration::from_millis(200);

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Its events on stdout, as JSON lines.
    Json,
    /// A picture that changes in place, on stderr.
    Live,
    /// Lines, on stderr.
    Lines,
}

impl Style {
    /// What suits stderr: a picture on a terminal that can draw one, else lines.
    pub(crate) fn for_people() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if std::io::stderr().is_terminal() && !dumb {
            Style::Live
        } else {
            Style::Lines
        }
    }
}

/// Colours where stderr has them: `NO_COLOR`, `CLICOLOR` and a dumb terminal are minded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn stderr() -> Self {
        Paint(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never)
    }

    pub(super) fn stdout() -> Self {
        Paint(anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never)
    }

    pub(super) fn good(self, text: &str) -> String {
        if self.0 {
            text.green().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn bad(self, text: &str) -> String {
        if self.0 {
            text.red().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn doubtful(self, text: &str) -> String {
        if self.0 {
            text.yellow().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn faint(self, text: &str) -> String {
        if self.0 {
            text.dimmed().to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn judged(self, judgement: Judgement) -> String {
        match judgement {
            Judgement::Within => self.good("✓"),
            Judgement::Outside => self.bad("✗"),
            Judgement::Unknown => self.doubtful("?"),
        }
    }
}

enum Said {
    Entry(Box<JournalEntry>),
    Warning(String),
}

/// The thread that shows a run.
pub(super) struct Talk {
    to: mpsc::Sender<Said>,
    thread: Option<JoinHandle<Vec<JournalEntry>>>,
}

impl Talk {
    /// `lengths` says how long each action's fault lasts, by the action's name.
    pub(super) fn start(style: Style, lengths: BTreeMap<String, HumanDuration>) -> Self {
        let (to, from) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("talk".into())
            .spawn(move || show(style, lengths, &from));
        Talk {
            to,
            thread: thread.ok(),
        }
    }

    pub(super) fn watcher(&self) -> EventObserver {
        let to = self.to.clone();
        // A thread that has gone shows nothing; the run goes on.
        Box::new(move |entry| drop(to.send(Said::Entry(Box::new(entry.clone())))))
    }

    pub(super) fn warner(&self) -> impl FnMut(String) + Send + 'static {
        let to = self.to.clone();
        move |warning| drop(to.send(Said::Warning(warning)))
    }

    /// Shows what is left and gives back all that was seen.
    pub(super) fn end(self) -> Vec<JournalEntry> {
        drop(self.to);
        self.thread
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

fn show(style: Style, lengths: BTreeMap<String, HumanDuration>, from: &mpsc::Receiver<Said>) -> Vec<JournalEntry> {
    let mut entries: Vec<JournalEntry> = Vec::new();
    let mut lines = Lines {
        paint: Paint::stderr(),
        last: BTreeMap::new(),
    };
    let mut live = (style == Style::Live).then(|| Live::new(lines.paint, lengths));
    loop {
        let said = match &mut live {
            Some(live) => match from.recv_timeout(REDRAW) {
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
            Some(Said::Warning(warning)) => match &live {
                Some(live) => live.line(&lines.paint.doubtful(&warning)),
                None => say(&format!("{warning}\n")),
            },
            Some(Said::Entry(entry)) => {
                match (style, &mut live) {
                    (Style::Json, _) => {
                        if let Ok(line) = serde_json::to_string(&entry) {
                            print(&format!("{line}\n"));
                        }
                    }
                    (_, Some(live)) => {
                        live.take(&entry);
                        if !matches!(entry.event, Event::Sampled { .. })
                            && let Some(line) = lines.line(&entry)
                        {
                            live.line(&line);
                        }
                    }
                    (_, None) => {
                        if let Some(line) = lines.line(&entry) {
                            say(&format!("{line}\n"));
                        }
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

/// Events as lines.
struct Lines {
    paint: Paint,
    /// What each probe was judged last: a line for each sample would bury the rest.
    last: BTreeMap<String, Judgement>,
}

impl Lines {
    fn line(&mut self, entry: &JournalEntry) -> Option<String> {
        let text = self.text(&entry.event)?;
        let at = self.paint.faint(&format!("{:>8.3}s", entry.elapsed));
        Some(format!("{at}  {text}"))
    }

    fn text(&mut self, event: &Event) -> Option<String> {
        let paint = self.paint;
        Some(match event {
            Event::RunStarted {
                run, title, seed, ..
            } => format!("{title} (run {run}, seed {seed})"),
            Event::AgentJoined {
                agent, recovered, ..
            } if recovered.is_empty() => format!("agent {agent} takes part"),
            Event::AgentJoined {
                agent, recovered, ..
            } => {
                format!(
                    "agent {agent} takes part; it put back {} of agents that died before",
                    recovered.len()
                )
            }
            Event::TargetPicked {
                target,
                matched,
                picked,
            } => {
                format!(
                    "target {target}: {} of {} agents: {}",
                    picked.len(),
                    matched.len(),
                    picked.join(", ")
                )
            }
            Event::Planned { activity, plan, .. } => {
                let names: Vec<&str> = plan
                    .victims
                    .iter()
                    .map(|victim| victim.name.as_str())
                    .collect();
                let warnings = plan.warnings.iter();
                let warnings = warnings
                    .map(|warning| format!("\n{}", paint.doubtful(&format!("WARNING: {warning}"))));
                format!(
                    "{activity}: would hit {}{}",
                    if names.is_empty() {
                        "this host".into()
                    } else {
                        names.join(", ")
                    },
                    warnings.collect::<String>()
                )
            }
            Event::PhaseStarted { phase } => paint.faint(phase_name(*phase)),
            Event::Interrupted { reason } => paint.bad(&format!("interrupted: {reason}")),
            Event::NotStarted { rule, reason, .. } => {
                paint.bad(&format!("not started: {reason} (rule: {rule})"))
            }
            Event::Sampled {
                probe,
                judgement,
                why,
                ..
            } => {
                if self.last.insert(probe.clone(), *judgement) == Some(*judgement) {
                    return None;
                }
                let why = why
                    .as_deref()
                    .map(|why| format!(": {why}"))
                    .unwrap_or_default();
                format!("{} {probe}{why}", paint.judged(*judgement))
            }
            Event::ActivityStarted {
                activity,
                background,
                ..
            } => {
                format!(
                    "{activity}{}",
                    if *background {
                        " (in the background)"
                    } else {
                        ""
                    }
                )
            }
            Event::ActivityFinished {
                activity,
                status,
                why,
                judgement,
                ..
            } => {
                let why = why
                    .as_deref()
                    .map(|why| format!(": {why}"))
                    .unwrap_or_default();
                let mark = judgement
                    .map(|judgement| format!(" {}", paint.judged(judgement)))
                    .unwrap_or_default();
                format!(
                    "{activity}: {}{mark}{why}",
                    format!("{status:?}").to_lowercase()
                )
            }
            Event::InjectionRequested { .. } => return None,
            Event::InjectionRefused { refusal, .. } => {
                paint.bad(&format!("refused: {}", refusal.what))
            }
            Event::Injected { injection, plan } => {
                format!(
                    "{injection} is injected: {}",
                    plan.changes
                        .iter()
                        .map(|change| change.apply.as_str())
                        .collect::<Vec<_>>()
                        .join("; ")
                )
            }
            Event::EffectSeen { effect, .. } if effect.acts => format!("it acts: {}", effect.seen),
            Event::EffectSeen { effect, .. } => {
                paint.doubtful(&format!("no effect: {}", effect.seen))
            }
            Event::InjectionEnded(ended) => ended_line(ended, paint),
            Event::Aborted(abort) => {
                paint.bad(&format!("aborted by {}: {}", abort.rule, abort.reason))
            }
            Event::AgentLost { agent, reason } => {
                paint.bad(&format!("agent {agent} is lost: {reason}"))
            }
            Event::Recovered { after } => paint.good(&format!(
                "the hypothesis holds again, {after} after the last revert"
            )),
            Event::NotRecovered { within } => paint.bad(&format!(
                "the hypothesis did not hold again within {within}"
            )),
            Event::RunEnded => return None,
        })
    }
}

fn ended_line(ended: &EndedInjection, paint: Paint) -> String {
    if ended.clean {
        format!(
            "{} is put back, in {:.1} ms",
            ended.injection,
            ended.took.0.as_secs_f64() * 1e3
        )
    } else {
        paint.bad(&format!(
            "{} is NOT put back: {}",
            ended.injection,
            ended.residue.join("; ")
        ))
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Gate => "── gate: does the hypothesis hold?",
        Phase::Method => "── method",
        Phase::Revert => "── revert",
        Phase::Rollbacks => "── rollbacks",
        Phase::After => "── does the hypothesis hold again?",
    }
}
