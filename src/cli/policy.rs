//! `pairgate policy …`: kinds, resources and sites as a file, for those who keep it in git. Whoever has a shell on this machine needs no second person;
//! the record says that it was the command line.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use crate::broker::policy::Applied;
use crate::broker::{Broker, Caller};
use crate::cli::output;
use crate::cli::serve::broker_beside;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::config::difference::{Change, in_a_line};
use crate::config::policy::MAX_POLICY;
use crate::store::PolicyState;

/// Commands on the policy.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Print kinds, resources and sites, without what pairgate.toml sets; the same text for the same policy
    Export {
        /// Into this file instead
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show what a file changes, then apply it: kinds and resources become as it says, sites are added and changed, never removed
    Import {
        /// The file; - for standard input
        file: PathBuf,
        /// Only show
        #[arg(long)]
        dry_run: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// List all versions, newest first, with what each changed
    History,
    /// Apply a version that waits for a second person
    Confirm {
        /// Its number
        version: i64,
    },
    /// Take a version back that waits
    Withdraw {
        /// Its number
        version: i64,
    },
}

/// Runs one.
pub async fn run(command: PolicyCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    match command {
        PolicyCommand::Export { file } => export(&broker.export_policy(&caller).await?, file.as_deref(), json)?,
        PolicyCommand::Import { file, dry_run, yes } => {
            return import(&broker, &read(&file)?, dry_run, yes, json).await;
        }
        PolicyCommand::History => history(&broker, json).await?,
        PolicyCommand::Confirm { version } => {
            broker.confirm_policy(&caller, version).await?;
            say(json, json!({"version": version, "state": "applied"}), &format!("version {version} holds"))?;
        }
        PolicyCommand::Withdraw { version } => {
            broker.withdraw_policy(&caller, version).await?;
            say(json, json!({"version": version, "state": "withdrawn"}), &format!("version {version} is withdrawn"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(json: bool, value: serde_json::Value, words: &str) -> anyhow::Result<()> {
    if json { output::json(&value) } else { output::line(words) }
}

fn export(text: &str, file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    match file {
        Some(file) => {
            std::fs::write(file, text).with_context(|| file.display().to_string())?;
            say(json, json!({"file": file}), &format!("written to {}", file.display()))
        }
        None if json => output::json(&json!({"policy": text})),
        None => output::line(text.trim_end()),
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let most = u64::try_from(MAX_POLICY)? + 1;
    let mut text = String::new();
    let reading = if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(most).read_to_string(&mut text))
    };
    reading.with_context(|| file.display().to_string())?;
    Ok(text)
}

async fn import(broker: &Broker, text: &str, dry_run: bool, yes: bool, json: bool) -> anyhow::Result<ExitCode> {
    let caller = Caller::command_line();
    let change = broker.propose_policy(&caller, text).await?;
    let answer = |version: Option<i64>| json!({"changes": change.changes, "version": version});
    if change.changes.is_empty() {
        say(json, answer(None), "nothing to change")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !json {
        print(&change.changes)?;
    }
    if dry_run {
        say(json, answer(None), "nothing was changed: this was a dry run")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !yes {
        ask(change.changes.len())?;
    }
    let version = match broker.apply_policy(&caller, &change, change.base).await? {
        Applied::Applied(version) | Applied::Proposed(version) => Some(version),
        Applied::Unchanged => None,
    };
    let number = version.unwrap_or_default();
    say(json, answer(version), &format!("applied as version {number}; a running broker follows within a second"))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks on a terminal; elsewhere refuses, and says what it would do.
fn ask(changes: usize) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("nothing was changed. If that is what you want, add --yes");
    }
    let mut error = std::io::stderr();
    write!(error, "Apply {changes} changes? Type yes to go on: ")?;
    error.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    anyhow::ensure!(answer.trim() == "yes", "nothing was changed");
    Ok(())
}

/// The changes, aligned: `~` what differs, `+` what comes, `-` what goes.
fn lines(changes: &[Change]) -> Vec<(char, String)> {
    let width = changes.iter().map(|change| change.setting.chars().count()).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut of = None;
    for change in changes {
        if of != Some(&change.of) {
            lines.push((' ', if change.of.is_empty() { "policy".into() } else { change.of.clone() }));
            of = Some(&change.of);
        }
        let (sign, values) = match (&change.before, &change.after) {
            (Some(before), Some(after)) => ('~', format!("{before} -> {after}")),
            (None, Some(after)) => ('+', after.clone()),
            (Some(before), None) => ('-', before.clone()),
            (None, None) => (' ', String::new()),
        };
        let note =
            if change.overridden { "  (pairgate.toml sets this; without effect as long as it does)" } else { "" };
        lines.push((sign, format!("{:<width$}  {values}{note}", change.setting)));
    }
    lines
}

fn print(changes: &[Change]) -> anyhow::Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    lines(changes).into_iter().try_for_each(|(sign, text)| {
        let colour = match sign {
            '+' => "32",
            '-' => "31",
            '~' => "33",
            _ => "1",
        };
        let line = if sign == ' ' { text } else { format!("  {sign} {text}") };
        output::line(&if is_terminal { format!("\u{1b}[{colour}m{line}\u{1b}[0m") } else { line })
    })
}

async fn history(broker: &Broker, json: bool) -> anyhow::Result<()> {
    let history = broker.policy_history(&Caller::command_line()).await?;
    let holds = broker.policy().version();
    if json {
        let list: Vec<_> = history
            .iter()
            .map(|(version, changes)| {
                json!({
                    "version": version.version, "base": version.base, "state": version.state.as_str(), "holds": version.version == holds,
                    "proposed_at": version.proposed_at.rfc3339(), "proposed_by": version.proposed_by,
                    "decided_at": version.decided_at.map(Timestamp::rfc3339), "decided_by": version.decided_by, "changes": changes,
                })
            })
            .collect();
        return output::json(&list);
    }
    if history.is_empty() {
        return output::line("nothing was ever changed: what is built in holds, and what pairgate.toml says");
    }
    let row = |(version, changes): &(crate::store::PolicyVersion, Vec<Change>)| {
        let state = match version.state {
            PolicyState::Applied if version.version == holds => "holds",
            PolicyState::Applied => "replaced",
            PolicyState::Proposed => "waits",
            PolicyState::Withdrawn => "withdrawn",
        };
        vec![
            version.version.to_string(),
            state.into(),
            version.proposed_at.rfc3339(),
            version.proposed_by.clone(),
            version.decided_by.clone().unwrap_or_default(),
            in_a_line(changes, 200),
        ]
    };
    output::table(
        &["VERSION", "STATE", "WRITTEN", "BY", "DECIDED BY", "CHANGED"],
        &history.iter().map(row).collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_aligned_and_says_what_comes_and_what_goes() {
        let change = |of: &str, setting: &str, before: Option<&str>, after: Option<&str>, overridden| Change {
            of: of.into(),
            setting: setting.into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
            overridden,
        };
        let changes = [
            change("", "two_persons", Some("false"), Some("true"), false),
            change("kinds.printer", "code_lifetime", Some("300"), Some("120"), true),
            change("kinds.printer", "scopes.fax.send", None, Some("send faxes"), false),
            change("kinds.printer", "scopes.print.read", Some("fetch print jobs"), None, false),
        ];
        let text: Vec<String> = lines(&changes).into_iter().map(|(sign, text)| format!("{sign} {text}")).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
          policy
        ~ two_persons        false -> true
          kinds.printer
        ~ code_lifetime      300 -> 120  (pairgate.toml sets this; without effect as long as it does)
        + scopes.fax.send    send faxes
        - scopes.print.read  fetch print jobs
        ");
    }
}
