//! `pairgate keys …`: the keys that sign tokens. What to do when one has leaked: `docs/runbooks/signing-key-leak.md`.

use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::broker::Caller;
use crate::broker::signing::{JWKS_MAX_AGE, KeyRotation, Rotated, overlap};
use crate::cli::output;
use crate::cli::serve::{broker_beside, broker_to_look_at};
use crate::clock::Timestamp;
use crate::config::Config;

/// Commands on signing keys.
#[derive(Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// List the keys that sign and verify
    List,
    /// Make new keys; the former ones still verify until the last token that they signed has expired
    Rotate {
        /// A key has leaked: drop the former keys at once. Every access token is void
        #[arg(long)]
        emergency: bool,
        /// Also end every sign-in: each device has to sign in again
        #[arg(long, requires = "emergency")]
        end_sign_ins: bool,
        /// Don't ask
        #[arg(long, requires = "emergency")]
        yes: bool,
    },
}

/// Runs one.
pub async fn run(command: KeysCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::List => list(config, json).await?,
        KeysCommand::Rotate { emergency: false, .. } => rotate(config, json).await?,
        KeysCommand::Rotate { end_sign_ins, yes, .. } => {
            if !yes {
                confirm(end_sign_ins)?;
            }
            replace(config, end_sign_ins, json).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let broker = broker_to_look_at(config).await?;
    let (keys, now) = (broker.signing_keys().kept(), broker.now());
    let due = |created_at: Timestamp| created_at.plus(broker.signing_key_lifetime()).rfc3339();
    if json {
        let list: Vec<_> = keys
            .iter()
            .map(|held| {
                json!({
                    "kid": held.key.kid(), "algorithm": held.key.algorithm().as_str(),
                    "state": if held.retires_at.is_none() { "current" } else { "retiring" },
                    "created_at": held.created_at.rfc3339(), "age_seconds": now.since(held.created_at).as_secs(),
                    "retires_at": held.retires_at.map(Timestamp::rfc3339),
                    "rotates_at": held.retires_at.is_none().then(|| due(held.created_at)),
                })
            })
            .collect();
        return output::json(&list);
    }
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|held| {
            let state = held.retires_at.map_or_else(
                || format!("current, rotates {}", due(held.created_at)),
                |retires_at| format!("retiring until {}", retires_at.rfc3339()),
            );
            let age = age(now.since(held.created_at));
            vec![held.key.kid().to_owned(), held.key.algorithm().as_str().into(), age, state]
        })
        .collect();
    output::table(&["KEY", "ALGORITHM", "AGE", "STATE"], &rows)
}

fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

async fn rotate(config: &Config, json: bool) -> anyhow::Result<()> {
    let broker = broker_beside(config).await?;
    let rotated = broker.rotate_signing_keys(&Caller::command_line(), KeyRotation::Planned).await?;
    if json {
        return output::json(&json!({"emergency": false, "rotated": rotated.iter().map(as_json).collect::<Vec<_>>()}));
    }
    say(&rotated)?;
    output::line(&format!(
        "Nobody has to do anything: what was signed stays good, for {} seconds, and that is longer than it lives.",
        overlap(&broker.kinds()).as_secs()
    ))?;
    output::line("Resources and devices meet a key id that they don't know, and fetch /jwks again.")
}

async fn replace(config: &Config, end_sign_ins: bool, json: bool) -> anyhow::Result<()> {
    let broker = broker_beside(config).await?;
    let caller = Caller::command_line();
    let rotated = broker.rotate_signing_keys(&caller, KeyRotation::Emergency).await?;
    let ended = if end_sign_ins { Some(broker.end_all_sign_ins(&caller).await?) } else { None };
    if json {
        let rotated: Vec<_> = rotated.iter().map(as_json).collect();
        return output::json(&json!({"emergency": true, "rotated": rotated, "ended_sign_ins": ended}));
    }
    say(&rotated)?;
    output::line("The former keys are dropped. A running broker signs with the new ones within two seconds.")?;
    output::line(&format!(
        "Resources: empty their copy of /jwks, or restart them; by themselves they do it within {JWKS_MAX_AGE} seconds."
    ))?;
    output::line(
        "Devices that keep keys fetch /jwks again with their next token; one that can't has to be paired again.",
    )?;
    output::line(&match ended {
        Some(count) => format!("Every sign-in is ended; {count} devices have to sign in again."),
        None => "Sign-ins go on: devices renew their tokens with the refresh token, which no key signs.".into(),
    })?;
    output::line("What next: docs/runbooks/signing-key-leak.md")
}

fn as_json(rotated: &Rotated) -> serde_json::Value {
    json!({
        "algorithm": rotated.algorithm.as_str(), "kid": rotated.kid, "former": rotated.former,
        "former_retires_at": rotated.former_retires_at.map(Timestamp::rfc3339),
    })
}

fn say(rotated: &[Rotated]) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = rotated
        .iter()
        .map(|rotated| {
            let until =
                rotated.former_retires_at.map_or_else(|| "dropped".into(), |at| format!("until {}", at.rfc3339()));
            vec![rotated.algorithm.as_str().into(), rotated.kid.clone(), rotated.former.clone(), until]
        })
        .collect();
    output::table(&["ALGORITHM", "NEW KEY", "FORMER KEY", "VERIFIES"], &rows)
}

/// Asks on a terminal; elsewhere refuses, and says what it would do.
fn confirm(end_sign_ins: bool) -> anyhow::Result<()> {
    let sign_ins = if end_sign_ins {
        "Every sign-in ends, and each device has to be approved again."
    } else {
        "Sign-ins go on; add --end-sign-ins to end them as well."
    };
    let what = format!(
        "This makes new signing keys and drops the former ones at once. Every access token that is out is void. {sign_ins}"
    );
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{what}\nNothing was changed. If that is what you want, add --yes");
    }
    eprintln!("{what}\nType yes to go on:");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    anyhow::ensure!(answer.trim() == "yes", "nothing was changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_the_unit_that_fits() {
        for (seconds, words) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 days"),
            (90 * 86_400, "90 days"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), words);
        }
    }
}
