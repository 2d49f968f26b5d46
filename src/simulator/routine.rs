//! A device's two routines from start to end: get paired, sign in. It tells an observer what it would show.

use std::time::Duration;

use serde_json::{Value, json};

use super::device::{CodeShown, SimulatedDevice, TokenAnswer, Tokens};
use super::error::SimulatorError;
use super::host;
use super::pairing::{PairingShown, PairingStatus, Pins};
use super::wire::LONGEST_WAIT_S;

/// Something to show, or something that happened.
#[derive(Debug, Clone)]
pub enum DeviceEvent {
    /// Show the pairing QR code and these six digits.
    PairingShown(PairingShown, String),
    /// Paired; the broker's keys are pinned.
    Paired(Pins),
    /// Show the sign-in QR code and the code.
    CodeShown(CodeShown),
    /// Show this two-digit number.
    NumberShown(String),
    /// Signed in.
    SignedIn(Tokens),
    /// Somebody looks for this device: blink, beep, print a page.
    Identify,
}

impl DeviceEvent {
    /// The event for programs; without secrets.
    pub fn to_json(&self) -> Value {
        let (event, facts) = match self {
            Self::PairingShown(shown, digits) => ("pairing_shown", json!({"pairing": shown, "digits": digits})),
            Self::Paired(pins) => ("paired", json!({"issuer": pins.issuer})),
            Self::CodeShown(shown) => ("code_shown", json!({"code": shown})),
            Self::NumberShown(number) => ("number_shown", json!({"confirmation_number": number})),
            Self::SignedIn(tokens) => ("signed_in", json!({"tokens": tokens})),
            Self::Identify => ("identify", json!({})),
        };
        let mut line = json!({"event": event});
        if let (Value::Object(line), Value::Object(facts)) = (&mut line, facts) {
            line.extend(facts);
        }
        line
    }
}

/// The least pause after a poll that brought no news, so that a broker that holds nothing open is not hammered.
const WITHOUT_NEWS: Duration = Duration::from_secs(1);

/// How often a device takes "later" for an answer before it gives up.
#[derive(Debug)]
pub struct Patience {
    tries_left: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries_left: 20 }
    }
}

impl Patience {
    /// After `Busy`: waits as long as the broker asked. After anything else, or for the last time: the error.
    pub async fn after(&mut self, error: SimulatorError) -> Result<(), SimulatorError> {
        match error {
            SimulatorError::Busy { retry_after_s, .. } if self.tries_left > 0 => {
                self.tries_left -= 1;
                host::pause(Duration::from_secs(retry_after_s.clamp(1, 60))).await;
                Ok(())
            }
            other => Err(other),
        }
    }
}

/// Requests a pairing and polls until an operator has confirmed it.
pub async fn pair(device: &mut SimulatedDevice, mut tell: impl FnMut(DeviceEvent)) -> Result<Pins, SimulatorError> {
    let mut patience = Patience::default();
    let shown = loop {
        match device.request_pairing().await {
            Ok(shown) => break shown,
            Err(error) => patience.after(error).await?,
        }
    };
    let mut to_show = Some(shown);
    loop {
        match device.poll_pairing().await {
            Ok(PairingStatus::Pending { digits, interval, .. }) => {
                if let Some(shown) = to_show.take() {
                    tell(DeviceEvent::PairingShown(shown, digits));
                }
                if std::mem::take(&mut device.identify) {
                    tell(DeviceEvent::Identify);
                }
                host::pause(Duration::from_secs(interval)).await;
            }
            Ok(PairingStatus::Paired(pins)) => {
                tell(DeviceEvent::Paired(pins.clone()));
                return Ok(pins);
            }
            Err(error) => patience.after(error).await?,
        }
    }
}

/// Asks for a code and polls until it is decided.
pub async fn sign_in(
    device: &mut SimulatedDevice,
    scope: Option<&str>,
    mut tell: impl FnMut(DeviceEvent),
) -> Result<Tokens, SimulatorError> {
    let mut patience = Patience::default();
    let shown = loop {
        match device.request_code(scope, None).await {
            Ok(shown) => break shown,
            Err(error) => patience.after(error).await?,
        }
    };
    tell(DeviceEvent::CodeShown(shown));
    let mut number_on_screen = None;
    // The first poll may come at once: it is held open.
    let mut pause = Duration::ZERO;
    loop {
        host::pause(pause).await;
        let mut least_pause = WITHOUT_NEWS;
        match device.poll_token(Some(LONGEST_WAIT_S)).await {
            Ok(TokenAnswer::Tokens(tokens)) => {
                tell(DeviceEvent::SignedIn(tokens.clone()));
                return Ok(tokens);
            }
            Ok(TokenAnswer::Pending { confirmation_number }) => {
                if let Some(number) = confirmation_number.filter(|number| number_on_screen.as_ref() != Some(number)) {
                    tell(DeviceEvent::NumberShown(number.clone()));
                    number_on_screen = Some(number);
                    least_pause = Duration::ZERO;
                }
                if std::mem::take(&mut device.identify) {
                    tell(DeviceEvent::Identify);
                    least_pause = Duration::ZERO;
                }
            }
            Ok(TokenAnswer::SlowDown) => {}
            Ok(TokenAnswer::Denied) => return Err(SimulatorError::SignInEnded("the approver said no")),
            Ok(TokenAnswer::Expired) => return Err(SimulatorError::SignInEnded("the code ran out")),
            Ok(TokenAnswer::Error { status, error, description }) => {
                return Err(SimulatorError::Refused { status, error, description });
            }
            Err(error) => patience.after(error).await?,
        }
        pause = device.next_poll_in().max(least_pause);
    }
}
