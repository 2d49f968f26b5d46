//! A broker under test: real sockets, real signatures, SQLite on disk, a clock that only the test moves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pairgate::broker::{Broker, Caller, Parts, Policy};
use pairgate::clock::{Clock, Timestamp};
use pairgate::config::Config;
use pairgate::config::mqtt::Mqtt;
use pairgate::config::policy::PolicyTables;
use pairgate::device_auth::mtls::ClientTrust;
use pairgate::http::mqtt_hooks::Hooks;
use pairgate::http::serve::Door;
use pairgate::http::{Edge, Sides, serve};
use pairgate::model::audit::Record;
use pairgate::model::device::DeviceFacts;
use pairgate::model::kind::Kind;
use pairgate::model::operator::Role;
use pairgate::model::resource::Resource;
use pairgate::model::site::Site;
use pairgate::oauth::roots::Roots;
use pairgate::oauth::signing_key::SigningAlgorithm;
use pairgate::secret::{MasterKey, Random};
use pairgate::simulator::{
    DeviceKey, PageOperator, PairingStatus, RawAnswer, SimulatedDevice, TokenAnswer, Tokens, Wire,
};
use pairgate::store::{self, AuditQuery, WindowSubject};
use pairgate::tls::files::CertificateFiles;
use pairgate::tls::local_ca::LocalCa;
use pairgate::tls::server::{HANDSHAKE_TIMEOUT, TlsDoor};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub mod authenticator;
pub mod child;
pub mod chromium;
pub mod maker;
pub mod marked;
pub mod mosquitto;
pub mod mqtt;
pub mod openid;
pub mod pebble;
pub mod probe;
pub mod program;
pub mod visitor;

/// When every test begins.
pub const START: Timestamp = Timestamp::from_millis(1_795_500_000_000);

/// What may differ from the defaults.
pub struct Setup {
    pub kinds: Vec<Kind>,
    pub resources: Vec<Resource>,
    /// What pairgate.toml says of kinds and resources.
    pub file: PolicyTables,
    pub has_tls: bool,
    /// The issuer is `localhost`: browsers have passkeys there.
    pub is_localhost: bool,
    pub client_ca: Vec<Vec<u8>>,
    pub client_crl: Vec<Vec<u8>>,
    pub client_cert_header: bool,
    pub handshake_timeout: Duration,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub attestation_roots: Roots,
    pub signing_algorithms: BTreeSet<SigningAlgorithm>,
    /// The administration API beside the pages.
    pub has_api: bool,
    /// May the first run write an address?
    pub has_address_file: bool,
    pub sso: Option<pairgate::config::Sso>,
    /// With a secret for brokers, their questions are answered.
    pub mqtt: Option<Mqtt>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kinds: Config::default().kinds,
            resources: Vec::new(),
            file: PolicyTables::default(),
            has_tls: false,
            is_localhost: false,
            client_ca: Vec::new(),
            client_crl: Vec::new(),
            client_cert_header: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            trusted_proxies: Vec::new(),
            attestation_roots: Roots::default(),
            signing_algorithms: BTreeSet::from([SigningAlgorithm::Es256]),
            has_api: false,
            has_address_file: false,
            sso: None,
            mqtt: None,
        }
    }
}

/// A running broker.
pub struct TestBroker {
    pub broker: Arc<Broker>,
    pub clock: Clock,
    pub issuer: String,
    /// Base of the side for client certificates.
    pub mtls: String,
    pub wire: Wire,
    pub data: Arc<tempfile::TempDir>,
    pub setup: Setup,
    stop: watch::Sender<bool>,
    serving: Vec<tokio::task::JoinHandle<()>>,
}

impl TestBroker {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// At an address with a name, where browsers have passkeys.
    pub async fn at_localhost() -> Self {
        Self::with(Setup { is_localhost: true, ..Setup::default() }).await
    }

    /// With one kind changed.
    pub async fn with_kind(id: &str, change: impl FnOnce(&mut Kind)) -> Self {
        let mut setup = Setup::default();
        change(setup.kinds.iter_mut().find(|kind| kind.id == id).expect("a built-in kind"));
        Self::with(setup).await
    }

