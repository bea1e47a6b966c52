//! A web server with every manner, good and bad, that a probe may meet: what it does is in the
//! path. It keeps what it was sent.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Where it is, and what it was sent, as it came.
#[derive(Clone)]
pub struct OddWeb {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Default for OddWeb {
    fn default() -> Self {
        Self::start()
    }
}

impl OddWeb {
    /// Serves until the test's process ends.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub fn start() -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let web = OddWeb { address, seen };
        let serving = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // A client that goes away is its own affair.
                std::thread::spawn(move || drop(serving.answer(stream)));
            }
        });
        web
    }

    /// What it was sent since it was asked last: the first line, the header fields in small letters and in order, the body.
    pub fn seen(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen)
            .into_iter()
            .map(|request| {
                let (head, body) = request.split_once("\r\n\r\n").unwrap_or((&request, ""));
                let mut lines = head.split("\r\n");
                let first = lines.next().unwrap_or_default().to_owned();
                let mut fields: Vec<String> = lines
                    .map(|line| match line.split_once(':') {
                        Some((name, value)) => {
                            format!("{}:{}", name.to_ascii_lowercase(), value.trim())
                        }
                        None => line.to_owned(),
                    })
                    .collect();
                fields.sort();
                format!("{first}\n{}\n\n{body}", fields.join("\n"))
            })
            .collect()
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = request(&mut stream)?;
        if request.is_empty() {
            return Ok(());
        }
        let mut words = request.split_whitespace();
        let (method, path) = (
            words.next().unwrap_or_default().to_owned(),
            words.next().unwrap_or_default().to_owned(),
        );
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(request);
        drop(seen);
        let whole = |status: &str, kind: &str, body: &str| {
            let length = body.len();
            let body = if method == "HEAD" { "" } else { body };
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Two: 1\r\nx-two: 2\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        };
        let to = |status: &str, place: &str| {
            format!("HTTP/1.1 {status}\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n")
        };
        let path = path.split('?').next().unwrap_or_default();
        let answer = match path {
            "/json" => whole("200 OK", "application/json; charset=utf-8", "{\"a\": [1, 2]}"),
            "/problem" => whole("400 Bad", "application/problem+json", "{\"title\": \"no\"}"),
            "/broken-json" => whole("200 OK", "application/json", "{nope"),
            "/none" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
            "/old" => "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end".into(),
            "/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n".into(),
            "/soon" => format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{}", whole("200 OK", "text/plain", "now")),
            "/long" => whole("200 OK", "text/plain", &"x".repeat(2 << 20)),
            "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo little".into(),
            "/moved" => to("302 Found", "/json?b=c#part"),
            "/moved-301" => to("301 Moved", "json"),
            "/moved-307" => to("307 Temporary", "/else"),
            "/moved-308" => to("308 Permanent", "//elsewhere.invalid/"),
            "/moved-303" => to("303 See Other", "/else"),
            "/nowhere" => to("302 Found", "ftp://x/"),
            "/round" => to("302 Found", "/round"),
            "/slow" => {
                // Nobody waits so long; the client's end ends it.
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest)?;
                return Ok(());
            }
            "/silent" => return Ok(()),
            "/noise" => "this is no HTTP\r\n\r\n".into(),
            "/api/v1/query" => whole(
                "200 OK",
                "application/json",
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.25"]}]}}"#,
            ),
            _ => whole("503 Service Unavailable", "text/plain", "gone fishing"),
        };
        stream.write_all(answer.as_bytes())
    }
}

/// One request; what speaks TLS to us is heard no further.
fn request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if length == 0 || request.first() == Some(&0x16) {
                return Ok(text);
            }
            continue;
        };
        let wanted = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0);
        if length == 0 || body.len() >= wanted {
            return Ok(text);
        }
    }
}
