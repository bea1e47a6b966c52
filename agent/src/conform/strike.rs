//! Killing a plug-in at a system call: it has no door of the agent's, so the tracer is the door.

use crate::plugin_call::{Confinement, PluginCall, kill_plugin, retry_while_busy, spawn_plugin};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long a traced call may take.
const TRACED_TIMEOUT: Duration = Duration::from_secs(30);

/// How long what was killed may take to leave.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked whether anything has stopped.
const POLL_INTERVAL: Duration = Duration::from_micros(50);

/// What a strike does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StrikeKind {
    /// The plug-in is killed.
    Kill,
    /// The plug-in is stopped, and killed some time after, as the agent does with one that hangs.
    Stop,
}

/// How long a stopped plug-in is left so.
const STOPPED_FOR: Duration = Duration::from_millis(100);

/// The system calls that change nothing that outlasts the process: being killed before one of them is the same as being killed before the
/// next one that does.
const HARMLESS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_futex,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_sched_getaffinity,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getpgrp,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
];

impl PluginCall<'_> {
    /// Makes the call and strikes before its n-th system call that may change something, counting from 1. False where it ended before.
    ///
    /// # Errors
    /// It could not be started or traced.
    pub(super) fn strike(&self, n: usize, kind: StrikeKind) -> io::Result<bool> {
        self.program.check()?;
        let file = rustix::fs::memfd_create("plugin", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(self.request.to_string().as_bytes())?;
        file.rewind()?;
        let confinement = Confinement {
            is_traced: true,
            ..self.confinement
        };
        retry_while_busy(|| {
            let input = OwnedFd::from(file.try_clone()?);
            std::thread::scope(|scope| {
                // The thread that starts it is its tracer.
                let work = || {
                    let mut child = spawn_plugin(&self.program.file, input, confinement)?;
                    // Nobody reads them: what it writes fits into the pipes, or it has failed already.
                    let outputs = (child.stdout.take(), child.stderr.take());
                    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
                    let struck = trace(Pid::from_raw(pid), n, kind);
                    child.kill().ok();
                    child.try_wait().ok();
                    drop(outputs);
                    struck
                };
                let thread = std::thread::Builder::new().name("strike".into());
                let thread = thread.spawn_scoped(scope, work)?;
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread failed")))
            })
        })
    }
}

/// Follows a process and all that it starts from one system call to the next.
fn trace(root: Pid, n: usize, kind: StrikeKind) -> io::Result<bool> {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_EXITKILL
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEEXEC;
    waitpid(root, Some(flags))?;
    ptrace::setoptions(root, options)?;
    ptrace::syscall(root, None)?;
    let until = Instant::now() + TRACED_TIMEOUT;
    let mut within: BTreeSet<i32> = BTreeSet::new();
    let mut count = 0;
    while Instant::now() < until {
        let status = match waitpid(Pid::from_raw(-1), Some(flags | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                std::thread::sleep(POLL_INTERVAL);
                continue;
            }
            Err(nix::errno::Errno::EINTR) => continue,
            Err(nix::errno::Errno::ECHILD) => return Ok(false),
            status => status?,
        };
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                if pid == root {
                    return Ok(false);
                }
                continue;
            }
            WaitStatus::PtraceSyscall(pid) => {
                let enters = within.insert(pid.as_raw()) || !within.remove(&pid.as_raw());
                if enters && changes_something(pid)? {
                    count += 1;
                    if count == n {
                        strike(root, kind)?;
                        reap(root, flags);
                        return Ok(true);
                    }
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, _) => (pid, None),
            // The first stop of a process that was just started.
            WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGTRAP) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => continue,
        };
        // One that was killed meanwhile reports its end later.
        ptrace::syscall(pid, signal).ok();
    }
    strike(root, StrikeKind::Kill)?;
    reap(root, flags);
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!(
            "it did not end within {} s while it was traced",
            TRACED_TIMEOUT.as_secs()
        ),
    ))
}

/// Takes note of the end of all that is traced. The first process of a namespace ends last, once its tracer has heard of the others' ends.
fn reap(root: Pid, flags: WaitPidFlag) {
    let until = Instant::now() + REAP_TIMEOUT;
    while Instant::now() < until {
        match waitpid(Pid::from_raw(-1), Some(flags | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid == root => {
                return;
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(POLL_INTERVAL),
            Err(nix::errno::Errno::ECHILD) => return,
            Ok(_) | Err(_) => {}
        }
    }
}

fn strike(root: Pid, kind: StrikeKind) -> io::Result<()> {
    if kind == StrikeKind::Stop {
        // It is stopped already, by its tracer; nothing of it runs on.
        std::thread::sleep(STOPPED_FOR);
    }
    let root = rustix::process::Pid::from_raw(root.as_raw());
    let root = root.ok_or_else(|| io::Error::other("it has no id"))?;
    let pidfd = rustix::process::pidfd_open(root, rustix::process::PidfdFlags::empty())?;
    kill_plugin(&pidfd)
}

/// Whether the system call that a process is about to make may change something that outlasts it.
#[allow(unsafe_code)]
fn changes_something(pid: Pid) -> io::Result<bool> {
    let info = ptrace::syscall_info(pid)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(false);
    }
    // SAFETY: the kernel has filled in the part of the union that `op` names.
    let (number, arguments) = unsafe { (info.u.entry.nr, info.u.entry.args) };
    let number = libc::c_long::try_from(number).unwrap_or_default();
    let argument = |index: usize| arguments.get(index).copied().unwrap_or_default();
    let opens_for_writing = |flags: u64| {
        let writing = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u64;
        flags & writing != 0
    };
    Ok(match number {
        libc::SYS_openat => opens_for_writing(argument(2)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => opens_for_writing(argument(1)),
        // Its own answer and its standard error.
        libc::SYS_write | libc::SYS_writev => !matches!(argument(0), 1 | 2),
        other => !HARMLESS.contains(&other),
    })
}
