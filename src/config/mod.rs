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

use crate::model::kind::Kind;
use crate::model::resource::Resource;
use crate::oauth::roots::Roots;

mod api;
pub mod difference;
pub mod mqtt;
pub mod policy;
mod remote;
pub mod setup;
mod sso;
mod transport;

pub use api::Api;
use api::{ApiTable, api};
pub use mqtt::Mqtt;
use mqtt::{MqttTable, mqtt};
use policy::{Described, KindPatch, PolicyTables, ResourcePatch, Trusts};
pub use remote::Remote;
pub use setup::AddressFile;
pub use sso::{GroupRole, Hidden, Sso, is_loopback};
use sso::{SsoTable, sso};
use toml::Table;
pub use transport::is_wide;
pub use transport::{Acme, ClientCertificates, Tls};
use transport::{TlsTable, address, client_certificates, is_origin, tls};

/// Where the file is looked for when none is named.
pub const DEFAULT_FILE: &str = "pairgate.toml";
/// Every setting with its default, commented; `pairgate config example` prints it.
pub const EXAMPLE: &str = include_str!("example.toml");

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
    /// The administration API.
    pub api: Api,
    /// The issuer: the address that devices and people use. `None`: the address that was bound.
    pub public_url: Option<Url>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Master key from the environment, instead of the file in the data directory.
    pub master_key: Option<String>,
    /// Log filter, `info` or `pairgate=debug`.
    pub log: String,
    /// Kinds of devices with their policy, as far as the file says.
    pub kinds: Vec<Kind>,
    /// Resources with settings of their own, as far as the file says.
    pub resources: Vec<Resource>,
    /// What the file says of kinds and resources: it holds, whatever the policy in the database says.
    pub policy: PolicyTables,
    /// PEM files with the certificates of makers who are believed that a key is kept in hardware.
    pub attestation_roots: Vec<PathBuf>,
    /// How old a signing key gets before it is rotated.
    pub signing_key_lifetime: Duration,
    /// Where the first run may write an address.
    pub address_file: AddressFile,
    /// The organisation's OpenID provider.
    pub sso: Option<Sso>,
    /// Devices over MQTT.
    pub mqtt: Option<Mqtt>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8628)),
            tls: None,
            client: ClientCertificates::default(),
            api: Api::default(),
            public_url: None,
            trusted_proxies: Vec::new(),
            master_key: None,
            log: "info".into(),
            kinds: Kind::built_in(),
            resources: Vec::new(),
            policy: PolicyTables::default(),
            attestation_roots: Vec::new(),
            signing_key_lifetime: days(90),
            address_file: AddressFile::default(),
            sso: None,
            mqtt: None,
        }
    }
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
    signing_key_lifetime: Option<u64>,
    sso: Option<SsoTable>,
    mqtt: Option<MqttTable>,
    #[serde(default)]
    tls: TlsTable,
    #[serde(default)]
    api: ApiTable,
    #[serde(default)]
    attestation_roots: Vec<PathBuf>,
    #[serde(default)]
    kinds: BTreeMap<String, KindPatch>,
    #[serde(default)]
    resources: BTreeMap<String, ResourcePatch>,
}

impl Config {
    /// Reads what the first run wrote, over it the file (`named`, or the default one if it is there), over that the environment. `data`: the data
    /// directory, if the command line names it.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and what is allowed.
    pub fn load(named: Option<&Path>, data: Option<&Path>) -> Result<Self, ConfigError> {
        #[allow(clippy::disallowed_methods)] // the one place
        let named = named.map(Path::to_owned).or_else(|| std::env::var("PAIRGATE_CONFIG").ok().map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => String::new(),
            Err(error) => return Err(ConfigError(format!("{}: {error}", path.display()))),
        };
        let named_file = |error: ConfigError| ConfigError(format!("{}: {error}", path.display()));
        let environment: Vec<(String, String)> = std::env::vars().collect();
        // Alone first: so that an error names a line of that file, and for the data directory.
        let alone: Table = toml::from_str(&text).map_err(|error| named_file(ConfigError(error.to_string())))?;
        let _: File = toml::from_str(&text).map_err(|error| named_file(ConfigError(error.to_string())))?;
        let variable =
            |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let written = alone.get("data").and_then(toml::Value::as_str);
        let data = data.map(Path::to_owned).or_else(|| variable("PAIRGATE_DATA").or(written).map(PathBuf::from));
        let data = data.unwrap_or_else(|| Self::default().data);
        let sets_address = setup::sets_address(&alone)
            || ["PAIRGATE_LISTEN", "PAIRGATE_PUBLIC_URL", "PAIRGATE_TLS_CERTIFICATE"]
                .iter()
                .any(|name| variable(name).is_some());
        let mut config = Self::from_layers(setup::read(&data)?, &text, environment).map_err(named_file)?;
        config.address_file = AddressFile::new(&data, sets_address);
        config.data = data;
        Ok(config)
    }

