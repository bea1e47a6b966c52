//! Addresses, networks and ports, as they are written and as ranges of bytes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network, or a single address: `10.0.0.0/8`, `fd00::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpNetwork {
    first: IpAddr,
    prefix: u8,
}

impl IpNetwork {
    /// The network of this many bits that an address is in.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let first = match address {
            IpAddr::V4(address) => {
                let free = 32u32.checked_sub(prefix.into())?;
                let mask = u32::MAX.checked_shl(free).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let free = 128u32.checked_sub(prefix.into())?;
                let mask = u128::MAX.checked_shl(free).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Some(IpNetwork { first, prefix })
    }

    /// Whether it is of IPv4; else it is of IPv6.
    pub fn is_v4(self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether a part of it is the loopback's own.
    pub fn is_loopback(self) -> bool {
        self.first.is_loopback()
    }

    /// Its address, where it is a single one.
    pub fn single(self) -> Option<IpAddr> {
        let whole = if self.is_v4() { 32 } else { 128 };
        (self.prefix == whole).then_some(self.first)
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        IpNetwork::new(address.to_canonical(), self.prefix).is_some_and(|network| network == self)
    }

    /// Its first and its last address, as bytes in the network's order.
    pub fn range(self) -> (Vec<u8>, Vec<u8>) {
        match self.first {
            IpAddr::V4(first) => {
                let free = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                let last = Ipv4Addr::from_bits(first.to_bits() | free);
                (first.octets().into(), last.octets().into())
            }
            IpAddr::V6(first) => {
                let free = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                let last = Ipv6Addr::from_bits(first.to_bits() | free);
                (first.octets().into(), last.octets().into())
            }
        }
    }
}

impl From<IpAddr> for IpNetwork {
    fn from(address: IpAddr) -> Self {
        // What an IPv6 socket calls an IPv4 address is on the wire as IPv4.
        let first = address.to_canonical();
        let prefix = if first.is_ipv4() { 32 } else { 128 };
        IpNetwork { first, prefix }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.is_v4() { 32 } else { 128 };
        match self.prefix == whole {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}/{}", self.first, self.prefix),
        }
    }
}

impl FromStr for IpNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("`{address}` is not an address"))?;
        match prefix {
            None => Ok(address.into()),
            Some(prefix) => prefix
                .parse()
                .ok()
                .and_then(|prefix| IpNetwork::new(address, prefix))
                .ok_or_else(|| {
                    let most = if address.is_ipv4() { 32 } else { 128 };
                    format!("`/{prefix}` is not a number of bits from 0 to {most}")
                }),
        }
    }
}

impl Serialize for IpNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A port, or ports from one to another, both within: `80`, `8000-8010`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The first port of the range.
    pub first: u16,
    /// The last port of the range, which belongs to it.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is one of these.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether every port of it is among these.
    pub fn within(self, others: &[PortRange]) -> bool {
        (self.first..=self.last).all(|port| {
            others
                .iter()
                .any(|other| (other.first..=other.last).contains(&port))
        })
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        PortRange {
            first: port,
            last: port,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = ["-", "..", ":"]
            .iter()
            .find_map(|between| text.split_once(between))
            .unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(PortRange { first, last }),
            _ => Err(format!(
                "`{text}` is not a port, nor ports from one to another"
            )),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A port or a range of ports as it is written: `5432`, `"8000-8010"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    /// A port by its number.
    Number(u16),
    /// A port, or a range of ports, as text.
    Text(String),
}

impl Port {
    /// The ports that it means.
    ///
    /// # Errors
    /// It is not a port, or the range is empty.
    pub fn range(&self) -> Result<PortRange, String> {
        match self {
            Port::Number(port) => port.to_string().parse(),
            Port::Text(text) => text.parse(),
        }
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "port",
            "description": "A port, or a range of ports: `5432`, `\"8000-8010\"`",
            "type": ["integer", "string"],
            "pattern": r"^\s*[1-9][0-9]{0,4}\s*((-|:|\.\.)\s*[1-9][0-9]{0,4}\s*)?$",
            "minimum": 1,
            "maximum": 65535,
            "examples": [5432, "8000-8010"]
        })
    }
}

/// Ranges sorted, with those that meet made one.
pub(crate) fn merged(mut ranges: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    ranges.sort();
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (first, last) in ranges {
        match found.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(end.clone()),
            // One that begins right after another ends would share that one's end in the kernel's set.
            Some((_, end)) if follows(end, &first) => *end = last,
            _ => found.push((first, last)),
        }
    }
    found
}

fn follows(end: &[u8], first: &[u8]) -> bool {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0u128, |number, byte| number << 8 | u128::from(*byte))
    };
    number(end).checked_add(1) == Some(number(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn address_networks_round_trip() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/64", "fd00::/64"),
            ("::1", "::1"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            let network: IpNetwork = text.parse().expect("it is one");
            assert_eq!(network.to_string(), shown);
        }
        for text in [
            "10.0.0.1/33",
            "::1/129",
            "10.0.0/8",
            "x",
            "10.0.0.1/",
            "10.0.0.1/-1",
            "",
        ] {
            assert!(text.parse::<IpNetwork>().is_err(), "{text}");
        }
    }

    #[test]
    fn address_adjacent_ranges_are_merged() {
        let range = |first: u8, last: u8| (vec![0, first], vec![0, last]);
        assert_eq!(
            merged(vec![range(9, 9), range(1, 3), range(2, 5), range(6, 7)]),
            [range(1, 7), range(9, 9)]
        );
        assert_eq!(merged(vec![range(1, 9), range(2, 3)]), [range(1, 9)]);
    }

    proptest! {
        #[test]
        fn address_network_contains_its_address(bits in any::<u32>(), prefix in 0u8..=32) {
            let address = Ipv4Addr::from_bits(bits);
            let network = IpNetwork::new(address.into(), prefix).expect("up to 32 bits");
            let (first, last) = network.range();
            let own = address.octets().to_vec();
            prop_assert!(first <= own && own <= last);
            let again: IpNetwork = network.to_string().parse().expect("its own text");
            prop_assert_eq!(again, network);
        }
    }
}
