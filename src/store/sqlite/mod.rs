//! The embedded default: SQLite. One writer thread with group commit, readers on the caller's thread.
//!
//! - WAL and `synchronous = FULL`: what was answered survives a power cut. With group commit that costs next to nothing against NORMAL.
//! - `BEGIN IMMEDIATE`: other processes (the command line) may write too; waiting is at the start of a transaction, never in its middle.
//! - Reads are point reads of microseconds, so they run where they are asked for; handing them to another thread costs more than they do.
//!
//! The SQL of each trait is in the file of its name.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};

use crate::model::operator::Reach;
use crate::store::{Result, StoreError};

mod api_tokens;
mod approvers;
mod audit;
mod bulk;
mod devices;
mod field;
mod grants;
mod leases;
mod operator_keys;
mod operators;
mod overview;
mod pairings;
mod passkeys;
mod people;
mod policies;
mod sessions;
mod setup;
mod signing_keys;
mod writer;

use writer::Writer;

mod migrations {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Connections kept for the next read.
const IDLE_READERS: usize = 4;

/// The SQLite backend.
pub struct SqliteStore {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    /// A connection that nobody writes by: `PRAGMA data_version` on it changes with every commit of others.
    watcher: Mutex<Connection>,
    writer: Writer,
}

impl SqliteStore {
    /// Opens or makes the database file, and migrates it.
    ///
    /// # Errors
    /// If the file can't be opened, or holds migrations other than this program's (checksums are compared).
    pub fn open(path: &Path) -> Result<Self> {
        // Two processes that start at once must not both make the tables. The lock goes with the file handle, also when the process is killed.
        let opening = lock(&path.with_extension("lock"))?;
        make_private(path)?;
        let mut writer = Connection::open(path).map_err(failed)?;
        configure(&writer)?;
        writer.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        migrations::migrations::runner()
            .set_grouped(true)
            .run(&mut writer)
            .map_err(|error| StoreError::Failed(format!("migration of {}: {error}", path.display())))?;
        drop(opening);
        let watcher = open_reader(path)?;
        Ok(Self {
            path: path.to_owned(),
            readers: Mutex::new(Vec::new()),
            watcher: Mutex::new(watcher),
            writer: Writer::start(writer)?,
        })
    }

    /// Runs one read on a pooled connection, on this thread.
    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let outcome = query(&connection).map_err(failed);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        outcome
    }

    /// Runs one change in the writer's transaction; returns after COMMIT.
    async fn write<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.run(change).await
    }
}

/// Makes a new file before SQLite does, for its owner only; SQLite gives its `-wal` and `-shm` the same mode.
/// An existing one is not touched: closing any handle of it would drop SQLite's own locks in this process.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::Failed(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Waits until nobody else holds this lock file.
fn lock(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::File::create(path).and_then(|file| file.lock().map(|()| file));
    file.map_err(|error| StoreError::Failed(format!("{}: {error}", path.display())))
}

fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    configure(&connection)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<()> {
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    let settings = [("synchronous", "FULL"), ("foreign_keys", "ON"), ("cache_size", "-2048"), ("temp_store", "MEMORY")];
    settings.iter().try_for_each(|(name, value)| connection.pragma_update(None, name, value)).map_err(failed)
}

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// Sites as a parameter: `NULL` for all, else a JSON array for `json_each`.
fn json(reach: &Reach) -> Option<String> {
    match reach {
        Reach::Everywhere => None,
        Reach::Sites(sites) => Some(serde_json::json!(sites).to_string()),
    }
}

/// A column that this program wrote does not read back: the database was changed by hand.
fn corrupt(column: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        0,
        rusqlite::types::Type::Text,
        format!("column {column} holds an unknown value").into(),
    )
}

/// First row of a cached statement, mapped; `None` without one.
fn first<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(parameters, map).optional()
}

/// All rows of a cached statement, mapped.
fn all<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(parameters, map)?.collect()
}

/// Runs a cached statement; how many rows it changed.
fn change(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(parameters)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
