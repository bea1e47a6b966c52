//! A client of the controller's HTTP API: its address, its token, and its problems as failures of a command.

use super::super::output::shown_path;
use super::super::{CommandFailure, EXIT_INVALID, default_state, runtime};
use backburn::api::types::ProblemDetails;
use backburn_agent::controller_link::verify;
use backburn_experiments::join::{API_PROTOCOL, HTTP_PROTOCOL, host_and_port};
use backburn_experiments::journal::Outcome;
use backburn_experiments::terminal_text::{escape, escaped};
use backburn_experiments::token::{ApiToken, InvalidToken};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long it may take to connect to the controller.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The controller to use, and the token to present.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ControllerOptions {
    /// Controller to use [default port: 7420]
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        env = "BACKBURN_CONTROLLER",
        help_heading = "Controller"
    )]
    controller: Option<String>,
    /// File that contains the token; without it, BACKBURN_TOKEN is the token
    #[arg(
        long,
        value_name = "FILE",
        env = "BACKBURN_TOKEN_FILE",
        help_heading = "Controller"
    )]
    token_file: Option<PathBuf>,
}

/// The answer to a request that may need a lock.
pub(super) enum LockedAnswer<T> {
    /// The lock was free, or none was needed.
    Free(T),
    /// Another run holds the lock; the failure of a command that does not wait.
    Held(CommandFailure),
}

/// A client of one controller.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Client {
    host: String,
    port: u16,
    /// The SHA-256 of the certificate of the controller's authority.
    authority: String,
    /// The token to present; none before a log-in.
    token: Option<ApiToken>,
}

impl ControllerOptions {
    /// Whether a controller was given.
    pub(in crate::cli) fn is_given(&self) -> bool {
        !self.host().is_empty()
    }

    /// The controller as it was given; empty if none was.
    pub(super) fn host(&self) -> &str {
        self.controller.as_deref().unwrap_or_default()
    }

    /// The host and the port of the controller that was given.
    ///
    /// # Errors
    /// None is given, or it is malformed.
    pub(super) fn host_and_port(&self) -> Result<(String, u16), CommandFailure> {
        if !self.is_given() {
            return Err(CommandFailure::invalid(
                "no controller is given\nhint: use `--controller HOST[:PORT]` or set BACKBURN_CONTROLLER",
            ));
        }
        let controller = self
            .host()
            .trim_start_matches("https://")
            .trim_end_matches('/');
        let Some((host, port)) = host_and_port(controller) else {
            return Err(CommandFailure::invalid(format!(
                "expected HOST[:PORT], got `{controller}`\nhint: for example `chaos.example.org` or `[fd00::1]:7420`"
            )));
        };
        Ok((host.to_owned(), port))
    }

    /// A client of the controller that was given.
    ///
    /// # Errors
    /// The controller or the token is missing or malformed.
    pub(in crate::cli) fn client(&self) -> Result<Client, CommandFailure> {
        let (host, port) = self.host_and_port()?;
        let text = match &self.token_file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                let why = backburn_experiments::probes::io_error_text(&error);
                CommandFailure::invalid(format!(
                    "the token file {}: {why}\nhint: name another with `--token-file FILE` or BACKBURN_TOKEN_FILE; the first token of a controller is in `admin-token` of its data folder, and an admin makes more with `backburn tokens make NAME`",
                    shown_path(path)
                ))
            })?,
            None => match std::env::var("BACKBURN_TOKEN") {
                Ok(text) => text,
                Err(_) => stored_login(&host, port)
                    .ok()
                    .and_then(|file| std::fs::read_to_string(file).ok())
                    .ok_or_else(|| {
                        CommandFailure::invalid(
                            "no token is given\nhint: use `--token-file FILE` or set BACKBURN_TOKEN; an admin makes a token with `backburn tokens make NAME`, and `backburn login` gets one from the identity provider if the controller has one",
                        )
                    })?,
            },
        };
        let token = text
            .parse()
            .map_err(|error: InvalidToken| CommandFailure::invalid(error.to_string()))?;
        Ok(Client::new(host, port, token))
    }
}

/// The file that holds the token of a log-in to this controller.
///
/// # Errors
/// There is no folder for it.
pub(super) fn stored_login(host: &str, port: u16) -> Result<PathBuf, CommandFailure> {
    let name: String = (host.chars())
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let given = std::env::var_os("BACKBURN_STATE").filter(|folder| !folder.is_empty());
    let state = given.map_or_else(default_state, |folder| Ok(folder.into()))?;
    Ok(state.join("logins").join(format!("{name}_{port}")))
}

