//! What a helper is seen to do, looked at from outside: never what it says of itself.

use super::HelperSpec;
use super::proxy::counted;
use super::spec::size;
use crate::dns::AnswerFilter;
use crate::packet_filter::PacketFilter;
use crate::metrics::memory_available;
use crate::processes::{ProcessId, ProcessTable};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;

/// What the helper with this process id is seen to do. Where there is none, 0 will do.
pub fn evidence(role: &HelperSpec, helper: i32, table: &ProcessTable) -> Effect {
    match role {
        HelperSpec::Hold { victims } => held(victims, helper, table),
        HelperSpec::Terminate { victims, .. } => ended(victims, table),
        HelperSpec::PacketFilter(filter) => filtered(filter),
        HelperSpec::Answers(answers) => answered(answers),
        HelperSpec::Proxy(_) => of_helper(helper, table, passed),
        HelperSpec::Cpu {
            workers,
            load_percent,
            cpus,
            ramp,
        } => {
            let processors = cpus.as_ref().map_or_else(processors, Vec::len);
            let asked = (*workers as f64 * load_percent).min(processors as f64 * 100.0);
            of_helper(helper, table, |id, table| busy(id, table, asked, *ramp))
        }
        HelperSpec::Memory {
            bytes,
            reserve_bytes,
            ramp,
        } => of_helper(helper, table, |id, table| {
            let resident = table.resident_bytes(id)?;
            let grown = ramp.map_or(1.0, |ramp| {
                (age(id, table).unwrap_or_default() / ramp.0.as_secs_f64()).min(1.0)
            });
            let asked = (*bytes as f64 * grown) as u64;
            let available = || memory_available().ok();
            let taken = Taken {
                bytes: table.taken_bytes(id).unwrap_or(resident),
                asked,
                reserve: *reserve_bytes,
            };
            let seen = format!(
                "{} of {} of memory taken{}",
                // Its own needs come on top.
                size(taken.bytes.min(*bytes)),
                size(*bytes),
                taken.shortfall(available)
            );
            let figures = [("resident-bytes", resident as f64)];
            Some(effect(taken.acts(available), seen, &figures))
        }),
        HelperSpec::Disk {
            directory,
            bytes,
            reserve_bytes,
            ..
        } => of_helper(helper, table, |id, table| {
            let taken = Taken {
                bytes: filled(id.pid, table)?,
                asked: *bytes,
                reserve: *reserve_bytes,
            };
            let free = || {
                let system = rustix::fs::statvfs(directory).ok()?;
                Some(system.f_bavail.saturating_mul(system.f_frsize))
            };
            let seen = format!(
                "{} of {} filled in {}{}",
                size(taken.bytes),
                size(*bytes),
                directory.display(),
                taken.shortfall(free)
            );
            let figures = [("filled-bytes", taken.bytes as f64)];
            Some(effect(taken.acts(free), seen, &figures))
        }),
    }
}

/// How far above its reserve a resource still counts as taken down to it, in bytes: helpers take steps of this size.
const NEAR_RESERVE: u64 = 8 << 20;

/// What was taken of a resource, against what should be by now, in bytes.
struct Taken {
    bytes: u64,
    asked: u64,
    reserve: u64,
}

impl Taken {
    fn is_short(&self) -> bool {
        self.bytes < self.asked / 2
    }

    /// Whether what others have left is as little as the fault may leave them.
    fn is_at_reserve(&self, left: impl Fn() -> Option<u64>) -> bool {
        left().is_some_and(|left| left <= self.reserve.saturating_add(NEAR_RESERVE))
    }

    /// Less than half of what was asked is no effect, unless the resource is taken down to the reserve.
    fn acts(&self, left: impl Fn() -> Option<u64>) -> bool {
        self.bytes > 0 && (!self.is_short() || self.is_at_reserve(left))
    }

    fn shortfall(&self, left: impl Fn() -> Option<u64>) -> &'static str {
        match self.is_short() {
            false => "",
            true if self.is_at_reserve(left) => ", down to the reserve",
            true => ", less than half of what was asked",
        }
    }
}

fn of_helper(
    helper: i32,
    table: &ProcessTable,
    look: impl FnOnce(ProcessId, &ProcessTable) -> Option<Effect>,
) -> Effect {
    let id = table.identify(helper).filter(|id| table.alive(*id));
    id.and_then(|id| look(id, table))
        .unwrap_or_else(|| effect(false, "the helper is gone".into(), &[]))
}

fn effect(acts: bool, seen: String, figures: &[(&str, f64)]) -> Effect {
    let figures = figures
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect();
    Effect {
        acts,
        seen,
        figures,
        ..Effect::default()
    }
}

