//! The device's side of pairing (docs/api.md section 1): commit, reveal, compare, pin.
//!
//! 1. The device commits itself to a nonce.
//! 2. The broker answers with its own nonce, signed.
//! 3. The first poll reveals the device's nonce; both sides know the six digits.
//! 4. An operator confirms.
//! 5. The broker says `paired`, signed by the same key as in 2; the device pins its keys.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::device::SimulatedDevice;
use super::error::SimulatorError;
use super::host;
use super::jose::{self, CheckedJwt, b64u, from_b64u_32, sha256, thumbprint};
use super::key::DeviceKey;
use super::wire::RawAnswer;

/// What a pairing device has to show.
#[derive(Debug, Clone, Serialize)]
pub struct PairingShown {
    /// Names this pairing in each poll.
    pub pairing_id: String,
    /// The page for people.
    pub uri: String,
    /// The page with the whole thumbprint: the QR code.
    pub uri_complete: String,
    /// Seconds until the pairing lapses.
    pub expires_in: u64,
    /// Seconds between polls.
    pub interval: u64,
}

/// What the broker says to a poll.
#[derive(Debug, Clone)]
pub enum PairingStatus {
    /// Show QR and digits, poll again.
    Pending {
        /// The comparison code.
        digits: String,
        /// Seconds until the pairing lapses.
        expires_in: u64,
        /// Seconds between polls.
        interval: u64,
    },
    /// An operator confirmed; the device has pinned the broker's keys.
    Paired(Pins),
}

/// What a device pins when it is paired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pins {
    /// The issuer.
    pub issuer: String,
    /// The broker's public keys, a JWK set.
    pub jwks: Value,
    /// The broker's CA certificate, PEM.
    pub ca: Option<String>,
}

/// A request that waits for its answer.
#[derive(Debug, Clone)]
pub struct Asked {
    device_nonce: [u8; 32],
    jti: String,
}

/// A pairing under way: both nonces and the broker's key.
#[derive(Debug, Clone)]
pub(super) struct PairingUnderWay {
    pairing_id: String,
    device_nonce: [u8; 32],
    broker_nonce: [u8; 32],
    broker_jkt: [u8; 32],
    /// The maker's statement, until an answer shows that the broker has it.
    attestation: Option<String>,
}

/// `b64u(SHA-256("pairgate pairing v1" ‖ device_nonce ‖ jkt))`.
pub fn commitment(device_nonce: &[u8; 32], jkt: &[u8; 32]) -> String {
    b64u(&sha256(&[b"pairgate pairing v1", device_nonce, jkt]))
}

/// The six digits that both sides derive from both keys and both nonces.
pub fn comparison_code(
    jkt: &[u8; 32],
    broker_jkt: &[u8; 32],
    device_nonce: &[u8; 32],
    broker_nonce: &[u8; 32],
) -> String {
    let code = sha256(&[b"pairgate comparison v1", jkt, broker_jkt, device_nonce, broker_nonce]);
    let number = code[..8].iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    format!("{:06}", number % 1_000_000)
}

impl SimulatedDevice {
    /// Asks to be paired (steps 1 and 2).
    pub async fn request_pairing(&mut self) -> Result<PairingShown, SimulatorError> {
        let (request, asked) = self.pairing_request()?;
        let answer = self.post_jwt("/pairing", &request).await?;
        self.requested(&asked, &granted(answer)?)
    }

    /// The message of step 1, whatever carries it, and what its answer is held against.
    pub fn pairing_request(&self) -> Result<(String, Asked), SimulatorError> {
        let device_nonce = host::random::<32>()?;
        let (jti, commitment) = (host::new_jti()?, commitment(&device_nonce, self.key.thumbprint()));
        let mut claims = json!({
            "iss": self.id, "aud": self.issuer(), "iat": self.now_s(), "jti": jti, "commitment": commitment,
        });
        if let Some(former) = &self.former_key {
            claims["previous"] = json!(self.vouch(former, &commitment)?);
        }
        let said = [
            ("serial", &self.serial),
            ("model", &self.model),
            ("firmware", &self.firmware),
            ("key_storage", &self.key_storage),
        ];
        for (name, value) in said {
            if !value.is_empty() {
                claims[name] = json!(value);
            }
        }
        Ok((self.key.sign_raw(&self.key.header("pairing-request+jwt"), &claims)?, Asked { device_nonce, jti }))
    }

