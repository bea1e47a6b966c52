//! The audit log: reading it, and verifying it.

use super::auth::Admin;
use super::extract::QueryParams;
use super::pagination::{PageByNumber, page};
use super::problem::ApiProblem;
use super::types::{AuditLogEntry, AuditVerification};
use super::{Api, blocking};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

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

/// Verifies the audit log's chain of hashes.
#[utoipa::path(get, path = "/api/v1/audit/chain", tag = "audit", security(("token" = ["admin"])), responses((status = 200, body = AuditVerification)))]
pub async fn verify(
    _who: Admin,
    State(api): State<Api>,
) -> Result<Json<AuditVerification>, ApiProblem> {
    let store = Arc::clone(api.service.store());
    let chain = blocking(move || store.verify_audit(None)).await?;
    Ok(Json(AuditVerification {
        number: chain.head.number,
        hash: chain.head.hash.to_string(),
        broken: chain
            .broken
            .map(|broken| format!("entry {}: {}", broken.number, broken.why)),
    }))
}
