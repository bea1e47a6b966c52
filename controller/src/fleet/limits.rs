//! How much an agent may say, of itself and at all: one that says more is not believed to be well, or means no good.

use backburn_experiments::wire::Hello;
use std::time::{Duration, Instant};

/// An agent that says more than this in [`MESSAGE_WINDOW`] is not believed to be well: effects come once a second, for each injection.
pub(super) const MAX_MESSAGES: u32 = 20_000;
pub(super) const MESSAGE_WINDOW: Duration = Duration::from_secs(10);

/// What an introduction may have, since it is kept: labels, each with a key and a value of at most [`MAX_TEXT_BYTES`] bytes.
const MAX_LABELS: usize = 64;
const MAX_TEXT_BYTES: usize = 256;
/// The faults that it may name.
const MAX_FAULTS: usize = 256;
/// The injections that it may find owed, or have put back.
const MAX_INJECTIONS: usize = 10_000;

/// Whether an introduction has no more than we want to keep of it, as long as the agent is there.
pub(super) fn validate_hello(hello: &Hello) -> Result<(), String> {
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
    if labels.len() > MAX_LABELS {
        return too_much(&format!("{} labels, of {MAX_LABELS}", labels.len()));
    }
    let mut texts = labels.iter().flat_map(|(key, value)| [key, value]);
    if texts.any(|text| text.len() > MAX_TEXT_BYTES) {
        return too_much(&format!("a label of more than {MAX_TEXT_BYTES} bytes"));
    }
    if version.len() > MAX_TEXT_BYTES || faults.iter().any(|name| name.len() > MAX_TEXT_BYTES) {
        return too_much(&format!("a name of more than {MAX_TEXT_BYTES} bytes"));
    }
    if faults.len() > MAX_FAULTS {
        return too_much(&format!("{} faults, of {MAX_FAULTS}", faults.len()));
    }
    let told = recovered.len() + owed.len() + held.len();
    if told > MAX_INJECTIONS {
        return too_much(&format!("{told} injections, of {MAX_INJECTIONS}"));
    }
    Ok(())
}

/// Keeps an agent that says too much from filling our memory.
#[derive(Debug)]
pub(super) struct RateLimiter {
    since: Instant,
    count: u32,
}

impl Default for RateLimiter {
    fn default() -> Self {
        RateLimiter {
            since: Instant::now(),
            count: 0,
        }
    }
}

impl RateLimiter {
    /// Whether it may say one more thing now.
    pub(super) fn allows(&mut self) -> bool {
        if self.since.elapsed() > MESSAGE_WINDOW {
            *self = RateLimiter::default();
        }
        self.count += 1;
        self.count <= MAX_MESSAGES
    }
}
