//! The endpoints of flows as people write them (`10.0.0.0/8`, `db.example:5432`, `[fd00::1]:443`), and
//! the addresses that they mean on this host.

use crate::packet_filter::{Endpoint, IpNetwork, PortRange, RefreshedName};
use crate::processes::OneOrMany;
use backburn_experiments::Problem;
use core::net::IpAddr;
use std::collections::BTreeSet;

/// Most networks of one fault; a longer list would not fit on a helper's command line.
pub(crate) const MAX_NETWORKS: usize = 1024;

/// An endpoint as it is written: a network or a name, and maybe a port.
#[derive(Debug, PartialEq)]
pub(crate) struct WrittenEndpoint<'a> {
    pub(crate) host: EndpointHost<'a>,
    pub(crate) port: Option<PortRange>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum EndpointHost<'a> {
    Network(IpNetwork),
    Name(&'a str),
    /// The agents of a target. A controller replaces it by their addresses before it asks an agent.
    Target(&'a str),
}

/// Each of these values with its JSON path.
pub(crate) fn placed<'a, T>(key: &str, some: &'a Option<OneOrMany<T>>) -> Vec<(String, &'a T)> {
    match some {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![(format!("$.{key}"), one)],
        Some(OneOrMany::Many(many)) => {
            let numbered = many.iter().enumerate();
            numbered
                .map(|(number, one)| (format!("$.{key}[{number}]"), one))
                .collect()
        }
    }
}

/// The endpoints with their names resolved, those with the same port together. Names without an address become problems.
pub(crate) fn ends(
    key: &str,
    written: &Option<OneOrMany<String>>,
    resolve: &dyn Fn(&str) -> Result<Vec<IpAddr>, String>,
    problems: &mut Vec<Problem>,
) -> Vec<Endpoint> {
    let mut found: Vec<(Option<PortRange>, BTreeSet<IpNetwork>)> = Vec::new();
    for (at, text) in placed(key, written) {
        // What cannot be parsed was reported by `problems`.
        let Ok(WrittenEndpoint { host, port }) = read(text) else {
            continue;
        };
        let networks: Vec<IpNetwork> = match host {
            EndpointHost::Network(network) => vec![network],
            EndpointHost::Target(name) => {
                let what =
                    format!("`@{name}` means the agents of a target, and there is no fleet here");
                problems.push(
                    Problem::new(at, what)
                        .hint("run it on the fleet of a controller, or give addresses"),
                );
                continue;
            }
            EndpointHost::Name(name) => match resolve(name) {
                Ok(addresses) => addresses.into_iter().map(IpNetwork::from).collect(),
                Err(why) => {
                    let what = format!("`{name}` has no address {why}");
                    problems.push(
                        Problem::new(at, what).hint("see `getent ahosts`, or give the address"),
                    );
                    continue;
                }
            },
        };
        match found.iter_mut().find(|(known, _)| *known == port) {
            Some((_, known)) => known.extend(networks),
            None => found.push((port, networks.into_iter().collect())),
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|(port, networks)| Endpoint {
            networks: networks.into_iter().collect(),
            port,
        })
        .collect()
}

/// The names among the endpoints, which are looked up again while the fault acts.
pub(crate) fn names<'a>(
    key: &str,
    written: &'a Option<OneOrMany<String>>,
    from: bool,
) -> impl Iterator<Item = RefreshedName> + 'a {
    placed(key, written)
        .into_iter()
        .filter_map(move |(_, text)| match read(text).ok()? {
            WrittenEndpoint {
                host: EndpointHost::Name(name),
                port,
            } => Some(RefreshedName {
                name: name.to_owned(),
                port,
                from,
            }),
            _ => None,
        })
}

