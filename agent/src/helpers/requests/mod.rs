//! A proxy that knows requests: it listens, passes each request on to an upstream, and fails or delays those that it is told to. One file
//! for each protocol; what it does not understand, such as TLS, it passes on unchanged.

mod grpc;
mod hpack;
mod http;
mod http2;
mod http_message;
mod incoming;
mod postgres;
mod redis;

pub use grpc::GrpcRule;
pub use http::HttpRule;
pub use postgres::PostgresRule;
pub use redis::RedisRule;

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::event_counts::{EventCount, event_counts};
use super::evidence::{effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use super::proxy::{connect, resets_when_dropped, serve_connections};
use crate::processes::ProcessTable;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use incoming::{Incoming, pass_both};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A proxy for requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RequestProxy {
    /// The address at which the proxy accepts connections.
    pub listen: SocketAddr,
    /// Where it passes requests on to, as it was written.
    pub upstream_name: String,
    /// Its addresses: the first that answers is taken.
    pub upstream: Vec<SocketAddr>,
    /// Which requests, and what becomes of them.
    pub rule: RequestRule,
    /// How long a chosen request waits first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<HumanDuration>,
    /// Whether the connection of a chosen request is reset.
    #[serde(default)]
    pub abort: bool,
    /// The chance of each matching request to be chosen, in percent.
    pub percent: f64,
    /// What that is drawn from.
    pub seed: u64,
}

/// Which requests of a protocol are meant, and how they fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case")]
pub enum RequestRule {
    /// Calls of gRPC over HTTP/2.
    Grpc(GrpcRule),
    /// Requests by HTTP of version 1.
    Http(HttpRule),
    /// Statements to a PostgreSQL server.
    Postgres(PostgresRule),
    /// Commands to a Redis server.
    Redis(RedisRule),
}

impl Helper for RequestProxy {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        let which = match &self.rule {
            RequestRule::Grpc(rule) => rule.describe(),
            RequestRule::Http(rule) => rule.describe(),
            RequestRule::Postgres(rule) => rule.describe(),
            RequestRule::Redis(rule) => rule.describe(),
        };
        let share = match self.percent {
            percent if percent < 100.0 => format!(" ({percent} % of them)"),
            _ => String::new(),
        };
        let mut text = format!(
            "listen on {} and pass requests on to {}; {which}{share}",
            self.listen, self.upstream_name
        );
        if let Some(delay) = self.delay {
            text += &format!(", after {delay}");
        }
        if self.abort {
            text += match self.rule {
                RequestRule::Grpc(_) => ", by a reset of the call",
                _ => ", by a reset of the connection",
            };
        }
        text
    }

    fn describe_end(&self) -> &'static str {
        "the kernel closes what it listened on and resets what passed through it"
    }

    fn holds(&self) -> Vec<String> {
        vec![format!("listen:{}", self.listen)]
    }

    fn altered_place(&self) -> AlteredPlace<'_> {
        AlteredPlace::Nowhere
    }

    fn effect(&self, helper: i32, table: &ProcessTable) -> Effect {
        effect_of_living(helper, table, |id, table| {
            let counts = event_counts(id, table)?;
            let (requests, affected) = (*counts.first()?, *counts.get(1)?);
            Some(effect(
                affected > 0,
                format!("{requests} requests, {affected} of them affected"),
                &[
                    ("affected-requests", affected as f64),
                    ("requests", requests as f64),
                ],
            ))
        })
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    /// The kernel closes a dead process's sockets before the process is gone.
    fn residue(&self, _: &ProcessTable) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }

    type Substitute = MemoryBallast;

    fn substitute(_: &Value) -> Option<MemoryBallast> {
        Some(MemoryBallast::NONE)
    }
}

/// What all connections share.
struct Choice {
    /// The number of requests so far.
    requests: EventCount,
    /// Those that failed or waited.
    affected: EventCount,
    number: AtomicU64,
    percent: f64,
    seed: u64,
}

