//! The rules that spare the agent's own link, exactly: whoever cuts that off has cut off its own head.

use super::rules::{Draft, IPV4, IPV6, Side, TCP, accept, transport};
use super::{Connection, End, Flows};

impl Draft<'_> {
    /// Lets the link's packets through, both ways.
    pub(super) fn spare_link(&mut self, chain: &str, flows: &Flows) {
        let Some(Connection { here, there }) = flows.spare_link else {
            return;
        };
        let v4 = here.is_ipv4();
        for (source, destination) in [(here, there), (there, here)] {
            let mut steps = self.ip(if v4 { IPV4 } else { IPV6 });
            steps.extend(transport(TCP));
            for (side, end) in [(Side::Source, source), (Side::Destination, destination)] {
                let networks = vec![end.ip().into()];
                let end_of = End {
                    networks,
                    port: None,
                };
                steps.extend(self.address(side, &end_of, v4).unwrap_or_default());
                steps.extend(self.ports(side, &[end.port().into()]));
            }
            steps.push(accept());
            self.rule(chain, &steps, "the agent's link");
        }
    }
}
