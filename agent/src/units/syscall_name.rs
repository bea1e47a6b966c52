//! Names of system calls and of errors, with their numbers on this kind of machine.

use nix::errno::Errno;
use nix::libc;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Cow;

/// Makes the list of the system calls of one kind of machine.
macro_rules! calls {
    ($($name:ident = $number:ident,)+) => {
        &[$((stringify!($name), libc::$number),)+]
    };
}

/// The system calls that can be made to fail or to wait. Those that a process ends, starts others or returns from signals by are not
/// among them. Empty on machines of whose calls the agent knows nothing.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
pub const SYSCALLS: &[(&str, i64)] = calls! {
    accept = SYS_accept, accept4 = SYS_accept4, access = SYS_access, bind = SYS_bind, chmod = SYS_chmod, chown = SYS_chown,
    clock_nanosleep = SYS_clock_nanosleep, close = SYS_close, connect = SYS_connect, creat = SYS_creat, dup = SYS_dup,
    epoll_ctl = SYS_epoll_ctl, epoll_pwait = SYS_epoll_pwait, epoll_wait = SYS_epoll_wait, fallocate = SYS_fallocate,
    fdatasync = SYS_fdatasync, flock = SYS_flock, fstat = SYS_fstat, fsync = SYS_fsync, ftruncate = SYS_ftruncate,
    getdents64 = SYS_getdents64, getrandom = SYS_getrandom, io_submit = SYS_io_submit, io_uring_enter = SYS_io_uring_enter,
    ioctl = SYS_ioctl, link = SYS_link, linkat = SYS_linkat, listen = SYS_listen, lseek = SYS_lseek, lstat = SYS_lstat,
    madvise = SYS_madvise, mkdir = SYS_mkdir, mkdirat = SYS_mkdirat, mmap = SYS_mmap, mprotect = SYS_mprotect, mremap = SYS_mremap,
    msync = SYS_msync, munmap = SYS_munmap, nanosleep = SYS_nanosleep, newfstatat = SYS_newfstatat, open = SYS_open,
    openat = SYS_openat, openat2 = SYS_openat2, pipe2 = SYS_pipe2, poll = SYS_poll, ppoll = SYS_ppoll, pread64 = SYS_pread64,
    preadv = SYS_preadv, pselect6 = SYS_pselect6, pwrite64 = SYS_pwrite64, pwritev = SYS_pwritev, read = SYS_read,
    readlink = SYS_readlink, readv = SYS_readv, recvfrom = SYS_recvfrom, recvmmsg = SYS_recvmmsg, recvmsg = SYS_recvmsg,
    rename = SYS_rename, renameat = SYS_renameat, renameat2 = SYS_renameat2, rmdir = SYS_rmdir, select = SYS_select,
    sendfile = SYS_sendfile, sendmmsg = SYS_sendmmsg, sendmsg = SYS_sendmsg, sendto = SYS_sendto, setsockopt = SYS_setsockopt,
    shutdown = SYS_shutdown, socket = SYS_socket, splice = SYS_splice, stat = SYS_stat, statfs = SYS_statfs, statx = SYS_statx,
    symlink = SYS_symlink, sync = SYS_sync, sync_file_range = SYS_sync_file_range, syncfs = SYS_syncfs, truncate = SYS_truncate,
    unlink = SYS_unlink, unlinkat = SYS_unlinkat, write = SYS_write, writev = SYS_writev,
};

/// None on other machines: of their calls the agent knows nothing.
#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
pub const SYSCALLS: &[(&str, i64)] = &[];

