//! A store in SQLite on a local disk: one thread at a time writes, and any number of threads read.

mod actions;
mod approvals;
mod audit;
mod backup;
mod codec;
mod credentials;
mod experiments;
mod game_days;
mod open;
mod owners;
mod run_notes;
mod runs;
mod schema;
mod transfer;
mod writer;

use super::Store;
use super::error::{StoreError, StoreErrorKind};
use super::export::ImportError;
use super::records::{
    ActionChange, ActionChangeEntry, ApiTokenRecord, ApprovalRecord, AuditEntry, AuditHead,
    AuditRecord, Backup, ChainVerification, EnrolledAgent, ExperimentRecord,
    ExperimentVersionRecord, GameDayDocumentRecord, GameDayRecord, GameDayRun, Hash,
    JoinTokenRecord, NewRun, NoteStream, NumberedEvent, OwnedKind, PutResult, RestoreSummary,
    RunEnd, RunFilter, RunNote, RunNoteEntry, RunRecord, StoreStatistics, WaitingRun,
};
use super::stored_secrets::take_secrets;
use backburn_experiments::journal::JournalEntry;
use jiff::Timestamp;
use open::StoreFolder;
use rusqlite::Connection;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use writer::{Atomicity, Writer};

/// How many idle reading connections are kept.
const MAX_IDLE_READERS: usize = 8;

/// A store in a folder.
#[derive(Debug)]
pub struct SqliteStore {
    // In the order in which they are dropped: the lock last.
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    errors: Mutex<BTreeMap<&'static str, u64>>,
    folder: StoreFolder,
}

impl SqliteStore {
    /// Opens the store in this folder, and creates both if they do not exist. Only the folder's owner may read its content.
    ///
    /// # Errors
    /// [`StoreErrorKind::Locked`]: another controller has locked it. [`StoreErrorKind::Newer`]: a newer program wrote it.
    /// [`StoreErrorKind::Corrupt`]: it is damaged, or is not a store. And errors of the disk.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_folder(StoreFolder::lock(path)?, path)
    }

    /// Opens a store that a running controller may be using, for a command on the controller's host. SQLite keeps the writes of
    /// both apart; what the controller keeps in memory does not follow.
    ///
    /// # Errors
    /// As [`open`](SqliteStore::open). [`StoreErrorKind::NotThere`]: there is no store.
    pub fn open_shared(path: &Path) -> Result<Self, StoreError> {
        Self::open_folder(StoreFolder::share(path)?, path)
    }

    /// Writes a backup of everything, as of one moment, to this file, which is empty. Writers do not wait meanwhile.
    ///
    /// # Errors
    /// The disk. What is in the file then is no backup.
    pub fn backup(&self, to: &Path, backup: &Backup) -> Result<(), StoreError> {
        backup::write(&self.folder, to, backup)
            .map_err(|error| self.failure("write the backup", error))
    }

    /// Reads when a backup was made, and its files.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`]: it is damaged, or is not a backup. And errors of the disk.
    pub fn read_backup(file: &Path) -> Result<Backup, StoreError> {
        backup::read(file)
            .map_err(|error| error.while_doing(&format!("read the backup {}", file.display())))
    }

    /// Makes a store in this folder of a backup. A store that is there is kept beside it, and has the last word on tokens,
    /// agents and settings: what was revoked since the backup stays revoked. With `revoke_all`, no token and no agent is valid.
    ///
    /// # Errors
    /// [`StoreErrorKind::Locked`]: a controller uses the folder. And errors of the disk; the folder is as it was.
    pub fn restore(
        file: &Path,
        folder: &Path,
        now: Timestamp,
        revoke_all: bool,
    ) -> Result<RestoreSummary, StoreError> {
        let replaced = match folder.join("store.db").is_file() {
            true => Some(StoreFolder::lock(folder)?),
            false => None,
        };
        let fresh = folder.with_file_name("store.restoring");
        let remove = || match std::fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::new(
                StoreErrorKind::Io,
                format!("could not remove {}: {error}", fresh.display()),
            )),
            _ => Ok(()),
        };
        // An attempt that was interrupted may have left one.
        remove()?;
        let restored = backup::restore(file, &fresh, replaced.as_ref(), now, revoke_all);
        let restored = restored.and_then(|summary| {
            let kept = backup::swap(&fresh, folder, now)?;
            Ok(RestoreSummary { kept, ..summary })
        });
        restored.map_err(|error| {
            remove().ok();
            let error = error.while_doing(&format!("restore {}", file.display()));
            match error.kind {
                StoreErrorKind::Corrupt if replaced.is_some() => error.hint(
                    "if the store that is there is damaged, move it away, and say what is revoked with `--revoke-all` or `--nothing-revoked-since`",
                ),
                _ => error,
            }
        })
    }

    /// Verifies the audit log of the store in this folder, which nobody or a controller may be using, and writes nothing.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotThere`]: there is no store. And errors of the disk.
    pub fn verify_audit_of(
        path: &Path,
        known: Option<&AuditHead>,
    ) -> Result<ChainVerification, StoreError> {
        let connection = open::read_only(path)?;
        run_notes::verify_with_log(&connection, known).map_err(|error| {
            error.while_doing(&format!("verify the audit log in {}", path.display()))
        })
    }

    fn open_folder(folder: StoreFolder, path: &Path) -> Result<Self, StoreError> {
        let what = format!("open the store in {}", path.display());
        let open = || {
            let mut connection = folder.open_writer()?;
            match folder.is_locked() {
                true => schema::migrate(&mut connection)?,
                false => schema::require_newest(&connection)?,
            }
            Ok(Writer::new(connection))
        };
        let writer = open().map_err(|error: StoreError| error.while_doing(&what))?;
        Ok(SqliteStore {
            writer,
            readers: Mutex::default(),
            errors: Mutex::default(),
            folder,
        })
    }

    fn write<T: Send + 'static>(
        &self,
        what: &str,
        write: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let written = self.writer.write(Atomicity::Savepoint, write);
        written.map_err(|error| self.failure(what, error))
    }

    /// Counts an error, and adds what was being done.
    fn failure(&self, what: &str, error: StoreError) -> StoreError {
        if error.kind.is_failure() {
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry(error.kind.word()).or_default() += 1;
        }
        error.while_doing(what)
    }

    fn read<T>(
        &self,
        what: &str,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let kept = self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let found = kept
            .map_or_else(|| self.folder.open_reader(), Ok)
            .and_then(|connection| {
                // Several statements read the data of one moment.
                connection.execute_batch("BEGIN")?;
                let found = read(&connection);
                connection.execute_batch("ROLLBACK")?;
                let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
                if readers.len() < MAX_IDLE_READERS {
                    readers.push(connection);
                }
                found
            });
        found.map_err(|error| self.failure(what, error))
    }
}

