//! A proxy for TCP: it listens, passes each connection on to an upstream, and harms those that it
//! is told to. Wants no rights and touches nothing but what comes to it.

mod accepting;
mod connection;
mod counters;
mod relay;
mod stream_effects;
mod throttle;

pub(crate) use accepting::bound;
pub(super) use accepting::{open_files_unlimited, serve_connections};
pub(super) use connection::{connect, resets_when_dropped};
pub(crate) use counters::counted;
pub use stream_effects::{Slicer, StreamEffects};

use super::HelperError;
use super::bootstrap::HelperProcess;
use super::display::size;
use super::evidence::{effect, effect_of_living};
use super::helper::{AlteredPlace, Helper};
use super::memory::MemoryBallast;
use crate::processes::ProcessTable;
use backburn_experiments::HumanDuration;
use backburn_experiments::wire::Effect;
use counters::{ConnectionCounter, Counters};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// A proxy, as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proxy {
    /// The address at which the proxy accepts connections.
    pub listen: SocketAddr,
    /// Where it passes connections on to, as it was written.
    pub upstream_name: String,
    /// Its addresses: the first that answers is taken.
    pub upstream: Vec<SocketAddr>,
    /// What is done to what clients send.
    pub to_upstream: StreamEffects,
    /// What is done to what upstream sends.
    pub to_client: StreamEffects,
    /// Connections are reset so long after they were accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<HumanDuration>,
    /// The chance of each connection to be harmed, in percent.
    pub share: f64,
    /// What that, jitter and pieces are drawn from.
    pub seed: u64,
}

/// What is to be done to one connection.
struct ConnectionPlan {
    to_upstream: StreamEffects,
    to_client: StreamEffects,
    reset: Option<HumanDuration>,
    rngs: [ChaCha8Rng; 2],
}

impl Proxy {
    /// What the n-th connection gets.
    fn choose(&self, number: u64) -> ConnectionPlan {
        let numbers = |which: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            // A stream of its own for each use, so that none depends on how far another came.
            rng.set_stream(number.wrapping_mul(4).wrapping_add(which));
            rng
        };
        let draw = (numbers(0).next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let affected = 100.0 * draw < self.share;
        let harm = |harm: &StreamEffects| match affected {
            true => harm.clone(),
            false => StreamEffects::default(),
        };
        ConnectionPlan {
            to_upstream: harm(&self.to_upstream),
            to_client: harm(&self.to_client),
            reset: self.reset.filter(|_| affected),
            rngs: [numbers(1), numbers(2)],
        }
    }
}

impl Helper for Proxy {
    fn run(&self, process: &HelperProcess) -> Result<(), HelperError> {
        run(self, process)
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "listen on {} and pass connections on to {}",
            self.listen, self.upstream_name
        );
        for (way, effects) in [
            ("to upstream", &self.to_upstream),
            ("to the client", &self.to_client),
        ] {
            if !effects.is_none() {
                text += &format!("; {way}: {}", effects.describe());
            }
        }
        if let Some(reset) = self.reset {
            text += &format!("; reset after {reset}");
        }
        if self.share < 100.0 {
            text += &format!("; {}% of them harmed", self.share);
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
            let counted = counted(id, table)?;
            Some(effect(
                counted.affected > 0,
                format!(
                    "{} connections, {} of them harmed, {} passed on",
                    counted.connections,
                    counted.affected,
                    size(counted.bytes)
                ),
                &[
                    ("connections", counted.connections as f64),
                    ("harmed-connections", counted.affected as f64),
                    ("passed-bytes", counted.bytes as f64),
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

fn run(proxy: &Proxy, process: &HelperProcess) -> Result<(), HelperError> {
    // Before anything else that is an eventfd: they are found by their order.
    let counters = Counters::new()
        .map_err(|error| HelperError::new(format!("counters: {}", io::Error::from(error))))?;
    let passed = proxy.clone();
    let service = move |client: &TcpStream, number: u64| {
        counters.connection();
        let tally = ConnectionCounter::new(&counters);
        connection::pass_on(client, &passed, passed.choose(number), &tally)
    };
    serve_connections(proxy.listen, process, Arc::new(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_seed_selects_connections_by_share() {
        let proxy = |share: f64, seed: u64| Proxy {
            listen: "127.0.0.1:1".parse().expect("an address"),
            upstream_name: String::new(),
            upstream: Vec::new(),
            to_upstream: StreamEffects::default(),
            to_client: StreamEffects::default(),
            reset: Some(HumanDuration::seconds(1)),
            share,
            seed,
        };
        let affected = |proxy: &Proxy| -> Vec<u64> {
            (0..10_000)
                .filter(|number| proxy.choose(*number).reset.is_some())
                .collect()
        };
        let third = affected(&proxy(30.0, 7));
        assert!((2850..=3150).contains(&third.len()), "{}", third.len());
        assert_eq!(third, affected(&proxy(30.0, 7)));
        assert_ne!(third, affected(&proxy(30.0, 8)));
        assert_eq!(affected(&proxy(100.0, 7)).len(), 10_000);
    }
}
