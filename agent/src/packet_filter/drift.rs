//! What others have changed of a filter's tables while it acts. Nobody else may change a table that has an owner; but the kernel
//! itself takes a chain from a device that goes, and does not find one that is renamed.

use super::expressions::places;
use super::nat::MARKING;
use super::rules::{HARM, LEASE};
use super::{CHOSEN, PacketFilter};
use crate::netlink::{self, Family, Hook, Layer, Socket, Table};
use std::io;

impl PacketFilter {
    /// What is missing of its tables in the namespace of the thread.
    pub(super) fn disturbed_chains(&self) -> io::Result<Vec<String>> {
        let socket = Socket::open(Family::Netfilter)?;
        let links = netlink::links()?;
        let mut disturbed = Vec::new();
        for (layer, places) in places(self) {
            let table = Table {
                layer,
                name: &self.table,
            };
            if !table.is_there(&socket)? {
                disturbed.push(format!("table {layer} {} is gone", self.table));
                continue;
            }
            let chains = table.chains(&socket)?;
            let counters = table.counters(&socket)?;
            // A table that only marks packets does no harm itself.
            let harms = places.iter().any(|place| place.harm != MARKING);
            let is_whole = chains.iter().any(|chain| chain.name.starts_with(HARM))
                && counters.iter().any(|count| count.comment == CHOSEN);
            if !table.has_set(&socket, LEASE)? || (harms && !is_whole) {
                disturbed.push(format!("table {layer} {} was emptied", self.table));
                continue;
            }
            // One of many devices may go: what is bound to it goes with it, and others are still looked at.
            let mut hooked = layer == Layer::Inet;
            let mut lost = Vec::new();
            for place in &places {
                let found = chains.iter().find(|chain| chain.name == place.name);
                let (Hook::Ingress(devices) | Hook::Egress(devices)) = &place.hook else {
                    if found.is_none_or(|chain| !chain.hooked) {
                        disturbed.push(format!(
                            "chain {} of table {layer} {} is not at its hook",
                            place.name, self.table
                        ));
                    }
                    continue;
                };
                for device in devices {
                    let is_there = links.iter().any(|link| link.name == *device);
                    let looked_at = found.is_some_and(|chain| chain.devices.contains(device));
                    match (is_there, looked_at) {
                        (true, true) => hooked = true,
                        (true, false) => lost.push(format!(
                            "interface {device} was made anew, and is not looked at"
                        )),
                        (false, _) => lost.push(format!("interface {device} is gone or renamed")),
                    }
                }
            }
            if !hooked || self.flows.interface.is_some() {
                lost.sort();
                lost.dedup();
                disturbed.extend(lost);
            }
        }
        Ok(disturbed)
    }
}
