//! `pairgate risk …`: the risk assessment (RFC 10027 section 2). It is signed on a page, by a person.

use std::process::ExitCode;

use serde_json::json;

use crate::broker::Caller;
use crate::cli::output;
use crate::cli::serve::broker_to_look_at;
use crate::config::Config;

/// Commands on the risk assessment.
#[derive(Debug, clap::Subcommand)]
pub enum RiskCommand {
    /// What is at stake and what is in force, as of now
    Show,
    /// The signed versions, and whether each is what was signed
    List,
    /// Print a signed version (a compact JWS with its key in the header)
    Export {
        /// Its number [default: the newest]
        version: Option<i64>,
    },
}

/// Runs one. Exit code 1 if a listed version is not what was signed.
pub async fn run(command: RiskCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_to_look_at(config).await?;
    let caller = Caller::command_line();
    match command {
        RiskCommand::Show => {
            let draft = broker.risk_draft(&caller).await?;
            if json {
                output::json(&draft)?;
            } else {
                let row = |row: &crate::model::risk::Mitigation| {
                    vec![row.section.into(), row.name.into(), row.standing.words().into(), row.how.into()]
                };
                let rows: Vec<Vec<String>> = draft.mitigations.iter().map(row).collect();
                output::table(&["SECTION", "MITIGATION", "STATE", "BY WHAT"], &rows)?;
                output::line("sign it on the page /settings/risk: that takes a person")?;
            }
        }
        RiskCommand::List => {
            let (mut rows, mut list, mut all_good) = (Vec::new(), Vec::new(), true);
            for record in broker.risk_records(&caller).await? {
                let is_good = broker.is_risk_record_good(&record).await?;
                all_good &= is_good;
                let at = record.at.rfc3339();
                list.push(json!({"version": record.version, "at": at, "by": record.by, "is_good": is_good}));
                let verdict = if is_good { "as signed" } else { "NOT what was signed" };
                rows.push(vec![record.version.to_string(), at, record.by, verdict.into()]);
            }
            if json {
                output::json(&list)?;
            } else if rows.is_empty() {
                output::line("none yet; sign one on the page /settings/risk")?;
            } else {
                output::table(&["VERSION", "SIGNED", "BY", "CHECK"], &rows)?;
            }
            return Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        RiskCommand::Export { version } => {
            let records = broker.risk_records(&caller).await?;
            let found = records.iter().find(|record| version.is_none_or(|version| version == record.version));
            let record = found.ok_or_else(|| anyhow::anyhow!("there is no such version; see: pairgate risk list"))?;
            output::line(&record.signature)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
