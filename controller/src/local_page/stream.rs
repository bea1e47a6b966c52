//! The events of a run on one host, as they come: the same server-sent events as the controller's.

use super::PageState;
use crate::api::ApiProblem;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

/// A browser that follows a run.
struct LocalFollower {
    shared: Arc<PageState>,
    run: String,
    /// How many events it has.
    sent: usize,
    is_over: bool,
    changes: watch::Receiver<u64>,
}

/// Where in the journal a browser that comes back goes on.
#[derive(Deserialize)]
pub(super) struct LocalStreamQuery {
    /// How many events the browser has. A `Last-Event-ID` header takes precedence.
    #[serde(default)]
    after: usize,
}

/// Streams a run's events, and then `closed` with the run.
pub(super) async fn stream(
    State(shared): State<Arc<PageState>>,
    Path(run): Path<String>,
    Query(from): Query<LocalStreamQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiProblem> {
    let last = headers.get("last-event-id");
    let last = last.and_then(|value| value.to_str().ok()?.parse().ok());
    if shared.of_run(&run, |_| ()).is_none() {
        return Err(ApiProblem::not_found("there is no such run on this page"));
    }
    let follower = LocalFollower {
        changes: shared.changes.subscribe(),
        shared,
        run,
        sent: last.unwrap_or(from.after),
        is_over: false,
    };
    let events = unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new()))
}

impl LocalFollower {
    /// Waits for the next event; none after the last.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.is_over {
                return None;
            }
            self.changes.borrow_and_update();
            let sent = self.sent;
            let (entry, closed) = self.shared.of_run(&self.run, |run| {
                let closed = run.info.ended.as_ref().map(|_| serde_json::json!(run.info));
                (run.entries.get(sent).cloned(), closed)
            })?;
            if let Some(entry) = entry {
                self.sent += 1;
                let event = Event::default().event("entry").id(self.sent.to_string());
                return event.json_data(&*entry).ok();
            }
            if let Some(closed) = closed {
                self.is_over = true;
                return Event::default().event("closed").json_data(closed).ok();
            }
            self.changes.changed().await.ok()?;
        }
    }
}
