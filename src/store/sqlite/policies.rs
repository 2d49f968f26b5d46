//! The policy's versions in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::{RECORD, append, record};
use super::devices::{insert_site, site_by_id, update_site};
use super::{SqliteStore, all, change, corrupt, first};
use crate::clock::Timestamp;
use crate::model::audit::{Context, Event, Record};
use crate::store::{
    NewPolicy, PolicyConfirmed, PolicyEffects, PolicyState, PolicyStore, PolicyVersion, PolicyWritten, Result,
};

const VERSION: &str = "version, base, document, state, proposed_at, proposed_by, decided_at, decided_by";
/// The version that holds.
const NEWEST: &str = "(SELECT coalesce(max(version), 0) FROM policy_versions WHERE state = 'applied')";
/// The setting that says that a second person is wanted.
const TWO_PERSONS: &str = "two_persons_policy";

fn version(row: &Row<'_>) -> rusqlite::Result<PolicyVersion> {
    Ok(PolicyVersion {
        version: row.get(0)?,
        base: row.get(1)?,
        document: row.get(2)?,
        state: PolicyState::parse(row.get_ref(3)?.as_str()?).ok_or_else(|| corrupt("policy_versions.state"))?,
        proposed_at: Timestamp::from_millis(row.get(4)?),
        proposed_by: row.get(5)?,
        decided_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
        decided_by: row.get(7)?,
    })
}

fn wants_two(connection: &Connection) -> rusqlite::Result<bool> {
    let value =
        first(connection, "SELECT value FROM settings WHERE name = ?", [TWO_PERSONS], |row| row.get::<_, String>(0))?;
    Ok(value.is_some_and(|value| value == "on"))
}

