//! Keeping a disk busy by reading and writing a file that has no name, past the page cache where the file system lets that be, so
//! that the kernel frees it when this process dies.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::disk::{left_over, nameless, remove_left_over};
use super::display::size;
use super::evidence::{age, effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::written::field;
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::wire::Effect;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl, fdatasync};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What unbuffered reads and writes must be aligned to, in memory and on the disk.
const ALIGNMENT: usize = 4096;
/// How much is written at once when the file is made.
const STEP_BYTES: usize = 1 << 20;
/// How long a late worker makes up for what it could not do.
const MAX_BEHIND: Duration = Duration::from_millis(100);
/// How long a helper must have lived until its rate is held against what was asked.
const JUDGED_AFTER_SECONDS: f64 = 1.0;

/// Keeps a disk busy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskLoad {
    /// A folder on the file system.
    pub directory: PathBuf,
    /// The name that the file bears for a moment on a file system without nameless files.
    pub name: String,
    /// The size of the file, in bytes.
    pub file_bytes: u64,
    /// The number of threads.
    pub workers: usize,
    /// How much is read or written at once, in bytes.
    pub block_bytes: usize,
    /// The share of reads, in percent; the rest are writes.
    pub read_percent: f64,
    /// The most that all threads together read and write in a second, in bytes; none for as much as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// What places are drawn from.
    pub seed: u64,
}

impl Helper for DiskLoad {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        let rate = self.rate.map_or_else(
            || "as fast as possible".to_owned(),
            |rate| format!("at most {} a second", size(rate)),
        );
        format!(
            "read ({} %) and write blocks of {} in a nameless file of {} in {}, {} at a time, {rate}",
            self.read_percent,
            size(self.block_bytes as u64),
            size(self.file_bytes),
            self.directory.display(),
            self.workers,
        )
    }

    fn describe_end(&self) -> &'static str {
        "the kernel frees the file, which has no name"
    }

    fn holds(&self) -> Vec<String> {
        let device = rustix::fs::stat(&self.directory).map(|folder| folder.st_dev);
        vec![device.map_or_else(
            |_| format!("disk-load:{}", self.directory.display()),
            |device| format!("disk-load:{device}"),
        )]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Folder(&self.directory)
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let moved = Moved::of(id, table)?;
            let seconds = age(id, table)?.max(0.01);
            let rate = (moved.read + moved.written) as f64 / seconds;
            let asked = self.rate.map_or(0.0, |rate| rate as f64);
            let is_short = seconds >= JUDGED_AFTER_SECONDS && rate < asked / 2.0;
            let mut seen = format!(
                "{} read and {} written, {} a second, {} of both by the disk",
                size(moved.read),
                size(moved.written),
                size(rate as u64),
                size(moved.by_disk),
            );
            if is_short {
                seen += ": less than half of what was asked";
            }
            let figures = [
                ("read-bytes", moved.read as f64),
                ("written-bytes", moved.written as f64),
                ("disk-bytes", moved.by_disk as f64),
            ];
            Some(effect(rate > 0.0 && !is_short, seen, &figures))
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

    type Substitute = super::DiskBallast;

    fn substitute(written: &Value) -> Option<super::DiskBallast> {
        Some(super::DiskBallast {
            directory: field(written, "directory")?,
            bytes: 0,
            reserve_bytes: 0,
            name: field(written, "name")?,
        })
    }
}

/// What the kernel has counted of a process's reads and writes, in bytes (proc_pid_io(5)).
struct Moved {
    read: u64,
    written: u64,
    /// What of it the disk has done.
    by_disk: u64,
}

impl Moved {
    fn of(id: ProcessId, table: &ProcessTable) -> Option<Self> {
        let text = std::fs::read_to_string(table.root().join(format!("{}/io", id.pid))).ok()?;
        let figure = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse().ok()
        };
        let moved = Moved {
            read: figure("rchar:")?,
            written: figure("wchar:")?,
            by_disk: figure("read_bytes:")? + figure("write_bytes:")?,
        };
        table.alive(id).then_some(moved)
    }
}

