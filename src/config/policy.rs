//! Kinds, resources and sites as text: the grammar of `[kinds.…]`, `[resources.…]` and `[sites.…]`, in pairgate.toml and in the policy that the
//! database keeps. What one text says goes over what stands below it. How two policies differ is in `difference.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::model::device::KeyAssurance;
use crate::model::kind::{KeyRotation, Kind, NewApprover, RefreshPolicy};
use crate::model::resource::Resource;
use crate::model::site::Site;
use crate::oauth::certificate::Certificate;
use crate::oauth::jose::JoseError;
use crate::oauth::jwk::PublicKey;
use crate::oauth::signing_key::SigningAlgorithm;

/// No policy is longer, in bytes.
pub const MAX_POLICY: usize = 256 * 1024;
/// No policy has more kinds, more resources, or more scopes in one of them.
const MAX_ENTRIES: usize = 200;

/// What a text says: changes, each over what stands below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTables {
    /// Must a second person confirm each change of the policy? `None`: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_persons: Option<bool>,
    /// Kinds of devices by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, KindPatch>,
    /// Resources by identifier.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, ResourcePatch>,
    /// Sites by id. They have tables of their own in the database; a text can add and change them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sites: BTreeMap<String, SitePatch>,
}

/// Changes to a built-in kind, or a new kind. Lives are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the field of `Kind` of its name
pub struct KindPatch {
    pub label: Option<String>,
    pub prefix: Option<String>,
    pub scopes: Option<BTreeMap<String, String>>,
    pub resources: Option<Vec<String>>,
    pub code_lifetime: Option<u64>,
    pub access_token_lifetime: Option<u64>,
    pub refresh: Option<bool>,
    pub offline_access: Option<bool>,
    pub client_certificate: Option<ClientCertificate>,
    pub refresh_idle: Option<u64>,
    pub refresh_absolute: Option<u64>,
    pub confirmation_number: Option<bool>,
    pub site_network: Option<bool>,
    pub codes_per_hour: Option<i64>,
    pub key_assurance: Option<KeyAssurance>,
    pub key_rotation: Option<KeyRotation>,
    pub two_persons: Option<bool>,
    pub new_approver: Option<NewApprover>,
}

/// What a client certificate must be, besides holding the pinned key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// Nothing: the key is enough (RFC 8705 section 2.2).
    Pinned,
    /// By one of the authorities (RFC 8705 section 2.1).
    Pki,
}

/// Changes to a resource, or a new one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourcePatch {
    /// In words.
    pub label: Option<String>,
    /// Scopes with their words.
    pub scopes: Option<BTreeMap<String, String>>,
    /// Seconds.
    pub access_token_lifetime: Option<u64>,
    /// `ES256` or `RS256`.
    pub signing_algorithm: Option<String>,
    /// Its public keys as text: a JWK, a JWK Set, or PEM certificates.
    pub jwks: Option<String>,
    /// The same as files; only in pairgate.toml.
    #[serde(skip_serializing)]
    pub keys: Option<Vec<PathBuf>>,
}

/// Changes to a site, or a new one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the field of `Site` of its name
pub struct SitePatch {
    pub name: Option<String>,
    pub networks: Option<Vec<IpNet>>,
    pub two_persons: Option<bool>,
    pub quiet_hours: Option<String>,
}

/// What this installation has besides its policy, and a policy may need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trusts {
    /// Are there makers who are believed that a key is kept in hardware?
    pub makers: bool,
    /// Are there authorities for client certificates?
    pub authorities: bool,
}

/// Kinds and resources, spelled out.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// All kinds.
    pub kinds: Vec<Kind>,
    /// Resources with rules of their own.
    pub resources: Vec<Resource>,
}

