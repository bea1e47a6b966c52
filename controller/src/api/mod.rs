//! The controller over HTTP: one file for each kind of thing. The description that clients read (OpenAPI) is made from
//! the handlers, and every problem is told in one shape (RFC 9457).

mod agents;
mod audit;
mod auth;
mod experiments;
mod extract;
mod faults;
mod halt;
mod health;
mod inline_experiments;
mod metrics;
mod openapi;
mod pagination;
mod problem;
mod runs;
mod schedules;
mod stream;
mod tokens;
mod write_timeout;

pub use auth::{Token, random, word};
use metrics::ApiMetrics;
pub use problem::ApiProblem;

use crate::pki::ca::CertificateAuthority;
use crate::pki::agent_registry::AgentRegistry;
use crate::service::{Service};
use crate::store::ApiTokenRecord;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest body, in bytes: an experiment is a page or two.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How long the head of a request may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may while there is little room for others.
const CROWDED_HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a request's body may take to come, and its answer to be made. Streams are answered at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer may stand still because nobody reads it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many may follow journals at a time: whoever follows keeps a connection, and the lever needs one, too.
const MAX_FOLLOWERS: usize = 256;
/// How many tokens are remembered, for when the store can't be read.
const MAX_CACHED_TOKENS: usize = 1000;

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    service: Arc<Service>,
    registry: Arc<AgentRegistry>,
    authority: Arc<CertificateAuthority>,
    seen: Arc<Mutex<BTreeMap<String, ApiTokenRecord>>>,
    metrics: Arc<ApiMetrics>,
    followers: Arc<Semaphore>,
    denial_counts: Arc<Mutex<BTreeMap<String, auth::DenialCount>>>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Backburn",
        description = "Chaos experiments on a fleet: what is broken is put back. Times are RFC 3339 in UTC; lengths are like `1m30s`; problems are RFC 9457."
    ),
    modifiers(&BearerScheme)
)]
struct Description;

/// How a client proves who it is.
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
        let metrics = Arc::new(ApiMetrics::new(&service));
        Api {
            service,
            registry,
            authority,
            seen: Arc::default(),
            metrics,
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

    /// Every route, and their description.
    pub fn router(self) -> Router {
        let (router, _) = described();
        let description = Arc::new(description());
        let described = axum::routing::get(move || {
            let description = Arc::clone(&description);
            async move { axum::Json(description.as_ref().clone()) }
        });
        let metrics = Arc::clone(&self.metrics);
        router
            .route("/api/v1/openapi.json", described)
            .fallback(async || {
                ApiProblem::not_found("there is no such path")
                    .hint("`/api/v1/openapi.json` describes all there are")
            })
            .method_not_allowed_fallback(async || {
                ApiProblem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method",
                    "the path does not know this method",
                )
            })
            .layer(axum::middleware::from_fn(enforce_timeout))
            .layer(axum::middleware::from_fn_with_state(
                metrics,
                metrics::count_request,
            ))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self)
    }
}

/// Each route is named here, once.
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
        .routes(routes!(runs::trace))
        .routes(routes!(runs::stop))
        .routes(routes!(stream::stream))
        .routes(routes!(runs::approvals))
        .routes(routes!(runs::approve))
        .routes(routes!(schedules::list))
        .routes(routes!(halt::state, halt::halt, halt::resume))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get, agents::revoke))
        .routes(routes!(agents::faults))
        .routes(routes!(agents::doctor))
        .routes(routes!(tokens::join_tokens, tokens::make_join_token))
        .routes(routes!(tokens::remove_join_token))
        .routes(routes!(tokens::list, tokens::make))
        .routes(routes!(tokens::revoke))
        .split_for_parts()
}

/// The API's description, as OpenAPI.
pub fn description() -> serde_json::Value {
    let mut description = serde_json::to_value(described().1).unwrap_or_default();
    openapi::complete(&mut description);
    description
}

/// Serves one connection, until it closes or `ending` comes. In a crowd, whoever says nothing goes soon.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    is_crowded: bool,
    ending: impl Future<Output = ()>,
) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(match is_crowded {
            true => CROWDED_HEADER_TIMEOUT,
            false => HEADER_TIMEOUT,
        })
        .max_buf_size(64 << 10);
    let stream = TokioIo::new(write_timeout::WriteTimeout::new(stream, WRITE_TIMEOUT));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        },
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

/// The store's work, off the threads that serve.
async fn blocking<T: Send + 'static, E: Into<ApiProblem> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiProblem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => {
            tracing::error!(%error, "a request was not finished");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(ApiProblem::new(
                status,
                "bug",
                "the request was not finished",
            ))
        }
    }
}

/// Ends what takes too long.
async fn enforce_timeout(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiProblem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            format!(
                "the request was not whole, or not answered, within {} s",
                REQUEST_TIMEOUT.as_secs()
            ),
        )
        .into_response(),
    }
}
