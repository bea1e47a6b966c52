//! `clock-skew`: processes read another time of day, as on a host whose clock is wrong.

use super::host_clock_plan::plan_host_clock;
use super::{FaultKind, Plan, PlanContext, process_victim, select};
use crate::changes::{Change, NotSkewable, ProcessClock, SkewedProcess, offset_text};
use crate::processes::{Process, ProcessSelector, SeccompMode};
use crate::units::SignedDuration;
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Has processes, or the whole host, read a wrong time of day. Clocks that count from the start of the host (monotonic, boot time), and so most timers and
/// timeouts, go on as before.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClockSkew {
    /// Which processes to hit: one of those that match, at random, unless `select` says otherwise. Give either this or `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<ProcessSelector>,
    /// Whether to set the clock of the host itself, for every process and container on it. The policy must name `clock-skew` in
    /// `allow-host-faults` for that. Give either this or `process`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<bool>,
    /// What is added to the time of day: `+1h` is an hour later, `-5m` five minutes earlier. At least 1 ms (of a host, 1 s), at most 10
    /// years of 365 days.
    offset: SignedDuration,
}

/// The shortest offset of a host, in milliseconds: whoever sets its clock by less may be a time daemon.
const MIN_HOST_OFFSET_MS: u64 = 1_000;
/// The longest offset: ten years, in milliseconds.
const MAX_OFFSET_MS: u64 = 315_360_000_000;

impl FaultKind for ClockSkew {
    const NAME: &'static str = "clock-skew";
    const SUMMARY: &'static str = "Have processes, or a whole host, read a wrong time of day";

