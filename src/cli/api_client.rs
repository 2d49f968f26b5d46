//! The client of the administration API (`http/api/`), for `--server`: no redirects, no proxies' surprises, time limits, and errors that say what to do.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::config::Remote;
use crate::http::api::BASE;
use crate::http::api::shapes::{Listed, Problem};
use crate::model::audit::{Record, one_line};
use crate::store::AuditQuery;

/// A broker elsewhere.
pub struct Api {
    client: reqwest::Client,
    server: Url,
    token: String,
}

impl Api {
    /// A client that shows this token, and believes this authority if one is named.
    ///
    /// # Errors
    /// If the authority's file is no certificate.
    pub fn new(remote: &Remote) -> anyhow::Result<Self> {
        // Err only says that a provider is there already.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mut builder = reqwest::Client::builder()
            // The token is for this server alone, wherever it may point to.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60))
            .user_agent(concat!("pairgate/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &remote.ca_pem {
            let authority =
                reqwest::Certificate::from_pem(pem.as_bytes()).context("--ca: the file is no certificate in PEM")?;
            builder = builder.tls_certs_only([authority]);
        }
        Ok(Self { client: builder.build()?, server: remote.server.clone(), token: remote.token.clone() })
    }

    /// The server, as it was named.
    pub fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// GET. Each part of the path is one segment; what stands in it can't become another address.
    ///
    /// # Errors
    /// What the broker said, or why it could not be reached.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<T> {
        self.send(Method::GET, path, query, None::<()>).await
    }

    /// Any other method, with a JSON body.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<impl Serialize>,
    ) -> anyhow::Result<T> {
        self.send(method, path, &[], body).await
    }

    /// Records of the audit log.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn records(&self, query: &AuditQuery) -> anyhow::Result<Vec<Record>> {
        let mut wanted = vec![("limit", query.limit.to_string()), ("refusals", query.refusals.to_string())];
        wanted.extend(query.before.map(|before| ("before", before.to_string())));
        wanted.extend(query.after.map(|after| ("after", after.to_string())));
        wanted.extend(query.device.as_ref().map(|device| ("device", device.to_string())));
        let listed: Listed<Record> = self.get(&["audit"], &wanted).await?;
        Ok(listed.items)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<impl Serialize>,
    ) -> anyhow::Result<T> {
        let mut url = self.server.join(BASE)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return serde_json::from_str(&text)
                .with_context(|| format!("{} answered with what this version does not understand", self.server()));
        }
        self.refused(status, &text)
    }

    fn refused<T>(&self, status: StatusCode, text: &str) -> anyhow::Result<T> {
        let server = self.server();
        let problem = serde_json::from_str::<Problem>(text).ok();
        match (status.as_u16(), problem) {
            (401, _) => bail!(
                "{server} does not take this token: it is wrong, expired or revoked. Make another on the broker's machine: pairgate token add NAME --role viewer"
            ),
            // Another machine's words: nothing of them may move the cursor of this terminal.
            (_, Some(problem)) => {
                bail!("{}", problem.errors.iter().map(|line| one_line(line)).collect::<Vec<_>>().join("\n"))
            }
            (404 | 405, None) => bail!(
                "there is no administration API at {server}. The broker's configuration says where it answers: [api] listen, or [api] on_main = true"
            ),
            (301..=308, None) => bail!("{server} redirects elsewhere. Name the address of the broker itself"),
            (status, None) => bail!("{server} answered with status {status}: {}", one_line(text.trim())),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut innermost: &dyn std::error::Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let reason = innermost.to_string();
        let advice = if reason.contains("UnknownIssuer") || reason.contains("certificate") {
            ". If its authority is a private one, name that with --ca FILE: what `pairgate tls ca` prints on its machine"
        } else if error.is_timeout() {
            ". It did not answer in time"
        } else {
            ". Does it run, and does [api] in its configuration say that it answers there?"
        };
        anyhow::anyhow!("{} can't be reached: {reason}{advice}", self.server())
    }
}
