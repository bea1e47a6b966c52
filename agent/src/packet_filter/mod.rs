//! What is done to which packets, as data: on a helper's command line, in the plan and in the
//! ledger. `rules` writes it as nf_tables messages, `effects` holds what is done to packets, `device` the devices that shape.

mod control_link;
mod delay;
mod device;
mod display;
mod distribution;
mod dns_refresh;
mod drift;
mod effects;
mod established;
mod expressions;
mod hooks;
mod nat;
mod packet_marks;
mod rules;
mod ruleset;
mod shaping;

pub use crate::units::{IpNetwork, Port, PortRange};
pub use control_link::ControlConnection;
pub use delay::{Delay, Distribution, Overtake};
pub use device::Shapers;
pub use distribution::Delays;
pub use dns_refresh::{NewEndpoints, RefreshedName};
pub use effects::{
    BurstLoss, Corrupt, DelayInQueue, Duplicate, Lose, LoseInBursts, PacketEffect, QueueWork,
    ReadAnswers, Reject, RejectWith, Shape, Share,
};
pub use nat::marks_held;
pub use shaping::Shaping;

use crate::dns::Viewpoint;
use crate::netlink::{self, Message, Namespace, RuleCounter, Socket, Table, TableFamily};
use crate::processes::Cgroup;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;

/// What the comments of counting rules say: every packet of the chosen flows, and those that harm came to.
const CHOSEN: &str = "chosen";
const AFFECTED: &str = "harmed";
/// What the comment and the chain of the rule say that only keeps how many connections were closed.
const CLOSED: &str = "closed";
/// The same for how many addresses were added.
const ADDED: &str = "added";

/// What is done to which packets, in which namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PacketFilter {
    /// The name of the tables that are made, known before.
    pub table: String,
    /// The network namespace; the agent's own if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// The packets that the filter acts on.
    pub flows: FlowMatch,
    /// What is done to them.
    #[serde(rename = "harm")]
    pub effect: PacketEffect,
    /// The devices at which leaving packets are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// The devices at which arriving packets are looked at, where that is not done in the IP layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inlets: Vec<String>,
    /// Whether addresses are translated there, so that packets are chosen by what they were before as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub translated: bool,
    /// Which bits of packets' marks it may use for that, where it does so at devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<usize>,
    /// Whose files tell how names are found, where that is not this host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub viewpoint: Option<Viewpoint>,
    /// The names among the ends, where they are looked up again while it acts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<RefreshedName>,
}

/// Which packets: those of flows from here to there, and their answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FlowMatch {
    /// Where they go, e.g. a service. Anywhere where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Endpoint>,
    /// Where they come from, e.g. clients. Anywhere where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Endpoint>,
    /// The ports that they go to. Any where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// The protocol of the packets.
    pub protocol: Protocol,
    /// Which of their packets.
    pub direction: Direction,
    /// Only over this interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether the loopback is meant too.
    #[serde(default)]
    pub loopback: bool,
    /// Only those of sockets made in these control groups, or below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<Cgroup>,
    /// Not those that have one of these ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Endpoint>,
    /// Ports that are never touched, at either end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare_ports: Vec<PortRange>,
    /// The connection that is never touched: the agent's link to its controller, where that is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_link: Option<ControlConnection>,
}

/// One end of flows: addresses, and maybe the port there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// The addresses of the end, sorted.
    pub networks: Vec<IpNetwork>,
    /// The ports at the end; all if none is given.
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
pub struct Capabilities {
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
pub struct PacketCounts {
    /// Packets of the chosen flows.
    pub chosen: u64,
    /// Those that harm came to.
    pub affected: u64,
    /// The bytes of those.
    pub affected_bytes: u64,
    /// Those that its devices dropped, for want of room or by chance.
    pub dropped: u64,
    /// Packets that its devices have been given: sent, dropped, or waiting. The pieces of a batch count each.
    pub taken: u64,
    /// Connections that were closed.
    pub closed: u64,
    /// Addresses that names came to later.
    pub added: u64,
}

impl PacketFilter {
    /// The messages that make its tables, all or nothing. `deadline` is when the kernel ends it by itself, `queue` the packet queue's
    /// number, where packets go to one: by a step of its own where the kernel has it, else by a target.
    pub fn messages(
        &self,
        socket: &Socket,
        deadline: Duration,
        queue: u16,
        shapers: Shapers,
    ) -> Vec<Message> {
        rules::messages(self, deadline, self.means(socket, queue, shapers), true)
    }

