//! A run's journal as it grows: server-sent events, each with its number as its id, so that whoever lost the connection
//! goes on where it was.

use super::Api;
use super::auth::Viewer;
use super::blocking;
use super::extract::{PathParam, QueryParams, safe_integer};
use super::problem::ApiProblem;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

/// How many events are read at a time.
const EVENTS_PER_READ: u32 = 200;
/// How often something is sent where nothing happens, so that nobody takes the connection for dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// With the event after this number. A `Last-Event-ID` goes before it.
    #[serde(default, deserialize_with = "safe_integer")]
    #[param(maximum = 9007199254740991_i64)]
    after: u64,
}

/// What is sent: each is a server-sent event, whose data is JSON.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what axum writes")]
pub struct ServerSentEvent {
    /// `entry` or `closed`.
    #[schema(pattern = "^(entry|closed)$")]
    event: String,
    /// The entry's number in the journal, to come back with as `Last-Event-ID`.
    id: Option<String>,
    /// With `entry`, an entry of the journal; with `closed`, the run.
    data: String,
}

struct Follower {
    api: Api,
    run: String,
    after: u64,
    events: VecDeque<Event>,
    changes: Option<watch::Receiver<u64>>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

/// A run's journal as it grows, to its end: `event` is `entry`, its data an entry of the journal, its id the entry's number; the last is
/// `closed`, with the run. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/runs/{run}/stream", tag = "runs", params(("run" = String, Path, description = "The run's id"), StreamQuery), security(("token" = ["viewer"])), responses((status = 200, description = "Server-sent events", body = ServerSentEvent, content_type = "text/event-stream"), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 404, body = ApiProblem, content_type = "application/problem+json")))]
pub async fn stream(
    _who: Viewer,
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
            ApiProblem::new(status, "followers", "too many follow journals at a time")
                .hint("come again; `/api/v1/runs/{run}/events` says the same, a page at a time")
        })?;
    let follower = Follower {
        // Subscribed before the first look, so that nothing falls between the two.
        changes: api.service.follow(&run),
        api,
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
    /// The next event, whenever it comes; none after the last.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if let Some(changes) = &mut self.changes {
                changes.borrow_and_update();
            }
            let (store, run, after) = (
                Arc::clone(self.api.service.store()),
                self.run.clone(),
                self.after,
            );
            // A store that fails ends the stream; the client comes again, and goes on where it was.
            let read = blocking(move || {
                let events = store.events(&run, after, EVENTS_PER_READ)?;
                Ok::<_, crate::store::StoreError>((events, store.run(&run)?))
            });
            let (page, kept) = read.await.ok()?;
            for numbered in page {
                self.after = numbered.number;
                let event = Event::default()
                    .event("entry")
                    .id(numbered.number.to_string());
                self.events
                    .push_back(event.json_data(&numbered.entry).ok()?);
            }
            if !self.events.is_empty() {
                continue;
            }
            if kept.end.is_some() {
                self.over = true;
                let run = super::runs::RunInfo::from(kept);
                return Event::default().event("closed").json_data(&run).ok();
            }
            match &mut self.changes {
                Some(changes) => {
                    if changes.changed().await.is_err() {
                        // The run is being closed in the store.
                        self.changes = None;
                    }
                }
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}
