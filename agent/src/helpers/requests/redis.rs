//! Commands of Redis (its protocol in versions 2 and 3): which are chosen, and how they fail. One command at a time: the next goes on
//! when the reply to the one before has come, so replies stay in order. Subscriptions and TLS are passed on unchanged.

use super::Conversation;
use super::incoming::Incoming;
use backburn_experiments::Problem;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::net::TcpStream;

/// Which commands are chosen, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RedisRule {
    /// The commands, in capitals; all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// A regular expression for the first argument, mostly the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The error that a command is answered with, without reaching the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// After these, replies come without commands, or commands have none.
const STREAMING: [&str; 5] = ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "PSYNC"];
/// How deep values may be in one another.
const MAX_DEPTH: usize = 32;
/// The longest first argument that is looked at.
const MAX_KEY_BYTES: u64 = 1 << 20;

impl RedisRule {
    pub(super) fn pattern(&self) -> Result<Option<Regex>, regex::Error> {
        self.key.as_deref().map(Regex::new).transpose()
    }

    /// What is wrong with it beyond what the fault's schema says.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
        for command in self.commands.iter().filter(|command| !is_word(command)) {
            let what = format!("`{command}` is not a command");
            problems.push(Problem::new("$.command", what).hint("such as `GET`"));
        }
        if let Err(error) = self.pattern() {
            let what = format!("not a regular expression: {error}");
            problems.push(Problem::new("$.key", what).hint("escape `.` and `?` by `\\`"));
        }
        let is_line = |text: &String| !text.is_empty() && !text.contains(['\r', '\n']);
        if self.error.as_ref().is_some_and(|error| !is_line(error)) {
            problems.push(
                Problem::new("$.error", "an error is one line")
                    .hint("such as `LOADING Redis is loading the dataset in memory`"),
            );
        }
        problems
    }

    pub(super) fn describe(&self) -> String {
        let mut text = match self.commands.is_empty() {
            true => "commands".to_owned(),
            false => self.commands.join(" and "),
        };
        if let Some(key) = &self.key {
            text += &format!(" on keys matching `{key}`");
        }
        if let Some(error) = &self.error {
            text += &format!(": answered with `{error}`");
        }
        text
    }
}

/// A command as far as it was read: its name and first argument, and how many arguments are still to come.
struct RedisCommand {
    name: String,
    key: Vec<u8>,
    raw: Vec<u8>,
    more: u64,
}

/// The number after the kind of a value, e.g. 3 of `*3`. What is missing in version 3 (`$-1`) is none.
fn number(line: &[u8]) -> io::Result<Option<u64>> {
    let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default());
    match text.trim() {
        "-1" => Ok(None),
        digits => digits.parse().map(Some).map_err(io::Error::other),
    }
}

/// Reads the head of a command; none at the end.
fn read_command(from: &mut Incoming<'_>) -> io::Result<Option<RedisCommand>> {
    let Some(line) = from.take_line()? else {
        return Ok(None);
    };
    if line.first() != Some(&b'*') {
        // As people type it: all on one line.
        let text = String::from_utf8_lossy(&line).into_owned();
        let mut words = text.split_whitespace();
        return Ok(Some(RedisCommand {
            name: words.next().unwrap_or_default().to_uppercase(),
            key: words.next().unwrap_or_default().as_bytes().to_vec(),
            raw: line,
            more: 0,
        }));
    }
    let count = number(&line)?.unwrap_or(0);
    let mut raw = line;
    let mut words = Vec::new();
    while (words.len() as u64) < count.min(2) {
        let line = from.take_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = number(&line)?.unwrap_or(0);
        if line.first() != Some(&b'$') || length > MAX_KEY_BYTES {
            return Err(io::Error::other("not a command that is understood"));
        }
        let mut word = from.take(length as usize + 2)?;
        raw.extend_from_slice(&line);
        raw.extend_from_slice(&word);
        word.truncate(length as usize);
        words.push(word);
    }
    let mut words = words.into_iter();
    let name = words.next().unwrap_or_default();
    Ok(Some(RedisCommand {
        name: String::from_utf8_lossy(&name).to_uppercase(),
        key: words.next().unwrap_or_default(),
        raw,
        more: count.saturating_sub(2),
    }))
}

/// Passes one value on, or drops it. Returns its kind.
fn pass_value(from: &mut Incoming<'_>, to: Option<&TcpStream>, depth: usize) -> io::Result<u8> {
    let line = from.take_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if let Some(mut to) = to {
        to.write_all(&line)?;
    }
    let kind = line.first().copied().unwrap_or_default();
    let values = match kind {
        b'$' | b'=' | b'!' => {
            if let Some(length) = number(&line)? {
                from.pass(length.saturating_add(2), to)?;
            }
            0
        }
        b'*' | b'~' | b'>' => number(&line)?.unwrap_or(0),
        // Pairs; an attribute comes before the value that it is about.
        b'%' => number(&line)?.unwrap_or(0).saturating_mul(2),
        b'|' => number(&line)?
            .unwrap_or(0)
            .saturating_mul(2)
            .saturating_add(1),
        _ => 0,
    };
    if depth > MAX_DEPTH {
        return Err(io::Error::other("values are too deep in one another"));
    }
    for _ in 0..values {
        pass_value(from, to, depth + 1)?;
    }
    Ok(kind)
}

/// Serves one connection until it ends.
pub(super) fn serve(
    mut talk: Conversation<'_>,
    rule: &RedisRule,
    pattern: Option<&Regex>,
) -> io::Result<()> {
    if talk.client.waiting().is_empty() && !talk.client.fill()? {
        return Ok(());
    }
    // A record of TLS that begins a handshake.
    if talk.client.waiting().first() == Some(&0x16) {
        return talk.pass_rest();
    }
    while let Some(command) = read_command(&mut talk.client)? {
        let is_meant = (rule.commands.is_empty() || rule.commands.contains(&command.name))
            && pattern.is_none_or(|pattern| pattern.is_match(&command.key));
        let is_chosen = talk.choice.choose(is_meant);
        if is_chosen {
            talk.proxy.delay_or_abort()?;
        }
        let fails = rule.error.as_ref().filter(|_| is_chosen);
        let to_upstream = match fails {
            Some(_) => None,
            None => Some(talk.to_upstream),
        };
        if let Some(mut to) = to_upstream {
            to.write_all(&command.raw)?;
        }
        for _ in 0..command.more {
            pass_value(&mut talk.client, to_upstream, 0)?;
        }
        if let Some(error) = fails {
            let mut to = talk.to_client;
            to.write_all(format!("-{error}\r\n").as_bytes())?;
            continue;
        }
        let replies_stop = command.name == "CLIENT" && command.key.eq_ignore_ascii_case(b"reply");
        if replies_stop || STREAMING.contains(&command.name.as_str()) {
            return talk.pass_rest();
        }
        if command.raw.iter().all(u8::is_ascii_whitespace) {
            // An empty line has no reply.
            continue;
        }
        // What the server says of its own accord comes before the reply.
        while pass_value(&mut talk.upstream, Some(talk.to_client), 0)? == b'>' {}
    }
    Ok(())
}
