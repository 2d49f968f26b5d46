//! `pairgate site …`.

use std::process::ExitCode;

use crate::broker::Caller;
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::config::Config;
use crate::http::api::shapes::SiteShape;
use crate::model::site::DEFAULT_SITE;

/// Commands on the site.
#[derive(Debug, clap::Subcommand)]
pub enum SiteCommand {
    /// Show name and networks
    Show,
    /// Change them
    Set {
        /// What people call it
        #[arg(long)]
        name: Option<String>,
        /// Its networks, 10.2.0.0/16; may be repeated, and replaces those before
        #[arg(long, value_name = "CIDR")]
        network: Option<Vec<ipnet::IpNet>>,
    },
}

/// Runs one.
pub async fn run(command: SiteCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    let missing = || anyhow::anyhow!("the site is missing from the database");
    let mut site = broker.site(&caller, DEFAULT_SITE).await?.ok_or_else(missing)?;
    if let SiteCommand::Set { name, network } = command {
        site.name = name.unwrap_or(site.name);
        site.networks = network.unwrap_or(site.networks);
        broker.set_site(&caller, site).await?;
        site = broker.site(&caller, DEFAULT_SITE).await?.ok_or_else(missing)?;
    }
    show(&SiteShape::from(&site), json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a site.
pub fn show(site: &SiteShape, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(site);
    }
    let networks: Vec<String> = site.networks.iter().map(ToString::to_string).collect();
    let networks = if networks.is_empty() { "not said".into() } else { networks.join(", ") };
    output::facts(&[("site", site.id.clone()), ("name", site.name.clone()), ("networks", networks)])
}
