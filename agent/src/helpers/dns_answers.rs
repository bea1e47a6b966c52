//! Reading the answers of name servers as they arrive, and altering some. Whatever is not meant goes on at once, as it
//! came; when this process dies, everything does.

use super::bootstrap::HelperProcess;
use super::evidence::effect;
use super::helper::{AlteredPlace, Helper};
use super::{HelperError, packet_filter};
use crate::dns::{Alteration, AnswerFailure, Decision, NamePattern};
use crate::netlink::{Family, PacketQueue, PacketVerdict, Socket};
use crate::packet_filter::{PacketFilter, Shapers};
use crate::precise_timer::{poll_timeout, use_precise_timers};
use crate::processes::ProcessTable;
use backburn_experiments::wire::Effect;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most different marks that packets may bear as they come; what has yet another one is left alone.
const MAX_MARKS: usize = 1024;

/// Alters some answers of name servers. It goes on its command line, and into plans and the ledger, as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AnswerFilter {
    /// The tables that hand over what comes from name servers.
    pub filter: PacketFilter,
    /// The names whose answers are altered.
    pub names: Vec<NamePattern>,
    /// How they are altered.
    pub change: Alteration,
    /// The chance that an answer is altered, in percent; all are if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Seed for random selection.
    pub seed: u64,
}

impl AnswerFilter {
    /// What becomes of a packet. `draw` is called once for each answer that is meant.
    pub fn decide(&self, bytes: &[u8], draw: impl FnOnce() -> bool) -> Decision {
        self.change.decide(&self.names, bytes, draw)
    }
}

impl fmt::Display for AnswerFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.change {
            Alteration::Hold { by } => write!(f, "hold for {by}")?,
            Alteration::Fail { with } => f.write_str(match with {
                AnswerFailure::Servfail => "turn into SERVFAIL",
                AnswerFailure::Nxdomain => "turn into NXDOMAIN",
                AnswerFailure::Refused => "turn into REFUSED",
                AnswerFailure::Timeout => "lose",
            })?,
            Alteration::Spoof { addresses } => {
                let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                write!(f, "turn into {}", addresses.join(", "))?;
            }
        }
        match self.percent {
            Some(percent) => write!(f, " {percent} % of the answers")?,
            None => f.write_str(" the answers")?,
        }
        const SHOWN: usize = 8;
        let mut names: Vec<String> = self.names.iter().map(NamePattern::to_string).collect();
        if names.len() > SHOWN {
            names.truncate(SHOWN);
            names.push(format!("… ({} in all)", self.names.len()));
        }
        write!(f, " for {}", names.join(", "))
    }
}

impl Helper for AnswerFilter {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        format!(
            "{self}{}, read as they arrive by a queue of tables `{}` that it owns",
            self.filter.place(),
            self.filter.table
        )
    }

    fn describe_end(&self) -> &'static str {
        "the kernel removes the tables that it owned, and answers go on as they come"
    }

    fn holds(&self) -> Vec<String> {
        // Names in a namespace, whoever answers for them.
        let namespace = self.filter.inode();
        let names = self.names.iter();
        names
            .map(|name| format!("name:{namespace}{}", name.path()))
            .collect()
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Network(self.filter.namespace.as_ref())
    }

    /// The helper marks what it alters, and the kernel counts what bears the mark as it goes on.
    fn effect(&self, _: i32, _: &ProcessTable) -> Effect {
        let counted = match self.filter.counted() {
            Ok(counted) => counted,
            Err(error) => return effect(false, format!("the kernel's counters: {error}"), &[]),
        };
        let done = self.change.done();
        effect(
            counted.affected > 0,
            format!(
                "{} packets from name servers, {} of them answers that were {done}",
                counted.chosen, counted.affected
            ),
            &[
                ("answer-packets", counted.chosen as f64),
                (&format!("{done}-answers"), counted.affected as f64),
            ],
        )
    }

    fn drift(&self) -> Vec<String> {
        self.filter.find_drift().unwrap_or_default()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        packet_filter::still_there(&self.filter)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    /// It leaves what its filter leaves.
    type Substitute = PacketFilter;

    fn substitute(written: &Value) -> Option<PacketFilter> {
        PacketFilter::substitute(written.get("filter")?)
    }
}

