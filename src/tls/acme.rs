//! Certificates from an ACME server (RFC 8555), by http-01: account, order, challenge, certificate; renewed when a third of its life is left.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::config::Acme;
use crate::tls::TlsError;
use crate::tls::challenge::{Answers, Challenges};
use crate::tls::files::{check_pair, facts_of, is_for, private_folder, write_whole};

/// An order is through after this long, or given up.
const ORDER_TIMEOUT: Duration = Duration::from_secs(120);
/// How an order's state is asked for; the server may ask for more patience.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(60));
/// After a failure; doubled by each further one. Public servers count failures, and shut out who has too many in an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// One certificate for the server's host names, and whom to ask for the next.
#[derive(Debug)]
pub struct AcmeCertificate {
    settings: Acme,
    hosts: Vec<String>,
    folder: PathBuf,
    challenges: Arc<Challenges>,
    failures: Mutex<Failures>,
}

/// Since the last success.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    next_try: Option<Timestamp>,
}

impl AcmeCertificate {
    /// In this data directory, for these host names; answers challenges until `stopping` turns true. No server is asked for anything yet.
    ///
    /// # Errors
    /// If a host is an address, or the challenge's listener can't be had.
    pub async fn open(
        data: &Path,
        settings: Acme,
        hosts: Vec<String>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, TlsError> {
        if let Some(address) = hosts.iter().find(|host| host.parse::<std::net::IpAddr>().is_ok()) {
            return Err(TlsError(format!(
                "[tls.acme] certifies host names, and {address} is an address: set public_url (and mtls_url) to a name, or use [tls] local_ca = true"
            )));
        }
        let folder = data.join("tls");
        private_folder(&folder).map_err(|error| TlsError(format!("{}: {error}", folder.display())))?;
        let challenges = Challenges::listen(settings.http_listen, stopping).await?;
        Ok(Arc::new(Self { settings, hosts, folder, challenges, failures: Mutex::default() }))
    }

    /// The certificate chain.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("acme.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("acme.key")
    }

    /// The account with its key.
    pub fn account_file(&self) -> PathBuf {
        self.folder.join("acme-account.json")
    }

    /// Who is asked, for which hosts.
    pub fn describe(&self) -> String {
        format!("{} for {}", self.settings.directory, self.hosts.join(", "))
    }

    /// The listener for challenges.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Is there a certificate that can be shown?
    pub fn is_usable(&self, now: Timestamp) -> bool {
        let certificate = self.certificate();
        facts_of(&certificate).is_some_and(|facts| facts.not_after > now)
            && is_for(&certificate, &self.hosts)
            && check_pair(&certificate, &self.key()).is_ok()
    }

    /// Is a third of the life left, or less? Or is it for other hosts, or broken?
    pub fn is_due(&self, now: Timestamp) -> bool {
        let is_old = facts_of(&self.certificate())
            .is_none_or(|facts| facts.not_after.since(now) <= facts.not_after.since(facts.not_before) / 3);
        is_old || !self.is_usable(now)
    }

