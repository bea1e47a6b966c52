//! The part of the API that concerns runs on one host.

use super::{PageState, lock, stream};
use crate::api::ApiProblem;
use crate::api::types::{
    CondensedRunInfo, ExperimentInfo, HaltResult, HaltStatus, RunInfo, RunJournalEntry,
    SessionInfo, StopResult,
};
use crate::condensed::CondensedJournal;
use crate::page::session::{cookie_value, foreign_request};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// How long a halt waits for the end of the runs before it answers. They are ended in any case.
const HALT_TIMEOUT: Duration = Duration::from_secs(60);

type Local = State<Arc<PageState>>;

/// The page and its API.
pub(super) fn router(shared: Arc<PageState>) -> Router {
    let api = Router::new()
        .route("/api/v1/halt", get(halt_state).post(halt))
        .route("/api/v1/runs", get(runs))
        .route("/api/v1/runs/{run}", get(run))
        .route("/api/v1/runs/{run}/events", get(events))
        .route("/api/v1/runs/{run}/condensed", get(condensed))
        .route("/api/v1/runs/{run}/stream", get(stream::stream))
        .route("/api/v1/runs/{run}/stop", post(stop))
        .route("/api/v1/experiments/{run}", get(experiment))
        .route("/api/v1/session", get(session).delete(sign_out))
        .route_layer(axum::middleware::from_fn_with_state(
            Arc::clone(&shared),
            authenticate,
        ))
        // Signing in is what makes the cookie.
        .route("/api/v1/session", post(sign_in));
    api.merge(crate::page::routes())
        .fallback(async || ApiProblem::not_found("the path does not exist"))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&shared),
            check_host,
        ))
        .with_state(shared)
}

/// Refuses requests under another name: a site whose name resolves to this host could make them otherwise.
async fn check_host(State(shared): Local, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let port = shared.port;
    let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    match host.is_some_and(|host| own.iter().any(|own| own == host)) {
        true => next.run(request).await,
        false => ApiProblem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            "the page is served under the printed address only",
        )
        .into_response(),
    }
}

fn no_token(what: &str) -> ApiProblem {
    ApiProblem::new(StatusCode::UNAUTHORIZED, "token", what)
        .hint("open the printed address; it can be used once, in one browser")
}

async fn authenticate(State(shared): Local, request: Request, next: Next) -> Response {
    let name = cookie_name(shared.port);
    let shown = cookie_value(request.headers(), &name).unwrap_or_default();
    if !bool::from(shown.as_bytes().ct_eq(shared.session.as_bytes())) {
        return no_token("the request has no cookie of this page").into_response();
    }
    let (parts, body) = request.into_parts();
    match foreign_request(&parts) {
        Some(why) => ApiProblem::new(StatusCode::FORBIDDEN, "origin", why).into_response(),
        None => next.run(Request::from_parts(parts, body)).await,
    }
}

/// The name of the cookie. Cookies do not tell ports apart, and several pages may be open.
fn cookie_name(port: u16) -> String {
    format!("backburn-{port}")
}

fn session_info() -> SessionInfo {
    SessionInfo {
        name: "this host".into(),
        person: "this host".into(),
        role: "operator".into(),
        teams: BTreeSet::new(),
        expires: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        blind: false,
        local: true,
        now: Timestamp::now().to_string(),
        identity_provider: false,
    }
}

async fn session() -> Json<SessionInfo> {
    Json(session_info())
}

async fn sign_in(State(shared): Local, headers: HeaderMap) -> Result<Response, ApiProblem> {
    let shown = headers.get(header::AUTHORIZATION);
    let shown = shown
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or_default();
    let mut token = lock(&shared.token);
    let is_right = (token.as_deref())
        .is_some_and(|token| bool::from(token.as_bytes().ct_eq(shown.as_bytes())));
    if !is_right {
        return Err(no_token("the address is not right, or was used before"));
    }
    *token = None;
    let cookie = format!(
        "{}={}; Path=/; HttpOnly; SameSite=Strict",
        cookie_name(shared.port),
        shared.session
    );
    let cookie = AppendHeaders([(header::SET_COOKIE, cookie)]);
    Ok((StatusCode::CREATED, cookie, Json(session_info())).into_response())
}