    /// Takes the broker's answer of step 2 to this request.
    pub fn requested(&mut self, asked: &Asked, answer: &str) -> Result<PairingShown, SimulatorError> {
        let device_nonce = asked.device_nonce;
        let (jwt, broker_jkt) = self.authentic(answer)?;
        // Without this, a device would take up what something else asked for in its name, where both are heard on one topic.
        if jwt.text("jti")? != asked.jti {
            return Err(SimulatorError::NotAuthentic("it answers another request"));
        }
        if jwt.text("status")? != "requested" {
            return Err(SimulatorError::Malformed("a first pairing answer whose status is not requested".to_owned()));
        }
        // Without this, the digits could be compared over one key while another one signs what gets pinned.
        if from_b64u_32(jwt.text("broker_jkt")?) != Some(broker_jkt) {
            return Err(SimulatorError::NotAuthentic("the key that signed it is not the key that it names"));
        }
        let broker_nonce = from_b64u_32(jwt.text("broker_nonce")?)
            .ok_or_else(|| SimulatorError::Malformed("a broker_nonce that is not 32 bytes".to_owned()))?;
        let pairing_id = jwt.text("pairing_id")?.to_owned();
        let about = json!({
            "iss": self.id, "aud": self.issuer(), "iat": self.now_s(), "jkt": self.key.jkt(),
            "broker_nonce": jwt.text("broker_nonce")?,
        });
        let attestation = self.idevid.as_ref().map(|idevid| idevid.attest(&about)).transpose()?;
        let id = pairing_id.clone();
        self.pairing = Some(PairingUnderWay { pairing_id: id, device_nonce, broker_nonce, broker_jkt, attestation });
        Ok(PairingShown {
            pairing_id,
            uri: jwt.text("pairing_uri")?.to_owned(),
            uri_complete: jwt.text("pairing_uri_complete")?.to_owned(),
            expires_in: jwt.seconds("expires_in")?,
            interval: jwt.seconds("interval")?,
        })
    }

    /// Makes `new` its key; the present one vouches for it in the next pairing request, and stays the device's key until that pairing is confirmed.
    pub fn rotate_key(&mut self, new: DeviceKey) {
        self.former_key = Some(std::mem::replace(&mut self.key, new));
    }

    /// The statement by which a former key vouches for the present one in the request with this commitment.
    pub fn vouch(&self, former: &DeviceKey, commitment: &str) -> Result<String, SimulatorError> {
        let claims = json!({
            "iss": self.id, "aud": self.issuer(), "iat": self.now_s(), "jti": host::new_jti()?, "jkt": self.key.jkt(),
            "commitment": commitment,
        });
        former.sign_raw(&former.header("key-rotation+jwt"), &claims)
    }

    /// The six digits of the pairing under way. Shown after the first poll, which reveals the nonce.
    pub fn comparison_code(&self) -> Result<String, SimulatorError> {
        let under_way = self.under_way()?;
        Ok(comparison_code(
            self.key.thumbprint(),
            &under_way.broker_jkt,
            &under_way.device_nonce,
            &under_way.broker_nonce,
        ))
    }

    /// Polls (steps 3 and 5). Revealing the nonce is part of every poll.
    pub async fn poll_pairing(&mut self) -> Result<PairingStatus, SimulatorError> {
        let (poll, jti) = self.pairing_poll()?;
        let answer = self.post_jwt("/pairing/poll", &poll).await?;
        self.polled(&jti, &granted(answer)?)
    }

    /// The message of steps 3 and 5, whatever carries it, and its `jti`.
    pub fn pairing_poll(&self) -> Result<(String, String), SimulatorError> {
        let under_way = self.under_way()?;
        let jti = host::new_jti()?;
        let mut claims = json!({
            "iss": self.id, "aud": self.issuer(), "iat": self.now_s(), "jti": jti,
            "pairing_id": under_way.pairing_id, "device_nonce": b64u(&under_way.device_nonce),
        });
        if let Some(attestation) = &under_way.attestation {
            claims["attestation"] = json!(attestation);
        }
        Ok((self.key.sign_raw(&self.key.header("pairing-poll+jwt"), &claims)?, jti))
    }

