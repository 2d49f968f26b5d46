//! Windows and pairings in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::devices::{DEVICE, DEVICE_COLUMNS, assurance, by_id, device, revoke_grants};
use super::{SqliteStore, all, change, corrupt, first, json};
use crate::clock::Timestamp;
use crate::id::{DeviceId, PairingId};
use crate::model::audit::{Context, Event};
use crate::model::device::{Device, DeviceState, KeyAssurance, PinnedKey};
use crate::model::operator::Reach;
use crate::model::pairing::{MAX_PENDING_PER_DEVICE, MAX_WRONG_DIGITS, Pairing, PairingState, Says};
use crate::secret::{Bytes32, is_equal};
use crate::store::{NewPairing, PairingOfDevice, PairingRefusal, PairingStore, Result, WindowSubject};

const PAIRING: &str = "p.id, p.state, p.jkt, p.serial, p.model, p.firmware, p.commitment, p.broker_nonce, p.device_nonce, p.wrong_digits, \
     p.requested_at, p.expires_at, p.peer, p.conflict, p.key_assurance, p.vouched_by, p.broker_jkt";

fn pairing_of_device(row: &Row<'_>) -> rusqlite::Result<PairingOfDevice> {
    let device = device(row, 0)?;
    let base = DEVICE_COLUMNS;
    let pairing = Pairing {
        id: PairingId::parse(row.get_ref(base)?.as_str()?).ok_or_else(|| corrupt("pairings.id"))?,
        device: device.id.clone(),
        state: PairingState::parse(row.get_ref(base + 1)?.as_str()?).ok_or_else(|| corrupt("pairings.state"))?,
        jkt: row.get(base + 2)?,
        says: Says { serial: row.get(base + 3)?, model: row.get(base + 4)?, firmware: row.get(base + 5)? },
        commitment: row.get(base + 6)?,
        broker_nonce: row.get(base + 7)?,
        device_nonce: row.get(base + 8)?,
        wrong_digits: row.get(base + 9)?,
        requested_at: Timestamp::from_millis(row.get(base + 10)?),
        expires_at: Timestamp::from_millis(row.get(base + 11)?),
        peer: row.get::<_, Option<String>>(base + 12)?.and_then(|peer| peer.parse().ok()),
        conflict: row.get(base + 13)?,
        key_assurance: assurance(row, base + 14, "pairings.key_assurance")?,
        vouched_by: row.get(base + 15)?,
        broker_jkt: row.get(base + 16)?,
    };
    Ok(PairingOfDevice { pairing, device })
}

fn by_pairing_id(connection: &Connection, id: &PairingId) -> rusqlite::Result<Option<PairingOfDevice>> {
    let sql = format!("SELECT {DEVICE}, {PAIRING} FROM pairings p JOIN devices d ON d.row = p.device WHERE p.id = ?");
    first(connection, &sql, [id.as_str()], pairing_of_device)
}

pub(super) fn window(connection: &Connection, subject: &str, now: Timestamp) -> rusqlite::Result<Option<Timestamp>> {
    let closes_at = first(
        connection,
        "SELECT closes_at FROM pairing_windows WHERE subject = ? AND closes_at > ?",
        params![subject, now.millis()],
        |row| row.get(0),
    )?;
    Ok(closes_at.map(Timestamp::from_millis))
}

fn subject_text(subject: &WindowSubject) -> String {
    match subject {
        WindowSubject::Device(id) => format!("device:{id}"),
        WindowSubject::Site(id) => format!("site:{id}"),
    }
}

