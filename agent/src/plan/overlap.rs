//! Which of the resources that injections hold exclude one another.

use core::net::{IpAddr, SocketAddr};

/// Whether two resources are the same, or one is part of the other, as `cpu:1` is part of `cpu`, and a file of the folder in which it is: a
/// fault on operations in a folder would keep another from reverting a file there. A port is that of every address of the host.
pub(crate) fn resources_overlap(one: &str, other: &str) -> bool {
    if let (Some((one, port)), Some((other, other_port))) = (listener(one), listener(other)) {
        let is_same_address = match (one, other) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        return port == other_port && is_same_address;
    }
    let part = |whole: &str, part: &str| {
        let is_file = whole.starts_with("file:/");
        let whole = if is_file {
            whole.trim_end_matches('/')
        } else {
            whole
        };
        part.strip_prefix(whole).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(':') || (is_file && rest.starts_with('/'))
        })
    };
    part(one, other) || part(other, one)
}

/// The address, unless it is every one, and the port that a resource listens at: `listen:ADDRESS:PORT` of proxies, and `port:PORT` as
/// plug-ins write it.
fn listener(resource: &str) -> Option<(Option<IpAddr>, u16)> {
    if let Some(port) = resource.strip_prefix("port:") {
        return Some((None, port.parse().ok()?));
    }
    let address: SocketAddr = resource.strip_prefix("listen:")?.parse().ok()?;
    let ip = Some(address.ip()).filter(|ip| !ip.is_unspecified());
    Some((ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_overlap_where_one_is_part_of_the_other() {
        for (one, other, expected) in [
            ("cpu", "cpu:1", true),
            ("listen:127.0.0.1:80", "listen:0.0.0.0:80", true),
            ("listen:[::1]:80", "listen:127.0.0.1:80", false),
            ("listen:127.0.0.1:80", "listen:127.0.0.1:8080", false),
            ("port:80", "listen:127.0.0.1:80", true),
            ("port:80", "listen:127.0.0.1:8080", false),
            ("cpu:1", "cpu:10", false),
            ("process:1@2", "open-files:1@2", false),
            ("file:/var/app", "file:/var/app/index", true),
            ("file:/var/app/index", "file:/var/app/index", true),
            ("file:/var/app", "file:/var/application", false),
            ("file:/var/app/index", "file:/var/app/spool", false),
            ("file:/", "file:/index", true),
        ] {
            assert_eq!(resources_overlap(one, other), expected, "{one} {other}");
            assert_eq!(resources_overlap(other, one), expected, "{other} {one}");
        }
    }
}
