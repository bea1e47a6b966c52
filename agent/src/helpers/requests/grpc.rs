//! Calls of gRPC over HTTP/2 without TLS (RFC 9113): which are chosen, and how they fail. Each call is a stream of its own, so a chosen
//! one fails alone, and others on its connection pass. Header fields are written anew on the way, since a call that is left out would be
//! missing in the dynamic table of the upstream. What does not begin as HTTP/2 does, such as TLS, passes unchanged.

use super::Conversation;
use super::hpack::{HeaderField, HeaderReader, write_headers};
use super::http2::{
    Frame, FrameKind, PREFACE, end_stream_headers, read_frame, reset, window_update,
};
use super::incoming::Incoming;
use crate::units::GRPC_STATUSES;
use backburn_experiments::Problem;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Which calls are chosen, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GrpcRule {
    /// The services with their packages; all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The methods; all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Header fields that a call must have, each with a regular expression for its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The code of the status that a call is answered with, without reaching the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// The message of that status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The message of a status where only its code is given.
const DEFAULT_MESSAGE: &str = "failed by an experiment";
/// The longest block of header fields, in bytes as they are sent.
const MAX_BLOCK_BYTES: usize = 1 << 20;
/// The code of the error by which a chosen call is reset: `INTERNAL_ERROR`. `REFUSED_STREAM` would be tried again unseen.
const INTERNAL_ERROR: u32 = 2;
/// Nothing is wrong: the rest of a request is not needed.
const NO_ERROR: u32 = 0;

/// The compiled patterns of the header fields.
pub(super) type HeaderPatterns = Vec<(String, Regex)>;

impl GrpcRule {
    pub(super) fn patterns(&self) -> Result<HeaderPatterns, regex::Error> {
        let patterns = self.headers.iter().map(|(name, pattern)| {
            Regex::new(pattern).map(|pattern| (name.to_ascii_lowercase(), pattern))
        });
        patterns.collect()
    }

    /// What is wrong with it beyond what the fault's schema says.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |at: String, what: String, hint: &str| {
            problems.push(Problem::new(at, what).hint(hint));
        };
        let is_name = |name: &str, more: &str| {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !name.is_empty() && name.chars().all(is_allowed)
        };
        for service in self.services.iter().filter(|name| !is_name(name, "_.")) {
            let what = format!("`{service}` is not the name of a service");
            wrong(
                "$.service".into(),
                what,
                "with its package, such as `etcdserverpb.KV`",
            );
        }
        for method in self.methods.iter().filter(|name| !is_name(name, "_")) {
            let what = format!("`{method}` is not the name of a method");
            wrong(
                "$.method".into(),
                what,
                "such as `Range`; the service is `service`",
            );
        }
        for (name, pattern) in &self.headers {
            if !is_name(name, "-_.") {
                let what = format!("`{name}` is not the name of a header field");
                wrong(
                    format!("$.header.{name}"),
                    what,
                    "letters, digits, `-`, `_` and `.`",
                );
            }
            if let Err(error) = Regex::new(pattern) {
                let what = format!("not a regular expression: {error}");
                wrong(
                    format!("$.header.{name}"),
                    what,
                    "escape `.` and `?` by `\\`",
                );
            }
        }
        problems
    }

    pub(super) fn describe(&self) -> String {
        let of = |names: &[String], all: &str| match names {
            [] => all.to_owned(),
            names => names.join(" and "),
        };
        let mut text = format!(
            "calls of {} of {}",
            of(&self.methods, "every method"),
            of(&self.services, "every service")
        );
        for (name, pattern) in &self.headers {
            text += &format!(", with `{name}` matching `{pattern}`");
        }
        let name = |code: u8| GRPC_STATUSES.get(usize::from(code)).copied();
        if let Some(status) = self.status.and_then(name) {
            text += &format!(": answered with {status}");
        }
        text
    }

    fn matches(&self, fields: &[HeaderField], patterns: &HeaderPatterns) -> bool {
        let values = |wanted: &str| -> Vec<Cow<'_, str>> {
            let named = fields.iter();
            let named = named.filter(|(name, _)| name == wanted.as_bytes());
            let values = named.map(|(_, value)| String::from_utf8_lossy(value));
            values.collect()
        };
        let path = values(":path").into_iter().next().unwrap_or_default();
        let Some((service, method)) = path
            .strip_prefix('/')
            .and_then(|path| path.rsplit_once('/'))
        else {
            return false;
        };
        let is_one_of = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|known| known == name)
        };
        is_one_of(&self.services, service)
            && is_one_of(&self.methods, method)
            && patterns
                .iter()
                .all(|(name, pattern)| values(name).iter().any(|value| pattern.is_match(value)))
    }

    /// The response that is nothing but a status.
    fn answer(&self, status: u8) -> Vec<u8> {
        let message = self.message.as_deref().unwrap_or(DEFAULT_MESSAGE);
        let fields = [
            (":status", "200".to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("grpc-status", status.to_string()),
            ("grpc-message", percent_encoded(message)),
        ];
        let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.into_bytes()));
        write_headers(&fields)
    }
}

