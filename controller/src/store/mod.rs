//! The controller's store: experiments, runs and their journals, agents, tokens, settings and the audit log. Whatever a
//! method wrote is durable when it returns; its caller acts only then.
//!
//! [`Store`] is the interface, [`SqliteStore`] its implementation on a local disk. Methods block for as long as the disk
//! takes: async code calls them on threads that may block.

mod audit;
mod error;
mod export;
mod records;
mod run_notes;
mod sqlite;
mod stored_secrets;

pub use audit::{AuditLinesError, verify_lines as verify_audit_lines};
pub use error::{StoreError, StoreErrorKind};
pub use export::{FORMAT, ImportError, LineProblem};
pub use records::*;
pub use sqlite::SqliteStore;
pub use stored_secrets::{StoredSecrets, missing_secrets, put_secrets_back, take_secrets};

use backburn_experiments::journal::JournalEntry;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};

/// A controller's store.
///
/// Every method may fail because of the disk ([`StoreErrorKind::Full`], [`StoreErrorKind::Io`], [`StoreErrorKind::Corrupt`],
/// [`StoreErrorKind::Locked`]); only further errors are listed at each. A failed write changes nothing, and does not keep
/// later ones from succeeding.
pub trait Store: Send + Sync {
    /// Stores a document under a name. The same text, apart from white space, makes no new version. The order of an object's
    /// keys counts, because a process's arguments may be given as an object. Secrets that the document writes out are stored apart;
    /// a document that differs in nothing but a secret makes a new version.
    ///
    /// # Errors
    /// The disk.
    fn put_experiment(
        &self,
        name: &str,
        document: &Value,
        who: &str,
        at: Timestamp,
    ) -> Result<PutResult, StoreError>;

    /// The same, in one transaction with an entry of the audit log: neither is there without the other. The experiment is stored in the
    /// name of `record.who` at `record.at`. The entry's detail gets the version; without a new version there is an entry only if
    /// `always`. An experiment that never was there before belongs to the teams `owners` from now on.
    ///
    /// # Errors
    /// The disk.
    fn put_experiment_audited(
        &self,
        name: &str,
        document: &Value,
        owners: &BTreeSet<String>,
        record: &AuditRecord,
        always: bool,
    ) -> Result<PutResult, StoreError>;

    /// An experiment, in this version or in the latest. Placeholders stand for its secrets.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none of this name or version, or this version (or the latest) removed it.
    fn experiment(&self, name: &str, version: Option<u64>) -> Result<ExperimentRecord, StoreError>;

