//! Packets are sent through a device of the agent's, whose queueing discipline shapes them.

use super::super::Shaping;
use super::super::hooks::{EFFECT, EFFECT_LEAVING, HookedChain, HookedChains, LAST, at_devices};
use super::super::ruleset::RulesetBuilder;
use super::super::{Capabilities, PacketFilter};
use super::{ActOnPackets, Share, Stage};
use crate::netlink::{Expression, Hook};
use serde::{Deserialize, Serialize};

/// The name that the kernel gives to each namespace's loopback.
const LOOPBACK_NAME: &str = "lo";

/// Shapes packets by a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Shape {
    /// How the device shapes the packets.
    pub shape: Shaping,
}

impl ActOnPackets for Shape {
    fn describe(&self) -> String {
        match &self.shape {
            Shaping::Bandwidth { rate, .. } => {
                format!("send at {rate} bytes a second at the most")
            }
            Shaping::Delay(delay) => format!("{delay} packet of"),
            Shaping::Corrupt(percent) => format!("turn a bit of {percent} % of the packets of"),
            Shaping::Duplicate(percent) => format!("send twice {percent} % of the packets of"),
        }
    }

    fn done(&self) -> &'static str {
        "shaped"
    }

    fn leaves_at_devices(&self) -> bool {
        true
    }

    fn stages(&self, _: &PacketFilter) -> (Stage, Stage) {
        ((0, LAST), (5, LAST))
    }

    fn chains(&self, filter: &PacketFilter) -> HookedChains {
        let direction = filter.flows.direction;
        let mut netdev = Vec::new();
        if direction.leaves() {
            let out = at_devices("leaving", &filter.devices, Hook::Egress, LAST);
            netdev.extend(out.into_iter().map(|chain| HookedChain {
                harm: EFFECT_LEAVING,
                harm_of_answers: EFFECT_LEAVING,
                ..chain
            }));
        }
        if direction.arrives() {
            let (looping, others): (Vec<String>, Vec<String>) = filter
                .inlets
                .iter()
                .cloned()
                .partition(|name| *name == LOOPBACK_NAME);
            netdev.extend(at_devices("arriving", &others, Hook::Ingress, LAST));
            let looping = at_devices("looping", &looping, Hook::Ingress, LAST);
            netdev.extend(looping.into_iter().map(|chain| HookedChain {
                // Both directions arrive there. Each is to have what it is given by itself: acknowledgements that wait
                // behind the data of the other direction would slow that down.
                harm_of_answers: if direction.leaves() {
                    EFFECT_LEAVING
                } else {
                    EFFECT
                },
                ..chain
            }));
        }
        HookedChains {
            inet: Vec::new(),
            netdev,
        }
    }

    fn write_rules(
        &self,
        ruleset: &mut RulesetBuilder<'_>,
        chain: &str,
        _: &PacketFilter,
        capabilities: Capabilities,
    ) {
        let device = match chain == EFFECT {
            true => capabilities.shapers.arriving,
            false => capabilities.shapers.leaving,
        };
        ruleset.some(chain, Share::All, Expression::Forward(device));
    }

    fn shaping(&self) -> Option<&Shaping> {
        Some(&self.shape)
    }
}
