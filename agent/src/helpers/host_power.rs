//! Restarting the host, or switching it off. The helper waits first, in which time its death calls the deed off. Then it looks for
//! itself whether the ledger owes anything else and whether the policy still allows it, writes out the file systems and asks the kernel.
//! What came of it can be told in the next boot only, by that boot's id.

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::evidence::effect;
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use crate::boot::{boot_id, is_first_pid_namespace};
use crate::processes::ProcessTable;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use rustix::system::{RebootCommand, reboot};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the deed waits for other injections of the host to be reverted, before it is called off.
const REVERT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long writing out the file systems may take. Where one of them hangs, the deed is not done.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the ledger is read meanwhile.
const LEDGER_INTERVAL: Duration = Duration::from_millis(50);

/// What a host holds against all other injections while it is about to go down.
pub const WHOLE_HOST: &str = "host";

/// Restarts the host or switches it off, after a time in which it can be called off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostPower {
    /// What is done.
    pub deed: PowerDeed,
    /// The fault, as the policy names it.
    pub fault: String,
    /// The injection, whose own ledger entry is not in the way.
    pub injection: String,
    /// The time from the start of the helper to the deed.
    pub notice: HumanDuration,
    /// The policy file that is asked before the deed.
    pub policy: PathBuf,
    /// The agent's state folder, whose ledger must owe nothing else.
    pub state: PathBuf,
    /// The id of the boot in which this is done: with another one, it was done.
    pub boot: String,
}

/// What is done to a host as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerDeed {
    /// The kernel restarts the host.
    Reboot,
    /// The kernel switches the host off.
    PowerOff,
}

/// What the policy file says of faults, read anew: all else of it counted when the plan was made.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Permission {
    #[serde(default)]
    allow_host_faults: Vec<String>,
    #[serde(default)]
    deny_faults: Vec<String>,
    allow_faults: Option<Vec<String>>,
}

impl Permission {
    fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }

    fn allows(&self, fault: &str) -> bool {
        let names = |list: &[String]| list.iter().any(|name| name == fault);
        let is_allowed = self.allow_faults.as_deref().is_none_or(names);
        names(&self.allow_host_faults) && is_allowed && !names(&self.deny_faults)
    }
}

/// The injections in a ledger, by the names of their files; whether they can be read does not matter.
fn owed(folder: &Path) -> io::Result<Vec<String>> {
    let mut owed = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let is_entry = path
            .extension()
            .is_some_and(|extension| extension == "json");
        owed.extend(
            path.file_stem()
                .filter(|_| is_entry)
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    owed.sort();
    Ok(owed)
}

/// Why the deed is not done, or not yet.
enum Obstacle {
    /// Others owe something, which may be reverted in time.
    Owed(String),
    /// It may not be done.
    Forbidden(String),
}

impl HostPower {
    /// How long the helper lives at the most.
    pub fn lifetime(notice: HumanDuration) -> Duration {
        notice.0 + REVERT_TIMEOUT + SYNC_TIMEOUT
    }

    fn verb(&self) -> &'static str {
        match self.deed {
            PowerDeed::Reboot => "restart",
            PowerDeed::PowerOff => "switch off",
        }
    }

    /// What stands in the way now, looked at anew.
    fn obstacle(&self) -> Option<Obstacle> {
        let permission = Permission::read(&self.policy);
        match permission.map(|permission| permission.allows(&self.fault)) {
            Ok(true) => {}
            Ok(false) => {
                let what = format!("the policy no longer allows `{}`", self.fault);
                return Some(Obstacle::Forbidden(what));
            }
            Err(error) => {
                let what = format!("{}: {error}", self.policy.display());
                return Some(Obstacle::Forbidden(what));
            }
        }
        // In a container the kernel would take its first process for the host.
        if !is_first_pid_namespace() {
            let what = "this is a pid namespace of its own, and not the host";
            return Some(Obstacle::Forbidden(what.into()));
        }
        let owed = match owed(&self.state.join("ledger")) {
            Ok(owed) => owed,
            Err(error) => return Some(Obstacle::Forbidden(error.to_string())),
        };
        if !owed.contains(&self.injection) {
            let what = format!("injection `{}` is not in the ledger", self.injection);
            return Some(Obstacle::Forbidden(what));
        }
        let other = owed
            .iter()
            .find(|injection| **injection != self.injection)?;
        let what = format!("injection `{other}` is still owed");
        Some(Obstacle::Owed(what))
    }

    fn booted_anew(&self) -> Option<Effect> {
        let boot = boot_id().ok()?;
        (boot != self.boot).then(|| {
            let seen = format!(
                "the host has booted anew: its boot id is {boot}, and was {}",
                self.boot
            );
            effect(true, seen, &[("restarts", 1.0)])
        })
    }
}

impl Helper for HostPower {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        format!(
            "{} the host {} later, once nothing else is owed and the policy allows it still",
            self.verb(),
            self.notice
        )
    }

    fn describe_end(&self) -> &'static str {
        "before the deed, that calls it off; after it, only the next boot tells"
    }

    fn holds(&self) -> Vec<String> {
        vec![WHOLE_HOST.into()]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, _: &ProcessTable) -> Effect {
        if let Some(done) = self.booted_anew() {
            return done;
        }
        if helper != 0 {
            let seen = format!("about to {} the host", self.verb());
            return effect(false, seen, &[]);
        }
        let why = match self.obstacle() {
            Some(Obstacle::Owed(why) | Obstacle::Forbidden(why)) => why,
            None => "the helper ended before".into(),
        };
        effect(false, format!("the host is in the same boot: {why}"), &[])
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

    fn effect_outlasts_helper(&self) -> bool {
        true
    }

    fn restart_evidence(&self) -> Option<Effect> {
        self.booted_anew()
    }
}

fn run(power: &HostPower, process: &HelperProcess) -> Result<(), HelperError> {
    if let Some(Obstacle::Forbidden(why)) = power.obstacle() {
        return Err(HelperError::new(format!(
            "the host may not be {}: {why}",
            match power.deed {
                PowerDeed::Reboot => "restarted",
                PowerDeed::PowerOff => "switched off",
            }
        )));
    }
    process.ready(power.describe())?;
    std::thread::sleep(power.notice.0);
    let until = Instant::now() + REVERT_TIMEOUT;
    loop {
        match power.obstacle() {
            None => break,
            Some(Obstacle::Owed(_)) if Instant::now() < until => {
                std::thread::sleep(LEDGER_INTERVAL);
            }
            Some(Obstacle::Owed(why) | Obstacle::Forbidden(why)) => {
                return Err(HelperError::new(why));
            }
        }
    }
    rustix::fs::sync();
    go_down(power.deed).map_err(|error| HelperError::new(format!("reboot(2): {error}")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the helper's one deed; being killed before it cancels it"
)]
fn go_down(deed: PowerDeed) -> rustix::io::Result<()> {
    reboot(match deed {
        PowerDeed::Reboot => RebootCommand::Restart,
        PowerDeed::PowerOff => RebootCommand::PowerOff,
    })
}
