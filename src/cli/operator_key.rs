//! `pairgate operator key …` and `pairgate operator sign …`: keys that people sign commands with, and the commands (`docs/mqtt.md`).

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use crate::broker::Caller;
use crate::broker::operator_keys::{COMMAND, COMMAND_LIFETIME};
use crate::cli::output;
use crate::cli::serve::{broker_beside, broker_to_look_at, served_issuer};
use crate::clock::Clock;
use crate::config::Config;
use crate::oauth::metadata::Endpoints;
use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use crate::secret::{Random, b64u};
use crate::store::OperatorKey;

/// Commands on keys.
#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Add the public half of a person's key
    Add {
        /// Whose
        operator: String,
        /// PEM (PUBLIC KEY) or JWK; "-" reads it from standard input
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// What to call it: the computer that it is on
        #[arg(long, default_value = "key")]
        name: String,
    },
    /// List a person's keys
    List {
        /// Whose
        operator: String,
    },
    /// Remove a key, for ever
    Remove {
        /// Whose
        operator: String,
        /// The key, as the list shows it
        key: String,
    },
    /// Make a private key (P-256) in a new file, and print its public half
    New {
        /// File for the private key; it must not be there yet
        file: PathBuf,
    },
}

/// Commands that are signed here, and done by whoever gets them to Pairgate.
#[derive(Debug, clap::Subcommand)]
pub enum SignCommand {
    /// Confirm a pairing by the six digits that the device shows
    Confirm {
        #[command(flatten)]
        by: Signer,
        /// Six digits
        #[arg(long)]
        digits: String,
    },
    /// Decline a pairing
    Decline {
        #[command(flatten)]
        by: Signer,
    },
}

/// Who signs, about which pairing.
#[derive(Debug, clap::Args)]
pub struct Signer {
    /// File with the private key: PKCS#8 in PEM, P-256 or RSA
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Whose key it is
    #[arg(long, value_name = "NAME")]
    operator: String,
    /// Which pairing
    #[arg(long, value_name = "ID")]
    pairing: String,
    /// Address of Pairgate [default: that of the configuration here]
    #[arg(long, value_name = "URL")]
    issuer: Option<Url>,
}

/// Runs one.
pub async fn run(command: KeyCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let caller = Caller::command_line();
    match command {
        KeyCommand::Add { operator, file, name } => {
            let text = read(&file)?;
            let key = broker_beside(config).await?.add_operator_key(&caller, &operator, &name, &text).await?;
            if json {
                output::json(&shape(&key))?;
            } else {
                output::line(&format!("{operator} can sign commands with key {}", b64u(&key.jkt)))?;
            }
        }
        KeyCommand::List { operator } => {
            let keys = broker_to_look_at(config).await?.operator_keys(&caller, &operator).await?;
            list(&operator, &keys, json)?;
        }
        KeyCommand::Remove { operator, key } => {
            broker_beside(config).await?.revoke_operator_key(&caller, &operator, &key).await?;
            if json {
                output::json(&json!({"key": key, "removed": true}))?;
            } else {
                output::line("removed; nobody can sign anything with it any more")?;
            }
        }
        KeyCommand::New { file } => make(&file, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

fn shape(key: &OperatorKey) -> Value {
    json!({
        "key": b64u(&key.jkt), "name": key.name, "jwk": serde_json::from_str::<Value>(&key.jwk).unwrap_or_default(),
        "added_at": key.added_at.rfc3339(), "added_by": key.added_by, "used_at": key.used_at.map(|at| at.rfc3339()),
    })
}

fn list(operator: &str, keys: &[OperatorKey], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&keys.iter().map(shape).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        return output::line(&format!("no keys. Add one: pairgate operator key add {operator} --file FILE"));
    }
    let row = |key: &OperatorKey| {
        let used = key.used_at.map_or_else(|| "never".into(), |at| at.rfc3339());
        vec![b64u(&key.jkt), key.name.clone(), key.added_at.rfc3339(), key.added_by.clone(), used]
    };
    output::table(&["KEY", "NAME", "ADDED", "ADDED BY", "USED"], &keys.iter().map(row).collect::<Vec<_>>())
}

/// A new private key, in a file that only its owner reads from its first moment. Never over another: that could be the only copy of a key in use.
fn make(file: &Path, json: bool) -> anyhow::Result<()> {
    let pkcs8 = SigningKey::generate(SigningAlgorithm::Es256)?;
    let public = SigningKey::from_pkcs8(&pkcs8)?.public().to_json();
    let body = Zeroizing::new(STANDARD.encode(&*pkcs8));
    let mut pem = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
    for line in body.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line)?);
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    let mut open = std::fs::OpenOptions::new();
    let mut written =
        open.write(true).create_new(true).mode(0o600).open(file).with_context(|| file.display().to_string())?;
    written.write_all(pem.as_bytes())?;
    written.sync_all()?;
    if json {
        return output::json(&json!({"file": file, "jwk": public}));
    }
    output::line(&public.to_string())?;
    output::line(
        "next: add this public half on the page of your account, or give it to: pairgate operator key add NAME --file -",
    )
}

/// Signs a command and prints it, and nothing else: the next program in the line publishes it.
pub fn sign(command: SignCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let (by, word, digits) = match command {
        SignCommand::Confirm { by, digits } => (by, "confirm_pairing", Some(digits)),
        SignCommand::Decline { by } => (by, "decline_pairing", None),
    };
    let known = || config.public_url.clone().or_else(|| served_issuer(config));
    let Some(issuer) = by.issuer.or_else(known) else {
        bail!("for which Pairgate? Add its address: --issuer https://pairgate.example.com");
    };
    let key = private_key(&by.key)?;
    let now = Clock::system().now().seconds();
    let mut claims = json!({
        "iss": by.operator, "aud": Endpoints::new(&issuer, None).issuer, "iat": now, "exp": now + COMMAND_LIFETIME,
        "jti": b64u(&Random::system().bytes32()?), "command": word, "pairing_id": by.pairing,
    });
    if let Some(digits) = digits {
        claims["digits"] = digits.into();
    }
    let signed = key.sign(COMMAND, &claims, false)?;
    if json { output::json(&json!({"command": signed})) } else { output::line(&signed) }?;
    Ok(ExitCode::SUCCESS)
}

fn private_key(file: &Path) -> anyhow::Result<SigningKey> {
    let name = file.display();
    let mode = std::fs::metadata(file).with_context(|| name.to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{name}: others may read it (mode {:o}); run: chmod 600 {name}", mode & 0o777);
    }
    let pem = Zeroizing::new(std::fs::read(file).with_context(|| name.to_string())?);
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .ok()
        .and_then(|key| SigningKey::from_pkcs8(key.secret_pkcs8_der()).ok());
    key.with_context(|| format!("{name}: no P-256 or RSA key in PKCS#8 PEM (-----BEGIN PRIVATE KEY-----)"))
}