    fn example() -> Value {
        json!({"process": {"name": "redis-server"}, "offset": "-5m"})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let is_host = self.host == Some(true);
        match &self.process {
            Some(_) if is_host => problems.push(
                Problem::new("$.host", "`process` and `host` exclude each other")
                    .hint("give `process` for some processes, or `host` for all of the host"),
            ),
            Some(process) => problems.extend(process.problems("$.process")),
            None if is_host => {}
            None => problems.push(Problem::new("$", "whose clock to skew is not given").hint(
                "give `process`, such as `{\"name\": \"redis-server\"}`, or `\"host\": true`",
            )),
        }
        let millis = self.offset.millis().unsigned_abs();
        if is_host && (1..MIN_HOST_OFFSET_MS).contains(&millis) {
            let what = format!("the clock of a host cannot be skewed by {}", self.offset);
            problems.push(
                Problem::new("$.offset", what).hint("give at least 1 s, such as `+1h` or `-5m`"),
            );
        }
        if millis == 0 || millis > MAX_OFFSET_MS {
            let what = format!("a clock cannot be skewed by {}", self.offset);
            problems.push(
                Problem::new("$.offset", what)
                    .hint("give at least 1 ms and at most 10 years, such as `+1h` or `-5m`"),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let Some(process) = &self.process else {
            return plan_host_clock(Self::NAME, self.offset.millis(), context);
        };
        let (found, mut notes) = select(process, context)?;
        let mark = context.mark(0);
        let (mut hit, mut skewed, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for process in &found {
            match skewable(process, &mark, context)? {
                Ok(plan) => {
                    hit.push(process);
                    skewed.push(plan);
                }
                Err(why) => left.push(format!("{process} is left alone: {why}")),
            }
        }
        if skewed.is_empty() {
            return Err(Refusal::new(
                "not-available",
                format!(
                    "the clock of no such process can be altered: {}",
                    left.join("; ")
                ),
            )
            .hint("choose a 64-bit process that has a vDSO"));
        }
        notes.append(&mut left);
        notes.push(format!(
            "{} of {} chosen processes read clocks by the vDSO and are altered",
            skewed.len(),
            found.len()
        ));
        for process in &hit {
            notes.extend(filter_note(process, context));
            notes.extend(static_note(process, context));
        }
        notes.extend(self.notes());
        Ok(Plan {
            victims: hit.into_iter().map(process_victim).collect(),
            changes: vec![Change::ProcessClock(ProcessClock {
                mark,
                offset_ms: self.offset.millis(),
                victims: skewed,
            })],
            notes,
            ..Plan::default()
        })
    }
}

impl ClockSkew {
    /// What the offset does to a process, and what it does not.
    fn notes(&self) -> Vec<String> {
        let millis = self.offset.millis();
        let length = HumanDuration::millis(millis.unsigned_abs());
        let waits = match millis < 0 {
            true => format!(
                "waits until a time of day (`pthread_cond_timedwait`, `sem_timedwait` and others by CLOCK_REALTIME) end up to {length} early, since the kernel keeps the right time"
            ),
            false => format!(
                "waits until a time of day (`pthread_cond_timedwait`, `sem_timedwait` and others by CLOCK_REALTIME) end up to {length} late, since the kernel keeps the right time; one that begins before the end of the fault is not shortened by it"
            ),
        };
        vec![
            format!("they read a time {}; monotonic clocks, and timers by them, are not altered", offset_text(millis)),
            waits,
            "programs that ask the kernel by system calls of their own, and processes without a vDSO, read the right time".into(),
            "children that the processes fork read the wrong time too, and are reverted with them; programs that they start anew (exec) read the right one".into(),
            "reading a clock becomes slower, by some 0.2 µs, since the kernel is asked each time".into(),
        ]
    }
}

/// What is altered in a process, or why this one is left alone.
///
/// # Errors
/// It could be altered, but not by this agent, or not now.
fn skewable(
    process: &Process,
    mark: &str,
    context: &PlanContext<'_>,
) -> Result<Result<SkewedProcess, String>, Refusal> {
    // One that another injection holds may have a tracer; it is refused with its name once there is a plan.
    if !context.is_held(process.id) {
        context.host.check_freezable(process.id).map_err(|why| {
            Refusal::new(
                "not-traceable",
                format!("the clock of {process} cannot be altered: {why}"),
            )
            .hint("a process has one tracer at a time, and the agent needs CAP_SYS_PTRACE for those of other users")
        })?;
    }
    let table = context.host.processes();
    if table.seccomp_mode(process.id.pid, process.id.pid) == SeccompMode::Strict {
        let why = "it may not ask the kernel for the time (seccomp, strict mode)";
        return Ok(Err(why.into()));
    }
    let vdso = table.vdso(process.id).map_err(|error| {
        Refusal::new(
            "not-permitted",
            format!("the memory of {process} cannot be read: {error}"),
        )
        .hint("run the agent as root, with CAP_SYS_PTRACE")
    })?;
    match SkewedProcess::of(process.id, vdso, mark) {
        Ok(skewed) => Ok(Ok(skewed)),
        Err(why @ NotSkewable::Skewed(_)) => Err(Refusal::new(
            "overlap",
            format!("the clock of {process} cannot be altered: {why}"),
        )
        .hint("wait until that injection is over; a process that was forked meanwhile is reverted with it")),
        Err(why) => Ok(Err(why.to_string())),
    }
}

/// A note where filters decide about a process's system calls: they cannot be read without stopping it.
fn filter_note(process: &Process, context: &PlanContext<'_>) -> Option<String> {
    let pid = process.id.pid;
    let is_filtered = context.host.processes().seccomp_mode(pid, pid) == SeccompMode::Filter;
    is_filtered.then(|| {
        format!("{process} has filters of system calls (seccomp): whether they permit `clock_gettime` is checked before anything is altered")
    })
}

/// A note where a program has no C library to be seen, so that nobody can tell how it reads the time.
fn static_note(process: &Process, context: &PlanContext<'_>) -> Option<String> {
    let is_static = context
        .host
        .processes()
        .is_statically_linked(process.id.pid)?;
    is_static.then(|| {
        format!("{process} is statically linked: whether it reads clocks by the vDSO, and so the wrong time, is not known before")
    })
}
