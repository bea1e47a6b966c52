//! What befalls one of ours in a crash trial, and its form as text, by which a trial is named and run again alone.

use crate::freezer::FreezerVersion;
use crate::processes::{self, Process};
use nix::sys::signal::Signal;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What befalls one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strike {
    /// At one effect, as `BACKBURN_FAILPOINT` wants it: somebody is killed or stopped before or after it, or it fails.
    Failpoint(String),
    /// Somebody gets a signal so long after the worker's first effect.
    Signal {
        /// Who.
        actor: Actor,
        /// KILL or STOP.
        signal: Signal,
        /// How long after the worker's first effect.
        after: Duration,
    },
    /// All of ours are frozen so long after the worker's first effect.
    Freeze {
        /// By which freezer.
        version: FreezerVersion,
        /// How long after the worker's first effect.
        after: Duration,
        /// For how long.
        lasts: Duration,
    },
}

/// One of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The program that asked, `inject`.
    Controller,
    /// The worker's parent, `serve`.
    Guardian,
    /// Who injects.
    Worker,
    /// The newest process that does harm as long as it lives.
    Helper,
    /// Worker and guardian at once.
    Both,
}

/// What is published of a strike: one column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody is killed.
    Killed,
    /// Somebody is stopped.
    Stopped,
    /// All are frozen.
    Frozen,
    /// An effect fails.
    Fails,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Killed, Kind::Stopped, Kind::Frozen, Kind::Fails];

    /// As a table names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Killed => "killed",
            Kind::Stopped => "stopped",
            Kind::Frozen => "frozen",
            Kind::Fails => "effect fails",
        }
    }
}

impl Strike {
    /// Its column of the table.
    pub fn kind(&self) -> Kind {
        match self {
            Strike::Failpoint(text) if text.contains(":fail:") => Kind::Fails,
            Strike::Failpoint(text) if text.contains(":stop-") => Kind::Stopped,
            Strike::Failpoint(_) => Kind::Killed,
            Strike::Signal { signal, .. } if *signal == Signal::SIGSTOP => Kind::Stopped,
            Strike::Signal { .. } => Kind::Killed,
            Strike::Freeze { .. } => Kind::Frozen,
        }
    }

    /// Whether nobody is left who puts things back without being started again.
    pub fn needs_restart(&self) -> bool {
        match self {
            Strike::Failpoint(text) => self.kind() == Kind::Killed && text.ends_with(":both"),
            Strike::Signal { actor, .. } => {
                self.kind() == Kind::Killed && matches!(actor, Actor::Both)
            }
            Strike::Freeze { .. } => false,
        }
    }

    /// Whether the program that asked is stopped: it is not ended by anybody, and goes on when it is told to.
    pub fn stops_controller(&self) -> bool {
        match self {
            Strike::Failpoint(text) => {
                self.kind() == Kind::Stopped && text.ends_with(":controller")
            }
            Strike::Signal { actor, .. } => {
                self.kind() == Kind::Stopped && matches!(actor, Actor::Controller)
            }
            Strike::Freeze { .. } => false,
        }
    }

    /// What `BACKBURN_FAILPOINT` is to be.
    pub fn failpoint(&self) -> Option<&str> {
        match self {
            Strike::Failpoint(text) => Some(text),
            _ => None,
        }
    }

    /// Whose effect it is at, and the number of it: the worker's first where it is told by time.
    pub fn effect(&self) -> (&str, usize) {
        let Strike::Failpoint(text) = self else {
            return ("worker", 1);
        };
        let mut parts = text.split(':');
        let role = parts.next().unwrap_or_default();
        let number = parts.nth(1).and_then(|number| number.parse().ok());
        (role, number.unwrap_or(usize::MAX))
    }
}

impl Actor {
    const ALL: [(Actor, &str); 5] = [
        (Actor::Controller, "controller"),
        (Actor::Guardian, "guardian"),
        (Actor::Worker, "worker"),
        (Actor::Helper, "helper"),
        (Actor::Both, "both"),
    ];

    fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(actor, _)| *actor == self);
        known.map_or("", |(_, name)| *name)
    }

    /// The processes that it is now; none where it is not there.
    pub fn find(self) -> Vec<Process> {
        let of = |subcommand: &str| {
            let mut found: Vec<Process> = processes::of_backburn()
                .into_iter()
                .filter(|process| {
                    let line = std::fs::read(format!("/proc/{}/cmdline", process.pid));
                    let line = line.unwrap_or_default();
                    line.split(|byte| *byte == 0).nth(1) == Some(subcommand.as_bytes())
                })
                .collect();
            found.sort_by_key(|process| (process.start, process.pid));
            found.pop()
        };
        match self {
            Actor::Controller => of("inject").into_iter().collect(),
            Actor::Guardian => of("serve").into_iter().collect(),
            Actor::Worker => of("worker").into_iter().collect(),
            Actor::Helper => of("helper").into_iter().collect(),
            Actor::Both => match (of("serve"), of("worker")) {
                (Some(guardian), Some(worker)) => vec![guardian, worker],
                _ => Vec::new(),
            },
        }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strike::Failpoint(text) => f.write_str(text),
            Strike::Signal {
                actor,
                signal,
                after,
            } => {
                let verb = match signal {
                    Signal::SIGSTOP => "stop",
                    _ => "kill",
                };
                write!(f, "at:{}:{verb}:{}", after.as_millis(), actor.name())
            }
            Strike::Freeze {
                version,
                after,
                lasts,
            } => {
                let version = match version {
                    FreezerVersion::V1 => "v1",
                    FreezerVersion::V2 => "v2",
                };
                let (after, lasts) = (after.as_millis(), lasts.as_millis());
                write!(f, "at:{after}:freeze:{version}:{lasts}")
            }
        }
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no strike: expected ROLE:WHEN:N[:WHO], at:MS:kill:WHO, at:MS:stop:WHO or at:MS:freeze:v1|v2:MS"
            )
        };
        let parts: Vec<&str> = text.split(':').collect();
        let millis = |text: &str| text.parse().map(Duration::from_millis).map_err(|_| wrong());
        match parts.as_slice() {
            ["at", after, verb @ ("kill" | "stop"), who] => {
                let known = Actor::ALL.iter().find(|(_, name)| name == who);
                Ok(Strike::Signal {
                    actor: known.ok_or_else(wrong)?.0,
                    signal: match *verb {
                        "stop" => Signal::SIGSTOP,
                        _ => Signal::SIGKILL,
                    },
                    after: millis(after)?,
                })
            }
            ["at", after, "freeze", version, lasts] => Ok(Strike::Freeze {
                version: match *version {
                    "v1" => FreezerVersion::V1,
                    "v2" => FreezerVersion::V2,
                    _ => return Err(wrong()),
                },
                after: millis(after)?,
                lasts: millis(lasts)?,
            }),
            ["worker" | "guardian" | "hand", when, number]
            | ["worker" | "guardian" | "hand", when, number, _]
                if matches!(
                    *when,
                    "fail" | "before" | "after" | "stop-before" | "stop-after"
                ) && number.parse::<u64>().is_ok() =>
            {
                Ok(Strike::Failpoint(text.to_owned()))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strike_text_read_back_is_the_same() {
        for text in [
            "worker:before:3:both",
            "guardian:fail:2",
            "worker:stop-after:4:helper",
            "at:37:stop:controller",
            "at:0:kill:both",
            "at:40:freeze:v1:2600",
        ] {
            let strike: Strike = text.parse().expect("it is one");
            assert_eq!(strike.to_string(), text);
        }
        for text in [
            "",
            "worker:stop:3",
            "at:x:kill:worker",
            "at:3:kill:nobody",
            "at:3:freeze:v3:1",
        ] {
            assert!(text.parse::<Strike>().is_err(), "{text}");
        }
    }
}
