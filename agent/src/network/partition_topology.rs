//! The parts of a partition, and which members each member is cut off from. This is pure, so that
//! every agent computes its own piece of the same partition without asking the others.

use backburn_experiments::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A partition between members. Every agent finds itself among the members by its own addresses and cuts itself off from the members
/// that the shape says. Replaces `to`, `from` and `direction`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub(crate) struct PartitionMembers {
    /// The members, each by an address or a name, in the same order for every agent. On a fleet, `@TARGET` means the agents of a target.
    #[schemars(length(min = 1, max = 256))]
    pub(crate) members: Vec<String>,
    /// Which members are cut off from which.
    pub(crate) shape: PartitionShape,
    /// Whether only packets from the first part to the second are lost. Default: false, both ways.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) one_way: bool,
}

/// Which members are cut off from which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PartitionShape {
    /// The first member is cut off from all others.
    Isolate,
    /// The first half is cut off from the second, which has one member more where the number is odd.
    Halves,
    /// Each member is cut off from all but its two neighbours in the list; the first and the last are neighbours.
    Ring,
    /// The first half is cut off from the second, except for one member between them that reaches all.
    Bridge,
}

/// The part that a member belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Second,
    PartitionMembers,
}

/// Which packets between a member and those that it is cut off from are lost, as seen from that member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostDirection {
    Leaving,
    Arriving,
    Both,
}

impl PartitionMembers {
    /// All problems of the partition, except those of the members' names.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let least = match self.shape {
            PartitionShape::Isolate | PartitionShape::Halves => 2,
            PartitionShape::Bridge => 3,
            PartitionShape::Ring => 4,
        };
        // The number of agents of a target is known when they are selected; then this is checked again.
        let has_target = self.members.iter().any(|member| member.starts_with('@'));
        if self.members.len() < least && !has_target {
            problems.push(
                Problem::new(
                    "$.between.members",
                    format!("with {} members, none would be cut off", self.members.len()),
                )
                .hint(format!("this shape requires at least {least}")),
            );
        }
        if self.one_way && self.shape == PartitionShape::Ring {
            problems.push(
                Problem::new("$.between.one-way", "a ring has no first part")
                    .hint("`isolate`, `halves` and `bridge` have two parts"),
            );
        }
        problems
    }

    /// The members that the member at this position is cut off from, and which packets are lost.
    pub(crate) fn cut(&self, place: usize) -> (Vec<usize>, LostDirection) {
        let count = self.members.len();
        let others = (0..count).filter(|other| *other != place);
        if self.shape == PartitionShape::Ring {
            let neighbours = [(place + 1) % count, (place + count - 1) % count];
            let cut = others.filter(|other| !neighbours.contains(other)).collect();
            return (cut, LostDirection::Both);
        }
        let own = self.part(place);
        let cut = others
            .filter(|other| match own {
                Part::First => self.part(*other) == Part::Second,
                Part::Second => self.part(*other) == Part::First,
                Part::PartitionMembers => false,
            })
            .collect();
        let lost = match (self.one_way, own) {
            (true, Part::First) => LostDirection::Leaving,
            (true, Part::Second) => LostDirection::Arriving,
            _ => LostDirection::Both,
        };
        (cut, lost)
    }

    fn part(&self, place: usize) -> Part {
        let half = self.members.len() / 2;
        match self.shape {
            PartitionShape::Bridge if place == half => Part::PartitionMembers,
            PartitionShape::Isolate if place > 0 => Part::Second,
            PartitionShape::Halves | PartitionShape::Bridge if place >= half => Part::Second,
            _ => Part::First,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(count: usize, shape: PartitionShape, one_way: bool) -> PartitionMembers {
        PartitionMembers {
            members: (0..count).map(|place| place.to_string()).collect(),
            shape,
            one_way,
        }
    }

    #[test]
    fn partition_topology_names_match_their_shapes() {
        let cuts = |count, shape| -> Vec<Vec<usize>> {
            let between = between(count, shape, false);
            assert!(between.problems().is_empty());
            (0..count).map(|place| between.cut(place).0).collect()
        };
        assert_eq!(
            cuts(4, PartitionShape::Isolate),
            [vec![1, 2, 3], vec![0], vec![0], vec![0]]
        );
        assert_eq!(
            cuts(5, PartitionShape::Halves),
            [
                vec![2, 3, 4],
                vec![2, 3, 4],
                vec![0, 1],
                vec![0, 1],
                vec![0, 1]
            ]
        );
        assert_eq!(
            cuts(5, PartitionShape::Ring),
            [vec![2, 3], vec![3, 4], vec![0, 4], vec![0, 1], vec![1, 2]]
        );
        assert_eq!(
            cuts(5, PartitionShape::Bridge),
            [vec![3, 4], vec![3, 4], vec![], vec![0, 1], vec![0, 1]]
        );
    }

    #[test]
    fn partition_topology_both_sides_of_a_cut_agree() {
        for shape in [
            PartitionShape::Isolate,
            PartitionShape::Halves,
            PartitionShape::Ring,
            PartitionShape::Bridge,
        ] {
            for one_way in [false, true] {
                for count in 2..40 {
                    let between = between(count, shape, one_way);
                    if !between.problems().is_empty() {
                        continue;
                    }
                    let mut any = false;
                    for one in 0..count {
                        let (cut, lost) = between.cut(one);
                        any |= !cut.is_empty();
                        for other in cut {
                            let (back, theirs) = between.cut(other);
                            assert!(other != one && back.contains(&one));
                            let expected = match lost {
                                LostDirection::Leaving => LostDirection::Arriving,
                                LostDirection::Arriving => LostDirection::Leaving,
                                LostDirection::Both => LostDirection::Both,
                            };
                            assert_eq!(theirs, expected);
                        }
                    }
                    assert!(any, "{shape:?} of {count} cuts nobody off");
                }
            }
        }
    }

    #[test]
    fn partition_topology_too_few_members_is_an_error() {
        assert_eq!(between(3, PartitionShape::Ring, false).problems().len(), 1);
        assert_eq!(
            between(2, PartitionShape::Bridge, false).problems().len(),
            1
        );
        assert_eq!(
            between(1, PartitionShape::Halves, false).problems().len(),
            1
        );
        assert_eq!(
            between(4, PartitionShape::Ring, true).problems()[0].at,
            "$.between.one-way"
        );
    }
}
