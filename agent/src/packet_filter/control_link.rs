//! The rules that spare the agent's own link, exactly: whoever cuts that off has cut off its own head.

use super::expressions::{HeaderOf, IPV4, IPV6, Side, TCP, transport};
use super::ruleset::RulesetBuilder;
use super::{Endpoint, FlowMatch};
use crate::netlink::Expression;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// A TCP connection, by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ControlConnection {
    /// The address and port on this host.
    pub here: SocketAddr,
    /// The address and port of the controller.
    pub there: SocketAddr,
}

impl ControlConnection {
    /// The one that a socket has. None where it is no TCP socket, or not connected.
    pub fn of(socket: impl AsFd) -> Option<Self> {
        use rustix::net::{SocketAddrAny, getpeername, getsockname};
        let address = |any: SocketAddrAny| {
            let address = SocketAddr::try_from(any).ok()?;
            // What an IPv6 socket says of a connection over IPv4.
            Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
        };
        Some(ControlConnection {
            here: address(getsockname(&socket).ok()?)?,
            there: address(getpeername(&socket).ok()??)?,
        })
    }
}

impl std::str::FromStr for ControlConnection {
    type Err = std::net::AddrParseError;

    /// `HERE,THERE`, as a connector hands it on.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (here, there) = text.split_once(',').unwrap_or((text, ""));
        Ok(ControlConnection {
            here: here.parse()?,
            there: there.parse()?,
        })
    }
}

impl RulesetBuilder<'_> {
    /// Lets the link's packets through, both ways.
    pub(super) fn spare_control_link(
        &mut self,
        chain: &str,
        flows: &FlowMatch,
        of: HeaderOf,
        spared: &[Expression],
    ) {
        let Some(ControlConnection { here, there }) = flows.spare_link else {
            return;
        };
        let v4 = here.is_ipv4();
        for (source, destination) in [(here, there), (there, here)] {
            let mut steps = self.ip(if v4 { IPV4 } else { IPV6 });
            steps.extend(transport(TCP));
            for (side, end) in [(Side::Source, source), (Side::Destination, destination)] {
                let networks = vec![end.ip().into()];
                let end_of = Endpoint {
                    networks,
                    port: None,
                };
                steps.extend(self.address(side, &end_of, v4, of).unwrap_or_default());
                steps.extend(self.ports(side, &[end.port().into()], of));
            }
            steps.extend_from_slice(spared);
            self.rule(chain, &steps, "the agent's link");
        }
    }
}
