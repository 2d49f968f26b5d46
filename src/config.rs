//! Configuration: typed, checked before anything starts, and the only reader of the environment.
//!
//! None is needed on loopback. Otherwise `pairgate.toml`, then `PAIRGATE_…` variables over it. An unknown key or variable is an error: a
//! misspelt security setting must not be a silent default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::model::device::KeyAssurance;
use crate::model::kind::{KeyRotation, Kind, RefreshPolicy};
use crate::model::resource::Resource;
use crate::oauth::certificate::Certificate;
use crate::oauth::jose::JoseError;
use crate::oauth::jwk::PublicKey;
use crate::oauth::roots::Roots;
use crate::oauth::signing_key::SigningAlgorithm;

/// Where the file is looked for when none is named.
pub const DEFAULT_FILE: &str = "pairgate.toml";
/// Every setting with its default, commented; `pairgate config example` prints it.
pub const EXAMPLE: &str = include_str!("config_example.toml");

/// Why configuration was refused; says where, and what would do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data directory: database and master key file.
    pub data: PathBuf,
    /// Address to listen on; loopback, unless TLS is served.
    pub listen: SocketAddr,
    /// TLS in process.
    pub tls: Option<Tls>,
    /// Client certificates.
    pub client: ClientCertificates,
    /// The issuer: the address that devices and people use. `None`: the address that was bound.
    pub public_url: Option<Url>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Master key from the environment, instead of the file in the data directory.
    pub master_key: Option<String>,
    /// Log filter, `info` or `pairgate=debug`.
    pub log: String,
    /// Kinds of devices with their policy.
    pub kinds: Vec<Kind>,
    /// Resources with settings of their own.
    pub resources: Vec<Resource>,
    /// PEM files with the certificates of makers who are believed that a key is kept in hardware.
    pub attestation_roots: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8628)),
            tls: None,
            client: ClientCertificates::default(),
            public_url: None,
            trusted_proxies: Vec::new(),
            master_key: None,
            log: "info".into(),
            kinds: Kind::built_in(),
            resources: Vec::new(),
            attestation_roots: Vec::new(),
        }
    }
}

/// Where the server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Files that somebody else keeps up to date.
    Files {
        /// PEM: the leaf, then its chain.
        certificate: PathBuf,
        /// PEM, PKCS#8 or older forms.
        key: PathBuf,
    },
    /// The authority of `pairgate tls init`.
    LocalCa,
    /// An ACME server.
    Acme(Acme),
}

/// How to get certificates from an ACME server (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// Address of its directory.
    pub directory: Url,
    /// `mailto:` of somebody who should be told of problems.
    pub contact: Option<String>,
    /// PEM of the authority of the ACME server itself, if it is a private one.
    pub root: Option<PathBuf>,
    /// Where the http-01 challenge is answered: port 80 of the public name must lead there.
    pub http_listen: SocketAddr,
}

/// Client certificates (RFC 8705).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Listener where they are asked for.
    pub listen: Option<SocketAddr>,
    /// Its public address; without a listener of its own, the host name that is served by the main one.
    pub url: Option<Url>,
    /// PEM files of authorities.
    pub authorities: Vec<PathBuf>,
    /// PEM files of revocation lists.
    pub revoked: Vec<PathBuf>,
    /// Believe the `Client-Cert` header of trusted proxies (RFC 9440).
    pub from_header: bool,
}

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    listen: Option<String>,
    public_url: Option<String>,
    trusted_proxies: Option<Vec<String>>,
    client_cert_header: Option<bool>,
    log: Option<String>,
    #[serde(default)]
    tls: TlsTable,
    #[serde(default)]
    attestation_roots: Vec<PathBuf>,
    #[serde(default)]
    kinds: BTreeMap<String, KindPatch>,
    #[serde(default)]
    resources: BTreeMap<String, ResourceTable>,
}

