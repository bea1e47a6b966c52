//! What a plan may know of a host. Everything here reads; nothing changes the host, so a fault that is planned cannot leave anything
//! behind. The real host is [`LocalHost`](super::LocalHost); tests make one up.

use crate::changes::OriginalFile;
use crate::dns::Viewpoint;
use crate::helpers::{FileTamper, NotTraceable};
use crate::memory_limits::Memory;
use crate::metrics::MetricUnavailable;
use crate::mounts::{Mount, MountIdentity, MountUser};
use crate::netlink::{ForeignChain, Interface, ListeningSocket, Namespace};
use crate::packet_filter::{PacketFilter, Shaping};
use crate::processes::{Cgroup, Descriptors, ProcessId, ProcessTable, ThreadRoom};
use crate::systemd::{FoundUnit, NoServiceManager};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Finds the addresses of a name; where it has none, the error says why.
pub type NameResolver<'a> = Box<dyn Fn(&str) -> Result<Vec<IpAddr>, String> + 'a>;

/// A read-only view of a host.
pub trait HostView: fmt::Debug {
    /// The process table of the host.
    fn processes(&self) -> &ProcessTable;

    /// The effective user id that the agent runs as.
    fn user_id(&self) -> u32;

    /// What counts for faults that hit the host as a whole.
    ///
    /// # Errors
    /// The kernel does not tell which boot this is, or the processes cannot be listed.
    fn facts(&self) -> io::Result<HostFacts>;

    /// How far the time of day is ahead of the time since boot, in nanoseconds.
    ///
    /// # Errors
    /// The clocks make no sense.
    fn time_of_day_ahead(&self) -> io::Result<i64>;

    /// Whether a process could be frozen by tracing it, as far as that shows without trying.
    ///
    /// # Errors
    /// Why it could not.
    fn check_freezable(&self, process: ProcessId) -> Result<(), NotTraceable>;

    /// The descriptors that a process has open, with its limit of them; none where it has ended.
    ///
    /// # Errors
    /// They cannot be read, or the kernel would not let this agent change the limit.
    fn descriptors(&self, process: ProcessId) -> io::Result<Option<Descriptors>>;

    /// The tightest limit of the number of threads that the agent is under.
    ///
    /// # Errors
    /// The kernel does not show it.
    fn thread_room(&self) -> io::Result<ThreadRoom>;

    /// The control group of version 2 that a process is in; none where that is the root of all.
    ///
    /// # Errors
    /// Version 2 is not mounted, or the process or its group cannot be read.
    fn cgroup(&self, pid: i32) -> io::Result<Option<Cgroup>>;

    /// The ids of the processes in a control group and in those below it; 0 for each that is in another process namespace.
    ///
    /// # Errors
    /// The group cannot be read.
    fn cgroup_members(&self, cgroup: &Cgroup) -> io::Result<Vec<i32>>;

    /// The host's memory, within the limits of the agent's control groups.
    ///
    /// # Errors
    /// The kernel does not show it.
    fn memory(&self) -> Result<Memory, MetricUnavailable>;

    /// The number of processors that the agent may run on.
    fn processors(&self) -> usize;

    /// The file system that a path lies on.
    ///
    /// # Errors
    /// There is no such path, or it cannot be read.
    fn file_system(&self, path: &Path) -> io::Result<FileSystem>;

    /// The absolute path without links of a regular file or a folder.
    ///
    /// # Errors
    /// There is no such path, or it leads to something else.
    fn real_path(&self, path: &Path) -> io::Result<PathBuf>;

    /// The mount that a path lies on, in the mount namespace of the agent. Links are followed.
    ///
    /// # Errors
    /// There is no such path, or the kernel does not tell.
    fn mount(&self, path: &Path) -> io::Result<FoundMount>;

    /// The processes that have files of these mounts open, or are Backburn's own and work or run from there.
    fn mount_users(&self, mounts: &[&Mount]) -> Vec<MountUser>;

    /// Whether the file system of a mount takes writes, which is tried without writing.
    ///
    /// # Errors
    /// It is gone, or that did not show in time.
    fn takes_writes(&self, mount: &MountIdentity) -> io::Result<bool>;

    /// A unit of systemd's, by one of its names. One that does not exist is found as not loaded.
    ///
    /// # Errors
    /// systemd does not run here, or does not answer.
    fn unit(&self, name: &str) -> Result<FoundUnit, NoServiceManager>;

    /// Asks the kernel whether it would let the agent decide about these operations on files.
    ///
    /// # Errors
    /// It would not: what the kernel said.
    fn check_file_events(&self, tamper: &FileTamper) -> io::Result<()>;

    /// The regular file that a path leads to. Links are followed.
    ///
    /// # Errors
    /// There is no such file, it is not a regular one, or it cannot be read.
    fn file(&self, path: &Path) -> io::Result<FoundFile>;

