//! Noxious' own engine behind one listener, as its server starts it:
//! `noxious-proxy LISTEN UPSTREAM [LATENCY-MS]`. The latency is on what comes from upstream.

use noxious::proxy::{ProxyConfig, ProxyRunner, Runner as _, Toxics};
use noxious::signal::{Close, Stop};
use noxious::socket::TcpListener;
use noxious::toxic::{StreamDirection, Toxic, ToxicKind};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, rest @ ..] = words.as_slice() else {
        return Err(std::io::Error::other(
            "usage: noxious-proxy LISTEN UPSTREAM [LATENCY-MS]",
        ));
    };
    let mut toxics = Toxics::empty();
    if let Some(latency) = rest.first() {
        toxics.downstream.push(Toxic {
            kind: ToxicKind::Latency {
                latency: latency.parse().map_err(std::io::Error::other)?,
                jitter: 0,
            },
            name: "late".into(),
            toxicity: 1.0,
            direction: StreamDirection::Downstream,
        });
    }
    let config = ProxyConfig {
        name: "bench".into(),
        listen: listen.clone(),
        upstream: upstream.clone(),
        enabled: true,
        rand_seed: None,
    };
    let (listener, info) = ProxyRunner::initialize_proxy::<TcpListener>(config, toxics).await?;
    let (_events, receiver) = bmrng::channel(1);
    let (stop, _stopper) = Stop::new();
    let (_close, closer) = Close::new();
    ProxyRunner::run_proxy(listener, info, receiver, stop, closer).await
}
