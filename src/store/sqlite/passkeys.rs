//! Passkeys in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::{SqliteStore, all, change, first, sessions};
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::{Context, Event};
use crate::store::{MAX_PASSKEYS, NewPasskey, NewSession, Passkey, PasskeyStore, Result};

const PASSKEY: &str = "SELECT p.credential, p.operator, p.name, p.data, p.added_at, p.used_at, o.name FROM passkeys p JOIN operators o ON o.id = p.operator";

fn passkey(row: &Row<'_>) -> rusqlite::Result<Passkey> {
    Ok(Passkey {
        credential: row.get(0)?,
        operator: OperatorId(row.get(1)?),
        name: row.get(2)?,
        data: row.get(3)?,
        added_at: Timestamp::from_millis(row.get(4)?),
        owner: row.get(6)?,
        used_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_millis),
    })
}

fn add(connection: &Connection, new: &NewPasskey, context: &Context) -> rusqlite::Result<bool> {
    let added = change(
        connection,
        "INSERT INTO passkeys (credential, operator, name, data, added_at) SELECT ?1, id, ?3, ?4, ?5 FROM operators \
         WHERE id = ?2 AND disabled_at IS NULL AND (SELECT count(*) FROM passkeys WHERE operator = ?2) < ?6 \
         AND EXISTS (SELECT 1 FROM sessions WHERE hash = ?7 AND operator = ?2 AND ends_at > ?5) ON CONFLICT (credential) DO NOTHING",
        params![new.credential, new.operator.0, new.name, new.data, context.now.millis(), MAX_PASSKEYS, new.session],
    )?;
    if added == 1 {
        append(connection, Event::PasskeyAdded, None, &new.name, context)?;
    }
    Ok(added == 1)
}

fn use_passkey(
    connection: &Connection,
    read: &Passkey,
    data: &str,
    session: &NewSession,
    context: &Context,
) -> rusqlite::Result<bool> {
    let used = change(
        connection,
        "UPDATE passkeys SET data = ?1, used_at = ?2 WHERE credential = ?3 AND operator = ?4 AND data = ?5 \
         AND operator IN (SELECT id FROM operators WHERE disabled_at IS NULL)",
        params![data, context.now.millis(), read.credential, read.operator.0, read.data],
    )?;
    if used == 0 {
        return Ok(false);
    }
    Ok(sessions::open(connection, read.operator, session, context)?.is_some())
}

#[async_trait]
impl PasskeyStore for SqliteStore {
    async fn add_passkey(&self, new: &NewPasskey, context: &Context) -> Result<bool> {
        let (new, context) = (new.clone(), context.clone());
        self.write(move |connection| add(connection, &new, &context)).await
    }

    async fn passkeys_of(&self, operator: OperatorId) -> Result<Vec<Passkey>> {
        let sql = format!("{PASSKEY} WHERE p.operator = ? ORDER BY p.added_at, p.credential");
        self.read(|connection| all(connection, &sql, [operator.0], passkey))
    }

    async fn passkey(&self, credential: &[u8]) -> Result<Option<Passkey>> {
        let sql = format!("{PASSKEY} WHERE p.credential = ? AND o.disabled_at IS NULL");
        self.read(|connection| first(connection, &sql, [credential], passkey))
    }

    async fn use_passkey(&self, read: &Passkey, data: &str, session: &NewSession, context: &Context) -> Result<bool> {
        let (read, data, session, context) = (read.clone(), data.to_owned(), session.clone(), context.clone());
        self.write(move |connection| use_passkey(connection, &read, &data, &session, &context)).await
    }

    async fn remove_passkey(&self, operator: OperatorId, credential: &[u8], context: &Context) -> Result<bool> {
        let (credential, context) = (credential.to_owned(), context.clone());
        self.write(move |connection| {
            let name = first(
                connection,
                "DELETE FROM passkeys WHERE credential = ? AND operator = ? RETURNING name",
                params![credential, operator.0],
                |row| row.get::<_, String>(0),
            )?;
            if let Some(name) = &name {
                append(connection, Event::PasskeyRemoved, None, name, &context)?;
            }
            Ok(name.is_some())
        })
        .await
    }
}
