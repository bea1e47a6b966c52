//! Units of systemd's that are stopped for a while. A timer of systemd's is set before, and starts them again: process 1 keeps it, so they
//! come back when every process of the agent is dead.
//!
//! A unit's invocation tells whose stop it is: systemd gives a unit another id at each start, and keeps the last one while it is stopped.

use super::{Observed, ReversibleChange, count};
use crate::boot::boot_id;
use crate::host::{Host, HostError};
use crate::processes::ProcessId;
use crate::systemd::{FoundUnit, RestartTimer, ServiceManager};
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{ChangeView, Effect};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Units that are stopped for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoppedUnits {
    /// The name of the change, from the injection's id.
    pub mark: String,
    /// The boot in which the units ran.
    pub boot: String,
    /// The units that ran when this was planned, in the order in which they are stopped. One of them is the victim.
    pub units: Vec<StoppedUnit>,
    /// After which time systemd starts them by itself: a little later than the agent should have.
    pub deadline: HumanDuration,
    /// Their processes, so that no other fault is injected into one of them meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessId>,
}

/// A unit that ran before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoppedUnit {
    /// Its name, e.g. `nginx.service`.
    pub name: String,
    /// The id of its run that is ended.
    pub invocation: String,
    /// Why it is stopped.
    pub role: UnitRole,
}

/// Why a unit is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitRole {
    /// It would start another one again.
    Trigger,
    /// It is the victim.
    Victim,
    /// systemd stops it together with another one.
    Dependant,
}

/// How a unit is seen to be.
#[derive(Debug, PartialEq, Eq)]
enum UnitStanding {
    /// It runs, as before or again.
    Runs,
    /// It ran again, and was stopped by somebody else after that.
    StoppedByOthers,
    /// It does not run as before; in words for people.
    Owed(String),
    /// It cannot be started any more; in words for people.
    Unstartable(String),
}

/// The folder of systemd's socket: where it is the same one, so is systemd.
const PLACE: &str = "/run/systemd";
/// How long to wait for the units to stop before the fault counts as injected. Some take minutes; the effect tells of them.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the timer may take to be set.
const TIMER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an attempt to undo waits while systemd is still stopping or starting units.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How many digits of the victim's invocation are in the timer's name, so that two injections of one id have two timers.
const INVOCATION_DIGITS: usize = 8;

