//! The addresses of a name, by the way that every program here finds them. What has to be asked of one name server, or is
//! no address, takes a reader of DNS messages that an agent does not carry.

use backburn_experiments::document::DnsProvider;
use backburn_experiments::probes::{NoValue, plain};
use serde_json::{Value, json};
use std::net::ToSocketAddrs as _;

/// `{code, answers}`, the addresses as text.
pub(super) fn measure(provider: &DnsProvider) -> Result<Value, NoValue> {
    let wanted = provider.record.as_deref().unwrap_or("A");
    let is_v4 = wanted.eq_ignore_ascii_case("A");
    if provider.server.is_some() || !(is_v4 || wanted.eq_ignore_ascii_case("AAAA")) {
        return Err(NoValue::Broken(
            "an agent asks the system for `A` and `AAAA` only, and no `server`: leave out `from`, and the controller measures it; \
             or have a `process` probe run e.g. `dig`"
                .into(),
        ));
    }
    let name = &provider.name;
    let found = (name.as_str(), 0).to_socket_addrs().map_err(|error| {
        NoValue::NoAnswer(format!("`{name}` could not be resolved: {}", plain(&error)))
    })?;
    let answers: Vec<String> = found
        .map(|address| address.ip())
        .filter(|ip| ip.is_ipv4() == is_v4)
        .map(|ip| ip.to_string())
        .collect();
    Ok(json!({"code": "No Error", "answers": answers}))
}
