//! Which processes are Backburn's own, and which Backburn was started from: they are never victims, or a
//! fault could not be reverted.
//!
//! A process is Backburn's own by the program that it runs, not by what that is called: its file
//! is the one that runs here, or bears the note of [`ProgramNote`](super::ProgramNote).

use super::program_note::bears_note;
use super::scan::HELPER_NAME;
use super::{ProcessId, ProcessTable};
use rustix::io::Errno;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Whether a process is one of Backburn's own.
pub(crate) fn is_own_process(table: &ProcessTable, pid: i32) -> bool {
    let ours = OwnProcesses::new(table);
    ours.own == Some(pid) || ours.is_ours(pid)
}

/// Names of Backburn's programs.
const PROGRAMS: [&str; 2] = ["backburn", "backburn-agent"];
/// The subcommand with which Backburn's program is a victim like any other: the service of the demo.
const DEMO: &str = "demo-service";

/// Tells Backburn's own processes, and those that Backburn was started from, from all others.
pub(super) struct OwnProcesses<'a> {
    table: &'a ProcessTable,
    /// This process, unless the table is a made-up one, in which its id would be a stranger's.
    own: Option<i32>,
    /// The file that this process runs, as device and inode.
    program: Option<(u64, u64)>,
    /// Whether a file is a program of Backburn's, by device and inode: each is read once.
    programs: RefCell<BTreeMap<(u64, u64), bool>>,
    origins: OnceCell<Origins>,
}

/// The processes that Backburn's processes of this host were started from.
#[derive(Default)]
struct Origins {
    /// Each process that Backburn was started from, with the process of Backburn that was.
    starters: BTreeMap<i32, i32>,
    /// The command lines of Backburn's processes, each with the id of its process.
    commands: Vec<(String, i32)>,
}

impl<'a> OwnProcesses<'a> {
    pub(super) fn new(table: &'a ProcessTable) -> Self {
        let is_real = table.root() == Path::new("/proc");
        let program = is_real.then(|| rustix::fs::stat("/proc/self/exe").ok());
        OwnProcesses {
            table,
            own: is_real.then(|| std::process::id() as i32),
            program: program.flatten().map(|file| (file.st_dev, file.st_ino)),
            programs: RefCell::default(),
            origins: OnceCell::new(),
        }
    }

    /// Why this process is protected, if it is Backburn's own or Backburn was started from it.
    pub(super) fn reason(&self, pid: i32) -> Option<String> {
        if self.own == Some(pid) || self.is_ours(pid) {
            return Some("it is a process of Backburn".into());
        }
        let origins = self.origins();
        if let Some(started) = origins.starters.get(&pid) {
            return Some(format!(
                "Backburn was started from it, as {}",
                self.named(*started)
            ));
        }
        // A client that passes the command on is nobody's ancestor: ssh, `docker exec`, `systemd-run`.
        let line = command_of(&self.table.arguments(pid));
        let (_, started) = (origins.commands.iter()).find(|(command, _)| line.contains(command))?;
        Some(format!(
            "its command line contains that of {}",
            self.named(*started)
        ))
    }

    fn named(&self, pid: i32) -> String {
        match self.table.name(pid) {
            Some(name) => format!("{name} ({pid})"),
            None => format!("process {pid}"),
        }
    }

    fn is_ours(&self, pid: i32) -> bool {
        self.runs_our_program(pid)
            && self
                .table
                .arguments(pid)
                .get(1)
                .is_none_or(|first| first != DEMO)
    }

    fn runs_our_program(&self, pid: i32) -> bool {
        let Ok(path) = self.table.link(pid, "exe") else {
            // The program of another user's process is not shown, its name and arguments are.
            let first = self
                .table
                .arguments(pid)
                .into_iter()
                .next()
                .unwrap_or_default();
            let name = self.table.name(pid).unwrap_or_default();
            return name == HELPER_NAME
                || PROGRAMS.contains(&name.as_str())
                || PROGRAMS.contains(&base(&first));
        };
        let Ok(file) = self.table.metadata(pid, "exe") else {
            return false;
        };
        let file = (file.st_dev, file.st_ino);
        if self.program == Some(file) {
            return true;
        }
        if let Some(known) = self.programs.borrow().get(&file) {
            return *known;
        }
        // An update leaves those that run the program of before, now deleted. One that was
        // built before there were notes bears none, and its name is all that tells.
        let path = path.to_string_lossy();
        let is_ours = self.table.open_program(pid).is_ok_and(|it| bears_note(&it))
            || path
                .strip_suffix(" (deleted)")
                .is_some_and(|path| PROGRAMS.contains(&base(path)));
        self.programs.borrow_mut().insert(file, is_ours);
        is_ours
    }

    /// Whether a process may be one of Backburn's, by the name of its program's file alone. That asks no file
    /// system, which might not answer, so it can be asked of every process.
    fn may_be_ours(table: &ProcessTable, pid: i32, own: Option<&Path>) -> bool {
        table.link(pid, "exe").is_ok_and(|path| {
            let text = path.to_string_lossy();
            let text = text.strip_suffix(" (deleted)").unwrap_or(&text);
            own == Some(&*path) || PROGRAMS.contains(&base(text))
        })
    }

