//! Pairing: binding one key to one registered device (design section 3; messages in `docs/api.md`, section 1).
//!
//! 1. An operator opens a window, for a device or a site. It closes by itself.
//! 2. The device asks, with a commitment to a nonce; the broker answers with its own nonce.
//! 3. The device's first poll reveals its nonce. Both sides now know six digits.
//! 4. The operator confirms: by the QR code, which carries the whole key, or by the six digits. A bare "OK" does not exist. Only of a *rotation*,
//!    where the device's present key has signed for the new one, that signature stands in for the comparison; and where the device's maker has announced
//!    the key, that list does.
//! 5. The device's next poll is told `paired`, signed by the broker, with the keys to pin.
//!
//! How the key is kept (`KeyAssurance`) is what was shown until step 4: in step 2 the device may claim hardware, in step 3 its maker may prove it.
//!
//! Every reason to refuse gives the device one and the same answer; which it was stands in the audit log.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::Timestamp;
use crate::device_auth::{attestation, rotation};
use crate::id::{DeviceId, PairingId};
use crate::model::audit::{Actor, Context, Event, one_line};
use crate::model::device::{Device, DeviceState, KeyAssurance, PinnedKey};
use crate::model::kind::KeyRotation;
use crate::model::operator::{Reach, Role};
use crate::model::pairing::{
    ERROR_MALFORMED, ERROR_REFUSED, PAIRING_INTERVAL, PAIRING_LIFETIME, Pairing, PairingState, Says, WINDOW_LIFETIME,
    commitment,
};
use crate::model::text::clean;
use crate::oauth::jose::{JoseError, UnverifiedJwt, VerifiedJwt};
use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use crate::secret::{Bytes32, b64u, bytes32_from_b64u, is_equal, sha256};
use crate::store::{NewPairing, PairingOfDevice, PairingRefusal, StoreError, WindowSubject};

const REQUEST: &str = "pairing-request+jwt";
const POLL: &str = "pairing-poll+jwt";
const RESPONSE: &str = "pairing-response+jwt";
/// The longest poll, in bytes: the certificates of the maker's statement are in it.
const MAX_POLL: usize = 12 * 1024;

/// What a device is told that gets no answer.
#[derive(Debug)]
pub enum PairingError {
    /// The body is no JWT of this use; says what is wrong with it.
    Malformed(&'static str),
    /// Refused. One answer for every reason.
    Refused,
    /// An outage.
    Unavailable,
}

impl PairingError {
    /// The `error` of the answer, if it has one, and its `error_description`: the same over HTTP and MQTT. An outage has no `error`: a device stops for
    /// good on an unknown one.
    pub const fn words(&self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Malformed(what) => (Some(ERROR_MALFORMED), what),
            Self::Refused => (
                Some(ERROR_REFUSED),
                "This pairing was refused. Ask an administrator to open pairing for this device, then start again.",
            ),
            Self::Unavailable => (None, "Temporarily unavailable. Wait, then try again."),
        }
    }

    /// The same as a JSON object.
    pub fn body(&self) -> serde_json::Value {
        let (error, description) = self.words();
        let mut body = json!({"error_description": description});
        if let Some(error) = error {
            body["error"] = error.into();
        }
        body
    }
}

impl From<StoreError> for PairingError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a pairing message could not be served");
        Self::Unavailable
    }
}

