//! Ten thousand MQTT clients at the real program: bounded memory, and devices that are known are still served.

use std::net::SocketAddr;
use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::v5_0;
use pairgate::simulator::{DeviceKey, MqttDoor, MqttLogin, MqttRadio, SimulatedDevice, TokenAnswer, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::child::{self, Served, free_port};

/// Clients in all; each has two sockets on this machine.
const CLIENTS: usize = 10_000;
/// Of those, paired devices.
const PAIRED: usize = 40;
/// Attempts under way at a time.
const AT_ONCE: usize = 200;
/// What a connection may cost, in KiB.
const PER_CONNECTION: u64 = 32;
const SOON: Duration = Duration::from_secs(20);

/// What the kernel says of the process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// The first byte of the answer to a CONNECT, and its reason code; `None` if the server only closed.
async fn connect(stream: &mut TcpStream, device: &SimulatedDevice, is_paired: bool) -> Option<u8> {
    let connect = v5_0::Connect::builder()
        .client_id(device.mqtt_client_id(is_paired))
        .and_then(|connect| connect.user_name(device.id.clone()))
        .and_then(|connect| connect.password(device.mqtt_password().unwrap().into_bytes()))
        .and_then(|connect| connect.clean_start(true).keep_alive(300).build())
        .unwrap();
    stream.write_all(&connect.to_continuous_buffer()).await.ok()?;
    let mut answer = [0; 4];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.ok()?;
    read.is_ok().then_some(answer[3])
}

/// What became of many attempts.
#[derive(Default)]
struct Outcome {
    streams: Vec<TcpStream>,
    taken: usize,
    refused: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mqtt_clients_cost_bounded_memory_and_shut_nobody_out_a_091() {
    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!("log = 'error'\n[mqtt]\nlisten = '127.0.0.1:{port}'\n");
    std::fs::write(data.path().join("pairgate.toml"), config).unwrap();
    let served = Served::start(data.path(), free_port());
    let approver = served.operator(data.path(), "dana").await;
    let mut known = Vec::new();
    for index in 0..PAIRED {
        known.push(served.paired(data.path(), &format!("printer-{index}")).await);
    }
    let before = resident(served.id());

    // Strangers with keys of their own, as many as there is room for and many more; a third says nothing at all.
    let key = DeviceKey::generate_es256().unwrap();
    let (pkcs8, wire, issuer) = (key.to_pkcs8_b64u().unwrap(), Wire::new().unwrap(), served.issuer.clone());
    let mut running = JoinSet::new();
    let mut outcome = Outcome::default();
    for index in 0..CLIENTS - PAIRED {
        if running.len() >= AT_ONCE {
            collect(&mut outcome, running.join_next().await.unwrap().unwrap());
        }
        let key = DeviceKey::from_pkcs8_b64u("ES256", &pkcs8).unwrap();
        let device = SimulatedDevice::new(&format!("stranger-{index}"), &issuer, key, wire.clone());
        running.spawn(async move {
            let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.ok()?;
            let code = if index % 3 == 0 { None } else { connect(&mut stream, &device, false).await };
            Some((stream, code))
        });
    }
    while let Some(one) = running.join_next().await {
        collect(&mut outcome, one.unwrap());
    }
    assert!(outcome.taken > 0 && outcome.refused > 0, "{} taken, {} refused", outcome.taken, outcome.refused);
    assert!(outcome.taken < CLIENTS / 2, "strangers have a budget of their own: {} were taken", outcome.taken);

    // Meanwhile every device that is known gets in, is told, and signs in.
    let mut radios = Vec::new();
    for device in &known {
        let door = MqttDoor::Plain("127.0.0.1".into(), port);
        radios
            .push(MqttRadio::open(device, &door, "pairgate", &MqttLogin::Password { is_paired: true }).await.unwrap());
    }
    for (device, radio) in known.iter_mut().zip(&mut radios).take(3) {
        let code = device.request_code(None, None).await.unwrap();
        let page = approver.claim(&code.verification_uri_complete).await.unwrap();
        let told = radio.told(device, SOON).await.unwrap();
        approver.approve(&page, &told.number.unwrap()).await.unwrap();
        assert_eq!(radio.told(device, SOON).await.unwrap().event, "poll_now");
        assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
    }
    let grown = resident(served.id()).saturating_sub(before);
    let connections = u64::try_from(outcome.streams.len() + PAIRED).unwrap();
    println!("{} taken, {} turned away; {grown} KiB for {connections} connections", outcome.taken, outcome.refused);
    assert!(grown < connections * PER_CONNECTION, "{grown} KiB for {connections} connections");
    drop(outcome);
    child::json(data.path(), &["audit", "verify"]);
}

fn collect(outcome: &mut Outcome, one: Option<(TcpStream, Option<u8>)>) {
    let Some((stream, code)) = one else { return };
    match code {
        Some(0) => outcome.taken += 1,
        _ => outcome.refused += 1,
    }
    outcome.streams.push(stream);
}
