//! A line of a journal. Nearly all lines of a long run are samples, which are read without copying what a report does not need.

use backburn_experiments::HumanDuration;
use backburn_experiments::journal::{Event, JournalEntry, Judgement, Phase};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// How near its beginning a line names its event, in bytes.
const EVENT_WITHIN_BYTES: usize = 120;

/// A sample as a line of a journal. Fields that are not named are ignored, as when a whole entry is read.
#[derive(Debug, Deserialize)]
pub(crate) struct SampleLine<'a> {
    pub(crate) at: &'a str,
    pub(crate) elapsed: f64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    phase: Phase,
    #[serde(borrow)]
    pub(crate) probe: Cow<'a, str>,
    pub(crate) hypothesis: bool,
    pub(crate) judgement: Judgement,
    #[serde(borrow, default)]
    pub(crate) output: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) why: Option<String>,
    pub(crate) took: HumanDuration,
}

/// A line of a journal.
pub(crate) enum JournalLine<'a> {
    /// A sample of a probe.
    Sample(SampleLine<'a>),
    /// Any event that is no sample.
    Other(Box<JournalEntry>),
}

impl<'a> JournalLine<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// It is not an event.
    pub(crate) fn read(text: &'a str) -> Result<Self, String> {
        // Where that is in the midst of a character, the whole line is searched.
        let head = text.get(..EVENT_WITHIN_BYTES).unwrap_or(text);
        let is_sample = head.contains("\"sampled\"");
        if is_sample
            && let Ok(sample) = serde_json::from_str::<SampleLine<'a>>(text)
            && sample.event == "sampled"
        {
            return Ok(JournalLine::Sample(sample));
        }
        serde_json::from_str(text)
            .map(|entry| JournalLine::Other(Box::new(entry)))
            .map_err(|error| format!("not an event: {error}"))
    }
}

impl SampleLine<'_> {
    /// The same as an entry, without its output.
    pub(crate) fn entry(&self, at: jiff::Timestamp) -> JournalEntry {
        JournalEntry {
            at,
            elapsed: self.elapsed,
            event: Event::Sampled {
                phase: self.phase,
                probe: self.probe.clone().into_owned(),
                hypothesis: self.hypothesis,
                judgement: self.judgement,
                output: serde_json::Value::Null,
                why: self.why.clone(),
                took: self.took,
            },
        }
    }
}
