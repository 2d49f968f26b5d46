//! Sign-ins in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::approvers::{approve, is_listed, open_claims, why_void};
use super::audit::append;
use super::devices::{DEVICE, DEVICE_COLUMNS, device, set_state};
use super::{SqliteStore, all, change, corrupt, first, json, unsigned};
use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId, OperatorId};
use crate::model::audit::{Context, Event};
use crate::model::device::DeviceState;
use crate::model::grant::{
    Approved, Claim, Grant, GrantState, INTERVAL, MAX_INTERVAL, MAX_OPEN_CLAIMS, MAX_WRONG_NUMBERS, REFRESH_RETRY,
    Refresh, SLOW_DOWN_STEP,
};
use crate::model::kind::RefreshPolicy;
use crate::model::operator::Reach;
use crate::oauth::scope::Scope;
use crate::secret::{Bytes32, is_equal};
use crate::store::{
    ClaimOutcome, Decision, DecisionOutcome, GrantOfDevice, GrantStore, Mint, NewGrant, Redemption, Result, Rotation,
    SecondPerson,
};

const GRANT: &str = "g.id, g.device, g.state, g.jkt, g.device_code_hash, g.scope, g.resource, g.created_at, g.expires_at, g.interval, g.peer, \
     g.claimed_by, g.claimed_at, g.confirmation_number, g.wrong_numbers, g.decided_by, g.refresh_hash, g.refresh_previous, g.refresh_rotated_at, \
     g.refresh_idle_until, g.refresh_ends_at, g.user_code_hash, g.first_by, g.first_at, g.decided_at";
/// How many columns that is.
const GRANT_COLUMNS: usize = 25;
const HOUR_MILLIS: i64 = 3_600_000;

fn grant(row: &Row<'_>, base: usize) -> rusqlite::Result<Grant> {
    let claim = match row.get::<_, Option<i64>>(base + 11)? {
        Some(by) => Some(Claim {
            by: OperatorId(by),
            at: Timestamp::from_millis(row.get(base + 12)?),
            confirmation_number: row.get(base + 13)?,
        }),
        None => None,
    };
    let first = match row.get::<_, Option<i64>>(base + 22)? {
        Some(by) => Some(Approved { by: OperatorId(by), at: Timestamp::from_millis(row.get(base + 23)?) }),
        None => None,
    };
    let refresh = match row.get::<_, Option<Bytes32>>(base + 16)? {
        Some(hash) => Some(Refresh {
            hash,
            previous_hash: row.get(base + 17)?,
            rotated_at: Timestamp::from_millis(row.get(base + 18)?),
            idle_until: Timestamp::from_millis(row.get(base + 19)?),
            ends_at: Timestamp::from_millis(row.get(base + 20)?),
        }),
        None => None,
    };
    Ok(Grant {
        id: GrantId(row.get(base)?),
        device_row: row.get(base + 1)?,
        state: GrantState::parse(row.get_ref(base + 2)?.as_str()?).ok_or_else(|| corrupt("grants.state"))?,
        jkt: row.get(base + 3)?,
        device_code_hash: row.get(base + 4)?,
        user_code_hash: row.get(base + 21)?,
        scope: Scope::parse(row.get_ref(base + 5)?.as_str()?).ok_or_else(|| corrupt("grants.scope"))?,
        resource: row.get(base + 6)?,
        created_at: Timestamp::from_millis(row.get(base + 7)?),
        expires_at: Timestamp::from_millis(row.get(base + 8)?),
        interval: row.get(base + 9)?,
        peer: row.get_ref(base + 10)?.as_str_or_null()?.and_then(|peer| peer.parse().ok()),
        claim,
        wrong_numbers: row.get(base + 14)?,
        first,
        decided_by: row.get::<_, Option<i64>>(base + 15)?.map(OperatorId),
        decided_at: row.get::<_, Option<i64>>(base + 24)?.map(Timestamp::from_millis),
        refresh,
    })
}

