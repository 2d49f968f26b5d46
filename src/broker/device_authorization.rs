//! `POST /device_authorization` (RFC 8628 section 3.1): the one place where codes are made.
//!
//! 1. Authenticate by the pinned key. Nobody else gets further, and nothing is stored for anybody else.
//! 2. The device is active, its key kept as its kind wants it, and the device where its kind wants it to be.
//! 3. Scope and resource are on the kind's list.
//! 4. Mint. In one transaction the store checks the budget, ends the former open sign-in, and writes code and record.

use crate::broker::Broker;
use crate::broker::policy::PolicySet;
use crate::clock::Timestamp;
use crate::device_auth::assertion::LEEWAY;
use crate::device_auth::{AuthenticatedDevice, Presented, Refused};
use crate::model::audit::{Actor, Context, Event};
use crate::model::device::{Device, DeviceState};
use crate::model::grant;
use crate::model::kind::{Kind, OFFLINE_ACCESS};
use crate::model::resource::Resource;
use crate::model::user_code::UserCode;
use crate::oauth::DeviceAuthorizationResponse;
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::oauth::scope::Scope;
use crate::secret::{Bytes32, sha256};
use crate::store::{Mint, NewGrant, StoreError};

/// An answer of a device endpoint, and the nonce for the next proof.
pub struct Answer<T> {
    /// The body, or the error.
    pub outcome: Result<T, OAuthError>,
    /// `DPoP-Nonce`, for whoever sent a proof.
    pub nonce: Option<String>,
    /// Seconds that a poll was allowed to be held (`Preference-Applied`).
    pub waited: Option<u32>,
}

impl<T> Answer<T> {
    pub(super) const fn refused(error: OAuthError) -> Self {
        Self { outcome: Err(error), nonce: None, waited: None }
    }
}

impl Broker {
    /// Mints a code for an authenticated device.
    pub async fn device_authorization(
        &self,
        presented: &Presented<'_>,
        body: &[u8],
    ) -> Answer<DeviceAuthorizationResponse> {
        // 1.
        let (form, caller) = match self.authenticate(presented, body).await {
            Ok(authenticated) => authenticated,
            Err(answer) => return answer,
        };
        let now = self.now();
        let outcome = self.mint(&caller, &form, presented, now).await;
        let AuthenticatedDevice { device, jkt, .. } = caller;
        if let Err(
            error @ (OAuthError::UnauthorizedClient
            | OAuthError::InvalidScope
            | OAuthError::InvalidTarget
            | OAuthError::TooManyRequests { .. }),
        ) = &outcome
        {
            let why = error.body().error_description;
            self.note_refusal(Event::CodeRefused, Some(&device.id), &why, presented.peer).await;
        }
        Answer { outcome, nonce: Some(self.next_nonce(&jkt)), waited: None }
    }

    async fn mint(
        &self,
        caller: &AuthenticatedDevice,
        form: &Form<'_>,
        presented: &Presented<'_>,
        now: Timestamp,
    ) -> Result<DeviceAuthorizationResponse, OAuthError> {
        let device = &caller.device;
        // 2.
        let policy = self.policy();
        let kind = policy
            .kind(&device.facts.kind)
            .filter(|_| device.state == DeviceState::Active)
            .filter(|kind| device.key.as_ref().is_some_and(|key| kind.accepts(key.assurance)))
            .ok_or(OAuthError::UnauthorizedClient)?;
        if kind.site_network && !self.is_on_site(device, presented.peer).await? {
            return Err(OAuthError::UnauthorizedClient);
        }
        // 3.
        let resource = requested_resource(&policy, kind, form)?;
        let scope = requested_scope(kind, resource, form)?;
        // 4.
        let unavailable = |_| OAuthError::Unavailable;
        let secret = self.random.bytes32().map_err(unavailable)?;
        let user_code = UserCode::mint(&self.random).map_err(unavailable)?;
        let new = NewGrant {
            device_row: device.row,
            device: device.id.clone(),
            jkt: caller.jkt,
            device_code_hash: sha256(&[&secret]),
            user_code_hash: user_code.hash(&self.user_code_key),
            scope,
            resource: resource.id.clone(),
            expires_at: now.plus(kind.code_lifetime),
            codes_per_hour: kind.codes_per_hour,
            assertion: caller.assertion.map(|used| (used.hash, Timestamp::from_millis((used.exp + LEEWAY) * 1000))),
        };
        let context = Context { now, actor: Actor::Device(device.id.clone()), peer: presented.peer };
        let id = match self.store.mint_grant(&new, &context).await? {
            Mint::Minted(id) => id,
            Mint::OverBudget { retry_after } => return Err(OAuthError::TooManyRequests { retry_after }),
            Mint::Lost => return Err(OAuthError::UnauthorizedClient),
            Mint::Replayed => {
                let why = "an assertion that was used before";
                self.note_refusal(Event::KeyMismatch, Some(&device.id), why, presented.peer).await;
                return Err(OAuthError::InvalidClient);
            }
        };
        // The former sign-in, if one was open, has just been revoked: a poll that is held on it may answer.
        if let Some(former) = device.pending_grant {
            self.wake.polls(former);
        }
        // Nobody is called at night by a device that asks again and again. Who stands in front of it types its code.
        let site = self.store.site(&device.facts.site).await?;
        if !site.is_some_and(|site| site.is_quiet(now)) {
            self.wake.pages();
        }
        let user_code = user_code.display(&kind.prefix);
        Ok(DeviceAuthorizationResponse {
            device_code: grant::reference(id, &secret),
            verification_uri_complete: format!("{}?user_code={user_code}", self.endpoints.verification),
            verification_uri: self.endpoints.verification.clone(),
            user_code,
            expires_in: i64::try_from(kind.code_lifetime.as_secs()).unwrap_or(300),
            interval: grant::INTERVAL,
        })
    }

