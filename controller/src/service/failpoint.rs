//! Where a test kills the controller: before or after its n-th write about a run. The environment sets it, because the tests
//! run the program that is shipped: `BACKBURN_FAILPOINT=controller:WHEN:N`, where WHEN is `before` or `after`. Writes by the
//! recovery of interrupted runs are counted by `recovery:WHEN:N`.

use std::sync::atomic::{AtomicU64, Ordering};

/// The part of the controller that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteSource {
    /// A run that is active.
    Run,
    /// The recovery of runs that a crash interrupted.
    Recovery,
}

/// The write at which the controller is to die, if any.
#[derive(Debug, Default)]
pub(super) struct WriteFailpoint {
    target: Option<(WriteSource, Moment, u64)>,
    writes: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

impl WriteFailpoint {
    /// The failpoint that the environment sets.
    pub(super) fn from_environment() -> Self {
        let text = std::env::var("BACKBURN_FAILPOINT").unwrap_or_default();
        WriteFailpoint {
            target: text.split(',').find_map(parse),
            writes: AtomicU64::default(),
        }
    }

    /// Runs `write`, and kills the controller before or after it if this is the write.
    pub(super) fn write<T>(&self, source: WriteSource, write: impl FnOnce() -> T) -> T {
        let Some((_, when, at)) = self.target.filter(|(from, ..)| *from == source) else {
            return write();
        };
        let is_here = self.writes.fetch_add(1, Ordering::Relaxed) + 1 == at;
        if is_here && when == Moment::Before {
            die();
        }
        let done = write();
        if is_here && when == Moment::After {
            die();
        }
        done
    }
}

fn parse(text: &str) -> Option<(WriteSource, Moment, u64)> {
    let mut parts = text.split(':');
    let writer = match parts.next()? {
        "controller" => WriteSource::Run,
        "recovery" => WriteSource::Recovery,
        _ => return None,
    };
    let when = match parts.next()? {
        "before" => Moment::Before,
        "after" => Moment::After,
        _ => return None,
    };
    Some((writer, when, parts.next()?.parse().ok()?))
}

/// Ends the process as `kill -9` would: without any cleanup.
fn die() {
    // If this fails, there is nobody to report it to.
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_failpoint_of_another_program_is_ignored() {
        let known = Some((WriteSource::Run, Moment::After, 3));
        assert_eq!(parse("controller:after:3"), known);
        let known = Some((WriteSource::Recovery, Moment::Before, 1));
        assert_eq!(parse("recovery:before:1"), known);
        for other in [
            "",
            "worker:after:3",
            "controller:fail:3",
            "controller:after",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
