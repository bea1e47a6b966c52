//! The host that the agent runs on, for reading.

use super::host_view::{
    FileSystem, FoundFile, FoundMount, HostFacts, HostView, NameResolver, NetworkSnapshot,
};
use crate::capabilities::{CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_TIME, has_capability};
use crate::changes::{self, OriginalFile};
use crate::dns::{Resolver, Viewpoint, read_own};
use crate::helpers::{self, FileTamper, NotTraceable};
use crate::host::OpenFolder;
use crate::memory_limits::{Memory, MemoryLimits};
use crate::metrics::MetricUnavailable;
use crate::mounts::{
    Mount, MountIdentity, MountUser, OpenFileSystem, OpenMount, mount_users, mounts,
};
use crate::netlink::{self, Interface, Namespace};
use crate::packet_filter::{PacketFilter, Shaping};
use crate::processes::{Cgroup, Descriptors, ProcessId, ProcessTable, ThreadRoom};
use crate::systemd::{FoundUnit, NoServiceManager, ServiceManager};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::{Path, PathBuf};

/// The host that the agent runs on.
#[derive(Debug, Default)]
pub struct LocalHost {
    table: ProcessTable,
}

impl HostView for LocalHost {
    fn processes(&self) -> &ProcessTable {
        &self.table
    }

    fn user_id(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn facts(&self) -> io::Result<HostFacts> {
        Ok(HostFacts {
            boot: crate::boot::boot_id()?,
            is_first_pid_namespace: crate::boot::is_first_pid_namespace(),
            may_restart: has_capability(CAP_SYS_BOOT),
            may_set_clock: has_capability(CAP_SYS_TIME),
            controllers: self.table.controllers()?,
        })
    }

    fn time_of_day_ahead(&self) -> io::Result<i64> {
        crate::host::time_of_day_ahead()
    }

    fn check_freezable(&self, process: ProcessId) -> Result<(), NotTraceable> {
        helpers::check_traceable(&self.table, process)
    }

    fn descriptors(&self, process: ProcessId) -> io::Result<Option<Descriptors>> {
        changes::check_limitable(&self.table, process)?;
        self.table.descriptors(process)
    }

    fn thread_room(&self) -> io::Result<ThreadRoom> {
        self.table.thread_room()
    }

    fn cgroup(&self, pid: i32) -> io::Result<Option<Cgroup>> {
        Cgroup::of(&self.table, pid)
    }

    fn cgroup_members(&self, cgroup: &Cgroup) -> io::Result<Vec<i32>> {
        cgroup.members()
    }

    fn memory(&self) -> Result<Memory, MetricUnavailable> {
        MemoryLimits::of_this_process().usable()
    }

    fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        let system = rustix::fs::statvfs(path)?;
        let file = rustix::fs::stat(path)?;
        Ok(FileSystem {
            device: file.st_dev,
            size: system.f_blocks.saturating_mul(system.f_frsize),
            used: (system.f_blocks.saturating_sub(system.f_bfree)).saturating_mul(system.f_frsize),
            available: system.f_bavail.saturating_mul(system.f_frsize),
            is_folder: rustix::fs::FileType::from_raw_mode(file.st_mode).is_dir(),
        })
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        let path = path.canonicalize()?;
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::stat(&path)?.st_mode);
        match kind.is_file() || kind.is_dir() {
            true => Ok(path),
            false => Err(io::Error::other(
                "it is neither a regular file nor a folder",
            )),
        }
    }

    fn mount(&self, path: &Path) -> io::Result<FoundMount> {
        let path = path.canonicalize()?;
        let mount = OpenMount::at(&path)?.mount()?;
        let own = self.table.metadata(std::process::id() as i32, "ns/mnt")?;
        let is_elsewhere = |pid: &i32| {
            // Among the kernel's threads is one with a namespace of its own, on every host.
            let namespace = self.table.metadata(*pid, "ns/mnt");
            namespace.is_ok_and(|namespace| namespace.st_ino != own.st_ino)
                && self
                    .table
                    .stat(*pid)
                    .is_some_and(|stat| !stat.is_kernel_thread())
        };
        let all = mounts()?;
        let same_file_system = all.iter().filter(|other| other.device == mount.device);
        let below = all
            .iter()
            .filter(|other| other.number != mount.number && other.path.starts_with(&mount.path));
        Ok(FoundMount {
            identity: mount.identity()?,
            same_file_system: same_file_system.cloned().collect(),
            below: below.map(|below| below.path.clone()).collect(),
            namespace: own.st_ino,
            processes_elsewhere: self
                .table
                .pids()?
                .iter()
                .filter(|pid| is_elsewhere(pid))
                .count(),
            is_permitted: has_capability(CAP_SYS_ADMIN),
            path,
            mount,
        })
    }

    fn mount_users(&self, mounts: &[&Mount]) -> Vec<MountUser> {
        mount_users(&self.table, mounts)
    }

    fn takes_writes(&self, mount: &MountIdentity) -> io::Result<bool> {
        let system = OpenFileSystem::of(mount)?;
        system.map_or(Ok(false), |system| system.takes_writes())
    }

    fn unit(&self, name: &str) -> Result<FoundUnit, NoServiceManager> {
        let found = ServiceManager::connect()?.unit_with_processes(name);
        found.map_err(|error| NoServiceManager::Failed(error.to_string()))
    }

    fn check_file_events(&self, tamper: &FileTamper) -> io::Result<()> {
        tamper.check()
    }

    fn file(&self, path: &Path) -> io::Result<FoundFile> {
        let path = path.canonicalize()?;
        let found = rustix::fs::stat(&path)?;
        match OriginalFile::of(&found) {
            Some(file) => Ok(FoundFile {
                path,
                file,
                links: found.st_nlink as u64,
            }),
            None => Err(io::Error::other("it is not a regular file")),
        }
    }

    fn file_bytes(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        use io::{Read as _, Seek as _};
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = OpenFolder::of(path)?.open(Path::new(name))?;
        if OriginalFile::of(&rustix::fs::fstat(&file)?).is_none() {
            return Err(io::Error::other("it is not a regular file"));
        }
        file.seek(io::SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn max_file_bytes(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Fsize).current
    }

    fn check_listen(&self, address: SocketAddr) -> io::Result<()> {
        helpers::bound(address).map(drop)
    }

    fn socket_addresses(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(host_and_port.to_socket_addrs()?.collect())
    }

    fn own_namespace(&self) -> io::Result<Namespace> {
        Namespace::own()
    }

    fn namespace_at(&self, path: &Path) -> io::Result<Namespace> {
        Namespace::at(path)
    }

    fn viewpoint_in(&self, namespace: &Namespace) -> Option<Viewpoint> {
        Viewpoint::of(namespace, &self.table)
    }

    fn viewpoint_of(&self, process: ProcessId) -> Option<Viewpoint> {
        Viewpoint::of_process(process)
    }

    fn etc_file(&self, viewpoint: Option<&Viewpoint>, name: &str) -> Option<String> {
        match viewpoint {
            None => read_own(name),
            Some(viewpoint) => viewpoint.read(name, &self.table),
        }
    }

    fn name_resolver(
        &self,
        namespace: Option<&Namespace>,
        viewpoint: Option<&Viewpoint>,
    ) -> NameResolver<'_> {
        let resolver = Resolver::new(namespace, viewpoint, &self.table);
        Box::new(move |name| resolver.addresses(name))
    }

    fn interfaces(&self, namespace: Option<&Namespace>) -> io::Result<Vec<Interface>> {
        netlink::within(namespace, netlink::interfaces)?
            .ok_or_else(|| io::Error::other("the namespace is gone"))
    }

    fn addresses(&self, namespace: Option<&Namespace>) -> io::Result<Vec<IpAddr>> {
        Ok(netlink::within(namespace, netlink::addresses)?.unwrap_or_default())
    }

    fn translates_addresses(&self, namespace: Option<&Namespace>) -> bool {
        matches!(netlink::within(namespace, netlink::has_nat), Ok(Some(true)))
    }

    fn check_shaping(&self, shape: &Shaping) -> io::Result<()> {
        shape.try_on_kernel()
    }

    fn check_filter(&self, filter: &PacketFilter) -> io::Result<()> {
        filter.check()
    }

    fn longest_packet(&self, filter: &PacketFilter) -> io::Result<u64> {
        filter.longest_packet()
    }

    fn network_snapshot(
        &self,
        filter: &PacketFilter,
        destinations: &[IpAddr],
    ) -> io::Result<NetworkSnapshot> {
        let read = || snapshot(filter, destinations);
        Ok(netlink::within(filter.namespace.as_ref(), read)?.unwrap_or_default())
    }
}

