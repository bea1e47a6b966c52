//! The audit log: reading it, and verifying it.

use super::auth::Admin;
use super::extract::QueryParams;
use super::pagination::{PageByNumber, page};
use super::problem::ApiProblem;
use super::types::{AuditLogEntry, AuditVerification};
use super::{Api, blocking};
use crate::store::AuditHead;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Returns entries of the audit log, oldest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(PageByNumber), security(("token" = ["admin"])), responses((status = 200, body = Vec<AuditLogEntry>)))]
pub async fn audit(
    _who: Admin,
    State(api): State<Api>,
    QueryParams(PageByNumber { after, limit }): QueryParams<PageByNumber>,
) -> Result<Json<Vec<AuditLogEntry>>, ApiProblem> {
    let (store, limit) = (Arc::clone(api.service.store()), page(limit)?);
    let found = blocking(move || store.audited(after, limit)).await?;
    let audited = found.into_iter().map(|entry| AuditLogEntry {
        number: entry.number,
        at: entry.record.at.to_string(),
        who: entry.record.who,
        role: entry
            .record
            .role
            .map(|role| super::role_name(role).to_owned()),
        what: entry.record.what,
        about: entry.record.about,
        outcome: entry.record.outcome,
        detail: entry.record.detail,
        previous: entry.previous.to_string(),
        hash: entry.hash.to_string(),
    });
    Ok(Json(audited.collect()))
}

/// What the audit log has to contain.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ChainQuery {
    /// A head that was printed or answered earlier, as `NUMBER:HASH`: a log that does not contain that entry was cut short or rewritten.
    #[param(pattern = "^[0-9]{1,18}:[0-9a-f]{64}$")]
    head: Option<String>,
}

/// Verifies the audit log's chain of hashes.
#[utoipa::path(get, path = "/api/v1/audit/chain", tag = "audit", params(ChainQuery), security(("token" = ["admin"])), responses((status = 200, body = AuditVerification)))]
pub async fn verify(
    _who: Admin,
    State(api): State<Api>,
    QueryParams(ChainQuery { head }): QueryParams<ChainQuery>,
) -> Result<Json<AuditVerification>, ApiProblem> {
    let known: Option<AuditHead> = match head.as_deref().map(str::parse).transpose() {
        Ok(known) => known,
        Err(error) => {
            let what = format!("`head`: {error}");
            return Err(ApiProblem::new(StatusCode::BAD_REQUEST, "query", what));
        }
    };
    let store = Arc::clone(api.service.store());
    let chain = blocking(move || store.verify_audit(known.as_ref())).await?;
    Ok(Json(chain.into()))
}