#[derive(Debug, Deserialize)]
struct RequestClaims {
    iss: String,
    aud: String,
    #[serde(rename = "iat")]
    _iat: f64,
    jti: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    firmware: String,
    commitment: String,
    /// Of any type: what is not understood is no claim, and no error.
    #[serde(default)]
    key_storage: serde_json::Value,
    /// A rotation: the present key's statement.
    previous: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PollClaims {
    iss: String,
    aud: String,
    #[serde(rename = "iat")]
    _iat: f64,
    jti: String,
    pairing_id: String,
    device_nonce: String,
    /// The maker's statement.
    attestation: Option<String>,
}

impl From<JoseError> for PairingError {
    fn from(error: JoseError) -> Self {
        tracing::error!(%error, "a pairing answer could not be signed");
        Self::Unavailable
    }
}

/// How an operator confirms.
#[derive(Clone, Debug)]
pub enum Confirm<'a> {
    /// The whole thumbprint, read from the device's QR code.
    Qr(&'a str),
    /// The six digits, read from the device.
    Number(&'a str),
    /// Nothing was compared: the device's present key vouches for the new one. Of no other pairing.
    Vouched,
    /// Nothing was compared at the device: its key is the one that its maker announced. Of no other pairing.
    Manifest,
}

impl Broker {
    /// Opens pairing; until when. Step 1.
    ///
    /// # Errors
    /// If the caller may not, or there is no such device or site.
    pub async fn open_window(
        &self,
        caller: &Caller,
        subject: &WindowSubject,
        lifetime: Option<Duration>,
    ) -> Result<Timestamp, UseCaseError> {
        self.must_pair(caller, subject).await?;
        let lifetime = lifetime.unwrap_or(WINDOW_LIFETIME);
        if lifetime > Duration::from_secs(24 * 3600) || lifetime < Duration::from_secs(60) {
            return Err(UseCaseError::refused("pairing may be open for 1 minute to 24 hours"));
        }
        if let WindowSubject::Device(id) = subject {
            let device = self.device(caller, id.as_str()).await?;
            if !matches!(device.state, DeviceState::Registered | DeviceState::Active) {
                return Err(UseCaseError::refused(format!("{id} is {}; resume it first", device.state.as_str())));
            }
        }
        let context = self.context(caller);
        let closes_at = context.now.plus(lifetime);
        if !self.store.open_window(subject, closes_at, &context).await? {
            return Err(UseCaseError::NotFound("there is no such device or site".into()));
        }
        self.wake.pages();
        Ok(closes_at)
    }

    /// Closes pairing before its time.
    ///
    /// # Errors
    /// If the caller may not, or it was not open.
    pub async fn close_window(&self, caller: &Caller, subject: &WindowSubject) -> Result<(), UseCaseError> {
        self.must_pair(caller, subject).await?;
        if !self.store.close_window(subject, &self.context(caller)).await? {
            return Err(UseCaseError::refused("pairing was not open"));
        }
        self.wake.pages();
        Ok(())
    }

    async fn must_pair(&self, caller: &Caller, subject: &WindowSubject) -> Result<(), UseCaseError> {
        match subject {
            WindowSubject::Device(id) => caller.must_pair(&self.device(caller, id.as_str()).await?),
            WindowSubject::Site(site) => caller.must_at(site, Role::may_pair),
        }
    }

    /// When a window closes, if it is open.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn window(&self, subject: &WindowSubject) -> Result<Option<Timestamp>, StoreError> {
        self.store.window(subject, self.now()).await
    }

    /// The same, for a caller who may know of the device or the site.
    ///
    /// # Errors
    /// If there is no such device or site, or it is not the caller's: the same answer.
    pub async fn window_for(
        &self,
        caller: &Caller,
        subject: &WindowSubject,
    ) -> Result<Option<Timestamp>, UseCaseError> {
        match subject {
            WindowSubject::Device(id) => drop(self.device(caller, id.as_str()).await?),
            WindowSubject::Site(id) => drop(self.site_for(caller, id).await?),
        }
        Ok(self.window(subject).await?)
    }

    /// Takes a pairing request; the signed answer. Step 2.
    ///
    /// # Errors
    /// [`PairingError`].
    pub async fn request_pairing(&self, body: &str, peer: Option<IpAddr>) -> Result<String, PairingError> {
        let unverified =
            UnverifiedJwt::<RequestClaims>::parse(body, REQUEST).map_err(|error| PairingError::Malformed(error.0))?;
        let Ok(VerifiedJwt { key, claims }) = unverified.verify() else {
            return self.refuse_pairing("the signature does not fit", peer).await;
        };
        let says = [("serial", &claims.serial), ("model", &claims.model), ("firmware", &claims.firmware)]
            .map(|(name, text)| clean(name, text, 64));
        let (Ok(id), true, [Ok(serial), Ok(model), Ok(firmware)], Some(commitment), 16..=64) = (
            DeviceId::new(&claims.iss),
            claims.aud == self.endpoints.issuer,
            says,
            bytes32_from_b64u(&claims.commitment),
            claims.jti.len(),
        ) else {
            return self.refuse_pairing(&format!("'{}': a claim has a wrong value", one_line(&claims.iss)), peer).await;
        };
        let about = rotation::Expected {
            device: &id,
            issuer: &self.endpoints.issuer,
            jkt: &key.jkt(),
            commitment: &claims.commitment,
        };
        let voucher = match claims.previous.as_deref().map(|previous| rotation::check(previous, &about)).transpose() {
            Ok(voucher) => voucher,
            Err(error) => {
                let detail = format!("'{id}': a former key's statement: {error}; key {}", PinnedKey::short(&key.jkt()));
                return self.refuse_pairing(&detail, peer).await;
            }
        };
        let unavailable = |_| PairingError::Unavailable;
        let now = self.now();
        let signing = self.signing.current(SigningAlgorithm::Es256)?;
        let new = NewPairing {
            id: PairingId::mint(&self.random).map_err(unavailable)?,
            device: id.clone(),
            jkt: key.jkt(),
            jwk: key.to_json().to_string(),
            key_assurance: claimed_assurance(&claims.key_storage),
            voucher,
            says: Says { serial, model, firmware },
            commitment,
            broker_nonce: self.random.bytes32().map_err(unavailable)?,
            broker_jkt: signing.public().jkt(),
            request_hash: sha256(&[&key.jkt(), claims.jti.as_bytes()]),
            expires_at: now.plus(PAIRING_LIFETIME),
        };
        let context = Context { now, actor: Actor::Anonymous, peer };
        if let Err(refusal) = self.store.request_pairing(&new, &context).await? {
            let device = (refusal != PairingRefusal::UnknownDevice).then_some(&id);
            let detail = format!("{}; key {}", refusal.words(), PinnedKey::short(&new.jkt));
            let detail = if device.is_none() { format!("'{id}': {detail}") } else { detail };
            self.note_refusal(Event::PairingRefused, device, &detail, peer).await;
            return Err(PairingError::Refused);
        }
        self.wake.pages();
        let answer = json!({
            "iss": self.endpoints.issuer, "aud": id, "iat": now.seconds(), "jti": claims.jti, "status": "requested",
            "pairing_id": new.id, "broker_nonce": b64u(&new.broker_nonce), "broker_jkt": b64u(&new.broker_jkt),
            "pairing_uri": self.endpoints.pairing,
            "pairing_uri_complete": format!("{}/{}?key={}", self.endpoints.pairing, new.id, b64u(&new.jkt)),
            "expires_in": PAIRING_LIFETIME.as_secs(), "interval": PAIRING_INTERVAL,
        });
        Self::sign_response(&signing, &answer)
    }

    /// Takes a poll; the signed answer. Steps 3 and 5.
    ///
    /// # Errors
    /// [`PairingError`].
    pub async fn poll_pairing(&self, body: &str, peer: Option<IpAddr>) -> Result<String, PairingError> {
        let unverified = UnverifiedJwt::<PollClaims>::parse_up_to(body, POLL, MAX_POLL)
            .map_err(|error| PairingError::Malformed(error.0))?;
        let Ok(VerifiedJwt { key, claims }) = unverified.verify() else {
            return self.refuse_pairing("the signature of a poll does not fit", peer).await;
        };
        let found = match PairingId::parse(&claims.pairing_id) {
            Some(id) => self.store.pairing(&id).await?,
            None => None,
        };
        let nonce = bytes32_from_b64u(&claims.device_nonce);
        let (Some(PairingOfDevice { pairing, device }), Some(nonce)) = (found, nonce) else {
            return self.refuse_pairing("a poll for no pairing", peer).await;
        };
        let is_its_own = is_equal(&pairing.jkt, &key.jkt())
            && claims.iss == pairing.device.as_str()
            && claims.aud == self.endpoints.issuer;
        let is_committed = is_equal(&commitment(&nonce, &pairing.jkt), &pairing.commitment);
        if !is_its_own || !(16..=64).contains(&claims.jti.len()) {
            let why = format!("a poll by foreign key {}, or with a wrong claim", PinnedKey::short(&key.jkt()));
            return self.refuse_poll(&pairing, &why, peer).await;
        }
        if !is_committed {
            return self.refuse_poll(&pairing, "a nonce that was not committed to", peer).await;
        }
        let found = PairingOfDevice { pairing, device };
        let assurance = self.proved(&found, claims.attestation.as_deref(), peer).await;
        let found = self.revealed(found, &nonce, assurance, peer).await?;
        let PairingOfDevice { pairing, device } = self.rotated(found, peer).await?;
        let now = self.now();
        let mut answer = json!({
            "iss": self.endpoints.issuer, "aud": device.id, "iat": now.seconds(), "jti": claims.jti, "pairing_id": pairing.id,
            "key_assurance": pairing.key_assurance,
        });
        if self.may_identify(&pairing, &device) && self.take_identify(&device, peer).await? {
            answer["identify"] = true.into();
        }
        // Paired only while the key is still the device's: a late poll after a suspension or a newer pairing is told nothing.
        let is_current = device.state == DeviceState::Active
            && device.key.as_ref().is_some_and(|pinned| is_equal(&pinned.jkt, &pairing.jkt));
        // The digits are made of the key that was current then; a rotation in between must not make them wrong.
        let signing = self.signing.named(&pairing.broker_jkt.unwrap_or_default())?;
        match pairing.state {
            PairingState::Confirmed if is_current => self.sign_paired(&signing, answer),
            PairingState::Confirmed => {
                self.refuse_poll(&pairing, "it was paired, but its key or state has changed since", peer).await
            }
            PairingState::Revealed if pairing.is_open(now) => {
                answer["status"] = "pending".into();
                answer["expires_in"] = pairing.expires_at.since(now).as_secs().into();
                answer["interval"] = PAIRING_INTERVAL.into();
                Self::sign_response(&signing, &answer)
            }
            PairingState::Requested | PairingState::Revealed | PairingState::Refused => {
                self.refuse_poll(&pairing, "the pairing is over", peer).await
            }
        }
    }

    /// What the maker's statement, if there is one, proves of the key. A bad one proves nothing and ends nothing: the pairing goes on as if it had not
    /// been sent, and somebody is told.
    async fn proved(&self, found: &PairingOfDevice, statement: Option<&str>, peer: Option<IpAddr>) -> KeyAssurance {
        let PairingOfDevice { pairing, device } = found;
        let now = self.now();
        let is_of_use = pairing.is_open(now) && pairing.key_assurance < KeyAssurance::Attested;
        let Some(statement) = statement.filter(|_| is_of_use) else { return pairing.key_assurance };
        let about = attestation::Expected {
            device: &device.id,
            serial: &device.facts.serial,
            issuer: &self.endpoints.issuer,
            jkt: &pairing.jkt,
            broker_nonce: &pairing.broker_nonce,
        };
        match attestation::check(statement, &about, &self.attestation_roots, now) {
            Ok(()) => KeyAssurance::Attested,
            Err(error) => {
                let detail = format!("{error}; key {}", PinnedKey::short(&pairing.jkt));
                self.note_refusal(Event::AttestationRefused, Some(&device.id), &detail, peer).await;
                pairing.key_assurance
            }
        }
    }

    /// Step 3, on the first poll: the nonce is revealed; on any, the key's assurance may rise. What the pairing is *after* that decides the answer: it may
    /// be confirmed at any moment.
    async fn revealed(
        &self,
        found: PairingOfDevice,
        nonce: &Bytes32,
        assurance: KeyAssurance,
        peer: Option<IpAddr>,
    ) -> Result<PairingOfDevice, PairingError> {
        if found.pairing.state != PairingState::Requested && assurance == found.pairing.key_assurance {
            return Ok(found);
        }
        let context = Context { now: self.now(), actor: Actor::Anonymous, peer };
        if self.store.reveal_pairing(&found.pairing.id, nonce, assurance, &context).await? {
            self.wake.pages();
        }
        Ok(self.store.pairing(&found.pairing.id).await?.unwrap_or(found))
    }

    /// Step 4 of a rotation that the kind leaves to the device. A key that is kept worse than the present one still needs a person: else whoever may use a
    /// hardware key for one moment could exchange it for one that he can carry away.
    async fn rotated(&self, found: PairingOfDevice, peer: Option<IpAddr>) -> Result<PairingOfDevice, PairingError> {
        let PairingOfDevice { pairing, device } = &found;
        let is_automatic = self
            .kind(&device.facts.kind)
            .is_some_and(|kind| kind.key_rotation == KeyRotation::Automatic && kind.accepts(pairing.key_assurance));
        let is_no_worse = device.key.as_ref().is_some_and(|key| pairing.key_assurance >= key.assurance);
        let is_vouched = pairing.vouched_by.is_some() && pairing.state == PairingState::Revealed;
        if !(is_vouched && is_automatic && is_no_worse && pairing.is_open(self.now())) {
            return Ok(found);
        }
        let context = Context { now: self.now(), actor: Actor::Broker, peer };
        if self.store.confirm_pairing(&pairing.id, &context).await? {
            self.ring(device);
        }
        Ok(self.store.pairing(&pairing.id).await?.unwrap_or(found))
    }

    /// The device has another key: its open sign-in has ended, and pages show something else.
    fn ring(&self, device: &Device) {
        if let Some(grant) = device.pending_grant {
            self.wake.grant(grant);
        }
        self.wake.pages();
    }

    fn sign_paired(&self, signing: &SigningKey, mut answer: serde_json::Value) -> Result<String, PairingError> {
        answer["status"] = "paired".into();
        answer["issuer"] = self.endpoints.issuer.clone().into();
        answer["jwks"] = self.jwks();
        answer["ca"] = self.ca_pem.clone().into();
        Self::sign_response(signing, &answer)
    }

    fn sign_response(signing: &SigningKey, claims: &serde_json::Value) -> Result<String, PairingError> {
        Ok(signing.sign(RESPONSE, claims, true)?)
    }

    async fn refuse_pairing(&self, why: &str, peer: Option<IpAddr>) -> Result<String, PairingError> {
        self.note_refusal(Event::PairingRefused, None, why, peer).await;
        Err(PairingError::Refused)
    }

    async fn refuse_poll(&self, pairing: &Pairing, why: &str, peer: Option<IpAddr>) -> Result<String, PairingError> {
        let detail = format!("{why}; key {}", PinnedKey::short(&pairing.jkt));
        self.note_refusal(Event::PairingRefused, Some(&pairing.device), &detail, peer).await;
        Err(PairingError::Refused)
    }

    /// A pairing that an operator looks at.
    ///
    /// # Errors
    /// If there is none, or it is over.
    pub async fn pairing(&self, caller: &Caller, id: &str) -> Result<PairingOfDevice, UseCaseError> {
        if caller.only_device.is_none() {
            caller.must(Role::may_pair)?;
        }
        let over = || UseCaseError::NotFound("this pairing is over, or never was. Start it again on the device".into());
        let id = PairingId::parse(id).ok_or_else(over)?;
        let found = self.store.pairing(&id).await?.ok_or_else(over)?;
        if !caller.may_know(&found.device) {
            return Err(over());
        }
        caller.must_pair(&found.device)?;
        if found.pairing.is_open(self.now()) { Ok(found) } else { Err(over()) }
    }

    /// All pairings that wait, oldest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn open_pairings(
        &self,
        caller: &Caller,
        device: Option<&DeviceId>,
    ) -> Result<Vec<PairingOfDevice>, StoreError> {
        let (device, reach) = match &caller.only_device {
            Some(only) if device.is_some_and(|device| device != only) => return Ok(Vec::new()),
            Some(only) => (Some(only), Reach::Everywhere),
            None => (device, caller.reach()),
        };
        self.store.open_pairings(device, &reach, self.now()).await
    }

