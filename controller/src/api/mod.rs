//! The controller's HTTP API: one file of handlers for each kind of resource, and the bodies of requests and answers in
//! `types`. The OpenAPI description is generated from the handlers. Every problem is answered in one form (RFC 9457).

mod actions;
mod agents;
mod audit;
mod auth;
mod blind;
mod condensed;
mod connection;
mod coverage;
mod experiments;
mod extract;
mod faults;
mod game_day_documents;
mod game_days;
mod halt;
mod health;
mod inline_experiments;
mod login;
mod metrics;
mod notes;
mod openapi;
mod pagination;
mod problem;
mod reports;
mod request;
mod runs;
mod schedules;
mod session;
mod settings;
mod stream;
mod suggestions;
mod teams;
mod tokens;
pub mod types;

pub use auth::role_name;
pub use connection::serve;
use metrics::ApiMetrics;
pub use problem::ApiProblem;

use crate::pki::agent_registry::AgentRegistry;
use crate::pki::ca::CertificateAuthority;
use crate::request_id;
use crate::service::Service;
use crate::store::ApiTokenRecord;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest body of a request, in bytes. An experiment takes a few thousand.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a request may take, from its head until its answer begins.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How many clients may follow journals at a time. Each keeps a connection, and some must be left for a halt.
const MAX_FOLLOWERS: usize = 256;
/// How many tokens are cached, for the time when the store is not available.
const MAX_CACHED_TOKENS: usize = 1000;

/// The state that the handlers share.
#[derive(Clone)]
pub struct Api {
    service: Arc<Service>,
    registry: Arc<AgentRegistry>,
    authority: Arc<CertificateAuthority>,
    seen: Arc<Mutex<BTreeMap<String, ApiTokenRecord>>>,
    metrics: Arc<ApiMetrics>,
    followers: Arc<Semaphore>,
    condensed: Arc<condensed::CondensedJournals>,
    denial_counts: Arc<Mutex<BTreeMap<String, auth::DenialCount>>>,
}

#[derive(OpenApi)]
#[openapi(
    components(schemas(ApiProblem)),
    info(
        title = "Backburn",
        description = "Chaos experiments on a fleet of Linux hosts; every fault is reverted. Times are in UTC as in RFC 3339, durations are written like `1m30s`, and problems are answered as in RFC 9457."
    ),
    modifiers(&BearerScheme)
)]
struct Description;

/// Adds the security scheme to the description: a token in the `Authorization` header.
struct BearerScheme;

impl utoipa::Modify for BearerScheme {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", scheme);
    }
}

impl Api {
    /// The API of this service.
    pub fn new(
        service: Arc<Service>,
        registry: Arc<AgentRegistry>,
        authority: Arc<CertificateAuthority>,
    ) -> Self {
        let metrics = Arc::new(ApiMetrics::new(&service, &registry, &authority));
        Api {
            service,
            registry,
            authority,
            seen: Arc::default(),
            metrics,
            condensed: Arc::default(),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            denial_counts: Arc::default(),
        }
    }

    fn cache_token(&self, token: ApiTokenRecord) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MAX_CACHED_TOKENS {
            seen.insert(token.id.clone(), token);
        }
    }

    fn cached_token(&self, id: &str) -> Option<ApiTokenRecord> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(id).cloned()
    }

    fn forget(&self, id: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(id);
    }

    /// The router of all routes, including their OpenAPI description.
    pub fn router(self) -> Router {
        let (router, _) = described();
        let description = Arc::new(description());
        let described = axum::routing::get(move || {
            let description = Arc::clone(&description);
            async move { axum::Json(description.as_ref().clone()) }
        });
        let metrics = Arc::clone(&self.metrics);
        router
            .merge(crate::page::routes())
            .route("/api/v1/openapi.json", described)
            .fallback(async || {
                ApiProblem::not_found("the path does not exist")
                    .hint("`/api/v1/openapi.json` describes all paths")
            })
            .method_not_allowed_fallback(async || {
                ApiProblem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method",
                    "the path does not support this method",
                )
            })
            .layer(axum::middleware::from_fn(enforce_timeout))
            .layer(axum::middleware::from_fn_with_state(
                metrics,
                metrics::count_request,
            ))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(axum::middleware::from_fn(request::identify_request))
            .with_state(self)
    }
}