/// Every reason to refuse, in one place and one order. `Ok` carries the device, and whether another key waits for it.
fn admit(
    connection: &Connection,
    new: &NewPairing,
    now: Timestamp,
) -> rusqlite::Result<std::result::Result<(Device, bool), PairingRefusal>> {
    let Some(device) = by_id(connection, new.device.as_str())? else { return Ok(Err(PairingRefusal::UnknownDevice)) };
    if !matches!(device.state, DeviceState::Registered | DeviceState::Active) {
        return Ok(Err(PairingRefusal::DeviceNotExpected));
    }
    if !device.facts.serial.is_empty() && device.facts.serial != new.says.serial {
        return Ok(Err(PairingRefusal::WrongSerial));
    }
    if let Some(refusal) = not_expected(connection, new, &device, now)? {
        return Ok(Err(refusal));
    }
    let known = first(connection, "SELECT device, state FROM device_keys WHERE jkt = ?", [new.jkt], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    match known {
        Some((owner, _)) if owner != device.row => return Ok(Err(PairingRefusal::KeyOfAnotherDevice)),
        Some((_, state)) if state != "current" => return Ok(Err(PairingRefusal::DeadKey)),
        // Its own present key again: the device lost our answer. It may repeat the pairing.
        Some(_) | None => {}
    }
    if first(connection, "SELECT 1 FROM pairings WHERE request_hash = ?", [new.request_hash], |_| Ok(()))?.is_some() {
        return Ok(Err(PairingRefusal::Replayed));
    }
    // The same key waiting twice for one device is one device that began again: its former request makes room.
    change(
        connection,
        "UPDATE pairings SET state = 'refused' WHERE device = ? AND jkt = ? AND state IN ('requested', 'revealed')",
        params![device.row, new.jkt],
    )?;
    let rivals: i64 = first(
        connection,
        "SELECT count(*) FROM pairings WHERE device = ? AND state IN ('requested', 'revealed') AND expires_at > ?",
        params![device.row, now.millis()],
        |row| row.get(0),
    )?
    .unwrap_or(0);
    Ok(if rivals >= MAX_PENDING_PER_DEVICE { Err(PairingRefusal::TooMany) } else { Ok((device, rivals > 0)) })
}

/// Why nobody expects this key: no window is open. The device's present key stands in for a window: whoever has it may say which comes next.
fn not_expected(
    connection: &Connection,
    new: &NewPairing,
    device: &Device,
    now: Timestamp,
) -> rusqlite::Result<Option<PairingRefusal>> {
    if let Some(voucher) = &new.voucher {
        let is_present = device.key.as_ref().is_some_and(|key| key.jkt == voucher.jkt && key.jkt != new.jkt);
        if !is_present || device.state != DeviceState::Active {
            return Ok(Some(PairingRefusal::NotVouched));
        }
        let is_used =
            first(connection, "SELECT 1 FROM pairings WHERE vouch_hash = ?", [voucher.statement_hash], |_| Ok(()))?;
        return Ok(is_used.map(|()| PairingRefusal::Replayed));
    }
    let is_open = window(connection, &format!("device:{}", device.id), now)?.is_some()
        || window(connection, &format!("site:{}", device.facts.site), now)?.is_some();
    Ok(if is_open { None } else { Some(PairingRefusal::WindowClosed) })
}

fn request(
    connection: &Connection,
    new: &NewPairing,
    context: &Context,
) -> rusqlite::Result<std::result::Result<(), PairingRefusal>> {
    let key = PinnedKey::short(&new.jkt);
    let (device, conflict) = match admit(connection, new, context.now)? {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(Err(refusal)),
    };
    change(
        connection,
        "INSERT INTO pairings (id, device, state, jkt, jwk, serial, model, firmware, commitment, broker_nonce, request_hash, requested_at, \
         expires_at, peer, conflict, key_assurance, vouched_by, vouch_hash, broker_jkt) \
         VALUES (?, ?, 'requested', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            new.id.as_str(),
            device.row,
            new.jkt,
            new.jwk,
            new.says.serial,
            new.says.model,
            new.says.firmware,
            new.commitment,
            new.broker_nonce,
            new.request_hash,
            context.now.millis(),
            new.expires_at.millis(),
            context.peer.map(|peer| peer.to_string()),
            conflict,
            new.key_assurance.as_str(),
            new.voucher.map(|voucher| voucher.jkt),
            new.voucher.map(|voucher| voucher.statement_hash),
            new.broker_jkt
        ],
    )?;
    let detail = match &new.voucher {
        Some(voucher) => format!("key {key}; key {} vouches for it", PinnedKey::short(&voucher.jkt)),
        None => format!("key {key}"),
    };
    append(connection, Event::PairingRequested, Some(device.id.as_str()), &detail, context)?;
    if conflict {
        change(
            connection,
            "UPDATE pairings SET conflict = 1 WHERE device = ? AND state IN ('requested', 'revealed')",
            [device.row],
        )?;
        append(connection, Event::PairingConflict, Some(device.id.as_str()), &format!("key {key}"), context)?;
    }
    Ok(Ok(()))
}

