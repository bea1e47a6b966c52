//! What the faults that alter system calls share: their plan.

use super::{Plan, PlanContext, process_victim, select};
use crate::changes::{Change, ProcessHelper};
use crate::helpers::{CallAlteration, HelperSpec, Tamper};
use crate::processes::{OneOrMany, ProcessSelector};
use crate::units::{SYSCALLS, SyscallName};
use backburn_experiments::wire::Refusal;
use backburn_experiments::{HumanDuration, Problem};

/// Plans to alter these calls of the processes that a selector finds.
pub(super) fn alter_calls(
    process: &ProcessSelector,
    calls: &[SyscallName],
    alteration: CallAlteration,
    percent: Option<f64>,
    context: &PlanContext<'_>,
) -> Result<Plan, Refusal> {
    if SYSCALLS.is_empty() {
        return Err(Refusal::new(
            "not-available",
            "system calls can be altered on 64-bit x86 alone",
        )
        .hint("`file-error` and `network-*` need no tracing"));
    }
    let (found, mut notes) = select(process, context)?;
    // One that another injection holds has a tracer already; it is refused with its name once there is a plan.
    for process in found.iter().filter(|process| !context.is_held(process.id)) {
        context.host.check_freezable(process.id).map_err(|why| {
            Refusal::new(
                "not-traceable",
                format!("the system calls of {process} cannot be altered: {why}"),
            )
            .hint("a process has one tracer at a time, and the agent needs CAP_SYS_PTRACE for those of other users")
        })?;
    }
    let names: Vec<&str> = calls.iter().map(SyscallName::name).collect();
    notes.push("every system call of the processes becomes slower, by some 30 µs".into());
    notes.push("children that the processes start meanwhile are not affected; threads are".into());
    Ok(Plan {
        victims: found.iter().map(process_victim).collect(),
        changes: vec![Change::Helper(ProcessHelper {
            mark: context.mark(0),
            deadline: context.deadline(HumanDuration::default()),
            spec: HelperSpec::from(Tamper {
                victims: found.iter().map(|process| process.id).collect(),
                calls: calls.iter().filter_map(SyscallName::number).collect(),
                names: names.join(", "),
                alteration,
                percent: percent.unwrap_or(100.0),
                seed: context.seed,
            }),
        })],
        notes,
        ..Plan::default()
    })
}

/// What is wrong with a choice of calls beyond what its schema says.
pub(super) fn call_problems(calls: &OneOrMany<SyscallName>, percent: Option<f64>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if calls.as_slice().is_empty() {
        problems.push(
            Problem::new("$.calls", "no system call is given")
                .hint("name at least one, such as `openat`"),
        );
    }
    if percent.is_some_and(|percent| percent <= 0.0) {
        problems
            .push(Problem::new("$.percent", "no call would be affected").hint("give more than 0"));
    }
    problems
}
