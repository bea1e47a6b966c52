//! Who is hit: picks that a seed repeats. The same seed, stream, candidates and selection give the
//! same pick with every version of every library: the numbers are ChaCha8's, and what is made of
//! them is written out here.

use crate::document::{AgentCeiling, LabelMatch, Select, Target};
use crate::problem::{list_words, nearest};
use crate::wire::Refusal;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// A selection that picks none, or cannot pick as many as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptySelection {
    /// What is wrong.
    pub what: String,
    /// What would do.
    pub hint: String,
}

impl From<EmptySelection> for Refusal {
    fn from(none: EmptySelection) -> Self {
        Refusal::new("no-match", none.what).hint(none.hint)
    }
}

/// The numbers of one pick: `stream` tells picks of the same run apart, e.g. `target web`.
fn seeded_rng(seed: u64, stream: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    // FNV-1a.
    let name = stream
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    rng.set_stream(name);
    rng
}

/// A number of its own for each stream.
pub(crate) fn seeded_number(seed: u64, stream: &str) -> u64 {
    seeded_rng(seed, stream).next_u64()
}

/// A number from 0 to 1, without 1, of its own for each stream.
pub(crate) fn seeded_fraction(seed: u64, stream: &str) -> f64 {
    fraction(&mut seeded_rng(seed, stream))
}

/// A number from 0 to 1, without 1, each as likely as the other.
fn fraction(rng: &mut ChaCha8Rng) -> f64 {
    // As many bits as such a number has.
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number below `bound`, each as likely as the other.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    let bound = bound.max(1) as u64;
    // What lies above the last whole multiple would make the small numbers likelier: drawn again.
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let drawn = rng.next_u64();
        if drawn < limit {
            return (drawn % bound) as usize;
        }
    }
}

fn shuffle<T>(rng: &mut ChaCha8Rng, list: &mut [T]) {
    for last in (1..list.len()).rev() {
        list.swap(last, below(rng, last + 1));
    }
}

/// How many of so many a selection picks; at least one, or an error that says what would do.
pub fn how_many(
    seed: u64,
    stream: &str,
    there: usize,
    select: Select,
) -> Result<usize, EmptySelection> {
    count(&mut seeded_rng(seed, stream), there, select)
}

fn count(rng: &mut ChaCha8Rng, there: usize, select: Select) -> Result<usize, EmptySelection> {
    if there == 0 {
        return Err(EmptySelection {
            what: "there is nothing to pick from".into(),
            hint: "check the labels that it is selected by".into(),
        });
    }
    // Sums like 0.29 × 100 fall a hair short in floating point.
    let share = |percent: f64| {
        ((there as f64 * percent / 100.0 + 1e-9).floor().max(0.0) as usize).min(there)
    };
    match select {
        Select::All => Ok(there),
        Select::Count(wanted) if wanted as usize > there => Err(EmptySelection {
            what: format!("{wanted} are to be picked, and there are {there}"),
            hint: format!("a count of at most {there}, or `all`"),
        }),
        Select::Count(0) => Err(EmptySelection {
            what: "none is to be picked".into(),
            hint: "a count of 1 or more".into(),
        }),
        Select::Count(wanted) => Ok(wanted as usize),
        Select::Percent(percent) => match share(percent) {
            0 => Err(EmptySelection {
                what: format!("{percent} % of {there} is less than one, and percent rounds down"),
                hint: format!(
                    "at least {} percent, or `{{\"count\": 1}}`",
                    (100.0 / there as f64 * 10.0).ceil() / 10.0
                ),
            }),
            some => Ok(some),
        },
        Select::RandomMaxPercent(most) => {
            let part = fraction(rng);
            Ok(share(most * part).max(1))
        }
    }
}

/// Picks among candidates, and keeps their order. They must come in an order of their own (sorted
/// by name, by start), or the seed will not repeat the pick.
pub fn pick<T>(
    seed: u64,
    stream: &str,
    candidates: Vec<T>,
    select: Select,
) -> Result<Vec<T>, EmptySelection> {
    let mut rng = seeded_rng(seed, stream);
    let wanted = count(&mut rng, candidates.len(), select)?;
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    shuffle(&mut rng, &mut places);
    let picked: BTreeSet<usize> = places.into_iter().take(wanted).collect();
    let kept = candidates
        .into_iter()
        .enumerate()
        .filter(|(place, _)| picked.contains(place));
    Ok(kept.map(|(_, candidate)| candidate).collect())
}

