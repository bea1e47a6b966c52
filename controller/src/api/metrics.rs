//! Metrics for Prometheus: requests by route, and what the service is doing.

use super::Api;
use super::auth::Viewer;
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use crate::pki::agent_registry::AgentRegistry;
use crate::pki::ca::CertificateAuthority;
use crate::service::Service;
use crate::store::StoreErrorKind;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use backburn_experiments::journal::Outcome;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Returns metrics for Prometheus (OpenMetrics). They are of the whole fleet, so a token that is limited to teams gets none.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(("token" = ["viewer"])), responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"), ProblemStatus<403>))]
pub async fn metrics(Viewer(who): Viewer, State(api): State<Api>) -> Response {
    if !who.teams.is_empty() {
        let what = format!(
            "token `{}` is limited to teams, and the metrics are of the whole fleet",
            who.name
        );
        return ApiProblem::new(StatusCode::FORBIDDEN, "team", what)
            .hint("use a viewer's token of all teams: `backburn tokens make NAME --role viewer`")
            .into_response();
    }
    // Some are read from the store.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &api.metrics.registry).map(|()| text)
    });
    let text = match encoded.await {
        Ok(Ok(text)) => text,
        failed => {
            tracing::error!(?failed, "metrics could not be encoded");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let text = match who.is_blind {
        true => super::blind::open_metrics(&text),
        false => text,
    };
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
    pub(super) fn new(
        service: &Arc<Service>,
        registry: &Arc<AgentRegistry>,
        authority: &Arc<CertificateAuthority>,
    ) -> Self {
        let mut metrics = Registry::with_prefix("backburn");
        let requests = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        metrics.register("http_requests", "Requests answered", requests.clone());
        metrics.register(
            "http_request_seconds",
            "Time to answer a request",
            seconds.clone(),
        );
        metrics.register_collector(Box::new(ServiceCollector {
            service: Arc::downgrade(service),
            registry: Arc::clone(registry),
            authority: Arc::clone(authority),
        }));
        ApiMetrics {
            registry: metrics,
            requests,
            seconds,
        }
    }
}

/// Metrics of the service, collected at each request for metrics.
struct ServiceCollector {
    service: Weak<Service>,
    registry: Arc<AgentRegistry>,
    authority: Arc<CertificateAuthority>,
}

impl std::fmt::Debug for ServiceCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceCollector").finish_non_exhaustive()
    }
}

/// The values of one metric, each with the value of its label; none for a metric without one.
type LabelledValues<T> = Vec<(Option<(&'static str, &'static str)>, T)>;

/// The days until this time, negative if it has passed.
fn days_until(at: Timestamp) -> f64 {
    Timestamp::now().duration_until(at).as_secs_f64() / 86_400.0
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: LabelledValues<f64>,
) -> Result<(), std::fmt::Error> {
    let kind = ConstGauge::new(0.0).metric_type();
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    // Counts are written without a fraction.
    let encode = |value: f64, encoder: MetricEncoder<'_>| match value.fract() == 0.0 {
        true => ConstGauge::new(value as i64).encode(encoder),
        false => ConstGauge::new(value).encode(encoder),
    };
    for (label, value) in values {
        match label {
            Some(label) => encode(value, metric.encode_family(&[label])?)?,
            None => return encode(value, metric),
        }
    }
    Ok(())
}

fn encode_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: LabelledValues<u64>,
) -> Result<(), std::fmt::Error> {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (label, value) in values {
        let counter = ConstCounter::new(value);
        match label {
            Some(label) => counter.encode(metric.encode_family(&[label])?)?,
            None => {
                return counter.encode(metric);
            }
        }
    }
    Ok(())
}

