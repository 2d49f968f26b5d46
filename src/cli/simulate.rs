//! `pairgate simulate`: one simulated device against any issuer, or a fleet of them against one broker.
//!
//! The devices are in `simulator/`; here is what they print, and the private broker that a fleet without `--issuer`
//! gets: a child process, so that its memory is its own.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::config::mqtt::{OutsideBroker, place};
use crate::mqtt::relay::Relay;
use crate::simulator::flash::Flash;
use crate::simulator::fleet::{self, FleetPlan, FleetSummary};
use crate::simulator::routine::{self, DeviceEvent};
use crate::simulator::screen::{self, Paint};
use crate::simulator::{DeviceKey, MqttDoor, MqttLogin, MqttRadio, SimulatedDevice, SimulatorError, Wire};

/// Simulate one device, or a fleet.
#[derive(Debug, clap::Args)]
pub struct SimulateArgs {
    /// The broker's public address, such as http://localhost:8628
    #[arg(long, value_name = "URL", required_unless_present = "fleet")]
    issuer: Option<String>,
    /// The device's id, as registered
    #[arg(long, value_name = "ID", required_unless_present = "fleet")]
    id: Option<String>,
    /// File in which the device keeps its key and what it pinned; without it they are gone at the end
    #[arg(long, value_name = "FILE", conflicts_with = "fleet")]
    key: Option<PathBuf>,
    /// From the global argument `--ca`.
    #[arg(skip)]
    ca: Option<PathBuf>,
    /// Serial number that the device gives
    #[arg(long, value_name = "S", conflicts_with = "fleet")]
    serial: Option<String>,
    /// Also write each QR code to this PNG file
    #[arg(long, value_name = "FILE", conflicts_with = "fleet")]
    qr_png: Option<PathBuf>,
    /// Scope to ask for; without it the default of the device's kind
    #[arg(long, value_name = "S")]
    scope: Option<String>,
    /// Be paired and told over MQTT at this address, such as mqtt://127.0.0.1:8883; TLS as with --ca
    #[arg(long, value_name = "URL", conflicts_with = "fleet")]
    mqtt: Option<String>,
    /// What the broker's topics begin with
    #[arg(long, value_name = "P", default_value = "pairgate", requires = "mqtt")]
    mqtt_prefix: String,
    /// Run this many devices at once, with an operator who pairs and approves them
    #[arg(long, value_name = "N", conflicts_with = "id", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    fleet: Option<u32>,
    /// With --fleet and --issuer: a sign-in link of an operator (pairgate operator link NAME)
    #[arg(long, value_name = "URL", requires = "fleet", requires = "issuer")]
    link: Option<String>,
}

/// Runs the command.
pub async fn run(mut args: SimulateArgs, ca: Option<PathBuf>, json: bool) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(ca.is_none() || args.fleet.is_none(), "--ca is for one device, not for --fleet");
    args.ca = ca;
    let stopped = tokio::signal::ctrl_c();
    let work = async {
        match args.fleet {
            Some(devices) => run_fleet(&args, usize::try_from(devices)?, json).await,
            None => run_device(&args, json).await,
        }
    };
    tokio::select! {
        outcome = work => outcome,
        _ = stopped => {
            eprintln!("Stopped. The key file, if any, is kept.");
            Ok(ExitCode::from(130))
        }
    }
}

/// What one device prints, and where.
struct Output<'a> {
    json: bool,
    paint: Paint,
    qr_png: Option<&'a Path>,
}

impl Output<'_> {
    fn show(&self, event: &DeviceEvent) -> Result<(), SimulatorError> {
        let link = match event {
            DeviceEvent::PairingShown(shown, _) => Some(&shown.uri_complete),
            DeviceEvent::CodeShown(shown) => Some(&shown.verification_uri_complete),
            _ => None,
        };
        if let (Some(path), Some(link)) = (self.qr_png, link) {
            screen::write_png_qr(path, link)?;
        }
        if self.json {
            println!("{}", event.to_json());
            return Ok(());
        }
        println!("{}", screen::screen_after(event, "device", self.paint)?);
        if let Some(link) = link {
            println!("      The code leads to {link}\n");
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        if !self.json {
            println!("{line}");
        }
    }
}

