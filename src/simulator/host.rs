//! The machine that a simulated device runs on: its own clock, its own randomness, its own patience.
//!
//! The broker's clock and generator (`clock.rs`, `secret.rs`) are not used on purpose: a device is another computer.

#![allow(
    clippy::disallowed_methods,
    reason = "a simulated device is a separate machine with its own clock and randomness"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::SimulatorError;
use super::jose::b64u;

/// Seconds since 1970 by the device's clock.
pub fn now_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_secs()).ok())
        .unwrap_or_default()
}

/// A started stopwatch.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// `N` random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], SimulatorError> {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SimulatorError::Crypto("this machine gives no randomness"))?;
    Ok(bytes)
}

/// A new `jti`: 22 characters, 128 bits.
pub fn new_jti() -> Result<String, SimulatorError> {
    Ok(b64u(&random::<16>()?))
}

/// Waits without blocking the thread.
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