impl PolicyTables {
    /// Reads a text.
    ///
    /// # Errors
    /// [`ConfigError`] with line and what is allowed; a text over [`MAX_POLICY`]; keys as files, which only pairgate.toml may name.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_POLICY {
            return Err(ConfigError(format!("the policy is longer than {MAX_POLICY} bytes")));
        }
        let tables: Self =
            toml::from_str(text).map_err(|error| ConfigError(error.to_string().trim_end().to_owned()))?;
        if let Some((id, _)) = tables.resources.iter().find(|(_, resource)| resource.keys.is_some()) {
            return Err(ConfigError(format!(
                "resources.'{id}': keys names files of the broker's machine; here give the keys themselves, as jwks"
            )));
        }
        let scopes = tables.kinds.values().map(|kind| kind.scopes.as_ref());
        let scopes = scopes.chain(tables.resources.values().map(|resource| resource.scopes.as_ref()));
        let longest = scopes.map(|scopes| scopes.map_or(0, BTreeMap::len)).max().unwrap_or(0);
        if tables.kinds.len().max(tables.resources.len()).max(longest) > MAX_ENTRIES {
            return Err(ConfigError(format!(
                "a policy has at most {MAX_ENTRIES} kinds and {MAX_ENTRIES} resources, each with at most {MAX_ENTRIES} scopes"
            )));
        }
        Ok(tables)
    }

    /// The text: the same for the same policy, with a line per setting.
    ///
    /// # Errors
    /// If a number is larger than TOML knows.
    pub fn to_text(&self) -> Result<String, ConfigError> {
        let failed = |error: toml::ser::Error| ConfigError(error.to_string());
        toml::to_string_pretty(&toml::Table::try_from(self).map_err(failed)?).map_err(failed)
    }

    /// What this text says of kinds and resources and the other does not say, or says otherwise.
    ///
    /// # Errors
    /// As [`PolicyTables::to_text`].
    pub fn beyond(&self, base: &Self) -> Result<Self, ConfigError> {
        fn less<T: Clone + PartialEq + Serialize + serde::de::DeserializeOwned>(
            all: &BTreeMap<String, T>,
            base: &BTreeMap<String, T>,
        ) -> Result<BTreeMap<String, T>, ConfigError> {
            let failed = |error: String| ConfigError(error);
            let mut left = BTreeMap::new();
            for (id, patch) in all {
                let Some(below) = base.get(id) else {
                    left.insert(id.clone(), patch.clone());
                    continue;
                };
                let below = toml::Table::try_from(below).map_err(|error| failed(error.to_string()))?;
                let mut table = toml::Table::try_from(patch).map_err(|error| failed(error.to_string()))?;
                table.retain(|name, value| below.get(name) != Some(value));
                if !table.is_empty() {
                    left.insert(
                        id.clone(),
                        table.try_into().map_err(|error: toml::de::Error| failed(error.to_string()))?,
                    );
                }
            }
            Ok(left)
        }
        Ok(Self {
            kinds: less(&self.kinds, &base.kinds)?,
            resources: less(&self.resources, &base.resources)?,
            ..Self::default()
        })
    }

    /// The names of what this text sets of one entry: `("kinds", "printer")`.
    pub fn fields(&self, section: &str, id: &str) -> Vec<String> {
        let table = match section {
            "kinds" => self.kinds.get(id).map(toml::Table::try_from),
            _ => self.resources.get(id).map(toml::Table::try_from),
        };
        table.and_then(Result::ok).map(|table| table.keys().cloned().collect()).unwrap_or_default()
    }
}

impl SitePatch {
    /// All of a site.
    pub fn of(site: &Site) -> Self {
        Self {
            name: Some(site.name.clone()),
            networks: Some(site.networks.clone()),
            two_persons: Some(site.two_persons),
            quiet_hours: Some(site.quiet_hours.clone()),
        }
    }

    /// What differs of a site from what it `was`; of a new one, all.
    pub fn beyond(was: Option<&Site>, site: &Site) -> Self {
        let all = Self::of(site);
        let Some(was) = was else { return all };
        Self {
            name: all.name.filter(|name| *name != was.name),
            networks: all.networks.filter(|networks| *networks != was.networks),
            two_persons: all.two_persons.filter(|two_persons| *two_persons != was.two_persons),
            quiet_hours: all.quiet_hours.filter(|hours| *hours != was.quiet_hours),
        }
    }

    /// The site that comes of it.
    pub fn over(self, below: Site) -> Site {
        Site {
            name: self.name.unwrap_or(below.name),
            networks: self.networks.unwrap_or(below.networks),
            two_persons: self.two_persons.unwrap_or(below.two_persons),
            quiet_hours: self.quiet_hours.unwrap_or(below.quiet_hours),
            id: below.id,
        }
    }
}

impl ResourcePatch {
    /// Reads the files of `keys` into `jwks`, so that nothing outside is named any more.
    ///
    /// # Errors
    /// [`ConfigError`] with the name of the file.
    pub fn read_keys(&mut self, id: &str) -> Result<(), ConfigError> {
        let Some(paths) = self.keys.take() else { return Ok(()) };
        let mut keys = Vec::new();
        for path in &paths {
            let named = |what: String| ConfigError(format!("resources.'{id}': keys: {}: {what}", path.display()));
            let bytes = std::fs::read(path).map_err(|error| named(error.to_string()))?;
            keys.extend(public_keys(&bytes).map_err(|error| named(error.to_string()))?);
        }
        self.jwks = Some(jwks(&keys));
        Ok(())
    }

