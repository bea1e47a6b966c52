//! One connection through a proxy, on a thread of its own: both of its ways, its deadlines and its
//! end. One `poll` for whatever comes next.

use super::counters::ConnectionCounter;
use super::relay::StreamRelay;
use super::{ConnectionPlan, Proxy};
use crate::precise_timer::poll_timeout;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an upstream may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionEnd {
    /// Both sides have all that was meant for them.
    Closed,
    /// By a reset, at both ends.
    Reset,
}

/// Passes on what comes, until the connection's end. An error is an end by reset.
pub(super) fn pass_on(
    client: &TcpStream,
    proxy: &Proxy,
    chosen: ConnectionPlan,
    counter: &ConnectionCounter<'_>,
) -> io::Result<()> {
    let accepted = Instant::now();
    let upstream = connect(&proxy.upstream)?;
    for end in [client, &upstream] {
        resets_when_dropped(end)?;
        // Whoever writes has gathered what he wanted to; it is not gathered again.
        end.set_nodelay(true)?;
        end.set_nonblocking(true)?;
    }
    let connection = ProxiedConnection {
        client,
        upstream: &upstream,
        reset: chosen.reset.map(|after| accepted + after.0),
        close: [chosen.to_upstream.timeout, chosen.to_client.timeout]
            .into_iter()
            .flatten()
            .min()
            .map(|after| accepted + after.0),
        counter,
    };
    if connection.close.is_some() {
        counter.affected();
    }
    let [up, down] = chosen.rngs;
    let now = Instant::now();
    let mut up = StreamRelay::new(chosen.to_upstream, up, now)?;
    let mut down = StreamRelay::new(chosen.to_client, down, now)?;
    match connection.serve(&mut up, &mut down)? {
        ConnectionEnd::Reset => Ok(()),
        ConnectionEnd::Closed => {
            for end in [client, &upstream] {
                // It may have been closed there already.
                drop(end.shutdown(std::net::Shutdown::Write));
                set_socket_linger(end, None)?;
            }
            Ok(())
        }
    }
}

/// Has the kernel reset a connection when its socket is closed, by this process or by its death: what broke
/// off is not to be taken for what is whole.
pub(in crate::helpers) fn resets_when_dropped(end: &TcpStream) -> io::Result<()> {
    Ok(set_socket_linger(end, Some(Duration::ZERO))?)
}

/// A connection to the first of the addresses that answers.
pub(in crate::helpers) fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::other("it has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(upstream) => return Ok(upstream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

struct ProxiedConnection<'a> {
    client: &'a TcpStream,
    upstream: &'a TcpStream,
    /// When it is reset.
    reset: Option<Instant>,
    /// When it is closed.
    close: Option<Instant>,
    counter: &'a ConnectionCounter<'a>,
}

impl ProxiedConnection<'_> {
    fn serve(&self, up: &mut StreamRelay, down: &mut StreamRelay) -> io::Result<ConnectionEnd> {
        loop {
            let now = Instant::now();
            if self.reset.is_some_and(|at| at <= now) {
                self.counter.affected();
                return Ok(ConnectionEnd::Reset);
            }
            if self.close.is_some_and(|at| at <= now) {
                return Ok(ConnectionEnd::Closed);
            }
            let moved = up.advance(self.client, self.upstream, now, self.counter)
                | down.advance(self.upstream, self.client, now, self.counter);
            let at_limit = |way: &StreamRelay| way.is_ended() && way.is_at_its_limit();
            if (up.is_ended() && down.is_ended()) || at_limit(up) || at_limit(down) {
                return Ok(ConnectionEnd::Closed);
            }
            if (up.is_broken(now) || down.is_broken(now)) && up.is_empty() && down.is_empty() {
                return Ok(ConnectionEnd::Reset);
            }
            if !moved {
                self.wait(up, down, now)?;
            }
        }
    }

    /// Until one end has something or takes something that is wanted, or something is due.
    fn wait(&self, up: &mut StreamRelay, down: &mut StreamRelay, now: Instant) -> io::Result<()> {
        let (ups, downs) = (up.wants(now), down.wants(now));
        let due = [self.reset, self.close, ups.due, downs.due];
        let timeout = poll_timeout(due.into_iter().flatten().min(), now);
        let client = wanted(ups.input, downs.output);
        let upstream = wanted(downs.input, ups.output);
        // An end of which nothing is wanted is left out: that it hung up would wake this thread for ever.
        let mut ends = Vec::with_capacity(2);
        for (end, wanted) in [(self.client, client), (self.upstream, upstream)] {
            if !wanted.is_empty() {
                ends.push(PollFd::new(end, wanted));
            }
        }
        match poll(&mut ends, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut ends = ends.iter().map(PollFd::revents);
        let mut seen = |wanted: PollFlags| match wanted.is_empty() {
            true => PollFlags::empty(),
            false => ends.next().unwrap_or(PollFlags::empty()),
        };
        let (client, upstream) = (seen(client), seen(upstream));
        let failed = PollFlags::ERR | PollFlags::HUP;
        up.readable |= client.intersects(PollFlags::IN | failed);
        down.writable |= client.intersects(PollFlags::OUT | failed);
        down.readable |= upstream.intersects(PollFlags::IN | failed);
        up.writable |= upstream.intersects(PollFlags::OUT | failed);
        Ok(())
    }
}

fn wanted(input: bool, output: bool) -> PollFlags {
    let mut wanted = PollFlags::empty();
    wanted.set(PollFlags::IN, input);
    wanted.set(PollFlags::OUT, output);
    wanted
}
