//! Where a test makes the n-th effect fail, or kills a process of ours around it. Set from
//! outside, by `BACKBURN_FAILPOINT=ROLE:WHEN:N[:WHO][,…]`, since the processes under test are the
//! shipped ones: whoever can set an agent's environment can kill it anyway.
//!
//! ROLE is `worker`, `guardian` or `hand`: whose effects count. WHEN is `fail`, `before` or
//! `after`. WHO is `self`, `guardian` (our parent), `both`, or `controller` (our parent's parent).
//! `BACKBURN_EFFECTS=PATH` appends a line for each effect.

use super::Role;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// What is to happen at which effect.
#[derive(Debug, Clone, Default)]
pub struct Failpoint {
    strike: Option<(When, u64, Who)>,
    log: Option<(PathBuf, &'static str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Fail,
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Us,
    Guardian,
    Both,
    Controller,
}

impl Failpoint {
    /// What the environment says, if it speaks of this role.
    pub fn from_environment(role: Role) -> Self {
        let name = match role {
            Role::Worker => "worker",
            Role::Guardian => "guardian",
            Role::Hand => "hand",
        };
        Failpoint {
            strike: std::env::var("BACKBURN_FAILPOINT")
                .ok()
                .and_then(|text| text.split(',').find_map(|one| parse(one, name))),
            log: std::env::var_os("BACKBURN_EFFECTS").map(|path| (path.into(), name)),
        }
    }

    pub(super) fn before(&self, number: u64, what: &str) -> io::Result<()> {
        if let Some((path, role)) = &self.log {
            std::fs::File::options()
                .append(true)
                .create(true)
                .open(path)?
                .write_all(format!("{role} {number} {what}\n").as_bytes())?;
        }
        match self.strike {
            Some((When::Fail, at, _)) if at == number => {
                Err(io::Error::other("a test made this effect fail"))
            }
            Some((When::Before, at, who)) if at == number => {
                strike(who);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn after(&self, number: u64) {
        if let Some((When::After, at, who)) = self.strike
            && at == number
        {
            strike(who);
        }
    }
}

fn parse(text: &str, role: &str) -> Option<(When, u64, Who)> {
    let mut parts = text.split(':');
    if parts.next()? != role {
        return None;
    }
    let when = match parts.next()? {
        "fail" => When::Fail,
        "before" => When::Before,
        "after" => When::After,
        _ => return None,
    };
    let number = parts.next()?.parse().ok()?;
    let who = match parts.next().unwrap_or("self") {
        "self" => Who::Us,
        "guardian" => Who::Guardian,
        "both" => Who::Both,
        "controller" => Who::Controller,
        _ => return None,
    };
    Some((when, number, who))
}

fn strike(who: Who) {
    let guardian = getppid();
    let victims = match who {
        Who::Us => [None, Some(getpid())],
        Who::Guardian => [guardian, None],
        Who::Both => [guardian, Some(getpid())],
        Who::Controller => [guardian.and_then(parent_of), None],
    };
    for victim in victims.into_iter().flatten() {
        // It may be gone already: then there is nothing left to kill.
        kill_process(victim, Signal::KILL).ok();
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
