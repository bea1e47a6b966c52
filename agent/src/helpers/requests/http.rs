//! Requests of HTTP/1 (RFC 9112): which are chosen, and how they fail. TLS and HTTP/2 are passed on unchanged.

use super::Conversation;
use super::incoming::{Incoming, MAX_HEAD_BYTES};
use backburn_experiments::Problem;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::TcpStream;

/// Which requests are chosen, and what becomes of them or of their responses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HttpRule {
    /// The methods, in capitals; all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// A regular expression for the path with its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Headers that a request must have, each with a regular expression for its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The status that a request is answered with, without reaching the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The body of that answer; without `status`, the body instead of the upstream's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Headers of the answer that are set, or removed where there is no value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, Option<String>>,
}

/// The compiled patterns of a rule.
pub(super) struct HttpPatterns {
    path: Option<Regex>,
    headers: Vec<(String, Regex)>,
}

/// The most headers of a message.
const MAX_HEADERS: usize = 128;

/// Whether a text may be the name of a header (RFC 9110, `token`).
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

impl HttpRule {
    pub(super) fn patterns(&self) -> Result<HttpPatterns, regex::Error> {
        let headers = self.headers.iter().map(|(name, pattern)| {
            Regex::new(pattern).map(|pattern| (name.to_ascii_lowercase(), pattern))
        });
        Ok(HttpPatterns {
            path: self.path.as_deref().map(Regex::new).transpose()?,
            headers: headers.collect::<Result<_, _>>()?,
        })
    }

    /// What is wrong with it beyond what the fault's schema says.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |at: String, what: String, hint: &str| {
            problems.push(Problem::new(at, what).hint(hint));
        };
        for method in self.methods.iter().filter(|method| !is_token(method)) {
            let what = format!("`{method}` is not a method");
            wrong("$.method".into(), what, "such as `GET`");
        }
        let patterns = self.path.iter().map(|path| ("$.path".to_owned(), path));
        let headers = self.headers.iter();
        let headers = headers.map(|(name, pattern)| (format!("$.header.{name}"), pattern));
        for (at, pattern) in patterns.chain(headers) {
            if let Err(error) = Regex::new(pattern) {
                wrong(
                    at,
                    format!("not a regular expression: {error}"),
                    "escape `.` and `?` by `\\`",
                );
            }
        }
        let names = self.headers.keys().map(|name| ("header", name));
        let names = names.chain(
            self.response_headers
                .keys()
                .map(|name| ("response-headers", name)),
        );
        for (key, name) in names.filter(|(_, name)| !is_token(name)) {
            let what = format!("`{name}` is not the name of a header");
            wrong(format!("$.{key}.{name}"), what, "letters, digits and `-`");
        }
        for (name, value) in &self.response_headers {
            let is_framing = ["content-length", "transfer-encoding", "connection"]
                .contains(&name.to_ascii_lowercase().as_str());
            if is_framing {
                let what = format!("`{name}` says where a message ends");
                wrong(
                    format!("$.response-headers.{name}"),
                    what,
                    "`abort` cuts a connection",
                );
            }
            if value
                .as_ref()
                .is_some_and(|value| value.contains(['\r', '\n', '\0']))
            {
                let what = "a value is one line".to_owned();
                wrong(
                    format!("$.response-headers.{name}"),
                    what,
                    "leave the line break out",
                );
            }
        }
        problems
    }

    pub(super) fn describe(&self) -> String {
        let mut text = match self.methods.is_empty() {
            true => "requests".to_owned(),
            false => format!("{} requests", self.methods.join(" and ")),
        };
        if let Some(path) = &self.path {
            text += &format!(" whose path matches `{path}`");
        }
        for (name, pattern) in &self.headers {
            text += &format!(", with `{name}` matching `{pattern}`");
        }
        match self.status {
            Some(status) => text += &format!(": answered with {status}"),
            None if self.body.is_some() => text += ": the body is replaced",
            None => {}
        }
        if !self.response_headers.is_empty() {
            let names: Vec<&str> = self.response_headers.keys().map(String::as_str).collect();
            text += &format!(", with other headers ({})", names.join(", "));
        }
        text
    }

    fn matches(&self, head: &Head, patterns: &HttpPatterns) -> bool {
        let has = |(name, pattern): &(String, Regex)| {
            let mut values = head
                .headers
                .iter()
                .filter(|(known, _)| known.eq_ignore_ascii_case(name));
            values.any(|(_, value)| pattern.is_match(&String::from_utf8_lossy(value)))
        };
        (self.methods.is_empty() || self.methods.contains(&head.method))
            && (patterns.path.as_ref()).is_none_or(|path| path.is_match(&head.target))
            && patterns.headers.iter().all(has)
    }

    /// The answer that does not come from the upstream.
    fn answer(&self, status: u16, method: &str) -> Vec<u8> {
        let body = self.body.as_deref().unwrap_or_default();
        let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in &self.response_headers {
            if let Some(value) = value {
                text += &format!("{name}: {value}\r\n");
            }
        }
        let has_body = status >= 200 && status != 204 && status != 304;
        if has_body {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        if has_body && method != "HEAD" {
            text += body;
        }
        text.into_bytes()
    }
}

