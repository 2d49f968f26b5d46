//! `pairgate site …`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::broker::{Broker, Caller};
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::config::Config;
use crate::http::api::shapes::SiteShape;
use crate::model::site::Site;

/// Commands on sites.
#[derive(Debug, clap::Subcommand)]
pub enum SiteCommand {
    /// List all sites
    List,
    /// Show one
    Show {
        /// Its id; may be left out if there is only one
        id: Option<String>,
    },
    /// Add one
    Add {
        /// Its id: 2 to 32 characters out of a-z, 0-9 and '-'. It stays for ever
        id: String,
        #[command(flatten)]
        change: SiteChange,
    },
    /// Change one
    Set {
        /// Its id; may be left out if there is only one
        id: Option<String>,
        #[command(flatten)]
        change: SiteChange,
    },
}

/// What may be said of a site.
#[derive(Debug, clap::Args)]
pub struct SiteChange {
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Its networks, 10.2.0.0/16; may be repeated, and replaces those before
    #[arg(long, value_name = "CIDR")]
    network: Option<Vec<ipnet::IpNet>>,
    /// May who registered or paired a device not alone approve its first sign-in?
    #[arg(long, value_name = "true|false")]
    two_persons: Option<bool>,
    /// When nobody is called for what waits: 22:00-06:00, UTC; '' for never
    #[arg(long, value_name = "HOURS")]
    quiet_hours: Option<String>,
}

impl SiteChange {
    /// Only what was given, as the administration API reads it.
    pub fn as_json(&self) -> Map<String, Value> {
        let mut change = Map::new();
        change.extend(self.name.as_ref().map(|name| ("name".to_owned(), json!(name))));
        change.extend(self.network.as_ref().map(|networks| ("networks".to_owned(), json!(networks))));
        change.extend(self.two_persons.map(|two_persons| ("two_persons".to_owned(), json!(two_persons))));
        change.extend(self.quiet_hours.as_ref().map(|hours| ("quiet_hours".to_owned(), json!(hours))));
        change
    }

    fn over(self, site: Site) -> Site {
        Site {
            name: self.name.unwrap_or(site.name),
            networks: self.network.unwrap_or(site.networks),
            two_persons: self.two_persons.unwrap_or(site.two_persons),
            quiet_hours: self.quiet_hours.unwrap_or(site.quiet_hours),
            id: site.id,
        }
    }
}

/// The site of this id, or the only one.
async fn wanted(broker: &Broker, caller: &Caller, id: Option<String>) -> anyhow::Result<Site> {
    let mut sites = broker.sites(caller).await?;
    match (id, sites.len()) {
        (Some(id), _) => {
            let found = sites.into_iter().find(|site| site.id == id);
            found.ok_or_else(|| anyhow::anyhow!("there is no site '{id}'. See: pairgate site list"))
        }
        (None, 1) => Ok(sites.remove(0)),
        (None, count) => anyhow::bail!("there are {count} sites; say which. See: pairgate site list"),
    }
}

/// Runs one.
pub async fn run(command: SiteCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    let site = match command {
        SiteCommand::List => {
            list(&broker.sites(&caller).await?.iter().map(SiteShape::from).collect::<Vec<_>>(), json)?;
            return Ok(ExitCode::SUCCESS);
        }
        SiteCommand::Show { id } => wanted(&broker, &caller, id).await?,
        SiteCommand::Add { id, change } => {
            let site = change.over(Site::plain(&id, &id));
            broker.add_site(&caller, site).await?;
            wanted(&broker, &caller, Some(id)).await?
        }
        SiteCommand::Set { id, change } => {
            let site = wanted(&broker, &caller, id).await?;
            let id = site.id.clone();
            let seen = Broker::site_seen(&site);
            broker.set_site(&caller, Some(&seen), change.over(site)).await?;
            wanted(&broker, &caller, Some(id)).await?
        }
    };
    show(&SiteShape::from(&site), json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a site.
pub fn show(site: &SiteShape, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(site);
    }
    output::facts(&[
        ("site", site.id.clone()),
        ("name", site.name.clone()),
        ("networks", networks(site)),
        ("two persons", if site.two_persons { "yes".into() } else { String::new() }),
        ("quiet hours", site.quiet_hours.clone()),
    ])
}

/// Prints sites.
pub fn list(sites: &[SiteShape], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&sites);
    }
    let row = |site: &SiteShape| {
        let two = if site.two_persons { "yes" } else { "no" };
        vec![site.id.clone(), site.name.clone(), networks(site), two.into(), site.quiet_hours.clone()]
    };
    output::table(&["SITE", "NAME", "NETWORKS", "TWO PERSONS", "QUIET"], &sites.iter().map(row).collect::<Vec<_>>())
}

fn networks(site: &SiteShape) -> String {
    let networks: Vec<String> = site.networks.iter().map(ToString::to_string).collect();
    if networks.is_empty() { "not said".into() } else { networks.join(", ") }
}
