//! What devices are told without asking (`docs/mqtt.md`, section "Events").
//!
//! The audit log is the outbox: each change has its record in its own transaction, so whoever reads the records in order misses none, and nothing is told that
//! did not happen. Whoever follows keeps the number of the last record that it saw; after a start it begins a minute in the past, because an event that is
//! doubled harms nobody.

use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::{Broker, Caller};
use crate::id::DeviceId;
use crate::model::audit::{Event, Record};
use crate::model::device::DeviceState;
use crate::model::operator::Reach;
use crate::model::told::Told;
use crate::oauth::jose::JoseError;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::{SecretError, b64u};
use crate::store::{AuditQuery, PairingOfDevice, StoreError};

const EVENT: &str = "device-event+jwt";
/// How long an event may be acted on.
const EVENT_LIFETIME: Duration = Duration::from_secs(60);
/// Records that are read at a time.
const BATCH: u32 = 500;
/// Rows of each list in the feed.
const FEED: u32 = 100;

/// What is to be told, or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Tell a device: this signed event.
    Tell(DeviceId, String),
    /// What the device last asked about its pairing has another answer now.
    PairingChanged(DeviceId),
    /// The same, and there will be no other answer after that.
    PairingConfirmed(DeviceId),
    /// The device may not be connected any more.
    Ended(DeviceId),
    /// People's keys or roles have changed: some may not be connected any more, or not see what they saw.
    PeopleChanged,
}

/// What the records after some record say.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The last record that was read.
    pub seen: i64,
    /// In order.
    pub news: Vec<News>,
    /// There are more records; ask again.
    pub is_full: bool,
}