impl StoppedUnits {
    /// The place from where the units can be seen.
    pub fn place() -> &'static Path {
        Path::new(PLACE)
    }

    fn victim(&self) -> Option<&StoppedUnit> {
        let mut units = self.units.iter();
        units.find(|unit| unit.role == UnitRole::Victim)
    }

    fn timer(&self) -> RestartTimer {
        let invocation = self.victim().map_or("", |unit| &unit.invocation);
        let digits: String = invocation.chars().take(INVOCATION_DIGITS).collect();
        RestartTimer {
            name: format!("backburn-{}-{digits}", self.mark),
            units: self.units.iter().map(|unit| unit.name.clone()).collect(),
            after: self.deadline.0,
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.units.iter().map(|unit| unit.name.as_str()).collect();
        names.join(", ")
    }

    fn failed(&self, what: impl Into<io::Error>) -> HostError {
        HostError {
            what: format!("stop {}", self.names()),
            source: what.into(),
        }
    }

    /// Whether the units ran in another boot: which of them run in this one is its own affair.
    fn is_of_another_boot(&self) -> io::Result<bool> {
        Ok(boot_id()? != self.boot)
    }

    /// Every unit that is not as before or may not be, as systemd tells.
    fn standings(&self, manager: &mut ServiceManager) -> io::Result<Vec<UnitStanding>> {
        let look = |unit: &StoppedUnit| Ok(unit.standing(&manager.unit(&unit.name)?));
        self.units.iter().map(look).collect()
    }

    /// Waits until the timer waits for its time.
    fn wait_for_timer(&self, timer: &RestartTimer) -> io::Result<()> {
        let until = Instant::now() + TIMER_TIMEOUT;
        let mut manager = ServiceManager::connect()?;
        loop {
            let found = manager.loaded_unit(&timer.unit())?;
            match found {
                Some(found) if found.is_active() && found.sub_state == "waiting" => return Ok(()),
                found if Instant::now() >= until => {
                    let seen = found.map_or("it is not there".to_owned(), |it| it.to_string());
                    return Err(io::Error::other(format!(
                        "systemd's timer does not wait, so nothing was stopped: {seen}"
                    )));
                }
                _ => std::thread::sleep(LOOK_INTERVAL),
            }
        }
    }

    /// Ends the timer where it is there, and waits until it is not.
    fn end_timer(&self, host: &Host, manager: &mut ServiceManager) -> Result<(), HostError> {
        let timer = self.timer();
        let until = Instant::now() + TIMER_TIMEOUT;
        let mut is_asked = false;
        loop {
            let found = manager.loaded_unit(&timer.unit());
            match found.map_err(|error| self.failed(error))? {
                Some(found) if !found.is_stopped() => {
                    if !std::mem::replace(&mut is_asked, true) {
                        host.end_restart_timer(&timer)?;
                    }
                }
                _ => return Ok(()),
            }
            if Instant::now() >= until {
                let still = format!("{} is still there", timer.unit());
                return Err(self.failed(io::Error::other(still)));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// How the end of the change is seen: the units run again, and how long they did not. None where that was not so.
    pub(crate) fn evidence_of_end(&self) -> Option<Effect> {
        if self.is_of_another_boot().ok()? {
            return None;
        }
        let mut manager = ServiceManager::connect().ok()?;
        let victim = self.victim()?;
        let found = manager.unit(&victim.name).ok()?;
        let ran_again = found.is_active() && found.invocation != victim.invocation;
        let outage = Duration::from_micros(found.entered_us.checked_sub(found.left_us)?);
        ran_again.then(|| Effect {
            // Whether it acted was seen before.
            acts: false,
            seen: format!(
                "{} runs again, as invocation {} after {}; it did not for {:.1} s",
                found.name,
                found.invocation,
                victim.invocation,
                outage.as_secs_f64()
            ),
            figures: [("outage-seconds".to_owned(), outage.as_secs_f64())].into(),
            unmet: None,
        })
    }
}

impl StoppedUnit {
    fn standing(&self, found: &FoundUnit) -> UnitStanding {
        let is_first_run = found.invocation.is_empty() || found.invocation == self.invocation;
        if found.is_active() {
            // It may wait for another one to stop before it does.
            return match is_first_run && found.has_job {
                true => UnitStanding::Owed(format!("{found}, and is to be stopped")),
                false => UnitStanding::Runs,
            };
        }
        if found.load_state != "loaded" {
            return UnitStanding::Unstartable(format!(
                "{found}, and cannot be started, since its configuration is {}",
                found.load_state
            ));
        }
        match found.active_state.as_str() {
            "inactive" if !is_first_run && !found.has_job => UnitStanding::StoppedByOthers,
            "failed" if !is_first_run => UnitStanding::Owed(format!("{found}: {}", found.result)),
            _ => UnitStanding::Owed(found.to_string()),
        }
    }
}

impl ReversibleChange for StoppedUnits {
    fn view(&self) -> ChangeView {
        let timer = self.timer().unit();
        ChangeView {
            kind: "stopped-units".into(),
            apply: format!(
                "set {timer} of systemd, by which it starts them again in {}, then stop {}",
                self.deadline,
                self.names()
            ),
            undo: "start those that do not run, see that they do, and end the timer".into(),
            if_agent_dies: format!(
                "the guardian starts them; without it, systemd does, {} after they were stopped",
                self.deadline
            ),
        }
    }

    fn holds(&self) -> Vec<String> {
        let units = self.units.iter().map(|unit| format!("unit:{}", unit.name));
        let processes = self.processes.iter().map(|id| format!("process:{id}"));
        units.chain(processes).collect()
    }

    fn apply(&self, host: &Host) -> Result<(), HostError> {
        let mut manager = ServiceManager::connect().map_err(|none| self.failed(none))?;
        for unit in &self.units {
            let found = manager
                .unit(&unit.name)
                .map_err(|error| self.failed(error))?;
            if !found.is_active() || found.has_job || found.invocation != unit.invocation {
                let why = format!(
                    "{found} and was started or stopped since this was planned; inject again"
                );
                return Err(self.failed(io::Error::other(why)));
            }
        }
        let timer = self.timer();
        host.set_restart_timer(&timer)?;
        self.wait_for_timer(&timer)
            .map_err(|error| self.failed(error))?;
        // systemd stops the dependants by itself.
        let stopped = self.units.iter();
        for unit in stopped.filter(|unit| unit.role != UnitRole::Dependant) {
            host.stop_unit(&unit.name)?;
        }
        let until = Instant::now() + STOP_TIMEOUT;
        loop {
            let mut units = self.units.iter();
            let has_stopped = |unit: &StoppedUnit| {
                let found = manager.unit(&unit.name);
                found.is_ok_and(|found| found.is_stopped())
            };
            if units.all(has_stopped) || host.is_interrupted() || Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn observe(&self, _: &Host) -> io::Result<Observed> {
        if self.is_of_another_boot()? {
            return Ok(Observed::Absent);
        }
        let mut manager = ServiceManager::connect()?;
        let (mut owed, mut unstartable) = (Vec::new(), Vec::new());
        for standing in self.standings(&mut manager)? {
            match standing {
                UnitStanding::Runs | UnitStanding::StoppedByOthers => {}
                UnitStanding::Owed(seen) => owed.push(seen),
                UnitStanding::Unstartable(seen) => unstartable.push(seen),
            }
        }
        let timer = manager.loaded_unit(&self.timer().unit())?;
        owed.extend(
            timer
                .filter(|timer| !timer.is_stopped())
                .map(|timer| timer.to_string()),
        );
        Ok(if !unstartable.is_empty() {
            Observed::Contested(unstartable.join("; "))
        } else if owed.is_empty() {
            Observed::Absent
        } else {
            Observed::Present(owed.join("; "))
        })
    }

    fn undo(&self, host: &Host) -> Result<(), HostError> {
        let failed = |error: io::Error| self.failed(error);
        if self.is_of_another_boot().map_err(failed)? {
            return Ok(());
        }
        let mut manager = ServiceManager::connect().map_err(|none| self.failed(none))?;
        // Triggers come first among them, and must: a socket cannot be started once its service runs.
        for unit in &self.units {
            let found = manager.unit(&unit.name).map_err(failed)?;
            let is_starting = found.active_state == "activating";
            if matches!(unit.standing(&found), UnitStanding::Owed(_)) && !is_starting {
                host.start_unit(&unit.name)?;
            }
        }
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let mut owed = Vec::new();
            let mut is_under_way = false;
            for unit in &self.units {
                let found = manager.unit(&unit.name).map_err(failed)?;
                if let UnitStanding::Owed(seen) = unit.standing(&found) {
                    is_under_way |= found.is_changing();
                    owed.push(seen);
                }
            }
            if owed.is_empty() {
                break;
            }
            if !is_under_way || Instant::now() >= until {
                return Err(self.failed(io::Error::other(owed.join("; "))));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.end_timer(host, &mut manager)
    }

    fn effect(&self, _: &Host) -> Effect {
        let unknown = |why: String| Effect {
            acts: false,
            seen: format!("{} cannot be observed: {why}", self.names()),
            ..Effect::default()
        };
        let mut manager = match ServiceManager::connect() {
            Ok(manager) => manager,
            Err(none) => return unknown(none.to_string()),
        };
        let (mut acts, mut stopped, mut seen) = (false, 0, Vec::new());
        for unit in &self.units {
            let found = match manager.unit(&unit.name) {
                Ok(found) => found,
                Err(error) => return unknown(error.to_string()),
            };
            let is_stopped = found.is_stopped();
            stopped += usize::from(is_stopped);
            acts |= is_stopped && unit.role == UnitRole::Victim;
            if unit.role == UnitRole::Victim || !is_stopped {
                seen.push(found.to_string());
            }
        }
        if self.units.len() > 1 {
            let all = count(self.units.len(), "unit", "units");
            seen.push(format!("{stopped} of {all} stopped"));
        }
        Effect {
            acts,
            seen: seen.join(", "),
            figures: [("stopped-units".to_owned(), stopped as f64)].into(),
            unmet: None,
        }
    }

    fn is_done(&self, _: &Host) -> bool {
        // Others may have started it, or systemd's timer has: what was asked for is over.
        let look = || -> io::Result<bool> {
            let mut manager = ServiceManager::connect()?;
            let Some(victim) = self.victim() else {
                return Ok(true);
            };
            let standing = victim.standing(&manager.unit(&victim.name)?);
            Ok(matches!(
                standing,
                UnitStanding::Runs | UnitStanding::StoppedByOthers
            ))
        };
        look().unwrap_or(false)
    }
}
