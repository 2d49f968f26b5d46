//! The signing keys in SQLite. A key that is dropped leaves its row, with nothing in it: its id can't come into use again.

use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::{all, change, corrupt};
use crate::clock::Timestamp;
use crate::model::audit::{Context, Event};
use crate::oauth::signing_key::SigningAlgorithm;
use crate::store::{NewSigningKey, Retirement, StoredSigningKey};

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredSigningKey> {
    let algorithm = SigningAlgorithm::parse(row.get_ref(1)?.as_str()?);
    Ok(StoredSigningKey {
        kid: row.get(0)?,
        algorithm: algorithm.ok_or_else(|| corrupt("signing_keys.algorithm"))?,
        sealed: row.get(2)?,
        created_at: Timestamp::from_millis(row.get(3)?),
        retires_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
    })
}

pub(super) fn all_kept(connection: &Connection) -> rusqlite::Result<Vec<StoredSigningKey>> {
    all(
        connection,
        "SELECT kid, algorithm, sealed, created_at, retires_at FROM signing_keys WHERE sealed <> x'' \
         ORDER BY retires_at IS NOT NULL, created_at DESC, algorithm, kid",
        [],
        stored,
    )
}

pub(super) fn add_first(connection: &Connection, new: &NewSigningKey, context: &Context) -> rusqlite::Result<bool> {
    let added = change(
        connection,
        "INSERT INTO signing_keys (kid, algorithm, sealed, created_at) SELECT ?1, ?2, ?3, ?4 \
         WHERE NOT EXISTS (SELECT 1 FROM signing_keys WHERE algorithm = ?2)",
        params![new.kid, new.algorithm.as_str(), new.sealed, context.now.millis()],
    )? == 1;
    if added {
        let detail = format!("{} key {}", new.algorithm.as_str(), new.kid);
        append(connection, Event::SigningKeyMinted, None, &detail, context)?;
    }
    Ok(added)
}

pub(super) fn rotate(
    connection: &Connection,
    former: &str,
    new: &NewSigningKey,
    retirement: Retirement,
    context: &Context,
) -> rusqlite::Result<bool> {
    let (now, algorithm) = (context.now.millis(), new.algorithm.as_str());
    let retires_at = match retirement {
        Retirement::At(at) => at.millis(),
        Retirement::AtOnce => now,
    };
    let retired = change(
        connection,
        "UPDATE signing_keys SET retires_at = ?1 WHERE kid = ?2 AND algorithm = ?3 AND retires_at IS NULL \
         AND NOT EXISTS (SELECT 1 FROM signing_keys WHERE kid = ?4)",
        params![retires_at, former, algorithm, new.kid],
    )?;
    if retired == 0 {
        return Ok(false);
    }
    change(
        connection,
        "INSERT INTO signing_keys (kid, algorithm, sealed, created_at) VALUES (?, ?, ?, ?)",
        params![new.kid, algorithm, new.sealed, now],
    )?;
    match retirement {
        Retirement::At(at) => {
            let detail = format!("{algorithm} key {} for {former}, which verifies until {}", new.kid, at.rfc3339());
            append(connection, Event::SigningKeyRotated, None, &detail, context)?;
        }
        Retirement::AtOnce => {
            // Those that were rotated out before as well: the leak may be older than the last rotation.
            let mut dropped = all(
                connection,
                "UPDATE signing_keys SET sealed = x'', retires_at = min(retires_at, ?1) \
                 WHERE algorithm = ?2 AND retires_at IS NOT NULL AND sealed <> x'' RETURNING kid",
                params![now, algorithm],
                |row| row.get::<_, String>(0),
            )?;
            dropped.sort_unstable();
            let detail = format!("{algorithm} key {}; dropped: {}", new.kid, dropped.join(", "));
            append(connection, Event::SigningKeyReplaced, None, &detail, context)?;
        }
    }
    Ok(true)
}

pub(super) fn drop_retired(connection: &Connection, context: &Context) -> rusqlite::Result<usize> {
    let now = context.now.millis();
    let retired = all(
        connection,
        "SELECT kid FROM signing_keys WHERE retires_at <= ? AND sealed <> x'' ORDER BY retires_at, kid",
        [now],
        |row| row.get::<_, String>(0),
    )?;
    for kid in &retired {
        change(connection, "UPDATE signing_keys SET sealed = x'' WHERE kid = ?", [kid])?;
        append(connection, Event::SigningKeyDropped, None, &format!("key {kid}"), context)?;
    }
    Ok(retired.len())
}
