//! The writer thread: takes what is queued into one transaction, commits once for all, then answers all.
//!
//! A disk that does 300 durable writes a second would otherwise do 300 sign-in steps a second.

use std::panic::AssertUnwindSafe;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::{Result, StoreError};

/// Changes that may wait; more is overload, answered by 503 instead of memory.
const QUEUE: usize = 1024;
/// Changes in one transaction.
const BATCH: usize = 512;

/// A change that is queued: runs in the transaction, and leaves how to answer once that has ended.
type Change = Box<dyn FnOnce(&Connection) -> Answer + Send>;
/// Told whether the transaction was committed.
type Answer = Box<dyn FnOnce(bool) + Send>;

/// Handle of the thread.
pub(super) struct Writer {
    queue: mpsc::Sender<Change>,
}

impl Writer {
    /// Starts the thread; it ends when the handle is dropped.
    pub(super) fn start(connection: Connection) -> Result<Self> {
        let (queue, changes) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(&connection, changes))
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Self { queue })
    }

    /// Queues a change, and returns its outcome after COMMIT. Its own failure undoes it alone, not its neighbours in the batch.
    pub(super) async fn run<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let queued: Change = Box::new(move |connection| {
            let result = in_savepoint(connection, change);
            Box::new(move |is_committed| {
                let result = if is_committed {
                    result
                } else {
                    Err(StoreError::Failed("the transaction was not committed".into()))
                };
                // The asker may have gone away; what it asked for stands all the same.
                let _ = answer.send(result);
            })
        });
        self.queue.try_send(queued).map_err(|_| StoreError::Busy)?;
        outcome.await.map_err(|_| StoreError::Failed("the writer thread has stopped".into()))?
    }
}

fn serve(connection: &Connection, mut changes: mpsc::Receiver<Change>) {
    while let Some(first) = changes.blocking_recv() {
        let begun = connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut statement| statement.execute([]));
        if let Err(error) = begun {
            tracing::error!(%error, "the database can't be written");
            // Dropping the change drops its answer channel: the asker gets a failure.
            drop(first);
            continue;
        }
        let mut answers = Vec::with_capacity(16);
        let mut next = Some(first);
        while let Some(change) = next {
            answers.push(change(connection));
            // On a full disk, for example, SQLite ends the whole transaction by itself. Without this, what follows would be committed one by one,
            // while its askers are told that nothing was.
            if connection.is_autocommit() {
                break;
            }
            next = if answers.len() < BATCH { changes.try_recv().ok() } else { None };
        }
        let committed = connection.prepare_cached("COMMIT").and_then(|mut statement| statement.execute([]));
        if let Err(error) = &committed {
            tracing::error!(%error, "a transaction was not committed");
            let _ = connection.execute_batch("ROLLBACK");
        }
        for answer in answers {
            answer(committed.is_ok());
        }
    }
}

fn in_savepoint<T>(connection: &Connection, change: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
    let failed = |error: rusqlite::Error| StoreError::Failed(error.to_string());
    let run =
        |sql: &str| connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(failed);
    run("SAVEPOINT change")?;
    // A panic in one change must not end the thread that all others need.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| change(connection)))
        .unwrap_or_else(|_| Err(rusqlite::Error::UnwindingPanic));
    if outcome.is_err() {
        run("ROLLBACK TO change")?;
    }
    run("RELEASE change")?;
    outcome.map_err(failed)
}