/// A grant, inside a transaction or a read.
pub(super) fn by_grant_id(connection: &Connection, id: GrantId) -> rusqlite::Result<Option<Grant>> {
    // A constant text, so that the statement is found in the cache without being built.
    const SQL: &str = "SELECT id, device, state, jkt, device_code_hash, scope, resource, created_at, expires_at, interval, peer, claimed_by, \
         claimed_at, confirmation_number, wrong_numbers, decided_by, refresh_hash, refresh_previous, refresh_rotated_at, refresh_idle_until, \
         refresh_ends_at, user_code_hash, first_by, first_at, decided_at FROM grants WHERE id = ?";
    first(connection, SQL, [id.0], |row| grant(row, 0))
}

/// The id of a grant's device, for the record.
pub(super) fn device_of(connection: &Connection, id: GrantId) -> rusqlite::Result<Option<String>> {
    first(connection, "SELECT d.id FROM grants g JOIN devices d ON d.row = g.device WHERE g.id = ?", [id.0], |row| {
        row.get(0)
    })
}

fn mint(connection: &Connection, new: &NewGrant, context: &Context) -> rusqlite::Result<Mint> {
    let now = context.now.millis();
    let budget = first(
        connection,
        "SELECT codes_since, codes_count, pending_grant FROM devices WHERE row = ? AND state = 'active' AND jkt = ?",
        params![new.device_row, new.jkt],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?)),
    )?;
    let Some((since, count, pending)) = budget else { return Ok(Mint::Lost) };
    if let Some((hash, until)) = &new.assertion {
        change(connection, "DELETE FROM used_assertions WHERE until <= ?", [now])?;
        let noted = change(
            connection,
            "INSERT INTO used_assertions (hash, until) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING",
            params![hash, until.millis()],
        )?;
        if noted == 0 {
            return Ok(Mint::Replayed);
        }
    }
    let (since, count) = if now - since >= HOUR_MILLIS { (now, 0) } else { (since, count) };
    if count >= new.codes_per_hour {
        return Ok(Mint::OverBudget { retry_after: (since + HOUR_MILLIS - now + 999) / 1000 });
    }
    if let Some(former) = pending {
        change(
            connection,
            "UPDATE grants SET state = 'revoked' WHERE id = ? AND state IN ('pending', 'approved')",
            [former],
        )?;
    }
    let peer = context.peer.map(|peer| peer.to_string());
    change(
        connection,
        "INSERT INTO grants (device, state, jkt, device_code_hash, user_code_hash, scope, resource, created_at, expires_at, interval, peer) \
         VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            new.device_row,
            new.jkt,
            new.device_code_hash,
            new.user_code_hash,
            new.scope.to_string(),
            new.resource,
            now,
            new.expires_at.millis(),
            INTERVAL,
            peer
        ],
    )?;
    let id = connection.last_insert_rowid();
    change(
        connection,
        "UPDATE devices SET codes_since = ?, codes_count = ?, pending_grant = ?, seen_at = ? WHERE row = ?",
        params![since, count + 1, id, now, new.device_row],
    )?;
    append(connection, Event::CodeIssued, Some(new.device.as_str()), &format!("sign-in {id}"), context)?;
    Ok(Mint::Minted(GrantId(id)))
}

