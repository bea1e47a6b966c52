//! How much an agent may say, of itself and at all: one that says more is not believed to be well, or means no good.

use backburn_experiments::wire::Hello;
use std::time::{Duration, Instant};

/// An agent that says more than this in [`FLOOD_WITHIN`] is not believed to be well: effects come once a second, for each injection.
pub(super) const FLOOD: u32 = 20_000;
pub(super) const FLOOD_WITHIN: Duration = Duration::from_secs(10);

/// What an introduction may have, since it is kept: labels, each with a key and a value of at most [`LONGEST_TEXT`] bytes.
const MOST_LABELS: usize = 64;
const LONGEST_TEXT: usize = 256;
/// The faults that it may name.
const MOST_FAULTS: usize = 256;
/// The injections that it may find owed, or have put back.
const MOST_OWED: usize = 10_000;

/// Whether an introduction has no more than we want to keep of it, as long as the agent is there.
pub(super) fn is_modest(hello: &Hello) -> Result<(), String> {
    let Hello {
        version,
        labels,
        faults,
        recovered,
        owed,
        held,
        ..
    } = hello;
    let too_much = |what: &str| Err(format!("its introduction has too much: {what}"));
    if labels.len() > MOST_LABELS {
        return too_much(&format!("{} labels, of {MOST_LABELS}", labels.len()));
    }
    let mut texts = labels.iter().flat_map(|(key, value)| [key, value]);
    if texts.any(|text| text.len() > LONGEST_TEXT) {
        return too_much(&format!("a label of more than {LONGEST_TEXT} bytes"));
    }
    if version.len() > LONGEST_TEXT || faults.iter().any(|name| name.len() > LONGEST_TEXT) {
        return too_much(&format!("a name of more than {LONGEST_TEXT} bytes"));
    }
    if faults.len() > MOST_FAULTS {
        return too_much(&format!("{} faults, of {MOST_FAULTS}", faults.len()));
    }
    let told = recovered.len() + owed.len() + held.len();
    if told > MOST_OWED {
        return too_much(&format!("{told} injections, of {MOST_OWED}"));
    }
    Ok(())
}

/// Keeps an agent that says too much from filling our memory.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    count: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            since: Instant::now(),
            count: 0,
        }
    }
}

impl Pace {
    /// Whether it may say one more thing now.
    pub(super) fn allows(&mut self) -> bool {
        if self.since.elapsed() > FLOOD_WITHIN {
            *self = Pace::default();
        }
        self.count += 1;
        self.count <= FLOOD
    }
}
