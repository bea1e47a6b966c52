//! Which faults services have been shown to survive, as data and as a badge.

use super::Api;
use super::auth::Viewer;
use super::blocking;
use super::extract::QueryParams;
use super::openapi::ProblemStatus;
use super::problem::ApiProblem;
use super::types::{CoverageInfo, TriedFault};
use crate::service::ServiceCoverage;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

fn default_label() -> String {
    "service".into()
}

/// Which label names a service.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CoverageQuery {
    /// The key of the label whose values are services. The default is `service`.
    #[serde(default = "default_label")]
    label: String,
}

/// Which service the badge is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BadgeQuery {
    /// The key of the label whose values are services. The default is `service`.
    #[serde(default = "default_label")]
    label: String,
    /// The value of the label.
    service: String,
}

fn info(known: ServiceCoverage, now: Timestamp) -> CoverageInfo {
    let tried = known.tried.into_iter().map(|fault| {
        let (held_in, held_at) = fault.survived.clone().unzip();
        let (deviated_in, deviated_at) = fault.deviated.clone().unzip();
        TriedFault {
            survived: fault.is_survived(),
            trust: fault.trust(now),
            runs: fault.runs,
            held_in,
            held_at: held_at.map(|at| at.to_string()),
            deviated_in,
            deviated_at: deviated_at.map(|at| at.to_string()),
            fault: fault.fault,
        }
    });
    CoverageInfo {
        service: known.service,
        agents: known.agents,
        tried: tried.collect(),
        never: known.never,
    }
}

/// Returns, for each value of a label, which faults its agents have been shown to survive, when last, and what was never tried. A
/// fault that was not seen to act does not count.
#[utoipa::path(get, path = "/api/v1/coverage", tag = "runs", params(CoverageQuery), security(("token" = ["viewer"])), responses((status = 200, body = Vec<CoverageInfo>)))]
pub async fn coverage(
    Viewer(who): Viewer,
    State(api): State<Api>,
    QueryParams(which): QueryParams<CoverageQuery>,
) -> Result<Json<Vec<CoverageInfo>>, ApiProblem> {
    let service = Arc::clone(&api.service);
    let known = blocking(move || service.coverage(&who, &which.label)).await?;
    let now = Timestamp::now();
    Ok(Json(
        known.into_iter().map(|known| info(known, now)).collect(),
    ))
}

/// Returns how many faults a service has been shown to survive, as a badge in SVG. Claims that are not trusted any more do not count.
#[utoipa::path(get, path = "/api/v1/coverage/badge", tag = "runs", params(BadgeQuery), security(("token" = ["viewer"])), responses((status = 200, body = String, content_type = "image/svg+xml"), ProblemStatus<404>))]
pub async fn badge(
    Viewer(who): Viewer,
    State(api): State<Api>,
    QueryParams(which): QueryParams<BadgeQuery>,
) -> Result<Response, ApiProblem> {
    let service = Arc::clone(&api.service);
    let label = which.label.clone();
    let known = blocking(move || service.coverage(&who, &label)).await?;
    let own = known
        .into_iter()
        .find(|known| known.service == which.service);
    let own = own.ok_or_else(|| {
        let (label, value) = (which.label.escape_debug(), which.service.escape_debug());
        ApiProblem::not_found(format!("no agent has the label `{label}={value}`"))
            .hint("`backburn coverage` lists the services that there are")
    })?;
    let fixed = HeaderValue::from_static;
    let headers = [
        (header::CONTENT_TYPE, fixed("image/svg+xml")),
        (header::CACHE_CONTROL, fixed("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
    ];
    Ok((headers, svg(&own, Timestamp::now())).into_response())
}

/// The badge. It contains nothing but numbers.
fn svg(known: &ServiceCoverage, now: Timestamp) -> String {
    let survived = known
        .tried
        .iter()
        .filter(|fault| fault.trust(now) > 0.0)
        .count();
    let failed = known
        .tried
        .iter()
        .filter(|fault| fault.deviated.is_some() && !fault.is_survived());
    let colour = match (failed.count(), survived) {
        (0, 0) => "#6e7781",
        (0, _) => "#1a7f37",
        _ => "#cf222e",
    };
    let text = format!(
        "{survived} of {} faults",
        known.tried.len() + known.never.len()
    );
    // Verdana's digits and letters are at most 7 px wide at this size.
    let (left, right) = (62, 7 * text.len() + 12);
    let width = left + right;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" aria-label=\"survives: {text}\">\
         <title>survives: {text}</title><rect width=\"{width}\" height=\"20\" rx=\"3\" fill=\"{colour}\"/>\
         <rect width=\"{left}\" height=\"20\" rx=\"3\" fill=\"#32383f\"/>\
         <g fill=\"#fff\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\" text-anchor=\"middle\">\
         <text x=\"{}\" y=\"14\">survives</text><text x=\"{}\" y=\"14\">{text}</text></g></svg>\n",
        left / 2,
        left + right / 2
    )
}
