//! What every request has: an id, and a place in the log.

use crate::request_id::{self, REQUEST_ID_HEADER};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::time::Instant;
use tracing::Instrument as _;

/// Serves a request under its id, and logs it: at level `info` if it may change something or fails, else at `debug`.
pub(super) async fn identify_request(request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID_HEADER);
    let id = given
        .and_then(|value| request_id::accepted(value.to_str().ok()?))
        .unwrap_or_else(request_id::new);
    let method = request.method().clone();
    // Not the path as it came: the log is read by people.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let span = tracing::info_span!("request", id, method = %method, route);
    let began = Instant::now();
    let serving = async {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        let took_ms = began.elapsed().as_millis() as u64;
        if status >= 500 || !matches!(method, Method::GET | Method::HEAD) {
            tracing::info!(status, took_ms, "answered");
        } else {
            tracing::debug!(status, took_ms, "answered");
        }
        response
    };
    let mut response = request_id::scope(id.clone(), serving.instrument(span)).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}
