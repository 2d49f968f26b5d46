//! Keys of people, and the commands that they signed, in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::operators::operator;
use super::{SqliteStore, all, change, first};
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::{Context, Event};
use crate::model::device::PinnedKey;
use crate::model::operator::Operator;
use crate::secret::Bytes32;
use crate::store::{MAX_OPERATOR_KEYS, NewOperatorKey, OperatorKey, OperatorKeyStore, Result};

const KEY: &str = "k.jkt, k.operator, k.name, k.jwk, k.added_at, k.added_by, k.used_at";
/// As [`OPERATOR`](super::operators::OPERATOR), with the roles that were given by hand.
const OWNER: &str = "o.id, o.name, (SELECT group_concat(r.site || ' ' || r.role, ' ') FROM operator_roles r WHERE r.operator = o.id \
     AND r.source = 'given'), o.disabled_at, o.added_at";

/// The columns of [`KEY`], from this one on.
fn key(row: &Row<'_>, from: usize) -> rusqlite::Result<OperatorKey> {
    Ok(OperatorKey {
        jkt: row.get(from)?,
        operator: OperatorId(row.get(from + 1)?),
        name: row.get(from + 2)?,
        jwk: row.get(from + 3)?,
        added_at: Timestamp::from_millis(row.get(from + 4)?),
        added_by: row.get(from + 5)?,
        used_at: row.get::<_, Option<i64>>(from + 6)?.map(Timestamp::from_millis),
    })
}

fn add(connection: &Connection, new: &NewOperatorKey, context: &Context) -> rusqlite::Result<bool> {
    let owner = first(
        connection,
        "INSERT INTO operator_keys (jkt, operator, name, jwk, added_at, added_by) SELECT ?1, id, ?3, ?4, ?5, ?6 FROM operators \
         WHERE id = ?2 AND disabled_at IS NULL AND (SELECT count(*) FROM operator_keys WHERE operator = ?2 AND revoked_at IS NULL) < ?7 \
         AND (?8 IS NULL OR EXISTS (SELECT 1 FROM sessions WHERE hash = ?8 AND operator = ?2 AND ends_at > ?5)) \
         ON CONFLICT (jkt) DO NOTHING RETURNING (SELECT name FROM operators WHERE id = ?2)",
        params![
            new.jkt,
            new.operator.0,
            new.name,
            new.jwk,
            context.now.millis(),
            context.actor.to_string(),
            MAX_OPERATOR_KEYS,
            new.session
        ],
        |row| row.get::<_, String>(0),
    )?;
    let Some(owner) = owner else { return Ok(false) };
    let detail = format!("{owner}: '{}', key {}", new.name, PinnedKey::short(&new.jkt));
    append(connection, Event::OperatorKeyAdded, None, &detail, context)?;
    Ok(true)
}

/// Ends a key, or all living ones, of a person, inside a transaction; how many there were.
pub(super) fn revoke(
    connection: &Connection,
    operator: OperatorId,
    jkt: Option<&Bytes32>,
    context: &Context,
) -> rusqlite::Result<usize> {
    let ended = all(
        connection,
        "UPDATE operator_keys SET revoked_at = ?1 WHERE operator = ?2 AND (?3 IS NULL OR jkt = ?3) AND revoked_at IS NULL \
         RETURNING (SELECT name FROM operators WHERE id = ?2), name, jkt",
        params![context.now.millis(), operator.0, jkt],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Bytes32>(2)?)),
    )?;
    for (owner, name, jkt) in &ended {
        let detail = format!("{owner}: '{name}', key {}", PinnedKey::short(jkt));
        append(connection, Event::OperatorKeyRevoked, None, &detail, context)?;
    }
    Ok(ended.len())
}

#[async_trait]
impl OperatorKeyStore for SqliteStore {
    async fn add_operator_key(&self, new: &NewOperatorKey, context: &Context) -> Result<bool> {
        let (new, context) = (new.clone(), context.clone());
        self.write(move |connection| add(connection, &new, &context)).await
    }

    async fn operator_keys(&self, operator: OperatorId) -> Result<Vec<OperatorKey>> {
        let sql = format!(
            "SELECT {KEY} FROM operator_keys k WHERE k.operator = ? AND k.revoked_at IS NULL ORDER BY k.added_at, k.jkt"
        );
        self.read(|connection| all(connection, &sql, [operator.0], |row| key(row, 0)))
    }

    async fn operator_key(&self, jkt: &Bytes32) -> Result<Option<(OperatorKey, Operator)>> {
        let sql = format!(
            "SELECT {OWNER}, {KEY} FROM operator_keys k JOIN operators o ON o.id = k.operator \
             WHERE k.jkt = ? AND k.revoked_at IS NULL AND o.disabled_at IS NULL"
        );
        self.read(|connection| first(connection, &sql, [jkt], |row| Ok((key(row, 5)?, operator(row)?))))
    }

    async fn touch_operator_key(&self, jkt: &Bytes32, now: Timestamp) -> Result<()> {
        let jkt = *jkt;
        self.write(move |connection| {
            change(
                connection,
                "UPDATE operator_keys SET used_at = ?1 WHERE jkt = ?2 AND (used_at IS NULL OR used_at < ?1)",
                params![now.millis(), jkt],
            )?;
            Ok(())
        })
        .await
    }

    async fn revoke_operator_key(&self, operator: OperatorId, jkt: &Bytes32, context: &Context) -> Result<bool> {
        let (jkt, context) = (*jkt, context.clone());
        self.write(move |connection| Ok(revoke(connection, operator, Some(&jkt), &context)? == 1)).await
    }

    async fn use_command(&self, hash: &Bytes32, expires_at: Timestamp, now: Timestamp) -> Result<bool> {
        let hash = *hash;
        self.write(move |connection| {
            change(connection, "DELETE FROM used_commands WHERE expires_at <= ?", [now.millis()])?;
            let sql = "INSERT INTO used_commands (hash, expires_at) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING";
            Ok(change(connection, sql, params![hash, expires_at.millis()])? == 1)
        })
        .await
    }
}
