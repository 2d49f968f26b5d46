//! Who may hold a connection over MQTT (`docs/mqtt.md`, section "Connecting"): to our own endpoint, or, asked by a broker's hook, to that broker.
//!
//! | | client id | proves |
//! | --- | --- | --- |
//! | a paired device | its id | its pinned key: by certificate, or by a signed password |
//! | a device that is to be paired | its id, a dot, and the beginning of its key's thumbprint; for a second connection a dot and a name more | that key, whoever it may be |
//! | an operator | begins with `operator.<name>.` | a key that the person registered |
//!
//! So nobody can take the place of anybody else without that one's key, whatever it calls itself.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::broker::Broker;
use crate::device_auth::connection::Password;
use crate::id::DeviceId;
use crate::model::audit::{Actor, Context, Event, one_line};
use crate::model::device::{Device, DeviceState, PinnedKey};
use crate::model::operator::{Operator, Reach};
use crate::secret::{Bytes32, b64u, is_equal};
use crate::store::StoreError;

/// The longest client id: a device id, a thumbprint's beginning, a name.
const MAX_CLIENT_ID: usize = 100;
/// Characters of a key's thumbprint in a client id: 96 bits, so that nobody finds a key that has another's.
const THUMBPRINT: usize = 16;

/// What a client presents when it connects. Nothing of it is believed yet.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    /// Client id.
    pub client_id: &'a str,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password.
    pub password: Option<&'a str>,
    /// The client's certificates, leaf first, if it proved to have the leaf's key.
    pub certificates: &'a [CertificateDer<'static>],
    /// From where.
    pub peer: Option<IpAddr>,
}

/// Who is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connected {
    /// A paired device.
    Device {
        /// Which.
        id: DeviceId,
        /// Its pinned key.
        jkt: Bytes32,
    },
    /// Something that calls itself this device, with a key that nobody has confirmed.
    Unpaired {
        /// The device that it says that it is.
        id: DeviceId,
        /// The key that it has.
        jkt: Bytes32,
    },
    /// A person.
    Operator {
        /// Name.
        name: String,
        /// Does the person see all sites?
        sees_all: bool,
        /// The person's keys, in the order of their thumbprints.
        keys: Vec<Bytes32>,
    },
}

/// Why a connection is not taken.
#[derive(Debug)]
pub enum ConnectError {
    /// Refused. One answer for every reason.
    Refused,
    /// An outage.
    Unavailable,
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a connection could not be judged");
        Self::Unavailable
    }
}

/// The client id of a device that is to be paired with this key.
pub fn unpaired_client_id(device: &DeviceId, jkt: &Bytes32) -> String {
    let thumbprint = b64u(jkt);
    format!("{device}.{}", thumbprint.get(..THUMBPRINT).unwrap_or_default())
}

