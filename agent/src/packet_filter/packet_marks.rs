//! How the kernel is told which packets harm came to in user space: the helper that affects one flips some bits of its mark, its
//! sign; a rule right behind the queue counts those that bear it, and turns the bits back.

use super::hooks::AFTER_NAT;
use super::ruleset::RulesetBuilder;
use super::{AFFECTED, PacketFilter};
use crate::netlink::{Expression, Hook, Key, Message, Meta, RuleVerdict, Table, TableFamily};

/// The set of the marks that packets bear with the helper's sign. One that came without a mark has the sign alone.
const MARKS: &str = "marks";

impl RulesetBuilder<'_> {
    /// The chain to which packets come from the queue, in which those with the sign may be lost.
    pub(super) fn signed_chain(&mut self, sign: u32, lost: bool, hooked: bool) {
        self.sets += 1;
        let signs = [sign.to_ne_bytes().to_vec()];
        let set = self.table.values(MARKS, self.sets, Key::Mark, &signs);
        self.messages.extend(set);
        let chain = "altered";
        self.messages.push(match hooked {
            true => self.table.base_chain(chain, &Hook::Input, AFTER_NAT + 1),
            false => self.table.chain(chain),
        });
        let verdict = if lost {
            RuleVerdict::Drop
        } else {
            RuleVerdict::Accept
        };
        let steps = [
            Expression::Meta(Meta::Mark),
            Expression::Lookup {
                set: MARKS.into(),
                missing: false,
            },
            Expression::Counter,
            Expression::Toggle(sign.to_ne_bytes().to_vec()),
            Expression::SetMark,
            Expression::Verdict(verdict),
        ];
        self.rule(chain, &steps, AFFECTED);
    }
}

impl PacketFilter {
    /// What the marks of packets are turned over by to say that harm came to them; its own for each injection.
    pub fn mark_sign(&self) -> u32 {
        super::display::short_hash(&self.table) | 1
    }

    /// The message by which packets that bore this mark before are known as harmed, too.
    pub fn remember_mark(&self, mark: u32) -> Message {
        let table = Table {
            layer: TableFamily::Inet,
            name: &self.table,
        };
        let signed_chain = (mark ^ self.mark_sign()).to_ne_bytes().to_vec();
        // The set's number is of use only where it is made.
        table.more(MARKS, 0, &[signed_chain])
    }
}