async fn run_device(args: &SimulateArgs, json: bool) -> anyhow::Result<ExitCode> {
    let paint = if std::io::stdout().is_terminal() { Paint::Colour } else { Paint::Plain };
    let output = Output { json, paint, qr_png: args.qr_png.as_deref() };
    let mut device = switch_on(args)?;
    output.say(&format!("{} has key {} and talks to {}.", device.id, device.key.short(), device.issuer()));

    if device.pins.is_none() {
        pair(&mut device, args, &output).await?;
    }
    let signed_in = match sign_in(&mut device, args, &output).await {
        Err(error) if error.oauth_error() == Some("invalid_client") => {
            output.say("The broker does not know this key for this id any more. Pairing again.");
            pair(&mut device, args, &output).await?;
            sign_in(&mut device, args, &output).await
        }
        other => other,
    };
    let tokens = signed_in?;
    let bound_to = device.bound_key(&tokens).await?;
    // The broker's keys may have been rotated since it was paired.
    save(&device, args)?;
    if json {
        println!("{}", json!({"event": "checked", "bound_key": bound_to, "tokens": tokens}));
    } else {
        println!("  token      {} (not shown)", tokens.token_type);
        println!("  lives      {} s", tokens.expires_in);
        println!("  scope      {}", tokens.scope);
        println!("  bound to   key {bound_to}, this device's own; signed by a pinned key");
    }
    Ok(ExitCode::SUCCESS)
}

/// A device with the key from its file, or with a new one that is in the file before it is used.
fn switch_on(args: &SimulateArgs) -> anyhow::Result<SimulatedDevice> {
    let (Some(issuer), Some(id)) = (&args.issuer, &args.id) else { bail!("--issuer and --id are needed") };
    let kept = args.key.as_deref().map(Flash::load).transpose()?.flatten();
    if let Some(kept) = kept.as_ref().filter(|kept| kept.id != *id) {
        bail!("the key file belongs to {}. A key belongs to one device: use another file for {id}.", kept.id);
    }
    let key = match &kept {
        Some(kept) => kept.key()?,
        None => DeviceKey::generate_es256()?,
    };
    let wire = match &args.ca {
        Some(path) => {
            let pem = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Wire::with_tls(&pem, None)?
        }
        None => Wire::new()?,
    };
    let mut device = SimulatedDevice::new(id, issuer, key, wire);
    let issuer = device.issuer().to_owned();
    device.pins = kept.and_then(|kept| kept.pins).filter(|pins| pins.issuer == issuer);
    device.serial = args.serial.clone().unwrap_or_default();
    device.model = "Simulated device".to_owned();
    device.firmware = env!("CARGO_PKG_VERSION").to_owned();
    save(&device, args)?;
    Ok(device)
}

fn save(device: &SimulatedDevice, args: &SimulateArgs) -> Result<(), SimulatorError> {
    match &args.key {
        Some(path) => Flash::of(device)?.save(path),
        None => Ok(()),
    }
}

async fn pair(device: &mut SimulatedDevice, args: &SimulateArgs, output: &Output<'_>) -> Result<(), SimulatorError> {
    output.say("It asks to be paired. An operator scans its code, or types its digits on the page Pair.\n");
    let mut shown = Ok(());
    let tell = |event| shown = std::mem::replace(&mut shown, Ok(())).and(output.show(&event));
    let paired = match Radio::of(args)? {
        Some(radio) => radio.open(device, false).await?.pair(device, tell).await,
        None => routine::pair(device, tell).await,
    };
    if paired.as_ref().is_err_and(|error| error.oauth_error() == Some("pairing_refused")) {
        output.say(
            "The broker tells a device no reason. Operators find it on the page Alerts, or by `pairgate audit tail`.\n\
             Most often pairing is not open for this device, or its serial number is not the registered one (--serial).\n",
        );
    }
    paired?;
    shown?;
    save(device, args)
}

async fn sign_in(
    device: &mut SimulatedDevice,
    args: &SimulateArgs,
    output: &Output<'_>,
) -> Result<crate::simulator::Tokens, SimulatorError> {
    output.say("It asks for a code. An approver opens it and types the number that the device then shows.\n");
    let mut shown = Ok(());
    let tell = |event| shown = std::mem::replace(&mut shown, Ok(())).and(output.show(&event));
    let tokens = match Radio::of(args)? {
        Some(radio) => radio.open(device, true).await?.sign_in(device, args.scope.as_deref(), tell).await?,
        None => routine::sign_in(device, args.scope.as_deref(), tell).await?,
    };
    shown.map(|()| tokens)
}

/// Where the device is heard over MQTT.
struct Radio {
    relay: Relay,
    prefix: String,
}

impl Radio {
    fn of(args: &SimulateArgs) -> Result<Option<Self>, SimulatorError> {
        let Some(url) = &args.mqtt else { return Ok(None) };
        let unreachable = |reason: String| SimulatorError::Unreachable { address: url.clone(), reason };
        let (host, port, is_tls) = place(url).map_err(|error| unreachable(error.to_string()))?;
        let relay = Relay::start(&OutsideBroker { ca: args.ca.clone(), ..OutsideBroker::at(host, port, is_tls) });
        let relay = relay.map_err(|error| unreachable(error.to_string()))?;
        Ok(Some(Self { relay, prefix: args.mqtt_prefix.clone() }))
    }

