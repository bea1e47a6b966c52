//! Who listens on a port: the sockets of each process's own network, found again among its
//! descriptors.

use super::ProcessTable;
use std::collections::{BTreeMap, BTreeSet};
use std::{cell::RefCell, path::PathBuf};

/// `TCP_LISTEN` and `TCP_CLOSE` of the kernel's `include/net/tcp_states.h`, as the tables show
/// them. A UDP socket that is bound and not connected is in the latter.
const STATES: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];

/// The listening sockets of these ports, per network, found out once each.
pub(super) struct Listening {
    ports: Vec<u16>,
    networks: RefCell<BTreeMap<PathBuf, BTreeSet<u64>>>,
}

impl Listening {
    pub(super) fn new(ports: Vec<u16>) -> Self {
        Listening {
            ports,
            networks: RefCell::default(),
        }
    }

    /// Whether the process holds a socket that listens on one of the ports.
    ///
    /// # Errors
    /// Where we may not look.
    pub(super) fn holds(&self, table: &ProcessTable, pid: i32) -> std::io::Result<bool> {
        let network = table.link(pid, "ns/net")?;
        let mut networks = self.networks.borrow_mut();
        let sockets = networks
            .entry(network)
            .or_insert_with(|| self.sockets(table, pid));
        if sockets.is_empty() {
            return Ok(false);
        }
        Ok(table.entries(pid, "fd")?.into_iter().any(|descriptor| {
            table
                .link(pid, &format!("fd/{descriptor}"))
                .ok()
                .and_then(|target| {
                    target
                        .to_str()?
                        .strip_prefix("socket:[")?
                        .strip_suffix(']')?
                        .parse()
                        .ok()
                })
                .is_some_and(|inode: u64| sockets.contains(&inode))
        }))
    }

    /// The inodes of the sockets in the network of this process.
    fn sockets(&self, table: &ProcessTable, pid: i32) -> BTreeSet<u64> {
        let mut inodes = BTreeSet::new();
        for (file, state) in STATES {
            let path = table.root().join(format!("{pid}/net/{file}"));
            // A kernel without IPv6 has no such table.
            let Ok(lines) = std::fs::read_to_string(path) else {
                continue;
            };
            inodes.extend(lines.lines().skip(1).filter_map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let (_, port) = fields.get(1)?.rsplit_once(':')?;
                let port = u16::from_str_radix(port, 16).ok()?;
                (self.ports.contains(&port) && *fields.get(3)? == state)
                    .then(|| fields.get(9)?.parse::<u64>().ok())?
            }));
        }
        inodes
    }
}
