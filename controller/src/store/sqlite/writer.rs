//! The one thread that writes. It takes all writes that wait, does them in one transaction, and
//! answers each after the commit is on the disk: many who wait share one sync.

use crate::store::error::{StoreError, StoreErrorKind};
use rusqlite::Connection;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest that a commit is put off for those who waited for the last one and are about to come again.
const GATHER_TIMEOUT: Duration = Duration::from_micros(100);

/// What is to be written, and somebody who waits for it.
trait PendingWrite: Send {
    /// Does it, within the transaction. An error is why the transaction is no more; one that only
    /// this write met is kept for its answer.
    fn write(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// Answers: with what came of it, or with why nothing of the transaction is in the store.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// How a write is kept whole by itself within the transaction that it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atomicity {
    /// By a savepoint: it may fail after a part of it was done.
    Savepoint,
    /// It alters something by one statement only, which SQLite does whole or not at all.
    SingleStatement,
}

struct WriteJob<T, F> {
    write: Option<F>,
    whole: Atomicity,
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
        let result = match self.whole {
            Atomicity::SingleStatement => write(connection),
            Atomicity::Savepoint => within_savepoint(connection, write),
        };
        // SQLite may end the whole transaction by itself when the disk is full or fails.
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
        // Whoever waited may have died.
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

/// The way to the thread. It ends, with all that was handed in before, when this is dropped.
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

    /// Hands a write in and waits until it is on the disk.
    pub(super) fn write<T, F>(&self, whole: Atomicity, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = sync_channel(1);
        let job = WriteJob {
            write: Some(write),
            whole,
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
            tracing::error!("the store's writer died");
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

/// All that wait. Those who waited for the last commit come again at about the same time: a commit
/// for the first of them alone would make the others wait for two.
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
        // What can't be rolled back now is when the next transaction can't begin.
        run("ROLLBACK").ok();
    }
    done
}
