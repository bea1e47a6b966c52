//! `backburn audit`: who did what, and whether the log of it is intact. That can also be verified without the controller.

use super::super::table::{print_table, to_the_second};
use super::super::{CommandFailure, print_json, print_json_line, print_stderr};
use super::ControllerOptions;
use backburn::api::types::{AuditLogEntry, AuditVerification};
use backburn::store::{AuditHead, ChainVerification, SqliteStore, verify_audit_lines};
use clap::Args;
use std::fs::File;
use std::io::{BufReader, IsTerminal as _};
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
    /// Print JSON lines on a terminal too, where people otherwise get a table; elsewhere they are printed anyway
    #[arg(long)]
    json: bool,
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
    let is_table = !command.json && std::io::stdout().is_terminal();
    let mut rows = Vec::new();
    let mut after = command.after;
    loop {
        let page: Vec<AuditLogEntry> =
            client.get(&format!("/api/v1/audit?limit=1000&after={after}"))?;
        let Some(last) = page.last() else {
            if after == command.after {
                print_stderr(&format!(
                    "the audit log has no entries after number {after}\n"
                ));
            } else if is_table {
                print_table(AUDIT_HEADERS, rows, "");
            }
            return Ok(0);
        };
        after = last.number;
        match is_table {
            true => rows.extend(page.into_iter().map(audit_row)),
            false => page.iter().for_each(print_json_line),
        }
    }
}

const AUDIT_HEADERS: [&str; 7] = [
    "NUMBER", "TIME", "WHO", "WHAT", "ABOUT", "OUTCOME", "DETAIL",
];

/// An entry for people. Its hashes are in the JSON.
fn audit_row(entry: AuditLogEntry) -> [String; 7] {
    let detail = match entry.detail.as_object() {
        Some(detail) if detail.is_empty() => String::new(),
        _ => entry.detail.to_string(),
    };
    [
        entry.number.to_string(),
        to_the_second(&entry.at),
        entry.who,
        entry.what,
        entry.about,
        entry.outcome,
        detail,
    ]
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