fn run(answers: &AnswerFilter, process: &HelperProcess) -> Result<(), HelperError> {
    packet_filter::enter(&answers.filter)?;
    let queue = packet_filter::listen(&answers.filter, PacketQueue::read)?;
    // Kept until the end: closing it is the undo.
    let owner = Socket::open(Family::Netfilter).map_err(|error| packet_filter::refused(&error))?;
    owner
        .transact(&answers.filter.messages(
            &owner,
            process.deadline,
            queue.number(),
            Shapers::default(),
        ))
        .map_err(|error| packet_filter::refused(&error))?;
    process.ready(format!(
        "tables `{}` made{}",
        answers.filter.table,
        answers.filter.place()
    ))?;
    let mut reader = AnswerRewriter {
        answers,
        owner,
        queue,
        chance: ChaCha8Rng::seed_from_u64(answers.seed),
        known: BTreeSet::from([0]),
        held: VecDeque::new(),
    };
    use_precise_timers().map_err(|error| HelperError::new(error.to_string()))?;
    let Err(error) = reader.read();
    Err(HelperError::new(error.to_string()))
}

/// What is known while answers are read.
struct AnswerRewriter<'a> {
    answers: &'a AnswerFilter,
    owner: Socket,
    queue: PacketQueue,
    chance: ChaCha8Rng,
    /// The marks with which packets have come, so that the kernel knows them with the helper's sign.
    known: BTreeSet<u32>,
    /// Those that are held, until when, and how they go on. All are held for the same time, so the first is due first.
    held: VecDeque<(Instant, u32, PacketVerdict)>,
}

impl AnswerRewriter<'_> {
    /// Reads on, until this process is killed.
    fn read(&mut self) -> io::Result<std::convert::Infallible> {
        let by = match self.answers.change {
            Alteration::Hold { by } => by.0,
            _ => Duration::ZERO,
        };
        let chance = self.answers.percent.map(|percent| percent / 100.0);
        loop {
            let due = self.held.front().map(|(due, ..)| *due);
            let timeout = poll_timeout(due, Instant::now());
            let ready = &mut [PollFd::new(&self.queue, PollFlags::IN)];
            match poll(ready, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut decided = Vec::new();
            self.queue.arrived(|packet| {
                let drawn = || match chance {
                    None => true,
                    Some(chance) => f64::from(self.chance.next_u32()) < chance * 2f64.powi(32),
                };
                let decision = self.answers.decide(packet.bytes, drawn);
                decided.push((packet.number, packet.mark, decision));
            })?;
            for (number, mark, decision) in decided {
                let signed = match decision {
                    Decision::Leave => None,
                    _ => self.signed(mark),
                };
                let onward = match (decision, signed) {
                    (Decision::Hold, Some(signed)) => {
                        let due = Instant::now() + by;
                        self.held
                            .push_back((due, number, PacketVerdict::Marked(signed)));
                        continue;
                    }
                    // The rule that counts it loses it.
                    (Decision::Lose, Some(signed)) => PacketVerdict::Marked(signed),
                    (Decision::Replace(bytes), Some(signed)) => {
                        PacketVerdict::Replaced(signed, bytes)
                    }
                    (Decision::Leave, _) | (_, None) => PacketVerdict::Unchanged,
                };
                self.queue.send_verdict(number, &onward)?;
            }
            let now = Instant::now();
            while let Some((_, number, onward)) = self.held.pop_front_if(|(due, ..)| *due <= now) {
                self.queue.send_verdict(number, &onward)?;
            }
        }
    }

    /// The mark with the helper's sign; none if the kernel would not know it as one.
    fn signed(&mut self, mark: u32) -> Option<u32> {
        if !self.known.contains(&mark) {
            let remember_mark = [self.answers.filter.remember_mark(mark)];
            if self.known.len() >= MAX_MARKS || self.owner.transact(&remember_mark).is_err() {
                return None;
            }
            self.known.insert(mark);
        }
        Some(mark ^ self.answers.filter.mark_sign())
    }
}
