//! A service of a host, as its agent sees it and tells a controller.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The longest name of a process, a unit or a container that is believed, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// A service that runs: processes of one name, of one unit or container, that listen on the same addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeenService {
    /// The name of its processes.
    pub name: String,
    /// How many processes it has.
    pub processes: usize,
    /// The systemd unit, if it is one of the system's services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The beginning of the id of the container that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Whether it is in the network of the agent.
    pub is_in_own_network: bool,
    /// The TCP addresses that it listens on.
    pub listening: BTreeSet<SocketAddr>,
    /// The TCP addresses that it is connected to, not counting those of its clients.
    pub peers: BTreeSet<SocketAddr>,
}

impl SeenService {
    /// Whether this can be a service: its words are neither empty nor long, and have no control characters.
    pub fn is_plausible(&self) -> bool {
        let is_word = |word: &String| {
            (1..=MAX_NAME_BYTES).contains(&word.len()) && !word.chars().any(char::is_control)
        };
        let words = [
            Some(&self.name),
            self.unit.as_ref(),
            self.container.as_ref(),
        ];
        words.into_iter().flatten().all(is_word)
    }
}