/// Who of a fleet belongs to a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picked {
    /// Who matches its labels, by name.
    pub matched: Vec<String>,
    /// Who was picked among them, by name.
    pub picked: Vec<String>,
}

/// Whether an agent's labels are a target's.
pub fn matches(target: &Target, labels: &BTreeMap<String, String>) -> bool {
    !target.labels.is_empty()
        && target
            .labels
            .iter()
            .all(|(name, wanted)| match (labels.get(name), wanted) {
                (Some(value), LabelMatch::Is(wanted)) => value == wanted,
                (Some(value), LabelMatch::AnyOf(wanted)) => wanted.contains(value),
                (None, _) => false,
            })
}

/// Picks the agents of a target, from each agent's name and labels. `name` is the target's.
/// With `spread`, each value of that label gives as many as the others, as far as it has them.
pub fn pick_agents(
    target: &Target,
    agents: &[(String, BTreeMap<String, String>)],
    seed: u64,
    name: &str,
) -> Result<Picked, EmptySelection> {
    let mut matching: Vec<(&str, &BTreeMap<String, String>)> = agents
        .iter()
        .filter(|(_, labels)| matches(target, labels))
        .map(|(agent, labels)| (agent.as_str(), labels))
        .collect();
    matching.sort_unstable();
    matching.dedup_by_key(|(agent, _)| *agent);
    if matching.is_empty() {
        return Err(EmptySelection {
            what: format!("no agent matches the target `{name}`"),
            hint: near_miss(target, agents),
        });
    }
    let stream = format!("target {name}");
    let mut rng = seeded_rng(seed, &stream);
    let select = target.select.unwrap_or(Select::Count(1));
    let wanted = count(&mut rng, matching.len(), select).map_err(|none| EmptySelection {
        what: format!("target `{name}`: {}", none.what),
        ..none
    })?;

    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (agent, labels) in &matching {
        let group = target
            .spread
            .as_ref()
            .and_then(|label| labels.get(label))
            .map_or("", String::as_str);
        groups.entry(group).or_default().push(agent);
    }
    let mut groups: Vec<Vec<&str>> = groups.into_values().collect();
    groups.iter_mut().for_each(|group| shuffle(&mut rng, group));
    shuffle(&mut rng, &mut groups);
    let mut picked: Vec<String> = Vec::with_capacity(wanted);
    while picked.len() < wanted {
        for group in &mut groups {
            picked.extend(
                group
                    .pop()
                    .filter(|_| picked.len() < wanted)
                    .map(str::to_owned),
            );
        }
    }
    picked.sort_unstable();
    Ok(Picked {
        matched: matching
            .into_iter()
            .map(|(agent, _)| agent.to_owned())
            .collect(),
        picked,
    })
}

/// Which label nobody has as the target wants it, and what there is instead.
fn near_miss(target: &Target, agents: &[(String, BTreeMap<String, String>)]) -> String {
    if agents.is_empty() {
        return "there are no agents at all".into();
    }
    for (label, wanted) in &target.labels {
        let values: BTreeSet<&str> = agents
            .iter()
            .filter_map(|(_, labels)| labels.get(label))
            .map(String::as_str)
            .collect();
        let wanted: Vec<&str> = match wanted {
            LabelMatch::Is(value) => vec![value],
            LabelMatch::AnyOf(values) => values.iter().map(String::as_str).collect(),
        };
        if values.is_empty() {
            let labels = agents
                .iter()
                .flat_map(|(_, labels)| labels.keys())
                .map(String::as_str);
            return match nearest(label, labels) {
                Some(near) => format!("no agent has the label `{label}`; did you mean `{near}`?"),
                None => format!("no agent has the label `{label}`"),
            };
        }
        if !wanted.iter().any(|wanted| values.contains(wanted)) {
            let some: Vec<&str> = values.into_iter().take(8).collect();
            return format!(
                "`{label}` is {} among the agents there are",
                list_words(&some)
            );
        }
    }
    "each label is there, but on no agent all of them together".into()
}

