//! Whether a fault or a plug-in keeps the promises of a change: what it did is undone, also twice, also when it was never done, after a
//! reboot, after being killed at any system call, and when it is asked nonsense.

mod fingerprint;
mod strike;

use crate::changes::{Change, Observed, PluginChange, ReversibleChange as _};
use crate::engine::PlanTask;
use crate::files::read_regular;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry, Owner, boot_id};
use crate::plan::Plan;
use crate::plugin_call::{Confinement, MAX_PROGRAM_BYTES, PluginCall, PluginKind};
use crate::plugins::UsablePlugin;
use crate::policy::HostPolicy;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{InjectionRequest, Refusal};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fingerprint::Fingerprint;
use strike::StrikeKind;

/// The injection that everything is made for.
const INJECTION: &str = "conform";
/// The duration of the fault; it is ended much sooner.
const DURATION: HumanDuration = HumanDuration::seconds(120);
/// How long a call with nonsense may take.
const NONSENSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most system calls of one verb at which a plug-in is killed.
const MAX_STRIKES: usize = 400;
/// How long a fault may take until it is seen to act.
const ACTS_TIMEOUT: Duration = Duration::from_secs(2);

/// What is tried, and with what.
#[derive(Debug)]
pub struct ConformSubject {
    /// A built-in fault's name, or the path of a plug-in's executable.
    pub subject: String,
    /// The fault's arguments; none for its own example.
    pub arguments: Option<Map<String, Value>>,
    /// Files and folders that are compared, besides the folders of the files that it holds.
    pub watched: Vec<PathBuf>,
    /// The state folder, whose ledger owes what is tried until it is gone.
    pub state: PathBuf,
    /// What this host allows.
    pub policy: HostPolicy,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConformCheck {
    /// What was tried, in words.
    pub name: String,
    /// What was wrong; none where nothing was.
    pub failure: Option<String>,
}

/// What became of it all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConformReport {
    /// The name of the fault that was tried.
    pub fault: String,
    /// `planner`, `holder`, `changer` or `built-in`.
    pub kind: String,
    /// SHA-256 of the plug-in; none for a built-in fault.
    pub sha256: Option<String>,
    /// Whether every check passed.
    pub passed: bool,
    /// The checks, in the order in which they were made.
    pub checks: Vec<ConformCheck>,
    /// What was compared before and after each.
    pub compared: Vec<String>,
    /// What was not tried, and why.
    pub not_tried: Vec<String>,
}

impl ConformReport {
    /// The report as Markdown, for a pull request.
    pub fn to_markdown(&self) -> String {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let hash = self
            .sha256
            .as_deref()
            .map_or(String::new(), |hash| format!(", SHA-256 `{hash}`"));
        let mut text = format!(
            "## conform: `{}` ({}) {verdict}\n\nBackburn {}{hash}\n\n| check | result |\n|---|---|\n",
            self.fault,
            self.kind,
            env!("CARGO_PKG_VERSION")
        );
        for check in &self.checks {
            let result = match &check.failure {
                None => "passed".to_owned(),
                Some(why) => format!("**failed**: {}", why.replace('|', "\\|").replace('\n', " ")),
            };
            text += &format!("| {} | {result} |\n", check.name);
        }
        text += &format!("\nCompared: {}\n", self.compared.join(", "));
        if !self.not_tried.is_empty() {
            text += &format!("\nNot tried: {}\n", self.not_tried.join("; "));
        }
        text
    }
}