/// `[tls]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    local_ca: Option<bool>,
    acme: Option<AcmeTable>,
    mtls_listen: Option<String>,
    mtls_url: Option<String>,
    #[serde(default)]
    client_ca: Vec<PathBuf>,
    #[serde(default)]
    client_crl: Vec<PathBuf>,
}

/// `[tls.acme]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcmeTable {
    directory: String,
    contact: Option<String>,
    #[serde(default)]
    terms_agreed: bool,
    root: Option<PathBuf>,
    http_listen: Option<String>,
}

/// Changes to a built-in kind, or a new kind.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindPatch {
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
struct ResourceTable {
    label: Option<String>,
    #[serde(default)]
    scopes: BTreeMap<String, String>,
    access_token_lifetime: Option<u64>,
    signing_algorithm: Option<String>,
    #[serde(default)]
    keys: Vec<PathBuf>,
}

impl Config {
    /// Reads the file (`named`, or the default one if it is there), then the environment.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and what is allowed.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        #[allow(clippy::disallowed_methods)] // the one place
        let named = named.map(Path::to_owned).or_else(|| std::env::var("PAIRGATE_CONFIG").ok().map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => String::new(),
            Err(error) => return Err(ConfigError(format!("{}: {error}", path.display()))),
        };
        Self::from_parts(&text, std::env::vars()).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
    }

    /// From the text of a file and environment variables.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_parts(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut file: File = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        let mut config = Self::default();
        for (name, value) in environment.into_iter().filter(|(name, _)| name.starts_with("PAIRGATE_")) {
            match name.as_str() {
                "PAIRGATE_DATA" => file.data = Some(PathBuf::from(value)),
                "PAIRGATE_LISTEN" => file.listen = Some(value),
                "PAIRGATE_PUBLIC_URL" => file.public_url = Some(value),
                "PAIRGATE_TRUSTED_PROXIES" => {
                    file.trusted_proxies = Some(value.split(',').map(|part| part.trim().to_owned()).collect())
                }
                "PAIRGATE_LOG" => file.log = Some(value),
                "PAIRGATE_TLS_CERTIFICATE" => file.tls.certificate = Some(PathBuf::from(value)),
                "PAIRGATE_TLS_KEY" => file.tls.key = Some(PathBuf::from(value)),
                "PAIRGATE_MASTER_KEY" => config.master_key = Some(value),
                "PAIRGATE_CONFIG" => {}
                _ => {
                    return Err(ConfigError(format!(
                        "the environment variable {name} is unknown; see `pairgate config example`"
                    )));
                }
            }
        }
        if let Some(data) = file.data {
            config.data = data;
        }
        if let Some(log) = file.log {
            config.log = log;
        }
        if let Some(listen) = file.listen {
            config.listen = address("listen", &listen)?;
        }
        config.client = client_certificates(&mut file.tls, file.client_cert_header.unwrap_or(false))?;
        config.tls = tls(file.tls)?;
        config.public_url = file.public_url.as_deref().map(public_url).transpose()?;
        for network in file.trusted_proxies.unwrap_or_default() {
            let parsed =
                network.parse().or_else(|_| network.parse().map(|address: std::net::IpAddr| IpNet::from(address)));
            config.trusted_proxies.push(
                parsed
                    .map_err(|_| ConfigError(format!("trusted_proxies: '{network}' is no address and no network")))?,
            );
        }
        config.attestation_roots = file.attestation_roots;
        for (id, patch) in file.kinds {
            config.apply_kind(&id, patch)?;
        }
        for (id, table) in file.resources {
            config.resources.push(resource(id, table)?);
        }
        config.checked()
    }

    /// The same with another address to listen on.
    ///
    /// # Errors
    /// If that may not be served as configured.
    pub fn with_listen(mut self, listen: Option<SocketAddr>) -> Result<Self, ConfigError> {
        self.listen = listen.unwrap_or(self.listen);
        self.check_transport()?;
        Ok(self)
    }

    /// Reads the files of `attestation_roots`.
    ///
    /// # Errors
    /// [`ConfigError`] with the name of the file that is not good.
    pub fn load_attestation_roots(&self) -> Result<Roots, ConfigError> {
        let mut roots = Roots::default();
        for path in &self.attestation_roots {
            let wrong = |why: String| ConfigError(format!("attestation_roots: {}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            roots.add_pem(&pem).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(roots)
    }

    fn apply_kind(&mut self, id: &str, patch: KindPatch) -> Result<(), ConfigError> {
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
        let former = kind.refresh.unwrap_or(RefreshPolicy { idle: seconds(2 * 3600), absolute: seconds(8 * 3600) });
        kind.refresh = (patch.refresh.unwrap_or(kind.refresh.is_some())).then(|| RefreshPolicy {
            idle: patch.refresh_idle.map_or(former.idle, seconds),
            absolute: patch.refresh_absolute.map_or(former.absolute, seconds),
        });
        self.kinds.insert(position.unwrap_or(self.kinds.len()), kind);
        Ok(())
    }

    /// Rules between settings.
    fn checked(mut self) -> Result<Self, ConfigError> {
        self.check_transport()?;
        self.kinds = self
            .kinds
            .into_iter()
            .map(Kind::checked)
            .collect::<Result<_, _>>()
            .map_err(|error| ConfigError(error.to_string()))?;
        // Without a maker to believe, no device of such a kind could ever be paired.
        let needs_roots = self.kinds.iter().find(|kind| kind.key_assurance == KeyAssurance::Attested);
        if let Some(kind) = needs_roots.filter(|_| self.attestation_roots.is_empty()) {
            return Err(ConfigError(format!(
                "kinds.{}: key_assurance = 'attested' needs attestation_roots, the files with the makers' certificates",
                kind.id
            )));
        }
        let mut prefixes: Vec<_> = self.kinds.iter().map(|kind| kind.prefix.as_str()).collect();
        prefixes.sort_unstable();
        if let Some(twice) = prefixes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError(format!("two kinds share the prefix '{}'; each needs its own", twice[0])));
        }
        for kind in &self.kinds {
            let described = kind.resources.iter().filter_map(|id| self.resources.iter().find(|known| known.id == *id));
            if let Some(resource) = described.into_iter().find(|resource| kind.scope(resource).is_empty()) {
                return Err(ConfigError(format!(
                    "kind '{}' may use resource '{}', but none of its scopes is one of that resource's",
                    kind.id, resource.id
                )));
            }
        }
        Ok(self)
    }
}