/// A message as metadata has it (`doc/PROTOCOL-HTTP2.md` of gRPC).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of the calls of a connection that do not simply pass, by the numbers of their streams.
#[derive(Default)]
struct Streams {
    /// Calls that wait, with the frames of theirs that have come meanwhile.
    held: HashMap<u32, Vec<u8>>,
    /// Calls that have failed and are not known to the upstream, each with whether the client has sent all of it.
    failed: HashMap<u32, bool>,
    /// Whether the connection has ended, so that nobody needs to wait any more.
    is_ended: bool,
}

/// One connection, as the threads that serve it share it.
struct Calls<'a> {
    rule: &'a GrpcRule,
    patterns: &'a HeaderPatterns,
    delay: Option<Duration>,
    abort: bool,
    choice: &'a super::Choice,
    streams: Mutex<Streams>,
    ended: Condvar,
    /// Held while a frame, or a block of header fields, is written.
    client: Mutex<&'a TcpStream>,
    upstream: Mutex<&'a TcpStream>,
}

impl Calls<'_> {
    fn to_client(&self, bytes: &[u8]) -> io::Result<()> {
        locked(&self.client).write_all(bytes)
    }

    fn to_upstream(&self, bytes: &[u8]) -> io::Result<()> {
        locked(&self.upstream).write_all(bytes)
    }

    /// Waits for the delay, at most until the connection ends. True if it has ended.
    fn wait(&self) -> bool {
        let end = self.delay.map(|delay| Instant::now() + delay);
        let mut streams = locked(&self.streams);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let left = left.unwrap_or_default();
            if streams.is_ended || left.is_zero() {
                return streams.is_ended;
            }
            let woken = self.ended.wait_timeout(streams, left);
            streams = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Fails a call of which the client knows nothing yet.
    fn fail(&self, stream: u32) -> io::Result<()> {
        if self.delay.is_some() && self.wait() {
            return Ok(());
        }
        let is_whole = match locked(&self.streams).failed.get(&stream) {
            Some(is_whole) => *is_whole,
            // The client has given it up.
            None => return Ok(()),
        };
        match self.rule.status.filter(|_| !self.abort) {
            None => self.to_client(&reset(stream, INTERNAL_ERROR)),
            Some(status) => {
                let mut answer = end_stream_headers(stream, &self.rule.answer(status));
                if !is_whole {
                    answer.extend(reset(stream, NO_ERROR));
                }
                self.to_client(&answer)
            }
        }
    }

    /// Lets a call go on that has waited.
    fn release(&self, stream: u32) -> io::Result<()> {
        if self.wait() {
            return Ok(());
        }
        // The lock keeps what comes meanwhile from overtaking it.
        let mut streams = locked(&self.streams);
        let frames = streams.held.remove(&stream).unwrap_or_default();
        self.to_upstream(&frames)
    }

    /// Takes a frame of a stream that does not simply pass. The frame, where it is to pass.
    fn hold_or_drop(&self, frame: Frame) -> io::Result<Option<Frame>> {
        let mut streams = locked(&self.streams);
        if let Some(held) = streams.held.get_mut(&frame.stream) {
            held.extend(frame.bytes());
            return Ok(None);
        }
        let Some(is_whole) = streams.failed.get_mut(&frame.stream) else {
            return Ok(Some(frame));
        };
        *is_whole |= frame.ends_stream();
        if frame.kind == FrameKind::RESET {
            streams.failed.remove(&frame.stream);
        }
        drop(streams);
        if frame.kind == FrameKind::DATA && !frame.payload.is_empty() {
            // The upstream will never give the connection's room for it back.
            self.to_client(&window_update(0, frame.payload.len() as u32))?;
        }
        Ok(None)
    }

    fn end(&self) {
        locked(&self.streams).is_ended = true;
        self.ended.notify_all();
    }
}

