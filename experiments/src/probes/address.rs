//! Addresses in documents and redirects. They are parsed strictly, so that no other port than the written one is ever connected to.

use core::net::{IpAddr, SocketAddr};
use http::Uri;

/// The most characters of an address that a message shows.
const MAX_SHOWN_CHARACTERS: usize = 100;

/// Where a name server listens (RFC 1035).
const DNS_PORT: u16 = 53;

/// The address of a page on the web, `http://` or `https://`.
///
/// # Errors
/// It is not such an address; the text says why. A port is a number from 1 to 65535.
pub fn of_web(url: &str) -> Result<Uri, String> {
    let wrong = |what: &str| format!("`{}` is not a web address: {what}", shown(url));
    let Some(scheme) = web_scheme(url) else {
        return Err(wrong(
            "it must begin with `http://` or `https://` and name a host",
        ));
    };
    let rest = &url[scheme.len()..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    check_host(
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host),
    )
    .map_err(|what| wrong(&what))?;
    // A query may follow the host at once (RFC 3986, section 3); requests have a path all the same.
    let slash = if path.starts_with('?') { "/" } else { "" };
    format!("{scheme}{authority}{slash}{path}")
        .replace(' ', "%20")
        .parse()
        .map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))
}

/// A text as a part of an address: everything but unreserved characters is percent-encoded (RFC 3986, section 2).
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Whether this starts like an address of the web.
pub(super) fn is_of_web(url: &str) -> bool {
    web_scheme(url).is_some()
}

fn web_scheme(url: &str) -> Option<&'static str> {
    ["http://", "https://"].into_iter().find(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}

/// An address for a message: without its user, its path and its query, which may have secrets, and not too long.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |start| start + 3));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let rest = &rest[..end];
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let mut characters = scheme.chars().chain(host.chars());
    let mut shown: String = characters.by_ref().take(MAX_SHOWN_CHARACTERS).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A host, with a port or without: a name, an address, or an IPv6 address in brackets.
fn check_host(text: &str) -> Result<(), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((host, rest)) => {
                if host.parse::<core::net::Ipv6Addr>().is_err() {
                    return Err(format!("`{host}` is not an IPv6 address"));
                }
                (host, rest)
            }
            None => return Err("a `]` is missing".into()),
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    if let Some(odd) = host
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "-._~:".contains(*c)))
    {
        return Err(format!("`{odd}` is not allowed in the name of a host"));
    }
    match port.strip_prefix(':') {
        // An empty port is none (RFC 3986, section 3.2.3).
        Some("") => Ok(()),
        Some(port) => self::port(port).map(drop),
        None if port.is_empty() => Ok(()),
        None => Err(format!("unexpected `{port}` after the host")),
    }
}

/// A port that somebody can listen on.
fn port(text: &str) -> Result<u16, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| is_plain && *port > 0)
        .ok_or_else(|| format!("`{text}` is not a port: expected a number from 1 to 65535"))
}

/// The host and the port of a name server: `host`, `host:port`, an address, or `[address]:port`.
///
/// # Errors
/// It is not such an address; the text says why.
pub fn of_name_server(server: &str) -> Result<(String, u16), String> {
    if let Ok(ip) = server.parse::<IpAddr>() {
        return Ok((ip.to_string(), DNS_PORT));
    }
    let parsed = server.parse::<SocketAddr>();
    if let Some(address) = parsed.ok().filter(|address| address.port() > 0) {
        return Ok((address.ip().to_string(), address.port()));
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, text)) => (
            host,
            port(text).map_err(|what| format!("`{server}`: {what}"))?,
        ),
        None => (server, DNS_PORT),
    };
    match host.is_empty() || host.contains([':', '[', ']', '/']) {
        true => Err(format!(
            "`{server}` is not a name server: write `host`, `host:port` or `[address]:port`"
        )),
        false => Ok((host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_address_has_the_port_that_is_written_or_is_refused() {
        for (url, port, path) in [
            ("http://h", None, "/"),
            ("http://h:1?x=1", Some(1), "/?x=1"),
            ("http://h?x=1", None, "/?x=1"),
            ("http://h:/x", None, "/x"),
            ("HTTPS://h:65535/a b?c", Some(65535), "/a%20b?c"),
            ("http://[::1]:8080/", Some(8080), "/"),
            ("http://[::1]/", None, "/"),
            ("http://me:p@h:81/x@y:0", Some(81), "/x@y:0"),
            ("http://a_b.c-d:0080/", Some(80), "/"),
        ] {
            let uri = of_web(url).unwrap();
            assert_eq!(uri.port_u16(), port, "{url}");
            assert_eq!(uri.path_and_query().unwrap().as_str(), path, "{url}");
        }
        for url in [
            "http://127.0.0.1:18080O/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:-1/",
            "http://127.0.0.1:+80/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:0x50/",
            "http://127.0.0.1: 80/",
            "http://127.0.0.1:65536",
            "http://me:p@127.0.0.1:99999?x",
            "https://[::1]:99999/",
            "http://[::1]80/",
            "http://[::1",
            "http://[h]:80/",
            "http://h:80:90/",
            "http://",
            "http:///x",
            "http://:80/",
            "http://a b/",
            "http://${h}/",
            "ftp://h/",
            "h:80",
            "just words",
            "",
        ] {
            assert!(of_web(url).is_err(), "{url}");
        }
        let said = of_web(&format!(
            "http://me:s3cret@h:99999/{}",
            "x".repeat(1_000_000)
        ));
        assert!(said.is_err_and(|said| !said.contains("s3cret") && said.len() < 200));
    }

    #[test]
    fn a_name_server_has_the_port_that_is_written_or_is_refused() {
        for (server, host, port) in [
            ("h", "h", 53),
            ("h:54", "h", 54),
            ("1.2.3.4", "1.2.3.4", 53),
            ("::1", "::1", 53),
            ("[::1]:54", "::1", 54),
        ] {
            assert_eq!(of_name_server(server), Ok((host.to_owned(), port)));
        }
        for server in [
            "h:0",
            "h:99999",
            "1.2.3.4:0",
            "h:-1",
            "h:5O",
            "[::1]",
            ":53",
            "",
            "udp://h:53",
        ] {
            assert!(of_name_server(server).is_err(), "{server}");
        }
    }
}
