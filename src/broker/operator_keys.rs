//! Keys that people sign commands with, as for SSH: add, list, revoke; and the commands (`docs/mqtt.md`).
//!
//! 1. A person adds the public half of a key. Nobody does it for another but at the machine: who could, could act as that person.
//! 2. A command comes over a transport that nobody trusts. Who signed it, for whom, when, and that it was not there before is proved by the command alone.
//! 3. It is noted as used, and only then done: as the person whose key it is, with the rights that this person has now.
//!
//! A command that a registered key signed for us and in time gets a signed result. Any other gets none: there is nobody to tell; it is in the audit log.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::broker::pairing::Confirm;
use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::Timestamp;
use crate::device_auth::assertion::{LEEWAY, seconds};
use crate::id::DeviceId;
use crate::model::audit::{Actor, Event, one_line};
use crate::model::device::PinnedKey;
use crate::model::operator::{Operator, Role};
use crate::model::text::clean;
use crate::oauth::certificate::public_key_from_pem;
use crate::oauth::jose::KeylessJwt;
use crate::oauth::jwk::PublicKey;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::{Bytes32, bytes32_from_b64u, sha256};
use crate::store::{MAX_OPERATOR_KEYS, NewOperatorKey, OperatorKey, StoreError};

/// `typ` of a command.
pub const COMMAND: &str = "operator-command+jwt";
/// `typ` of what became of it.
const RESULT: &str = "command-result+jwt";
/// A command may live this long, in seconds.
pub const COMMAND_LIFETIME: i64 = 120;
/// The longest name of a key.
const MAX_NAME: usize = 40;
/// A key is written as used at most this often.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// What a command says. Times may have fractions, as libraries write them; a claim that stands twice is refused.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: f64,
    exp: f64,
    jti: String,
    command: String,
    pairing_id: String,
    digits: Option<String>,
}

/// A command that this person signed for us, and in time.
struct Signed {
    claims: Claims,
    exp: i64,
    key: OperatorKey,
    operator: Operator,
}

/// Why a command is nobody's.
enum Nobodys {
    /// Words for the record.
    Refused(String),
    /// It could not be found out.
    Store(StoreError),
}

impl From<StoreError> for Nobodys {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What became of a command.
struct Outcome {
    is_done: bool,
    device: Option<DeviceId>,
    message: String,
}

impl Broker {
    /// Adds a key that this person signs commands with; `public_key`: a public JWK, or PEM (`PUBLIC KEY`).
    ///
    /// # Errors
    /// If the caller is neither that person, lately signed in, nor the command line; if the text is no public key of P-256, Ed25519 or RSA, or a private
    /// one; if the name is no good; if the key is or was anybody's, or the person has [`MAX_OPERATOR_KEYS`].
    pub async fn add_operator_key(
        &self,
        caller: &Caller,
        operator: &str,
        name: &str,
        public_key: &str,
    ) -> Result<OperatorKey, UseCaseError> {
        caller.must_be_no_program()?;
        let found = self.store.operator(operator).await?;
        let is_own = found.as_ref().is_some_and(|found| caller.operator == Some(found.id));
        if !is_own && caller.actor != Actor::CommandLine {
            // Not even an administrator: with a key of his own in another's name he would be both persons where two must agree (A-079).
            return Err(UseCaseError::refused(
                "people add their own keys, on the page of their account; for somebody else it is done on the machine: pairgate operator key add",
            ));
        }
        let owner = found.ok_or_else(|| nobody(operator))?;
        self.must_be_fresh(caller)?;
        if owner.disabled_at.is_some() {
            return Err(UseCaseError::refused(format!("{} is disabled", owner.name)));
        }
        let name = clean("name", name, MAX_NAME).map_err(|error| UseCaseError::refused(error.to_string()))?;
        if name.is_empty() {
            return Err(UseCaseError::refused("give the key a name, such as the computer that it is on"));
        }
        let key = public_key_of(public_key)?;
        let (jkt, jwk) = (key.jkt(), key.to_json().to_string());
        let new = NewOperatorKey { jkt, operator: owner.id, name, jwk, session: caller.session };
        let context = self.context(caller);
        if !self.store.add_operator_key(&new, &context).await? {
            return Err(UseCaseError::refused(format!(
                "this key is or was registered already, or there are {MAX_OPERATOR_KEYS} keys; make a new one, or remove one first"
            )));
        }
        let NewOperatorKey { jkt, operator, name, jwk, .. } = new;
        let (added_at, added_by) = (context.now, context.actor.to_string());
        Ok(OperatorKey { jkt, operator, name, jwk, added_at, added_by, used_at: None })
    }

