//! `pairgate operator …`; its keys and signed commands are in `operator_key.rs`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::json;

use crate::broker::Caller;
use crate::cli::operator_key::{self, KeyCommand, SignCommand};
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::config::Config;
use crate::http::api::shapes::{OperatorShape, rights};
use crate::model::operator::{EVERYWHERE, Role};
use crate::simulator::screen::{Paint, terminal_qr};

/// Commands on operators.
#[derive(Debug, clap::Subcommand)]
pub enum OperatorCommand {
    #[command(flatten)]
    People(PeopleCommand),
    /// Keys that people sign commands with: add, list, remove, make
    #[command(subcommand)]
    Key(KeyCommand),
    /// Sign a command, to be published on operations/commands; prints it and nothing else
    #[command(subcommand)]
    Sign(SignCommand),
}

impl OperatorCommand {
    /// Does it need nothing of a broker?
    pub const fn is_of_this_machine(&self) -> bool {
        matches!(self, Self::Key(KeyCommand::New { .. }) | Self::Sign(_))
    }
}

/// Commands on people.
#[derive(Debug, clap::Subcommand)]
pub enum PeopleCommand {
    /// Add a person
    Add {
        /// Name, as in the audit log
        name: String,
        /// What the person may do
        #[arg(long, value_enum)]
        role: Role,
    },
    /// Make a sign-in link: good once, for 10 minutes
    Link {
        /// Name
        name: String,
    },
    /// List people
    List,
    /// Give a person a role at a site, or take it away
    Role {
        /// Name
        name: String,
        /// Site id; "*" for all sites
        #[arg(long, default_value = EVERYWHERE)]
        site: String,
        /// What the person may do there; none: nothing any more
        #[arg(long, value_parser = role_or_none)]
        role: RoleOrNone,
    },
    /// Let a disabled person in again, with the roles of before
    Enable {
        /// Name
        name: String,
    },
    /// Take all rights from a person, at once
    Disable {
        /// Name
        name: String,
    },
}

/// What `operator role` sets.
#[derive(Clone, Copy, Debug)]
pub struct RoleOrNone(Option<Role>);

fn role_or_none(word: &str) -> Result<RoleOrNone, String> {
    match (word, Role::parse(word)) {
        ("none", _) => Ok(RoleOrNone(None)),
        (_, Some(role)) => Ok(RoleOrNone(Some(role))),
        _ => Err("it is viewer, technician, approver, admin or none".into()),
    }
}

/// A phone can open the link, and somebody is there to scan it.
fn is_for_phones(url: &str) -> bool {
    std::io::stdout().is_terminal() && url.starts_with("https:")
}

/// Runs one.
pub async fn run(command: OperatorCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        OperatorCommand::People(command) => people(command, config, json).await,
        OperatorCommand::Key(command) => operator_key::run(command, config, json).await,
        OperatorCommand::Sign(command) => operator_key::sign(command, config, json),
    }
}

async fn people(command: PeopleCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    match command {
        PeopleCommand::Add { name, role } => {
            broker.add_operator(&caller, &name, role).await?;
            if json {
                output::json(&json!({"name": name, "role": role}))?;
            } else {
                output::line(&format!("{name} is added as {}", role.as_str()))?;
                output::line(&format!("next: pairgate operator link {name}"))?;
            }
        }
        PeopleCommand::Link { name } => {
            let url = broker.operator_link(&caller, &name).await?;
            if json {
                output::json(&json!({"url": url}))?;
            } else {
                output::line(&url)?;
                if is_for_phones(&url) {
                    output::line(&terminal_qr(&url, Paint::Colour)?)?;
                }
                output::line("good once, for 10 minutes; whoever has it is this person, so hand it over in person")?;
            }
        }
        PeopleCommand::List => {
            let people = broker.people(&caller).await?;
            list(&people.iter().map(OperatorShape::from).collect::<Vec<_>>(), json)?;
        }
        PeopleCommand::Role { name, site, role: RoleOrNone(role) } => {
            broker.set_role(&caller, &name, &site, role).await?;
            if json {
                output::json(&json!({"name": name, "site": site, "role": role}))?;
            } else {
                let rights = broker.person(&caller, &name).await?.operator.rights;
                output::line(&format!("{name} has now: {}", rights.words()))?;
            }
        }
        PeopleCommand::Enable { name } => {
            broker.enable_operator(&caller, &name).await?;
            if json {
                output::json(&json!({"name": name, "disabled": false}))?;
            } else {
                output::line(&format!("{name} may sign in again"))?;
            }
        }
        PeopleCommand::Disable { name } => {
            broker.disable_operator(&caller, &name).await?;
            if json {
                output::json(&json!({"name": name, "disabled": true}))
            } else {
                output::line(&format!("{name} can't do anything any more"))
            }?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints people.
pub fn list(operators: &[OperatorShape], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&operators);
    }
    if operators.is_empty() {
        return output::line("nobody. Add somebody: pairgate operator add dana --role admin");
    }
    let row = |person: &OperatorShape| {
        let mut ways = Vec::new();
        ways.extend(person.sso.then(|| "sso".to_owned()));
        ways.extend((person.passkeys > 0).then(|| format!("passkeys: {}", person.passkeys)));
        let ways = if ways.is_empty() { "links".to_owned() } else { ways.join(", ") };
        let seen = person.seen_at.clone().unwrap_or_else(|| "never".into());
        let state = person.disabled_at.as_ref().map_or_else(|| "active".into(), |at| format!("disabled {at}"));
        vec![person.name.clone(), rights(&person.roles).words(), ways, seen, state]
    };
    output::table(
        &["NAME", "ROLES", "SIGNS IN BY", "LAST SEEN", "STATE"],
        &operators.iter().map(row).collect::<Vec<_>>(),
    )
}