    /// The same, with its secrets in their places, for running it. Those that the store does not have are left out: see
    /// [`missing_secrets`].
    ///
    /// # Errors
    /// As [`experiment`](Store::experiment).
    fn experiment_with_secrets(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> Result<ExperimentRecord, StoreError>;

    /// The latest versions of experiments that were not removed, by name, after the name `after`, at most `limit`.
    ///
    /// # Errors
    /// The disk.
    fn experiments(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ExperimentRecord>, StoreError>;

    /// An experiment's versions, oldest first.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there never was an experiment of this name.
    fn experiment_versions(&self, name: &str) -> Result<Vec<ExperimentVersionRecord>, StoreError>;

    /// Removes an experiment. Its versions stay, and it can be stored again. Returns the version that records the removal.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn remove_experiment(&self, name: &str, who: &str, at: Timestamp) -> Result<u64, StoreError>;

    /// Opens a run.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: its id is taken. [`StoreErrorKind::NotThere`]: there is no such version of its experiment.
    fn open_run(&self, run: &NewRun) -> Result<(), StoreError>;

    /// Opens a run that waits for approval.
    ///
    /// # Errors
    /// As [`open_run`](Store::open_run).
    fn open_waiting_run(&self, run: &NewRun, approval: &ApprovalRecord) -> Result<(), StoreError>;

    /// The runs that wait for approval, earliest first.
    ///
    /// # Errors
    /// The disk.
    fn waiting_runs(&self) -> Result<Vec<WaitingRun>, StoreError>;

    /// Replaces what a waiting run waits for: its plan has changed.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: it does not wait.
    fn replace_approval(&self, approval: &ApprovalRecord) -> Result<(), StoreError>;

    /// Ends a run's wait: from now on it is a run that started at this time. Of several callers at once, one gets it. None
    /// if it does not wait, or if `fingerprint` is given and its plan is another one.
    ///
    /// # Errors
    /// The disk.
    fn take_waiting_run(
        &self,
        run: &str,
        fingerprint: Option<&str>,
        at: Timestamp,
    ) -> Result<Option<WaitingRun>, StoreError>;

    /// Appends an entry to the journal of an open run. Returns its number in the journal, from 1.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run. [`StoreErrorKind::Conflict`]: it is closed.
    fn append(&self, run: &str, entry: &JournalEntry) -> Result<u64, StoreError>;

    /// Appends entries to the journal of an open run in this order, all or none, with one sync.
    ///
    /// # Errors
    /// As [`append`](Store::append).
    fn append_all(&self, run: &str, entries: &[JournalEntry]) -> Result<(), StoreError>;

    /// A run's events after the number `after` (0 for all), at most `limit`.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run.
    fn events(&self, run: &str, after: u64, limit: u32) -> Result<Vec<NumberedEvent>, StoreError>;

    /// Reads a run's journal after the number `after` (0 for all): each entry as the line that is stored, oldest first, until `read`
    /// returns false.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run.
    fn journal_lines(
        &self,
        run: &str,
        after: u64,
        read: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), StoreError>;

    /// Closes a run: nothing can be appended to its journal any more.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run. [`StoreErrorKind::Conflict`]: it is closed already.
    fn close_run(&self, run: &str, end: &RunEnd) -> Result<(), StoreError>;

    /// The run of this id.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run.
    fn run(&self, run: &str) -> Result<RunRecord, StoreError>;

    /// Runs that match the filter, opened before the run `before`, latest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no run `before`.
    fn runs(
        &self,
        filter: &RunFilter,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, StoreError>;

    /// The runs that are not closed, except those that wait for approval, earliest first. After a start of the controller
    /// these are the ones that a crash interrupted.
    ///
    /// # Errors
    /// The disk.
    fn open_runs(&self) -> Result<Vec<RunRecord>, StoreError>;

    /// Appends a note to a run or a game day, whether it is open or closed, and the note's hash to the audit log. A run's journal
    /// stays as it is. A note of a game day that says that it has ended also ends it.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run or game day. [`StoreErrorKind::Conflict`]: the game day has ended already.
    fn add_note(
        &self,
        stream: NoteStream,
        id: &str,
        note: &RunNote,
    ) -> Result<RunNoteEntry, StoreError>;

    /// The notes of a run or a game day after the number `after` (0 for all), oldest first.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no such run or game day.
    fn notes_of(
        &self,
        stream: NoteStream,
        id: &str,
        after: u64,
    ) -> Result<Vec<RunNoteEntry>, StoreError>;

    /// Appends a note to a run.
    ///
    /// # Errors
    /// As [`add_note`](Store::add_note).
    fn append_note(&self, run: &str, note: &RunNote) -> Result<RunNoteEntry, StoreError> {
        self.add_note(NoteStream::Run, run, note)
    }

    /// A run's notes, oldest first.
    ///
    /// # Errors
    /// As [`notes_of`](Store::notes_of).
    fn notes(&self, run: &str) -> Result<Vec<RunNoteEntry>, StoreError> {
        self.notes_of(NoteStream::Run, run, 0)
    }

    /// Stores the document of a game day under a name. The same text, apart from white space, makes no new version.
    ///
    /// # Errors
    /// The disk.
    fn put_game_day_document(
        &self,
        name: &str,
        document: &Value,
        who: &str,
        at: Timestamp,
    ) -> Result<PutResult, StoreError>;

    /// The document of a game day, in this version or in the latest.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none of this name or version, or it was removed.
    fn game_day_document(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> Result<GameDayDocumentRecord, StoreError>;

    /// The latest versions of all documents of game days that were not removed, by name.
    ///
    /// # Errors
    /// The disk.
    fn game_day_documents(&self) -> Result<Vec<GameDayDocumentRecord>, StoreError>;

    /// The versions of the document of a game day, oldest first.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there never was one of this name.
    fn game_day_document_versions(
        &self,
        name: &str,
    ) -> Result<Vec<ExperimentVersionRecord>, StoreError>;

    /// Removes the document of a game day. Its versions stay. Returns the version that records the removal.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn remove_game_day_document(
        &self,
        name: &str,
        who: &str,
        at: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Opens a game day.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: its id is taken.
    fn open_game_day(&self, day: &GameDayRecord) -> Result<(), StoreError>;

    /// The game day of this id.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn game_day(&self, id: &str) -> Result<GameDayRecord, StoreError>;

    /// Game days that were prepared before the game day `before`, latest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no game day `before`.
    fn game_days(&self, before: Option<&str>, limit: u32)
    -> Result<Vec<GameDayRecord>, StoreError>;

    /// The game days that have not ended, earliest first.
    ///
    /// # Errors
    /// The disk.
    fn open_game_days(&self) -> Result<Vec<GameDayRecord>, StoreError>;

    /// Records that a run is that of a step, before the run is opened.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: the run has a step already, or there is no such game day.
    fn link_game_day_run(&self, link: &GameDayRun) -> Result<(), StoreError>;

    /// The game day and step of a run. None if it is of no game day.
    ///
    /// # Errors
    /// The disk.
    fn game_day_of_run(&self, run: &str) -> Result<Option<GameDayRun>, StoreError>;

    /// The runs of a game day, by step.
    ///
    /// # Errors
    /// The disk.
    fn game_day_runs(&self, id: &str) -> Result<Vec<GameDayRun>, StoreError>;

    /// The ids of runs that ended not clean and have no note that says that nothing is left, earliest first.
    ///
    /// # Errors
    /// The disk.
    fn unclean_runs(&self) -> Result<Vec<String>, StoreError>;

    /// Appends a change of an action, or, without one, the first change of a new action, whose number is the change's. Returns the
    /// change's number.
    ///
    /// # Errors
    /// The disk.
    fn append_action_change(
        &self,
        action: Option<u64>,
        at: Timestamp,
        who: &str,
        change: &ActionChange,
    ) -> Result<u64, StoreError>;

    /// All changes of all actions, oldest first.
    ///
    /// # Errors
    /// The disk.
    fn action_changes(&self) -> Result<Vec<ActionChangeEntry>, StoreError>;

    /// Deletes the earliest run of those closed before this time (to the second), with its journal and notes. Returns its id; none if
    /// there is no such run.
    ///
    /// # Errors
    /// The disk.
    fn forget_run(&self, before: Timestamp) -> Result<Option<String>, StoreError>;

    /// Stores an agent, in place of what was known of it.
    ///
    /// # Errors
    /// The disk.
    fn put_agent(&self, agent: &EnrolledAgent) -> Result<(), StoreError>;

    /// The agent of this name.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none of this name.
    fn agent(&self, name: &str) -> Result<EnrolledAgent, StoreError>;

    /// Agents by name, including revoked ones, after the name `after`, at most `limit`.
    ///
    /// # Errors
    /// The disk.
    fn agents(&self, after: Option<&str>, limit: u32) -> Result<Vec<EnrolledAgent>, StoreError>;

    /// Records when agents were last heard. Names that are not known are skipped, and an earlier time than the one that is known is, too.
    ///
    /// # Errors
    /// The disk.
    fn agents_heard(&self, heard: &BTreeMap<String, Timestamp>) -> Result<(), StoreError>;

    /// Revokes an agent. One that was revoked before keeps the earlier time.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none of this name.
    fn revoke_agent(&self, name: &str, at: Timestamp) -> Result<(), StoreError>;

    /// Stores a join token.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: its id is taken.
    fn put_join_token(&self, token: &JoinTokenRecord) -> Result<(), StoreError>;

    /// Uses up a join token. Of several callers at once, one gets it. A wrong secret does not use it up.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none, it was used or has expired, or the secret is wrong. The error
    /// does not say which.
    fn take_join_token(
        &self,
        id: &str,
        secret: &Hash,
        now: Timestamp,
    ) -> Result<JoinTokenRecord, StoreError>;

    /// All join tokens that were neither used nor removed, including expired ones, by id.
    ///
    /// # Errors
    /// The disk.
    fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>, StoreError>;

    /// Removes a join token.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn remove_join_token(&self, id: &str) -> Result<(), StoreError>;

    /// Stores an API token.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`]: its id is taken.
    fn put_api_token(&self, token: &ApiTokenRecord) -> Result<(), StoreError>;

    /// The API token of this id, whether or not it is still valid.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none.
    fn api_token(&self, id: &str) -> Result<ApiTokenRecord, StoreError>;

    /// All API tokens, by id.
    ///
    /// # Errors
    /// The disk.
    fn api_tokens(&self) -> Result<Vec<ApiTokenRecord>, StoreError>;

    /// Revokes an API token. One that was revoked before keeps the earlier time.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is none. [`StoreErrorKind::Conflict`]: it is the last one of an admin that is valid at
    /// this time, not counting those of log-ins.
    fn revoke_api_token(&self, id: &str, at: Timestamp) -> Result<(), StoreError>;

    /// Revokes all tokens of a person, or none. Returns the ids of those that were valid.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: the person never had a token. [`StoreErrorKind::Conflict`]: as of
    /// [`revoke_api_token`](Store::revoke_api_token).
    fn revoke_person(&self, person: &str, at: Timestamp) -> Result<Vec<String>, StoreError>;

    /// Records which teams something belongs to, in place of what was recorded before.
    ///
    /// # Errors
    /// The disk.
    fn set_owners(
        &self,
        kind: OwnedKind,
        id: &str,
        teams: &BTreeSet<String>,
    ) -> Result<(), StoreError>;

    /// The teams that something belongs to. None if nothing is recorded of it.
    ///
    /// # Errors
    /// The disk.
    fn owners(&self, kind: OwnedKind, id: &str) -> Result<BTreeSet<String>, StoreError>;

    /// The value of a setting of the controller. None if it was never set.
    ///
    /// # Errors
    /// The disk.
    fn setting(&self, name: &str) -> Result<Option<Value>, StoreError>;

    /// Sets a setting.
    ///
    /// # Errors
    /// The disk.
    fn set(&self, name: &str, value: &Value) -> Result<(), StoreError>;

    /// Appends to the audit log. Returns its new head.
    ///
    /// # Errors
    /// The disk.
    fn audit(&self, record: &AuditRecord) -> Result<AuditHead, StoreError>;

    /// Appends entries to the audit log in this order, all or none, with one sync.
    ///
    /// # Errors
    /// The disk.
    fn audit_all(&self, records: &[AuditRecord]) -> Result<(), StoreError>;

    /// The audit log after the number `after` (0 for all), at most `limit` entries.
    ///
    /// # Errors
    /// The disk.
    fn audited(&self, after: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;

    /// Verifies the audit log, and the notes of runs, whose hashes it has. A head that the caller has kept elsewhere also reveals a log that was cut short or rewritten.
    ///
    /// # Errors
    /// The disk.
    fn verify_audit(&self, known: Option<&AuditHead>) -> Result<ChainVerification, StoreError>;

    /// The size of the store, and its failures since it was opened.
    fn statistics(&self) -> StoreStatistics;

    /// Exports everything but the secrets that experiments write out, as of one moment, as lines of JSON.
    ///
    /// # Errors
    /// The disk; [`StoreErrorKind::Io`] if writing to `to` fails.
    fn export(&self, to: &mut dyn Write) -> Result<(), StoreError>;

    /// The same, with the secrets that experiments write out.
    ///
    /// # Errors
    /// As [`export`](Store::export).
    fn export_with_secrets(&self, to: &mut dyn Write) -> Result<(), StoreError>;

    /// Imports an export, all or nothing. Returns the number of its records.
    ///
    /// # Errors
    /// All problems of the export, or the store failed; [`StoreErrorKind::Conflict`] if the store is not empty.
    fn import(&self, from: &mut dyn BufRead) -> Result<u64, ImportError>;
}
