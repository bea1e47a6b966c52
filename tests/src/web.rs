//! A small web server for probes to ask: what it answers is in the path.
//!
//! `/status/503` answers with that status, `/json` with a fixed object, `/text` with plain text,
//! `/echo` with the request's method, path and body as JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// Serves until the test's process ends.
///
/// # Panics
/// Loopback has no free port.
pub fn serve() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is its own affair.
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;

    let (status, kind, text) = match path.split('?').next().unwrap_or_default() {
        "/json" => (
            200,
            "application/json",
            r#"{"orders": 3, "items": [{"id": 1}, {"id": 2}], "ok": true}"#.to_owned(),
        ),
        "/text" => (200, "text/plain", "all is well".to_owned()),
        "/echo" => {
            let text = String::from_utf8_lossy(&body);
            // JSON as what it says, since there are many ways to space it.
            let body: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|_| text.into());
            (
                200,
                "application/json",
                serde_json::json!({"method": method, "path": path, "body": body}).to_string(),
            )
        }
        other => {
            let status = other
                .strip_prefix("/status/")
                .and_then(|code| code.parse().ok())
                .unwrap_or(404);
            (status, "text/plain", format!("status {status}"))
        }
    };
    write!(
        stream,
        "HTTP/1.1 {status} Answer\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}
