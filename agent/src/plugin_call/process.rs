//! The door through which the pinned copy of a plug-in is started: in a process namespace of its own, tied to the thread that started
//! it, with an empty environment and no more capabilities than it was granted.

#![allow(
    clippy::disallowed_methods,
    reason = "the door to pinned plug-ins, which the host's own door cannot be: helpers use it, and the door uses helpers"
)]

use rustix::process::Signal;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a plug-in's process may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The capabilities that it keeps, a bit for each (`linux/capability.h`).
    pub capabilities: u64,
    /// Whether every mount is read-only for it, and its network empty.
    pub is_sealed: bool,
    /// Longest file that it may write, in bytes; none where there is no limit.
    pub max_file_bytes: Option<u64>,
    /// Whether it waits, as stopped by a tracer, before its first instruction.
    pub is_traced: bool,
}

/// Highest number of a capability that is dropped. The kernel answers with an error beyond its own last one, which is ignored.
const LAST_CAPABILITY: u64 = 63;

/// Starts a plug-in whose standard input is `input`. Its process is the first of a new process namespace: when it ends, the kernel kills
/// all that it has started. The kernel kills it when the calling thread ends.
///
/// The calling thread is given over to this: all that it starts later is in the same namespace, so use a thread for each call.
///
/// # Errors
/// The kernel refused a namespace or the restrictions, or the program could not be started.
#[allow(unsafe_code)]
pub fn spawn_plugin(program: &Path, input: OwnedFd, confinement: Confinement) -> io::Result<Child> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID)?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec only system calls are made, which are safe after a signal (signal-safety(7)); nothing is
    // allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || confine(confinement));
    }
    backburn_programs::without_shell(&mut command, None)?;
    command
        .spawn()
        .map_err(|error| backburn_programs::explain(error, program))
}

/// Kills a plug-in by its descriptor, and so all that it has started. One that has ended is dead already.
///
/// # Errors
/// The kernel refused.
pub fn kill_plugin(plugin: impl AsFd) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(plugin, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Restricts this process, between fork and exec.
#[allow(unsafe_code)]
fn confine(confinement: Confinement) -> io::Result<()> {
    use nix::libc;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent holds the other end of standard output: an error there shows that it died before the line above. Its process id
    // does not show in this namespace.
    let mut output = libc::pollfd {
        fd: 1,
        events: 0,
        revents: 0,
    };
    // SAFETY: `output` is one valid `pollfd`.
    if unsafe { libc::poll(&raw mut output, 1, 0) } != 0 {
        return Err(io::Error::from_raw_os_error(libc::EPIPE));
    }
    rustix::process::setsid()?;
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    limit(libc::RLIMIT_CORE, 0)?;
    if let Some(bytes) = confinement.max_file_bytes {
        limit(libc::RLIMIT_FSIZE, bytes)?;
    }
    // SAFETY: a system call with numbers; the descriptors are only closed at exec.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    check(closed)?;
    if confinement.is_sealed {
        seal()?;
    }
    drop_capabilities(confinement.capabilities)?;
    if confinement.is_traced {
        // SAFETY: asks to be traced by the parent; no memory is involved.
        check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
    }
    Ok(())
}

/// Closes at exec what it names (`linux/close_range.h`).
const CLOSE_RANGE_CLOEXEC: u32 = 4;

fn check(result: nix::libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(unsafe_code)]
fn limit(resource: nix::libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = nix::libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: `limit` is one valid `rlimit`.
    check(unsafe { nix::libc::setrlimit(resource, &raw const limit) }.into())
}

/// Gives this process mounts that are all read-only, and an empty network. The mounts of others stay as they are.
#[allow(unsafe_code)]
fn seal() -> io::Result<()> {
    use nix::libc;
    // `struct mount_attr` of `linux/mount.h`: what is set, what is cleared, the propagation and a user namespace.
    let read_only: [u64; 4] = [libc::MOUNT_ATTR_RDONLY, 0, libc::MS_PRIVATE, 0];
    // SAFETY: the path is a C string, and `read_only` a `mount_attr` of the size that is given.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC).into())?;
        check(libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            read_only.as_ptr(),
            size_of_val(&read_only),
        ))
    }
}

/// Drops every capability but these, for good: also a program with set-user-id bits has no others.
#[allow(unsafe_code)]
fn drop_capabilities(kept: u64) -> io::Result<()> {
    use nix::libc;
    for capability in 0..=LAST_CAPABILITY {
        if kept & (1 << capability) == 0 {
            // SAFETY: numbers only. Beyond the kernel's last capability it fails, and there is nothing to drop.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
    }
    // `_LINUX_CAPABILITY_VERSION_3`: a header with the version and the process (this one), and two halves of three sets each.
    let header: [u32; 2] = [0x2008_0522, 0];
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: both arrays have the layout and the length that version 3 of capset(2) asks for.
    unsafe {
        check(libc::syscall(
            libc::SYS_capset,
            header.as_ptr(),
            sets.as_ptr(),
        ))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())
    }
}
