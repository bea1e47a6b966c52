//! The names of capabilities (capabilities(7)) that a plug-in may ask for and a policy may grant.

/// The names in the order of their numbers, without `CAP_`, as in `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bits of these capabilities, named as `CAP_KILL`.
///
/// # Errors
/// A name that is not a capability's.
pub(crate) fn capability_bits<'a>(
    names: impl IntoIterator<Item = &'a String>,
) -> Result<u64, String> {
    names.into_iter().try_fold(0, |bits, name| {
        let plain = name.strip_prefix("CAP_");
        let number = NAMES.iter().position(|known| Some(*known) == plain);
        let number = number.ok_or_else(|| {
            format!("`{name}` is not a capability; they are named as in capabilities(7), e.g. `CAP_KILL`")
        })?;
        Ok(bits | 1 << number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_names_have_the_numbers_of_the_kernel() {
        let bits = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            capability_bits(&names)
        };
        assert_eq!(bits(&[]), Ok(0));
        assert_eq!(bits(&["CAP_CHOWN", "CAP_KILL"]), Ok(1 | 1 << 5));
        assert_eq!(bits(&["CAP_CHECKPOINT_RESTORE"]), Ok(1 << 40));
        for wrong in ["KILL", "CAP_", "cap_kill", "CAP_ALL"] {
            assert!(bits(&[wrong]).is_err(), "{wrong}");
        }
    }
}