    pub async fn with(setup: Setup) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        Self::on(data, SocketAddr::from(([127, 0, 0, 1], 0)), Clock::manual(START), setup).await
    }

    /// Over TLS, by a local authority, with a side for client certificates: as an installation without a proxy.
    pub async fn with_tls(setup: Setup) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        // By the real clock: what a client thinks of the certificate is its own affair.
        let now = Clock::system().now();
        LocalCa::in_data(data.path()).init(&["127.0.0.1".into(), "localhost".into()], now, false).unwrap();
        Self::on(data, address, Clock::manual(START), Setup { has_tls: true, ..setup }).await
    }

    /// On an existing data directory, as after a restart.
    pub async fn on(data: Arc<tempfile::TempDir>, address: SocketAddr, clock: Clock, setup: Setup) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let mtls_listener = TcpListener::bind((address.ip(), 0)).await.unwrap();
        let scheme = if setup.has_tls { "https" } else { "http" };
        let local = listener.local_addr().unwrap();
        let issuer = if setup.is_localhost {
            format!("{scheme}://localhost:{}", local.port())
        } else {
            format!("{scheme}://{local}")
        };
        let mtls = format!("https://{}", mtls_listener.local_addr().unwrap());
        let ca = LocalCa::in_data(data.path());
        let mut client_trust = ClientTrust::default();
        setup.client_ca.iter().for_each(|pem| client_trust.add_authorities(pem).unwrap());
        setup.client_crl.iter().for_each(|pem| client_trust.add_revoked(pem).unwrap());
        let policy = Policy {
            kinds: setup.kinds.clone(),
            resources: setup.resources.clone(),
            file: setup.file.clone(),
            mtls_url: (setup.has_tls || setup.client_cert_header).then(|| mtls.parse().unwrap()),
            client_trust,
            attestation_roots: setup.attestation_roots.clone(),
            signing_algorithms: setup.signing_algorithms.clone(),
            signing_key_lifetime: Config::default().signing_key_lifetime,
            address_file: setup.has_address_file.then(|| Config::load(None, Some(data.path())).unwrap().address_file),
            ca_pem: ca.ca_pem().ok(),
            sso: setup.sso.clone(),
        };
        let parts = Parts {
            store: store::open(data.path()).unwrap(),
            master: MasterKey::new([7; 32]),
            issuer: issuer.parse().unwrap(),
            clock: clock.clone(),
            random: Random::system(),
            policy,
        };
        let broker = Arc::new(Broker::open(parts, false).await.unwrap());
        let (stop, stopping) = watch::channel(false);
        let edge =
            Edge::new(Arc::clone(&broker), setup.trusted_proxies.clone(), setup.client_cert_header, stopping.clone());
        let sides = if setup.has_api { Sides::with_api(&edge) } else { Sides::new(&edge) };
        let sides = match setup.mqtt.as_ref().and_then(|mqtt| Hooks::load(mqtt).unwrap()) {
            Some(hooks) => sides.with_hooks(&edge, hooks),
            None => sides,
        };
        let (mut door, mut wire) = (Door::Plain, Wire::new().unwrap());
        let mut serving = Vec::new();
        if setup.has_tls {
            let files = CertificateFiles::open(&ca.certificate(), &ca.key()).unwrap();
            let tls = TlsDoor::main(files.clone(), Some("mtls.localhost".into())).unwrap();
            door = Door::Tls(Arc::new(tls.with_timeout(setup.handshake_timeout)));
            let mtls_door = Door::Tls(Arc::new(TlsDoor::mtls(files).unwrap()));
            serving.push(tokio::spawn(serve::serve(mtls_listener, mtls_door, sides.clone(), stopping.clone())));
            wire = Wire::with_tls(&ca.ca_pem().unwrap(), None).unwrap();
        }
        serving.push(tokio::spawn(serve::serve(listener, door, sides, stopping)));
        Self { broker, clock, issuer, mtls, wire, data, setup, stop, serving }
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> String {
        LocalCa::in_data(self.data.path()).ca_pem().unwrap()
    }

    /// Stops, and starts again on the same data, address and clock.
    pub async fn restart(self) -> Self {
        let Self { broker, clock, issuer, data, setup, stop, serving, .. } = self;
        stop.send(true).unwrap();
        for serving in serving {
            serving.await.unwrap();
        }
        drop(broker);
        let address = issuer.split_once("://").unwrap().1.replace("localhost", "127.0.0.1").parse().unwrap();
        Self::on(data, address, clock, setup).await
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// A signed-in operator, in front of the pages.
    pub async fn operator(&self, name: &str, role: Role) -> PageOperator {
        self.broker.add_operator(&Caller::command_line(), name, role).await.unwrap();
        let link = self.broker.operator_link(&Caller::command_line(), name).await.unwrap();
        let operator = PageOperator::new(&self.issuer, self.wire.clone()).unwrap();
        operator.sign_in(&link).await.unwrap();
        operator
    }

    /// Registers a device, as facilities would.
    pub async fn register(&self, id: &str, kind: &str) {
        let facts = DeviceFacts {
            kind: kind.into(),
            name: format!("Device {id}"),
            room: "EG-01".into(),
            ..DeviceFacts::default()
        };
        self.broker.register_device(&Caller::command_line(), id, facts).await.unwrap();
    }

    pub async fn open_window(&self, id: &str) {
        let subject = WindowSubject::Device(id.parse_id());
        self.broker.open_window(&Caller::command_line(), &subject, None).await.unwrap();
    }

    /// A device with a new key that nobody knows.
    pub fn stranger(&self, id: &str) -> SimulatedDevice {
        SimulatedDevice::new(id, &self.issuer, DeviceKey::generate_es256().unwrap(), self.wire.clone())
    }

    /// A device that is registered and paired, over HTTP, by number.
    pub async fn paired(&self, id: &str, kind: &str) -> SimulatedDevice {
        self.register(id, kind).await;
        let mut device = self.stranger(id);
        self.pair(&mut device).await;
        device
    }

    pub async fn pair(&self, device: &mut SimulatedDevice) {
        self.open_window(&device.id).await;
        let shown = device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        let confirm = pairgate::broker::pairing::Confirm::Number(&digits);
        self.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &confirm).await.unwrap();
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    }

    /// One poll that must be pending; the confirmation number, if there is one.
    pub async fn pending(&self, device: &mut SimulatedDevice) -> Option<String> {
        match device.poll_token(None).await.unwrap() {
            TokenAnswer::Pending { confirmation_number } => confirmation_number,
            other => panic!("not pending: {other:?}"),
        }
    }

    /// Claims and approves a code that the device has asked for, with the number it shows; the path of the approve page.
    pub async fn approve(
        &self,
        operator: &PageOperator,
        device: &mut SimulatedDevice,
        verification_uri_complete: &str,
    ) -> String {
        let path = operator.claim(verification_uri_complete).await.unwrap();
        self.advance(60);
        let number = self.pending(device).await.expect("a confirmation number");
        operator.approve(&path, &number).await.unwrap();
        self.advance(60);
        path
    }

    /// The whole way: code, approval, tokens.
    pub async fn signed_in(&self, operator: &PageOperator, device: &mut SimulatedDevice) -> Tokens {
        let code = device.request_code(None, None).await.unwrap();
        self.approve(operator, device, &code.verification_uri_complete).await;
        match device.poll_token(None).await.unwrap() {
            TokenAnswer::Tokens(tokens) => tokens,
            other => panic!("no tokens: {other:?}"),
        }
    }

    pub async fn set_networks(&self, networks: &[&str]) {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        let site = Site { networks, ..Site::plain("default", "Berlin HQ") };
        self.broker.set_site(&Caller::command_line(), None, site).await.unwrap();
    }

    /// All audit records, oldest first.
    pub async fn records(&self) -> Vec<Record> {
        self.broker
            .audit(&Caller::command_line(), &AuditQuery { after: Some(0), limit: 1000, ..AuditQuery::default() })
            .await
            .unwrap()
    }

    /// How often an event was recorded.
    pub async fn count(&self, event: &str) -> usize {
        self.records().await.iter().filter(|record| record.event == event).count()
    }
}

/// A plain POST of a form with exactly these headers.
pub async fn post(wire: &Wire, url: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> RawAnswer {
    let mut request = wire.post(url).form(fields);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    wire.send(request).await.unwrap()
}

trait ParseId {
    fn parse_id(&self) -> pairgate::id::DeviceId;
}

impl ParseId for str {
    fn parse_id(&self) -> pairgate::id::DeviceId {
        pairgate::id::DeviceId::new(self).unwrap()
    }
}
