//! `backburn login` and `backburn logout`: a person's own token for a few hours, from the controller's identity provider.

use super::super::{CommandFailure, print_stderr, runtime};
use super::ControllerOptions;
use super::client::{Client, stored_login};
use backburn::api::types::{DeviceLoginInfo, DeviceLoginResult};
use backburn::files::create_private;
use backburn_experiments::hexadecimal;
use backburn_experiments::probes::address::percent_encoded;
use backburn_experiments::terminal_text::escape;
use backburn_experiments::token::ApiToken;
use clap::Args;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

#[derive(Debug, Args)]
pub(in crate::cli) struct LoginCommand {
    /// Certificate of the controller's authority (`authority/authority.crt` of its data), or its SHA-256; needed once
    #[arg(long, value_name = "FILE|SHA256", env = "BACKBURN_AUTHORITY")]
    authority: Option<String>,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogoutCommand {
    #[command(flatten)]
    controller: ControllerOptions,
}

/// The SHA-256 of an authority's certificate, from its file or as it was given.
fn fingerprint(given: &str) -> Result<String, CommandFailure> {
    let is_digits = given.len() == 64 && given.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_digits {
        return Ok(given.to_ascii_lowercase());
    }
    let wrong = |why: &dyn std::fmt::Display| {
        CommandFailure::invalid(format!(
            "--authority {}: {why}\nhint: copy `authority/authority.crt` from the controller's data, or give its SHA-256",
            escape(given)
        ))
    };
    let certificate = CertificateDer::from_pem_file(given)
        .map_err(|_| wrong(&"it is not a certificate in PEM"))?;
    Ok(hexadecimal(Sha256::digest(&certificate)))
}

/// Runs `backburn login`.
pub(in crate::cli) fn login(command: &LoginCommand) -> Result<u8, CommandFailure> {
    let (host, port) = command.controller.host_and_port()?;
    let file = stored_login(&host, port)?;
    let before: Option<ApiToken> = std::fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.parse().ok());
    let authority = match (&command.authority, before) {
        (Some(given), _) => fingerprint(given)?,
        (None, Some(token)) => token.authority,
        (None, None) => {
            return Err(CommandFailure::invalid(
                "the first log-in requires `--authority`, so that nobody can pose as the controller\nhint: give the certificate `authority/authority.crt` of the controller's data, or its SHA-256",
            ));
        }
    };
    let client = Client::without_token(host, port, authority);
    let token = runtime()?.block_on(device_login(&client))?;
    store(&file, &token)?;
    Ok(0)
}

/// Shows the code, and waits until the person has entered it. Returns the token.
async fn device_login(client: &Client) -> Result<String, CommandFailure> {
    let started: DeviceLoginInfo = client.request("POST", "/api/v1/login/device", None).await?;
    print_stderr(&format!(
        "open {} and enter the code {}\n",
        escape(&started.verification_uri),
        escape(&started.user_code)
    ));
    if let Some(complete) = &started.verification_uri_complete {
        print_stderr(&format!("or open {}\n", escape(complete)));
    }
    let until = Instant::now() + Duration::from_secs(started.expires_in);
    let path = format!("/api/v1/login/device/{}", percent_encoded(&started.login));
    loop {
        tokio::time::sleep(Duration::from_secs(started.interval.clamp(1, 60))).await;
        let result: DeviceLoginResult = client.request("POST", &path, None).await?;
        if let Some(info) = result.token {
            let teams: Vec<&str> = info.teams.iter().map(String::as_str).collect();
            let teams = match teams.is_empty() {
                true => String::new(),
                false => format!(", teams {}", escape(&teams.join(", "))),
            };
            print_stderr(&format!(
                "logged in as {} with role {}{teams}, until {}\n",
                escape(&info.person),
                escape(&info.role),
                escape(info.expires.as_deref().unwrap_or("revoked"))
            ));
            return info.token.ok_or_else(|| {
                CommandFailure::invalid("the controller's answer has no token\nhint: log in again")
            });
        }
        if Instant::now() >= until {
            return Err(CommandFailure::invalid(
                "the code has expired\nhint: log in again",
            ));
        }
    }
}

/// Stores the token where only its owner can read it.
fn store(file: &Path, token: &str) -> Result<(), CommandFailure> {
    let failed = |error: std::io::Error| {
        CommandFailure::invalid(format!("{}: {error}", escape(&file.to_string_lossy())))
    };
    if let Some(folder) = file.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
    }
    let mut out = create_private(file).map_err(failed)?;
    writeln!(out, "{token}").map_err(failed)
}

/// Runs `backburn logout`.
pub(in crate::cli) fn logout(command: &LogoutCommand) -> Result<u8, CommandFailure> {
    let (host, port) = command.controller.host_and_port()?;
    let file = stored_login(&host, port)?;
    let Ok(text) = std::fs::read_to_string(&file) else {
        print_stderr("nobody is logged in to this controller\n");
        return Ok(0);
    };
    let revoked = match text.parse::<ApiToken>() {
        Ok(token) => Client::new(host, port, token).delete::<()>("/api/v1/login"),
        Err(error) => Err(CommandFailure::invalid(error.to_string())),
    };
    std::fs::remove_file(&file).map_err(|error| {
        CommandFailure::invalid(format!("{}: {error}", escape(&file.to_string_lossy())))
    })?;
    revoked.map_err(|failure| CommandFailure {
        message: format!(
            "the token is deleted here, but not revoked: {}",
            failure.message
        ),
        ..failure
    })?;
    print_stderr("logged out\n");
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn stored_token_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("logins/host_7420");
        store(&file, "one").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        store(&file, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let logins = folder.path().join("logins");
        assert_eq!(
            logins.metadata().unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn authority_is_given_by_its_fingerprint_or_its_file() {
        let digits = "AB".repeat(32);
        assert_eq!(fingerprint(&digits).unwrap(), "ab".repeat(32));
        let refused = fingerprint("nowhere.crt").unwrap_err().message;
        assert!(
            refused.contains("not a certificate") && refused.contains("hint:"),
            "{refused}"
        );
    }
}
