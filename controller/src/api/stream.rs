//! A run's journal while it grows, as server-sent events. The id of an event is its number in the journal, so that a client
//! that lost the connection continues where it was.

use super::Api;
use super::auth::Viewer;
use super::blind::{hidden_entry, hidden_run, hides_run};
use super::blocking;
use super::extract::{PathParam, QueryParams};
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::RunInfo;
use super::types::safe_integer::safe_integer;
use crate::service::{Actor, Service};
use crate::store::StoreError;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

/// How many events are read from the store at a time.
const EVENTS_PER_READ: usize = 200;
/// How often a comment is sent while nothing happens, so that no proxy closes an idle connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How long at the least from one read of a live journal to the next. Events that come in between are sent together: many followers of a
/// busy run would otherwise each read the store for every event.
const READ_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is checked whether a run without a runner is closed.
const CLOSE_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is checked whether a run that waits for approval has started.
const APPROVAL_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Where to begin in the journal.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Begin with the event after this number. A `Last-Event-ID` header takes precedence.
    #[serde(default, deserialize_with = "safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    after: u64,
}

/// A server-sent event with JSON as its data.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what axum writes")]
pub struct ServerSentEvent {
    /// The type of the event: `entry` or `closed`.
    #[schema(pattern = "^(entry|closed)$")]
    event: String,
    /// The number of the event in the journal, to be sent as `Last-Event-ID` when the client connects again.
    id: Option<String>,
    /// An event of the journal (`entry`), or the run (`closed`).
    data: String,
}

/// How often a follower's token is checked, at the least: it ends the stream within a second when it is revoked.
const TOKEN_CHECK_INTERVAL: Duration = Duration::from_millis(500);

struct Follower {
    api: Api,
    /// The bearer of the token that follows.
    who: Actor,
    checked: Instant,
    run: String,
    after: u64,
    events: VecDeque<Event>,
    changes: Option<watch::Receiver<u64>>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

/// Streams a run's journal until the run is over, or until the token is not valid any more. Each `entry` event holds one event of the journal, with its number as the id. The last
/// event is `closed` and holds the run; a stream that ends without it was cut off.
#[utoipa::path(get, path = "/api/v1/runs/{run}/stream", tag = "runs", params(("run" = String, Path, description = "The run's id"), StreamQuery), security(("token" = ["viewer"])), responses((status = 200, description = "Server-sent events", body = ServerSentEvent, content_type = "text/event-stream"), ProblemStatus<404>))]
pub async fn stream(
    Viewer(who): Viewer,
    State(api): State<Api>,
    PathParam(run): PathParam<String>,
    QueryParams(from): QueryParams<StreamQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl futures_core::Stream<Item = Result<Event, Infallible>>>, ApiProblem> {
    let last = headers.get("last-event-id");
    let last = last.and_then(|value| value.to_str().ok()?.parse().ok());
    let (store, id) = (Arc::clone(api.service.store()), run.clone());
    blocking(move || store.run(&id)).await?;
    let place = Arc::clone(&api.followers)
        .try_acquire_owned()
        .map_err(|_| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            ApiProblem::new(status, "followers", "too many clients follow journals")
                .hint("try again later, or read `/api/v1/runs/{run}/events`, which returns the same events page by page")
        })?;
    let follower = Follower {
        // Subscribed before the first read, so that no event is missed between the two.
        changes: api.service.follow(&run),
        api,
        who,
        checked: Instant::now(),
        run,
        after: last.unwrap_or(from.after),
        events: VecDeque::new(),
        over: false,
        _place: place,
    };
    let stream = futures_util::stream::unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL)))
}

impl Follower {
    /// Waits for the next event; none after the last.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.checked.elapsed() >= TOKEN_CHECK_INTERVAL {
                if !self.api.is_valid(&self.who.token).await {
                    return None;
                }
                self.checked = Instant::now();
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if let Some(changes) = &mut self.changes {
                changes.borrow_and_update();
            }
            let read_at = Instant::now();
            let (service, who) = (Arc::clone(&self.api.service), self.who.clone());
            let (run, after) = (self.run.clone(), self.after);
            // A failure of the store ends the stream; the client connects again and continues where it was.
            let read = blocking(move || read_on(&service, &who, &run, after));
            let (page, closing) = read.await.ok()?;
            let is_empty = page.is_empty();
            for line in page {
                self.after += 1;
                let Some(line) = line else {
                    continue;
                };
                let event = Event::default().event("entry").id(self.after.to_string());
                self.events.push_back(event.data(line));
            }
            if !is_empty {
                continue;
            }
            let kept = closing?;
            if kept.ended.is_some() {
                self.over = true;
                return Event::default().event("closed").json_data(&kept).ok();
            }
            match &mut self.changes {
                Some(changes) => loop {
                    let change = tokio::time::timeout(TOKEN_CHECK_INTERVAL, changes.changed());
                    match change.await {
                        Ok(Ok(())) => {
                            let wait = READ_INTERVAL.saturating_sub(read_at.elapsed());
                            tokio::time::sleep(wait).await;
                            break;
                        }
                        Ok(Err(_)) => {
                            // The runner is gone, and the store is about to close the run.
                            self.changes = None;
                            break;
                        }
                        Err(_) if !self.api.is_valid(&self.who.token).await => return None,
                        Err(_) => self.checked = Instant::now(),
                    }
                },
                None => {
                    tokio::time::sleep(match kept.state == "waiting-for-approval" {
                        true => APPROVAL_POLL_INTERVAL,
                        false => CLOSE_POLL_INTERVAL,
                    })
                    .await;
                    // Subscribed before the next read, so that no event is missed of a run that was approved meanwhile.
                    self.changes = self.api.service.follow(&self.run);
                }
            }
        }
    }
}

/// The next events of a run's journal, each as the line that is stored and none where it may not be seen; and, if there are none, the run.
fn read_on(
    service: &Service,
    who: &Actor,
    run: &str,
    after: u64,
) -> Result<(Vec<Option<String>>, Option<RunInfo>), StoreError> {
    let store = service.store();
    let next = || {
        let mut lines = Vec::new();
        store.journal_lines(run, after, &mut |line| {
            lines.push(Some(line.to_owned()));
            lines.len() < EVENTS_PER_READ
        })?;
        Ok::<_, StoreError>(lines)
    };
    // Nearly always there are events, and most who follow may see them all.
    if !who.is_blind {
        let lines = next()?;
        if !lines.is_empty() {
            return Ok((lines, None));
        }
    }
    // The run first: of one that is closed by then, the events are all there.
    let kept = store.run(run)?;
    let is_hidden = hides_run(service, who, &kept)?;
    let mut lines = next()?;
    if is_hidden {
        for line in &mut lines {
            let entry = line.as_deref().map(serde_json::from_str).transpose();
            let entry = entry.ok().flatten().and_then(hidden_entry);
            *line = entry.and_then(|entry| serde_json::to_string(&entry).ok());
        }
    }
    let kept = match is_hidden {
        true => hidden_run(RunInfo::from(kept)),
        false => RunInfo::from(kept),
    };
    Ok((lines, Some(kept)))
}
