//! The second stream of runs and game days: reading it, following it, and adding to it.

use super::auth::{Operator, Viewer};
use super::blind::BlindView;
use super::extract::{JsonBody, PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::RunNoteInfo;
use super::types::safe_integer::safe_integer;
use super::{Api, blocking};
use crate::service::{Actor, Service};
use crate::store::{NoteStream, RunNoteEntry, StoreError};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use backburn_experiments::game_day::happened_times;
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast;
use utoipa::IntoParams;

/// How often a comment is sent while nothing happens, so that no proxy closes an idle connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How often the follower's token is checked.
const TOKEN_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Where to begin in the stream.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct NotesQuery {
    /// Begin with the entry after this number. When a stream is followed, a `Last-Event-ID` header takes precedence.
    #[serde(default, deserialize_with = "safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    after: u64,
}

/// A note as it is sent in a stream.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what axum writes")]
pub struct NoteSentEvent {
    /// The type of the event: `note`.
    #[schema(pattern = "^note$")]
    event: String,
    /// The number of the entry, to be sent as `Last-Event-ID` when the client connects again.
    id: String,
    /// The entry, as it is listed.
    data: String,
}

/// The entries after this number, as the caller may see them.
pub(super) fn shown_notes(
    service: &Service,
    who: &Actor,
    stream: NoteStream,
    id: &str,
    after: u64,
) -> Result<Vec<RunNoteInfo>, StoreError> {
    // A correction comes after what it corrects, so that the entries before are not needed.
    let entries = service.store().notes_of(stream, id, after)?;
    let view = BlindView::of(service, who, stream, id)?;
    Ok(shown(&entries, view.as_ref()))
}

fn shown(entries: &[RunNoteEntry], view: Option<&BlindView>) -> Vec<RunNoteInfo> {
    let times = happened_times(entries.iter().map(|entry| {
        let note = &entry.note;
        (entry.number, note.at, note.kind.as_str(), &note.body)
    }));
    let shown = entries.iter().filter_map(|entry| {
        let (happened, corrected_by) = (times.get(&entry.number))
            .copied()
            .unwrap_or((entry.note.at, None));
        let info = RunNoteInfo {
            number: entry.number,
            at: entry.note.at.to_string(),
            happened: happened.to_string(),
            corrected_by,
            who: entry.note.who.clone(),
            kind: entry.note.kind.clone(),
            body: entry.note.body.clone(),
            previous: entry.previous.to_string(),
            hash: entry.hash.to_string(),
        };
        match view {
            Some(view) => view.note(entry, info),
            None => Some(info),
        }
    });
    shown.collect()
}

async fn read(
    api: &Api,
    who: Actor,
    stream: NoteStream,
    id: String,
    after: u64,
) -> Result<Json<Vec<RunNoteInfo>>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let found = blocking(move || shown_notes(&service, &who, stream, &id, after)).await?;
    Ok(Json(found))
}

async fn add(
    api: &Api,
    who: Actor,
    stream: NoteStream,
    id: String,
    written: Value,
) -> Result<(StatusCode, Json<RunNoteInfo>), ApiProblem> {
    let service = Arc::clone(&api.service);
    let added = blocking(move || -> Result<_, ApiProblem> {
        let entry = service.add_note(&who, stream, &id, &written)?;
        // Its author has written it and may read it.
        let mut shown = shown(&[entry], None);
        shown
            .pop()
            .ok_or_else(|| ApiProblem::not_found("the note was not written"))
    });
    Ok((StatusCode::CREATED, Json(added.await?)))
}

/// Returns the notes of a run, oldest first: what people and the controller added to it. Its journal stays as it is.
#[utoipa::path(get, path = "/api/v1/runs/{run}/notes", tag = "runs", operation_id = "notes", params(("run" = String, Path, description = "The run's id"), NotesQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<RunNoteInfo>), ProblemStatus<404>))]
pub async fn of_run(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    QueryParams(NotesQuery { after }): QueryParams<NotesQuery>,
) -> Result<Json<Vec<RunNoteInfo>>, ApiProblem> {
    read(&api, who, NoteStream::Run, run, after).await
}

/// Adds a note, a mark, a decision, a correction of a time, a link or a status update to a run.
#[utoipa::path(post, path = "/api/v1/runs/{run}/notes", tag = "runs", operation_id = "add_note", params(("run" = String, Path, description = "The run's id")), request_body(content = ref("#/components/schemas/NoteContent"), content_type = "application/json"), security(("token" = ["operator"])), responses((status = 201, body = RunNoteInfo), ProblemStatus<404>, ProblemStatus<422>))]
pub async fn add_to_run(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    JsonBody(written): JsonBody<Value>,
) -> Result<(StatusCode, Json<RunNoteInfo>), ApiProblem> {
    add(&api, who, NoteStream::Run, run, written).await
}

