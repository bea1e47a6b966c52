//! Flows in words, short enough for people and different wherever they are.

use super::{Direction, Endpoint, FlowMatch, IpNetwork, PortRange, Protocol};
use std::fmt;

impl fmt::Display for FlowMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.direction {
            Direction::Egress => "leaving",
            Direction::Ingress => "arriving",
            Direction::Both => "all",
        })?;
        f.write_str(match self.protocol {
            Protocol::Tcp => " TCP",
            Protocol::Udp => " UDP",
            Protocol::Icmp => " ICMP",
            Protocol::Any => " flows",
        })?;
        let ends = |ends: &[Endpoint]| {
            let texts: Vec<String> = ends.iter().map(Endpoint::to_string).collect();
            texts.join(", ")
        };
        if !self.from.is_empty() {
            write!(f, " from {}", ends(&self.from))?;
        }
        if !self.to.is_empty() {
            write!(f, " to {}", ends(&self.to))?;
        }
        if !self.ports.is_empty() {
            let ports: Vec<String> = self.ports.iter().map(PortRange::to_string).collect();
            write!(f, " to ports {}", ports.join(", "))?;
        }
        if let Some(interface) = &self.interface {
            write!(f, " over {interface}")?;
        }
        for cgroup in &self.cgroups {
            write!(f, " of sockets in {}", cgroup.folder.display())?;
        }
        if !self.except.is_empty() {
            write!(f, ", except {}", ends(&self.except))?;
        }
        Ok(())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let mut texts: Vec<String> = self.networks.iter().map(IpNetwork::to_string).collect();
        let whole = texts.join(" ");
        if texts.len() > SHOWN {
            texts.truncate(SHOWN);
            // The number of those left out would not tell one list from another.
            texts.push(format!(
                "… ({} in all, {:08x})",
                self.networks.len(),
                short_hash(&whole)
            ));
        }
        match &self.port {
            None => write!(f, "{}", texts.join(" ")),
            Some(port) => write!(f, "{} port {port}", texts.join(" ")),
        }
    }
}

/// A short sum of a text (FNV-1a), to tell one from another.
pub(super) fn short_hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// A longer sum of a text (FNV-1a), where no two may be taken for each other.
pub(super) fn long_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