    /// All of a resource.
    pub fn of(resource: &Resource) -> Self {
        Self {
            label: Some(resource.label.clone()),
            scopes: Some(resource.scopes.iter().cloned().collect()),
            access_token_lifetime: resource.access_token_lifetime.map(|life| life.as_secs()),
            signing_algorithm: Some(resource.signing_algorithm.as_str().to_owned()),
            jwks: Some(jwks(&resource.keys)),
            keys: None,
        }
    }

    fn over(&self, mut below: Resource) -> Result<Resource, ConfigError> {
        let wrong = |what: String| ConfigError(format!("resources.'{}': {what}", below.id));
        if let Some(name) = &self.signing_algorithm {
            below.signing_algorithm = SigningAlgorithm::parse(name)
                .ok_or_else(|| wrong(format!("signing_algorithm = '{name}' must be ES256 or RS256")))?;
        }
        if let Some(text) = self.jwks.as_deref() {
            below.keys = match text.trim() {
                "" => Vec::new(),
                text => public_keys(text.as_bytes()).map_err(|error| wrong(format!("jwks: {error}")))?,
            };
        }
        below.label = self.label.clone().unwrap_or(below.label);
        below.scopes = self.scopes.clone().map_or(below.scopes, |scopes| scopes.into_iter().collect());
        below.access_token_lifetime =
            self.access_token_lifetime.map(Duration::from_secs).or(below.access_token_lifetime);
        Ok(below)
    }
}

impl KindPatch {
    /// All of a kind.
    pub fn of(kind: &Kind) -> Self {
        Self {
            label: Some(kind.label.clone()),
            prefix: Some(kind.prefix.clone()),
            scopes: Some(kind.scopes.iter().cloned().collect()),
            resources: Some(kind.resources.clone()),
            code_lifetime: Some(kind.code_lifetime.as_secs()),
            access_token_lifetime: Some(kind.access_token_lifetime.as_secs()),
            refresh: Some(kind.refresh.is_some()),
            offline_access: Some(kind.offline_access),
            client_certificate: Some(if kind.certified { ClientCertificate::Pki } else { ClientCertificate::Pinned }),
            refresh_idle: kind.refresh.map(|refresh| refresh.idle.as_secs()),
            refresh_absolute: kind.refresh.map(|refresh| refresh.absolute.as_secs()),
            confirmation_number: Some(kind.confirmation_number),
            site_network: Some(kind.site_network),
            codes_per_hour: Some(kind.codes_per_hour),
            key_assurance: Some(kind.key_assurance),
            key_rotation: Some(kind.key_rotation),
            two_persons: Some(kind.two_persons),
            new_approver: Some(kind.new_approver),
        }
    }

    fn over(&self, mut kind: Kind) -> Kind {
        let seconds = Duration::from_secs;
        kind.label = self.label.clone().unwrap_or(kind.label);
        kind.prefix = self.prefix.clone().unwrap_or(kind.prefix);
        kind.scopes = self.scopes.clone().map_or(kind.scopes, |scopes| scopes.into_iter().collect());
        kind.resources = self.resources.clone().unwrap_or(kind.resources);
        kind.code_lifetime = self.code_lifetime.map_or(kind.code_lifetime, seconds);
        kind.access_token_lifetime = self.access_token_lifetime.map_or(kind.access_token_lifetime, seconds);
        kind.offline_access = self.offline_access.unwrap_or(kind.offline_access);
        kind.certified =
            self.client_certificate.map_or(kind.certified, |wanted| matches!(wanted, ClientCertificate::Pki));
        kind.confirmation_number = self.confirmation_number.unwrap_or(kind.confirmation_number);
        kind.site_network = self.site_network.unwrap_or(kind.site_network);
        kind.codes_per_hour = self.codes_per_hour.unwrap_or(kind.codes_per_hour);
        kind.key_assurance = self.key_assurance.unwrap_or(kind.key_assurance);
        kind.key_rotation = self.key_rotation.unwrap_or(kind.key_rotation);
        kind.two_persons = self.two_persons.unwrap_or(kind.two_persons);
        kind.new_approver = self.new_approver.unwrap_or(kind.new_approver);
        let former = kind.refresh.unwrap_or(RefreshPolicy { idle: seconds(2 * 3600), absolute: seconds(8 * 3600) });
        kind.refresh = (self.refresh.unwrap_or(kind.refresh.is_some())).then(|| RefreshPolicy {
            idle: self.refresh_idle.map_or(former.idle, seconds),
            absolute: self.refresh_absolute.map_or(former.absolute, seconds),
        });
        kind
    }
}

