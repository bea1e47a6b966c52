//! The time of day of the host, set to another and set back. What it was is kept as what it was ahead of the time since boot, which goes on
//! whatever is set: so it comes back exactly, however long that takes. Nothing in the kernel ends this one, so the ledger and the guardian do.

use super::{Observed, ReversibleChange, offset_text};
use crate::boot::boot_id;
use crate::helpers::WHOLE_HOST;
use crate::host::{Host, HostError, time_of_day_ahead};
use backburn_experiments::wire::{ChangeView, Effect};
use serde::{Deserialize, Serialize};
use std::io;

/// The host has another time of day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostClock {
    /// What is added to the time of day, in milliseconds.
    pub offset_ms: i64,
    /// What the time of day was ahead of the time since boot (CLOCK_BOOTTIME) before, in nanoseconds.
    pub ahead_ns: i64,
    /// The boot that this is true of: the next one sets the clock anew.
    pub boot: String,
}

/// How far the clock may be from where it is expected, in nanoseconds. Whoever sets it by more does so on purpose.
const TOLERANCE_NS: u64 = 50_000_000;

const NANOS_PER_MILLI: i64 = 1_000_000;

impl HostClock {
    fn skewed_ns(&self) -> i64 {
        let offset = self.offset_ms.saturating_mul(NANOS_PER_MILLI);
        self.ahead_ns.saturating_add(offset)
    }

    fn look(&self) -> io::Result<Observed> {
        if boot_id()? != self.boot {
            return Ok(Observed::Absent);
        }
        let now = time_of_day_ahead()?;
        let is_near = |ahead: i64| now.abs_diff(ahead) < TOLERANCE_NS;
        Ok(if is_near(self.ahead_ns) {
            Observed::Absent
        } else if is_near(self.skewed_ns()) {
            let seen = format!("the clock of the host is {}", offset_text(self.offset_ms));
            Observed::Present(seen)
        } else {
            let off = now.saturating_sub(self.ahead_ns) / NANOS_PER_MILLI;
            Observed::Contested(format!(
                "something else has set the clock of the host since: it is {} than it would be without the fault",
                offset_text(off)
            ))
        })
    }
}

impl ReversibleChange for HostClock {
    fn view(&self) -> ChangeView {
        ChangeView {
            kind: "host-clock".into(),
            apply: format!("set the clock of the host {}", offset_text(self.offset_ms)),
            undo: "set it to what it was, plus the time since then".into(),
            if_agent_dies: "the guardian sets it; without it, the next start or `revert --all`"
                .into(),
        }
    }

    fn holds(&self) -> Vec<String> {
        vec![format!("clock:{WHOLE_HOST}")]
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        let what = format!("set the clock of the host {}", offset_text(self.offset_ms));
        host.set_time_of_day(&what, self.ahead_ns, self.skewed_ns(), TOLERANCE_NS)
    }

    fn observe(&self, _: &Host) -> io::Result<Observed> {
        self.look()
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        match self.look() {
            Ok(Observed::Present(_)) => {
                let what = "set the clock of the host to what it was";
                host.set_time_of_day(what, self.skewed_ns(), self.ahead_ns, TOLERANCE_NS)
            }
            // What others have set is theirs; an error is told by whoever observes.
            _ => Ok(()),
        }
    }

    fn effect(&self, _: &Host) -> Effect {
        let (acts, seen) = match self.look() {
            Ok(Observed::Present(seen)) => (true, seen),
            Ok(Observed::Absent) => (false, "the clock of the host is as it was".into()),
            Ok(Observed::Contested(seen)) => (false, seen),
            Err(error) => (
                false,
                format!("the clock of the host cannot be read: {error}"),
            ),
        };
        Effect {
            acts,
            seen,
            figures: [("offset-seconds".to_owned(), self.offset_ms as f64 / 1000.0)].into(),
            ..Effect::default()
        }
    }

    fn is_done(&self, _: &Host) -> bool {
        false
    }
}
