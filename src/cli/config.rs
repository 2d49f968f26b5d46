//! `pairgate config …`.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::output;
use crate::config::{Config, EXAMPLE};

const DAY: u64 = 24 * 3600;

/// Commands on configuration.
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its default, as a file to begin with
    Example,
    /// Check the file and the environment
    Check,
}

/// Runs one.
pub fn run(
    command: ConfigCommand,
    load: impl FnOnce() -> anyhow::Result<Config>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Example => output::line(EXAMPLE.trim_end())?,
        ConfigCommand::Check => {
            let config = load()?;
            let roots = config.load_attestation_roots()?;
            let kinds: Vec<&str> = config.kinds.iter().map(|kind| kind.id.as_str()).collect();
            let proxies: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
            if json {
                output::json(&json!({
                    "data": config.data, "listen": config.listen, "public_url": config.public_url, "trusted_proxies": proxies,
                    "master_key_from_environment": config.master_key.is_some(), "kinds": kinds,
                    "attestation_roots": roots.len(), "signing_key_lifetime_days": config.signing_key_lifetime.as_secs() / DAY,
                }))?;
                return Ok(ExitCode::SUCCESS);
            }
            output::facts(&[
                ("data", config.data.display().to_string()),
                ("listen", config.listen.to_string()),
                (
                    "public_url",
                    config.public_url.map_or_else(|| format!("http://{}", config.listen), |url| url.to_string()),
                ),
                ("trusted_proxies", if proxies.is_empty() { "none".into() } else { proxies.join(", ") }),
                (
                    "master key",
                    if config.master_key.is_some() {
                        "from the environment".into()
                    } else {
                        "file master.key in the data directory".into()
                    },
                ),
                ("signing keys", format!("rotated every {} days", config.signing_key_lifetime.as_secs() / DAY)),
                ("kinds", kinds.join(", ")),
                ("attestation roots", roots.len().to_string()),
            ])?;
            output::line("the configuration is good")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
