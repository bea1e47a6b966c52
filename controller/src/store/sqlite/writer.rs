//! The only thread that writes. It takes all pending writes, does them in one transaction, and answers each after the commit
//! is on the disk: concurrent writers share one sync.

use crate::store::error::{StoreError, StoreErrorKind};
use rusqlite::Connection;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a commit is delayed at most for the writers of the last one, who are about to write again.
const GATHER_TIMEOUT: Duration = Duration::from_micros(100);

/// A write, and the caller that waits for it.
trait PendingWrite: Send {
    /// Does the write within the transaction. Returns an error only if the transaction has ended because of it; an error of
    /// the write alone is kept for its answer.
    fn write(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// Answers with the result of the write, or with the reason that nothing of the transaction is in the store.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// How a write is made atomic within the transaction that it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atomicity {
    /// By a savepoint, because the write may fail after a part of it was done.
    Savepoint,
    /// By itself, because it changes data with one statement only.
    SingleStatement,
}

struct WriteJob<T, F> {
    write: Option<F>,
    atomicity: Atomicity,
    result: Option<Result<T, StoreError>>,
    answer: SyncSender<Result<T, StoreError>>,
}

impl<T, F> PendingWrite for WriteJob<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn write(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Some(write) = self.write.take() else {
            return Ok(());
        };
        let result = match self.atomicity {
            Atomicity::SingleStatement => write(connection),
            Atomicity::Savepoint => within_savepoint(connection, write),
        };
        // SQLite may end the whole transaction when the disk is full or fails.
        let lost = connection
            .is_autocommit()
            .then(|| result.as_ref().err().cloned());
        self.result = Some(result);
        match lost {
            None => Ok(()),
            Some(error) => Err(error.unwrap_or_else(ended)),
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(ended()),
            (Err(error), _) => Err(error),
        };
        // The caller may have gone.
        self.answer.try_send(result).ok();
    }
}

fn within_savepoint<T>(
    connection: &Connection,
    write: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let run = |statement| connection.prepare_cached(statement)?.execute([]);
    run("SAVEPOINT one")?;
    let result = write(connection);
    if result.is_err() && !connection.is_autocommit() {
        run("ROLLBACK TO one")?;
    }
    if !connection.is_autocommit() {
        run("RELEASE one")?;
    }
    result
}

fn ended() -> StoreError {
    StoreError::new(StoreErrorKind::Ended, "the store was closed")
}

/// Hands writes to the thread. When this is dropped, the thread finishes them and ends.
#[derive(Debug)]
pub(super) struct WriterThread {
    queue: Option<Sender<Box<dyn PendingWrite>>>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (queue, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_all(&connection, &waiting))?;
        Ok(WriterThread {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Does a write on the thread, and waits until it is on the disk.
    pub(super) fn write<T, F>(&self, atomicity: Atomicity, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = sync_channel(1);
        let job = WriteJob {
            write: Some(write),
            atomicity,
            result: None,
            answer,
        };
        let queue = self.queue.as_ref().ok_or_else(ended)?;
        queue.send(Box::new(job)).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

fn write_all(connection: &Connection, waiting: &Receiver<Box<dyn PendingWrite>>) {
    let mut last = 1;
    while let Ok(first) = waiting.recv() {
        let mut jobs = gather(first, waiting, last);
        last = jobs.len();
        let committed = commit(connection, &mut jobs);
        for job in jobs {
            job.answer(committed.clone());
        }
    }
}

/// Collects all pending writes. The writers of the last commit write again at about the same time: a commit for the first of
/// them alone would make the others wait for two.
fn gather(
    first: Box<dyn PendingWrite>,
    waiting: &Receiver<Box<dyn PendingWrite>>,
    last: usize,
) -> Vec<Box<dyn PendingWrite>> {
    let mut jobs = vec![first];
    jobs.extend(waiting.try_iter());
    if jobs.len() < last {
        let until = Instant::now() + GATHER_TIMEOUT;
        while jobs.len() < last && Instant::now() < until {
            std::thread::yield_now();
            jobs.extend(waiting.try_iter());
        }
    }
    jobs
}

fn commit(connection: &Connection, jobs: &mut [Box<dyn PendingWrite>]) -> Result<(), StoreError> {
    let run = |statement| connection.prepare_cached(statement)?.execute([]);
    let done = (|| {
        run("BEGIN IMMEDIATE")?;
        for job in jobs {
            job.write(connection)?;
        }
        run("COMMIT")?;
        Ok(())
    })();
    if done.is_err() && !connection.is_autocommit() {
        // If this fails, the next transaction cannot begin, and fails.
        run("ROLLBACK").ok();
    }
    done
}
