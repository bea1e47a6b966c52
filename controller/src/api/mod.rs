//! The controller over HTTP: one file for each kind of thing. The description that clients read (OpenAPI) is made from
//! the handlers, and every problem is told in one shape (RFC 9457).

mod agents;
mod describe;
mod experiments;
mod given;
mod halt;
mod input;
mod operations;
mod problem;
mod runs;
mod schedules;
mod stall;
mod stream;
mod tokens;
mod who;

pub use problem::Problem;
pub use who::{Token, random, word};

use crate::pki::agent_registry::AgentRegistry;
use crate::pki::ca::CertificateAuthority;
use crate::service::Service;
use crate::store::ApiTokenRecord;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
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
const LONGEST_BODY: usize = 1 << 20;
/// How long the head of a request may take.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long it may while there is little room for others.
const HEAD_WITHIN_IN_A_CROWD: Duration = Duration::from_secs(1);
/// How long a request's body may take to come, and its answer to be made. Streams are answered at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long an answer may stand still because nobody reads it.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How many may follow journals at a time: whoever follows keeps a connection, and the lever needs one, too.
const MOST_FOLLOWERS: usize = 256;
/// How many tokens are remembered, for when the store can't be read.
const MOST_REMEMBERED: usize = 1000;

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    service: Arc<Service>,
    registry: Arc<AgentRegistry>,
    authority: Arc<CertificateAuthority>,
    seen: Arc<Mutex<BTreeMap<String, ApiTokenRecord>>>,
    metrics: Arc<operations::Metrics>,
    followers: Arc<Semaphore>,
    denials: Arc<Mutex<BTreeMap<String, who::Denials>>>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Backburn",
        description = "Chaos experiments on a fleet: what is broken is put back. Times are RFC 3339 in UTC; lengths are like `1m30s`; problems are RFC 9457."
    ),
    modifiers(&Tokens)
)]
struct Description;

/// How a client proves who it is.
struct Tokens;

impl utoipa::Modify for Tokens {
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
        let metrics = Arc::new(operations::Metrics::new(&service));
        Api {
            service,
            registry,
            authority,
            seen: Arc::default(),
            metrics,
            followers: Arc::new(Semaphore::new(MOST_FOLLOWERS)),
            denials: Arc::default(),
        }
    }

    fn remember(&self, token: ApiTokenRecord) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MOST_REMEMBERED {
            seen.insert(token.id.clone(), token);
        }
    }

    fn remembered(&self, id: &str) -> Option<ApiTokenRecord> {
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
                Problem::not_there("there is no such path")
                    .hint("`/api/v1/openapi.json` describes all there are")
            })
            .method_not_allowed_fallback(async || {
                Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method",
                    "the path does not know this method",
                )
            })
            .layer(axum::middleware::from_fn(operations::in_time))
            .layer(axum::middleware::from_fn_with_state(
                metrics,
                operations::count,
            ))
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .with_state(self)
    }
}

/// Each route is named here, once.
fn described() -> (Router<Api>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
        .routes(routes!(operations::faults))
        .routes(routes!(operations::audit))
        .routes(routes!(operations::verify))
        .routes(routes!(experiments::list))
        .routes(routes!(
            experiments::get,
            experiments::put,
            experiments::remove
        ))
        .routes(routes!(experiments::versions))
        .routes(routes!(experiments::plan))
        .routes(routes!(experiments::run))
        .routes(routes!(runs::list, given::run_given))
        .routes(routes!(given::plan_given))
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
    describe::complete(&mut description);
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
            true => HEAD_WITHIN_IN_A_CROWD,
            false => HEAD_WITHIN,
        })
        .max_buf_size(64 << 10);
    let stream = TokioIo::new(stall::Stall::new(stream, READ_WITHIN));
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
