//! `pairgate operator …`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::json;

use crate::broker::Caller;
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::config::Config;
use crate::http::api::shapes::{OperatorShape, rights};
use crate::model::operator::Role;
use crate::simulator::screen::{Paint, terminal_qr};

/// Commands on operators.
#[derive(Debug, clap::Subcommand)]
pub enum OperatorCommand {
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
    /// Take all rights from a person, at once
    Disable {
        /// Name
        name: String,
    },
}

/// A phone can open the link, and somebody is there to scan it.
fn is_for_phones(url: &str) -> bool {
    std::io::stdout().is_terminal() && url.starts_with("https:")
}

/// Runs one.
pub async fn run(command: OperatorCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    match command {
        OperatorCommand::Add { name, role } => {
            broker.add_operator(&caller, &name, role).await?;
            if json {
                output::json(&json!({"name": name, "role": role}))?;
            } else {
                output::line(&format!("{name} is added as {}", role.as_str()))?;
                output::line(&format!("next: pairgate operator link {name}"))?;
            }
        }
        OperatorCommand::Link { name } => {
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
        OperatorCommand::List => {
            let operators = broker.operators().await?;
            list(&operators.iter().map(OperatorShape::from).collect::<Vec<_>>(), json)?;
        }
        OperatorCommand::Disable { name } => {
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
    let rows: Vec<Vec<String>> = operators
        .iter()
        .map(|operator| {
            let state = operator.disabled_at.as_ref().map_or_else(|| "active".into(), |at| format!("disabled {at}"));
            vec![operator.name.clone(), rights(&operator.roles).words(), operator.added_at.clone(), state]
        })
        .collect();
    output::table(&["NAME", "ROLES", "ADDED", "STATE"], &rows)
}
