//! Leases in SQLite.

use async_trait::async_trait;
use rusqlite::params;

use super::{SqliteStore, change};
use crate::clock::Timestamp;
use crate::store::{LeaseStore, Result};

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn take_lease(&self, name: &str, holder: &str, until: Timestamp, now: Timestamp) -> Result<bool> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write(move |connection| {
            let taken = change(
                connection,
                "INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, \
                 until = excluded.until WHERE leases.holder = excluded.holder OR leases.until <= ?4",
                params![name, holder, until.millis(), now.millis()],
            )?;
            Ok(taken == 1)
        })
        .await
    }

    async fn drop_lease(&self, name: &str, holder: &str) -> Result<()> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write(move |connection| {
            change(connection, "DELETE FROM leases WHERE name = ? AND holder = ?", params![name, holder]).map(drop)
        })
        .await
    }
}
