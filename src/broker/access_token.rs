//! Access tokens after the decision: what one says (RFC 9068), how a resource asks about it (RFC 7662), how a device gives its sign-in back (RFC 7009).

use std::time::Duration;

use crate::broker::Broker;
use crate::broker::device_authorization::Answer;
use crate::device_auth::{AuthenticatedDevice, Confirmation, Presented};
use crate::model::audit::{Actor, Context, Event};
use crate::model::device::{Device, DeviceState};
use crate::model::grant::{Grant, GrantState, parse_reference};
use crate::model::kind::{Kind, OFFLINE_ACCESS};
use crate::model::resource::Resource;
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::oauth::jose::KeylessJwt;
use crate::oauth::scope::Scope;
use crate::oauth::{ActiveToken, ConfirmationClaim, IntrospectionResponse, TokenResponse};
use crate::secret::{b64u, is_equal, sha256};

/// `typ` of an access token (RFC 9068 section 2.1).
const TYP: &str = "at+jwt";

/// What a token is to be made of.
pub(super) struct Issue<'a> {
    pub grant: &'a Grant,
    pub scope: &'a Scope,
    pub kind: &'a Kind,
    pub resource: &'a Resource,
    pub refresh: Option<Renewal>,
}

/// The refresh side of an answer.
pub(super) struct Renewal {
    pub token: String,
    pub timeout: Duration,
    pub ends_in: Duration,
}

impl Broker {
    /// The access token, bound to the key or the certificate. No path leads around `cnf` (A-075, D-06).
    pub(super) fn issue(&self, caller: &AuthenticatedDevice, issue: &Issue<'_>) -> Result<TokenResponse, OAuthError> {
        let Issue { grant, scope, kind, resource, refresh } = issue;
        let cnf = match caller.confirmation {
            Some(Confirmation::Key(jkt)) => ConfirmationClaim::Key(b64u(&jkt)),
            Some(Confirmation::Certificate(x5t)) => ConfirmationClaim::Certificate(b64u(&x5t)),
            None => return Err(OAuthError::InvalidGrant),
        };
        let now = self.now();
        let cap = resource.access_token_lifetime.unwrap_or(kind.access_token_lifetime);
        let ends_in = refresh.as_ref().map_or(cap, |refresh| refresh.ends_in);
        let expires_in = seconds(kind.access_token_lifetime.min(cap).min(ends_in));
        let jti = self.random.bytes32().map_err(|_| OAuthError::Unavailable)?;
        let token_type = cnf.token_type();
        let claims = ActiveToken {
            iss: self.endpoints.issuer.clone(),
            sub: subject(&caller.device),
            aud: resource.id.clone(),
            client_id: caller.device.id.to_string(),
            // offline_access is a wish to the broker, nothing that a resource gives.
            scope: scope.words().filter(|word| *word != OFFLINE_ACCESS).collect::<Vec<_>>().join(" "),
            iat: now.seconds(),
            exp: now.seconds() + expires_in,
            jti: b64u(&jti[..16]),
            sid: grant.id.to_string(),
            cnf,
            key_assurance: caller.device.key.as_ref().map(|key| key.assurance).unwrap_or_default().as_str().into(),
            token_type: None,
        };
        let access_token = self.signing.sign(resource.signing_algorithm, TYP, &claims, false).map_err(|error| {
            tracing::error!(%error, "an access token could not be signed");
            OAuthError::Unavailable
        })?;
        Ok(TokenResponse {
            access_token,
            token_type,
            expires_in,
            scope: scope.to_string(),
            refresh_token: refresh.as_ref().map(|refresh| refresh.token.clone()),
            refresh_token_timeout: refresh.as_ref().map(|refresh| seconds(refresh.timeout)),
            approved_by: None,
            authorization_expires_in: refresh.as_ref().map_or(expires_in, |refresh| seconds(refresh.ends_in)),
            identify: false,
        })
    }

    /// `POST /introspect`: whether a token is good now, for the resource that asks (RFC 7662).
    pub async fn introspect(&self, presented: &Presented<'_>, body: &[u8]) -> Answer<IntrospectionResponse> {
        let form = match Form::parse(body) {
            Ok(form) => form,
            Err(error) => return Answer::refused(error),
        };
        // Without this, anybody could scan for tokens (RFC 7662 section 4, A-078). A device is no resource.
        let policy = self.policy();
        let keys = |id: &str| policy.resource(id).map_or(&[][..], |resource| resource.keys.as_slice());
        let resource = match self.authenticator.resource(presented, &form, keys, self.now()) {
            Ok(resource) => resource,
            Err(refused) => return self.refused(refused, presented).await,
        };
        let outcome = match form.require("token") {
            Ok(token) => self.active(token, &resource).await,
            Err(error) => Err(error),
        };
        Answer { outcome, nonce: None, waited: None }
    }