fn held(victims: &[ProcessId], helper: i32, table: &ProcessTable) -> Effect {
    let there: Vec<&ProcessId> = victims.iter().filter(|id| table.alive(**id)).collect();
    let stopped = there
        .iter()
        .filter(|id| is_held(id.pid, helper, table))
        .count();
    let gone = victims.len() - there.len();
    let mut seen = format!("{stopped} of {} processes stopped", victims.len());
    if gone > 0 {
        seen += &format!(", {gone} gone");
    }
    effect(
        stopped > 0,
        seen,
        &[
            ("stopped-processes", stopped as f64),
            ("gone-processes", gone as f64),
        ],
    )
}

/// Whether every thread is held by the helper, and none of them runs.
fn is_held(pid: i32, helper: i32, table: &ProcessTable) -> bool {
    let threads = table.threads(pid);
    let mut held = 0;
    for thread in threads {
        match table.thread_stat(pid, thread).map(|stat| stat.state) {
            None | Some('Z' | 'X') => {}
            Some('t' | 'D') if table.thread_tracer(pid, thread) == Some(helper) => held += 1,
            Some(_) => return false,
        }
    }
    held > 0
}

fn ended(victims: &[ProcessId], table: &ProcessTable) -> Effect {
    let gone = victims.iter().filter(|id| !table.alive(**id)).count();
    effect(
        gone > 0,
        format!("{gone} of {} processes gone", victims.len()),
        &[("gone-processes", gone as f64)],
    )
}

fn filtered(filter: &PacketFilter) -> Effect {
    let counted = match filter.counted() {
        Ok(counted) => counted,
        Err(error) => return effect(false, format!("the kernel's counters: {error}"), &[]),
    };
    let done = filter.harm.done();
    let mut seen = format!(
        "{} packets of the chosen flows, {} of them {done}",
        counted.chosen, counted.affected
    );
    let mut figures = vec![
        ("chosen-packets".to_owned(), counted.chosen as f64),
        (format!("{done}-packets"), counted.affected as f64),
        (format!("{done}-bytes"), counted.affected_bytes as f64),
    ];
    if filter.closes_established() {
        seen += &format!(", {} live connections closed", counted.closed);
        figures.push(("closed-connections".to_owned(), counted.closed as f64));
    }
    if filter.harm.shapes() {
        seen += &format!(", of which {} dropped", counted.dropped);
        figures.push(("dropped-packets".to_owned(), counted.dropped as f64));
    }
    if counted.added > 0 {
        seen += &format!(", {} addresses added since", counted.added);
        figures.push(("added-addresses".to_owned(), counted.added as f64));
    }
    Effect {
        // Rules count what they send to a device; the device tells what has come.
        acts: (counted.affected > 0 && (counted.taken > 0 || !filter.harm.shapes()))
            || counted.closed > 0,
        seen,
        figures: figures.into_iter().collect(),
        ..Effect::default()
    }
}

/// The helper signs what it alters, and the kernel counts what bears the sign as it goes on.
fn answered(answers: &AnswerFilter) -> Effect {
    let counted = match answers.filter.counted() {
        Ok(counted) => counted,
        Err(error) => return effect(false, format!("the kernel's counters: {error}"), &[]),
    };
    let done = answers.change.done();
    effect(
        counted.affected > 0,
        format!(
            "{} packets from name servers, {} of them answers that were {done}",
            counted.chosen, counted.affected
        ),
        &[
            ("answer-packets", counted.chosen as f64),
            (&format!("{done}-answers"), counted.affected as f64),
        ],
    )
}

fn passed(id: ProcessId, table: &ProcessTable) -> Option<Effect> {
    let counted = counted(id, table)?;
    Some(effect(
        counted.affected > 0,
        format!(
            "{} connections, {} of them harmed, {} passed on",
            counted.connections,
            counted.affected,
            size(counted.bytes)
        ),
        &[
            ("connections", counted.connections as f64),
            ("harmed-connections", counted.affected as f64),
            ("passed-bytes", counted.bytes as f64),
        ],
    ))
}

/// How long a helper must have lived until the processor time that it got is held against what was asked: before, its start and
/// the coarse ticks in which it is counted weigh too much.
const JUDGED_AFTER_SECONDS: f64 = 1.0;

/// `asked` is in percent of one processor.
fn busy(id: ProcessId, table: &ProcessTable, asked: f64, ramp: Option<HumanDuration>) -> Option<Effect> {
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

/// How long a process has lived, in seconds.
fn age(id: ProcessId, table: &ProcessTable) -> Option<f64> {
    let uptime = std::fs::read_to_string(table.root().join("uptime")).ok()?;
    let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    Some(uptime - id.start as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
