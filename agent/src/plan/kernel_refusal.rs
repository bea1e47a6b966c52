//! What the kernel refuses, as a refusal for people.

use crate::netlink::errno;
use backburn_experiments::wire::Refusal;
use rustix::io::Errno;
use std::io;

/// What the kernel said when it was asked about packets or namespaces, with what to do about it.
pub(crate) fn kernel_refusal(error: &io::Error) -> Refusal {
    match errno(error) {
        Some(Errno::PERM) => Refusal::new("not-permitted", error.to_string())
            .hint("run as root, or with CAP_NET_ADMIN"),
        _ if error.kind() == io::ErrorKind::PermissionDenied => Refusal::new(
            "not-permitted",
            format!("the network namespace can't be entered: {error}"),
        )
        .hint("run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN"),
        _ => Refusal::new("failed", error.to_string())
            .hint("`backburn-agent doctor` tells what this kernel has"),
    }
}
