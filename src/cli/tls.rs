//! `pairgate tls …`: the local certificate authority.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::output;
use crate::cli::transport::hosts;
use crate::clock::Clock;
use crate::config::{Config, Tls};
use crate::tls::files::Facts;
use crate::tls::local_ca::LocalCa;

/// Commands on the server's certificate.
#[derive(Debug, clap::Subcommand)]
pub enum TlsCommand {
    /// Make a certificate authority and the server's first certificate
    Init {
        /// Host name or address that the certificate is for, besides those of the configuration
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Make a new authority although there is one: devices that pinned it must be told
        #[arg(long)]
        force: bool,
    },
    /// Print the authority's certificate: what devices and browsers must be told to believe
    Ca,
    /// Show authority and certificate, and how long they last
    Show,
    /// Renew the server's certificate now
    Renew {
        /// As in `init`
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
    },
}

/// Runs one.
pub fn run(command: TlsCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let (ca, now) = (LocalCa::in_data(&config.data), Clock::system().now());
    let all = |more: Vec<String>| {
        let mut all = hosts([config.public_url.as_ref(), config.client.url.as_ref()]);
        all.extend(more);
        if all.is_empty() {
            all.extend([config.listen.ip().to_string(), "localhost".into()]);
        }
        all
    };
    match command {
        TlsCommand::Init { hosts, force } => {
            let hosts = all(hosts);
            ca.init(&hosts, now, force)?;
            show(&ca, now, json)?;
            if !json {
                output::line(&format!("the certificate is for {}", hosts.join(", ")))?;
                if config.tls != Some(Tls::LocalCa) {
                    output::line("to serve with it, set in pairgate.toml:\n  [tls]\n  local_ca = true")?;
                }
                output::line(
                    "devices pin the authority when they are paired; give it to others with: pairgate tls ca",
                )?;
            }
        }
        TlsCommand::Ca => {
            let pem = ca.ca_pem()?;
            if json {
                let [authority, _] = ca.facts();
                output::json(&json!({"ca": pem, "sha256": authority.map(|facts| facts.fingerprint)}))?;
            } else {
                output::line(pem.trim_end())?;
            }
        }
        TlsCommand::Show => show(&ca, now, json)?,
        TlsCommand::Renew { hosts } => {
            ca.renew(&all(hosts), now)?;
            show(&ca, now, json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(ca: &LocalCa, now: crate::clock::Timestamp, json: bool) -> anyhow::Result<()> {
    ca.ca_pem()?;
    let [authority, leaf] = ca.facts();
    let days = |facts: &Facts| facts.not_after.since(now).as_secs() / 86_400;
    if json {
        let object = |facts: &Option<Facts>| {
            facts.as_ref().map(|facts| {
                json!({"sha256": facts.fingerprint, "not_after": facts.not_after.rfc3339(), "days_left": days(facts)})
            })
        };
        return output::json(&json!({"authority": object(&authority), "certificate": object(&leaf)}));
    }
    let text = |facts: &Option<Facts>| {
        facts.as_ref().map_or_else(
            || "none that can be read; run: pairgate tls renew".to_owned(),
            |facts| {
                format!("until {} ({} days), SHA-256 {}", facts.not_after.rfc3339(), days(facts), facts.fingerprint)
            },
        )
    };
    output::facts(&[("authority", text(&authority)), ("certificate", text(&leaf))])
}
