//! Group commit. A thread that writes while no other does commits everything that waits to be written, in one transaction, and answers
//! each write after the commit is on the disk: concurrent writers share one sync, and a single writer waits for no other thread.

use crate::store::error::{StoreError, StoreErrorKind};
use rusqlite::Connection;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a commit is delayed at most for the writers of the last one, who are about to write again.
const GATHER_TIMEOUT: Duration = Duration::from_micros(100);

/// A write, and the caller that waits for it.
trait PendingWrite: Send {
    /// Has the caller commit what waits, this write included.
    fn appoint(&self);
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
    answer: SyncSender<Notice<T>>,
}

/// What a caller is woken for.
enum Notice<T> {
    /// It is its turn to commit what waits.
    Lead,
    /// Its write is done.
    Done(Result<T, StoreError>),
}

/// How many notices a caller gets for one write at most.
const MAX_NOTICES: usize = 2;

impl<T, F> PendingWrite for WriteJob<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn appoint(&self) {
        // The caller waits for its answer, so it is there.
        self.answer.try_send(Notice::Lead).ok();
    }

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
        self.answer.try_send(Notice::Done(result)).ok();
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

/// The connection that writes, and the writes that wait for it.
pub(super) struct Writer {
    connection: Mutex<Connection>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Box<dyn PendingWrite>>,
    /// Whether a caller commits, or has been appointed to.
    is_led: bool,
    /// How many writes the last commit had.
    last: usize,
    /// Whether a write panicked: what it left in the connection is not known.
    has_ended: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Ends the store for everybody if the caller that commits panics: nobody may wait for it for ever.
struct Leadership<'a>(&'a Writer);

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a write of the store panicked, and nothing more is written");
            let mut queue = self.0.queue();
            queue.has_ended = true;
            // Whoever waits for an answer learns that none comes.
            queue.waiting.clear();
        }
    }
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        Writer {
            connection: Mutex::new(connection),
            queue: Mutex::default(),
        }
    }

    /// Does a write, on this thread or on another one that writes at the same time, and waits until it is on the disk.
    pub(super) fn write<T, F>(&self, atomicity: Atomicity, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, notices) = sync_channel(MAX_NOTICES);
        let job = Box::new(WriteJob {
            write: Some(write),
            atomicity,
            result: None,
            answer,
        });
        if self.join(job)? {
            self.lead();
        }
        loop {
            match notices.recv().map_err(|_| ended())? {
                Notice::Lead => self.lead(),
                Notice::Done(result) => return result,
            }
        }
    }

    /// Adds a write to those that wait. Returns whether the caller has to commit them.
    fn join(&self, job: Box<dyn PendingWrite>) -> Result<bool, StoreError> {
        let mut queue = self.queue();
        if queue.has_ended {
            return Err(ended());
        }
        queue.waiting.push(job);
        Ok(!std::mem::replace(&mut queue.is_led, true))
    }

    /// Commits what waits, once: the next commit is for one of those that came meanwhile.
    fn lead(&self) {
        let _leadership = Leadership(self);
        let mut jobs = self.gather();
        let committed = {
            let connection = self.connection.lock();
            commit(
                &connection.unwrap_or_else(PoisonError::into_inner),
                &mut jobs,
            )
        };
        {
            let mut queue = self.queue();
            queue.last = jobs.len();
            match queue.waiting.first() {
                Some(next) => next.appoint(),
                None => queue.is_led = false,
            }
        }
        for job in jobs {
            job.answer(committed.clone());
        }
    }

    /// Takes all pending writes. The writers of the last commit write again at about the same time: a commit for the first of
    /// them alone would make the others wait for two.
    fn gather(&self) -> Vec<Box<dyn PendingWrite>> {
        let (mut jobs, last) = {
            let mut queue = self.queue();
            (std::mem::take(&mut queue.waiting), queue.last)
        };
        if jobs.len() < last {
            let until = Instant::now() + GATHER_TIMEOUT;
            while jobs.len() < last && Instant::now() < until {
                std::thread::yield_now();
                jobs.append(&mut self.queue().waiting);
            }
        }
        jobs
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};
    use std::thread::ThreadId;

    /// A writer on an empty database.
    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        let table = "CREATE TABLE found (number INTEGER)";
        connection.execute_batch(table).unwrap();
        Writer::new(connection)
    }

    fn insert(
        number: usize,
    ) -> impl FnOnce(&Connection) -> Result<ThreadId, StoreError> + Send + 'static {
        move |connection| {
            connection.execute("INSERT INTO found VALUES (?1)", [number as i64])?;
            Ok(std::thread::current().id())
        }
    }

    fn found(writer: &Writer) -> Vec<i64> {
        let connection = writer.connection.lock().unwrap();
        let mut query = connection
            .prepare("SELECT number FROM found ORDER BY number")
            .unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// Waits until so many writes wait for a commit.
    fn wait_for_writes(writer: &Writer, count: usize) {
        while writer.queue().waiting.len() < count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn write_of_a_single_writer_is_done_on_its_own_thread() {
        let writer = writer();
        for number in 0..3 {
            let by = writer.write(Atomicity::SingleStatement, insert(number));
            assert_eq!(by.unwrap(), std::thread::current().id());
        }
        assert_eq!(found(&writer), [0, 1, 2]);
    }

    #[test]
    fn writes_that_come_during_a_commit_share_the_next_one() {
        const WAITING: usize = 5;
        let writer = &writer();
        std::thread::scope(|threads| {
            let (begun, others_wait) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
            let (here, there) = (Arc::clone(&begun), Arc::clone(&others_wait));
            let first = threads.spawn(move || {
                writer.write(Atomicity::SingleStatement, move |connection| {
                    here.wait();
                    there.wait();
                    insert(0)(connection)
                })
            });
            begun.wait();
            let rest: Vec<_> = (1..=WAITING)
                .map(|number| {
                    threads.spawn(move || writer.write(Atomicity::Savepoint, insert(number)))
                })
                .collect();
            wait_for_writes(writer, WAITING);
            others_wait.wait();
            first.join().unwrap().unwrap();
            let by: Vec<ThreadId> = (rest.into_iter())
                .map(|one| one.join().unwrap().unwrap())
                .collect();
            assert!(
                by.iter().all(|one| *one == by[0]),
                "one thread commits for all: {by:?}"
            );
        });
        assert_eq!(found(writer), [0, 1, 2, 3, 4, 5]);
        assert_eq!(writer.queue().last, WAITING);
    }

    #[test]
    fn writes_of_many_threads_are_all_done_and_answered() {
        const THREADS: usize = 16;
        const EACH: usize = 50;
        let writer = &writer();
        std::thread::scope(|threads| {
            for thread in 0..THREADS {
                threads.spawn(move || {
                    for number in 0..EACH {
                        let write = insert(thread * EACH + number);
                        writer.write(Atomicity::SingleStatement, write).unwrap();
                    }
                });
            }
        });
        let all: Vec<i64> = (0..(THREADS * EACH) as i64).collect();
        assert_eq!(found(writer), all);
        assert!(!writer.queue().is_led, "the next one may write");
    }

    #[test]
    fn write_that_panics_ends_the_store_and_leaves_nobody_waiting() {
        let writer = &writer();
        std::thread::scope(|threads| {
            let (begun, others_wait) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
            let (here, there) = (Arc::clone(&begun), Arc::clone(&others_wait));
            let first = threads.spawn(move || {
                writer.write(Atomicity::Savepoint, move |_| -> Result<(), StoreError> {
                    here.wait();
                    there.wait();
                    panic!("planted")
                })
            });
            begun.wait();
            let second = threads.spawn(|| writer.write(Atomicity::Savepoint, insert(1)));
            wait_for_writes(writer, 1);
            others_wait.wait();
            assert!(first.join().is_err());
            let second = second.join().unwrap();
            assert_eq!(second.unwrap_err().kind, StoreErrorKind::Ended);
        });
        let later = writer.write(Atomicity::Savepoint, insert(2));
        assert_eq!(later.unwrap_err().kind, StoreErrorKind::Ended);
    }
}
