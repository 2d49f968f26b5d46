//! `pairgate mqtt …`: rules for the organisation's broker.

use std::path::Path;
use std::process::ExitCode;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use crate::cli::output;
use crate::config::Config;
use crate::config::mqtt::{Mqtt, OutsideBroker};
use crate::mqtt::acl;
use crate::mqtt::topics::Topics;
use crate::oauth::certificate::Certificate;

/// Commands on MQTT.
#[derive(Debug, clap::Subcommand)]
pub enum MqttCommand {
    /// Print the rules for Mosquitto: who may do what there
    Acl {
        /// For the Mosquitto at which devices are paired
        #[arg(long)]
        pairing: bool,
    },
}

/// Runs one.
///
/// # Errors
/// If configuration lacks what the command needs.
pub fn run(command: &MqttCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let mqtt = config.mqtt.clone().unwrap_or_default();
    match command {
        MqttCommand::Acl { pairing } => {
            let text = rules(&mqtt, *pairing)?;
            if json { output::json(&json!({"acl": text}))? } else { output::line(text.trim_end())? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rules(mqtt: &Mqtt, is_pairing: bool) -> anyhow::Result<String> {
    let topics = Topics::new(&mqtt.prefix);
    if is_pairing {
        return Ok(acl::for_pairing(&topics));
    }
    let name = mqtt.broker.as_ref().map(user_name).transpose()?.flatten();
    Ok(acl::for_paired(&topics, name.as_deref().unwrap_or(acl::PAIRGATE)))
}

/// As what Pairgate is known there. A certificate's common name, as Mosquitto takes it, before a name that is only said.
fn user_name(broker: &OutsideBroker) -> anyhow::Result<Option<String>> {
    let Some((certificate, _)) = &broker.certificate else { return Ok(broker.user_name.clone()) };
    common_name(certificate).map(Some)
}

/// The common name of a certificate.
///
/// # Errors
/// If the file can't be read, or names nobody in a line of its own.
fn common_name(path: &Path) -> anyhow::Result<String> {
    let wrong = |why: String| anyhow::anyhow!("mqtt.certificate: {}: {why}", path.display());
    let der = CertificateDer::from_pem_file(path).map_err(|error| wrong(error.to_string()))?;
    let name = Certificate::common_name(&der).filter(|name| !name.chars().any(char::is_control));
    name.ok_or_else(|| wrong("has no common name, by which Mosquitto would know us".into()))
}
