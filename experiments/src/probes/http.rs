//! An HTTP request, as the Chaos Toolkit makes it (`chaoslib/provider/http.py`, which leaves it to `requests`): what is sent, which
//! redirects are followed, what is tried again, and what an answer is worth. Transports only connect, send and receive.

use super::{
    ProbeError, ProbeProvider, Transport, address, http_body, network_limit, put_value, value_text,
    written_address,
};
use crate::problem::at_key;
use crate::python;
use crate::{HumanDuration, Problem, json};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The most redirects that are followed, as many as `requests` follows.
const MAX_REDIRECTS: u32 = 30;

/// An HTTP request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpProvider {
    /// The address, `http://` or `https://`.
    #[schemars(length(min = 1))]
    pub url: String,
    /// The method. `GET` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Value>>,
    /// The query of a GET; the body of anything else: fields of a form for an object, JSON where the `Content-Type` says so, text as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// The longest it may take: one figure, or two for connecting and for the answer. 5 s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HttpTimeout>,
    /// Whether the server's certificate is checked. True where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_tls: Option<bool>,
    /// How often a connection that failed is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Whether a redirect is the answer instead of being followed. No document can say so.
    #[serde(skip)]
    #[schemars(skip)]
    pub refuses_redirects: bool,
}

/// How long an HTTP request may take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HttpTimeout {
    /// For all of it.
    Whole(HumanDuration),
    /// For connecting, then for the answer.
    ConnectThenRead(HumanDuration, HumanDuration),
}

impl HttpProvider {
    /// How long a connection, with its TLS, may take to be made.
    pub fn connect_limit(&self, timeout: Option<HumanDuration>) -> HumanDuration {
        match self.timeout {
            Some(HttpTimeout::Whole(limit) | HttpTimeout::ConnectThenRead(limit, _)) => limit,
            None => network_limit(None, timeout),
        }
    }
}

impl ProbeProvider for HttpProvider {
    fn transport(&self, _: Option<HumanDuration>) -> Transport<'_> {
        Transport::Http(Cow::Borrowed(self))
    }

    fn time_limit(&self, timeout: Option<HumanDuration>) -> Option<HumanDuration> {
        Some(match self.timeout {
            Some(HttpTimeout::Whole(whole)) => whole,
            Some(HttpTimeout::ConnectThenRead(connect, read)) => HumanDuration(connect.0 + read.0),
            None => network_limit(None, timeout),
        })
    }

    fn problems(&self, at: &str) -> Vec<Problem> {
        web_address_problems(&self.url, at)
    }

    fn written_address_problem(written: &Map<String, Value>) -> Option<(&'static str, String)> {
        // An address of another kind is reported once variables are in place.
        let url = written_address(written, "url").filter(|url| address::is_of_web(url))?;
        Some(("url", address::of_web(url).err()?))
    }

    fn take_value(&mut self, value: &Value) -> Option<Result<(), String>> {
        Some(put_value(&mut self.arguments, value))
    }
}

/// What is wrong with an address that is not of the web. `at` is the JSON path of what has it as `url`.
pub(super) fn web_address_problems(url: &str, at: &str) -> Vec<Problem> {
    // An empty address is the schema's to report.
    if url.is_empty() || address::is_of_web(url) {
        return Vec::new();
    }
    let what = format!("`{url}` is not a web address");
    let hint = "it starts with `http://` or `https://`";
    vec![Problem::new(at_key(at, "url"), what).hint(hint)]
}

/// How a request failed.
#[derive(Debug)]
pub enum HttpError {
    /// No connection was made, so nothing can have been sent.
    Connect(ProbeError),
    /// Something may have been sent.
    Exchange(ProbeError),
}

impl From<HttpError> for ProbeError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Connect(error) | HttpError::Exchange(error) => error,
        }
    }
}

/// One measurement over HTTP: a request, what is sent again, and the redirects. The transport sends [`HttpExchange::request`] and tells
/// what came of it, until it is told to read the body.
#[derive(Debug)]
pub struct HttpExchange {
    request: HttpRequest,
    retries: u32,
    retries_left: u32,
    redirects_left: u32,
    refuses_redirects: bool,
}

/// What a transport does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Send the request, over a connection of its own.
    Send,
    /// Read the body of the answer: it is the one that counts.
    ReadBody,
}

