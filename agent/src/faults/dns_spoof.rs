//! `dns-spoof`: some names have other addresses, as after a wrong change of a zone, or a takeover.

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

/// Puts other addresses into the answers of name servers for some names as they arrive over UDP. Where only addresses of one family are given,
/// the answers about the other have none. `HTTPS` and `SVCB` answers, which would tell the true addresses, have nothing in them; answers
/// about other types of records go on as they came. What is made up may be kept for 1 s; whoever proves answers by DNSSEC takes it for broken.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub struct DnsSpoof {
    #[serde(flatten)]
    answers: DnsSelector,
    /// The addresses: one of IPv4 or IPv6, or a list of up to 16.
    addresses: OneOrMany<String>,
}

/// What fits into the smallest answer, about.
const MAX_ADDRESSES: usize = 16;

impl DnsSpoof {
    fn addresses(&self) -> Vec<(String, Result<IpAddr, String>)> {
        let addresses = Some(self.addresses.clone());
        let read = |text: &String| {
            let wrong = |_| format!("`{text}` is not an address");
            // What is written as IPv6 but is of IPv4 would be found by nobody.
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
    const SUMMARY: &'static str = "Name servers answer with other addresses for chosen names";

    fn example() -> Value {
        json!({"names": "db.example.org", "addresses": ["192.0.2.66", "2001:db8::66"]})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.answers.problems();
        let addresses = self.addresses();
        if !(1..=MAX_ADDRESSES).contains(&addresses.len()) {
            let what = format!("{} addresses", addresses.len());
            problems.push(Problem::new("$.addresses", what).hint(format!("1 to {MAX_ADDRESSES}")));
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