/// The router of all routes, each listed once, and the description that their annotations generate.
fn described() -> (Router<Api>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(faults::faults))
        .routes(routes!(audit::audit))
        .routes(routes!(audit::verify))
        .routes(routes!(experiments::list))
        .routes(routes!(
            experiments::get,
            experiments::put,
            experiments::remove
        ))
        .routes(routes!(experiments::versions))
        .routes(routes!(experiments::plan))
        .routes(routes!(experiments::run))
        .routes(routes!(runs::list, inline_experiments::run_given))
        .routes(routes!(inline_experiments::plan_given))
        .routes(routes!(runs::get))
        .routes(routes!(runs::events))
        .routes(routes!(condensed::condensed))
        .routes(routes!(notes::of_run, notes::add_to_run))
        .routes(routes!(notes::stream_of_run))
        .routes(routes!(runs::trace))
        .routes(routes!(reports::run_report))
        .routes(routes!(actions::list, actions::add))
        .routes(routes!(actions::get, actions::change))
        .routes(routes!(actions::close))
        .routes(routes!(coverage::coverage))
        .routes(routes!(coverage::badge))
        .routes(routes!(runs::stop))
        .routes(routes!(stream::stream))
        .routes(routes!(runs::approvals))
        .routes(routes!(runs::approval, runs::approve))
        .routes(routes!(runs::reject))
        .routes(routes!(runs::withdraw))
        .routes(routes!(game_day_documents::list))
        .routes(routes!(
            game_day_documents::get,
            game_day_documents::put,
            game_day_documents::remove
        ))
        .routes(routes!(game_day_documents::versions))
        .routes(routes!(game_days::list, game_days::prepare))
        .routes(routes!(game_days::get))
        .routes(routes!(game_days::next))
        .routes(routes!(game_days::pause))
        .routes(routes!(game_days::resume))
        .routes(routes!(game_days::stop))
        .routes(routes!(game_days::reveal))
        .routes(routes!(reports::game_day_report))
        .routes(routes!(notes::of_game_day, notes::add_to_game_day))
        .routes(routes!(notes::stream_of_game_day))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(halt::state, halt::halt, halt::resume))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get, agents::revoke))
        .routes(routes!(agents::label))
        .routes(routes!(agents::faults))
        .routes(routes!(agents::doctor))
        .routes(routes!(suggestions::suggest))
        .routes(routes!(tokens::join_tokens, tokens::make_join_token))
        .routes(routes!(tokens::remove_join_token))
        .routes(routes!(tokens::list, tokens::make))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::revoke_person))
        .routes(routes!(login::device))
        .routes(routes!(login::device_result))
        .routes(routes!(login::page))
        .routes(routes!(login::code))
        .routes(routes!(login::log_out))
        .routes(routes!(session::get, session::sign_in, session::sign_out))
        .routes(routes!(settings::get))
        .split_for_parts()
}

/// The OpenAPI description of the API.
pub fn description() -> serde_json::Value {
    let mut description = serde_json::to_value(described().1).unwrap_or_default();
    openapi::complete(&mut description);
    description
}

/// Does blocking work, such as the store's, outside the threads that serve connections.
async fn blocking<T: Send + 'static, E: Into<ApiProblem> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiProblem> {
    match tokio::task::spawn_blocking(request_id::carried(work)).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => {
            tracing::error!(%error, "a request failed");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(ApiProblem::new(
                status,
                "bug",
                "the request failed because of a bug in Backburn",
            ))
        }
    }
}

/// Answers with a problem when a request takes longer than [`REQUEST_TIMEOUT`].
async fn enforce_timeout(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiProblem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            format!(
                "the request was not complete or not answered within {} s",
                REQUEST_TIMEOUT.as_secs()
            ),
        )
        .into_response(),
    }
}
