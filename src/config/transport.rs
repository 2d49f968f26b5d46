//! `listen`, `[tls]` and what belongs to them: how bytes travel. Codes and tokens never do in clear.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use crate::config::{Config, ConfigError};

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

/// `[tls]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
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

impl Config {
    /// Codes and tokens never travel in clear: plain HTTP only where nobody else can listen.
    pub(super) fn check_transport(&self) -> Result<(), ConfigError> {
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
        if matches!(self.tls, Some(Tls::Acme(_))) {
            let is_name = |url: &Url| url.domain().is_some();
            let has_mtls_name = client.url.as_ref().map_or(client.listen.is_none(), is_name);
            if !self.public_url.as_ref().is_some_and(is_name) || !has_mtls_name {
                return refuse(
                    "[tls.acme] needs public_url, and for mtls_listen mtls_url, with a host name: addresses are certified by [tls] local_ca = true"
                        .into(),
                );
            }
        }
        if client.from_header && self.trusted_proxies.is_empty() {
            return refuse("client_cert_header needs trusted_proxies: from anybody else the header is a lie".into());
        }
        // Certificates are no secret: whoever may say which one he was shown is any device that he likes.
        if let Some(network) = self.trusted_proxies.iter().find(|network| client.from_header && is_wide(network)) {
            return refuse(format!(
                "client_cert_header with trusted_proxies = '{network}': everybody in it could be any device. Name the proxy's own address"
            ));
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
        Ok(())
    }
}

/// Is this network more than the few machines that proxies are?
pub fn is_wide(network: &IpNet) -> bool {
    network.prefix_len() < if network.addr().is_ipv4() { 16 } else { 48 }
}

/// An address without path, query and user: what `Host` and `htu` are compared with.
pub(super) fn is_origin(url: &Url) -> bool {
    url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

pub(super) fn address(name: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| ConfigError(format!("{name} = '{text}' must be an address and a port, 127.0.0.1:8628")))
}

pub(super) fn client_certificates(table: &mut TlsTable, from_header: bool) -> Result<ClientCertificates, ConfigError> {
    let url = table.mtls_url.take();
    Ok(ClientCertificates {
        listen: table.mtls_listen.take().map(|text| address("tls.mtls_listen", &text)).transpose()?,
        url: url.as_deref().map(mtls_url).transpose()?,
        authorities: std::mem::take(&mut table.client_ca),
        revoked: std::mem::take(&mut table.client_crl),
        from_header,
    })
}

pub(super) fn tls(table: TlsTable) -> Result<Option<Tls>, ConfigError> {
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

fn mtls_url(text: &str) -> Result<Url, ConfigError> {
    let url = https("tls.mtls_url", text)?;
    if is_origin(&url) {
        Ok(url)
    } else {
        Err(ConfigError(format!("tls.mtls_url = '{text}' must be scheme, host and port only")))
    }
}

fn https(name: &str, text: &str) -> Result<Url, ConfigError> {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" && url.host().is_some() => Ok(url),
        _ => Err(ConfigError(format!("{name} = '{text}' must be an https address"))),
    }
}