    /// Confirms a pairing. Step 4.
    ///
    /// # Errors
    /// What was wrong, and how many tries are left.
    pub async fn confirm_pairing(
        &self,
        caller: &Caller,
        id: &str,
        confirm: &Confirm<'_>,
    ) -> Result<Device, UseCaseError> {
        caller.must_be_no_program()?;
        let PairingOfDevice { pairing, device } = self.pairing(caller, id).await?;
        if pairing.state != PairingState::Revealed {
            return Err(UseCaseError::refused("the device has not answered yet; wait a moment and try again"));
        }
        let found = PairingOfDevice { pairing, device };
        if let Some(missing) = self.missing_assurance(&found) {
            return Err(UseCaseError::refused(missing));
        }
        self.compare(caller, &found, confirm).await?;
        let PairingOfDevice { pairing, device } = found;
        let context = self.context(caller);
        let is_done = match confirm {
            Confirm::Manifest => self.store.confirm_announced_pairing(&pairing.id, &context).await?,
            Confirm::Qr(_) | Confirm::Number(_) | Confirm::Vouched => {
                self.store.confirm_pairing(&pairing.id, &context).await?
            }
        };
        if !is_done {
            return Err(UseCaseError::refused(
                "this pairing ended meanwhile, or its key belongs to another device. Start it again on the device",
            ));
        }
        self.ring(&device);
        self.device(caller, device.id.as_str()).await
    }

