//! Many devices at once in SQLite: imports, bulk changes, groups, what is kept between two steps.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::audit::append;
use super::devices::{by_id, set_state};
use super::field::mark_stolen;
use super::pairings::window;
use super::{SqliteStore, all, change, corrupt, first, json, unsigned};
use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::{Context, Event};
use crate::model::change::{DeviceChange, differences};
use crate::model::device::{Device, DeviceFacts, DeviceState};
use crate::model::import::{Known, NewDevice};
use crate::model::operator::Reach;
use crate::secret::Bytes32;
use crate::store::{BulkStore, ChangeOf, Changed, DeviceGroup, FactsChange, Result, StateChange};

fn is_taken(connection: &Connection, device: &NewDevice) -> rusqlite::Result<bool> {
    let is_id_taken =
        first(connection, "SELECT 1 FROM devices WHERE id = ?", [device.id.as_str()], |_| Ok(()))?.is_some();
    let Some(jkt) = device.manifest_jkt.filter(|_| !is_id_taken) else { return Ok(is_id_taken) };
    let sql = "SELECT 1 FROM device_keys WHERE jkt = ?1 UNION ALL SELECT 1 FROM devices WHERE manifest_jkt = ?1";
    Ok(first(connection, sql, [jkt], |_| Ok(()))?.is_some())
}

fn register(connection: &Connection, devices: &[NewDevice], context: &Context) -> rusqlite::Result<Vec<usize>> {
    let mut taken = Vec::new();
    for (place, device) in devices.iter().enumerate() {
        if is_taken(connection, device)? {
            taken.push(place);
        }
    }
    if !taken.is_empty() || devices.is_empty() {
        return Ok(taken);
    }
    append(connection, Event::DevicesImported, None, &format!("{} device(s)", devices.len()), context)?;
    let by = context.actor.to_string();
    for NewDevice { id, facts, manifest_jkt, .. } in devices {
        change(
            connection,
            "INSERT INTO devices (id, state, kind, site, name, serial, asset_tag, maker, model, floor, room, owner, note, registered_at, registered_by, \
             manifest_jkt) VALUES (?, 'registered', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                id.as_str(),
                facts.kind,
                facts.site,
                facts.name,
                facts.serial,
                facts.asset_tag,
                facts.maker,
                facts.model,
                facts.floor,
                facts.room,
                facts.owner,
                facts.note,
                context.now.millis(),
                by,
                manifest_jkt
            ],
        )?;
        let detail = format!("{} '{}', by an import", facts.kind, facts.name);
        append(connection, Event::DeviceRegistered, Some(id.as_str()), &detail, context)?;
    }
    Ok(taken)
}

fn apply(connection: &Connection, wanted: &ChangeOf, context: &Context) -> rusqlite::Result<Changed> {
    let device = by_id(connection, wanted.id.as_str())?.filter(|device| device.facts.site == wanted.site);
    let Some(device) = device else { return Ok(Changed::NotFound) };
    if let Some(made) = &wanted.after
        && !is_still(connection, &device, made, context.now)?
    {
        return Ok(Changed::Meanwhile);
    }
    let outcome = |changed, to, undo| match changed {
        StateChange::Changed(_) => Changed::Done { undo, grant: device.pending_grant },
        StateChange::NotFound => Changed::NotFound,
        StateChange::Refused(state) if state == to => Changed::Nothing,
        StateChange::Refused(state) => Changed::Refused(state),
    };
    let to_state = |to, undo| Ok(outcome(set_state(connection, &wanted.id, to, context)?, to, undo));
    match &wanted.change {
        DeviceChange::Suspend => to_state(DeviceState::Suspended, Some(DeviceChange::Resume)),
        // From any other state, resuming would be something else than what it says.
        DeviceChange::Resume if matches!(device.state, DeviceState::Active | DeviceState::Registered) => {
            Ok(Changed::Nothing)
        }
        // A stolen one is let on by its id, typed, one at a time.
        DeviceChange::Resume if device.stolen_at.is_some() => Ok(Changed::Refused(device.state)),
        DeviceChange::Resume => to_state(DeviceState::Active, Some(DeviceChange::Suspend)),
        DeviceChange::Stolen => {
            Ok(outcome(mark_stolen(connection, &wanted.id, context)?, DeviceState::Suspended, None))
        }
        DeviceChange::Retire => to_state(DeviceState::Retired, None),
        DeviceChange::OpenWindow(closes_at) => open_window(connection, &device, *closes_at, context),
        DeviceChange::CloseWindow => close_window(connection, &device, context),
        DeviceChange::Move(_) if device.state == DeviceState::Retired => Ok(Changed::Refused(device.state)),
        DeviceChange::Move(there) => {
            let after = there.applied(&device.facts);
            let is_moved = write_facts(connection, &device, &after, context)?;
            let undo = Some(DeviceChange::Move(there.back_to(&device.facts)));
            Ok(if is_moved { Changed::Done { undo, grant: None } } else { Changed::Nothing })
        }
    }
}