/// What the namespace that the thread is in looks like.
fn snapshot(filter: &PacketFilter, destinations: &[IpAddr]) -> io::Result<NetworkSnapshot> {
    let live_connections = match filter.closes_established() {
        true => {
            netlink::closes_connections()?;
            filter.established()?.len()
        }
        false => 0,
    };
    let interfaces = match filter.flows.interface {
        Some(_) => netlink::interfaces().unwrap_or_default(),
        None => Vec::new(),
    };
    let own = |address: &&IpAddr| netlink::is_own_address(**address);
    let own_destinations: Vec<IpAddr> = destinations.iter().filter(own).copied().collect();
    let listening = match own_destinations.is_empty() {
        true => Vec::new(),
        false => netlink::listening().unwrap_or_default(),
    };
    // `/proc/net` would be the first thread's.
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
    };
    let tables = |file: &str| read(file).split_whitespace().map(str::to_owned).collect();
    Ok(NetworkSnapshot {
        live_connections,
        interfaces,
        legacy_tables: vec![
            ("iptables", tables("ip_tables_names")),
            ("ip6tables", tables("ip6_tables_names")),
        ],
        refusing_chains: netlink::refusing_chains().unwrap_or_default(),
        has_ipv6: !read("if_inet6").lines().all(|line| line.ends_with(" lo")),
        // Services come after three lines of headings.
        has_ipvs: read("ip_vs").lines().count() > 3,
        unreachable: destinations
            .iter()
            .filter(|address| is_unreachable(**address))
            .copied()
            .collect(),
        own_destinations,
        listening,
    })
}

/// Whether no route leads to an address. The kernel looks for one when a UDP socket is connected, and sends nothing.
fn is_unreachable(address: IpAddr) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    let any = match address {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    UdpSocket::bind(SocketAddr::new(any, 0))
        .and_then(|socket| socket.connect(SocketAddr::new(address, 9)))
        .is_err_and(|error| {
            matches!(
                error.kind(),
                AddrNotAvailable | HostUnreachable | NetworkUnreachable
            )
        })
}
