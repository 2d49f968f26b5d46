//! `POST /token` (RFC 8628 section 3.4, RFC 6749 section 6): polls, redemption, refresh.
//!
//! The order of a poll. A thief of a device code must not be able to disturb its owner, so nothing of the grant is touched before step 5:
//! 1. authenticate the device by its key
//! 2. it is active
//! 3. find the grant, compare the code's secret
//! 4. compare the key: it must be the one that asked
//! 5. only then pacing
//! 6. state: pending, denied, expired, gone
//! 7. approved: redeem, once, everything checked again in the store

use std::time::Duration;

use tokio::sync::watch;

use crate::broker::Broker;
use crate::broker::access_token::{Issue, Renewal};
use crate::broker::approval::second_person;
use crate::broker::device_authorization::Answer;
use crate::device_auth::{AuthenticatedDevice, Presented};
use crate::model::audit::{Actor, Context, Event};
use crate::model::device::{Device, DeviceState, PinnedKey};
use crate::model::grant::{Grant, GrantState, Standing, parse_reference, reference};
use crate::model::kind::Kind;
use crate::model::resource::Resource;
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::oauth::scope::Scope;
use crate::oauth::{DEVICE_CODE_GRANT, REFRESH_TOKEN_GRANT, TokenResponse};
use crate::secret::{Bytes32, is_equal, sha256};
use crate::store::{Redemption, Rotation};

/// The longest that a poll is held (RFC 7240 `wait`), in seconds.
pub const MAX_WAIT: u32 = 25;

const UNBOUND: &str =
    "A token needs something to be bound to: send a DPoP proof by the pinned key beside the assertion.";

/// How a poll may wait.
pub struct Patience<'a> {
    /// Seconds that the device would wait (`Prefer: wait=…`).
    pub wait: Option<u32>,
    /// Turns true when the process stops: held polls answer at once.
    pub stopping: &'a watch::Receiver<bool>,
}

/// What an answer says besides its outcome.
struct Course {
    /// Seconds that the poll was held for at most.
    waited: Option<u32>,
    /// Somebody looks for the device.
    identify: bool,
}

impl Broker {
    /// Answers a token request.
    pub async fn token(
        &self,
        presented: &Presented<'_>,
        body: &[u8],
        patience: &Patience<'_>,
    ) -> Answer<TokenResponse> {
        // 1.
        let (form, caller) = match self.authenticate(presented, body).await {
            Ok(authenticated) => authenticated,
            Err(answer) => return answer,
        };
        let mut course = Course { waited: None, identify: self.is_asked_to_identify(&caller.device) };
        let device = &caller.device;
        let outcome = match (device.state, form.require("grant_type"), caller.confirmation) {
            (DeviceState::Active, Ok(DEVICE_CODE_GRANT), Some(_)) => {
                self.poll(&caller, &form, presented, patience, &mut course).await
            }
            (DeviceState::Active, Ok(REFRESH_TOKEN_GRANT), Some(_)) => self.refresh(&caller, &form, presented).await,
            // An assertion says who asks, and binds nothing: without a proof there is no token (R-9449-05, D-05).
            (DeviceState::Active, Ok(DEVICE_CODE_GRANT), None) => Err(OAuthError::InvalidDpopProof(UNBOUND)),
            (DeviceState::Active, Ok(REFRESH_TOKEN_GRANT), None) => {
                Err(self.no_token(device, "a refresh without a proof", presented, OAuthError::InvalidGrant).await)
            }
            (DeviceState::Active, Ok(_), _) => Err(OAuthError::UnsupportedGrantType),
            (DeviceState::Active, Err(error), _) => Err(error),
            // 2.
            (state, ..) => {
                let why = format!("the device is {}", state.as_str());
                Err(self.no_token(device, &why, presented, OAuthError::InvalidClient).await)
            }
        };
        let outcome = self.told_to_identify(outcome, &caller, presented, course.identify).await;
        Answer { outcome, nonce: Some(self.next_nonce(&caller.jkt)), waited: course.waited }
    }

