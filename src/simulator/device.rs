//! A simulated device that signs in (docs/api.md section 2): codes, polls, tokens, each with a DPoP proof.
//!
//! Pairing is in `pairing.rs`; the loop from start to end is in `routine.rs`. RFC 8628, RFC 9449, RFC 7240.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::SimulatorError;
use super::host::{self, Stopwatch};
use super::idevid::Idevid;
use super::jose::{self, from_b64u_32};
use super::key::{DeviceKey, short_key};
use super::pairing::{PairingUnderWay, Pins};
use super::wire::{RawAnswer, Wire};

/// The grant type of RFC 8628.
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Seconds that each `slow_down` adds, for good.
const SLOW_DOWN_S: u64 = 5;

/// A printer, TV or console, as far as the broker can tell.
pub struct SimulatedDevice {
    /// Device id, which is its `client_id`.
    pub id: String,
    /// Serial number; empty: not sent.
    pub serial: String,
    /// Model; empty: not sent.
    pub model: String,
    /// Firmware; empty: not sent.
    pub firmware: String,
    /// Its key.
    pub key: DeviceKey,
    /// What it says of how the key is kept, `hardware`; empty: nothing.
    pub key_storage: String,
    /// What its maker gave it, to prove that.
    pub idevid: Option<Idevid>,
    /// During a rotation the key that vouches for the new one. If the rotation fails, it is still the device's key.
    pub former_key: Option<DeviceKey>,
    /// What the broker has accepted of how the key is kept, as it said last.
    pub key_assurance: String,
    /// Seconds by which its clock is ahead.
    pub clock_offset_s: i64,
    /// What it pinned when it was paired.
    pub pins: Option<Pins>,
    /// The broker's last answer asked it to show itself.
    pub identify: bool,
    pub(super) pairing: Option<PairingUnderWay>,
    issuer: String,
    wire: Wire,
    dpop_nonce: Option<String>,
    sign_in: Option<SignInUnderWay>,
    refresh_token: Option<String>,
}

struct SignInUnderWay {
    device_code: String,
    interval: Duration,
    next_poll_in: Duration,
}

/// The broker's answer to a request for a code. `Debug` and JSON leave the secret half out.
#[derive(Clone, Serialize, Deserialize)]
pub struct CodeShown {
    /// The secret half; never shown.
    #[serde(skip_serializing)]
    pub device_code: String,
    /// The half for people.
    pub user_code: String,
    /// The page.
    pub verification_uri: String,
    /// The page with the code in it: the QR code.
    pub verification_uri_complete: String,
    /// Seconds until the code lapses.
    pub expires_in: u64,
    /// Seconds between polls.
    pub interval: u64,
}

/// Tokens that the device got. `Debug` and JSON leave the secrets out.
#[derive(Clone, Deserialize, Serialize)]
pub struct Tokens {
    /// The access token, a JWT.
    #[serde(skip_serializing)]
    pub access_token: String,
    /// `DPoP`.
    pub token_type: String,
    /// Seconds.
    pub expires_in: u64,
    /// What it is good for.
    #[serde(default)]
    pub scope: String,
    /// The refresh token, if the kind gives one.
    #[serde(skip_serializing)]
    pub refresh_token: Option<String>,
    /// Who let it in, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

impl std::fmt::Debug for CodeShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodeShown({} for {} s)", self.user_code, self.expires_in)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({} for {} s, scope {:?})", self.token_type, self.expires_in, self.scope)
    }
}

/// The broker's answer to a poll.
#[derive(Debug, Clone)]
pub enum TokenAnswer {
    /// Not decided yet.
    Pending {
        /// Two digits to show at once, when an approver has opened the page.
        confirmation_number: Option<String>,
    },
    /// Too fast; the device has already made its interval longer.
    SlowDown,
    /// The approver said no.
    Denied,
    /// The code lapsed.
    Expired,
    /// Signed in.
    Tokens(Tokens),
    /// Any other error of section 2.6.
    Error {
        /// HTTP status.
        status: u16,
        /// The `error` member.
        error: String,
        /// The `error_description` member.
        description: String,
    },
}

impl std::fmt::Debug for SimulatedDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimulatedDevice({} with {:?})", self.id, self.key)
    }
}

impl SimulatedDevice {
    /// A device with a key, out of the box. `issuer` without a slash at the end.
    pub fn new(id: &str, issuer: &str, key: DeviceKey, wire: Wire) -> Self {
        Self {
            id: id.to_owned(),
            serial: String::new(),
            model: String::new(),
            firmware: String::new(),
            key,
            key_storage: String::new(),
            idevid: None,
            former_key: None,
            key_assurance: String::new(),
            clock_offset_s: 0,
            pins: None,
            identify: false,
            pairing: None,
            issuer: issuer.trim_end_matches('/').to_owned(),
            wire,
            dpop_nonce: None,
            sign_in: None,
            refresh_token: None,
        }
    }

    /// The issuer that it talks to.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Seconds since 1970 by its own clock.
    pub fn now_s(&self) -> i64 {
        host::now_s() + self.clock_offset_s
    }

