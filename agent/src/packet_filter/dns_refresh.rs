//! Names whose addresses change while a fault acts: what they come to later is chosen as well. Nothing that was
//! chosen is let go.

use super::{ADDED, Endpoint, FlowMatch, IpNetwork, PacketFilter, PortRange, rules};
use crate::dns::Resolver;
use crate::netlink::{Expression, Socket, Table, TableFamily};
use crate::processes::ProcessTable;
use serde::{Deserialize, Serialize};
use std::io;

/// The most addresses of a fault that others are added to: names of large services come to others each time.
const MAX_ADDRESSES: usize = 256;
/// Sets that are added have numbers of their own.
const SETS_EACH_TIME: u32 = 1000;

/// A host's name at one end of flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RefreshedName {
    /// The name that is looked up again.
    pub name: String,
    /// The ports at the addresses of this name; all if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRange>,
    /// Whether flows come from there; else they go there.
    #[serde(default)]
    pub from: bool,
}

/// Ends that were not known before.
#[derive(Debug, Default)]
pub struct NewEndpoints {
    to: Vec<Endpoint>,
    from: Vec<Endpoint>,
}

impl NewEndpoints {
    /// How many addresses were added.
    pub fn count(&self) -> usize {
        let ends = self.to.iter().chain(&self.from);
        ends.map(|end| end.networks.len()).sum()
    }
}

impl PacketFilter {
    /// Looks the names up as they were found before. Those of this host are asked for where the thread is, which may take as long as the
    /// resolver does. What has no address now is passed over.
    pub fn look_up(&self) -> NewEndpoints {
        let mut new = NewEndpoints::default();
        let table = ProcessTable::default();
        let resolver = Resolver::new(self.namespace.as_ref(), self.viewpoint.as_ref(), &table);
        for RefreshedName { name, port, from } in &self.names {
            let Ok(addresses) = resolver.addresses(name) else {
                continue;
            };
            let (known, new) = match from {
                true => (&self.flows.from, &mut new.from),
                false => (&self.flows.to, &mut new.to),
            };
            let mut networks: Vec<IpNetwork> = addresses
                .into_iter()
                .map(IpNetwork::from)
                .filter(|network| {
                    let mut at_port = known.iter().chain(&*new).filter(|end| end.port == *port);
                    !at_port.any(|end| end.networks.contains(network))
                })
                .collect();
            networks.sort();
            networks.dedup();
            if !networks.is_empty() {
                new.push(Endpoint {
                    networks,
                    port: *port,
                });
            }
        }
        new
    }

    /// Chooses the flows of these ends as well, by the socket that owns the tables, and leaves their number there. `time`
    /// counts these calls from 1.
    ///
    /// # Errors
    /// What the kernel said, or there are too many; nothing was added then.
    pub fn add(&mut self, new: NewEndpoints, owner: &Socket, time: u32) -> io::Result<()> {
        let known = |ends: &[Endpoint]| ends.iter().map(|end| end.networks.len()).sum::<usize>();
        let number = new.count();
        if known(&self.flows.to) + known(&self.flows.from) + number > MAX_ADDRESSES {
            return Err(io::Error::other("too many addresses"));
        }
        let both = |old: &[Endpoint], new: &[Endpoint]| [old, new].concat();
        let mut more = Vec::new();
        if !new.from.is_empty() {
            more.push(FlowMatch {
                from: new.from.clone(),
                ..self.flows.clone()
            });
        }
        let from = both(&self.flows.from, &new.from);
        if !new.to.is_empty() {
            more.push(FlowMatch {
                to: new.to.clone(),
                from: from.clone(),
                ..self.flows.clone()
            });
        }
        let mut messages = rules::more(self, &more, time * SETS_EACH_TIME);
        // In the first of its tables.
        for layer in TableFamily::ALL {
            let table = Table {
                layer,
                name: &self.table,
            };
            if table.is_there(owner)? {
                messages.push(table.chain(ADDED));
                let count = Expression::CounterFrom(number as u64);
                messages.push(table.rule(ADDED, &[count], ADDED));
                break;
            }
        }
        owner.transact(&messages)?;
        self.flows.from = from;
        self.flows.to = both(&self.flows.to, &new.to);
        Ok(())
    }
}
