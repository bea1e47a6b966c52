//! A run's journal in brief, for showing a long run at once: everything but samples as it is, and of each probe the samples that stand for
//! all of them. It grows with the journal, in memory that depends on the number of probes and not on how long the run lasts.

mod samples;

pub(crate) use samples::KeptSample;

use crate::journal_line::{JournalLine, SampleLine};
use backburn_experiments::journal::{Event, JournalEntry, Judgement};
use samples::ReducedSamples;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};

/// The most samples that are kept because their judgement differs from the one before; the latest stay.
const MAX_CHANGES: usize = 1_000;
/// How many of the last samples of each probe are kept whole.
const MAX_LATEST: usize = 20;

/// An event of the journal as its line, with its number.
#[derive(Debug, Clone, Default)]
struct NumberedLine {
    number: u64,
    text: String,
}

/// What is known of a probe.
#[derive(Debug, Clone, Default)]
pub(crate) struct CondensedProbe {
    /// The number of the event that has its first sample.
    first: u64,
    pub(crate) is_hypothesis: bool,
    pub(crate) within: u64,
    pub(crate) outside: u64,
    pub(crate) unknown: u64,
    /// How many of the last samples were outside, one after the other. Those that could not be judged do not count.
    pub(crate) failures_in_a_row: u64,
    /// Whether any sample had a number, and whether one had something else.
    has_number: bool,
    has_other: bool,
    last: Option<Judgement>,
    samples: ReducedSamples,
    latest: VecDeque<String>,
}

impl CondensedProbe {
    /// How many samples there are.
    pub(crate) fn count(&self) -> u64 {
        self.within + self.outside + self.unknown
    }

    /// Whether no sample had anything but a number.
    pub(crate) fn has_only_numbers(&self) -> bool {
        !self.has_other
    }

    /// The samples that stand for all of them.
    pub(crate) fn drawn(&self) -> Vec<KeptSample> {
        self.samples.drawn(self.has_number && !self.has_other)
    }

    /// The last samples as lines of the journal, oldest first.
    pub(crate) fn latest(&self) -> impl Iterator<Item = &str> {
        self.latest.iter().map(String::as_str)
    }

    /// Takes in a sample. Returns whether its judgement says something new.
    fn take(&mut self, line: &str, sample: &SampleLine<'_>) -> bool {
        let value = figure(sample.output);
        let is_other = value.is_none() && sample.output.is_some();
        self.has_number |= value.is_some();
        self.has_other |= is_other && sample.judgement != Judgement::Unknown;
        self.samples.push(KeptSample {
            number: self.count(),
            at: sample.elapsed,
            value,
            took: sample.took.0.as_secs_f64() * 1e3,
            judgement: sample.judgement,
        });
        match sample.judgement {
            Judgement::Within => (self.within, self.failures_in_a_row) = (self.within + 1, 0),
            Judgement::Outside => {
                self.outside += 1;
                self.failures_in_a_row += 1;
            }
            Judgement::Unknown => self.unknown += 1,
        }
        // The memory of one that is not among the latest any more is used again.
        let mut text = match self.latest.len() < MAX_LATEST {
            true => String::new(),
            false => self.latest.pop_front().unwrap_or_default(),
        };
        text.clear();
        text.push_str(line);
        self.latest.push_back(text);
        let before = self.last.replace(sample.judgement);
        before.unwrap_or(Judgement::Within) != sample.judgement
    }
}

