//! What packets were before addresses were translated: as a service's address that stands for others, or a published port. The kernel's
//! list of connections knows it, in the IP layers and after tracking. At the devices that packets leave by it is not to be had; so those
//! packets are marked just before, by a bit of their mark that is taken away again at the device.

use super::PacketFilter;
use super::expressions::accept;
use super::hooks::{EARLY, MARKING, TRACKED};
use super::ruleset::RulesetBuilder;
use crate::netlink::{Compare, Expression, Meta, RuleVerdict};

/// Bits of packets' marks that hardly anybody uses, one pair for each fault at a time: for those that are chosen, and for those that are
/// spared. Kubernetes has 0xc000, Cilium 0x0f00, and people small numbers.
const MARKS: [(u32, u32); 4] = [
    (1 << 12, 1 << 13),
    (1 << 20, 1 << 21),
    (1 << 22, 1 << 23),
    (1 << 24, 1 << 25),
];

impl PacketFilter {
    /// How many faults may mark packets of a namespace at the same time.
    pub const MARKS: usize = MARKS.len();

    /// The bits of marks for packets that are chosen and for those that are spared, where packets are marked.
    pub(super) fn nat_marks(&self) -> Option<(u32, u32)> {
        let at_devices = self.effect.leaves_at_devices() && !self.drops_in_queue();
        let marks = at_devices && self.translated && !self.devices.is_empty();
        MARKS.get(self.marks?).copied().filter(|_| marks)
    }

    /// What it holds alone of packets' marks, where it marks some.
    pub fn held_marks(&self) -> Option<String> {
        self.nat_marks()?;
        Some(marks_held(self.inode(), self.marks?))
    }

    /// The priority of what is done to arriving packets before it is known for whom they are.
    pub(super) fn early_priority(&self) -> i32 {
        if self.translated { TRACKED } else { EARLY }
    }
}

/// How marks of a namespace are called where they are held.
pub fn marks_held(inode: u64, number: usize) -> String {
    format!("marks:{inode}:{number};")
}

/// The mark's bits are set.
fn set(bits: u32) -> [Expression; 4] {
    [
        Expression::Meta(Meta::Mark),
        Expression::Mask((!bits).to_ne_bytes().into()),
        Expression::Toggle(bits.to_ne_bytes().into()),
        Expression::SetMark,
    ]
}

/// Goes on where the mark has these bits, which are taken away.
fn taken(bits: u32) -> [Expression; 6] {
    [
        Expression::Meta(Meta::Mark),
        Expression::Mask(bits.to_ne_bytes().into()),
        Expression::Compare(Compare::Equal, bits.to_ne_bytes().into()),
        Expression::Meta(Meta::Mark),
        Expression::Mask((!bits).to_ne_bytes().into()),
        Expression::SetMark,
    ]
}

impl RulesetBuilder<'_> {
    /// The chain that marks what is chosen.
    pub(super) fn marking(&mut self, filter: &PacketFilter) {
        if let Some((chosen, _)) = filter.nat_marks() {
            let steps = [&set(chosen)[..], &[accept()]].concat();
            self.rule(MARKING, &steps, "");
        }
    }

    /// At a device: those that are spared for what they were go on, the chosen ones to their harm, and all without their mark.
    pub(super) fn by_marks(&mut self, chain: &str, harm: &str, filter: &PacketFilter) {
        if let Some((chosen, spared)) = filter.nat_marks() {
            let steps = [&taken(spared)[..], &[accept()]].concat();
            self.rule(chain, &steps, "spared for what it was");
            let goto = Expression::Verdict(RuleVerdict::Goto(harm.into()));
            let steps = [&taken(chosen)[..], &[goto]].concat();
            self.rule(chain, &steps, "");
        }
    }

    /// What is done to what is spared for what it was: it goes on, and is spared at its device too.
    pub(super) fn spared(&self, filter: &PacketFilter, marking: bool) -> Vec<Expression> {
        match filter.nat_marks() {
            Some((_, spared)) if marking => [&set(spared)[..], &[accept()]].concat(),
            _ => vec![accept()],
        }
    }
}
