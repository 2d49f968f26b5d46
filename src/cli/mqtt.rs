//! `pairgate mqtt …`: rules for the organisation's broker, and whether it keeps them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use crate::broker::connections::unpaired_client_id;
use crate::cli::output;
use crate::cli::serve::broker_to_look_at;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::mqtt::{Mqtt, OutsideBroker, read_secret};
use crate::id::DeviceId;
use crate::mqtt::acl;
use crate::mqtt::check::{self, Device, Finding, Plan, State};
use crate::mqtt::topics::Topics;
use crate::oauth::certificate::Certificate;
use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use crate::secret::{Random, b64u};

/// Commands on MQTT.
#[derive(Debug, clap::Subcommand)]
pub enum MqttCommand {
    /// Print the rules for Mosquitto: who may do what there
    Acl {
        /// For the Mosquitto at which devices are paired
        #[arg(long)]
        pairing: bool,
    },
    /// Try at the broker what Pairgate and a device need, and what nobody must be able to do
    Check(CheckArgs),
}

/// As what the device of the check connects. Without any, it signs a password that the broker has to show to Pairgate.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// PEM file with a certificate whose common name is a device id that is nobody's
    #[arg(long, value_name = "FILE", requires = "device_key", conflicts_with = "user_name")]
    device_certificate: Option<PathBuf>,
    /// PEM file with its key
    #[arg(long, value_name = "FILE", requires = "device_certificate")]
    device_key: Option<PathBuf>,
    /// User name that devices share that are to be paired
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user_name: Option<String>,
    /// File with its password
    #[arg(long, value_name = "FILE", requires = "user_name")]
    password_file: Option<PathBuf>,
    /// Port to which the device connects [default: that of mqtt.url]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

/// Runs one; exit code 1 if the check finds anything wrong.
///
/// # Errors
/// If configuration lacks what the command needs.
pub async fn run(command: MqttCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let mqtt = config.mqtt.clone().unwrap_or_default();
    match command {
        MqttCommand::Acl { pairing } => {
            let text = rules(&mqtt, pairing)?;
            if json {
                output::json(&json!({"acl": text}))?
            } else {
                output::line(text.trim_end())?
            }
            Ok(ExitCode::SUCCESS)
        }
        MqttCommand::Check(args) => {
            let plan = plan(&args, &mqtt, config).await?;
            check_and_say(&plan, json).await
        }
    }
}

