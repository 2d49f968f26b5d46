//! `pairgate token …`: tokens of programs that call the administration API. Always on the broker's machine: a token makes no tokens.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::broker::Caller;
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::config::Config;
use crate::model::operator::{EVERYWHERE, Rights, Role};

/// Commands on tokens.
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown once
    Add {
        /// Name, as in the audit log; never given again
        name: String,
        /// What it may do everywhere. No role lets it confirm a pairing or approve a sign-in
        #[arg(long, value_enum, required_unless_present = "at")]
        role: Option<Role>,
        /// What it may do at one site, berlin=technician; may be repeated
        #[arg(long, value_name = "SITE=ROLE", value_parser = at)]
        at: Vec<(String, Role)>,
        /// Days until it ends, 1 to 365
        #[arg(long, default_value_t = 90)]
        days: u64,
    },
    /// List tokens
    List,
    /// End a token, at once
    Revoke {
        /// Name
        name: String,
    },
}

fn at(text: &str) -> Result<(String, Role), String> {
    let pair = text.split_once('=').and_then(|(site, role)| Some((site.to_owned(), Role::parse(role)?)));
    pair.ok_or_else(|| "is SITE=ROLE, with viewer, technician, approver or admin".into())
}

/// Runs one.
pub async fn run(command: TokenCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    match command {
        TokenCommand::Add { name, role, at, days } => {
            let mut rights = role.map_or_else(Rights::default, Rights::everywhere);
            at.iter().filter(|(site, _)| site != EVERYWHERE).for_each(|(site, role)| rights.add(site, *role));
            let lifetime = Duration::from_secs(days.saturating_mul(86_400));
            let token = broker.add_api_token(&caller, &name, rights, lifetime).await?;
            if json {
                output::json(&json!({"name": name, "token": token}))?;
            } else {
                output::line(&token)?;
                output::line("shown once: put it where the program reads it, with a mode that only it can read")?;
            }
        }
        TokenCommand::List => {
            let (tokens, now) = (broker.api_tokens(&caller).await?, broker.now());
            if json {
                let list: Vec<_> = tokens
                    .iter()
                    .map(|token| {
                        json!({
                            "name": token.name, "state": token.state(now), "roles": token.rights.iter().collect::<BTreeMap<_, _>>(), "made_by": token.made_by,
                            "made_at": token.made_at.rfc3339(), "expires_at": token.expires_at.rfc3339(), "used_at": token.used_at.map(|at| at.rfc3339()),
                            "revoked_at": token.revoked_at.map(|at| at.rfc3339()),
                        })
                    })
                    .collect();
                output::json(&list)?;
            } else if tokens.is_empty() {
                output::line("no tokens. Make one: pairgate token add inventory --role viewer")?;
            } else {
                let rows: Vec<Vec<String>> = tokens
                    .iter()
                    .map(|token| {
                        let used = token.used_at.map_or_else(|| "never".into(), |at| at.rfc3339());
                        let expires = token.expires_at.rfc3339();
                        vec![
                            token.name.clone(),
                            token.state(now).into(),
                            token.rights.words(),
                            expires,
                            used,
                            token.made_by.clone(),
                        ]
                    })
                    .collect();
                output::table(&["NAME", "STATE", "RIGHTS", "EXPIRES", "USED", "MADE BY"], &rows)?;
            }
        }
        TokenCommand::Revoke { name } => {
            broker.revoke_api_token(&caller, &name).await?;
            if json {
                output::json(&json!({"name": name, "revoked": true}))
            } else {
                output::line(&format!("{name} can't do anything any more"))
            }?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
