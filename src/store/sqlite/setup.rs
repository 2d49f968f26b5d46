//! Risk records and settings in SQLite.

use async_trait::async_trait;
use rusqlite::params;

use super::audit::append;
use super::{SqliteStore, all, change, first};
use crate::clock::Timestamp;
use crate::model::audit::{Context, Event};
use crate::model::risk::RiskRecord;
use crate::secret::{b64u, sha256};
use crate::store::{Result, SetupStore};

#[async_trait]
impl SetupStore for SqliteStore {
    async fn risk_records(&self) -> Result<Vec<RiskRecord>> {
        const SQL: &str = "SELECT version, at, by, document, signature FROM risk_records ORDER BY version DESC";
        self.read(|connection| {
            all(connection, SQL, [], |row| {
                Ok(RiskRecord {
                    version: row.get(0)?,
                    at: Timestamp::from_millis(row.get(1)?),
                    by: row.get(2)?,
                    document: row.get(3)?,
                    signature: row.get(4)?,
                })
            })
        })
    }

    async fn add_risk_record(&self, record: &RiskRecord, context: &Context) -> Result<bool> {
        let (record, context) = (record.clone(), context.clone());
        self.write(move |connection| {
            let added = change(
                connection,
                "INSERT INTO risk_records (version, at, by, document, signature) VALUES (?, ?, ?, ?, ?) ON CONFLICT (version) DO NOTHING",
                params![record.version, record.at.millis(), record.by, record.document, record.signature],
            )?;
            if added == 1 {
                // The hash stands in the chain: the record can't be exchanged later, whoever has the signing key by then.
                let hash = b64u(&sha256(&[record.signature.as_bytes()]));
                append(connection, Event::RiskAccepted, None, &format!("version {}, SHA-256 {hash}", record.version), &context)?;
            }
            Ok(added == 1)
        })
        .await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>> {
        self.read(|connection| first(connection, "SELECT value FROM settings WHERE name = ?", [name], |row| row.get(0)))
    }

    async fn set_setting(&self, name: &str, value: &str, context: &Context) -> Result<()> {
        let (name, value, context) = (name.to_owned(), value.to_owned(), context.clone());
        self.write(move |connection| {
            change(
                connection,
                "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                params![name, value],
            )?;
            append(connection, Event::SettingChanged, None, &format!("{name} = {value}"), &context)
        })
        .await
    }
}
