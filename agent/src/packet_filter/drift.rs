//! What others have changed of a filter's tables while it acts. Nobody else may change a table that has an owner; but the kernel
//! itself takes a chain from a device that goes, and does not find one that is renamed.

use super::hooks::{EFFECT, MARKING, hooked_chains};
use super::rules::LEASE;
use super::{CHOSEN, PacketFilter};
use crate::netlink::{self, Family, Hook, Socket, Table, TableFamily};
use std::io;

impl PacketFilter {
    /// What is missing of its tables in the namespace of the thread.
    pub(super) fn chain_drift(&self) -> io::Result<Vec<String>> {
        let socket = Socket::open(Family::Netfilter)?;
        let interfaces = netlink::interfaces()?;
        let mut drift = Vec::new();
        for (layer, hooked_chains) in hooked_chains(self) {
            let table = Table {
                layer,
                name: &self.table,
            };
            if !table.is_there(&socket)? {
                drift.push(format!("table {layer} {} is gone", self.table));
                continue;
            }
            let chains = table.chains(&socket)?;
            let counters = table.counters(&socket)?;
            // A table that only marks packets does no harm itself.
            let harms = hooked_chains.iter().any(|place| place.harm != MARKING);
            let is_whole = chains.iter().any(|chain| chain.name.starts_with(EFFECT))
                && counters.iter().any(|count| count.comment == CHOSEN);
            if !table.has_set(&socket, LEASE)? || (harms && !is_whole) {
                drift.push(format!("table {layer} {} was emptied", self.table));
                continue;
            }
            // One of many devices may go: what is bound to it goes with it, and others are still looked at.
            let mut hooked = layer == TableFamily::Inet;
            let mut lost = Vec::new();
            for place in &hooked_chains {
                let found = chains.iter().find(|chain| chain.name == place.name);
                let (Hook::Ingress(devices) | Hook::Egress(devices)) = &place.hook else {
                    if found.is_none_or(|chain| !chain.hooked) {
                        drift.push(format!(
                            "chain {} of table {layer} {} is not at its hook",
                            place.name, self.table
                        ));
                    }
                    continue;
                };
                for device in devices {
                    let is_there = interfaces.iter().any(|link| link.name == *device);
                    let looked_at = found.is_some_and(|chain| chain.devices.contains(device));
                    match (is_there, looked_at) {
                        (true, true) => hooked = true,
                        (true, false) => lost.push(format!(
                            "interface {device} was recreated, and is not observed"
                        )),
                        (false, _) => lost.push(format!("interface {device} is gone or renamed")),
                    }
                }
            }
            if !hooked || self.flows.interface.is_some() {
                lost.sort();
                lost.dedup();
                drift.extend(lost);
            }
        }
        Ok(drift)
    }
}