    fn means(&self, socket: &Socket, queue: u16, shapers: Shapers) -> Capabilities {
        let (layer, name) = (TableFamily::Inet, self.table.as_str());
        let table = Table { layer, name };
        let step = netlink::Expression::Queue {
            number: queue,
            by_target: false,
        };
        // No packet ever comes to a chain without a hook.
        let trial = [
            table.make(),
            table.chain("trial"),
            table.rule("trial", &[step], ""),
        ];
        let queues = self.effect.action().uses_queue() || self.drops_in_queue();
        Capabilities {
            queue,
            by_target: queues && socket.check(&trial).is_err(),
            shapers,
        }
    }

    /// Where its chains sit on a packet's way, those that it arrives by and those that it leaves by: `(arrives, (stage, priority))`.
    /// The stages are 0 into a device, 1 before routing, 2 to here or through, 3 from here, 4 after routing, 5 out of a device.
    pub fn stages(&self) -> Vec<(bool, (u8, i32))> {
        let (arrives, leaves) = (
            self.flows.direction.arrives(),
            self.flows.direction.leaves(),
        );
        let (into, out) = self.effect.action().stages(self);
        let arriving = arrives.then_some((true, into));
        arriving
            .into_iter()
            .chain(leaves.then_some((false, out)))
            .collect()
    }

    /// Whether live connections are closed first, for good.
    pub fn closes_established(&self) -> bool {
        self.effect.action().closes_established()
    }

    /// Whether packets are lost by a packet queue that takes none: they are told by their socket, which is known in the IP layers
    /// only, and a plain drop there would tell a UDP sender.
    pub fn drops_in_queue(&self) -> bool {
        self.effect.action().loses() && !self.flows.cgroups.is_empty()
    }

    /// The number of the packet queue that is tried first, so that two helpers rarely try the same.
    pub fn first_queue(&self) -> u16 {
        const LOW: u16 = 0x4000;
        LOW | (display::short_hash(&self.table) as u16 & (LOW - 1))
    }

    /// Asks the kernel in the namespace whether it would do this; nothing is made.
    ///
    /// # Errors
    /// What the kernel would not do.
    pub fn check(&self) -> io::Result<()> {
        if let Some(shape) = self.effect.shaping() {
            shape.try_on_kernel()?;
        }
        netlink::within(self.namespace.as_ref(), || {
            let socket = Socket::open(netlink::Family::Netfilter)?;
            let means = self.means(&socket, self.first_queue(), Shapers::default());
            // Whatever is in a queue is lost when a hook goes, even one that was only tried.
            let hooked = !netlink::any_queue_in_use();
            socket.check(&rules::messages(
                self,
                Duration::from_secs(1),
                means,
                hooked,
            ))
        })?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the namespace is gone"))
    }

    /// Which of its tables and devices are there.
    ///
    /// # Errors
    /// That can't be looked at.
    pub fn leftovers(&self) -> io::Result<Vec<String>> {
        let look = || {
            let socket = Socket::open(netlink::Family::Netfilter)?;
            let mut there = Vec::new();
            for layer in TableFamily::ALL {
                let table = Table {
                    layer,
                    name: &self.table,
                };
                if table.is_there(&socket)? {
                    there.push(format!("table {layer} {}", self.table));
                }
            }
            let devices = self.existing_shapers()?.into_iter();
            there.extend(devices.map(|device| format!("device {}", device.name)));
            Ok(there)
        };
        // What was in a namespace that is gone is gone with it.
        Ok(netlink::within(self.namespace.as_ref(), look)?.unwrap_or_default())
    }