/// Tries a fault or a plug-in. `progress` hears what is tried next.
///
/// # Errors
/// It could not be tried at all, e.g. since its arguments are wrong.
pub fn conform(
    host: &Host,
    asked: &ConformSubject,
    progress: &mut dyn FnMut(&str),
) -> Result<ConformReport, Refusal> {
    let (fault, plugin) = subject(host, asked)?;
    let ledger = Ledger::open(host, &asked.state)
        .map_err(|error| Refusal::new("ledger", error.to_string()))?;
    if ledger.owes(INJECTION) {
        return Err(Refusal::new(
            "overlap",
            "an earlier `conform` left something to revert, or runs now",
        )
        .hint(format!("`revert {INJECTION}` reverts it")));
    }
    let example = match &plugin {
        Some(plugin) => plugin.declaration.example.clone(),
        None => crate::faults::find(&fault)
            .map(|fault| (fault.example)())
            .unwrap_or_default(),
    };
    let arguments = asked
        .arguments
        .clone()
        .or_else(|| example.as_object().cloned());
    let task = PlanTask {
        request: InjectionRequest {
            id: INJECTION.into(),
            run: crate::engine::BY_HAND.into(),
            fault: fault.clone(),
            arguments: arguments.unwrap_or_default(),
            duration: Some(DURATION),
            every: None,
            seed: 1,
            max_victims: None,
        },
        policy: asked.policy.clone(),
        protected_paths: asked.policy.protected_paths(&asked.state),
        host_rules: asked.policy.host_fault_rules(&asked.state, false),
        plugins: plugin.iter().cloned().collect(),
        state: asked.state.clone(),
        link: None,
        acting: 0,
    };
    progress("plan");
    let plan = task.plan()?;
    let own = host.table.identify(std::process::id() as i32);
    let own = own.ok_or_else(|| Refusal::new("failed", "/proc does not show this process"))?;
    let owner = Owner {
        boot: boot_id().map_err(|error| Refusal::new("failed", error.to_string()))?,
        worker: own,
        guardian: own,
    };
    let entry = LedgerEntry::new(&task.request, &plan, owner)
        .map_err(|error| Refusal::new("ledger", error.to_string()))?;
    let mut places = asked.watched.clone();
    for thing in plan.changes.iter().flat_map(|change| change.holds()) {
        let file = thing.strip_prefix("file:").map(Path::new);
        places.extend(file.and_then(Path::parent).map(Path::to_owned));
    }
    places.sort();
    places.dedup();
    let pids = plan
        .victims
        .iter()
        .filter(|victim| victim.kind == "process");
    let pids = pids.filter_map(|victim| victim.id.split('@').next()?.parse().ok());
    let mut trial = Trial {
        host,
        before: Fingerprint::take(&places, &[]),
        processes: pids.collect(),
        places,
        checks: Vec::new(),
        progress,
    };
    trial.before = trial.fingerprint();
    // Owed before anything is done: if this process is killed, the next start of an agent reverts it.
    ledger
        .write(host, &entry)
        .map_err(|error| Refusal::new("ledger", error.to_string()))?;
    trial.check("plan: the same plan again, and nothing changed", |trial| {
        let again = task
            .plan()
            .map_err(|refusal| format!("the second plan was refused: {refusal}"))?;
        match again == plan {
            true => trial.compare(),
            false => Err("the same arguments and the same seed gave another plan".into()),
        }
    });
    trial.try_changes(&plan);
    for change in &plan.changes {
        match change {
            Change::Plugin(change) => trial.try_plugin_change(change),
            Change::Helper(helper) => trial.try_helper(change, &helper.mark),
            _ => {}
        }
    }
    if let Some(plugin) = &plugin {
        trial.try_nonsense(plugin);
    }
    let clean = trial.undo_all(&plan).is_ok();
    let Trial {
        places,
        processes,
        mut checks,
        ..
    } = trial;
    match clean {
        true => ledger
            .remove(host, INJECTION)
            .map_err(|error| Refusal::new("ledger", error.to_string()))?,
        false => checks.push(ConformCheck {
            name: "at the end everything is reverted".into(),
            failure: Some(format!("it is still in the ledger as `{INJECTION}`")),
        }),
    }
    let mut compared: Vec<String> = places
        .iter()
        .map(|place| place.display().to_string())
        .collect();
    compared.extend(processes.iter().map(|pid| format!("process {pid}")));
    let mut not_tried = vec!["a device that never answers (state D)".to_owned()];
    if places.is_empty() && processes.is_empty() {
        not_tried.push(
            "whether files stay as they were: it holds none; name places with `--watch`".into(),
        );
    }
    Ok(ConformReport {
        fault,
        kind: plugin.as_ref().map_or("built-in".to_owned(), |plugin| {
            match plugin.declaration.kind {
                PluginKind::Planner => "planner",
                PluginKind::Holder => "holder",
                PluginKind::Changer => "changer",
            }
            .to_owned()
        }),
        sha256: plugin.map(|plugin| plugin.program.sha256),
        passed: checks.iter().all(|check| check.failure.is_none()),
        checks,
        compared,
        not_tried,
    })
}

