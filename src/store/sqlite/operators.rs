//! People in SQLite: operators, links, guesses.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::{SqliteStore, all, change, corrupt, first, sessions};
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::{Context, Event};
use crate::model::operator::{EVERYWHERE, Operator, Rights, Role};
use crate::secret::Bytes32;
use crate::store::{GuessBucket, NewSession, OperatorStore, Result};

/// The roles as `site role` words, so that a person is one row.
pub(super) const OPERATOR: &str = "o.id, o.name, (SELECT group_concat(r.site || ' ' || r.role, ' ') FROM operator_roles r WHERE r.operator = o.id), o.disabled_at, \
     o.added_at";
pub(super) const FROM: &str = "FROM operators o";
/// Of a row of `operators`: no role given by hand lets it administer everything, or another one has such a role as well. What groups give does not count:
/// the provider may not answer, or give it to nobody tomorrow.
const IS_NOT_THE_LAST: &str = "NOT EXISTS (SELECT 1 FROM operator_roles r WHERE r.operator = operators.id AND r.site = '*' AND r.role = 'admin' \
     AND r.source = 'given') OR EXISTS (SELECT 1 FROM operator_roles r JOIN operators p ON p.id = r.operator WHERE r.site = '*' AND r.role = 'admin' \
     AND r.source = 'given' AND p.disabled_at IS NULL AND p.id <> operators.id)";
/// A bucket counts for this long from its first guess.
const GUESS_WINDOW_MILLIS: i64 = 600_000;

/// A row of [`OPERATOR`].
pub(super) fn operator(row: &Row<'_>) -> rusqlite::Result<Operator> {
    Ok(Operator {
        id: OperatorId(row.get(0)?),
        name: row.get(1)?,
        rights: rights(row.get::<_, Option<String>>(2)?.as_deref().unwrap_or_default())?,
        disabled_at: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_millis),
        added_at: Timestamp::from_millis(row.get(4)?),
    })
}

/// From `site role` words.
pub(super) fn rights(words: &str) -> rusqlite::Result<Rights> {
    let mut rights = Rights::default();
    let words: Vec<&str> = words.split_whitespace().collect();
    for pair in words.chunks(2) {
        let [site, role] = pair else { return Err(corrupt("operator_roles.site")) };
        rights.add(site, Role::parse(role).ok_or_else(|| corrupt("operator_roles.role"))?);
    }
    Ok(rights)
}

/// The rights of a person who is not disabled, inside a transaction.
pub(super) fn rights_of(connection: &Connection, id: OperatorId) -> rusqlite::Result<Option<Rights>> {
    let sql = format!("SELECT {OPERATOR} {FROM} WHERE o.id = ? AND o.disabled_at IS NULL");
    Ok(first(connection, &sql, [id.0], operator)?.map(|operator| operator.rights))
}

/// Is this the only person who may administer everything, by a role given by hand? Without that person nobody could let anybody in.
fn is_last_admin(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let sql = format!("SELECT 1 FROM operators WHERE id = ? AND disabled_at IS NULL AND NOT ({IS_NOT_THE_LAST})");
    Ok(first(connection, &sql, [id], |_| Ok(()))?.is_some())
}

fn set_role(
    connection: &Connection,
    name: &str,
    site: &str,
    role: Option<Role>,
    context: &Context,
) -> rusqlite::Result<bool> {
    let Some(id) = first(connection, "SELECT id FROM operators WHERE name = ?", [name], |row| row.get::<_, i64>(0))?
    else {
        return Ok(false);
    };
    if site == EVERYWHERE && role != Some(Role::Admin) && is_last_admin(connection, id)? {
        return Ok(false);
    }
    change(
        connection,
        "DELETE FROM operator_roles WHERE operator = ? AND site = ? AND source = 'given'",
        params![id, site],
    )?;
    if let Some(role) = role {
        change(
            connection,
            "INSERT INTO operator_roles (operator, site, role) VALUES (?, ?, ?)",
            params![id, site, role.as_str()],
        )?;
    }
    let detail = format!("{name}: {} at {site}", role.map_or("nothing any more", Role::as_str));
    append(connection, Event::RoleChanged, None, &detail, context)?;
    Ok(true)
}

fn add(
    connection: &Connection,
    name: &str,
    role: Option<Role>,
    context: &Context,
) -> rusqlite::Result<Option<OperatorId>> {
    // NOCASE: Dana and dana would be each other's look-alikes in the audit log.
    let added = change(
        connection,
        "INSERT INTO operators (name, added_at) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM operators WHERE name = ?1 COLLATE NOCASE)",
        params![name, context.now.millis()],
    )?;
    if added == 0 {
        return Ok(None);
    }
    let id = connection.last_insert_rowid();
    if let Some(role) = role {
        change(
            connection,
            "INSERT INTO operator_roles (operator, site, role) VALUES (?, ?, ?)",
            params![id, EVERYWHERE, role.as_str()],
        )?;
    }
    let detail = format!("{name}, {}", role.map_or("no role yet", Role::as_str));
    append(connection, Event::OperatorAdded, None, &detail, context)?;
    Ok(Some(OperatorId(id)))
}