/// The errors that a system call can be made to give.
pub const ERRORS: &[(&str, Errno)] = &[
    ("EACCES", Errno::EACCES),
    ("EADDRINUSE", Errno::EADDRINUSE),
    ("EADDRNOTAVAIL", Errno::EADDRNOTAVAIL),
    ("EAGAIN", Errno::EAGAIN),
    ("EBADF", Errno::EBADF),
    ("EBUSY", Errno::EBUSY),
    ("ECONNABORTED", Errno::ECONNABORTED),
    ("ECONNREFUSED", Errno::ECONNREFUSED),
    ("ECONNRESET", Errno::ECONNRESET),
    ("EDQUOT", Errno::EDQUOT),
    ("EEXIST", Errno::EEXIST),
    ("EFBIG", Errno::EFBIG),
    ("EHOSTUNREACH", Errno::EHOSTUNREACH),
    ("EINTR", Errno::EINTR),
    ("EINVAL", Errno::EINVAL),
    ("EIO", Errno::EIO),
    ("EISDIR", Errno::EISDIR),
    ("EMFILE", Errno::EMFILE),
    ("ENETUNREACH", Errno::ENETUNREACH),
    ("ENFILE", Errno::ENFILE),
    ("ENOBUFS", Errno::ENOBUFS),
    ("ENOENT", Errno::ENOENT),
    ("ENOMEM", Errno::ENOMEM),
    ("ENOSPC", Errno::ENOSPC),
    ("ENOSYS", Errno::ENOSYS),
    ("ENOTCONN", Errno::ENOTCONN),
    ("EPERM", Errno::EPERM),
    ("EPIPE", Errno::EPIPE),
    ("EROFS", Errno::EROFS),
    ("ESTALE", Errno::ESTALE),
    ("ETIMEDOUT", Errno::ETIMEDOUT),
];

/// A system call by its name, such as `fsync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SyscallName(String);

impl SyscallName {
    /// The name of the call.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// A call of the list by its name; none where there is no such call.
    pub fn of(name: &str) -> Option<Self> {
        let known = SYSCALLS.iter().any(|(known, _)| *known == name);
        known.then(|| SyscallName(name.to_owned()))
    }

    /// The call's number; none on machines of whose calls the agent knows nothing.
    pub fn number(&self) -> Option<i64> {
        let found = SYSCALLS.iter().find(|(name, _)| *name == self.0);
        found.map(|(_, number)| *number)
    }
}

impl<'de> Deserialize<'de> for SyscallName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match SYSCALLS.is_empty() {
            true => Ok(SyscallName(name)),
            false => SyscallName::of(&name)
                .ok_or_else(|| de::Error::custom(format!("`{name}` is not a known system call"))),
        }
    }
}

impl JsonSchema for SyscallName {
    fn schema_name() -> Cow<'static, str> {
        "SyscallName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = SYSCALLS.iter().map(|(name, _)| *name).collect();
        json_schema!({"title": "system call", "type": "string", "enum": names})
    }
}

/// An error of the kernel by its name, such as `EIO`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorName(String);

impl ErrorName {
    /// The name of the error.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The number of the error.
    pub fn number(&self) -> i32 {
        let found = ERRORS.iter().find(|(name, _)| *name == self.0);
        found.map_or(Errno::EIO as i32, |(_, errno)| *errno as i32)
    }
}

impl<'de> Deserialize<'de> for ErrorName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match ERRORS.iter().any(|(known, _)| *known == name) {
            true => Ok(ErrorName(name)),
            false => Err(de::Error::custom(format!("`{name}` is not a known error"))),
        }
    }
}

impl JsonSchema for ErrorName {
    fn schema_name() -> Cow<'static, str> {
        "ErrorName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = ERRORS.iter().map(|(name, _)| *name).collect();
        json_schema!({"title": "error", "type": "string", "enum": names})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_sorted_and_read_back() {
        assert!(SYSCALLS.is_sorted_by_key(|(name, _)| *name));
        assert!(ERRORS.is_sorted_by_key(|(name, _)| *name));
        let error: ErrorName = serde_json::from_value("ENOSPC".into()).expect("it is known");
        assert_eq!(error.number(), 28);
        assert!(serde_json::from_value::<ErrorName>("EWHAT".into()).is_err());
        #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
        {
            let call: SyscallName = serde_json::from_value("fsync".into()).expect("it is known");
            assert_eq!(call.number(), Some(74));
            assert!(serde_json::from_value::<SyscallName>("exit_group".into()).is_err());
        }
    }
}