    /// The DPoP nonce that it would use next.
    pub fn dpop_nonce(&self) -> Option<&str> {
        self.dpop_nonce.as_deref()
    }

    /// Makes it poll with this `device_code`: how a thief uses a stolen one.
    pub fn adopt_device_code(&mut self, device_code: &str) {
        let interval = Duration::from_secs(5);
        self.sign_in =
            Some(SignInUnderWay { device_code: device_code.to_owned(), interval, next_poll_in: Duration::ZERO });
    }

    /// Asks for a code. A new one replaces the pending one.
    pub async fn request_code(
        &mut self,
        scope: Option<&str>,
        resource: Option<&str>,
    ) -> Result<CodeShown, SimulatorError> {
        let id = self.id.clone();
        let mut params = vec![("client_id", id.as_str())];
        params.extend(scope.map(|scope| ("scope", scope)));
        params.extend(resource.map(|resource| ("resource", resource)));
        let answer = self.post_with_proof("/device_authorization", &params, None).await?;
        if answer.status != 200 {
            return Err(answer.into_error());
        }
        let shown: CodeShown = serde_json::from_str(&answer.body)
            .map_err(|error| SimulatorError::Malformed(format!("a code answer with {error}")))?;
        let interval = Duration::from_secs(shown.interval);
        self.sign_in =
            Some(SignInUnderWay { device_code: shown.device_code.clone(), interval, next_poll_in: interval });
        Ok(shown)
    }

    /// How long to wait before the next poll.
    pub fn next_poll_in(&self) -> Duration {
        self.sign_in.as_ref().map(|sign_in| sign_in.next_poll_in).unwrap_or_default()
    }

    /// Polls for tokens; `wait` seconds at most until the broker has to answer.
    pub async fn poll_token(&mut self, wait: Option<u32>) -> Result<TokenAnswer, SimulatorError> {
        let device_code = match &self.sign_in {
            Some(sign_in) => sign_in.device_code.clone(),
            None => return Err(SimulatorError::OutOfOrder("No sign-in is under way. Request a code first.")),
        };
        let id = self.id.clone();
        let params = [("grant_type", DEVICE_CODE_GRANT), ("device_code", &device_code), ("client_id", &id)];
        let stopwatch = Stopwatch::start();
        let answer = self.post_with_proof("/token", &params, wait).await?;
        let held_for = answer
            .header("preference-applied")
            .and_then(|applied| applied.trim().strip_prefix("wait=")?.parse().ok())
            .map(Duration::from_secs);
        let answer = self.token_answer(answer)?;
        self.pace(&answer, held_for, stopwatch.elapsed());
        Ok(answer)
    }

    /// Trades the refresh token for new tokens; both are replaced.
    pub async fn refresh(&mut self) -> Result<TokenAnswer, SimulatorError> {
        const NONE: SimulatorError = SimulatorError::OutOfOrder("There is no refresh token. Sign in first.");
        let refresh_token = self.refresh_token.clone().ok_or(NONE)?;
        let id = self.id.clone();
        let params = [("grant_type", "refresh_token"), ("refresh_token", &refresh_token), ("client_id", &id)];
        let answer = self.post_with_proof("/token", &params, None).await?;
        self.token_answer(answer)
    }

    /// Whether it holds a refresh token.
    pub fn may_refresh(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// Checks an access token with the pinned keys and returns its claims.
    pub fn claims_of(&self, tokens: &Tokens) -> Result<Value, SimulatorError> {
        const UNPINNED: SimulatorError = SimulatorError::OutOfOrder("No keys are pinned. Pair first.");
        let pins = self.pins.as_ref().ok_or(UNPINNED)?;
        let keys = pins.jwks.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        keys.iter()
            .find_map(|key| jose::check(&tokens.access_token, key).ok())
            .map(|jwt| jwt.claims)
            .ok_or(SimulatorError::NotAuthentic("no pinned key signed the access token"))
    }

    /// The key that an access token is bound to (`cnf.jkt`), as people see it; an error if it is not the device's own. A key id that is not pinned means
    /// that the broker's keys were rotated: the device fetches them again, once.
    pub async fn bound_key(&mut self, tokens: &Tokens) -> Result<String, SimulatorError> {
        if self.pins.is_some() && !self.is_pinned(&tokens.access_token)? {
            self.pin_again().await?;
        }
        let claims = self.claims_of(tokens)?;
        let jkt = claims.pointer("/cnf/jkt").and_then(Value::as_str).and_then(from_b64u_32);
        match jkt {
            Some(jkt) if jkt == *self.key.thumbprint() => Ok(short_key(&jkt)),
            _ => Err(SimulatorError::NotAuthentic("the access token is not bound to this device's key")),
        }
    }

    fn is_pinned(&self, jwt: &str) -> Result<bool, SimulatorError> {
        let kid = jose::peek(jwt)?.header.get("kid").cloned();
        let keys = self.pins.as_ref().and_then(|pins| pins.jwks.get("keys")?.as_array());
        Ok(keys.is_some_and(|keys| keys.iter().any(|key| key.get("kid") == kid.as_ref())))
    }

    /// Fetches `/jwks` from the pinned issuer and pins what is there, instead of what was: a key that is gone from it may have leaked.
    pub async fn pin_again(&mut self) -> Result<(), SimulatorError> {
        let answer = self.wire.send(self.wire.get(&self.address("/jwks"))).await?;
        if answer.status != 200 {
            return Err(answer.into_error());
        }
        let jwks = answer.json()?;
        if jwks.get("keys").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Err(SimulatorError::Malformed("a JWK Set without keys".to_owned()));
        }
        if let Some(pins) = &mut self.pins {
            pins.jwks = jwks;
        }
        Ok(())
    }

