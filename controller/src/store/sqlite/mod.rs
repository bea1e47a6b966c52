//! The store on a disk of its own: SQLite, one thread that writes, as many as like that read.

mod access;
mod columns;
mod experiments;
mod log;
mod place;
mod runs;
mod schema;
mod transfer;
mod writer;

use super::Store;
use super::error::{Kind, StoreError};
use super::export::ImportError;
use super::records::{
    Agent, ApiToken, Audited, Chain, Deed, Experiment, ExperimentVersion, Hash, Head, JoinToken,
    NewRun, Numbered, Put, Run, RunEnd, RunFilter,
};
use backburn_experiments::journal::JournalEntry;
use jiff::Timestamp;
use place::Place;
use rusqlite::Connection;
use serde_json::Value;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use writer::{Whole, Writer};

/// How many connections that read are kept for the next who reads.
const KEPT: usize = 8;

/// A store in a folder.
#[derive(Debug)]
pub struct SqliteStore {
    // In the order in which they end: the lock last.
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    place: Place,
}

impl SqliteStore {
    /// Opens the store in this folder; makes both where they are not there. Only the folder's owner may
    /// read what is in it.
    ///
    /// # Errors
    /// [`Kind::Locked`]: another controller holds it. [`Kind::Newer`]: a newer program wrote it.
    /// [`Kind::Corrupt`]: it is damaged, or is no store. And what the disk does.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let place = Place::hold(folder)?;
        let what = format!("open the store in {}", folder.display());
        let open = || {
            let mut connection = place.writing()?;
            schema::migrate(&mut connection)?;
            Writer::start(connection).map_err(|error| {
                StoreError::new(Kind::Io, "no thread can be started").because(error)
            })
        };
        let writer = open().map_err(|error: StoreError| error.while_doing(&what))?;
        Ok(SqliteStore {
            writer,
            readers: Mutex::default(),
            place,
        })
    }

    fn write<T: Send + 'static>(
        &self,
        what: &str,
        write: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer
            .write(Whole::BySavepoint, write)
            .map_err(|error| error.while_doing(what))
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
            .map_or_else(|| self.place.reading(), Ok)
            .and_then(|connection| {
                // What is read by several statements is of one moment.
                connection.execute_batch("BEGIN")?;
                let found = read(&connection);
                connection.execute_batch("ROLLBACK")?;
                let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
                if readers.len() < KEPT {
                    readers.push(connection);
                }
                found
            });
        found.map_err(|error| error.while_doing(what))
    }
}

impl Store for SqliteStore {
    fn put_experiment(
        &self,
        name: &str,
        document: &Value,
        who: &str,
        at: Timestamp,
    ) -> Result<Put, StoreError> {
        let (name, who) = (name.to_owned(), who.to_owned());
        let document = columns::json(document)?;
        self.write("put an experiment", move |connection| {
            experiments::put(connection, &name, &document, &who, at)
        })
    }

    fn experiment(&self, name: &str, version: Option<u64>) -> Result<Experiment, StoreError> {
        self.read("read an experiment", |connection| {
            experiments::get(connection, name, version)
        })
    }

    fn experiments(&self, after: Option<&str>, limit: u32) -> Result<Vec<Experiment>, StoreError> {
        self.read("list the experiments", |connection| {
            experiments::list(connection, after, limit)
        })
    }

    fn experiment_versions(&self, name: &str) -> Result<Vec<ExperimentVersion>, StoreError> {
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

    fn append(&self, run: &str, entry: &JournalEntry) -> Result<u64, StoreError> {
        let run = run.to_owned();
        // Made here: the one thread that writes has enough to do.
        let entry = columns::json(entry)?;
        self.writer
            .write(Whole::ByOneStatement, move |connection| {
                runs::append(connection, &run, &entry)
            })
            .map_err(|error| error.while_doing("append to a run's journal"))
    }

    fn append_all(&self, run: &str, entries: &[JournalEntry]) -> Result<(), StoreError> {
        let run = run.to_owned();
        let entries = entries.iter().map(columns::json);
        let entries: Vec<String> = entries.collect::<Result<_, _>>()?;
        self.write("append to a run's journal", move |connection| {
            runs::append_all(connection, &run, &entries)
        })
    }

    fn events(&self, run: &str, after: u64, limit: u32) -> Result<Vec<Numbered>, StoreError> {
        self.read("read a run's journal", |connection| {
            runs::events(connection, run, after, limit)
        })
    }

    fn close_run(&self, run: &str, end: &RunEnd) -> Result<(), StoreError> {
        let (run, end) = (run.to_owned(), end.clone());
        let verdict = columns::json(&end.verdict)?;
        self.write("close a run", move |connection| {
            runs::close(connection, &run, &end, &verdict)
        })
    }

    fn run(&self, run: &str) -> Result<Run, StoreError> {
        self.read("read a run", |connection| runs::get(connection, run))
    }

    fn runs(
        &self,
        filter: &RunFilter,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        self.read("list the runs", |connection| {
            runs::list(connection, filter, before, limit)
        })
    }

    fn open_runs(&self) -> Result<Vec<Run>, StoreError> {
        self.read("list the open runs", runs::open_ones)
    }

    fn forget_run(&self, before: Timestamp) -> Result<Option<String>, StoreError> {
        self.write("forget a run", move |connection| {
            runs::forget(connection, before)
        })
    }

    fn put_agent(&self, agent: &Agent) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write("write an agent down", move |connection| {
            access::put_agent(connection, &agent)
        })
    }