fn run(load: &DiskLoad, process: &HelperProcess) -> Result<(), HelperError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        HelperError::new(format!("{}: {what}: {error}", load.directory.display()))
    };
    let file = nameless(&load.directory, &load.name).map_err(|error| {
        failed("no file can be made in it", &error)
            .hint("name a folder that exists and that the agent may write to")
    })?;
    let file = File::from(file);
    // Without O_DIRECT each write is synced, and each read is dropped from the page cache before.
    let is_direct = fcntl_getfl(&file)
        .and_then(|flags| fcntl_setfl(&file, flags | OFlags::DIRECT))
        .is_ok();
    let ready = AtomicU64::new(0);
    let reserved = fill_one(&file, load, 0).map_err(|error| {
        failed("can't be written", &error).hint("the file system may be full or limited; see `df`")
    })?;
    ready.store(reserved, Ordering::Release);
    std::thread::scope(|threads| {
        for worker in 0..load.workers as u64 {
            let (file, ready) = (&file, &ready);
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn_scoped(threads, move || work(file, ready, load, worker, is_direct))
                .map_err(|error| failed("no thread can be started", &error))?;
        }
        let direct = match is_direct {
            true => "past the page cache",
            false => {
                "with a sync after each write, since this file system has no unbuffered access"
            }
        };
        process.ready(format!("{} threads read and write, {direct}", load.workers))?;
        let mut length = reserved;
        while length < load.file_bytes {
            // A full file system is enough of a file.
            let Ok(step) = fill_one(&file, load, length) else {
                break;
            };
            length += step;
            ready.store(length, Ordering::Release);
        }
        process.wait_for_ever()
    })
}

/// A block of noise, at an address that unbuffered access takes: the block begins at the number returned.
fn block(bytes: usize, seed: u64) -> (Vec<u8>, usize) {
    let mut room = vec![0; bytes + ALIGNMENT];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut room);
    let start = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    (room, start)
}

/// Writes the next piece of the file. Returns its length.
fn fill_one(file: &File, load: &DiskLoad, at: u64) -> io::Result<u64> {
    let step = STEP_BYTES.max(load.block_bytes);
    let (room, start) = block(step, load.seed ^ at);
    let piece = room.get(start..start + step).unwrap_or_default();
    file.write_all_at(piece, at)?;
    Ok(step as u64)
}

/// Reads and writes for ever.
fn work(file: &File, ready: &AtomicU64, load: &DiskLoad, worker: u64, is_direct: bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(load.seed);
    rng.set_stream(worker);
    let bytes = load.block_bytes;
    let (mut room, start) = block(bytes, worker);
    let pause = load.rate.map(|rate| {
        let each = rate as f64 / load.workers as f64;
        Duration::from_secs_f64(bytes as f64 / each)
    });
    let mut due = Instant::now();
    loop {
        if let Some(pause) = pause {
            let now = Instant::now();
            std::thread::sleep(due.saturating_duration_since(now));
            due = due.max(now.checked_sub(MAX_BEHIND).unwrap_or(now)) + pause;
        }
        let blocks = (ready.load(Ordering::Acquire) / bytes as u64).max(1);
        let at = rng.next_u64() % blocks * bytes as u64;
        let is_read =
            100.0 * ((rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64) < load.read_percent;
        let Some(room) = room.get_mut(start..start + bytes) else {
            return;
        };
        let done = match is_read {
            true => {
                if !is_direct {
                    // Advice may be ignored; then the read comes from memory, and the disk's figure shows it.
                    fadvise(file, at, NonZeroU64::new(bytes as u64), Advice::DontNeed).ok();
                }
                file.read_at(room, at).map(drop)
            }
            false => file.write_at(room, at).and_then(|_| match is_direct {
                true => Ok(()),
                false => Ok(fdatasync(file)?),
            }),
        };
        if done.is_err() {
            // A disk that fails is as busy as it gets.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_is_aligned_and_within_its_room() {
        for bytes in [4096, 8192, 1 << 20] {
            let (room, start) = block(bytes, 1);
            assert!(start + bytes <= room.len());
            assert_eq!(room[start..].as_ptr() as usize % ALIGNMENT, 0);
        }
    }
}
