//! Where a proxy of the agent listens and where it passes connections on to: what the faults that are proxies share.

use super::PlanContext;
use backburn_experiments::Problem;
use backburn_experiments::wire::Refusal;
use core::net::SocketAddr;

/// The two ends of a proxy, as they were written.
pub(super) struct ProxyEndpoints<'a> {
    pub(super) listen: &'a str,
    pub(super) upstream: &'a str,
}

/// The two ends of a proxy as addresses, with notes for people.
pub(super) struct ProxyAddresses {
    pub(super) listen: SocketAddr,
    pub(super) upstream: Vec<SocketAddr>,
    pub(super) notes: Vec<String>,
}

impl ProxyEndpoints<'_> {
    /// What is wrong with them beyond what their schema says.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if listening(self.listen).is_none() {
            problems.push(
                Problem::new(
                    "$.listen",
                    format!("`{}` is not an address with a port", self.listen),
                )
                .hint("`127.0.0.1:15432`, `[::1]:15432`, or `0.0.0.0:15432` for every address"),
            );
        }
        if port(self.upstream).is_none() {
            problems.push(
                Problem::new("$.upstream", format!("`{}` has no port", self.upstream))
                    .hint("`db.example:5432`, `10.0.0.7:5432` or `[fd00::1]:5432`"),
            );
        }
        problems
    }

    /// Finds the addresses, and checks that a proxy can run between them.
    ///
    /// # Errors
    /// It cannot, or may not.
    pub(super) fn find(&self, context: &PlanContext<'_>) -> Result<ProxyAddresses, Refusal> {
        let none = |at: &str, what: String, hint: &str| Refusal {
            problems: vec![Problem::new(at, what).hint(hint)],
            ..Refusal::new("no-match", "the proxy cannot run here")
        };
        let listen = listening(self.listen).ok_or_else(|| {
            none(
                "$.listen",
                format!("`{}` is not an address", self.listen),
                "give an address with a port",
            )
        })?;
        let upstream: Vec<SocketAddr> = match context.host.socket_addresses(self.upstream) {
            Ok(addresses) => addresses,
            Err(error) => {
                let what = format!("`{}` has no address here: {error}", self.upstream);
                return Err(none(
                    "$.upstream",
                    what,
                    "see `getent ahosts`, or give the address",
                ));
            }
        };
        let protected = |port: u16| context.protected_ports.contains(&port);
        if protected(listen.port()) || upstream.iter().any(|address| protected(address.port())) {
            return Err(Refusal::new(
                "protected",
                format!("this host protects a port of {listen} or {}", self.upstream),
            )
            .hint("name others; the owner of this host may change `protect-ports` in its policy"));
        }
        if upstream.iter().any(|address| meets(listen, *address)) {
            return Err(none(
                "$.upstream",
                format!("{} is where the proxy itself listens", self.upstream),
                "clients connect to `listen`, and the proxy to `upstream`",
            ));
        }
        // What another injection listens on is refused with its name once there is a plan.
        if !context.is_resource_held(&format!("listen:{listen}")) {
            context.host.check_listen(listen).map_err(|error| {
                none(
                    "$.listen",
                    format!("cannot listen on {listen}: {error}"),
                    "give a free port at an address of this host; `ss -ltn` shows those that are taken",
                )
            })?;
        }
        let mut notes = vec![
            format!("point clients to {listen}: nothing else is affected"),
            "connections through the proxy are reset when the fault ends".into(),
        ];
        if !listen.ip().is_loopback() {
            notes.push(format!(
                "meanwhile, whoever can reach {listen} can reach {} through it",
                self.upstream
            ));
        }
        Ok(ProxyAddresses {
            listen,
            upstream,
            notes,
        })
    }
}

/// The address to listen at; none where the text is not one with a port above 0.
fn listening(text: &str) -> Option<SocketAddr> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric
        .parse()
        .ok()
        .filter(|address: &SocketAddr| address.port() > 0)
}

/// The port of `host:port`; none where there is none.
fn port(text: &str) -> Option<u16> {
    let (host, port) = text.rsplit_once(':')?;
    let whole = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    port.parse().ok().filter(|port| whole && *port > 0)
}

/// Whether a connection to `upstream` would arrive at `listen`.
fn meets(listen: SocketAddr, upstream: SocketAddr) -> bool {
    let every = listen.ip().is_unspecified() && upstream.ip().is_loopback();
    listen.port() == upstream.port() && (listen.ip() == upstream.ip() || every)
}
