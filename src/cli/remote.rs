//! `--server URL`: the same commands against another machine's broker, through its administration API. What they print is made by the same functions.
//!
//! What a token may not do, and what belongs to a machine (its keys, its certificate, its configuration), is refused here with the way that there is.

use std::process::ExitCode;

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};

use crate::broker::Caller;
use crate::cli::Command;
use crate::cli::api_client::Api;
use crate::cli::audit::{self, AuditCommand, Log};
use crate::cli::device::{self, DeviceCommand, HISTORY};
use crate::cli::operator::{self, OperatorCommand, PeopleCommand};
use crate::cli::output;
use crate::cli::pairing::{self, PairingCommand};
use crate::cli::serve::broker_to_look_at;
use crate::cli::site::{self, SiteCommand};
use crate::config::{Config, Remote};
use crate::http::api::shapes::{
    DeviceShape, Listed, OperatorShape, PairingShape, SiteShape, WhoamiShape, WindowShape, rights, roles,
};
use crate::id::DeviceId;
use crate::model::site::DEFAULT_SITE;
use crate::store::AuditQuery;

/// No body.
const EMPTY: Option<()> = None;
/// Rows of one request.
const ROWS: usize = 1000;
/// What is no command of the administration API.
const NOT_FROM_HERE: &str = "this can't be done from another machine yet; run it on the broker's machine";

