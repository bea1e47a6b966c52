//! Messages of HTTP/1 (RFC 9112): where their heads and bodies end, and how they are passed on.

use super::incoming::{Incoming, MAX_HEAD_BYTES};
use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;

/// The most headers of a message.
const MAX_HEADERS: usize = 128;

/// The head of a request or a response.
pub(super) struct Head {
    /// Of a request; empty for a response.
    pub(super) method: String,
    pub(super) target: String,
    /// Of a response; 0 for a request.
    pub(super) status: u16,
    minor_version: u8,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// How many bytes it takes. They wait where it was read until they are passed on or dropped.
    pub(super) length: usize,
}

/// How long a message's body is.
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilEnd,
}

impl Head {
    fn values(&self, name: &str) -> impl Iterator<Item = String> {
        let found = self
            .headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase())
    }

    pub(super) fn has_word(&self, name: &str, word: &str) -> bool {
        self.values(name)
            .any(|value| value.split(',').any(|part| part.trim() == word))
    }

    /// How long the body is; `request` is the request that this is the response to.
    pub(super) fn body(&self, request: Option<&Head>) -> io::Result<Body> {
        if let Some(request) = request {
            let is_bodyless = request.method == "HEAD" || self.status < 200;
            if is_bodyless || matches!(self.status, 204 | 304) {
                return Ok(Body::Length(0));
            }
        }
        if self.has_word("transfer-encoding", "chunked") {
            return Ok(Body::Chunked);
        }
        match (self.values("content-length").next(), request) {
            (Some(length), _) => {
                let length = length.trim().parse().map_err(io::Error::other)?;
                Ok(Body::Length(length))
            }
            (None, Some(_)) => Ok(Body::UntilEnd),
            (None, None) => Ok(Body::Length(0)),
        }
    }

    pub(super) fn stays_open(&self) -> bool {
        match self.minor_version {
            0 => self.has_word("connection", "keep-alive"),
            _ => !self.has_word("connection", "close"),
        }
    }

    /// The head, which came as `raw`, with other headers (those without a value are left out), and with another length of the body where
    /// one is given.
    pub(super) fn patched(
        &self,
        raw: &[u8],
        others: &BTreeMap<String, Option<String>>,
        length: Option<usize>,
    ) -> Vec<u8> {
        let line = raw.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut text = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        text.extend_from_slice(b"\r\n");
        let framing = ["content-length", "transfer-encoding", "content-encoding"];
        let mut add = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                text.extend_from_slice(part);
            }
        };
        for (name, value) in &self.headers {
            let is_replaced = others.keys().any(|key| key.eq_ignore_ascii_case(name));
            let is_framing = framing.iter().any(|known| known.eq_ignore_ascii_case(name));
            let is_dropped = is_replaced || (length.is_some() && is_framing);
            if !is_dropped {
                add(name, value);
            }
        }
        for (name, value) in others {
            if let Some(value) = value {
                add(name, value.as_bytes());
            }
        }
        if let Some(length) = length {
            add("Content-Length", length.to_string().as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        text
    }
}

/// What was read of a head.
pub(super) enum ReadHead {
    /// All of it; its bytes still wait.
    Whole(Head),
    /// Nothing more is to come.
    End,
    /// It is none of HTTP/1.
    Unknown,
}

/// Reads the head of the next message. An error where the connection fails.
pub(super) fn read_head(from: &mut Incoming<'_>, is_request: bool) -> io::Result<ReadHead> {
    loop {
        let waiting = from.waiting();
        if !waiting.is_empty() {
            match parse(waiting, is_request) {
                Err(()) => return Ok(ReadHead::Unknown),
                Ok(Some(head)) => return Ok(ReadHead::Whole(head)),
                Ok(None) if waiting.len() > MAX_HEAD_BYTES => return Ok(ReadHead::Unknown),
                Ok(None) => {}
            }
        }
        if !from.fill()? {
            return match from.waiting().is_empty() {
                true => Ok(ReadHead::End),
                false => Ok(ReadHead::Unknown),
            };
        }
    }
}

