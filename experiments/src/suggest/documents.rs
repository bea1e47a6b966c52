//! The documents of suggestions: what is hit, how the hypothesis asks the service, and why.

use super::seen_service::SeenService;
use super::suggestion::Suggestion;
use crate::HumanDuration;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest part of a name that comes from the host, in bytes.
const MAX_NAME_PART: usize = 32;

/// What a suggestion is about.
pub(super) struct SuggestionSubject {
    /// The end of the suggestion's name.
    pub(super) name: String,
    /// What people call it.
    pub(super) shown: String,
    /// What selects its processes.
    pub(super) selector: Value,
    /// The probes of the hypothesis.
    pub(super) probes: Vec<Value>,
}

impl SuggestionSubject {
    /// A service that runs on the host.
    pub(super) fn of_service(service: &SeenService) -> Self {
        let mut selector = json!({"name": service.name});
        let from = match (&service.container, &service.unit) {
            (Some(container), _) => {
                selector["container"] = json!(container);
                format!(" in container {container}")
            }
            (None, Some(unit)) => {
                selector["unit"] = json!(unit);
                format!(" of {unit}")
            }
            (None, None) => String::new(),
        };
        let port = service.listening.iter().next().map(SocketAddr::port);
        let at = port.map_or(String::new(), |port| {
            // Another service may have the same name.
            selector["listening"] = json!(port);
            format!(" on port {port}")
        });
        SuggestionSubject {
            name: slug(&service.name),
            shown: format!("{}{from}{at}", service.name),
            selector,
            probes: probes_of(service),
        }
    }

    /// What a service is connected to.
    pub(super) fn of_dependency(service: &SeenService, peer: SocketAddr) -> Self {
        SuggestionSubject {
            name: format!("{}-to-{}", slug(&service.name), slug(&peer.to_string())),
            shown: format!("{peer} for {}", service.name),
            selector: Value::Null,
            probes: probes_of(service),
        }
    }

    /// The suggestion to do this to the subject.
    pub(super) fn suggest(
        &self,
        verb: &str,
        fault: &'static str,
        arguments: Value,
        reason: &str,
        duration: HumanDuration,
    ) -> Suggestion {
        let action = json!({"type": "action", "name": format!("{verb} {}", self.name), "provider": {
            "type": "fault", "fault": fault, "duration": duration.to_string(), "arguments": arguments}});
        let mut experiment = json!({
            "title": format!("{verb}: {}", self.shown),
            "description": reason,
            "tags": ["suggested"],
            "method": [action],
        });
        if !self.probes.is_empty() {
            experiment["steady-state-hypothesis"] =
                json!({"title": "The service accepts connections", "probes": self.probes});
            experiment["recovery"] = json!({"within": "30s"});
        }
        Suggestion {
            name: format!("{verb}-{}", self.name),
            reason: reason.to_owned(),
            experiment,
            fault,
            arguments: arguments.as_object().cloned().unwrap_or_default(),
            duration,
        }
    }
}

/// A probe that connects to the service as its clients do; none if it listens nowhere that this host reaches.
pub(super) fn probes_of(service: &SeenService) -> Vec<Value> {
    if !service.is_in_own_network {
        return Vec::new();
    }
    let probe = service.listening.iter().next().map(|at| {
        let host = match at.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        json!({"type": "probe", "name": format!("{} at {at} accepts connections", service.name),
            "tolerance": {"type": "jsonpath", "path": "$.connected", "expect": [true]},
            "provider": {"type": "tcp", "host": host.to_string(), "port": at.port(), "timeout": 2}})
    });
    probe.into_iter().collect()
}

/// A text as part of a name: lower case letters, digits and `-`.
fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => out.push(c),
            _ if out.is_empty() || out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    out.truncate(MAX_NAME_PART);
    match out.trim_end_matches('-') {
        "" => "service".to_owned(),
        name => name.to_owned(),
    }
}
