//! Ten thousand MQTT clients at the real program: bounded memory, and devices that are known are still served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::v5_0;
use pairgate::simulator::{DeviceKey, MqttDoor, MqttLogin, MqttRadio, Pins, SimulatedDevice, TokenAnswer, Wire};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::child::{self, Served, free_port};

/// Paired devices that are connected and do nothing.
const PAIRED: usize = 5_900;
/// Strangers with keys of their own who are let in to ask for a pairing, from so many addresses; and those for whom there is no more room.
const STRANGERS: (usize, usize, usize) = (4_096, 9, 400);
/// Whoever says nothing at all.
const SILENT: usize = 400;
/// Paired devices that come last, when all the others are there.
const LATE: usize = 20;
/// Attempts under way at a time.
const AT_ONCE: usize = 200;
/// What a connection may cost, in KiB.
const PER_CONNECTION: u64 = 32;
const SOON: Duration = Duration::from_secs(20);

/// As many sockets as this test needs must be allowed to a process.
fn may_open(files: usize) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft = line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    assert!(soft >= files, "a process may have {soft} open files here; this test needs {files}: ulimit -n {files}");
}

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

/// Writes devices into the database of a broker that does not run, paired with these keys: to pair thousands by hand is another test.
fn enrol(data: &Path, devices: &[SimulatedDevice]) {
    let mut database = rusqlite::Connection::open(data.join("pairgate.db")).unwrap();
    let transaction = database.transaction().unwrap();
    for device in devices {
        let jkt = device.key.thumbprint();
        transaction
            .execute(
                "INSERT INTO devices (id, state, kind, site, name, serial, asset_tag, maker, model, room, note, registered_at, jkt, paired_at, paired_by) \
                 VALUES (?, 'active', 'printer', 'default', 'Printer', '', '', '', '', '', '', 1795000000000, ?, 1795000000000, 'command-line')",
                rusqlite::params![device.id, jkt],
            )
            .unwrap();
        transaction
            .execute(
                "INSERT INTO device_keys (jkt, device, jwk, state, added_at) VALUES (?, ?, ?, 'current', 1795000000000)",
                rusqlite::params![jkt, transaction.last_insert_rowid(), device.key.jwk().to_string()],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
}

/// A connection from this address of the machine.
async fn dial(from: u8, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 1, from], 0))).unwrap();
    socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap()
}

/// Connects all of them, some at a time; the connections, each with its reason code.
async fn connect_all(
    devices: Vec<SimulatedDevice>,
    port: u16,
    is_paired: bool,
    from: impl Fn(usize) -> u8,
) -> (Vec<TcpStream>, BTreeMap<Option<u8>, usize>) {
    let (mut streams, mut codes) = (Vec::new(), BTreeMap::new());
    let mut running = JoinSet::new();
    for (index, device) in devices.into_iter().enumerate() {
        if running.len() >= AT_ONCE {
            let (stream, code) = running.join_next().await.unwrap().unwrap();
            streams.push(stream);
            *codes.entry(code).or_default() += 1;
        }
        let from = from(index);
        running.spawn(async move {
            let mut stream = dial(from, port).await;
            let code = connect(&mut stream, &device, is_paired).await;
            (stream, code)
        });
    }
    for (stream, code) in running.join_all().await {
        streams.push(stream);
        *codes.entry(code).or_default() += 1;
    }
    (streams, codes)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mqtt_clients_cost_bounded_memory_and_shut_nobody_out_a_091() {
    may_open(12_000);
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let (port, http) = (free_port(), free_port());
    std::fs::write(data.join("pairgate.toml"), format!("log = 'error'\n[mqtt]\nlisten = '127.0.0.1:{port}'\n"))
        .unwrap();
    let first = Served::start(data, http);
    let (issuer, wire) = (first.issuer.clone(), Wire::new().unwrap());
    assert!(first.stopped().success());
    let simulated = |id: String, key: DeviceKey| SimulatedDevice::new(&id, &issuer, key, wire.clone());
    let new = |name: &str, count: usize| -> Vec<SimulatedDevice> {
        (0..count).map(|index| simulated(format!("{name}-{index}"), DeviceKey::generate_es256().unwrap())).collect()
    };
    let (quiet, late) = (new("quiet", PAIRED), new("late", LATE));
    enrol(data, &quiet);
    enrol(data, &late);
    let served = Served::start(data, http);
    let approver = served.operator(data, "dana").await;
    let before = resident(served.id());

    let (paired, codes) = connect_all(quiet, port, true, |_| 100).await;
    assert_eq!(codes, BTreeMap::from([(Some(0), PAIRED)]));
    let (room, addresses, more) = STRANGERS;
    let key = DeviceKey::generate_es256().unwrap().to_pkcs8_b64u().unwrap();
    let strangers: Vec<SimulatedDevice> = (0..room + more)
        .map(|index| simulated(format!("stranger-{index}"), DeviceKey::from_pkcs8_b64u("ES256", &key).unwrap()))
        .collect();
    let from = |index: usize| u8::try_from(index % addresses).unwrap();
    let (unpaired, codes) = connect_all(strangers, port, false, from).await;
    // 0x89: server busy.
    assert_eq!(codes, BTreeMap::from([(Some(0), room), (Some(0x89), more)]));
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(dial(200, port).await);
    }

    // All of them are there. Every device that is known still gets in, is told, and signs in.
    let mut late = late;
    let mut radios = Vec::new();
    for device in &late {
        let door = MqttDoor::Plain("127.0.0.1".into(), port);
        let login = MqttLogin::Password { is_paired: true };
        radios.push(MqttRadio::open(device, &door, "pairgate", &login).await.unwrap());
    }
    for (device, radio) in late.iter_mut().zip(&mut radios).take(3) {
        device.pins = Some(Pins { issuer: issuer.clone(), jwks: json!({"keys": []}), ca: None });
        device.pin_again().await.unwrap();
        let code = device.request_code(None, None).await.unwrap();
        let page = approver.claim(&code.verification_uri_complete).await.unwrap();
        let told = radio.told(device, SOON).await.unwrap();
        approver.approve(&page, &told.number.unwrap()).await.unwrap();
        assert_eq!(radio.told(device, SOON).await.unwrap().event, "poll_now");
        assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
    }
    let connections = u64::try_from(PAIRED + room + SILENT + LATE).unwrap();
    let grown = resident(served.id()).saturating_sub(before);
    println!("{grown} KiB for {connections} connections at once");
    assert!(grown < connections * PER_CONNECTION, "{grown} KiB for {connections} connections");
    drop((paired, unpaired, silent));
    child::json(data, &["audit", "verify"]);
}
