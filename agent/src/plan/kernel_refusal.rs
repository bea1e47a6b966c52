//! What the kernel refuses, as a refusal for people.

use crate::netlink::errno;
use backburn_experiments::wire::Refusal;
use rustix::io::Errno;
use std::io;

/// How to give the agent what network faults require. Tried with setpriv(1) of util-linux.
const NETWORK_PRIVILEGES: &str = "run it with `sudo`, or with that capability only: `sudo setpriv --reuid=$(id -u) --regid=$(id -g) --init-groups --inh-caps=+net_admin --ambient-caps=+net_admin backburn …`; for a systemd unit, `AmbientCapabilities=CAP_NET_ADMIN`";

/// What the kernel said when it was asked about packets or namespaces, with what to do about it.
pub(crate) fn kernel_refusal(error: &io::Error) -> Refusal {
    match errno(error) {
        Some(Errno::PERM) => Refusal::new(
            "not-permitted",
            format!(
                "network faults require root or CAP_NET_ADMIN, and this agent has neither: {error}"
            ),
        )
        .hint(NETWORK_PRIVILEGES),
        _ if error.kind() == io::ErrorKind::PermissionDenied => Refusal::new(
            "not-permitted",
            format!("the network namespace can't be entered: {error}"),
        )
        .hint("run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN"),
        _ => Refusal::new("failed", error.to_string())
            .hint("`backburn-agent doctor` tells what this kernel has"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::NetlinkError;

    #[test]
    fn kernel_refusal_without_privileges_says_how_to_get_them() {
        let error = NetlinkError {
            errno: Errno::PERM,
            what: "could not commit".into(),
        };
        let refusal = kernel_refusal(&io::Error::other(error));
        assert_eq!(refusal.rule, "not-permitted");
        let hint = refusal.hint.unwrap_or_default();
        assert!(
            refusal.what.contains("require root or CAP_NET_ADMIN"),
            "{}",
            refusal.what
        );
        for way in ["`sudo`", "--ambient-caps=+net_admin", "AmbientCapabilities"] {
            assert!(hint.contains(way), "{hint}");
        }
    }
}
