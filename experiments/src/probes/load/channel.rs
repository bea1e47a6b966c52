//! A connection of a load, with TLS or without.

use core::time::Duration;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};

/// A connection as a host provides it.
pub trait LoadStream: Read + Write + Send {
    /// Sets how long a read or a write waits before it fails with `WouldBlock` or `TimedOut`. More than 0.
    ///
    /// # Errors
    /// What the kernel said.
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;

    /// Sets whether reads and writes wait at all.
    ///
    /// # Errors
    /// What the kernel said.
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;
}

/// A connection, with TLS or without.
pub(super) enum Channel<S: LoadStream> {
    Plain(S),
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

impl<S: LoadStream> Channel<S> {
    fn stream(&self) -> &S {
        match self {
            Channel::Plain(stream) => stream,
            Channel::Tls(tls) => &tls.sock,
        }
    }

    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream().set_timeout(timeout)
    }

    /// Whether a connection of which nothing is awaited is still open: what has come unasked spoils it as well.
    pub(super) fn is_usable(&mut self) -> bool {
        if self.stream().set_nonblocking(true).is_err() {
            return false;
        }
        let came = self.read(&mut [0]);
        let is_quiet = matches!(came, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.stream().set_nonblocking(false).is_ok() && is_quiet
    }
}

impl<S: LoadStream> Read for Channel<S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(stream) => stream.read(room),
            Channel::Tls(tls) => tls.read(room),
        }
    }
}

impl<S: LoadStream> Write for Channel<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(stream) => stream.write(bytes),
            Channel::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Channel::Plain(stream) => stream.flush(),
            Channel::Tls(tls) => tls.flush(),
        }
    }
}
