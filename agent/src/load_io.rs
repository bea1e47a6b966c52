//! The clock and the connections of this host, for a load: what `backburn_experiments::probes::load` sends its requests with.

use backburn_experiments::probes::load::{LoadIo, LoadStream};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connections to the first of these addresses that accepts.
pub(crate) struct HostLoadIo {
    addresses: Vec<SocketAddr>,
    began: Instant,
}

impl HostLoadIo {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        HostLoadIo {
            addresses,
            began: Instant::now(),
        }
    }
}

impl LoadIo for HostLoadIo {
    type Stream = HostLoadStream;

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn connect(&self, within: Duration) -> io::Result<HostLoadStream> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        let end = Instant::now() + within;
        for address in &self.addresses {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(address, left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(HostLoadStream(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A TCP connection of a load.
pub(crate) struct HostLoadStream(TcpStream);

impl LoadStream for HostLoadStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(timeout))?;
        self.0.set_write_timeout(Some(timeout))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
}

impl Read for HostLoadStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for HostLoadStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
