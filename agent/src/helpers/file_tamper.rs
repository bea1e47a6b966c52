//! Delaying or denying operations on chosen files by the permission events of fanotify(7). When this process dies the kernel lets all
//! that wait for an answer go on.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::event_counts::{EventCount, event_counts};
use super::evidence::{effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use crate::precise_timer::{poll_timeout, use_precise_timers};
use crate::processes::{HELPER_NAME, ProcessId, ProcessTable};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use nix::errno::Errno;
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags,
    Response,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Delays or denies operations on files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileTamper {
    /// Files, and folders that stand for the files directly in them: absolute paths without links.
    pub paths: Vec<PathBuf>,
    /// Which operations are affected.
    pub on: Vec<FileOperation>,
    /// What becomes of them.
    pub verdict: FileVerdict,
    /// The chance of each operation to be affected, in percent.
    pub percent: f64,
    /// What that, and the jitter, are drawn from.
    pub seed: u64,
}

/// An operation on a file.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum FileOperation {
    /// The file is opened.
    Open,
    /// The file is read.
    Read,
    /// Reading, writing, truncating or mapping it, from Linux 6.14 on and not on every file system.
    Access,
}

/// What becomes of an operation on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileVerdict {
    /// It is done so much later, give or take the jitter.
    Delay {
        /// How much later it is done.
        delay: HumanDuration,
        /// At the most so much more or less, evenly spread.
        jitter: HumanDuration,
    },
    /// It fails with the error of this number.
    Error(i32),
}

/// `FAN_PRE_ACCESS` of the kernel's `include/uapi/linux/fanotify.h`, from Linux 6.14 on.
const FAN_PRE_ACCESS: u64 = 0x0010_0000;
/// Where the error stands in a denying response (`FAN_DENY_ERRNO`), from Linux 6.14 on.
const ERRNO_SHIFT: u32 = 24;

impl FileTamper {
    fn mask(&self) -> MaskFlags {
        let mut mask = MaskFlags::empty();
        for operation in &self.on {
            mask |= match operation {
                FileOperation::Open => MaskFlags::FAN_OPEN_PERM,
                FileOperation::Read => MaskFlags::FAN_ACCESS_PERM,
                FileOperation::Access => MaskFlags::from_bits_retain(FAN_PRE_ACCESS),
            };
        }
        mask
    }

    /// Asks the kernel for the events.
    fn watch(&self) -> io::Result<Fanotify> {
        // This class alone may give an error of its own with a denial.
        let flags = InitFlags::FAN_CLASS_PRE_CONTENT
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)?;
        for path in &self.paths {
            let is_folder = rustix::fs::stat(path)
                .map(|file| rustix::fs::FileType::from_raw_mode(file.st_mode).is_dir())?;
            let mut mask = self.mask();
            if is_folder {
                mask |= MaskFlags::FAN_EVENT_ON_CHILD;
            }
            let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_DONT_FOLLOW;
            group
                .mark(flags, mask, rustix::fs::CWD, Some(path.as_path()))
                .map_err(|errno| {
                    let error = io::Error::from(errno);
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
        }
        Ok(group)
    }

    /// Asks the kernel whether it gives the events, and takes the request back at once.
    ///
    /// # Errors
    /// It does not: what it said.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.watch().map(drop)
    }
}

impl Helper for FileTamper {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        let share = match self.percent {
            percent if percent < 100.0 => format!("{percent} % of "),
            _ => String::new(),
        };
        let on: Vec<&str> = self
            .on
            .iter()
            .map(|operation| match operation {
                FileOperation::Open => "opens",
                FileOperation::Read => "reads",
                FileOperation::Access => "reads, writes and mappings",
            })
            .collect();
        let paths: Vec<String> = self
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let verdict = match self.verdict {
            FileVerdict::Delay { delay, jitter } if jitter.0.is_zero() => {
                format!("wait for {delay}")
            }
            FileVerdict::Delay { delay, jitter } => format!("wait for {delay} ± {jitter}"),
            FileVerdict::Error(number) => format!("fail: {}", Errno::from_raw(number).desc()),
        };
        format!(
            "answer the kernel's questions about {}: {share}{} {verdict}",
            paths.join(", "),
            on.join(" and ")
        )
    }

    fn describe_end(&self) -> &'static str {
        "the kernel lets all that wait go on, and asks no more"
    }

    fn holds(&self) -> Vec<String> {
        self.paths
            .iter()
            .map(|path| format!("file:{}", path.display()))
            .collect()
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let counts = event_counts(id, table)?;
            let (asked, affected) = (*counts.first()?, *counts.get(1)?);
            let marks = marks(id, table)?;
            let seen = format!(
                "{affected} of {asked} operations affected, {marks} of {} paths watched",
                self.paths.len()
            );
            let figures = [
                ("affected-operations", affected as f64),
                ("operations", asked as f64),
                ("watched-paths", marks as f64),
            ];
            Some(effect(affected > 0 && marks > 0, seen, &figures))
        })
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = MemoryBallast;

    fn substitute(_: &Value) -> Option<MemoryBallast> {
        Some(MemoryBallast::NONE)
    }
}