async fn sign_out(State(shared): Local) -> impl IntoResponse {
    let cookie = format!("{}=; Path=/; Max-Age=0", cookie_name(shared.port));
    let cookie = AppendHeaders([(header::SET_COOKIE, cookie)]);
    (StatusCode::NO_CONTENT, cookie)
}

fn not_there() -> ApiProblem {
    ApiProblem::not_found("there is no such run on this page")
}

/// A copy of what is shown of a run.
fn copy(info: &RunInfo) -> serde_json::Value {
    json!(info)
}

async fn runs(State(shared): Local) -> Json<serde_json::Value> {
    let runs = lock(&shared.runs);
    Json(runs.iter().rev().map(|run| copy(&run.info)).collect())
}

async fn run(
    State(shared): Local,
    Path(run): Path<String>,
) -> Result<Json<serde_json::Value>, ApiProblem> {
    let found = shared.of_run(&run, |run| copy(&run.info));
    found.map(Json).ok_or_else(not_there)
}

async fn experiment(
    State(shared): Local,
    Path(run): Path<String>,
) -> Result<Json<ExperimentInfo>, ApiProblem> {
    let found = shared.of_run(&run, |run| ExperimentInfo {
        name: run.info.id.clone(),
        version: 1,
        document: run.document.clone(),
        who: run.info.who.clone(),
        at: run.info.started.clone(),
    });
    found.map(Json).ok_or_else(not_there)
}

async fn events(
    State(shared): Local,
    Path(run): Path<String>,
) -> Result<Json<Vec<RunJournalEntry>>, ApiProblem> {
    let found = shared.of_run(&run, |run| {
        let entries = (1..)
            .zip(&run.entries)
            .map(|(number, entry)| RunJournalEntry {
                number,
                entry: json!(**entry),
            });
        entries.collect()
    });
    found.map(Json).ok_or_else(not_there)
}

async fn condensed(
    State(shared): Local,
    Path(run): Path<String>,
) -> Result<Json<CondensedRunInfo>, ApiProblem> {
    // Entries are shared, so that the run does not wait for this.
    let entries = shared.of_run(&run, |run| run.entries.clone());
    let mut journal = CondensedJournal::default();
    for entry in entries.ok_or_else(not_there)? {
        journal
            .entry(&entry)
            .map_err(|why| ApiProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "journal", why))?;
    }
    Ok(Json(CondensedRunInfo::from(&journal)))
}

async fn stop(
    State(shared): Local,
    Path(run): Path<String>,
) -> Result<(StatusCode, Json<StopResult>), ApiProblem> {
    let stopping = shared.of_run(&run, |run| {
        run.info.ended.is_none() && run.stop.send("stopped from the page".into()).is_ok()
    });
    let stopping = stopping.ok_or_else(not_there)?;
    Ok((StatusCode::ACCEPTED, Json(StopResult { run, stopping })))
}

async fn halt_state() -> Json<HaltStatus> {
    Json(HaltStatus {
        halted: false,
        who: None,
        at: None,
        why: None,
        teams: Vec::new(),
        last_took_ms: None,
        last_clean: None,
    })
}

/// Ends the runs, and waits until they are over.
async fn halt(State(shared): Local) -> Json<HaltResult> {
    let began = Instant::now();
    let mut changes = shared.changes.subscribe();
    let stopped: Vec<String> = (lock(&shared.runs).iter())
        .filter(|run| run.info.ended.is_none())
        .filter(|run| run.stop.send("halted from the page".into()).is_ok())
        .map(|run| run.info.id.clone())
        .collect();
    let open = || -> Vec<String> {
        let runs = lock(&shared.runs);
        let open = runs.iter().filter(|run| run.info.ended.is_none());
        open.map(|run| run.info.id.clone()).collect()
    };
    let over = changes.wait_for(|_| open().is_empty());
    tokio::time::timeout(HALT_TIMEOUT, over).await.ok();
    let unclean = stopped.iter().any(|run| {
        let outcome = shared.of_run(run, |run| run.info.outcome.clone()).flatten();
        outcome.as_deref() == Some("not-clean")
    });
    let unknown = open();
    Json(HaltResult {
        runs: stopped,
        agents: Vec::new(),
        took_ms: began.elapsed().as_secs_f64() * 1000.0,
        clean: !unclean && unknown.is_empty(),
        unknown,
        remembered: true,
    })
}
