//! What a controller remembers: experiments, runs and their journals, agents, tokens, settings and
//! the audit log. Whatever a method wrote is durable when it returns; its caller acts only then.
//!
//! [`Store`] is what the controller asks for, [`SqliteStore`] what it gets on a disk of its own.
//! Methods block, for as long as the disk takes: async code calls them from threads that may.

mod audit;
mod error;
mod export;
mod records;
mod sqlite;

pub use error::{StoreError, StoreErrorKind};
pub use export::{FORMAT, ImportError, LineProblem};
pub use records::*;
pub use sqlite::SqliteStore;

use backburn_experiments::journal::JournalEntry;
use jiff::Timestamp;
use serde_json::Value;
use std::io::{BufRead, Write};

/// What a controller remembers.
///
/// Every method may fail with what the disk does ([`StoreErrorKind::Full`], [`StoreErrorKind::Io`], [`StoreErrorKind::Corrupt`],
/// [`StoreErrorKind::Locked`]); only what else it may say is told below. After a failed write the store is as
/// it was before, and the next one is tried afresh.
pub trait Store: Send + Sync {
    /// Puts a document under a name. The same text, white space apart, makes no new version. The order
    /// of an object's keys counts: a process's arguments may be given as one.
    ///
    /// # Errors
    /// What the disk does.
    fn put_experiment(
        &self,
        name: &str,
        document: &Value,
        who: &str,
        at: Timestamp,
    ) -> Result<PutResult, StoreError>;

    /// An experiment, in this version or in its latest.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none of this name or version, or it was removed (by this version, or by the latest).
    fn experiment(&self, name: &str, version: Option<u64>) -> Result<StoredExperiment, StoreError>;

