//! The plug-ins that agents announce: faults that this program does not have, as the agents describe them. Arguments in experiments are
//! held against these descriptions; the agent holds them against its own again.

use crate::agent_connection::AgentHandle;
use backburn_experiments::wire::FaultDescription;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How long an agent may take to describe its faults.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest description that is kept, in bytes of JSON.
const MAX_DESCRIPTION_BYTES: usize = 64 << 10;
/// Most plug-ins that are kept.
const MAX_PLUGINS: usize = 1_000;

/// The plug-ins that agents announce.
#[derive(Debug, Default)]
pub struct AnnouncedPlugins {
    /// The faults that this program has itself. Until they are known, nothing is asked for.
    built_in: OnceLock<BTreeSet<String>>,
    described: Mutex<BTreeMap<String, FaultDescription>>,
}

impl AnnouncedPlugins {
    /// Says which faults are no plug-ins. The first call counts.
    pub fn set_built_in(&self, names: impl IntoIterator<Item = String>) {
        self.built_in.set(names.into_iter().collect()).ok();
    }

    /// The plug-ins, as they were last described.
    pub fn list(&self) -> Vec<FaultDescription> {
        self.described().values().cloned().collect()
    }

    /// Has an agent describe its faults where it announces one that this program does not have.
    pub(super) fn learn_from(self: &Arc<Self>, faults: &[String], handle: &AgentHandle) {
        let Some(built_in) = self.built_in.get() else {
            return;
        };
        if faults.iter().all(|fault| built_in.contains(fault)) {
            return;
        }
        let (own, handle) = (Arc::clone(self), handle.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(DESCRIBE_TIMEOUT, handle.describe()).await {
                Ok(Some(faults)) => own.add(faults),
                Ok(None) | Err(_) => {
                    tracing::warn!("an agent announces plug-ins and does not describe them");
                }
            }
        });
    }

    /// Keeps the descriptions of faults that are not built in. The newest of a name counts.
    pub fn add(&self, faults: Vec<FaultDescription>) {
        let mut described = self.described();
        for fault in faults {
            let is_built_in =
                (self.built_in.get()).is_none_or(|built_in| built_in.contains(&fault.name));
            let length = serde_json::to_vec(&fault).map_or(usize::MAX, |json| json.len());
            let has_room = described.len() < MAX_PLUGINS || described.contains_key(&fault.name);
            if !is_built_in && length <= MAX_DESCRIPTION_BYTES && has_room {
                described.insert(fault.name.clone(), fault);
            }
        }
    }

    fn described(&self) -> MutexGuard<'_, BTreeMap<String, FaultDescription>> {
        self.described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fault(name: &str, summary: &str) -> FaultDescription {
        FaultDescription {
            name: name.into(),
            summary: summary.into(),
            one_shot: false,
            schema: json!({"type": "object"}),
            example: json!({}),
        }
    }

    #[test]
    fn announced_plugins_are_kept_and_built_in_faults_are_not_replaced() {
        let plugins = AnnouncedPlugins::default();
        plugins.add(vec![fault("early", "before anything is known")]);
        plugins.set_built_in(["cpu-stress".to_owned()]);
        plugins.add(vec![
            fault("hold-port", "old"),
            fault("cpu-stress", "an agent's idea of it"),
            fault("long", &"x".repeat(MAX_DESCRIPTION_BYTES)),
        ]);
        plugins.add(vec![fault("hold-port", "new")]);
        let kept = plugins.list();
        let kept: Vec<_> = kept
            .iter()
            .map(|fault| (&*fault.name, &*fault.summary))
            .collect();
        assert_eq!(kept, [("hold-port", "new")]);
    }
}
