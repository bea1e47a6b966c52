//! Filling a file system with a file that has no name, so that the kernel frees it when this
//! process dies, and never so far that less than the reserve stays free.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::display::size;
use super::evidence::{Taken, effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::written::field;
use crate::processes::ProcessTable;
use backburn_experiments::wire::Effect;
use nix::sys::signal::{SigSet, Signal};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::fs::{
    FallocateFlags, FileType, Mode, OFlags, fallocate, fstatvfs, ftruncate, lstat, open, unlink,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most taken between two looks at what is free.
const STEP_BYTES: u64 = 64 << 20;
/// The same where it must be written.
const WRITTEN_STEP_BYTES: u64 = 1 << 20;
/// How the name of every such file begins.
pub(crate) const FILE_NAME_PREFIX: &str = ".backburn-";
/// Less than this is not worth a try.
const MIN_STEP_BYTES: u64 = 4096;
/// How long filling may go on before it is called ready; it goes on after.
const READY_AFTER: Duration = Duration::from_millis(200);
/// How often is looked at what others need, once filled.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Fills a file system with a file that has no name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskBallast {
    /// A folder on the file system.
    pub directory: PathBuf,
    /// The amount, in bytes.
    pub bytes: u64,
    /// What must stay free to everyone, in bytes.
    pub reserve_bytes: u64,
    /// The name that the file bears for a moment on a file system without nameless files.
    pub name: String,
}

impl Helper for DiskBallast {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        let (directory, name) = (&self.directory, &self.name);
        run(directory, self.bytes, self.reserve_bytes, name, process)
    }

    fn describe(&self) -> String {
        format!(
            "fill {} in a nameless file in {}, with {} always left free",
            size(self.bytes),
            self.directory.display(),
            size(self.reserve_bytes)
        )
    }

    fn describe_end(&self) -> &'static str {
        "the kernel frees the file, which has no name"
    }

    fn holds(&self) -> Vec<String> {
        // Two folders of one file system are one thing to fill.
        let device = rustix::fs::stat(&self.directory).map(|folder| folder.st_dev);
        vec![device.map_or_else(
            |_| format!("disk:{}", self.directory.display()),
            |device| format!("disk:{device}"),
        )]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Folder(&self.directory)
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let taken = Taken {
                bytes: filled(id.pid, table)?,
                asked: self.bytes,
                reserve: self.reserve_bytes,
            };
            let free = || {
                let system = rustix::fs::statvfs(&self.directory).ok()?;
                Some(system.f_bavail.saturating_mul(system.f_frsize))
            };
            let seen = format!(
                "{} of {} filled in {}{}",
                size(taken.bytes),
                size(self.bytes),
                self.directory.display(),
                taken.shortfall(free)
            );
            let figures = [("filled-bytes", taken.bytes as f64)];
            Some(effect(taken.acts(free), seen, &figures))
        })
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        let file = left_over(&self.directory, &self.name)?;
        Ok(file.map(|file| format!("{} is still there", file.display())))
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        remove_left_over(&self.directory, &self.name)
    }

    type Substitute = Self;

    fn substitute(written: &Value) -> Option<Self> {
        Some(DiskBallast {
            directory: field(written, "directory")?,
            bytes: 0,
            reserve_bytes: 0,
            name: field(written, "name")?,
        })
    }
}

fn run(
    directory: &Path,
    bytes: u64,
    reserve: u64,
    name: &str,
    process: &HelperProcess,
) -> Result<(), HelperError> {
    process.first_to_be_killed()?;
    // A file that reaches the limit of its size (`ulimit -f`) would end this process silently (setrlimit(2), `RLIMIT_FSIZE`);
    // blocked, the signal leaves the error to be seen.
    let mut too_large = SigSet::empty();
    too_large.add(Signal::SIGXFSZ);
    too_large
        .thread_block()
        .map_err(|error| HelperError::new(format!("could not block SIGXFSZ: {error}")))?;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        HelperError::new(format!("{}: {what}: {error}", directory.display()))
    };
    let file = nameless(directory, name).map_err(|error| {
        failed("no file can be made in it", &error)
            .hint("name a folder that exists and that the agent may write to")
    })?;
    let free = || match fstatvfs(&file) {
        Ok(system) => Ok(system.f_bavail * system.f_frsize),
        Err(error) => Err(failed("can't tell how much is free", &error)),
    };
    let before = free()?;
    if before < reserve.saturating_add(MIN_STEP_BYTES) {
        let what = format!(
            "nothing filled: {} free, of which {} are to stay",
            size(before),
            size(reserve)
        );
        return Err(failed("full enough", &what).hint("lower `reserve`, or name another folder"));
    }
    let mut filling = Filling {
        file: File::from(
            file.try_clone()
                .map_err(|error| failed("can't be used", &error))?,
        ),
        length: 0,
        step: STEP_BYTES,
        limit: None,
        block: Vec::new(),
    };
    let start = Instant::now();
    let (mut more, mut said) = (true, false);
    loop {
        let now = free()?;
        if now < reserve {
            more = false;
            filling
                .give_back(reserve - now)
                .map_err(|error| failed("can't give back", &error))?;
        } else if more {
            let step = filling.step.min(bytes - filling.length).min(now - reserve);
            more = step > 0
                && filling
                    .take(step)
                    .map_err(|error| failed("can't be filled", &error))?;
        }
        more &= filling.length < bytes;
        if !said && (!more || (filling.length > 0 && start.elapsed() >= READY_AFTER)) {
            if filling.length == 0 && filling.limit.is_none() {
                return Err(
                    failed("nothing filled", &"others took what was free meanwhile")
                        .hint("free some space, or lower `reserve`"),
                );
            }
            if let Some(limit) = filling.limit
                && filling.length < bytes / 2
            {
                let what = format!(
                    "only {} of {} is available",
                    size(filling.length),
                    size(bytes)
                );
                return Err(
                    failed("can't be filled", &format!("{what}: {limit}")).hint(hint_for(limit))
                );
            }
            said = true;
            process.ready(format!(
                "{} of {} filled, {} free",
                size(filling.length),
                size(bytes),
                size(free()?)
            ))?;
        }
        if !more {
            std::thread::sleep(CHECK_INTERVAL);
        }
    }
}

