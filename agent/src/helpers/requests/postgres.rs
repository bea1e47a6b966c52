//! Statements to a PostgreSQL server (its protocol in version 3): which are chosen, and how they fail. In place of a statement that is to
//! fail, the server gets one that must fail, and its error is rewritten on the way back: so the server itself ends the transaction, skips
//! what comes after it, and keeps the order of its answers. TLS is passed on unchanged, or refused.

use super::incoming::Incoming;
use super::{Conversation, RequestProxy};
use backburn_experiments::Problem;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// Which statements are chosen, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PostgresRule {
    /// First words of statements, in capitals; all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// A regular expression for the text of a statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// The code (SQLSTATE) of the error that a statement is answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The message of that error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether a request for TLS is refused.
    #[serde(default)]
    pub refuse_tls: bool,
}

/// The message of an error where only its code is given.
const DEFAULT_MESSAGE: &str = "failed by an experiment";
/// What a statement that must fail is called, so that its error is known again.
const FAILING_NAME: &str = "backburn_makes_this_fail";
/// How much of a statement is looked at.
const MAX_STATEMENT_BYTES: u64 = 256 << 10;
/// How many prepared statements of a connection are known. More are never chosen.
const MAX_PREPARED_STATEMENTS: usize = 10_000;
/// The longest first packet, as the server has it.
const MAX_START_BYTES: u32 = 10_000;
/// The longest message that the server accepts, too.
const MAX_MESSAGE_BYTES: u32 = 0x3fff_ffff;
/// The longest error of the server that is looked at.
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// How often a client may ask for encryption before it begins: for TLS and for GSSAPI.
const MAX_ENCRYPTION_REQUESTS: usize = 4;

// First packets of clients: `src/include/libpq/pqcomm.h` of PostgreSQL.
const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
const TLS_REQUEST: u32 = (1234 << 16) | 5679;
const GSSAPI_REQUEST: u32 = (1234 << 16) | 5680;

impl PostgresRule {
    pub(super) fn pattern(&self) -> Result<Option<Regex>, regex::Error> {
        self.statement.as_deref().map(Regex::new).transpose()
    }

    /// What is wrong with it beyond what the fault's schema says.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |at: &str, what: String, hint: &str| {
            problems.push(Problem::new(at, what).hint(hint));
        };
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        for command in self.commands.iter().filter(|command| !is_word(command)) {
            let what = format!("`{command}` is not the first word of a statement");
            wrong("$.command", what, "such as `UPDATE`");
        }
        if let Err(error) = self.pattern() {
            let what = format!("not a regular expression: {error}");
            wrong("$.statement", what, "escape `(` and `.` by `\\`");
        }
        // Codes of class 00 to 02 say that nothing is wrong.
        let is_code = |code: &String| {
            let is_allowed = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
            let is_no_error = ["00", "01", "02"]
                .iter()
                .any(|class| code.starts_with(class));
            code.len() == 5 && code.bytes().all(is_allowed) && !is_no_error
        };
        if let Some(code) = self.code.as_ref().filter(|code| !is_code(code)) {
            let what = format!("`{code}` is not the code of an error");
            let hint = "five digits and capitals, such as `40001` or `53300`: see the appendix of PostgreSQL's manual";
            wrong("$.code", what, hint);
        }
        let is_text = |text: &String| !text.is_empty() && !text.contains('\0');
        if self.message.as_ref().is_some_and(|text| !is_text(text)) {
            let what = "a message is a text without NUL".to_owned();
            wrong("$.message", what, "such as `too many connections`");
        }
        if self.message.is_some() && self.code.is_none() {
            let what = "a message without the code of an error".to_owned();
            wrong("$.message", what, "give `code` as well");
        }
        problems
    }

    pub(super) fn describe(&self) -> String {
        let mut text = match self.commands.is_empty() {
            true => "statements".to_owned(),
            false => self.commands.join(" and "),
        };
        if let Some(statement) = &self.statement {
            text += &format!(" matching `{statement}`");
        }
        if let Some(code) = &self.code {
            text += &format!(": answered with error {code}");
        }
        text
    }

    fn is_meant(&self, pattern: Option<&Regex>, statement: &[u8]) -> bool {
        let is_command = self.commands.is_empty() || self.commands.contains(&command(statement));
        is_command && pattern.is_none_or(|pattern| pattern.is_match(statement))
    }

    /// The whole message of the error that a statement is answered with.
    fn error(&self, code: &str) -> Vec<u8> {
        let message = self.message.as_deref().unwrap_or(DEFAULT_MESSAGE);
        let mut body = Vec::new();
        for (field, value) in [
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', code),
            (b'M', message),
        ] {
            body.push(field);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        message_of(b'E', &body)
    }
}