/// The number in an output; none if there is none.
fn figure(output: Option<&RawValue>) -> Option<f64> {
    let text = output?.get();
    let number: f64 = match text.as_bytes().first()? {
        b't' => 1.0,
        b'f' => 0.0,
        b'-' | b'0'..=b'9' => text.parse().ok()?,
        b'"' => {
            let text: String = serde_json::from_str(text).ok()?;
            text.trim().parse().ok()?
        }
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// A run's journal in brief, as far as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct CondensedJournal {
    count: u64,
    elapsed: f64,
    events: Vec<NumberedLine>,
    changes: VecDeque<NumberedLine>,
    changes_left_out: u64,
    probes: BTreeMap<String, CondensedProbe>,
}

impl CondensedJournal {
    /// Takes in the next line of the journal, without its line break.
    ///
    /// # Errors
    /// It is not an event. Nothing was taken in.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), String> {
        let number = self.count + 1;
        let read = JournalLine::read(text).map_err(|why| format!("line {number} is {why}"))?;
        let elapsed = match read {
            JournalLine::Sample(sample) => {
                self.sample(number, text, &sample);
                sample.elapsed
            }
            JournalLine::Other(entry) => {
                let text = text.to_owned();
                // A sample that is written in an unusual way is one nevertheless.
                match matches!(entry.event, Event::Sampled { .. }) {
                    true => return self.entry(&entry),
                    false => self.events.push(NumberedLine { number, text }),
                }
                entry.elapsed
            }
        };
        self.count = number;
        self.elapsed = self.elapsed.max(elapsed);
        Ok(())
    }

    /// Takes in the next entry.
    ///
    /// # Errors
    /// It cannot be written as a line. Nothing was taken in.
    pub(crate) fn entry(&mut self, entry: &JournalEntry) -> Result<(), String> {
        let text = serde_json::to_string(entry).map_err(|error| error.to_string())?;
        match JournalLine::read(&text)? {
            JournalLine::Sample(sample) => {
                self.sample(self.count + 1, &text, &sample);
                self.elapsed = self.elapsed.max(sample.elapsed);
                self.count += 1;
                Ok(())
            }
            JournalLine::Other(other) if matches!(other.event, Event::Sampled { .. }) => {
                Err("a sample cannot be read as it was written".into())
            }
            JournalLine::Other(_) => self.line(&text),
        }
    }

    /// Counts an entry whose content is not to be known.
    pub(crate) fn skip(&mut self) {
        self.count += 1;
    }

    fn sample(&mut self, number: u64, text: &str, sample: &SampleLine<'_>) {
        let probe = match self.probes.get_mut(&*sample.probe) {
            Some(probe) => probe,
            None => self
                .probes
                .entry(sample.probe.clone().into_owned())
                .or_insert_with(|| CondensedProbe {
                    first: number,
                    is_hypothesis: sample.hypothesis,
                    ..CondensedProbe::default()
                }),
        };
        if !probe.take(text, sample) {
            return;
        }
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
            self.changes_left_out += 1;
        }
        let text = text.to_owned();
        self.changes.push_back(NumberedLine { number, text });
    }

    /// How many entries were taken in: the number of the last one.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// When the last event happened, in seconds since the run started.
    pub(crate) fn elapsed(&self) -> f64 {
        self.elapsed
    }

    /// How many changes of judgements are not among the events.
    pub(crate) fn changes_left_out(&self) -> u64 {
        self.changes_left_out
    }

    /// All events that are no samples, and the latest samples whose judgement differs from the one before, as lines of the journal.
    pub(crate) fn events(&self) -> impl Iterator<Item = &str> {
        let mut events: Vec<&NumberedLine> = self.events.iter().chain(&self.changes).collect();
        events.sort_by_key(|event| event.number);
        events.into_iter().map(|event| event.text.as_str())
    }

    /// The probes by name, in the order of their first samples.
    pub(crate) fn probes(&self) -> Vec<(&str, &CondensedProbe)> {
        let probes = self.probes.iter();
        let mut probes: Vec<_> = probes.map(|(name, probe)| (name.as_str(), probe)).collect();
        probes.sort_by_key(|(_, probe)| probe.first);
        probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sample(at: u32, probe: &str, output: &Value, judgement: &str) -> String {
        json!({"at": "2026-11-01T10:00:00Z", "elapsed": f64::from(at), "event": "sampled", "phase": "method",
            "probe": probe, "hypothesis": true, "judgement": judgement, "output": output, "took": "5ms"})
        .to_string()
    }

    #[test]
    fn journal_with_samples_and_events_keeps_events_changes_counts_and_the_last_samples() {
        let mut journal = CondensedJournal::default();
        let phase = json!({"at": "2026-11-01T10:00:00Z", "elapsed": 0.0, "event": "phase-started", "phase": "method"});
        journal.line(&phase.to_string()).unwrap();
        for at in 1..=50 {
            let judgement = if (20..30).contains(&at) {
                "outside"
            } else {
                "within"
            };
            journal
                .line(&sample(at, "busy", &json!(at), judgement))
                .unwrap();
        }
        journal.skip();
        assert_eq!((journal.count(), journal.elapsed()), (52, 50.0));
        let events: Vec<Value> = journal
            .events()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(events.len(), 3, "{events:?}");
        assert_eq!(
            (
                &events[0]["event"],
                &events[1]["elapsed"],
                &events[2]["elapsed"]
            ),
            (&json!("phase-started"), &json!(20.0), &json!(30.0))
        );
        let [("busy", probe)] = journal.probes()[..] else {
            panic!("{:?}", journal.probes());
        };
        assert_eq!(
            (probe.within, probe.outside, probe.unknown, probe.count()),
            (40, 10, 0, 50)
        );
        assert_eq!((probe.failures_in_a_row, probe.drawn().len()), (0, 50));
        assert!(probe.has_only_numbers() && probe.is_hypothesis);
        let latest: Vec<&str> = probe.latest().collect();
        assert_eq!(latest.len(), MAX_LATEST);
        assert_eq!(
            latest[MAX_LATEST - 1],
            sample(50, "busy", &json!(50), "within")
        );
    }

    #[test]
    fn journal_that_flaps_keeps_the_latest_changes_and_says_how_many_are_left_out() {
        let mut journal = CondensedJournal::default();
        for at in 0..2_000 {
            let judgement = if at % 2 == 0 { "within" } else { "outside" };
            journal
                .line(&sample(at, "flaps", &json!(null), judgement))
                .unwrap();
        }
        assert_eq!(
            (journal.events().count(), journal.changes_left_out()),
            (1_000, 999)
        );
        assert_eq!(journal.probes()[0].1.failures_in_a_row, 1);
    }

    #[test]
    fn journal_line_that_is_no_event_is_an_error_and_changes_nothing() {
        let mut journal = CondensedJournal::default();
        assert!(
            journal
                .line("{}")
                .unwrap_err()
                .starts_with("line 1 is not an event")
        );
        assert_eq!(journal.count(), 0);
        // A number that is written in an unusual way, and a text that has escapes.
        let odd = sample(1, "p", &json!("12.5"), "within")
            .replace("2026-11-01T10", "2026-11-01T\\u0031\\u0030");
        journal.line(&odd).unwrap();
        assert_eq!(journal.count(), 1);
        assert_eq!(journal.probes()[0].1.drawn()[0].value, Some(12.5));
    }

    #[test]
    fn output_is_a_number_if_a_person_would_read_one() {
        for (output, expected) in [
            ("12.5", Some(12.5)),
            ("\" 3 \"", Some(3.0)),
            ("true", Some(1.0)),
            ("false", Some(0.0)),
            ("\"x\"", None),
            ("{\"a\":1}", None),
            ("\"\"", None),
            ("-1e3", Some(-1000.0)),
            ("\"inf\"", None),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(output).unwrap();
            assert_eq!(figure(Some(&raw)), expected, "{output}");
        }
        assert_eq!(figure(None), None);
    }
}
