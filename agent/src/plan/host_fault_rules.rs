//! What a host's owner says of faults that hit the host as a whole, and who asks for them. They are off unless the policy names them.

use backburn_experiments::wire::Refusal;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The rules for faults that hit the host as a whole, such as `host-reboot`. The default allows none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFaultRules {
    /// The names in the policy's `allow-host-faults`.
    pub allowed: Vec<String>,
    /// The policy file, which is asked again immediately before the deed.
    pub policy: PathBuf,
    /// The agent's state folder with the ledger, which must owe nothing else by then.
    pub state: PathBuf,
    /// Whether the run is conducted from this very host, by `backburn run` without a controller.
    pub is_local_run: bool,
}

impl HostFaultRules {
    /// Checks that the owner of the host allows this fault by name, and that the run is not conducted from this host.
    ///
    /// # Errors
    /// It is not allowed: the refusal names the rule, and what would do.
    pub fn permit(&self, fault: &str) -> Result<(), Refusal> {
        if !self.allowed.iter().any(|name| name == fault) {
            return Err(Refusal::new(
                "policy",
                format!(
                    "`{fault}` hits the whole host, and the policy of this host does not allow that"
                ),
            )
            .hint(format!(
                "the owner of this host may name it: `\"allow-host-faults\": [\"{fault}\"]` in {}",
                self.policy.display()
            )));
        }
        if self.is_local_run {
            return Err(Refusal::new(
                "local-run",
                format!("`{fault}` would hit the run itself, which is conducted from this host"),
            )
            .hint("run the experiment by a controller on another host, with `backburn run --controller`"));
        }
        Ok(())
    }
}
