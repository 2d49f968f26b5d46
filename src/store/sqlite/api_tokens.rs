//! Tokens of programs in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::audit::append;
use super::{SqliteStore, all, change, corrupt, first};
use crate::clock::Timestamp;
use crate::model::api_token::ApiToken;
use crate::model::audit::{Context, Event};
use crate::model::operator::{Rights, Role};
use crate::secret::Bytes32;
use crate::store::{ApiTokenStore, NewApiToken, Result};

const TOKEN: &str = "id, name, rights, made_by, made_at, expires_at, used_at, revoked_at";

fn token(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
    Ok(ApiToken {
        id: row.get(0)?,
        name: row.get(1)?,
        rights: rights(row.get_ref(2)?.as_str()?)?,
        made_by: row.get(3)?,
        made_at: Timestamp::from_millis(row.get(4)?),
        expires_at: Timestamp::from_millis(row.get(5)?),
        used_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
        revoked_at: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
    })
}

/// As stored: a JSON object, site to role.
fn rights(text: &str) -> rusqlite::Result<Rights> {
    let words: BTreeMap<String, String> = serde_json::from_str(text).map_err(|_| corrupt("api_tokens.rights"))?;
    let mut rights = Rights::default();
    for (site, role) in &words {
        rights.add(site, Role::parse(role).ok_or_else(|| corrupt("api_tokens.rights"))?);
    }
    Ok(rights)
}

fn words(rights: &Rights) -> String {
    serde_json::json!(rights.iter().collect::<BTreeMap<_, _>>()).to_string()
}

#[async_trait]
impl ApiTokenStore for SqliteStore {
    async fn add_api_token(&self, new: &NewApiToken, context: &Context) -> Result<bool> {
        let (new, context) = (new.clone(), context.clone());
        self.write(move |connection| {
            let added = change(
                connection,
                "INSERT INTO api_tokens (name, hash, rights, made_by, made_at, expires_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
                params![
                    new.name,
                    new.hash,
                    words(&new.rights),
                    context.actor.to_string(),
                    context.now.millis(),
                    new.expires_at.millis()
                ],
            )?;
            if added == 1 {
                let detail = format!("{}: {}, until {}", new.name, new.rights.words(), new.expires_at.rfc3339());
                append(connection, Event::ApiTokenMade, None, &detail, &context)?;
            }
            Ok(added == 1)
        })
        .await
    }

    async fn api_token(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<ApiToken>> {
        let sql = format!("SELECT {TOKEN} FROM api_tokens WHERE hash = ? AND revoked_at IS NULL AND expires_at > ?");
        self.read(|connection| first(connection, &sql, params![hash, now.millis()], token))
    }

    async fn api_tokens(&self) -> Result<Vec<ApiToken>> {
        self.read(|connection| all(connection, &format!("SELECT {TOKEN} FROM api_tokens ORDER BY name"), [], token))
    }

    async fn touch_api_token(&self, id: i64, now: Timestamp) -> Result<()> {
        self.write(move |connection| {
            change(
                connection,
                "UPDATE api_tokens SET used_at = ?1 WHERE id = ?2 AND (used_at IS NULL OR used_at < ?1)",
                params![now.millis(), id],
            )?;
            Ok(())
        })
        .await
    }

    async fn revoke_api_token(&self, name: &str, context: &Context) -> Result<bool> {
        let (name, context) = (name.to_owned(), context.clone());
        self.write(move |connection| {
            let revoked = change(
                connection,
                "UPDATE api_tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL",
                params![context.now.millis(), name],
            )?;
            if revoked == 1 {
                append(connection, Event::ApiTokenRevoked, None, &name, &context)?;
            }
            Ok(revoked == 1)
        })
        .await
    }
}
