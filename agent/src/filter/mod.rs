//! What is done to which packets, as data: on a helper's command line, in the plan and in the
//! ledger. `rules` makes the kernel's own words of it, `device` what shapes, `network` reads addresses.

mod bursts;
mod deeds;
mod device;
mod distribution;
mod harm;
mod network;
mod rules;

pub use device::Shapers;
pub use distribution::Delays;
pub use harm::{Bursts, Delay, Distribution, Harm, Overtake, Shape, Share, With};
pub use network::{Network, PortRange};

use crate::netlink::{self, Count, Layer, Message, Namespace, Socket, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::time::Duration;

/// What the comments of counting rules say: every packet of the chosen flows, and those that harm came to.
const CHOSEN: &str = "chosen";
const HARMED: &str = "harmed";

/// What is done to which packets, in which namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Filter {
    /// The name of the tables that are made, known before.
    pub table: String,
    /// The network namespace; ours where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Which packets.
    pub flows: Flows,
    /// What is done to them.
    pub harm: Harm,
    /// The devices at which leaving packets are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// The devices at which arriving packets are looked at, where that is not done in the IP layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inlets: Vec<String>,
}

/// Which packets: those of flows from here to there, and their answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Flows {
    /// Where they go, e.g. a service. Anywhere where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<End>,
    /// Where they come from, e.g. clients. Anywhere where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<End>,
    /// The ports that they go to. Any where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// Their protocol.
    pub protocol: Protocol,
    /// Which of their packets.
    pub direction: Direction,
    /// Only over this interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether the loopback is meant too.
    #[serde(default)]
    pub loopback: bool,
    /// Not those that have one of these ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<End>,
    /// Ports that are never touched, at either end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare_ports: Vec<PortRange>,
}

/// One end of flows: addresses, and maybe the port there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct End {
    /// The addresses, sorted.
    pub networks: Vec<Network>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRange>,
}

/// The protocol of flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6, but for the finding of neighbours.
    Icmp,
    /// Whatever goes over IP; with a port, TCP and UDP.
    #[default]
    Any,
}

/// Which packets of flows, as seen from the namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Those that leave.
    Egress,
    /// Those that arrive.
    Ingress,
    /// Both.
    #[default]
    Both,
}

/// What there must be before there are rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Means {
    /// The number of the packet queue.
    pub queue: u16,
    /// Whether rules name it by the older `NFQUEUE` target.
    pub by_target: bool,
    /// The devices that shape.
    pub shapers: Shapers,
}

impl Direction {
    fn arrives(self) -> bool {
        self != Direction::Egress
    }

    fn leaves(self) -> bool {
        self != Direction::Ingress
    }
}

/// What the kernel counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets of the chosen flows.
    pub chosen: u64,
    /// Those that harm came to.
    pub harmed: u64,
    /// The bytes of those.
    pub harmed_bytes: u64,
    /// Those that its devices dropped, for want of room or by chance.
    pub dropped: u64,
}

impl Filter {
    /// The messages that make its tables, all or nothing. `deadline` is when the kernel ends it by itself.
    pub fn messages(&self, deadline: Duration, means: Means) -> Vec<Message> {
        rules::messages(self, deadline, means)
    }

