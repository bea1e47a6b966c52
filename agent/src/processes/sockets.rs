//! Which processes listen on a port, and in which network: the listening sockets of the agent's network and
//! of each process's own, found again among the descriptors of the process.

use super::ProcessTable;
use crate::units::PortRange;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `TCP_LISTEN` and `TCP_CLOSE` of the kernel's `include/net/tcp_states.h`, as the tables show
/// them. A UDP socket that is bound and not connected is in the latter.
const STATES: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];

/// The network that a process listens in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerNetwork {
    /// The network of the agent.
    Own,
    /// Another network that the process is in, e.g. a container's.
    Other,
}

/// The listening sockets of some ports, for each network; each network is read once.
pub(super) struct ListeningSockets {
    ports: Vec<PortRange>,
    /// The network of this thread, as its link reads; none with a made-up process table.
    own: Option<PathBuf>,
    networks: RefCell<BTreeMap<PathBuf, BTreeSet<u64>>>,
}

impl ListeningSockets {
    pub(super) fn new(table: &ProcessTable, ports: Vec<PortRange>) -> Self {
        let is_real = table.root() == Path::new("/proc");
        let own = || std::fs::read_link("/proc/thread-self/ns/net").ok();
        let listening = ListeningSockets {
            ports,
            own: is_real.then(own).flatten(),
            networks: RefCell::default(),
        };
        if let Some(own) = &listening.own {
            let sockets = listening.sockets(Path::new("/proc/thread-self"));
            let mut networks = listening.networks.borrow_mut();
            networks.insert(own.clone(), sockets);
        }
        listening
    }

    /// The network in which a process listens on one of the ports; none where it does not. A socket that another process has handed to
    /// it counts where it was created, which may be the agent's network.
    ///
    /// # Errors
    /// The agent may not read the process.
    pub(super) fn holds(
        &self,
        table: &ProcessTable,
        pid: i32,
    ) -> std::io::Result<Option<ListenerNetwork>> {
        let network = table.link(pid, "ns/net")?;
        let mut networks = self.networks.borrow_mut();
        let of_its = networks
            .entry(network.clone())
            .or_insert_with(|| self.sockets(&table.root().join(pid.to_string())))
            .clone();
        let of_ours = self.own.as_ref().and_then(|own| networks.get(own));
        if of_its.is_empty() && of_ours.is_none_or(BTreeSet::is_empty) {
            return Ok(None);
        }
        let mut found = None;
        for descriptor in table.entries(pid, "fd")? {
            let Ok(target) = table.link(pid, &format!("fd/{descriptor}")) else {
                continue;
            };
            let inode = target.to_str().and_then(|target| {
                let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
                inode.parse::<u64>().ok()
            });
            let Some(inode) = inode else {
                continue;
            };
            if of_ours.is_some_and(|ours| ours.contains(&inode)) {
                return Ok(Some(ListenerNetwork::Own));
            }
            if of_its.contains(&inode) {
                found = Some(ListenerNetwork::Other);
            }
        }
        Ok(found)
    }

    /// The inodes of the listening sockets in the network of the process with this folder.
    fn sockets(&self, process: &Path) -> BTreeSet<u64> {
        let mut inodes = BTreeSet::new();
        for (file, state) in STATES {
            // A kernel without IPv6 has no such table.
            let Ok(lines) = std::fs::read_to_string(process.join("net").join(file)) else {
                continue;
            };
            inodes.extend(lines.lines().skip(1).filter_map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let (_, port) = fields.get(1)?.rsplit_once(':')?;
                let port = u16::from_str_radix(port, 16).ok()?;
                (self.ports.iter().any(|range| range.contains(port)) && *fields.get(3)? == state)
                    .then(|| fields.get(9)?.parse::<u64>().ok())?
            }));
        }
        inodes
    }
}
