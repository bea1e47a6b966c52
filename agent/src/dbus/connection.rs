//! A connection to a program that speaks D-Bus at a socket of its own.

use super::message::{Call, FIXED_BYTES, Received, length_after, read};
use super::value::Value;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest line of the introduction, in bytes.
const MAX_LINE_BYTES: usize = 512;

/// A connection to a program that speaks D-Bus.
#[derive(Debug)]
pub struct BusConnection {
    socket: UnixStream,
    /// How long each answer may take.
    limit: Duration,
    serial: u32,
    /// Whether an answer may still come, or a part of one is read: nothing more can be asked.
    is_broken: bool,
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection failed, the answer took too long, or it was malformed.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The other side refused.
    #[error("{text} ({name})")]
    Refused {
        /// The error's name, e.g. `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// The error's text, for people.
        text: String,
    },
}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Connection(error) => error,
            refused @ CallError::Refused { .. } => io::Error::other(refused.to_string()),
        }
    }
}

impl BusConnection {
    /// Connects to the socket at this path, and introduces this process by its user. `limit` is how long that may take, and each
    /// answer.
    ///
    /// # Errors
    /// Nobody listens there, this user may not connect, or that took too long.
    pub fn to(path: &Path, limit: Duration) -> io::Result<Self> {
        let until = Instant::now() + limit;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // It is what limits the wait for a place in the queue of a program that accepts nobody.
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            connected => connected?,
        }
        let mut connection = BusConnection {
            socket: socket.into(),
            limit,
            serial: 0,
            is_broken: false,
        };
        let user = rustix::process::geteuid().as_raw().to_string();
        let digits: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        // In one piece: systemd does not notice a call that it reads together with `BEGIN`, and so none may follow that before it has
        // answered.
        let introduction = format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n");
        connection.send(introduction.as_bytes(), until)?;
        let answer = connection.line(until)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it answered `{answer}`"),
            ));
        }
        Ok(connection)
    }

    /// The process and the user at the other end. The process is 0 where it is in another pid namespace.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn peer(&self) -> io::Result<(i32, u32)> {
        let peer = getsockopt(&self.socket, PeerCredentials)?;
        Ok((peer.pid(), peer.uid()))
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// The other side refused, did not answer in time, or answered something malformed.
    pub fn call(&mut self, call: &Call<'_>) -> Result<Vec<Value>, CallError> {
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(io::Error::other("an earlier call was not answered").into());
        }
        let until = Instant::now() + self.limit;
        self.serial += 1;
        self.send(&call.to_bytes(self.serial), until)?;
        loop {
            let mut fixed = [0; FIXED_BYTES];
            self.receive(&mut fixed, until)?;
            let mut rest = vec![0; length_after(&fixed)?];
            self.receive(&mut rest, until)?;
            match read(&fixed, &rest)? {
                Received::Answer(serial, values) if serial == self.serial => {
                    self.is_broken = false;
                    return Ok(values);
                }
                Received::Refusal(serial, name, text) if serial == self.serial => {
                    self.is_broken = false;
                    return Err(CallError::Refused { name, text });
                }
                _ => {}
            }
        }
    }

    fn line(&mut self, until: Instant) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() >= MAX_LINE_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it does not speak D-Bus",
                ));
            }
            let mut byte = [0];
            self.receive(&mut byte, until)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn send(&mut self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(left(until)?))?;
            match self.socket.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) => may_go_on(error)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, mut place: &mut [u8], until: Instant) -> io::Result<()> {
        while !place.is_empty() {
            self.socket.set_read_timeout(Some(left(until)?))?;
            match self.socket.read(place) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => place = &mut place[length..],
                Err(error) => may_go_on(error)?,
            }
        }
        Ok(())
    }
}

/// The time that is left, which is not zero.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        false => Ok(left),
        true => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it did not answer in time",
        )),
    }
}

/// Whether to try again; how long is still left is looked at then.
fn may_go_on(error: io::Error) -> io::Result<()> {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match error.kind() {
        Interrupted | TimedOut | WouldBlock => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::BusWriter;
    use std::os::unix::net::UnixListener;

    const CALL: Call<'static> = Call {
        destination: "a.b",
        path: "/a",
        interface: "a.b.c",
        member: "Do",
        signature: "",
        arguments: BusWriter { bytes: Vec::new() },
    };
    const LIMIT: Duration = Duration::from_millis(300);

    /// How systemd 252 answered the second call of a connection, for its version.
    const VERSION: &str = "6c020101190000000100000037000000050175000100000007017300180000006f72672e667265656465736b746f702e73797374656d64310000000000000000080167000176000001730000100000003235322e33382d317e6465623132753100";
    /// How it answered a call for a unit that is not loaded.
    const NO_UNIT: &str = "6c030101220000000300000067000000050175000100000004017300230000006f72672e667265656465736b746f702e73797374656d64312e4e6f53756368556e6974000000000007017300180000006f72672e667265656465736b746f702e73797374656d6431000000000000000008016700017300001d000000556e6974206e6f737563682e74696d6572206e6f74206c6f616465642e00";

    fn bytes(digits: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    /// The outcome of a call whose other side accepts, introduces itself, and then answers with these bytes.
    fn answered_with(answer: Vec<u8>) -> Result<Vec<Value>, CallError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let other = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut heard = [0; 4096];
            let length = socket.read(&mut heard).unwrap();
            assert!(heard.starts_with(b"\0AUTH EXTERNAL "));
            assert!(heard[..length].ends_with(b"\r\nBEGIN\r\n"));
            socket.write_all(b"OK 0123\r\n").unwrap();
            assert!(socket.read(&mut heard).unwrap() > 0);
            socket.write_all(&answer).unwrap();
        });
        let outcome = BusConnection::to(&path, LIMIT)?.call(&CALL);
        other.join().unwrap();
        outcome
    }

    #[test]
    fn call_answered_as_recorded_gives_the_answer() {
        let values = answered_with(bytes(VERSION)).unwrap();
        assert_eq!(values, [Value::Text("252.38-1~deb12u1".into())]);
        let refused = answered_with(bytes(NO_UNIT)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Unit nosuch.timer not loaded. (org.freedesktop.systemd1.NoSuchUnit)"
        );
    }

    #[test]
    fn call_answered_with_every_part_of_an_answer_or_spoiled_bytes_ends() {
        let whole = bytes(VERSION);
        for length in (0..whole.len()).step_by(7) {
            let outcome = answered_with(whole[..length].to_vec());
            assert!(outcome.is_err(), "{length}: {outcome:?}");
        }
        for at in 0..whole.len() {
            let mut spoiled = whole.clone();
            spoiled[at] ^= 0xFF;
            // An error, or another text: never a panic, and never a wait without end.
            answered_with(spoiled).ok();
        }
    }

    #[test]
    fn call_answered_with_nonsense_is_an_error() {
        let fixed = |first: u8, version: u8, body: [u8; 4], fields: [u8; 4]| {
            [&[first, 2, 1, version][..], &body, &[0; 4], &fields].concat()
        };
        let cases = [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "byte order"),
            (fixed(b'l', 9, [0; 4], [0; 4]), "version"),
            (fixed(b'l', 1, [255, 255, 255, 127], [0; 4]), "too long"),
            (fixed(b'B', 1, [0; 4], [127, 255, 255, 255]), "too long"),
        ];
        for (answer, expected) in cases {
            let error = answered_with(answer).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn connection_that_is_never_accepted_ends_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let error = BusConnection::to(&path, LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