/// Is a device still as this change left it? Of states, the way back itself tells.
fn is_still(connection: &Connection, device: &Device, made: &DeviceChange, now: Timestamp) -> rusqlite::Result<bool> {
    let window = || window(connection, &format!("device:{}", device.id), now);
    Ok(match made {
        DeviceChange::Move(there) => there.applied(&device.facts) == device.facts,
        DeviceChange::OpenWindow(closes_at) => window()? == Some(*closes_at),
        DeviceChange::CloseWindow => window()?.is_none(),
        DeviceChange::Suspend | DeviceChange::Resume | DeviceChange::Stolen | DeviceChange::Retire => true,
    })
}

fn open_window(
    connection: &Connection,
    device: &Device,
    closes_at: Timestamp,
    context: &Context,
) -> rusqlite::Result<Changed> {
    if !matches!(device.state, DeviceState::Registered | DeviceState::Active) {
        return Ok(Changed::Refused(device.state));
    }
    let subject = format!("device:{}", device.id);
    let undo = window(connection, &subject, context.now)?.map_or(DeviceChange::CloseWindow, DeviceChange::OpenWindow);
    change(
        connection,
        "INSERT INTO pairing_windows (subject, closes_at) VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET closes_at = excluded.closes_at",
        params![subject, closes_at.millis()],
    )?;
    let detail = format!("{subject} until {}", closes_at.rfc3339());
    append(connection, Event::WindowOpened, Some(device.id.as_str()), &detail, context)?;
    Ok(Changed::Done { undo: Some(undo), grant: None })
}

fn close_window(connection: &Connection, device: &Device, context: &Context) -> rusqlite::Result<Changed> {
    let subject = format!("device:{}", device.id);
    let Some(closes_at) = window(connection, &subject, context.now)? else { return Ok(Changed::Nothing) };
    change(connection, "DELETE FROM pairing_windows WHERE subject = ?", [&subject])?;
    append(connection, Event::WindowClosed, Some(device.id.as_str()), &subject, context)?;
    Ok(Changed::Done { undo: Some(DeviceChange::OpenWindow(closes_at)), grant: None })
}

/// Writes all facts and what changed; `false` if nothing did.
fn write_facts(
    connection: &Connection,
    device: &Device,
    after: &DeviceFacts,
    context: &Context,
) -> rusqlite::Result<bool> {
    let detail = differences(&device.facts, after);
    if detail.is_empty() {
        return Ok(false);
    }
    change(
        connection,
        "UPDATE devices SET kind = ?, site = ?, name = ?, serial = ?, asset_tag = ?, maker = ?, model = ?, floor = ?, room = ?, owner = ?, note = ? \
         WHERE row = ?",
        params![
            after.kind,
            after.site,
            after.name,
            after.serial,
            after.asset_tag,
            after.maker,
            after.model,
            after.floor,
            after.room,
            after.owner,
            after.note,
            device.row
        ],
    )?;
    append(connection, Event::DeviceChanged, Some(device.id.as_str()), &detail, context)?;
    Ok(true)
}

fn change_facts(
    connection: &Connection,
    id: &DeviceId,
    before: &DeviceFacts,
    after: &DeviceFacts,
    context: &Context,
) -> rusqlite::Result<FactsChange> {
    let Some(device) = by_id(connection, id.as_str())?.filter(|device| device.state != DeviceState::Retired) else {
        return Ok(FactsChange::NotFound);
    };
    if device.facts != *before {
        return Ok(FactsChange::Meanwhile);
    }
    // Kind and serial number are what its key was confirmed for.
    if device.key.is_some() && (before.kind != after.kind || before.serial != after.serial) {
        return Ok(FactsChange::Paired);
    }
    write_facts(connection, &device, after, context)?;
    Ok(FactsChange::Changed)
}

