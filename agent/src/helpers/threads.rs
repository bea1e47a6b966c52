//! Taking the kernel's room for processes with threads that do nothing, and never so many that fewer than the reserve can still be
//! started: whoever ends this needs to start something.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::evidence::{effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use crate::processes::{ProcessTable, ThreadRoom};
use backburn_experiments::wire::Effect;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What each thread has for itself; it needs a page or two.
const STACK_BYTES: usize = 16 << 10;
/// How many threads are started between two checks of what is left.
const STEP: u64 = 200;
/// How long starting threads may go on before it is called ready; it goes on after.
const READY_AFTER: Duration = Duration::from_secs(2);
/// How often what others need is checked, once all are started.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Takes the room for processes with threads that do nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ThreadBallast {
    /// The number of threads.
    pub count: u64,
    /// How many others must still be able to start. Never taken, and given back when others need them.
    pub reserve: u64,
}

impl Helper for ThreadBallast {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self.count, self.reserve, process)
    }

    fn describe(&self) -> String {
        format!(
            "start {} threads that do nothing, with room for {} more always left",
            self.count, self.reserve
        )
    }

    fn describe_end(&self) -> &'static str {
        "its threads end with it"
    }

    fn holds(&self) -> Vec<String> {
        vec!["threads".into()]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let threads = table.stat_of(id)?.threads.saturating_sub(1);
            let room = table.thread_room().ok();
            let is_at_reserve = room
                .as_ref()
                .is_some_and(|room| room.free() <= self.reserve.saturating_add(2 * STEP));
            let is_short = threads < self.count / 2;
            let mut seen = format!("{threads} of {} threads started", self.count);
            if let Some(room) = &room {
                seen += &format!(", {room}");
            }
            match (is_short, is_at_reserve) {
                (true, true) => seen += ", down to the reserve",
                (true, false) => seen += ", less than half of what was asked",
                _ => {}
            }
            let acts = threads > 0 && (!is_short || is_at_reserve);
            Some(effect(acts, seen, &[("threads", threads as f64)]))
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

/// How many threads are to stay: one with a higher number ends.
type Wanted = Arc<(Mutex<u64>, Condvar)>;

fn run(count: u64, reserve: u64, process: &HelperProcess) -> Result<(), HelperError> {
    process.first_to_be_killed()?;
    let table = ProcessTable::default();
    let room = || -> Result<ThreadRoom, HelperError> {
        table
            .thread_room()
            .map_err(|error| HelperError::new(format!("no limit of threads is known: {error}")))
    };
    let before = room()?;
    if before.free() <= reserve {
        return Err(HelperError::new(format!(
            "no thread started: {before}, and {reserve} are to stay free"
        ))
        .hint("lower `reserve`, or end some processes first"));
    }
    let wanted: Wanted = Arc::new((Mutex::new(u64::MAX), Condvar::new()));
    let begin = Instant::now();
    let (mut started, mut starting, mut said) = (0_u64, true, false);
    let mut limit = None;
    loop {
        let free = room()?.free();
        if free < reserve {
            starting = false;
            started = started.saturating_sub(reserve - free + STEP);
            keep(&wanted, started);
        } else if starting {
            let step = STEP.min(count - started).min(free - reserve);
            for _ in 0..step {
                match start(&wanted, started) {
                    Ok(()) => started += 1,
                    Err(error) => {
                        limit = Some(error);
                        starting = false;
                        break;
                    }
                }
            }
            starting &= step > 0 && started < count;
        }
        if !said && (!starting || begin.elapsed() >= READY_AFTER) {
            if let Some(error) = limit.as_ref().filter(|_| started < count / 2) {
                return Err(HelperError::new(format!(
                    "only {started} of {count} threads could be started: {error}"
                ))
                .hint("another limit is tighter: see `ulimit -u`, `vm.max_map_count` and `pids.max` of the agent's control group"));
            }
            said = true;
            process.ready(format!("{started} of {count} threads started, {}", room()?))?;
        }
        if !starting {
            std::thread::sleep(CHECK_INTERVAL);
        }
    }
}

/// Starts a thread that ends when fewer than its number are to stay.
fn start(wanted: &Wanted, number: u64) -> io::Result<()> {
    let wanted = Arc::clone(wanted);
    let wait = move || {
        let (kept, changed) = &*wanted;
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(kept, |kept| number < *kept));
    };
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(wait)
        .map(drop)
}

/// Ends the threads from this number on.
fn keep(wanted: &Wanted, number: u64) {
    let (kept, changed) = &**wanted;
    *kept.lock().unwrap_or_else(PoisonError::into_inner) = number;
    changed.notify_all();
}
