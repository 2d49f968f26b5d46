//! Many devices at once against one broker, and one operator who pairs and approves them all.
//!
//! 1. Register all.
//! 2. Open pairing for the site.
//! 3. Each device: pair by number, ask for a code, poll held open; the operator claims the sign-in, types the device's
//!    number, approves.
//!
//! It tests how the broker bears many at once; it is no benchmark of single operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::device::SimulatedDevice;
use super::error::SimulatorError;
use super::host::{self, Stopwatch};
use super::key::DeviceKey;
use super::operator::{DeviceForm, PageOperator};
use super::routine::{self, DeviceEvent, Patience};
use super::wire::Wire;

/// Requests under way at once, held polls aside.
const IN_FLIGHT: usize = 64;
/// Sign-ins under way at once. Each holds one connection; a process may usually have 1024 files open.
const SIGN_INS_AT_ONCE: usize = 384;
/// Sign-ins that the operator looks at at once.
const APPROVALS_AT_ONCE: usize = 8;
/// How long the operator waits for a device to show its digits or its number.
const PATIENCE_WITH_DEVICE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    /// The issuer.
    pub issuer: String,
    /// A sign-in link of an operator who may register, pair and approve.
    pub link: String,
    /// How many devices.
    pub devices: usize,
    /// The scope to ask for; `None`: the kind's default.
    pub scope: Option<String>,
    /// Whether to draw progress bars (only on a terminal anyway).
    pub draws_progress: bool,
}

/// One device that did not get through.
#[derive(Debug, Clone, Serialize)]
pub struct FleetFailure {
    /// Device id.
    pub device: String,
    /// `register`, `pair` or `sign in`.
    pub step: &'static str,
    /// What happened.
    pub reason: String,
}

/// How it went.
#[derive(Debug, Clone, Serialize)]
pub struct FleetSummary {
    /// The issuer.
    pub issuer: String,
    /// Devices asked for.
    pub devices: usize,
    /// Devices registered.
    pub registered: usize,
    /// Devices paired.
    pub paired: usize,
    /// Devices with tokens.
    pub signed_in: usize,
    /// Median of seconds from asking for a code to having tokens.
    pub sign_in_p50_s: Option<f64>,
    /// 99th percentile of the same.
    pub sign_in_p99_s: Option<f64>,
    /// Seconds from the first registration to the last token.
    pub total_s: f64,
    /// The broker's peak memory in KiB, if it could be read.
    pub broker_peak_memory_kib: Option<u64>,
    /// Devices that did not get through.
    pub failures: Vec<FleetFailure>,
}

impl FleetSummary {
    /// Whether every device got tokens.
    pub fn is_complete(&self) -> bool {
        self.signed_in == self.devices && self.failures.is_empty()
    }

    /// The failures, equal ones counted together: (step, reason) → how many and one example.
    pub fn failures_by_reason(&self) -> BTreeMap<(&str, &str), (usize, &str)> {
        let mut counted = BTreeMap::new();
        for failure in &self.failures {
            let key = (failure.step, failure.reason.as_str());
            counted.entry(key).or_insert((0, failure.device.as_str())).0 += 1;
        }
        counted
    }
}

/// What all devices of a fleet share.
struct Ground {
    plan: FleetPlan,
    wire: Wire,
    operator: PageOperator,
    sign_ins: Semaphore,
    approvals: Semaphore,
    bars: Bars,
}

struct Bars {
    registered: ProgressBar,
    paired: ProgressBar,
    signed_in: ProgressBar,
}

/// Where a device failed, or how many seconds its sign-in took.
type Outcome = Result<f64, FleetFailure>;