/// Serves one connection until it ends.
pub(super) fn serve(
    mut talk: Conversation<'_>,
    rule: &GrpcRule,
    patterns: &HeaderPatterns,
) -> io::Result<()> {
    while talk.client.waiting().len() < PREFACE.len() {
        let is_beginning = PREFACE.starts_with(talk.client.waiting());
        if !is_beginning || !talk.client.fill()? {
            break;
        }
    }
    if !talk.client.waiting().starts_with(PREFACE) {
        return talk.pass_rest();
    }
    let preface = talk.client.take(PREFACE.len())?;
    let mut to_upstream = talk.to_upstream;
    to_upstream.write_all(&preface)?;
    let calls = Calls {
        rule,
        patterns,
        delay: talk.proxy.delay.map(|delay| delay.0),
        abort: talk.proxy.abort,
        choice: talk.choice,
        streams: Mutex::default(),
        ended: Condvar::new(),
        client: Mutex::new(talk.to_client),
        upstream: Mutex::new(talk.to_upstream),
    };
    let (client, upstream) = (talk.client, talk.upstream);
    std::thread::scope(|scope| {
        let calls = &calls;
        let down = std::thread::Builder::new().spawn_scoped(scope, move || {
            let passed = pass_responses(upstream, calls);
            calls.end();
            let client = *locked(&calls.client);
            client.shutdown(Shutdown::Write).ok();
            passed
        })?;
        let passed = pass_calls(client, calls, scope);
        calls.end();
        let upstream = *locked(&calls.upstream);
        upstream.shutdown(Shutdown::Write).ok();
        let down = down
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")));
        passed.and(down)
    })
}

/// A block of header fields with the frame that begins it.
struct HeaderBlock {
    first: Frame,
    block: Vec<u8>,
}

impl HeaderBlock {
    /// Reads the frames that continue the block.
    fn read(first: Frame, from: &mut Incoming<'_>) -> io::Result<Self> {
        let mut block = first.header_block()?.to_vec();
        let mut is_whole = first.ends_headers();
        while !is_whole {
            let next = read_frame(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let belongs = next.kind == FrameKind::CONTINUATION && next.stream == first.stream;
            if !belongs || block.len() + next.payload.len() > MAX_BLOCK_BYTES {
                return Err(io::Error::other("header fields that do not end"));
            }
            block.extend_from_slice(&next.payload);
            is_whole = next.ends_headers();
        }
        Ok(HeaderBlock { first, block })
    }
}

/// Passes on what the client sends, but for calls that are chosen.
fn pass_calls<'scope, 'env>(
    mut client: Incoming<'_>,
    calls: &'env Calls<'_>,
    scope: &'scope std::thread::Scope<'scope, 'env>,
) -> io::Result<()> {
    let mut reader = HeaderReader::new();
    let mut newest = 0;
    while let Some(frame) = read_frame(&mut client)? {
        let frame = match frame.kind {
            FrameKind::HEADERS => {
                let headers = HeaderBlock::read(frame, &mut client)?;
                let fields = reader.read(&headers.block)?;
                let stream = headers.first.stream;
                let frame = headers.first.with_headers(&write_headers(&fields));
                if stream > newest {
                    newest = stream;
                    if calls
                        .choice
                        .choose(calls.rule.matches(&fields, calls.patterns))
                    {
                        begin_chosen(frame, calls, scope)?;
                        continue;
                    }
                }
                frame
            }
            _ => frame,
        };
        if let Some(frame) = calls.hold_or_drop(frame)? {
            calls.to_upstream(&frame.bytes())?;
        }
    }
    Ok(())
}

/// Begins with a chosen call, of which this is the first frame.
fn begin_chosen<'scope, 'env>(
    frame: Frame,
    calls: &'env Calls<'_>,
    scope: &'scope std::thread::Scope<'scope, 'env>,
) -> io::Result<()> {
    let stream = frame.stream;
    let fails = calls.abort || calls.rule.status.is_some();
    if fails {
        let mut streams = locked(&calls.streams);
        streams.failed.insert(stream, frame.ends_stream());
    } else {
        // The upstream learns of streams in the order of their numbers, so only what follows can wait.
        locked(&calls.streams).held.insert(stream, Vec::new());
        calls.to_upstream(&frame.bytes())?;
    }
    if fails && calls.delay.is_none() {
        return calls.fail(stream);
    }
    let later = move || {
        let done = match fails {
            true => calls.fail(stream),
            false => calls.release(stream),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a call that waited could not go on");
        }
    };
    std::thread::Builder::new().spawn_scoped(scope, later)?;
    Ok(())
}

/// Passes on what the upstream sends.
fn pass_responses(mut upstream: Incoming<'_>, calls: &Calls<'_>) -> io::Result<()> {
    let mut reader = HeaderReader::new();
    while let Some(frame) = read_frame(&mut upstream)? {
        let frame = match frame.kind {
            FrameKind::HEADERS | FrameKind::PUSH_PROMISE => {
                let headers = HeaderBlock::read(frame, &mut upstream)?;
                let fields = reader.read(&headers.block)?;
                headers.first.with_headers(&write_headers(&fields))
            }
            _ => frame,
        };
        calls.to_client(&frame.bytes())?;
    }
    Ok(())
}
