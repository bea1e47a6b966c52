//! The process table, read straight from `/proc`: one listing, then only what is asked for, into
//! one buffer. A process that ends while it is read is simply not there.

use super::clock_shift::ClockShift;
use super::{Process, ProcessId};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, readlinkat, statat};
use rustix::io::Errno;
use std::{
    cell::{OnceCell, RefCell},
    fmt::Write as _,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// The kernel keeps this much of a name (`TASK_COMM_LEN` less its final zero).
const COMM_BYTES: usize = 15;
/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// The name (`comm`) that helpers of the agent give themselves.
pub(crate) const HELPER_NAME: &str = "backburn-helper";

/// A read-only view of `/proc`, or of a made-up folder that looks like it.
#[derive(Debug)]
pub struct ProcessTable {
    root: PathBuf,
    folder: Result<OwnedFd, Errno>,
    /// A path within `/proc`, and what is read from it: kept so that a scan allocates nothing.
    scratch: RefCell<(String, Vec<u8>)>,
    /// Whether the table shows every process, once that was checked.
    pub(super) sight: OnceCell<Result<(), String>>,
    shift: ClockShift,
}

/// The figures of `/proc/PID/stat` that the agent uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The process and its start time.
    pub id: ProcessId,
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// Its state, as one letter.
    pub state: char,
    /// Its parent's process id.
    pub parent: i32,
    /// The process that its session is of, dead or alive.
    pub session: i32,
    /// The kernel's flags (`PF_*`).
    pub flags: u64,
    /// How many threads it has, dead ones that are not yet cleared away included.
    pub threads: u64,
    /// Processor time used, by it and all its threads, in clock ticks.
    pub cpu_ticks: u64,
    /// Resident memory in pages.
    pub resident_pages: u64,
}

impl Stat {
    /// Parses a line of `/proc/PID/stat`. The name stands in brackets and may itself hold spaces and brackets.
    pub fn parse(line: &str) -> Option<Stat> {
        let (pid, rest) = line.split_once(" (")?;
        let (comm, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and `fields` begins at its third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            id: ProcessId {
                pid: pid.trim().parse().ok()?,
                start: number(22)?,
            },
            comm: comm.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            flags: number(9)?,
            threads: number(20)?,
            cpu_ticks: number(14)? + number(15)?,
            resident_pages: number(24)?,
        })
    }

    /// Whether this is a kernel thread.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Whether the process is dead: nothing can be done to it any more. A process whose first thread has
    /// ended while others go on looks like a zombie and is none.
    pub fn is_dead(&self) -> bool {
        match self.state {
            'Z' => self.threads <= 1,
            state => matches!(state, 'X' | 'x'),
        }
    }
}

/// The machine's own `/proc`.
impl Default for ProcessTable {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl ProcessTable {
    /// The process table in another folder that looks like `/proc`. Where the folder cannot be opened, listing it fails.
    #[expect(clippy::disallowed_methods, reason = "`/proc` is opened for reading")]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&root, flags, Mode::empty());
        // The clock of a made-up tree is nobody's.
        let shift = match root == Path::new("/proc") {
            true => ClockShift::own(),
            false => ClockShift::Ticks(0),
        };
        ProcessTable {
            root,
            folder,
            scratch: RefCell::new((String::new(), Vec::with_capacity(4096))),
            sight: OnceCell::new(),
            shift,
        }
    }

    /// Parses a line of `/proc/PID/stat`, with the start by the machine's own clock.
    pub(super) fn parse_stat(&self, line: &str) -> Option<Stat> {
        let mut stat = Stat::parse(line)?;
        stat.id.start = self.shift.take_off(stat.id.start);
        Some(stat)
    }

    pub(super) fn folder(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.folder
            .as_ref()
            .map(AsFd::as_fd)
            .map_err(|error| *error)
    }