    /// From what the first run wrote, the text of a file over it, and environment variables over that.
    fn from_layers(
        mut below: Table,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        if below.is_empty() {
            return Self::from_parts(text, environment);
        }
        let above: Table = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        below.extend(above);
        Self::from_parts(&below.to_string(), environment)
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
                "PAIRGATE_SSO_CLIENT_SECRET" => match &mut file.sso {
                    Some(table) => table.set_secret(value),
                    None => return Err(ConfigError("PAIRGATE_SSO_CLIENT_SECRET needs a section [sso]".into())),
                },
                "PAIRGATE_MASTER_KEY" => config.master_key = Some(value),
                // What says where the configuration, or another broker, is.
                "PAIRGATE_CONFIG" | remote::SERVER | remote::TOKEN => {}
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
        config.api = api(file.api)?;
        if let Some(lifetime) = file.signing_key_lifetime {
            if !(1..=730).contains(&lifetime) {
                return Err(ConfigError(format!("signing_key_lifetime = {lifetime} must be 1 to 730 days")));
            }
            config.signing_key_lifetime = days(lifetime);
        }
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
        config.sso = file.sso.map(sso).transpose()?;
        config.mqtt = file.mqtt.map(mqtt).transpose()?;
        for (id, resource) in &mut file.resources {
            resource.read_keys(id)?;
        }
        config.policy = PolicyTables { kinds: file.kinds, resources: file.resources, ..PolicyTables::default() };
        config.checked()
    }

    /// The same with another address to listen on.
    ///
    /// # Errors
    /// If that may not be served as configured.
    pub fn with_listen(mut self, listen: Option<SocketAddr>) -> Result<Self, ConfigError> {
        self.listen = listen.unwrap_or(self.listen);
        self.check_transport()?;
        self.check_api()?;
        self.check_mqtt()?;
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

    /// Rules between settings.
    fn checked(mut self) -> Result<Self, ConfigError> {
        self.check_transport()?;
        self.check_api()?;
        self.check_mqtt()?;
        let trusts =
            Trusts { makers: !self.attestation_roots.is_empty(), authorities: !self.client.authorities.is_empty() };
        let described = Described::built_in().with(&self.policy)?.checked(trusts)?;
        (self.kinds, self.resources) = (described.kinds, described.resources);
        Ok(self)
    }
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// The issuer: https, or http on loopback; origin only, so that `htu`, cookies and metadata have one base.
fn public_url(text: &str) -> Result<Url, ConfigError> {
    let wrong = |what: &str| ConfigError(format!("public_url = '{text}' {what}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if !is_origin(&url) {
        return Err(wrong("must be scheme, host and port only"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
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
        assert_eq!(config.signing_key_lifetime, days(90));
        assert_eq!(load("signing_key_lifetime = 730").unwrap().signing_key_lifetime, days(730));
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
            ("client_cert_header = true\ntrusted_proxies = ['0.0.0.0/0']", "could be any device"),
            ("client_cert_header = true\ntrusted_proxies = ['127.0.0.1', '10.0.0.0/8']", "could be any device"),
            ("client_cert_header = true\ntrusted_proxies = ['fd00::/8']", "could be any device"),
            ("[tls]\nlocal_ca = true\nmtls_url = 'https://m.example/path'", "host and port only"),
            ("[tls]\nlocal_ca = true\nmtls_url = 'https://m.example?x'", "host and port only"),
            ("[tls]\nlocal_ca = true\nmtls_url = 'https://me@m.example'", "host and port only"),
            (
                "public_url = 'https://a.example'\n[tls]\nlocal_ca = true\nmtls_url = 'https://a.example'",
                "another host name",
            ),
            ("[tls.acme]\ndirectory = 'https://acme.example'", "terms_agreed"),
            ("[tls.acme]\ndirectory = 'http://acme.example'\nterms_agreed = true", "https address"),
            ("[tls.acme]\ndirectory = 'https://acme.example'\nterms_agreed = true", "host name"),
            (
                "public_url = 'https://10.1.2.3'\n[tls.acme]\ndirectory = 'https://acme.example'\nterms_agreed = true",
                "host name",
            ),
            ("[api]\nlisten = '0.0.0.0:8630'", "plain HTTP"),
            ("[api]\nlisten = '127.0.0.1:8630'\non_main = true", "one of"),
            ("[api]\nurl = 'https://api.example'", "needs listen"),
            ("[api]\nlisten = '127.0.0.1:8630'\nurl = 'https://api.example/v1'", "host and port only"),
            ("public_url = 'https://a.example'\n[tls]\nlocal_ca = true\n[api]\nlisten = '0.0.0.0:8630'", "needs url"),
            ("[api]\ntoken = 'x'", "unknown field"),
            ("[kinds.printer]\nclient_certificate = 'pki'", "client_ca"),
            ("listen = 'here'", "127.0.0.1:8628"),
            ("public_url = 'http://pairgate.example'", "https"),
            ("public_url = 'https://pairgate.example/path'", "host and port only"),
            ("trusted_proxies = ['10.0.0.0/33']", "no network"),
            ("signing_key_lifetime = 0", "1 to 730 days"),
            ("signing_key_lifetime = 731", "1 to 730 days"),
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