    /// A DPoP proof (RFC 9449 section 4.2) by this device's key and clock.
    pub fn proof(&self, htm: &str, htu: &str, nonce: Option<&str>, jti: &str) -> Result<String, SimulatorError> {
        let mut claims = json!({"jti": jti, "htm": htm, "htu": htu, "iat": self.now_s()});
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        self.key.sign_raw(&self.key.header("dpop+jwt"), &claims)
    }

    /// Posts a form with exactly these headers: no proof of its own, no retry.
    pub async fn post_form(
        &self,
        path: &str,
        params: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Result<RawAnswer, SimulatorError> {
        let mut request = self.wire.post(&self.address(path)).form(params);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.wire.send(request).await
    }

    /// Posts a compact JWT as the body.
    pub async fn post_jwt(&self, path: &str, jwt: &str) -> Result<RawAnswer, SimulatorError> {
        let request =
            self.wire.post(&self.address(path)).header("content-type", "application/jwt").body(jwt.to_owned());
        self.wire.send(request).await
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// Posts with a new proof; on `use_dpop_nonce` once more, with the nonce of that answer and another `jti`.
    async fn post_with_proof(
        &mut self,
        path: &str,
        params: &[(&str, &str)],
        wait: Option<u32>,
    ) -> Result<RawAnswer, SimulatorError> {
        let answer = self.post_once(path, params, wait).await?;
        let wants_nonce = answer.oauth_error().is_some_and(|(error, _)| error == "use_dpop_nonce");
        if wants_nonce && answer.header("dpop-nonce").is_some() {
            return self.post_once(path, params, wait).await;
        }
        Ok(answer)
    }

    async fn post_once(
        &mut self,
        path: &str,
        params: &[(&str, &str)],
        wait: Option<u32>,
    ) -> Result<RawAnswer, SimulatorError> {
        let proof = self.proof("POST", &self.address(path), self.dpop_nonce(), &host::new_jti()?)?;
        let prefer = wait.map(|seconds| format!("wait={seconds}"));
        let mut headers = vec![("dpop", proof.as_str())];
        headers.extend(prefer.as_deref().map(|prefer| ("prefer", prefer)));
        let answer = self.post_form(path, params, &headers).await?;
        if let Some(nonce) = answer.header("dpop-nonce") {
            self.dpop_nonce = Some(nonce.to_owned());
        }
        Ok(answer)
    }

    fn token_answer(&mut self, answer: RawAnswer) -> Result<TokenAnswer, SimulatorError> {
        let members = serde_json::from_str::<Value>(&answer.body).unwrap_or_default();
        self.identify = members["identify"] == true;
        if answer.status == 200 {
            let tokens: Tokens = serde_json::from_str(&answer.body)
                .map_err(|error| SimulatorError::Malformed(format!("a token answer with {error}")))?;
            // A refresh answer without a new refresh token leaves the old one valid (RFC 6749 section 6).
            if tokens.refresh_token.is_some() {
                self.refresh_token.clone_from(&tokens.refresh_token);
            }
            return Ok(TokenAnswer::Tokens(tokens));
        }
        let number = members["confirmation_number"].as_str().map(str::to_owned);
        match answer.into_error() {
            SimulatorError::Refused { status, error, description } => Ok(match error.as_str() {
                "authorization_pending" => TokenAnswer::Pending { confirmation_number: number },
                "slow_down" => TokenAnswer::SlowDown,
                "access_denied" => TokenAnswer::Denied,
                "expired_token" => TokenAnswer::Expired,
                _ => TokenAnswer::Error { status, error, description },
            }),
            other => Err(other),
        }
    }

    /// The interval only grows. A held poll that was answered early may be followed at once.
    fn pace(&mut self, answer: &TokenAnswer, held_for: Option<Duration>, elapsed: Duration) {
        let Some(sign_in) = &mut self.sign_in else { return };
        match answer {
            TokenAnswer::SlowDown => {
                sign_in.interval += Duration::from_secs(SLOW_DOWN_S);
                sign_in.next_poll_in = sign_in.interval;
            }
            _ if held_for.is_some_and(|held_for| elapsed < held_for) => sign_in.next_poll_in = Duration::ZERO,
            _ => sign_in.next_poll_in = sign_in.interval.saturating_sub(elapsed),
        }
    }
}