    /// Has this said to the kernel in the way in which it knows packet queues: by a step of its own, else by a target.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn say<T>(
        &self,
        deadline: Duration,
        means: Means,
        say: impl Fn(&[Message]) -> io::Result<T>,
    ) -> io::Result<T> {
        let by = |by_target| self.messages(deadline, Means { by_target, ..means });
        say(&by(false)).or_else(|error| match self.harm.queues() {
            true => say(&by(true)),
            false => Err(error),
        })
    }

    /// The number of the packet queue that is tried first, so that two of us rarely try the same.
    pub fn first_queue(&self) -> u16 {
        const LOW: u16 = 0x4000;
        LOW | (fold(&self.table) as u16 & (LOW - 1))
    }

    /// Asks the kernel in the namespace whether it would do this; nothing is made.
    ///
    /// # Errors
    /// What the kernel would not do.
    pub fn check(&self) -> io::Result<()> {
        if let Harm::Shape { shape } = &self.harm {
            shape.try_out()?;
        }
        let means = Means {
            queue: self.first_queue(),
            ..Means::default()
        };
        netlink::within(self.namespace.as_ref(), || {
            let socket = Socket::open(netlink::Family::Netfilter)?;
            self.say(Duration::from_secs(1), means, |messages| {
                socket.check(messages)
            })
        })?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the namespace is gone"))
    }

    /// Which of its tables and devices are there.
    ///
    /// # Errors
    /// That can't be looked at.
    pub fn residue(&self) -> io::Result<Vec<String>> {
        let look = || {
            let socket = Socket::open(netlink::Family::Netfilter)?;
            let mut there = Vec::new();
            for layer in Layer::ALL {
                let table = Table {
                    layer,
                    name: &self.table,
                };
                if table.is_there(&socket)? {
                    there.push(format!("table {layer} {}", self.table));
                }
            }
            let devices = self.shapers_there()?.into_iter();
            there.extend(devices.map(|(name, _)| format!("device {name}")));
            Ok(there)
        };
        // What was in a namespace that is gone is gone with it.
        Ok(netlink::within(self.namespace.as_ref(), look)?.unwrap_or_default())
    }

    /// What the kernel counted since the tables were made.
    ///
    /// # Errors
    /// That can't be looked at.
    pub fn counted(&self) -> io::Result<Counted> {
        let look = || {
            let socket = Socket::open(netlink::Family::Netfilter)?;
            let mut counted = Counted::default();
            for layer in Layer::ALL {
                let table = Table {
                    layer,
                    name: &self.table,
                };
                for Count {
                    comment,
                    packets,
                    bytes,
                } in table.counters(&socket)?
                {
                    match comment.as_str() {
                        CHOSEN => counted.chosen += packets,
                        HARMED => {
                            counted.harmed += packets;
                            counted.harmed_bytes += bytes;
                        }
                        _ => {}
                    }
                }
            }
            for (_, index) in self.shapers_there()? {
                counted.dropped += netlink::dropped(index)?;
            }
            Ok(counted)
        };
        Ok(netlink::within(self.namespace.as_ref(), look)?.unwrap_or_default())
    }

    /// Where, for people.
    pub fn place(&self) -> String {
        match &self.namespace {
            None => String::new(),
            Some(namespace) => format!(" in network namespace {}", namespace.path.display()),
        }
    }

    /// What it holds alone: the same flows of the same namespace, however they are harmed.
    pub fn holds(&self) -> String {
        let inode = self.namespace.as_ref().map_or_else(
            || Namespace::own().map_or(0, |own| own.inode),
            |namespace| namespace.inode,
        );
        // The end tells the whole from its beginning: one port is not a part of another.
        format!("flows:{inode}:{};", self.flows)
    }
}

impl fmt::Display for Flows {
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
        let ends = |ends: &[End]| {
            let texts: Vec<String> = ends.iter().map(End::to_string).collect();
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
        if !self.except.is_empty() {
            write!(f, ", except {}", ends(&self.except))?;
        }
        Ok(())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let mut texts: Vec<String> = self.networks.iter().map(Network::to_string).collect();
        let whole = texts.join(" ");
        if texts.len() > SHOWN {
            texts.truncate(SHOWN);
            // The number of those left out would not tell one list from another.
            texts.push(format!(
                "… ({} in all, {:08x})",
                self.networks.len(),
                fold(&whole)
            ));
        }
        match &self.port {
            None => write!(f, "{}", texts.join(" ")),
            Some(port) => write!(f, "{} port {port}", texts.join(" ")),
        }
    }
}

/// A longer sum of a text (FNV-1a), where no two may be taken for each other.
fn long_fold(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A short sum of a text (FNV-1a), to tell one from another.
fn fold(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
