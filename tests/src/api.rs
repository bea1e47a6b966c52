//! A real `backburn controller` on a port of its own, and whoever calls it: over HTTP by the byte, so that a test can
//! say what no client says, or over an agent's link, with a certificate that was had by joining.

use crate::programs::{backburn, backburn_agent};
use crate::wait::wait_within;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything is waited for.
pub const LONG: Duration = Duration::from_secs(120);

/// A controller; killed when dropped.
pub struct Controller {
    child: Child,
    folder: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// The first token.
    pub admin: String,
    config: Arc<ClientConfig>,
    said: Arc<Mutex<String>>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// A connection over TLS.
pub struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Default for Controller {
    fn default() -> Self {
        Controller::new(None, &[])
    }
}

impl Controller {
    /// One with this policy, and with these in its environment.
    ///
    /// # Panics
    /// It does not start.
    pub fn new(policy: Option<&Value>, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let mut command = Command::new(backburn());
        command
            .args(["controller", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .env_remove("BACKBURN_CONTROLLER_POLICY")
            .env("BACKBURN_LOG", "info")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(policy) = policy {
            let file = folder.path().join("policy.json");
            std::fs::write(&file, policy.to_string()).expect("it can be written");
            command.arg("--policy").arg(file);
        }
        let mut child = command.spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let first = lines.next().expect("it says something").expect("UTF-8");
        let address = first
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(',').next()?.parse().ok())
            .unwrap_or_else(|| panic!("it does not listen: {first}"));
        let said = Arc::new(Mutex::new(String::new()));
        let keeps = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *keeps.lock().expect("a lock") += &format!("{line}\n");
            }
        });
        let data = folder.path().join("data");
        let read = |path: &str| std::fs::read_to_string(data.join(path)).expect("it is there");
        let config = config(&read("authority/authority.crt"), "http/1.1", None);
        Controller {
            admin: read("admin-token").trim().to_owned(),
            child,
            folder,
            address,
            config,
            said,
        }
    }

    /// The folder of its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder beside its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of its authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.data().join("authority/authority.crt")
    }

    /// What it has said on standard error.
    ///
    /// # Panics
    /// Another test's thread has.
    pub fn said(&self) -> String {
        self.said.lock().expect("a lock").clone()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// It can't be asked.
    pub fn lives(&mut self) -> bool {
        let ended = self.child.try_wait().expect("a child can be waited for");
        ended.is_none()
    }

    /// A connection for HTTP.
    ///
    /// # Panics
    /// There is none.
    pub fn connect(&self) -> Connection {
        Connection::new(self.address, &self.config)
    }

    /// Asks, with this token, over a connection of its own.
    ///
    /// # Panics
    /// There is no answer.
    pub fn ask(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
        let mut connection = self.connect();
        connection.send(&request(method, path, token, body));
        let answer = connection.answer(method == "HEAD");
        answer.unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// Asks as the first admin; the answer's JSON.
    ///
    /// # Panics
    /// The answer is no.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &self.admin, None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// A new token: its id, and the token.
    ///
    /// # Panics
    /// It can't be made.
    pub fn token(&self, name: &str, role: &str, lasts: Option<&str>) -> (String, String) {
        let wanted = json!({"name": name, "role": role, "lasts": lasts});
        let made = self.ask("POST", "/api/v1/tokens", &self.admin, Some(&wanted));
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        let text = |field: &str| made[field].as_str().expect("a text").to_owned();
        (text("id"), text("token"))
    }

    /// Keeps this experiment, and starts a run of it. The run's id.
    ///
    /// # Panics
    /// It is refused.
    pub fn begun(&self, name: &str, document: &Value) -> String {
        let path = format!("/api/v1/experiments/{name}");
        let put = self.ask("PUT", &path, &self.admin, Some(document));
        assert_eq!(put.status, 200, "{}", put.text());
        let begun = self.ask(
            "POST",
            &format!("{path}/runs"),
            &self.admin,
            Some(&json!({})),
        );
        assert_eq!(begun.status, 201, "{}", begun.text());
        begun.json()["run"].as_str().expect("an id").to_owned()
    }

    /// Keeps an experiment under this name, and runs it to its end. Returns the run's id.
    ///
    /// # Panics
    /// It can't be.
    pub fn ran(&self, name: &str) -> String {
        let run = self.begun(name, &experiment(name));
        wait_within("the run does not end", LONG, || {
            !self.get(&format!("/api/v1/runs/{run}"))["ended"].is_null()
        });
        run
    }

    /// Lets an agent of this name join, and gives what opens its link.
    ///
    /// # Panics
    /// It may not.
    pub fn join(&self, name: &str) -> Arc<ClientConfig> {
        let made = self.ask("POST", "/api/v1/join-tokens", &self.admin, Some(&json!({})));
        let state = self.folder.path().join(name);
        let joined = Command::new(backburn_agent())
            .args(["join", "--name", name, "--controller"])
            .arg(format!("localhost:{}", self.address.port()))
            .arg("--token")
            .arg(made.json()["token"].as_str().expect("a token"))
            .arg("--state")
            .arg(&state)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&joined.stderr).into_owned();
        assert!(joined.status.success(), "{said}");
        let kept = std::fs::read(state.join("controller.json")).expect("it is kept");
        let kept: Value = serde_json::from_slice(&kept).expect("JSON");
        let text = |field: &str| kept[field].as_str().expect("a text");
        config(
            text("authority"),
            "backburn-agent/1",
            Some((text("certificate"), text("key"))),
        )
    }

    /// An agent's link.
    ///
    /// # Panics
    /// It is not let in.
    pub fn link(&self, papers: &Arc<ClientConfig>) -> Connection {
        Connection::new(self.address, papers)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn config(authority: &str, protocol: &str, own: Option<(&str, &str)>) -> Arc<ClientConfig> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(authority)).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((own, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            let own = vec![certificate(own)];
            builder.with_client_auth_cert(own, key).expect("a key")
        }
    };
    config.alpn_protocols = vec![protocol.into()];
    Arc::new(config)
}

