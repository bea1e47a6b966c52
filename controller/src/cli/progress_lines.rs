//! The progress of a run as lines: each event that people need, with the action and the agent that it is about.

use super::palette::Palette;
use backburn_experiments::journal::{Event, JournalEntry, Judgement, Tone};
use backburn_experiments::wire::{Cause, InjectionId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a fault has to show an effect, from its injection, before a line says that it has none. Many faults act within
/// milliseconds of the first observation.
const EFFECT_GRACE: Duration = Duration::from_secs(1);

/// Formats events as lines.
pub(super) struct LineFormatter {
    paint: Palette,
    /// The last judgement of each probe: only changes are shown, since a line for each sample would bury the rest.
    last: BTreeMap<String, Judgement>,
    injections: BTreeMap<InjectionId, ShownInjection>,
}

/// What the lines about an injection begin with, and what is not shown of it yet.
struct ShownInjection {
    /// The action and the agent.
    name: String,
    one_shot: bool,
    /// When it was injected, in seconds since the run started.
    since: f64,
    /// An observation that it has no effect, which is shown if nothing else is observed in time.
    without_effect: Option<(Instant, String)>,
}

impl LineFormatter {
    pub(super) fn new(paint: Palette) -> Self {
        LineFormatter {
            paint,
            last: BTreeMap::new(),
            injections: BTreeMap::new(),
        }
    }

    /// The line for an event; none if there is nothing to say, or nothing yet. `now` is when the event arrived.
    pub(super) fn line(&mut self, entry: &JournalEntry, now: Instant) -> Option<String> {
        let text = self.text(entry, now)?;
        Some(self.stamped(entry.elapsed, &text))
    }

    /// The lines that were held back and are due now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.injections.values_mut().filter_map(|shown| {
            let (_, line) = shown.without_effect.take_if(|(at, _)| *at <= now)?;
            Some(line)
        });
        due.collect()
    }

    /// Whether a line is held back.
    pub(super) fn holds_back(&self) -> bool {
        let mut shown = self.injections.values();
        shown.any(|shown| shown.without_effect.is_some())
    }

    fn stamped(&self, elapsed: f64, text: &str) -> String {
        let at = self.paint.dim(&format!("{elapsed:>8.3}s"));
        format!("{at}  {text}")
    }

    fn text(&mut self, entry: &JournalEntry, now: Instant) -> Option<String> {
        let event = &entry.event;
        let injection = match event {
            Event::Sampled {
                probe, judgement, ..
            } => {
                if self.last.insert(probe.clone(), *judgement) == Some(*judgement) {
                    return None;
                }
                None
            }
            Event::InjectionRequested {
                injection,
                activity,
                agent,
                one_shot,
                ..
            } => {
                let shown = ShownInjection {
                    name: format!("{activity} on {agent}"),
                    one_shot: *one_shot,
                    since: entry.elapsed,
                    without_effect: None,
                };
                self.injections.insert(injection.clone(), shown);
                None
            }
            Event::Injected { injection, .. }
            | Event::InjectionRefused { injection, .. }
            | Event::EffectSeen { injection, .. } => Some(injection),
            Event::InjectionEnded(ended) => Some(&ended.injection),
            _ => None,
        };
        let paint = self.paint;
        let painted = |pieces: &[(Tone, String)]| -> String {
            let pieces = pieces.iter().map(|(tone, text)| paint.toned(*tone, text));
            pieces.collect()
        };
        let pieces = event.describe();
        let Some(shown) = injection.and_then(|injection| self.injections.get_mut(injection)) else {
            return (!pieces.is_empty()).then(|| painted(&pieces));
        };
        let name = &shown.name;
        match event {
            Event::Injected { plan, .. } => {
                shown.since = entry.elapsed;
                let changes: Vec<&str> =
                    (plan.changes.iter().map(|change| change.apply.as_str())).collect();
                Some(format!("{name}: injected: {}", changes.join("; ")))
            }
            Event::EffectSeen { effect, .. } => {
                shown.without_effect = None;
                let text = format!("{name}: {}", painted(&pieces));
                let acted = Duration::try_from_secs_f64(entry.elapsed - shown.since);
                let left = EFFECT_GRACE.saturating_sub(acted.unwrap_or_default());
                if effect.acts || left.is_zero() {
                    return Some(text);
                }
                let elapsed = entry.elapsed + left.as_secs_f64();
                let at = paint.dim(&format!("{elapsed:>8.3}s"));
                shown.without_effect = Some((now + left, format!("{at}  {text}")));
                None
            }
            Event::InjectionEnded(ended) => {
                shown.without_effect = None;
                let took = ended.took.0.as_secs_f64() * 1e3;
                let is_done = shown.one_shot && ended.cause == Cause::Finished;
                Some(match ended.clean {
                    true if is_done => format!("{name}: done, nothing to revert"),
                    true => format!("{name}: reverted in {took:.1} ms"),
                    false => {
                        let residue = format!("NOT reverted: {}", ended.residue.join("; "));
                        format!("{name}: {}", paint.failure(&residue))
                    }
                })
            }
            _ => {
                shown.without_effect = None;
                Some(format!("{name}: {}", painted(&pieces)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LineFormatter;
    use crate::cli::palette::Palette;
    use backburn_experiments::journal::JournalEntry;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    /// Formats events of one injection, which arrive when they happen.
    struct Lines {
        formatter: LineFormatter,
        started: Instant,
    }

    impl Lines {
        fn of(fault: &str, one_shot: bool) -> Self {
            let mut lines = Lines {
                formatter: LineFormatter::new(Palette::plain()),
                started: Instant::now(),
            };
            lines.add(5.0, json!({"event": "injection-requested", "injection": "i", "activity": "harm it", "fault": fault,
                "agent": "web-1", "one_shot": one_shot}));
            let change =
                json!({"kind": "signal", "apply": "SIGSTOP to 7", "undo": "u", "if_we_die": "d"});
            let injected = lines.add(5.0, json!({"event": "injected", "injection": "i", "plan": {"victims": [], "changes": [change]}}));
            assert_eq!(
                injected.unwrap(),
                "   5.000s  harm it on web-1: injected: SIGSTOP to 7"
            );
            lines
        }

        fn add(&mut self, elapsed: f64, event: Value) -> Option<String> {
            let mut entry = json!({"at": "2026-11-01T10:00:00Z", "elapsed": elapsed});
            for (key, value) in event.as_object().unwrap() {
                entry[key] = value.clone();
            }
            let entry: JournalEntry = serde_json::from_value(entry).unwrap();
            self.formatter.line(&entry, self.at(elapsed))
        }

        fn effect(&mut self, elapsed: f64, acts: bool) -> Option<String> {
            self.add(elapsed, json!({"event": "effect-seen", "injection": "i", "effect": {"acts": acts, "seen": "0 of 1 stopped"}}))
        }

        fn end(&mut self, clean: bool, cause: &str) -> String {
            let end = json!({"event": "injection-ended", "injection": "i", "cause": cause, "clean": clean, "residue": ["it is there"], "took": "5ms"});
            self.add(8.0, end).unwrap()
        }

        fn at(&self, elapsed: f64) -> Instant {
            self.started + Duration::from_secs_f64(elapsed)
        }
    }

    #[test]
    fn line_of_no_effect_is_held_back_for_a_second() {
        let mut lines = Lines::of("process-pause", false);
        assert_eq!(lines.effect(5.2, false), None);
        assert!(lines.formatter.holds_back());
        assert!(lines.formatter.due(lines.at(5.9)).is_empty());
        let due = lines.formatter.due(lines.at(6.0));
        assert_eq!(
            due,
            ["   6.000s  harm it on web-1: no effect: 0 of 1 stopped"]
        );
        assert!(!lines.formatter.holds_back());
        let late = lines.effect(7.0, false).unwrap();
        assert!(
            late.ends_with("harm it on web-1: no effect: 0 of 1 stopped"),
            "{late}"
        );
    }

    #[test]
    fn line_of_no_effect_is_never_shown_if_the_fault_acts_in_time() {
        let mut lines = Lines::of("process-pause", false);
        assert_eq!(lines.effect(5.2, false), None);
        let acts = lines.effect(5.7, true).unwrap();
        assert!(
            acts.ends_with("harm it on web-1: effect observed: 0 of 1 stopped"),
            "{acts}"
        );
        assert!(lines.formatter.due(lines.at(9.0)).is_empty());
        let mut lines = Lines::of("process-pause", false);
        assert_eq!(lines.effect(5.2, false), None);
        let end = lines.end(true, "asked");
        assert!(
            end.ends_with("harm it on web-1: reverted in 5.0 ms"),
            "{end}"
        );
        assert!(lines.formatter.due(lines.at(9.0)).is_empty());
    }

    #[test]
    fn line_of_the_end_of_a_kill_says_that_nothing_is_reverted() {
        let end = Lines::of("process-kill", true).end(true, "done");
        assert!(
            end.ends_with("harm it on web-1: done, nothing to revert"),
            "{end}"
        );
        // What is left of it is reported, and one that was cut off is not done.
        let end = Lines::of("process-kill", true).end(false, "done");
        assert!(
            end.ends_with("harm it on web-1: NOT reverted: it is there"),
            "{end}"
        );
        let end = Lines::of("process-kill", true).end(true, "asked");
        assert!(
            end.ends_with("harm it on web-1: reverted in 5.0 ms"),
            "{end}"
        );
    }
}