impl Collector for ServiceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(service) = self.service.upgrade() else {
            return Ok(());
        };
        let going_on = service.active_runs();
        let acting: usize = going_on.values().sum();
        let owing = service.fleet().owing();
        let gauges = [
            (
                "agents_known",
                "Agents that have joined and are not revoked",
                self.registry.count(),
            ),
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
                "agents_owing",
                "Connected agents that could not revert something",
                owing.len(),
            ),
            (
                "agents_of_retiring_authority",
                "Agents whose certificate is of the authority that is being replaced",
                self.registry.count_of_retiring(),
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
                acting,
            ),
            (
                "halted",
                "1 while a halt is in force",
                usize::from(service.halted().is_some()),
            ),
        ];
        for (name, help, value) in gauges {
            encode_gauge(&mut encoder, name, help, vec![(None, value as f64)])?;
        }
        let owed = [
            ("acting", acting),
            ("stuck", owing.values().sum()),
            ("unproved", service.unproved_injections()),
        ];
        encode_gauge(
            &mut encoder,
            "injections_owed",
            "Injections that are owed: acting in open runs, stuck on connected agents, or of ended runs and not proved to be gone",
            owed.map(|(state, count)| (Some(("state", state)), count as f64))
                .into(),
        )?;
        let owner = service.owner_certificate();
        let certificates = [
            ("authority", self.authority.expires()),
            ("agents", self.registry.earliest_expiry()),
            ("tls", owner.map(|owner| owner.current().expires)),
        ];
        encode_gauge(
            &mut encoder,
            "certificate_days_left",
            "Days until a certificate expires: the authority's, the first of those that agents have shown since the start, and that of `--tls-certificate`",
            (certificates.into_iter())
                .filter_map(|(which, at)| Some((Some(("certificate", which)), days_until(at?))))
                .collect(),
        )?;
        if owner.is_some() {
            let is_stale = service.is_owner_certificate_stale();
            encode_gauge(
                &mut encoder,
                "tls_certificate_stale",
                "1 if the files of `--tls-certificate` could not be used when they were read last, so that the certificate before is still shown, else 0",
                vec![(None, f64::from(u8::from(is_stale)))],
            )?;
        }
        let (sent, failed) = service.notification_counts();
        encode_counter(
            &mut encoder,
            "notifications",
            "Notifications since the start, by whether they were delivered",
            vec![
                (Some(("outcome", "sent")), sent),
                (Some(("outcome", "failed")), failed),
            ],
        )?;
        encode_counter(
            &mut encoder,
            "status_page_failures",
            "How often the status page that the policy names could not be written",
            vec![(None, service.status_page_failures())],
        )?;
        if let Ok(counts) = service.action_counts() {
            let counts = [
                ("open", counts.open),
                ("overdue", counts.overdue),
                ("closed", counts.closed),
            ];
            encode_gauge(
                &mut encoder,
                "actions",
                "Actions that came of runs",
                counts
                    .map(|(state, count)| (Some(("state", state)), count as f64))
                    .into(),
            )?;
        }
        if let Ok(waiting) = service.waiting_runs() {
            encode_gauge(
                &mut encoder,
                "approvals_waiting",
                "Runs that wait for approval",
                vec![(None, waiting.len() as f64)],
            )?;
        }
        if let Some(halt) = service.last_halt() {
            encode_gauge(
                &mut encoder,
                "halt_last_seconds",
                "How long the last halt took until everything was observed gone or the wait was over",
                vec![(None, halt.seconds)],
            )?;
            encode_gauge(
                &mut encoder,
                "halt_last_clean",
                "1 if everything was observed gone in the last halt, else 0",
                vec![(None, f64::from(u8::from(halt.clean)))],
            )?;
        }
        let store = service.store().statistics();
        encode_gauge(
            &mut encoder,
            "store_bytes",
            "Size of the store's files",
            vec![(None, store.bytes as f64)],
        )?;
        let kinds = StoreErrorKind::ALL
            .into_iter()
            .filter(|kind| kind.is_failure())
            .map(StoreErrorKind::word);
        encode_counter(
            &mut encoder,
            "store_errors",
            "Failures of the store, by kind",
            kinds
                .map(|kind| {
                    let count = store.errors.get(kind).copied().unwrap_or_default();
                    (Some(("kind", kind)), count)
                })
                .collect(),
        )?;
        encode_counter(
            &mut encoder,
            "schedules_missed",
            "Due times of schedules that passed while no controller was running",
            vec![(None, service.missed_times())],
        )?;
        let ended = service.outcomes();
        encode_counter(
            &mut encoder,
            "runs",
            "Runs that ended, by outcome",
            Outcome::ALL
                .map(|outcome| {
                    let word = outcome.word();
                    let count = ended.get(word).copied().unwrap_or_default();
                    (Some(("outcome", word)), count)
                })
                .into(),
        )
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