impl Client {
    /// A client that presents this token.
    pub(super) fn new(host: String, port: u16, token: ApiToken) -> Self {
        Client {
            host,
            port,
            authority: token.authority.clone(),
            token: Some(token),
        }
    }

    /// A client that has no token yet, of the controller whose authority has this fingerprint.
    pub(super) fn without_token(host: String, port: u16, authority: String) -> Self {
        Client {
            host,
            port,
            authority,
            token: None,
        }
    }

    /// Sends a GET request and waits for the whole answer.
    pub(in crate::cli) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandFailure> {
        runtime()?.block_on(self.request("GET", path, None))
    }

    /// Sends a GET request and waits for the whole answer, which is text.
    pub(in crate::cli) fn get_text(&self, path: &str) -> Result<String, CommandFailure> {
        runtime()?.block_on(async {
            let response = self.open("GET", path, None, &[]).await?;
            let whole = response.into_body().collect().await;
            let bytes = whole.map_err(|error| self.unreachable(&error))?.to_bytes();
            String::from_utf8(bytes.into()).map_err(|_| {
                CommandFailure::invalid("the answer of the controller is not valid UTF-8")
            })
        })
    }

    /// Sends a POST request with a body and waits for the whole answer.
    pub(in crate::cli) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CommandFailure> {
        runtime()?.block_on(self.request("POST", path, Some(to_json(body)?)))
    }

    /// Sends a POST request with a body and waits for the whole answer, which may be that a lock is held.
    pub(super) fn post_with_lock<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<LockedAnswer<T>, CommandFailure> {
        let body = to_json(body)?;
        runtime()?.block_on(async {
            let response = self.send("POST", path, Some(body), &[]).await?;
            match response.status() {
                StatusCode::LOCKED => Ok(LockedAnswer::Held(self.refused(response).await)),
                _ => Ok(LockedAnswer::Free(
                    self.read(self.accepted(response).await?).await?,
                )),
            }
        })
    }

    /// Sends a PUT request with a body and waits for the whole answer.
    pub(super) fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CommandFailure> {
        runtime()?.block_on(self.request("PATCH", path, Some(to_json(body)?)))
    }

    /// Sends a DELETE request and waits for the whole answer.
    pub(super) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CommandFailure> {
        runtime()?.block_on(self.request("PUT", path, Some(to_json(body)?)))
    }

    /// Sends a DELETE request and waits for the whole answer.
    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandFailure> {
        runtime()?.block_on(self.request("DELETE", path, None))
    }

    /// Reads a list page by page. `key` is what the list is ordered by; `path` has a query already.
    pub(super) fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        key: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, CommandFailure> {
        let mut items: Vec<T> = Vec::new();
        loop {
            let after = items.last().map(|last| format!("&after={}", key(last)));
            let page: Vec<T> = self.get(&format!("{path}{}", after.unwrap_or_default()))?;
            if page.is_empty() {
                return Ok(items);
            }
            items.extend(page);
        }
    }

    /// Sends a request within a runtime and waits for the whole answer. An answer without content is read as `null`.
    pub(in crate::cli) async fn request<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<T, CommandFailure> {
        let response = self.open(method, path, body, &[]).await?;
        self.read(response).await
    }

    /// Reads a whole answer. One without content is read as `null`.
    async fn read<T: DeserializeOwned>(
        &self,
        response: Response<Incoming>,
    ) -> Result<T, CommandFailure> {
        let whole = response.into_body().collect().await;
        let bytes = whole.map_err(|error| self.unreachable(&error))?.to_bytes();
        let json = match bytes.is_empty() {
            true => b"null",
            false => &bytes[..],
        };
        serde_json::from_slice(json).map_err(|error| {
            CommandFailure::invalid(format!(
                "the answer of the controller at {}:{} could not be read: {error}\nhint: is it the same version as this program?",
                self.host, self.port
            ))
        })
    }

    /// Sends a request and returns the answer as soon as it begins. A problem is a failure.
    pub(super) async fn open(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
        headers: &[(&str, String)],
    ) -> Result<Response<Incoming>, CommandFailure> {
        let response = self.send(method, path, body, headers).await?;
        self.accepted(response).await
    }