impl Config {
    /// Codes and tokens never travel in clear: plain HTTP only where nobody else can listen.
    fn check_transport(&self) -> Result<(), ConfigError> {
        let refuse = |what: String| Err(ConfigError(what));
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            return refuse(format!(
                "listen = '{}' is reachable from other machines, and without [tls] that would be plain HTTP. One of: set [tls] certificate and key; \
                 or [tls] local_ca = true, after `pairgate tls init`; or [tls.acme]; or listen on 127.0.0.1 and put a proxy with TLS in front \
                 (public_url, trusted_proxies)",
                self.listen
            ));
        }
        let is_https = self.public_url.as_ref().is_none_or(|url| url.scheme() == "https");
        if self.tls.is_some() && (!is_https || (self.public_url.is_none() && !self.listen.ip().is_loopback())) {
            return refuse("with [tls], public_url must be the https address that devices and people use".into());
        }
        let client = &self.client;
        if client.from_header && self.trusted_proxies.is_empty() {
            return refuse("client_cert_header needs trusted_proxies: from anybody else the header is a lie".into());
        }
        if self.tls.is_none() && (client.listen.is_some() || (client.url.is_some() && !client.from_header)) {
            return refuse(
                "mtls_listen and mtls_url need [tls]; behind a proxy with TLS set client_cert_header = true and mtls_url".into(),
            );
        }
        if client.listen.is_some() && client.url.is_none() && !self.listen.ip().is_loopback() {
            return refuse("mtls_listen needs mtls_url, its public https address".into());
        }
        let is_same_host = || {
            let host = |url: &Option<Url>| url.as_ref().and_then(|url| url.host_str().map(str::to_owned));
            host(&client.url).is_some() && host(&client.url) == host(&self.public_url)
        };
        if self.tls.is_some() && client.listen.is_none() && client.url.is_some() && is_same_host() {
            return refuse(
                "mtls_url needs another host name than public_url, or a listener of its own (mtls_listen): browsers must not be asked for certificates"
                    .into(),
            );
        }
        if !client.authorities.is_empty() && client.url.is_none() && client.listen.is_none() {
            return refuse("client_ca needs mtls_listen or mtls_url: nobody is asked for a certificate".into());
        }
        if self.kinds.iter().any(|kind| kind.certified) && client.authorities.is_empty() {
            return refuse("client_certificate = 'pki' needs [tls] client_ca".into());
        }
        Ok(())
    }
}

