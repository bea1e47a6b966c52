//! Experiments that suit a host: for each of its services what may go wrong with it and with what it depends on. They are short, are reverted,
//! and hit nothing that is protected; whoever calls has each planned before it is shown.

mod documents;
mod seen_service;
mod suggestion;

pub use seen_service::SeenService;
pub use suggestion::Suggestion;

use crate::HumanDuration;
use documents::{SuggestionSubject, probes_of};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The most experiments that are suggested for a host.
pub const MAX_SUGGESTIONS: usize = 60;
/// The most services that experiments are suggested for; those with most sockets come first.
const MAX_SERVICES: usize = 8;
/// The most dependencies of a service that experiments are suggested for.
const MAX_PEERS: usize = 4;
/// The most services whose answer a hypothesis about the whole host checks.
const MAX_PROBES: usize = 3;
/// How long a suggested fault lasts.
const DURATION: HumanDuration = HumanDuration::seconds(15);
/// Ports by which people administer hosts; nothing is suggested that would disturb them.
const ADMINISTRATION_PORTS: [u16; 2] = [22, 3389];

/// The experiments for a host with these services. Protected services must not be among them.
pub fn suggestions(mut services: Vec<SeenService>) -> Vec<Suggestion> {
    services.sort_by_key(|service| {
        let sockets = service.listening.len() + service.peers.len();
        (std::cmp::Reverse(sockets), service.name.clone())
    });
    services.truncate(MAX_SERVICES);
    let mut all = Vec::new();
    for service in &services {
        of_service(service, &mut all);
        for peer in service
            .peers
            .iter()
            .filter(|peer| is_free(peer))
            .take(MAX_PEERS)
        {
            of_dependency(service, *peer, &mut all);
        }
    }
    of_host(&services, &mut all);
    let mut names = BTreeSet::new();
    for one in &mut all {
        let first = one.name.clone();
        let mut number = 2;
        while !names.insert(one.name.clone()) {
            one.name = format!("{first}-{number}");
            number += 1;
        }
    }
    all
}

/// Whether nobody administers hosts over this address.
fn is_free(address: &SocketAddr) -> bool {
    !ADMINISTRATION_PORTS.contains(&address.port())
}

/// What may go wrong with a service itself.
fn of_service(service: &SeenService, all: &mut Vec<Suggestion>) {
    let subject = SuggestionSubject::of_service(service);
    let what = subject.shown.clone();
    let mut add = |verb: &str, fault, arguments, question: &str| {
        all.push(subject.suggest(verb, fault, arguments, question, DURATION));
    };
    add(
        "pause",
        "process-pause",
        json!({"process": subject.selector}),
        &format!(
            "{what} may hang, as in a long garbage collection or on a stalled disk: do its clients time out and recover?"
        ),
    );
    for flows in flows_of(service) {
        let with = |more: Value| merged(&flows, &more);
        add(
            "slow",
            "network-latency",
            with(json!({"delay": "100ms"})),
            &format!(
                "{what} may be far away or its network congested: is every caller patient enough?"
            ),
        );
        add(
            "jitter",
            "network-latency",
            with(json!({"delay": "100ms", "jitter": "80ms"})),
            &format!("answers of {what} may come unevenly: do retries pile up?"),
        );
        add(
            "lossy",
            "network-loss",
            with(json!({"percent": 5})),
            &format!(
                "some packets to and from {what} may get lost: is that only slower, or does it fail?"
            ),
        );
        add(
            "narrow",
            "network-bandwidth",
            with(json!({"rate": "1Mbit/s"})),
            &format!("the line of {what} may be full: what is served first?"),
        );
        add(
            "cut",
            "network-partition",
            with(json!({})),
            &format!(
                "{what} may be unreachable without a word: how long until its callers notice?"
            ),
        );
        if service.is_in_own_network {
            add(
                "refuse",
                "network-reject",
                with(json!({"protocol": "tcp"})),
                &format!(
                    "{what} may refuse connections, as while it restarts: do its callers try again?"
                ),
            );
        }
    }
}

/// What selects the packets of a service: its port, or the network of its container.
fn flows_of(service: &SeenService) -> Vec<Value> {
    if let Some(container) = service
        .container
        .as_ref()
        .filter(|_| !service.is_in_own_network)
    {
        return vec![json!({"of": {"container": container}})];
    }
    if !service.is_in_own_network {
        return Vec::new();
    }
    let mut free = service.listening.iter().filter(|at| is_free(at));
    let flows = free.next().map(|at| match at.ip().is_loopback() {
        true => json!({"to": at.to_string()}),
        false => json!({"ports": at.port(), "protocol": "tcp"}),
    });
    flows.into_iter().collect()
}

/// What may go wrong with what a service is connected to.
fn of_dependency(service: &SeenService, peer: SocketAddr, all: &mut Vec<Suggestion>) {
    if !service.is_in_own_network {
        return;
    }
    let subject = SuggestionSubject::of_dependency(service, peer);
    let (what, to) = (&service.name, peer.to_string());
    let mut add = |verb: &str, fault, arguments, question: &str| {
        all.push(subject.suggest(verb, fault, arguments, question, DURATION));
    };
    add(
        "slow",
        "network-latency",
        json!({"to": to, "delay": "200ms"}),
        &format!(
            "{what} is connected to {to}, which may become slow: does {what} still answer in time?"
        ),
    );
    add(
        "refuse",
        "network-reject",
        json!({"to": to, "protocol": "tcp"}),
        &format!(
            "{what} is connected to {to}, which may refuse connections: does {what} answer without it, or with a clear error?"
        ),
    );
    add(
        "cut",
        "network-partition",
        json!({"to": to}),
        &format!(
            "{what} is connected to {to}, which may vanish without a word: does {what} have timeouts?"
        ),
    );
}