    /// The answer, unless it is a problem.
    async fn accepted(
        &self,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, CommandFailure> {
        let status = response.status();
        match status.is_client_error() || status.is_server_error() {
            true => Err(self.refused(response).await),
            false => Ok(response),
        }
    }

    /// The problem that an answer describes.
    async fn refused(&self, response: Response<Incoming>) -> CommandFailure {
        let status = response.status();
        match response.into_body().collect().await {
            Ok(body) => problem(status, &body.to_bytes()),
            Err(error) => self.unreachable(&error),
        }
    }

    /// Sends a request and returns the answer as soon as it begins, whatever it is.
    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
        headers: &[(&str, String)],
    ) -> Result<Response<Incoming>, CommandFailure> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| self.unreachable(&"it does not answer"))??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection ended");
            }
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{}:{}", self.host, self.port));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| CommandFailure::invalid(error.to_string()))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CommandFailure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.unreachable(&error))?;
        // The request must not wait for the acknowledgement of the handshake, which takes up to 40 ms: it may be a halt.
        stream
            .set_nodelay(true)
            .map_err(|error| self.unreachable(&error))?;
        let config = verify::config_from_token(&self.authority, &[API_PROTOCOL, HTTP_PROTOCOL])
            .map_err(|error| self.unreachable(&error))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|_| {
            CommandFailure::invalid(format!("`{}` is not a valid host name", self.host))
        })?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> CommandFailure {
        let why = error.to_string();
        CommandFailure::invalid(format!(
            "the controller at {}:{} cannot be reached: {}\nhint: {}",
            escape(&self.host),
            self.port,
            escape(why.split(" (os error").next().unwrap_or(&why)),
            self.what_to_check(&why)
        ))
    }

    /// What to check when a connection fails for this reason. Errors of TLS and of look-ups have no kind, only a text.
    fn what_to_check(&self, why: &str) -> String {
        let port = self.port;
        let has = |part: &str| why.contains(part);
        if has("Connection refused") {
            format!(
                "nothing listens there: check that `backburn controller` is running, and that it listens on port {port} of an address that is reached from here (`--listen`)"
            )
        } else if has("lookup address") {
            "this name has no address here: check its spelling, or give the address itself".into()
        } else if has("NotValidForName") || has("not valid for name") {
            "this is not one of the controller's `--name`s: use one of those, or start it with this one too".into()
        } else if has("certificate") {
            "the token is of another controller, or something between here and there has a certificate of its own: check the address and the token".into()
        } else if has("corrupt message") {
            format!("what listens on port {port} does not speak TLS: check the port")
        } else if has("it does not answer") || has("timed out") || has("unreachable") {
            format!(
                "check the address, and that no firewall keeps this host from port {port} of that one"
            )
        } else {
            "check that it is running, that this is one of its `--name`s, and that it has made the token".into()
        }
    }
}

/// The JSON text of a request's body.
pub(super) fn to_json(body: &impl Serialize) -> Result<String, CommandFailure> {
    serde_json::to_string(body).map_err(|error| CommandFailure::invalid(error.to_string()))
}

/// A controller's problem as the failure of a command, with the exit code that the same problem has on a host.
fn problem(status: StatusCode, body: &[u8]) -> CommandFailure {
    let Ok(problem) = serde_json::from_slice::<ProblemDetails>(body) else {
        return CommandFailure::invalid(format!("the controller answered {status}"));
    };
    // What a rule refuses was not started.
    let is_refused = matches!(
        status,
        StatusCode::CONFLICT | StatusCode::FORBIDDEN | StatusCode::LOCKED
    );
    let problem = escaped(&problem).unwrap_or(problem);
    let mut message = problem.detail.clone();
    if is_refused {
        message.push_str(&format!(" (rule: {})", problem.rule()));
    }
    for problem in &problem.problems {
        message.push_str(&format!("\n  {}: {}", problem.at, problem.what));
        if let Some(hint) = &problem.hint {
            message.push_str(&format!("\n    hint: {hint}"));
        }
    }
    if let Some(run) = &problem.run {
        message.push_str(&format!("\nrun {run} is recorded as not started"));
    }
    if let Some(hint) = &problem.hint {
        message.push_str(&format!("\nhint: {hint}"));
    }
    CommandFailure {
        code: match is_refused {
            true => Outcome::NotStarted.exit_code(),
            false => EXIT_INVALID,
        },
        message,
    }
}
