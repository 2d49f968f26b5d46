//! `[mqtt]`: our own endpoint, the organisation's broker, or both; and the questions that such a broker asks.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use url::{Host, Url};

use crate::config::transport::{address, is_origin};
use crate::config::{Config, ConfigError, Hidden};

/// Checked `[mqtt]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// What all topics begin with.
    pub prefix: String,
    /// Our own endpoint.
    pub listen: Option<SocketAddr>,
    /// The organisation's broker.
    pub broker: Option<OutsideBroker>,
    /// File with the secret that brokers show when they ask who may connect; without one they are not answered.
    pub hook_secret_file: Option<PathBuf>,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self { prefix: "pairgate".into(), listen: None, broker: None, hook_secret_file: None }
    }
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MqttVersion {
    /// MQTT 5.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V3,
}

/// How to reach the organisation's broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideBroker {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// By TLS? Without it only on this machine.
    pub is_tls: bool,
    /// PEM file with its authority, if that is a private one.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// User name.
    pub user_name: Option<String>,
    /// File with the password: its first line.
    pub password_file: Option<PathBuf>,
    /// Client id: the same on every node, of which one at a time is connected.
    pub client_id: String,
    /// Protocol.
    pub version: MqttVersion,
    /// EMQX's own API, by which connections are ended.
    pub emqx: Option<Emqx>,
}

impl OutsideBroker {
    /// A broker to which nothing is shown.
    pub fn at(host: String, port: u16, is_tls: bool) -> Self {
        Self {
            host,
            port,
            is_tls,
            ca: None,
            certificate: None,
            user_name: None,
            password_file: None,
            client_id: "pairgate".into(),
            version: MqttVersion::default(),
            emqx: None,
        }
    }
}

/// EMQX's REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emqx {
    /// Scheme, host and port.
    pub api: Url,
    /// Its API key …
    pub key: String,
    /// … and the file with the key's secret.
    pub secret_file: PathBuf,
    /// PEM file with the authority of its certificate, if that is a private one.
    pub ca: Option<PathBuf>,
}

/// `[mqtt]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MqttTable {
    prefix: Option<String>,
    listen: Option<String>,
    url: Option<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    user_name: Option<String>,
    password_file: Option<PathBuf>,
    client_id: Option<String>,
    #[serde(default)]
    version: MqttVersion,
    hook_secret_file: Option<PathBuf>,
    emqx: Option<EmqxTable>,
}

/// `[mqtt.emqx]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmqxTable {
    api: String,
    key: String,
    secret_file: PathBuf,
    ca: Option<PathBuf>,
}

pub(super) fn mqtt(table: MqttTable) -> Result<Mqtt, ConfigError> {
    let defaults = Mqtt::default();
    let prefix = table.prefix.clone().unwrap_or(defaults.prefix);
    if !is_prefix(&prefix) {
        return Err(ConfigError(format!(
            "mqtt.prefix = '{prefix}' must have 1 to 64 characters out of a-z, A-Z, 0-9, '.', '-' and '_', with single slashes between"
        )));
    }
    let listen = table.listen.as_deref().map(|text| address("mqtt.listen", text)).transpose()?;
    let hook_secret_file = table.hook_secret_file.clone();
    let broker = match &table.url {
        Some(url) => Some(outside(url, &table)?),
        None => None,
    };
    let names = ["ca", "certificate", "key", "user_name", "password_file", "client_id", "emqx"];
    let is_set = [
        table.ca.is_some(),
        table.certificate.is_some(),
        table.key.is_some(),
        table.user_name.is_some(),
        table.password_file.is_some(),
        table.client_id.is_some(),
        table.emqx.is_some(),
    ];
    if broker.is_none()
        && let Some((name, _)) = names.iter().zip(is_set).find(|(_, is_set)| *is_set)
    {
        return Err(ConfigError(format!("mqtt.{name} needs mqtt.url, the address of the broker")));
    }
    if listen.is_none() && broker.is_none() && hook_secret_file.is_none() {
        return Err(ConfigError("[mqtt] needs listen (our own endpoint), url (your broker), or both".into()));
    }
    Ok(Mqtt { prefix, listen, broker, hook_secret_file })
}

fn is_prefix(prefix: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    prefix.len() <= 64 && prefix.split('/').all(|level| !level.is_empty() && level.bytes().all(is_plain))
}

/// Where a broker is: host, port, and whether by TLS.
///
/// # Errors
/// [`ConfigError`] if it is no such address, or would be in clear from another machine.
pub fn place(text: &str) -> Result<(String, u16, bool), ConfigError> {
    let refuse = |what: &str| Err(ConfigError(format!("mqtt.url = '{text}' {what}")));
    let Ok(url) = Url::parse(text) else { return refuse("is no URL") };
    let is_plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !is_plain || !url.username().is_empty() || url.password().is_some() {
        return refuse("must be scheme, host and port only; user_name and password_file are settings of their own");
    }
    let (is_tls, default_port) = match url.scheme() {
        "mqtts" => (true, 8883),
        "mqtt" => (false, 1883),
        _ => return refuse("must begin with mqtts://"),
    };
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return refuse("names no host") };
    let host = host.trim_matches(['[', ']']).to_owned();
    if !is_tls && !is_this_machine(&host) {
        return refuse("would send passwords and numbers in clear; use mqtts:// (mqtt:// only on this machine)");
    }
    Ok((host, url.port().unwrap_or(default_port), is_tls))
}