    /// The living keys of a person, oldest first.
    ///
    /// # Errors
    /// If the caller is neither that person nor administers everything, or there is no such person.
    pub async fn operator_keys(&self, caller: &Caller, operator: &str) -> Result<Vec<OperatorKey>, UseCaseError> {
        let owner = self.owner_of_keys(caller, operator).await?;
        Ok(self.store.operator_keys(owner.id).await?)
    }

    /// Ends a key, named by its whole thumbprint; nobody can ever use it again.
    ///
    /// # Errors
    /// If the caller is neither that person nor administers everything, or has not signed in lately, or the person has no such key.
    pub async fn revoke_operator_key(&self, caller: &Caller, operator: &str, key: &str) -> Result<(), UseCaseError> {
        let owner = self.owner_of_keys(caller, operator).await?;
        self.must_be_fresh(caller)?;
        let jkt = bytes32_from_b64u(key).unwrap_or_default();
        if !self.store.revoke_operator_key(owner.id, &jkt, &self.context(caller)).await? {
            return Err(UseCaseError::refused("that key is removed already, or is none of this person's"));
        }
        // Who is connected with it is not to stay so.
        self.wake.everybody();
        Ok(())
    }

    async fn owner_of_keys(&self, caller: &Caller, operator: &str) -> Result<Operator, UseCaseError> {
        caller.must_be_no_program()?;
        let found = self.store.operator(operator).await?;
        if found.as_ref().is_none_or(|found| caller.operator != Some(found.id)) {
            caller.must_everywhere(Role::may_administer)?;
        }
        found.ok_or_else(|| nobody(operator))
    }

    /// Whose living key this is, with the roles that were given by hand; nobody if the person is disabled. It proves nothing: the caller has to have
    /// checked a signature by that key.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn operator_by_key(&self, jkt: &Bytes32) -> Result<Option<Operator>, StoreError> {
        Ok(self.store.operator_key(jkt).await?.map(|(_, operator)| operator))
    }

    /// Does what a signed command says, once; the key that signed it, and the signed result. `None` if nobody could have signed it: that is only recorded (bounded, A-091).
    pub async fn operator_command(&self, text: &str, peer: Option<IpAddr>) -> Option<(Bytes32, String)> {
        let signed = match self.signed_command(text).await {
            Ok(signed) => signed,
            Err(nobodys) => return self.refuse_command(nobodys, peer).await,
        };
        let outcome = match self.use_command(&signed).await {
            Ok(true) => self.act(&signed, peer).await,
            Ok(false) => {
                let again = with_key("it was used before", &signed.key, &signed.operator);
                return self.refuse_command(again, peer).await;
            }
            Err(error) => Outcome { is_done: false, device: None, message: in_one_line(error.into()) },
        };
        let mut result = json!({
            "iss": self.endpoints.issuer, "aud": signed.operator.name, "iat": self.now().seconds(), "jti": signed.claims.jti,
            "result": if outcome.is_done { "done" } else { "refused" }, "message": outcome.message,
        });
        if let Some(device) = outcome.device {
            result["device"] = Value::from(device.as_str());
        }
        let result = self.signing.sign(SigningAlgorithm::Es256, RESULT, &result, false);
        let result = result.inspect_err(|error| tracing::error!(%error, "the result of a command could not be signed"));
        Some((signed.key.jkt, result.ok()?))
    }

