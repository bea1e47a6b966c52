//! What a policy says of a plug-in.

use super::capabilities::capability_bits;
use super::declaration::is_fault_name;
use backburn_experiments::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A plug-in that the owner of a host allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AllowedPlugin {
    /// Its name, which is also its fault's.
    pub name: String,
    /// The absolute path of its file: an executable that only root can write, in folders that only root can write.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal digits (`sha256sum FILE`). Another file is not run.
    pub sha256: String,
    /// The capabilities that it may keep, of those that it asks for, e.g. `CAP_NET_BIND_SERVICE`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

impl AllowedPlugin {
    /// What is wrong with it; `at` is its place in the policy.
    pub(crate) fn problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !is_fault_name(&self.name) {
            problems.push(
                Problem::new(
                    format!("{at}.name"),
                    format!("`{}` is not a fault's name", self.name),
                )
                .hint("lower-case letters, digits and `-`"),
            );
        }
        if !self.path.is_absolute() {
            problems.push(
                Problem::new(
                    format!("{at}.path"),
                    format!("`{}` is not an absolute path", self.path.display()),
                )
                .hint("a path that begins with `/`"),
            );
        }
        let is_hash = self.sha256.len() == 64 && self.sha256.bytes().all(|c| c.is_ascii_hexdigit());
        if !is_hash {
            problems.push(
                Problem::new(format!("{at}.sha256"), "this is not a SHA-256 hash").hint(format!(
                    "64 hexadecimal digits: `sha256sum {}`",
                    self.path.display()
                )),
            );
        }
        if let Err(why) = capability_bits(&self.capabilities) {
            problems.push(Problem::new(format!("{at}.capabilities"), why));
        }
        problems
    }
}
