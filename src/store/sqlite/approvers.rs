//! Who may approve what, and whether one person is enough, in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::audit::append;
use super::grants::{by_grant_id, device_of, end_pending};
use super::{SqliteStore, all, change, first, operators};
use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId, OperatorId};
use crate::model::audit::{Context, Event};
use crate::model::grant::{Grant, GrantState, TWO_PERSONS, WhySecond};
use crate::model::operator::Role;
use crate::secret::Bytes32;
use crate::store::{ApproverStore, Decision, DecisionOutcome, Result, SecondPerson};

/// May this person approve the device, as far as its list goes?
pub(super) fn is_listed(connection: &Connection, device_row: i64, by: OperatorId) -> rusqlite::Result<bool> {
    let listed = first(
        connection,
        "SELECT count(*) = 0 OR coalesce(sum(operator = ?2), 0) > 0 FROM device_approvers WHERE device = ?1",
        params![device_row, by.0],
        |row| row.get(0),
    )?;
    Ok(listed.unwrap_or(false))
}

/// May this person approve the device now: not disabled, with a role at its site, and on its list if it has one?
fn may_approve(connection: &Connection, device_row: i64, site: &str, by: OperatorId) -> rusqlite::Result<bool> {
    let role = operators::rights_of(connection, by)?.and_then(|rights| rights.role_at(site));
    Ok(role.is_some_and(Role::may_approve) && is_listed(connection, device_row, by)?)
}

/// Why this person's approval is not enough, were it the only one.
fn why_second(
    connection: &Connection,
    grant: &Grant,
    by: OperatorId,
    policy: SecondPerson,
    now: Timestamp,
) -> rusqlite::Result<Option<WhySecond>> {
    if is_too_near(connection, grant.device_row, by, policy.after_pairing, now)? {
        return Ok(Some(WhySecond::PairedIt));
    }
    let is_new = policy.when_new && is_new(connection, grant, by)?;
    Ok(is_new.then_some(WhySecond::NewToIt))
}