    async fn refuse_command(&self, nobodys: Nobodys, peer: Option<IpAddr>) -> Option<(Bytes32, String)> {
        match nobodys {
            Nobodys::Refused(detail) => self.note_refusal(Event::CommandRefused, None, &detail, peer).await,
            Nobodys::Store(error) => tracing::error!(%error, "a command could not be checked"),
        }
        None
    }

    /// Everything about a command that needs no change: whose it is, and that it is for us and of now.
    async fn signed_command(&self, text: &str) -> Result<Signed, Nobodys> {
        let jwt = KeylessJwt::<Claims>::parse(text)
            .map_err(|error| Nobodys::Refused(format!("it is no signed command: {error}")))?;
        // Else what the same key signed for a connection could be shown as a command (RFC 8725 section 3.11).
        if !jwt.typ().is_some_and(|typ| typ.eq_ignore_ascii_case(COMMAND)) {
            return Err(Nobodys::Refused("its typ is that of something else".into()));
        }
        let Some(jkt) = jwt.kid().and_then(bytes32_from_b64u) else {
            return Err(Nobodys::Refused("its kid is no thumbprint of a key".into()));
        };
        let Some((key, operator)) = self.store.operator_key(&jkt).await? else {
            let why = "its key is nobody's, or of nobody who may do anything";
            return Err(Nobodys::Refused(format!("{why}; key {}", PinnedKey::short(&jkt))));
        };
        let verified = PublicKey::from_json(&key.jwk).and_then(|public| jwt.verify_with(&public));
        let checked = match verified {
            Ok(verified) => self.for_us_and_now(&verified.claims, &operator).map(|exp| (verified.claims, exp)),
            Err(_) => Err("its signature does not fit"),
        };
        match checked {
            Ok((claims, exp)) => Ok(Signed { claims, exp, key, operator }),
            Err(why) => Err(with_key(why, &key, &operator)),
        }
    }

    /// When it ends, if the claims fit.
    fn for_us_and_now(&self, claims: &Claims, operator: &Operator) -> Result<i64, &'static str> {
        if claims.iss != operator.name {
            return Err("its iss is not the person whose key signed it");
        }
        if claims.aud != self.endpoints.issuer {
            return Err("its aud is another issuer");
        }
        if !(16..=64).contains(&claims.jti.len()) {
            return Err("its jti has not 16 to 64 characters");
        }
        let (Some(iat), Some(exp)) = (seconds(claims.iat), seconds(claims.exp)) else {
            return Err("its iat or exp is no time");
        };
        let now = self.now().seconds();
        if exp <= iat || exp - iat > COMMAND_LIFETIME {
            return Err("its exp is not 1 to 120 seconds after its iat");
        }
        if exp <= now - LEEWAY {
            return Err("it has expired");
        }
        if iat > now + LEEWAY {
            return Err("it is from the future");
        }
        Ok(exp)
    }

    /// Notes it as used, before anything is done: of two that come at once, one is done (A-021). Remembered for longer than it is taken, also by a process
    /// whose clock is behind ours.
    async fn use_command(&self, signed: &Signed) -> Result<bool, StoreError> {
        let now = self.now();
        let hash = sha256(&[b"operator command", &signed.key.jkt, signed.claims.jti.as_bytes()]);
        let expires_at = Timestamp::from_millis((signed.exp + 2 * LEEWAY) * 1000);
        if !self.store.use_command(&hash, expires_at, now).await? {
            return Ok(false);
        }
        if signed.key.used_at.is_none_or(|used_at| now.since(used_at) >= TOUCH_EVERY) {
            self.store.touch_operator_key(&signed.key.jkt, now).await?;
        }
        Ok(true)
    }

    /// As the person whose key it is, who has proved it just now.
    async fn act(&self, signed: &Signed, peer: Option<IpAddr>) -> Outcome {
        let Signed { claims, operator, .. } = signed;
        let caller = Caller {
            actor: Actor::Operator(operator.name.clone()),
            rights: operator.rights.clone(),
            operator: Some(operator.id),
            proved_at: Some(self.now()),
            session: None,
            peer,
            only_device: None,
        };
        let id = claims.pairing_id.as_str();
        // Only of a pairing that this person may know of (A-080).
        let device = self.pairing(&caller, id).await.ok().map(|found| found.device.id);
        let done = match (claims.command.as_str(), &claims.digits) {
            ("confirm_pairing", Some(digits)) => {
                let paired = self.confirm_pairing(&caller, id, &Confirm::Number(digits)).await;
                paired.map(|device| {
                    let key = device.key.as_ref().map_or_else(String::new, |key| PinnedKey::short(&key.jkt));
                    format!("paired. From now on only key {key} is {}", device.id)
                })
            }
            ("confirm_pairing", None) => {
                Err(UseCaseError::refused("confirm_pairing needs digits: the six that the device shows"))
            }
            ("decline_pairing", _) => {
                let declined = self.decline_pairing(&caller, id).await;
                declined.map(|device| format!("declined. What asked to be {} is not paired", device.id))
            }
            _ => Err(UseCaseError::refused("there is no such command; there are confirm_pairing and decline_pairing")),
        };
        match done {
            Ok(message) => Outcome { is_done: true, device, message },
            Err(error) => Outcome { is_done: false, device, message: in_one_line(error) },
        }
    }
}