#[async_trait]
impl BulkStore for SqliteStore {
    async fn known_devices(&self, reach: &Reach) -> Result<Known> {
        self.read(|connection| {
            let ids = all(connection, "SELECT id FROM devices", [], |row| row.get(0))?.into_iter().collect();
            let serials = all(
                connection,
                "SELECT serial, id FROM devices WHERE serial <> '' AND state <> 'retired' AND (?1 IS NULL OR site IN (SELECT value FROM json_each(?1)))",
                [json(reach)],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            let sql = "SELECT jkt FROM device_keys UNION SELECT manifest_jkt FROM devices WHERE manifest_jkt IS NOT NULL";
            let keys = all(connection, sql, [], |row| row.get(0))?.into_iter().collect();
            Ok(Known { ids, serials: serials.into_iter().collect(), keys })
        })
    }

    async fn register_devices(&self, devices: Vec<NewDevice>, context: &Context) -> Result<Vec<usize>> {
        let context = context.clone();
        self.write(move |connection| register(connection, &devices, &context)).await
    }

    async fn device_groups(&self, text: &str, reach: &Reach) -> Result<Vec<DeviceGroup>> {
        const SQL: &str = "SELECT state, kind, site, floor, count(*) FROM devices d WHERE \
             (?1 = '' OR instr(lower(d.id || char(10) || d.name || char(10) || d.room || char(10) || d.serial || char(10) || d.asset_tag), ?1)) \
             AND (?2 IS NULL OR d.site IN (SELECT value FROM json_each(?2))) GROUP BY state, kind, site, floor";
        let text = text.trim().to_ascii_lowercase();
        self.read(|connection| {
            all(connection, SQL, params![text, json(reach)], |row| {
                Ok(DeviceGroup {
                    state: DeviceState::parse(row.get_ref(0)?.as_str()?).ok_or_else(|| corrupt("devices.state"))?,
                    kind: row.get(1)?,
                    site: row.get(2)?,
                    floor: row.get(3)?,
                    count: unsigned(row.get(4)?),
                })
            })
        })
    }

    async fn change_devices(&self, changes: Vec<ChangeOf>, context: &Context) -> Result<Vec<Changed>> {
        let context = context.clone();
        self.write(move |connection| changes.iter().map(|wanted| apply(connection, wanted, &context)).collect()).await
    }

    async fn change_device_facts(
        &self,
        id: &DeviceId,
        before: &DeviceFacts,
        after: &DeviceFacts,
        context: &Context,
    ) -> Result<FactsChange> {
        let (id, before, after, context) = (id.clone(), before.clone(), after.clone(), context.clone());
        self.write(move |connection| change_facts(connection, &id, &before, &after, &context)).await
    }

    async fn set_aside(
        &self,
        key: &Bytes32,
        purpose: &str,
        text: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        let (key, purpose, text) = (*key, purpose.to_owned(), text.to_owned());
        self.write(move |connection| {
            // What nobody came back for goes now.
            change(connection, "DELETE FROM ceremonies WHERE purpose = ? AND expires_at <= ?", params![purpose, now.millis()])?;
            change(
                connection,
                "INSERT INTO ceremonies (hash, purpose, state, expires_at) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (hash) DO UPDATE SET purpose = excluded.purpose, state = excluded.state, expires_at = excluded.expires_at",
                params![key, purpose, text, expires_at.millis()],
            )?;
            Ok(())
        })
        .await
    }

    async fn aside(&self, key: &Bytes32, purpose: &str, now: Timestamp) -> Result<Option<String>> {
        const SQL: &str = "SELECT state FROM ceremonies WHERE hash = ? AND purpose = ? AND expires_at > ?";
        self.read(|connection| first(connection, SQL, params![key, purpose, now.millis()], |row| row.get(0)))
    }

    async fn take_aside(&self, key: &Bytes32, purpose: &str, text: &str, now: Timestamp) -> Result<bool> {
        const SQL: &str = "DELETE FROM ceremonies WHERE hash = ? AND purpose = ? AND state = ? AND expires_at > ?";
        let (key, purpose, text) = (*key, purpose.to_owned(), text.to_owned());
        self.write(move |connection| Ok(change(connection, SQL, params![key, purpose, text, now.millis()])? == 1)).await
    }
}