fn hint_for(limit: Errno) -> &'static str {
    match limit {
        Errno::FBIG => "a file may not be larger: raise the agent's `ulimit -f`, or ask for less",
        Errno::DQUOT => "a quota is used up: raise it, or ask for less",
        _ => "others may take the space, or the files' number may be limited: see `df` and `df -i`",
    }
}

/// The file that a helper left, where it died in the moment that its file had a name. An entry of the ledger that names another file
/// than one of a helper's is not believed.
///
/// # Errors
/// It can't be looked at, or it is nothing that a helper of this user's made.
pub(super) fn left_over(directory: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let strange = |what: &str| {
        let what = format!("`{name}` in {} {what}", directory.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    };
    if !name.starts_with(FILE_NAME_PREFIX) || name.contains('/') || !directory.is_absolute() {
        return strange("is no name that a helper gives to its file");
    }
    let path = directory.join(name);
    let file = match lstat(&path) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let is_regular = FileType::from_raw_mode(file.st_mode) == FileType::RegularFile;
    if !is_regular || file.st_uid != rustix::process::geteuid().as_raw() || file.st_nlink != 1 {
        return strange("is not a file that a helper of this user's made");
    }
    Ok(Some(path))
}

/// Removes the file's name, in case the helper died in the moment that the file had one.
#[expect(
    clippy::disallowed_methods,
    reason = "only called as an effect of the change that made the file"
)]
pub(super) fn remove_left_over(directory: &Path, name: &str) -> io::Result<()> {
    let Some(file) = left_over(directory, name)? else {
        return Ok(());
    };
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file without a name; where the file system knows none, one that has its name for a moment.
#[expect(
    clippy::disallowed_methods,
    reason = "the file has no name: the kernel frees it with this process"
)]
pub(super) fn nameless(directory: &Path, name: &str) -> Result<OwnedFd, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    // With O_EXCL it can't be given a name later either.
    match open(
        directory,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC,
        mode,
    ) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let path = directory.join(name);
            let file = open(
                &path,
                OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC,
                mode,
            )?;
            unlink(&path)?;
            Ok(file)
        }
        other => other,
    }
}

struct Filling {
    file: File,
    length: u64,
    step: u64,
    /// What the kernel said where it gave no more.
    limit: Option<Errno>,
    /// What is written where nothing can be reserved; empty until then.
    block: Vec<u8>,
}

impl Filling {
    /// Takes so much more, or less where not so much can be had. Returns whether to go on.
    #[expect(
        clippy::disallowed_methods,
        reason = "the nameless file of this process"
    )]
    fn take(&mut self, step: u64) -> Result<bool, Errno> {
        let taken = match self.block.is_empty() {
            true => {
                fallocate(&self.file, FallocateFlags::empty(), self.length, step).map(|()| step)
            }
            false => {
                let end = self
                    .block
                    .len()
                    .min(usize::try_from(step).unwrap_or(usize::MAX));
                self.file
                    .write_at(&self.block[..end], self.length)
                    .map(|count| count as u64)
                    .map_err(|error| {
                        error
                            .raw_os_error()
                            .map_or(Errno::IO, Errno::from_raw_os_error)
                    })
            }
        };
        match taken {
            Ok(taken) => self.length += taken,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.block.is_empty() => {
                // Noise, so that a file system that compresses takes it in full.
                self.block = vec![0; WRITTEN_STEP_BYTES as usize];
                ChaCha8Rng::seed_from_u64(0).fill_bytes(&mut self.block);
                self.step = WRITTEN_STEP_BYTES;
            }
            // What was possible is done.
            Err(limit @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) if step <= MIN_STEP_BYTES => {
                self.limit = Some(limit);
                return Ok(false);
            }
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
                self.step = (step / 2).max(MIN_STEP_BYTES)
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the nameless file of this process"
    )]
    fn give_back(&mut self, bytes: u64) -> Result<(), Errno> {
        self.length = self
            .length
            .saturating_sub(bytes.next_multiple_of(MIN_STEP_BYTES));
        ftruncate(&self.file, self.length)
    }
}

/// The blocks of the nameless files that a process holds open, in bytes.
fn filled(pid: i32, table: &ProcessTable) -> Option<u64> {
    let descriptors = table.entries(pid, "fd").ok()?;
    let files = descriptors.into_iter().filter_map(|descriptor| {
        let file = table.metadata(pid, &format!("fd/{descriptor}")).ok()?;
        let regular = rustix::fs::FileType::from_raw_mode(file.st_mode).is_file();
        (regular && file.st_nlink == 0).then_some((
            file.st_dev,
            file.st_ino,
            file.st_blocks as u64 * 512,
        ))
    });
    // A file that is open twice is one file.
    let mut files: Vec<_> = files.collect();
    files.sort_unstable();
    files.dedup();
    Some(files.into_iter().map(|(_, _, bytes)| bytes).sum())
}