/// How many files and folders the kernel asks a process about, as it shows under `/proc/PID/fdinfo`. A file that is gone is not among them.
fn marks(id: ProcessId, table: &ProcessTable) -> Option<usize> {
    let descriptors = table.entries(id.pid, "fdinfo").ok()?;
    let marks = descriptors.into_iter().map(|descriptor| {
        let file = table.root().join(format!("{}/fdinfo/{descriptor}", id.pid));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("fanotify ino:"))
            .count()
    });
    Some(marks.sum())
}

fn run(tamper: &FileTamper, process: &HelperProcess) -> Result<(), HelperError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        HelperError::new(format!("could not {what}: {error}"))
    };
    use_precise_timers().map_err(|error| failed("set its timers", &error))?;
    // Each operation that waits is a descriptor.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // With fewer, fewer can wait at a time.
    setrlimit(Resource::Nofile, raised).ok();
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = || EventCount::new().map_err(|error| failed("count", &error));
    let (asked, affected) = (count()?, count()?);
    let group = tamper.watch().map_err(|error| {
        failed("watch the files", &error)
            .hint("`access` requires Linux 6.14 and ext4, xfs or btrfs; all of it CAP_SYS_ADMIN")
    })?;
    let mut answering = Answering {
        tamper,
        group,
        asked,
        affected,
        rng: ChaCha8Rng::seed_from_u64(tamper.seed),
        table: ProcessTable::default(),
        waiting: BTreeMap::new(),
        number: 0,
        max_waiting: usize::try_from(descriptors / 2).unwrap_or(usize::MAX),
    };
    process.ready(format!("{} paths watched", tamper.paths.len()))?;
    loop {
        answering.take();
        let now = Instant::now();
        answering.release_due(now);
        let due = answering.waiting.keys().next().map(|(due, _)| *due);
        // A failure to wait would only make this loop turn faster.
        poll(
            &mut [PollFd::new(&answering.group, PollFlags::IN)],
            poll_timeout(due, now).as_ref(),
        )
        .ok();
    }
}

struct Answering<'a> {
    tamper: &'a FileTamper,
    group: Fanotify,
    /// Operations that the kernel has asked about.
    asked: EventCount,
    /// Those that were delayed or denied.
    affected: EventCount,
    rng: ChaCha8Rng,
    table: ProcessTable,
    /// The operations that wait, by the time when they go on and the order in which they came.
    waiting: BTreeMap<(Instant, u64), FanotifyEvent>,
    number: u64,
    /// How many may wait at a time.
    max_waiting: usize,
}

impl Answering<'_> {
    /// Answers all that is asked, or has it wait.
    fn take(&mut self) {
        while let Ok(events) = self.group.read_events() {
            for event in events {
                self.decide(event);
            }
        }
    }

    fn decide(&mut self, event: FanotifyEvent) {
        if self.is_own(event.pid()) {
            return self.answer(&event, Response::FAN_ALLOW);
        }
        self.asked.add(1);
        if 100.0 * self.draw() >= self.tamper.percent {
            return self.answer(&event, Response::FAN_ALLOW);
        }
        self.affected.add(1);
        match self.tamper.verdict {
            FileVerdict::Error(number) => {
                let denied = Response::FAN_DENY.bits() | (number as u32) << ERRNO_SHIFT;
                self.answer(&event, Response::from_bits_retain(denied));
            }
            FileVerdict::Delay { delay, jitter } => {
                let spread = jitter.0.as_secs_f64() * (2.0 * self.draw() - 1.0);
                let wait = (delay.0.as_secs_f64() + spread).max(0.0);
                let now = Instant::now();
                let due = now.checked_add(Duration::from_secs_f64(wait));
                self.number += 1;
                self.waiting
                    .insert((due.unwrap_or(now), self.number), event);
                while self.waiting.len() > self.max_waiting {
                    self.release_first();
                }
            }
        }
    }

    /// A number from 0 up to 1.
    fn draw(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether a process is of the agent, which must not wait for itself.
    fn is_own(&self, pid: i32) -> bool {
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        pid == std::process::id() as i32
            || Some(pid) == parent
            || parent.is_some_and(|parent| {
                self.table
                    .stat(parent)
                    .is_some_and(|stat| stat.parent == pid && pid > 1)
            })
            || self.table.name(pid).as_deref() == Some(HELPER_NAME)
    }

    fn release_due(&mut self, now: Instant) {
        while self
            .waiting
            .keys()
            .next()
            .is_some_and(|(due, _)| *due <= now)
        {
            self.release_first();
        }
    }

    fn release_first(&mut self) {
        if let Some((_, event)) = self.waiting.pop_first() {
            self.answer(&event, Response::FAN_ALLOW);
        }
    }

    /// Answers the kernel. What it does not understand it would leave waiting, so that is allowed.
    fn answer(&self, event: &FanotifyEvent, response: Response) {
        let Some(file) = event.fd() else { return };
        let answered = self
            .group
            .write_response(FanotifyResponse::new(file, response));
        if answered.is_err() && response != Response::FAN_ALLOW {
            let allowed = FanotifyResponse::new(file, Response::FAN_ALLOW);
            // The one who waited may be gone.
            self.group.write_response(allowed).ok();
        }
    }
}