impl HttpExchange {
    /// The exchange that a document asks for.
    ///
    /// # Errors
    /// The check is broken: there is no such request.
    pub fn new(provider: &HttpProvider) -> Result<Self, ProbeError> {
        let retries = provider.max_retries.unwrap_or(0);
        Ok(HttpExchange {
            request: HttpRequest::new(provider).map_err(ProbeError::Broken)?,
            retries,
            retries_left: retries,
            redirects_left: MAX_REDIRECTS,
            refuses_redirects: provider.refuses_redirects,
        })
    }

    /// The request to send.
    pub fn request(&self) -> &HttpRequest {
        &self.request
    }

    /// Takes in the status and the header fields of an answer, or why there is none.
    ///
    /// # Errors
    /// The measurement is over, without a value.
    pub fn next(
        &mut self,
        answer: Result<(StatusCode, &HeaderMap), HttpError>,
    ) -> Result<NextStep, ProbeError> {
        let (status, headers) = match answer {
            Err(HttpError::Connect(_)) if self.retries_left > 0 => {
                self.retries_left -= 1;
                return Ok(NextStep::Send);
            }
            answer => answer?,
        };
        if self.refuses_redirects {
            return Ok(NextStep::ReadBody);
        }
        let Some(next) = self.request.redirected(status, headers)? else {
            return Ok(NextStep::ReadBody);
        };
        if self.redirects_left == 0 {
            return Err(ProbeError::NoAnswer(format!(
                "more than {MAX_REDIRECTS} redirects"
            )));
        }
        self.redirects_left -= 1;
        self.request = next;
        self.retries_left = self.retries;
        Ok(NextStep::Send)
    }
}

/// The parts of one request.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The address, without a user.
    pub uri: Uri,
    /// Header fields; `Host` only where the document has it.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// The request that a document asks for.
    ///
    /// # Errors
    /// There is no such request; the text is for people.
    pub(crate) fn new(provider: &HttpProvider) -> Result<Self, String> {
        let method = provider
            .method
            .as_deref()
            .unwrap_or("GET")
            .to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("`{method}` is not an HTTP method"))?;
        let mut headers = HeaderMap::new();
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("backburn/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        for (name, value) in provider.headers.iter().flatten() {
            let key: HeaderName = name
                .parse()
                .map_err(|_| format!("`{name}` is not an HTTP header field"))?;
            let value = HeaderValue::from_bytes(value_text(value).as_bytes()).map_err(|_| {
                format!("the value of header `{name}` has characters that a header must not have")
            })?;
            headers.insert(key, value);
        }
        let (written, _) = provider.url.split_once('#').unwrap_or((&provider.url, ""));
        let mut url = written.to_owned();
        let mut body = Vec::new();
        match (&provider.arguments, &method) {
            (None | Some(Value::Null), _) => {}
            (Some(arguments), &Method::GET) => {
                let query = match arguments {
                    Value::Object(fields) => form(fields),
                    other => value_text(other),
                };
                if !query.is_empty() {
                    url.push(if url.contains('?') { '&' } else { '?' });
                    url.push_str(&query);
                }
            }
            (Some(arguments), _) => body = content(arguments, &mut headers),
        }
        let uri = without_user(&url, &mut headers)?;
        Ok(HttpRequest {
            method,
            uri,
            headers,
            body,
        })
    }

    /// The request that an answer redirects to, if it does.
    ///
    /// # Errors
    /// It redirects to something that is not an address, or would have the body sent to another server.
    fn redirected(
        &self,
        status: StatusCode,
        answered: &HeaderMap,
    ) -> Result<Option<HttpRequest>, ProbeError> {
        let location = answered
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let (301..=303 | 307 | 308, Some(location)) = (status.as_u16(), location) else {
            return Ok(None);
        };
        let mut headers = self.headers.clone();
        let (location, _) = location.split_once('#').unwrap_or((location, ""));
        let uri = without_user(&joined(&self.uri, location), &mut headers)
            .map_err(|why| ProbeError::Broken(format!("redirected: {why}")))?;
        // Only the server that the document names is meant to see what the document sends: any field may hold a secret.
        let is_elsewhere = !is_same_origin(&uri, &self.uri);
        if is_elsewhere {
            let kept =
                KEPT_ACROSS_ORIGINS.map(|name| Some((name.clone(), headers.get(&name)?.clone())));
            headers = kept.into_iter().flatten().collect();
        }
        let keeps = match status {
            StatusCode::MOVED_PERMANENTLY => self.method != Method::POST,
            StatusCode::FOUND | StatusCode::SEE_OTHER => self.method == Method::HEAD,
            _ => true,
        };
        if keeps && is_elsewhere && !self.body.is_empty() {
            return Err(ProbeError::Broken(format!(
                "redirected with status {} to another server, `{}`, which is not sent the body that is meant for the first",
                status.as_u16(),
                uri.authority().map_or("", |authority| authority.as_str())
            )));
        }
        let (method, body) = if keeps {
            (self.method.clone(), self.body.clone())
        } else {
            headers.remove(header::CONTENT_TYPE);
            (Method::GET, Vec::new())
        };
        Ok(Some(HttpRequest {
            method,
            uri,
            headers,
            body,
        }))
    }
}