fn address(name: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| ConfigError(format!("{name} = '{text}' must be an address and a port, 127.0.0.1:8628")))
}

fn client_certificates(table: &mut TlsTable, from_header: bool) -> Result<ClientCertificates, ConfigError> {
    let url = table.mtls_url.take();
    Ok(ClientCertificates {
        listen: table.mtls_listen.take().map(|text| address("tls.mtls_listen", &text)).transpose()?,
        url: url.as_deref().map(|text| https("tls.mtls_url", text)).transpose()?,
        authorities: std::mem::take(&mut table.client_ca),
        revoked: std::mem::take(&mut table.client_crl),
        from_header,
    })
}

fn tls(table: TlsTable) -> Result<Option<Tls>, ConfigError> {
    match (table.certificate, table.key, table.local_ca.unwrap_or(false), table.acme) {
        (None, None, false, None) => Ok(None),
        (Some(certificate), Some(key), false, None) => Ok(Some(Tls::Files { certificate, key })),
        (None, None, true, None) => Ok(Some(Tls::LocalCa)),
        (None, None, false, Some(acme)) => {
            if !acme.terms_agreed {
                return Err(ConfigError(
                    "tls.acme: set terms_agreed = true, if you agree to the terms of that server".into(),
                ));
            }
            Ok(Some(Tls::Acme(Acme {
                directory: https("tls.acme.directory", &acme.directory)?,
                contact: acme.contact,
                root: acme.root,
                http_listen: address("tls.acme.http_listen", acme.http_listen.as_deref().unwrap_or("0.0.0.0:80"))?,
            })))
        }
        _ => Err(ConfigError("[tls] needs one of: certificate with key; local_ca = true; [tls.acme]".into())),
    }
}

