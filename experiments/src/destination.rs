//! Where probes may connect to. Link-local addresses are refused unless a policy names them: cloud machines find their own credentials
//! there, and so would whoever can write an experiment.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The networks that no probe asks by default: link-local addresses (RFC 3927, RFC 4291), and what clouds serve metadata at besides.
const RESERVED: &[(IpAddr, u8)] = &[
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    // Alibaba Cloud, Oracle Cloud.
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 32),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    // Amazon EC2, Google Cloud.
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
        128,
    ),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
        128,
    ),
];

/// What probes may connect to: the rules of a host's policy, and by default everything but link-local addresses.
#[derive(Debug, Clone, Default)]
pub struct DestinationRules {
    /// The only destinations. None: all.
    pub allow: Option<Vec<Destination>>,
    /// Destinations that are refused, whatever is allowed.
    pub deny: Vec<Destination>,
}

/// A destination in a policy: a host, a network or an address, with a port or any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    host: DestinationHost,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DestinationHost {
    Any,
    /// A name, in lower case.
    Name(String),
    /// Names that end so, in lower case, with the dot.
    Below(String),
    Network(IpAddr, u8),
}

impl DestinationRules {
    /// Rules that allow everything, for what the owner of a host has chosen.
    pub fn any() -> Self {
        let everything = |host| Destination { host, port: None };
        let reserved = RESERVED.iter();
        let reserved = reserved.map(|(ip, bits)| DestinationHost::Network(*ip, *bits));
        let hosts = std::iter::once(DestinationHost::Any).chain(reserved);
        DestinationRules {
            allow: Some(hosts.map(everything).collect()),
            deny: Vec::new(),
        }
    }

    /// Whether a probe may connect to this address, which `host` stands for in its document or in a redirect.
    ///
    /// # Errors
    /// It may not; the text names the rule.
    pub fn check(&self, host: &str, address: SocketAddr) -> Result<(), String> {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.');
        let host = host.to_ascii_lowercase();
        let shown = match host.parse::<IpAddr>() {
            Ok(_) => format!("`{host}`"),
            Err(_) => format!("`{host}` ({})", address.ip()),
        };
        if let Some(denied) = self.deny.iter().find(|rule| rule.covers(&host, address)) {
            return Err(format!(
                "{shown} may not be asked: `deny-http` of the policy has `{denied}`"
            ));
        }
        let mut allowed = self.allow.iter().flatten();
        if self.allow.is_some() && !allowed.any(|rule| rule.covers(&host, address)) {
            return Err(format!(
                "{shown} may not be asked: it is not in `allow-http` of the policy"
            ));
        }
        let mut allowed = self.allow.iter().flatten();
        let mut is_named = || allowed.any(|rule| rule.is_reserved() && rule.covers(&host, address));
        if is_reserved(address.ip()) && !is_named() {
            return Err(format!(
                "{shown} may not be asked: it is a link-local or metadata address, which `allow-http` of the policy does not name"
            ));
        }
        Ok(())
    }
}

