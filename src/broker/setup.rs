//! The first run, and the risk assessment that it writes.
//!
//! What is done is looked up, not remembered: a step is done when its outcome is there, however it came about. The only thing that is remembered is that
//! somebody has finished, or wants to be left alone.

use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::Timestamp;
use crate::config::setup::{Address, AddressFile, Way};
use crate::model::audit::Event;
use crate::model::operator::Role;
use crate::model::risk::{RiskAssessment, RiskRecord, is_prevented, mitigations, stakes};
use crate::model::site::DEFAULT_SITE;
use crate::model::text::clean;
use crate::oauth::jose::UnverifiedJwt;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::{b64u, sha256};
use crate::store::{AuditQuery, DeviceQuery, StoreError};
use crate::tls::files::CertificateFiles;
use crate::tls::local_ca::LocalCa;
use url::Url;

/// `typ` of a signed risk assessment.
const TYP: &str = "pairgate-risk+jwt";
/// A signed assessment is no longer than this.
const MAX_RECORD: usize = 256 * 1024;
const FINISHED: &str = "setup.finished";
const KINDS_SEEN: &str = "setup.kinds";

/// How far the first run is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The address was chosen (or stands in the configuration).
    pub address: bool,
    /// The person can sign in without a link.
    pub person: bool,
    /// The first site has a name of its own.
    pub site: bool,
    /// Somebody looked at what devices may do.
    pub kinds: bool,
    /// Devices that are registered, paired or not.
    pub devices: u64,
    /// Devices that are paired.
    pub paired: u64,
    /// Version of the newest risk assessment.
    pub risk: Option<i64>,
    /// Somebody has finished, or wants to be left alone.
    pub is_over: bool,
}

impl Setup {
    /// Steps, each with whether it is done, in their order.
    pub fn steps(&self) -> [(&'static str, bool); 7] {
        [
            ("address", self.address),
            ("person", self.person),
            ("site", self.site),
            ("kinds", self.kinds),
            ("devices", self.devices > 0),
            ("pair", self.paired > 0),
            ("risk", self.risk.is_some()),
        ]
    }

    /// The first step that is not done.
    pub fn next(&self) -> Option<&'static str> {
        self.steps().into_iter().find(|(_, is_done)| !is_done).map(|(step, _)| step)
    }
}

