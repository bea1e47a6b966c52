//! Crash trials: one injection, one process killed or stopped, all of ours frozen, or one effect failing, at one place, and
//! then a look at whether the host is as it was. The cases are the catalogue's faults.

use crate::crash_strike::Strike;
use crate::crash_world::World;
use crate::freezer::Freezer;
use crate::wait::wait_within;
use crate::{crash_plugins, processes, programs};
use backburn_experiments::HumanDuration;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
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

/// What a trial came to.
pub struct Trial {
    /// Whether the failpoint's place was reached, so that the trial was one.
    pub reached: bool,
    /// What was not as before, in words. Nothing, where all is well.
    pub residue: Option<String>,
    /// From the end of the process that injects to the host as it was; from the thaw, where all were frozen.
    pub took: Duration,
    /// How long after the end that was due the host was as it was: since the strike, which is when no more than the duration
    /// was left, or since the thaw. What starting the programs takes is not in it, what looking takes is.
    pub late: Duration,
    /// How many effects the worker came to.
    pub effects: usize,
}

impl Trial {
    /// One of which nothing came, since its place was not reached.
    fn missed() -> Self {
        Trial {
            reached: false,
            residue: None,
            took: Duration::ZERO,
            late: Duration::ZERO,
            effects: 0,
        }
    }
}

/// How long the program that injects may take to end. Longer than any time limit of ours.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the agent keeps its ledger, and its log of effects.
pub struct Place {
    folder: PathBuf,
    /// Removes the folder with this place, unless it is to stay.
    _temporary: Option<tempfile::TempDir>,
}

impl Default for Place {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        crash_plugins::install("", folder.path());
        Place {
            folder: folder.path().to_owned(),
            _temporary: Some(folder),
        }
    }
}

impl Place {
    /// One in this folder, which stays.
    pub fn staying(folder: &Path) -> Self {
        crash_plugins::install("", folder);
        Place {
            folder: folder.to_owned(),
            _temporary: None,
        }
    }

    /// One whose policy allows the plug-in of this case, where that has one.
    ///
    /// # Panics
    /// The plug-in can't be written.
    pub fn of(case: &Case) -> Self {
        let place = Place::default();
        crash_plugins::install(case.fault, &place.folder);
        place
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The policy of its host.
    fn policy(&self) -> PathBuf {
        let path = self.folder.join(crash_plugins::POLICY);
        assert!(path.exists(), "it is written when the place is made");
        path
    }

    fn log(&self) -> PathBuf {
        self.folder.join("effects")
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
            .env("BACKBURN_POLICY", self.policy())
            .env_remove("BACKBURN_FAILPOINT")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("BACKBURN_FAILPOINT", failpoint);
        }
        command
    }

    /// The command that injects in the foreground.
    pub fn injecting(&self, case: &Case, world: &World, failpoint: Option<&str>) -> Command {
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
        self.agent(&words, failpoint)
    }

    /// Waits until the agent knows the plug-ins of its policy: they are pinned then, and what they need has been read from a disk that may be
    /// busy, so that they answer within their time.
    ///
    /// # Panics
    /// They can't be used.
    pub fn know_plugins(&self) {
        let is_known = || {
            let listed = self.agent(&["plugins"], None).status();
            listed.is_ok_and(|listed| listed.success())
        };
        wait_within("the plug-ins cannot be used", END_TIMEOUT, is_known);
    }

    /// Injects in the foreground, and waits.
    pub fn inject(&self, case: &Case, world: &World, failpoint: Option<&str>) -> ExitStatus {
        wait(self.injecting(case, world, failpoint))
    }

    /// Starts an agent again, as after a crash: it settles its ledger first.
    pub fn restart(&self, failpoint: Option<&str>) -> ExitStatus {
        wait(self.agent(&["revert", "--all"], failpoint))
    }
}