fn claim(
    connection: &Connection,
    id: GrantId,
    by: OperatorId,
    number: Option<&str>,
    context: &Context,
) -> rusqlite::Result<ClaimOutcome> {
    let now = context.now.millis();
    let is_pending = |grant: &Grant| grant.state == GrantState::Pending && context.now < grant.expires_at;
    let Some(grant) = by_grant_id(connection, id)?.filter(is_pending) else { return Ok(ClaimOutcome::Gone) };
    let device = device_of(connection, id)?;
    // Without this, a passer-by with an account of his own could take the device into his own name.
    if !is_listed(connection, grant.device_row, by)? {
        append(connection, Event::GrantNotListed, device.as_deref(), &format!("sign-in {id}"), context)?;
        return Ok(ClaimOutcome::NotListed);
    }
    if grant.first.as_ref().is_some_and(|first| first.by == by) {
        return Ok(ClaimOutcome::ApprovedFirst);
    }
    if grant.claim.is_none() && open_claims(connection, by, now)? >= MAX_OPEN_CLAIMS {
        return Ok(ClaimOutcome::TooMany);
    }
    let claimed = change(
        connection,
        "UPDATE grants SET claimed_by = ?1, claimed_at = ?2, confirmation_number = ?3 \
         WHERE id = ?4 AND state = 'pending' AND expires_at > ?2 AND (claimed_by IS NULL OR claimed_by = ?1)",
        params![by.0, now, number, id.0],
    )?;
    if claimed == 1 {
        append(connection, Event::GrantClaimed, device.as_deref(), &format!("sign-in {id}"), context)?;
        return Ok(ClaimOutcome::Claimed);
    }
    append(connection, Event::GrantSecondApprover, device.as_deref(), &format!("sign-in {id}"), context)?;
    Ok(ClaimOutcome::AnothersClaim)
}

fn decide(
    connection: &Connection,
    id: GrantId,
    by: OperatorId,
    decision: Decision,
    policy: SecondPerson,
    context: &Context,
) -> rusqlite::Result<DecisionOutcome> {
    if decision == Decision::Approve {
        return approve(connection, id, by, policy, context);
    }
    if !end_pending(connection, id, by, decision, context)? {
        return Ok(DecisionOutcome::Over);
    }
    if decision == Decision::Block
        && let Some(device) = device_of(connection, id)?.and_then(|device| DeviceId::new(&device).ok())
    {
        set_state(connection, &device, DeviceState::Suspended, context)?;
    }
    Ok(DecisionOutcome::Done)
}

/// Ends the waiting for a decision. `false` if nobody waits (any more), or it is another's.
pub(super) fn end_pending(
    connection: &Connection,
    id: GrantId,
    by: OperatorId,
    decision: Decision,
    context: &Context,
) -> rusqlite::Result<bool> {
    let (state, event) = match decision {
        Decision::Approve => (GrantState::Approved, Event::GrantApproved),
        Decision::Deny => (GrantState::Denied, Event::GrantDenied),
        Decision::Report | Decision::Block => (GrantState::Denied, Event::GrantReported),
    };
    let decided = change(
        connection,
        "UPDATE grants SET state = ?, decided_by = ?, decided_at = ? WHERE id = ? AND state = 'pending' AND expires_at > ? AND claimed_by = ?",
        params![state.as_str(), by.0, context.now.millis(), id.0, context.now.millis(), by.0],
    )?;
    if decided == 1 {
        append(connection, event, device_of(connection, id)?.as_deref(), &format!("sign-in {id}"), context)?;
    }
    Ok(decided == 1)
}

fn wrong_number(
    connection: &Connection,
    id: GrantId,
    by: OperatorId,
    context: &Context,
) -> rusqlite::Result<Option<u8>> {
    let found = by_grant_id(connection, id)?.filter(|grant| {
        grant.state == GrantState::Pending
            && context.now < grant.expires_at
            && grant.claim.as_ref().is_some_and(|claim| claim.by == by)
    });
    let Some(grant) = found else { return Ok(None) };
    let wrong = grant.wrong_numbers + 1;
    let is_over = wrong >= MAX_WRONG_NUMBERS;
    change(connection, "UPDATE grants SET wrong_numbers = ? WHERE id = ? AND state = 'pending'", params![wrong, id.0])?;
    let left = MAX_WRONG_NUMBERS.saturating_sub(wrong);
    append(
        connection,
        Event::GrantWrongNumber,
        device_of(connection, id)?.as_deref(),
        &format!("sign-in {id}; {left} tries left"),
        context,
    )?;
    if is_over {
        end_pending(connection, id, by, Decision::Deny, context)?;
    }
    Ok(Some(left))
}

