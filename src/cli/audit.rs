//! `pairgate audit …`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::broker::{Broker, Caller};
use crate::cli::api_client::Api;
use crate::cli::output;
use crate::cli::serve::broker_to_look_at;
use crate::config::Config;
use crate::model::audit::Record;
use crate::secret::b64u;
use crate::store::AuditQuery;

/// Commands on the audit log.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Walk the whole chain; names the first bad entry, exit code 1
    Verify {
        /// `NUMBER:HASH` as an earlier run printed it: that entry must still be there, unchanged
        #[arg(long, value_name = "NUMBER:HASH")]
        anchor: Option<String>,
    },
    /// The newest entries
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        lines: u32,
        /// Only refusals and alerts
        #[arg(long)]
        refusals: bool,
        /// Go on printing what comes
        #[arg(short, long)]
        follow: bool,
    },
}

/// Runs one.
pub async fn run(command: AuditCommand, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let broker = broker_to_look_at(config).await?;
    match command {
        AuditCommand::Verify { anchor } => verify(&broker, anchor.as_deref(), json).await,
        AuditCommand::Tail { lines, refusals, follow } => {
            tail(&Log::Here(&broker), lines, refusals, follow, json).await
        }
    }
}

/// Where the records are.
pub enum Log<'a> {
    /// In the data directory.
    Here(&'a Broker),
    /// With another machine's broker.
    There(&'a Api),
}

impl Log<'_> {
    async fn records(&self, query: AuditQuery) -> anyhow::Result<Vec<Record>> {
        match self {
            Self::Here(broker) => Ok(broker.audit(&Caller::command_line(), &query).await?),
            Self::There(api) => api.records(&query).await,
        }
    }
}

/// Prints the newest records and, if told to follow, what comes.
pub async fn tail(log: &Log<'_>, lines: u32, refusals: bool, follow: bool, json: bool) -> anyhow::Result<ExitCode> {
    let records = newest(log, lines, refusals).await?;
    let mut last = records.last().map_or(0, |record| record.id);
    show(&records, json)?;
    if !follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let newer =
            log.records(AuditQuery { after: Some(last), refusals, limit: 1000, ..AuditQuery::default() }).await?;
        last = newer.last().map_or(last, |record| record.id);
        newer.iter().try_for_each(
            |record| {
                if json { output::json(record) } else { output::line(&row(record).join("  ")) }
            },
        )?;
    }
}

/// So many of the newest records, oldest first. The store gives at most a thousand at a time.
async fn newest(log: &Log<'_>, lines: u32, refusals: bool) -> anyhow::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    while let Some(limit) =
        u32::try_from(records.len()).ok().and_then(|got| lines.checked_sub(got)).filter(|left| *left > 0)
    {
        let before = records.last().map(|record| record.id);
        let limit = limit.min(1000);
        let older = log.records(AuditQuery { before, refusals, limit, ..AuditQuery::default() }).await?;
        if older.is_empty() {
            break;
        }
        records.extend(older);
    }
    records.reverse();
    Ok(records)
}

async fn verify(broker: &Broker, anchor: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let verdict = broker.audit_verify().await?;
    let head = b64u(&verdict.head);
    let anchor_holds = match anchor {
        None => true,
        Some(anchor) => {
            let (number, hash) = anchor.split_once(':').ok_or_else(|| anyhow::anyhow!("--anchor is NUMBER:HASH"))?;
            broker.is_audit_anchor(number.parse()?, hash).await?
        }
    };
    let is_good = verdict.first_bad.is_none() && anchor_holds;
    if json {
        output::json(
            &json!({"good": is_good, "records": verdict.records, "head": head, "first_bad": verdict.first_bad, "anchor_holds": anchor_holds}),
        )?;
    } else if let Some(bad) = verdict.first_bad {
        output::line(&format!(
            "entry {bad} is bad: it was changed, or one before it was taken out. The {} entries before it hold",
            verdict.records
        ))?;
    } else if !anchor_holds {
        output::line(
            "the chain holds, but the anchored entry is missing or another one: the end of the log was cut off and written anew",
        )?;
    } else {
        output::line(&format!(
            "{} entries hold. Note this outside this machine, so that a cut-off end shows:",
            verdict.records
        ))?;
        output::line(&format!("  {}:{head}", verdict.records))?;
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(record: &Record) -> Vec<String> {
    let peer = record.peer.clone().unwrap_or_else(|| "-".into());
    let device = record.device.clone().unwrap_or_else(|| "-".into());
    vec![
        record.id.to_string(),
        record.at.rfc3339(),
        record.severity.clone(),
        record.event.clone(),
        device,
        record.actor.clone(),
        peer,
        record.detail.clone(),
    ]
}

fn show(records: &[Record], json: bool) -> anyhow::Result<()> {
    if json { records.iter().try_for_each(output::json) } else { print(records) }
}

/// Prints records as a table.
pub fn print(records: &[Record]) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    output::table(&["ENTRY", "AT", "SEVERITY", "EVENT", "DEVICE", "BY", "FROM", "DETAIL"], &rows)
}