    fn agent(&self, name: &str) -> Result<Agent, StoreError> {
        self.read("read an agent", |connection| {
            access::agent(connection, name)
        })
    }

    fn agents(&self, after: Option<&str>, limit: u32) -> Result<Vec<Agent>, StoreError> {
        self.read("list the agents", |connection| {
            access::agents(connection, after, limit)
        })
    }

    fn revoke_agent(&self, name: &str, at: Timestamp) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write("revoke an agent", move |connection| {
            access::revoke_agent(connection, &name, at)
        })
    }

    fn put_join_token(&self, token: &JoinToken) -> Result<(), StoreError> {
        let token = token.clone();
        self.write("write a join token down", move |connection| {
            access::put_join_token(connection, &token)
        })
    }

    fn take_join_token(
        &self,
        id: &str,
        secret: &Hash,
        now: Timestamp,
    ) -> Result<JoinToken, StoreError> {
        let (id, secret) = (id.to_owned(), *secret);
        self.write("use a join token", move |connection| {
            access::take_join_token(connection, &id, &secret, now)
        })
    }

    fn join_tokens(&self) -> Result<Vec<JoinToken>, StoreError> {
        self.read("list the join tokens", access::join_tokens)
    }

    fn remove_join_token(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write("remove a join token", move |connection| {
            access::remove_join_token(connection, &id)
        })
    }

    fn put_api_token(&self, token: &ApiToken) -> Result<(), StoreError> {
        let token = token.clone();
        self.write("write an API token down", move |connection| {
            access::put_api_token(connection, &token)
        })
    }

    fn api_token(&self, id: &str) -> Result<ApiToken, StoreError> {
        self.read("read an API token", |connection| {
            access::api_token(connection, id)
        })
    }

    fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        self.read("list the API tokens", access::api_tokens)
    }

    fn revoke_api_token(&self, id: &str, at: Timestamp) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write("revoke an API token", move |connection| {
            access::revoke_api_token(connection, &id, at)
        })
    }

    fn setting(&self, name: &str) -> Result<Option<Value>, StoreError> {
        self.read("read a setting", |connection| {
            let query = "SELECT value FROM settings WHERE name = ?1";
            columns::one(connection, query, [name], |row| {
                columns::from_json(row, "value")
            })
        })
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), columns::json(value)?);
        self.write("write a setting", move |connection| {
            let statement = "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)";
            columns::alter(connection, statement, [name, value]).map(|_| ())
        })
    }

    fn audit(&self, deed: &Deed) -> Result<Head, StoreError> {
        let deed = deed.clone();
        self.write("append to the audit log", move |connection| {
            log::append(connection, &deed)
        })
    }

    fn audited(&self, after: u64, limit: u32) -> Result<Vec<Audited>, StoreError> {
        self.read("read the audit log", |connection| {
            log::after(connection, after, limit)
        })
    }

    fn verify_audit(&self, known: Option<&Head>) -> Result<Chain, StoreError> {
        self.read("verify the audit log", |connection| {
            log::verify(connection, known)
        })
    }

    fn export(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        self.read("export the store", |connection| {
            transfer::export(connection, to)
        })
    }

    fn import(&self, from: &mut dyn BufRead) -> Result<u64, ImportError> {
        // Not by the thread that writes: that must not wait for a file from somewhere. It finds the store locked meanwhile.
        let mut connection = self.place.writing()?;
        transfer::import(&mut connection, from)
    }
}
