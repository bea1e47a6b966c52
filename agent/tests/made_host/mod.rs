//! A made-up host, for plans: it has what a test says, and nothing of the machine that the test runs on.

#![allow(dead_code, reason = "each test file uses its own part")]

use crate::made::Made;
use backburn_agent::dns::Viewpoint;
use backburn_agent::helpers::{FileTamper, NotTraceable};
use backburn_agent::memory_limits::Memory;
use backburn_agent::metrics::MetricUnavailable;
use backburn_agent::mounts::{Mount, MountIdentity, MountUser};
use backburn_agent::packet_filter::{PacketFilter, Shaping};
use backburn_agent::plan::{
    FileSystem, FoundFile, FoundMount, FoundUnit, HostFacts, HostView, Interface, NameResolver,
    Namespace, NetworkSnapshot, NoServiceManager,
};
use backburn_agent::processes::{Cgroup, Descriptors, ProcessId, ProcessTable, ThreadRoom};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A host with the processes of [`Made`], 4 processors, 8 GiB of memory, and the interfaces `lo` and `eth0`.
#[derive(Debug)]
pub struct MadeHost {
    table: ProcessTable,
    pub user_id: u32,
    pub facts: HostFacts,
    pub processors: usize,
    pub memory: Memory,
    /// The file systems, by the folder that they are mounted at.
    pub file_systems: BTreeMap<PathBuf, FileSystem>,
    /// The regular files with their content.
    pub files: BTreeMap<PathBuf, (FoundFile, Vec<u8>)>,
    /// The mounts, by the path that they are found from.
    pub mounts: BTreeMap<PathBuf, FoundMount>,
    pub mount_users: Vec<MountUser>,
    pub takes_writes: bool,
    /// The units of systemd; why there is none where it does not run.
    pub units: Result<Vec<FoundUnit>, NoServiceManager>,
    pub max_file_bytes: Option<u64>,
    /// What every process has open.
    pub descriptors: Descriptors,
    pub thread_room: ThreadRoom,
    /// The only name that has addresses.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    pub interfaces: Vec<Interface>,
    pub addresses: Vec<IpAddr>,
    pub translates: bool,
    pub has_netem: bool,
    /// Whether the kernel takes packet filters.
    pub has_nftables: bool,
    /// Where somebody listens already.
    pub taken: Vec<SocketAddr>,
    /// The control group of each process, with all who are in it.
    pub cgroups: BTreeMap<i32, (Cgroup, Vec<i32>)>,
    /// Files of `/etc`.
    pub etc: BTreeMap<&'static str, &'static str>,
    pub snapshot: NetworkSnapshot,
    pub mtu: u32,
}

const GIB: u64 = 1 << 30;

impl MadeHost {
    pub fn new(made: &Made) -> Self {
        let link = |index, name: &str, loopback| Interface {
            index,
            name: name.into(),
            kind: String::new(),
            alias: String::new(),
            mtu: 1500,
            loopback,
            up: true,
            discipline: "noqueue".into(),
        };
        MadeHost {
            table: ProcessTable::at(made.path()),
            user_id: 0,
            facts: HostFacts {
                boot: "00000000-0000-4000-8000-000000000000".into(),
                is_first_pid_namespace: true,
                may_restart: true,
                may_set_clock: true,
                controllers: Vec::new(),
            },
            processors: 4,
            memory: Memory {
                total: 8 * GIB,
                available: 4 * GIB,
                is_limited: false,
            },
            file_systems: BTreeMap::from([(
                "/data".into(),
                FileSystem {
                    device: 7,
                    size: 100 * GIB,
                    used: 90 * GIB,
                    available: 10 * GIB,
                    is_folder: true,
                },
            )]),
            files: BTreeMap::new(),
            mounts: BTreeMap::new(),
            mount_users: Vec::new(),
            takes_writes: true,
            units: Ok(Vec::new()),
            max_file_bytes: None,
            descriptors: Descriptors {
                open: (0..10).collect(),
                soft: 1024,
                hard: 4096,
                read_at: 0,
            },
            thread_room: ThreadRoom {
                limit: 30_000,
                used: 1_000,
                of: "kernel.pid_max".into(),
            },
            names: BTreeMap::from([("db.example".into(), vec![[10, 0, 0, 7].into()])]),
            interfaces: vec![link(1, "lo", true), link(2, "eth0", false)],
            addresses: vec![[10, 0, 0, 1].into()],
            translates: false,
            has_netem: true,
            has_nftables: true,
            taken: Vec::new(),
            cgroups: BTreeMap::new(),
            etc: BTreeMap::new(),
            snapshot: NetworkSnapshot {
                has_ipv6: true,
                ..NetworkSnapshot::default()
            },
            mtu: 1500,
        }
    }
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} here"))
}

impl HostView for MadeHost {
    fn processes(&self) -> &ProcessTable {
        &self.table
    }

    fn user_id(&self) -> u32 {
        self.user_id
    }

    fn facts(&self) -> io::Result<HostFacts> {
        Ok(self.facts.clone())
    }

    fn time_of_day_ahead(&self) -> io::Result<i64> {
        Ok(1_700_000_000_000_000_000)
    }

    fn check_freezable(&self, _: ProcessId) -> Result<(), NotTraceable> {
        Ok(())
    }

