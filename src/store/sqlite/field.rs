//! Floors, finding, technicians, replacing and theft in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::devices::{DEVICE, DEVICE_COLUMNS, by_id, change_state, device, end_all};
use super::{SqliteStore, all, change, first, unsigned};
use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::{Context, Event};
use crate::model::device::{Device, DeviceState, PinnedKey, Successor};
use crate::model::technician_code::PASS_LIFETIME;
use crate::secret::Bytes32;
use crate::store::{Announced, FieldStore, FloorProgress, NewTechnicianCode, Result, StateChange, TechnicianPass};

fn add_codes(
    connection: &Connection,
    codes: &[NewTechnicianCode],
    expires_at: Timestamp,
    context: &Context,
) -> rusqlite::Result<bool> {
    change(connection, "DELETE FROM technician_codes WHERE expires_at <= ?", [context.now.millis()])?;
    let mut devices = Vec::with_capacity(codes.len());
    for code in codes {
        match by_id(connection, code.device.as_str())? {
            Some(device) if matches!(device.state, DeviceState::Registered | DeviceState::Active) => {
                devices.push(device.row);
            }
            _ => return Ok(false),
        }
    }
    for (code, device) in codes.iter().zip(devices) {
        change(connection, "DELETE FROM technician_codes WHERE device = ? AND used_at IS NULL", [device])?;
        change(
            connection,
            "INSERT INTO technician_codes (hash, device, made_by, expires_at) VALUES (?, ?, ?, ?)",
            params![code.hash, device, context.actor.to_string(), expires_at.millis()],
        )?;
        let detail = format!("until {}", expires_at.rfc3339());
        append(connection, Event::TechnicianCodeMade, Some(code.device.as_str()), &detail, context)?;
    }
    Ok(true)
}

const PASS: &str = "c.made_by, c.expires_at, c.used_at FROM technician_codes c JOIN devices d ON d.row = c.device";

fn pass(row: &Row<'_>) -> rusqlite::Result<TechnicianPass> {
    let expires_at = Timestamp::from_millis(row.get(DEVICE_COLUMNS + 1)?);
    let used_at = row.get::<_, Option<i64>>(DEVICE_COLUMNS + 2)?.map(Timestamp::from_millis);
    Ok(TechnicianPass {
        device: device(row, 0)?,
        made_by: row.get(DEVICE_COLUMNS)?,
        ends_at: used_at.map_or(expires_at, |used_at| expires_at.min(used_at.plus(PASS_LIFETIME))),
    })
}

fn unused_code(connection: &Connection, hash: &Bytes32, now: Timestamp) -> rusqlite::Result<Option<TechnicianPass>> {
    let sql = format!("SELECT {DEVICE}, {PASS} WHERE c.hash = ? AND c.used_at IS NULL AND c.expires_at > ?");
    first(connection, &sql, params![hash, now.millis()], pass)
}

fn session(connection: &Connection, session: &Bytes32, now: Timestamp) -> rusqlite::Result<Option<TechnicianPass>> {
    let found = first(connection, &format!("SELECT {DEVICE}, {PASS} WHERE c.session = ?"), [session], pass)?;
    Ok(found.filter(|pass| now < pass.ends_at))
}

fn use_code(
    connection: &Connection,
    code: &Bytes32,
    new_session: &Bytes32,
    context: &Context,
) -> rusqlite::Result<Option<TechnicianPass>> {
    let used = change(
        connection,
        "UPDATE technician_codes SET used_at = ?, session = ? WHERE hash = ? AND used_at IS NULL AND expires_at > ?",
        params![context.now.millis(), new_session, code, context.now.millis()],
    )?;
    if used == 0 {
        return Ok(None);
    }
    let found = session(connection, new_session, context.now)?;
    if let Some(pass) = &found {
        let detail = format!("made by {}", pass.made_by);
        append(connection, Event::TechnicianIn, Some(pass.device.id.as_str()), &detail, context)?;
    }
    Ok(found)
}

fn replace(
    connection: &Connection,
    id: &DeviceId,
    successor: &Successor,
    closes_at: Timestamp,
    context: &Context,
) -> rusqlite::Result<StateChange> {
    let Some(device) = by_id(connection, id.as_str())? else { return Ok(StateChange::NotFound) };
    if device.state == DeviceState::Retired {
        return Ok(StateChange::Refused(device.state));
    }
    let ended = end_all(connection, &device)?;
    // Without this, whoever mends the old box, or finds it in the bin, would have a device.
    change(connection, "UPDATE device_keys SET state = 'retired' WHERE device = ?", [device.row])?;
    change(
        connection,
        "UPDATE devices SET state = 'registered', jkt = NULL, key_assurance = 'software', paired_at = NULL, paired_by = NULL, manifest_jkt = NULL, \
         identify_until = NULL, stolen_at = NULL, serial = ?, asset_tag = ?, maker = ?, model = ? WHERE row = ? AND state <> 'retired'",
        params![successor.serial, successor.asset_tag, successor.maker, successor.model, device.row],
    )?;
    change(
        connection,
        "INSERT INTO pairing_windows (subject, closes_at) VALUES (?, ?)",
        params![format!("device:{id}"), closes_at.millis()],
    )?;
    let key = device.key.map_or_else(|| "none".into(), |key| PinnedKey::short(&key.jkt));
    let named = |serial: &str| if serial.is_empty() { "unknown".to_owned() } else { format!("'{serial}'") };
    let detail = format!(
        "serial {} instead of {}; former key {key}; {ended} sign-in(s) ended; pairing open until {}",
        named(&successor.serial),
        named(&device.facts.serial),
        closes_at.rfc3339()
    );
    append(connection, Event::DeviceReplaced, Some(id.as_str()), &detail, context)?;
    Ok(StateChange::Changed(device.state))
}

