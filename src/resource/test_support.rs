//! A broker for unit tests: what it would answer, without HTTP.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use url::Url;

use crate::oauth::signing_key::SigningKey;
use crate::resource::fetch::{Fetch, FetchError};

/// Clones are the same broker.
#[derive(Clone)]
pub(super) struct FakeBroker(Arc<Mutex<State>>);

struct State {
    metadata: Value,
    jwks: Value,
    introspection: Value,
    is_cut: bool,
    looks: usize,
    forms: Vec<Vec<(String, String)>>,
}

impl FakeBroker {
    pub(super) fn with_keys(keys: &[&SigningKey]) -> Self {
        let issuer = "https://pairgate.example";
        let state = State {
            metadata: json!({
                "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
                "introspection_endpoint": format!("{issuer}/introspect"),
            }),
            jwks: jwks(keys),
            introspection: json!({"active": false}),
            is_cut: false,
            looks: 0,
            forms: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(super) fn issuer(&self) -> String {
        "https://pairgate.example".into()
    }

    pub(super) fn set_keys(&self, keys: &[&SigningKey]) {
        self.with(|state| state.jwks = jwks(keys));
    }

    pub(super) fn set_metadata(&self, metadata: Value) {
        self.with(|state| state.metadata = metadata);
    }

    pub(super) fn set_introspection(&self, answer: Value) {
        self.with(|state| state.introspection = answer);
    }

    pub(super) fn cut(&self) {
        self.with(|state| state.is_cut = true);
    }

    pub(super) fn mend(&self) {
        self.with(|state| state.is_cut = false);
    }

    /// How often somebody looked for its keys.
    pub(super) fn looks(&self) -> usize {
        self.with(|state| state.looks)
    }

    /// The forms that came.
    pub(super) fn forms(&self) -> Vec<Vec<(String, String)>> {
        self.with(|state| state.forms.clone())
    }
}

fn jwks(keys: &[&SigningKey]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk_set_entry()).collect::<Vec<_>>()})
}

#[async_trait]
impl Fetch for FakeBroker {
    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        self.with(|state| {
            let is_metadata = url.path() == "/.well-known/oauth-authorization-server";
            state.looks += usize::from(is_metadata);
            if state.is_cut {
                return Err(FetchError("unreachable".into()));
            }
            Ok(if is_metadata { &state.metadata } else { &state.jwks }.to_string().into_bytes())
        })
    }

    async fn post_form(&self, url: &Url, fields: &[(&str, &str)]) -> Result<Vec<u8>, FetchError> {
        assert_eq!(url.path(), "/introspect");
        self.with(|state| {
            state.forms.push(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
            if state.is_cut {
                return Err(FetchError("unreachable".into()));
            }
            Ok(state.introspection.to_string().into_bytes())
        })
    }
}
