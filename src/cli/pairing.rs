//! `pairgate pairing …`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::broker::field::ManyConfirmed;
use crate::broker::pairing::Confirm;
use crate::broker::{Broker, Caller};
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::config::Config;
use crate::http::api::shapes::{PairingShape, WindowShape};
use crate::id::DeviceId;
use crate::model::device::PinnedKey;
use crate::model::site::DEFAULT_SITE;
use crate::store::WindowSubject;

/// Commands on pairings.
#[derive(Debug, clap::Subcommand)]
pub enum PairingCommand {
    /// Open pairing for one device, or with --site for all registered ones
    Open {
        /// Device id
        #[arg(required_unless_present = "site")]
        device: Option<String>,
        /// The whole site; without a name the site that every installation begins with
        #[arg(long, conflicts_with = "device", value_name = "SITE", num_args = 0..=1, default_missing_value = DEFAULT_SITE)]
        site: Option<String>,
        /// How long
        #[arg(long, default_value_t = 15, value_name = "MINUTES")]
        minutes: u64,
    },
    /// Close it before its time
    Close {
        /// Device id
        #[arg(required_unless_present = "site")]
        device: Option<String>,
        /// The whole site; without a name the site that every installation begins with
        #[arg(long, conflicts_with = "device", value_name = "SITE", num_args = 0..=1, default_missing_value = DEFAULT_SITE)]
        site: Option<String>,
    },
    /// What waits to be confirmed
    List,
    /// Confirm by the six digits that the device shows, or a key for which its present one or its maker vouches
    Confirm {
        /// Device id
        #[arg(required_unless_present = "site")]
        device: Option<String>,
        /// Six digits
        #[arg(long, required_unless_present_any = ["vouched", "manifest"])]
        number: Option<String>,
        /// Compare nothing: the device's present key vouches for the new one
        #[arg(long, conflicts_with = "number")]
        vouched: bool,
        /// Compare nothing: the key is the one that the device's maker announced
        #[arg(long, conflicts_with_all = ["number", "vouched"])]
        manifest: bool,
        /// With --manifest: all that wait at this site
        #[arg(long, conflicts_with = "device", requires = "manifest", value_name = "SITE", num_args = 0..=1, default_missing_value = DEFAULT_SITE)]
        site: Option<String>,
        /// Which pairing, if several wait for this device
        #[arg(long, value_name = "ID")]
        pairing: Option<String>,
    },
    /// Refuse what waits for a device
    Refuse {
        /// Device id
        device: String,
    },
}

/// Runs one.
pub async fn run(command: PairingCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    match command {
        PairingCommand::Open { device, minutes, site } => {
            let subject = subject(device.as_deref(), site)?;
            let closes_at =
                broker.open_window(&caller, &subject, Some(Duration::from_secs(minutes.saturating_mul(60)))).await?;
            say_window(&WindowShape::from(Some(closes_at)), json)?;
        }
        PairingCommand::Close { device, site } => {
            broker.close_window(&caller, &subject(device.as_deref(), site)?).await?;
            say_window(&WindowShape { closes_at: None }, json)?;
        }
        PairingCommand::List => {
            let waiting = broker.open_pairings(&caller, None).await?;
            list(&waiting.iter().map(PairingShape::from).collect::<Vec<_>>(), json)?;
        }
        PairingCommand::Confirm { site: Some(site), .. } => {
            return many(&broker.confirm_announced(&caller, &site).await?, json);
        }
        PairingCommand::Confirm { device, number, manifest, pairing, .. } => {
            let device = device.unwrap_or_default();
            let otherwise = if manifest { Confirm::Manifest } else { Confirm::Vouched };
            let id = match pairing {
                Some(id) => id,
                None => only_one(&broker, &device).await?,
            };
            let device =
                broker.confirm_pairing(&caller, &id, &number.as_deref().map_or(otherwise, Confirm::Number)).await?;
            let key = device.key.as_ref().map_or_else(String::new, |key| PinnedKey::short(&key.jkt));
            if json {
                output::json(&json!({"device": device.id, "key": key}))
            } else {
                output::line(&format!("paired. From now on only key {key} is {}", device.id))
            }?;
        }
        PairingCommand::Refuse { device } => {
            let waiting = broker.open_pairings(&caller, Some(&DeviceId::new(&device)?)).await?;
            for found in &waiting {
                broker.decline_pairing(&caller, found.pairing.id.as_str()).await?;
            }
            say_refused(waiting.len(), json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says until when pairing is open.
pub fn say_window(window: &WindowShape, json: bool) -> anyhow::Result<()> {
    match &window.closes_at {
        _ if json => output::json(window),
        Some(closes_at) => output::line(&format!("pairing is open until {closes_at}; start it on the device")),
        None => output::line("pairing is closed"),
    }
}

/// Says how many pairings were refused.
pub fn say_refused(count: usize, json: bool) -> anyhow::Result<()> {
    if json { output::json(&json!({"refused": count})) } else { output::line(&format!("refused: {count}")) }
}

fn subject(device: Option<&str>, site: Option<String>) -> anyhow::Result<WindowSubject> {
    Ok(match device {
        Some(id) => WindowSubject::Device(DeviceId::new(id)?),
        None => WindowSubject::Site(site.unwrap_or_else(|| DEFAULT_SITE.into())),
    })
}

/// What became of many; the exit code says whether all were paired.
fn many(outcome: &ManyConfirmed, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        let left: Vec<_> = outcome.left.iter().map(|(id, why)| json!({"device": id, "why": why})).collect();
        output::json(&json!({"paired": outcome.paired, "left": left}))?;
    } else {
        output::line(&format!("paired: {}", outcome.paired.len()))?;
        for (id, why) in &outcome.left {
            output::line(&format!("not paired: {id}: {why}"))?;
        }
    }
    Ok(if outcome.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn only_one(broker: &Broker, device: &str) -> anyhow::Result<String> {
    let waiting = broker.open_pairings(&Caller::command_line(), Some(&DeviceId::new(device)?)).await?;
    match waiting.as_slice() {
        [one] => Ok(one.pairing.id.to_string()),
        [] => anyhow::bail!(
            "nothing waits for {device}. Open pairing (pairgate pairing open {device}), then start it on the device"
        ),
        _ => anyhow::bail!(
            "{} keys wait for {device}; one of them may be an attacker's. See `pairgate pairing list`, and name one with --pairing",
            waiting.len()
        ),
    }
}

/// Prints what waits.
pub fn list(waiting: &[PairingShape], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&waiting);
    }
    if waiting.is_empty() {
        return output::line("nothing waits");
    }
    let rows: Vec<Vec<String>> = waiting
        .iter()
        .map(|pairing| {
            let state = if pairing.conflict {
                "CONFLICT: several keys"
            } else if !pairing.ready {
                "waits for the device"
            } else if pairing.announced {
                "verified: announced by its maker"
            } else if pairing.verified {
                "verified by its present key"
            } else {
                "compare the digits"
            };
            vec![
                pairing.device.clone(),
                pairing.key.clone(),
                pairing.key_assurance.as_str().into(),
                state.into(),
                pairing.room.clone(),
                pairing.pairing.clone(),
            ]
        })
        .collect();
    output::table(&["DEVICE", "KEY", "ASSURANCE", "STATE", "ROOM", "PAIRING"], &rows)
}
