//! Holding packets for a time as they arrive: one thread, one queue. In order, those whose time has come are always
//! the first ones, and one verdict lets them all go; out of order, each is let go by itself.

use super::super::delay::Delay;
use super::super::distribution::Delays;
use super::super::hooks::HookedChains;
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, QueueWork, Share, Stage, arriving_early, to_queue};
use crate::netlink::{PacketQueue, PacketVerdict};
use crate::precise_timer::{poll_timeout, use_precise_timers};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::time::Instant;

/// Holds packets back in a queue of this process before they go on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DelayInQueue {
    /// How long, and which packets are not delayed.
    pub delay: Delay,
    /// Seed for random selection.
    pub seed: u64,
}

impl ActOnPackets for DelayInQueue {
    fn describe(&self) -> String {
        format!("{} packet of", self.delay)
    }

    fn done(&self) -> &'static str {
        "held"
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
        ruleset.some(chain, Share::All, to_queue(capabilities));
    }

    fn queue_work(&self) -> Option<QueueWork> {
        let DelayInQueue { delay, seed } = *self;
        Some(QueueWork {
            open: PacketQueue::listen,
            work: Box::new(move |queue| hold(queue, delay, seed)),
        })
    }
}

/// Packets that are held, by number.
enum DelayQueue {
    InOrder(VecDeque<(Instant, u32)>),
    /// The one that is due first on top; of two, the one that came first.
    InAnyOrder(BinaryHeap<Reverse<(Instant, u64, u32)>>),
}

/// Holds what comes, until this process is killed.
fn hold(queue: &PacketQueue, delay: Delay, seed: u64) -> io::Error {
    if let Err(error) = use_precise_timers() {
        return error;
    }
    let mut delays = Delays::new(delay, seed);
    let mut held = match delay.keep_order && delay.overtake.is_none() {
        true => DelayQueue::InOrder(VecDeque::new()),
        false => DelayQueue::InAnyOrder(BinaryHeap::new()),
    };
    // Where some overtake, the others still keep their order among themselves.
    let mut last = Instant::now();
    let mut number = 0;
    loop {
        let timeout = poll_timeout(held.next_due(), Instant::now());
        match poll(&mut [PollFd::new(queue, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return error.into(),
        }
        let arrived = queue.arrived(|packet| {
            // After the packet was read, so that this process, put aside before that, cannot count the time until it arrived.
            let now = Instant::now();
            let due = match delays.draw() {
                None => now,
                Some(by) if delay.keep_order => {
                    last = last.max(now + by);
                    last
                }
                Some(by) => now + by,
            };
            number += 1;
            held.put(due, number, packet.number);
        });
        if let Err(error) = arrived.and_then(|()| held.accept_up_to(queue)) {
            return error;
        }
    }
}

impl DelayQueue {
    fn next_due(&self) -> Option<Instant> {
        match self {
            DelayQueue::InOrder(held) => held.front().map(|(due, _)| *due),
            DelayQueue::InAnyOrder(held) => held.peek().map(|Reverse((due, _, _))| *due),
        }
    }

    fn put(&mut self, due: Instant, number: u64, packet: u32) {
        match self {
            DelayQueue::InOrder(held) => held.push_back((due, packet)),
            DelayQueue::InAnyOrder(held) => held.push(Reverse((due, number, packet))),
        }
    }

    /// Lets those go whose time has come.
    fn accept_up_to(&mut self, queue: &PacketQueue) -> io::Result<()> {
        let now = Instant::now();
        match self {
            DelayQueue::InOrder(held) => {
                let mut last = None;
                while let Some((_, packet)) = held.pop_front_if(|(due, _)| *due <= now) {
                    last = Some(packet);
                }
                last.map_or(Ok(()), |last| queue.accept_up_to(last))
            }
            DelayQueue::InAnyOrder(held) => {
                while let Some(Reverse((_, _, packet))) =
                    held.peek().filter(|Reverse((due, _, _))| *due <= now)
                {
                    queue.send_verdict(*packet, &PacketVerdict::Unchanged)?;
                    held.pop();
                }
                Ok(())
            }
        }
    }
}