fn redeem(
    connection: &Connection,
    id: GrantId,
    jkt: &Bytes32,
    refresh: Option<(Bytes32, RefreshPolicy)>,
    policy: SecondPerson,
    context: &Context,
) -> rusqlite::Result<Redemption> {
    let now = context.now;
    let Some(grant) = by_grant_id(connection, id)? else { return Ok(Redemption::Lost) };
    // Everything again, in the transaction that spends the code: the device, its key, and who approved.
    let device = first(
        connection,
        "SELECT id, site FROM devices WHERE row = ? AND state = 'active' AND jkt = ? AND jkt = ?",
        params![grant.device_row, jkt, grant.jkt],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
    )?;
    let Some((device, site)) = device else { return Ok(Redemption::Lost) };
    if grant.state != GrantState::Approved || now >= grant.expires_at {
        return Ok(Redemption::Lost);
    }
    if let Some(why) = why_void(connection, &grant, &site, policy, now)? {
        change(connection, "UPDATE grants SET state = 'denied' WHERE id = ? AND state = 'approved'", [id.0])?;
        append(connection, Event::TokenRefused, Some(&device), &format!("sign-in {id}: {why}"), context)?;
        return Ok(Redemption::ApproverLost);
    }
    let redeemed = change(
        connection,
        "UPDATE grants SET state = 'redeemed', refresh_hash = ?, refresh_rotated_at = ?, refresh_idle_until = ?, refresh_ends_at = ? \
         WHERE id = ? AND state = 'approved' AND expires_at > ?",
        params![
            refresh.map(|(hash, _)| hash),
            refresh.map(|_| now.millis()),
            refresh.map(|(_, policy)| now.plus(policy.idle.min(policy.absolute)).millis()),
            refresh.map(|(_, policy)| now.plus(policy.absolute).millis()),
            id.0,
            now.millis()
        ],
    )?;
    if redeemed == 0 {
        return Ok(Redemption::Lost);
    }
    change(
        connection,
        "UPDATE devices SET pending_grant = NULL, seen_at = ? WHERE row = ? AND pending_grant = ?",
        params![now.millis(), grant.device_row, id.0],
    )?;
    append(connection, Event::TokenIssued, Some(&device), &format!("sign-in {id}"), context)?;
    Ok(Redemption::Redeemed)
}

fn rotate(
    connection: &Connection,
    id: GrantId,
    presented: &Bytes32,
    successor: &Bytes32,
    policy: RefreshPolicy,
    context: &Context,
) -> rusqlite::Result<Rotation> {
    let now = context.now;
    let found = by_grant_id(connection, id)?.filter(|grant| grant.state == GrantState::Redeemed);
    let Some((grant, refresh)) = found.and_then(|grant| grant.refresh.clone().map(|refresh| (grant, refresh))) else {
        return Ok(Rotation::Gone);
    };
    if now >= refresh.idle_until || now >= refresh.ends_at {
        return Ok(Rotation::Gone);
    }
    let device = device_of(connection, id)?;
    if is_equal(&refresh.hash, presented) {
        if let Some(newer) = newer_sign_in(connection, &grant, now)? {
            change(
                connection,
                "UPDATE grants SET state = 'revoked' WHERE id IN (?, ?) AND state = 'redeemed'",
                [id.0, newer],
            )?;
            let detail = format!("sign-ins {id} and {newer} for {}", grant.resource);
            append(connection, Event::SessionsForked, device.as_deref(), &detail, context)?;
            return Ok(Rotation::Forked);
        }
        change(
            connection,
            "UPDATE grants SET refresh_hash = ?, refresh_previous = ?, refresh_rotated_at = ?, refresh_idle_until = ? WHERE id = ? AND refresh_hash = ?",
            params![
                successor,
                presented,
                now.millis(),
                now.plus(policy.idle).min(refresh.ends_at).millis(),
                id.0,
                presented
            ],
        )?;
        change(connection, "UPDATE devices SET seen_at = ? WHERE row = ?", params![now.millis(), grant.device_row])?;
        append(connection, Event::TokenRefreshed, device.as_deref(), &format!("sign-in {id}"), context)?;
        return Ok(Rotation::Rotated);
    }
    let is_previous = refresh.previous_hash.is_some_and(|previous| is_equal(&previous, presented));
    if is_previous && now.since(refresh.rotated_at) <= REFRESH_RETRY {
        return Ok(Rotation::Retried);
    }
    // An authentic device presents a token that is not the present one: either it or a thief holds an old copy. Which one can't be told; both stop.
    change(connection, "UPDATE grants SET state = 'revoked' WHERE id = ? AND state = 'redeemed'", [id.0])?;
    append(connection, Event::RefreshReused, device.as_deref(), &format!("sign-in {id}"), context)?;
    Ok(Rotation::Reused)
}