impl DestinationRules {
    /// Those of a host's addresses that may be connected to.
    ///
    /// # Errors
    /// None of them may be; the text names the rule.
    pub fn permitted(&self, host: &str, found: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
        let mut permitted = Vec::new();
        let mut refused = None;
        for address in found {
            match self.check(host, *address) {
                Ok(()) => permitted.push(*address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if permitted.is_empty() => Err(why),
            _ => Ok(permitted),
        }
    }
}

impl Destination {
    fn covers(&self, host: &str, address: SocketAddr) -> bool {
        let is_host = match &self.host {
            DestinationHost::Any => true,
            DestinationHost::Name(name) => name == host,
            DestinationHost::Below(end) => host.ends_with(end.as_str()),
            DestinationHost::Network(network, bits) => {
                let mut all = forms(address.ip()).into_iter();
                all.any(|ip| contains(*network, *bits, ip))
            }
        };
        is_host && self.port.is_none_or(|port| port == address.port())
    }

    /// Whether it is a reserved network or a part of one.
    fn is_reserved(&self) -> bool {
        let DestinationHost::Network(network, bits) = self.host else {
            return false;
        };
        RESERVED.iter().any(|(reserved, reserved_bits)| {
            bits >= *reserved_bits && contains(*reserved, *reserved_bits, network)
        })
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a destination: write a host, `*.example.com`, an address or a network such as `10.0.0.0/8`, with `:PORT` or without"
            )
        };
        let (host, port) = match text.strip_prefix('[') {
            Some(inner) => {
                let (host, rest) = inner.split_once(']').ok_or_else(wrong)?;
                (host, rest.strip_prefix(':'))
            }
            None if text.matches(':').count() > 1 => (text, None),
            None => text
                .split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
        let port = match port {
            Some(None) => return Err(wrong()),
            Some(port) => port,
            None => None,
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "-_.".contains(c))
        };
        let (address, bits) = host
            .split_once('/')
            .map_or((host.as_str(), None), |(address, bits)| {
                (address, Some(bits))
            });
        let host = match (address.parse::<IpAddr>(), bits) {
            (Ok(ip), bits) => {
                let most = if ip.is_ipv4() { 32 } else { 128 };
                let bits = bits.map_or(Some(most), |bits| bits.parse().ok());
                let bits = bits.filter(|bits| *bits <= most).ok_or_else(wrong)?;
                DestinationHost::Network(ip, bits)
            }
            (Err(_), Some(_)) => return Err(wrong()),
            (Err(_), None) if host == "*" => DestinationHost::Any,
            (Err(_), None) => match host.strip_prefix('*') {
                Some(end) if end.starts_with('.') && is_name(end) => {
                    DestinationHost::Below(end.to_owned())
                }
                None if is_name(&host) => DestinationHost::Name(host),
                _ => return Err(wrong()),
            },
        };
        Ok(Destination { host, port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_v6 = matches!(self.host, DestinationHost::Network(IpAddr::V6(_), _));
        let host = match &self.host {
            DestinationHost::Any => "*".to_owned(),
            DestinationHost::Name(name) => name.clone(),
            DestinationHost::Below(end) => format!("*{end}"),
            DestinationHost::Network(ip, 32) if ip.is_ipv4() => ip.to_string(),
            DestinationHost::Network(ip, 128) => ip.to_string(),
            DestinationHost::Network(ip, bits) => format!("{ip}/{bits}"),
        };
        match self.port {
            Some(port) if is_v6 => write!(f, "[{host}]:{port}"),
            Some(port) => write!(f, "{host}:{port}"),
            None => f.write_str(&host),
        }
    }
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.to_string()
    }
}

impl JsonSchema for Destination {
    fn schema_name() -> Cow<'static, str> {
        "Destination".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// Whether no probe asks this address by default, whichever way it is written.
fn is_reserved(ip: IpAddr) -> bool {
    forms(ip).into_iter().any(|ip| {
        let mut networks = RESERVED.iter();
        networks.any(|(network, bits)| contains(*network, *bits, ip))
    })
}

/// The address, and the IPv4 address that it leads to: mapped or compatible (RFC 4291), by 6to4 (RFC 3056), NAT64 (RFC 6052, RFC 8215),
/// Teredo (RFC 4380) or ISATAP (RFC 5214).
fn forms(ip: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = ip else {
        return vec![ip];
    };
    let parts = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    let last = v4(parts[6], parts[7]);
    let mut forms = vec![ip];
    match parts {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        | [0x64, 0xff9b, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => forms.push(last),
        [0x2002, high, low, ..] => forms.push(v4(high, low)),
        [0x2001, 0, ..] => forms.push(v4(!parts[6], !parts[7])),
        _ => {}
    }
    forms
}

/// Whether an address is in a network of so many bits.
fn contains(network: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let (network, ip, width) = match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            (u128::from(network.to_bits()), u128::from(ip.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => (network.to_bits(), ip.to_bits(), 128),
        _ => return false,
    };
    let shift = 128_u32.min(width - u32::from(bits));
    bits == 0 || network >> shift == ip >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        let ip: IpAddr = text.parse().unwrap_or_else(|_| panic!("{text}"));
        SocketAddr::new(ip, 80)
    }

    fn rules(allow: Option<&[&str]>, deny: &[&str]) -> DestinationRules {
        let parsed = |texts: &[&str]| -> Vec<Destination> {
            let texts = texts.iter();
            texts
                .map(|text| text.parse().unwrap_or_else(|why| panic!("{why}")))
                .collect()
        };
        DestinationRules {
            allow: allow.map(parsed),
            deny: parsed(deny),
        }
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_form() {
        let rules = DestinationRules::default();
        for refused in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:0:0:0:0:5601:5601",
            "fd00::5efe:a9fe:a9fe",
        ] {
            let said = rules.check("metadata.google.internal", address(refused));
            assert!(
                said.as_ref().is_err_and(|why| why.contains("`allow-http`")),
                "{refused}: {said:?}"
            );
        }
        for fine in [
            "127.0.0.1",
            "10.0.0.1",
            "169.253.1.1",
            "100.100.100.201",
            "::1",
            "fec0::1",
            "fd00:ec2::253",
            "2002:a00:1::1",
            "2001:db8::a9fe:a9fe",
        ] {
            assert_eq!(rules.check("h", address(fine)), Ok(()), "{fine}");
        }
    }

    #[test]
    fn allow_list_names_hosts_networks_and_ports() {
        let only = rules(
            Some(&["shop.example:80", "*.internal", "10.0.0.0/8", "[::1]:80"]),
            &["10.9.0.0/16"],
        );
        for (host, ip, is_fine) in [
            ("shop.example", "192.0.2.1", true),
            ("SHOP.example.", "192.0.2.1", true),
            ("other.example", "192.0.2.1", false),
            ("a.internal", "192.0.2.1", true),
            ("internal", "192.0.2.1", false),
            ("x", "10.1.2.3", true),
            ("x", "::ffff:10.1.2.3", true),
            ("x", "10.9.2.3", false),
            ("x", "::1", true),
            ("a.internal", "169.254.169.254", false),
        ] {
            assert_eq!(
                only.check(host, address(ip)).is_ok(),
                is_fine,
                "{host} {ip}"
            );
        }
        let other_port = SocketAddr::new([192, 0, 2, 1].into(), 81);
        assert!(only.check("shop.example", other_port).is_err());
    }

    #[test]
    fn link_local_address_is_allowed_by_a_rule_of_its_own() {
        let metadata = address("169.254.169.254");
        for (allow, is_fine) in [
            (&["*"][..], false),
            (&["0.0.0.0/0"], false),
            (&["metadata.google.internal"], false),
            (&["*", "169.254.169.254"], true),
            (&["169.254.0.0/16"], true),
            (&["169.254.169.253"], false),
        ] {
            let said = rules(Some(allow), &[]).check("metadata.google.internal", metadata);
            assert_eq!(said.is_ok(), is_fine, "{allow:?}");
        }
        assert!(
            rules(Some(&["169.254.0.0/16"]), &["*"])
                .check("h", metadata)
                .is_err()
        );
    }

    #[test]
    fn destination_is_displayed_as_it_is_written_or_is_refused() {
        for text in [
            "*",
            "*:80",
            "h",
            "a.b:443",
            "*.b",
            "1.2.3.4",
            "1.2.3.0/24:80",
            "::1",
            "[::1]:80",
            "[fe80::/10]:80",
        ] {
            let parsed = text.parse::<Destination>();
            assert_eq!(parsed.map(|parsed| parsed.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "h:0",
            "h:x",
            "1.2.3.4/33",
            "a/8",
            "*x",
            "http://h",
            "h/",
            "[::1",
            "a b",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
