//! Keeping processors busy: each thread works until it has had its share of the time that has
//! passed, counted in its own processor time, and sleeps for the rest of every short period.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::display::growing;
use super::evidence::{age, effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::hint::black_box;
use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a share is a share of: short against anything that a service would call a pause.
const PERIOD: Duration = Duration::from_millis(20);
/// The most processor time that a thread makes up for once others let it: it is that much over its share then.
const MAX_OWED: Duration = Duration::from_millis(200);
/// How long is watched before the load is called ready.
const MEASURED_FOR: Duration = Duration::from_millis(40);

/// Keeps processors busy for a share of their time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CpuLoad {
    /// The number of threads.
    pub workers: usize,
    /// The share of a processor that each thread takes, in percent.
    pub load_percent: f64,
    /// The processors, by number, over which the threads are spread and on which they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Vec<usize>>,
    /// The time in which the load grows from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<HumanDuration>,
}

impl Helper for CpuLoad {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        let cpus = self.cpus.as_deref();
        run(self.workers, self.load_percent, cpus, self.ramp, process)
    }

    fn describe(&self) -> String {
        let threads = if self.workers == 1 {
            "thread"
        } else {
            "threads"
        };
        let mut text = format!(
            "{} {threads}, each busy for {}% of the time",
            self.workers, self.load_percent
        );
        if let Some(cpus) = &self.cpus {
            let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
            text += &format!(", on processors {}", cpus.join(", "));
        }
        text + &growing(self.ramp)
    }

    fn describe_end(&self) -> &'static str {
        "its threads end with it"
    }

    fn holds(&self) -> Vec<String> {
        match &self.cpus {
            None => vec!["cpu".into()],
            Some(cpus) => cpus.iter().map(|cpu| format!("cpu:{cpu}")).collect(),
        }
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        let processors = self.cpus.as_ref().map_or_else(processors, Vec::len);
        let asked = (self.workers as f64 * self.load_percent).min(processors as f64 * 100.0);
        effect_of_living(helper, table, |id, table| busy(id, table, asked, self.ramp))
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

fn run(
    workers: usize,
    load_percent: f64,
    cpus: Option<&[usize]>,
    ramp: Option<HumanDuration>,
    process: &HelperProcess,
) -> Result<(), HelperError> {
    if workers == 0
        || !(load_percent > 0.0 && load_percent <= 100.0)
        || cpus.is_some_and(<[usize]>::is_empty)
    {
        return Err(HelperError::new(
            "no load: requires at least one worker, a load above 0 and up to 100%, and at least one processor",
        ));
    }
    let ramp = ramp.map_or(Duration::ZERO, Duration::from);
    let (tell, started) = mpsc::channel();
    for worker in 0..workers {
        let cpu = cpus.map(|cpus| cpus[worker % cpus.len()]);
        let tell = tell.clone();
        let work = move || {
            if tell.send(pin(cpu)).is_ok() {
                drop(tell);
                work(load_percent / 100.0, ramp);
            }
        };
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(work)
            .map_err(|error| {
                HelperError::new(format!(
                    "could not start thread {worker} of {workers}: {error}"
                ))
            })?;
    }
    for _ in 0..workers {
        started
            .recv()
            .map_err(|_| HelperError::new("a thread ended before it began to work"))??;
    }
    let before = process_time();
    std::thread::sleep(MEASURED_FOR);
    let used = process_time().saturating_sub(before);
    let threads = if workers == 1 { "thread" } else { "threads" };
    process.ready(format!(
        "{workers} {threads} used {} ms of processor time in {} ms",
        used.as_millis(),
        MEASURED_FOR.as_millis()
    ))?;
    process.wait_for_ever()
}

fn pin(cpu: Option<usize>) -> Result<(), HelperError> {
    let Some(cpu) = cpu else {
        return Ok(());
    };
    let failed = |why: &str| {
        HelperError::new(format!(
            "processor {cpu}: a thread can't be kept on it: {why}"
        ))
        .hint("`nproc` and `taskset -cp $$` tell which processors there are and may be used")
    };
    if cpu >= CpuSet::MAX_CPU {
        return Err(failed("no such processor"));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| failed(&error.to_string()))
}

/// Works for ever. What others kept it from is made up for, as far as [`MAX_OWED`].
fn work(share: f64, ramp: Duration) {
    let start = Instant::now();
    let mut last = start;
    // Processor time that it should have had until now and has not, in seconds; below zero, where it had more.
    let mut owed = 0.0;
    let mut had = thread_time();
    loop {
        let begin = Instant::now();
        let grown = match ramp.is_zero() {
            true => 1.0,
            false => (start.elapsed().as_secs_f64() / ramp.as_secs_f64()).min(1.0),
        };
        // A period takes longer where others have the processor meanwhile.
        let passed = begin.duration_since(last);
        last = begin;
        owed = (owed + passed.as_secs_f64() * share * grown).min(MAX_OWED.as_secs_f64());
        while begin.elapsed() < PERIOD {
            let has = thread_time();
            owed -= has.saturating_sub(had).as_secs_f64();
            had = has;
            if owed <= 0.0 && share < 1.0 {
                std::thread::sleep(PERIOD.saturating_sub(begin.elapsed()));
                break;
            }
            burn();
        }
    }
}

/// Some tens of microseconds of arithmetic.
fn burn() {
    let mut value = 1_u64;
    for step in 0..20_000_u64 {
        value = black_box(
            value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(step),
        );
    }
    black_box(value);
}

fn thread_time() -> Duration {
    reading(ClockId::ThreadCPUTime)
}

fn process_time() -> Duration {
    reading(ClockId::ProcessCPUTime)
}

fn reading(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// How long a helper must have lived until the processor time that it got is held against what was asked: before, its start and
/// the coarse ticks in which it is counted weigh too much.
const JUDGED_AFTER_SECONDS: f64 = 1.0;

/// `asked` is in percent of one processor.
fn busy(
    id: ProcessId,
    table: &ProcessTable,
    asked: f64,
    ramp: Option<HumanDuration>,
) -> Option<Effect> {
    let used = table.cpu_seconds(id)?;
    let lived = age(id, table)?;
    let percent = if lived > 0.0 {
        100.0 * used / lived
    } else {
        0.0
    };
    // What the load comes to on average, where it grows evenly at first.
    let ramp = ramp.map_or(0.0, |ramp| ramp.0.as_secs_f64());
    let average = if lived < ramp {
        lived / (2.0 * ramp)
    } else {
        1.0 - ramp / (2.0 * lived.max(f64::MIN_POSITIVE))
    };
    let asked = asked * average;
    let is_short = lived >= JUDGED_AFTER_SECONDS && percent < asked / 2.0;
    let mut seen = format!(
        "{used:.2} s of processor time used, {percent:.0}% of one processor since it began, of {asked:.0}% asked"
    );
    if is_short {
        seen += ": less than half, others or a limit keep it from more";
    }
    Some(effect(
        used > 0.0 && !is_short,
        seen,
        &[("cpu-seconds", used), ("cpu-percent", percent)],
    ))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
