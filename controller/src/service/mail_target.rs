//! A mail server to which notifications go, as the policy names it.

use super::notification_text::Notification;
use crate::files;
use crate::smtp::{Mail, MailSecurity, MailServer, problem_with_address};
use backburn_experiments::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// Longest subject, in characters.
const MAX_SUBJECT_CHARACTERS: usize = 120;

/// A mail server, and who gets mail. It obeys `allow-http` and `deny-http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MailTarget {
    /// The host name or address of the server, which its certificate must be for.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Its port. Default: 587 for `starttls`, 465 for `tls`, 25 for `plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// How the connection is protected. `plain` is for a server on this host, unless `allow-plain` says otherwise. Default: `starttls`.
    #[serde(default)]
    pub security: MailSecurity,
    /// Whether `plain` is allowed to other hosts: everybody on the way can read and change what is sent. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_plain: bool,
    /// The address of the sender.
    pub from: String,
    /// The addresses of the receivers.
    #[schemars(length(min = 1, max = 100))]
    pub to: Vec<String>,
    /// The user to log in as. Left out: no log-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub user: Option<String>,
    /// A file that contains the password of the user. It is read for each message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file with the certificates, in PEM, of the only authorities that may have signed the server's. Default: those that this host trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_file: Option<PathBuf>,
}

impl MailTarget {
    /// All problems of this server, which stands here.
    pub(super) fn problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let addresses = (self.to.iter().enumerate())
            .map(|(index, to)| (format!("{at}.to[{index}]"), to))
            .chain([(format!("{at}.from"), &self.from)]);
        for (at, address) in addresses {
            problems.extend(problem_with_address(address).map(|what| Problem::new(at, what)));
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
        if !self.host.chars().all(is_host) {
            let what = "expected a host name or an address, without a port";
            problems.push(Problem::new(format!("{at}.host"), what).hint("`port` is the port"));
        }
        if self.user.is_some() != self.password_file.is_some() {
            let what = "`user` and `password-file` go together";
            problems
                .push(Problem::new(at, what).hint("leave both out where the server asks for none"));
        }
        if self.security == MailSecurity::Plain && !self.is_loopback() {
            if !self.allow_plain {
                let what = "mail without TLS goes to a server on this host only";
                let hint =
                    "`starttls` and `tls` protect it; `\"allow-plain\": true` sends it as it is";
                problems.push(Problem::new(format!("{at}.security"), what).hint(hint));
            } else if self.user.is_some() {
                let what = "a password is not sent without TLS";
                let hint = "use `starttls` or `tls`, or a server that asks for no password";
                problems.push(Problem::new(format!("{at}.user"), what).hint(hint));
            }
        }
        problems
    }

    fn is_loopback(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost")
            || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// The server, with what its files contain now.
    pub(super) fn server(&self) -> Result<MailServer, String> {
        let read = |file: &Path| {
            files::read_text(file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let login = match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => Some((
                user.clone(),
                read(file)?.trim_end_matches(['\r', '\n']).to_owned(),
            )),
            _ => None,
        };
        let authorities = match &self.authority_file {
            None => None,
            Some(file) => {
                let text = read(file)?;
                let all =
                    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
                let all = all.map_err(|error| format!("{}: {error}", file.display()))?;
                Some(all)
            }
        };
        Ok(MailServer {
            host: self.host.clone(),
            port: self.port.unwrap_or(match self.security {
                MailSecurity::Starttls => 587,
                MailSecurity::Tls => 465,
                MailSecurity::Plain => 25,
            }),
            security: self.security,
            login,
            authorities,
        })
    }

    /// The message that tells of something.
    pub(super) fn mail(&self, told: &Notification) -> Mail {
        let mut subject: String = told.text.chars().take(MAX_SUBJECT_CHARACTERS).collect();
        if subject.len() < told.text.len() {
            subject.push('…');
        }
        Mail {
            id: told.id.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            at: told.at,
            subject: format!("[backburn] {subject}"),
            text: told.text.clone(),
        }
    }
}