    /// What the key of a pairing lacks of what its kind wants, in words; nothing if it is good enough.
    pub fn missing_assurance(&self, found: &PairingOfDevice) -> Option<String> {
        let assurance = found.pairing.key_assurance;
        let kind = self.kind(&found.device.facts.kind).filter(|kind| !kind.accepts(assurance))?;
        Some(format!(
            "devices of kind '{}' need a {}. What asks is a {}. See the device's history for what was refused, or change key_assurance of the kind",
            kind.id,
            kind.key_assurance.words(),
            assurance.words()
        ))
    }

    async fn compare(
        &self,
        caller: &Caller,
        found: &PairingOfDevice,
        confirm: &Confirm<'_>,
    ) -> Result<(), UseCaseError> {
        let (pairing, context) = (&found.pairing, self.context(caller));
        match confirm {
            Confirm::Qr(scanned) => {
                if bytes32_from_b64u(scanned).is_some_and(|jkt| is_equal(&jkt, &pairing.jkt)) {
                    return Ok(());
                }
                let detail = format!("a scanned key is not key {}", PinnedKey::short(&pairing.jkt));
                self.store.record(Event::PairingConflict, Some(&pairing.device), &detail, &context).await?;
                self.wake.pages();
                Err(UseCaseError::refused(
                    "the code that you scanned carries another key. Don't pair; somebody may have put it there",
                ))
            }
            // Whoever is let in for one device compares at that device; the rest is for who answers for the site.
            Confirm::Vouched | Confirm::Manifest if caller.only_device.is_some() => Err(UseCaseError::NotAllowed),
            Confirm::Manifest if found.is_announced() => Ok(()),
            Confirm::Manifest => Err(UseCaseError::refused(
                "this is not the key that the device's maker announced; scan the code that the device shows, or type its digits",
            )),
            Confirm::Vouched if pairing.vouched_by.is_some() => Ok(()),
            Confirm::Vouched => Err(UseCaseError::refused(
                "no key of this device vouches for this one; scan the code that the device shows, or type its digits",
            )),
            Confirm::Number(typed) => {
                let typed: String = typed.chars().filter(|character| !character.is_whitespace()).collect();
                // Without digits there is nothing that could fit, not even an empty field.
                // Digits over a signing key that was dropped in an emergency prove nothing: whoever has that key can have shown them.
                let is_kept = pairing.broker_jkt.is_some_and(|jkt| self.signing.public(&b64u(&jkt)).is_some());
                let code = pairing.comparison_code().filter(|_| is_kept);
                if code.is_some_and(|code| is_equal(code.as_bytes(), typed.as_bytes())) {
                    return Ok(());
                }
                let left = self.store.record_wrong_digits(&pairing.id, &context).await?;
                self.wake.pages();
                Err(UseCaseError::refused(match left {
                    Some(0) | None => "these are not the digits that the device shows. The pairing has ended; start it again on the device".into(),
                    Some(left) => format!("these are not the digits that the device shows. Tries left: {left}"),
                }))
            }
        }
    }

    /// Refuses a pairing.
    ///
    /// # Errors
    /// If it is over.
    pub async fn decline_pairing(&self, caller: &Caller, id: &str) -> Result<Device, UseCaseError> {
        let PairingOfDevice { pairing, device } = self.pairing(caller, id).await?;
        caller.must_at(&device.facts.site, Role::may_pair)?;
        self.store.decline_pairing(&pairing.id, &self.context(caller)).await?;
        self.wake.pages();
        Ok(device)
    }
}

/// What a device says of its key. What is not understood is no claim.
fn claimed_assurance(key_storage: &serde_json::Value) -> KeyAssurance {
    if key_storage == "hardware" { KeyAssurance::HardwareClaimed } else { KeyAssurance::Software }
}
