//! What helpers share in telling their effect, observed from outside: never what a helper says about itself.

use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::Effect;

/// How far above its reserve a resource still counts as taken down to it, in bytes: helpers take steps of this size.
const NEAR_RESERVE: u64 = 8 << 20;

/// What was taken of a resource, against what should be by now, in bytes.
pub(super) struct Taken {
    pub bytes: u64,
    pub asked: u64,
    pub reserve: u64,
}

impl Taken {
    fn is_short(&self) -> bool {
        self.bytes < self.asked / 2
    }

    /// Whether what others have left is as little as the fault may leave them.
    fn is_at_reserve(&self, left: impl Fn() -> Option<u64>) -> bool {
        left().is_some_and(|left| left <= self.reserve.saturating_add(NEAR_RESERVE))
    }

    /// Whether it has an effect: less than half of what was asked is none, unless the resource is taken down to the reserve.
    pub(super) fn acts(&self, left: impl Fn() -> Option<u64>) -> bool {
        self.bytes > 0 && (!self.is_short() || self.is_at_reserve(left))
    }

    /// Why less than what was asked was taken, for people; empty if enough was taken.
    pub(super) fn shortfall(&self, left: impl Fn() -> Option<u64>) -> &'static str {
        match self.is_short() {
            false => "",
            true if self.is_at_reserve(left) => ", down to the reserve",
            true => ", less than half of what was asked",
        }
    }
}

/// The effect of a helper that must be alive to have one.
pub(super) fn effect_of_living(
    helper: i32,
    table: &ProcessTable,
    observe: impl FnOnce(ProcessId, &ProcessTable) -> Option<Effect>,
) -> Effect {
    let id = table.identify(helper).filter(|id| table.alive(*id));
    id.and_then(|id| observe(id, table))
        .unwrap_or_else(|| effect(false, "the helper is gone".into(), &[]))
}

/// An effect with these figures.
pub(crate) fn effect(acts: bool, seen: String, figures: &[(&str, f64)]) -> Effect {
    let figures = figures
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect();
    Effect {
        acts,
        seen,
        figures,
        ..Effect::default()
    }
}

/// How long a process has lived, in seconds.
pub(super) fn age(id: ProcessId, table: &ProcessTable) -> Option<f64> {
    let uptime = std::fs::read_to_string(table.root().join("uptime")).ok()?;
    let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    Some(uptime - id.start as f64 / rustix::param::clock_ticks_per_second() as f64)
}
