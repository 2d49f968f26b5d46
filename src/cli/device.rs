//! `pairgate device …`.

use std::process::ExitCode;

use crate::broker::Caller;
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::config::Config;
use crate::http::api::shapes::DeviceShape;
use crate::model::audit::Record;
use crate::model::device::{DeviceFacts, DeviceState, PinnedKey};
use crate::secret::bytes32_from_b64u;
use crate::store::{AuditQuery, DeviceQuery};

/// So many records of a device are shown.
pub const HISTORY: u32 = 20;

/// Commands on devices.
#[derive(Debug, clap::Subcommand)]
pub enum DeviceCommand {
    /// Register a device: from now on it is expected
    Add(Box<AddArgs>),
    /// Show one device and its history
    Show {
        /// Device id
        id: String,
    },
    /// List devices
    List {
        /// Part of id, name, room, serial or asset tag
        text: Option<String>,
        /// Only this state: registered, active, suspended, retired
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 1000)]
        limit: u32,
    },
    /// Stop a device; reversible. All that it holds is dead at once
    Suspend {
        /// Device id
        id: String,
    },
    /// Let a suspended device on again
    Resume {
        /// Device id
        id: String,
    },
    /// Take a device out for ever; its id and key are never accepted again
    Retire {
        /// Device id
        id: String,
        /// Yes, for ever
        #[arg(long)]
        for_ever: bool,
    },
}

/// Arguments of `device add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Its id: a-z, 0-9 and '-', 3 to 64 characters. It never changes and is never used again
    id: String,
    /// printer, tv, console, or another configured kind
    #[arg(long)]
    kind: String,
    /// What people call it [default: the id]
    #[arg(long, default_value = "")]
    name: String,
    /// Serial number; the device must name the same one to be paired
    #[arg(long, default_value = "")]
    serial: String,
    /// Number on the organisation's sticker
    #[arg(long, default_value = "")]
    asset_tag: String,
    /// Maker
    #[arg(long, default_value = "")]
    maker: String,
    /// Model
    #[arg(long, default_value = "")]
    model: String,
    /// Floor, as people call it
    #[arg(long, default_value = "")]
    floor: String,
    /// Room
    #[arg(long, default_value = "")]
    room: String,
    /// Who answers for it
    #[arg(long, default_value = "")]
    owner: String,
    /// Note
    #[arg(long, default_value = "")]
    note: String,
    /// Site
    #[arg(long, default_value = "default")]
    site: String,
}

impl AddArgs {
    /// Id and facts.
    pub fn into_parts(self) -> (String, DeviceFacts) {
        let Self { id, kind, name, serial, asset_tag, maker, model, floor, room, owner, note, site } = self;
        (id, DeviceFacts { kind, site, name, serial, asset_tag, maker, model, floor, room, owner, note })
    }
}

/// Runs one.
pub async fn run(command: DeviceCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    let changed = match command {
        DeviceCommand::Add(args) => {
            let (id, facts) = args.into_parts();
            broker.register_device(&caller, &id, facts).await?;
            id
        }
        DeviceCommand::Suspend { id } => broker.suspend_device(&caller, &id).await.map(|()| id)?,
        DeviceCommand::Resume { id } => broker.resume_device(&caller, &id).await.map(|()| id)?,
        DeviceCommand::Retire { id, for_ever } => {
            must_be_meant(&id, for_ever)?;
            broker.retire_device(&caller, &id).await.map(|()| id)?
        }
        DeviceCommand::List { text, state, limit } => {
            let state = state.as_deref().map(parse_state).transpose()?;
            let (devices, total) = broker
                .devices(
                    &caller,
                    &DeviceQuery { text: text.unwrap_or_default(), state, limit, ..DeviceQuery::default() },
                )
                .await?;
            let devices: Vec<_> = devices.iter().map(DeviceShape::from).collect();
            list(&devices, total, json)?;
            return Ok(ExitCode::SUCCESS);
        }
        DeviceCommand::Show { id } => {
            let device = broker.device(&caller, &id).await?;
            let shape = DeviceShape::from(&device);
            let query = AuditQuery { device: Some(device.id), limit: HISTORY, ..AuditQuery::default() };
            let records = if json { Vec::new() } else { broker.audit(&caller, &query).await? };
            show(&shape, &records, json)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    say_changed(&DeviceShape::from(&broker.device(&caller, &changed).await?), json)?;
    Ok(ExitCode::SUCCESS)
}

/// What can't be undone must be said twice.
pub fn must_be_meant(id: &str, for_ever: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        for_ever,
        "retiring can't be undone: neither {id} nor its key will ever be accepted again. If that is meant, add --for-ever"
    );
    Ok(())
}

/// `--state`.
pub fn parse_state(word: &str) -> anyhow::Result<DeviceState> {
    DeviceState::parse(word).ok_or_else(|| anyhow::anyhow!("--state is one of registered, active, suspended, retired"))
}

/// Says what a device has become.
pub fn say_changed(device: &DeviceShape, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(device);
    }
    output::line(&format!("{} is {}", device.id, device.state.as_str()))?;
    if device.state == DeviceState::Registered {
        output::line(&format!("next: pairgate pairing open {}", device.id))?;
    }
    Ok(())
}

/// Prints devices.
pub fn list(devices: &[DeviceShape], total: u64, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&devices);
    }
    if devices.is_empty() {
        return output::line("no devices. Register one: pairgate device add lobby-printer-01 --kind printer");
    }
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            let facts = &device.facts;
            let key = device.key.as_ref().map_or_else(|| "-".into(), |key| short(&key.jkt));
            vec![
                device.id.clone(),
                device.state.as_str().into(),
                facts.kind.clone(),
                key,
                facts.room.clone(),
                facts.name.clone(),
            ]
        })
        .collect();
    output::table(&["DEVICE", "STATE", "KIND", "KEY", "ROOM", "NAME"], &rows)?;
    let shown = u64::try_from(rows.len()).unwrap_or(0);
    if shown < total { output::line(&format!("{shown} of {total}; --limit shows more")) } else { Ok(()) }
}

/// A key as people compare it by eye, from its whole thumbprint.
fn short(jkt: &str) -> String {
    bytes32_from_b64u(jkt).map_or_else(|| jkt.to_owned(), |jkt| PinnedKey::short(&jkt))
}

/// Prints a device; for people also its newest records.
pub fn show(device: &DeviceShape, records: &[Record], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(device);
    }
    let facts = &device.facts;
    output::facts(&[
        ("device", device.id.clone()),
        ("state", device.state.as_str().into()),
        ("name", facts.name.clone()),
        ("kind", facts.kind.clone()),
        ("site", facts.site.clone()),
        ("room", facts.room.clone()),
        ("asset tag", facts.asset_tag.clone()),
        ("serial", facts.serial.clone()),
        ("maker", facts.maker.clone()),
        ("model", facts.model.clone()),
        ("note", facts.note.clone()),
        ("key", device.key.as_ref().map_or_else(String::new, |key| key.jkt.clone())),
        ("key assurance", device.key.as_ref().map_or("", |key| key.assurance.as_str()).into()),
        (
            "paired",
            device.key.as_ref().map_or_else(String::new, |key| format!("{} by {}", key.paired_at, key.paired_by)),
        ),
        ("last seen", device.seen_at.clone().unwrap_or_default()),
    ])?;
    output::line("")?;
    crate::cli::audit::print(records)
}