    /// The folder that the table is read from.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All process ids, in ascending order.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        self.numbers(".")
    }

    /// The ids of a process's threads; empty where it is gone.
    pub fn threads(&self, pid: i32) -> Vec<i32> {
        self.numbers(&format!("{pid}/task")).unwrap_or_default()
    }

    #[expect(clippy::disallowed_methods, reason = "`/proc` is opened for reading")]
    fn numbers(&self, folder: &str) -> io::Result<Vec<i32>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(self.folder()?, folder, flags, Mode::empty())?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        let mut numbers = Vec::with_capacity(256);
        while let Some(entry) = entries.next() {
            if let Some(number) = digits(entry?.file_name().to_bytes()) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads `PID/file` and hands its bytes on; none where it is gone or not to be read.
    pub(super) fn read<T>(&self, pid: i32, file: &str, then: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.try_read(pid, file, then).ok()
    }

    #[expect(clippy::disallowed_methods, reason = "`/proc` is opened for reading")]
    pub(super) fn try_read<T>(
        &self,
        pid: i32,
        file: &str,
        then: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        let mut scratch = self.scratch.borrow_mut();
        let (path, buffer) = &mut *scratch;
        path.clear();
        if write!(path, "{pid}/{file}").is_err() {
            return Err(Errno::INVAL);
        }
        let file = openat(
            self.folder()?,
            path.as_str(),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        buffer.clear();
        loop {
            buffer.reserve(4096);
            let room = buffer.spare_capacity_mut().len();
            match rustix::io::read(&file, rustix::buffer::spare_capacity(buffer)) {
                Ok(0) => break,
                // The files read here are made in one piece, so what leaves room was all of it.
                // This saves a read per process. (`net/tcp` is not such a file.)
                Ok(count) if count < room => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(then(buffer))
    }

    /// Where the link `PID/file` leads; the error says whether it is gone or not to be read.
    pub(crate) fn link(&self, pid: i32, file: &str) -> Result<PathBuf, Errno> {
        use std::os::unix::ffi::OsStringExt as _;
        let target = readlinkat(self.folder()?, format!("{pid}/{file}"), Vec::new())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(
            target.into_bytes(),
        )))
    }

    /// The file of the program that a process runs, to be read.
    #[expect(clippy::disallowed_methods, reason = "`/proc` is opened for reading")]
    pub(super) fn open_program(&self, pid: i32) -> Result<std::fs::File, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(self.folder()?, format!("{pid}/exe"), flags, Mode::empty()).map(Into::into)
    }

    /// What `PID/file` is, following links.
    pub(crate) fn metadata(&self, pid: i32, file: &str) -> Result<rustix::fs::Stat, Errno> {
        statat(self.folder()?, format!("{pid}/{file}"), AtFlags::empty())
    }

    /// The entries of the folder `PID/file` that are numbers, e.g. open descriptors.
    pub(crate) fn entries(&self, pid: i32, file: &str) -> io::Result<Vec<i32>> {
        self.numbers(&format!("{pid}/{file}"))
    }

    /// The figures of `/proc/PID/stat`; none where it is gone.
    pub fn stat(&self, pid: i32) -> Option<Stat> {
        self.read(pid, "stat", |line| {
            self.parse_stat(&String::from_utf8_lossy(line))
        })?
    }

    /// The figures of one thread.
    pub fn thread_stat(&self, pid: i32, thread: i32) -> Option<Stat> {
        let file = format!("task/{thread}/stat");
        self.read(pid, &file, |line| {
            self.parse_stat(&String::from_utf8_lossy(line))
        })?
    }

    /// The figures of exactly this process; none where it is gone, even when its id is in use again.
    pub fn stat_of(&self, id: ProcessId) -> Option<Stat> {
        self.stat(id.pid).filter(|stat| stat.id == id)
    }

    /// Whether the process's name is one of `wanted`, reading no more than that takes.
    pub(super) fn is_named(
        &self,
        pid: i32,
        mut wanted: impl FnMut(&[u8]) -> bool,
        long: bool,
    ) -> bool {
        let cut = self.read(pid, "comm", |comm| {
            let comm = comm.strip_suffix(b"\n").unwrap_or(comm);
            if wanted(comm) {
                Some(true)
            } else {
                (!long || comm.len() < COMM_BYTES).then_some(false)
            }
        });
        match cut {
            None => false,
            Some(Some(answer)) => answer,
            // A name as long as the kernel keeps may have been cut there.
            Some(None) => self
                .long_name(pid)
                .is_some_and(|name| wanted(name.as_bytes())),
        }
    }

    /// The process's name: `comm`, or the program's base name where that was cut short.
    pub fn name(&self, pid: i32) -> Option<String> {
        let comm = self.read(pid, "comm", |comm| {
            String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(comm)).into_owned()
        })?;
        Some(self.whole_name(pid, comm))
    }

    /// The program's base name where `comm`, the name that the kernel keeps, was cut short.
    fn whole_name(&self, pid: i32, comm: String) -> String {
        if comm.len() < COMM_BYTES {
            return comm;
        }
        self.long_name(pid).unwrap_or(comm)
    }

    /// The base name of the first argument or of the program, if `comm` is the beginning of it. Of the first argument, which a process
    /// may overwrite with all that it wants to show, only what comes before white space or a colon counts: the rest may be secret.
    fn long_name(&self, pid: i32) -> Option<String> {
        let comm = self.read(pid, "comm", |comm| {
            comm.strip_suffix(b"\n").unwrap_or(comm).to_vec()
        })?;
        let base = |bytes: &[u8]| {
            let name = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(bytes);
            (name.len() > comm.len() && name.starts_with(&comm))
                .then(|| String::from_utf8_lossy(name).into_owned())
        };
        let first = self.read(pid, "cmdline", |line| {
            let is_end = |byte: &u8| *byte == 0 || *byte == b':' || byte.is_ascii_whitespace();
            base(line.split(is_end).next().unwrap_or(line))
        });
        first.flatten().or_else(|| {
            use std::os::unix::ffi::OsStrExt as _;
            base(self.link(pid, "exe").ok()?.as_os_str().as_bytes())
        })
    }

    /// The arguments it was started with; empty for a kernel thread, a zombie or what is gone.
    pub fn arguments(&self, pid: i32) -> Vec<String> {
        self.read(pid, "cmdline", |line| {
            let line = line.strip_suffix(b"\0").unwrap_or(line);
            if line.is_empty() {
                return Vec::new();
            }
            line.split(|byte| *byte == 0)
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect()
        })
        .unwrap_or_default()
    }

    /// Its effective user id.
    pub fn uid(&self, pid: i32) -> Option<u32> {
        self.status(pid, "Uid:", |value| {
            value.split_ascii_whitespace().nth(1)?.parse().ok()
        })
    }

    /// The process that traces it, if any.
    pub fn tracer(&self, pid: i32) -> Option<i32> {
        self.status(pid, "TracerPid:", |value| value.trim().parse().ok())
            .filter(|tracer| *tracer != 0)
    }

    /// The process that traces this thread, if any.
    pub fn thread_tracer(&self, pid: i32, thread: i32) -> Option<i32> {
        let file = format!("task/{thread}/status");
        self.line(pid, &file, "TracerPid:", |value| value.trim().parse().ok())
            .filter(|tracer| *tracer != 0)
    }

    pub(crate) fn status<T>(
        &self,
        pid: i32,
        key: &str,
        then: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.line(pid, "status", key, then)
    }

    pub(super) fn line<T>(
        &self,
        pid: i32,
        file: &str,
        key: &str,
        then: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.read(pid, file, |text| {
            String::from_utf8_lossy(text)
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .and_then(then)
        })?
    }

    /// The time by the clock that tells the starts of processes, in clock ticks since the machine's boot.
    pub(crate) fn now(&self) -> Option<u64> {
        let uptime = std::fs::read_to_string(self.root.join("uptime")).ok()?;
        let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        let ticks = uptime * rustix::param::clock_ticks_per_second() as f64;
        Some(self.shift.take_off(ticks as u64))
    }

    /// Whether exactly this process runs or is stopped; a zombie is not alive.
    pub fn alive(&self, id: ProcessId) -> bool {
        self.stat_of(id).is_some_and(|stat| !stat.is_dead())
    }

    /// The state of exactly this process.
    pub fn state(&self, id: ProcessId) -> Option<char> {
        self.stat_of(id).map(|stat| stat.state)
    }

    /// Processor time that exactly this process and its threads used, in seconds.
    pub fn cpu_seconds(&self, id: ProcessId) -> Option<f64> {
        self.stat_of(id)
            .map(|stat| stat.cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident memory of exactly this process, in bytes.
    pub fn resident_bytes(&self, id: ProcessId) -> Option<u64> {
        self.stat_of(id)
            .map(|stat| stat.resident_pages * rustix::param::page_size() as u64)
    }

    /// Memory that exactly this process has taken for itself, swapped out or not, in bytes; none where the kernel does not tell
    /// (before 4.5).
    pub fn taken_bytes(&self, id: ProcessId) -> Option<u64> {
        let kibibytes = |key| {
            self.status(id.pid, key, |value| {
                value.split_ascii_whitespace().next()?.parse::<u64>().ok()
            })
        };
        let taken = kibibytes("RssAnon:")? + kibibytes("VmSwap:").unwrap_or_default();
        self.alive(id).then_some(taken * 1024)
    }

    /// The process that has this id now.
    pub fn identify(&self, pid: i32) -> Option<ProcessId> {
        self.stat(pid).map(|stat| stat.id)
    }

    /// The process of this id as it is now.
    pub fn process(&self, pid: i32) -> Option<Process> {
        self.process_and_stat(pid).map(|(process, _)| process)
    }

    pub(super) fn process_and_stat(&self, pid: i32) -> Option<(Process, Stat)> {
        let stat = self.stat(pid)?;
        let name = self.whole_name(pid, stat.comm.clone());
        let uid = self.uid(pid)?;
        Some((
            Process {
                id: stat.id,
                name,
                state: stat.state,
                parent: stat.parent,
                uid,
            },
            stat,
        ))
    }
}

/// The process id that a name in `/proc` is, if it is one.
fn digits(name: &[u8]) -> Option<i32> {
    if !name.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}
