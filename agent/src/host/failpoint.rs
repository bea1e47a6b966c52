//! Failpoints: a test makes the n-th effect fail, or kills or stops a process of the agent around it. They are
//! set from outside, by `BACKBURN_FAILPOINT=ROLE:WHEN:N[:WHO][,…]`, since the processes under test are the
//! shipped ones: whoever can set an agent's environment can kill it anyway.
//!
//! ROLE is `worker`, `guardian` or `hand`: whose effects count. WHEN is `fail`, `before` or
//! `after`, or `stop-before` or `stop-after` to stop (SIGSTOP) instead of kill. WHO is `self`,
//! `guardian` (the parent), `both`, `controller` (the parent of the parent), or `helper` (the newest that
//! this process started and that lives).
//! `BACKBURN_EFFECTS=PATH` appends a line for each effect.

use super::HostRole;
use crate::processes::ProcessId;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// What happens at which effect.
#[derive(Debug, Clone, Default)]
pub struct Failpoint {
    strike: Option<PlannedFailure>,
    log: Option<(PathBuf, &'static str)>,
}

#[derive(Debug, Clone, Copy)]
struct PlannedFailure {
    when: FailpointMoment,
    /// The number of the effect, counting from 1.
    at: u64,
    signal: Signal,
    who: FailpointVictim,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailpointMoment {
    Fail,
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailpointVictim {
    Us,
    Guardian,
    Both,
    Controller,
    Helper,
}

impl Failpoint {
    /// The failpoint that the environment sets for this role, if any.
    pub fn from_environment(role: HostRole) -> Self {
        let name = match role {
            HostRole::Worker => "worker",
            HostRole::Guardian => "guardian",
            HostRole::Command => "hand",
        };
        Failpoint {
            strike: std::env::var("BACKBURN_FAILPOINT")
                .ok()
                .and_then(|text| text.split(',').find_map(|one| parse(one, name))),
            log: std::env::var_os("BACKBURN_EFFECTS").map(|path| (path.into(), name)),
        }
    }

    /// To be called before an effect. `helper` finds the newest helper that is alive.
    pub(super) fn before(
        &self,
        number: u64,
        what: &str,
        helper: impl FnOnce() -> Option<ProcessId>,
    ) -> io::Result<()> {
        if let Some((path, role)) = &self.log {
            std::fs::File::options()
                .append(true)
                .create(true)
                .open(path)?
                .write_all(format!("{role} {number} {what}\n").as_bytes())?;
        }
        match self.strike_at(number) {
            Some(PlannedFailure {
                when: FailpointMoment::Fail,
                ..
            }) => Err(io::Error::other("a test made this effect fail")),
            Some(strike) if strike.when == FailpointMoment::Before => {
                strike.hit(helper);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// To be called after an effect.
    pub(super) fn after(&self, number: u64, helper: impl FnOnce() -> Option<ProcessId>) {
        if let Some(strike) = self.strike_at(number)
            && strike.when == FailpointMoment::After
        {
            strike.hit(helper);
        }
    }

    fn strike_at(&self, number: u64) -> Option<PlannedFailure> {
        self.strike.filter(|strike| strike.at == number)
    }
}

fn parse(text: &str, role: &str) -> Option<PlannedFailure> {
    let mut parts = text.split(':');
    if parts.next()? != role {
        return None;
    }
    let (when, signal) = match parts.next()? {
        "fail" => (FailpointMoment::Fail, Signal::KILL),
        "before" => (FailpointMoment::Before, Signal::KILL),
        "after" => (FailpointMoment::After, Signal::KILL),
        "stop-before" => (FailpointMoment::Before, Signal::STOP),
        "stop-after" => (FailpointMoment::After, Signal::STOP),
        _ => return None,
    };
    let at = parts.next()?.parse().ok()?;
    let who = match parts.next().unwrap_or("self") {
        "self" => FailpointVictim::Us,
        "guardian" => FailpointVictim::Guardian,
        "both" => FailpointVictim::Both,
        "controller" => FailpointVictim::Controller,
        "helper" => FailpointVictim::Helper,
        _ => return None,
    };
    Some(PlannedFailure {
        when,
        at,
        signal,
        who,
    })
}

impl PlannedFailure {
    fn hit(self, helper: impl FnOnce() -> Option<ProcessId>) {
        let guardian = getppid();
        let victims = match self.who {
            FailpointVictim::Us => [None, Some(getpid())],
            FailpointVictim::Guardian => [guardian, None],
            FailpointVictim::Both => [guardian, Some(getpid())],
            FailpointVictim::Controller => [guardian.and_then(parent_of), None],
            FailpointVictim::Helper => [helper().and_then(|id| Pid::from_raw(id.pid)), None],
        };
        for victim in victims.into_iter().flatten() {
            // It may be gone already: then there is nothing left to hit.
            if victim == getpid() && self.signal == Signal::STOP {
                // To this very thread: sent to the process, another thread might take it while this one goes on for a moment.
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).ok();
            } else {
                kill_process(victim, self.signal).ok();
            }
        }
    }
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()?;
    Pid::from_raw(parent)
}
