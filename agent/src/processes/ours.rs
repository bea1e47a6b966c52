//! Which processes are Backburn's own: never a victim, or a fault could not be put back.

use super::ProcessTable;
use super::scan::HELPER_NAME;
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
