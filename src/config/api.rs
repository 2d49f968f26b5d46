//! `[api]`: where the administration API answers. Without the section nowhere: whoever needs none has no door to guard.

use std::net::SocketAddr;

use serde::Deserialize;
use url::Url;

use crate::config::transport::{address, is_origin};
use crate::config::{Config, ConfigError};

/// Where the administration API answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    /// A listener of its own; then nowhere else.
    pub listen: Option<SocketAddr>,
    /// The address by which programs reach that listener, if it is another one: behind a proxy, or by name.
    pub url: Option<Url>,
    /// Beside the pages, on the main listener.
    pub on_main: bool,
}

/// `[api]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiTable {
    listen: Option<String>,
    url: Option<String>,
    #[serde(default)]
    on_main: bool,
}

pub(super) fn api(table: ApiTable) -> Result<Api, ConfigError> {
    let listen = table.listen.map(|text| address("api.listen", &text)).transpose()?;
    let url = table.url.as_deref().map(url).transpose()?;
    Ok(Api { listen, url, on_main: table.on_main })
}

fn url(text: &str) -> Result<Url, ConfigError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && url.host().is_some() && is_origin(&url) => Ok(url),
        _ => Err(ConfigError(format!("api.url = '{text}' must be scheme, host and port only"))),
    }
}

impl Config {
    /// Tokens never travel in clear, and what should answer at one place does not at two.
    pub(super) fn check_api(&self) -> Result<(), ConfigError> {
        let refuse = |what: &str| Err(ConfigError(what.into()));
        match (&self.api.listen, self.api.on_main) {
            (Some(_), true) => {
                refuse("[api] needs one of listen and on_main: with a listener of its own, it answers nowhere else")
            }
            (Some(listen), false) if !listen.ip().is_loopback() && self.tls.is_none() => refuse(
                "[api] listen is reachable from other machines, and without [tls] that would be plain HTTP. Set [tls], or listen on 127.0.0.1 with a proxy \
                 with TLS in front (api.url)",
            ),
            (Some(listen), false) if listen.ip().is_unspecified() && self.api.url.is_none() => {
                refuse("[api] listen on all addresses needs url, the address by which programs reach it")
            }
            (None, _) if self.api.url.is_some() => {
                refuse("[api] url needs listen; on the main listener, public_url is the address")
            }
            _ => Ok(()),
        }
    }
}