    /// Puts into an answer that somebody looks for this device. Only where it can be put, and once; nobody looks, nothing is asked of the store.
    async fn told_to_identify(
        &self,
        mut outcome: Result<TokenResponse, OAuthError>,
        caller: &AuthenticatedDevice,
        presented: &Presented<'_>,
        is_asked: bool,
    ) -> Result<TokenResponse, OAuthError> {
        let identify = match &mut outcome {
            Ok(response) => &mut response.identify,
            Err(OAuthError::AuthorizationPending { identify, .. }) => identify,
            Err(_) => return outcome,
        };
        if is_asked {
            // What it is told besides stands, whatever becomes of this.
            *identify = self.take_identify(&caller.device, presented.peer).await.unwrap_or(false);
        }
        outcome
    }

    async fn poll(
        &self,
        caller: &AuthenticatedDevice,
        form: &Form<'_>,
        presented: &Presented<'_>,
        patience: &Patience<'_>,
        course: &mut Course,
    ) -> Result<TokenResponse, OAuthError> {
        let device = &caller.device;
        // 3.
        let found = match parse_reference(form.require("device_code")?) {
            Some((id, secret)) => self.store.grant(id).await?.map(|grant| (id, secret, grant)),
            None => None,
        };
        let is_real = |(_, secret, grant): &(_, Bytes32, Grant)| is_equal(&grant.device_code_hash, &sha256(&[secret]));
        let Some((id, _, grant)) = found.filter(is_real) else {
            return Err(self
                .no_token(device, "a code that was never issued", presented, OAuthError::InvalidGrant)
                .await);
        };
        // 4. Without this, whoever steals a code and owns any enrolled device has the victim's tokens (D-01).
        if !is_equal(&grant.jkt, &caller.jkt) || grant.device_row != device.row {
            return Err(self.foreign_key(&grant, device, presented).await);
        }
        // 5. Also for approved codes: a token must not be the reward for polling too fast.
        let standing = grant.standing(self.now());
        let is_open = matches!(standing, Standing::Pending { .. } | Standing::Approved);
        if is_open && self.pacer.is_too_fast(id, grant.interval, self.now()) {
            self.store.slow_down(id).await?;
            return Err(OAuthError::SlowDown);
        }
        // 6. and 7.
        let standing = match (&standing, patience.wait) {
            (Standing::Pending { confirmation_number }, Some(wait)) => {
                let wait = wait.min(MAX_WAIT);
                course.waited = Some(wait);
                if self.pacer.is_news(id, confirmation_number.as_ref()) || course.identify {
                    self.pacer.forgive(id);
                    standing
                } else {
                    self.hold(&grant, device, Duration::from_secs(wait.into()), patience.stopping, course).await?
                }
            }
            _ => standing,
        };
        self.answer_poll(&grant, standing, caller, presented).await
    }

    async fn answer_poll(
        &self,
        grant: &Grant,
        standing: Standing,
        caller: &AuthenticatedDevice,
        presented: &Presented<'_>,
    ) -> Result<TokenResponse, OAuthError> {
        match standing {
            Standing::Pending { confirmation_number } => {
                self.pacer.is_news(grant.id, confirmation_number.as_ref());
                Err(OAuthError::AuthorizationPending { confirmation_number, identify: false })
            }
            Standing::Denied => Err(OAuthError::AccessDenied),
            Standing::Expired => Err(OAuthError::ExpiredToken),
            Standing::Gone => {
                let why = format!("sign-in {} is over", grant.id);
                Err(self.no_token(&caller.device, &why, presented, OAuthError::InvalidGrant).await)
            }
            Standing::Approved => self.redeem(grant, caller, presented).await,
        }
    }

    /// Holds a poll until the grant changes, the wait is over, or the process stops; where the grant then stands.
    async fn hold(
        &self,
        grant: &Grant,
        device: &Device,
        wait: Duration,
        stopping: &watch::Receiver<bool>,
        course: &mut Course,
    ) -> Result<Standing, OAuthError> {
        let held = self.wake.hold(grant.id);
        let end = tokio::time::sleep(wait.min(grant.expires_at.since(self.now())));
        tokio::pin!(end);
        let mut stopping = stopping.clone();
        let before = grant.standing(self.now());
        let mut was_woken = false;
        loop {
            let changed = held.notify().notified();
            tokio::pin!(changed);
            // Before the look into the store, or a change between the look and the wait is missed.
            changed.as_mut().enable();
            let now_grant = self.store.grant(grant.id).await?.ok_or(OAuthError::InvalidGrant)?;
            let standing = now_grant.standing(self.now());
            if standing != before {
                self.pacer.forgive(grant.id);
                // A device that was suspended while it waited is told as if it had just come.
                let present =
                    self.store.device(&device.id).await?.filter(|present| present.state == DeviceState::Active);
                return present.map(|_| standing).ok_or(OAuthError::InvalidClient);
            }
            // Woken, but not by the sign-in: perhaps somebody looks for the device.
            if was_woken && let Some(present) = self.store.device(&device.id).await? {
                course.identify = self.is_asked_to_identify(&present);
                if course.identify {
                    self.pacer.forgive(grant.id);
                    return Ok(standing);
                }
            }
            tokio::select! {
                () = &mut changed => was_woken = true,
                () = &mut end => return Ok(now_grant.standing(self.now())),
                _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(standing),
            }
        }
    }

