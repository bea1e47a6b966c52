//! The HTTP proxy through which an agent connects to its controller (CONNECT, RFC 9110, 9.3.6). The proxy sees the controller's name and encrypted
//! bytes: TLS is between agent and controller.

use super::deadline::{ConnectError, Deadline};
use backburn_experiments::join::host_and_port;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustix::event::PollFlags;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

/// The port of a proxy that is named without one.
const DEFAULT_PROXY_PORT: u16 = 8080;
/// The longest head of a proxy's answer, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    /// The host name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The credentials in base64, if the URL has any.
    authorization: Option<String>,
}

impl std::fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpProxy({self})")
    }
}

impl std::fmt::Display for HttpProxy {
    /// Without the credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl std::str::FromStr for HttpProxy {
    type Err = String;

    /// `http://[USER:PASSWORD@]HOST[:PORT]`, or without `http://`.
    fn from_str(text: &str) -> Result<Self, String> {
        // The text may have a password, so it is not repeated.
        let wrong = |what: &str| {
            format!("{what}\nhint: a proxy reads `http://[USER:PASSWORD@]HOST[:PORT]`")
        };
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                let scheme: String = scheme.chars().take(16).collect();
                return Err(wrong(&format!(
                    "a proxy of the kind `{}` is not supported",
                    scheme.escape_debug()
                )));
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let has_port = place
            .rsplit_once(':')
            .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let Some((host, port)) = host_and_port(place) else {
            return Err(wrong("the proxy's host and port cannot be read"));
        };
        if host.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err(wrong("the proxy's host cannot be read"));
        }
        let authorization = credentials
            .map(|credentials| {
                decode_percent(credentials)
                    .ok_or_else(|| wrong("the proxy's user or password cannot be read"))
            })
            .transpose()?
            .map(|credentials| BASE64_STANDARD.encode(credentials));
        Ok(HttpProxy {
            host: host.to_owned(),
            port: if has_port { port } else { DEFAULT_PROXY_PORT },
            authorization,
        })
    }
}

/// What is given in place of a proxy's URL for a direct connection, whatever the environment names.
pub const NO_PROXY: &str = "none";

