//! What comes on one way of a connection, piece by piece, and is passed on or dropped.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};

/// How much is read at once.
const STEP_BYTES: usize = 16 << 10;
/// The longest line, and the longest head of a message.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;

/// What comes from one end, with what was read of it and is not passed on yet.
pub(super) struct Incoming<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        Incoming {
            stream,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// What was read and is not passed on yet.
    pub(super) fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Reads more. False at the end.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(STEP_BYTES);
        loop {
            // Not through `Read`, which wants the room filled with zeroes for every message.
            match rustix::io::read(
                self.stream,
                rustix::buffer::spare_capacity(&mut self.buffer),
            ) {
                Err(rustix::io::Errno::INTR) => {}
                read => return Ok(read? > 0),
            }
        }
    }

    /// Drops so much of what waits.
    pub(super) fn drop_front(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
    }

    /// Takes so much of what waits, and reads more where less does.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.waiting().len() < count {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let taken = self.waiting().get(..count).unwrap_or_default().to_vec();
        self.drop_front(count);
        Ok(taken)
    }

    /// The line, with its end, that begins so many bytes into what waits; none where it is not whole yet.
    pub(super) fn line_after(&self, offset: usize) -> Option<&[u8]> {
        let rest = self.waiting().get(offset..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        rest.get(..=end)
    }

    /// Reads more of a line. An error where it is too long, or nothing more comes.
    pub(super) fn fill_line(&mut self) -> io::Result<()> {
        if self.waiting().len() > MAX_HEAD_BYTES {
            return Err(io::Error::other("a line is too long"));
        }
        match self.fill()? {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Takes a line with its end; none where nothing more comes.
    pub(super) fn take_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(length) = self.line_after(0).map(<[u8]>::len) {
                return self.take(length).map(Some);
            }
            if !self.waiting().is_empty() {
                self.fill_line()?;
            } else if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Passes so many bytes on, or drops them where nobody is to get them.
    pub(super) fn pass(&mut self, mut count: u64, to: Option<&TcpStream>) -> io::Result<()> {
        while count > 0 {
            if self.waiting().is_empty() && !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = self
                .waiting()
                .len()
                .min(usize::try_from(count).unwrap_or(usize::MAX));
            if let Some(mut to) = to {
                to.write_all(self.waiting().get(..step).unwrap_or_default())?;
            }
            self.drop_front(step);
            count -= step as u64;
        }
        Ok(())
    }

    /// Passes everything on until the end.
    pub(super) fn pass_all(&mut self, to: Option<&TcpStream>) -> io::Result<()> {
        loop {
            let waiting = self.waiting().len();
            self.pass(waiting as u64, to)?;
            if !self.fill()? {
                return Ok(());
            }
        }
    }
}

/// Passes everything on, both ways, until both ends have closed.
pub(super) fn pass_both(mut client: Incoming<'_>, mut upstream: Incoming<'_>) -> io::Result<()> {
    let (to_client, to_upstream) = (client.stream, upstream.stream);
    std::thread::scope(|threads| {
        let down = std::thread::Builder::new().spawn_scoped(threads, move || {
            let passed = upstream.pass_all(Some(to_client));
            // It may have been closed there already.
            to_client.shutdown(Shutdown::Write).ok();
            passed
        })?;
        let passed = client.pass_all(Some(to_upstream));
        to_upstream.shutdown(Shutdown::Write).ok();
        let down = down
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")));
        passed.and(down)
    })
}