    async fn open(&self, device: &SimulatedDevice, is_paired: bool) -> Result<MqttRadio, SimulatorError> {
        let (door, login) = (MqttDoor::Socket(self.relay.socket()), MqttLogin::Password { is_paired });
        MqttRadio::open(device, &door, &self.prefix, &login).await
    }
}

async fn run_fleet(args: &SimulateArgs, devices: usize, json: bool) -> anyhow::Result<ExitCode> {
    let plan = |issuer: String, link: String| FleetPlan {
        issuer,
        link,
        devices,
        scope: args.scope.clone(),
        draws_progress: !json,
    };
    let summary = match (&args.issuer, &args.link) {
        (Some(issuer), Some(link)) => fleet::run(plan(issuer.clone(), link.clone())).await?,
        (Some(_), None) => bail!("--fleet with --issuer also needs --link. Make one with: pairgate operator link NAME"),
        (None, _) => {
            let broker = tokio::task::spawn_blocking(PrivateBroker::start).await??;
            let mut summary = fleet::run(plan(broker.issuer.clone(), broker.link.clone())).await?;
            summary.broker_peak_memory_kib = broker.peak_memory_kib();
            summary
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print_summary(&summary);
    }
    Ok(if summary.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_summary(summary: &FleetSummary) {
    let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} s"));
    println!("\nFleet of {} against {}\n", summary.devices, summary.issuer);
    println!("  registered        {:>9}", summary.registered);
    println!("  paired            {:>9}", summary.paired);
    println!("  signed in         {:>9}", summary.signed_in);
    println!("  failed            {:>9}", summary.failures.len());
    println!("  sign-in, median   {:>9}", seconds(summary.sign_in_p50_s));
    println!("  sign-in, p99      {:>9}", seconds(summary.sign_in_p99_s));
    println!("  all together      {:>9}", seconds(Some(summary.total_s)));
    if let Some(kib) = summary.broker_peak_memory_kib {
        println!("  broker's memory   {:>9}", format!("{} MiB", kib.div_ceil(1024)));
    }
    for ((step, reason), (count, example)) in summary.failures_by_reason() {
        println!("\n  {count} failed to {step}, such as {example}:\n    {reason}");
    }
}

/// A broker as a child process with a data directory that goes with it.
struct PrivateBroker {
    child: Child,
    issuer: String,
    link: String,
    _data: tempfile::TempDir,
}

impl PrivateBroker {
    /// Starts the broker, adds an operator, makes a link. Blocks.
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program does not find itself")?;
        let data = tempfile::tempdir().context("no temporary directory can be made")?;
        let log = fs::File::create(data.path().join("serve.log")).context("the broker's log cannot be written")?;
        let mut child = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("the broker cannot be started")?;
        let started = listening_address(&mut child).and_then(|issuer| {
            command(&program, data.path(), &["operator", "add", "fleet", "--role", "admin"])?;
            let printed = command(&program, data.path(), &["operator", "link", "fleet"])?;
            let answer: Value = serde_json::from_slice(&printed).context("operator link printed no JSON")?;
            let link = answer.get("url").and_then(Value::as_str).context("operator link printed no url")?.to_owned();
            Ok((issuer, link))
        });
        match started {
            Ok((issuer, link)) => Ok(Self { child, issuer, link, _data: data }),
            Err(error) => {
                stop(&mut child);
                let log = fs::read_to_string(data.path().join("serve.log")).unwrap_or_default();
                Err(error.context(format!("the private broker did not come up. Its log:\n{log}")))
            }
        }
    }

    /// The most memory that it ever had, in KiB. Linux only.
    fn peak_memory_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Its data directory is removed next, so there is nothing that it would have to save.
fn stop(child: &mut Child) {
    // Both fail only if it has ended already.
    child.kill().ok();
    child.wait().ok();
}

/// Reads the line `listening on …`, then goes on reading in the background, so that the broker never writes into a closed pipe.
fn listening_address(child: &mut Child) -> anyhow::Result<String> {
    let mut lines = BufReader::new(child.stdout.take().context("the broker has no output")?).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("listening on ").map(|(_, address)| address.trim().to_owned()))
        .context("it ended before it was listening")?;
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Ok(address)
}

/// Runs one command on the broker's data and returns what it prints.
fn command(program: &Path, data: &Path, words: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(program).args(words).arg("--json").arg("--data").arg(data).output()?;
    if !output.status.success() {
        bail!("pairgate {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