    /// Deletes its tables by the socket that owns them: traffic is whole in microseconds, where closing that socket takes the
    /// kernel milliseconds. `accept_up_to` is done when no packet comes to a harm any more and before the tables go, which would
    /// lose those that are held.
    ///
    /// # Errors
    /// What the kernel said; closing the socket still takes them back.
    pub fn delete_tables(
        &self,
        owner: &Socket,
        accept_up_to: Option<impl FnOnce() -> io::Result<()>>,
    ) -> io::Result<()> {
        let mut tables = Vec::new();
        for layer in TableFamily::ALL {
            let table = Table {
                layer,
                name: &self.table,
            };
            if table.is_there(owner)? {
                tables.push(table);
            }
        }
        if let Some(accept_up_to) = accept_up_to {
            let over: Vec<Message> = tables
                .iter()
                .map(|table| table.empty(rules::LEASE))
                .collect();
            owner.transact(&over)?;
            accept_up_to()?;
        }
        let gone: Vec<Message> = tables.iter().map(Table::delete).collect();
        owner.transact(&gone)
    }

    /// What the kernel counted since the tables were made.
    ///
    /// # Errors
    /// That can't be looked at.
    pub fn counted(&self) -> io::Result<PacketCounts> {
        let look = || {
            let socket = Socket::open(netlink::Family::Netfilter)?;
            let mut counted = PacketCounts::default();
            for layer in TableFamily::ALL {
                let table = Table {
                    layer,
                    name: &self.table,
                };
                for RuleCounter {
                    comment,
                    packets,
                    bytes,
                } in table.counters(&socket)?
                {
                    match comment.as_str() {
                        CHOSEN => counted.chosen += packets,
                        CLOSED => counted.closed += packets,
                        ADDED => counted.added += packets,
                        AFFECTED => {
                            counted.affected += packets;
                            counted.affected_bytes += bytes;
                        }
                        _ => {}
                    }
                }
            }
            for device in self.existing_shapers()? {
                if let Some(root) = netlink::root(device.index)? {
                    counted.dropped += root.dropped;
                    counted.taken += root.sent + root.dropped + root.waiting;
                }
            }
            Ok(counted)
        };
        Ok(netlink::within(self.namespace.as_ref(), look)?.unwrap_or_default())
    }

    /// What others have changed of it since it was made, so that it no longer does what it is for; in words for people. To be asked
    /// while its tables' owner is alive.
    ///
    /// # Errors
    /// That can't be looked at.
    pub fn find_drift(&self) -> io::Result<Vec<String>> {
        let look = || {
            let mut drift = self.chain_drift()?;
            drift.extend(self.shaper_drift()?);
            Ok(drift)
        };
        let gone = || vec!["the network namespace is gone".to_owned()];
        Ok(netlink::within(self.namespace.as_ref(), look)?.unwrap_or_else(gone))
    }

    /// The namespace in which the filter acts, as the end of a sentence; empty for the agent's own.
    pub fn place(&self) -> String {
        match &self.namespace {
            None => String::new(),
            Some(namespace) => format!(" in network namespace {}", namespace.path.display()),
        }
    }

    /// The number of the namespace's inode.
    pub fn inode(&self) -> u64 {
        self.namespace.as_ref().map_or_else(
            || Namespace::own().map_or(0, |own| own.inode),
            |namespace| namespace.inode,
        )
    }

    /// What it holds alone: the same flows of the same namespace, however they are harmed.
    pub fn held_flows(&self) -> String {
        let inode = self.inode();
        // The end tells the whole from its beginning: one port is not a part of another.
        format!("flows:{inode}:{};", self.flows)
    }
}