async fn check_and_say(plan: &Plan, json: bool) -> anyhow::Result<ExitCode> {
    let mut said = Ok(());
    let mut tell = |finding: &Finding| {
        if !json && said.is_ok() {
            said = lines(finding).iter().try_for_each(|line| output::line(line));
        }
    };
    let findings = check::run(plan, Random::system(), &mut tell).await?;
    said?;
    let wrong = findings.iter().filter(|finding| finding.state == State::Wrong).count();
    if json {
        let list: Vec<_> = findings.iter().map(object).collect();
        output::json(&json!({"checks": list}))?;
    } else {
        let not_tried = findings.iter().filter(|finding| finding.state == State::NotTried).count();
        output::line(&format!("{wrong} wrong, {not_tried} not tried, of {}", findings.len()))?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const fn word(state: State) -> &'static str {
    match state {
        State::Good => "ok",
        State::Wrong => "WRONG",
        State::NotTried => "not tried",
    }
}

/// A finding for people: one line, and three more if something is wrong.
fn lines(finding: &Finding) -> Vec<String> {
    let words = finding.trial.words();
    let detail = if finding.detail.is_empty() { String::new() } else { format!(": {}", finding.detail) };
    let mut lines = vec![format!("{:<10} {}{detail}", word(finding.state), words.what)];
    if finding.state == State::Wrong {
        let more = [words.means.to_owned(), format!("Mosquitto: {}", words.mosquitto), format!("EMQX: {}", words.emqx)];
        lines.extend(more.map(|line| format!("{:<10} {line}", "")));
    }
    lines
}

fn object(finding: &Finding) -> serde_json::Value {
    let words = finding.trial.words();
    let mut object = json!({"check": words.what, "state": word(finding.state), "detail": finding.detail});
    if finding.state == State::Wrong {
        object["means"] = words.means.into();
        object["change"] = json!({"mosquitto": words.mosquitto, "emqx": words.emqx});
    }
    object
}

async fn plan(args: &CheckArgs, mqtt: &Mqtt, config: &Config) -> anyhow::Result<Plan> {
    let Some(broker) = mqtt.broker.clone() else {
        bail!("mqtt.url is not set: there is no broker to check. Pairgate's own endpoint (mqtt.listen) needs none")
    };
    let login = match (&broker.user_name, &broker.password_file) {
        (Some(name), Some(path)) => Some((name.clone(), read_secret("mqtt.password_file", path)?.0)),
        _ => None,
    };
    // A client id of its own, so that it does not push off the node that serves; Mosquitto may make the certificate's name of it.
    let mut client_ids = vec![format!("{}-check", broker.client_id)];
    if let Some((certificate, _)) = &broker.certificate {
        client_ids.extend(common_name("mqtt.certificate", certificate).ok());
    }
    let port = args.port.unwrap_or(broker.port);
    let device = device(args, port, config).await?;
    Ok(Plan { broker, login, client_ids, topics: Topics::new(&mqtt.prefix), device })
}

async fn device(args: &CheckArgs, port: u16, config: &Config) -> anyhow::Result<Device> {
    if let (Some(certificate), Some(key)) = (&args.device_certificate, &args.device_key) {
        let id = DeviceId::new(&common_name("--device-certificate", certificate)?)?;
        return Ok(Device {
            client_id: id.as_str().to_owned(),
            id,
            certificate: Some((certificate.clone(), key.clone())),
            login: None,
            is_paired: true,
            is_shared: false,
            port,
        });
    }
    let random = Random::system();
    let id = check::passing_device(&random)?;
    let key = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256)?)?;
    let client_id = unpaired_client_id(&id, &key.public().jkt());
    let (login, is_shared) = match (&args.user_name, &args.password_file) {
        (Some(name), Some(path)) => ((name.clone(), read_secret("--password-file", path)?.0), true),
        _ => {
            let issuer = broker_to_look_at(config).await?.endpoints().issuer.clone();
            let iat = Clock::system().now().seconds();
            // Used for several connections: whoever has no pinned key may do that.
            let claims =
                json!({"iss": id, "aud": issuer, "iat": iat, "exp": iat + 300, "jti": b64u(&random.bytes32()?)});
            ((id.as_str().to_owned(), key.sign("mqtt+jwt", &claims, true)?), false)
        }
    };
    Ok(Device { id, client_id, certificate: None, login: Some(login), is_paired: false, is_shared, port })
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
    common_name("mqtt.certificate", certificate).map(Some)
}

/// The common name of a certificate.
///
/// # Errors
/// If the file can't be read, or names nobody in a line of its own.
fn common_name(setting: &str, path: &Path) -> anyhow::Result<String> {
    let wrong = |why: String| anyhow::anyhow!("{setting}: {}: {why}", path.display());
    let der = CertificateDer::from_pem_file(path).map_err(|error| wrong(error.to_string()))?;
    let name = Certificate::common_name(&der).filter(|name| !name.chars().any(char::is_control));
    name.ok_or_else(|| wrong("has no common name, by which Mosquitto would know it".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::trial::Trial;

    #[test]
    fn what_is_wrong_comes_with_what_to_change() {
        let finding = |state, detail: &str| Finding { trial: Trial::ReadAll, state, detail: detail.into() };
        assert_eq!(lines(&finding(State::Good, "")), ["ok         '#' brings a device nothing of others"]);
        let not_tried = lines(&finding(State::NotTried, "no reason"));
        assert_eq!(not_tried, ["not tried  '#' brings a device nothing of others: no reason"]);
        let wrong = lines(&finding(State::Wrong, "it got one"));
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert!(wrong[2].contains("Mosquitto: acl_file") && wrong[3].contains("EMQX: "), "{wrong:?}");
        let value = object(&finding(State::Wrong, "it got one"));
        assert!(value["change"]["mosquitto"].is_string() && value["state"] == "WRONG", "{value}");
    }
}