fn nobody(operator: &str) -> UseCaseError {
    UseCaseError::NotFound(format!("there is no operator '{}'", one_line(operator)))
}

/// A command that names a registered key, and is no good all the same.
fn with_key(why: &str, key: &OperatorKey, operator: &Operator) -> Nobodys {
    Nobodys::Refused(format!("{why}; {}'s key {}", operator.name, PinnedKey::short(&key.jkt)))
}

/// An error as the message of a result. What failed inside is nobody's business outside; a command is spent, whatever became of it.
fn in_one_line(error: UseCaseError) -> String {
    match error {
        UseCaseError::Store(_) | UseCaseError::Secret(_) | UseCaseError::Signing(_) => {
            tracing::error!(%error, "a command could not be done");
            "temporarily unavailable; sign a new command and try again".into()
        }
        error => error.to_string().lines().collect::<Vec<_>>().join("; "),
    }
}

/// A public key as a person pastes it.
fn public_key_of(text: &str) -> Result<PublicKey, UseCaseError> {
    const PRIVATE: [&str; 8] = ["d", "k", "p", "q", "dp", "dq", "qi", "oth"];
    let text = text.trim();
    let members = serde_json::from_str::<Value>(text).unwrap_or_default();
    if text.contains("PRIVATE KEY") || PRIVATE.iter().any(|member| members.get(member).is_some()) {
        return Err(UseCaseError::refused(
            "this is a private key: whoever has it can sign as its owner. Paste it nowhere; make a new pair, and add its public half",
        ));
    }
    let key = if text.starts_with('{') { PublicKey::from_json(text) } else { public_key_from_pem(text) };
    key.map_err(|_| {
        UseCaseError::refused(
            "this is no public key that can be used here: it must be P-256, Ed25519, or RSA with 2048 to 4096 bits, as PEM (-----BEGIN PUBLIC KEY-----) or as a JWK",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_read_and_private_ones_are_called_that() {
        let x = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        assert!(public_key_of(&format!(" {{{x}, \"kid\": \"mine\"}}\n")).is_ok());
        for private in [
            format!("{{{x},\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\"}}"),
            r#"{"kty":"oct","k":"AAAA"}"#.into(),
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".into(),
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----".into(),
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----".into(),
        ] {
            assert!(public_key_of(&private).unwrap_err().to_string().starts_with("this is a private key"), "{private}");
        }
        for other in ["", "{}", "[]", "ssh-ed25519 AAAA me@here", r#"{"keys":[]}"#, "-----BEGIN PUBLIC KEY-----"] {
            assert!(public_key_of(other).unwrap_err().to_string().starts_with("this is no public key"), "{other}");
        }
    }
}
