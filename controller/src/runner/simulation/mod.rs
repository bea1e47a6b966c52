//! Whole runs without I/O, on a made-up clock and from a seed: random experiments, agents, probes, operators and failures
//! against the state machine, and what must hold in each of them.
//!
//! `BACKBURN_SIMULATION_RUNS` says how many runs (default 10,000), `BACKBURN_SIMULATION_SEED` from which seed on. With the seed
//! alone that one run is simulated, and its journal printed.

mod agents;
mod experiments;
mod random;
mod world;

use backburn_experiments::journal::Outcome;
use std::collections::BTreeMap;
use world::World;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, got `{text}`"))
    })
}

/// Simulates the run of this seed. Its outcome, and how many injections were asked for.
fn simulate(seed: u64, is_shown: bool) -> (Outcome, usize) {
    let mut world = World::new(seed);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    if is_shown || run.is_err() {
        for entry in &world.recorded {
            println!("{}", serde_json::to_string(entry).unwrap());
        }
    }
    run.unwrap_or_else(|_| panic!("run {seed} fails; alone: BACKBURN_SIMULATION_SEED={seed}"))
}

#[test]
fn simulated_runs_keep_every_invariant() {
    let (first, runs) = (
        setting("BACKBURN_SIMULATION_SEED"),
        setting("BACKBURN_SIMULATION_RUNS"),
    );
    let is_alone = first.is_some() && runs.is_none();
    let (first, runs) = (
        first.unwrap_or(1),
        runs.unwrap_or(if is_alone { 1 } else { 10_000 }),
    );
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut injections = 0;
    for seed in first..first + runs {
        let (outcome, injected) = simulate(seed, is_alone);
        *outcomes.entry(outcome.word()).or_default() += 1;
        injections += injected;
    }
    println!("{runs} runs from seed {first}, {injections} injections, outcomes: {outcomes:?}");
    assert!(
        is_alone || runs < 1_000 || outcomes.len() >= 6,
        "too few outcomes are reached: {outcomes:?}"
    );
}
