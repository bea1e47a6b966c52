//! The filter's own devices that packets are forwarded to and that shape them. The interfaces that the
//! packets go through keep their own disciplines. The kernel does not remove such a device with its maker, but
//! nothing goes to it any more then; it is removed by what is written to it as its alias, whatever it is called.

use super::PacketFilter;
use crate::netlink::{self, Interface};
use std::io;

/// The numbers of the devices for packets that leave and for those that arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shapers {
    /// For those that leave.
    pub leaving: u32,
    /// For those that arrive.
    pub arriving: u32,
}

impl PacketFilter {
    /// Its devices: for what leaves, and for what arrives. None where it needs none.
    fn shapers(&self) -> [Option<Shaper>; 2] {
        if self.effect.shaping().is_none() {
            return [None, None];
        }
        // A device's name has 15 characters, too few for the table's.
        let sum = super::display::long_hash(&self.table) & 0xffff_ffff_ffff;
        let shaper = |letter: char, what: &str| Shaper {
            name: format!("bb{sum:012x}{letter}"),
            alias: format!("{} {what}", self.table),
        };
        let direction = self.flows.direction;
        [
            direction.leaves().then(|| shaper('e', "leaving")),
            direction.arrives().then(|| shaper('i', "arriving")),
        ]
    }

    /// How long a packet may be that goes by the devices at which packets are looked at, in bytes, with the header of their layer.
    /// 0 where there is no such device.
    ///
    /// # Errors
    /// They can't be listed.
    pub fn longest_packet(&self) -> io::Result<u64> {
        /// An Ethernet header with two VLAN tags.
        const HEADER: u64 = 22;
        let interfaces =
            netlink::within(self.namespace.as_ref(), netlink::interfaces)?.unwrap_or_default();
        let meant = interfaces.iter().filter(|link| {
            let mut names = self.devices.iter().chain(&self.inlets);
            names.any(|name| *name == link.name)
        });
        Ok(meant
            .map(|link| u64::from(link.mtu) + HEADER)
            .max()
            .unwrap_or_default())
    }

    /// Makes its devices, in the namespace of the thread.
    ///
    /// # Errors
    /// What the kernel said; a part may be there.
    pub fn make_shapers(&self) -> io::Result<Shapers> {
        let Some(shape) = self.effect.shaping() else {
            return Ok(Shapers::default());
        };
        let discipline = shape.discipline();
        let [leaving, arriving] = self.shapers().map(|shaper| match shaper {
            Some(Shaper { name, alias }) => netlink::make_shaper(&name, &alias, &discipline),
            None => Ok(0),
        });
        Ok(Shapers {
            leaving: leaving?,
            arriving: arriving?,
        })
    }

    /// Which of its devices are there, in the namespace of the thread, whatever they are called by now.
    pub(super) fn existing_shapers(&self) -> io::Result<Vec<Interface>> {
        let mut there = Vec::new();
        for shaper in self.shapers().into_iter().flatten() {
            there.extend(shaper.find()?);
        }
        Ok(there)
    }

    /// What others have done to its devices, in the namespace of the thread, so that they do not do any more what they are for.
    pub(super) fn shaper_drift(&self) -> io::Result<Vec<String>> {
        let Some(shape) = self.effect.shaping() else {
            return Ok(Vec::new());
        };
        let wanted = shape.discipline();
        let mut drift = Vec::new();
        for shaper in self.shapers().into_iter().flatten() {
            let name = &shaper.name;
            let Some(link) = shaper.find()? else {
                drift.push(format!("device {name} is gone"));
                continue;
            };
            if !link.up {
                drift.push(format!("device {} was taken down", link.name));
            }
            match netlink::root(link.index)? {
                Some(root) if root.is(&wanted) => {}
                _ => drift.push(format!(
                    "the queueing discipline of device {} was changed",
                    link.name
                )),
            }
        }
        Ok(drift)
    }

    /// Removes its devices. What they still held is lost, as on a wire.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove_shapers(&self) -> io::Result<()> {
        if self.effect.shaping().is_none() {
            return Ok(());
        }
        let remove = || {
            self.existing_shapers()?
                .iter()
                .try_for_each(netlink::remove_shaper)
        };
        // What was in a namespace that is gone is gone with it.
        netlink::within(self.namespace.as_ref(), remove).map(|_| ())
    }
}

/// A device that shapes, as it is made.
struct Shaper {
    /// Its name, which somebody may change.
    name: String,
    /// What is written to it, so that it is known by any name.
    alias: String,
}

impl Shaper {
    fn find(&self) -> io::Result<Option<Interface>> {
        netlink::shaper(&self.name, &self.alias)
    }
}
