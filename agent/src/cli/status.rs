//! `status`: what is owed, whether it is still active, and whether the agents that are to revert it can.

use super::CommandError;
use super::output::{json, print};
use crate::engine::residue_of;
use crate::exit_code;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerEntry};
use crate::processes::OwnerState;
use backburn_experiments::HumanDuration;
use backburn_experiments::text_table::format_table;
use backburn_experiments::wire::UnrevertedInjection;
use serde_json::{Value, json};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long observing the changes of all entries together may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known about one ledger entry.
struct StatusRow<'a> {
    entry: &'a LedgerEntry,
    /// The state of the agent that owns it; none if it cannot be seen from here.
    agent: Option<OwnerState>,
    /// What its changes are observed to do.
    there: Vec<String>,
}

impl StatusRow<'_> {
    /// Whether somebody has to act.
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

    fn cells(&self) -> [String; 5] {
        let entry = self.entry;
        let there = match self.there.is_empty() {
            true => "nothing of it is left".to_owned(),
            false => self.there.join("; "),
        };
        let whole = |time: Duration| HumanDuration(Duration::from_secs(time.as_secs()));
        let time = match (entry.overdue(), entry.remaining()) {
            (Some(late), _) => format!("overdue by {}", whole(late)),
            (None, Some(left)) => format!("{} left", whole(left)),
            (None, None) => String::new(),
        };
        [
            entry.injection.clone(),
            entry.fault.clone(),
            self.agent().to_owned(),
            time,
            there,
        ]
    }
}

/// Prints what is owed. `revert` is the command that reverts it. The exit code is 0 if all is well, 6 if somebody has to act.
pub(super) fn status(
    (host, ledger): &(Host, Ledger),
    as_json: bool,
    revert: &str,
) -> Result<u8, CommandError> {
    let (entries, unreadable) = ledger.entries().map_err(|error| {
        CommandError::Invalid(format!(
            "{} cannot be read: {error}",
            ledger.folder().display()
        ))
    })?;
    let rows = rows(host, &entries);
    if as_json {
        let owed: Vec<Value> = rows.iter().map(StatusRow::json).collect();
        let unreadable: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        json(&json!({"owed": owed, "unreadable": unreadable}))?;
    } else if rows.is_empty() && unreadable.is_empty() {
        say!("nothing is owed");
    } else {
        let cells: Vec<[String; 5]> = rows.iter().map(StatusRow::cells).collect();
        let headers = ["INJECTION", "FAULT", "AGENT", "TIME", "OBSERVED"];
        print(&format_table(headers, &cells));
    }
    let problems: Vec<UnrevertedInjection> = unreadable
        .iter()
        .map(crate::ledger::UnreadableEntry::owed)
        .collect();
    if !problems.is_empty() {
        return Err(CommandError::Owed(problems));
    }
    for hint in hints(&rows, revert) {
        say!("hint: {hint}");
    }
    Ok(match rows.iter().any(StatusRow::is_wrong) {
        true => exit_code::NOT_CLEAN,
        false => 0,
    })
}

/// What to do, for each kind of trouble.
fn hints(rows: &[StatusRow<'_>], revert: &str) -> Vec<String> {
    let is = |state| rows.iter().any(|row| row.agent == Some(state));
    let stuck = rows.iter().any(|row| !row.entry.stuck.is_empty());
    let mut hints = Vec::new();
    if stuck || is(OwnerState::Dead) {
        hints.push(format!("`{revert}` reverts what a dead agent owes"));
    }
    if is(OwnerState::Stopped) {
        hints.push(format!(
            "an agent is stopped: continue it with `kill -CONT`, or kill it and run `{revert}`"
        ));
    }
    if is(OwnerState::Frozen) {
        hints.push(format!(
            "an agent is in a frozen control group: it reverts when the group is thawed; `{revert}` reverts now"
        ));
    }
    let late =
        |row: &StatusRow<'_>| row.agent == Some(OwnerState::Alive) && row.entry.overdue().is_some();
    if rows.iter().any(late) {
        hints.push(format!(
            "a fault should have ended already: `{revert}` ends it"
        ));
    }
    hints
}

fn rows<'a>(host: &Host, entries: &'a [LedgerEntry]) -> Vec<StatusRow<'a>> {
    // Side by side and with a limit, so that one path that hangs does not hide the rest.
    let (tell, told) = channel();
    let mut rows: Vec<StatusRow<'a>> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let (agent, there) = match entry.is_abandoned(&host.table) {
            Ok(true) => (Some(OwnerState::Dead), Vec::new()),
            Ok(false) => {
                let owner = [entry.owner.worker, entry.owner.guardian];
                (Some(host.table.owner_state(&owner)), Vec::new())
            }
            // The changes cannot be observed from here.
            Err(hidden) => (None, vec![hidden.to_string()]),
        };
        if agent.is_some() {
            let (tell, host, changes) = (tell.clone(), host.for_thread(), entry.changes.clone());
            let look = move || {
                let there: Vec<String> = changes
                    .iter()
                    .filter_map(|change| residue_of(&host, change))
                    .collect();
                // The receiver may be gone already.
                drop(tell.send((number, there)));
            };
            drop(std::thread::Builder::new().spawn(look));
        }
        let there = match agent {
            Some(_) => vec![format!(
                "it cannot be observed within {} s",
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
