//! The memory of other processes, for reading, and what there is of a vDSO in it.

use super::{ProcessId, ProcessTable};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Most bytes of a vDSO that are read; kernels map one to four pages.
const MAX_VDSO_BYTES: u64 = 64 << 10;

/// `EIO`, by which the kernel says that nothing is mapped at an address (proc_pid_mem(5)).
const EIO: i32 = 5;
/// `ESRCH`, of a process that ended between opening and reading.
const ESRCH: i32 = 3;

/// How a thread is confined in its system calls (seccomp(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeccompMode {
    /// It may make any, as far as seccomp is concerned.
    None,
    /// Programs decide about each call.
    Filter,
    /// It may do nothing but read, write and exit.
    Strict,
}

impl ProcessTable {
    /// The vDSO of a process: its address and its bytes. None where it has none, or has ended.
    ///
    /// # Errors
    /// The memory of the process cannot be read.
    pub fn vdso(&self, id: ProcessId) -> io::Result<Option<(u64, Vec<u8>)>> {
        let Some(maps) = self.maps(id.pid)? else {
            return Ok(None);
        };
        let Some((from, to)) = maps.lines().find_map(vdso_range) else {
            return Ok(None);
        };
        let length = to.saturating_sub(from).min(MAX_VDSO_BYTES);
        let bytes = self.memory_of(id.pid, from, usize::try_from(length).unwrap_or_default())?;
        // The id may be another process's by now.
        Ok(bytes
            .filter(|_| self.stat_of(id).is_some())
            .map(|bytes| (from, bytes)))
    }

    /// The mappings of a process, as the kernel lists them; none where it has ended.
    fn maps(&self, pid: i32) -> io::Result<Option<String>> {
        let maps = std::fs::read_to_string(self.root().join(format!("{pid}/maps")));
        gone_is_none(maps)
    }

    /// So many bytes of a process's memory. None where nothing is mapped there, or it has ended.
    ///
    /// # Errors
    /// The memory of the process cannot be read.
    pub fn memory_of(&self, pid: i32, address: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let read = |file: String| -> io::Result<Vec<u8>> {
            let memory = File::open(self.root().join(file))?;
            let mut bytes = vec![0; length];
            memory.read_exact_at(&mut bytes, address)?;
            Ok(bytes)
        };
        match read(format!("{pid}/mem")) {
            // Its first thread has ended, and has no memory any more; others go on with it.
            Err(error) if is_without_memory(&error) => {
                let others = self
                    .threads(pid)
                    .into_iter()
                    .filter(|thread| *thread != pid);
                let found = others.map(|thread| read(format!("{pid}/task/{thread}/mem")));
                gone_is_none(found.into_iter().find(Result::is_ok).unwrap_or(Err(error)))
            }
            read => gone_is_none(read),
        }
    }

    /// How a thread is confined in its system calls (proc_pid_status(5), `Seccomp`).
    pub fn seccomp_mode(&self, pid: i32, thread: i32) -> SeccompMode {
        let file = format!("task/{thread}/status");
        match self.line(pid, &file, "Seccomp:", |mode| mode.trim().parse().ok()) {
            None | Some(0) => SeccompMode::None,
            Some(2) => SeccompMode::Filter,
            Some(_) => SeccompMode::Strict,
        }
    }

    /// Whether a process has no dynamic linker mapped, so that its program is linked statically. None where that cannot be read.
    pub fn is_statically_linked(&self, pid: i32) -> Option<bool> {
        let maps = self.maps(pid).ok()??;
        let is_linker = |line: &str| {
            let name = line.rsplit('/').next().unwrap_or_default();
            line.contains('/') && name.starts_with("ld") && name.contains(".so")
        };
        Some(!maps.lines().any(is_linker))
    }
}

/// Whether a thread had no memory any more: older kernels let it be opened and give nothing, newer ones (6.12 and later) do not.
fn is_without_memory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(ESRCH)
}

/// What was read; none where there is nothing to read it from.
fn gone_is_none<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof, _)
            | (_, Some(EIO | ESRCH)) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The addresses of the vDSO, from a line of `/proc/PID/maps`.
fn vdso_range(line: &str) -> Option<(u64, u64)> {
    let range = line.strip_suffix("[vdso]")?.split(' ').next()?;
    let (from, to) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(from)?, number(to)?))
}