/// The first word of a statement, in capitals; what is before it (space, comments, parentheses) is skipped.
fn command(statement: &[u8]) -> String {
    let mut rest = statement;
    loop {
        rest = rest.trim_ascii_start();
        let skipped = match rest {
            [b'-', b'-', ..] => rest.iter().position(|byte| *byte == b'\n'),
            [b'/', b'*', comment @ ..] => {
                let end = comment.windows(2).position(|two| two == b"*/");
                end.map(|end| end + 4)
            }
            [b'(' | b';', ..] => Some(1),
            _ => break,
        };
        rest = skipped
            .and_then(|count| rest.get(count..))
            .unwrap_or_default();
    }
    let is_letter = |byte: &&u8| byte.is_ascii_alphabetic();
    let word: Vec<u8> = rest.iter().take_while(is_letter).copied().collect();
    String::from_utf8_lossy(&word).to_ascii_uppercase()
}

/// A message: its kind, its length with that of the length, its body.
fn message_of(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// The kind of the next message and the length of its body; none at the end.
fn read_head(from: &mut Incoming<'_>) -> io::Result<Option<(u8, u64)>> {
    if from.waiting().is_empty() && !from.fill()? {
        return Ok(None);
    }
    let head = from.take(5)?;
    let [kind, length @ ..] = head.as_slice() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(length.try_into().map_err(io::Error::other)?);
    match length {
        4..=MAX_MESSAGE_BYTES => Ok(Some((*kind, u64::from(length) - 4))),
        _ => Err(io::Error::other("not a message that is understood")),
    }
}

/// Passes the head of a message on.
fn write_head(mut to: &TcpStream, kind: u8, length: u64) -> io::Result<()> {
    let length = u32::try_from(length + 4).map_err(io::Error::other)?;
    to.write_all(&[&[kind][..], &length.to_be_bytes()].concat())
}

/// A text up to its NUL, and what comes after it.
fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (
            bytes.get(..end).unwrap_or_default(),
            bytes.get(end + 1..).unwrap_or_default(),
        ),
        None => (bytes, &[]),
    }
}

/// How a connection goes on after its first packets.
enum Opening {
    /// By messages that are understood.
    Messages,
    /// Encrypted, or to cancel a statement of another connection.
    Unreadable,
    /// It does not.
    Ended,
}

/// Passes the first packets on: none of them has a kind.
fn open(talk: &mut Conversation<'_>, refuse_tls: bool) -> io::Result<Opening> {
    for _ in 0..MAX_ENCRYPTION_REQUESTS {
        if talk.client.waiting().is_empty() && !talk.client.fill()? {
            return Ok(Opening::Ended);
        }
        // A record of TLS without a request before it: a client may begin so from version 17 on.
        if talk.client.waiting().first() == Some(&0x16) {
            return Ok(Opening::Unreadable);
        }
        let head = talk.client.take(8)?;
        let (length, code) = head.split_at(4);
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes);
        let length = number(length).map_err(io::Error::other)?;
        let code = number(code).map_err(io::Error::other)?;
        if !(8..=MAX_START_BYTES).contains(&length) {
            return Err(io::Error::other("not a first packet that is understood"));
        }
        let asks_for_encryption = matches!(code, TLS_REQUEST | GSSAPI_REQUEST);
        if asks_for_encryption && refuse_tls {
            let mut to = talk.to_client;
            to.write_all(b"N")?;
            continue;
        }
        let mut to = talk.to_upstream;
        to.write_all(&head)?;
        let rest = u64::from(length) - 8;
        talk.client.pass(rest, Some(talk.to_upstream))?;
        if !asks_for_encryption {
            return Ok(match code {
                CANCEL_REQUEST => Opening::Unreadable,
                _ => Opening::Messages,
            });
        }
        let answer = talk.upstream.take(1)?;
        let mut to = talk.to_client;
        to.write_all(&answer)?;
        if answer != b"N" {
            return Ok(Opening::Unreadable);
        }
    }
    Err(io::Error::other("asks for encryption again and again"))
}

/// Passes on what the server says, with errors of statements that had to fail rewritten.
fn pass_answers(
    upstream: &mut Incoming<'_>,
    mut to_client: &TcpStream,
    rule: &PostgresRule,
) -> io::Result<()> {
    while let Some((kind, length)) = read_head(upstream)? {
        if let Some(code) = rule.code.as_deref()
            && kind == b'E'
            && length <= MAX_ERROR_BYTES
        {
            let body = upstream.take(length as usize)?;
            let name = FAILING_NAME.as_bytes();
            let is_failing = body.windows(name.len()).any(|part| part == name);
            let message = match is_failing {
                true => rule.error(code),
                false => message_of(kind, &body),
            };
            to_client.write_all(&message)?;
            continue;
        }
        write_head(to_client, kind, length)?;
        upstream.pass(length, Some(to_client))?;
    }
    Ok(())
}