impl Store for SqliteStore {
    fn put_experiment(
        &self,
        name: &str,
        document: &Value,
        who: &str,
        at: Timestamp,
    ) -> Result<PutResult, StoreError> {
        let (name, who) = (name.to_owned(), who.to_owned());
        let mut document = document.clone();
        let secrets = take_secrets(&mut document);
        let document = codec::json(&document)?;
        self.write("put an experiment", move |connection| {
            experiments::put(connection, &name, (&document, &secrets), &who, at)
        })
    }

    fn put_experiment_audited(
        &self,
        name: &str,
        document: &Value,
        owners: &BTreeSet<String>,
        record: &AuditRecord,
        always: bool,
    ) -> Result<PutResult, StoreError> {
        let (name, owners, mut record) = (name.to_owned(), owners.clone(), record.clone());
        let mut document = document.clone();
        let secrets = take_secrets(&mut document);
        let document = codec::json(&document)?;
        self.write("put an experiment", move |connection| {
            if experiments::is_new(connection, &name)? {
                // Also where there are none: somebody else's attempt may have recorded some.
                owners::put(connection, OwnedKind::Experiment, &name, &owners)?;
            }
            let document = (document.as_str(), &secrets);
            let put = experiments::put(connection, &name, document, &record.who, record.at)?;
            if put.changed || always {
                record.detail["version"] = put.version.into();
                audit::append(connection, &record)?;
            }
            Ok(put)
        })
    }

    fn experiment(&self, name: &str, version: Option<u64>) -> Result<ExperimentRecord, StoreError> {
        self.read("read an experiment", |connection| {
            experiments::get(connection, name, version)
        })
    }

