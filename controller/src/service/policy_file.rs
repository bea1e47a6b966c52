//! Loading the policy's file again while the controller runs.

use super::{FleetPolicy, FleetPolicyError, Service};
use crate::store::StoreError;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Why the policy stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum PolicyReloadError {
    /// The file cannot be used.
    #[error(transparent)]
    Invalid(#[from] FleetPolicyError),
    /// What would change could not be recorded in the audit log.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// Loads a policy for this program.
    ///
    /// # Errors
    /// The file cannot be read, or all problems of the policy.
    pub fn load_policy(&self, path: &Path) -> Result<FleetPolicy, FleetPolicyError> {
        let faults: Vec<&str> = (self.catalogue.iter())
            .map(|fault| fault.name.as_str())
            .collect();
        FleetPolicy::load(path, &faults)
    }

    /// Loads the policy's file again and puts it in force, for runs that are open too: their agents and faults count for its
    /// ceilings, and its quiet hours end them. Returns what changed, in words; nothing if there is no file. A policy that
    /// cannot be used changes nothing. Both are written to the log and to the audit log.
    ///
    /// # Errors
    /// Why the policy stays as it was.
    pub fn reload_policy(self: &Arc<Self>) -> Result<Vec<String>, PolicyReloadError> {
        let Some(path) = self.policy_file.clone() else {
            return Ok(Vec::new());
        };
        let next = match self.load_policy(&path) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "the policy was not loaded again; the one before stays in force");
                let detail = json!({"why": error.to_string()});
                self.audit_policy(&path, "refused", detail)?;
                return Err(error.into());
            }
        };
        let changes = changes(&self.policy(), &next);
        let unknown = self.unknown_tokens(&next)?;
        self.audit_policy(
            &path,
            "done",
            json!({"changes": changes, "unknown-tokens": unknown}),
        )?;
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        tracing::info!(?changes, "the policy was loaded again");
        self.reschedule();
        self.status_changed();
        Ok(changes)
    }

    /// Warns of tokens that the policy in force names and that do not exist.
    ///
    /// # Errors
    /// The store failed.
    pub fn check_policy_tokens(&self) -> Result<(), StoreError> {
        self.unknown_tokens(&self.policy()).map(|_| ())
    }

    fn audit_policy(&self, path: &Path, outcome: &str, detail: Value) -> Result<(), StoreError> {
        let path = path.display().to_string();
        self.audit_own("load-policy", &path, outcome, detail)
            .map(|_| ())
    }

    /// The names of tokens in the rules that no token has. Each is a warning in the log, because it may be made later.
    fn unknown_tokens(&self, policy: &FleetPolicy) -> Result<BTreeSet<String>, StoreError> {
        let tokens = self.store.api_tokens()?;
        let known: BTreeSet<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        let mut unknown = BTreeSet::new();
        for rule in &policy.rules {
            for name in rule.who.iter().flatten() {
                if !known.contains(name.as_str()) && unknown.insert(name.clone()) {
                    tracing::warn!(
                        rule = rule.name,
                        token = name,
                        "a rule of the policy names a token that does not exist"
                    );
                }
            }
        }
        Ok(unknown)
    }
}

/// What is different between two policies, in words.
fn changes(before: &FleetPolicy, after: &FleetPolicy) -> Vec<String> {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (before, after) = (json!(before), json!(after));
    let mut changes = Vec::new();
    for key in changed_keys(&fields(&before), &fields(&after)) {
        match key.as_str() {
            "rules" => {}
            "log-level" => changes.push(format!(
                "`log-level` changed from {} to {}",
                word(&before[&key]),
                word(&after[&key])
            )),
            _ => changes.push(format!("`{key}` changed")),
        }
    }
    let rules = |policy: &Value| -> BTreeMap<String, Map<String, Value>> {
        let rules = policy["rules"].as_array().cloned().unwrap_or_default();
        let named = rules.iter().map(|rule| {
            (
                rule["name"].as_str().unwrap_or_default().to_owned(),
                fields(rule),
            )
        });
        named.collect()
    };
    let (before, after) = (rules(&before), rules(&after));
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        match (before.get(name), after.get(name)) {
            (Some(_), None) => changes.push(format!("rule `{name}` removed")),
            (None, Some(_)) => changes.push(format!("rule `{name}` added")),
            (Some(one), Some(other)) => {
                let keys = changed_keys(one, other);
                let keys = keys
                    .iter()
                    .map(|key| format!("`{key}`"))
                    .collect::<Vec<_>>();
                if !keys.is_empty() {
                    changes.push(format!("rule `{name}`: {} changed", keys.join(", ")));
                }
            }
            (None, None) => {}
        }
    }
    changes
}

/// A word of a policy as it is shown.
fn word(value: &Value) -> String {
    match value.as_str() {
        Some(word) => format!("`{word}`"),
        None => "the default".to_owned(),
    }
}

/// The keys whose values differ.
fn changed_keys(before: &Map<String, Value>, after: &Map<String, Value>) -> BTreeSet<String> {
    let keys = before.keys().chain(after.keys());
    let changed = keys.filter(|key| before.get(*key) != after.get(*key));
    changed.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_changes_are_told_by_rule_and_key() {
        let policy = |text: &str| FleetPolicy::of(text).unwrap();
        let before = policy(
            r#"{"environment": ["A"], "rules": [{"name": "gone"}, {"name": "kept", "max-runs": 1}, {"name": "same"}]}"#,
        );
        let after = policy(
            r#"{"rules": [{"name": "same"}, {"name": "kept", "max-runs": 2, "approval": true}, {"name": "new"}]}"#,
        );
        assert_eq!(
            changes(&before, &after),
            [
                "`environment` changed",
                "rule `gone` removed",
                "rule `kept`: `approval`, `max-runs` changed",
                "rule `new` added",
            ]
        );
        assert!(changes(&after, &after).is_empty());
        let louder = policy(r#"{"log-level": "debug"}"#);
        let changed = "`log-level` changed from the default to `debug`";
        assert_eq!(changes(&FleetPolicy::default(), &louder), [changed]);
        assert!(FleetPolicy::of(r#"{"log-level": "loud"}"#).is_err());
    }
}