    /// One look: gets a new certificate if that is due, and no failure was too short a while ago; whether it did.
    ///
    /// # Errors
    /// Why there is none, with what to do. The former one stays.
    pub async fn renew_if_due(&self, now: Timestamp) -> Result<bool, TlsError> {
        if !self.is_due(now) || self.next_try().is_some_and(|next| now < next) {
            return Ok(false);
        }
        let outcome = match tokio::time::timeout(ORDER_TIMEOUT, self.obtain()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TlsError(format!(
                "{} took longer than {} seconds",
                self.settings.directory,
                ORDER_TIMEOUT.as_secs()
            ))),
        };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                *failures = Failures::default();
                Ok(true)
            }
            Err(error) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << failures.count.min(16)).min(LONGEST_PAUSE);
                failures.count = failures.count.saturating_add(1);
                failures.next_try = Some(now.plus(pause));
                Err(error)
            }
        }
    }

    /// After a failure: when it is tried again.
    pub fn next_try(&self) -> Option<Timestamp> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).next_try
    }

    async fn obtain(&self) -> Result<(), TlsError> {
        let account = self.account().await?;
        let hosts: Vec<Identifier> = self.hosts.iter().cloned().map(Identifier::Dns).collect();
        let mut order = match account.new_order(&NewOrder::new(&hosts)).await {
            Ok(order) => order,
            Err(error) => return Err(self.forget_unknown_account(&error)),
        };
        let answers = self.challenges.answers();
        self.prove(&mut order, &answers).await?;
        let broken = |error: rcgen::Error| TlsError(format!("no certificate could be asked for: {error}"));
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(broken)?;
        let mut params = CertificateParams::new(self.hosts.clone()).map_err(broken)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(broken)?;
        order.finalize_csr(request.der()).await.map_err(|error| self.refused(&error))?;
        let chain = order.poll_certificate(&POLLS).await.map_err(|error| self.refused(&error))?;
        self.keep(&chain, &key.serialize_pem())
    }

    /// Shows that the hosts are ours (RFC 8555 section 7.5).
    async fn prove(&self, order: &mut Order, answers: &Answers<'_>) -> Result<(), TlsError> {
        let mut failed = None;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.refused(&error))?;
            // Proved lately: servers remember it for a while.
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) else {
                return Err(TlsError(format!("{} offers no http-01 challenge", self.settings.directory)));
            };
            answers.add(&challenge.token, challenge.key_authorization().as_str());
            if let Err(error) = challenge.set_ready().await {
                // A quick server has asked already, and answers with what came of it.
                failed = Some(error);
                break;
            }
        }
        let error = match failed {
            Some(error) => Some(error),
            None => match order.poll_ready(&POLLS).await {
                Ok(OrderStatus::Ready) => return Ok(()),
                Ok(_) => None,
                Err(error) => Some(error),
            },
        };
        let seen = self.seen(order).await;
        match error {
            // The question itself was refused, or came to nothing; nobody looked at a host in vain.
            Some(error) if seen.is_empty() => Err(self.refused(&error)),
            _ => Err(self.not_proved(&seen)),
        }
    }

    /// What the server saw when it asked: a line for each host that it could not make sure of.
    async fn seen(&self, order: &mut Order) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let _ = authorization.refresh().await;
            let host = authorization.identifier().to_string();
            let failed = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            reasons.extend(failed.map(|problem| format!("{host}: {}", said(&Error::Api(problem.clone())))));
        }
        reasons
    }

    /// With what to check: the server cannot tell people where its question ended.
    fn not_proved(&self, seen: &[String]) -> TlsError {
        let reasons = if seen.is_empty() { "it gives no reason".into() } else { seen.join("; ") };
        let host = self.hosts.first().map_or("", String::as_str);
        TlsError(format!(
            "{} could not make sure that the host is ours ({}). Check that port 80 of the name leads to {} (tls.acme.http_listen) of this machine: \
             http://{host}{}x must answer 404 from where that server is",
            self.settings.directory,
            reasons,
            self.challenges.address(),
            crate::tls::challenge::PREFIX,
        ))
    }

    /// Only a pair that can be shown for these hosts replaces the former one.
    fn keep(&self, chain: &str, key: &str) -> Result<(), TlsError> {
        let failed = |error: std::io::Error| TlsError(format!("{}: {error}", self.folder.display()));
        let draft = tempfile::tempdir_in(&self.folder).map_err(failed)?;
        let (new_chain, new_key) = (draft.path().join("acme.pem"), draft.path().join("acme.key"));
        write_whole(&new_chain, chain, 0o644).map_err(failed)?;
        write_whole(&new_key, key, 0o600).map_err(failed)?;
        check_pair(&new_chain, &new_key)?;
        if !is_for(&new_chain, &self.hosts) {
            return Err(TlsError(format!("{} sent a certificate for other hosts", self.settings.directory)));
        }
        std::fs::rename(new_key, self.key()).map_err(failed)?;
        std::fs::rename(new_chain, self.certificate()).map_err(failed)
    }

    fn client(&self) -> Result<AccountBuilder, Error> {
        match &self.settings.root {
            Some(root) => Account::builder_with_root(root),
            None => Account::builder(),
        }
    }

    /// The account as kept, or a new one. With another server, another account.
    async fn account(&self) -> Result<Account, TlsError> {
        let unreachable = |error: Error| {
            TlsError(format!(
                "the ACME server can't be used: {}. Check tls.acme.directory = '{}', and tls.acme.root if it is a private one",
                said(&error),
                self.settings.directory
            ))
        };
        let file = self.account_file();
        let broken = |error: String| TlsError(format!("{}: {error}", file.display()));
        let client = self.client().map_err(unreachable)?;
        let directory = self.settings.directory.as_str();
        if let Ok(text) = std::fs::read_to_string(&file) {
            let kept: serde_json::Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
            if kept["directory"] == directory {
                let kept: AccountCredentials =
                    serde_json::from_value(kept).map_err(|error| broken(error.to_string()))?;
                return client.from_credentials(kept).await.map_err(unreachable);
            }
        }
        let contact: Vec<&str> = self.settings.contact.as_deref().into_iter().collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, kept) = client.create(&wanted, directory.to_owned(), None).await.map_err(unreachable)?;
        let kept = serde_json::to_string(&kept).map_err(|error| broken(error.to_string()))?;
        write_whole(&file, &kept, 0o600).map_err(|error| broken(error.to_string()))?;
        Ok(account)
    }

    /// A server that has lost, or closed, our account would refuse it for ever: the next try makes another.
    fn forget_unknown_account(&self, error: &Error) -> TlsError {
        const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
        if matches!(error, Error::Api(problem) if problem.r#type.as_deref() == Some(UNKNOWN)) {
            let _ = std::fs::remove_file(self.account_file());
        }
        self.refused(error)
    }

    fn refused(&self, error: &Error) -> TlsError {
        TlsError(format!("{} gave no certificate: {}", self.settings.directory, said(error)))
    }
}

/// An error with all its causes: the outer ones say little.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