    fn experiment_with_secrets(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> Result<ExperimentRecord, StoreError> {
        self.read("read an experiment", |connection| {
            experiments::with_secrets(connection, name, version)
        })
    }

    fn experiments(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ExperimentRecord>, StoreError> {
        self.read("list the experiments", |connection| {
            experiments::list(connection, after, limit)
        })
    }

    fn experiment_versions(&self, name: &str) -> Result<Vec<ExperimentVersionRecord>, StoreError> {
        self.read("read an experiment's history", |connection| {
            experiments::versions(connection, name)
        })
    }

    fn remove_experiment(&self, name: &str, who: &str, at: Timestamp) -> Result<u64, StoreError> {
        let (name, who) = (name.to_owned(), who.to_owned());
        self.write("remove an experiment", move |connection| {
            experiments::remove(connection, &name, &who, at)
        })
    }

    fn open_run(&self, run: &NewRun) -> Result<(), StoreError> {
        let run = run.clone();
        self.write("open a run", move |connection| runs::open(connection, &run))
    }

    fn open_waiting_run(&self, run: &NewRun, approval: &ApprovalRecord) -> Result<(), StoreError> {
        let (run, approval) = (run.clone(), approval.clone());
        self.write("open a run that waits for approval", move |connection| {
            runs::open(connection, &run)?;
            approvals::put(connection, &approval)
        })
    }

    fn waiting_runs(&self) -> Result<Vec<WaitingRun>, StoreError> {
        self.read("list the runs that wait for approval", approvals::list)
    }

    fn replace_approval(&self, approval: &ApprovalRecord) -> Result<(), StoreError> {
        let approval = approval.clone();
        self.write("replace the plan of a waiting run", move |connection| {
            approvals::replace(connection, &approval)
        })
    }

    fn take_waiting_run(
        &self,
        run: &str,
        fingerprint: Option<&str>,
        at: Timestamp,
    ) -> Result<Option<WaitingRun>, StoreError> {
        let (run, fingerprint) = (run.to_owned(), fingerprint.map(str::to_owned));
        self.write("end a run's wait for approval", move |connection| {
            approvals::take(connection, &run, fingerprint.as_deref(), at)
        })
    }

    fn append(&self, run: &str, entry: &JournalEntry) -> Result<u64, StoreError> {
        let run = run.to_owned();
        // Encoded before it waits for the connection, which all writers share.
        let entry = codec::json(entry)?;
        self.writer
            .write(Atomicity::SingleStatement, move |connection| {
                runs::append(connection, &run, &entry)
            })
            .map_err(|error| self.failure("append to a run's journal", error))
    }

    fn append_all(&self, run: &str, entries: &[JournalEntry]) -> Result<(), StoreError> {
        let run = run.to_owned();
        let entries = entries.iter().map(codec::json);
        let entries: Vec<String> = entries.collect::<Result<_, _>>()?;
        self.write("append to a run's journal", move |connection| {
            runs::append_all(connection, &run, &entries)
        })
    }

    fn events(&self, run: &str, after: u64, limit: u32) -> Result<Vec<NumberedEvent>, StoreError> {
        self.read("read a run's journal", |connection| {
            runs::events(connection, run, after, limit)
        })
    }

    fn journal_lines(
        &self,
        run: &str,
        after: u64,
        read: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), StoreError> {
        self.read("read a run's journal", |connection| {
            runs::journal_lines(connection, run, after, read)
        })
    }

    fn close_run(&self, run: &str, end: &RunEnd) -> Result<(), StoreError> {
        let (run, end) = (run.to_owned(), end.clone());
        let verdict = codec::json(&end.verdict)?;
        self.write("close a run", move |connection| {
            runs::close(connection, &run, &end, &verdict)
        })
    }

    fn run(&self, run: &str) -> Result<RunRecord, StoreError> {
        self.read("read a run", |connection| runs::get(connection, run))
    }

    fn runs(
        &self,
        filter: &RunFilter,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, StoreError> {
        self.read("list the runs", |connection| {
            runs::list(connection, filter, before, limit)
        })
    }

    fn open_runs(&self) -> Result<Vec<RunRecord>, StoreError> {
        self.read("list the open runs", runs::open_ones)
    }

    fn add_note(
        &self,
        stream: NoteStream,
        id: &str,
        note: &RunNote,
    ) -> Result<RunNoteEntry, StoreError> {
        let (id, note) = (id.to_owned(), note.clone());
        self.write("add a note", move |connection| {
            run_notes::append(connection, stream, &id, &note)
        })
    }

    fn notes_of(
        &self,
        stream: NoteStream,
        id: &str,
        after: u64,
    ) -> Result<Vec<RunNoteEntry>, StoreError> {
        self.read("read notes", |connection| {
            run_notes::of(connection, stream, id, after)
        })
    }

    fn put_game_day_document(
        &self,
        name: &str,
        document: &Value,
        who: &str,
        at: Timestamp,
    ) -> Result<PutResult, StoreError> {
        let (name, who) = (name.to_owned(), who.to_owned());
        let document = codec::json(document)?;
        self.write("put a game day", move |connection| {
            game_days::put_document(connection, &name, &document, (&who, at))
        })
    }

    fn game_day_document(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> Result<GameDayDocumentRecord, StoreError> {
        self.read("read a game day", |connection| {
            game_days::document(connection, name, version)
        })
    }

    fn game_day_documents(&self) -> Result<Vec<GameDayDocumentRecord>, StoreError> {
        self.read("list the stored game days", game_days::documents)
    }

    fn game_day_document_versions(
        &self,
        name: &str,
    ) -> Result<Vec<ExperimentVersionRecord>, StoreError> {
        self.read("read a game day's history", |connection| {
            game_days::document_versions(connection, name)
        })
    }

    fn remove_game_day_document(
        &self,
        name: &str,
        who: &str,
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        let (name, who) = (name.to_owned(), who.to_owned());
        self.write("remove a game day", move |connection| {
            game_days::remove_document(connection, &name, (&who, at))
        })
    }

    fn open_game_day(&self, day: &GameDayRecord) -> Result<(), StoreError> {
        let day = day.clone();
        self.write("open a game day", move |connection| {
            game_days::open(connection, &day)
        })
    }

    fn game_day(&self, id: &str) -> Result<GameDayRecord, StoreError> {
        self.read("read a game day", |connection| {
            game_days::get(connection, id)
        })
    }

    fn game_days(
        &self,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<GameDayRecord>, StoreError> {
        self.read("list the game days", |connection| {
            game_days::list(connection, before, limit)
        })
    }

    fn open_game_days(&self) -> Result<Vec<GameDayRecord>, StoreError> {
        self.read("list the open game days", game_days::open_ones)
    }

    fn link_game_day_run(&self, link: &GameDayRun) -> Result<(), StoreError> {
        let link = link.clone();
        self.write("record the run of a step", move |connection| {
            game_days::link_run(connection, &link)
        })
    }

    fn game_day_of_run(&self, run: &str) -> Result<Option<GameDayRun>, StoreError> {
        self.read("read the game day of a run", |connection| {
            game_days::of_run(connection, run)
        })
    }

    fn game_day_runs(&self, id: &str) -> Result<Vec<GameDayRun>, StoreError> {
        self.read("list the runs of a game day", |connection| {
            game_days::runs(connection, id)
        })
    }

    fn unclean_runs(&self) -> Result<Vec<String>, StoreError> {
        self.read("list the runs that are not clean", run_notes::unclean_runs)
    }

    fn append_action_change(
        &self,
        action: Option<u64>,
        at: Timestamp,
        who: &str,
        change: &ActionChange,
    ) -> Result<u64, StoreError> {
        let (who, change) = (who.to_owned(), change.clone());
        self.write("change an action", move |connection| {
            actions::append(connection, action, at, &who, &change)
        })
    }

    fn action_changes(&self) -> Result<Vec<ActionChangeEntry>, StoreError> {
        self.read("list the actions", actions::list)
    }

    fn forget_run(&self, before: Timestamp) -> Result<Option<String>, StoreError> {
        self.write("forget a run", move |connection| {
            runs::forget(connection, before)
        })
    }

    fn put_agent(&self, agent: &EnrolledAgent) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write("write an agent down", move |connection| {
            credentials::put_agent(connection, &agent)
        })
    }

    fn agent(&self, name: &str) -> Result<EnrolledAgent, StoreError> {
        self.read("read an agent", |connection| {
            credentials::agent(connection, name)
        })
    }

    fn agents(&self, after: Option<&str>, limit: u32) -> Result<Vec<EnrolledAgent>, StoreError> {
        self.read("list the agents", |connection| {
            credentials::agents(connection, after, limit)
        })
    }

    fn agents_heard(&self, heard: &BTreeMap<String, Timestamp>) -> Result<(), StoreError> {
        let heard = heard.clone();
        self.write("record when agents were heard", move |connection| {
            credentials::agents_heard(connection, &heard)
        })
    }

    fn revoke_agent(&self, name: &str, at: Timestamp) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write("revoke an agent", move |connection| {
            credentials::revoke_agent(connection, &name, at)
        })
    }

    fn put_join_token(&self, token: &JoinTokenRecord) -> Result<(), StoreError> {
        let token = token.clone();
        self.write("write a join token down", move |connection| {
            credentials::put_join_token(connection, &token)
        })
    }

    fn take_join_token(
        &self,
        id: &str,
        secret: &Hash,
        now: Timestamp,
    ) -> Result<JoinTokenRecord, StoreError> {
        let (id, secret) = (id.to_owned(), *secret);
        self.write("use a join token", move |connection| {
            credentials::take_join_token(connection, &id, &secret, now)
        })
    }

    fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>, StoreError> {
        self.read("list the join tokens", credentials::join_tokens)
    }

    fn remove_join_token(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write("remove a join token", move |connection| {
            credentials::remove_join_token(connection, &id)
        })
    }

    fn put_api_token(&self, token: &ApiTokenRecord) -> Result<(), StoreError> {
        let token = token.clone();
        self.write("write an API token down", move |connection| {
            credentials::put_api_token(connection, &token)
        })
    }

    fn api_token(&self, id: &str) -> Result<ApiTokenRecord, StoreError> {
        self.read("read an API token", |connection| {
            credentials::api_token(connection, id)
        })
    }

    fn api_tokens(&self) -> Result<Vec<ApiTokenRecord>, StoreError> {
        self.read("list the API tokens", credentials::api_tokens)
    }

    fn revoke_api_token(&self, id: &str, at: Timestamp) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write("revoke an API token", move |connection| {
            credentials::revoke_api_token(connection, &id, at)
        })
    }

    fn revoke_person(&self, person: &str, at: Timestamp) -> Result<Vec<String>, StoreError> {
        let person = person.to_owned();
        self.write("revoke a person's tokens", move |connection| {
            credentials::revoke_person(connection, &person, at)
        })
    }

    fn set_owners(
        &self,
        kind: OwnedKind,
        id: &str,
        teams: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let (id, teams) = (id.to_owned(), teams.clone());
        self.write("record whose something is", move |connection| {
            owners::put(connection, kind, &id, &teams)
        })
    }

    fn owners(&self, kind: OwnedKind, id: &str) -> Result<BTreeSet<String>, StoreError> {
        self.read("read whose something is", |connection| {
            owners::get(connection, kind, id)
        })
    }

    fn setting(&self, name: &str) -> Result<Option<Value>, StoreError> {
        self.read("read a setting", |connection| {
            let query = "SELECT value FROM settings WHERE name = ?1";
            codec::one(connection, query, [name], |row| {
                codec::from_json(row, "value")
            })
        })
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), codec::json(value)?);
        self.write("write a setting", move |connection| {
            let statement = "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)";
            codec::change(connection, statement, [name, value]).map(|_| ())
        })
    }

