//! Requests of HTTP/1 (RFC 9112): which are chosen, and how they fail. TLS and HTTP/2 are passed on unchanged.

use super::Conversation;
use super::http_message::{Body, Head, ReadHead, pass_message, read_head};
use backburn_experiments::Problem;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write as _};

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
                let mut answer = response.patched(head, &rule.response_headers, Some(other.len()));
                answer.extend_from_slice(other.as_bytes());
                pass_message(&mut talk.upstream, length, &body, None)?;
                to.write_all(&answer)?;
            }
            _ if is_chosen && !rule.response_headers.is_empty() => {
                let head = response.patched(head, &rule.response_headers, None);
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
