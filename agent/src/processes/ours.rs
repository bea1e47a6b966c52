//! Which processes are Backburn's own: never a victim, or a fault could not be put back.

use super::scan::HELPER_NAME;
use super::{ProcessId, ProcessTable};
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// What our programs are called.
const PROGRAMS: [&str; 2] = ["backburn", "backburn-agent"];
/// Started like this, our program is somebody to be hit: the demo's own service.
const DEMO: &str = "demo-service";

/// Tells Backburn's own processes from others.
pub(super) struct Ours<'a> {
    table: &'a ProcessTable,
    program: Option<(u64, u64)>,
    line: Vec<i32>,
}

impl<'a> Ours<'a> {
    pub(super) fn new(table: &'a ProcessTable) -> Self {
        let mut ours = Ours {
            table,
            program: None,
            line: Vec::new(),
        };
        // In a made-up tree, our own id would be a stranger's.
        if table.root() == Path::new("/proc") {
            let own = rustix::fs::stat("/proc/self/exe").ok();
            ours.program = own.map(|file| (file.st_dev, file.st_ino));
            let mut pid = std::process::id() as i32;
            ours.line.push(pid);
            while let Some(parent) = table
                .stat(pid)
                .map(|stat| stat.parent)
                .filter(|parent| *parent > 1)
            {
                if ours.runs_our_program(parent) {
                    ours.line.push(parent);
                }
                pid = parent;
            }
        }
        ours
    }

    /// Whether this process is one of ours.
    pub(super) fn is_ours(&self, pid: i32) -> bool {
        if self.line.contains(&pid) {
            return true;
        }
        self.runs_our_program(pid)
            && self
                .table
                .arguments(pid)
                .get(1)
                .is_none_or(|first| first != DEMO)
    }

    fn runs_our_program(&self, pid: i32) -> bool {
        let Ok(program) = self.table.link(pid, "exe") else {
            // Another user's program is not shown to us, its name and arguments are.
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
        // An update of our program leaves those that run the old one, now deleted.
        let path = program.to_string_lossy();
        let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
        if PROGRAMS.contains(&base(path)) {
            return true;
        }
        let file = self
            .table
            .metadata(pid, "exe")
            .ok()
            .map(|file| (file.st_dev, file.st_ino));
        self.program.is_some() && file == self.program
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl ProcessTable {
    /// Every helper of ours that bears this mark, dead ones left out: `helper MARK` stands on its
    /// command line. One that is just exiting has lost its command line and may hold on to a
    /// little still; it counts for every mark.
    ///
    /// # Errors
    /// Where the processes can't be listed, or some that may be helpers of this user's can't be looked at.
    pub fn find_marked(&self, mark: &str) -> io::Result<Vec<ProcessId>> {
        self.check_visibility()?;
        let wanted = [b"\0helper\0", mark.as_bytes(), b"\0"].concat();
        let holds = |line: &[u8]| line.windows(wanted.len()).any(|part| part == wanted);
        // A name is four times quicker to read than a command line: `exe` until a helper has
        // taken its own name, since it is started as /proc/self/exe.
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
                        format!("process {pid} may be a helper, and can't be looked at: {error}");
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

    /// The agents that keep their ledger below this state folder, by their workers' ids.
    pub fn workers_of(&self, state: &Path) -> Vec<i32> {
        let ours = Ours::new(self);
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

    /// Whether a process is this user's.
    fn is_own(&self, pid: i32) -> bool {
        let owner = self.metadata(pid, ".").map(|folder| folder.st_uid);
        owner.is_ok_and(|owner| owner == rustix::process::geteuid().as_raw())
    }
}