fn outside(text: &str, table: &MqttTable) -> Result<OutsideBroker, ConfigError> {
    let (host, port, is_tls) = place(text)?;
    let certificate = match (&table.certificate, &table.key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(ConfigError("mqtt.certificate and mqtt.key belong together".into())),
    };
    if table.user_name.is_some() != table.password_file.is_some() {
        return Err(ConfigError("mqtt.user_name and mqtt.password_file belong together".into()));
    }
    if certificate.is_none() && table.user_name.is_none() && is_tls {
        return Err(ConfigError(
            "mqtt.url needs certificate and key, or user_name and password_file: a broker that takes anybody protects nobody".into(),
        ));
    }
    let client_id = table.client_id.clone().unwrap_or_else(|| "pairgate".into());
    let is_name = |id: &str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !is_name(&client_id) {
        return Err(ConfigError(format!(
            "mqtt.client_id = '{client_id}' must have 1 to 64 characters out of a-z, A-Z, 0-9, '-' and '_'"
        )));
    }
    Ok(OutsideBroker {
        host,
        port,
        is_tls,
        ca: table.ca.clone(),
        certificate,
        user_name: table.user_name.clone(),
        password_file: table.password_file.clone(),
        client_id,
        version: table.version,
        emqx: table.emqx.as_ref().map(emqx).transpose()?,
    })
}

fn emqx(table: &EmqxTable) -> Result<Emqx, ConfigError> {
    let wrong = || {
        ConfigError(format!(
            "mqtt.emqx.api = '{}' must be https, host and port only (http only on this machine)",
            table.api
        ))
    };
    let api = Url::parse(&table.api).map_err(|_| wrong())?;
    let is_safe = api.scheme() == "https" || (api.scheme() == "http" && api.host_str().is_some_and(is_this_machine));
    if !is_safe || !is_origin(&api) {
        return Err(wrong());
    }
    Ok(Emqx { api, key: table.key.clone(), secret_file: table.secret_file.clone(), ca: table.ca.clone() })
}

fn is_this_machine(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Domain(name)) => name == "localhost",
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Err(_) => host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

impl Config {
    /// Passwords and events never travel in clear.
    pub(super) fn check_mqtt(&self) -> Result<(), ConfigError> {
        let Some(listen) = self.mqtt.as_ref().and_then(|mqtt| mqtt.listen) else { return Ok(()) };
        if self.tls.is_none() && !listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "mqtt.listen = '{listen}' is reachable from other machines, and without [tls] that would be MQTT in clear. Set [tls], or listen on 127.0.0.1"
            )));
        }
        Ok(())
    }
}

/// Reads the first line of a file with a secret.
///
/// # Errors
/// [`ConfigError`] with the file's name.
pub fn read_secret(name: &str, path: &std::path::Path) -> Result<Hidden, ConfigError> {
    let wrong = |why: String| ConfigError(format!("{name}: {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => Ok(Hidden(line.to_owned())),
        None => Err(wrong("is empty".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Mqtt, String> {
        let loaded = Config::from_parts(text, []).map_err(|error| error.to_string())?;
        Ok(loaded.mqtt.unwrap_or_default())
    }

    #[test]
    fn a_broker_by_tls_and_an_endpoint_on_this_machine_are_good() {
        let mqtt = load("[mqtt]\nlisten = '127.0.0.1:1883'\nprefix = 'acme/pairgate'").unwrap();
        assert_eq!(mqtt.prefix, "acme/pairgate");
        let mqtt = load("[mqtt]\nurl = 'mqtts://broker.example'\nuser_name = 'p'\npassword_file = 'x'").unwrap();
        let broker = mqtt.broker.unwrap();
        assert_eq!((broker.host.as_str(), broker.port, broker.version), ("broker.example", 8883, MqttVersion::V5));
        let mqtt = load("[mqtt]\nurl = 'mqtt://[::1]:1'\nversion = '3.1.1'").unwrap();
        assert_eq!(mqtt.broker.map(|broker| (broker.host, broker.version)), Some(("::1".into(), MqttVersion::V3)));
    }

    #[test]
    fn what_travels_in_clear_or_takes_anybody_is_refused_a_059() {
        for (text, advice) in [
            ("listen = '0.0.0.0:1883'", "in clear"),
            ("url = 'mqtt://broker.example'", "in clear"),
            ("url = 'mqtts://broker.example'", "takes anybody"),
            ("url = 'http://broker.example'", "mqtts://"),
            ("url = 'mqtts://user:secret@broker.example'", "settings of their own"),
            ("url = 'mqtts://broker.example/path'", "host and port only"),
            ("url = 'mqtts://b'\ncertificate = 'x'", "belong together"),
            ("url = 'mqtts://b'\nuser_name = 'x'", "belong together"),
            ("prefix = 'x'", "needs listen"),
            ("ca = 'x'\nlisten = '127.0.0.1:1'", "needs mqtt.url"),
            ("listen = '127.0.0.1:1'\nprefix = '#'", "characters"),
            ("listen = '127.0.0.1:1'\nprefix = 'a//b'", "characters"),
            ("listen = '127.0.0.1:1'\nprefix = '$SYS'", "characters"),
            ("listen = '127.0.0.1:1'\nprefix = '/a'", "characters"),
            ("url = 'mqtt://localhost'\nclient_id = '+'", "characters"),
            ("url = 'mqtt://localhost'\nversion = '4'", "unknown variant"),
            ("url = 'mqtt://localhost'\n[mqtt.emqx]\napi = 'http://emqx:18083'\nkey = 'k'\nsecret_file = 's'", "https"),
            ("anonymous = true", "unknown field"),
        ] {
            let error = load(&format!("[mqtt]\n{text}")).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
