//! Adding up the effects of an injection's changes and rounds.

use backburn_experiments::wire::Effect;

/// Joins two descriptions; either may be empty.
pub(super) fn join(one: &str, other: &str) -> String {
    if one.is_empty() || other.is_empty() {
        format!("{one}{other}")
    } else {
        format!("{one}; {other}")
    }
}

/// Adds the effect of one change to the effect of others. Figures of the same name are summed.
pub(super) fn add(effect: &mut Effect, more: Effect) {
    effect.acts |= more.acts;
    effect.seen = join(&effect.seen, &more.seen);
    for (name, figure) in more.figures {
        *effect.figures.entry(name).or_insert(0.0) += figure;
    }
    effect.unmet = effect.unmet.take().or(more.unmet);
}
