//! The transport of loads: a thread of its own with blocking connections, so that requests are sent when they are due whatever the runtime
//! has to do. When requests are due and what their ends are worth stands in `backburn_experiments::probes::load`.

use super::{ProbeError, ProbeResult, tls};
use backburn_experiments::HumanDuration;
use backburn_experiments::destination::DestinationRules;
use backburn_experiments::probes::load::{LoadGenerator, LoadIo, LoadPlan};
use backburn_experiments::probes::{LoadProvider, no_address, not_resolved};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Sends the load, and waits until all of it has ended. The load ends soon after the future is dropped.
pub(super) async fn measure(
    provider: &LoadProvider,
    timeout: Option<HumanDuration>,
    destinations: &DestinationRules,
) -> ProbeResult {
    let plan = LoadPlan::new(provider, timeout).map_err(ProbeError::Broken)?;
    let addresses = addresses(&plan, destinations).await?;
    let io = OwnLoadIo {
        began: Instant::now(),
    };
    let tls = match plan.is_tls {
        true => Some(tls::config(provider.verify_tls.unwrap_or(true)).await?),
        false => None,
    };
    let generator = StopsWhenDropped(Arc::new(LoadGenerator::new(io, addresses, plan, tls)));
    let (done, ended) = oneshot::channel();
    let sending = Arc::clone(&generator.0);
    std::thread::Builder::new()
        .name("load".into())
        .spawn(move || {
            if let Err(error) = nix::sys::prctl::set_timerslack(1) {
                tracing::debug!(%error, "requests may be sent up to 50 µs late");
            }
            sending.run();
            done.send(()).ok();
        })
        .map_err(|error| ProbeError::Broken(format!("no thread for the load: {error}")))?;
    ended
        .await
        .map_err(|_| ProbeError::Broken("the load ended early".into()))?;
    generator.0.value()
}

/// The addresses of the target that may be asked.
async fn addresses(
    plan: &LoadPlan,
    destinations: &DestinationRules,
) -> Result<Vec<SocketAddr>, ProbeError> {
    let host = plan.host.trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((host, plan.port))
        .await
        .map_err(|error| not_resolved(host, &error))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        return Err(no_address(host));
    }
    destinations
        .permitted(host, &found)
        .map_err(ProbeError::Broken)
}

/// A load that nobody waits for any more is stopped.
struct StopsWhenDropped(Arc<LoadGenerator<OwnLoadIo>>);

impl Drop for StopsWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The clock and the network of the controller's own host.
struct OwnLoadIo {
    began: Instant,
}

impl LoadIo for OwnLoadIo {
    type Stream = TcpStream;

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn connect(&self, to: SocketAddr, within: Duration) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&to, within)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn set_timeout(&self, stream: &TcpStream, timeout: Duration) -> io::Result<()> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))
    }

    fn set_nonblocking(&self, stream: &TcpStream, nonblocking: bool) -> io::Result<()> {
        stream.set_nonblocking(nonblocking)
    }
}