/// The proxy for this controller: the one that was given, or else the environment's (`HTTPS_PROXY` or `https_proxy`), unless
/// `NO_PROXY` names the controller. None for a direct connection.
///
/// # Errors
/// The proxy is not named as it should be.
pub fn proxy_for(
    controller: &str,
    given: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<HttpProxy>, String> {
    match given {
        Some(NO_PROXY) => return Ok(None),
        Some(given) => return given.parse().map(Some),
        None => {}
    }
    let either = |upper: &str, lower: &str| {
        let found = environment(upper).or_else(|| environment(lower));
        found.filter(|text| !text.trim().is_empty())
    };
    let Some(proxy) = either("HTTPS_PROXY", "https_proxy") else {
        return Ok(None);
    };
    let host = host_and_port(controller).map_or(controller, |(host, _)| host);
    let exceptions = either("NO_PROXY", "no_proxy").unwrap_or_default();
    match exceptions
        .split(',')
        .any(|exception| is_excepted(host, exception.trim()))
    {
        true => Ok(None),
        false => proxy.trim().parse().map(Some),
    }
}

/// How a controller is reached.
#[derive(Debug, Clone)]
pub struct Route {
    /// The controller, as `HOST[:PORT]`.
    pub controller: String,
    /// The proxy in between.
    pub proxy: Option<HttpProxy>,
}

impl Route {
    /// The route to this controller, over the proxy that is given or that the environment names.
    ///
    /// # Errors
    /// The proxy is not named as it should be.
    pub fn new(controller: &str, proxy: Option<&str>) -> Result<Self, ConnectError> {
        match proxy_for(controller, proxy, |name| std::env::var(name).ok()) {
            Ok(proxy) => Ok(Route {
                controller: controller.to_owned(),
                proxy,
            }),
            Err(what) => {
                let (what, hint) = what
                    .split_once("\nhint: ")
                    .unwrap_or((&what, "see `--proxy`"));
                Err(ConnectError::new(what, hint))
            }
        }
    }
}

/// Whether an entry of `NO_PROXY` names this host: the host itself, a domain that it is in, a network that its address is in, or `*`.
fn is_excepted(host: &str, exception: &str) -> bool {
    if exception == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let (network, length) = match exception.split_once('/') {
            Some((network, length)) => (network, length.parse().ok()),
            None => (exception.trim_matches(['[', ']']), None),
        };
        return network
            .parse()
            .is_ok_and(|network| is_in(address, network, length.unwrap_or(128)));
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let domain = exception.trim_start_matches("*.").trim_start_matches('.');
    let domain = domain
        .split(':')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    !domain.is_empty()
        && host
            .strip_suffix(&domain)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether an address begins with the same `length` bits as a network.
fn is_in(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (
            u128::from(address.to_bits()),
            u128::from(network.to_bits()),
            32,
        ),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let differing = address ^ network;
    differing.checked_shr(bits - length.min(bits)).unwrap_or(0) == 0
}

impl HttpProxy {
    /// Asks the proxy, to which the socket is connected, for a connection to this host and port.
    ///
    /// # Errors
    /// The proxy refused, or did not answer in time.
    pub(super) fn open_tunnel(
        &self,
        stream: &TcpStream,
        host: &str,
        port: u16,
        deadline: &Deadline<'_>,
    ) -> Result<(), ConnectError> {
        let place = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let authorization = (self.authorization.as_ref())
            .map(|credentials| format!("Proxy-Authorization: Basic {credentials}\r\n"))
            .unwrap_or_default();
        let request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{authorization}\r\n");
        let hint = "check the proxy (`--proxy` of `join`, or HTTPS_PROXY), and whether it allows this host and port";
        let failed = |what: String| ConnectError::new(format!("proxy {self}: {what}"), hint);
        let mut stream = stream;
        let mut request = request.as_bytes();
        while !request.is_empty() {
            match stream.write(request) {
                Ok(count) => request = request.get(count..).unwrap_or_default(),
                Err(error) => self.wait(&error, stream, PollFlags::OUT, deadline, &failed)?,
            }
        }
        // One byte at a time: what follows the head is TLS.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(0) => return Err(failed("it closed the connection".into())),
                Ok(_) => head.extend_from_slice(&byte),
                Err(error) => self.wait(&error, stream, PollFlags::IN, deadline, &failed)?,
            }
            if head.len() > MAX_HEAD_BYTES {
                return Err(failed("its answer is too long".into()));
            }
        }
        let head = String::from_utf8_lossy(&head);
        let status_line = head.lines().next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1));
        match status {
            Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
            _ => {
                let shown: String = status_line.chars().take(200).collect();
                let shown = backburn_experiments::terminal_text::escape(&shown).into_owned();
                Err(failed(format!("it does not connect to {place}: `{shown}`")))
            }
        }
    }

    /// Waits until the socket is ready after this error, if that is what it says.
    fn wait(
        &self,
        error: &io::Error,
        stream: &TcpStream,
        wanted: PollFlags,
        deadline: &Deadline<'_>,
        failed: &impl Fn(String) -> ConnectError,
    ) -> Result<(), ConnectError> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::WouldBlock => match deadline.wait_ready(stream, wanted)? {
                true => Ok(()),
                false => Err(failed("no answer in time".into())),
            },
            _ => Err(failed(error.to_string())),
        }
    }
}