    /// Bytes of a regular file, as many as there are of this length from this offset. The path must be without links.
    ///
    /// # Errors
    /// The file cannot be read.
    fn file_bytes(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// The size in bytes of the largest file that the agent may write (`RLIMIT_FSIZE`); none where there is no limit.
    fn max_file_bytes(&self) -> Option<u64>;

    /// Whether a TCP socket could be bound to this address.
    ///
    /// # Errors
    /// What the kernel said.
    fn check_listen(&self, address: SocketAddr) -> io::Result<()>;

    /// The addresses of `host:port`, in the order in which they are tried, as this host finds them.
    ///
    /// # Errors
    /// The host has no address, or it could not be looked up.
    fn socket_addresses(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>>;

    /// The network namespace that the agent is in.
    ///
    /// # Errors
    /// It cannot be read.
    fn own_namespace(&self) -> io::Result<Namespace>;

    /// The network namespace that a path stands for.
    ///
    /// # Errors
    /// There is no such path, or it stands for something else.
    fn namespace_at(&self, path: &Path) -> io::Result<Namespace>;

    /// Whose files tell how names are found in a network namespace; none where nobody is known to be in it.
    fn viewpoint_in(&self, namespace: &Namespace) -> Option<Viewpoint>;

    /// Whose files tell how a process finds names; none where it sees those of the agent.
    fn viewpoint_of(&self, process: ProcessId) -> Option<Viewpoint>;

    /// A file of `/etc`, e.g. `resolv.conf`, as seen from a viewpoint, or by the agent; none where it cannot be read.
    fn etc_file(&self, viewpoint: Option<&Viewpoint>, name: &str) -> Option<String>;

    /// Finds addresses as seen from a viewpoint and asked from a network namespace; from the agent's own where none is given. All
    /// names together have a few seconds.
    fn name_resolver(
        &self,
        namespace: Option<&Namespace>,
        viewpoint: Option<&Viewpoint>,
    ) -> NameResolver<'_>;

    /// The interfaces of a network namespace.
    ///
    /// # Errors
    /// It is gone, cannot be entered, or the kernel refused.
    fn interfaces(&self, namespace: Option<&Namespace>) -> io::Result<Vec<Interface>>;

    /// The addresses of a network namespace, but for the loopback's; empty where it is gone.
    ///
    /// # Errors
    /// It cannot be entered, or the kernel refused.
    fn addresses(&self, namespace: Option<&Namespace>) -> io::Result<Vec<IpAddr>>;

    /// Whether addresses are translated (NAT) in a network namespace; false where that cannot be read.
    fn translates_addresses(&self, namespace: Option<&Namespace>) -> bool;

    /// Asks the kernel whether it can shape packets like this.
    ///
    /// # Errors
    /// It cannot: what the kernel said.
    fn check_shaping(&self, shape: &Shaping) -> io::Result<()>;

    /// Asks the kernel whether it would take the rules of a packet filter.
    ///
    /// # Errors
    /// It would not: what the kernel said.
    fn check_filter(&self, filter: &PacketFilter) -> io::Result<()>;

    /// The longest packet, in bytes with its header, that the devices of a packet filter take.
    ///
    /// # Errors
    /// The devices cannot be listed.
    fn longest_packet(&self, filter: &PacketFilter) -> io::Result<u64>;

    /// What the namespace of a packet filter looks like before the filter is there; an empty one where the namespace is gone.
    /// `destinations` are the single addresses that the flows go to.
    ///
    /// # Errors
    /// It cannot be entered; or connections are to be closed, and the kernel would not do it or does not list them.
    fn network_snapshot(
        &self,
        filter: &PacketFilter,
        destinations: &[IpAddr],
    ) -> io::Result<NetworkSnapshot>;
}

/// What counts for faults that hit the host as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The id of the present boot.
    pub boot: String,
    /// Whether the agent is in the machine's first pid namespace, and so not in a container.
    pub is_first_pid_namespace: bool,
    /// Whether the kernel lets the agent restart the host (CAP_SYS_BOOT).
    pub may_restart: bool,
    /// Whether the kernel lets the agent set the clock (CAP_SYS_TIME).
    pub may_set_clock: bool,
    /// The controllers and runs of Backburn on this host, for people.
    pub controllers: Vec<String>,
}

/// A regular file as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Its absolute path without links.
    pub path: PathBuf,
    /// What `stat` tells of the file.
    pub file: OriginalFile,
    /// How many names it has; others than this one go on showing the original where the file is replaced.
    pub links: u64,
}

/// A mount as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMount {
    /// The path that was asked for, absolute and without links.
    pub path: PathBuf,
    /// The mount itself.
    pub mount: Mount,
    /// What tells it from any other.
    pub identity: MountIdentity,
    /// All mounts of the same file system, itself included.
    pub same_file_system: Vec<Mount>,
    /// Where other mounts lie below it.
    pub below: Vec<PathBuf>,
    /// The number of the agent's mount namespace.
    pub namespace: u64,
    /// How many processes are in other mount namespaces, as far as the agent may see that.
    pub processes_elsewhere: usize,
    /// Whether the agent has the capability that the kernel requires for mounts (CAP_SYS_ADMIN).
    pub is_permitted: bool,
}

/// A file system, and what a path on it is. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// The device number of the file system.
    pub device: u64,
    /// The size of the whole file system.
    pub size: u64,
    /// What is in use.
    pub used: u64,
    /// What users other than root may still take.
    pub available: u64,
    /// Whether the path is a folder.
    pub is_folder: bool,
}

/// What a network namespace looks like before packets are harmed in it. What could not be read is as if there were nothing of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetworkSnapshot {
    /// How many live TCP connections the fault would close; 0 where it closes none.
    pub live_connections: usize,
    /// The interfaces; read only where the fault names one.
    pub interfaces: Vec<Interface>,
    /// The tables of legacy iptables, each with the kind (`iptables` or `ip6tables`).
    pub legacy_tables: Vec<(&'static str, Vec<String>)>,
    /// The chains of others that drop or reject packets.
    pub refusing_chains: Vec<ForeignChain>,
    /// Whether an interface other than the loopback has an address of IPv6.
    pub has_ipv6: bool,
    /// Whether IPVS forwards to other addresses.
    pub has_ipvs: bool,
    /// Those of the destinations that no route leads to.
    pub unreachable: Vec<IpAddr>,
    /// Those of the destinations that are addresses of the namespace itself.
    pub own_destinations: Vec<IpAddr>,
    /// The sockets that listen; read only where there are destinations of the namespace itself.
    pub listening: Vec<ListeningSocket>,
}
