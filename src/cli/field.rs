//! `pairgate device …`, the part of it that people need before the devices: identify, replace, stolen, announce, technician-codes.

use serde_json::json;

use crate::broker::technicians::MadeCode;
use crate::broker::{Broker, Caller};
use crate::cli::output;
use crate::clock::Timestamp;
use crate::http::technician::csv_of;
use crate::model::device::Successor;

/// Commands on devices out there.
#[derive(Debug, clap::Subcommand)]
pub enum FieldCommand {
    /// Have a device show itself: it blinks, beeps or prints, with its next answer
    Identify {
        /// Device id
        id: String,
    },
    /// Report a device stolen: all that it holds is dead at once, and an alert is raised
    Stolen {
        /// Device id
        id: String,
    },
    /// Put another box in a device's place: id, room and history stay, the old key is refused for ever
    Replace {
        /// Device id
        id: String,
        /// Serial number of the new box; it must name the same one to be paired
        #[arg(long, default_value = "")]
        serial: String,
        /// Its number on the organisation's sticker
        #[arg(long, default_value = "")]
        asset_tag: String,
        /// Maker [default: as before]
        #[arg(long, default_value = "")]
        maker: String,
        /// Model [default: as before]
        #[arg(long, default_value = "")]
        model: String,
    },
    /// Note which key a device's maker announced for it; a pairing by that key needs no comparison
    Announce {
        /// Device id
        id: String,
        /// Thumbprint of the key (RFC 7638, base64url)
        #[arg(long, required_unless_present = "none")]
        jkt: Option<String>,
        /// None any more
        #[arg(long, conflicts_with = "jkt")]
        none: bool,
    },
    /// Make one code per device, with which a technician without an account pairs it. Shown once, good once, for 24 hours
    TechnicianCodes {
        /// Device ids
        #[arg(required_unless_present = "site")]
        ids: Vec<String>,
        /// All devices of this site that are not paired yet
        #[arg(long, conflicts_with = "ids")]
        site: Option<String>,
        /// Of that site only this floor
        #[arg(long, requires = "site")]
        floor: Option<String>,
        /// As a list for spreadsheets
        #[arg(long)]
        csv: bool,
    },
}

/// Runs one; the id of the device that was changed, if that is all there is to say.
pub async fn run(
    command: FieldCommand,
    broker: &Broker,
    caller: &Caller,
    json: bool,
) -> anyhow::Result<Option<String>> {
    Ok(match command {
        FieldCommand::Stolen { id } => broker.mark_stolen(caller, &id).await.map(|()| Some(id))?,
        FieldCommand::Announce { id, jkt, .. } => {
            broker.announce_key(caller, &id, jkt.as_deref()).await.map(|()| Some(id))?
        }
        FieldCommand::Identify { id } => {
            let until = broker.identify_device(caller, &id).await?.rfc3339();
            if json {
                output::json(&json!({"device": id, "until": until}))
            } else {
                output::line(&format!("{id} is asked to show itself with its next answer, until {until}"))
            }?;
            None
        }
        FieldCommand::Replace { id, serial, asset_tag, maker, model } => {
            let successor = Successor { serial, asset_tag, maker, model };
            let closes_at = broker.replace_device(caller, &id, successor).await?.rfc3339();
            if json {
                output::json(&json!({"device": id, "closes_at": closes_at}))
            } else {
                output::line(&format!(
                    "the old box is out for ever. Pairing is open for the new {id} until {closes_at}; start it there"
                ))
            }?;
            None
        }
        FieldCommand::TechnicianCodes { ids, site, floor, csv } => {
            let (made, expires_at) = match site {
                Some(site) => broker.make_technician_codes_at(caller, &site, floor.as_deref()).await?,
                None => broker.make_technician_codes(caller, &ids).await?,
            };
            print_codes(broker, &made, expires_at, csv, json)?;
            None
        }
    })
}

fn print_codes(broker: &Broker, made: &[MadeCode], expires_at: Timestamp, csv: bool, json: bool) -> anyhow::Result<()> {
    if json {
        let codes: Vec<_> = made.iter().map(|made| json!({"device": made.device.id, "code": made.code})).collect();
        return output::json(&json!({"codes": codes, "expires_at": expires_at.rfc3339()}));
    }
    if csv {
        // The mark is for programs that open a file.
        return output::line(csv_of(made, expires_at).trim_start_matches('\u{FEFF}').trim_end());
    }
    let rows: Vec<Vec<String>> = made
        .iter()
        .map(|made| {
            let facts = &made.device.facts;
            vec![made.device.id.to_string(), made.code.clone(), facts.floor.clone(), facts.room.clone()]
        })
        .collect();
    output::table(&["DEVICE", "CODE", "FLOOR", "ROOM"], &rows)?;
    let issuer = &broker.endpoints().issuer;
    output::line(&format!("typed at {issuer}/technician, until {}; they are not shown again", expires_at.rfc3339()))
}