/// Stops a device and marks it; letting it on again takes its id.
pub(super) fn mark_stolen(connection: &Connection, id: &DeviceId, context: &Context) -> rusqlite::Result<StateChange> {
    let Some(device) = by_id(connection, id.as_str())? else { return Ok(StateChange::NotFound) };
    if device.state == DeviceState::Retired || device.stolen_at.is_some() {
        return Ok(StateChange::Refused(device.state));
    }
    let ended = end_all(connection, &device)?;
    change(
        connection,
        "UPDATE devices SET state = 'suspended', stolen_at = ?, identify_until = NULL WHERE row = ? AND state <> 'retired'",
        params![context.now.millis(), device.row],
    )?;
    let detail = format!("was {}; {ended} sign-in(s) ended", device.state.as_str());
    append(connection, Event::DeviceStolen, Some(id.as_str()), &detail, context)?;
    Ok(StateChange::Changed(device.state))
}

#[async_trait]
impl FieldStore for SqliteStore {
    async fn pairing_progress(&self, site: &str) -> Result<Vec<FloorProgress>> {
        const SQL: &str = "SELECT floor, count(*), count(jkt) FROM devices WHERE site = ? AND state <> 'retired' GROUP BY floor ORDER BY floor";
        self.read(|connection| {
            all(connection, SQL, [site], |row| {
                Ok(FloorProgress { floor: row.get(0)?, total: unsigned(row.get(1)?), paired: unsigned(row.get(2)?) })
            })
        })
    }

    async fn ask_to_identify(&self, id: &DeviceId, until: Timestamp, context: &Context) -> Result<bool> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| {
            let asked = change(
                connection,
                "UPDATE devices SET identify_until = ? WHERE id = ? AND state IN ('registered', 'active')",
                params![until.millis(), id.as_str()],
            )?;
            if asked == 1 {
                append(connection, Event::DeviceAsked, Some(id.as_str()), "", &context)?;
            }
            Ok(asked == 1)
        })
        .await
    }

    async fn take_identify(&self, device: &Device, context: &Context) -> Result<bool> {
        let (row, id, context) = (device.row, device.id.clone(), context.clone());
        self.write(move |connection| {
            let taken = change(
                connection,
                "UPDATE devices SET identify_until = NULL WHERE row = ? AND identify_until > ?",
                params![row, context.now.millis()],
            )?;
            if taken == 1 {
                append(connection, Event::DeviceIdentified, Some(id.as_str()), "", &context)?;
            }
            Ok(taken == 1)
        })
        .await
    }

    async fn announce_key(&self, id: &DeviceId, jkt: Option<&Bytes32>, context: &Context) -> Result<Announced> {
        let (id, jkt, context) = (id.clone(), jkt.copied(), context.clone());
        self.write(move |connection| {
            let sql = "SELECT 1 FROM device_keys k JOIN devices d ON d.row = k.device WHERE k.jkt = ?1 AND d.id <> ?2 \
                       UNION ALL SELECT 1 FROM devices WHERE manifest_jkt = ?1 AND id <> ?2";
            if jkt.is_some() && first(connection, sql, params![jkt, id.as_str()], |_| Ok(()))?.is_some() {
                return Ok(Announced::Taken);
            }
            let noted = change(
                connection,
                "UPDATE devices SET manifest_jkt = ? WHERE id = ? AND state <> 'retired'",
                params![jkt, id.as_str()],
            )?;
            if noted == 0 {
                return Ok(Announced::NotThere);
            }
            let detail = jkt.map_or_else(|| "none any more".into(), |jkt| format!("key {}", PinnedKey::short(&jkt)));
            append(connection, Event::KeyAnnounced, Some(id.as_str()), &detail, &context)?;
            Ok(Announced::Noted)
        })
        .await
    }

    async fn add_technician_codes(
        &self,
        codes: &[NewTechnicianCode],
        expires_at: Timestamp,
        context: &Context,
    ) -> Result<bool> {
        let (codes, context) = (codes.to_vec(), context.clone());
        self.write(move |connection| add_codes(connection, &codes, expires_at, &context)).await
    }

    async fn technician_code(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<TechnicianPass>> {
        self.read(|connection| unused_code(connection, hash, now))
    }

    async fn use_technician_code(
        &self,
        code: &Bytes32,
        session: &Bytes32,
        context: &Context,
    ) -> Result<Option<TechnicianPass>> {
        let (code, session, context) = (*code, *session, context.clone());
        self.write(move |connection| use_code(connection, &code, &session, &context)).await
    }

    async fn technician_session(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<TechnicianPass>> {
        self.read(|connection| session(connection, hash, now))
    }

    async fn replace_device(
        &self,
        id: &DeviceId,
        successor: &Successor,
        closes_at: Timestamp,
        context: &Context,
    ) -> Result<StateChange> {
        let (id, successor, context) = (id.clone(), successor.clone(), context.clone());
        self.write(move |connection| replace(connection, &id, &successor, closes_at, &context)).await
    }

    async fn mark_stolen(&self, id: &DeviceId, context: &Context) -> Result<StateChange> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| mark_stolen(connection, &id, &context)).await
    }

    async fn resume_stolen(&self, id: &DeviceId, context: &Context) -> Result<StateChange> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| change_state(connection, &id, DeviceState::Active, true, &context)).await
    }
}
