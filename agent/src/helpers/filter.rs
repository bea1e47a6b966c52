//! Owning the tables that harm packets: the kernel removes them when the socket that made them
//! is closed, which no death of this process can leave undone.

use super::life::Life;
use super::{Failed, corrupt, delay};
use crate::filter::{Filter, Harm, Means};
use crate::netlink::{Copied, Family, PacketQueue, Socket, errno};
use rustix::io::Errno;
use std::io;

pub(super) fn run(filter: &Filter, life: &Life) -> Result<(), Failed> {
    if let Some(namespace) = &filter.namespace {
        namespace.enter().map_err(|error| {
            Failed::new(format!(
                "network namespace {}: can't be entered: {error}",
                namespace.path.display()
            ))
            .hint("entering wants root, or CAP_SYS_ADMIN here and there")
        })?;
    }
    // Kept until the end: closing it is the undo.
    let owner = Socket::open(Family::Netfilter).map_err(|error| refused(&error))?;
    let queue = match filter.harm {
        Harm::Delay { .. } => Some(listen(filter, Copied::Nothing)?),
        Harm::Corrupt { .. } => Some(listen(filter, Copied::All)?),
        _ => None,
    };
    // Somebody listens, and what shapes is there, before the first packet comes.
    let means = Means {
        queue: queue.as_ref().map_or(0, PacketQueue::number),
        by_target: false,
        shapers: filter.make_shapers().map_err(|error| refused(&error))?,
    };
    filter
        .say(life.deadline, means, |messages| owner.transact(messages))
        .map_err(|error| refused(&error))?;
    life.ready(format!("tables `{}` made{}", filter.table, filter.place()))?;
    match (queue, filter.harm) {
        (Some(queue), Harm::Delay { delay, seed }) => Err(delay::hold(&queue, delay, seed)),
        (Some(queue), Harm::Corrupt { seed, .. }) => Err(corrupt::turn_bits(&queue, seed)),
        _ => life.wait_for_ever(),
    }
}

/// Listens to a packet queue that nobody else listens to.
fn listen(filter: &Filter, copied: Copied) -> Result<PacketQueue, Failed> {
    const TRIES: u16 = 64;
    let mut number = filter.first_queue();
    for _ in 0..TRIES {
        match PacketQueue::listen(number, copied) {
            Ok(queue) => return Ok(queue),
            Err(error) if errno(&error) == Some(Errno::BUSY) => number = number.wrapping_add(1),
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(Failed::new(format!(
        "{TRIES} packet queues up to {number} all have listeners"
    )))
}

fn refused(error: &io::Error) -> Failed {
    let failed = Failed::new(error.to_string());
    match errno(error) {
        Some(Errno::PERM) => failed.hint("network faults want root, or CAP_NET_ADMIN"),
        _ => failed.hint("`backburn-agent doctor` tells what this kernel has"),
    }
}
