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

use crate::model::kind::{Kind, RefreshPolicy};

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
    /// Address to listen on; loopback.
    pub listen: SocketAddr,
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
    /// How old a signing key gets before it is rotated.
    pub signing_key_lifetime: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8628)),
            public_url: None,
            trusted_proxies: Vec::new(),
            master_key: None,
            log: "info".into(),
            kinds: Kind::built_in(),
            signing_key_lifetime: days(90),
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
    log: Option<String>,
    signing_key_lifetime: Option<u64>,
    #[serde(default)]
    kinds: BTreeMap<String, KindPatch>,
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
    refresh_idle: Option<u64>,
    refresh_absolute: Option<u64>,
    confirmation_number: Option<bool>,
    site_network: Option<bool>,
    codes_per_hour: Option<i64>,
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
            config.listen = listen.parse().map_err(|_| {
                ConfigError(format!("listen = '{listen}' must be an address and a port, 127.0.0.1:8628"))
            })?;
        }
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
        for (id, patch) in file.kinds {
            config.apply_kind(&id, patch)?;
        }
        config.checked()
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
        kind.confirmation_number = patch.confirmation_number.unwrap_or(kind.confirmation_number);
        kind.site_network = patch.site_network.unwrap_or(kind.site_network);
        kind.codes_per_hour = patch.codes_per_hour.unwrap_or(kind.codes_per_hour);
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
        if !self.listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "listen = '{}' is reachable from other machines, and this version speaks plain HTTP. Listen on 127.0.0.1 or [::1] and put a proxy \
                 with TLS in front: set public_url to its https address and trusted_proxies to its network",
                self.listen
            )));
        }
        self.kinds = self
            .kinds
            .into_iter()
            .map(Kind::checked)
            .collect::<Result<_, _>>()
            .map_err(|error| ConfigError(error.to_string()))?;
        let mut prefixes: Vec<_> = self.kinds.iter().map(|kind| kind.prefix.as_str()).collect();
        prefixes.sort_unstable();
        if let Some(twice) = prefixes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError(format!("two kinds share the prefix '{}'; each needs its own", twice[0])));
        }
        Ok(self)
    }
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
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
            ("listen = '0.0.0.0:8628'", "proxy"),
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
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
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
