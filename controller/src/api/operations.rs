//! What operations ask for: health, metrics, the faults there are, and the audit log.

use super::input::{Asked, number};
use super::problem::Problem;
use super::who::{Admin, Viewer};
use super::{ANSWER_WITHIN, Api};
use crate::service::Service;
use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// Whether the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
}

/// Whether the controller lives. Wants no token.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
pub async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Whether it can start runs: its store can be read, and the halt lever is not pulled. Wants no token.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, body = Health), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn readyz(State(api): State<Api>) -> Result<Json<Health>, Problem> {
    if api.service.halted().is_some() {
        let what = "the halt lever is pulled";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "halt", what));
    }
    let store = Arc::clone(api.service.store());
    blocking(move || store.setting("ready").map(|_| ())).await?;
    Ok(healthz().await)
}

/// Figures for Prometheus. Wants the role viewer.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(("token" = ["viewer"])), responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"), (status = 401, body = Problem, content_type = "application/problem+json")))]
pub async fn metrics(_who: Viewer, State(api): State<Api>) -> Response {
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &api.metrics.registry)
    {
        tracing::error!(%error, "metrics can't be written");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// A fault.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Fault {
    /// Its name.
    pub name: String,
    /// What it does.
    pub summary: String,
    /// Whether it is over once done; else it has a duration.
    pub one_shot: bool,
    /// The JSON Schema of its arguments.
    pub schema: Value,
    /// Arguments that make sense.
    pub example: Value,
}

/// The faults that the controller knows. Wants the role viewer.
#[utoipa::path(get, path = "/api/v1/faults", tag = "faults", security(("token" = ["viewer"])), responses((status = 200, body = Vec<Fault>), (status = 401, body = Problem, content_type = "application/problem+json")))]
pub async fn faults(_who: Viewer, State(api): State<Api>) -> Json<Vec<Fault>> {
    let known = api.service.catalogue().iter().cloned();
    Json(known.map(Fault::from).collect())
}

impl From<backburn_experiments::wire::FaultDescription> for Fault {
    fn from(fault: backburn_experiments::wire::FaultDescription) -> Self {
        Fault {
            name: fault.name,
            summary: fault.summary,
            one_shot: fault.one_shot,
            schema: fault.schema,
            example: fault.example,
        }
    }
}

/// A page of numbered things.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct After {
    /// Those after this number.
    #[serde(default, deserialize_with = "number")]
    #[param(maximum = 9007199254740991_i64)]
    pub after: u64,
    /// At the most so many, 1 to 1000; 100 where left out.
    #[serde(default = "usual")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: u32,
}

pub(super) fn usual() -> u32 {
    100
}

/// A page's length that makes sense.
pub(super) fn page(limit: u32) -> Result<u32, Problem> {
    match limit {
        1..=1000 => Ok(limit),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "query",
            format!("a `limit` of {limit} is none"),
        )
        .hint("1 to 1000")),
    }
}

/// Who did what.
#[derive(Debug, Serialize, ToSchema)]
pub struct Audited {
    /// Its number, from 1.
    number: u64,
    /// When.
    at: String,
    /// Who: a token's name.
    who: String,
    /// With which role.
    role: Option<String>,
    /// What.
    what: String,
    /// To what.
    about: String,
    /// How it went.
    outcome: String,
    /// More.
    detail: Value,
    /// The hash of the entry before.
    previous: String,
    /// Its own.
    hash: String,
}

/// The audit log. Wants the role admin.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(After), security(("token" = ["admin"])), responses((status = 200, body = Vec<Audited>), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 401, body = Problem, content_type = "application/problem+json"), (status = 403, body = Problem, content_type = "application/problem+json")))]
pub async fn audit(
    _who: Admin,
    State(api): State<Api>,
    Asked(After { after, limit }): Asked<After>,
) -> Result<Json<Vec<Audited>>, Problem> {
    let (store, limit) = (Arc::clone(api.service.store()), page(limit)?);
    let found = blocking(move || store.audited(after, limit)).await?;
    let audited = found.into_iter().map(|entry| Audited {
        number: entry.number,
        at: entry.record.at.to_string(),
        who: entry.record.who,
        role: entry.record.role.map(|role| super::word(role).to_owned()),
        what: entry.record.what,
        about: entry.record.about,
        outcome: entry.record.outcome,
        detail: entry.record.detail,
        previous: entry.previous.to_string(),
        hash: entry.hash.to_string(),
    });
    Ok(Json(audited.collect()))
}

