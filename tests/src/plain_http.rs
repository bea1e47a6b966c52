//! A plain client of a controller's API: HTTP/1.0 over TLS, whose answers end with their connection, so that what
//! was read of a stream is exactly what the controller had sent.

use backburn_agent::controller_link::verify;
use backburn_experiments::token::ApiToken;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer, as it comes.
pub struct Answer {
    /// Its status.
    pub status: u16,
    body: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Streamed {
    /// Its number; 0 where it has none.
    pub id: u64,
    /// Its kind.
    pub kind: String,
    /// What it says.
    pub data: Value,
}

/// Asks. The token is as `backburn tokens make` prints it.
///
/// # Errors
/// Nobody answers.
pub fn ask(address: &str, token: &str, request: &str) -> std::io::Result<Answer> {
    ask_with(address, token, request, "")
}

/// The same with more lines in its head, each ended by `\r\n`.
///
/// # Errors
/// Nobody answers.
///
/// # Panics
/// What comes is no answer.
pub fn ask_with(address: &str, token: &str, request: &str, head: &str) -> std::io::Result<Answer> {
    send(address, token, request, head, "")
}

/// The same with a body of JSON.
///
/// # Errors
/// Nobody answers.
///
/// # Panics
/// What comes is no answer.
pub fn ask_json(
    address: &str,
    token: &str,
    request: &str,
    body: &Value,
) -> std::io::Result<Answer> {
    let body = body.to_string();
    let head = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    send(address, token, request, &head, &body)
}

fn send(
    address: &str,
    token: &str,
    request: &str,
    head: &str,
    body: &str,
) -> std::io::Result<Answer> {
    let known: ApiToken = token.parse().expect("a token");
    let config =
        verify::config_from_token(&known.authority, &["http/1.1"]).expect("TLS can be had");
    let (host, _) = address.rsplit_once(':').expect("HOST:PORT");
    let name = ServerName::try_from(host.to_owned()).expect("a host's name");
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let token = token.trim();
    let request = format!(
        "{request} HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{head}\r\n{body}"
    );
    // In one piece: it is timed, too.
    stream.write_all(request.as_bytes())?;
    let mut body = BufReader::new(stream);
    let mut line = String::new();
    body.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {line}")))?;
    while line.trim_end() != "" {
        line.clear();
        body.read_line(&mut line)?;
    }
    Ok(Answer { status, body })
}

impl Answer {
    /// The whole of it.
    pub fn text(mut self) -> String {
        let mut text = String::new();
        // A connection that is closed without TLS's goodbye has said all there was.
        self.body.read_to_string(&mut text).ok();
        text
    }

    /// The whole of it.
    ///
    /// # Panics
    /// It is not JSON.
    pub fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The next event of a stream; none where it has ended, or broke off.
    pub fn event(&mut self) -> Option<Streamed> {
        let mut event = Streamed {
            id: 0,
            kind: String::new(),
            data: Value::Null,
        };
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => event.id = id.parse().expect("a number"),
                Some(("event", kind)) => event.kind = kind.to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).expect("JSON"),
                // A line without a key says only that they live; an empty one ends the event.
                _ if line.trim_end().is_empty() && !event.kind.is_empty() => return Some(event),
                _ => {}
            }
        }
    }
}