impl Broker {
    /// How far the first run is.
    ///
    /// # Errors
    /// If the caller does not administer everything.
    pub async fn setup(&self, caller: &Caller) -> Result<Setup, UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        let counts = self.store.device_counts(&caller.reach()).await?;
        let sites = self.store.sites(&caller.reach()).await?;
        let is_first_named = sites.iter().any(|site| site.id != DEFAULT_SITE || site.name != "Main site");
        Ok(Setup {
            address: self.address_file.as_ref().is_none_or(AddressFile::is_decided),
            person: self.has_own_way_in(caller).await?,
            site: is_first_named,
            kinds: self.store.setting(KINDS_SEEN).await?.is_some(),
            devices: counts.registered + counts.active + counts.suspended,
            paired: counts.active,
            risk: self.store.risk_records().await?.first().map(|record| record.version),
            is_over: self.store.setting(FINISHED).await?.is_some(),
        })
    }

    /// Can this person sign in without a one-time link?
    async fn has_own_way_in(&self, caller: &Caller) -> Result<bool, StoreError> {
        let Some(operator) = caller.operator else { return Ok(false) };
        if !self.store.passkeys_of(operator).await?.is_empty() {
            return Ok(true);
        }
        let people = self.store.people(self.now()).await?;
        Ok(people.iter().any(|person| person.operator.id == operator && person.has_sso))
    }

    /// Is this the first run? Whoever signs in then is led through it. Only where an address may be chosen: else there is nothing to begin with.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_first_run(&self, caller: &Caller) -> Result<bool, StoreError> {
        let may_begin = self.address_file.is_some() && caller.must_everywhere(Role::may_administer).is_ok();
        if !may_begin || self.store.setting(FINISHED).await?.is_some() {
            return Ok(false);
        }
        let any = self.store.devices(&DeviceQuery { limit: 1, ..DeviceQuery::default() }, &caller.reach()).await?;
        Ok(any.1 == 0)
    }

    /// Ends the first run; `is_over` false begins it again.
    ///
    /// # Errors
    /// If the caller does not administer everything, or nothing that prevents attacks is in force (RFC 10027 section 2).
    pub async fn finish_setup(&self, caller: &Caller) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let draft = self.risk_draft(caller).await?;
        if !is_prevented(&draft.mitigations) {
            return Err(UseCaseError::refused(
                "nothing is in force that prevents an attack; turn on the confirmation number or name the site's networks",
            ));
        }
        let at = self.now().rfc3339();
        Ok(self.store.set_setting(FINISHED, &at, &self.context(caller)).await?)
    }

    /// Somebody looked at what devices may do.
    ///
    /// # Errors
    /// If the caller does not administer everything.
    pub async fn confirm_kinds(&self, caller: &Caller) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let at = self.now().rfc3339();
        Ok(self.store.set_setting(KINDS_SEEN, &at, &self.context(caller)).await?)
    }

    /// What is configured of the address, and what the file in the data directory says; `None`: this broker has no such file.
    pub fn address(&self) -> Option<&AddressFile> {
        self.address_file.as_ref()
    }

    /// Writes where devices and people will reach this broker; that address. It holds from the next start on.
    ///
    /// # Errors
    /// If the caller does not administer everything or is not fresh, the configuration file decides that already, or the broker would not start like this.
    pub async fn choose_address(&self, caller: &Caller, address: &Address) -> Result<Option<Url>, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        let file = self.address_file.as_ref().ok_or_else(|| UseCaseError::refused("the address is fixed here"))?;
        let refused = |error: &dyn std::fmt::Display| UseCaseError::refused(error.to_string());
        let checked = file.checked(address).map_err(|error| refused(&error))?;
        let url = checked.public_url.clone();
        // All that the next start will open is opened or made first: a start that fails leaves no page to mend it on.
        if let Way::Files { certificate, key } = &address.way {
            CertificateFiles::open(certificate, key).map_err(|error| refused(&error))?;
        }
        if let (Way::LocalCa, Some(host)) = (&address.way, url.as_ref().and_then(Url::host_str)) {
            let (ca, hosts) = (LocalCa::in_data(file.data()), [host.trim_matches(['[', ']']).to_owned()]);
            let made = if ca.exists() { ca.renew(&hosts, self.now()) } else { ca.init(&hosts, self.now(), false) };
            made.map_err(|error| refused(&error))?;
        }
        file.write(&checked).map_err(|error| refused(&error))?;
        let detail = url.as_ref().map_or("only this machine", Url::as_str);
        self.store.record(Event::AddressChosen, None, detail, &self.context(caller)).await?;
        Ok(url)
    }

    /// A one-time link at another address: for the one who just chose it.
    ///
    /// # Errors
    /// As [`Broker::operator_link`].
    pub async fn link_at(&self, caller: &Caller, name: &str, url: &Url) -> Result<String, UseCaseError> {
        let link = self.operator_link(caller, name).await?;
        let path = link.strip_prefix(&self.endpoints.issuer).unwrap_or_default();
        Ok(format!("{}{path}", url.as_str().trim_end_matches('/')))
    }

    /// The risk assessment as of now, not signed: what is at stake and what is in force.
    ///
    /// # Errors
    /// If the caller does not administer everything.
    pub async fn risk_draft(&self, caller: &Caller) -> Result<RiskAssessment, UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        let sites = self.store.sites(&caller.reach()).await?;
        let version = self.store.risk_records().await?.first().map_or(0, |record| record.version) + 1;
        Ok(RiskAssessment {
            version,
            issuer: self.endpoints.issuer.clone(),
            at: self.now().rfc3339(),
            stakes: stakes(&self.kinds()),
            mitigations: mitigations(&self.kinds(), &sites),
            residual: String::new(),
            accepted_by: String::new(),
        })
    }

    /// All signed assessments, newest first.
    ///
    /// # Errors
    /// If the caller does not administer everything.
    pub async fn risk_records(&self, caller: &Caller) -> Result<Vec<RiskRecord>, UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        Ok(self.store.risk_records().await?)
    }

    /// Signs the assessment as of now. A version is never changed; the next one stands beside it.
    ///
    /// # Errors
    /// If the caller does not administer everything, says nothing of what remains or of who accepts it, or somebody else signed at the same moment.
    pub async fn accept_risk(&self, caller: &Caller, residual: &str, accepted_by: &str) -> Result<i64, UseCaseError> {
        caller.must_be_no_program()?;
        let mut assessment = self.risk_draft(caller).await?;
        let text = |field, input: &str, max| {
            let lines: Result<Vec<_>, _> = input.lines().map(|line| clean(field, line, max)).collect();
            lines
                .map(|lines| lines.join("\n").trim().to_owned())
                .map_err(|error| UseCaseError::refused(error.to_string()))
        };
        assessment.residual = text("what remains", residual, 2000)?;
        assessment.accepted_by = text("who accepts it", accepted_by, 120)?;
        let mut problems = Vec::new();
        if assessment.residual.chars().count() < 10 {
            problems.push("say in a sentence what risk remains".into());
        }
        if assessment.accepted_by.chars().count() < 3 {
            problems.push("say who accepts it: a person's name and function".into());
        }
        if !problems.is_empty() {
            return Err(UseCaseError::Refused(problems));
        }
        let failed = |what: &str| UseCaseError::refused(format!("the record could not be signed: {what}"));
        let signature =
            self.signing.sign(SigningAlgorithm::Es256, TYP, &assessment, true).map_err(|error| failed(error.0))?;
        let document = serde_json::to_string(&assessment).map_err(|error| failed(&error.to_string()))?;
        let context = self.context(caller);
        let by = context.actor.to_string();
        let record = RiskRecord { version: assessment.version, at: context.now, by, document, signature };
        if !self.store.add_risk_record(&record, &context).await? {
            return Err(UseCaseError::refused("somebody else signed at the same moment; look at it and sign again"));
        }
        self.wake.pages();
        Ok(record.version)
    }

    /// Is a record what was signed then? Its signature holds, its text is what was signed, and the audit log has its hash.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_risk_record_good(&self, record: &RiskRecord) -> Result<bool, StoreError> {
        let signed = UnverifiedJwt::<serde_json::Value>::parse_up_to(&record.signature, TYP, MAX_RECORD);
        let claims = signed.and_then(UnverifiedJwt::verify).map(|verified| verified.claims);
        let is_text = claims.is_ok_and(|claims| {
            serde_json::from_str::<serde_json::Value>(&record.document).is_ok_and(|document| document == claims)
        });
        let wanted = format!("version {}, SHA-256 {}", record.version, b64u(&sha256(&[record.signature.as_bytes()])));
        Ok(is_text && self.has_record_of(Event::RiskAccepted, record.at, &wanted).await?)
    }

    /// Does the audit log have this event with this detail, at this instant?
    async fn has_record_of(&self, event: Event, at: Timestamp, detail: &str) -> Result<bool, StoreError> {
        let mut before = None;
        loop {
            let query = AuditQuery { before, limit: 1000, ..AuditQuery::default() };
            let records = self.store.audit(&query, &crate::model::operator::Reach::Everywhere).await?;
            if records.iter().any(|record| record.event == event.as_str() && record.detail == detail) {
                return Ok(true);
            }
            match records.last() {
                Some(oldest) if oldest.at >= at => before = Some(oldest.id),
                _ => return Ok(false),
            }
        }
    }
}