    /// All processes between process 1 and a process of Backburn's: this one, and all others of this host, e.g.
    /// the command that asked a fleet's controller for a run. Also the command lines of Backburn's processes.
    fn origins(&self) -> &Origins {
        self.origins.get_or_init(|| {
            let mut origins = Origins::default();
            let Some(own) = self.own else {
                return origins;
            };
            let program = self.table.link(own, "exe").ok();
            let all = self.table.pids().unwrap_or_default();
            let candidates = self.table.survey(&all, |table, pid| {
                (pid != own && Self::may_be_ours(table, pid, program.as_deref())).then_some(pid)
            });
            let others = candidates.into_iter().filter(|pid| self.is_ours(*pid));
            for pid in std::iter::once(own).chain(others) {
                self.climb(pid, pid, &mut origins);
                // Where somebody in between has ended, process 1 is the parent; whoever the
                // session is of, e.g. a shell, still is.
                if let Some(leader) = self.table.stat(pid).map(|stat| stat.session)
                    && leader > 1
                    && leader != pid
                {
                    origins.starters.entry(leader).or_insert(pid);
                    self.climb(leader, pid, &mut origins);
                }
                let mut words = self.table.arguments(pid);
                if let [first, _, ..] = words.as_mut_slice() {
                    *first = base(first).to_owned();
                    origins.commands.push((command_of(&words), pid));
                }
            }
            origins
        })
    }

    /// Adds the ancestors of a process to those that `started` was started from, or one of Backburn's processes in between.
    fn climb(&self, from: i32, mut started: i32, Origins { starters, .. }: &mut Origins) {
        let parent_of = |pid| Some(self.table.stat(pid)?.parent).filter(|parent| *parent > 1);
        let mut next = parent_of(from);
        while let Some(parent) = next {
            // Whose ancestors were climbed already, or a circle that ids given out anew make.
            if starters.contains_key(&parent) {
                return;
            }
            starters.insert(parent, started);
            if self.is_ours(parent) {
                started = parent;
            }
            next = parent_of(parent);
        }
    }
}

/// A command as one line, without what a shell needs to keep its words apart: quoted within another command, it is the same.
fn command_of(words: &[String]) -> String {
    let line: String = words.join(" ");
    let plain = line.replace(['\'', '"', '\\'], "");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl ProcessTable {
    /// All helpers of the agent with this mark that are not dead: those with `helper MARK` on their
    /// command line. A helper that is just exiting has lost its command line and may still hold
    /// something, so it counts for every mark.
    ///
    /// # Errors
    /// The processes cannot be listed, or some that may be helpers of this user cannot be read.
    pub fn find_marked(&self, mark: &str) -> io::Result<Vec<ProcessId>> {
        self.check_visibility()?;
        let wanted = [b"\0helper\0", mark.as_bytes(), b"\0"].concat();
        let holds = |line: &[u8]| line.windows(wanted.len()).any(|part| part == wanted);
        // A name is four times quicker to read than a command line: it is `exe` until a helper has
        // given itself its name, since it is started as /proc/self/exe.
        let is_candidate = |name: &[u8]| name == HELPER_NAME.as_bytes() || name == b"exe";
        let mut found = Vec::new();
        for pid in self.named(&self.pids()?, is_candidate, false) {
            let fits = match self.try_read(pid, "cmdline", |line| {
                (!line.is_empty()).then(|| holds(line))
            }) {
                Ok(Some(fits)) => fits,
                Ok(None) => self.is_named(pid, |name| name == HELPER_NAME.as_bytes(), false),
                // Another user's: a helper is its agent's user's, and so is the ledger that tells of it.
                Err(Errno::ACCESS | Errno::PERM) if !self.is_own(pid) => false,
                Err(error @ (Errno::ACCESS | Errno::PERM)) => {
                    let what =
                        format!("process {pid} may be a helper, but cannot be read: {error}");
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
                }
                Err(_) => false,
            };
            if fits && let Some(stat) = self.stat(pid).filter(|stat| !stat.is_dead()) {
                found.push(stat.id);
            }
        }
        Ok(found)
    }

    /// The process ids of the workers of all agents that keep their ledger below this state folder.
    pub fn workers_of(&self, state: &Path) -> Vec<i32> {
        let ours = OwnProcesses::new(self);
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        let keeps = |pid: &i32| {
            let words = self.arguments(*pid);
            let folder = words.iter().skip_while(|word| *word != "--state").nth(1);
            let folder = folder.zip(self.link(*pid, "cwd").ok());
            words.iter().any(|word| word == "worker")
                && folder.is_some_and(|(folder, own)| own.join(folder) == state)
                && ours.is_ours(*pid)
        };
        let pids = self.pids().unwrap_or_default();
        pids.into_iter().filter(keeps).collect()
    }

    /// The processes that conduct runs from this host, for people: a controller, or a `backburn run`.
    ///
    /// # Errors
    /// The processes cannot be listed.
    pub fn controllers(&self) -> io::Result<Vec<String>> {
        let conducts = |pid: &i32| {
            let words = self.arguments(*pid);
            let is_program = words
                .first()
                .is_some_and(|first| base(first) == PROGRAMS[0])
                || self.name(*pid).as_deref() == Some(PROGRAMS[0]);
            let conducting = ["controller", "run", "demo"];
            is_program
                && (words.iter().skip(1))
                    .find(|word| !word.starts_with('-'))
                    .is_some_and(|word| conducting.contains(&word.as_str()))
        };
        let named = |pid: i32| {
            let words = self.arguments(pid);
            format!("`{}` (process {pid})", command_of(&words))
        };
        Ok(self
            .pids()?
            .into_iter()
            .filter(conducts)
            .map(named)
            .collect())
    }

    /// Whether a process is this user's.
    fn is_own(&self, pid: i32) -> bool {
        let owner = self.metadata(pid, ".").map(|folder| folder.st_uid);
        owner.is_ok_and(|owner| owner == rustix::process::geteuid().as_raw())
    }
}