fn https(name: &str, text: &str) -> Result<Url, ConfigError> {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" && url.host().is_some() => Ok(url),
        _ => Err(ConfigError(format!("{name} = '{text}' must be an https address"))),
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

fn resource(id: String, table: ResourceTable) -> Result<Resource, ConfigError> {
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

/// The issuer: https, or http on loopback; origin only, so that `htu`, cookies and metadata have one base.
fn public_url(text: &str) -> Result<Url, ConfigError> {
    let wrong = |what: &str| ConfigError(format!("public_url = '{text}' {what}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if url.path() != "/"
        || url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(wrong("must be scheme, host and port only"));
    }
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        _ => Err(wrong("must be https (http only on loopback): codes and tokens must not travel in clear")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        Config::from_parts(text, []).map_err(|error| error.to_string())
    }

    #[test]
    fn no_file_is_a_good_configuration() {
        let config = load("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8628");
        assert_eq!(config.kinds.len(), 3);
    }

    #[test]
    fn the_example_is_the_default_and_uncommented_it_still_loads() {
        assert_eq!(format!("{:?}", load(EXAMPLE).unwrap()), format!("{:?}", Config::default()));
        let settings: String =
            EXAMPLE.lines().filter_map(|line| line.strip_prefix("#: ")).map(|line| format!("{line}\n")).collect();
        let config = load(&settings).unwrap_or_else(|error| panic!("{error}\n{settings}"));
        assert_eq!(config.kinds.len(), 4, "the example adds a kind");
    }

    #[test]
    fn what_is_unknown_weak_or_open_is_refused_with_advice_a_040() {
        for (text, advice) in [
            ("user_code_length = 4", "unknown field"),
            ("device_code_bits = 64", "unknown field"),
            ("listen = '0.0.0.0:8628'", "pairgate tls init"),
            ("listen = '0.0.0.0:8628'\n[tls]\nlocal_ca = true", "public_url"),
            ("public_url = 'http://localhost:1'\n[tls]\nlocal_ca = true", "public_url"),
            ("[tls]\ncertificate = 'a.pem'", "certificate with key"),
            ("[tls]\nlocal_ca = true\ncertificate = 'a.pem'\nkey = 'b.pem'", "needs one of"),
            ("[tls]\nmtls_listen = '127.0.0.1:8629'", "need [tls]"),
            ("client_cert_header = true", "trusted_proxies"),
            (
                "public_url = 'https://a.example'\n[tls]\nlocal_ca = true\nmtls_url = 'https://a.example'",
                "another host name",
            ),
            ("[tls.acme]\ndirectory = 'https://acme.example'", "terms_agreed"),
            ("[tls.acme]\ndirectory = 'http://acme.example'\nterms_agreed = true", "https address"),
            ("[kinds.printer]\nclient_certificate = 'pki'", "client_ca"),
            ("listen = 'here'", "127.0.0.1:8628"),
            ("public_url = 'http://pairgate.example'", "https"),
            ("public_url = 'https://pairgate.example/path'", "host and port only"),
            ("trusted_proxies = ['10.0.0.0/33']", "no network"),
            ("[kinds.printer]\ncode_lifetime = 3600", "60 to 600"),
            ("[kinds.printer]\nprefix = 'TVX'", "share the prefix"),
            ("[kinds.kiosk]\nlabel = 'kiosk'", "needs prefix and scopes"),
            ("[kinds.printer]\nuser_code_letters = 4", "unknown field"),
            ("[kinds.printer]\nkey_assurance = 'hardware'", "`software`, `hardware-claimed`, `attested`"),
            ("[kinds.printer]\nkey_assurance = 'attested'", "needs attestation_roots"),
            ("[kinds.printer]\nkey_rotation = 'never'", "`operator` or `automatic`"),
            ("attestation_roots = 'maker-ca.pem'", "sequence"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    #[test]
    fn a_root_that_is_none_is_named_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("maker-ca.pem"), folder.path().join("key.pem"));
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&good, rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&bad, key.serialize_pem()).unwrap();
        let config = |paths: &[&Path]| Config {
            attestation_roots: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Config::default()
        };
        assert_eq!(config(&[&good, &good]).load_attestation_roots().unwrap().len(), 2);
        assert!(config(&[]).load_attestation_roots().unwrap().is_empty());
        for (path, why) in [(bad.as_path(), "holds no certificate"), (Path::new("no-such.pem"), "No such file")] {
            let error = config(&[&good, path]).load_attestation_roots().unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_environment_overrides_the_file_and_misspelt_variables_are_refused() {
        let with = |name: &str, value: &str| {
            Config::from_parts("listen = '127.0.0.1:1'", [(name.to_owned(), value.to_owned())])
        };
        assert_eq!(with("PAIRGATE_LISTEN", "127.0.0.1:2").unwrap().listen.port(), 2);
        assert_eq!(with("PAIRGATE_TRUSTED_PROXIES", "10.0.0.1, fd00::/8").unwrap().trusted_proxies.len(), 2);
        assert!(with("PAIRGATE_LISTN", "x").unwrap_err().to_string().contains("PAIRGATE_LISTN"));
        assert!(with("HOME", "x").is_ok());
    }
}