/// Pins the key; with `announced`, only if it is the key that the device's maker announced.
fn confirm(connection: &Connection, id: &PairingId, announced: bool, context: &Context) -> rusqlite::Result<bool> {
    let Some(PairingOfDevice { pairing, device }) = by_pairing_id(connection, id)? else { return Ok(false) };
    let may_pair = matches!(device.state, DeviceState::Registered | DeviceState::Active);
    // The key may have been taken by another device, or retired, since the request.
    let key_is_free = first(
        connection,
        "SELECT device = ? AND state = 'current' FROM device_keys WHERE jkt = ?",
        params![device.row, pairing.jkt],
        |row| row.get(0),
    )?
    .unwrap_or(true);
    let present = device.key.as_ref().map(|key| key.jkt);
    let voucher_is_present = pairing.vouched_by.is_none_or(|voucher| present == Some(voucher));
    let may_confirm = pairing.is_open(context.now) && pairing.state.may_become(PairingState::Confirmed);
    // Here and nowhere before: what was announced may have changed since the page was made.
    let is_as_announced = !announced || device.manifest_jkt.is_some_and(|jkt| is_equal(&jkt, &pairing.jkt));
    if !may_confirm || !may_pair || !key_is_free || !voucher_is_present || !is_as_announced {
        return Ok(false);
    }
    change(
        connection,
        "UPDATE device_keys SET state = 'replaced' WHERE device = ? AND state = 'current' AND jkt <> ?",
        params![device.row, pairing.jkt],
    )?;
    change(
        connection,
        "INSERT INTO device_keys (jkt, device, jwk, state, added_at, key_assurance) \
         SELECT jkt, device, jwk, 'current', ?, key_assurance FROM pairings WHERE id = ? \
         ON CONFLICT (jkt) DO UPDATE SET key_assurance = excluded.key_assurance",
        params![context.now.millis(), id.as_str()],
    )?;
    change(connection, "UPDATE pairings SET state = 'confirmed' WHERE id = ? AND state = 'revealed'", [id.as_str()])?;
    change(
        connection,
        "UPDATE pairings SET state = 'refused' WHERE device = ? AND state IN ('requested', 'revealed')",
        [device.row],
    )?;
    let same_key = present == Some(pairing.jkt);
    let ended = if same_key { 0 } else { revoke_grants(connection, device.row)? };
    change(
        connection,
        "UPDATE devices SET state = 'active', jkt = ?, key_assurance = ?, paired_at = ?, paired_by = ? \
         WHERE row = ? AND state IN ('registered', 'active')",
        params![
            pairing.jkt,
            pairing.key_assurance.as_str(),
            context.now.millis(),
            context.actor.to_string(),
            device.row
        ],
    )?;
    change(connection, "DELETE FROM pairing_windows WHERE subject = ?", [format!("device:{}", device.id)])?;
    // What a technician was let in for is done.
    change(connection, "DELETE FROM technician_codes WHERE device = ?", [device.row])?;
    let how = if announced { ", as its maker announced" } else { "" };
    let mut detail = format!("key {} ({}{how})", PinnedKey::short(&pairing.jkt), pairing.key_assurance.as_str());
    if let Some(former) = device.key.filter(|_| !same_key) {
        detail = format!("{detail} replaces key {}; {ended} sign-in(s) ended", PinnedKey::short(&former.jkt));
    }
    append(connection, Event::PairingConfirmed, Some(device.id.as_str()), &detail, context)?;
    Ok(true)
}

#[async_trait]
impl PairingStore for SqliteStore {
    async fn open_window(&self, subject: &WindowSubject, closes_at: Timestamp, context: &Context) -> Result<bool> {
        let (subject, context) = (subject.clone(), context.clone());
        self.write(move |connection| {
            let (exists, device) = match &subject {
                WindowSubject::Device(id) => (by_id(connection, id.as_str())?.is_some(), Some(id.as_str())),
                WindowSubject::Site(id) => (first(connection, "SELECT 1 FROM sites WHERE id = ?", [id], |_| Ok(()))?.is_some(), None),
            };
            if exists {
                let text = subject_text(&subject);
                change(
                    connection,
                    "INSERT INTO pairing_windows (subject, closes_at) VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET closes_at = excluded.closes_at",
                    params![text, closes_at.millis()],
                )?;
                append(connection, Event::WindowOpened, device, &format!("{text} until {}", closes_at.rfc3339()), &context)?;
            }
            Ok(exists)
        })
        .await
    }

    async fn close_window(&self, subject: &WindowSubject, context: &Context) -> Result<bool> {
        let (subject, context) = (subject.clone(), context.clone());
        self.write(move |connection| {
            let text = subject_text(&subject);
            let closed = change(
                connection,
                "DELETE FROM pairing_windows WHERE subject = ? AND closes_at > ?",
                params![text, context.now.millis()],
            )? == 1;
            if closed {
                let device = if let WindowSubject::Device(id) = &subject { Some(id.as_str()) } else { None };
                append(connection, Event::WindowClosed, device, &text, &context)?;
            }
            Ok(closed)
        })
        .await
    }