/// What may go wrong with the host as a whole.
fn of_host(services: &[SeenService], all: &mut Vec<Suggestion>) {
    let listening = services.iter().filter(|service| service.is_in_own_network);
    let probed: Vec<&SeenService> = listening
        .filter(|service| !service.listening.is_empty())
        .take(MAX_PROBES)
        .collect();
    let subject = SuggestionSubject {
        name: "host".into(),
        shown: "the host".into(),
        selector: Value::Null,
        probes: probed
            .iter()
            .flat_map(|service| probes_of(service))
            .collect(),
    };
    let names: Vec<&str> = probed.iter().map(|service| service.name.as_str()).collect();
    let who = match names.is_empty() {
        true => "what runs on this host".to_owned(),
        false => names.join(", "),
    };
    let mut add = |verb: &str, fault, arguments, question: &str| {
        all.push(subject.suggest(verb, fault, arguments, question, DURATION));
    };
    add(
        "busy",
        "cpu-stress",
        json!({"load-percent": 80, "ramp": "3s"}),
        &format!("a neighbour may take the processors: is {who} still fast enough?"),
    );
    add(
        "short-of-memory",
        "memory-fill",
        json!({"percent": 10, "reserve": "20%", "ramp": "5s"}),
        &format!(
            "memory may get short: does {who} go on, and does an alert come before the kernel kills somebody?"
        ),
    );
    add(
        "short-of-disk",
        "disk-fill",
        json!({"path": "/var/tmp", "size": "256MiB", "reserve": "10%"}),
        &format!("the disk of /var/tmp may fill up: does an alert come, and does {who} go on?"),
    );
    add(
        "slow-names",
        "dns-slow",
        json!({"names": "*", "delay": "1s"}),
        &format!("name servers may be slow: does {who} look up names while somebody waits?"),
    );
    add(
        "no-names",
        "dns-fail",
        json!({"names": "*", "with": "servfail"}),
        &format!("name servers may fail: does {who} remember what it has looked up?"),
    );
}

/// An object with the keys of both.
fn merged(one: &Value, other: &Value) -> Value {
    let mut all = one.as_object().cloned().unwrap_or_default();
    all.extend(other.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, listening: &[&str], peers: &[&str]) -> SeenService {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        SeenService {
            name: name.into(),
            processes: 1,
            unit: None,
            container: None,
            is_in_own_network: true,
            listening: addresses(listening),
            peers: addresses(peers),
        }
    }

    #[test]
    fn one_service_is_enough_for_ten_suggestions_of_different_names() {
        let services = vec![service("shop", &["0.0.0.0:8080"], &["10.0.0.7:5432"])];
        let found = suggestions(services);
        assert!(found.len() >= 10, "{found:#?}");
        let names: BTreeSet<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), found.len());
        for one in &found {
            assert!(one.name.len() <= 64, "{}", one.name);
            assert!(one.reason.ends_with('?'), "{}", one.reason);
        }
    }

    #[test]
    fn administration_is_not_disturbed_and_a_loopback_service_is_named_by_its_address() {
        let services = vec![
            service("sh", &["0.0.0.0:22"], &["192.0.2.1:22"]),
            service("cache", &["127.0.0.1:6379"], &[]),
        ];
        let found = suggestions(services);
        let flows: Vec<String> = (found.iter())
            .filter(|one| one.fault.starts_with("network-"))
            .map(|one| Value::Object(one.arguments.clone()).to_string())
            .collect();
        assert!(!flows.is_empty());
        assert!(
            flows.iter().all(|flow| flow.contains("127.0.0.1:6379")),
            "{flows:?}"
        );
    }

    #[test]
    fn suggestion_for_a_fleet_hits_and_asks_the_agents_of_its_target_only() {
        let labels = [("host".to_owned(), "web-1".to_owned())].into();
        for one in suggestions(vec![service("shop", &["0.0.0.0:8080"], &[])]) {
            let document = one.for_agent(&labels).experiment;
            assert_eq!(
                document["targets"],
                json!({"agent": {"labels": {"host": "web-1"}, "select": "all"}})
            );
            assert_eq!(document["method"][0]["provider"]["targets"], "agent");
            let probes = document["steady-state-hypothesis"]["probes"].as_array();
            assert!(probes.unwrap().iter().all(|probe| probe["from"] == "agent"));
        }
    }

    #[test]
    fn service_whose_words_are_too_long_is_not_believed() {
        let mut long = service(&"x".repeat(300), &["0.0.0.0:80"], &[]);
        assert!(!long.is_plausible());
        long.name = "x\u{1b}[2J".into();
        assert!(!long.is_plausible());
        long.name = "nginx".into();
        assert!(long.is_plausible());
        long.unit = Some(String::new());
        assert!(!long.is_plausible());
    }

    #[test]
    fn service_of_a_container_is_hit_in_its_own_network_only() {
        let mut of_container = service("web", &["0.0.0.0:80"], &["10.0.0.7:5432"]);
        of_container.container = Some("abababababab".into());
        of_container.is_in_own_network = false;
        for one in suggestions(vec![of_container]) {
            if one.fault.starts_with("network-") {
                assert_eq!(one.arguments["of"], json!({"container": "abababababab"}));
            }
        }
    }
}