/// Parses a head; none where it is not whole yet.
fn parse(bytes: &[u8], is_request: bool) -> Result<Option<Head>, ()> {
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let owned = |headers: &[httparse::Header<'_>]| {
        let headers = headers.iter();
        headers
            .map(|header| (header.name.to_owned(), header.value.to_vec()))
            .collect()
    };
    let (parsed, mut head) = if is_request {
        let mut request = httparse::Request::new(&mut room);
        let parsed = request.parse(bytes).map_err(drop)?;
        let head = Head {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            status: 0,
            minor_version: request.version.unwrap_or(1),
            headers: owned(request.headers),
            length: 0,
        };
        (parsed, head)
    } else {
        let mut response = httparse::Response::new(&mut room);
        let parsed = response.parse(bytes).map_err(drop)?;
        let head = Head {
            method: String::new(),
            target: String::new(),
            status: response.code.unwrap_or_default(),
            minor_version: response.version.unwrap_or(1),
            headers: owned(response.headers),
            length: 0,
        };
        (parsed, head)
    };
    match parsed {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            head.length = length;
            Ok(Some(head))
        }
    }
}

/// Passes the first `head` bytes of what waits and the body after them on, or drops them. What is there at once goes in one piece.
pub(super) fn pass_message(
    from: &mut Incoming<'_>,
    head: usize,
    body: &Body,
    to: Option<&TcpStream>,
) -> io::Result<()> {
    match body {
        Body::Length(length) => from.pass(length.saturating_add(head as u64), to),
        Body::UntilEnd => {
            from.pass(head as u64, to)?;
            from.pass_all(to)
        }
        Body::Chunked => pass_chunks(from, head, to),
    }
}

/// Passes chunks on after the first `head` bytes of what waits.
fn pass_chunks(from: &mut Incoming<'_>, head: usize, to: Option<&TcpStream>) -> io::Result<()> {
    // How much of what waits is known to belong to the message.
    let mut known = head;
    let mut is_trailer = false;
    loop {
        let Some(line) = from.line_after(known) else {
            from.pass(known as u64, to)?;
            known = 0;
            from.fill_line()?;
            continue;
        };
        let (length, is_empty) = (line.len(), line.trim_ascii().is_empty());
        let chunk = match is_trailer {
            true => 0,
            false => chunk_length(line)?,
        };
        known += length;
        // Trailers end with an empty line.
        if is_trailer && is_empty {
            return from.pass(known as u64, to);
        }
        is_trailer |= chunk == 0;
        if !is_trailer {
            let end = chunk.saturating_add(2).saturating_add(known as u64);
            match usize::try_from(end) {
                Ok(end) if end <= from.waiting().len() => known = end,
                _ => {
                    from.pass(end, to)?;
                    known = 0;
                }
            }
        }
    }
}

/// The length of a chunk, by the line before it.
fn chunk_length(line: &[u8]) -> io::Result<u64> {
    let text = String::from_utf8_lossy(line);
    let size = text.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(size, 16).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener};

    /// Both ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// What is passed on of a response that comes in such pieces, and what waits afterwards; none where it is refused.
    fn passed<'a>(pieces: impl Iterator<Item = &'a [u8]> + Send) -> Option<(String, String)> {
        let ((mut server, from), (to, mut client)) = (connection(), connection());
        server.set_nodelay(true).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(move || {
                for piece in pieces {
                    server.write_all(piece).unwrap();
                }
                server.shutdown(Shutdown::Write).unwrap();
            });
            let mut incoming = Incoming::new(&from);
            let ReadHead::Whole(head) = read_head(&mut incoming, false).unwrap() else {
                return None;
            };
            let request = parse(b"GET / HTTP/1.1\r\n\r\n", true).unwrap().unwrap();
            let body = head.body(Some(&request)).unwrap();
            pass_message(&mut incoming, head.length, &body, Some(&to)).ok()?;
            to.shutdown(Shutdown::Write).unwrap();
            let (mut there, mut left) = (String::new(), String::new());
            client.read_to_string(&mut there).unwrap();
            while incoming.fill().unwrap() {}
            left.push_str(std::str::from_utf8(incoming.waiting()).unwrap());
            Some((there, left))
        })
    }

    #[test]
    fn response_in_any_pieces_is_passed_on_as_it_is() {
        let next = "HTTP/1.1 204 No Content\r\n\r\n";
        for message in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nc;x=y\r\n, all of you\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\n\n\r\n0\r\nDigest: a\r\nAge: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ] {
            let both = [message, next].concat();
            for size in [1, 7, both.len()] {
                let said = passed(both.as_bytes().chunks(size))
                    .unwrap_or_else(|| panic!("{size}: {message}"));
                assert_eq!(said, (message.to_owned(), next.to_owned()), "{size}");
            }
        }
        for wrong in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAge: 0\r\n",
        ] {
            assert_eq!(passed(wrong.as_bytes().chunks(7)), None, "{wrong}");
        }
    }
}