    /// R-7662-02 and R-7662-03: signature, time, audience, and what has become of sign-in and device since. Refresh tokens are nobody's business here.
    async fn active(&self, token: &str, resource: &str) -> Result<IntrospectionResponse, OAuthError> {
        let Some(claims) = self.own_token(token).filter(|claims| claims.aud == resource) else {
            return Ok(IntrospectionResponse::default());
        };
        let Some((grant, device)) = self.sign_in_of(&claims).await? else {
            return Ok(IntrospectionResponse::default());
        };
        let is_live = grant.state == GrantState::Redeemed
            && device.state == DeviceState::Active
            && device.key.is_some_and(|key| is_equal(&key.jkt, &grant.jkt))
            && grant.refresh.is_none_or(|refresh| self.now() < refresh.ends_at);
        if !is_live {
            return Ok(IntrospectionResponse::default());
        }
        let token_type = Some(claims.cnf.token_type().to_owned());
        Ok(IntrospectionResponse { active: true, claims: Some(ActiveToken { token_type, ..claims }) })
    }

    /// `POST /revoke`: a device gives its sign-in back. Always 200, whatever the token was (RFC 7009 section 2.2): no oracle.
    pub async fn revoke(&self, presented: &Presented<'_>, body: &[u8]) -> Answer<()> {
        let (form, caller) = match self.authenticate(presented, body).await {
            Ok(authenticated) => authenticated,
            Err(answer) => return answer,
        };
        let outcome = match form.require("token") {
            Ok(token) => self.give_back(&caller, token, presented).await,
            Err(error) => Err(error),
        };
        Answer { outcome, nonce: Some(self.next_nonce(&caller.jkt)), waited: None }
    }

    /// Either token ends the whole sign-in (RFC 7009 section 2.1): an access token that is left over would be worth ten more minutes. The hint is not needed.
    async fn give_back(
        &self,
        caller: &AuthenticatedDevice,
        token: &str,
        presented: &Presented<'_>,
    ) -> Result<(), OAuthError> {
        let grant = match parse_reference(token) {
            Some((id, secret)) => {
                let hash = sha256(&[&secret]);
                self.store.grant(id).await?.filter(|grant| {
                    grant.refresh.as_ref().is_some_and(|refresh| {
                        is_equal(&refresh.hash, &hash)
                            || refresh.previous_hash.is_some_and(|previous| is_equal(&previous, &hash))
                    })
                })
            }
            None => match self.own_token(token) {
                Some(claims) => self.sign_in_of(&claims).await?.map(|(grant, _)| grant),
                None => None,
            },
        };
        let Some(grant) = grant.filter(|grant| grant.state == GrantState::Redeemed) else { return Ok(()) };
        if grant.device_row != caller.device.row || !is_equal(&grant.jkt, &caller.jkt) {
            let detail = format!("sign-in {} by {}", grant.id, caller.device.id);
            let owner = self.store.device_by_row(grant.device_row).await?;
            self.note_refusal(Event::TokenScanned, owner.as_ref().map(|owner| &owner.id), &detail, presented.peer)
                .await;
            return Ok(());
        }
        let context = Context { now: self.now(), actor: Actor::Device(caller.device.id.clone()), peer: presented.peer };
        self.store.revoke_grant(grant.id, Event::TokenRevoked, "by the device", &context).await?;
        self.wake.pages();
        Ok(())
    }

    /// The claims of an access token of ours that has not expired.
    fn own_token(&self, token: &str) -> Option<ActiveToken> {
        let jwt = KeylessJwt::<ActiveToken>::parse(token).ok()?;
        let key = jwt.kid().filter(|_| jwt.typ() == Some(TYP)).and_then(|kid| self.signing.public(kid))?;
        let claims = jwt.verify_with(&key).ok()?.claims;
        (claims.iss == self.endpoints.issuer && self.now().seconds() < claims.exp).then_some(claims)
    }

    async fn sign_in_of(&self, claims: &ActiveToken) -> Result<Option<(Grant, Device)>, OAuthError> {
        let Ok(id) = claims.sid.parse().map(crate::id::GrantId) else { return Ok(None) };
        let Some(grant) = self.store.grant(id).await? else { return Ok(None) };
        let device = self.store.device_by_row(grant.device_row).await?;
        Ok(device.filter(|device| claims.sub == subject(device)).map(|device| (grant, device)))
    }
}

fn subject(device: &Device) -> String {
    format!("device:{}", device.id)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(0)
}