impl Described {
    /// What holds where nobody has said anything.
    pub fn built_in() -> Self {
        Self { kinds: Kind::built_in(), resources: Vec::new() }
    }

    /// With a text over it.
    ///
    /// # Errors
    /// [`ConfigError`], for a new kind without what it needs, and for keys that are none.
    pub fn with(mut self, tables: &PolicyTables) -> Result<Self, ConfigError> {
        for (id, patch) in &tables.kinds {
            match self.kinds.iter_mut().find(|kind| kind.id == *id) {
                Some(kind) => *kind = patch.over(kind.clone()),
                None => self.kinds.push(patch.over(new_kind(id, patch)?)),
            }
        }
        for (id, patch) in &tables.resources {
            match self.resources.iter_mut().find(|resource| resource.id == *id) {
                Some(resource) => *resource = patch.over(resource.clone())?,
                None => self.resources.push(patch.over(Resource::plain(id))?),
            }
        }
        Ok(self)
    }

    /// Checks each, and the rules between them.
    ///
    /// # Errors
    /// [`ConfigError`] with the first problem, and what would do.
    pub fn checked(self, trusts: Trusts) -> Result<Self, ConfigError> {
        let said = |error: crate::model::policy::PolicyError| ConfigError(error.to_string());
        let kinds = self.kinds.into_iter().map(Kind::checked).collect::<Result<Vec<_>, _>>().map_err(said)?;
        let resources =
            self.resources.into_iter().map(Resource::checked).collect::<Result<Vec<_>, _>>().map_err(said)?;
        for kind in &kinds {
            // Without a maker to believe, no device of such a kind could ever be paired.
            if kind.key_assurance == KeyAssurance::Attested && !trusts.makers {
                return Err(ConfigError(format!(
                    "kinds.{}: key_assurance = 'attested' needs attestation_roots, the files with the makers' certificates",
                    kind.id
                )));
            }
            if kind.certified && !trusts.authorities {
                return Err(ConfigError(format!(
                    "kinds.{}: client_certificate = 'pki' needs [tls] client_ca in pairgate.toml",
                    kind.id
                )));
            }
            let described = kind.resources.iter().filter_map(|id| resources.iter().find(|known| known.id == *id));
            if let Some(resource) = described.into_iter().find(|resource| kind.scope(resource).is_empty()) {
                return Err(ConfigError(format!(
                    "kind '{}' may use resource '{}', but none of its scopes is one of that resource's",
                    kind.id, resource.id
                )));
            }
        }
        let mut prefixes: Vec<_> = kinds.iter().map(|kind| kind.prefix.as_str()).collect();
        prefixes.sort_unstable();
        if let Some(twice) = prefixes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError(format!("two kinds share the prefix '{}'; each needs its own", twice[0])));
        }
        Ok(Self { kinds, resources })
    }

    /// All of it as text would say it.
    pub fn tables(&self) -> PolicyTables {
        PolicyTables {
            kinds: self.kinds.iter().map(|kind| (kind.id.clone(), KindPatch::of(kind))).collect(),
            resources: self
                .resources
                .iter()
                .map(|resource| (resource.id.clone(), ResourcePatch::of(resource)))
                .collect(),
            ..PolicyTables::default()
        }
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

/// Public keys from a text: a JWK, a JWK Set, or PEM certificates.
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

/// A JWK Set, a key per line; empty without keys.
fn jwks(keys: &[PublicKey]) -> String {
    let lines: Vec<String> = keys.iter().map(|key| format!("  {}", key.to_json())).collect();
    if lines.is_empty() { String::new() } else { format!("{{\"keys\": [\n{}\n]}}\n", lines.join(",\n")) }
}

/// The keys of a `jwks`, each by the beginning of its thumbprint.
pub(super) fn key_names(text: &str) -> Vec<String> {
    let keys = public_keys(text.as_bytes()).unwrap_or_default();
    keys.iter().map(|key| crate::secret::b64u(&key.jkt()).chars().take(12).collect()).collect()
}
