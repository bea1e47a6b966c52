//! Whether the process table shows everything: a process that `/proc` does not show may be gone, or hidden. Only a process that the
//! kernel itself no longer knows (`pidfd_open`, which needs no `/proc` and no privileges) is gone.

use super::{ProcessId, ProcessTable, Stat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, dumpable_behavior, pidfd_open};
use rustix::thread::CapabilitySet;
use std::io;
use std::path::Path;

/// `PROC_SUPER_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// How often a process whose id may just have been reused is read.
const LOOKS: usize = 3;

impl ProcessTable {
    /// Whether this table shows every process of the pid namespace that this process is in, by the ids that it has there. Looked at
    /// once: the folder stays the one that was opened, whatever is mounted over `/proc` later.
    ///
    /// # Errors
    /// It is not a process table, one of another pid namespace, or one that hides processes: a process that it does not show may exist.
    pub fn check_visibility(&self) -> io::Result<()> {
        let looked = self.sight.get_or_init(|| {
            // A made-up table shows all that there is.
            match self.root() == Path::new("/proc") {
                true => self.look_at_itself(),
                false => Ok(()),
            }
        });
        looked.clone().map_err(io::Error::other)
    }

    fn look_at_itself(&self) -> Result<(), String> {
        let folder = self.folder().map_err(|error| {
            format!("cannot open /proc ({error}): mount it with `mount -t proc proc /proc`")
        })?;
        let system = rustix::fs::fstatfs(folder).map_err(|error| format!("/proc: {error}"))?;
        if system.f_type != PROC_SUPER_MAGIC {
            return Err("/proc is not the kernel's process table: it is not mounted, or something is mounted over it".into());
        }
        let own = std::process::id().to_string();
        // proc(5): the ids of a process from the pid namespace of this mount down to its own. Where `self` leads nowhere, this
        // process is not in the namespace of the mount.
        let shown = self.read_text("self/status").ok();
        let ids = shown.as_deref().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            // Before Linux 4.1 there was no such line.
            line.or_else(|| status.lines().find_map(|line| line.strip_prefix("Pid:")))
        });
        if ids.map(str::trim) != Some(own.as_str()) {
            return Err("/proc shows another pid namespace than that of this process: start it with a `/proc` of its own, e.g. by `unshare --mount-proc`".into());
        }
        let hides = self
            .read_text("self/mountinfo")
            .is_ok_and(|mounts| hides_processes(&mounts));
        if hides && !sees_all_like_itself() {
            return Err("/proc hides processes (it is mounted with `hidepid`), and this process lacks CAP_SYS_PTRACE, which would show them".into());
        }
        Ok(())
    }

    /// Whether a process has its id in the pid namespace of this table and in none below that.
    pub(crate) fn has_one_id(&self, pid: i32) -> bool {
        let ids = self.status(pid, "NSpid:", |ids| {
            Some(ids.split_ascii_whitespace().count())
        });
        ids == Some(1)
    }

    #[expect(clippy::disallowed_methods, reason = "`/proc` is opened for reading")]
    fn read_text(&self, file: &str) -> io::Result<String> {
        use rustix::fs::{Mode, OFlags, openat};
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(self.folder()?, file, flags, Mode::empty())?;
        io::read_to_string(std::fs::File::from(file))
    }

    /// The figures of exactly this process; none where it is gone, even when its id is in use again.
    ///
    /// # Errors
    /// The process may exist, but cannot be seen.
    pub fn find(&self, id: ProcessId) -> io::Result<Option<Stat>> {
        self.check_visibility()?;
        let hidden = |why: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "process {} exists but cannot be seen: {why}",
                id.pid
            ))
        };
        let mut why = Errno::NOENT;
        for _ in 0..LOOKS {
            let looked = self.try_read(id.pid, "stat", |line| {
                self.parse_stat(&String::from_utf8_lossy(line))
            });
            match looked {
                Ok(Some(stat)) => return Ok(Some(stat).filter(|stat| stat.id == id)),
                Ok(None) => return Err(hidden(&"its figures make no sense")),
                Err(error) => why = error,
            }
            if self.root() != Path::new("/proc") || !is_known_to_the_kernel(id.pid)? {
                return Ok(None);
            }
        }
        Err(hidden(&why))
    }
}

/// Whether the kernel has a process of this id that has not ended.
fn is_known_to_the_kernel(pid: i32) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        return Ok(false);
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        // A thread has the id now (EINVAL, and ENOENT since 6.13), so that process is gone.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut fds, Some(&at_once))? == 0)
}

/// Whether the mount at `/proc` hides processes. Source: proc(5), `hidepid`; the last mount at a place is the one that is seen.
fn hides_processes(mounts: &str) -> bool {
    let at_proc = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = at_proc
        .and_then(|line| line.rsplit(' ').next())
        .unwrap_or_default();
    options.split(',').any(|option| {
        option
            .strip_prefix("hidepid=")
            .is_some_and(|how| !matches!(how, "0" | "off"))
    })
}

/// Whether processes that were started as this one was are shown to it where processes are hidden.
fn sees_all_like_itself() -> bool {
    let capabilities = rustix::thread::capabilities(None);
    if capabilities.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE)) {
        return true;
    }
    // A user is shown its own, unless the program has rights of its own; root without that right is not shown those with more.
    let is_dumpable = matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
    is_dumpable && !rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_that_hides_processes_is_known_by_its_options() {
        let mount = |options: &str| {
            format!(
                "22 1 0:20 / /proc rw - proc proc {options}\n23 22 0:21 / /proc/sys rw - proc proc rw\n"
            )
        };
        for (options, hides) in [
            ("rw", false),
            ("rw,gid=7,hidepid=invisible", true),
            ("rw,hidepid=1", true),
            ("rw,hidepid=0", false),
            ("rw,hidepid=off,subset=pid", false),
        ] {
            assert_eq!(hides_processes(&mount(options)), hides, "{options}");
        }
        assert!(!hides_processes(&(mount("rw,hidepid=2") + &mount("rw"))));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a process to look at")]
    fn process_that_ended_is_gone_and_one_that_runs_is_found() {
        let table = ProcessTable::default();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("it starts");
        let id = table.identify(child.id() as i32).expect("it is there");
        assert_eq!(
            table.find(id).expect("it is seen").map(|stat| stat.id),
            Some(id)
        );
        let other = ProcessId {
            start: id.start + 1,
            ..id
        };
        assert_eq!(table.find(other).expect("its id is seen"), None);
        child.kill().expect("it is there to be killed");
        child.wait().expect("it ends");
        assert_eq!(table.find(id).expect("nothing hides it"), None);
    }
}
