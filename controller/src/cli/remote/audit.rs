//! `backburn audit`: who did what, and whether the log of it is intact. That can also be verified without the controller.

use super::super::{CommandFailure, print_json, print_json_line, print_stderr};
use super::ControllerOptions;
use backburn::api::types::{AuditLogEntry, AuditVerification};
use backburn::store::{AuditHead, ChainVerification, SqliteStore, verify_audit_lines};
use clap::Args;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The exit code for a log that is not intact.
const EXIT_BROKEN: u8 = 1;

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditCommand {
    /// With `--verify`: file of `backburn export` or `backburn audit` to verify, instead of a controller's log
    #[arg(value_name = "FILE", requires = "verify", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// Print only entries after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// Verify the log's chain of hashes, and print the number and hash of its last entry
    #[arg(long)]
    verify: bool,
    /// With `--verify`: last entry as it was printed earlier; fails if the log was cut short or rewritten since
    #[arg(long, value_name = "NUMBER:HASH", requires = "verify")]
    head: Option<AuditHead>,
    /// With `--verify`: directory of a controller's data on this host; the controller need not run
    #[arg(long, value_name = "DIR", requires = "verify")]
    data: Option<PathBuf>,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// Runs `backburn audit`.
pub(in crate::cli) fn audit(command: &AuditCommand) -> Result<u8, CommandFailure> {
    if command.verify {
        return verify(command);
    }
    let client = command.controller.client()?;
    let mut after = command.after;
    loop {
        let page: Vec<AuditLogEntry> =
            client.get(&format!("/api/v1/audit?limit=1000&after={after}"))?;
        let Some(last) = page.last() else {
            if after == command.after {
                print_stderr(&format!(
                    "the audit log has no entries after number {after}\n"
                ));
            }
            return Ok(0);
        };
        after = last.number;
        for entry in &page {
            print_json_line(entry);
        }
    }
}

fn verify(command: &AuditCommand) -> Result<u8, CommandFailure> {
    let known = command.head.as_ref();
    let verification: AuditVerification = match (&command.file, &command.data) {
        (Some(file), _) => verify_file(file, known)?.into(),
        (None, Some(data)) => SqliteStore::verify_audit_of(&data.join("store"), known)
            .map_err(|error| {
                let hint = error.hint.as_deref().map(|hint| format!("\nhint: {hint}"));
                CommandFailure::invalid(format!("{error}{}", hint.unwrap_or_default()))
            })?
            .into(),
        (None, None) => {
            let head = known.map(|head| format!("?head={head}"));
            let path = format!("/api/v1/audit/chain{}", head.unwrap_or_default());
            command.controller.client()?.get(&path)?
        }
    };
    print_json(&verification);
    match &verification.broken {
        Some(broken) => {
            print_stderr(&format!("error: the audit log is not intact: {broken}\n"));
            Ok(EXIT_BROKEN)
        }
        None => {
            print_stderr(&format!(
                "the audit log is intact; keep its head elsewhere for a later `--head {}`\n",
                verification.head
            ));
            Ok(0)
        }
    }
}

fn verify_file(
    file: &Path,
    known: Option<&AuditHead>,
) -> Result<ChainVerification, CommandFailure> {
    let named = |error: &dyn std::fmt::Display| {
        CommandFailure::invalid(format!("{}: {error}", file.display()))
    };
    let lines = File::open(file).map_err(|error| named(&error))?;
    let (first, chain) =
        verify_audit_lines(&mut BufReader::new(lines), known).map_err(|error| named(&error))?;
    if first == 0 {
        return Err(named(&"it has no entries of an audit log"));
    }
    if first > 1 {
        print_stderr(&format!(
            "the file begins with entry {first}: those before are not verified\n"
        ));
    }
    Ok(chain)
}
