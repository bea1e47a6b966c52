//! Which boot of the machine this is: process ids and all that the kernel kept are valid in one boot only.

use std::io;

/// The id of this boot (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// The file cannot be read, so a restart of the machine could not be noticed.
pub fn boot_id() -> io::Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let said = std::fs::read_to_string(PATH);
    let id = said.map_err(|error| io::Error::new(error.kind(), format!("{PATH}: {error}")))?;
    match id.trim() {
        "" => Err(io::Error::other(format!("{PATH} is empty"))),
        id => Ok(id.to_owned()),
    }
}

/// The inode number of the machine's first pid namespace, in which every process has an id (`PROC_PID_INIT_INO` in the kernel's
/// `include/linux/proc_ns.h`).
pub const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether this process is in the machine's first pid namespace, and so not in a container. False where that cannot be read.
pub fn is_first_pid_namespace() -> bool {
    rustix::fs::stat("/proc/self/ns/pid").is_ok_and(|file| file.st_ino == FIRST_PID_NAMESPACE)
}
