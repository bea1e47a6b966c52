//! Records in the store what happens to the connections of agents: the audit log has each connection, and the agents have the time at
//! which each was last heard.

use super::Service;
use crate::fleet::{MembershipChange, MembershipRecord};
use crate::store::{AuditRecord, StoreError};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The most entries that are written at once.
const MAX_BATCH: usize = 1024;
/// How often the store learns when the connected agents were last heard. After a crash of the controller it knows no better.
const HEARD_INTERVAL: Duration = Duration::from_secs(300);

impl Service {
    /// Records what happens to connections, for as long as the controller runs. What the store does not take is logged and not tried again:
    /// agents are served all the same.
    pub async fn keep_membership(
        self: Arc<Self>,
        mut records: mpsc::UnboundedReceiver<MembershipRecord>,
    ) {
        let mut batch = Vec::new();
        let mut heard = tokio::time::interval(HEARD_INTERVAL);
        loop {
            batch.clear();
            let times = tokio::select! {
                count = records.recv_many(&mut batch, MAX_BATCH) => match count {
                    0 => return,
                    _ => batch.iter().filter_map(heard_at).collect(),
                },
                _ = heard.tick() => self.fleet().heard(),
            };
            let entries: Vec<AuditRecord> = batch.iter().map(entry).collect();
            let service = Arc::clone(&self);
            let written =
                tokio::task::spawn_blocking(move || service.record_membership(&entries, &times));
            if let Ok(Err(error)) = written.await {
                tracing::error!(%error, "connections of agents could not be recorded");
            }
        }
    }

    fn record_membership(
        &self,
        entries: &[AuditRecord],
        heard: &BTreeMap<String, Timestamp>,
    ) -> Result<(), StoreError> {
        if !entries.is_empty() {
            self.store.audit_all(entries)?;
        }
        match heard.is_empty() {
            true => Ok(()),
            false => self.store.agents_heard(heard),
        }
    }
}

fn heard_at(record: &MembershipRecord) -> Option<(String, Timestamp)> {
    match &record.change {
        MembershipChange::Disconnected { heard, .. } => Some((record.agent.clone(), *heard)),
        MembershipChange::Connected { .. } => Some((record.agent.clone(), record.at)),
        MembershipChange::Duplicated(_) => None,
    }
}

/// The entry of the audit log.
fn entry(record: &MembershipRecord) -> AuditRecord {
    let peer = record.peer.to_string();
    let (what, outcome, mut detail) = match &record.change {
        MembershipChange::Connected { version, protocol } => (
            "connect",
            "done",
            json!({"peer": peer, "version": version, "protocol": protocol}),
        ),
        MembershipChange::Disconnected { why, .. } => {
            ("disconnect", "done", json!({"peer": peer, "reason": why}))
        }
        MembershipChange::Duplicated(connected) => (
            "connect",
            "refused",
            json!({"peer": peer, "reason": "duplicate", "connected": connected.to_string()}),
        ),
    };
    if record.left_out > 0
        && let Some(detail) = detail.as_object_mut()
    {
        detail.insert("left-out".into(), record.left_out.into());
    }
    AuditRecord {
        at: record.at,
        who: format!("agent {}", record.agent),
        role: None,
        what: what.into(),
        about: record.agent.clone(),
        outcome: outcome.into(),
        detail,
    }
}
