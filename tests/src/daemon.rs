//! The real `backburn controller`, as a process, and its HTTP interface, from a test's side.

use crate::programs::backburn;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring, version::TLS13,
};

/// How long anything is waited for.
const LONG: Duration = Duration::from_secs(120);

/// A controller; killed when dropped.
pub struct Daemon {
    /// Where it listens.
    pub address: SocketAddr,
    data: PathBuf,
    child: Child,
    config: Arc<ClientConfig>,
    token: String,
}

impl Daemon {
    /// Starts one with this data folder.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start(data: &Path) -> Self {
        Daemon::start_at(data, "127.0.0.1:0")
    }

    fn start_at(data: &Path, listen: &str) -> Self {
        let mut child = Command::new(backburn())
            .args(["controller", "--listen", listen, "--data"])
            .arg(data)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the controller starts");
        let mut says = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = loop {
            let line = says.next().expect("it says where it listens");
            let line = line.expect("it says UTF-8");
            if let Some(rest) = line.strip_prefix("listening on ") {
                let address = rest.split(',').next().unwrap_or_default();
                break address.parse().expect("it listens at an address");
            }
        };
        // Whatever it still has to say belongs to the test's output.
        std::thread::spawn(move || {
            says.map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        let file = |path: &str| std::fs::read_to_string(data.join(path)).expect("it wrote that");
        let authority = CertificateDer::from_pem_slice(file("authority/authority.crt").as_bytes());
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.expect("a certificate"))
            .expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3 is there")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Daemon {
            address,
            data: data.to_owned(),
            child,
            config: Arc::new(config),
            token: file("admin-token").trim().to_owned(),
        }
    }

    /// Kills it with SIGKILL, and starts it again at the same address.
    ///
    /// # Panics
    /// It does not come up.
    pub fn dies_and_comes_again(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
        *self = Daemon::start_at(&self.data.clone(), &self.address.to_string());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks over HTTP. The status, and what came back.
    ///
    /// # Panics
    /// It does not answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_nodelay(true).expect("a socket can");
        stream.set_read_timeout(Some(LONG)).expect("a socket can");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        let mut stream = StreamOwned::new(connection, stream);
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = Vec::new();
        let mut room = vec![0; 1 << 16];
        let (status, from, length) = loop {
            let count = stream.read(&mut room).expect("it answers");
            assert!(count > 0, "{method} {path}: it closed without an answer");
            answer.extend_from_slice(&room[..count]);
            if let Some(head) = head(&answer) {
                break head;
            }
        };
        while answer.len() < from + length {
            let count = stream.read(&mut room).expect("it answers");
            assert!(count > 0, "{method} {path}: it closed within an answer");
            answer.extend_from_slice(&room[..count]);
        }
        let value = match length {
            0 => Value::Null,
            _ => serde_json::from_slice(&answer[from..]).expect("an answer is JSON"),
        };
        (status, value)
    }

    /// The same, and it is done.
    ///
    /// # Panics
    /// It is refused.
    pub fn done(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    /// Starts a run of an experiment that was put there. Its id.
    ///
    /// # Panics
    /// It does not begin.
    pub fn run(&self, experiment: &str) -> String {
        let path = format!("/api/v1/experiments/{experiment}/runs");
        let begun = self.done("POST", &path, Some(&serde_json::json!({})));
        begun["run"].as_str().expect("it has begun").to_owned()
    }

    /// Waits until a run is closed.
    ///
    /// # Panics
    /// It is not, in time.
    pub fn closed(&self, run: &str) -> Value {
        let until = Instant::now() + LONG;
        loop {
            let found = self.done("GET", &format!("/api/v1/runs/{run}"), None);
            if !found["ended"].is_null() {
                return found;
            }
            assert!(Instant::now() < until, "it goes on: {found}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every event of a run, from its journal.
    ///
    /// # Panics
    /// They can't be had.
    pub fn events(&self, run: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let path = format!("/api/v1/runs/{run}/events?after={}&limit=1000", all.len());
            match self.done("GET", &path, None) {
                Value::Array(page) if page.is_empty() => return all,
                Value::Array(page) => {
                    all.extend(page.into_iter().map(|mut event| event["entry"].take()))
                }
                other => panic!("no events: {other}"),
            }
        }
    }
}

/// The status, where the body begins, and how long it is, once all that is known.
fn head(answer: &[u8]) -> Option<(u16, usize, usize)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    Some((status, end + 4, length))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
