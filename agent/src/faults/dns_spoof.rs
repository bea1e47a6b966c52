//! `dns-spoof`: name servers answer with other addresses for selected names, as after a wrong change of a zone or a takeover.

use super::{FaultKind, Plan, PlanContext};
use crate::dns::Alteration;
use crate::network::DnsSelector;
use crate::network::placed;
use crate::processes::OneOrMany;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use core::net::IpAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Replaces the addresses in the answers of name servers for selected names as they arrive over UDP. Where addresses of only one family are given,
/// answers about the other family are empty. `HTTPS` and `SVCB` answers, which would reveal the true addresses, are emptied; answers
/// about other record types pass unchanged. False answers may be cached for 1 s. A client that validates DNSSEC rejects them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct DnsSpoof {
    #[serde(flatten)]
    answers: DnsSelector,
    /// The addresses to answer with: one IPv4 or IPv6 address, or a list of up to 16.
    addresses: OneOrMany<String>,
}

/// Most addresses; about as many as fit into the smallest answer.
const MAX_ADDRESSES: usize = 16;

impl DnsSpoof {
    fn addresses(&self) -> Vec<(String, Result<IpAddr, String>)> {
        let addresses = Some(self.addresses.clone());
        let read = |text: &String| {
            let wrong = |_| format!("`{text}` is not an address");
            // An IPv4 address that is written as one of IPv6 would be of no use to a client.
            text.parse::<IpAddr>()
                .map(|address| address.to_canonical())
                .map_err(wrong)
        };
        let placed = placed("addresses", &addresses);
        placed
            .into_iter()
            .map(|(at, text)| (at, read(text)))
            .collect()
    }
}

impl FaultKind for DnsSpoof {
    const NAME: &'static str = "dns-spoof";
    const SUMMARY: &'static str =
        "Make name servers answer with other addresses for selected names";

    fn example() -> Value {
        json!({"names": "db.example.org", "addresses": ["192.0.2.66", "2001:db8::66"]})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.answers.problems();
        let addresses = self.addresses();
        if !(1..=MAX_ADDRESSES).contains(&addresses.len()) {
            let what = format!(
                "expected 1 to {MAX_ADDRESSES} addresses, got {}",
                addresses.len()
            );
            problems
                .push(Problem::new("$.addresses", what).hint("give an address or a list of them"));
        }
        for (at, address) in addresses {
            if let Err(what) = address {
                problems.push(Problem::new(at, what).hint("`192.0.2.66`, or `2001:db8::66`"));
            }
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let addresses = self.addresses().into_iter();
        let addresses = addresses.filter_map(|(_, address)| address.ok()).collect();
        self.answers.plan(Alteration::Spoof { addresses }, context)
    }
}