/// Streams the notes of a run: those that are there, and those that are added, as `note` events with their numbers as ids.
#[utoipa::path(get, path = "/api/v1/runs/{run}/notes/stream", tag = "runs", operation_id = "notes_stream", params(("run" = String, Path, description = "The run's id"), NotesQuery), security(("token" = ["viewer"])), responses((status = 200, description = "Server-sent events", body = NoteSentEvent, content_type = "text/event-stream"), ProblemStatus<404>))]
pub async fn stream_of_run(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    QueryParams(from): QueryParams<NotesQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl futures_core::Stream<Item = Result<Event, Infallible>>>, ApiProblem> {
    follow(api, who, NoteStream::Run, run, from, headers).await
}

/// Returns the notes of a game day, oldest first: what people added, and what the game day did.
#[utoipa::path(get, path = "/api/v1/game-days/{id}/notes", tag = "game-days", operation_id = "game_day_notes", params(("id" = String, Path, description = "The id of the game day"), NotesQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<RunNoteInfo>), ProblemStatus<404>))]
pub async fn of_game_day(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    QueryParams(NotesQuery { after }): QueryParams<NotesQuery>,
) -> Result<Json<Vec<RunNoteInfo>>, ApiProblem> {
    read(&api, who, NoteStream::GameDay, id, after).await
}

/// Adds a note, a mark, a decision, a correction of a time, a link, a status update, the hand-over of a duty, or a prerequisite that is
/// met to a game day.
#[utoipa::path(post, path = "/api/v1/game-days/{id}/notes", tag = "game-days", operation_id = "add_game_day_note", params(("id" = String, Path, description = "The id of the game day")), request_body(content = ref("#/components/schemas/NoteContent"), content_type = "application/json"), security(("token" = ["operator"])), responses((status = 201, body = RunNoteInfo), ProblemStatus<404>, ProblemStatus<422>))]
pub async fn add_to_game_day(
    Operator(who): Operator,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    JsonBody(written): JsonBody<Value>,
) -> Result<(StatusCode, Json<RunNoteInfo>), ApiProblem> {
    add(&api, who, NoteStream::GameDay, id, written).await
}

/// Streams the notes of a game day: those that are there, and those that are added, as `note` events with their numbers as ids.
#[utoipa::path(get, path = "/api/v1/game-days/{id}/notes/stream", tag = "game-days", operation_id = "game_day_notes_stream", params(("id" = String, Path, description = "The id of the game day"), NotesQuery), security(("token" = ["viewer"])), responses((status = 200, description = "Server-sent events", body = NoteSentEvent, content_type = "text/event-stream"), ProblemStatus<404>))]
pub async fn stream_of_game_day(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(id): PathParam<String>,
    QueryParams(from): QueryParams<NotesQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl futures_core::Stream<Item = Result<Event, Infallible>>>, ApiProblem> {
    follow(api, who, NoteStream::GameDay, id, from, headers).await
}

/// Somebody who follows notes.
struct NoteFollower {
    api: Api,
    who: Actor,
    stream: NoteStream,
    id: String,
    after: u64,
    events: VecDeque<Event>,
    written: broadcast::Receiver<crate::service::NoteWritten>,
    /// When its token was checked last.
    checked: Instant,
    _place: OwnedSemaphorePermit,
}

async fn follow(
    api: Api,
    who: Actor,
    stream: NoteStream,
    id: String,
    from: NotesQuery,
    headers: HeaderMap,
) -> Result<Sse<impl futures_core::Stream<Item = Result<Event, Infallible>>>, ApiProblem> {
    let last = headers.get("last-event-id");
    let last = last.and_then(|value| value.to_str().ok()?.parse().ok());
    // Subscribed before the first read, so that no note is missed between the two.
    let written = api.service.subscribe_notes();
    let after = last.unwrap_or(from.after);
    // Refused here, where the answer can still say why.
    drop(read(&api, who.clone(), stream, id.clone(), u64::MAX).await?);
    let place = Arc::clone(&api.followers)
        .try_acquire_owned()
        .map_err(|_| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            ApiProblem::new(
                status,
                "followers",
                "too many clients follow journals and notes",
            )
            .hint("try again later, or read the notes without following them")
        })?;
    let follower = NoteFollower {
        api,
        who,
        stream,
        id,
        after,
        events: VecDeque::new(),
        written,
        checked: Instant::now(),
        _place: place,
    };
    let stream =
        futures_util::stream::unfold((follower, true), async |(mut follower, is_first)| {
            let event = follower.next(is_first).await?;
            Some((Ok(event), (follower, false)))
        });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL)))
}

impl NoteFollower {
    /// Waits for the next event; none when the token is not valid any more, or the controller ends.
    async fn next(&mut self, is_first: bool) -> Option<Event> {
        let mut is_due = is_first;
        loop {
            if self.checked.elapsed() >= TOKEN_CHECK_INTERVAL {
                if self.api.service.is_ending() || !self.api.is_valid(&self.who.token).await {
                    return None;
                }
                self.checked = Instant::now();
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if is_due {
                self.load().await?;
                is_due = false;
                continue;
            }
            match tokio::time::timeout(TOKEN_CHECK_INTERVAL, self.written.recv()).await {
                Ok(Ok(written)) => {
                    is_due = written.stream == self.stream
                        && written.id == self.id
                        && written.entry.number > self.after;
                }
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => is_due = true,
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                Err(_) => {}
            }
        }
    }

    /// Reads the entries that were not sent yet. A failure of the store ends the stream; the client connects again.
    async fn load(&mut self) -> Option<()> {
        let service = Arc::clone(&self.api.service);
        let (who, stream, id, after) = (self.who.clone(), self.stream, self.id.clone(), self.after);
        let notes = blocking(move || shown_notes(&service, &who, stream, &id, after)).await;
        for note in notes.ok()? {
            self.after = note.number;
            let event = Event::default().event("note").id(note.number.to_string());
            self.events.push_back(event.json_data(&note).ok()?);
        }
        Some(())
    }
}
