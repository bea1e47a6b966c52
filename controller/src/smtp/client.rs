//! The client's side of SMTP (RFC 5321), with STARTTLS (RFC 3207) and AUTH (RFC 4954).

use super::message::Mail;
use crate::providers::{connect_tcp, connect_tls};
use backburn_experiments::destination::DestinationRules;
use backburn_experiments::probes::ProbeError;
use backburn_experiments::terminal_text::escape;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// How long sending one message may take, from connecting to the last answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line of an answer, in bytes. RFC 5321 (section 4.5.3.1.5) allows 512.
const MAX_LINE_BYTES: u64 = 4096;
/// How many lines an answer may have.
const MAX_LINES: usize = 64;

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MailSecurity {
    /// TLS begins after the greeting (STARTTLS); a server that does not offer it gets no mail. Port 587.
    #[default]
    Starttls,
    /// TLS from the first byte. Port 465.
    Tls,
    /// None. Port 25.
    Plain,
}

/// A server that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailServer {
    /// Its host name or address, which its certificate must be for.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: MailSecurity,
    /// The user and the password to log in with.
    pub login: Option<(String, String)>,
    /// The certificates of the authorities that are trusted; those of this host where left out.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// It may succeed later.
    #[error("{0}")]
    Temporary(String),
    /// It will not succeed.
    #[error("{0}")]
    Permanent(String),
}

/// What came of a message that the server took for at least one receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The receivers for whom the server wants to be asked again later, each with what it said.
    pub later: Vec<(String, String)>,
    /// The receivers whom the server refused, each with what it said.
    pub refused: Vec<(String, String)>,
}

impl From<ProbeError> for MailError {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::NoAnswer(why) => MailError::Temporary(why),
            ProbeError::Broken(why) => MailError::Permanent(why),
        }
    }
}

/// Sends a message to these of its receivers, if the server may be connected to.
///
/// # Errors
/// Why nobody got it.
pub async fn send(
    server: &MailServer,
    mail: &Mail,
    receivers: &[String],
    destinations: &DestinationRules,
) -> Result<Delivery, MailError> {
    let sent = async {
        let stream = connect_tcp(&server.host, server.port, destinations).await?;
        let local = stream.local_addr().map_err(lost)?;
        match server.security {
            MailSecurity::Plain => {
                let mut session = Session::greeted(stream).await?;
                let offers = session.hello(local).await?;
                session.mail(server, mail, receivers, &offers).await
            }
            MailSecurity::Tls => {
                let mut session = Session::greeted(server.protect(stream).await?).await?;
                let offers = session.hello(local).await?;
                session.mail(server, mail, receivers, &offers).await
            }
            MailSecurity::Starttls => {
                let mut session = Session::greeted(stream).await?;
                let offers = session.hello(local).await?;
                if !offers
                    .iter()
                    .any(|offer| offer.eq_ignore_ascii_case("STARTTLS"))
                {
                    let what = "it does not offer STARTTLS, and nothing is sent without TLS";
                    return Err(MailError::Permanent(what.into()));
                }
                session.command("STARTTLS", 220).await?;
                let stream = session.without_buffer()?;
                let mut session = Session::new(server.protect(stream).await?);
                // What was said before TLS may be anybody's.
                let offers = session.hello(local).await?;
                session.mail(server, mail, receivers, &offers).await
            }
        }
    };
    let late = || MailError::Temporary(format!("it took longer than {} s", SEND_TIMEOUT.as_secs()));
    tokio::time::timeout(SEND_TIMEOUT, sent)
        .await
        .map_err(|_| late())?
}

impl MailServer {
    async fn protect(
        &self,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, MailError> {
        Ok(connect_tls(stream, &self.host, self.authorities.as_deref()).await?)
    }
}

fn lost(error: std::io::Error) -> MailError {
    MailError::Temporary(format!("the connection was lost: {error}"))
}

/// An answer: its code, and the text of each of its lines.
#[derive(Debug)]
struct SmtpReply {
    code: u16,
    lines: Vec<String>,
}

impl SmtpReply {
    fn text(&self) -> String {
        let text = format!("{} {}", self.code, self.lines.join(" "));
        escape(text.trim_end()).into_owned()
    }

    /// What this means where something else was expected.
    fn error(&self, command: &str) -> MailError {
        let what = format!("it answered {command} with `{}`", self.text());
        match self.code / 100 {
            5 => MailError::Permanent(what),
            _ => MailError::Temporary(what),
        }
    }
}

struct Session<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(stream: S) -> Self {
        Session {
            stream: BufReader::new(stream),
        }
    }

    async fn greeted(stream: S) -> Result<Self, MailError> {
        let mut session = Session::new(stream);
        let greeting = session.reply().await?;
        match greeting.code {
            220 => Ok(session),
            _ => Err(greeting.error("the connection")),
        }
    }

