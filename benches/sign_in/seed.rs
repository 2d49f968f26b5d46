//! Databases with many devices. Only their contents come from here; their tables are made by the product's own migrations.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rusqlite::{Connection, params};

use crate::load::Device;
use crate::process::PAIRGATE;

/// Where the bench works; removed at the end, except for large registries, which a later run takes again.
pub struct Workplace {
    kept: PathBuf,
    scratch: tempfile::TempDir,
}

impl Workplace {
    /// Below the target directory, so on the disk that the project is on.
    pub fn new() -> anyhow::Result<Self> {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sign_in");
        std::fs::create_dir_all(&kept)?;
        let scratch = tempfile::tempdir_in(&kept)?;
        Ok(Self { kept, scratch })
    }

    /// An empty directory.
    pub fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.scratch.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// A data directory with `registered` devices, of which `active` are these, spread evenly.
    pub fn registry(&self, name: &str, registered: usize, active: &[Device]) -> anyhow::Result<PathBuf> {
        let template = self.template(registered)?;
        let data = self.directory(name)?;
        for file in ["pairgate.db", "master.key"] {
            std::fs::copy(template.join(file), data.join(file)).with_context(|| format!("copy {file}"))?;
        }
        enrol(&data, registered, active)?;
        Ok(data)
    }

    fn template(&self, registered: usize) -> anyhow::Result<PathBuf> {
        let fresh = self.scratch.path().join("fresh");
        if !fresh.exists() {
            std::fs::create_dir(&fresh)?;
            command(&fresh, &["operator", "add", "bench", "--role", "admin"])?;
        }
        let path = self.kept.join(format!("devices-{registered}"));
        // One that was made by other migrations is of no use.
        if path.exists() && schema(&path)? == schema(&fresh)? {
            return Ok(path);
        }
        println!("making a registry of {registered} devices …");
        let _ = std::fs::remove_dir_all(&path);
        let unfinished = self.directory(&format!("unfinished-{registered}"))?;
        // The tables first, then the log that holds them, into one file.
        open(&fresh)?.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        for file in ["pairgate.db", "master.key"] {
            std::fs::copy(fresh.join(file), unfinished.join(file))?;
        }
        fill(&unfinished, registered)?;
        std::fs::rename(&unfinished, &path)?;
        Ok(path)
    }
}

/// Runs a command of the product on a data directory; what it prints.
pub fn command(data: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(PAIRGATE)
        .current_dir(data)
        .arg("--data")
        .arg(data)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "pairgate {arguments:?} failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// The id of the device in this row; rows begin with 1.
pub fn device_id(row: usize) -> String {
    format!("device-{row:07}")
}

/// The row of the `index`th of `active` devices that are spread over a registry.
pub fn spread(index: usize, active: usize, registered: usize) -> usize {
    1 + index * registered / active
}

fn open(data: &Path) -> anyhow::Result<Connection> {
    Ok(Connection::open(data.join("pairgate.db"))?)
}

fn schema(data: &Path) -> anyhow::Result<String> {
    let sql = "SELECT group_concat(name || ' ' || sql, char(10)) FROM (SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name)";
    Ok(open(data)?.query_row(sql, [], |row| row.get(0))?)
}

/// Paired devices whose keys nobody has: to fill the tables and indexes.
fn fill(data: &Path, registered: usize) -> anyhow::Result<()> {
    let database = open(data)?;
    database.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN")?;
    database.execute(
        "INSERT INTO devices (row, id, state, kind, site, name, serial, asset_tag, maker, model, room, note, registered_at, jkt, paired_at, paired_by) \
         SELECT value, printf('device-%07d', value), 'active', 'printer', 'default', 'Printer ' || value, 'SN' || value, '', 'Maker', 'Model 3', \
         'EG-' || (value % 100), '', 1795000000000, randomblob(32), 1795000000000, 'command-line' \
         FROM (WITH RECURSIVE numbers (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < ?) SELECT value FROM numbers)",
        [i64::try_from(registered)?],
    )?;
    database.execute_batch(
        "INSERT INTO device_keys (jkt, device, jwk, state, added_at) \
         SELECT jkt, row, '{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"\",\"y\":\"\"}', 'current', 1795000000000 FROM devices ORDER BY jkt; \
         COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
    )?;
    Ok(())
}

/// Gives the devices that will sign in their real keys.
fn enrol(data: &Path, registered: usize, active: &[Device]) -> anyhow::Result<()> {
    let mut database = open(data)?;
    let transaction = database.transaction()?;
    for (index, device) in active.iter().enumerate() {
        let row = i64::try_from(spread(index, active.len(), registered))?;
        let jwk = device.key.jwk().to_string();
        transaction.prepare_cached("UPDATE devices SET jkt = ? WHERE row = ? AND id = ?")?.execute(params![
            device.key.thumbprint(),
            row,
            device.id
        ])?;
        transaction.prepare_cached("UPDATE device_keys SET jkt = ?, jwk = ? WHERE device = ?")?.execute(params![
            device.key.thumbprint(),
            jwk,
            row
        ])?;
    }
    transaction.commit()?;
    Ok(())
}