/// Are the sites that it changes still what they were when it was looked at? Asked in the transaction that then changes them.
fn sites_stand(connection: &Connection, effects: &PolicyEffects) -> rusqlite::Result<bool> {
    for (was, site) in &effects.sites {
        if site_by_id(connection, &site.id)? != *was {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What applying a version brings with it.
fn take_effect(
    connection: &Connection,
    version: i64,
    effects: &PolicyEffects,
    context: &Context,
) -> rusqlite::Result<()> {
    let value = if effects.two_persons { "on" } else { "off" };
    change(
        connection,
        "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [TWO_PERSONS, value],
    )?;
    for (was, site) in &effects.sites {
        match was {
            Some(was) => {
                update_site(connection, was, site, context)?;
            }
            None => {
                insert_site(connection, site, context)?;
            }
        }
    }
    append(connection, Event::PolicyApplied, None, &format!("version {version}: {}", effects.summary), context)
}

fn write(connection: &Connection, new: &NewPolicy, context: &Context) -> rusqlite::Result<PolicyWritten> {
    let is_applied = new.may_alone || !wants_two(connection)?;
    let state = if is_applied { PolicyState::Applied } else { PolicyState::Proposed };
    if is_applied && !sites_stand(connection, &new.effects)? {
        return Ok(PolicyWritten::Stale);
    }
    let (now, by) = (context.now.millis(), context.actor.to_string());
    let decided = is_applied.then_some((now, &by));
    let written = first(
        connection,
        &format!(
            "INSERT INTO policy_versions (version, base, document, state, proposed_at, proposed_by, decided_at, decided_by) \
             SELECT (SELECT coalesce(max(version), 0) + 1 FROM policy_versions), ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE {NEWEST} = ?1 RETURNING version"
        ),
        params![
            new.base,
            new.document,
            state.as_str(),
            now,
            by,
            decided.map(|decided| decided.0),
            decided.map(|decided| decided.1)
        ],
        |row| row.get::<_, i64>(0),
    )?;
    let Some(version) = written else { return Ok(PolicyWritten::Stale) };
    if is_applied {
        take_effect(connection, version, &new.effects, context)?;
        return Ok(PolicyWritten::Applied(version));
    }
    append(connection, Event::PolicyProposed, None, &format!("version {version}: {}", new.effects.summary), context)?;
    Ok(PolicyWritten::Proposed(version))
}

fn confirm(
    connection: &Connection,
    wanted: i64,
    effects: &PolicyEffects,
    may_own: bool,
    context: &Context,
) -> rusqlite::Result<PolicyConfirmed> {
    let by = context.actor.to_string();
    // What has come to hold since this one was written its writer did not know of.
    let stands = sites_stand(connection, effects)?;
    let applied = change(
        connection,
        &format!(
            "UPDATE policy_versions SET state = 'applied', decided_at = ?2, decided_by = ?3 \
             WHERE version = ?1 AND state = 'proposed' AND (?4 OR proposed_by <> ?3) AND base = {NEWEST} AND ?5"
        ),
        params![wanted, context.now.millis(), by, may_own, stands],
    )?;
    if applied == 1 {
        take_effect(connection, wanted, effects, context)?;
        return Ok(PolicyConfirmed::Applied);
    }
    let found =
        first(connection, &format!("SELECT {VERSION} FROM policy_versions WHERE version = ?"), [wanted], version)?;
    Ok(match found.filter(|found| found.state == PolicyState::Proposed) {
        None => PolicyConfirmed::Gone,
        Some(found) if found.proposed_by == by && !may_own => PolicyConfirmed::Own,
        Some(_) => PolicyConfirmed::Stale,
    })
}

#[async_trait]
impl PolicyStore for SqliteStore {
    async fn policy(&self) -> Result<Option<PolicyVersion>> {
        let sql =
            format!("SELECT {VERSION} FROM policy_versions WHERE state = 'applied' ORDER BY version DESC LIMIT 1");
        self.read(|connection| first(connection, &sql, [], version))
    }

    async fn policy_version(&self, wanted: i64) -> Result<Option<PolicyVersion>> {
        let sql = format!("SELECT {VERSION} FROM policy_versions WHERE version = ?");
        self.read(|connection| first(connection, &sql, [wanted], version))
    }

    async fn policy_versions(&self, limit: u32) -> Result<Vec<PolicyVersion>> {
        let sql = format!("SELECT {VERSION} FROM policy_versions ORDER BY version DESC LIMIT ?");
        self.read(|connection| all(connection, &sql, [limit], version))
    }

    async fn wants_two_persons(&self) -> Result<bool> {
        self.read(wants_two)
    }

    async fn write_policy(&self, new: &NewPolicy, context: &Context) -> Result<PolicyWritten> {
        let (new, context) = (new.clone(), context.clone());
        self.write(move |connection| write(connection, &new, &context)).await
    }

    async fn confirm_policy(
        &self,
        version: i64,
        effects: &PolicyEffects,
        may_own: bool,
        context: &Context,
    ) -> Result<PolicyConfirmed> {
        let (effects, context) = (effects.clone(), context.clone());
        self.write(move |connection| confirm(connection, version, &effects, may_own, &context)).await
    }

    async fn withdraw_policy(&self, version: i64, context: &Context) -> Result<bool> {
        let context = context.clone();
        self.write(move |connection| {
            let withdrawn = change(
                connection,
                "UPDATE policy_versions SET state = 'withdrawn', decided_at = ?, decided_by = ? WHERE version = ? AND state = 'proposed'",
                params![context.now.millis(), context.actor.to_string(), version],
            )? == 1;
            if withdrawn {
                append(connection, Event::PolicyWithdrawn, None, &format!("version {version}"), &context)?;
            }
            Ok(withdrawn)
        })
        .await
    }

    async fn site_records(&self, site: &str, limit: u32) -> Result<Vec<Record>> {
        let sql = format!(
            "SELECT {RECORD} FROM audit WHERE event IN ('site.added', 'site.changed') AND substr(detail, 1, length(?1) + 2) = ?1 || ': ' \
             ORDER BY id DESC LIMIT ?2"
        );
        self.read(|connection| all(connection, &sql, params![site, limit], record))
    }
}
