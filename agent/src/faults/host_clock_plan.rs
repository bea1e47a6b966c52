//! The plan of `clock-skew` for the host as a whole.

use super::whole_host::{conducted_from_here, facts_of_whole_host, host_victim};
use super::{Plan, PlanContext};
use crate::changes::{Change, HostClock, ProcessHelper, offset_text};
use crate::helpers::{Freeze, HelperSpec};
use crate::processes::Process;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Refusal;

/// The programs that set a host's clock, by the names that the kernel shows (at most 15 bytes).
const TIME_DAEMONS: [&str; 6] = [
    "chronyd",
    "ntpd",
    "openntpd",
    "phc2sys",
    "systemd-timesyn",
    "vmtoolsd",
];

/// Plans to set the clock of the host.
pub(super) fn plan_host_clock(
    fault: &str,
    offset_ms: i64,
    context: &PlanContext<'_>,
) -> Result<Plan, Refusal> {
    context.host_rules.permit(fault)?;
    let facts = facts_of_whole_host(
        context,
        "and the clock is that of the whole host",
        "run the agent on the host itself, or give `process`",
    )?;
    if !facts.may_set_clock {
        return Err(Refusal::new(
            "not-permitted",
            "the agent lacks CAP_SYS_TIME, which setting the clock requires",
        )
        .hint("run the agent as root, with that capability in its unit"));
    }
    if let Some(why) = conducted_from_here(context, &facts.controllers) {
        return Err(Refusal::new(
            "controller-host",
            format!("the clock of the controller would be wrong, too: {why}"),
        )
        .hint(
            "choose a host on which no controller and no `backburn run` runs, or give `process`",
        ));
    }
    let ahead_ns = context.host.time_of_day_ahead().map_err(|error| {
        Refusal::new(
            "not-available",
            format!("the clocks of the host cannot be read: {error}"),
        )
    })?;
    let daemons = time_daemons(context)?;
    let mut changes = Vec::new();
    let mut notes = Vec::new();
    if daemons.is_empty() {
        notes.push("no time daemon is seen to run; one that is started meanwhile would set the clock, which is then left to it".into());
    } else {
        let names: Vec<String> = daemons.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "{} would set the clock, and is paused meanwhile; a supervisor that watches it may restart it, and the clock is then left to it",
            names.join(", ")
        ));
        changes.push(Change::Helper(ProcessHelper {
            mark: context.mark(0),
            deadline: context.deadline(HumanDuration::default()),
            spec: HelperSpec::from(Freeze {
                victims: daemons.iter().map(|process| process.id).collect(),
            }),
        }));
    }
    changes.push(Change::HostClock(HostClock {
        offset_ms,
        ahead_ns,
        boot: facts.boot.clone(),
    }));
    notes.push(
        "Backburn's own deadlines and leases are on monotonic clocks and go on as before".into(),
    );
    notes.push(
        "the clock is set back to what it was plus the time since then, by the time since boot"
            .into(),
    );
    Ok(Plan {
        victims: vec![host_victim(&facts)],
        changes,
        notes,
        warnings: vec![
            format!(
                "the whole host reads a time {}: certificates (TLS, also that of the agent's next connection to its controller), tokens, timers of cron and systemd, logs and files have wrong times, and containers as well",
                offset_text(offset_ms)
            ),
            "a shutdown of the host meanwhile may write the wrong time to its hardware clock"
                .into(),
        ],
        ..Plan::default()
    })
}

/// The living processes that set the clock.
fn time_daemons(context: &PlanContext<'_>) -> Result<Vec<Process>, Refusal> {
    let table = context.host.processes();
    let pids = table.pids().map_err(|error| {
        Refusal::new(
            "not-available",
            format!("the processes cannot be listed: {error}"),
        )
    })?;
    let is_daemon = |pid: &i32| {
        let stat = table.stat(*pid);
        stat.is_some_and(|stat| !stat.is_dead() && TIME_DAEMONS.contains(&stat.comm.as_str()))
    };
    let found: Vec<Process> = pids
        .into_iter()
        .filter(is_daemon)
        .filter_map(|pid| table.process(pid))
        .collect();
    // One that another injection holds has a tracer already; that one is named once there is a plan.
    for process in found.iter().filter(|process| !context.is_held(process.id)) {
        context.host.check_freezable(process.id).map_err(|why| {
            Refusal::new(
                "not-held",
                format!("{process} would set the clock again, and cannot be paused: {why}"),
            )
            .hint("stop it for the time of the fault")
        })?;
    }
    Ok(found)
}
