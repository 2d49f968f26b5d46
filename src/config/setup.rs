//! `setup.toml` in the data directory: where the first run wrote how devices and people reach this broker. What `pairgate.toml` or the environment says
//! stands above it, so whoever keeps those under control is not overruled from a page.

use std::path::{Path, PathBuf};

use toml::{Table, Value};
use url::Url;

use crate::config::{Config, ConfigError};

/// Its name.
const NAME: &str = "setup.toml";
/// What may stand in it.
const KEYS: [&str; 4] = ["public_url", "listen", "tls", "trusted_proxies"];

/// How bytes get here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Only from this machine: to try it out.
    ThisMachine,
    /// TLS by an authority that is made here.
    LocalCa,
    /// TLS by certificate files: PEM.
    Files {
        /// Chain.
        certificate: PathBuf,
        /// Key.
        key: PathBuf,
    },
    /// TLS by an ACME server, whose terms the organisation agrees to.
    Acme {
        /// Address of its directory.
        directory: String,
        /// Who is told of problems; may be empty.
        contact: String,
    },
    /// A proxy on this machine ends TLS.
    Proxy,
}

/// Where devices and people will reach this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `pairgate.example.org`, or an IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How.
    pub way: Way,
}

/// The file, and whether something above it decides already.
#[derive(Clone, Debug, Default)]
pub struct AddressFile {
    data: PathBuf,
    is_overruled: bool,
}

impl AddressFile {
    /// In this data directory. `is_overruled`: the configuration sets an address itself.
    pub(super) fn new(data: &Path, is_overruled: bool) -> Self {
        Self { data: data.to_owned(), is_overruled }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Does the configuration set an address itself?
    pub const fn is_overruled(&self) -> bool {
        self.is_overruled
    }

    /// Was the question answered, here or there?
    pub fn is_decided(&self) -> bool {
        self.is_overruled || self.data.join(NAME).exists()
    }

    /// What would be written for this choice, if a configuration with it is one. Whether its certificates are any good, the caller must look before it writes.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration decides already, or this would be none.
    pub fn checked(&self, address: &Address) -> Result<CheckedAddress, ConfigError> {
        if self.is_overruled {
            return Err(ConfigError("pairgate.toml or the environment sets the address; change it there".into()));
        }
        let table = table(address)?;
        let text = format!("# Written by the first-run pages. pairgate.toml stands above it.\n{table}");
        let public_url = Config::from_parts(&text, [])?.public_url;
        Ok(CheckedAddress { text, public_url })
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`ConfigError`]: the file can't be written.
    pub fn write(&self, checked: &CheckedAddress) -> Result<(), ConfigError> {
        let path = self.data.join(NAME);
        // Whole or not at all: a start that finds half of it would serve on another address than anybody chose.
        let draft = path.with_extension("new");
        std::fs::write(&draft, &checked.text)
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(|error| ConfigError(format!("{}: {error}", path.display())))
    }
}

/// A choice that a configuration can be made of.
#[derive(Debug)]
pub struct CheckedAddress {
    text: String,
    /// The new public address; none: only this machine.
    pub public_url: Option<Url>,
}

/// What the file in this data directory says; empty without one.
pub(super) fn read(data: &Path) -> Result<Table, ConfigError> {
    let path = data.join(NAME);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Table::new()),
        read => read.map_err(|error| ConfigError(format!("{}: {error}", path.display())))?,
    };
    let table: Table = toml::from_str(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
    match table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        Some(key) => Err(ConfigError(format!("{}: {key} can't be set here; use pairgate.toml", path.display()))),
        None => Ok(table),
    }
}

/// Does a configuration set an address itself?
pub(super) fn sets_address(table: &Table) -> bool {
    KEYS.iter().any(|key| table.contains_key(*key))
}

