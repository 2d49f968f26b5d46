//! The audit log in SQLite. The SQL of the signing keys is in `signing_keys.rs`.

use async_trait::async_trait;
use rusqlite::types::Null;
use rusqlite::{Connection, Row, params};

use super::{SqliteStore, all, change, failed, first, json, signing_keys, unsigned};
use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::{Context, Event, GENESIS, Record, Severity};
use crate::model::operator::Reach;
use crate::secret::Bytes32;
use crate::store::{AuditQuery, AuditStore, AuditVerdict, NewSigningKey, Result, Retirement, StoredSigningKey};

pub(super) const RECORD: &str = "id, at, event, severity, actor, device, peer, detail";

/// Appends one record to the chain, inside the transaction of the change that it records.
pub(super) fn append(
    connection: &Connection,
    event: Event,
    device: Option<&str>,
    detail: &str,
    context: &Context,
) -> rusqlite::Result<()> {
    let last = first(connection, "SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Bytes32>(1)?))
    })?;
    let (last, previous) = last.unwrap_or((0, GENESIS));
    let record = Record {
        id: last + 1,
        at: context.now,
        event: event.as_str().into(),
        severity: event.severity().as_str().into(),
        actor: context.actor.to_string(),
        device: device.map(str::to_owned),
        peer: context.peer.map(|peer| peer.to_string()),
        detail: detail.to_owned(),
    };
    let hash = record.hash(&previous);
    change(
        connection,
        "INSERT INTO audit (id, at, event, severity, actor, device, peer, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            record.id,
            record.at.millis(),
            record.event,
            record.severity,
            record.actor,
            record.device,
            record.peer,
            record.detail,
            hash
        ],
    )?;
    Ok(())
}

/// Only what is about devices of these sites.
const OF_SITES: &str = "device IN (SELECT id FROM devices WHERE site IN (SELECT value FROM json_each(?5)))";

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get(0)?,
        at: Timestamp::from_millis(row.get(1)?),
        event: row.get(2)?,
        severity: row.get(3)?,
        actor: row.get(4)?,
        device: row.get(5)?,
        peer: row.get(6)?,
        detail: row.get(7)?,
    })
}

#[async_trait]
impl AuditStore for SqliteStore {
    async fn record(&self, event: Event, device: Option<&DeviceId>, detail: &str, context: &Context) -> Result<()> {
        let (device, detail, context) = (device.cloned(), detail.to_owned(), context.clone());
        self.write(move |connection| {
            append(connection, event, device.as_ref().map(DeviceId::as_str), &detail, &context)
        })
        .await
    }

    async fn audit(&self, query: &AuditQuery, reach: &Reach) -> Result<Vec<Record>> {
        // Only the conditions that are meant, so that each has its index; the first merely uses the parameters where they are not.
        let mut conditions = vec!["((?3 IS NULL AND ?5 IS NULL AND ?6 IS NULL AND ?7 IS NULL AND ?8 IS NULL) OR TRUE)"];
        let sites = json(reach);
        if sites.is_some() {
            conditions.push(OF_SITES);
        }
        if query.device.is_some() {
            conditions.push("device = ?3");
        }
        if query.refusals || query.severity.is_some_and(|severity| severity != Severity::Info) {
            conditions.push("severity <> 'info'");
        }
        if query.severity.is_some() {
            conditions.push("severity = ?6");
        }
        if query.event.is_some() {
            conditions.push("event = ?7");
        }
        if query.by.is_some() {
            conditions.push("substr(actor, instr(actor, ':') + 1) = ?8");
        }
        let order = if query.after.is_some() { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT {RECORD} FROM audit WHERE id < ?1 AND id > ?2 AND {} ORDER BY id {order} LIMIT ?4",
            conditions.join(" AND ")
        );
        let parameters = params![
            query.before.unwrap_or(i64::MAX),
            query.after.unwrap_or(0),
            query.device.as_ref().map(DeviceId::as_str),
            query.limit.clamp(1, 1000),
            sites,
            query.severity.map(Severity::as_str),
            query.event,
            query.by
        ];
        self.read(|connection| all(connection, &sql, parameters, record))
    }

    async fn audit_counts(&self, since: Timestamp, reach: &Reach) -> Result<(u64, u64)> {
        let sites = json(reach);
        // By time, and not by device: the plus.
        let of_sites = if sites.is_some() { format!("+{OF_SITES}") } else { "(?5 IS NULL OR TRUE)".into() };
        self.read(|connection| {
            let count = |condition: &str| {
                let sql = format!("SELECT count(*) FROM audit WHERE {condition} AND at >= ?1 AND {of_sites}");
                first(connection, &sql, params![since.millis(), Null, Null, Null, sites], |row| row.get(0))
            };
            let (signed_in, refused) = (count("event = 'token.issued'")?, count("severity <> 'info'")?);
            Ok((unsigned(signed_in.unwrap_or(0)), unsigned(refused.unwrap_or(0))))
        })
    }

    async fn verify_audit(&self) -> Result<AuditVerdict> {
        self.read(|connection| {
            let mut statement = connection.prepare(&format!("SELECT {RECORD}, hash FROM audit ORDER BY id"))?;
            let mut rows = statement.query([])?;
            let mut verdict = AuditVerdict { records: 0, head: GENESIS, first_bad: None };
            while let Some(row) = rows.next()? {
                // A field of another type than this program writes is a bad entry, not a failure of the check.
                let entry = record(row).and_then(|entry| Ok((entry, row.get::<_, Bytes32>(8)?)));
                let is_good = entry
                    .as_ref()
                    .is_ok_and(|(entry, hash)| entry.id == verdict.records + 1 && entry.hash(&verdict.head) == *hash);
                let Ok((_, hash)) = entry else {
                    verdict.first_bad = Some(verdict.records + 1);
                    break;
                };
                if !is_good {
                    verdict.first_bad = Some(verdict.records + 1);
                    break;
                }
                verdict.records += 1;
                verdict.head = hash;
            }
            Ok(verdict)
        })
    }

    async fn audit_hash(&self, id: i64) -> Result<Option<Bytes32>> {
        self.read(|connection| first(connection, "SELECT hash FROM audit WHERE id = ?", [id], |row| row.get(0)))
    }

    async fn latest_instant(&self) -> Result<Option<Timestamp>> {
        self.read(|connection| {
            let newest = first(connection, "SELECT at FROM audit ORDER BY id DESC LIMIT 1", [], |row| row.get(0))?;
            Ok(newest.map(Timestamp::from_millis))
        })
    }

    async fn signing_keys(&self) -> Result<Vec<StoredSigningKey>> {
        self.read(signing_keys::all_kept)
    }

    async fn add_first_signing_key(&self, new: &NewSigningKey, context: &Context) -> Result<bool> {
        let (new, context) = (new.clone(), context.clone());
        self.write(move |connection| signing_keys::add_first(connection, &new, &context)).await
    }

    async fn rotate_signing_key(
        &self,
        former: &str,
        new: &NewSigningKey,
        retirement: Retirement,
        context: &Context,
    ) -> Result<bool> {
        let (former, new, context) = (former.to_owned(), new.clone(), context.clone());
        self.write(move |connection| signing_keys::rotate(connection, &former, &new, retirement, &context)).await
    }

    async fn drop_retired_signing_keys(&self, context: &Context) -> Result<usize> {
        let context = context.clone();
        self.write(move |connection| signing_keys::drop_retired(connection, &context)).await
    }

    async fn change_counter(&self) -> Result<i64> {
        let watcher = self.watcher.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        watcher.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(failed)
    }
}