/// The usual words for a status; servers may leave them out.
fn reason(status: u16) -> &'static str {
    match status {
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// The head of a request or a response.
struct Head {
    /// Of a request; empty for a response.
    method: String,
    target: String,
    /// Of a response; 0 for a request.
    status: u16,
    minor_version: u8,
    headers: Vec<(String, Vec<u8>)>,
    /// How many bytes it takes. They wait where it was read until they are passed on or dropped.
    length: usize,
}

/// How long a message's body is.
enum Body {
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

    fn has_word(&self, name: &str, word: &str) -> bool {
        self.values(name)
            .any(|value| value.split(',').any(|part| part.trim() == word))
    }

    /// How long the body is; `request` is the request that this is the response to.
    fn body(&self, request: Option<&Head>) -> io::Result<Body> {
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

    fn stays_open(&self) -> bool {
        match self.minor_version {
            0 => self.has_word("connection", "keep-alive"),
            _ => !self.has_word("connection", "close"),
        }
    }

    /// The head, which came as `raw`, with other headers, and with another length of the body where one is given.
    fn patched(&self, raw: &[u8], rule: &HttpRule, length: Option<usize>) -> Vec<u8> {
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
            let is_replaced = rule
                .response_headers
                .keys()
                .any(|key| key.eq_ignore_ascii_case(name));
            let is_framing = framing.iter().any(|known| known.eq_ignore_ascii_case(name));
            let is_dropped = is_replaced || (length.is_some() && is_framing);
            if !is_dropped {
                add(name, value);
            }
        }
        for (name, value) in &rule.response_headers {
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
enum ReadHead {
    Whole(Head),
    /// Nothing more is to come.
    End,
    /// It is none of HTTP/1.
    Unknown,
}

fn read_head(from: &mut Incoming<'_>, is_request: bool) -> io::Result<ReadHead> {
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
fn pass_message(
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

/// Serves one connection until it ends.
pub(super) fn serve(
    mut talk: Conversation<'_>,
    rule: &HttpRule,
    patterns: &HttpPatterns,
) -> io::Result<()> {
    loop {
        let request = match read_head(&mut talk.client, true)? {
            ReadHead::Whole(head) => head,
            ReadHead::End => return Ok(()),
            ReadHead::Unknown => return talk.pass_rest(),
        };
        let is_chosen = talk.choice.choose(rule.matches(&request, patterns));
        let body = request.body(None)?;
        let waits_for_consent = request.has_word("expect", "100-continue");
        if is_chosen {
            talk.proxy.delay_or_abort()?;
            if let Some(status) = rule.status {
                let (mut to, stays_open) = (talk.to_client, request.stays_open());
                if !waits_for_consent {
                    pass_message(&mut talk.client, request.length, &body, None)?;
                }
                to.write_all(&rule.answer(status, &request.method))?;
                if waits_for_consent || !stays_open {
                    return Ok(());
                }
                continue;
            }
        }
        let to = Some(talk.to_upstream);
        match waits_for_consent {
            true => talk.client.pass(request.length as u64, to)?,
            false => pass_message(&mut talk.client, request.length, &body, to)?,
        }
        let response = loop {
            let response = match read_head(&mut talk.upstream, false)? {
                ReadHead::Whole(head) => head,
                // As the client would see it without a proxy.
                ReadHead::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                ReadHead::Unknown => return talk.pass_rest(),
            };
            if response.status >= 200 || response.status == 101 {
                break response;
            }
            talk.upstream
                .pass(response.length as u64, Some(talk.to_client))?;
            if response.status == 100 && waits_for_consent {
                pass_message(&mut talk.client, 0, &body, Some(talk.to_upstream))?;
            }
        };
        if response.status == 101 || request.method == "CONNECT" {
            return talk.pass_rest();
        }
        let (mut to, length) = (talk.to_client, response.length);
        let body = response.body(Some(&request))?;
        let head = talk.upstream.waiting().get(..length).unwrap_or_default();
        match &rule.body {
            Some(other) if is_chosen && !matches!(body, Body::Length(0)) => {
                let mut answer = response.patched(head, rule, Some(other.len()));
                answer.extend_from_slice(other.as_bytes());
                pass_message(&mut talk.upstream, length, &body, None)?;
                to.write_all(&answer)?;
            }
            _ if is_chosen && !rule.response_headers.is_empty() => {
                let head = response.patched(head, rule, None);
                talk.upstream.drop_front(length);
                to.write_all(&head)?;
                pass_message(&mut talk.upstream, 0, &body, Some(to))?;
            }
            _ => pass_message(&mut talk.upstream, length, &body, Some(to))?,
        }
        let ends = matches!(body, Body::UntilEnd);
        if ends || !request.stays_open() || !response.stays_open() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
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
