//! A resource: a service that takes the broker's tokens (RFC 8707, RFC 9068). Configuration, never a device, says what there is.

use std::time::Duration;

use crate::model::policy::{PolicyError, checked_words, is_denied, is_identifier};
use crate::oauth::jwk::PublicKey;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningAlgorithm;

/// One resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Identifier: an absolute URI without fragment. Devices name it in `resource`, tokens in `aud`; towards `/introspect` it is the client id.
    pub id: String,
    /// In words, for the approve page: `scan folder`.
    pub label: String,
    /// What may be done there, each with what it means to a person. Empty: whatever the kind allows.
    pub scopes: Vec<(String, String)>,
    /// Its access tokens live no longer than this, whatever the kind says.
    pub access_token_lifetime: Option<Duration>,
    /// What its access tokens are signed with.
    pub signing_algorithm: SigningAlgorithm,
    /// Keys by which it may ask about tokens, by assertion or certificate. Empty: it may not.
    pub keys: Vec<PublicKey>,
}

impl Resource {
    /// A resource that only a kind names: no limits of its own.
    pub fn plain(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            label: id.to_owned(),
            scopes: Vec::new(),
            access_token_lifetime: None,
            signing_algorithm: SigningAlgorithm::Es256,
            keys: Vec::new(),
        }
    }

    /// Checks what configuration says.
    ///
    /// # Errors
    /// For what is no identifier, dangerous scopes, and lives outside 60 to 3600 seconds.
    pub fn checked(mut self) -> Result<Self, PolicyError> {
        let subject = format!("resource '{}'", self.id);
        checked_words(&subject, &mut self.label, &mut self.scopes)?;
        let refuse = |problem: String| Err(PolicyError { subject: subject.clone(), problem });
        if !is_identifier(&self.id) {
            return refuse("must be an absolute URI without fragment (RFC 8707)".into());
        }
        if let Some((scope, _)) = self.scopes.iter().find(|(scope, _)| is_denied(scope)) {
            return refuse(format!("scope '{scope}' gives access to people's mail, chats, files or directory"));
        }
        if let Some((scope, _)) =
            self.scopes.iter().find(|(scope, _)| scope.contains(' ') || Scope::parse(scope).is_none())
        {
            return refuse(format!("scope '{scope}' has characters that scopes can't have (RFC 6749 section 3.3)"));
        }
        let is_odd = |life: Duration| !(60..=3600).contains(&life.as_secs());
        if self.access_token_lifetime.is_some_and(is_odd) {
            return refuse("access_token_lifetime must be 60 to 3600 seconds".into());
        }
        Ok(self)
    }

    /// May this scope be used here?
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.is_empty() || self.scopes.iter().any(|(word, _)| word == scope)
    }

    /// What a scope means here, if the resource says so itself.
    pub fn words(&self, scope: &str) -> Option<&str> {
        self.scopes.iter().find(|(word, _)| word == scope).map(|(_, words)| words.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_resources_are_refused() {
        type Change = fn(&mut Resource);
        let rows: [(&str, Change); 6] = [
            ("relative", |resource| resource.id = "scan".into()),
            ("fragment", |resource| resource.id = "https://scan.example/#a".into()),
            ("mail", |resource| resource.scopes = vec![("Mail.Read".into(), "x".into())]),
            ("space", |resource| resource.scopes = vec![("a b".into(), "x".into())]),
            ("short", |resource| resource.access_token_lifetime = Some(Duration::from_secs(59))),
            ("long", |resource| resource.access_token_lifetime = Some(Duration::from_secs(3601))),
        ];
        assert!(Resource::plain("https://scan.example").checked().is_ok());
        for (what, change) in rows {
            let mut resource = Resource::plain("https://scan.example");
            change(&mut resource);
            assert!(resource.checked().is_err(), "{what}");
        }
    }
}