/// Whether the audit log is whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct Chain {
    /// The number of its last entry. Keep it elsewhere, with the hash: a log that was cut short is found by them.
    number: u64,
    /// The hash of its last entry.
    hash: String,
    /// The first entry that does not follow from the one before, and why.
    broken: Option<String>,
}

/// Walks along the audit log. Wants the role admin.
#[utoipa::path(get, path = "/api/v1/audit/chain", tag = "audit", security(("token" = ["admin"])), responses((status = 200, body = Chain), (status = 401, body = Problem, content_type = "application/problem+json"), (status = 403, body = Problem, content_type = "application/problem+json")))]
pub async fn verify(_who: Admin, State(api): State<Api>) -> Result<Json<Chain>, Problem> {
    let store = Arc::clone(api.service.store());
    let chain = blocking(move || store.verify_audit(None)).await?;
    Ok(Json(Chain {
        number: chain.head.number,
        hash: chain.head.hash.to_string(),
        broken: chain
            .broken
            .map(|broken| format!("entry {}: {}", broken.number, broken.why)),
    }))
}

/// The store's work, off the threads that serve.
pub(super) async fn blocking<T: Send + 'static, E: Into<Problem> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => {
            tracing::error!(%error, "a request was not finished");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Problem::new(status, "bug", "the request was not finished"))
        }
    }
}

/// Ends what takes too long.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            format!(
                "the request was not whole, or not answered, within {} s",
                ANSWER_WITHIN.as_secs()
            ),
        )
        .into_response(),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

/// The controller's figures.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Histogram,
}

impl Metrics {
    pub(super) fn new(service: &Arc<Service>) -> Self {
        let mut registry = Registry::with_prefix("backburn");
        let requests = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register(
            "http_request_seconds",
            "How long requests took",
            seconds.clone(),
        );
        registry.register_collector(Box::new(Figures(Arc::downgrade(service))));
        Metrics {
            registry,
            requests,
            seconds,
        }
    }
}

/// Figures that are looked at when somebody asks.
#[derive(Debug)]
struct Figures(Weak<Service>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(service) = self.0.upgrade() else {
            return Ok(());
        };
        let going_on = service.going_on();
        let gauges = [
            (
                "agents_connected",
                "Agents that are connected",
                service.fleet().count(),
            ),
            (
                "agents_unresponsive",
                "Agents that are connected and do not answer",
                service.fleet().unresponsive(),
            ),
            ("runs_open", "Runs that go on", going_on.len()),
            (
                "injections_open",
                "Faults that were asked for and are not known to be over",
                going_on.values().sum(),
            ),
            (
                "halted",
                "1 while the halt lever is pulled",
                usize::from(service.halted().is_some()),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as i64);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let counter = ConstCounter::new(0_u64);
        let mut runs = encoder.encode_descriptor(
            "runs",
            "Runs that ended, by outcome",
            None,
            counter.metric_type(),
        )?;
        for (outcome, count) in service.outcomes() {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count).encode(runs.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Counts each request.
pub(super) async fn count(
    State(metrics): State<Arc<Metrics>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    // Any word may come as a method, and each that is counted takes room for ever.
    let method = match request.method().as_str() {
        known @ ("GET" | "PUT" | "POST" | "DELETE" | "HEAD") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let labels = Answered {
        method,
        route: route.map_or("none".into(), |route| route.as_str().to_owned()),
        status: response.status().as_u16(),
    };
    metrics.requests.get_or_create(&labels).inc();
    metrics.seconds.observe(began.elapsed().as_secs_f64());
    response
}

/// What is said in the audit log of something that has no more to tell.
pub(super) fn nothing() -> Value {
    json!({})
}