/// Does a client id end here, or with a name that tells two connections apart? A program that publishes and one that subscribes are two clients.
fn is_end(rest: &str) -> bool {
    let is_name = |name: &str| {
        (1..=16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    rest.is_empty() || rest.strip_prefix('.').is_some_and(is_name)
}

impl Broker {
    /// Who connects.
    ///
    /// # Errors
    /// [`ConnectError`]; why stands in the audit log alone.
    pub async fn connect(&self, connect: &Connect<'_>) -> Result<Connected, ConnectError> {
        if connect.client_id.is_empty() || connect.client_id.len() > MAX_CLIENT_ID {
            return self.refuse_connection(None, "an empty or over-long client id", connect).await;
        }
        match (connect.password, connect.certificates) {
            (Some(password), []) => self.connect_by_password(connect, password).await,
            (None, certificates) if !certificates.is_empty() => self.connect_by_certificate(connect).await,
            (None, _) => self.refuse_connection(None, "neither a password nor a certificate", connect).await,
            // Two methods could speak for two devices.
            (Some(_), _) => self.refuse_connection(None, "a password beside a certificate", connect).await,
        }
    }

    async fn connect_by_certificate(&self, connect: &Connect<'_>) -> Result<Connected, ConnectError> {
        // The client id is the device's, and a user name, if there is one, says nothing else.
        if connect.user_name.is_some_and(|name| !name.is_empty() && name != connect.client_id) {
            return self.refuse_connection(None, "a user name that is not the client id", connect).await;
        }
        let chain = connect.certificates;
        let id = connect.client_id;
        match self.authenticator.by_connection_certificate(&*self.store, chain, id, self.now()).await {
            Ok(known) if known.device.state == DeviceState::Active => {
                Ok(Connected::Device { id: known.device.id, jkt: known.jkt })
            }
            Ok(known) => {
                let why = format!("the device is {}", known.device.state.as_str());
                self.refuse_connection(Some(&known.device), &why, connect).await
            }
            Err(refused) => match refused.tripwire {
                Some(tripwire) => {
                    self.note_refusal(tripwire.event, tripwire.device.as_ref(), &tripwire.detail, connect.peer).await;
                    Err(ConnectError::Refused)
                }
                None => Err(ConnectError::Unavailable),
            },
        }
    }

    async fn connect_by_password(&self, connect: &Connect<'_>, password: &str) -> Result<Connected, ConnectError> {
        let password = match Password::read(password, &self.endpoints.issuer, self.now()) {
            Ok(password) => password,
            Err(why) => return self.refuse_connection(None, why, connect).await,
        };
        let user_name = connect.user_name.unwrap_or_default();
        if let Some(name) = user_name.strip_prefix("operator:") {
            return self.connect_operator(connect, name, &password).await;
        }
        let Ok(id) = DeviceId::new(user_name) else {
            return self.refuse_connection(None, "a user name that is no device id", connect).await;
        };
        if password.who != user_name {
            return self.refuse_connection(None, "a password for another name", connect).await;
        }
        let unpaired = unpaired_client_id(&id, &password.jkt);
        if connect.client_id.strip_prefix(&unpaired).is_some_and(is_end) {
            // Any key, any id: whoever asks to be paired is judged there, and learns nothing here of which devices there are.
            return Ok(Connected::Unpaired { id, jkt: password.jkt });
        }
        if connect.client_id != id.as_str() {
            return self.refuse_connection(None, "a client id that is not its own", connect).await;
        }
        let device = self.store.device(&id).await?;
        let pinned = device.as_ref().and_then(|device| device.key.as_ref()).map_or([0; 32], |key| key.jkt);
        let is_pinned = is_equal(&pinned, &password.jkt);
        match device {
            Some(device) if is_pinned && device.state == DeviceState::Active => {
                if self.authenticator.by_key_alone(&device).is_err() {
                    return self.refuse_connection(Some(&device), "its kind needs a certificate", connect).await;
                }
                self.use_up(connect, &password, Some(&device)).await?;
                Ok(Connected::Device { id, jkt: password.jkt })
            }
            Some(device) if device.key.is_some() && !is_pinned => {
                let detail = format!("over MQTT, with key {}", PinnedKey::short(&password.jkt));
                self.note_refusal(Event::KeyMismatch, Some(&device.id), &detail, connect.peer).await;
                Err(ConnectError::Refused)
            }
            Some(device) => {
                let why = format!("the device is {}", device.state.as_str());
                self.refuse_connection(Some(&device), &why, connect).await
            }
            None => self.refuse_connection(None, "a device that is not registered", connect).await,
        }
    }

    async fn connect_operator(
        &self,
        connect: &Connect<'_>,
        name: &str,
        password: &Password,
    ) -> Result<Connected, ConnectError> {
        let found = self.operator_by_key(&password.jkt).await?;
        let operator = found.filter(|operator| operator.name == name && password.who == name);
        let Some(operator) = operator else {
            return self.refuse_connection(None, "a key that is not this person's", connect).await;
        };
        let is_own = connect.client_id.strip_prefix("operator.").and_then(|rest| rest.strip_prefix(name));
        if !is_own.is_some_and(|rest| rest.starts_with('.')) {
            return self.refuse_connection(None, "a client id that is not its own", connect).await;
        }
        self.use_up(connect, password, None).await?;
        Ok(self.operator_connected(operator).await?)
    }

    async fn operator_connected(&self, operator: Operator) -> Result<Connected, StoreError> {
        let mut keys: Vec<Bytes32> = self.store.operator_keys(operator.id).await?.iter().map(|key| key.jkt).collect();
        keys.sort_unstable();
        let sees_all = operator.rights.reach() == Reach::Everywhere;
        Ok(Connected::Operator { name: operator.name, sees_all, keys })
    }

    /// A person who has a living key, with the roles that such a key has.
    async fn operator_with_key(&self, name: &str) -> Result<Option<Operator>, StoreError> {
        let Some(operator) = self.store.operator(name).await? else { return Ok(None) };
        match self.store.operator_keys(operator.id).await?.first() {
            Some(key) => self.operator_by_key(&key.jkt).await,
            None => Ok(None),
        }
    }

    async fn use_up(
        &self,
        connect: &Connect<'_>,
        password: &Password,
        device: Option<&Device>,
    ) -> Result<(), ConnectError> {
        match self.authenticator.use_password(password, self.now()) {
            Ok(()) => Ok(()),
            Err(Some(why)) => self.refuse_connection(device, why, connect).await.map(drop),
            Err(None) => Err(ConnectError::Unavailable),
        }
    }

    /// Who is behind a client id and a user name that a broker has let in, as we told it: for its questions about topics. Nobody if the device is not
    /// active any more.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn connected(&self, client_id: &str, user_name: &str) -> Result<Option<Connected>, StoreError> {
        if let Some(name) = user_name.strip_prefix("operator:") {
            let is_own = client_id.strip_prefix("operator.").and_then(|rest| rest.strip_prefix(name));
            if !is_own.is_some_and(|rest| rest.starts_with('.')) {
                return Ok(None);
            }
            return match self.operator_with_key(name).await? {
                Some(operator) => Ok(Some(self.operator_connected(operator).await?)),
                None => Ok(None),
            };
        }
        // By certificate, brokers may leave the user name out.
        let name = if user_name.is_empty() { client_id } else { user_name };
        let Ok(id) = DeviceId::new(name) else { return Ok(None) };
        if client_id == id.as_str() {
            let device = self.store.device(&id).await?.filter(|device| device.state == DeviceState::Active);
            let key = device.and_then(|device| device.key);
            return Ok(key.map(|key| Connected::Device { id, jkt: key.jkt }));
        }
        let rest = client_id.strip_prefix(id.as_str()).and_then(|rest| rest.strip_prefix('.'));
        let is_of_key = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_unpaired = rest
            .and_then(|rest| rest.split_at_checked(THUMBPRINT))
            .is_some_and(|(key, rest)| key.bytes().all(is_of_key) && is_end(rest));
        // Which key it was, the broker does not tell us any more; its rights don't depend on it.
        Ok(is_unpaired.then_some(Connected::Unpaired { id, jkt: [0; 32] }))
    }

    /// Is this the id of a registered device, in whatever state? Where other clients connect, too, it tells whose name is ours to judge.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_device(&self, name: &str) -> Result<bool, StoreError> {
        let Ok(id) = DeviceId::new(name) else { return Ok(false) };
        Ok(self.store.device(&id).await?.is_some())
    }

    /// Notes that a message over MQTT was refused, bounded.
    pub async fn note_message_refused(&self, device: Option<&DeviceId>, why: &str, peer: Option<IpAddr>) {
        self.note_refusal(Event::ConnectionRefused, device, &one_line(why), peer).await;
    }

    /// Notes that connections of one device push each other out.
    pub async fn note_flapping(&self, device: &DeviceId, peer: Option<IpAddr>) {
        let context = Context { now: self.now(), actor: Actor::Device(device.clone()), peer };
        self.note_bounded(Event::ConnectionsFlap, Some(device), "", &context).await;
    }

    /// Takes or renews a lease: of several nodes, the one that has it does something alone. `false` if another has it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn take_lease(&self, name: &str, holder: &str, lifetime: Duration) -> Result<bool, StoreError> {
        let now = self.now();
        self.store.take_lease(name, holder, now.plus(lifetime), now).await
    }

    /// Gives a lease up before its time.
    ///
    /// # Errors
    /// If the store fails; it then runs out.
    pub async fn drop_lease(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        self.store.drop_lease(name, holder).await
    }

    async fn refuse_connection(
        &self,
        device: Option<&Device>,
        why: &str,
        connect: &Connect<'_>,
    ) -> Result<Connected, ConnectError> {
        let detail = format!("'{}': {why}", one_line(connect.client_id));
        self.note_refusal(Event::ConnectionRefused, device.map(|device| &device.id), &detail, connect.peer).await;
        Err(ConnectError::Refused)
    }
}
