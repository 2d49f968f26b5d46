//! MQTT at a broker under test: its own endpoint, and devices whose clock goes with the broker's.

use std::sync::Arc;

use pairgate::config::Mqtt;
use pairgate::mqtt::Edge;
use pairgate::simulator::{MqttDoor, MqttLogin, MqttRadio, SimulatedDevice};
use pairgate::tls::files::CertificateFiles;
use pairgate::tls::local_ca::LocalCa;
use pairgate::tls::server::TlsDoor;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::TestBroker;

pub const PREFIX: &str = "pairgate";

/// What runs beside a [`TestBroker`].
pub struct TestMqtt {
    pub edge: Edge,
    pub port: u16,
    stop: watch::Sender<bool>,
}

impl TestMqtt {
    /// The broker's own endpoint, in clear.
    pub async fn embedded(test: &TestBroker) -> Self {
        Self::start(test, Some(None), Mqtt::default()).await
    }

    /// The same with TLS, where clients may show a certificate.
    pub async fn embedded_tls(test: &TestBroker) -> Self {
        let ca = LocalCa::in_data(test.data.path());
        let files = CertificateFiles::open(&ca.certificate(), &ca.key()).unwrap();
        Self::start(test, Some(Some(Arc::new(TlsDoor::mqtt(files).unwrap()))), Mqtt::default()).await
    }

    /// What configuration says of an outside broker.
    pub async fn outside(test: &TestBroker, config: Mqtt) -> Self {
        Self::start(test, None, config).await
    }

    async fn start(test: &TestBroker, door: Option<Option<Arc<TlsDoor>>>, config: Mqtt) -> Self {
        let (stop, stopping) = watch::channel(false);
        let listener = match door {
            Some(door) => Some((TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), door)),
            None => None,
        };
        let port = listener.as_ref().map_or(0, |(listener, _)| listener.local_addr().unwrap().port());
        let edge = Edge::start(&config, &test.broker, listener, &stopping).unwrap();
        Self { edge, port, stop }
    }

    pub fn door(&self) -> MqttDoor {
        MqttDoor::Plain("127.0.0.1".into(), self.port)
    }

    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.edge.ended().await;
    }

    /// A device's connection, by its signed password.
    pub async fn radio(&self, device: &SimulatedDevice, is_paired: bool) -> MqttRadio {
        MqttRadio::open(device, &self.door(), PREFIX, &MqttLogin::Password { is_paired }).await.unwrap()
    }
}

/// Sets the device's clock by the broker's: in tests that one stands still, a while ago.
pub fn in_step(mut device: SimulatedDevice, test: &TestBroker) -> SimulatedDevice {
    device.clock_offset_s += test.clock.now().seconds() - device.now_s();
    device
}
