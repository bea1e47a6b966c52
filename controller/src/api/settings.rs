//! How the controller is set up, to be read only.

use super::Api;
use super::auth::Viewer;
use super::types::{SettingsInfo, TlsCertificateInfo};
use axum::Json;
use axum::extract::State;
use serde_json::json;

/// Returns how the controller is set up. A token that is limited to teams does not see the policy, which names what belongs to others.
#[utoipa::path(get, path = "/api/v1/settings", tag = "settings", security(("token" = ["viewer"])), responses((status = 200, body = SettingsInfo)))]
pub async fn get(Viewer(who): Viewer, State(api): State<Api>) -> Json<SettingsInfo> {
    let service = &api.service;
    Json(SettingsInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lease: service.fleet().lease().to_string(),
        approval_expires: service.approval_expires().to_string(),
        authority: api.authority.fingerprint(),
        tls_certificate: service.owner_certificate().map(|owner| {
            let current = owner.current();
            TlsCertificateInfo {
                names: current.names.clone(),
                expires: current.expires.to_string(),
                stale: service.is_owner_certificate_stale(),
            }
        }),
        identity_provider: service
            .login_desk()
            .map(|desk| desk.config().issuer.clone()),
        policy: who.teams.is_empty().then(|| json!(*service.policy())),
    })
}
