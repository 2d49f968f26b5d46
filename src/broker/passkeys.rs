//! Passkeys (WebAuthn Level 3): add, sign in with, remove. The library checks what browsers send; what is stored, and who may, is decided here.
//!
//! 1. Adding: [`Broker::start_passkey`] gives the browser a challenge and keeps the other half as a ceremony of this session; [`Broker::add_passkey`]
//!    takes the ceremony, checks the answer and stores the public key.
//! 2. Signing in: [`Broker::start_passkey_sign_in`] and [`Broker::passkey_sign_in`]. No name is asked for: the passkey says whose it is.
//!
//! The browser binds each answer to the address that it shows; an answer that a page elsewhere got is refused. User verification (a PIN, a
//! fingerprint, a face) is required each time, so a passkey is two factors.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::{Host, Url};
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey as Credential, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, Uuid, WebauthnError,
};
use webauthn_rs::{Webauthn, WebauthnBuilder};

use crate::broker::people::{Browser, Session};
use crate::broker::{Broker, UseCaseError};
use crate::id::OperatorId;
use crate::model::audit::Event;
use crate::model::operator::SignInMethod;
use crate::model::text::clean;
use crate::secret::is_equal;
use crate::store::{NewPasskey, Passkey, StoreError};

/// Purposes of ceremonies.
const ADD: &str = "passkey.add";
const SIGN_IN: &str = "passkey.sign_in";

/// What a browser needs for its part.
pub struct Started {
    /// For the cookie that finds the ceremony again.
    pub cookie: String,
    /// Options for `navigator.credentials`, binary fields as base64url.
    pub options: Value,
}

#[derive(Deserialize, Serialize)]
struct Adding {
    name: String,
    registration: PasskeyRegistration,
}

/// For this issuer; `None` where browsers refuse passkeys: at an address that is a number, and without TLS (but on this machine).
pub(super) fn webauthn(issuer: &Url) -> Option<Webauthn> {
    let Some(Host::Domain(host)) = issuer.host() else { return None };
    let is_local = host == "localhost" || host.ends_with(".localhost");
    if issuer.scheme() != "https" && !is_local {
        return None;
    }
    WebauthnBuilder::new(host, issuer).and_then(|builder| builder.rp_name("Pairgate").build()).ok()
}

impl Broker {
    /// Can passkeys work at this address?
    pub const fn has_passkeys(&self) -> bool {
        self.webauthn.is_some()
    }