    /// 7. The store lets exactly one caller through, and only then are tokens made.
    async fn redeem(
        &self,
        grant: &Grant,
        caller: &AuthenticatedDevice,
        presented: &Presented<'_>,
    ) -> Result<TokenResponse, OAuthError> {
        let device = &caller.device;
        let policy = self.policy();
        let kind = policy.kind(&device.facts.kind).ok_or(OAuthError::AccessDenied)?;
        // Policy may have changed since the code was minted.
        if !accepts_key(kind, device) {
            let why = format!("sign-in {}: a {} needs a {}", grant.id, kind.id, kind.key_assurance.words());
            return Err(self.no_token(device, &why, presented, OAuthError::AccessDenied).await);
        }
        let resource = policy.resource(&grant.resource).filter(|_| kind.resources.contains(&grant.resource));
        let resource = resource
            .filter(|resource| grant.scope.is_within(&kind.widest_scope(resource)))
            .ok_or(OAuthError::AccessDenied)?;
        let secret = self.random.bytes32().map_err(|_| OAuthError::Unavailable)?;
        let refresh = kind.refresh_for(&grant.scope).map(|policy| (sha256(&[&secret]), policy));
        let context = Context { now: self.now(), actor: Actor::Device(device.id.clone()), peer: presented.peer };
        let policy = second_person(kind);
        let redemption = self.store.redeem_grant(grant.id, &caller.jkt, refresh, policy, &context).await?;
        self.wake.grant(grant.id);
        match redemption {
            Redemption::Redeemed => {
                let refresh = refresh.map(|(_, policy)| Renewal {
                    token: reference(grant.id, &secret),
                    timeout: policy.idle.min(policy.absolute),
                    ends_in: policy.absolute,
                });
                // The device shows who let it in, before it starts.
                let approved_by = self.store.approved_by(grant.id).await.ok().map(|names| names.join(", "));
                let issue = Issue { grant, scope: &grant.scope, kind, resource, refresh };
                self.issue(caller, &issue).map(|answer| TokenResponse { approved_by, ..answer })
            }
            Redemption::ApproverLost => Err(OAuthError::AccessDenied),
            Redemption::Lost => {
                let why = format!("sign-in {} was fetched or ended at the same moment", grant.id);
                Err(self.no_token(device, &why, presented, OAuthError::InvalidGrant).await)
            }
        }
    }