/// Runs a command there.
pub async fn run(command: Command, remote: &Remote, json: bool) -> anyhow::Result<ExitCode> {
    let api = Api::new(remote)?;
    match command {
        Command::Device(command) => devices(&api, command, json).await?,
        Command::Pairing(command) => pairings(&api, command, json).await?,
        Command::Site(command) => sites(&api, command, json).await?,
        Command::Operator(OperatorCommand::People(PeopleCommand::List)) => {
            let people: Listed<OperatorShape> = api.get(&["operators"], &[]).await?;
            operator::list(&people.items, json)?;
        }
        Command::Audit(AuditCommand::Tail { lines, refusals, follow }) => {
            return audit::tail(&Log::There(&api), lines, refusals, follow, json).await;
        }
        Command::Whoami => say_who(&api.get(&["whoami"], &[]).await?, json)?,
        Command::Operator(_) | Command::Token(_) => {
            bail!(
                "a token neither manages people nor tokens. Do it on the page {}/settings, or run it on the broker's machine",
                issuer(&api).await
            )
        }
        _ => bail!("this command works on the broker's own files: run it on the broker's machine, without --server"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn devices(api: &Api, command: DeviceCommand, json: bool) -> anyhow::Result<()> {
    let act = async |id: &str, action: &str, body: Option<Value>| {
        api.call::<DeviceShape>(Method::POST, &["devices", id, action], body).await
    };
    let changed = match command {
        DeviceCommand::Add(args) => {
            let (id, facts) = args.into_parts();
            api.call(Method::POST, &["devices"], Some(json!({"id": id, "facts": facts}))).await?
        }
        DeviceCommand::Suspend { id } => act(&id, "suspend", None).await?,
        DeviceCommand::Resume { found: true, .. } => {
            bail!("this needs a person: open {}/devices", issuer(api).await)
        }
        DeviceCommand::Resume { id, found: false } => act(&id, "resume", None).await?,
        DeviceCommand::Retire { id, for_ever } => {
            device::must_be_meant(&id, for_ever)?;
            bail!("this needs a person: open {}/devices", issuer(api).await)
        }
        DeviceCommand::List { text, state, limit } => {
            let mut wanted = vec![("q", text.unwrap_or_default())];
            wanted.extend(
                state
                    .map(|state| device::parse_state(&state))
                    .transpose()?
                    .map(|state| ("state", state.as_str().into())),
            );
            let (devices, total) = list_devices(api, &wanted, usize::try_from(limit)?).await?;
            return device::list(&devices, total, json);
        }
        DeviceCommand::Show { id } => {
            let shape: DeviceShape = api.get(&["devices", &id], &[]).await?;
            let query = AuditQuery { device: Some(DeviceId::new(&shape.id)?), limit: HISTORY, ..AuditQuery::default() };
            let records = if json { Vec::new() } else { api.records(&query).await? };
            return device::show(&shape, &records, json);
        }
        DeviceCommand::Import(_)
        | DeviceCommand::Export(_)
        | DeviceCommand::Template
        | DeviceCommand::Change(_)
        | DeviceCommand::Approvers { .. }
        | DeviceCommand::Field(_) => bail!(NOT_FROM_HERE),
    };
    device::say_changed(&changed, json)
}

/// At most so many devices, and how many there are.
async fn list_devices(api: &Api, wanted: &[(&str, String)], limit: usize) -> anyhow::Result<(Vec<DeviceShape>, u64)> {
    let (mut devices, mut after): (Vec<DeviceShape>, Option<String>) = (Vec::new(), None);
    loop {
        let mut query = wanted.to_vec();
        query.push(("limit", limit.saturating_sub(devices.len()).clamp(1, ROWS).to_string()));
        query.extend(after.map(|after| ("after", after)));
        let page: Listed<DeviceShape> = api.get(&["devices"], &query).await?;
        devices.extend(page.items);
        after = page.next;
        if after.is_none() || devices.len() >= limit {
            devices.truncate(limit);
            return Ok((devices, page.total.unwrap_or(0)));
        }
    }
}

async fn pairings(api: &Api, command: PairingCommand, json: bool) -> anyhow::Result<()> {
    match command {
        PairingCommand::Open { device, minutes, site } => {
            let body = Some(json!({"minutes": minutes}));
            let window: WindowShape = api.call(Method::PUT, &window(device.as_deref(), site.as_deref()), body).await?;
            pairing::say_window(&window, json)
        }
        PairingCommand::Close { device, site } => {
            let window: WindowShape =
                api.call(Method::DELETE, &window(device.as_deref(), site.as_deref()), EMPTY).await?;
            pairing::say_window(&window, json)
        }
        PairingCommand::List => {
            let waiting: Listed<PairingShape> = api.get(&["pairings"], &[]).await?;
            pairing::list(&waiting.items, json)
        }
        PairingCommand::Refuse { device } => {
            let waiting: Listed<PairingShape> = api.get(&["pairings"], &[("device", device)]).await?;
            for found in &waiting.items {
                api.call::<DeviceShape>(Method::POST, &["pairings", &found.pairing, "decline"], EMPTY).await?;
            }
            pairing::say_refused(waiting.items.len(), json)
        }
        PairingCommand::Confirm { .. } => bail!("this needs a person: open {}/pair", issuer(api).await),
    }
}

fn window<'a>(device: Option<&'a str>, site: Option<&'a str>) -> [&'a str; 3] {
    match device {
        Some(id) => ["devices", id, "window"],
        None => ["sites", site.unwrap_or(DEFAULT_SITE), "window"],
    }
}

/// The site of this id, or the only one that the token knows of.
async fn wanted_site(api: &Api, id: Option<String>) -> anyhow::Result<SiteShape> {
    if let Some(id) = id {
        return api.get(&["sites", &id], &[]).await;
    }
    let mut sites = api.get::<Listed<SiteShape>>(&["sites"], &[]).await?.items;
    match sites.len() {
        1 => Ok(sites.remove(0)),
        count => bail!("there are {count} sites; say which. See: pairgate site list"),
    }
}

async fn sites(api: &Api, command: SiteCommand, json: bool) -> anyhow::Result<()> {
    let site = match command {
        SiteCommand::List => {
            let sites: Listed<SiteShape> = api.get(&["sites"], &[]).await?;
            return site::list(&sites.items, json);
        }
        SiteCommand::Show { id } => wanted_site(api, id).await?,
        SiteCommand::Add { id, change } => {
            let mut new = change.as_json();
            new.entry("name").or_insert_with(|| json!(id));
            new.insert("id".into(), json!(id));
            api.call(Method::POST, &["sites"], Some(new)).await?
        }
        SiteCommand::Set { id, change } => {
            let site = wanted_site(api, id).await?;
            api.call(Method::PATCH, &["sites", &site.id], Some(change.as_json())).await?
        }
    };
    site::show(&site, json)
}

/// Where the pages are: the API may be at another address.
async fn issuer(api: &Api) -> String {
    match api.get::<WhoamiShape>(&["whoami"], &[]).await {
        Ok(who) => who.issuer,
        Err(_) => api.server().to_owned(),
    }
}

fn say_who(who: &WhoamiShape, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(who);
    }
    output::facts(&[
        ("acting as", who.actor.clone()),
        ("rights", rights(&who.roles).words()),
        ("broker", format!("{}, version {}", who.issuer, who.version)),
    ])
}

/// `pairgate whoami` without `--server`: whoever has a shell on the broker's machine.
pub async fn whoami_here(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let (broker, caller) = (broker_to_look_at(config).await?, Caller::command_line());
    let who = WhoamiShape {
        actor: caller.actor.to_string(),
        roles: roles(&caller.rights),
        issuer: broker.endpoints().issuer.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    say_who(&who, json)?;
    Ok(ExitCode::SUCCESS)
}
