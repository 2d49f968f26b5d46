//! What each page costs with a full registry, measured on the real program: CPU time of `pairgate serve` and elapsed time, per request.
//!
//! `cargo bench --bench pages` prints one table; `-- --devices N` changes the size of the registry (10,000). Beside the pages stands a **control**: the
//! stylesheet, which the same server answers from memory. Compare the ratio between machines, not the milliseconds. Nothing is asserted.
//!
//! The registry: two sites, three kinds, twenty floors, every second device paired, and ten records of history per device.

#![allow(clippy::disallowed_methods)] // a bench measures time itself

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::{Connection, params};

const PAIRGATE: &str = env!("CARGO_BIN_EXE_pairgate");
/// Requests of each page.
const ROUNDS: usize = 30;

/// Pages, as people open them.
const PAGES: [&str; 31] = [
    "/",
    "/devices",
    "/devices?page=100",
    "/devices?q=printer-09",
    "/devices?q=nothing-like-this",
    "/devices?state=active&site=berlin&floor=7",
    "/devices/import",
    "/devices/labels?id=printer-00001",
    "/devices/printer-00001",
    "/devices/printer-00001/edit",
    "/devices/printer-00001/approvers",
    "/pair",
    "/pair/walk?site=berlin",
    "/pair/walk?site=berlin&floor=7",
    "/approve",
    "/alerts",
    "/alerts?page=2",
    "/audit",
    "/audit?device=printer-00001",
    "/operators",
    "/account",
    "/setup",
    "/settings",
    "/settings/sites",
    "/settings/kinds",
    "/settings/kinds/printer",
    "/settings/resources",
    "/settings/policy",
    "/settings/tokens",
    "/settings/risk",
    "/devices/export.csv",
];

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` and test runners that list start this file, too.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let position = arguments.iter().position(|argument| argument == "--devices");
    let devices = position.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(10_000);
    match bench(devices) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(devices: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let link = seed(folder.path(), devices)?;
    let mut child = Command::new(PAIRGATE)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("no output")?);
    let server = Server(child);
    let line = output.lines().map_while(Result::ok).find(|line| line.starts_with("listening on "));
    let issuer = line.context("the server did not start")?.trim_start_matches("listening on ").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&issuer, &link, server.0.id(), devices))
}

/// A database with devices and history, by the product's own tables; a sign-in token.
fn seed(data: &Path, devices: usize) -> anyhow::Result<String> {
    let run = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(PAIRGATE).args(arguments).arg("--data").arg(data).output()?;
        anyhow::ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    run(&["operator", "add", "bench", "--role", "admin"])?;
    let database = Connection::open(data.join("pairgate.db"))?;
    database.execute_batch(
        "BEGIN; INSERT INTO sites (id, name, networks) VALUES ('berlin', 'Berlin HQ', '10.2.0.0/16');",
    )?;
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?;
    for number in 0..devices {
        let kind = ["printer", "tv", "console"][number % 3];
        let (site, key) = (["default", "berlin"][number % 2], (number % 4 < 2).then(|| hash(number)));
        database.execute(
            "INSERT INTO devices (id, state, kind, site, name, serial, asset_tag, maker, model, floor, room, note, registered_at, jkt, paired_at, paired_by) \
             VALUES (?, ?, ?, ?, ?, ?, ?, 'Maker', 'M480f', ?, ?, '', ?, ?, ?, ?)",
            params![
                format!("printer-{number:05}"),
                if key.is_some() { "active" } else { "registered" },
                kind,
                site,
                format!("Device number {number}"),
                format!("SN{number:08}"),
                format!("{number:06}"),
                (number / 2 % 20).to_string(),
                format!("R{:03}", number % 500),
                now - 864_000_000,
                key,
                key.map(|_| now - 432_000_000),
                key.map(|_| "operator:bench"),
            ],
        )?;
    }
    let mut id: i64 = database.query_row("SELECT max(id) FROM audit", [], |row| row.get(0))?;
    for number in 0..devices * 10 {
        id += 1;
        let (event, severity) = match number % 20 {
            0 => ("code.refused", "refusal"),
            1 => ("key.mismatch", "alert"),
            2..=5 => ("token.issued", "info"),
            _ => ("token.refreshed", "info"),
        };
        let age = i64::try_from((devices * 10 - number) * 14 * 86_400 / (devices * 10))? * 1000;
        database.execute(
            "INSERT INTO audit (id, at, event, severity, actor, device, peer, detail, hash) VALUES (?, ?, ?, ?, 'broker', ?, '10.2.3.4', '', zeroblob(32))",
            params![id, now - age, event, severity, format!("printer-{:05}", number % devices)],
        )?;
    }
    database.execute_batch("COMMIT; ANALYZE; PRAGMA wal_checkpoint(TRUNCATE);")?;
    drop(database);
    let link = run(&["operator", "link", "bench"])?;
    let token = link.split_once("token=").and_then(|(_, token)| token.split_whitespace().next());
    Ok(token.context("no link")?.to_owned())
}

fn hash(number: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

async fn measure(issuer: &str, token: &str, pid: u32, devices: usize) -> anyhow::Result<()> {
    let wire = pairgate::simulator::Wire::new()?;
    let request =
        wire.post(&format!("{issuer}/sign-in")).header("sec-fetch-site", "same-origin").form(&[("token", token)]);
    let answer = wire.send(request).await?;
    let set = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let cookie = set.filter_map(|line| line.split(';').next()).find(|pair| pair.starts_with("__Host-pairgate="));
    let cookie = cookie.context("not signed in")?.to_owned();
    let style = wire.send(wire.get(issuer).header("cookie", &cookie)).await?;
    let style =
        style.body.split('"').find(|part| part.starts_with("/assets/style.")).context("no stylesheet")?.to_owned();

    println!("{devices} devices, {} records; each page {ROUNDS} times, median", devices * 10);
    println!("{:<44} {:>6} {:>9} {:>11} {:>9} {:>7}", "PAGE", "STATUS", "KIB", "ELAPSED ms", "CPU ms", "RATIO");
    let mut control = Duration::ZERO;
    for (index, path) in std::iter::once(style.as_str()).chain(PAGES).enumerate() {
        let (mut elapsed, mut last) = (Vec::new(), None);
        let began = cpu(pid)?;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            last = Some(wire.send(wire.get(&format!("{issuer}{path}")).header("cookie", &cookie)).await?);
            elapsed.push(start.elapsed());
        }
        let used = (cpu(pid)? - began) / u32::try_from(ROUNDS)?;
        elapsed.sort_unstable();
        let median = elapsed[ROUNDS / 2];
        if index == 0 {
            control = median;
        }
        let answer = last.context("no answer")?;
        println!(
            "{:<44} {:>6} {:>9.1} {:>11.2} {:>9.2} {:>7.1}",
            path.split("/assets/").last().unwrap_or(path),
            answer.status,
            kib(answer.body.len()),
            median.as_secs_f64() * 1000.0,
            used.as_secs_f64() * 1000.0,
            median.as_secs_f64() / control.as_secs_f64()
        );
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // a size for people
fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}

/// User and system time of a process so far, from /proc, in ticks of 10 ms.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
