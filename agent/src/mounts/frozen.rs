//! Freezing and thawing a file system (`FIFREEZE`, `FITHAW`), and seeing whether it takes writes without waiting for it: a process of its
//! own tries to remove a folder that is not there. That changes nothing, and waits exactly as long as the file system is frozen.

use super::{MountIdentity, OpenMount, mounts};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::process::Signal;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// `FIFREEZE` and `FITHAW` of the kernel's `include/uapi/linux/fs.h`.
const FIFREEZE: rustix::ioctl::Opcode = 0xC004_5877;
const FITHAW: rustix::ioctl::Opcode = 0xC004_5878;
/// What a process calls itself that looks whether a file system takes writes.
pub(crate) const LOOK_NAME: &str = "backburn-look";
/// How long it must wait at a stretch until the file system counts as frozen.
const FROZEN_AFTER: Duration = Duration::from_millis(300);
/// How long the look may take on a busy machine.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// A file system that is held open at the root of one of its mounts, for reading only.
#[derive(Debug)]
pub(crate) struct OpenFileSystem(OwnedFd);

impl OpenFileSystem {
    /// Opens the file system of a mount, through the mount itself or another one of the same file system. None where the machine was
    /// started again since.
    ///
    /// # Errors
    /// It is not mounted here, or every mount of it lies under another one.
    pub(crate) fn of(mount: &MountIdentity) -> io::Result<Option<Self>> {
        if mount.is_of_other_boot()? {
            return Ok(None);
        }
        let mut of_it = mounts()?;
        of_it.retain(|found| found.device == mount.device);
        of_it.sort_by_key(|found| found.number != mount.number);
        for found in of_it {
            let Ok(opened) = OpenMount::at(&found.path) else {
                continue;
            };
            if opened
                .mount()
                .is_ok_and(|opened| opened.number == found.number)
            {
                return Ok(Some(OpenFileSystem(opened.open_folder()?)));
            }
        }
        Err(io::Error::other(format!(
            "the file system of {} is not reached by any mount here any more, and may still be frozen: mount it again, then run `revert --all`",
            mount.path.display()
        )))
    }

    /// Has the file system write out what it has, and then take no more writes. Whoever writes waits, and cannot be killed.
    ///
    /// # Errors
    /// [`Errno::BUSY`] where it is frozen already; what else the kernel said.
    pub(crate) fn freeze(&self) -> Result<(), Errno> {
        self.order::<FIFREEZE>()
    }

    /// Has the file system take writes again. Nothing is written for that. Where it is not frozen, nothing happens.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn thaw(&self) -> Result<(), Errno> {
        match self.order::<FITHAW>() {
            Err(Errno::INVAL) => Ok(()),
            done => done,
        }
    }

    #[allow(unsafe_code)]
    fn order<const CODE: rustix::ioctl::Opcode>(&self) -> Result<(), Errno> {
        // SAFETY: both orders take an argument that the kernel ignores, and write nothing to this process's memory.
        unsafe { rustix::ioctl::ioctl(&self.0, rustix::ioctl::NoArg::<CODE>::new()) }
    }

    /// Whether the file system takes writes. Waits for the answer, but not for the file system.
    ///
    /// # Errors
    /// No process can be started, or it came to nothing in time.
    pub(crate) fn takes_writes(&self) -> io::Result<bool> {
        let look = WriteLook::start(self)?;
        let until = Instant::now() + LOOK_TIMEOUT;
        let mut waits_since = None;
        while !look.has_ended()? {
            let now = Instant::now();
            match look.waits() {
                true if waits_since.is_some_and(|since| now - since >= FROZEN_AFTER) => {
                    look.abandon();
                    return Ok(false);
                }
                true => waits_since = waits_since.or(Some(now)),
                false => waits_since = None,
            }
            if now >= until {
                look.abandon();
                return Err(io::Error::other("it did not show whether it takes writes"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(true)
    }
}

/// A process that waits as long as a file system is frozen. It dies with the thread that started it, as soon as it waits no more.
#[derive(Debug)]
pub(crate) struct WriteLook(Pid);

impl WriteLook {
    /// Starts it.
    ///
    /// # Errors
    /// No process can be started.
    #[allow(unsafe_code)]
    pub(crate) fn start(on: &OpenFileSystem) -> io::Result<Self> {
        // It must hold nothing open: whoever waits for the other end of a pipe would wait for the file system.
        let kept = on.0.as_raw_fd();
        let open = std::fs::read_dir("/proc/self/fd")?;
        let open: Vec<RawFd> = open
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|descriptor| *descriptor != kept)
            .collect();
        // SAFETY: the child makes system calls alone, which are safe after a fork of a process with threads (signal-safety(7)): it
        // allocates nothing, takes no lock, and ends without running anything of this program.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(WriteLook(child)),
            ForkResult::Child => {
                look(on, &open);
                unsafe { nix::libc::_exit(0) }
            }
        }
    }

    /// Whether it has come to its end, so that the file system took its call.
    ///
    /// # Errors
    /// Somebody has killed it, so nothing is known.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        match waitpid(self.0, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => Ok(false),
            Ok(WaitStatus::Signaled(..)) => {
                Err(io::Error::other("the process that looked was killed"))
            }
            // Where another thread of this process has reaped it, it has ended as well.
            _ => Ok(true),
        }
    }

    /// Whether it waits in the kernel and cannot be killed.
    pub(crate) fn waits(&self) -> bool {
        let table = crate::processes::ProcessTable::default();
        let stat = table.stat(self.0.as_raw());
        stat.is_some_and(|stat| stat.state == 'D')
    }

    /// Leaves it to its end: it is killed as soon as it waits no more.
    #[expect(
        clippy::disallowed_methods,
        reason = "a process of this one's own, which changes nothing and is not reaped before"
    )]
    fn abandon(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.as_raw()) {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        // One that has ended meanwhile is reaped; another is when it has.
        self.has_ended().ok();
    }
}

/// What the looking process does. Nothing here allocates.
#[allow(unsafe_code)]
#[expect(
    clippy::disallowed_methods,
    reason = "it removes a folder that is not there, so nothing is changed"
)]
fn look(on: &OpenFileSystem, open: &[RawFd]) {
    // Not by the name of a helper, since it cannot be killed and need not be.
    rustix::thread::set_name(c"backburn-look").ok();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
    for descriptor in open {
        // SAFETY: these are copies of this process's own, and nothing uses them any more. One of them was closed before the fork.
        unsafe { nix::libc::close(*descriptor) };
    }
    let there = on.0.as_fd();
    rustix::fs::unlinkat(there, c".backburn-nothing", AtFlags::REMOVEDIR).ok();
}
