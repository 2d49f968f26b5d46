//! Technicians without an account: one code per device, good once and for a day, to pair exactly that device.
//!
//! 1. Who may pair a device makes a code for it: [`Broker::make_technician_codes`]. It is shown once.
//! 2. The technician types device id and code: [`Broker::technician_in`]. That opens a pass.
//! 3. With the pass he may open pairing for this device, and confirm it at the device: the same as everybody, by QR code or by number. Nothing else: a pass
//!    is a [`Caller`] without any rights, but with `only_device`.
//! 4. When the device is paired, stopped or replaced, or the time is over, or who made the code may not pair there any more, the pass ends.

use std::net::IpAddr;

use crate::broker::refusals::network_of;
use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::{Actor, Context};
use crate::model::device::{Device, DeviceState};
use crate::model::operator::{Rights, Role};
use crate::model::technician_code::{CODE_LIFETIME, TechnicianCode};
use crate::secret::{Bytes32, b64u, bytes32_from_b64u, sha256};
use crate::store::{DeviceQuery, GuessBucket, NewTechnicianCode, StoreError, TechnicianPass};

/// Wrong codes in ten minutes: of one address, of all. Budgets of their own: guessing here must not keep approvers from their work.
const GUESSES: (i64, i64) = (10, 1000);
/// Codes at a time.
pub const MAX_CODES: usize = 2_000;

/// A code for a technician, to be handed on; it is not kept.
#[derive(Debug)]
pub struct MadeCode {
    /// For this device.
    pub device: Device,
    /// `TECH-WDJBM-JHTXK`.
    pub code: String,
}

/// What a technician holds.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Hash of the session, as stored.
    pub hash: Bytes32,
    /// The one device.
    pub device: Device,
    /// When it ends, whatever happens.
    pub ends_at: Timestamp,
    made_by: String,
}

impl Pass {
    /// The technician as a caller of use cases: no rights at all, but to pair this device.
    pub fn caller(&self, peer: Option<IpAddr>) -> Caller {
        Caller {
            actor: Actor::Technician(name_of(&self.made_by).to_owned()),
            rights: Rights::default(),
            operator: None,
            proved_at: None,
            peer,
            session: None,
            only_device: Some(self.device.id.clone()),
        }
    }
}

impl Broker {
    /// Makes a code for each of these devices. What was made for them before and not used is void.
    ///
    /// # Errors
    /// If the caller may not pair one of them, or last proved too long ago who it is, there are too many, or one is suspended or retired: then none is made.
    pub async fn make_technician_codes(
        &self,
        caller: &Caller,
        ids: &[String],
    ) -> Result<(Vec<MadeCode>, Timestamp), UseCaseError> {
        // A program can't confirm a pairing; nor may it hand that on.
        caller.must_be_no_program()?;
        caller.must(Role::may_pair)?;
        self.must_be_fresh(caller)?;
        if ids.is_empty() || ids.len() > MAX_CODES {
            return Err(UseCaseError::refused(format!("codes are made for 1 to {MAX_CODES} devices at a time")));
        }
        let (mut made, mut new) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for id in ids {
            let device = self.device_for(caller, id, Role::may_pair).await?;
            if !matches!(device.state, DeviceState::Registered | DeviceState::Active) {
                return Err(UseCaseError::refused(format!("{id} is {}; resume it first", device.state.as_str())));
            }
            if made.iter().any(|made: &MadeCode| made.device.id == device.id) {
                continue;
            }
            let code = TechnicianCode::mint(&self.random)?;
            new.push(NewTechnicianCode {
                device: device.id.clone(),
                hash: code.hash(&device.id, &self.technician_key),
            });
            made.push(MadeCode { device, code: code.display() });
        }
        let context = self.context(caller);
        let expires_at = context.now.plus(CODE_LIFETIME);
        if !self.store.add_technician_codes(&new, expires_at, &context).await? {
            return Err(UseCaseError::refused(
                "one of these devices was stopped meanwhile; no code was made. Try again",
            ));
        }
        self.wake.pages();
        Ok((made, expires_at))
    }