/// Whether these picks keep within the blast radius: its count over all of them together, its
/// percent for each target's matches.
pub fn keeps_within(
    ceiling: &AgentCeiling,
    picks: &BTreeMap<String, Picked>,
) -> Result<(), Refusal> {
    let all: BTreeSet<&str> = picks
        .values()
        .flat_map(|pick| &pick.picked)
        .map(String::as_str)
        .collect();
    if let Some(max) = ceiling.max.filter(|max| all.len() > *max as usize) {
        return Err(Refusal::new(
            "blast-radius",
            format!(
                "the run would touch {} agents, and at most {max} are allowed",
                all.len()
            ),
        )
        .hint("pick fewer in `targets`, or raise `blast-radius.agents.max`"));
    }
    for (name, pick) in picks {
        let share = pick.picked.len() as f64 * 100.0 / pick.matched.len().max(1) as f64;
        if let Some(most) = ceiling.percent.filter(|most| share > *most + 1e-9) {
            return Err(Refusal::new(
                "blast-radius",
                format!(
                    "the run would touch {} of the {} agents of `{name}`, which is {share:.1} %, and at most {most} % are allowed",
                    pick.picked.len(),
                    pick.matched.len()
                ),
            )
            .hint("pick fewer in `targets`, or raise `blast-radius.agents.percent`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs are repeated by their seeds, also those of last year: these must never change.
    #[test]
    fn a_seeds_picks_are_these_for_ever() {
        let twenty = || (0..20).collect::<Vec<u32>>();
        assert_eq!(
            pick(7, "a", twenty(), Select::Count(5)).unwrap(),
            PICKED_BY_7
        );
        assert_ne!(
            pick(8, "a", twenty(), Select::Count(5)).unwrap(),
            PICKED_BY_7
        );
        assert_ne!(
            pick(7, "b", twenty(), Select::Count(5)).unwrap(),
            PICKED_BY_7
        );
    }

    #[test]
    fn seeded_number_differs_by_seed_and_stream_and_repeats() {
        let numbers =
            [(1, "a"), (1, "b"), (2, "a")].map(|(seed, stream)| seeded_number(seed, stream));
        let distinct: BTreeSet<u64> = numbers.into_iter().chain([0, 1]).collect();
        assert_eq!(distinct.len(), 5, "{numbers:?}");
        assert_eq!(numbers[0], seeded_number(1, "a"));
    }

    #[test]
    fn below_draws_every_number_under_its_bound() {
        let mut rng = seeded_rng(1, "below");
        for bound in [1, 2, 3, 7] {
            let drawn: BTreeSet<usize> = (0..200).map(|_| below(&mut rng, bound)).collect();
            assert_eq!(drawn, (0..bound).collect(), "{bound}");
        }
    }

    #[test]
    fn seeded_fraction_spreads_from_zero_to_one() {
        let fractions: Vec<f64> = (0..200)
            .map(|n| seeded_fraction(1, &n.to_string()))
            .collect();
        assert!(
            fractions
                .iter()
                .all(|fraction| (0.0..1.0).contains(fraction))
        );
        let mean = fractions.iter().sum::<f64>() / 200.0;
        assert!((mean - 0.5).abs() < 0.1, "{mean}");
    }

    const PICKED_BY_7: [u32; 5] = [1, 4, 5, 11, 19];

    #[test]
    fn percent_rounds_down_and_none_left_says_what_would_do() {
        assert_eq!(how_many(1, "", 100, Select::Percent(29.0)), Ok(29));
        assert_eq!(how_many(1, "", 10, Select::Percent(39.9)), Ok(3));
        let none = how_many(1, "", 3, Select::Percent(25.0)).unwrap_err();
        assert!(none.hint.contains("33.4 percent"), "{none:?}");
        assert!(how_many(1, "", 0, Select::All).is_err());
        assert!(how_many(1, "", 2, Select::Count(3)).is_err());
        assert!(how_many(1, "", 2, Select::Count(0)).is_err());
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn target(role: LabelMatch, select: Option<Select>, spread: Option<&str>) -> Target {
        Target {
            labels: BTreeMap::from([("role".to_owned(), role)]),
            select,
            spread: spread.map(str::to_owned),
        }
    }

    #[test]
    fn nobody_matching_is_an_error_with_what_there_is() {
        let agents = [("a".to_owned(), labels(&[("role", "web")]))];
        let hint = |wanted: &Target| pick_agents(wanted, &agents, 1, "t").unwrap_err().hint;
        assert!(hint(&target(LabelMatch::Is("wbe".into()), None, None)).contains("`web`"));
        let mut misspelt = target(LabelMatch::Is("web".into()), None, None);
        misspelt.labels = BTreeMap::from([("rol".to_owned(), LabelMatch::Is("web".into()))]);
        assert!(hint(&misspelt).contains("did you mean `role`?"));
        misspelt.labels.clear();
        assert!(pick_agents(&misspelt, &agents, 1, "t").is_err());
    }

    #[test]
    fn the_blast_radius_counts_agents_once_and_percent_by_target() {
        let pick = |matched: &[&str], picked: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
            Picked {
                matched: own(matched),
                picked: own(picked),
            }
        };
        let picks = BTreeMap::from([
            ("x".to_owned(), pick(&["a", "b", "c"], &["a"])),
            ("y".to_owned(), pick(&["a", "b"], &["a"])),
        ]);
        let ceiling = |max, percent| AgentCeiling { max, percent };
        assert!(keeps_within(&ceiling(Some(1), Some(50.0)), &picks).is_ok());
        assert!(keeps_within(&ceiling(Some(0), None), &picks).is_err());
        let refusal = keeps_within(&ceiling(None, Some(49.0)), &picks).unwrap_err();
        assert!(refusal.what.contains("`y`"), "{refusal}");
    }

    fn any_select() -> impl Strategy<Value = Select> {
        prop_oneof![
            Just(Select::All),
            (0u32..30).prop_map(Select::Count),
            (0.0f64..=100.0).prop_map(Select::Percent),
            (0.0f64..=100.0).prop_map(Select::RandomMaxPercent),
        ]
    }

    proptest! {
        #[test]
        fn a_pick_is_a_part_in_order_of_the_size_that_was_said(seed: u64, there in 0usize..40, select in any_select()) {
            let candidates: Vec<usize> = (0..there).collect();
            match pick(seed, "s", candidates.clone(), select) {
                Ok(picked) => {
                    prop_assert!(picked.windows(2).all(|pair| pair[0] < pair[1]));
                    prop_assert!(picked.iter().all(|one| candidates.contains(one)));
                    prop_assert_eq!(picked.len(), how_many(seed, "s", there, select).unwrap());
                    prop_assert!(!picked.is_empty());
                    match select {
                        Select::All => prop_assert_eq!(picked.len(), there),
                        Select::Count(wanted) => prop_assert_eq!(picked.len(), wanted as usize),
                        Select::Percent(most) => prop_assert!(picked.len() as f64 <= most * there as f64 / 100.0 + 1e-6),
                        Select::RandomMaxPercent(most) => {
                            prop_assert!(picked.len() as f64 <= (most * there as f64 / 100.0 + 1e-6).max(1.0));
                        }
                    }
                    prop_assert_eq!(pick(seed, "s", candidates, select).unwrap(), picked);
                }
                Err(none) => prop_assert!(!none.what.is_empty() && !none.hint.is_empty()),
            }
        }

        #[test]
        fn a_spread_is_even_and_the_agents_order_is_no_matter(
            seed: u64,
            zones in prop::collection::vec(0u8..4, 1..24),
            wanted in 1u32..24,
            turn in 0usize..24,
        ) {
            let mut agents: Vec<(String, BTreeMap<String, String>)> = zones
                .iter()
                .enumerate()
                .map(|(index, zone)| (format!("agent-{index}"), labels(&[("role", "web"), ("zone", &zone.to_string())])))
                .collect();
            let target = target(LabelMatch::AnyOf(vec!["db".into(), "web".into()]), Some(Select::Count(wanted)), Some("zone"));
            let Ok(pick) = pick_agents(&target, &agents, seed, "t") else {
                prop_assert!(wanted as usize > agents.len());
                return Ok(());
            };
            prop_assert_eq!(pick.picked.len(), wanted as usize);
            prop_assert_eq!(pick.matched.len(), agents.len());
            let zone_of = |agent: &String| agents.iter().find(|(name, _)| name == agent).unwrap().1["zone"].clone();
            let tally = |list: &[String]| list.iter().fold(BTreeMap::<String, usize>::new(), |mut tally, agent| {
                *tally.entry(zone_of(agent)).or_default() += 1;
                tally
            });
            let (there, taken) = (tally(&pick.matched), tally(&pick.picked));
            let most = taken.values().max().copied().unwrap_or_default();
            for (zone, there) in there {
                // Only a zone that has no more gives less than the others.
                let taken = taken.get(&zone).copied().unwrap_or_default();
                prop_assert!(taken + 1 >= most || taken == there, "{zone}: {taken} of {there}, others {most}");
            }
            let places = agents.len();
            agents.rotate_left(turn % places);
            prop_assert_eq!(pick_agents(&target, &agents, seed, "t").unwrap(), pick);
        }
    }
}
