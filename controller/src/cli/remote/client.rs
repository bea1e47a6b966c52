//! Speaks to a controller: which one, with which token, and what its problems are in words.

use super::super::{CommandError, EXIT_INVALID, runtime};
use backburn_agent::controller_link::verify;
use backburn_experiments::join::host_and_port;
use backburn_experiments::journal::Outcome;
use backburn_experiments::token::{ApiToken, InvalidToken};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Which controller, and who asks.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ControllerOptions {
    /// The controller [default port: 7420]
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        env = "BACKBURN_CONTROLLER",
        help_heading = "Controller"
    )]
    controller: Option<String>,
    /// A file with a token in it; the token itself may be in BACKBURN_TOKEN
    #[arg(
        long,
        value_name = "FILE",
        env = "BACKBURN_TOKEN_FILE",
        help_heading = "Controller"
    )]
    token_file: Option<PathBuf>,
}

/// A controller that can be spoken to.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Client {
    host: String,
    port: u16,
    token: ApiToken,
}

impl ControllerOptions {
    /// Whether a controller was named.
    pub(in crate::cli) fn is_named(&self) -> bool {
        self.controller
            .as_deref()
            .is_some_and(|controller| !controller.is_empty())
    }

    /// The controller that was named, as it was written.
    pub(super) fn host(&self) -> &str {
        self.controller.as_deref().unwrap_or_default()
    }

    /// The controller that was named, with the token that was given.
    pub(in crate::cli) fn client(&self) -> Result<Client, CommandError> {
        let Some(controller) = self.controller.as_deref().filter(|_| self.is_named()) else {
            return Err(CommandError::invalid(
                "no controller is named\nhint: `--controller HOST[:PORT]`, or set BACKBURN_CONTROLLER",
            ));
        };
        let controller = controller
            .trim_start_matches("https://")
            .trim_end_matches('/');
        let Some((host, port)) = host_and_port(controller) else {
            return Err(CommandError::invalid(format!(
                "`{controller}` is not of the form HOST[:PORT]\nhint: e.g. `chaos.example.org`, or `[fd00::1]:7420`"
            )));
        };
        let text = match &self.token_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| CommandError::invalid(format!("{}: {error}", path.display())))?,
            None => std::env::var("BACKBURN_TOKEN").map_err(|_| {
                CommandError::invalid(
                    "no token is given\nhint: `--token-file FILE`, or set BACKBURN_TOKEN; an admin makes one with `backburn tokens make NAME`",
                )
            })?,
        };
        let token = text
            .parse()
            .map_err(|error: InvalidToken| CommandError::invalid(error.to_string()))?;
        Ok(Client {
            host: host.to_owned(),
            port,
            token,
        })
    }
}

impl Client {
    /// Asks, and waits for the whole answer.
    pub(in crate::cli) fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), CommandError> {
        runtime()?.block_on(self.ask(method, path, body))
    }

    /// The same, within a runtime.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), CommandError> {
        let response = self.open(method, path, body, &[]).await?;
        let status = response.status();
        let whole = response.into_body().collect().await;
        let bytes = whole.map_err(|error| self.unreachable(&error))?.to_bytes();
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| self.unreachable(&error))?;
        Ok((status, value))
    }

    /// Asks, and gives the answer as it begins; a problem is a failure.
    pub(super) async fn open(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, String)],
    ) -> Result<Response<Incoming>, CommandError> {
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
        let bytes = body.map(|body| body.to_string()).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{}:{}", self.host, self.port))
            .header("authorization", format!("Bearer {}", self.token));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| CommandError::invalid(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| self.unreachable(&error))?.to_bytes();
            return Err(problem(status, &body));
        }
        Ok(response)
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CommandError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.unreachable(&error))?;
        // What follows a handshake must not wait for its acknowledgement: 40 ms, of a halt.
        stream
            .set_nodelay(true)
            .map_err(|error| self.unreachable(&error))?;
        let config = verify::config_from_token(&self.token.authority, "http/1.1")
            .map_err(|error| self.unreachable(&error))?;
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| CommandError::invalid(format!("`{}` is no host's name", self.host)))?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> CommandError {
        CommandError::invalid(format!(
            "the controller at {}:{} can't be reached: {error}\nhint: is it running, is it called by one of its `--name`s, and is the token one of its own?",
            self.host, self.port
        ))
    }
}

/// What a controller's problem is in words, with the exit code that it has locally.
fn problem(status: StatusCode, body: &[u8]) -> CommandError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = super::text(&value, "detail");
    let mut what = match detail {
        "" => format!("the controller said {status}"),
        detail => detail.to_owned(),
    };
    let rule = super::text(&value, "type")
        .rsplit(':')
        .next()
        .unwrap_or_default();
    if matches!(status, StatusCode::CONFLICT | StatusCode::FORBIDDEN) {
        what.push_str(&format!(" (rule: {rule})"));
    }
    let problems = value.get("problems").and_then(Value::as_array);
    for problem in problems.into_iter().flatten() {
        let (at, what_) = (super::text(problem, "at"), super::text(problem, "what"));
        what.push_str(&format!("\n  {at}: {what_}"));
        if let Some(hint) = problem.get("hint").and_then(Value::as_str) {
            what.push_str(&format!("\n    hint: {hint}"));
        }
    }
    if let Some(hint) = value.get("hint").and_then(Value::as_str) {
        what.push_str(&format!("\nhint: {hint}"));
    }
    // What a rule refuses was not started.
    let code = match status {
        StatusCode::CONFLICT | StatusCode::FORBIDDEN => Outcome::NotStarted.exit_code(),
        _ => EXIT_INVALID,
    };
    CommandError { code, what }
}
