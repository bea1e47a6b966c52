//! Crash trials: one injection, one process killed or one effect failing at one place, and then
//! a look at whether the host is as it was. The cases are the catalogue's faults.

use crate::crash_world::World;
use crate::{processes, programs};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long after the last process of a trial has left the host may take to be as it was.
const PATIENCE: Duration = Duration::from_secs(15);

/// The worker dies when its fault acts: after the ledger's folder, the entry, its rename, and the change.
const ACTS: &str = "worker:after:4";

/// One way of putting a fault to the test.
pub struct Case {
    /// Its name in the table.
    pub name: &'static str,
    /// The fault.
    pub fault: &'static str,
    /// Its arguments, in a world.
    pub arguments: fn(&World) -> Value,
    /// How long it lasts; none for a one-shot fault.
    pub duration: Option<&'static str>,
    /// Whether its victims are there afterwards.
    pub victims_survive: bool,
}

/// Who is to die, or what is to fail, where.
#[derive(Debug, Clone)]
pub struct Strike {
    /// As `BACKBURN_FAILPOINT` wants it.
    pub failpoint: String,
    /// Whether somebody is left who puts things back without being started again.
    pub needs_restart: bool,
}

/// What a trial came to.
pub struct Trial {
    /// Whether the failpoint's place was reached, so that the trial was one.
    pub reached: bool,
    /// What was not as before, in words. Nothing, where all is well.
    pub residue: Option<String>,
    /// From the end of the process that injects to the host as it was.
    pub took: Duration,
}

/// Where the agent keeps its ledger, and its log of effects.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Default for Place {
    fn default() -> Self {
        Place {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        }
    }
}

impl Place {
    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("effects")
    }

    /// What is owed.
    pub fn ledger(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.state().join("ledger")) else {
            return Vec::new();
        };
        files
            .filter_map(|file| file.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".json"))
            .collect()
    }

    /// The highest number of an effect that a role has come to.
    pub fn effects(&self, role: &str) -> usize {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let of_role = text
            .lines()
            .filter_map(|line| line.strip_prefix(role)?.split_whitespace().next());
        of_role
            .filter_map(|number| number.parse().ok())
            .max()
            .unwrap_or(0)
    }

    /// The agent's program with these words.
    pub fn agent(&self, words: &[&str], failpoint: Option<&str>) -> Command {
        let mut command = Command::new(programs::backburn_agent());
        command
            .arg(words[0])
            .arg("--state")
            .arg(self.state())
            .args(&words[1..])
            .env("BACKBURN_EFFECTS", self.log())
            .env_remove("BACKBURN_FAILPOINT")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("BACKBURN_FAILPOINT", failpoint);
        }
        command
    }

    /// Injects in the foreground, and waits.
    pub fn inject(&self, case: &Case, world: &World, failpoint: Option<&str>) -> ExitStatus {
        let arguments = (case.arguments)(world).to_string();
        let mut words = vec![
            "inject",
            case.fault,
            "--id",
            "trial",
            "--arguments",
            &arguments,
        ];
        if let Some(duration) = case.duration {
            words.extend(["--duration", duration]);
        }
        wait(self.agent(&words, failpoint))
    }

    /// Starts an agent again, as after a crash: it settles its ledger first.
    pub fn restart(&self, failpoint: Option<&str>) -> ExitStatus {
        wait(self.agent(&["revert", "--all"], failpoint))
    }
}

fn wait(mut command: Command) -> ExitStatus {
    let mut child = command.spawn().expect("the agent starts");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        assert!(
            Instant::now() < until,
            "the agent did not end within a minute"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One trial: a fresh world, one strike, and the look afterwards.
pub fn trial(case: &Case, strike: &Strike) -> Trial {
    let world = World::new();
    let place = Place::default();
    let before = world.fingerprint(case.victims_survive);
    place.inject(case, &world, Some(&strike.failpoint));
    let ended = Instant::now();
    if strike.needs_restart {
        wait_until_nobody_is_left();
        place.restart(None);
    }
    let residue = settle(&world, &place, &before, case.victims_survive);
    Trial {
        reached: reached(&place, strike),
        residue,
        took: ended.elapsed(),
    }
}

/// A trial in which the worker dies while its fault acts, and whoever comes after it is struck
/// as well; then an agent is started again.
pub fn trial_of_the_rescue(case: &Case, strike: &Strike, by_hand: bool) -> Trial {
    let world = World::new();
    let place = Place::default();
    let before = world.fingerprint(case.victims_survive);
    let first = if by_hand {
        format!("{ACTS}:both")
    } else {
        format!("{ACTS},{}", strike.failpoint)
    };
    place.inject(case, &world, Some(&first));
    let ended = Instant::now();
    wait_until_nobody_is_left();
    if by_hand {
        place.restart(Some(&strike.failpoint));
        wait_until_nobody_is_left();
    }
    place.restart(None);
    let residue = settle(&world, &place, &before, case.victims_survive);
    Trial {
        reached: reached(&place, strike),
        residue,
        took: ended.elapsed(),
    }
}

/// Whether a strike's n-th effect was ever come to.
fn reached(place: &Place, strike: &Strike) -> bool {
    let mut parts = strike.failpoint.split(':');
    let role = parts.next().unwrap_or_default();
    let number: usize = parts
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(usize::MAX);
    place.effects(role) >= number
}

/// Waits until every agent of the trial has left. We are alone in our process namespace.
fn wait_until_nobody_is_left() {
    let until = Instant::now() + PATIENCE;
    while !processes::of_backburn().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the host is as it was and nothing is owed; what is not, where that does not come.
fn settle(world: &World, place: &Place, before: &str, victims_survive: bool) -> Option<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = world.fingerprint(victims_survive);
        let owed = place.ledger();
        let left = processes::of_backburn();
        if now == before && owed.is_empty() && left.is_empty() {
            return None;
        }
        if Instant::now() >= until {
            return Some(format!(
                "owed {owed:?}, processes {left:?}, fingerprint {}",
                if now == before {
                    "equal".into()
                } else {
                    difference(before, &now)
                }
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn difference(before: &str, after: &str) -> String {
    let gone = before
        .lines()
        .filter(|line| !after.lines().any(|other| other == *line))
        .map(|line| format!("-{line}"));
    let new = after
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line))
        .map(|line| format!("+{line}"));
    gone.chain(new).collect::<Vec<_>>().join(" ")
}
