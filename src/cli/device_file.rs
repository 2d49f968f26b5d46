//! `pairgate device import|export|template`: lists of devices as files.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::broker::{Broker, Caller};
use crate::cli::output;
use crate::model::import::{Checked, Defaults};
use crate::model::site::DEFAULT_SITE;
use crate::spreadsheet::MAX_FILE;
use crate::store::DeviceQuery;

/// Arguments of `device import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// CSV or XLSX file; `-` for standard input
    file: PathBuf,
    /// Only check it
    #[arg(long)]
    dry_run: bool,
    /// Kind of rows that say none
    #[arg(long, default_value = "")]
    kind: String,
    /// Site of rows that say none
    #[arg(long, default_value = DEFAULT_SITE)]
    site: String,
}

/// Arguments of `device export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Part of id, name, room, serial or asset tag
    text: Option<String>,
    /// As CSV; that is the default, unless --json is given
    #[arg(long)]
    csv: bool,
    /// Only this site
    #[arg(long)]
    site: Option<String>,
    /// Only this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only this floor
    #[arg(long)]
    floor: Option<String>,
}

impl ExportArgs {
    /// Which devices.
    pub fn query(self) -> DeviceQuery {
        let Self { text, site, kind, floor, csv: _ } = self;
        DeviceQuery { text: text.unwrap_or_default(), site, kind, floor, limit: u32::MAX, ..DeviceQuery::default() }
    }

    /// CSV, whatever else is said?
    pub const fn is_csv(&self) -> bool {
        self.csv
    }
}

/// Checks a file and registers what is in it, all or nothing.
pub async fn import(args: ImportArgs, broker: &Broker, json: bool) -> anyhow::Result<ExitCode> {
    let ImportArgs { file, dry_run, kind, site } = args;
    let defaults = Defaults { kind, site };
    let caller = Caller::command_line();
    let bytes = read(&file)?;
    let progress = progress(json);
    progress.set_message("checking");
    let checked = if dry_run {
        broker.check_import(&caller, bytes, &defaults).await
    } else {
        progress.set_message("checking and registering");
        broker.import_devices(&caller, bytes, &defaults).await
    };
    progress.finish_and_clear();
    let checked = checked?;
    report(&checked, dry_run, json)?;
    Ok(if checked.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// At most what is allowed, and a byte more that shows that there is more.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX) + 1;
    let mut bytes = Vec::new();
    let opened: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("{} can't be opened", file.display()))?)
    };
    opened.take(most).read_to_end(&mut bytes).with_context(|| format!("{} can't be read", file.display()))?;
    Ok(bytes)
}

fn progress(is_quiet: bool) -> ProgressBar {
    let progress = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

fn report(checked: &Checked, dry_run: bool, json: bool) -> anyhow::Result<()> {
    let is_good = checked.errors.is_empty();
    let ids: Vec<String> = checked.devices.iter().map(|device| device.id.to_string()).collect();
    if json {
        let columns: Vec<_> =
            checked.columns.iter().map(|(head, column)| json!({"head": head, "means": column.head()})).collect();
        return output::json(&json!({
            "format": checked.format, "rows": checked.rows, "columns": columns, "ignored": checked.ignored, "errors": checked.errors,
            "devices": if is_good { ids } else { Vec::new() }, "imported": is_good && !dry_run,
        }));
    }
    output::facts(&[
        ("read as", checked.format.clone()),
        ("rows", checked.rows.to_string()),
        ("not read", checked.ignored.join(", ")),
    ])?;
    if !is_good {
        let rows: Vec<Vec<String>> = checked
            .errors
            .iter()
            .map(|error| vec![error.row.to_string(), error.column.clone(), error.value.clone(), error.problem.clone()])
            .collect();
        output::line("")?;
        output::table(&["ROW", "COLUMN", "SAYS", "PROBLEM"], &rows)?;
        return output::line(&format!(
            "\n{} mistake(s); nothing was imported. Mend the file, then try again",
            rows.len()
        ));
    }
    for device in checked.devices.iter().filter(|device| device.is_minted).take(50) {
        output::line(&format!("row {}: the id {} was made for it", device.row, device.id))?;
    }
    if dry_run {
        return output::line(&format!("no mistake: {} device(s) would be imported", ids.len()));
    }
    output::line(&format!("{} device(s) imported; none can do anything before it is paired", ids.len()))?;
    output::line("next: pairgate pairing open <device>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.csv");
        std::fs::write(&file, vec![b'x'; MAX_FILE + 100]).unwrap();
        assert_eq!(read(&file).unwrap().len(), MAX_FILE + 1);
        assert!(read(&folder.path().join("none.csv")).unwrap_err().to_string().contains("can't be opened"));
    }
}
