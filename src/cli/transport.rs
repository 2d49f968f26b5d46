//! The server's certificate while `serve` runs: opened at the start, renewed and read again by itself.

use std::sync::Arc;
use std::time::Duration;

use rustls::server::ResolvesServerCert;
use tokio::sync::watch;
use url::Url;

use crate::broker::Broker;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Tls};
use crate::tls::acme::AcmeCertificate;
use crate::tls::files::CertificateFiles;
use crate::tls::local_ca::LocalCa;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(60);
const NOT_RENEWED: &str = "the certificate could not be renewed; the former one stays in use";

/// What shows the certificate.
pub struct Transport {
    files: Arc<CertificateFiles>,
    renewal: Renewal,
}

/// Who renews the files.
enum Renewal {
    Others,
    LocalCa(LocalCa, Vec<String>),
    Acme(Arc<AcmeCertificate>),
}

impl Transport {
    /// As configured; none without `[tls]`.
    ///
    /// # Errors
    /// If there is no certificate to show; says what to do.
    pub async fn of(
        config: &Config,
        issuer: &Url,
        mtls_url: Option<&Url>,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<Option<Self>> {
        let hosts = hosts([Some(issuer), mtls_url]);
        Ok(match &config.tls {
            None => None,
            Some(Tls::Files { certificate, key }) => {
                Some(Self { files: CertificateFiles::open(certificate, key)?, renewal: Renewal::Others })
            }
            Some(Tls::LocalCa) => {
                let ca = LocalCa::in_data(&config.data);
                ca.ca_pem()?;
                ca.renew_if_due(&hosts, Clock::system().now())?;
                let files = CertificateFiles::open(&ca.certificate(), &ca.key())?;
                Some(Self { files, renewal: Renewal::LocalCa(ca, hosts) })
            }
            Some(Tls::Acme(settings)) => {
                let acme = AcmeCertificate::open(&config.data, settings.clone(), hosts, stopping.clone()).await?;
                let now = Clock::system().now();
                let mut failed = None;
                if !acme.is_usable(now) {
                    let whom = acme.describe();
                    tracing::info!("there is no good certificate yet: asking {whom}; this may take two minutes");
                    failed = acme.renew_if_due(now).await.err();
                }
                let files = match (CertificateFiles::open(&acme.certificate(), &acme.key()), failed) {
                    (Ok(files), None) => files,
                    // For other hosts, or expired: better than nothing, and `keep_fresh` goes on trying.
                    (Ok(files), Some(error)) => {
                        tracing::error!(%error, "{NOT_RENEWED}");
                        files
                    }
                    (Err(_), Some(error)) | (Err(error), None) => return Err(error.into()),
                };
                Some(Self { files, renewal: Renewal::Acme(acme) })
            }
        })
    }

    /// For the handshake.
    pub fn certificates(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.files) as Arc<dyn ResolvesServerCert>
    }

    /// Reads the files again if they have changed; what is no good is logged, and the former certificate stays.
    pub fn reload(&self) {
        match self.files.reload_if_changed() {
            Ok(true) => tracing::info!("the new certificate is in use"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the new certificate is no good; the former one stays in use"),
        }
    }

    /// One look: renews what is due, then reads what has changed.
    pub async fn run_once(&self, now: Timestamp) {
        let renewed = match &self.renewal {
            Renewal::Others => Ok(false),
            Renewal::LocalCa(ca, hosts) => ca.renew_if_due(hosts, now),
            Renewal::Acme(acme) => acme.renew_if_due(now).await,
        };
        if let Err(error) = renewed {
            tracing::error!(%error, "{NOT_RENEWED}");
        }
        self.reload();
    }

    /// Looks once a minute, until the process stops.
    pub async fn keep_fresh(self: Arc<Self>, broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
        let mut minute = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = minute.tick() => {}
                _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
            }
            tokio::select! {
                () = self.run_once(broker.now()) => {}
                _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
            }
        }
    }
}

/// Host names and addresses of these, each once.
pub fn hosts<'a>(urls: impl IntoIterator<Item = Option<&'a Url>>) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for host in urls.into_iter().flatten().filter_map(Url::host_str) {
        let host = host.trim_matches(['[', ']']).to_owned();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}