impl Choice {
    /// Whether the next request is chosen; only one that matches can be.
    fn choose(&self, matches: bool) -> bool {
        self.requests.add(1);
        if !matches {
            return false;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.number.fetch_add(1, Ordering::Relaxed));
        let draw = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let is_chosen = 100.0 * draw < self.percent;
        if is_chosen {
            self.affected.add(1);
        }
        is_chosen
    }
}

/// One connection of a client, with the one to the upstream once there is one.
struct Conversation<'a> {
    client: Incoming<'a>,
    to_client: &'a TcpStream,
    upstream: Incoming<'a>,
    to_upstream: &'a TcpStream,
    proxy: &'a RequestProxy,
    choice: &'a Choice,
}

impl RequestProxy {
    /// Has a chosen request wait. An error where its connection is to be reset.
    fn delay_or_abort(&self) -> io::Result<()> {
        if let Some(delay) = self.delay {
            std::thread::sleep(delay.0);
        }
        match self.abort {
            true => Err(io::Error::other("reset as asked")),
            false => Ok(()),
        }
    }
}

impl Conversation<'_> {
    /// Passes on what is left, both ways, without a look at it.
    fn pass_rest(self) -> io::Result<()> {
        pass_both(self.client, self.upstream)
    }
}

fn run(proxy: &RequestProxy, process: &HelperProcess) -> Result<(), HelperError> {
    let count = || {
        EventCount::new()
            .map_err(|error| HelperError::new(format!("counters: {}", io::Error::from(error))))
    };
    let choice = Choice {
        requests: count()?,
        affected: count()?,
        number: AtomicU64::new(0),
        percent: proxy.percent,
        seed: proxy.seed,
    };
    let wrong = |error: regex::Error| HelperError::new(error.to_string());
    let patterns = match &proxy.rule {
        RequestRule::Grpc(rule) => Patterns::Grpc(rule.patterns().map_err(wrong)?),
        RequestRule::Http(rule) => Patterns::Http(rule.patterns().map_err(wrong)?),
        RequestRule::Postgres(rule) => Patterns::Postgres(rule.pattern().map_err(wrong)?),
        RequestRule::Redis(rule) => Patterns::Redis(rule.pattern().map_err(wrong)?),
    };
    let passed = proxy.clone();
    let service = move |client: &TcpStream, _: u64| {
        let upstream = connect(&passed.upstream)?;
        for end in [client, &upstream] {
            resets_when_dropped(end)?;
            end.set_nodelay(true)?;
        }
        let conversation = Conversation {
            client: Incoming::new(client),
            to_client: client,
            upstream: Incoming::new(&upstream),
            to_upstream: &upstream,
            proxy: &passed,
            choice: &choice,
        };
        match (&passed.rule, &patterns) {
            (RequestRule::Grpc(rule), Patterns::Grpc(patterns)) => {
                grpc::serve(conversation, rule, patterns)?;
            }
            (RequestRule::Http(rule), Patterns::Http(patterns)) => {
                http::serve(conversation, rule, patterns)?;
            }
            (RequestRule::Postgres(rule), Patterns::Postgres(pattern)) => {
                postgres::serve(conversation, rule, pattern.as_ref())?;
            }
            (RequestRule::Redis(rule), Patterns::Redis(pattern)) => {
                redis::serve(conversation, rule, pattern.as_ref())?;
            }
            _ => {}
        }
        // All of it arrived: closed, and not reset.
        for end in [client, &upstream] {
            end.shutdown(Shutdown::Write).ok();
            rustix::net::sockopt::set_socket_linger(end, None)?;
        }
        Ok(())
    };
    serve_connections(proxy.listen, process, Arc::new(service))
}

/// The patterns of a rule, once they are compiled.
enum Patterns {
    Grpc(grpc::HeaderPatterns),
    Http(http::HttpPatterns),
    Postgres(Option<regex::bytes::Regex>),
    Redis(Option<regex::bytes::Regex>),
}
