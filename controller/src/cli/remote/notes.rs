//! `backburn note`, `mark` and `decide`: what people add to a run or a game day.

use super::super::{CommandFailure, print_json};
use super::ControllerOptions;
use super::client::Client;
use super::note_lines::line;
use backburn::api::types::{GameDayInfo, RunNoteInfo};
use backburn::service::GAME_DAY_PREFIX;
use backburn_experiments::HumanDuration;
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Where a note is added, and how the answer is printed.
#[derive(Debug, Args)]
pub(super) struct NoteTarget {
    /// Id of the run or of the game day, or name of a stored game day: the one that was prepared last
    #[arg(value_name = "RUN|GAMEDAY")]
    target: String,
    /// Print JSON instead of text for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// When it happened, if that is not now.
#[derive(Debug, Args)]
pub(super) struct HappenedOptions {
    /// When it happened, e.g. `2026-05-04T14:03:20Z` [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// How long ago it happened, e.g. `2m`
    #[arg(long, value_name = "DURATION", conflicts_with = "at")]
    ago: Option<HumanDuration>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NoteCommand {
    #[command(flatten)]
    target: NoteTarget,
    /// Text of the note
    text: String,
    /// Never show the note to participants with a blind token
    #[arg(long)]
    facilitators: bool,
    #[command(flatten)]
    happened: HappenedOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MarkCommand {
    #[command(flatten)]
    target: NoteTarget,
    /// What happened: detected, mitigated, recovered, wrong-runbook or question
    mark: String,
    /// Text that goes with it
    text: Option<String>,
    #[command(flatten)]
    happened: HappenedOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DecideCommand {
    #[command(flatten)]
    target: NoteTarget,
    /// What was decided, in one sentence
    text: String,
    /// Who decided [default: the person of the token]
    #[arg(long, value_name = "PERSON")]
    by: Option<String>,
    /// Why it was decided
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    happened: HappenedOptions,
}

impl HappenedOptions {
    fn time(&self) -> Option<String> {
        let ago = || {
            let ago = SignedDuration::try_from(self.ago?.0).ok()?;
            Some(Timestamp::now().checked_sub(ago).ok()?.to_string())
        };
        self.at.clone().or_else(ago)
    }
}

impl NoteTarget {
    /// Adds a note and prints it.
    pub(super) fn add(&self, note: &Value) -> Result<u8, CommandFailure> {
        let client = self.controller.client()?;
        let path = notes_path(&client, &self.target)?;
        let added: RunNoteInfo = client.post(&path, note)?;
        match self.json {
            true => print_json(&added),
            false => super::super::print(&line(&added)),
        }
        Ok(0)
    }
}

/// The path of the notes of a run, or of a game day by its id or by the name of its stored document.
pub(super) fn notes_path(client: &Client, target: &str) -> Result<String, CommandFailure> {
    if target.starts_with(GAME_DAY_PREFIX) {
        return Ok(format!(
            "/api/v1/game-days/{}/notes",
            percent_encoded(target)
        ));
    }
    let days: Vec<GameDayInfo> = client.get("/api/v1/game-days?limit=1000")?;
    let named = days.iter().find(|day| day.name.as_deref() == Some(target));
    Ok(match named {
        Some(day) => format!("/api/v1/game-days/{}/notes", day.id),
        None => format!("/api/v1/runs/{}/notes", percent_encoded(target)),
    })
}

/// Runs `backburn note`, and prints what was added.
pub(in crate::cli) fn note(command: &NoteCommand) -> Result<u8, CommandFailure> {
    let mut note = json!({"kind": "note", "text": command.text});
    if command.facilitators {
        note["facilitators"] = true.into();
    }
    insert(&mut note, "happened", command.happened.time());
    command.target.add(&note)
}

/// Runs `backburn mark`, and prints what was added.
pub(in crate::cli) fn mark(command: &MarkCommand) -> Result<u8, CommandFailure> {
    let known = [
        "detected",
        "mitigated",
        "recovered",
        "wrong-runbook",
        "question",
    ];
    if !known.contains(&command.mark.as_str()) {
        let hint = backburn_experiments::problem::meant(&command.mark, &known);
        return Err(CommandFailure::invalid(format!(
            "there is no mark `{}`\nhint: {}",
            escape(&command.mark),
            hint.unwrap_or_default()
        )));
    }
    let mut note = json!({"kind": "mark", "mark": command.mark});
    insert(&mut note, "text", command.text.clone());
    insert(&mut note, "happened", command.happened.time());
    command.target.add(&note)
}

/// Runs `backburn decide`, and prints what was added.
pub(in crate::cli) fn decide(command: &DecideCommand) -> Result<u8, CommandFailure> {
    let mut note = json!({"kind": "decision", "text": command.text});
    insert(&mut note, "by", command.by.clone());
    insert(&mut note, "why", command.why.clone());
    insert(&mut note, "happened", command.happened.time());
    command.target.add(&note)
}

/// Sets a field that was given.
pub(super) fn insert(note: &mut Value, key: &str, value: Option<String>) {
    if let Some(value) = value {
        note[key] = value.into();
    }
}
