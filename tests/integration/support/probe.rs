//! Requests made by hand, as an attacker makes them, and the proof that they changed nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use pairgate::broker::Caller;
use pairgate::model::audit::Record;
use pairgate::simulator::{DeviceKey, RawAnswer, SimulatedDevice, TokenAnswer, commitment, jose};
use pairgate::store::WindowSubject;
use serde_json::{Value, json};

use super::TestBroker;

pub const CODE: &str = "/device_authorization";
pub const TOKEN: &str = "/token";
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A `jti` that no other request has.
pub fn jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{:016}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The parameters of a poll.
pub fn poll_of<'a>(device_code: &'a str, client_id: &'a str) -> [(&'a str, &'a str); 3] {
    [("grant_type", DEVICE_CODE_GRANT), ("device_code", device_code), ("client_id", client_id)]
}

/// The parameters of a refresh.
pub fn refresh_of<'a>(refresh_token: &'a str, client_id: &'a str) -> [(&'a str, &'a str); 3] {
    [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("client_id", client_id)]
}

/// What was stored at one moment.
pub struct Mark {
    rows: String,
    records: usize,
}

impl TestBroker {
    /// The address of an endpoint: what `htu` must say.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// Every row of every table but the audit log, as text.
    pub fn rows(&self) -> String {
        let connection = rusqlite::Connection::open(self.data.path().join("pairgate.db")).unwrap();
        let mut tables =
            connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").unwrap();
        let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut text = String::new();
        for table in tables.iter().filter(|table| *table != "audit") {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<_> = (0..columns).map(|column| row.get_ref(column).unwrap()).collect();
                text.push_str(&format!("{table}: {values:?}\n"));
            }
        }
        text
    }

    /// To compare with later.
    pub async fn mark(&self) -> Mark {
        Mark { rows: self.rows(), records: self.records().await.len() }
    }

    /// What was recorded since.
    pub async fn recorded(&self, since: &Mark) -> Vec<Record> {
        self.records().await.split_off(since.records)
    }

    /// Nothing was stored, changed or minted since; exactly these events were recorded, and they are returned.
    pub async fn untouched(&self, since: &Mark, events: &[&str], what: &str) -> Vec<Record> {
        assert_eq!(self.rows(), since.rows, "{what}: something was stored");
        let records = self.recorded(since).await;
        assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), events, "{what}");
        records
    }

    /// A nonce that is fresh for this device's key; anybody gets one.
    pub async fn nonce(&self, device: &SimulatedDevice) -> String {
        let proof = device.proof("POST", &self.url(TOKEN), None, &jti()).unwrap();
        let answer = device.post_form(TOKEN, &[("client_id", &device.id)], &[("dpop", &proof)]).await.unwrap();
        is_error(&answer, 400, "use_dpop_nonce", "asking for a nonce");
        answer.header("dpop-nonce").unwrap().to_owned()
    }

    /// A new, flawless proof of this device for this endpoint.
    pub async fn proof(&self, device: &SimulatedDevice, path: &str) -> String {
        device.proof("POST", &self.url(path), Some(&self.nonce(device).await), &jti()).unwrap()
    }

    /// One request with a flawless proof; whatever the answer.
    pub async fn ask(&self, device: &SimulatedDevice, path: &str, params: &[(&str, &str)]) -> RawAnswer {
        let proof = self.proof(device, path).await;
        device.post_form(path, params, &[("dpop", &proof)]).await.unwrap()
    }

    /// One poll with a flawless proof.
    pub async fn poll(&self, device: &SimulatedDevice, device_code: &str) -> RawAnswer {
        self.ask(device, TOKEN, &poll_of(device_code, &device.id)).await
    }

    /// One refresh with a flawless proof.
    pub async fn renew(&self, device: &SimulatedDevice, refresh_token: &str) -> RawAnswer {
        self.ask(device, TOKEN, &refresh_of(refresh_token, &device.id)).await
    }

    pub async fn suspend(&self, id: &str) {
        self.broker.suspend_device(&Caller::command_line(), id).await.unwrap();
    }

    pub async fn resume(&self, id: &str) {
        self.broker.resume_device(&Caller::command_line(), id).await.unwrap();
    }

    pub async fn retire(&self, id: &str) {
        self.broker.retire_device(&Caller::command_line(), id).await.unwrap();
    }

    pub async fn open_site_window(&self) {
        let subject = WindowSubject::Site("default".into());
        self.broker.open_window(&Caller::command_line(), &subject, None).await.unwrap();
    }

    /// Runs until a poll is held open.
    pub async fn until_held(&self) {
        while !self.broker.wake().is_anybody_waiting() {
            tokio::task::yield_now().await;
        }
    }

    /// A device with this very key.
    pub fn twin(&self, id: &str, key: &DeviceKey) -> SimulatedDevice {
        SimulatedDevice::new(id, &self.issuer, key.clone(), self.wire.clone())
    }
}

/// Status, error code, and that the answer may not be kept and gives nothing away.
#[track_caller]
pub fn is_error(answer: &RawAnswer, status: u16, error: &str, what: &str) {
    let code = answer.oauth_error().map(|(code, _)| code);
    assert_eq!((answer.status, code.as_deref()), (status, Some(error)), "{what}: {}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    for secret in ["user_code", "device_code\"", "access_token", "refresh_token\"", "verification_uri"] {
        assert!(!answer.body.contains(secret), "{what}: {}", answer.body);
    }
}

/// The tokens of an answer that must be a success.
#[track_caller]
pub fn tokens(answer: &TokenAnswer) -> pairgate::simulator::Tokens {
    match answer {
        TokenAnswer::Tokens(tokens) => tokens.clone(),
        other => panic!("no tokens: {other:?}"),
    }
}

/// The error code of an answer that is none of the special ones.
#[track_caller]
pub fn error_of(answer: &TokenAnswer) -> &str {
    match answer {
        TokenAnswer::Error { error, .. } => error,
        other => panic!("no error: {other:?}"),
    }
}

/// A pairing request by hand; `change` spoils header and claims.
pub fn pairing_request(
    device: &SimulatedDevice,
    device_nonce: &[u8; 32],
    change: impl FnOnce(&mut Value, &mut Value),
) -> String {
    let mut header = device.key.header("pairing-request+jwt");
    let mut claims = json!({
        "iss": device.id, "aud": device.issuer(), "iat": device.now_s(), "jti": jti(), "serial": device.serial,
        "commitment": commitment(device_nonce, device.key.thumbprint()),
    });
    change(&mut header, &mut claims);
    device.key.sign_raw(&header, &claims).unwrap()
}

/// A pairing poll by hand.
pub fn pairing_poll(
    device: &SimulatedDevice,
    pairing_id: &str,
    device_nonce: &[u8; 32],
    change: impl FnOnce(&mut Value),
) -> String {
    let mut claims = json!({
        "iss": device.id, "aud": device.issuer(), "iat": device.now_s(), "jti": jti(), "pairing_id": pairing_id,
        "device_nonce": jose::b64u(device_nonce),
    });
    change(&mut claims);
    device.key.sign_raw(&device.key.header("pairing-poll+jwt"), &claims).unwrap()
}

/// The claims of a pairing answer that must be a success.
#[track_caller]
pub fn pairing_claims(answer: &RawAnswer) -> Value {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/jwt")), "{}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    jose::peek(&answer.body).unwrap().claims
}
