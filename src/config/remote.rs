//! Another machine's broker, for the command line: where it is, and the token that is shown there. From arguments and the environment, never from the file.

use std::path::Path;

use url::Url;

use crate::config::ConfigError;

/// Instead of `--server`.
pub(super) const SERVER: &str = "PAIRGATE_SERVER";
/// Instead of `--token-file`. There is no argument for the token itself: everybody on a machine sees the arguments of its programs.
pub(super) const TOKEN: &str = "PAIRGATE_TOKEN";

/// A broker elsewhere.
#[derive(Clone)]
pub struct Remote {
    /// Its administration API's address, without path.
    pub server: Url,
    /// The token.
    pub token: String,
    /// PEM of its authority, if it is a private one.
    pub ca_pem: Option<String>,
}

impl Remote {
    /// As said on the command line or, where nothing is said there, in the environment; `None`: the broker is on this machine.
    ///
    /// # Errors
    /// If the address is none, is not https and not of this machine, or there is no token.
    pub fn find(
        server: Option<&str>,
        token_file: Option<&Path>,
        ca: Option<&Path>,
    ) -> Result<Option<Self>, ConfigError> {
        #[allow(clippy::disallowed_methods)] // configuration reads the environment
        let said = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(server) = server.map(str::to_owned).or_else(|| said(SERVER)) else {
            return match token_file.is_some() || ca.is_some() {
                true => Err(ConfigError("--token-file and --ca belong to --server URL".into())),
                false => Ok(None),
            };
        };
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
        };
        let token = token_file.map(read).transpose()?.or_else(|| said(TOKEN)).ok_or_else(|| {
            ConfigError(format!(
                "--server needs a token: --token-file FILE, or the variable {TOKEN}. Make one on the broker's machine: pairgate token add NAME --role viewer"
            ))
        })?;
        let ca_pem = ca.map(read).transpose()?;
        Ok(Some(Self { server: server_url(&server)?, token: token.trim().to_owned(), ca_pem }))
    }
}

/// https, or http on this machine: tokens never travel in clear.
fn server_url(text: &str) -> Result<Url, ConfigError> {
    let wrong = |what: &str| ConfigError(format!("--server {text}: {what}"));
    let url = Url::parse(text).map_err(|_| wrong("must be an address such as https://pairgate.example.org"))?;
    if !super::is_origin(&url) {
        return Err(wrong("must be scheme, host and port only"));
    }
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if super::is_loopback(&url) => Ok(url),
        _ => Err(wrong("must be https (http only on this machine): the token must not travel in clear")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_over_https_or_on_this_machine_only() {
        for good in [
            "https://pairgate.example.org",
            "https://10.1.2.3:8630",
            "http://127.0.0.1:8630",
            "http://[::1]:1",
            "http://localhost:8628",
        ] {
            assert!(server_url(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://pairgate.example.org", "in clear"),
            ("http://127.0.0.1.example.org", "in clear"),
            ("ftp://127.0.0.1", "in clear"),
            ("https://pairgate.example.org/api", "host and port only"),
            ("https://me:pw@pairgate.example.org", "host and port only"),
            ("pairgate.example.org", "such as https"),
        ] {
            assert!(server_url(bad).unwrap_err().to_string().contains(why), "{bad}");
        }
    }
}