fn use_link(
    connection: &Connection,
    link: &Bytes32,
    session: &NewSession,
    context: &Context,
) -> rusqlite::Result<Option<Operator>> {
    let now = context.now.millis();
    let spent = change(
        connection,
        "UPDATE sign_in_links SET used_at = ?1 WHERE hash = ?2 AND used_at IS NULL AND expires_at > ?1 \
         AND operator IN (SELECT id FROM operators WHERE disabled_at IS NULL)",
        params![now, link],
    )?;
    if spent == 0 {
        return Ok(None);
    }
    let owner = first(connection, "SELECT operator FROM sign_in_links WHERE hash = ?", [link], |row| row.get(0))?;
    match owner {
        Some(owner) => sessions::open(connection, OperatorId(owner), session, context),
        None => Ok(None),
    }
}

#[async_trait]
impl OperatorStore for SqliteStore {
    async fn set_role(&self, name: &str, site: &str, role: Option<Role>, context: &Context) -> Result<bool> {
        let (name, site, context) = (name.to_owned(), site.to_owned(), context.clone());
        self.write(move |connection| set_role(connection, &name, &site, role, &context)).await
    }

    async fn add_operator(&self, name: &str, role: Option<Role>, context: &Context) -> Result<Option<OperatorId>> {
        let (name, context) = (name.to_owned(), context.clone());
        self.write(move |connection| add(connection, &name, role, &context)).await
    }

    async fn operator(&self, name: &str) -> Result<Option<Operator>> {
        self.read(|connection| {
            first(connection, &format!("SELECT {OPERATOR} {FROM} WHERE o.name = ?"), [name], operator)
        })
    }

    async fn operators(&self) -> Result<Vec<Operator>> {
        self.read(|connection| all(connection, &format!("SELECT {OPERATOR} {FROM} ORDER BY o.name"), [], operator))
    }

    async fn disable_operator(&self, name: &str, context: &Context) -> Result<bool> {
        let (name, context) = (name.to_owned(), context.clone());
        self.write(move |connection| {
            let now = context.now.millis();
            let disabled = change(
                connection,
                // Signed out as well: enabling the person later must not bring back what it approved before.
                &format!("UPDATE operators SET disabled_at = ?1, signed_out_at = ?1 WHERE name = ?2 AND disabled_at IS NULL AND ({IS_NOT_THE_LAST})"),
                params![now, name],
            )?;
            if disabled == 1 {
                change(
                    connection,
                    "DELETE FROM sessions WHERE operator = (SELECT id FROM operators WHERE name = ?)",
                    [&name],
                )?;
                change(
                    connection,
                    "DELETE FROM sign_in_links WHERE operator = (SELECT id FROM operators WHERE name = ?)",
                    [&name],
                )?;
                append(connection, Event::OperatorDisabled, None, &name, &context)?;
            }
            Ok(disabled == 1)
        })
        .await
    }

    async fn add_link(&self, operator: &str, hash: &Bytes32, expires_at: Timestamp, context: &Context) -> Result<bool> {
        let (operator, hash, context) = (operator.to_owned(), *hash, context.clone());
        self.write(move |connection| {
            let added = change(
                connection,
                "INSERT INTO sign_in_links (hash, operator, expires_at) SELECT ?, id, ? FROM operators WHERE name = ? AND disabled_at IS NULL",
                params![hash, expires_at.millis(), operator],
            )?;
            if added == 1 {
                append(connection, Event::LinkMinted, None, &operator, &context)?;
            }
            Ok(added == 1)
        })
        .await
    }

    async fn link(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<Operator>> {
        let sql = format!(
            "SELECT {OPERATOR} {FROM} JOIN sign_in_links l ON l.operator = o.id WHERE l.hash = ? AND l.used_at IS NULL AND l.expires_at > ? \
             AND o.disabled_at IS NULL"
        );
        self.read(|connection| first(connection, &sql, params![hash, now.millis()], operator))
    }

    async fn use_link(&self, link: &Bytes32, session: &NewSession, context: &Context) -> Result<Option<Operator>> {
        let (link, session, context) = (*link, session.clone(), context.clone());
        self.write(move |connection| use_link(connection, &link, &session, &context)).await
    }

    async fn is_guess_budget_spent(&self, buckets: &[GuessBucket], now: Timestamp) -> Result<bool> {
        self.read(|connection| {
            for (bucket, limit) in buckets {
                let count = first(
                    connection,
                    "SELECT count FROM guesses WHERE bucket = ? AND since > ?",
                    params![bucket, now.millis() - GUESS_WINDOW_MILLIS],
                    |row| row.get::<_, i64>(0),
                )?;
                if count.unwrap_or(0) >= *limit {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    async fn record_guess(&self, buckets: &[GuessBucket], context: &Context) -> Result<()> {
        let (buckets, context) = (buckets.to_vec(), context.clone());
        self.write(move |connection| {
            let now = context.now.millis();
            for (bucket, _) in &buckets {
                change(
                    connection,
                    "INSERT INTO guesses (bucket, since, count) VALUES (?1, ?2, 1) ON CONFLICT (bucket) DO UPDATE SET \
                     count = CASE WHEN since > ?2 - ?3 THEN count + 1 ELSE 1 END, since = CASE WHEN since > ?2 - ?3 THEN since ELSE ?2 END",
                    params![bucket, now, GUESS_WINDOW_MILLIS],
                )?;
            }
            change(connection, "DELETE FROM guesses WHERE since <= ?", [now - GUESS_WINDOW_MILLIS])?;
            append(connection, Event::CodeGuessed, None, "", &context)
        })
        .await
    }
}