    async fn refresh(
        &self,
        caller: &AuthenticatedDevice,
        form: &Form<'_>,
        presented: &Presented<'_>,
    ) -> Result<TokenResponse, OAuthError> {
        let device = &caller.device;
        let found = match parse_reference(form.require("refresh_token")?) {
            Some((id, secret)) => self.store.grant(id).await?.map(|grant| (id, secret, grant)),
            None => None,
        };
        const UNKNOWN: &str = "a refresh token that was never issued";
        let Some((id, secret, grant)) = found else {
            return Err(self.no_token(device, UNKNOWN, presented, OAuthError::InvalidGrant).await);
        };
        let presented_hash = sha256(&[&secret]);
        if !is_equal(&grant.jkt, &caller.jkt) || grant.device_row != device.row {
            // Only who has a token that was real once is worth an alarm, and ends the sign-in.
            let is_real = grant.refresh.as_ref().is_some_and(|refresh| {
                is_equal(&refresh.hash, &presented_hash)
                    || refresh.previous_hash.is_some_and(|previous| is_equal(&previous, &presented_hash))
            });
            return Err(if is_real {
                self.foreign_key(&grant, device, presented).await
            } else {
                self.no_token(device, UNKNOWN, presented, OAuthError::InvalidGrant).await
            });
        }
        let policies = self.policy();
        let kind = policies.kind(&device.facts.kind).filter(|kind| accepts_key(kind, device));
        let kind = kind.ok_or(OAuthError::InvalidGrant)?;
        let policy = kind.refresh_for(&grant.scope).ok_or(OAuthError::InvalidGrant)?;
        let resource = policies.resource(&grant.resource).ok_or(OAuthError::InvalidGrant)?;
        let scope = match refreshed_scope(kind, resource, &grant, form) {
            Ok(scope) => scope,
            Err(error) => {
                let why = format!("sign-in {id}: {}", error.body().error_description);
                return Err(self.no_token(device, &why, presented, error).await);
            }
        };
        // The successor is derived from its predecessor: a retry gets the same one, and nothing that could be stolen is stored.
        let successor = self.refresh_key.tag(&[&secret]);
        let context = Context { now: self.now(), actor: Actor::Device(device.id.clone()), peer: presented.peer };
        match self.store.rotate_refresh(id, &presented_hash, &sha256(&[&successor]), policy, &context).await? {
            Rotation::Rotated | Rotation::Retried => {
                let left = grant.refresh.as_ref().map_or(Duration::ZERO, |refresh| refresh.ends_at.since(self.now()));
                let token = reference(id, &successor);
                let refresh = Some(Renewal { token, timeout: policy.idle.min(left), ends_in: left });
                self.issue(caller, &Issue { grant: &grant, scope: &scope, kind, resource, refresh })
            }
            Rotation::Reused | Rotation::Forked => {
                self.wake.pages();
                Err(OAuthError::InvalidGrant)
            }
            Rotation::Gone => {
                let why = format!("sign-in {id} is over");
                Err(self.no_token(device, &why, presented, OAuthError::InvalidGrant).await)
            }
        }
    }

    /// Notes why an authenticated device gets no token; the error, to be answered.
    async fn no_token(&self, device: &Device, why: &str, presented: &Presented<'_>, error: OAuthError) -> OAuthError {
        self.note_refusal(Event::TokenRefused, Some(&device.id), why, presented.peer).await;
        error
    }

    /// A code or token, real, in the hands of another key. The owner's pending sign-in is not touched; tokens that are out are ended.
    async fn foreign_key(&self, grant: &Grant, thief: &Device, presented: &Presented<'_>) -> OAuthError {
        let by = thief.key.as_ref().map_or_else(String::new, |key| PinnedKey::short(&key.jkt));
        let detail = format!("presented by {} with key {by}", thief.id);
        let context = Context { now: self.now(), actor: Actor::Device(thief.id.clone()), peer: presented.peer };
        if grant.state == GrantState::Redeemed {
            let revoked = self.store.revoke_grant(grant.id, Event::ForeignKeyOnCode, &detail, &context).await;
            self.wake.pages();
            return revoked.map_or_else(OAuthError::from, |_| OAuthError::InvalidGrant);
        }
        let owner = self.store.device_by_row(grant.device_row).await.ok().flatten();
        let detail = format!("sign-in {}: {detail}", grant.id);
        self.note_bounded(Event::ForeignKeyOnCode, owner.as_ref().map(|owner| &owner.id), &detail, &context).await;
        OAuthError::InvalidGrant
    }
}

/// Is the device's key kept as its kind wants it? The kind may want more than when the device was paired.
fn accepts_key(kind: &Kind, device: &Device) -> bool {
    device.key.as_ref().is_some_and(|key| kind.accepts(key.assurance))
}

/// Scope of a refresh: narrower is allowed, wider never, nor another resource (RFC 6749 section 6, A-074).
fn refreshed_scope(kind: &Kind, resource: &Resource, grant: &Grant, form: &Form<'_>) -> Result<Scope, OAuthError> {
    let scope = match form.get("scope") {
        Some(text) => Scope::parse(text)
            .filter(|scope| !scope.is_empty() && scope.is_within(&grant.scope))
            .ok_or(OAuthError::InvalidScope)?,
        None => grant.scope.clone(),
    };
    if !scope.is_within(&kind.widest_scope(resource)) {
        return Err(OAuthError::InvalidScope);
    }
    // Policy may have changed since the device signed in.
    if !kind.resources.contains(&grant.resource) {
        return Err(OAuthError::InvalidGrant);
    }
    if form.get("resource").is_some_and(|resource| resource != grant.resource) {
        return Err(OAuthError::InvalidTarget);
    }
    Ok(scope)
}