/// An experiment that needs nobody, and ends at once.
pub fn experiment(title: &str) -> Value {
    let probe = json!({
        "type": "probe", "name": "look", "tolerance": 200,
        "provider": {"type": "http", "url": "http://127.0.0.1:1/"},
    });
    json!({"title": title, "description": "Nothing is done", "method": [probe]})
}

/// A request as a client would write it; an empty token is none.
pub fn request(method: &str, path: &str, token: &str, body: Option<&Value>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    if !token.is_empty() {
        text += &format!("authorization: Bearer {token}\r\n");
    }
    let body = body.map(Value::to_string);
    if let Some(body) = &body {
        let length = body.len();
        text += &format!("content-type: application/json\r\ncontent-length: {length}\r\n");
    }
    (text + "\r\n" + &body.unwrap_or_default()).into_bytes()
}

impl Connection {
    fn new(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(config), name).expect("TLS");
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a socket can");
        stream.set_write_timeout(Some(LONG)).expect("a socket can");
        Connection(StreamOwned::new(client, stream))
    }

    /// Sends these bytes, as far as they are taken: the other side may have heard enough.
    pub fn send(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes).and_then(|()| self.0.flush()));
    }

    /// One byte. None at the end.
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.0.read(&mut byte).ok()? > 0).then_some(byte[0])
    }

    /// A line, its end left out. None at the end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        let line = String::from_utf8_lossy(&line);
        Some(line.trim_end_matches('\r').to_owned())
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// How an answer begins: its status and its headers. None where the connection was closed.
    pub fn head(&mut self) -> Option<Answer> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let body = Vec::new();
        Some(Answer {
            status,
            headers,
            body,
        })
    }

    /// The next answer, but for those that say to go on. None where the connection was closed.
    pub fn answer(&mut self, is_head: bool) -> Option<Answer> {
        let mut answer = self.head()?;
        while answer.status == 100 {
            answer = self.head()?;
        }
        if is_head || matches!(answer.status, 204 | 304) {
            return Some(answer);
        }
        answer.body = if let Some(length) = answer.header("content-length") {
            self.bytes(length.parse().ok()?)?
        } else if answer.header("transfer-encoding") == Some("chunked") {
            let mut whole = Vec::new();
            loop {
                let length = usize::from_str_radix(&self.line()?, 16).ok()?;
                whole.extend(self.bytes(length)?);
                self.line()?;
                if length == 0 {
                    break whole;
                }
            }
        } else {
            self.rest()
        };
        Some(answer)
    }

    /// All until the connection is closed.
    pub fn rest(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.byte()).collect()
    }

    /// Whether the other side closes, in time.
    pub fn is_closed(&mut self) -> bool {
        let until = Instant::now() + LONG;
        let mut buffer = [0; 4096];
        while Instant::now() < until {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

impl Answer {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its body's JSON.
    ///
    /// # Panics
    /// It is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Its problem document, as RFC 9457 has it, with this status.
    ///
    /// # Panics
    /// It is none.
    pub fn problem(&self, status: u16) -> Value {
        let what = format!("{}: {}", self.status, self.text());
        assert_eq!(self.status, status, "{what}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{what}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status, "{what}");
        for field in ["type", "title", "detail"] {
            let text = problem[field].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "{field}: {what}");
        }
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(kind.starts_with("urn:backburn:problem:"), "{what}");
        problem
    }
}
