//! The second stream of runs and game days: what people and the controller add while it goes on and afterwards. Journals stay
//! sealed.

use super::game_days::GameDayError;
use super::{Actor, Service};
use crate::store::{NoteStream, RunNote, RunNoteEntry, StoreError};
use backburn_experiments::Problem;
use backburn_experiments::game_day::{
    GameDayProgress, NoteContent, StatusUpdate, UpdateAudience, UpdateValues, read_note,
    render_update,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// How many notes may be written before a slow subscriber misses some. It then reads the store.
pub(super) const NOTE_BACKLOG: usize = 1024;

/// A note that was written.
#[derive(Debug, Clone)]
pub struct NoteWritten {
    /// Whether it is of a run or of a game day.
    pub stream: NoteStream,
    /// The id of the run or of the game day.
    pub id: String,
    /// The note, with its place in the chain.
    pub entry: RunNoteEntry,
}

impl Service {
    /// Every note from now on, after it is in the store. Whoever reads too slowly misses some and is told so.
    pub fn subscribe_notes(&self) -> broadcast::Receiver<NoteWritten> {
        self.notes.subscribe()
    }

    /// Writes a note, and tells those who follow.
    ///
    /// # Errors
    /// As [`Store::add_note`](crate::store::Store::add_note).
    pub fn record_note(
        &self,
        stream: NoteStream,
        id: &str,
        note: &RunNote,
    ) -> Result<RunNoteEntry, StoreError> {
        let entry = self.store.add_note(stream, id, note)?;
        let written = NoteWritten {
            stream,
            id: id.to_owned(),
            entry: entry.clone(),
        };
        // Nobody may be listening.
        self.notes.send(written).ok();
        Ok(entry)
    }

    /// Adds to a run or a game day what somebody has written.
    ///
    /// # Errors
    /// All problems of what was written; there is no such run or game day; the store failed.
    pub fn add_note(
        &self,
        who: &Actor,
        stream: NoteStream,
        id: &str,
        written: &Value,
    ) -> Result<RunNoteEntry, GameDayError> {
        // What depends on the entries before is decided and written without others in between.
        let _turn = super::lock(&self.game_day_turn);
        let now = Timestamp::now();
        let held = match stream {
            NoteStream::GameDay => Some(self.held_game_day(id)?),
            NoteStream::Run => {
                self.store.run(id)?;
                None
            }
        };
        let mut note = read_note(written, now).map_err(GameDayError::Invalid)?;
        self.check_note(
            &note,
            stream,
            id,
            held.as_ref().map(|held| (&held.day, &held.progress)),
        )?;
        if let NoteContent::Decision { by, .. } = &mut note {
            by.get_or_insert_with(|| who.person.clone());
        }
        let mut body = note.body();
        if let NoteContent::Update(update) = &note {
            let (title, templates) = match &held {
                Some(held) => (held.day.title.clone(), held.day.updates.as_ref()),
                None => (self.store.run(id)?.new.title, None),
            };
            let next = next_update(update, templates.and_then(|templates| templates.every), now);
            let shown = next.map(|next| next.strftime("%H:%M UTC").to_string());
            let values = UpdateValues {
                title: &title,
                impact: &update.impact,
                workaround: update.workaround.as_deref(),
                next: shown.as_deref(),
            };
            let is_outward = update.audience == UpdateAudience::Outward;
            body["text"] = render_update(templates, is_outward, &values).into();
            if let Some(next) = next {
                body["next"] = json!(next);
            }
        }
        let note = RunNote {
            at: now,
            who: who.name.clone(),
            kind: note.kind().to_owned(),
            body,
        };
        let entry = self.record_note(stream, id, &note)?;
        if note.kind == "update" {
            self.publish_update(stream, id, &entry, held.as_ref());
        }
        self.game_days_changed();
        Ok(entry)
    }

    /// Refuses what does not fit to what is there.
    fn check_note(
        &self,
        note: &NoteContent,
        stream: NoteStream,
        id: &str,
        held: Option<(&backburn_experiments::game_day::GameDay, &GameDayProgress)>,
    ) -> Result<(), GameDayError> {
        let problem = |at: &str, what: String, hint: String| {
            Err(GameDayError::Invalid(vec![
                Problem::new(at, what).hint(hint),
            ]))
        };
        match (note, held) {
            (NoteContent::Correction { of, .. }, _) => {
                let before = self.store.notes_of(stream, id, of.saturating_sub(1))?;
                let corrected = before.first().filter(|entry| entry.number == *of);
                match corrected.map(|entry| entry.note.kind.as_str()) {
                    None => problem(
                        "$.of",
                        format!("there is no entry {of}"),
                        "give the number of an entry of this stream".into(),
                    ),
                    Some("note" | "mark" | "decision") => Ok(()),
                    Some(kind) => problem(
                        "$.of",
                        format!("entry {of} is of kind `{kind}`, whose time is not corrected"),
                        "the time of a `note`, a `mark` or a `decision` can be corrected".into(),
                    ),
                }
            }
            (NoteContent::Duty { .. } | NoteContent::Prerequisite { .. }, None) => problem(
                "$.kind",
                format!("a run has no entries of kind `{}`", note.kind()),
                "add it to a game day".into(),
            ),
            (NoteContent::Duty { duty, from, to, .. }, Some((_, progress))) => {
                let Some(holders) = progress.duties.get(duty) else {
                    let known: Vec<&str> = progress.duties.keys().map(|duty| duty.word()).collect();
                    return problem(
                        "$.duty",
                        format!("nobody holds duty `{duty}` at this game day"),
                        match known.is_empty() {
                            true => "the game day lists no duties".into(),
                            false => format!("its duties are: {}", known.join(", ")),
                        },
                    );
                };
                let names: Vec<&str> = holders.iter().map(String::as_str).collect();
                match from {
                    Some(from) if !holders.contains(from) => problem(
                        "$.from",
                        format!("`{from}` does not hold duty `{duty}`"),
                        match names.is_empty() {
                            true => "nobody does: leave `from` out".into(),
                            false => format!("it is held by {}", names.join(", ")),
                        },
                    ),
                    _ if holders.contains(to) => problem(
                        "$.to",
                        format!("`{to}` holds duty `{duty}` already"),
                        "name the person who takes it over".into(),
                    ),
                    _ => Ok(()),
                }
            }
            (NoteContent::Prerequisite { number, .. }, Some((day, _))) => {
                let count = day.prerequisites.len();
                match usize::try_from(*number).is_ok_and(|number| number <= count) {
                    true => Ok(()),
                    false => problem(
                        "$.number",
                        format!("there is no prerequisite {number}"),
                        format!("the game day has {count}"),
                    ),
                }
            }
            _ => Ok(()),
        }
    }
}

/// When the update after this one is due.
fn next_update(
    update: &StatusUpdate,
    every: Option<backburn_experiments::HumanDuration>,
    now: Timestamp,
) -> Option<Timestamp> {
    let given = update.next.as_deref().and_then(|next| next.parse().ok());
    given.or_else(|| {
        let every = SignedDuration::try_from(every?.0).ok()?;
        now.checked_add(every).ok()
    })
}
