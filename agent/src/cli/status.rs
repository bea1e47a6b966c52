//! `status`: what is owed, whether it is still there, and whether those who are to put it back can.

use super::CommandError;
use super::output::{json, print};
use crate::engine::residue_of;
use crate::exit_code;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry};
use crate::processes::OwnerState;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::UnrevertedInjection;
use serde_json::{Value, json};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long looking at what is there may take, for all entries together.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known of one entry.
struct StatusRow<'a> {
    entry: &'a LedgerEntry,
    /// What its agent is; none where that can't be seen from here.
    agent: Option<OwnerState>,
    /// What of it is there, in words for people.
    there: Vec<String>,
}

impl StatusRow<'_> {
    /// Whether somebody has to look.
    fn is_wrong(&self) -> bool {
        !self.entry.stuck.is_empty()
            || self.agent != Some(OwnerState::Alive)
            || self.entry.overdue().is_some()
    }

    fn agent(&self) -> &'static str {
        self.agent.map_or("unknown", OwnerState::name)
    }

    fn json(&self) -> Value {
        let entry = self.entry;
        let overdue = entry.overdue().map(|late| late.as_secs_f64());
        json!({"injection": entry.injection, "run": entry.run, "fault": entry.fault, "agent": self.agent(),
               "victims": entry.victims, "there": self.there, "stuck": entry.stuck, "overdue-seconds": overdue})
    }

    fn text(&self) -> String {
        let entry = self.entry;
        let there = match self.there.is_empty() {
            true => "nothing of it is there".to_owned(),
            false => self.there.join("; "),
        };
        let overdue = entry.overdue().map(|late| {
            let late = HumanDuration(Duration::from_secs(late.as_secs()));
            format!("  overdue by {late}")
        });
        format!(
            "{}  {}  agent {}{}  {there}\n",
            entry.injection,
            entry.fault,
            self.agent(),
            overdue.unwrap_or_default()
        )
    }
}

/// Prints what is owed. Exit code 0 where all is well, 6 where somebody has to look.
pub(super) fn status((host, ledger): &(Host, Ledger), as_json: bool) -> Result<u8, CommandError> {
    let (entries, unreadable) = ledger.entries().map_err(|error| {
        CommandError::Invalid(format!(
            "{} can't be read: {error}",
            ledger.folder().display()
        ))
    })?;
    let rows = rows(host, &entries);
    if as_json {
        let owed: Vec<Value> = rows.iter().map(StatusRow::json).collect();
        let unreadable: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        json(&json!({"owed": owed, "unreadable": unreadable}))?;
    } else if rows.is_empty() && unreadable.is_empty() {
        eprintln!("nothing is owed");
    } else {
        rows.iter().for_each(|row| print(&row.text()));
    }
    let problems: Vec<UnrevertedInjection> = unreadable
        .iter()
        .map(crate::ledger::UnreadableEntry::owed)
        .collect();
    if !problems.is_empty() {
        return Err(CommandError::Owed(problems));
    }
    for hint in hints(&rows) {
        eprintln!("hint: {hint}");
    }
    Ok(match rows.iter().any(StatusRow::is_wrong) {
        true => exit_code::NOT_CLEAN,
        false => 0,
    })
}

/// What would do, for each way in which something is wrong.
fn hints(rows: &[StatusRow<'_>]) -> Vec<String> {
    let is = |state| rows.iter().any(|row| row.agent == Some(state));
    let stuck = rows.iter().any(|row| !row.entry.stuck.is_empty());
    let mut hints = Vec::new();
    if stuck || is(OwnerState::Dead) {
        hints.push("`revert --all` puts back what a dead agent owes".to_owned());
    }
    if is(OwnerState::Stopped) {
        hints.push(
            "an agent is stopped: let it go on with `kill -CONT`, or kill it and `revert --all`"
                .into(),
        );
    }
    if is(OwnerState::Frozen) {
        hints.push(
            "an agent is in a frozen control group: it puts things back when that is thawed, and `revert --all` does now".into(),
        );
    }
    let late =
        |row: &StatusRow<'_>| row.agent == Some(OwnerState::Alive) && row.entry.overdue().is_some();
    if rows.iter().any(late) {
        hints.push("a fault should have ended: `revert --all` ends it".into());
    }
    hints
}

fn rows<'a>(host: &Host, entries: &'a [LedgerEntry]) -> Vec<StatusRow<'a>> {
    // Side by side, with a limit: a path that hangs keeps nobody from being told about the rest.
    let (tell, told) = channel();
    let mut rows: Vec<StatusRow<'a>> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let (agent, there) = match entry.is_abandoned(&host.table) {
            Ok(true) => (Some(OwnerState::Dead), Vec::new()),
            Ok(false) => {
                let owner = [entry.owner.worker, entry.owner.guardian];
                (Some(host.table.owner_state(&owner)), Vec::new())
            }
            // Nobody here can say what is there.
            Err(hidden) => (None, vec![hidden.to_string()]),
        };
        if agent.is_some() {
            let (tell, host, changes) = (tell.clone(), host.for_thread(), entry.changes.clone());
            let look = move || {
                let there: Vec<String> = changes
                    .iter()
                    .filter_map(|change| residue_of(&host, change))
                    .collect();
                // Nobody may listen any more.
                drop(tell.send((number, there)));
            };
            drop(std::thread::Builder::new().spawn(look));
        }
        let there = match agent {
            Some(_) => vec![format!(
                "it can't be looked at within {} s",
                LOOK_TIMEOUT.as_secs()
            )],
            None => there,
        };
        rows.push(StatusRow {
            entry,
            agent,
            there,
        });
    }
    drop(tell);
    let until = Instant::now() + LOOK_TIMEOUT;
    while let Ok((number, there)) =
        told.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        if let Some(row) = rows.get_mut(number) {
            row.there = there;
        }
    }
    rows
}
