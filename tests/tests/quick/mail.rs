//! Mail by a real server (aiosmtpd), over each kind of connection and log-in.

use backburn::smtp::{Mail, MailError, MailSecurity, MailServer, send};
use backburn_experiments::destination::DestinationRules;
use backburn_tests::programs;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A mail server that ends with the test.
struct Server {
    child: Child,
    said: BufReader<ChildStdout>,
    port: u16,
    authority: CertificateDer<'static>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(python: &Path, mode: &str, host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        let made = params.self_signed(&key).expect("a certificate");
        let (certificate_file, key_file) = (folder.path().join("crt"), folder.path().join("key"));
        std::fs::write(&certificate_file, made.pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        let script = programs::root().join("tests/oracle/mail_server.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(mode)
            .args([&certificate_file, &key_file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the mail server starts");
        let mut said = BufReader::new(child.stdout.take().expect("an output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a port");
        let port = line.trim().parse().expect("a port");
        Server {
            child,
            said,
            port,
            authority: made.der().clone(),
            _folder: folder,
        }
    }

    fn settings(&self, security: MailSecurity, password: Option<&str>) -> MailServer {
        MailServer {
            host: "localhost".into(),
            port: self.port,
            security,
            login: password.map(|password| ("ada".into(), password.into())),
            authorities: Some(vec![self.authority.clone()]),
        }
    }

    /// The next message that it has taken.
    fn taken(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a message");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn mail() -> Mail {
    Mail {
        id: "status-update-gd-1-7".into(),
        from: "backburn@example.org".into(),
        to: vec!["ada@example.org".into(), "bob@example.org".into()],
        at: jiff::Timestamp::UNIX_EPOCH,
        subject: "Zahlen ist langsam – für alle\r\nBcc: mallory@example.org".into(),
        text: "Erste Zeile\n.\nQUIT\nüber".into(),
    }
}

async fn sent(server: &MailServer) -> Result<(), MailError> {
    let (mail, any) = (mail(), DestinationRules::any());
    let delivery = send(server, &mail, &mail.to, &any).await?;
    assert_eq!(delivery, backburn::smtp::Delivery::default());
    Ok(())
}

#[tokio::test]
async fn mail_reaches_a_real_server_over_every_connection_and_log_in() {
    let Some(python) = programs::oracle() else {
        return eprintln!("skipped: there is no Python with aiosmtpd; `tests/run` makes it");
    };
    for (mode, security, password) in [
        ("starttls", MailSecurity::Starttls, Some("s3cret")),
        ("login", MailSecurity::Starttls, Some("s3cret")),
        ("tls", MailSecurity::Tls, None),
        ("plain", MailSecurity::Plain, None),
    ] {
        let mut server = Server::start(&python, mode, "localhost");
        let settings = server.settings(security, password);
        sent(&settings)
            .await
            .unwrap_or_else(|error| panic!("{mode}: {error}"));
        let taken = server.taken();
        let subject = taken["subject"].as_str().expect("a subject");
        assert!(
            subject.starts_with("Zahlen ist langsam – für alle"),
            "{mode}: {taken}"
        );
        let headers = taken["headers"].as_array().expect("headers");
        assert!(!subject.contains(['\r', '\n']), "{mode}: {taken}");
        assert!(!headers.contains(&json!("Bcc")), "{mode}: {taken}");
        assert_eq!(
            taken["to"],
            json!(["ada@example.org", "bob@example.org"]),
            "{mode}"
        );
        assert_eq!(taken["id"], "<status-update-gd-1-7@example.org>", "{mode}");
        let text = taken["text"]
            .as_str()
            .expect("a text")
            .replace("\r\n", "\n");
        assert_eq!(text.trim_end(), mail().text, "{mode}");
        assert_eq!(
            taken["secure"],
            json!(security != MailSecurity::Plain),
            "{mode}: {taken}"
        );
        assert_eq!(
            taken["authenticated"] == true,
            password.is_some(),
            "{mode}: {taken}"
        );
    }
}

#[tokio::test]
async fn mail_is_not_sent_to_a_server_that_cannot_be_trusted() {
    let Some(python) = programs::oracle() else {
        return eprintln!("skipped: there is no Python with aiosmtpd; `tests/run` makes it");
    };
    let server = Server::start(&python, "starttls", "localhost");
    let wrong_password = sent(&server.settings(MailSecurity::Starttls, Some("wrong"))).await;
    let wrong_password = wrong_password.expect_err("the password is wrong");
    assert!(
        matches!(&wrong_password, MailError::Permanent(why) if why.contains("AUTH") && !why.contains("wrong")),
        "{wrong_password}"
    );
    let mut unknown = server.settings(MailSecurity::Starttls, Some("s3cret"));
    unknown.authorities = None;
    sent(&unknown)
        .await
        .expect_err("nobody here trusts its certificate");
    let plain = Server::start(&python, "no-starttls", "localhost");
    let refused = sent(&plain.settings(MailSecurity::Starttls, None)).await;
    let refused = refused.expect_err("it offers no STARTTLS");
    assert!(
        matches!(&refused, MailError::Permanent(why) if why.contains("STARTTLS")),
        "{refused}"
    );
    let other = Server::start(&python, "tls", "mail.example.org");
    let why = sent(&other.settings(MailSecurity::Tls, None)).await;
    let why = why
        .expect_err("its certificate is for another name")
        .to_string();
    assert!(why.contains("name"), "{why}");
    // The policy has the last word on where to connect.
    let denied: DestinationRules = DestinationRules {
        allow: Some(Vec::new()),
        ..DestinationRules::default()
    };
    let mail = mail();
    let denied = send(
        &plain.settings(MailSecurity::Plain, None),
        &mail,
        &mail.to,
        &denied,
    )
    .await;
    denied.expect_err("no destination is allowed");
}