    /// The stream, of which nothing was read ahead: who sends something before TLS wants it taken for something within TLS.
    fn without_buffer(self) -> Result<S, MailError> {
        match self.stream.buffer().is_empty() {
            true => Ok(self.stream.into_inner()),
            false => Err(MailError::Temporary(
                "it said more than was asked before TLS".into(),
            )),
        }
    }

    async fn reply(&mut self) -> Result<SmtpReply, MailError> {
        let odd = |what: &str| MailError::Temporary(format!("it does not speak SMTP: {what}"));
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.stream).take(MAX_LINE_BYTES);
            limited.read_until(b'\n', &mut line).await.map_err(lost)?;
            if line.last() != Some(&b'\n') {
                return Err(match line.len() as u64 == MAX_LINE_BYTES {
                    true => odd("a line is too long"),
                    false => MailError::Temporary("it closed the connection".into()),
                });
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let code = code.filter(|code| (200..600).contains(code));
            let code = code.ok_or_else(|| odd("an answer has no code"))?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(SmtpReply { code, lines });
            }
            if lines.len() == MAX_LINES {
                return Err(odd("an answer has too many lines"));
            }
        }
    }

    async fn write(&mut self, text: &str) -> Result<(), MailError> {
        self.stream.write_all(text.as_bytes()).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }

    /// Sends a command, which is named by its first word in errors: the rest may be secret.
    async fn command(&mut self, command: &str, expected: u16) -> Result<SmtpReply, MailError> {
        let name = command.split(' ').next().unwrap_or_default();
        self.secret(command, name, expected).await
    }

    async fn secret(
        &mut self,
        line: &str,
        name: &str,
        expected: u16,
    ) -> Result<SmtpReply, MailError> {
        self.write(&format!("{line}\r\n")).await?;
        let reply = self.reply().await?;
        match reply.code == expected {
            true => Ok(reply),
            false => Err(reply.error(name)),
        }
    }

    /// Introduces this host by its address. Returns what the server offers.
    async fn hello(&mut self, local: SocketAddr) -> Result<Vec<String>, MailError> {
        let name = match local.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => format!("[{ip}]"),
            std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        let reply = self.command(&format!("EHLO {name}"), 250).await?;
        Ok(reply.lines)
    }

    async fn log_in(
        &mut self,
        user: &str,
        password: &str,
        offers: &[String],
    ) -> Result<(), MailError> {
        let offered = |mechanism: &str| {
            offers.iter().any(|offer| {
                let mut words = offer.split([' ', '=']);
                words
                    .next()
                    .is_some_and(|first| first.eq_ignore_ascii_case("AUTH"))
                    && words.any(|word| word.eq_ignore_ascii_case(mechanism))
            })
        };
        if offered("PLAIN") {
            let both = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
            self.secret(&format!("AUTH PLAIN {both}"), "AUTH", 235)
                .await?;
        } else if offered("LOGIN") {
            self.secret("AUTH LOGIN", "AUTH", 334).await?;
            self.secret(&BASE64_STANDARD.encode(user), "AUTH", 334)
                .await?;
            self.secret(&BASE64_STANDARD.encode(password), "AUTH", 235)
                .await?;
        } else {
            let what = "it offers neither AUTH PLAIN nor AUTH LOGIN, and a user is set";
            return Err(MailError::Permanent(what.into()));
        }
        Ok(())
    }

    /// Logs in and sends the message.
    async fn mail(
        &mut self,
        server: &MailServer,
        mail: &Mail,
        receivers: &[String],
        offers: &[String],
    ) -> Result<Delivery, MailError> {
        if let Some((user, password)) = &server.login {
            self.log_in(user, password, offers).await?;
        }
        self.command(&format!("MAIL FROM:<{}>", mail.from), 250)
            .await?;
        let mut delivery = Delivery::default();
        let mut accepted = 0;
        for receiver in receivers {
            self.write(&format!("RCPT TO:<{receiver}>\r\n")).await?;
            let reply = self.reply().await?;
            match reply.code {
                250..=252 => accepted += 1,
                500..=599 => delivery.refused.push((receiver.clone(), reply.text())),
                _ => delivery.later.push((receiver.clone(), reply.text())),
            }
        }
        if accepted == 0 {
            let said = |all: &[(String, String)]| {
                let all: Vec<String> = all
                    .iter()
                    .map(|(who, what)| format!("{who}: `{what}`"))
                    .collect();
                format!("it takes the message for nobody: {}", all.join(", "))
            };
            return Err(match delivery.later.is_empty() {
                true => MailError::Permanent(said(&delivery.refused)),
                false => MailError::Temporary(said(&delivery.later)),
            });
        }
        self.command("DATA", 354).await?;
        self.write(&mail.content()).await?;
        self.command(".", 250).await?;
        // The message is taken, whatever is said now.
        self.write("QUIT\r\n").await.ok();
        Ok(delivery)
    }
}
