//! The directory of a controller's data, for commands that work on it without the controller.

use super::CommandFailure;
use backburn::store::{AuditRecord, Hash, SqliteStore, Store};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The default directory of the controller's data.
const DEFAULT_DATA_DIR: &str = "/var/lib/backburn/controller";

/// The directory of the controller's data.
#[derive(Debug, Args)]
pub(super) struct DataOptions {
    /// Directory of the controller's store and keys
    #[arg(long, value_name = "DIR", env = "BACKBURN_DATA", default_value = DEFAULT_DATA_DIR)]
    data: PathBuf,
}

impl DataOptions {
    /// Returns the path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.data
    }

    /// Creates the directory if there is none.
    pub(super) fn create(&self) -> Result<(), CommandFailure> {
        create_directory(&self.data)
    }

    /// Opens the store in the directory, which no controller may use at the same time.
    pub(super) fn store(&self) -> Result<Arc<dyn Store>, CommandFailure> {
        self.create()?;
        match SqliteStore::open(&self.data.join("store")) {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Creates a private directory if it does not exist.
fn create_directory(folder: &Path) -> Result<(), CommandFailure> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| {
            let what = format!("{}: {error}", folder.display());
            CommandFailure::invalid(format!(
                "{what}\nhint: give a writable directory with `--data`"
            ))
        })
}

/// An error with what to do about it; what caused it goes to the log.
pub(super) fn failed(error: &dyn std::error::Error) -> CommandFailure {
    let mut what = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        tracing::debug!(%inner, "because");
        source = inner.source();
    }
    if !what.contains("hint:") {
        what.push_str("\nhint: `BACKBURN_LOG=debug` logs the details");
    }
    CommandFailure::invalid(what)
}

/// A file as the audit log names it: its path, and what was in it.
pub(super) fn file_and_hash(path: &Path) -> Value {
    let hash = std::fs::read(path).ok().map(|bytes| Hash::of(&bytes));
    json!({"file": path, "sha256": hash})
}

/// Writes to the audit log of a controller that is not running what a command does with its data.
pub(super) fn audit_command(
    store: &dyn Store,
    what: &str,
    detail: Value,
) -> Result<(), CommandFailure> {
    let record = AuditRecord {
        at: Timestamp::now(),
        who: format!("uid {}", nix::unistd::getuid()),
        role: None,
        what: what.into(),
        about: "everything".into(),
        outcome: "asked".into(),
        detail,
    };
    store
        .audit(&record)
        .map(|_| ())
        .map_err(|error| failed(&error))
}
