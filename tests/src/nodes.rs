//! Machines of a small network: network namespaces at one bridge, in which real software runs. The
//! bridge has an address too, so that a test and the program that it runs reach them all.

use crate::network::{ip, keeper};
use std::process::{Child, Command};

/// Nodes that end with the test.
pub struct Nodes {
    /// A process in each, which keeps it.
    keepers: Vec<Child>,
}

impl Nodes {
    /// So many. To be called in a network namespace of the test's own, once.
    ///
    /// # Panics
    /// They can't be made.
    pub fn new(number: usize) -> Self {
        ip(&["link", "add", "lan", "type", "bridge"]);
        ip(&["address", "add", "10.8.0.254/24", "dev", "lan"]);
        ip(&["link", "set", "lan", "up"]);
        let keepers = (0..number)
            .map(|node| {
                let keeper = keeper();
                let pid = keeper.id().to_string();
                let port = format!("port{node}");
                ip(&[
                    "link", "add", &port, "type", "veth", "peer", "name", "lan", "netns", &pid,
                ]);
                ip(&["link", "set", &port, "master", "lan", "up"]);
                let here = |words: &[&str]| {
                    let mut command = within(keeper.id(), "ip");
                    let status = command.args(words).status();
                    assert!(
                        status.is_ok_and(|status| status.success()),
                        "ip {words:?} in node {node}"
                    );
                };
                let address = format!("{}/24", Self::address_of(node));
                here(&["address", "add", &address, "dev", "lan"]);
                here(&["link", "set", "lo", "up"]);
                here(&["link", "set", "lan", "up"]);
                keeper
            })
            .collect();
        Nodes { keepers }
    }

    fn address_of(node: usize) -> String {
        format!("10.8.0.{}", node + 1)
    }

    /// The address of a node, counted from 0.
    pub fn address(&self, node: usize) -> String {
        assert!(node < self.keepers.len(), "there is no node {node}");
        Self::address_of(node)
    }

    /// The path of a node's network namespace.
    pub fn namespace(&self, node: usize) -> String {
        format!("/proc/{}/ns/net", self.keepers[node].id())
    }

    /// A program that is to run in a node.
    pub fn command(&self, node: usize, program: &str) -> Command {
        within(self.keepers[node].id(), program)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for keeper in &mut self.keepers {
            // One that is gone is what is wanted.
            keeper.kill().ok();
            keeper.wait().ok();
        }
    }
}

fn within(pid: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args([&format!("--net=/proc/{pid}/ns/net"), "--", program]);
    command
}
