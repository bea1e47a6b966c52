//! The clock and the connections of this host, for a load: what `backburn_experiments::probes::load` sends its requests with.

use backburn_experiments::probes::load::LoadIo;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// This host's clock and network.
pub(crate) struct HostLoadIo {
    began: Instant,
}

impl HostLoadIo {
    pub(crate) fn new() -> Self {
        HostLoadIo {
            began: Instant::now(),
        }
    }
}

impl LoadIo for HostLoadIo {
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
