//! A connection of a load, with TLS or without.

use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};

/// A connection, with TLS or without.
pub(super) enum Channel<S: Read + Write> {
    Plain(S),
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

impl<S: Read + Write> Channel<S> {
    /// The connection as the host made it.
    pub(super) fn stream(&self) -> &S {
        match self {
            Channel::Plain(stream) => stream,
            Channel::Tls(tls) => &tls.sock,
        }
    }
}

impl<S: Read + Write> Read for Channel<S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(stream) => stream.read(room),
            Channel::Tls(tls) => tls.read(room),
        }
    }
}

impl<S: Read + Write> Write for Channel<S> {
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