/// A device has one sign-in per resource: it forgets the old one when it begins anew. Whoever refreshes an old one while a newer one lives is another box
/// with a copy of the key, or the box that was copied.
fn newer_sign_in(connection: &Connection, grant: &Grant, now: Timestamp) -> rusqlite::Result<Option<i64>> {
    first(
        connection,
        "SELECT id FROM grants WHERE device = ? AND state = 'redeemed' AND resource = ? AND jkt = ? AND id > ? AND refresh_idle_until > ? \
         AND refresh_ends_at > ? ORDER BY id DESC LIMIT 1",
        params![grant.device_row, grant.resource, grant.jkt, grant.id.0, now.millis(), now.millis()],
        |row| row.get(0),
    )
}

fn revoke_all(connection: &Connection, event: Event, context: &Context) -> rusqlite::Result<u64> {
    let now = context.now.millis();
    let alive = first(
        connection,
        "SELECT count(*) FROM grants WHERE state = 'redeemed' AND refresh_idle_until > ?1 AND refresh_ends_at > ?1",
        [now],
        |row| row.get(0),
    )?;
    let alive = unsigned(alive.unwrap_or(0));
    // Also those without a refresh token, or past its end: their last access token may be out.
    change(connection, "UPDATE grants SET state = 'revoked' WHERE state = 'redeemed'", [])?;
    append(connection, event, None, &format!("{alive} sign-ins could still have been renewed"), context)?;
    Ok(alive)
}

#[async_trait]
impl GrantStore for SqliteStore {
    async fn mint_grant(&self, new: &NewGrant, context: &Context) -> Result<Mint> {
        let (new, context) = (new.clone(), context.clone());
        self.write(move |connection| mint(connection, &new, &context)).await
    }

    async fn grant(&self, id: GrantId) -> Result<Option<Grant>> {
        self.read(|connection| by_grant_id(connection, id))
    }

    async fn grant_by_user_code(&self, hash: &Bytes32) -> Result<Option<Grant>> {
        let sql = format!("SELECT {GRANT} FROM grants g WHERE g.user_code_hash = ? AND g.state = 'pending'");
        self.read(|connection| first(connection, &sql, [hash], |row| grant(row, 0)))
    }

