//! Who of those that match is picked: by the run's seed, or in the order given.

use backburn_experiments::document::Select;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

/// Why nobody can be picked, and what would do.
#[derive(Debug, PartialEq)]
pub(super) struct TooFew(pub String, pub String);

/// Draws from `candidates`, in their order; the same seed and candidates give the same answer.
pub(super) fn pick<T>(seed: u64, mut candidates: Vec<T>, select: Select) -> Result<Vec<T>, TooFew> {
    candidates.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    first(seed, candidates, select)
}

/// Takes as many as `select` says from the front of `candidates`.
pub(super) fn first<T>(
    seed: u64,
    mut candidates: Vec<T>,
    select: Select,
) -> Result<Vec<T>, TooFew> {
    let there = candidates.len();
    let share = |percent: f64| (there as f64 * percent / 100.0).floor() as usize;
    let wanted = match select {
        Select::All => there,
        Select::Count(count) => count as usize,
        Select::Percent(percent) => share(percent),
        Select::RandomMaxPercent(percent) => {
            let drawn = ChaCha8Rng::seed_from_u64(!seed).random::<f64>() * percent;
            share(drawn).max(1)
        }
    };
    if wanted == 0 {
        let least = 100.0 / there.max(1) as f64;
        return Err(TooFew(
            format!("the share to select, rounded down, leaves nobody of the {there} that match"),
            format!(
                "{}% of {there} is the least that selects one",
                (least * 10.0).ceil() / 10.0
            ),
        ));
    }
    if wanted > there {
        let verb = if there == 1 { "matches" } else { "match" };
        return Err(TooFew(
            format!("{wanted} are to be selected, and {there} {verb}"),
            format!("select {{\"count\": {there}}} or \"all\", or start more of them"),
        ));
    }
    candidates.truncate(wanted);
    Ok(candidates)
}