/// The fault's name, and the plug-in where it is one.
fn subject(host: &Host, asked: &ConformSubject) -> Result<(String, Option<UsablePlugin>), Refusal> {
    if let Some(fault) = crate::faults::find(&asked.subject) {
        return match fault.one_shot {
            false => Ok((fault.name.to_owned(), None)),
            true => Err(Refusal::new(
                "arguments",
                format!(
                    "`{}` is over as soon as it is applied, and its victims do not come back",
                    fault.name
                ),
            )
            .hint("`conform` tries faults that are undone")),
        };
    }
    let path = Path::new(&asked.subject);
    // Whoever is root and names a file means that file; a policy asks for more.
    let content = read_regular(path, MAX_PROGRAM_BYTES).map_err(|error| {
        let what = format!(
            "`{}` is no fault, and cannot be used as a plug-in: {error}",
            asked.subject
        );
        Refusal::new("plug-in", what)
            .hint("name a built-in fault (`faults` lists them), or an executable")
    })?;
    // It is asked for its name by the name that it gives itself.
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    let name = stem.split('.').next().unwrap_or_default();
    let plugin = UsablePlugin::pin(host, &asked.state, name, &content).map_err(|why| {
        Refusal::new("plug-in", why)
            .hint("a plug-in is named as its file, without what follows the first `.`; its `describe` must answer within 2 s")
    })?;
    Ok((name.to_owned(), Some(plugin)))
}

struct Trial<'a> {
    host: &'a Host,
    before: Fingerprint,
    places: Vec<PathBuf>,
    processes: Vec<i32>,
    checks: Vec<ConformCheck>,
    progress: &'a mut dyn FnMut(&str),
}

type CheckResult = Result<(), String>;

impl Trial<'_> {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::take(&self.places, &self.processes)
    }

    /// Whether everything is as it was at the beginning.
    fn compare(&self) -> CheckResult {
        self.before
            .difference(&self.fingerprint())
            .map_or(Ok(()), Err)
    }

    fn check(&mut self, name: &str, run: impl FnOnce(&mut Self) -> CheckResult) {
        (self.progress)(name);
        let failure = run(self).err();
        self.checks.push(ConformCheck {
            name: name.to_owned(),
            failure,
        });
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

    fn undo_all(&self, plan: &Plan) -> CheckResult {
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
    fn try_changes(&mut self, plan: &Plan) {
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
            trial.compare()
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
    fn try_helper(&mut self, change: &Change, mark: &str) {
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

    fn try_plugin_change(&mut self, plugin_change: &PluginChange) {
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

    /// Kills it before each system call of a verb, and undoes after that.
    fn strike_everywhere(&mut self, plugin_change: &PluginChange, verb: &str, kind: StrikeKind) {
        let change = &Change::Plugin(Box::new(plugin_change.clone()));
        let mut strikes = 0;
        self.check(
            &format!("killed before each system call of {verb} that may change something"),
            |trial| {
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
            },
        );
        if let Some(check) = self.checks.last_mut() {
            check.name += &format!(" ({strikes} places)");
        }
    }

    /// What is no request must change nothing, and must not be answered as if it were one.
    fn try_nonsense(&mut self, plugin: &UsablePlugin) {
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