    /// The passkeys of the person of this session, oldest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn passkeys(&self, session: &Session) -> Result<Vec<Passkey>, StoreError> {
        self.store.passkeys_of(session.operator.id).await
    }

    /// Came the person by a one-time link, although there could be a passkey?
    ///
    /// # Errors
    /// If the store fails.
    pub async fn lacks_passkey(&self, session: &Session) -> Result<bool, StoreError> {
        Ok(self.has_passkeys() && session.method == SignInMethod::Link && self.passkeys(session).await?.is_empty())
    }

    /// Begins to add a passkey of this name.
    ///
    /// # Errors
    /// If passkeys can't work here, the person has not signed in lately, or the name is no good.
    pub async fn start_passkey(&self, session: &Session, name: &str) -> Result<Started, UseCaseError> {
        let webauthn = self.webauthn()?;
        self.must_be_fresh(&session.caller(None))?;
        let name = clean("name", name, 40).map_err(|error| UseCaseError::refused(error.to_string()))?;
        if name.is_empty() {
            return Err(UseCaseError::refused("give the passkey a name, such as the phone that it is on"));
        }
        let owner = &session.operator;
        let known = self.store.passkeys_of(owner.id).await?;
        let known = known.into_iter().map(|passkey| passkey.credential).collect();
        let handle = Uuid::from_bytes(self.passkey_handle(owner.id));
        let (challenge, registration) = webauthn
            .start_passkey_registration(handle, &owner.name, &owner.name, Some(known))
            .map_err(|error| unexpected(&error))?;
        let mut options = json!(challenge);
        // Kept on the authenticator together with whose it is: then signing in needs no name.
        options["publicKey"]["authenticatorSelection"]["residentKey"] = json!("required");
        options["publicKey"]["authenticatorSelection"]["requireResidentKey"] = json!(true);
        let state = json!(Adding { name, registration }).to_string();
        Ok(Started { cookie: self.start_ceremony(ADD, Some(session), &state).await?, options })
    }

    /// Ends it: checks what the browser made, and stores it. The ceremony is spent, however it ends.
    ///
    /// # Errors
    /// If the ceremony is over or another session's, or the answer does not fit.
    pub async fn add_passkey(
        &self,
        session: &Session,
        peer: Option<IpAddr>,
        cookie: &str,
        answer: Value,
    ) -> Result<(), UseCaseError> {
        let webauthn = self.webauthn()?;
        let state = self.take_ceremony(ADD, Some(session), cookie).await?.ok_or_else(over)?;
        let Adding { name, registration } = serde_json::from_str(&state).map_err(|_| over())?;
        let unfit = || {
            UseCaseError::refused(
                "this passkey can't be used here: it must be made for this address, be kept on the device, and ask for a PIN, a finger or a face",
            )
        };
        let answer: RegisterPublicKeyCredential = serde_json::from_value(answer).map_err(|_| unfit())?;
        if answer.extensions.cred_props.as_ref().is_some_and(|properties| properties.rk == Some(false)) {
            return Err(unfit());
        }
        let credential = webauthn.finish_passkey_registration(&answer, &registration).map_err(|error| {
            tracing::info!(%error, "a passkey was not added");
            unfit()
        })?;
        let new = NewPasskey {
            credential: credential.cred_id().to_vec(),
            operator: session.operator.id,
            name,
            data: json!(credential).to_string(),
            session: session.hash,
        };
        if self.store.add_passkey(&new, &self.context(&session.caller(peer))).await? {
            Ok(())
        } else {
            Err(UseCaseError::refused("this passkey is here already, or you have too many; remove one first"))
        }
    }

    /// Begins a sign-in with whatever passkey the person has.
    ///
    /// # Errors
    /// If passkeys can't work here.
    pub async fn start_passkey_sign_in(&self) -> Result<Started, UseCaseError> {
        let (mut challenge, state) =
            self.webauthn()?.start_discoverable_authentication().map_err(|error| unexpected(&error))?;
        // A button was pressed: the browser shall ask at once.
        challenge.mediation = None;
        let cookie = self.start_ceremony(SIGN_IN, None, &json!(state).to_string()).await?;
        Ok(Started { cookie, options: json!(challenge) })
    }

    /// Ends it and opens a session; its id for the cookie. Every refusal is the same to whoever gets it.
    ///
    /// # Errors
    /// If the ceremony is over, or the answer does not fit.
    pub async fn passkey_sign_in(
        &self,
        browser: &Browser,
        cookie: &str,
        answer: Value,
    ) -> Result<String, UseCaseError> {
        let webauthn = self.webauthn()?;
        let state = self.take_ceremony(SIGN_IN, None, cookie).await?.ok_or_else(over)?;
        let state: DiscoverableAuthentication = serde_json::from_str(&state).map_err(|_| over())?;
        match self.checked(webauthn, browser, state, answer).await? {
            Some((passkey, data)) => {
                let (id, session) = self.new_session(SignInMethod::Passkey, self.now(), browser)?;
                if self.store.use_passkey(&passkey, &data, &session, &self.context_of(browser)).await? {
                    return Ok(id);
                }
            }
            None => self.note_refusal(Event::PasskeyRefused, None, "", browser.peer).await,
        }
        Err(UseCaseError::refused("this passkey opens nothing here. Use another one, or ask for a one-time link"))
    }

    /// Removes a passkey of the person of this session.
    ///
    /// # Errors
    /// If the person has not signed in lately, or has no such passkey.
    pub async fn remove_passkey(
        &self,
        session: &Session,
        peer: Option<IpAddr>,
        credential: &[u8],
    ) -> Result<(), UseCaseError> {
        let caller = session.caller(peer);
        self.must_be_fresh(&caller)?;
        if self.store.remove_passkey(session.operator.id, credential, &self.context(&caller)).await? {
            Ok(())
        } else {
            Err(UseCaseError::refused("that passkey is gone already"))
        }
    }

    /// The passkey that gave this answer and what is to be stored of it now, if all of it fits.
    async fn checked(
        &self,
        webauthn: &Webauthn,
        browser: &Browser,
        state: DiscoverableAuthentication,
        answer: Value,
    ) -> Result<Option<(Passkey, String)>, StoreError> {
        let Ok(answer) = serde_json::from_value::<PublicKeyCredential>(answer) else { return Ok(None) };
        let Some(passkey) = self.store.passkey(answer.get_credential_id()).await? else { return Ok(None) };
        // The authenticator says whose passkey it is; that must be the person whose it is here (WebAuthn section 7.2, step 6).
        let is_owner =
            answer.get_user_unique_id().is_some_and(|handle| is_equal(handle, &self.passkey_handle(passkey.operator)));
        let Ok(mut credential) = serde_json::from_str::<Credential>(&passkey.data) else { return Ok(None) };
        if !is_owner || is_framed(&answer.response.client_data_json) {
            return Ok(None);
        }
        match webauthn.finish_discoverable_authentication_v2(&answer, state, &credential) {
            Ok(result) if result.user_verified() => {
                credential.update_credential(&result);
                Ok(Some((passkey, json!(credential).to_string())))
            }
            Ok(_) => Ok(None),
            Err(error) => {
                if matches!(error, WebauthnError::CredentialPossibleCompromise) {
                    let detail = format!("passkey '{}' of {}", passkey.name, passkey.owner);
                    self.note_bounded(Event::PasskeyCloned, None, &detail, &self.context_of(browser)).await;
                }
                Ok(None)
            }
        }
    }

    fn webauthn(&self) -> Result<&Webauthn, UseCaseError> {
        self.webauthn.as_ref().ok_or_else(|| {
            UseCaseError::refused(
                "passkeys need an address with a name and https, such as https://pairgate.example.com. Set public_url in the configuration",
            )
        })
    }

    /// The user handle of WebAuthn: the same for all passkeys of a person, and says nothing about the person. Derived, so there is nothing to store.
    fn passkey_handle(&self, operator: OperatorId) -> [u8; 16] {
        let tag = self.passkey_key.tag(&[&operator.0.to_be_bytes()]);
        let mut handle = [0; 16];
        handle.copy_from_slice(&tag[..16]);
        handle
    }
}

/// Was it asked for in a frame of somebody else's page? The library looks at that when a passkey is added, but not when it is used.
fn is_framed(client_data: &[u8]) -> bool {
    serde_json::from_slice::<Value>(client_data).is_ok_and(|said| said["crossOrigin"] == json!(true))
}

fn over() -> UseCaseError {
    UseCaseError::refused("this took longer than five minutes, or was begun in another window. Try again")
}

/// The library could not even begin.
fn unexpected(error: &WebauthnError) -> UseCaseError {
    tracing::error!(%error, "a passkey ceremony could not be begun");
    UseCaseError::refused("passkeys don't work just now. Use a one-time link")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passkeys_work_where_browsers_let_them() {
        for (issuer, works) in [
            ("https://pairgate.example.com", true),
            ("https://pairgate.example.com:8443", true),
            ("http://localhost:8628", true),
            ("http://pairgate.localhost:8628", true),
            ("http://pairgate.example.com", false),
            ("http://127.0.0.1:8628", false),
            ("https://10.2.0.4", false),
            ("https://[::1]:8628", false),
        ] {
            assert_eq!(webauthn(&Url::parse(issuer).unwrap()).is_some(), works, "{issuer}");
        }
    }
}
