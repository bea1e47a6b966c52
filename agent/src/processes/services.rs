//! The services of a host as its process table shows them: who listens where, whom they are connected to, and which unit or container they are of.
//! Processes that are protected are left out, so that nobody who asks for services gets one of them as a victim.

use super::cgroup::{cgroup_parts, cgroup_paths};
use super::protection::ProtectionCheck;
use super::{ProcessTable, Protection};
use backburn_experiments::suggest::SeenService;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// `TCP_ESTABLISHED` and `TCP_LISTEN` of the kernel's `include/net/tcp_states.h`, as the tables show them.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";
/// How many characters of a container's id name it, as `docker ps` shows it.
const CONTAINER_ID_LENGTH: usize = 12;

/// A TCP socket as the tables of a network show it.
struct TcpEntry {
    here: SocketAddr,
    there: SocketAddr,
    is_listening: bool,
}

/// The TCP sockets of a network, by inode.
type TcpTable = BTreeMap<u64, TcpEntry>;

/// All services that listen or are connected and that nothing protects, ordered by name.
///
/// # Errors
/// The process table cannot be listed.
pub fn seen_services(
    table: &ProcessTable,
    protection: &Protection,
) -> io::Result<Vec<SeenService>> {
    let spare = ProtectionCheck::new(table, protection);
    let own = own_network(table);
    let mut networks: BTreeMap<PathBuf, TcpTable> = BTreeMap::new();
    // Services of one name that listen on different ports are different ones.
    let mut found: BTreeMap<_, SeenService> = BTreeMap::new();
    for pid in table.pids()? {
        let Some((process, stat)) = table.process_and_stat(pid) else {
            continue;
        };
        if spare.reason(&process, &stat).is_some() {
            continue;
        }
        // A process that has ended, or that the agent may not read, tells nothing.
        let (Ok(network), Ok(descriptors)) = (table.link(pid, "ns/net"), table.entries(pid, "fd"))
        else {
            continue;
        };
        let folder = table.root().join(pid.to_string());
        let sockets = (networks.entry(network.clone())).or_insert_with(|| tcp_table(&folder));
        let (mut listening, mut peers) = (BTreeSet::new(), BTreeSet::new());
        for descriptor in descriptors {
            let Ok(target) = table.link(pid, &format!("fd/{descriptor}")) else {
                continue;
            };
            match inode(&target).and_then(|inode| sockets.get(&inode)) {
                Some(socket) if socket.is_listening => drop(listening.insert(socket.here)),
                Some(socket) if !is_of_client(sockets, socket) => {
                    peers.insert(socket.there);
                }
                _ => {}
            }
        }
        if listening.is_empty() && peers.is_empty() {
            continue;
        }
        let (unit, container) = owner(table, pid);
        let key = (
            process.name.clone(),
            unit.clone(),
            container.clone(),
            listening.clone(),
        );
        let service = found.entry(key).or_insert_with(|| SeenService {
            name: process.name.clone(),
            processes: 0,
            unit,
            container,
            is_in_own_network: own.as_ref() == Some(&network),
            listening: BTreeSet::new(),
            peers: BTreeSet::new(),
        });
        service.processes += 1;
        service.listening.extend(listening);
        service.peers.extend(peers);
    }
    Ok(found.into_values().collect())
}

/// The network that the agent is in; that of process 1 in a made-up table.
fn own_network(table: &ProcessTable) -> Option<PathBuf> {
    match table.root() == Path::new("/proc") {
        true => std::fs::read_link("/proc/thread-self/ns/net").ok(),
        false => table.link(1, "ns/net").ok(),
    }
}

/// Whether a socket was made by accepting a client: somebody listens on its port here.
fn is_of_client(sockets: &TcpTable, socket: &TcpEntry) -> bool {
    let port = socket.here.port();
    let mut listening = sockets.values().filter(|other| other.is_listening);
    listening.any(|other| other.here.port() == port)
}

fn inode(target: &Path) -> Option<u64> {
    let inode = target.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

/// The unit of the system's services and the container that a process is of.
fn owner(table: &ProcessTable, pid: i32) -> (Option<String>, Option<String>) {
    let (mut unit, mut container) = (None, None);
    for (_, path) in cgroup_paths(table, pid).unwrap_or_default() {
        let parts: Vec<&str> = cgroup_parts(&path).collect();
        if let Some(id) = parts.iter().rev().find_map(|part| container_id(part)) {
            container.get_or_insert(id);
        } else if let ["system.slice", .., last] = parts[..]
            && last.ends_with(".service")
        {
            unit.get_or_insert_with(|| last.to_owned());
        }
    }
    match container {
        Some(container) => (None, Some(container)),
        None => (unit, None),
    }
}

/// The beginning of the container's id that a control group is called by: 64 hexadecimal digits, with what a runtime writes around them.
fn container_id(part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit('-').next()?;
    let is_id = id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit());
    is_id.then(|| id.chars().take(CONTAINER_ID_LENGTH).collect())
}

/// The TCP sockets in the network of the process with this folder that listen or are connected.
fn tcp_table(process: &Path) -> TcpTable {
    let mut sockets = TcpTable::new();
    for file in ["tcp", "tcp6"] {
        // A kernel without IPv6 has no such table.
        let Ok(lines) = std::fs::read_to_string(process.join("net").join(file)) else {
            continue;
        };
        sockets.extend(lines.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let state = *fields.get(3)?;
            let entry = TcpEntry {
                here: address(fields.get(1)?)?,
                there: address(fields.get(2)?)?,
                is_listening: state == LISTEN,
            };
            let inode = fields.get(9)?.parse().ok()?;
            [ESTABLISHED, LISTEN]
                .contains(&state)
                .then_some((inode, entry))
        }));
    }
    sockets
}

/// An address such as `0100007F:1F90`: words of 32 bits in the byte order of the machine, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |index: usize| {
        let word = u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: Vec<u8> = words.concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
        }
        _ => return None,
    };
    // What an IPv6 socket says of a connection over IPv4.
    Some(SocketAddr::new(
        ip.to_canonical(),
        u16::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn tcp_address_is_read_in_both_families() {
        let read = |text| address(text).map(|address| address.to_string());
        assert_eq!(read("0100007F:1F90").unwrap(), "127.0.0.1:8080");
        assert_eq!(
            read("00000000000000000000000001000000:0050").unwrap(),
            "[::1]:80"
        );
        assert_eq!(
            read("0000000000000000FFFF00000100007F:0050").unwrap(),
            "127.0.0.1:80"
        );
        assert_eq!(read("xyz"), None);
        assert_eq!(read("0100007F:1FFFF"), None);
    }

    #[test]
    fn container_of_a_control_group_is_its_short_id() {
        let id = "ab".repeat(32);
        for part in [
            format!("docker-{id}.scope"),
            format!("cri-containerd-{id}.scope"),
            format!("libpod-{id}.scope"),
            id.clone(),
        ] {
            assert_eq!(
                container_id(&part).as_deref(),
                Some("abababababab"),
                "{part}"
            );
        }
        assert_eq!(container_id("nginx.service"), None);
        assert_eq!(container_id(&"z".repeat(64)), None);
    }
}