/// Did this person register or pair the device, and has it not signed in since it was paired, less than a day ago?
///
/// Without this, one person could enrol a box of his own and let it in.
fn is_too_near(
    connection: &Connection,
    device_row: i64,
    by: OperatorId,
    of_kind: bool,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let since = now.minus(TWO_PERSONS).millis();
    let device = first(
        connection,
        "SELECT d.id, d.registered_by, coalesce(d.paired_by, ''), d.jkt FROM devices d JOIN sites s ON s.id = d.site \
         WHERE d.row = ?1 AND d.paired_at > ?2 AND (?3 OR s.two_persons)",
        params![device_row, since, of_kind],
        |row| Ok((row.get::<_, String>(0)?, [row.get(1)?, row.get(2)?], row.get::<_, Bytes32>(3)?)),
    )?;
    let Some((device, [registered_by, paired_by], jkt)) = device else { return Ok(false) };
    let has_signed_in = first(
        connection,
        "SELECT 1 FROM grants WHERE device = ? AND state = 'redeemed' AND jkt = ? LIMIT 1",
        params![device_row, jkt],
        |_| Ok(()),
    )?;
    if has_signed_in.is_some() {
        return Ok(false);
    }
    // Who paired it, and let it change its key by itself right after, paired it all the same.
    let mut actors: Vec<String> = all(
        connection,
        "SELECT DISTINCT actor FROM audit WHERE device = ? AND event = 'pairing.confirmed' AND at > ?",
        params![device, since],
        |row| row.get(0),
    )?;
    actors.extend([registered_by, paired_by]);
    let name: Option<String> = first(connection, "SELECT name FROM operators WHERE id = ?", [by.0], |row| row.get(0))?;
    for actor in &actors {
        if person_behind(connection, actor)? == name {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The person behind an actor: who made the technician's code or the program's token counts as who used it.
fn person_behind(connection: &Connection, actor: &str) -> rusqlite::Result<Option<String>> {
    let name = |text: &str| text.rsplit(':').next().map(str::to_owned);
    match actor.split_once(':') {
        Some(("operator" | "technician", rest)) => Ok(name(rest)),
        Some(("machine", token)) => {
            let made_by: Option<String> = connection
                .prepare_cached("SELECT made_by FROM api_tokens WHERE name = ?")?
                .query_row([token], |row| row.get(0))
                .optional()?;
            Ok(made_by.as_deref().and_then(name))
        }
        _ => Ok(None),
    }
}

/// Has this person never approved the device before, while others have? A sign-in that was approved and ended later counts.
fn is_new(connection: &Connection, grant: &Grant, by: OperatorId) -> rusqlite::Result<bool> {
    let counts = first(
        connection,
        "SELECT count(*), coalesce(sum(decided_by = ?2 OR first_by IS ?2), 0) FROM grants \
         WHERE device = ?1 AND decided_by IS NOT NULL AND state IN ('approved', 'redeemed', 'revoked') AND id <> ?3",
        params![grant.device_row, by.0, grant.id.0],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    Ok(counts.is_some_and(|(all, own)| all > 0 && own == 0))
}

/// How many sign-ins this person has open.
pub(super) fn open_claims(connection: &Connection, by: OperatorId, now: i64) -> rusqlite::Result<i64> {
    let count = first(
        connection,
        "SELECT count(*) FROM grants WHERE claimed_by = ? AND state = 'pending' AND expires_at > ?",
        params![by.0, now],
        |row| row.get(0),
    )?;
    Ok(count.unwrap_or(0))
}

/// An approval: enough, or the first of two.
pub(super) fn approve(
    connection: &Connection,
    id: GrantId,
    by: OperatorId,
    policy: SecondPerson,
    context: &Context,
) -> rusqlite::Result<DecisionOutcome> {
    let is_mine = |grant: &Grant| {
        grant.state == GrantState::Pending
            && context.now < grant.expires_at
            && grant.claim.as_ref().is_some_and(|claim| claim.by == by)
    };
    let Some(grant) = by_grant_id(connection, id)?.filter(is_mine) else { return Ok(DecisionOutcome::Over) };
    if !is_listed(connection, grant.device_row, by)? || grant.first.as_ref().is_some_and(|first| first.by == by) {
        return Ok(DecisionOutcome::Over);
    }
    let Some((device, site)) = device_and_site(connection, grant.device_row)? else { return Ok(DecisionOutcome::Over) };
    if let Some(first) = &grant.first
        && !may_approve(connection, grant.device_row, &site, first.by)?
    {
        change(connection, "UPDATE grants SET state = 'denied' WHERE id = ? AND state = 'pending'", [id.0])?;
        let detail = format!("sign-in {id}: who approved it first may not approve any more");
        append(connection, Event::GrantDenied, Some(&device), &detail, context)?;
        return Ok(DecisionOutcome::FirstLost);
    }
    let why = match grant.first {
        None => why_second(connection, &grant, by, policy, context.now)?,
        Some(_) => None,
    };
    let Some(why) = why else {
        let is_done = end_pending(connection, id, by, Decision::Approve, context)?;
        return Ok(if is_done { DecisionOutcome::Done } else { DecisionOutcome::Over });
    };
    // The claim is given up: another person must be able to open it, and sees a number of its own.
    let noted = change(
        connection,
        "UPDATE grants SET first_by = ?1, first_at = ?2, claimed_by = NULL, claimed_at = NULL, confirmation_number = NULL \
         WHERE id = ?3 AND state = 'pending' AND expires_at > ?2 AND claimed_by = ?1 AND first_by IS NULL",
        params![by.0, context.now.millis(), id.0],
    )?;
    if noted == 0 {
        return Ok(DecisionOutcome::Over);
    }
    let detail = format!("sign-in {id}: {}", why.words());
    append(connection, Event::GrantFirstApproved, Some(&device), &detail, context)?;
    Ok(DecisionOutcome::First(why))
}

fn device_and_site(connection: &Connection, row: i64) -> rusqlite::Result<Option<(String, String)>> {
    first(connection, "SELECT id, site FROM devices WHERE row = ?", [row], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Why an approval is worth nothing (any more): a person who gave it may not approve, or one is not enough by what holds now.
pub(super) fn why_void(
    connection: &Connection,
    grant: &Grant,
    site: &str,
    policy: SecondPerson,
    now: Timestamp,
) -> rusqlite::Result<Option<&'static str>> {
    const LOST: &str = "its approver may not approve any more";
    let Some(by) = grant.decided_by else { return Ok(Some(LOST)) };
    let first_by = grant.first.as_ref().map(|first| first.by);
    for person in first_by.into_iter().chain([by]) {
        if !may_approve(connection, grant.device_row, site, person)? {
            return Ok(Some(LOST));
        }
    }
    // Whoever signed out everywhere thinks that somebody else may have been at it: what was approved until then is nobody's word.
    let is_void = first(
        connection,
        "SELECT 1 FROM grants g JOIN operators o ON (o.id = g.decided_by AND g.decided_at <= o.signed_out_at) \
         OR (o.id = g.first_by AND g.first_at <= o.signed_out_at) WHERE g.id = ?",
        [grant.id.0],
        |_| Ok(()),
    )?;
    if is_void.is_some() {
        return Ok(Some(LOST));
    }
    let is_alone = first_by.is_none_or(|first| first == by);
    if is_alone && why_second(connection, grant, by, policy, now)?.is_some() {
        return Ok(Some("a second person must approve it"));
    }
    Ok(None)
}

fn set_approver(
    connection: &Connection,
    device: &DeviceId,
    operator: &str,
    is_on: bool,
    context: &Context,
) -> rusqlite::Result<bool> {
    let sql = match is_on {
        true => {
            "INSERT INTO device_approvers (device, operator) SELECT d.row, o.id FROM devices d, operators o WHERE d.id = ? AND o.name = ? \
             ON CONFLICT (device, operator) DO NOTHING"
        }
        false => {
            "DELETE FROM device_approvers WHERE device = (SELECT row FROM devices WHERE id = ?) \
             AND operator = (SELECT id FROM operators WHERE name = ?)"
        }
    };
    let changed = change(connection, sql, params![device.as_str(), operator])? == 1;
    if changed {
        let event = if is_on { Event::ApproverAdded } else { Event::ApproverRemoved };
        append(connection, event, Some(device.as_str()), operator, context)?;
    }
    Ok(changed)
}

fn undo(
    connection: &Connection,
    id: GrantId,
    by: OperatorId,
    since: Timestamp,
    context: &Context,
) -> rusqlite::Result<bool> {
    let ended = change(
        connection,
        "UPDATE grants SET state = 'revoked' WHERE id = ?1 AND (decided_by = ?2 OR first_by = ?2) AND coalesce(decided_at, first_at) > ?3 \
         AND (state IN ('approved', 'redeemed') OR (state = 'pending' AND first_by = ?2))",
        params![id.0, by.0, since.millis()],
    )? == 1;
    if ended {
        append(
            connection,
            Event::GrantUndone,
            device_of(connection, id)?.as_deref(),
            &format!("sign-in {id}"),
            context,
        )?;
    }
    Ok(ended)
}

#[async_trait]
impl ApproverStore for SqliteStore {
    async fn device_approvers(&self, device: &DeviceId) -> Result<Vec<String>> {
        const SQL: &str = "SELECT o.name FROM device_approvers a JOIN operators o ON o.id = a.operator \
             WHERE a.device = (SELECT row FROM devices WHERE id = ?) ORDER BY o.name";
        self.read(|connection| all(connection, SQL, [device.as_str()], |row| row.get(0)))
    }

    async fn set_device_approver(
        &self,
        device: &DeviceId,
        operator: &str,
        is_on: bool,
        context: &Context,
    ) -> Result<bool> {
        let (device, operator, context) = (device.clone(), operator.to_owned(), context.clone());
        self.write(move |connection| set_approver(connection, &device, &operator, is_on, &context)).await
    }

    async fn is_device_approver(&self, device_row: i64, by: OperatorId) -> Result<bool> {
        self.read(|connection| is_listed(connection, device_row, by))
    }

    async fn why_second(
        &self,
        id: GrantId,
        by: OperatorId,
        policy: SecondPerson,
        now: Timestamp,
    ) -> Result<Option<WhySecond>> {
        self.read(|connection| match by_grant_id(connection, id)?.filter(|grant| grant.first.is_none()) {
            Some(grant) => why_second(connection, &grant, by, policy, now),
            None => Ok(None),
        })
    }

    async fn approved_by(&self, id: GrantId) -> Result<Vec<String>> {
        const SQL: &str = "SELECT o.name FROM grants g JOIN operators o ON o.id = g.first_by WHERE g.id = ?1 \
             UNION ALL SELECT o.name FROM grants g JOIN operators o ON o.id = g.decided_by WHERE g.id = ?1";
        self.read(|connection| all(connection, SQL, [id.0], |row| row.get(0)))
    }

    async fn undo_approval(&self, id: GrantId, by: OperatorId, since: Timestamp, context: &Context) -> Result<bool> {
        let context = context.clone();
        self.write(move |connection| undo(connection, id, by, since, &context)).await
    }
}