fn table(address: &Address) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    let (host, port) = (address.host.trim().to_ascii_lowercase(), address.port);
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    if address.way == Way::ThisMachine {
        return Ok(table);
    }
    if host.is_empty() || !is_plain {
        return Err(ConfigError(
            "the host is a name like pairgate.example.org, without https:// and without a path".into(),
        ));
    }
    let url = if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
    let listen = if address.way == Way::Proxy { "127.0.0.1:8628".to_owned() } else { format!("0.0.0.0:{port}") };
    table.insert("public_url".into(), url.into());
    table.insert("listen".into(), listen.into());
    let mut tls = Table::new();
    match &address.way {
        Way::ThisMachine => {}
        Way::Proxy => {
            table.insert("trusted_proxies".into(), Value::Array(vec!["127.0.0.1".into()]));
        }
        Way::LocalCa => {
            tls.insert("local_ca".into(), true.into());
        }
        Way::Files { certificate, key } => {
            tls.insert("certificate".into(), certificate.display().to_string().into());
            tls.insert("key".into(), key.display().to_string().into());
        }
        Way::Acme { directory, contact } => {
            let mut acme = Table::new();
            acme.insert("directory".into(), directory.trim().into());
            acme.insert("terms_agreed".into(), true.into());
            if !contact.trim().is_empty() {
                let contact = contact.trim().trim_start_matches("mailto:");
                acme.insert("contact".into(), format!("mailto:{contact}").into());
            }
            tls.insert("acme".into(), acme.into());
        }
    }
    if !tls.is_empty() {
        table.insert("tls".into(), tls.into());
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, way: Way) -> Address {
        Address { host: host.into(), port: 443, way }
    }

    fn choose(file: &AddressFile, address: &Address) -> Result<Option<Url>, ConfigError> {
        let checked = file.checked(address)?;
        file.write(&checked)?;
        Ok(checked.public_url)
    }

    #[test]
    fn every_way_is_written_and_read_back_and_the_configuration_stands_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let pem = folder.path().join("a.pem");
        std::fs::write(&pem, "x").unwrap();
        let files = Way::Files { certificate: pem.clone(), key: pem };
        let acme = Way::Acme { directory: "https://acme.example/dir".into(), contact: "it@example.org".into() };
        let file = AddressFile::new(folder.path(), false);
        assert!(!file.is_decided());
        for way in [Way::LocalCa, files, acme, Way::Proxy] {
            let url = choose(&file, &at("Pairgate.example.org", way.clone())).unwrap().unwrap();
            assert_eq!(url.as_str(), "https://pairgate.example.org/", "{way:?}");
            let config = Config::from_layers(read(folder.path()).unwrap(), "", []).unwrap();
            assert_eq!(config.public_url, Some(url), "{way:?}");
            assert_eq!(config.tls.is_none(), way == Way::Proxy, "{way:?}");
        }
        assert!(file.is_decided());
        let above = "public_url = 'https://other.example'";
        let config = Config::from_layers(read(folder.path()).unwrap(), above, []).unwrap();
        assert_eq!(config.public_url.unwrap().host_str(), Some("other.example"));
        assert!(choose(&AddressFile::new(folder.path(), true), &at("x.example", Way::LocalCa)).is_err());
        assert_eq!(choose(&file, &at("", Way::ThisMachine)).unwrap(), None);
    }

    #[test]
    fn what_is_no_configuration_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = AddressFile::new(folder.path(), false);
        let acme = |directory: &str| Way::Acme { directory: directory.into(), contact: String::new() };
        for (host, way) in [
            ("https://x.example/path", Way::LocalCa),
            ("", Way::LocalCa),
            ("x.example\nlog = 'trace'", Way::LocalCa),
            ("10.1.2.3", acme("https://acme.example")),
            ("x.example", acme("http://acme.example")),
        ] {
            assert!(choose(&file, &at(host, way.clone())).is_err(), "{host} {way:?}");
            assert!(!file.is_decided(), "{host} {way:?}");
        }
        std::fs::write(folder.path().join(NAME), "log = 'trace'").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("log"));
    }
}
