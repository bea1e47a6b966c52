//! Metrics for Prometheus: requests by route, and what the service is doing.

use super::Api;
use super::auth::Viewer;
use crate::service::Service;
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
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Returns metrics for Prometheus (OpenMetrics).
#[utoipa::path(get, path = "/metrics", tag = "operations", security(("token" = ["viewer"])), responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(_who: Viewer, State(api): State<Api>) -> Response {
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &api.metrics.registry)
    {
        tracing::error!(%error, "metrics could not be encoded");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

/// The metrics of the API: how many requests were answered, and how fast.
pub struct ApiMetrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
}

impl ApiMetrics {
    pub(super) fn new(service: &Arc<Service>) -> Self {
        let mut registry = Registry::with_prefix("backburn");
        let requests = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register(
            "http_request_seconds",
            "Time to answer a request",
            seconds.clone(),
        );
        registry.register_collector(Box::new(ServiceCollector(Arc::downgrade(service))));
        ApiMetrics {
            registry,
            requests,
            seconds,
        }
    }
}

/// Metrics of the service, collected at each request for metrics.
#[derive(Debug)]
struct ServiceCollector(Weak<Service>);

impl Collector for ServiceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(service) = self.0.upgrade() else {
            return Ok(());
        };
        let going_on = service.active_runs();
        let gauges = [
            (
                "agents_connected",
                "Agents that are connected",
                service.fleet().count(),
            ),
            (
                "agents_unresponsive",
                "Agents that are connected but do not answer",
                service.fleet().unresponsive(),
            ),
            (
                "agents_duplicated",
                "Agents whose identity a second host has used in the last 10 minutes",
                service.fleet().duplicates().len(),
            ),
            ("runs_open", "Runs that are open", going_on.len()),
            (
                "injections_open",
                "Injections that were requested and are not known to be over",
                going_on.values().sum(),
            ),
            (
                "halted",
                "1 while a halt is in force",
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

/// Counts each request by method, route and status.
pub(super) async fn count_request(
    State(metrics): State<Arc<ApiMetrics>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    // A method may be any word, and each distinct one that is counted takes memory for ever.
    let method = match request.method().as_str() {
        known @ ("GET" | "PUT" | "POST" | "PATCH" | "DELETE" | "HEAD") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let labels = RequestLabels {
        method,
        route: route.map_or("none".into(), |route| route.as_str().to_owned()),
        status: response.status().as_u16(),
    };
    metrics.requests.get_or_create(&labels).inc();
    metrics.seconds.observe(began.elapsed().as_secs_f64());
    response
}