    fn descriptors(&self, _: ProcessId) -> io::Result<Option<Descriptors>> {
        Ok(Some(self.descriptors.clone()))
    }

    fn thread_room(&self) -> io::Result<ThreadRoom> {
        Ok(self.thread_room.clone())
    }

    fn cgroup(&self, pid: i32) -> io::Result<Option<Cgroup>> {
        Ok(self.cgroups.get(&pid).map(|(cgroup, _)| cgroup.clone()))
    }

    fn cgroup_members(&self, cgroup: &Cgroup) -> io::Result<Vec<i32>> {
        let mut all = self.cgroups.values();
        let found = all.find(|(known, _)| known.id == cgroup.id);
        found
            .map(|(_, members)| members.clone())
            .ok_or_else(|| missing("control group"))
    }

    fn memory(&self) -> Result<Memory, MetricUnavailable> {
        Ok(self.memory)
    }

    fn processors(&self) -> usize {
        self.processors
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        let found = self.file_systems.get(path).copied();
        found.ok_or_else(|| missing("such path"))
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        let is_there = self.files.contains_key(path) || self.file_systems.contains_key(path);
        match is_there {
            true => Ok(path.to_owned()),
            false => Err(missing("such path")),
        }
    }

    fn mount(&self, path: &Path) -> io::Result<FoundMount> {
        let found = self.mounts.get(path).cloned();
        found.ok_or_else(|| missing("such path"))
    }

    fn mount_users(&self, _: &[&Mount]) -> Vec<MountUser> {
        self.mount_users.clone()
    }

    fn takes_writes(&self, _: &MountIdentity) -> io::Result<bool> {
        Ok(self.takes_writes)
    }

    fn unit(&self, name: &str) -> Result<FoundUnit, NoServiceManager> {
        let mut units = self.units.as_ref().map_err(Clone::clone)?.iter();
        let is_named =
            |unit: &&FoundUnit| unit.name == name || unit.names.iter().any(|other| other == name);
        Ok(units.find(is_named).cloned().unwrap_or_else(|| FoundUnit {
            name: name.into(),
            load_state: "not-found".into(),
            active_state: "inactive".into(),
            sub_state: "dead".into(),
            ..FoundUnit::default()
        }))
    }

    fn check_file_events(&self, _: &FileTamper) -> io::Result<()> {
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<FoundFile> {
        let found = self.files.get(path).map(|(found, _)| found.clone());
        found.ok_or_else(|| missing("such file"))
    }

    fn file_bytes(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (_, content) = self.files.get(path).ok_or_else(|| missing("such file"))?;
        let bytes = content.iter().skip(usize::try_from(offset).unwrap());
        Ok(bytes.take(length).copied().collect())
    }

    fn max_file_bytes(&self) -> Option<u64> {
        self.max_file_bytes
    }

    fn check_listen(&self, address: SocketAddr) -> io::Result<()> {
        match self.taken.contains(&address) {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => Ok(()),
        }
    }

    fn socket_addresses(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host_and_port.parse() {
            return Ok(vec![address]);
        }
        let (host, port) = host_and_port
            .rsplit_once(':')
            .ok_or_else(|| missing("port"))?;
        let port = port.parse().map_err(io::Error::other)?;
        let found = self.names.get(host).ok_or_else(|| missing("such name"))?;
        Ok(found.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    fn own_namespace(&self) -> io::Result<Namespace> {
        self.namespace_at(Path::new("/proc/self/ns/net"))
    }

    fn namespace_at(&self, path: &Path) -> io::Result<Namespace> {
        let own = Namespace {
            path: path.to_owned(),
            inode: 1,
        };
        match path.starts_with("/proc") {
            true => Ok(own),
            false => Err(missing("such namespace")),
        }
    }

    fn viewpoint_in(&self, _: &Namespace) -> Option<Viewpoint> {
        None
    }

    fn viewpoint_of(&self, _: ProcessId) -> Option<Viewpoint> {
        None
    }

    fn etc_file(&self, _: Option<&Viewpoint>, name: &str) -> Option<String> {
        self.etc.get(name).map(|text| (*text).to_owned())
    }

    fn name_resolver(&self, _: Option<&Namespace>, _: Option<&Viewpoint>) -> NameResolver<'_> {
        Box::new(|name| {
            let found = self.names.get(name).cloned();
            found.ok_or_else(|| "no such name".to_owned())
        })
    }

    fn interfaces(&self, _: Option<&Namespace>) -> io::Result<Vec<Interface>> {
        Ok(self.interfaces.clone())
    }

    fn addresses(&self, _: Option<&Namespace>) -> io::Result<Vec<IpAddr>> {
        Ok(self.addresses.clone())
    }

    fn translates_addresses(&self, _: Option<&Namespace>) -> bool {
        self.translates
    }

    fn check_shaping(&self, _: &Shaping) -> io::Result<()> {
        match self.has_netem {
            true => Ok(()),
            false => Err(missing("netem")),
        }
    }

    fn check_filter(&self, _: &PacketFilter) -> io::Result<()> {
        match self.has_nftables {
            true => Ok(()),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn longest_packet(&self, _: &PacketFilter) -> io::Result<u64> {
        Ok(u64::from(self.mtu) + 22)
    }

    fn network_snapshot(&self, _: &PacketFilter, _: &[IpAddr]) -> io::Result<NetworkSnapshot> {
        Ok(self.snapshot.clone())
    }
}