/// Why there is no news.
#[derive(Debug, thiserror::Error)]
pub enum NewsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event could not be signed.
    #[error(transparent)]
    Jose(#[from] JoseError),
    /// The machine's generator failed.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Broker {
    /// The record to begin after: the newest of those that are too old to be told of.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn news_begins(&self) -> Result<i64, StoreError> {
        let horizon = self.now().minus(EVENT_LIFETIME);
        let mut before = None;
        loop {
            let query = AuditQuery { before, limit: BATCH, ..AuditQuery::default() };
            let records = self.store.audit(&query, &Reach::Everywhere).await?;
            if let Some(old) = records.iter().find(|record| record.at <= horizon) {
                return Ok(old.id);
            }
            match records.last() {
                Some(oldest) if records.len() >= BATCH as usize => before = Some(oldest.id),
                _ => return Ok(0),
            }
        }
    }

    /// What has happened after a record.
    ///
    /// # Errors
    /// [`NewsError`]; nothing is lost, ask again.
    pub async fn news(&self, after: i64) -> Result<Batch, NewsError> {
        let query = AuditQuery { after: Some(after), limit: BATCH, ..AuditQuery::default() };
        let records = self.store.audit(&query, &Reach::Everywhere).await?;
        let mut batch = Batch { seen: after, news: Vec::new(), is_full: records.len() >= BATCH as usize };
        for record in &records {
            self.read_record(record, &mut batch.news).await?;
            batch.seen = record.id;
        }
        Ok(batch)
    }

    async fn read_record(&self, record: &Record, news: &mut Vec<News>) -> Result<(), NewsError> {
        let Some(event) = Event::parse(&record.event) else { return Ok(()) };
        let Some(Ok(id)) = record.device.as_deref().map(DeviceId::new) else {
            let is_of_people = matches!(
                event,
                Event::OperatorDisabled | Event::RoleChanged | Event::OperatorKeyRevoked | Event::PasskeysRemoved
            );
            news.extend(is_of_people.then_some(News::PeopleChanged));
            return Ok(());
        };
        // The record may be a minute old after a start; what it would tell is then over.
        let is_fresh = self.now().since(record.at) < EVENT_LIFETIME;
        match event {
            Event::GrantClaimed if is_fresh => {
                if let Some(number) = self.number_to_show(&id).await? {
                    news.push(self.tell(id, &Told::ConfirmationNumber(number))?);
                }
            }
            Event::GrantApproved if is_fresh => news.push(self.tell(id, &Told::PollNow)?),
            Event::GrantDenied | Event::GrantReported if is_fresh => news.push(self.tell(id, &Told::Denied)?),
            Event::DeviceAsked if is_fresh => match self.store.device(&id).await? {
                Some(device) if device.state == DeviceState::Active => news.push(self.tell(id, &Told::Identify)?),
                Some(_) => news.push(News::PairingChanged(id)),
                None => {}
            },
            Event::PairingConfirmed => {
                // A connection by the former key is not the device's any more.
                news.push(News::Ended(id.clone()));
                news.push(News::PairingConfirmed(id));
            }
            Event::DeviceSuspended | Event::DeviceStolen | Event::DeviceRetired | Event::DeviceReplaced => {
                if is_fresh {
                    news.push(self.tell(id.clone(), &Told::Suspended)?);
                }
                news.push(News::Ended(id));
            }
            _ => {}
        }
        Ok(())
    }

    /// The number that the device's open sign-in shows now.
    async fn number_to_show(&self, id: &DeviceId) -> Result<Option<String>, StoreError> {
        let Some(grant) = self.store.device(id).await?.and_then(|device| device.pending_grant) else { return Ok(None) };
        let claim = self.store.grant(grant).await?.and_then(|grant| grant.claim);
        Ok(claim.and_then(|claim| claim.confirmation_number))
    }

    /// Signs an event for one device: nobody else can make one, nobody can show it to another device, or later, or twice.
    fn tell(&self, device: DeviceId, told: &Told) -> Result<News, NewsError> {
        let now = self.now();
        let mut claims = json!({
            "iss": self.endpoints.issuer, "aud": device, "iat": now.seconds(), "exp": now.plus(EVENT_LIFETIME).seconds(),
            "jti": b64u(&self.random.bytes32()?), "event": told.as_str(),
        });
        if let Told::ConfirmationNumber(number) = told {
            claims["confirmation_number"] = number.as_str().into();
        }
        let signed = self.signing.sign(SigningAlgorithm::Es256, EVENT, &claims, false)?;
        Ok(News::Tell(device, signed))
    }

    /// What waits at all sites, for consoles (`docs/mqtt.md`, section "The feed"). Nothing of it is a secret.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn waiting_feed(&self) -> Result<Value, StoreError> {
        let now = self.now();
        let pairings = self.open_pairings(&Caller::command_line(), None).await?;
        let grants = self.pending_grants(&Caller::command_line(), FEED + 1).await?;
        let limit = FEED as usize;
        let is_more = pairings.len() > limit || grants.len() > limit;
        let of_pairing = |found: &PairingOfDevice| {
            let (pairing, facts) = (&found.pairing, &found.device.facts);
            json!({
                "pairing_id": pairing.id, "device": found.device.id, "name": facts.name, "kind": facts.kind, "site": facts.site,
                "room": facts.room, "key_assurance": pairing.key_assurance, "announced": found.is_announced(),
                "expires_at": pairing.expires_at.seconds(),
            })
        };
        let pairings: Vec<Value> = pairings.iter().take(limit).map(of_pairing).collect();
        let sign_ins: Vec<Value> = grants
            .iter()
            .take(limit)
            .map(|found| {
                let facts = &found.device.facts;
                json!({
                    "device": found.device.id, "name": facts.name, "kind": facts.kind, "site": facts.site, "room": facts.room,
                    "opened": found.grant.claim.is_some(), "expires_at": found.grant.expires_at.seconds(),
                })
            })
            .collect();
        Ok(json!({"at": now.seconds(), "pairings": pairings, "sign_ins": sign_ins, "more": is_more}))
    }
}
