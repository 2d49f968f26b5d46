//! Devices and sites in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::{SqliteStore, all, change, corrupt, first, json, unsigned};
use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId};
use crate::model::audit::{Context, Event};
use crate::model::device::{Device, DeviceFacts, DeviceState, KeyAssurance, PinnedKey};
use crate::model::operator::Reach;
use crate::model::site::Site;
use crate::store::{DeviceCounts, DeviceQuery, DeviceStore, Result, SiteChange, StateChange};

/// Columns of [`device`], for a table or join alias `d`.
pub(super) const DEVICE: &str = "d.row, d.id, d.state, d.kind, d.site, d.name, d.serial, d.asset_tag, d.maker, d.model, d.room, d.note, \
     d.registered_at, d.jkt, d.paired_at, d.paired_by, d.seen_at, d.pending_grant, d.key_assurance, d.floor, d.owner, \
     d.manifest_jkt, d.identify_until, d.stolen_at";
/// How many columns that is.
pub(super) const DEVICE_COLUMNS: usize = 24;

/// Reads the columns of [`DEVICE`], beginning with column `base`.
pub(super) fn device(row: &Row<'_>, base: usize) -> rusqlite::Result<Device> {
    let key = match row.get::<_, Option<[u8; 32]>>(base + 13)? {
        Some(jkt) => Some(PinnedKey {
            jkt,
            assurance: assurance(row, base + 18, "devices.key_assurance")?,
            paired_at: Timestamp::from_millis(row.get(base + 14)?),
            paired_by: row.get(base + 15)?,
        }),
        None => None,
    };
    Ok(Device {
        row: row.get(base)?,
        id: DeviceId::new(row.get_ref(base + 1)?.as_str()?).map_err(|_| corrupt("devices.id"))?,
        state: DeviceState::parse(row.get_ref(base + 2)?.as_str()?).ok_or_else(|| corrupt("devices.state"))?,
        facts: DeviceFacts {
            kind: row.get(base + 3)?,
            site: row.get(base + 4)?,
            name: row.get(base + 5)?,
            serial: row.get(base + 6)?,
            asset_tag: row.get(base + 7)?,
            maker: row.get(base + 8)?,
            model: row.get(base + 9)?,
            floor: row.get(base + 19)?,
            room: row.get(base + 10)?,
            owner: row.get(base + 20)?,
            note: row.get(base + 11)?,
        },
        registered_at: Timestamp::from_millis(row.get(base + 12)?),
        key,
        seen_at: row.get::<_, Option<i64>>(base + 16)?.map(Timestamp::from_millis),
        pending_grant: row.get::<_, Option<i64>>(base + 17)?.map(GrantId),
        manifest_jkt: row.get(base + 21)?,
        identify_until: row.get::<_, Option<i64>>(base + 22)?.map(Timestamp::from_millis),
        stolen_at: row.get::<_, Option<i64>>(base + 23)?.map(Timestamp::from_millis),
    })
}

/// Reads a key's assurance.
pub(super) fn assurance(row: &Row<'_>, index: usize, column: &'static str) -> rusqlite::Result<KeyAssurance> {
    KeyAssurance::parse(row.get_ref(index)?.as_str()?).ok_or_else(|| corrupt(column))
}

/// A device by id, inside a transaction or a read.
pub(super) fn by_id(connection: &Connection, id: &str) -> rusqlite::Result<Option<Device>> {
    // A constant text, so that the statement is found in the cache without being built.
    const SQL: &str = "SELECT row, id, state, kind, site, name, serial, asset_tag, maker, model, room, note, registered_at, jkt, paired_at, \
         paired_by, seen_at, pending_grant, key_assurance, floor, owner, manifest_jkt, identify_until, stolen_at FROM devices WHERE id = ?";
    first(connection, SQL, [id], |row| device(row, 0))
}

/// Ends every sign-in of a device: open ones and those with tokens out.
pub(super) fn revoke_grants(connection: &Connection, device_row: i64) -> rusqlite::Result<usize> {
    let open = change(
        connection,
        "UPDATE grants SET state = 'revoked' WHERE id = (SELECT pending_grant FROM devices WHERE row = ?) AND state IN ('pending', 'approved')",
        [device_row],
    )?;
    let redeemed = change(
        connection,
        "UPDATE grants SET state = 'revoked' WHERE device = ? AND state = 'redeemed'",
        [device_row],
    )?;
    change(connection, "UPDATE devices SET pending_grant = NULL WHERE row = ?", [device_row])?;
    Ok(open + redeemed)
}

/// Ends all that a device has under way: sign-ins, pairings, its window, its technicians' codes. How many sign-ins that were.
pub(super) fn end_all(connection: &Connection, device: &Device) -> rusqlite::Result<usize> {
    change(
        connection,
        "UPDATE pairings SET state = 'refused' WHERE device = ? AND state IN ('requested', 'revealed')",
        [device.row],
    )?;
    change(connection, "DELETE FROM pairing_windows WHERE subject = ?", [format!("device:{}", device.id)])?;
    change(connection, "DELETE FROM technician_codes WHERE device = ?", [device.row])?;
    revoke_grants(connection, device.row)
}

