//! Turning a bit of packets as they arrive, as a bad cable does: behind the IP header, whose own checksum the kernel has
//! verified by then, so that the checksum of TCP, UDP or ICMP is what reveals it.

use super::super::hooks::HookedChains;
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, QueueWork, Share, Stage, arriving_early, to_queue};
use crate::netlink::{PacketQueue, PacketVerdict};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io;

/// Flips a bit of packets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Corrupt {
    /// Which of the packets.
    pub share: Share,
    /// Seed for random selection.
    pub seed: u64,
}

impl ActOnPackets for Corrupt {
    fn describe(&self) -> String {
        self.share.describe("turn a bit of")
    }

    fn done(&self) -> &'static str {
        "corrupted"
    }

    fn leaves_at_devices(&self) -> bool {
        false
    }

    fn stages(&self, filter: &PacketFilter) -> (Stage, Stage) {
        ((1, filter.early_priority()), (5, 0))
    }

    fn chains(&self, filter: &PacketFilter) -> HookedChains {
        HookedChains {
            inet: vec![arriving_early(filter)],
            netdev: Vec::new(),
        }
    }

    fn write_rules(
        &self,
        ruleset: &mut RulesetBuilder<'_>,
        chain: &str,
        _: &PacketFilter,
        capabilities: Capabilities,
    ) {
        ruleset.some(chain, self.share, to_queue(capabilities));
    }

    fn queue_work(&self) -> Option<QueueWork> {
        let seed = self.seed;
        Some(QueueWork {
            open: PacketQueue::read_whole,
            work: Box::new(move |queue| turn_bits(queue, seed)),
        })
    }
}

/// Turns a bit of each packet that comes, until this process is killed.
fn turn_bits(queue: &PacketQueue, seed: u64) -> io::Error {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    loop {
        match poll(&mut [PollFd::new(queue, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return error.into(),
        }
        let mut turned = Vec::new();
        let arrived = queue.arrived(|packet| {
            let mut bytes = packet.bytes.to_vec();
            turned.push((
                packet.number,
                match packet.cut {
                    true => PacketVerdict::Unchanged,
                    false => {
                        turn(&mut bytes, random.next_u64());
                        PacketVerdict::Replaced(packet.mark, bytes)
                    }
                },
            ));
        });
        let sent = arrived.and_then(|()| {
            let mut turned = turned.iter();
            turned.try_for_each(|(number, onward)| queue.send_verdict(*number, onward))
        });
        if let Err(error) = sent {
            return error;
        }
    }
}

/// Turns one bit behind the IP header; none where there is nothing behind it.
fn turn(packet: &mut [u8], random: u64) {
    let header = match packet.first().map(|first| first >> 4) {
        Some(4) => usize::from(packet[0] & 15) * 4,
        Some(6) => 40,
        _ => return,
    };
    let Some(rest) = packet.get_mut(header..).filter(|rest| !rest.is_empty()) else {
        return;
    };
    let bit = (random % (rest.len() as u64 * 8)) as usize;
    rest[bit / 8] ^= 1 << (bit % 8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_bit_behind_the_header_is_turned(
            version in prop_oneof![Just(0x45u8), Just(0x4f), Just(0x60)],
            length in 61usize..200,
            random: u64,
        ) {
            let mut packet = vec![0; length];
            packet[0] = version;
            let before = packet.clone();
            turn(&mut packet, random);
            let turned: u32 = packet.iter().zip(&before).map(|(new, old)| (new ^ old).count_ones()).sum();
            prop_assert_eq!(turned, 1);
            let header = if version == 0x60 { 40 } else { usize::from(version & 15) * 4 };
            prop_assert_eq!(&packet[..header], &before[..header]);
        }

        #[test]
        fn whatever_is_no_packet_is_left_alone(bytes in proptest::collection::vec(any::<u8>(), 0..20), random: u64) {
            let mut packet = bytes.clone();
            turn(&mut packet, random);
            prop_assert_eq!(packet.len(), bytes.len());
        }
    }
}