    /// The latest versions of those that were not removed, by name, after this name, at the most so many.
    ///
    /// # Errors
    /// What the disk does.
    fn experiments(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredExperiment>, StoreError>;

    /// An experiment's history, oldest first.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there never was one.
    fn experiment_versions(&self, name: &str) -> Result<Vec<ExperimentVersion>, StoreError>;

    /// Removes an experiment. Its history stays, and it can be put again. Gives the version that says so.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn remove_experiment(&self, name: &str, who: &str, at: Timestamp) -> Result<u64, StoreError>;

    /// Opens a run.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: its id is taken. [`StoreErrorKind::NotThere`]: there is no such version of its experiment.
    fn open_run(&self, run: &NewRun) -> Result<(), StoreError>;

    /// Appends to the journal of an open run. Gives the entry's number in it, from 1.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run. [`StoreErrorKind::Conflict`]: it is closed.
    fn append(&self, run: &str, entry: &JournalEntry) -> Result<u64, StoreError>;

    /// Appends to the journal of an open run, in this order: all of it or nothing, with one sync.
    ///
    /// # Errors
    /// As [`append`](Store::append).
    fn append_all(&self, run: &str, entries: &[JournalEntry]) -> Result<(), StoreError>;

    /// A run's events after this number (0 for all), at the most so many.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run.
    fn events(&self, run: &str, after: u64, limit: u32) -> Result<Vec<NumberedEvent>, StoreError>;

    /// Closes a run: nothing is appended to it any more.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run. [`StoreErrorKind::Conflict`]: it is closed already.
    fn close_run(&self, run: &str, end: &RunEnd) -> Result<(), StoreError>;

    /// A run.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run.
    fn run(&self, run: &str) -> Result<RunRecord, StoreError>;

    /// Runs, the one opened last first, from those opened before this one, at the most so many.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no run to begin before.
    fn runs(
        &self,
        filter: &RunFilter,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, StoreError>;

    /// The runs that nobody closed, the one opened first first: after a start, what a crash cut short.
    ///
    /// # Errors
    /// What the disk does.
    fn open_runs(&self) -> Result<Vec<RunRecord>, StoreError>;

    /// Forgets the run that was opened first of those that were closed before this time, to the second, with its journal. Gives
    /// its id; none where there is no such run.
    ///
    /// # Errors
    /// What the disk does.
    fn forget_run(&self, before: Timestamp) -> Result<Option<String>, StoreError>;

    /// Writes an agent down, in place of what was known of it.
    ///
    /// # Errors
    /// What the disk does.
    fn put_agent(&self, agent: &EnrolledAgent) -> Result<(), StoreError>;

    /// An agent.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none of this name.
    fn agent(&self, name: &str) -> Result<EnrolledAgent, StoreError>;

    /// Agents by name, revoked ones too, after this name, at the most so many.
    ///
    /// # Errors
    /// What the disk does.
    fn agents(&self, after: Option<&str>, limit: u32) -> Result<Vec<EnrolledAgent>, StoreError>;

    /// Keeps an agent from coming back. One that was revoked before stays revoked since then.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none of this name.
    fn revoke_agent(&self, name: &str, at: Timestamp) -> Result<(), StoreError>;

    /// Writes a join token down.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: its id is taken.
    fn put_join_token(&self, token: &JoinTokenRecord) -> Result<(), StoreError>;

    /// Uses a join token up. Of many who try at once, one gets it. A wrong secret does not use it up.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none, or it was used, or has expired, or the secret is another.
    /// It is not told which.
    fn take_join_token(
        &self,
        id: &str,
        secret: &Hash,
        now: Timestamp,
    ) -> Result<JoinTokenRecord, StoreError>;

    /// All join tokens that were neither used nor removed, expired ones too, by id.
    ///
    /// # Errors
    /// What the disk does.
    fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>, StoreError>;

    /// Removes a join token.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn remove_join_token(&self, id: &str) -> Result<(), StoreError>;

    /// Writes an API token down.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: its id is taken.
    fn put_api_token(&self, token: &ApiTokenRecord) -> Result<(), StoreError>;

    /// An API token, whether or not it may still be used.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn api_token(&self, id: &str) -> Result<ApiTokenRecord, StoreError>;

    /// All API tokens, by id.
    ///
    /// # Errors
    /// What the disk does.
    fn api_tokens(&self) -> Result<Vec<ApiTokenRecord>, StoreError>;

    /// Makes an API token useless. One that was revoked before stays revoked since then.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn revoke_api_token(&self, id: &str, at: Timestamp) -> Result<(), StoreError>;

    /// A named value of the controller's own; none where it was never set.
    ///
    /// # Errors
    /// What the disk does.
    fn setting(&self, name: &str) -> Result<Option<Value>, StoreError>;

    /// Sets a named value.
    ///
    /// # Errors
    /// What the disk does.
    fn set(&self, name: &str, value: &Value) -> Result<(), StoreError>;

    /// Appends to the audit log. Gives its new end.
    ///
    /// # Errors
    /// What the disk does.
    fn audit(&self, record: &AuditRecord) -> Result<AuditHead, StoreError>;

    /// The audit log after this number (0 for all), at the most so many.
    ///
    /// # Errors
    /// What the disk does.
    fn audited(&self, after: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;

    /// Walks along the audit log. With an end that the caller has kept elsewhere, a log that was cut short
    /// or written anew is found, too.
    ///
    /// # Errors
    /// What the disk does.
    fn verify_audit(&self, known: Option<&AuditHead>) -> Result<AuditVerification, StoreError>;

    /// Writes everything, as it is at this moment, as lines of JSON.
    ///
    /// # Errors
    /// What the disk does; [`StoreErrorKind::Io`] where it can't be written to `to`.
    fn export(&self, to: &mut dyn Write) -> Result<(), StoreError>;

    /// Takes in an export, all of it or nothing. Gives the number of its records.
    ///
    /// # Errors
    /// All that is wrong with it, or what the store does; [`StoreErrorKind::Conflict`] where it is not empty.
    fn import(&self, from: &mut dyn BufRead) -> Result<u64, ImportError>;
}
