//! Owning the tables that harm packets: the kernel removes them when the socket that made them
//! is closed, which no death of this process can leave undone.

use super::life::Life;
use super::{Failed, delay};
use crate::filter::{Filter, Harm};
use crate::netlink::{Family, PacketQueue, Socket, errno};
use rustix::io::Errno;
use std::io;

pub(super) fn run(filter: &Filter, life: &Life) -> Result<(), Failed> {
    enter(filter)?;
    // Kept until the end: closing it is the undo.
    let owner = Socket::open(Family::Netfilter).map_err(|error| refused(&error))?;
    let queue = match filter.harm {
        Harm::Delay { by } => Some((listen(filter, PacketQueue::listen)?, by)),
        _ => None,
    };
    // Somebody listens before the first packet comes.
    let number = queue.as_ref().map_or(0, |(queue, _)| queue.number());
    owner
        .transact(&filter.messages(&owner, life.deadline, number))
        .map_err(|error| refused(&error))?;
    life.ready(format!("tables `{}` made{}", filter.table, filter.place()))?;
    match queue {
        Some((queue, by)) => Err(delay::hold(&queue, by.0)),
        None => life.wait_for_ever(),
    }
}

/// Has this thread live where the packets are.
pub(super) fn enter(filter: &Filter) -> Result<(), Failed> {
    let Some(namespace) = &filter.namespace else {
        return Ok(());
    };
    namespace.enter().map_err(|error| {
        Failed::new(format!(
            "network namespace {}: can't be entered: {error}",
            namespace.path.display()
        ))
        .hint("entering wants root, or CAP_SYS_ADMIN here and there")
    })
}

/// Listens to a packet queue that nobody else listens to.
pub(super) fn listen(
    filter: &Filter,
    open: impl Fn(u16) -> io::Result<PacketQueue>,
) -> Result<PacketQueue, Failed> {
    const TRIES: u16 = 64;
    let mut number = filter.first_queue();
    for _ in 0..TRIES {
        match open(number) {
            Ok(queue) => return Ok(queue),
            Err(error) if errno(&error) == Some(Errno::BUSY) => number = number.wrapping_add(1),
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(Failed::new(format!(
        "{TRIES} packet queues up to {number} all have listeners"
    )))
}

pub(super) fn refused(error: &io::Error) -> Failed {
    let failed = Failed::new(error.to_string());
    match errno(error) {
        Some(Errno::PERM) => failed.hint("network faults want root, or CAP_NET_ADMIN"),
        _ => failed.hint("`backburn-agent doctor` tells what this kernel has"),
    }
}