    fn audit(&self, record: &AuditRecord) -> Result<AuditHead, StoreError> {
        let record = record.clone();
        self.write("append to the audit log", move |connection| {
            audit::append(connection, &record)
        })
    }

    fn audit_all(&self, records: &[AuditRecord]) -> Result<(), StoreError> {
        let records = records.to_vec();
        self.write("append to the audit log", move |connection| {
            for record in &records {
                audit::append(connection, record)?;
            }
            Ok(())
        })
    }

    fn audited(&self, after: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.read("read the audit log", |connection| {
            audit::after(connection, after, limit)
        })
    }

    fn verify_audit(&self, known: Option<&AuditHead>) -> Result<ChainVerification, StoreError> {
        self.read("verify the audit log", |connection| {
            run_notes::verify_with_log(connection, known)
        })
    }

    fn statistics(&self) -> StoreStatistics {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        StoreStatistics {
            bytes: self.folder.bytes(),
            errors: errors.clone(),
        }
    }

    fn export(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        self.read("export the store", |connection| {
            transfer::export(connection, to, false)
        })
    }

    fn export_with_secrets(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        self.read("export the store", |connection| {
            transfer::export(connection, to, true)
        })
    }

    fn import(&self, from: &mut dyn BufRead) -> Result<u64, ImportError> {
        // Not by the thread that writes: that must not wait for a file from somewhere. It finds the store locked meanwhile.
        let mut connection = self.folder.open_writer()?;
        transfer::import(&mut connection, from)
    }
}
