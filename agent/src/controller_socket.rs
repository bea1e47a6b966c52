//! The agent's end of the connection to a controller: one JSON object a line over a socket, without ever waiting for the other side. A
//! controller that does not read cannot keep a fault from ending.

use backburn_experiments::protocol::UnreadableMessage;
use backburn_experiments::wire::{Command, Report};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Most bytes that may wait for the controller to read. With more, the controller counts as gone.
const MAX_UNSENT_BYTES: usize = 4 << 20;
/// Longest line of a controller, in bytes. A longer one is malformed.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The agent's end of a connection.
#[derive(Debug)]
pub struct ControllerSocket<F> {
    socket: F,
    incoming: Vec<u8>,
    unsent: VecDeque<u8>,
    closed: bool,
}

/// What one attempt to receive a command yields.
#[derive(Debug)]
pub enum IncomingCommand {
    /// No complete line has arrived.
    Nothing,
    /// The controller has closed the connection.
    Closed,
    /// A line that is no message at all; says why.
    Malformed(String),
    /// A message that this version does not know or cannot read; says why.
    Unknown(UnreadableMessage, String),
    /// A command of the controller.
    Command(Command),
}

impl<F: AsFd> ControllerSocket<F> {
    /// Serves a controller over this socket.
    pub fn new(socket: F) -> Self {
        ControllerSocket {
            socket,
            incoming: Vec::new(),
            unsent: VecDeque::new(),
            closed: false,
        }
    }

    /// Whether reports are waiting for the controller to read.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() && !self.closed
    }

    /// Sends a report, or keeps it until the socket has room.
    pub fn send(&mut self, report: &Report) {
        match serde_json::to_vec(report) {
            Ok(line) => {
                self.unsent.extend(line);
                self.unsent.push_back(b'\n');
            }
            Err(error) => tracing::error!(%error, "a report could not be written as JSON"),
        }
        self.send_unsent();
        if self.unsent.len() > MAX_UNSENT_BYTES {
            tracing::error!("the controller does not read and counts as gone");
            self.closed = true;
        }
    }

    /// Ends a line that another process may have begun.
    pub fn end_partial_line(&mut self) {
        self.unsent.push_back(b'\n');
    }

    /// Sends as much as the socket has room for.
    pub fn send_unsent(&mut self) {
        while !self.closed && !self.unsent.is_empty() {
            let (front, _) = self.unsent.as_slices();
            match rustix::net::send(
                &self.socket,
                front,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(count) => {
                    self.unsent.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.closed = true,
            }
        }
    }

    /// Sends what is left, for at most `timeout`.
    pub fn flush(&mut self, timeout: Duration) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let until = Instant::now() + timeout;
        while self.has_unsent() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let poll_timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(
                &mut [PollFd::new(&self.socket, PollFlags::OUT)],
                Some(&poll_timeout),
            ) {
                Ok(_) | Err(Errno::INTR) => self.send_unsent(),
                Err(_) => return,
            }
        }
    }

    /// The next complete command, if there is one.
    pub fn receive(&mut self) -> IncomingCommand {
        loop {
            if let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.incoming.drain(..=end).collect();
                return match serde_json::from_slice(&line) {
                    Ok(command) => IncomingCommand::Command(command),
                    Err(error) => match UnreadableMessage::of(&line) {
                        Some(message) => IncomingCommand::Unknown(message, error.to_string()),
                        None => IncomingCommand::Malformed(error.to_string()),
                    },
                };
            }
            if self.incoming.len() > MAX_LINE_BYTES {
                return IncomingCommand::Malformed(format!(
                    "a line is longer than {MAX_LINE_BYTES} bytes"
                ));
            }
            if self.closed {
                return IncomingCommand::Closed;
            }
            let mut buffer = [0; 16 * 1024];
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.closed = true,
                Ok((count, _)) => self
                    .incoming
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return IncomingCommand::Nothing,
                Err(_) => self.closed = true,
            }
        }
    }
}
