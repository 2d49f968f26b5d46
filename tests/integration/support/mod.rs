//! A broker under test: real sockets, real signatures, SQLite on disk, a clock that only the test moves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pairgate::broker::{Broker, Caller, Parts};
use pairgate::clock::{Clock, Timestamp};
use pairgate::config::Config;
use pairgate::http::{Edge, router, serve};
use pairgate::model::audit::Record;
use pairgate::model::device::DeviceFacts;
use pairgate::model::kind::Kind;
use pairgate::model::operator::Role;
use pairgate::model::site::Site;
use pairgate::oauth::signing_key::SigningAlgorithm;
use pairgate::secret::{MasterKey, Random};
use pairgate::simulator::{
    DeviceKey, PageOperator, PairingStatus, RawAnswer, SimulatedDevice, TokenAnswer, Tokens, Wire,
};
use pairgate::store::{self, AuditQuery, WindowSubject};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub mod child;
pub mod chromium;
pub mod probe;
pub mod visitor;

/// When every test begins.
pub const START: Timestamp = Timestamp::from_millis(1_795_500_000_000);

/// What may differ from the defaults.
pub struct Setup {
    pub kinds: Vec<Kind>,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub signing_algorithms: BTreeSet<SigningAlgorithm>,
}

impl Default for Setup {
    fn default() -> Self {
        let signing_algorithms = BTreeSet::from([SigningAlgorithm::Es256]);
        Self { kinds: Config::default().kinds, trusted_proxies: Vec::new(), signing_algorithms }
    }
}

/// A running broker.
pub struct TestBroker {
    pub broker: Arc<Broker>,
    pub clock: Clock,
    pub issuer: String,
    pub wire: Wire,
    pub data: Arc<tempfile::TempDir>,
    setup: Setup,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl TestBroker {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
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

    /// On an existing data directory, as after a restart.
    pub async fn on(data: Arc<tempfile::TempDir>, address: SocketAddr, clock: Clock, setup: Setup) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let parts = Parts {
            store: store::open(data.path()).unwrap(),
            master: MasterKey::new([7; 32]),
            issuer: issuer.parse().unwrap(),
            kinds: setup.kinds.clone(),
            signing_algorithms: setup.signing_algorithms.clone(),
            signing_key_lifetime: Config::default().signing_key_lifetime,
            clock: clock.clone(),
            random: Random::system(),
        };
        let broker = Arc::new(Broker::open(parts, false).await.unwrap());
        let (stop, stopping) = watch::channel(false);
        let edge = Edge::new(Arc::clone(&broker), setup.trusted_proxies.clone(), stopping.clone());
        let serving = tokio::spawn(serve::serve(listener, router(edge), stopping));
        Self { broker, clock, issuer, wire: Wire::new().unwrap(), data, setup, stop, serving }
    }

    /// Stops, and starts again on the same data, address and clock.
    pub async fn restart(self) -> Self {
        let Self { broker, clock, issuer, data, setup, stop, serving, .. } = self;
        stop.send(true).unwrap();
        serving.await.unwrap();
        drop(broker);
        let address = issuer.strip_prefix("http://").unwrap().parse().unwrap();
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
        let site = Site { id: "default".into(), name: "Berlin HQ".into(), networks };
        self.broker.set_site(&Caller::command_line(), site).await.unwrap();
    }

    /// All audit records, oldest first.
    pub async fn records(&self) -> Vec<Record> {
        self.broker.audit(&AuditQuery { after: Some(0), limit: 1000, ..AuditQuery::default() }).await.unwrap()
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
