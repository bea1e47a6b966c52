//! Keeping processors busy: each thread works until it has had its share of the time that has
//! passed, counted in its own processor time, and sleeps for the rest of every short period.

use super::HelperError;
use super::bootstrap::HelperProcess;
use backburn_experiments::HumanDuration;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a share is a share of: short against anything that a service would call a pause.
const PERIOD: Duration = Duration::from_millis(20);
/// The most processor time that a thread makes up for once others let it: it is that much over its share then.
const MAX_OWED: Duration = Duration::from_millis(200);
/// How long is watched before the load is called ready.
const MEASURED_FOR: Duration = Duration::from_millis(40);

pub(super) fn run(
    workers: usize,
    load_percent: f64,
    cpus: Option<&[usize]>,
    ramp: Option<HumanDuration>,
    life: &HelperProcess,
) -> Result<(), HelperError> {
    if workers == 0
        || !(load_percent > 0.0 && load_percent <= 100.0)
        || cpus.is_some_and(<[usize]>::is_empty)
    {
        return Err(HelperError::new(
            "no load: at least one worker, more than 0 and up to 100% and a processor are wanted",
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
    life.ready(format!(
        "{workers} {threads} used {} ms of processor time in {} ms",
        used.as_millis(),
        MEASURED_FOR.as_millis()
    ))?;
    life.wait_for_ever()
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
