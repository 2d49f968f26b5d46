//! `pairgate device …`.

use std::process::ExitCode;

use serde_json::json;

use crate::broker::approvers::Approvers;
use crate::broker::{Broker, Caller};
use crate::cli::field::{self, FieldCommand};
use crate::cli::serve::broker_beside;
use crate::cli::{device_file, output};
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
    /// Register all devices of a CSV or XLSX file, or none
    Import(device_file::ImportArgs),
    /// Print devices as CSV, in the columns of an import; formulas are neutralised
    Export(device_file::ExportArgs),
    /// Print an empty list with all columns and one example
    Template,
    /// Change what is known of a device; what is not given stays
    Change(ChangeArgs),
    /// Stop a device; reversible. All that it holds is dead at once
    Suspend {
        /// Device id
        id: String,
    },
    /// Let a suspended device on again
    Resume {
        /// Device id
        id: String,
        /// It was reported stolen, is back, and was in nobody else's hands
        #[arg(long)]
        found: bool,
    },
    /// Show or change who may approve a device's sign-ins, if not everybody who may at its site
    Approvers {
        /// Device id
        id: String,
        /// Put this person on its list; may be repeated. From then on only who is on it may
        #[arg(long, value_name = "NAME")]
        add: Vec<String>,
        /// Take this person off its list; may be repeated
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
    },
    #[command(flatten)]
    Field(FieldCommand),
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

/// Arguments of `device change`.
#[derive(Debug, clap::Args)]
pub struct ChangeArgs {
    /// Device id
    id: String,
    /// Kind; only before it is paired
    #[arg(long)]
    kind: Option<String>,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Serial number; only before it is paired
    #[arg(long)]
    serial: Option<String>,
    /// Number on the organisation's sticker
    #[arg(long)]
    asset_tag: Option<String>,
    /// Maker
    #[arg(long)]
    maker: Option<String>,
    /// Model
    #[arg(long)]
    model: Option<String>,
    /// Floor
    #[arg(long)]
    floor: Option<String>,
    /// Room
    #[arg(long)]
    room: Option<String>,
    /// Who answers for it
    #[arg(long)]
    owner: Option<String>,
    /// Note
    #[arg(long)]
    note: Option<String>,
    /// Site
    #[arg(long)]
    site: Option<String>,
}

impl ChangeArgs {
    /// The facts after it.
    fn applied(self, facts: DeviceFacts) -> DeviceFacts {
        DeviceFacts {
            kind: self.kind.unwrap_or(facts.kind),
            site: self.site.unwrap_or(facts.site),
            name: self.name.unwrap_or(facts.name),
            serial: self.serial.unwrap_or(facts.serial),
            asset_tag: self.asset_tag.unwrap_or(facts.asset_tag),
            maker: self.maker.unwrap_or(facts.maker),
            model: self.model.unwrap_or(facts.model),
            floor: self.floor.unwrap_or(facts.floor),
            room: self.room.unwrap_or(facts.room),
            owner: self.owner.unwrap_or(facts.owner),
            note: self.note.unwrap_or(facts.note),
        }
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
        DeviceCommand::Import(args) => return device_file::import(args, &broker, json).await,
        DeviceCommand::Change(args) => {
            let id = args.id.clone();
            let facts = broker.device(&caller, &id).await?.facts;
            broker.change_device_facts(&caller, &id, None, args.applied(facts)).await.map(|()| id)?
        }
        DeviceCommand::Suspend { id } => broker.suspend_device(&caller, &id).await.map(|()| id)?,
        DeviceCommand::Resume { id, found: true } => broker.resume_stolen(&caller, &id, &id).await.map(|()| id)?,
        DeviceCommand::Resume { id, found: false } => broker.resume_device(&caller, &id).await.map(|()| id)?,
        DeviceCommand::Field(command) => match field::run(command, &broker, &caller, json).await? {
            Some(changed) => changed,
            None => return Ok(ExitCode::SUCCESS),
        },
        DeviceCommand::Retire { id, for_ever } => {
            must_be_meant(&id, for_ever)?;
            broker.retire_device(&caller, &id).await.map(|()| id)?
        }
        DeviceCommand::Approvers { id, add, remove } => {
            for name in &add {
                broker.add_approver(&caller, &id, name).await?;
            }
            for name in &remove {
                broker.remove_approver(&caller, &id, name).await?;
            }
            approvers(&broker.approvers(&caller, &id).await?, json)?;
            return Ok(ExitCode::SUCCESS);
        }
        DeviceCommand::Export(args) => return export(args, &broker, &caller, json).await,
        DeviceCommand::Template => {
            output::line(broker.import_template().trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        DeviceCommand::List { text, state, limit } => {
            let state = state.as_deref().map(parse_state).transpose()?;
            let query = DeviceQuery { text: text.unwrap_or_default(), state, limit, ..DeviceQuery::default() };
            let (devices, total) = broker.devices(&caller, &query).await?;
            list(&devices.iter().map(DeviceShape::from).collect::<Vec<_>>(), total, json)?;
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

async fn export(
    args: device_file::ExportArgs,
    broker: &Broker,
    caller: &Caller,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if json && !args.is_csv() {
        let (devices, _) = broker.devices(caller, &args.query()).await?;
        output::json(&devices.iter().map(DeviceShape::from).collect::<Vec<_>>())?;
    } else {
        output::line(broker.export_devices(caller, &args.query()).await?.trim_end())?;
    }
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

fn approvers(approvers: &Approvers, json: bool) -> anyhow::Result<()> {
    let Approvers { device, listed, others } = approvers;
    if json {
        return output::json(&json!({"device": device.id, "approvers": listed, "restricted": !listed.is_empty()}));
    }
    if listed.is_empty() {
        let who = if others.is_empty() { "nobody yet".into() } else { others.join(", ") };
        return output::line(&format!(
            "everybody who may approve at {} may approve {}: {who}",
            device.facts.site, device.id
        ));
    }
    output::line(&format!("only these may approve {}: {}", device.id, listed.join(", ")))
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
        ("floor", facts.floor.clone()),
        ("room", facts.room.clone()),
        ("owner", facts.owner.clone()),
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
        ("announced key", device.announced_jkt.clone().unwrap_or_default()),
        ("stolen", device.stolen_at.clone().unwrap_or_default()),
        ("last seen", device.seen_at.clone().unwrap_or_default()),
    ])?;
    output::line("")?;
    crate::cli::audit::print(records)
}