    /// The same for all devices of a site, or of one of its floors, that are not paired yet.
    ///
    /// # Errors
    /// As [`Broker::make_technician_codes`], or if there are none.
    pub async fn make_technician_codes_at(
        &self,
        caller: &Caller,
        site: &str,
        floor: Option<&str>,
    ) -> Result<(Vec<MadeCode>, Timestamp), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_at(site, Role::may_pair)?;
        let query = DeviceQuery {
            state: Some(DeviceState::Registered),
            site: Some(site.to_owned()),
            floor: floor.map(str::to_owned),
            limit: u32::try_from(MAX_CODES).unwrap_or(u32::MAX),
            ..DeviceQuery::default()
        };
        let (devices, _) = self.devices(caller, &query).await?;
        if devices.is_empty() {
            return Err(UseCaseError::refused("every device there is paired; codes are for those that are not"));
        }
        let ids: Vec<String> = devices.into_iter().map(|device| device.id.to_string()).collect();
        self.make_technician_codes(caller, &ids).await
    }

    /// The token that forms of this pass carry.
    pub fn technician_csrf(&self, pass: &Pass) -> String {
        b64u(&self.csrf_key.tag(&[b"technician", &pass.hash]))
    }

    /// Lets a technician in; the id of the session, for the cookie. `None` for whatever is wrong: unknown device, wrong, spent or old code, too many tries.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn technician_in(
        &self,
        device: &str,
        code: &str,
        peer: Option<IpAddr>,
    ) -> Result<Option<String>, UseCaseError> {
        let context = Context { now: self.now(), actor: Actor::Anonymous, peer };
        let buckets = buckets(peer);
        let _one_at_a_time = self.guessing.lock().await;
        if self.store.is_guess_budget_spent(&buckets, context.now).await? {
            return Ok(None);
        }
        let hash = DeviceId::new(device.trim())
            .ok()
            .zip(TechnicianCode::parse(code))
            .map(|(device, code)| code.hash(&device, &self.technician_key));
        let found = match &hash {
            Some(hash) => self.store.technician_code(hash, context.now).await?,
            None => None,
        };
        if let (Some(hash), Some(pass)) = (hash, found)
            && self.stands_for(&pass).await?
        {
            let id = self.random.bytes32()?;
            let context = Context { actor: Actor::Technician(name_of(&pass.made_by).to_owned()), ..context.clone() };
            if self.store.use_technician_code(&hash, &sha256(&[&id]), &context).await?.is_some() {
                self.wake.pages();
                return Ok(Some(b64u(&id)));
            }
        }
        self.store.record_guess(&buckets, &context).await?;
        self.wake.pages();
        Ok(None)
    }

    /// The pass of a cookie, if it is good.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn technician_pass(&self, cookie: &str) -> Result<Option<Pass>, StoreError> {
        let Some(id) = bytes32_from_b64u(cookie) else { return Ok(None) };
        let hash = sha256(&[&id]);
        let Some(found) = self.store.technician_session(&hash, self.now()).await? else { return Ok(None) };
        let stands = self.stands_for(&found).await?;
        let TechnicianPass { device, made_by, ends_at } = found;
        Ok(stands.then_some(Pass { hash, device, ends_at, made_by }))
    }

    /// May who made the code still pair this device himself? Else his codes would outlive his rights.
    async fn stands_for(&self, pass: &TechnicianPass) -> Result<bool, StoreError> {
        let Some(name) = pass.made_by.strip_prefix("operator:") else { return Ok(true) };
        let operator = self.store.operator(name).await?.filter(|operator| operator.disabled_at.is_none());
        let role = operator.and_then(|operator| operator.rights.role_at(&pass.device.facts.site));
        Ok(role.is_some_and(Role::may_pair))
    }
}

/// `operator:dana` is dana.
fn name_of(actor: &str) -> &str {
    actor.split_once(':').map_or(actor, |(_, name)| name)
}

fn buckets(peer: Option<IpAddr>) -> Vec<GuessBucket> {
    let (per_address, in_all) = GUESSES;
    let mut buckets = vec![("technician:all".into(), in_all)];
    buckets.extend(peer.map(|peer| (format!("technician:address:{}", network_of(peer)), per_address)));
    buckets
}
