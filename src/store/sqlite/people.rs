//! People as the organisation and administrators see them, in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::operators::{FROM, OPERATOR, operator, rights};
use super::{SqliteStore, all, change, first, operator_keys, sessions, unsigned};
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::{Context, Event};
use crate::model::operator::{Operator, Rights, SESSION_IDLE};
use crate::store::{PeopleStore, Person, Result, SsoIdentity};

/// The roles of one source as `site role` words.
macro_rules! roles_by {
    ($source:literal) => {
        concat!(
            "(SELECT group_concat(r.site || ' ' || r.role, ' ') FROM operator_roles r WHERE r.operator = o.id AND r.source = '",
            $source,
            "')"
        )
    };
}
const BY_GROUPS: &str = roles_by!("groups");
const GIVEN: &str = roles_by!("given");

fn recognise(
    connection: &Connection,
    identity: &SsoIdentity,
    roles: &Rights,
    may_add: bool,
    context: &Context,
) -> rusqlite::Result<Option<Operator>> {
    let sql = format!("SELECT {OPERATOR} {FROM} WHERE o.sso_issuer = ? AND o.sso_subject = ?");
    let find = || first(connection, &sql, params![identity.issuer, identity.subject], operator);
    let known = match find()? {
        Some(known) => known,
        None if may_add => {
            add(connection, identity, context)?;
            let Some(added) = find()? else { return Ok(None) };
            added
        }
        None => return Ok(None),
    };
    if known.disabled_at.is_some() {
        return Ok(Some(known));
    }
    set_group_roles(connection, &known, roles, context)?;
    find()
}

fn add(connection: &Connection, identity: &SsoIdentity, context: &Context) -> rusqlite::Result<()> {
    // NOCASE: Dana and dana would be each other's look-alikes in the audit log.
    let is_taken = |name: &str| {
        first(connection, "SELECT 1 FROM operators WHERE name = ? COLLATE NOCASE", [name], |_| Ok(()))
            .map(|row| row.is_some())
    };
    let mut name = identity.name.clone();
    let mut number: u32 = 1;
    while is_taken(&name)? {
        number += 1;
        name = format!("{}-{number}", identity.name);
    }
    change(
        connection,
        "INSERT INTO operators (name, added_at, sso_issuer, sso_subject) VALUES (?, ?, ?, ?)",
        params![name, context.now.millis(), identity.issuer, identity.subject],
    )?;
    append(connection, Event::OperatorAdded, None, &format!("{name}, by the organisation's sign-in"), context)
}

fn set_group_roles(
    connection: &Connection,
    person: &Operator,
    roles: &Rights,
    context: &Context,
) -> rusqlite::Result<()> {
    let id = person.id.0;
    let sql =
        "SELECT group_concat(site || ' ' || role, ' ') FROM operator_roles WHERE operator = ? AND source = 'groups'";
    let words = first(connection, sql, [id], |row| row.get::<_, Option<String>>(0))?.flatten();
    if rights(words.as_deref().unwrap_or_default())? == *roles {
        return Ok(());
    }
    change(connection, "DELETE FROM operator_roles WHERE operator = ? AND source = 'groups'", [id])?;
    for (site, role) in roles.iter() {
        change(
            connection,
            "INSERT INTO operator_roles (operator, site, role, source) VALUES (?, ?, ?, 'groups')",
            params![id, site, role.as_str()],
        )?;
    }
    append(connection, Event::RoleChanged, None, &format!("{}, by groups: {}", person.name, roles.words()), context)
}

fn person(row: &Row<'_>) -> rusqlite::Result<Person> {
    let words = |column: &str| row.get::<_, Option<String>>(column);
    Ok(Person {
        operator: operator(row)?,
        given: rights(words("given")?.as_deref().unwrap_or_default())?,
        by_groups: rights(words("by_groups")?.as_deref().unwrap_or_default())?,
        passkeys: unsigned(row.get("passkeys")?),
        has_sso: row.get("has_sso")?,
        sessions: unsigned(row.get("sessions")?),
        seen_at: row.get::<_, Option<i64>>("seen_at")?.map(Timestamp::from_millis),
    })
}

#[async_trait]
impl PeopleStore for SqliteStore {
    async fn recognise(
        &self,
        identity: &SsoIdentity,
        roles: &Rights,
        may_add: bool,
        context: &Context,
    ) -> Result<Option<Operator>> {
        let (identity, roles, context) = (identity.clone(), roles.clone(), context.clone());
        self.write(move |connection| recognise(connection, &identity, &roles, may_add, &context)).await
    }

    async fn sso_owner(&self, issuer: &str, subject: &str) -> Result<Option<OperatorId>> {
        let sql = "SELECT id FROM operators WHERE sso_issuer = ? AND sso_subject = ?";
        self.read(|connection| first(connection, sql, [issuer, subject], |row| Ok(OperatorId(row.get(0)?))))
    }

    async fn people(&self, now: Timestamp) -> Result<Vec<Person>> {
        let sql = format!(
            "SELECT {OPERATOR}, {GIVEN} AS given, {BY_GROUPS} AS by_groups, o.sso_subject IS NOT NULL AS has_sso, \
             (SELECT count(*) FROM passkeys k WHERE k.operator = o.id) AS passkeys, \
             (SELECT count(*) FROM sessions s WHERE s.operator = o.id AND s.ends_at > ?1 AND s.seen_at > ?2) AS sessions, \
             nullif(max(coalesce(o.signed_in_at, 0), coalesce((SELECT max(s.seen_at) FROM sessions s WHERE s.operator = o.id), 0)), 0) AS seen_at \
             {FROM} ORDER BY o.name"
        );
        let parameters = params![now.millis(), now.minus(SESSION_IDLE).millis()];
        self.read(|connection| all(connection, &sql, parameters, person))
    }

    async fn enable_operator(&self, name: &str, context: &Context) -> Result<bool> {
        let (name, context) = (name.to_owned(), context.clone());
        self.write(move |connection| {
            let sql = "UPDATE operators SET disabled_at = NULL WHERE name = ? AND disabled_at IS NOT NULL";
            let is_enabled = change(connection, sql, [&name])? == 1;
            if is_enabled {
                append(connection, Event::OperatorEnabled, None, &name, &context)?;
            }
            Ok(is_enabled)
        })
        .await
    }

    async fn remove_passkeys(&self, name: &str, context: &Context) -> Result<u64> {
        let (name, context) = (name.to_owned(), context.clone());
        self.write(move |connection| {
            let id = first(connection, "SELECT id FROM operators WHERE name = ?", [&name], |row| row.get(0))?;
            let Some(id) = id.map(OperatorId) else { return Ok(0) };
            let removed = change(connection, "DELETE FROM passkeys WHERE operator = ?", [id.0])?;
            if removed > 0 {
                append(connection, Event::PasskeysRemoved, None, &format!("{name}: {removed}"), &context)?;
            }
            operator_keys::revoke(connection, id, None, &context)?;
            // In the same breath: a session that outlived them could add another.
            sessions::sign_out(connection, id, &context)?;
            Ok(unsigned(i64::try_from(removed).unwrap_or(i64::MAX)))
        })
        .await
    }
}