fn wait(mut command: Command) -> ExitStatus {
    let mut child = command.spawn().expect("the agent starts");
    let until = Instant::now() + END_TIMEOUT;
    let status = wait_until_ended(&mut child, until);
    status.unwrap_or_else(|| panic!("the agent did not end within {END_TIMEOUT:?}"))
}

/// Its exit status; none where it is still there then.
fn wait_until_ended(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One trial: a fresh world, one strike, and the look afterwards. Where the strike says so, an agent is started again.
pub fn trial(case: &Case, strike: &Strike) -> Trial {
    let world = World::new();
    let place = Place::of(case);
    let before = world.fingerprint(case.victims_survive);
    let freezer = match strike {
        Strike::Freeze { version, .. } => Some(Freezer::new(*version)),
        _ => None,
    };
    let mut command = place.injecting(case, &world, strike.failpoint());
    if let Some(freezer) = &freezer {
        command = freezer.wrap(&command);
    }
    let mut inject = command.spawn().expect("the agent starts");
    let Some(due_from) = befall(strike, &place, &mut inject, freezer.as_ref()) else {
        // It ended before its strike could be. That is no trial, and whole it must be all the same.
        wait_until_ended(&mut inject, Instant::now() + END_TIMEOUT);
        return Trial {
            residue: settle(&world, &place, &before, case.victims_survive).err(),
            effects: place.effects("worker"),
            ..Trial::missed()
        };
    };
    let mut whole = None;
    if strike.stops_controller() {
        // Nobody ends it: its agent does without it, and it must be able to go on.
        whole = whole_without_controller(&world, &place, &before, case, due_from);
        kill(Pid::from_raw(inject.id() as i32), Signal::SIGCONT).ok();
    }
    let hangs = wait_until_ended(&mut inject, Instant::now() + END_TIMEOUT).is_none();
    let ended = Instant::now();
    if strike.needs_restart() {
        wait_until_nobody_is_left();
        place.restart(None);
    }
    let settled = settle(&world, &place, &before, case.victims_survive);
    let first = whole.or(settled.as_ref().ok().copied());
    let since = match strike {
        Strike::Freeze { .. } => due_from,
        _ => due_from + case.lasts(),
    };
    let residue = match settled {
        Err(residue) => Some(residue),
        Ok(_) if hangs => Some(format!("`inject` did not end within {END_TIMEOUT:?}")),
        Ok(_) if strike.stops_controller() && whole.is_none() => {
            Some("nothing was put back while `inject` was stopped".into())
        }
        Ok(_) => None,
    };
    inject.kill().ok();
    inject.wait().ok();
    Trial {
        reached: true,
        residue,
        took: first.map_or(PATIENCE, |first| first.saturating_duration_since(ended)),
        late: first.map_or(PATIENCE, |first| first.saturating_duration_since(since)),
        effects: place.effects("worker"),
    }
}

impl Case {
    /// How long it lasts; no time for a one-shot fault.
    pub fn lasts(&self) -> Duration {
        let span = self.duration.map(str::parse::<HumanDuration>);
        span.map_or(Duration::ZERO, |span| {
            span.expect("a case's duration is one").0
        })
    }
}

/// Waits until the strike has hit, or makes it. When it was, or when it was over where all were frozen; nothing where what injects had ended
/// before, or nobody was there to be hit.
fn befall(
    strike: &Strike,
    place: &Place,
    inject: &mut Child,
    freezer: Option<&Freezer>,
) -> Option<Instant> {
    let (role, number) = strike.effect();
    let until = Instant::now() + END_TIMEOUT;
    while place.effects(role) < number {
        if wait_until_ended(inject, Instant::now()).is_some() {
            // Those after it may still come to it: a guardian, for a worker that was not the one to be hit.
            return (place.effects(role) >= number).then(Instant::now);
        }
        assert!(
            Instant::now() < until,
            "it neither came to an effect nor ended"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    match strike {
        Strike::Failpoint(_) => Some(Instant::now()),
        Strike::Signal {
            actor,
            signal,
            after,
        } => {
            std::thread::sleep(*after);
            let victims: Vec<i32> = actor.find().iter().map(|process| process.pid).collect();
            match victims.as_slice() {
                [] => None,
                [one] => {
                    let hit = kill(Pid::from_raw(*one), *signal);
                    hit.ok().map(|()| Instant::now())
                }
                both => processes::try_kill_at_once(both),
            }
        }
        Strike::Freeze { after, lasts, .. } => {
            std::thread::sleep(*after);
            let freezer = freezer.expect("there is one for what is to be frozen");
            freezer.freeze();
            if wait_until_ended(inject, Instant::now()).is_some()
                && processes::of_backburn().is_empty()
            {
                freezer.thaw();
                return None;
            }
            std::thread::sleep(*lasts);
            freezer.thaw();
            Some(Instant::now())
        }
    }
}

/// Waits until the host is as it was while the program that asked is stopped, and when it was. Nothing where that does not come.
fn whole_without_controller(
    world: &World,
    place: &Place,
    before: &str,
    case: &Case,
    hit: Instant,
) -> Option<Instant> {
    // What is asked already is still done: before its time is over, nothing may be owed yet.
    let due = hit + case.lasts();
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if place.ledger().is_empty() && world.fingerprint(case.victims_survive) == before {
            return Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// A trial in which the worker dies while its fault acts, and whoever comes after it is struck
/// as well; then an agent is started again.
pub fn trial_of_the_rescue(case: &Case, strike: &Strike, by_hand: bool) -> Trial {
    let world = World::new();
    let place = Place::of(case);
    let before = world.fingerprint(case.victims_survive);
    let failpoint = strike.failpoint().expect("a rescue is struck at an effect");
    let first = if by_hand {
        format!("{ACTS}:both")
    } else {
        format!("{ACTS},{failpoint}")
    };
    place.inject(case, &world, Some(&first));
    let ended = Instant::now();
    wait_until_nobody_is_left();
    if by_hand {
        place.restart(Some(failpoint));
        wait_until_nobody_is_left();
    }
    place.restart(None);
    let settled = settle(&world, &place, &before, case.victims_survive);
    let (role, number) = strike.effect();
    Trial {
        reached: place.effects(role) >= number,
        residue: settled.err(),
        took: ended.elapsed(),
        late: ended.elapsed(),
        effects: place.effects("worker"),
    }
}

/// Waits until every agent of the trial has left. We are alone in our process namespace.
fn wait_until_nobody_is_left() {
    let until = Instant::now() + PATIENCE;
    while !processes::of_backburn().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the host is as it was and nothing is owed, and then until nobody of ours is left. When it was as before; what is not,
/// where that does not come.
fn settle(
    world: &World,
    place: &Place,
    before: &str,
    victims_survive: bool,
) -> Result<Instant, String> {
    let until = Instant::now() + PATIENCE;
    let mut whole = None;
    loop {
        let looked = Instant::now();
        let owed = place.ledger();
        let left = processes::of_backburn();
        let is_quiet = owed.is_empty() && left.is_empty();
        // Looking takes longer than waiting.
        if whole.is_none() && (owed.is_empty() || looked >= until) {
            let now = world.fingerprint(victims_survive);
            if now == before && owed.is_empty() {
                whole = Some(Instant::now());
            } else if looked >= until {
                return Err(format!(
                    "owed {owed:?}, processes {left:?}, fingerprint {}",
                    difference(before, &now)
                ));
            }
        }
        match whole {
            // Whoever left meanwhile may have done something.
            Some(first) if is_quiet => {
                if first < looked && world.fingerprint(victims_survive) != before {
                    whole = None;
                    continue;
                }
                return Ok(first);
            }
            Some(_) if looked >= until => {
                return Err(format!(
                    "owed {owed:?}, processes {left:?}, fingerprint equal"
                ));
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What two fingerprints do not have in common: lines that are gone with `-`, new ones with `+`.
pub fn difference(before: &str, after: &str) -> String {
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