    async fn window(&self, subject: &WindowSubject, now: Timestamp) -> Result<Option<Timestamp>> {
        self.read(|connection| window(connection, &subject_text(subject), now))
    }

    async fn request_pairing(
        &self,
        new: &NewPairing,
        context: &Context,
    ) -> Result<std::result::Result<(), PairingRefusal>> {
        let (new, context) = (new.clone(), context.clone());
        self.write(move |connection| request(connection, &new, &context)).await
    }

    async fn pairing(&self, id: &PairingId) -> Result<Option<PairingOfDevice>> {
        self.read(|connection| by_pairing_id(connection, id))
    }

    async fn open_pairings(
        &self,
        device: Option<&DeviceId>,
        reach: &Reach,
        now: Timestamp,
    ) -> Result<Vec<PairingOfDevice>> {
        let sql = format!(
            "SELECT {DEVICE}, {PAIRING} FROM pairings p JOIN devices d ON d.row = p.device \
             WHERE p.state IN ('requested', 'revealed') AND p.expires_at > ?1 AND (?2 IS NULL OR d.id = ?2) \
             AND (?3 IS NULL OR d.site IN (SELECT value FROM json_each(?3))) ORDER BY p.requested_at, p.id LIMIT 2000"
        );
        self.read(|connection| {
            all(connection, &sql, params![now.millis(), device.map(DeviceId::as_str), json(reach)], pairing_of_device)
        })
    }

    async fn reveal_pairing(
        &self,
        id: &PairingId,
        device_nonce: &Bytes32,
        assurance: KeyAssurance,
        context: &Context,
    ) -> Result<bool> {
        let (id, device_nonce, now) = (id.clone(), *device_nonce, context.now);
        self.write(move |connection| {
            let Some(found) = by_pairing_id(connection, &id)? else { return Ok(false) };
            let revealed = change(
                connection,
                "UPDATE pairings SET state = 'revealed', device_nonce = ?, key_assurance = ? WHERE id = ? AND expires_at > ? \
                 AND (state = 'requested' OR (state = 'revealed' AND device_nonce = ?))",
                params![
                    device_nonce,
                    found.pairing.key_assurance.max(assurance).as_str(),
                    id.as_str(),
                    now.millis(),
                    device_nonce
                ],
            )?;
            Ok(revealed == 1)
        })
        .await
    }

    async fn record_wrong_digits(&self, id: &PairingId, context: &Context) -> Result<Option<u8>> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| {
            let found = by_pairing_id(connection, &id)?.filter(|found| found.pairing.is_open(context.now));
            let Some(PairingOfDevice { pairing, device }) = found else { return Ok(None) };
            let wrong = pairing.wrong_digits + 1;
            let state = if wrong >= MAX_WRONG_DIGITS { PairingState::Refused } else { pairing.state };
            change(
                connection,
                "UPDATE pairings SET wrong_digits = ?, state = ? WHERE id = ? AND state = ?",
                params![wrong, state.as_str(), id.as_str(), pairing.state.as_str()],
            )?;
            let left = MAX_WRONG_DIGITS.saturating_sub(wrong);
            append(
                connection,
                Event::PairingWrongDigits,
                Some(device.id.as_str()),
                &format!("{left} tries left"),
                &context,
            )?;
            Ok(Some(left))
        })
        .await
    }

    async fn confirm_pairing(&self, id: &PairingId, context: &Context) -> Result<bool> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| confirm(connection, &id, false, &context)).await
    }

    async fn confirm_announced_pairing(&self, id: &PairingId, context: &Context) -> Result<bool> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| confirm(connection, &id, true, &context)).await
    }

    async fn decline_pairing(&self, id: &PairingId, context: &Context) -> Result<bool> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| {
            let found = by_pairing_id(connection, &id)?.filter(|found| found.pairing.is_open(context.now));
            let Some(PairingOfDevice { pairing, device }) = found else { return Ok(false) };
            change(
                connection,
                "UPDATE pairings SET state = 'refused' WHERE id = ? AND state IN ('requested', 'revealed')",
                [id.as_str()],
            )?;
            append(
                connection,
                Event::PairingDeclined,
                Some(device.id.as_str()),
                &format!("key {}", PinnedKey::short(&pairing.jkt)),
                &context,
            )?;
            Ok(true)
        })
        .await
    }
}