/// Header fields that are sent on to another origin.
const KEPT_ACROSS_ORIGINS: [HeaderName; 3] =
    [header::USER_AGENT, header::ACCEPT, header::CONTENT_TYPE];

/// Whether an address has the same scheme, host and port (RFC 6454) as another, or is the same host over TLS.
fn is_same_origin(to: &Uri, from: &Uri) -> bool {
    let origin = |uri: &Uri| {
        let scheme = uri.scheme_str().unwrap_or("http").to_ascii_lowercase();
        let usual = if scheme == "https" { 443 } else { 80 };
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        (host, uri.port_u16().unwrap_or(usual), scheme)
    };
    let ((from_host, from_port, from), (to_host, to_port, to)) = (origin(from), origin(to));
    let is_upgrade = (from.as_str(), from_port, to.as_str(), to_port) == ("http", 80, "https", 443);
    from_host == to_host && (is_upgrade || (from_port, from) == (to_port, to))
}

/// The body that is sent: text as it is, JSON where the content type says so, else the fields of a form.
fn content(arguments: &Value, headers: &mut HeaderMap) -> Vec<u8> {
    let is_json = headers.get(header::CONTENT_TYPE).is_some_and(says_json);
    let (text, kind) = match arguments {
        Value::String(text) if !is_json => (text.clone(), None),
        Value::Object(fields) if !is_json => {
            (form(fields), Some("application/x-www-form-urlencoded"))
        }
        other => (other.to_string(), Some("application/json")),
    };
    if let (Some(kind), false) = (kind, headers.contains_key(header::CONTENT_TYPE)) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    text.into_bytes()
}

/// Fields of a form or a query; a list gives its key several times, `null` none at all.
fn form(fields: &Map<String, Value>) -> String {
    let mut pairs = Vec::new();
    for (key, value) in fields {
        let several = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in several {
            let text = match value {
                Value::Null => continue,
                other => python::spelled(other),
            };
            pairs.push(format!("{}={}", encoded(key), encoded(&text)));
        }
    }
    pairs.join("&")
}

/// A text as a form has it: spaces are `+`.
fn encoded(text: &str) -> String {
    address::percent_encoded(text).replace("%20", "+")
}

/// Parses an address. A user and password in it become a header: they must not be sent as part of the address.
fn without_user(url: &str, headers: &mut HeaderMap) -> Result<Uri, String> {
    let uri = address::of_web(url)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let Some((user, _)) = authority.rsplit_once('@') else {
        return Ok(uri);
    };
    if !headers.contains_key(header::AUTHORIZATION) {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(decoded(user)));
        let mut basic = HeaderValue::from_str(&basic).map_err(|error| error.to_string())?;
        basic.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, basic);
    }
    address::of_web(&url.replacen(&format!("{user}@"), "", 1))
}

fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .filter(|_| *first == b'%')
        {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The address of a `Location`, which may be relative to the address that was asked (RFC 3986, the cases that servers send).
fn joined(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let is_absolute = location.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    if is_absolute {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    }
}

impl HttpExchange {
    /// The value of an answer: `{status, headers, body}`; the body is parsed where its type says JSON.
    ///
    /// None stands for a body that is longer than `limit`, in bytes. A body that is not had makes no other part of the value worthless:
    /// `body` is `null`, and `body_error` says why. What judges the body is *unknown* then.
    pub fn value(
        status: StatusCode,
        answered: &HeaderMap,
        body: Option<&[u8]>,
        limit: usize,
    ) -> Value {
        let text = match body {
            Some(bytes) => http_body::text_of(answered, bytes, limit),
            None => Err(http_body::too_long(limit)),
        };
        let is_json = answered.get(header::CONTENT_TYPE).is_some_and(says_json);
        // A server that says JSON and sends something else has answered all the same; so has one that
        // sends an object with a key twice, of which nobody knows what it means.
        let body = match &text {
            Ok(text) if is_json => json::read(text).ok(),
            _ => None,
        };
        let mut headers = Map::new();
        for (name, value) in answered {
            let value = String::from_utf8_lossy(value.as_bytes());
            match headers.entry(usual(name)) {
                serde_json::map::Entry::Occupied(mut known) => {
                    let both = format!("{}, {value}", value_text(known.get()));
                    known.insert(both.into());
                }
                serde_json::map::Entry::Vacant(new) => {
                    new.insert(value.into());
                }
            }
        }
        let status = status.as_u16();
        match text {
            Ok(text) => {
                let body = body.unwrap_or(Value::String(text));
                serde_json::json!({"status": status, "headers": headers, "body": body})
            }
            Err(why) => {
                serde_json::json!({"status": status, "headers": headers, "body": null, "body_error": why})
            }
        }
    }

    /// A value of [`value`](HttpExchange::value) without its body, which is too long to be passed on. None for any other value.
    pub fn without_body(value: &Value, limit: usize) -> Option<Value> {
        let (status, headers) = (value.get("status")?, value.get("headers")?);
        value.get("body")?;
        let why = http_body::too_long(limit);
        Some(
            serde_json::json!({"status": status, "headers": headers, "body": null, "body_error": why}),
        )
    }
}

fn says_json(kind: &HeaderValue) -> bool {
    let kind = kind
        .to_str()
        .unwrap_or("")
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// A header's name as servers usually write it, e.g. `Content-Type`, which is what tolerances look for.
fn usual(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(BASE64_STANDARD.encode(plain), coded);
        }
    }

    #[test]
    fn a_location_is_seen_from_where_it_was_said() {
        let from: Uri = "http://h:1/a/b?c".parse().unwrap();
        assert_eq!(joined(&from, "d"), "http://h:1/a/d");
        assert_eq!(joined(&from, "/d?e"), "http://h:1/d?e");
        assert_eq!(joined(&from, "//i/d"), "http://i/d");
        assert_eq!(joined(&from, "https://i/d"), "https://i/d");
        assert_eq!(joined(&from, "?e"), "http://h:1/a/b?e");
        assert_eq!(
            joined(&from, "/d?to=http://i/"),
            "http://h:1/d?to=http://i/"
        );
    }

    #[test]
    fn a_redirect_to_what_is_no_address_is_a_broken_check() {
        let provider: HttpProvider =
            serde_json::from_value(serde_json::json!({"url": "http://h:1/a"})).unwrap();
        let asked = HttpRequest::new(&provider).unwrap();
        let to = |location: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))]);
            asked.redirected(StatusCode::FOUND, &headers)
        };
        for location in ["http://h:99999/", "http://h:8O/", "//h:0/", "ftp://h/"] {
            assert!(
                matches!(to(location), Err(ProbeError::Broken(_))),
                "{location}"
            );
        }
        let next = to("http://h:2?x=1").unwrap().unwrap();
        assert_eq!(next.uri, "http://h:2/?x=1");
    }

    #[test]
    fn redirect_to_another_server_is_not_sent_the_body() {
        let provider: HttpProvider = serde_json::from_value(serde_json::json!(
            {"url": "http://h:1/a", "method": "POST", "arguments": "secret"}))
        .unwrap();
        let asked = HttpRequest::new(&provider).unwrap();
        let to = |status: u16, location: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))]);
            asked.redirected(StatusCode::from_u16(status).unwrap(), &headers)
        };
        for status in [307, 308] {
            let Err(ProbeError::Broken(why)) = to(status, "http://h:2/b") else {
                panic!("{status}: the body is sent to another server");
            };
            assert!(why.contains("`h:2`") && !why.contains("secret"), "{why}");
            let next = to(status, "/b").unwrap().unwrap();
            assert_eq!(next.body, b"secret", "{status}");
        }
        // These turn a POST into a GET, which has no body.
        for status in [301, 302, 303] {
            let next = to(status, "http://h:2/b").unwrap().unwrap();
            assert!(
                next.method == Method::GET && next.body.is_empty(),
                "{status}"
            );
        }
    }

    #[test]
    fn a_user_in_the_address_becomes_a_header() {
        let mut headers = HeaderMap::new();
        let uri = without_user("http://me:p%40ss@host:8080/x", &mut headers).unwrap();
        assert_eq!(uri, "http://host:8080/x");
        assert_eq!(
            headers[header::AUTHORIZATION],
            format!("Basic {}", BASE64_STANDARD.encode(b"me:p@ss"))
        );
        assert!(without_user("ftp://host/", &mut headers).is_err());
        assert!(without_user("just words", &mut headers).is_err());
    }
}
