//! Reports of a controller's runs and game days.

use super::super::{CommandFailure, print_stderr};
use super::client::Client;
use super::run_view;
use backburn::api::types::{GameDayInfo, RunNoteInfo};
use backburn::report::{ReportEvidence, ReportFormat, blaming_words, counts_text};
use backburn::service::GAME_DAY_PREFIX;
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;

/// The longest beginning of the id of a game day that is not looked up: a time to the second and four letters.
const GAME_DAY_ID_LENGTH: usize = 23;

/// Whether this names a game day, not a run.
pub(in crate::cli) fn is_game_day(id: &str) -> bool {
    id.starts_with(GAME_DAY_PREFIX)
}

/// The path of the run or of the game day that is meant.
fn room(client: &Client, id: &str) -> Result<String, CommandFailure> {
    if !is_game_day(id) {
        let run = run_view::resolve(client, id)?;
        return Ok(format!("/api/v1/runs/{}", percent_encoded(&run)));
    }
    let mut id = id.to_owned();
    if id.len() < GAME_DAY_ID_LENGTH {
        let days: Vec<GameDayInfo> = client.get("/api/v1/game-days?limit=1000")?;
        let mut found: Vec<String> = days.into_iter().map(|day| day.id).collect();
        found.retain(|day| day.starts_with(&id));
        id = match &found[..] {
            [only] => only.clone(),
            all => {
                return Err(CommandFailure::invalid(format!(
                    "{} of the controller's latest game days have an id that begins with `{}`\nhint: `backburn gameday` lists them",
                    all.len(),
                    escape(&id)
                )));
            }
        };
    }
    Ok(format!("/api/v1/game-days/{}", percent_encoded(&id)))
}

/// The report of a run or of a game day. With `as_of`, as it was when it had the notes and actions that this evidence counts.
pub(in crate::cli) fn fetch(
    client: &Client,
    id: &str,
    format: ReportFormat,
    as_of: Option<&ReportEvidence>,
) -> Result<String, CommandFailure> {
    let mut path = format!("{}/report?format={}", room(client, id)?, format.word());
    if let Some(as_of) = as_of {
        path.push_str(&format!("&notes={}&actions={}", as_of.notes, as_of.actions));
        if !as_of.run_notes.is_empty() {
            path.push_str(&format!("&run-notes={}", counts_text(&as_of.run_notes)));
        }
    }
    client.get_text(&path)
}

/// Shows the words in the notes of a run, or of a game day and its runs, that judge a person, for whoever edits them.
pub(in crate::cli) fn hint_at_blame(client: &Client, id: &str) -> Result<(), CommandFailure> {
    let room = room(client, id)?;
    hint_at_blame_in(client, &room, "")?;
    if is_game_day(id) {
        let day: GameDayInfo = client.get(&room)?;
        for run in day.steps.into_iter().filter_map(|step| step.run) {
            let room = format!("/api/v1/runs/{}", percent_encoded(&run));
            // The run may not be there any more.
            hint_at_blame_in(client, &room, &format!(" (of run {})", escape(&run))).ok();
        }
    }
    Ok(())
}

fn hint_at_blame_in(client: &Client, room: &str, of: &str) -> Result<(), CommandFailure> {
    let notes: Vec<RunNoteInfo> = client.get(&format!("{room}/notes"))?;
    for note in notes {
        let texts = note.body.as_object().into_iter().flatten();
        let texts = texts.filter_map(|(_, value)| value.as_str());
        for (words, instead) in texts.flat_map(blaming_words) {
            print_stderr(&format!(
                "hint: note {} of {}{of} says `{words}`: {instead}\n",
                note.number,
                escape(&note.who)
            ));
        }
    }
    Ok(())
}
