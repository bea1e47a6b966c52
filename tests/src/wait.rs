//! Waiting for what comes about by itself. A test that waits for a condition ends as soon as it holds; one that sleeps guesses.

use std::time::{Duration, Instant};

/// How long something may take on a machine that has better things to do. No promise of Backburn's is as long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(2);

/// Waits until something is so, for [`PATIENCE`] at the most, and says how long it took.
///
/// # Panics
/// It is not so in time.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) -> Duration {
    wait_within(what, PATIENCE, is_so)
}

/// Waits until something is so, for this long at the most, and says how long it took.
///
/// # Panics
/// It is not so in time.
#[track_caller]
pub fn wait_within(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(STEP);
    }
    started.elapsed()
}