/// The client's side of a connection.
struct Statements<'a> {
    client: Incoming<'a>,
    to_upstream: &'a TcpStream,
    proxy: &'a RequestProxy,
    choice: &'a super::Choice,
    rule: &'a PostgresRule,
    pattern: Option<&'a Regex>,
    /// Whether each prepared statement is meant, by its name.
    prepared: BTreeMap<Vec<u8>, bool>,
}

impl Statements<'_> {
    /// Passes on what the client says, until it ends.
    fn pass(&mut self) -> io::Result<()> {
        while let Some((kind, length)) = read_head(&mut self.client)? {
            // Query, Parse, Bind and Close are looked at.
            if !matches!(kind, b'Q' | b'P' | b'B' | b'C') {
                write_head(self.to_upstream, kind, length)?;
                self.client.pass(length, Some(self.to_upstream))?;
                continue;
            }
            let seen = self.client.take(length.min(MAX_STATEMENT_BYTES) as usize)?;
            let rest = length - seen.len() as u64;
            let failing = self.failing(kind, &seen)?;
            let mut to = self.to_upstream;
            match failing {
                Some(message) => {
                    to.write_all(&message)?;
                    self.client.pass(rest, None)?;
                }
                None => {
                    write_head(to, kind, length)?;
                    to.write_all(&seen)?;
                    self.client.pass(rest, Some(to))?;
                }
            }
        }
        Ok(())
    }

    /// The message that the server gets instead of this one; none where it gets this one.
    fn failing(&mut self, kind: u8, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let is_meant = match kind {
            b'P' => {
                let (name, rest) = text(body);
                let is_meant = self.rule.is_meant(self.pattern, text(rest).0);
                let is_known = self.prepared.contains_key(name);
                if is_known || self.prepared.len() < MAX_PREPARED_STATEMENTS {
                    self.prepared.insert(name.to_vec(), is_meant);
                }
                return Ok(None);
            }
            b'C' => {
                if let [b'S', name @ ..] = body {
                    self.prepared.remove(text(name).0);
                }
                return Ok(None);
            }
            b'B' => {
                let (_portal, rest) = text(body);
                self.prepared.get(text(rest).0).copied().unwrap_or(false)
            }
            _ => self.rule.is_meant(self.pattern, text(body).0),
        };
        if !self.choice.choose(is_meant) {
            return Ok(None);
        }
        self.proxy.delay_or_abort()?;
        if self.rule.code.is_none() {
            return Ok(None);
        }
        let name = FAILING_NAME;
        Ok(Some(match kind {
            // Of a prepared statement that is not there: no portal, this name, no formats, no parameters.
            b'B' => message_of(kind, &[b"\0", name.as_bytes(), b"\0", &[0; 6]].concat()),
            // Not SQL.
            _ => message_of(kind, &[name.as_bytes(), b"\0"].concat()),
        }))
    }
}

/// Serves one connection until it ends.
pub(super) fn serve(
    mut talk: Conversation<'_>,
    rule: &PostgresRule,
    pattern: Option<&Regex>,
) -> io::Result<()> {
    match open(&mut talk, rule.refuse_tls)? {
        Opening::Ended => return Ok(()),
        Opening::Unreadable => return talk.pass_rest(),
        Opening::Messages => {}
    }
    let Conversation {
        client,
        to_client,
        mut upstream,
        to_upstream,
        proxy,
        choice,
    } = talk;
    let mut statements = Statements {
        client,
        to_upstream,
        proxy,
        choice,
        rule,
        pattern,
        prepared: BTreeMap::new(),
    };
    let is_reset = &AtomicBool::new(false);
    std::thread::scope(|threads| {
        let answers = std::thread::Builder::new().spawn_scoped(threads, move || {
            let passed = pass_answers(&mut upstream, to_client, rule);
            if passed.is_err() {
                // Neither side learns the end of what is half passed on: wake the other thread.
                to_client.shutdown(Shutdown::Read).ok();
            } else if !is_reset.load(Ordering::Acquire) {
                to_client.shutdown(Shutdown::Write).ok();
            }
            passed
        })?;
        let passed = statements.pass();
        if passed.is_err() {
            is_reset.store(true, Ordering::Release);
            to_upstream.shutdown(Shutdown::Both).ok();
        } else {
            to_upstream.shutdown(Shutdown::Write).ok();
        }
        let answers = answers
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")));
        passed.and(answers)
    })
}
