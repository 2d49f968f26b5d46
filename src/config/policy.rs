//! `[kinds.…]` and `[resources.…]`: what devices may have, and where.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::config::{Config, ConfigError};
use crate::model::device::KeyAssurance;
use crate::model::kind::{KeyRotation, Kind, NewApprover, RefreshPolicy};
use crate::model::resource::Resource;
use crate::oauth::certificate::Certificate;
use crate::oauth::jose::JoseError;
use crate::oauth::jwk::PublicKey;
use crate::oauth::signing_key::SigningAlgorithm;

/// Changes to a built-in kind, or a new kind.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KindPatch {
    label: Option<String>,
    prefix: Option<String>,
    scopes: Option<BTreeMap<String, String>>,
    resources: Option<Vec<String>>,
    code_lifetime: Option<u64>,
    access_token_lifetime: Option<u64>,
    refresh: Option<bool>,
    offline_access: Option<bool>,
    client_certificate: Option<ClientCertificate>,
    refresh_idle: Option<u64>,
    refresh_absolute: Option<u64>,
    confirmation_number: Option<bool>,
    site_network: Option<bool>,
    codes_per_hour: Option<i64>,
    key_assurance: Option<KeyAssurance>,
    key_rotation: Option<KeyRotation>,
    two_persons: Option<bool>,
    new_approver: Option<NewApprover>,
}

/// What a client certificate must be, besides holding the pinned key.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientCertificate {
    /// Nothing: the key is enough (RFC 8705 section 2.2).
    Pinned,
    /// By one of the authorities (RFC 8705 section 2.1).
    Pki,
}

/// A resource as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceTable {
    label: Option<String>,
    #[serde(default)]
    scopes: BTreeMap<String, String>,
    access_token_lifetime: Option<u64>,
    signing_algorithm: Option<String>,
    #[serde(default)]
    keys: Vec<PathBuf>,
}

impl Config {
    pub(super) fn apply_kind(&mut self, id: &str, patch: KindPatch) -> Result<(), ConfigError> {
        let position = self.kinds.iter().position(|kind| kind.id == id);
        let mut kind = match position {
            Some(position) => self.kinds.remove(position),
            None => new_kind(id, &patch)?,
        };
        let seconds = Duration::from_secs;
        kind.label = patch.label.unwrap_or(kind.label);
        kind.prefix = patch.prefix.unwrap_or(kind.prefix);
        kind.scopes = patch.scopes.map_or(kind.scopes, |scopes| scopes.into_iter().collect());
        kind.resources = patch.resources.unwrap_or(kind.resources);
        kind.code_lifetime = patch.code_lifetime.map_or(kind.code_lifetime, seconds);
        kind.access_token_lifetime = patch.access_token_lifetime.map_or(kind.access_token_lifetime, seconds);
        kind.offline_access = patch.offline_access.unwrap_or(kind.offline_access);
        kind.certified =
            patch.client_certificate.map_or(kind.certified, |wanted| matches!(wanted, ClientCertificate::Pki));
        kind.confirmation_number = patch.confirmation_number.unwrap_or(kind.confirmation_number);
        kind.site_network = patch.site_network.unwrap_or(kind.site_network);
        kind.codes_per_hour = patch.codes_per_hour.unwrap_or(kind.codes_per_hour);
        kind.key_assurance = patch.key_assurance.unwrap_or(kind.key_assurance);
        kind.key_rotation = patch.key_rotation.unwrap_or(kind.key_rotation);
        kind.two_persons = patch.two_persons.unwrap_or(kind.two_persons);
        kind.new_approver = patch.new_approver.unwrap_or(kind.new_approver);
        let former = kind.refresh.unwrap_or(RefreshPolicy { idle: seconds(2 * 3600), absolute: seconds(8 * 3600) });
        kind.refresh = (patch.refresh.unwrap_or(kind.refresh.is_some())).then(|| RefreshPolicy {
            idle: patch.refresh_idle.map_or(former.idle, seconds),
            absolute: patch.refresh_absolute.map_or(former.absolute, seconds),
        });
        self.kinds.insert(position.unwrap_or(self.kinds.len()), kind);
        Ok(())
    }
}

fn new_kind(id: &str, patch: &KindPatch) -> Result<Kind, ConfigError> {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_plain || !(2..=32).contains(&id.len()) {
        return Err(ConfigError(format!("kinds.{id}: a kind's id has 2 to 32 characters out of a-z, 0-9 and '-'")));
    }
    if patch.prefix.is_none() || patch.scopes.is_none() {
        return Err(ConfigError(format!("kinds.{id} is a new kind and needs prefix and scopes")));
    }
    let template = Kind::built_in().remove(0);
    Ok(Kind { id: id.into(), label: id.into(), ..template })
}

pub(super) fn resource(id: String, table: ResourceTable) -> Result<Resource, ConfigError> {
    let wrong = |what: String| ConfigError(format!("resources.'{id}': {what}"));
    let signing_algorithm = match table.signing_algorithm.as_deref() {
        None => SigningAlgorithm::Es256,
        Some(name) => SigningAlgorithm::parse(name)
            .ok_or_else(|| wrong(format!("signing_algorithm = '{name}' must be ES256 or RS256")))?,
    };
    let mut keys = Vec::new();
    for path in &table.keys {
        let named = |what: String| wrong(format!("keys: {}: {what}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| named(error.to_string()))?;
        keys.extend(public_keys(&bytes).map_err(|error| named(error.to_string()))?);
    }
    let resource = Resource {
        label: table.label.unwrap_or_else(|| id.clone()),
        scopes: table.scopes.into_iter().collect(),
        access_token_lifetime: table.access_token_lifetime.map(Duration::from_secs),
        signing_algorithm,
        keys,
        id,
    };
    resource.checked().map_err(|error| ConfigError(error.to_string()))
}

/// Public keys from a file: a JWK, a JWK Set, or PEM certificates.
fn public_keys(bytes: &[u8]) -> Result<Vec<PublicKey>, JoseError> {
    const NONE: JoseError = JoseError("holds no public key: it must be a JWK, a JWK Set, or PEM certificates");
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes) {
        let keys = json.get("keys").and_then(serde_json::Value::as_array).cloned().unwrap_or_else(|| vec![json]);
        return keys.iter().map(|key| PublicKey::from_json(&key.to_string())).collect();
    }
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|_| NONE)?;
    let keys: Vec<PublicKey> = certificates
        .iter()
        .map(|der| Certificate::from_der(der).map(|certificate| certificate.key))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(NONE) } else { Ok(keys) }
}
