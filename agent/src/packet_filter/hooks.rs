//! The chains of a filter that packets come to, and where they sit on a packet's way.

use super::PacketFilter;
use crate::netlink::{Hook, TableFamily};

/// The chain that does what is to be done.
pub(super) const EFFECT: &str = "harm";
/// The chain for what leaves, where that is done in another way than for what arrives.
pub(super) const EFFECT_LEAVING: &str = "harm-leaving";
/// Before connections are tracked (-200), so that what is lost is not tracked; after fragments are put together (-400).
pub(super) const EARLY: i32 = -350;
/// Where connections are known (-200), and before addresses are translated (-100).
pub(super) const TRACKED: i32 = -190;
/// Just before where a host's own rules usually are.
pub(super) const BEFORE_FILTERS: i32 = -10;
/// As whoever asked sees answers: after addresses are translated (100), and only those that are for this namespace.
pub(super) const AFTER_NAT: i32 = 110;
/// After all that may still change or refuse a packet (`NF_IP_PRI_LAST` is the highest number, and conntrack's own).
pub(super) const AFTER_FILTERS: i32 = 1000;
/// After all that others do at a device, as what is forwarded comes back behind it.
pub(super) const LAST: i32 = i32::MAX;

/// The chain that marks packets.
pub(super) const MARKING: &str = "marking";
/// How many devices one chain takes (`NFT_NETDEVICE_MAX` is 256).
const MAX_CHAIN_DEVICES: usize = 200;

/// A chain that packets come to.
#[derive(Debug)]
pub(super) struct HookedChain {
    /// The name of the chain.
    pub name: String,
    /// The place in the way of packets.
    pub hook: Hook,
    /// Lower ones come first.
    pub priority: i32,
    /// The chain that the chosen packets are sent to,
    pub harm: &'static str,
    /// and the one that answers to them are sent to.
    pub harm_of_answers: &'static str,
    /// By what they are chosen.
    pub by: MatchBy,
}

/// By what packets are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchBy {
    /// By what they are.
    Packet,
    /// By what they are, and by what their connection was before addresses were translated.
    Both,
    /// By what their connection was before addresses were translated. They are only marked, for a chain at a device.
    Original,
}

impl HookedChain {
    pub(super) fn new(name: impl Into<String>, hook: Hook, priority: i32) -> Self {
        HookedChain {
            name: name.into(),
            hook,
            priority,
            harm: EFFECT,
            harm_of_answers: EFFECT,
            by: MatchBy::Packet,
        }
    }

    /// The same, where connections are known and addresses are translated.
    fn where_translated(self, filter: &PacketFilter) -> Self {
        let by = if filter.translated {
            MatchBy::Both
        } else {
            self.by
        };
        HookedChain { by, ..self }
    }
}

/// Chains that packets come to.
#[derive(Debug, Default)]
pub(super) struct HookedChains {
    /// In the IP layers.
    pub inet: Vec<HookedChain>,
    /// The chains at devices, where packets leave or arrive.
    pub netdev: Vec<HookedChain>,
}

/// The chains of a filter that packets come to, in the IP layers and at devices; only of tables that have some.
pub(super) fn hooked_chains(filter: &PacketFilter) -> Vec<(TableFamily, Vec<HookedChain>)> {
    let HookedChains { inet, netdev } = filter.effect.action().chains(filter);
    let mut inet: Vec<HookedChain> = match filter.effect.only_answers() {
        // They come where addresses are those that the asker knows.
        true => inet,
        false => {
            let chains = inet.into_iter();
            chains.map(|chain| chain.where_translated(filter)).collect()
        }
    };
    if filter.nat_marks().is_some() {
        inet.push(HookedChain {
            harm: MARKING,
            harm_of_answers: MARKING,
            by: MatchBy::Original,
            ..HookedChain::new("translated", Hook::Postrouting, AFTER_FILTERS)
        });
    }
    let mut chains = vec![(TableFamily::Inet, inet), (TableFamily::Netdev, netdev)];
    chains.retain(|(_, chains)| !chains.is_empty());
    chains
}

/// As many chains as so many devices want.
pub(super) fn at_devices(
    name: &str,
    devices: &[String],
    hook: fn(Vec<String>) -> Hook,
    priority: i32,
) -> Vec<HookedChain> {
    let chunks = devices.chunks(MAX_CHAIN_DEVICES).enumerate();
    chunks
        .map(|(number, devices)| {
            let name = format!("{name}-{number}");
            HookedChain::new(name, hook(devices.to_vec()), priority)
        })
        .collect()
}
