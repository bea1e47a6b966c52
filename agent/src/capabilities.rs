//! The rights that the kernel asks for, and which of them this process has (capabilities(7)). Numbers are those of the kernel's
//! `include/uapi/linux/capability.h`.

/// To send signals to the processes of others.
pub(crate) const CAP_KILL: u32 = 5;
/// To alter the network.
pub(crate) const CAP_NET_ADMIN: u32 = 12;
/// To trace, and look into, the processes of others.
pub(crate) const CAP_SYS_PTRACE: u32 = 19;
/// To alter mounts and file systems, among much else.
pub(crate) const CAP_SYS_ADMIN: u32 = 21;
/// To restart the machine, and to switch it off.
pub(crate) const CAP_SYS_BOOT: u32 = 22;
/// To raise the limits of any process.
pub(crate) const CAP_SYS_RESOURCE: u32 = 24;

/// To set the clock of the host.
pub(crate) const CAP_SYS_TIME: u32 = 25;

/// Whether this process has a capability in effect.
pub(crate) fn has_capability(capability: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> capability & 1 == 1)
}