    /// Is the device on its site's network? No, as long as nobody has said which that is.
    async fn is_on_site(&self, device: &Device, peer: Option<std::net::IpAddr>) -> Result<bool, StoreError> {
        let site = self.store.site(&device.facts.site).await?;
        Ok(site.zip(peer).and_then(|(site, peer)| site.has_address(peer)).unwrap_or(false))
    }

    /// Reads a body and authenticates its sender. A refusal is recorded, and becomes the answer.
    pub(super) async fn authenticate<'b, T>(
        &self,
        presented: &Presented<'_>,
        body: &'b [u8],
    ) -> Result<(Form<'b>, AuthenticatedDevice), Answer<T>> {
        let form = Form::parse(body).map_err(Answer::refused)?;
        match self.authenticator.device(self.store.as_ref(), presented, &form, self.now()).await {
            Ok(authenticated) => Ok((form, authenticated)),
            Err(refused) => Err(self.refused(refused, presented).await),
        }
    }

    /// Records a refusal, and makes it the answer.
    pub(super) async fn refused<T>(&self, refused: Refused, presented: &Presented<'_>) -> Answer<T> {
        let Refused { error, proven, tripwire } = refused;
        if let Some(tripwire) = tripwire {
            self.note_refusal(tripwire.event, tripwire.device.as_ref(), &tripwire.detail, presented.peer).await;
        }
        Answer { outcome: Err(error), nonce: proven.map(|jkt| self.next_nonce(&jkt)), waited: None }
    }

    pub(super) fn next_nonce(&self, jkt: &Bytes32) -> String {
        self.authenticator.proofs.nonces.issue(jkt, self.now())
    }
}

/// The scope of a request: the kind's at this resource, or a part of it.
fn requested_scope(kind: &Kind, resource: &Resource, form: &Form<'_>) -> Result<Scope, OAuthError> {
    let scope = match form.get("scope") {
        Some(text) => Scope::parse(text).filter(|scope| scope.is_within(&kind.widest_scope(resource))),
        None => Some(kind.scope(resource)),
    };
    // A device that asks only to stay signed in asks for nothing.
    scope.filter(|scope| scope.words().any(|word| word != OFFLINE_ACCESS)).ok_or(OAuthError::InvalidScope)
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a device could not be served");
        Self::Unavailable
    }
}

/// The resource of a request: the kind's first, or one of the others (RFC 8707 section 2).
fn requested_resource<'p>(policy: &'p PolicySet, kind: &Kind, form: &Form<'_>) -> Result<&'p Resource, OAuthError> {
    let id = match form.get("resource") {
        Some(text) => kind.resources.iter().find(|resource| *resource == text),
        None => kind.resources.first(),
    };
    id.and_then(|id| policy.resource(id)).map(AsRef::as_ref).ok_or(OAuthError::InvalidTarget)
}
