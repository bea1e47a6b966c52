//! Owning the tables that harm packets: the kernel removes them when the socket that made them
//! is closed, which no death of this process can leave undone.

use super::Failed;
use super::life::Life;
use crate::filter::Filter;
use crate::netlink::{Family, Socket, errno};
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
    let messages = filter.messages(life.deadline);
    owner.transact(&messages).map_err(|error| refused(&error))?;
    life.ready(format!("tables `{}` made{}", filter.table, filter.place()))?;
    life.wait_for_ever()
}

fn refused(error: &io::Error) -> Failed {
    let failed = Failed::new(error.to_string());
    match errno(error) {
        Some(Errno::PERM) => failed.hint("network faults want root, or CAP_NET_ADMIN"),
        _ => failed.hint("`backburn-agent doctor` tells what this kernel has"),
    }
}
