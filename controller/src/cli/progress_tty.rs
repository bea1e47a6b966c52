//! The live display of a run on a terminal: each probe with its last judgements, and each fault with its remaining time.

use super::palette::Palette;
use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{Event, JournalEntry, Judgement};
use backburn_experiments::terminal_text::guard;
use backburn_experiments::wire::InjectionId;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How many judgements of a probe are shown, the last ones.
const HISTORY_LENGTH: usize = 40;

pub(super) struct TtyProgress {
    paint: Palette,
    picture: MultiProgress,
    probes: BTreeMap<String, ProbeBar>,
    faults: BTreeMap<InjectionId, FaultBar>,
    /// The duration of each action's fault, by the action's name.
    lengths: BTreeMap<String, HumanDuration>,
}

struct ProbeBar {
    bar: ProgressBar,
    history: VecDeque<Judgement>,
}

struct FaultBar {
    bar: ProgressBar,
    what: String,
    length: Option<HumanDuration>,
    since: Option<Instant>,
}

impl TtyProgress {
    pub(super) fn new(paint: Palette, lengths: BTreeMap<String, HumanDuration>) -> Self {
        let picture = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        TtyProgress {
            paint,
            picture,
            probes: BTreeMap::new(),
            faults: BTreeMap::new(),
            lengths,
        }
    }

    /// Shows an event whose texts are escaped.
    pub(super) fn take(&mut self, entry: &JournalEntry) {
        match &entry.event {
            Event::RunStarted { hypothesis, .. } => {
                for name in hypothesis {
                    self.probe(name);
                }
            }
            Event::Sampled {
                probe,
                judgement,
                output,
                why,
                took,
                ..
            } => {
                let paint = self.paint;
                let probe = self.probe(probe);
                probe.history.push_back(*judgement);
                if probe.history.len() > HISTORY_LENGTH {
                    probe.history.pop_front();
                }
                let strip: String = probe
                    .history
                    .iter()
                    .map(|judgement| paint.judged(*judgement))
                    .collect();
                let value = why.clone().unwrap_or_else(|| value_in_words(output));
                let took = format!("{:.0} ms", took.0.as_secs_f64() * 1e3);
                probe
                    .bar
                    .set_message(format!("{strip} {value} {}", paint.dim(&took)));
            }
            Event::InjectionRequested {
                injection,
                fault,
                activity,
                ..
            } => {
                let bar = self.bar();
                let what = format!("{activity} ({fault})");
                bar.set_message(format!("{what}: requested"));
                self.faults.insert(
                    injection.clone(),
                    FaultBar {
                        bar,
                        what,
                        length: self.lengths.get(activity).copied(),
                        since: None,
                    },
                );
            }
            Event::Injected { injection, .. } => {
                if let Some(fault) = self.faults.get_mut(injection) {
                    fault.since = Some(Instant::now());
                }
            }
            Event::InjectionRefused { injection, .. } => self.forget(injection),
            Event::InjectionEnded(ended) => self.forget(&ended.injection),
            _ => {}
        }
        self.draw();
    }

    /// Updates the remaining time of each fault. Only the agent's report ends a fault.
    pub(super) fn draw(&mut self) {
        for fault in self.faults.values() {
            if let Some(since) = fault.since {
                let whole = |length: Duration| {
                    HumanDuration(Duration::from_secs(length.as_secs_f64().round() as u64))
                };
                let time = match fault.length {
                    Some(HumanDuration(length)) => {
                        format!("{} left", whole(length.saturating_sub(since.elapsed())))
                    }
                    None => format!("since {}", whole(since.elapsed())),
                };
                fault
                    .bar
                    .set_message(self.paint.failure(&format!("⚡ {}: {time}", fault.what)));
            }
        }
    }

    /// Prints a line above the display.
    pub(super) fn line(&self, line: &str) {
        // A terminal that is gone needs no line.
        self.picture.println(guard(line)).ok();
    }

    pub(super) fn end(self) {
        for probe in self.probes.values() {
            probe.bar.abandon();
        }
        for fault in self.faults.values() {
            fault.bar.abandon();
        }
    }

    fn forget(&mut self, injection: &str) {
        if let Some(fault) = self.faults.remove(injection) {
            fault.bar.finish_and_clear();
            self.picture.remove(&fault.bar);
        }
    }

    fn probe(&mut self, name: &str) -> &mut ProbeBar {
        if !self.probes.contains_key(name) {
            let bar = self.bar();
            bar.set_prefix(name.to_owned());
            self.probes.insert(
                name.to_owned(),
                ProbeBar {
                    bar,
                    history: VecDeque::new(),
                },
            );
        }
        self.probes
            .entry(name.to_owned())
            .or_insert_with(|| ProbeBar {
                bar: ProgressBar::hidden(),
                history: VecDeque::new(),
            })
    }

    fn bar(&self) -> ProgressBar {
        let bar = self.picture.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {prefix} {wide_msg}") {
            bar.set_style(style);
        }
        bar
    }
}

fn value_in_words(value: &Value) -> String {
    match value.get("status") {
        Some(status) => status.to_string(),
        None => value.to_string().chars().take(40).collect(),
    }
}