/// Runs the fleet. An error only if it could not begin; what happens to single devices is in the summary.
pub async fn run(plan: FleetPlan) -> Result<FleetSummary, SimulatorError> {
    let wire = Wire::limited(IN_FLIGHT)?;
    let operator = PageOperator::new(&plan.issuer, wire.clone())?;
    operator.sign_in(&plan.link).await?;
    let stopwatch = Stopwatch::start();
    let bars = Bars::new(plan.devices, plan.draws_progress)?;
    let (sign_ins, approvals) = (Semaphore::new(SIGN_INS_AT_ONCE), Semaphore::new(APPROVALS_AT_ONCE));
    let ground = Arc::new(Ground { plan, wire, operator, sign_ins, approvals, bars });
    let run_tag = run_tag()?;

    let mut registering = JoinSet::new();
    for number in 1..=ground.plan.devices {
        let (ground, id) = (Arc::clone(&ground), format!("fleet-{run_tag}-{number:05}"));
        registering
            .spawn(async move { register(&ground, &id).await.map_err(|error| failure(&id, "register", &error)) });
    }
    let (registered, mut failures) = split(registering.join_all().await);

    let mut patience = Patience::default();
    while let Err(error) = ground.operator.open_site_window().await {
        patience.after(error).await?;
    }

    let mut living = JoinSet::new();
    for device in registered {
        let ground = Arc::clone(&ground);
        living.spawn(async move { live(&ground, device).await });
    }
    let (mut seconds, failed) = split::<f64>(living.join_all().await);
    failures.extend(failed);
    seconds.sort_by(f64::total_cmp);
    ground.bars.finish();
    Ok(FleetSummary {
        issuer: ground.plan.issuer.clone(),
        devices: ground.plan.devices,
        registered: Bars::count(&ground.bars.registered),
        paired: Bars::count(&ground.bars.paired),
        signed_in: seconds.len(),
        sign_in_p50_s: percentile(&seconds, 50),
        sign_in_p99_s: percentile(&seconds, 99),
        total_s: stopwatch.elapsed().as_secs_f64(),
        broker_peak_memory_kib: None,
        failures,
    })
}

async fn register(ground: &Ground, id: &str) -> Result<SimulatedDevice, SimulatorError> {
    let key = DeviceKey::generate_es256()?;
    let mut device = SimulatedDevice::new(id, &ground.plan.issuer, key, ground.wire.clone());
    device.serial = format!("SIM{}", id.to_ascii_uppercase());
    device.model = "Simulated printer".to_owned();
    let form = DeviceForm {
        id: id.to_owned(),
        kind: "printer".to_owned(),
        name: format!("Simulated printer {id}"),
        serial: device.serial.clone(),
        maker: "Pairgate".to_owned(),
        model: device.model.clone(),
        ..DeviceForm::default()
    };
    let mut patience = Patience::default();
    while let Err(error) = ground.operator.register(&form).await {
        patience.after(error).await?;
    }
    ground.bars.registered.inc(1);
    Ok(device)
}

async fn live(ground: &Ground, mut device: SimulatedDevice) -> Outcome {
    pair(ground, &mut device).await.map_err(|error| failure(&device.id, "pair", &error))?;
    ground.bars.paired.inc(1);
    let seconds = sign_in(ground, &mut device).await.map_err(|error| failure(&device.id, "sign in", &error))?;
    ground.bars.signed_in.inc(1);
    Ok(seconds)
}

/// The device's routine on one side, the operator on the other; they meet only through what the device shows.
async fn pair(ground: &Ground, device: &mut SimulatedDevice) -> Result<(), SimulatorError> {
    let (show, mut screen) = mpsc::unbounded_channel();
    let device_side = async {
        let paired = routine::pair(device, |event| drop(show.send(event))).await.map(drop);
        drop(show);
        paired
    };
    let operator_side = async {
        let mut patience = Patience::default();
        while let Some(event) = next(&mut screen).await? {
            let DeviceEvent::PairingShown(shown, digits) = event else { continue };
            while let Err(error) = ground.operator.pair_by_number(&shown.pairing_id, &digits).await {
                patience.after(error).await?;
            }
            return Ok(());
        }
        Ok(())
    };
    tokio::try_join!(device_side, operator_side).map(drop)
}

