//! Whether a fault or a plug-in keeps the promises of a change: what it did is undone, also twice, also when it was never done, after a
//! reboot, after being killed at any system call, and when it is asked nonsense.

mod fingerprint;
mod report;
mod stranger;
mod strike;
mod trial;

pub use report::{ConformCheck, ConformReport};

use crate::changes::{Change, ReversibleChange as _};
use crate::engine::PlanTask;
use crate::files::read_regular;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry, Owner, boot_id};
use crate::plugin_call::{MAX_PROGRAM_BYTES, PluginKind};
use crate::plugins::UsablePlugin;
use crate::policy::HostPolicy;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::{InjectionRequest, Refusal};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

use fingerprint::Fingerprint;
use trial::Trial;

/// The injection that everything is made for.
const INJECTION: &str = "conform";
/// The duration of the fault; it is ended much sooner.
const DURATION: HumanDuration = HumanDuration::seconds(120);

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
        .hint(format!(
            "`backburn agent revert {INJECTION} --state {}` reverts it",
            asked.state.display()
        )));
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
    let plan = task.plan().map_err(|refusal| match &refusal.hint {
        None if asked.arguments.is_none() => refusal.hint(format!(
            "its example was tried, {example}; `--arguments JSON` gives others"
        )),
        _ => refusal,
    })?;
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
        plan: &plan,
        before: Fingerprint::take(&places, &[]),
        known: Vec::new(),
        residue: None,
        not_tried: vec!["a device that never answers (state D)".to_owned()],
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
        mut not_tried,
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
