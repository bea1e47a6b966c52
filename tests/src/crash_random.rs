//! Crash trials by chance: any number of them, each told by a seed and its number, so that it can be done again alone; and the table
//! of what they came to.

use crate::crash_cases::CASES;
use crate::crash_slots::{Outcome, Task};
use crate::crash_strike::{Actor, Kind, Strike};
use crate::freezer::FreezerVersion;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// A sequence of numbers that look random and are the same for a seed: SplitMix64, whose constants these are.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed and a number.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut chance = Chance(seed);
        let mixed = chance.next();
        Chance(mixed.wrapping_add(number.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to below this.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// The trial of this number: a random fault, a random actor, a random way and a random place. `freezers` are those that the machine has.
pub fn task(seed: u64, number: u64, freezers: &[FreezerVersion]) -> Task {
    let mut chance = Chance::new(seed, number);
    let case = &CASES[chance.below(CASES.len() as u64) as usize];
    Task {
        number,
        case: case.name.to_owned(),
        strike: strike(&mut chance, freezers),
    }
}

/// How many effects an injection and its end have at the most; those of short ones have fewer, and then the trial is done without a strike and
/// does not count.
const EFFECTS: u64 = 9;

fn strike(chance: &mut Chance, freezers: &[FreezerVersion]) -> Strike {
    let kind = match chance.below(10) {
        0..4 => Kind::Killed,
        4..7 => Kind::Stopped,
        7..9 => Kind::Frozen,
        _ => Kind::Fails,
    };
    let at = 1 + chance.below(EFFECTS);
    let at_an_effect = chance.below(2) == 0;
    // From its first effect to after its end.
    let after = chance.millis(0, 400);
    match kind {
        Kind::Fails => Strike::Failpoint(format!("worker:fail:{at}")),
        Kind::Frozen => Strike::Freeze {
            version: chance.pick(freezers),
            after,
            lasts: chance.millis(100, 4000),
        },
        Kind::Killed if at_an_effect => {
            let when = chance.pick(&["before", "after"]);
            let who = chance.pick(&["self", "guardian", "both", "controller"]);
            Strike::Failpoint(format!("worker:{when}:{at}:{who}"))
        }
        Kind::Stopped if at_an_effect => {
            let when = chance.pick(&["stop-before", "stop-after"]);
            let who = chance.pick(&["self", "guardian", "both", "controller", "helper"]);
            Strike::Failpoint(format!("worker:{when}:{at}:{who}"))
        }
        Kind::Killed => Strike::Signal {
            actor: chance.pick(&[
                Actor::Controller,
                Actor::Guardian,
                Actor::Worker,
                Actor::Helper,
                Actor::Both,
            ]),
            signal: Signal::SIGKILL,
            after,
        },
        Kind::Stopped => Strike::Signal {
            actor: chance.pick(&[
                Actor::Controller,
                Actor::Guardian,
                Actor::Worker,
                Actor::Helper,
            ]),
            signal: Signal::SIGSTOP,
            after,
        },
    }
}

/// A trial's line in the file of results.
pub fn line(seed: u64, outcome: &Outcome) -> String {
    json!({
        "seed": seed,
        "number": outcome.task.number,
        "case": outcome.task.case,
        "strike": outcome.task.strike.to_string(),
        "reached": outcome.reached,
        "late-ms": outcome.late.as_millis() as u64,
        "residue": outcome.residue,
    })
    .to_string()
}

/// A trial that was done.
#[derive(Debug)]
pub struct Done {
    /// The seed of its sitting.
    pub seed: u64,
    /// What it came to.
    pub outcome: Outcome,
}

/// Reads a line of the file of results; nothing where it is not one, e.g. broken off by a crash of the machine.
pub fn read_line(line: &str) -> Option<Done> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some(Done {
        seed: value["seed"].as_u64()?,
        outcome: Outcome {
            task: Task {
                number: value["number"].as_u64()?,
                case: value["case"].as_str()?.to_owned(),
                strike: value["strike"].as_str()?.parse().ok()?,
            },
            reached: value["reached"].as_bool()?,
            residue: value["residue"].as_str().map(str::to_owned),
            late: Duration::from_millis(value["late-ms"].as_u64()?),
            // Of no use afterwards, and not kept.
            effects: 0,
        },
    })
}

#[derive(Default)]
struct Cell {
    trials: usize,
    residues: usize,
    latest: Duration,
}

impl Cell {
    fn add(&mut self, outcome: &Outcome) {
        self.trials += 1;
        self.residues += usize::from(outcome.residue.is_some());
        self.latest = self.latest.max(outcome.late);
    }

    fn tell(&self) -> String {
        match self.trials {
            0 => "| – | – | – ".into(),
            _ => format!(
                "| {} | {} | {:.1} s ",
                self.trials,
                self.residues,
                self.latest.as_secs_f64()
            ),
        }
    }
}

/// The table to publish, in Markdown: a row for each case, with trials, residues and the latest end for each kind of strike. Only trials
/// whose strike hit count.
pub fn table<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let mut rows: BTreeMap<&str, BTreeMap<Kind, Cell>> = BTreeMap::new();
    let mut total: BTreeMap<Kind, Cell> = BTreeMap::new();
    for outcome in outcomes.filter(|outcome| outcome.reached) {
        let kind = outcome.task.strike.kind();
        let row = rows.entry(outcome.task.case.as_str()).or_default();
        row.entry(kind).or_default().add(outcome);
        total.entry(kind).or_default().add(outcome);
    }
    let mut text = String::from("| fault ");
    for kind in Kind::ALL {
        let name = kind.name();
        write!(text, "| {name}: n | residues | latest ").expect("a text takes all");
    }
    text.push_str("|\n|---");
    text.push_str(&"|--:|--:|--:".repeat(Kind::ALL.len()));
    text.push_str("|\n");
    let mut say = |name: &str, cells: &BTreeMap<Kind, Cell>| {
        write!(text, "| {name} ").expect("a text takes all");
        for kind in Kind::ALL {
            let told = cells
                .get(&kind)
                .map_or_else(|| Cell::default().tell(), Cell::tell);
            text.push_str(&told);
        }
        text.push_str("|\n");
    };
    for (name, cells) in &rows {
        say(name, cells);
    }
    say("**all**", &total);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_of_a_seed_is_the_same_again() {
        let freezers = [FreezerVersion::V1, FreezerVersion::V2];
        for number in 0..1000 {
            let one = task(7, number, &freezers);
            assert_eq!(one, task(7, number, &freezers));
            assert_eq!(one.strike.to_string().parse(), Ok(one.strike.clone()));
        }
        assert_ne!(task(7, 1, &freezers), task(8, 1, &freezers));
    }

    #[test]
    fn line_of_a_trial_read_back_is_the_same() {
        let outcome = Outcome {
            task: task(3, 5, &[FreezerVersion::V2]),
            reached: true,
            residue: Some("a device".into()),
            late: Duration::from_millis(1234),
            effects: 0,
        };
        let done = read_line(&line(3, &outcome)).expect("it is a line");
        assert_eq!((done.seed, &done.outcome.task), (3, &outcome.task));
        assert_eq!(done.outcome.residue, outcome.residue);
        assert_eq!(done.outcome.late, outcome.late);
        assert!(read_line("{\"seed\": 3, \"num").is_none());
    }
}
