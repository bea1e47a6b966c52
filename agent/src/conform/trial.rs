//! One thing after another is tried, and after each it is looked whether everything is as it was.

use super::fingerprint::{Difference, Fingerprint};
use super::report::ConformCheck;
use super::stranger::{StrangerChange, StrangerWay};
use super::strike::StrikeKind;
use crate::changes::{Change, Observed, PluginChange, ReversibleChange as _};
use crate::host::Host;
use crate::plan::Plan;
use crate::plugin_call::{Confinement, PluginCall, PluginKind};
use crate::plugins::UsablePlugin;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a fault may take until it is seen to act.
const ACTS_TIMEOUT: Duration = Duration::from_secs(2);
/// Most system calls of one verb at which a plug-in is killed.
const MAX_STRIKES: usize = 400;
/// How long a call with nonsense may take.
const NONSENSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The trials of one fault on this host.
pub(super) struct Trial<'a> {
    /// The host on which it is tried.
    pub host: &'a Host,
    /// What it would do.
    pub plan: &'a Plan,
    /// What was there before.
    pub before: Fingerprint,
    /// What an earlier check has found to differ. It is not found again in those after it.
    pub known: Vec<Difference>,
    /// Why no more is tried: what an earlier check has left, which its undo does not remove.
    pub residue: Option<String>,
    /// What was not tried, and why.
    pub not_tried: Vec<String>,
    /// The files and folders that are compared.
    pub places: Vec<PathBuf>,
    /// The processes that are compared.
    pub processes: Vec<i32>,
    /// What was tried so far.
    pub checks: Vec<ConformCheck>,
    /// Hears what is tried next.
    pub progress: &'a mut dyn FnMut(&str),
}

pub(super) type CheckResult = Result<(), String>;