    async fn pending_grants(&self, reach: &Reach, now: Timestamp, limit: u32) -> Result<Vec<GrantOfDevice>> {
        let sql = format!(
            "SELECT {DEVICE}, {GRANT}, o.name FROM devices d JOIN grants g ON g.id = d.pending_grant LEFT JOIN operators o ON o.id = g.claimed_by \
             WHERE d.pending_grant IS NOT NULL AND g.state = 'pending' AND g.expires_at > ?1 \
             AND (?3 IS NULL OR d.site IN (SELECT value FROM json_each(?3))) ORDER BY g.id LIMIT ?2"
        );
        self.read(|connection| {
            all(connection, &sql, params![now.millis(), limit, json(reach)], |row| {
                Ok(GrantOfDevice {
                    device: device(row, 0)?,
                    grant: grant(row, DEVICE_COLUMNS)?,
                    claimed_by: row.get(DEVICE_COLUMNS + GRANT_COLUMNS)?,
                })
            })
        })
    }

    async fn slow_down(&self, id: GrantId) -> Result<()> {
        self.write(move |connection| {
            change(
                connection,
                "UPDATE grants SET interval = min(interval + ?, ?) WHERE id = ? AND state IN ('pending', 'approved')",
                params![SLOW_DOWN_STEP, MAX_INTERVAL, id.0],
            )?;
            Ok(())
        })
        .await
    }

    async fn claim_grant(
        &self,
        id: GrantId,
        by: OperatorId,
        confirmation_number: Option<&str>,
        context: &Context,
    ) -> Result<ClaimOutcome> {
        let (number, context) = (confirmation_number.map(str::to_owned), context.clone());
        self.write(move |connection| claim(connection, id, by, number.as_deref(), &context)).await
    }

    async fn decide_grant(
        &self,
        id: GrantId,
        by: OperatorId,
        decision: Decision,
        policy: SecondPerson,
        context: &Context,
    ) -> Result<DecisionOutcome> {
        let context = context.clone();
        self.write(move |connection| decide(connection, id, by, decision, policy, &context)).await
    }

    async fn record_wrong_number(&self, id: GrantId, by: OperatorId, context: &Context) -> Result<Option<u8>> {
        let context = context.clone();
        self.write(move |connection| wrong_number(connection, id, by, &context)).await
    }

    async fn redeem_grant(
        &self,
        id: GrantId,
        jkt: &Bytes32,
        refresh: Option<(Bytes32, RefreshPolicy)>,
        policy: SecondPerson,
        context: &Context,
    ) -> Result<Redemption> {
        let (jkt, context) = (*jkt, context.clone());
        self.write(move |connection| redeem(connection, id, &jkt, refresh, policy, &context)).await
    }

    async fn revoke_grant(&self, id: GrantId, event: Event, detail: &str, context: &Context) -> Result<bool> {
        let (detail, context) = (format!("sign-in {id}: {detail}"), context.clone());
        self.write(move |connection| {
            let revoked =
                change(connection, "UPDATE grants SET state = 'revoked' WHERE id = ? AND state = 'redeemed'", [id.0])?
                    == 1;
            append(connection, event, device_of(connection, id)?.as_deref(), &detail, &context)?;
            Ok(revoked)
        })
        .await
    }

    async fn end_sign_ins_of(&self, id: &DeviceId, context: &Context) -> Result<usize> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| {
            let Some(device) = super::devices::by_id(connection, id.as_str())? else { return Ok(0) };
            let ended = super::devices::revoke_grants(connection, device.row)?;
            if ended > 0 {
                append(
                    connection,
                    Event::SignInsEnded,
                    Some(id.as_str()),
                    &format!("{ended} sign-in(s) ended"),
                    &context,
                )?;
            }
            Ok(ended)
        })
        .await
    }

    async fn revoke_all_grants(&self, event: Event, context: &Context) -> Result<u64> {
        let context = context.clone();
        self.write(move |connection| revoke_all(connection, event, &context)).await
    }

    async fn rotate_refresh(
        &self,
        id: GrantId,
        presented: &Bytes32,
        successor: &Bytes32,
        policy: RefreshPolicy,
        context: &Context,
    ) -> Result<Rotation> {
        let (presented, successor, context) = (*presented, *successor, context.clone());
        self.write(move |connection| rotate(connection, id, &presented, &successor, policy, &context)).await
    }
}