const SITE: &str = "id, name, networks, two_persons, quiet_hours";

fn site(row: &Row<'_>) -> rusqlite::Result<Site> {
    let networks: String = row.get(2)?;
    let networks = networks.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>();
    Ok(Site {
        id: row.get(0)?,
        name: row.get(1)?,
        networks: networks.map_err(|_| corrupt("sites.networks"))?,
        two_persons: row.get(3)?,
        quiet_hours: row.get(4)?,
    })
}

fn networks(site: &Site) -> String {
    site.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Adds a site. `false` if the id is taken.
pub(super) fn insert_site(connection: &Connection, site: &Site, context: &Context) -> rusqlite::Result<bool> {
    let added = change(
        connection,
        "INSERT INTO sites (id, name, networks, two_persons, quiet_hours) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        params![site.id, site.name, networks(site), site.two_persons, site.quiet_hours],
    )?;
    if added == 1 {
        append(connection, Event::SiteAdded, None, &site.words(), context)?;
    }
    Ok(added == 1)
}

/// A site by id, inside a transaction or a read.
pub(super) fn site_by_id(connection: &Connection, id: &str) -> rusqlite::Result<Option<Site>> {
    first(connection, &format!("SELECT {SITE} FROM sites WHERE id = ?"), [id], site)
}

/// Changes all of a site but its id, if it is still what it `was`: a site is written whole, and would else take back what another person just changed.
pub(super) fn update_site(
    connection: &Connection,
    was: &Site,
    site: &Site,
    context: &Context,
) -> rusqlite::Result<SiteChange> {
    match site_by_id(connection, &site.id)? {
        None => return Ok(SiteChange::NotFound),
        Some(present) if present != *was => return Ok(SiteChange::Meanwhile),
        Some(_) => {}
    }
    let changed = change(
        connection,
        "UPDATE sites SET name = ?, networks = ?, two_persons = ?, quiet_hours = ? WHERE id = ?",
        params![site.name, networks(site), site.two_persons, site.quiet_hours, site.id],
    )?;
    if changed == 1 {
        append(connection, Event::SiteChanged, None, &site.words(), context)?;
    }
    Ok(SiteChange::Changed)
}

/// Changes a device's state, with everything that follows from it; lets no stolen one on.
pub(super) fn set_state(
    connection: &Connection,
    id: &DeviceId,
    to: DeviceState,
    context: &Context,
) -> rusqlite::Result<StateChange> {
    change_state(connection, id, to, false, context)
}

/// The same. Whether a stolen one is let on is decided here, in the transaction: a report that comes between a look and the change must count.
pub(super) fn change_state(
    connection: &Connection,
    id: &DeviceId,
    to: DeviceState,
    even_stolen: bool,
    context: &Context,
) -> rusqlite::Result<StateChange> {
    let Some(device) = by_id(connection, id.as_str())? else { return Ok(StateChange::NotFound) };
    let to = if to == DeviceState::Active && device.key.is_none() { DeviceState::Registered } else { to };
    if !device.state.may_become(to) || device.state == to {
        return Ok(StateChange::Refused(device.state));
    }
    let is_let_on = matches!(to, DeviceState::Active | DeviceState::Registered);
    if is_let_on && device.stolen_at.is_some() && !even_stolen {
        return Ok(StateChange::Refused(device.state));
    }
    let changed = change(
        connection,
        "UPDATE devices SET state = ? WHERE row = ? AND state = ?",
        params![to.as_str(), device.row, device.state.as_str()],
    )?;
    debug_assert_eq!(changed, 1, "read in the same transaction");
    let event = match to {
        DeviceState::Suspended => Event::DeviceSuspended,
        DeviceState::Retired => Event::DeviceRetired,
        DeviceState::Active | DeviceState::Registered => Event::DeviceResumed,
    };
    let mut detail = format!("was {}", device.state.as_str());
    if matches!(to, DeviceState::Suspended | DeviceState::Retired) {
        let ended = end_all(connection, &device)?;
        detail = format!("{detail}; {ended} sign-in(s) ended");
    } else {
        change(connection, "UPDATE devices SET stolen_at = NULL WHERE row = ?", [device.row])?;
    }
    if to == DeviceState::Retired {
        change(connection, "UPDATE device_keys SET state = 'retired' WHERE device = ?", [device.row])?;
    }
    append(connection, event, Some(id.as_str()), &detail, context)?;
    Ok(StateChange::Changed(device.state))
}

#[async_trait]
impl DeviceStore for SqliteStore {
    async fn register_device(&self, id: &DeviceId, facts: &DeviceFacts, context: &Context) -> Result<bool> {
        let (id, facts, context) = (id.clone(), facts.clone(), context.clone());
        self.write(move |connection| {
            let added = change(
                connection,
                "INSERT INTO devices (id, state, kind, site, name, serial, asset_tag, maker, model, floor, room, owner, note, registered_at, registered_by) \
                 VALUES (?, 'registered', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                params![
                    id.as_str(), facts.kind, facts.site, facts.name, facts.serial, facts.asset_tag, facts.maker, facts.model, facts.floor, facts.room,
                    facts.owner, facts.note, context.now.millis(), context.actor.to_string()
                ],
            )?;
            if added == 1 {
                append(connection, Event::DeviceRegistered, Some(id.as_str()), &format!("{} '{}'", facts.kind, facts.name), &context)?;
            }
            Ok(added == 1)
        })
        .await
    }

    async fn device(&self, id: &DeviceId) -> Result<Option<Device>> {
        self.read(|connection| by_id(connection, id.as_str()))
    }

    async fn device_by_row(&self, row: i64) -> Result<Option<Device>> {
        self.read(|connection| {
            first(connection, &format!("SELECT {DEVICE} FROM devices d WHERE d.row = ?"), [row], |row| device(row, 0))
        })
    }

    async fn pinned_key(&self, device: &Device) -> Result<Option<String>> {
        let Some(key) = &device.key else { return Ok(None) };
        self.read(|connection| {
            first(
                connection,
                "SELECT jwk FROM device_keys WHERE jkt = ? AND device = ? AND state = 'current'",
                params![key.jkt, device.row],
                |row| row.get(0),
            )
        })
    }

    async fn devices(&self, query: &DeviceQuery, reach: &Reach) -> Result<(Vec<Device>, u64)> {
        const FILTER: &str = "(?1 = '' OR instr(lower(d.id || char(10) || d.name || char(10) || d.room || char(10) || d.serial || char(10) || d.asset_tag), ?1)) \
             AND (?2 IS NULL OR d.state = ?2) AND (?3 IS NULL OR d.kind = ?3) AND (?4 IS NULL OR d.site = ?4) AND (?5 IS NULL OR d.floor = ?5) \
             AND (?6 IS NULL OR d.site IN (SELECT value FROM json_each(?6)))";
        // Only ASCII, as SQLite's `lower` does: else no text with a large umlaut would ever be found.
        let (text, state) = (query.text.trim().to_ascii_lowercase(), query.state.map(DeviceState::as_str));
        let (kind, site, floor, reach) = (&query.kind, &query.site, &query.floor, json(reach));
        self.read(|connection| {
            let rows = all(
                connection,
                &format!("SELECT {DEVICE} FROM devices d WHERE {FILTER} AND (?9 IS NULL OR d.id > ?9) ORDER BY d.id LIMIT ?7 OFFSET ?8"),
                params![text, state, kind, site, floor, reach, query.limit.clamp(1, 100_000), query.offset, query.after],
                |row| device(row, 0),
            )?;
            let total = first(
                connection,
                &format!("SELECT count(*) FROM devices d WHERE {FILTER}"),
                params![text, state, kind, site, floor, reach],
                |row| row.get(0),
            )?;
            Ok((rows, unsigned(total.unwrap_or(0))))
        })
    }

    async fn device_counts(&self, reach: &Reach) -> Result<DeviceCounts> {
        const SQL: &str = "SELECT state, count(*) FROM devices WHERE ?1 IS NULL OR site IN (SELECT value FROM json_each(?1)) GROUP BY state";
        let counts: Vec<(String, i64)> =
            self.read(|connection| all(connection, SQL, [json(reach)], |row| Ok((row.get(0)?, row.get(1)?))))?;
        let of = |state: DeviceState| {
            unsigned(counts.iter().find(|(word, _)| word == state.as_str()).map_or(0, |(_, count)| *count))
        };
        Ok(DeviceCounts {
            registered: of(DeviceState::Registered),
            active: of(DeviceState::Active),
            suspended: of(DeviceState::Suspended),
        })
    }

    async fn set_device_state(&self, id: &DeviceId, to: DeviceState, context: &Context) -> Result<StateChange> {
        let (id, context) = (id.clone(), context.clone());
        self.write(move |connection| set_state(connection, &id, to, &context)).await
    }

    async fn site(&self, id: &str) -> Result<Option<Site>> {
        self.read(|connection| site_by_id(connection, id))
    }

    async fn sites(&self, reach: &Reach) -> Result<Vec<Site>> {
        let sql =
            format!("SELECT {SITE} FROM sites WHERE ?1 IS NULL OR id IN (SELECT value FROM json_each(?1)) ORDER BY id");
        self.read(|connection| all(connection, &sql, [json(reach)], site))
    }

    async fn add_site(&self, site: &Site, context: &Context) -> Result<bool> {
        let (site, context) = (site.clone(), context.clone());
        self.write(move |connection| insert_site(connection, &site, &context)).await
    }

    async fn set_site(&self, was: &Site, site: &Site, context: &Context) -> Result<SiteChange> {
        let (was, site, context) = (was.clone(), site.clone(), context.clone());
        self.write(move |connection| update_site(connection, &was, &site, &context)).await
    }
}
