//! How much an agent may send, in its introduction and over time. An agent that sends more is broken or hostile.

use backburn_experiments::wire::Hello;
use std::time::{Duration, Instant};

/// How many messages an agent may send within [`MESSAGE_WINDOW`]. Effects come once a second for each injection.
pub(super) const MAX_MESSAGES: u32 = 20_000;
pub(super) const MESSAGE_WINDOW: Duration = Duration::from_secs(10);

/// How many labels an introduction may have, each with a key and a value of at most [`MAX_TEXT_BYTES`].
const MAX_LABELS: usize = 64;
const MAX_TEXT_BYTES: usize = 256;
/// How many faults an introduction may name.
const MAX_FAULTS: usize = 256;
/// How many injections an introduction may report as owed, held or recovered.
const MAX_INJECTIONS: usize = 10_000;

/// Checks that an introduction is small enough to be kept as long as the agent is connected.
///
/// # Errors
/// What there is too much of.
pub(super) fn validate_hello(hello: &Hello) -> Result<(), String> {
    let Hello {
        version,
        labels,
        faults,
        recovered,
        owed,
        held,
        boot,
        ..
    } = hello;
    let too_much = |what: &str| Err(format!("its introduction is too large: {what}"));
    if labels.len() > MAX_LABELS {
        return too_much(&format!("{} labels, at most {MAX_LABELS}", labels.len()));
    }
    let mut texts = labels.iter().flat_map(|(key, value)| [key, value]);
    if texts.any(|text| text.len() > MAX_TEXT_BYTES) {
        return too_much(&format!("a label of more than {MAX_TEXT_BYTES} bytes"));
    }
    let boot = boot.as_ref().map_or(0, String::len);
    if version.len().max(boot) > MAX_TEXT_BYTES
        || faults.iter().any(|name| name.len() > MAX_TEXT_BYTES)
    {
        return too_much(&format!("a name of more than {MAX_TEXT_BYTES} bytes"));
    }
    if faults.len() > MAX_FAULTS {
        return too_much(&format!("{} faults, at most {MAX_FAULTS}", faults.len()));
    }
    let told = recovered.len() + owed.len() + held.len();
    if told > MAX_INJECTIONS {
        return too_much(&format!("{told} injections, at most {MAX_INJECTIONS}"));
    }
    Ok(())
}

/// Counts an agent's messages, so that one that sends too many cannot fill the controller's memory.
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
    /// Counts a message. Whether it is still within the limit.
    pub(super) fn allows(&mut self) -> bool {
        if self.since.elapsed() > MESSAGE_WINDOW {
            *self = RateLimiter::default();
        }
        self.count += 1;
        self.count <= MAX_MESSAGES
    }
}