/// Reads an endpoint.
///
/// # Errors
/// It is neither an address, a network, a name nor a target. What is often written instead is named.
pub(crate) fn read(text: &str) -> Result<WrittenEndpoint<'_>, String> {
    if let Some(what) = often_mistaken(text) {
        return Err(what);
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| format!("`{text}` has no `]`"))?;
            let port = match rest {
                "" => None,
                rest => Some(
                    rest.strip_prefix(':')
                        .ok_or_else(|| format!("`{text}` has no `:` before its port"))?,
                ),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            None => (text, None),
            // More than one: IPv6, which has a port only in brackets.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
        },
    };
    let port = port.map(str::parse).transpose()?;
    let looks_like_an_address = host.contains([':', '/'])
        || (!host.is_empty() && host.chars().all(|c| c.is_ascii_digit() || c == '.'));
    if let Some(target) = host.strip_prefix('@').filter(|target| is_target(target)) {
        let host = EndpointHost::Target(target);
        return Ok(WrittenEndpoint { host, port });
    }
    let host = match host.parse() {
        Ok(network) => EndpointHost::Network(network),
        Err(what) if looks_like_an_address => return Err(what),
        Err(_) if is_name(host) => EndpointHost::Name(host),
        Err(_) => return Err(format!("`{host}` is neither an address nor a host's name")),
    };
    Ok(WrittenEndpoint { host, port })
}

/// What is wrong with a text that other tools take for an endpoint.
fn often_mistaken(text: &str) -> Option<String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let port = match (scheme.to_ascii_lowercase().as_str(), host.contains(':')) {
            ("http" | "ws", false) => ":80",
            ("https" | "wss", false) => ":443",
            _ => "",
        };
        return Some(format!(
            "`{text}` is a URL: write its host and port, `{host}{port}`"
        ));
    }
    if text.contains('*') {
        return Some(format!(
            "`{text}` has a `*`: a network is written `10.0.0.0/8`, and every address is `0.0.0.0/0` or `::/0`"
        ));
    }
    if text.contains('%') {
        return Some(format!(
            "`{text}` names an interface: write the address alone, and give `interface`"
        ));
    }
    let is_address = |text: &str| text.trim().parse::<IpAddr>().is_ok();
    if let Some((first, last)) = text.split_once('-')
        && is_address(first)
        && is_address(last)
    {
        return Some(format!(
            "`{text}` is a range of addresses: write a network such as `10.0.0.0/28`, or a list"
        ));
    }
    (text.contains(',') || text.contains(' ')).then(|| {
        let items: Vec<String> = text
            .split([',', ' '])
            .filter(|item| !item.is_empty())
            .map(|item| format!("\"{item}\""))
            .collect();
        format!(
            "`{text}` has several endpoints: write a list, `[{}]`",
            items.join(", ")
        )
    })
}

/// Whether this can be the name of a target.
fn is_target(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '@')
}

/// Whether this can be a host name (RFC 1123, and `_`, which some use).
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_usual_notations_are_parsed() {
        let network = |text: &str| EndpointHost::Network(text.parse().expect("a network"));
        for (text, host, port) in [
            ("10.0.0.7", network("10.0.0.7/32"), None),
            ("10.0.0.7:80", network("10.0.0.7"), Some("80")),
            (
                "10.0.0.0/8:8000-8010",
                network("10.0.0.0/8"),
                Some("8000-8010"),
            ),
            ("fd00::1", network("fd00::1"), None),
            ("fd00::/8", network("fd00::/8"), None),
            ("[fd00::1]:443", network("fd00::1"), Some("443")),
            ("[fd00::/8]", network("fd00::/8"), None),
            (
                "db.example:5432",
                EndpointHost::Name("db.example"),
                Some("5432"),
            ),
            ("db_1", EndpointHost::Name("db_1"), None),
            ("@db", EndpointHost::Target("db"), None),
            ("@db:5432", EndpointHost::Target("db"), Some("5432")),
        ] {
            let port = port.map(|port| port.parse().expect("ports"));
            assert_eq!(read(text), Ok(WrittenEndpoint { host, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            "10.0.0.300",
            "10.0.0.0/33",
            "10.0.0.7:0",
            "10.0.0.7:x",
            "10.0.0.7:",
            "a b",
            "-x",
            "[fd00::1",
            "[fd00::1]443",
            "fd00::1::",
            "db..example",
            "10.0.0.1/8/8",
            "db:9-8",
            "é.example",
            "@",
            "@@db",
            "me@db",
        ] {
            assert!(read(text).is_err(), "{text}: {:?}", read(text));
        }
    }
}
