//! What becomes of a status update besides its entry in the stream: destinations are told, and outward ones are kept for the public page.
//! Both may be read by participants, so neither has a word that is not revealed.

use super::game_days::HeldGameDay;
use super::notification_text::{Notification, NotificationKind};
use super::{HiddenWords, Service};
use crate::store::{NoteStream, RunNoteEntry, StoreError};
use backburn_experiments::terminal_text::escape;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The setting of the store that has the outward updates of late.
const SETTING: &str = "status-page";
/// How many outward updates are kept for the page.
const MAX_UPDATES: usize = 20;

/// An outward status update as the public reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct OutwardUpdate {
    /// The id of the run or of the game day that it is of.
    pub(super) of: String,
    /// Whether it is of a game day.
    pub(super) is_game_day: bool,
    /// When it was written.
    pub(super) at: Timestamp,
    /// Its text, without what is not revealed.
    pub(super) text: String,
    /// When the next one is due.
    pub(super) next: Option<Timestamp>,
}

impl Service {
    /// Tells of a status update that is in the stream of a run or of a game day. What fails is logged: the update is written.
    pub(super) fn publish_update(
        &self,
        stream: NoteStream,
        id: &str,
        entry: &RunNoteEntry,
        held: Option<&HeldGameDay>,
    ) {
        let hidden = match self.hidden_of(stream, id, held) {
            Ok(hidden) => hidden,
            Err(error) => {
                return tracing::error!(id, %error, "a status update was not sent: it is not known what it may not tell");
            }
        };
        let body = &entry.note.body;
        let text = hidden.text(body["text"].as_str().unwrap_or_default());
        let is_outward = body["audience"] == "outward";
        let next: Option<Timestamp> = body["next"].as_str().and_then(|next| next.parse().ok());
        let kind = match is_outward {
            true => NotificationKind::StatusUpdateOutward,
            false => NotificationKind::StatusUpdate,
        };
        let key = match stream {
            NoteStream::Run => "run",
            NoteStream::GameDay => "game-day",
        };
        let mut detail = json!({"audience": body["audience"], "next": body["next"]});
        if !is_outward {
            // Who reads outward updates needs no name from within.
            detail[key] = id.into();
            detail["who"] = entry.note.who.clone().into();
        }
        let about = format!("{id}-{}", entry.number);
        self.notify(Notification::new(kind, &about, text.clone(), detail));
        if is_outward {
            let update = OutwardUpdate {
                of: id.to_owned(),
                is_game_day: stream == NoteStream::GameDay,
                at: entry.note.at,
                text: escape(&text).into_owned(),
                next,
            };
            if let Err(error) = self.keep_outward_update(update) {
                tracing::error!(id, %error, "a status update could not be kept for the status page");
            }
            self.status_changed();
        }
    }

    fn hidden_of(
        &self,
        stream: NoteStream,
        id: &str,
        held: Option<&HeldGameDay>,
    ) -> Result<HiddenWords, StoreError> {
        if let Some(held) = held {
            return Ok(self.hidden_words(held));
        }
        let link = match stream {
            NoteStream::Run => self.store.game_day_of_run(id)?,
            NoteStream::GameDay => None,
        };
        match link {
            Some(link) => Ok(self.hidden_words(&self.held_game_day(&link.game_day)?)),
            None => Ok(HiddenWords::default()),
        }
    }

    fn keep_outward_update(&self, update: OutwardUpdate) -> Result<(), StoreError> {
        let mut updates = self.outward_updates()?;
        updates.push(update);
        let excess = updates.len().saturating_sub(MAX_UPDATES);
        self.store.set(SETTING, &json!(updates[excess..]))
    }

    /// The outward updates of late, in order.
    pub(super) fn outward_updates(&self) -> Result<Vec<OutwardUpdate>, StoreError> {
        let kept = self.store.setting(SETTING)?.unwrap_or_default();
        Ok(serde_json::from_value(kept).unwrap_or_default())
    }

    /// Whether what an update is of is over, so that no other one is due.
    pub(super) fn is_update_over(&self, update: &OutwardUpdate) -> Result<bool, StoreError> {
        match update.is_game_day {
            true => Ok(self.held_game_day(&update.of)?.progress.ended.is_some()),
            false => Ok(self.store.run(&update.of)?.end.is_some()),
        }
    }

    /// Tells that the next status update of a game day is overdue.
    pub(super) fn notify_update_due(&self, held: &HeldGameDay, due: Timestamp) {
        let id = &held.record.id;
        let due = due.strftime("%H:%M UTC");
        let text = format!("A status update of game day {id} was due at {due}");
        let detail = json!({"game-day": id});
        let about = format!("{id}-{due}");
        let kind = NotificationKind::StatusUpdateDue;
        self.notify(Notification::new(kind, &about, text, detail));
    }
}
