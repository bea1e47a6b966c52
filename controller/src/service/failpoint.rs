//! Where a test kills the controller: around the n-th time that it writes down something of a run. Set from outside,
//! by `BACKBURN_FAILPOINT=controller:WHEN:N`, since what is tested is what ships; WHEN is `before` or `after`, and the
//! recovery of runs that a crash cut short counts as `recovery:WHEN:N`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JournalWriter {
    /// A run that goes on.
    Run,
    /// Who closes runs that a crash left open.
    Recovery,
}

/// What is to happen at which write.
#[derive(Debug, Default)]
pub(super) struct WriteFailpoint {
    strike: Option<(JournalWriter, Moment, u64)>,
    writes: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

impl WriteFailpoint {
    /// What the environment says.
    pub(super) fn from_environment() -> Self {
        let text = std::env::var("BACKBURN_FAILPOINT").unwrap_or_default();
        WriteFailpoint {
            strike: text.split(',').find_map(parse),
            writes: AtomicU64::default(),
        }
    }

    /// Writes something down, unless that is where we are to die.
    pub(super) fn write<T>(&self, writer: JournalWriter, deed: impl FnOnce() -> T) -> T {
        let Some((_, when, at)) = self.strike.filter(|(who, ..)| *who == writer) else {
            return deed();
        };
        let is_here = self.writes.fetch_add(1, Ordering::Relaxed) + 1 == at;
        if is_here && when == Moment::Before {
            die();
        }
        let done = deed();
        if is_here && when == Moment::After {
            die();
        }
        done
    }
}

fn parse(text: &str) -> Option<(JournalWriter, Moment, u64)> {
    let mut parts = text.split(':');
    let writer = match parts.next()? {
        "controller" => JournalWriter::Run,
        "recovery" => JournalWriter::Recovery,
        _ => return None,
    };
    let when = match parts.next()? {
        "before" => Moment::Before,
        "after" => Moment::After,
        _ => return None,
    };
    Some((writer, when, parts.next()?.parse().ok()?))
}

/// As `kill -9` would have it: nothing of ours is asked.
fn die() {
    // Nobody is there to be told that it failed.
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_meant_for_us_is_left_alone() {
        let known = Some((JournalWriter::Run, Moment::After, 3));
        assert_eq!(parse("controller:after:3"), known);
        let known = Some((JournalWriter::Recovery, Moment::Before, 1));
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