    /// Takes the broker's answer to the poll with this `jti`.
    pub fn polled(&mut self, jti: &str, answer: &str) -> Result<PairingStatus, SimulatorError> {
        let under_way = self.under_way()?.clone();
        let (jwt, broker_jkt) = self.authentic(answer)?;
        if broker_jkt != under_way.broker_jkt {
            return Err(SimulatorError::NotAuthentic("the broker's key changed during the pairing"));
        }
        // Without this, an old answer of the same broker could be played to the device.
        if jwt.text("jti")? != jti || jwt.text("pairing_id")? != under_way.pairing_id {
            return Err(SimulatorError::NotAuthentic("it answers another poll"));
        }
        self.identify = jwt.claims.get("identify") == Some(&Value::Bool(true));
        self.key_assurance = jwt.text("key_assurance").unwrap_or_default().to_owned();
        if let Some(under_way) = &mut self.pairing {
            under_way.attestation = None;
        }
        match jwt.text("status")? {
            "pending" => Ok(PairingStatus::Pending {
                digits: self.comparison_code()?,
                expires_in: jwt.seconds("expires_in")?,
                interval: jwt.seconds("interval")?,
            }),
            "paired" => {
                let pins = self.pins_in(&jwt, &broker_jkt)?;
                self.pins = Some(pins.clone());
                self.pairing = None;
                self.former_key = None;
                Ok(PairingStatus::Paired(pins))
            }
            other => Err(SimulatorError::Malformed(format!("the pairing status {other}"))),
        }
    }

    fn under_way(&self) -> Result<&PairingUnderWay, SimulatorError> {
        self.pairing.as_ref().ok_or(SimulatorError::OutOfOrder("No pairing is under way. Request one first."))
    }

    /// Checks signature, type, issuer and audience; returns the claims and the thumbprint of the key that signed.
    fn authentic(&self, answer: &str) -> Result<(CheckedJwt, [u8; 32]), SimulatorError> {
        let header = jose::peek(answer)?.header;
        let jwk = header.get("jwk").ok_or(SimulatorError::NotAuthentic("it carries no key"))?;
        let jwt = jose::check(answer, jwk)?;
        if header.get("typ").and_then(Value::as_str) != Some("pairing-response+jwt") {
            return Err(SimulatorError::NotAuthentic("it is signed for another purpose"));
        }
        if jwt.text("iss")? != self.issuer() || jwt.text("aud")? != self.id {
            return Err(SimulatorError::NotAuthentic("it is from another issuer or for another device"));
        }
        let jkt = thumbprint(jwk).ok_or(SimulatorError::NotAuthentic("its key has no thumbprint"))?;
        Ok((jwt, jkt))
    }

    fn pins_in(&self, jwt: &CheckedJwt, broker_jkt: &[u8; 32]) -> Result<Pins, SimulatorError> {
        let jwks = jwt.claims.get("jwks").cloned().unwrap_or_default();
        let keys = jwks.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if !keys.iter().any(|key| thumbprint(key).as_ref() == Some(broker_jkt)) {
            return Err(SimulatorError::NotAuthentic("the keys to pin do not contain the key that signed"));
        }
        let issuer = jwt.text("issuer")?.to_owned();
        if issuer != self.issuer() {
            return Err(SimulatorError::NotAuthentic("the issuer to pin is not the one that was asked"));
        }
        let ca = jwt.claims.get("ca").and_then(Value::as_str).map(ToOwned::to_owned);
        Ok(Pins { issuer, jwks, ca })
    }
}

fn granted(answer: RawAnswer) -> Result<String, SimulatorError> {
    if answer.status == 200 { Ok(answer.body) } else { Err(answer.into_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commitment_and_digits_are_the_same_every_time_and_depend_on_every_part() {
        let (jkt, broker, ours, theirs) = ([1; 32], [2; 32], [3; 32], [4; 32]);
        assert_eq!(commitment(&ours, &jkt), COMMITMENT);
        assert_ne!(commitment(&theirs, &jkt), COMMITMENT);
        assert_ne!(commitment(&ours, &broker), COMMITMENT);
        assert_eq!(comparison_code(&jkt, &broker, &ours, &theirs), DIGITS);
        assert_ne!(comparison_code(&broker, &jkt, &ours, &theirs), DIGITS);
        assert_ne!(comparison_code(&jkt, &broker, &theirs, &ours), DIGITS);
    }

    const COMMITMENT: &str = "zWE1AfsjONa9wSe-FOT8FQNTTihAfcvz2YS05fdaqOI";
    const DIGITS: &str = "933199";
}
