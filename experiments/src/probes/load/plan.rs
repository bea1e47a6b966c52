//! What a load sends, and when.

use super::LoadSchedule;
use crate::HumanDuration;
use crate::probes::{HttpRequest, LoadProvider};
use core::time::Duration;
use http::{Method, header};

/// A load: the request, when it is due, and the limits.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The host that is asked, as the address has it.
    pub host: String,
    /// The port that is connected to.
    pub port: u16,
    /// Whether TLS is spoken.
    pub is_tls: bool,
    /// The request as it is sent.
    pub(super) request: Vec<u8>,
    /// Whether its response has no body whatever its head says.
    pub(super) is_head: bool,
    /// When requests are due.
    pub schedule: LoadSchedule,
    /// How long after it was due a request is given up.
    pub timeout: Duration,
    /// The most connections at a time.
    pub connections: usize,
}

impl LoadPlan {
    /// The load that a provider asks for. `timeout` is the activity's, for a provider that has none of its own.
    ///
    /// # Errors
    /// There is no such request; the text is for people.
    pub fn new(provider: &LoadProvider, timeout: Option<HumanDuration>) -> Result<Self, String> {
        let request = HttpRequest::new(&provider.http())?;
        let is_tls = request.uri.scheme_str() == Some("https");
        let usual = if is_tls { 443 } else { 80 };
        Ok(LoadPlan {
            host: request.uri.host().unwrap_or_default().to_owned(),
            port: request.uri.port_u16().unwrap_or(usual),
            is_tls,
            is_head: request.method == Method::HEAD,
            request: bytes(&request),
            schedule: provider.schedule(),
            timeout: provider.request_timeout(timeout).0,
            connections: provider.connections() as usize,
        })
    }
}

/// A request as it is sent over HTTP/1.1.
fn bytes(request: &HttpRequest) -> Vec<u8> {
    let path = (request.uri.path_and_query()).map_or("/", |path| path.as_str());
    let mut bytes = format!("{} {path} HTTP/1.1\r\n", request.method).into_bytes();
    let mut add = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    };
    if !request.headers.contains_key(header::HOST) {
        let authority = request.uri.authority().map_or("", |host| host.as_str());
        add("Host", authority.as_bytes());
    }
    let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    for (name, value) in &request.headers {
        if !framing.contains(name) {
            add(name.as_str(), value.as_bytes());
        }
    }
    let is_bare = matches!(request.method, Method::GET | Method::HEAD) && request.body.is_empty();
    if !is_bare {
        add("Content-Length", request.body.len().to_string().as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&request.body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(provider: serde_json::Value) -> LoadPlan {
        let provider: LoadProvider = serde_json::from_value(provider).unwrap();
        LoadPlan::new(&provider, None).unwrap()
    }

    #[test]
    fn load_request_is_written_with_its_length_and_host() {
        let plan = plan(
            json!({"url": "https://user:word@[::1]/a b?c#d", "rate": 5, "method": "post",
            "headers": {"X-A": 1, "Content-Length": "999"}, "arguments": "body"}),
        );
        let text = String::from_utf8(plan.request).unwrap();
        assert!(
            text.starts_with("POST /a%20b?c HTTP/1.1\r\nHost: [::1]\r\n"),
            "{text}"
        );
        assert!(
            text.contains("x-a: 1\r\n") && text.contains("authorization: Basic "),
            "{text}"
        );
        assert!(text.ends_with("Content-Length: 4\r\n\r\nbody"), "{text}");
        assert!(!text.contains("999"));
        assert_eq!(
            (plan.host.as_str(), plan.port, plan.is_tls),
            ("[::1]", 443, true)
        );
    }

    #[test]
    fn load_request_get_has_no_length() {
        let plan = plan(json!({"url": "http://web:8080", "rate": 5}));
        let text = String::from_utf8(plan.request).unwrap();
        assert!(
            text.starts_with("GET / HTTP/1.1\r\nHost: web:8080\r\n"),
            "{text}"
        );
        assert!(!text.contains("ength"), "{text}");
        assert_eq!(plan.timeout, Duration::from_secs(5));
    }
}
