//! What a plug-in says of itself: the answer to `describe`.

use super::capabilities::capability_bits;
use backburn_experiments::wire::FaultDescription;
use backburn_experiments::{HumanDuration, schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// The version of the protocol that is spoken with plug-ins.
pub const PLUGIN_PROTOCOL: u32 = 1;

/// Longest time that `apply` and `undo` may take.
const MAX_WORK: HumanDuration = HumanDuration::seconds(10);

/// What kind of plug-in it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginKind {
    /// It chooses built-in faults and their arguments.
    Planner,
    /// Its process does harm as long as it lives.
    Holder,
    /// It changes something and puts it back.
    Changer,
}

/// What a plug-in says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PluginDeclaration {
    /// The oldest and the newest version of the protocol that it speaks.
    pub protocol: [u32; 2],
    /// Its name, which is also its fault's: lower-case letters, digits and `-`.
    pub name: String,
    /// What its fault does: one imperative line without a full stop.
    pub summary: String,
    /// What kind of plug-in it is.
    pub kind: PluginKind,
    /// JSON Schema of its arguments: an object, without additional properties.
    pub schema: Value,
    /// Arguments that make sense.
    pub example: Value,
    /// The arguments that select processes: the agent resolves them, with the policy's protection and the seed.
    #[serde(default)]
    pub selectors: Vec<String>,
    /// The capabilities that `hold`, `apply`, `observe` and `undo` need, e.g. `CAP_NET_BIND_SERVICE`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether what it changes is still there after a reboot.
    #[serde(default)]
    pub survives_reboot: bool,
    /// How long `apply` and `undo` may take each, at most 10 s.
    #[serde(default = "default_work")]
    pub timeout: HumanDuration,
}

fn default_work() -> HumanDuration {
    MAX_WORK
}

impl PluginDeclaration {
    /// What is wrong with it; `name` is the one that the policy gives it.
    pub(crate) fn problem(&self, name: &str) -> Option<String> {
        let [oldest, newest] = self.protocol;
        if !(oldest..=newest).contains(&PLUGIN_PROTOCOL) {
            return Some(format!(
                "speaks versions {oldest} to {newest} of the protocol, and this agent speaks {PLUGIN_PROTOCOL}"
            ));
        }
        if self.name != name {
            return Some(format!("calls itself `{}`, not `{name}`", self.name));
        }
        if !is_fault_name(&self.name) {
            return Some(
                "has a name with other characters than lower-case letters, digits and `-`".into(),
            );
        }
        if self.schema.get("type").and_then(Value::as_str) != Some("object")
            || self.schema.get("additionalProperties") != Some(&Value::Bool(false))
        {
            return Some(
                "has a schema that is not an object's with `\"additionalProperties\": false`, so misspelt arguments would not be noticed".into(),
            );
        }
        let properties = self.schema.get("properties");
        let unknown = self.selectors.iter().find(|selector| {
            properties
                .and_then(|properties| properties.get(selector))
                .is_none()
        });
        if let Some(unknown) = unknown {
            return Some(format!(
                "names a selector `{unknown}` that its schema does not have"
            ));
        }
        if self.timeout > MAX_WORK || self.timeout.0 < Duration::from_millis(1) {
            return Some(format!(
                "asks for a timeout of {}, and at most {MAX_WORK} is possible",
                self.timeout
            ));
        }
        if let Err(why) = capability_bits(&self.capabilities) {
            return Some(format!("asks for a capability that there is not: {why}"));
        }
        match schema::accept(&self.schema, &self.example, "$") {
            Ok(_) => None,
            Err(problems) => Some(format!(
                "has an example that its own schema refuses: {}",
                problems
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            )),
        }
    }

    /// Its fault, for people and controllers.
    pub fn describe(&self) -> FaultDescription {
        FaultDescription {
            name: self.name.clone(),
            summary: self.summary.clone(),
            one_shot: false,
            schema: self.schema.clone(),
            example: self.example.clone(),
        }
    }
}

/// Whether a fault may have this name.
pub(crate) fn is_fault_name(name: &str) -> bool {
    let is_good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(is_good)
}