async fn sign_in(ground: &Ground, device: &mut SimulatedDevice) -> Result<f64, SimulatorError> {
    let _place = place(&ground.sign_ins).await?;
    let stopwatch = Stopwatch::start();
    let (show, mut screen) = mpsc::unbounded_channel();
    let device_side = async {
        let tokens = routine::sign_in(device, ground.plan.scope.as_deref(), |event| drop(show.send(event))).await;
        drop(show);
        tokens
    };
    let operator_side = async {
        let mut patience = Patience::default();
        let Some(DeviceEvent::CodeShown(shown)) = next(&mut screen).await? else { return Ok(()) };
        let _desk = place(&ground.approvals).await?;
        let grant = loop {
            match ground.operator.claim(&shown.verification_uri_complete).await {
                Ok(grant) => break grant,
                Err(error) => patience.after(error).await?,
            }
        };
        let Some(DeviceEvent::NumberShown(number)) = next(&mut screen).await? else { return Ok(()) };
        while let Err(error) = ground.operator.approve(&grant, &number).await {
            patience.after(error).await?;
        }
        Ok(())
    };
    let (tokens, ()) = tokio::try_join!(device_side, operator_side)?;
    device.bound_key(&tokens).await?;
    Ok(stopwatch.elapsed().as_secs_f64())
}

/// The next thing that the device shows; `None` when its routine has ended.
/// What the device shows next; that somebody looks for it is no step of its own.
async fn next(screen: &mut mpsc::UnboundedReceiver<DeviceEvent>) -> Result<Option<DeviceEvent>, SimulatorError> {
    loop {
        let event = tokio::time::timeout(PATIENCE_WITH_DEVICE, screen.recv())
            .await
            .map_err(|_| SimulatorError::Late("what the device should show"))?;
        if !matches!(event, Some(DeviceEvent::Identify)) {
            return Ok(event);
        }
    }
}

async fn place(of: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, SimulatorError> {
    of.acquire().await.map_err(|_| SimulatorError::OutOfOrder("The fleet has stopped."))
}

fn failure(device: &str, step: &'static str, error: &SimulatorError) -> FleetFailure {
    FleetFailure { device: device.to_owned(), step, reason: error.to_string() }
}

fn split<T>(results: Vec<Result<T, FleetFailure>>) -> (Vec<T>, Vec<FleetFailure>) {
    let (mut good, mut failed) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(failure) => failed.push(failure),
        }
    }
    (good, failed)
}

/// Four letters that keep two runs on one broker apart: device ids are never used twice.
fn run_tag() -> Result<String, SimulatorError> {
    Ok(host::random::<4>()?.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}

/// Nearest rank in sorted values.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

impl Bars {
    fn new(devices: usize, is_drawn: bool) -> Result<Self, SimulatorError> {
        let style = ProgressStyle::with_template("  {prefix:<11} {bar:32} {pos:>5}/{len} {elapsed:>5}")
            .map_err(|error| SimulatorError::Screen(error.to_string()))?;
        let all = MultiProgress::new();
        if !is_drawn {
            all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let bar = |name: &'static str| {
            let length = u64::try_from(devices).unwrap_or(u64::MAX);
            all.add(ProgressBar::new(length).with_style(style.clone()).with_prefix(name))
        };
        Ok(Self { registered: bar("registered"), paired: bar("paired"), signed_in: bar("signed in") })
    }

    fn count(bar: &ProgressBar) -> usize {
        usize::try_from(bar.position()).unwrap_or(usize::MAX)
    }

    fn finish(&self) {
        for bar in [&self.registered, &self.paired, &self.signed_in] {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let seconds: Vec<f64> = (1..=200_u32).map(f64::from).collect();
        assert_eq!(percentile(&seconds, 50), Some(100.0));
        assert_eq!(percentile(&seconds, 99), Some(198.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
