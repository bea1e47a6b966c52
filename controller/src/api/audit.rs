//! The audit log: reading it, and verifying it.

use super::auth::Admin;
use super::extract::QueryParams;
use super::pagination::{PageByNumber, page};
use super::problem::ApiProblem;
use super::{Api, blocking};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// Who did what.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogEntry {
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
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(PageByNumber), security(("token" = ["admin"])), responses((status = 200, body = Vec<AuditLogEntry>), (status = 400, body = ApiProblem, content_type = "application/problem+json"), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json")))]
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
pub struct AuditVerification {
    /// The number of its last entry. Keep it elsewhere, with the hash: a log that was cut short is found by them.
    number: u64,
    /// The hash of its last entry.
    hash: String,
    /// The first entry that does not follow from the one before, and why.
    broken: Option<String>,
}

/// Walks along the audit log. Wants the role admin.
#[utoipa::path(get, path = "/api/v1/audit/chain", tag = "audit", security(("token" = ["admin"])), responses((status = 200, body = AuditVerification), (status = 401, body = ApiProblem, content_type = "application/problem+json"), (status = 403, body = ApiProblem, content_type = "application/problem+json")))]
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