/// The bytes of a text in which some are written as `%40`. None if one is not.
fn decode_percent(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn proxy_is_read_with_and_without_its_parts() {
        for (text, shown) in [
            ("http://proxy.example:3128", "proxy.example:3128"),
            ("proxy.example", "proxy.example:8080"),
            ("HTTP://10.0.0.1:80/", "10.0.0.1:80"),
            ("http://[fd00::1]:3128", "[fd00::1]:3128"),
            (
                "http://user:p%40ss@proxy.example:3128",
                "proxy.example:3128",
            ),
        ] {
            assert_eq!(
                text.parse::<HttpProxy>().unwrap().to_string(),
                shown,
                "{text}"
            );
        }
        let secret = "http://user:p%40ss@proxy.example:3128"
            .parse::<HttpProxy>()
            .unwrap();
        assert_eq!(secret.authorization.as_deref(), Some("dXNlcjpwQHNz"));
        assert!(!format!("{secret:?}").contains("dXNl"));
        for bad in [
            "https://p:1",
            "socks5://p:1",
            "http://",
            "http://u:secret@p:port",
            "http://a b",
        ] {
            let why = bad.parse::<HttpProxy>().unwrap_err();
            assert!(
                why.contains("hint:") && !why.contains("secret"),
                "{bad}: {why}"
            );
        }
    }

    #[test]
    fn proxy_of_the_environment_is_used_unless_the_controller_is_excepted() {
        let proxy = |controller: &str, given: Option<&str>, exceptions: &str| {
            let environment = |name: &str| match name {
                "https_proxy" => Some("http://p:1".to_owned()),
                "NO_PROXY" => Some(exceptions.to_owned()),
                _ => None,
            };
            let found = proxy_for(controller, given, environment).unwrap();
            found.map(|proxy| proxy.to_string())
        };
        for (controller, exceptions) in [
            ("chaos.example.org:7420", ""),
            ("chaos.example.org", "example.com, ample.org"),
            ("10.1.2.3:7420", "10.2.0.0/16,fd00::/8"),
        ] {
            assert_eq!(
                proxy(controller, None, exceptions).as_deref(),
                Some("p:1"),
                "{controller} {exceptions}"
            );
        }
        for (controller, exceptions) in [
            ("chaos.example.org:7420", "example.com,.example.org"),
            ("chaos.example.org", "*.example.org"),
            ("CHAOS.example.org", "chaos.Example.org"),
            ("10.1.2.3:7420", "10.1.0.0/16"),
            ("10.1.2.3", "10.1.2.3"),
            ("[fd00::1]:7420", "fd00::/8"),
            ("anything", "*"),
        ] {
            assert_eq!(
                proxy(controller, None, exceptions),
                None,
                "{controller} {exceptions}"
            );
        }
        assert_eq!(
            proxy("x", Some("q:2"), "*").as_deref(),
            Some("q:2"),
            "it was given"
        );
        assert_eq!(proxy("x", Some("none"), ""), None, "none was asked for");
        assert_eq!(proxy_for("x", None, |_| None), Ok(None));
    }

    /// What a proxy is asked that answers this, and what the agent makes of it.
    fn tunnel(answer: &'static str) -> (String, Result<(), String>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend_from_slice(&byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let proxy: HttpProxy = format!("http://u:p@{address}").parse().unwrap();
        let deadline = Deadline {
            until: Instant::now() + Duration::from_secs(30),
            cancelled: None,
        };
        let opened = proxy.open_tunnel(&stream, "chaos.example.org", 7420, &deadline);
        (
            asked.join().unwrap(),
            opened.map_err(|error| error.to_string()),
        )
    }

    #[test]
    fn tunnel_is_asked_for_and_a_refusal_is_told() {
        let (asked, opened) = tunnel("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n");
        assert_eq!(opened, Ok(()));
        assert!(
            asked.starts_with(
                "CONNECT chaos.example.org:7420 HTTP/1.1\r\nHost: chaos.example.org:7420\r\n"
            ),
            "{asked}"
        );
        assert!(
            asked.contains("Proxy-Authorization: Basic dTpw\r\n"),
            "{asked}"
        );
        for (answer, told) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "SSH"),
            ("", "closed the connection"),
        ] {
            let (_, opened) = tunnel(answer);
            let why = opened.unwrap_err();
            assert!(why.contains(told) && why.contains("hint:"), "{why}");
        }
    }
}