impl Trial<'_> {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::take(&self.places, &self.processes)
    }

    /// Whether everything is as it was before. What an earlier check has found is left out.
    pub(super) fn compare(&self) -> CheckResult {
        let found = self.before.differences(&self.fingerprint());
        let is_known = |found: &Difference| {
            let same =
                |known: &Difference| known.thing == found.thing && known.field == found.field;
            self.known.iter().any(same)
        };
        let texts: Vec<String> = (found.into_iter())
            .filter(|found| !is_known(found))
            .map(|found| found.text)
            .collect();
        match texts.is_empty() {
            true => Ok(()),
            false => Err(texts.join("; ")),
        }
    }

    /// Whether everything is as it was before, whatever earlier checks have found.
    fn compare_all(&self) -> CheckResult {
        let found = self.before.differences(&self.fingerprint());
        let texts: Vec<String> = found.into_iter().map(|found| found.text).collect();
        match texts.is_empty() {
            true => Ok(()),
            false => Err(texts.join("; ")),
        }
    }

    /// Makes a check. One that fails is cleaned up, so that it does not fail those after it; where that is not possible, no more is
    /// tried.
    pub(super) fn check(&mut self, name: &str, run: impl FnOnce(&mut Self) -> CheckResult) {
        if self.residue.is_some() {
            return;
        }
        (self.progress)(name);
        let failure = run(self).err();
        if failure.is_some() {
            self.clear_up(name);
        }
        self.checks.push(ConformCheck {
            name: name.to_owned(),
            failure,
        });
    }

    fn clear_up(&mut self, check: &str) {
        match self.undo_all(self.plan) {
            Ok(()) => self
                .known
                .extend(self.before.differences(&self.fingerprint())),
            Err(left) => {
                self.not_tried.push(format!(
                    "all checks after `{check}`, since what it left would fail them: {left}"
                ));
                self.residue = Some(left);
            }
        }
    }

    fn apply_all(&self, plan: &Plan) -> CheckResult {
        plan.changes
            .iter()
            .try_for_each(|change| self.apply(change))
    }

    fn apply(&self, change: &Change) -> CheckResult {
        change.apply(self.host).map_err(|error| error.to_string())
    }

    /// Undoes a change, and checks that it is seen to be gone.
    fn undo(&self, change: &Change) -> CheckResult {
        let failed = change.undo(self.host).err();
        match change.observe(self.host) {
            Ok(Observed::Absent) => failed.map_or(Ok(()), |error| Err(error.to_string())),
            Ok(Observed::Present(seen) | Observed::Contested(seen)) => {
                Err(format!("after undo: {seen}"))
            }
            Err(error) => Err(format!("after undo it cannot be observed: {error}")),
        }
    }

    pub(super) fn undo_all(&self, plan: &Plan) -> CheckResult {
        plan.changes
            .iter()
            .rev()
            .try_for_each(|change| self.undo(change))
    }

    /// Undoes a change with its own eyes only, so that one failed check does not fail those after it.
    fn clear(&self, change: &Change) {
        drop(self.undo(change));
    }

    fn wait_until_acts(&self, change: &Change) -> CheckResult {
        let until = Instant::now() + ACTS_TIMEOUT;
        loop {
            let effect = change.effect(self.host);
            if effect.acts {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(format!(
                    "it was applied and is not seen to act: {}",
                    effect.seen
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What every change promises, whoever makes it.
    pub(super) fn try_changes(&mut self, plan: &Plan) {
        self.check("undo with nothing applied", |trial| {
            trial.undo_all(plan)?;
            trial.compare()
        });
        self.check("apply: it is seen to be there and to act", |trial| {
            let acts = trial.apply_all(plan).and_then(|()| {
                plan.changes
                    .iter()
                    .try_for_each(|change| match change.observe(trial.host) {
                        Ok(Observed::Present(_)) => trial.wait_until_acts(change),
                        Ok(Observed::Absent) => Err("`observe` says that nothing is there".into()),
                        Ok(Observed::Contested(seen)) => Err(seen),
                        Err(error) => Err(error.to_string()),
                    })
            });
            acts.inspect_err(|_| drop(trial.undo_all(plan)))
        });
        self.check("undo: everything is as it was", |trial| {
            trial.undo_all(plan)?;
            trial.compare_all()
        });
        self.check("undo once more changes nothing", |trial| {
            trial.undo_all(plan)?;
            trial.compare()
        });
        if plan.changes.len() > 1 {
            self.check("undo after each part of apply", |trial| {
                for count in 1..plan.changes.len() {
                    for change in plan.changes.iter().take(count) {
                        trial.apply(change)?;
                    }
                    trial.undo_all(plan)?;
                    trial
                        .compare()
                        .map_err(|why| format!("after {count} changes: {why}"))?;
                }
                Ok(())
            });
        }
    }

    /// What a process of the agent's promises: it may be killed and stopped.
    pub(super) fn try_helper(&mut self, change: &Change, mark: &str) {
        for (name, signal) in [
            ("helper killed", Signal::KILL),
            ("helper stopped (SIGSTOP), then undo", Signal::STOP),
        ] {
            self.check(name, |trial| {
                trial.apply(change)?;
                let found = trial
                    .host
                    .find_marked(mark)
                    .map_err(|error| error.to_string())?;
                for helper in found {
                    trial
                        .host
                        .signal(helper, signal)
                        .map_err(|error| error.to_string())?;
                }
                trial.undo(change)?;
                trial.compare()
            });
        }
    }

    pub(super) fn try_plugin_change(&mut self, plugin_change: &PluginChange) {
        let change = Change::Plugin(Box::new(plugin_change.clone()));
        let change = &change;
        self.check("undo after a reboot (another boot id)", |trial| {
            let later = Change::Plugin(Box::new(PluginChange {
                boot: "another-boot".into(),
                ..plugin_change.clone()
            }));
            trial.apply(change)?;
            let seen = match plugin_change.survives_reboot {
                true => trial.undo(&later).and_then(|()| trial.compare()),
                // It says that a reboot undoes it, so it is only looked at. Here nothing was rebooted, and that must show.
                false => match later.observe(trial.host) {
                    Ok(Observed::Absent) => {
                        Err("`observe` says that nothing is there, and it is".into())
                    }
                    _ => Ok(()),
                },
            };
            trial.clear(change);
            seen
        });
        self.check("apply while every write to a file fails", |trial| {
            let call = PluginCall {
                confinement: Confinement {
                    max_file_bytes: Some(0),
                    ..plugin_change
                        .call("apply", plugin_change.timeout.0)
                        .confinement
                },
                ..plugin_change.call("apply", plugin_change.timeout.0)
            };
            // Whatever it answers: it may have been half done.
            drop(call.run::<Value>());
            trial.undo(change)?;
            trial.compare()
        });
        for thing in &plugin_change.holds {
            if let Some(path) = thing.strip_prefix("file:") {
                self.try_stranger(change, Path::new(path));
            }
        }
        for verb in ["apply", "undo"] {
            self.strike_everywhere(plugin_change, verb, StrikeKind::Kill);
        }
        self.check(
            "stopped before the first system call of apply that changes something",
            |trial| {
                let call = plugin_change.call("apply", plugin_change.timeout.0);
                call.strike(1, StrikeKind::Stop)
                    .map_err(|error| error.to_string())?;
                trial.undo(change)?;
                trial.compare()
            },
        );
    }

    /// What somebody else changes while the fault acts is theirs: undo leaves it alone, and `observe` says so.
    fn try_stranger(&mut self, change: &Change, path: &Path) {
        let at = [path.to_owned()];
        let look = || Fingerprint::take(&at, &[]);
        for (way, words) in [
            (StrangerWay::Edit, "edited"),
            (StrangerWay::Replace, "replaced"),
        ] {
            let name = format!(
                "{words} by somebody else while it acts: undo leaves that alone, and it is told"
            );
            self.check(&name, |trial| {
                let before = look();
                trial.apply(change)?;
                let made = match before.differences(&look()).is_empty() {
                    true => Err("it is not altered".to_owned()),
                    false => StrangerChange::make(path, way).map_err(|error| error.to_string()),
                };
                let made = match made {
                    Ok(made) => made,
                    Err(why) => {
                        let what = format!("whether {} is left alone where others change it: {why}", path.display());
                        trial.not_tried.push(what);
                        return trial.undo(change).and_then(|()| trial.compare());
                    }
                };
                let theirs = look();
                // Whether it says that it failed does not matter: what it did does.
                drop(change.undo(trial.host));
                let observed = change.observe(trial.host);
                let lost = theirs.differences(&look());
                let after = match lost.is_empty() {
                    true => made.put_back(),
                    false => made.forget(),
                };
                after.map_err(|error| format!("{}: {error}", path.display()))?;
                if let Some(lost) = lost.first() {
                    let what = format!("undo has overwritten what somebody else had changed: {}; compare before you put back, and answer `contested`", lost.text);
                    return Err(what);
                }
                if let Ok(Observed::Absent) = observed {
                    return Err(format!(
                        "somebody else has changed {}, and `observe` says `absent`, so nobody is told: answer `contested`",
                        path.display()
                    ));
                }
                trial.undo(change)?;
                trial.compare()
            });
        }
    }

    /// Kills it before each system call of a verb, and undoes after that.
    fn strike_everywhere(&mut self, plugin_change: &PluginChange, verb: &str, kind: StrikeKind) {
        let change = &Change::Plugin(Box::new(plugin_change.clone()));
        let mut strikes = 0;
        let name = format!("killed before each system call of {verb} that may change something");
        self.check(&name, |trial| {
            for n in 1..=MAX_STRIKES {
                if verb == "undo" {
                    trial.apply(change)?;
                }
                let call = plugin_change.call(verb, plugin_change.timeout.0);
                let was_struck = call.strike(n, kind).map_err(|error| error.to_string())?;
                let outcome = trial.undo(change).and_then(|()| trial.compare());
                if let Err(why) = outcome {
                    trial.clear(change);
                    return Err(format!("killed before the call with number {n}: {why}"));
                }
                if !was_struck {
                    return Ok(());
                }
                strikes = n;
                (trial.progress)(&format!("{verb}: killed before {n} system calls so far"));
            }
            Err(format!("it makes more than {MAX_STRIKES} such calls"))
        });
        let is_last = |check: &ConformCheck| check.name.starts_with(&name);
        if let Some(check) = self.checks.last_mut().filter(|check| is_last(check)) {
            check.name += &format!(" ({strikes} places)");
        }
    }

    /// What is no request must change nothing, and must not be answered as if it were one.
    pub(super) fn try_nonsense(&mut self, plugin: &UsablePlugin) {
        let verbs: &[&str] = match plugin.declaration.kind {
            PluginKind::Planner => &["plan"],
            PluginKind::Holder => &["plan", "hold"],
            PluginKind::Changer => &["plan", "apply", "observe", "undo"],
        };
        let mut nonsense = vec![
            ("nothing".to_owned(), String::new()),
            ("garbage".to_owned(), "}{ not JSON".to_owned()),
        ];
        nonsense.push((
            "an unknown verb".to_owned(),
            json!({"verb": "dance"}).to_string(),
        ));
        for verb in verbs {
            nonsense.push((
                format!("`{verb}` without data"),
                json!({"verb": verb}).to_string(),
            ));
            nonsense.push((
                format!("`{verb}` with wrong data"),
                json!({"verb": verb, "data": 7, "arguments": 7, "mark": 7}).to_string(),
            ));
        }
        for (what, input) in nonsense {
            self.check(&format!("asked {what}"), |trial| {
                let call = PluginCall {
                    program: &plugin.program,
                    request: json!({"verb": what}),
                    timeout: NONSENSE_TIMEOUT,
                    confinement: plugin.confinement(),
                };
                let is_success = |answer: &Value| {
                    ["done", "ready", "absent", "present", "changes", "faults"]
                        .iter()
                        .any(|key| answer.get(key).is_some())
                };
                let answered = match call.run_raw(input.as_bytes()) {
                    Ok(answer) if is_success(&answer) => Err(format!("it answered {answer}")),
                    Err(failure) if failure.what.contains("within") => Err(failure.what),
                    _ => Ok(()),
                };
                answered.and_then(|()| trial.compare())
            });
        }
    }
}
