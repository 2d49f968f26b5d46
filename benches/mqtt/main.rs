//! What a sign-in costs over MQTT, beside polling: the same sign-ins, on one broker, in one run.
//!
//! `cargo bench --bench mqtt` prints one table. Options, after `--`: `--quick` (fewer sign-ins and rounds).
//!
//! # How to read the table
//!
//! Devices, broker and approver are in one process, over loopback sockets; the three ways take turns, round by round, so that whatever else the machine does hits
//! all of them. Each round signs all devices in at once.
//!
//! | way | a device |
//! | --- | --- |
//! | plain polls | asks every 5 seconds (RFC 8628 section 3.5); the person takes 20 seconds, which pass by the broker's clock and not by ours |
//! | held polls | asks with `Prefer: wait=25` (RFC 7240), and again when it has been told the number |
//! | MQTT | is told the number and when to ask; asks once |
//!
//! The devices' own work is on the same cores: over MQTT a sign-in costs two signatures and two checks of them more, of the events, and two requests or more less.
//!
//! **sign-ins/s** is the median over the rounds; **ratio** compares with held polls. Requests are those to `/device_authorization` and `/token`; messages are those that
//! the device gets over MQTT. Nothing is asserted: a busy machine must not fail a build.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pairgate::broker::approval::{Decided, Opened};
use pairgate::broker::pairing::Confirm;
use pairgate::broker::{Broker, Caller, Parts, Policy};
use pairgate::clock::{Clock, Timestamp};
use pairgate::config::Mqtt;
use pairgate::http::serve::Door;
use pairgate::http::{Edge, Sides, serve};
use pairgate::model::audit::Actor;
use pairgate::model::device::DeviceFacts;
use pairgate::model::operator::{Rights, Role};
use pairgate::secret::{MasterKey, Random};
use pairgate::simulator::{
    DeviceKey, MqttDoor, MqttLogin, MqttRadio, PairingStatus, SimulatedDevice, TokenAnswer, Wire,
};
use pairgate::store::{self, Decision, WindowSubject};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

/// Polls of a device whose person takes 20 seconds.
const PLAIN_POLLS: usize = 4;
/// Long enough for anything on loopback.
const SOON: Duration = Duration::from_secs(20);

/// How a device learns that it is decided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Held,
    Mqtt,
}

/// A device, its connection, and what it has sent and got in this round.
struct Device {
    device: SimulatedDevice,
    radio: MqttRadio,
    /// A person of its own: nobody may have more than five open at once.
    approver: Caller,
    requests: usize,
    messages: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Test runners that list start this file, too: a bench has nothing to say to them.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let (devices, rounds) = if arguments.iter().any(|argument| argument == "--quick") { (50, 3) } else { (200, 9) };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(bench(devices, rounds)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A broker by a clock that only we move, with its pages and its MQTT endpoint.
struct Stage {
    broker: Arc<Broker>,
    clock: Clock,
    issuer: String,
    mqtt: MqttDoor,
    _stop: watch::Sender<bool>,
    _data: tempfile::TempDir,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let issuer = format!("http://{}", listener.local_addr()?);
        let clock = Clock::manual(Timestamp::from_millis(1_795_500_000_000));
        let parts = Parts {
            store: store::open(data.path())?,
            master: MasterKey::new([7; 32]),
            issuer: issuer.parse()?,
            clock: clock.clone(),
            random: Random::system(),
            policy: Policy::default(),
        };
        let broker = Arc::new(Broker::open(parts, false).await?);
        let (stop, stopping) = watch::channel(false);
        let edge = Edge::new(Arc::clone(&broker), Vec::new(), false, stopping.clone());
        tokio::spawn(serve::serve(listener, Door::Plain, Sides::new(&edge), stopping.clone()));
        let radio = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let mqtt = MqttDoor::Plain("127.0.0.1".into(), radio.local_addr()?.port());
        pairgate::mqtt::Edge::start(&Mqtt::default(), &broker, Some((radio, None)), &stopping)?;
        Ok(Self { broker, clock, issuer, mqtt, _stop: stop, _data: data })
    }

    async fn approver(&self, number: usize) -> anyhow::Result<Caller> {
        let name = format!("approver-{number}");
        self.broker.add_operator(&Caller::command_line(), &name, Role::Approver).await?;
        let people = self.broker.operators().await?;
        let operator = people.iter().find(|person| person.name == name).context("an operator")?.id;
        Ok(Caller {
            actor: Actor::Operator(name),
            rights: Rights::everywhere(Role::Approver),
            operator: Some(operator),
            ..Caller::command_line()
        })
    }

    async fn paired(&self, number: usize, wire: &Wire) -> anyhow::Result<Device> {
        let (id, caller) = (format!("printer-{number:05}"), Caller::command_line());
        let facts = DeviceFacts { kind: "printer".into(), name: id.clone(), ..DeviceFacts::default() };
        self.broker.register_device(&caller, &id, facts).await?;
        let subject = WindowSubject::Device(pairgate::id::DeviceId::new(&id)?);
        self.broker.open_window(&caller, &subject, None).await?;
        let mut device = SimulatedDevice::new(&id, &self.issuer, DeviceKey::generate_es256()?, wire.clone());
        device.clock_offset_s = self.clock.now().seconds() - device.now_s();
        let shown = device.request_pairing().await?;
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await? else { bail!("not pending") };
        self.broker.confirm_pairing(&caller, &shown.pairing_id, &Confirm::Number(&digits)).await?;
        device.poll_pairing().await?;
        let login = MqttLogin::Password { is_paired: true };
        let radio = MqttRadio::open(&device, &self.mqtt, "pairgate", &login).await?;
        let approver = self.approver(number).await?;
        Ok(Device { device, radio, approver, requests: 0, messages: 0 })
    }

    /// The approver opens a code; the number that the device is then told.
    async fn claim(&self, approver: &Caller, code: &str) -> anyhow::Result<(pairgate::id::GrantId, String)> {
        let Opened::Claimed(grant) = self.broker.open_code(approver, code).await? else { bail!("not claimed") };
        let review = self.broker.review(approver, grant).await?;
        let number = review.grant.claim.and_then(|claim| claim.confirmation_number).context("a number")?;
        Ok((grant, number))
    }

    async fn approve(&self, approver: &Caller, grant: pairgate::id::GrantId, number: &str) -> anyhow::Result<()> {
        let review = self.broker.review(approver, grant).await?;
        match self.broker.decide(approver, grant, Decision::Approve, &review.shown, number).await? {
            Decided::Done => Ok(()),
            other => bail!("not approved: {other:?}"),
        }
    }
}

async fn bench(count: usize, rounds: usize) -> anyhow::Result<()> {
    let stage = Arc::new(Stage::set().await?);
    let wire = Wire::new()?;
    let mut devices = Vec::new();
    for number in 0..count {
        devices.push(stage.paired(number, &wire).await?);
    }
    let ways = [("plain polls, every 5 s", Way::Plain), ("held polls", Way::Held), ("MQTT", Way::Mqtt)];
    let mut seen: Vec<Vec<(f64, f64, f64)>> = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for (index, (_, way)) in ways.iter().enumerate() {
            for device in &mut devices {
                (device.requests, device.messages) = (0, 0);
                device.device.clock_offset_s += stage.clock.now().seconds() - device.device.now_s();
            }
            #[allow(clippy::disallowed_methods)] // a bench measures elapsed time
            let began = Instant::now();
            devices = all(&stage, devices, *way).await?;
            let per_second = count as f64 / began.elapsed().as_secs_f64();
            let per_sign_in = |total: usize| total as f64 / count as f64;
            let requests = per_sign_in(devices.iter().map(|device| device.requests).sum());
            let messages = per_sign_in(devices.iter().map(|device| device.messages).sum());
            // The first round warms up.
            if round > 0 {
                seen[index].push((per_second, requests, messages));
            }
            // A device has 60 codes in an hour.
            stage.clock.advance(Duration::from_secs(600));
        }
    }
    let median = |values: &[(f64, f64, f64)]| {
        let mut sorted: Vec<f64> = values.iter().map(|value| value.0).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let control = median(&seen[1]);
    println!("\n{count} devices sign in at once, median of {rounds} rounds\n");
    println!("{:<24} {:>12} {:>8} {:>14} {:>14}", "", "sign-ins/s", "ratio", "HTTP requests", "MQTT messages");
    for ((name, _), values) in ways.iter().zip(&seen) {
        let (_, requests, messages) = values[values.len() / 2];
        println!(
            "{name:<24} {:>12.0} {:>8.2} {requests:>14.1} {messages:>14.1}",
            median(values),
            median(values) / control
        );
    }
    println!("\nRequests and messages are per sign-in. Whoever waits longer polls more often; over MQTT, nobody does.");
    Ok(())
}

/// Signs all devices in, one way.
async fn all(stage: &Arc<Stage>, devices: Vec<Device>, way: Way) -> anyhow::Result<Vec<Device>> {
    let pause = Arc::new(Barrier::new(devices.len() + 1));
    let mut running = JoinSet::new();
    for device in devices {
        running.spawn(sign_in(Arc::clone(stage), device, way, Arc::clone(&pause)));
    }
    if way == Way::Plain {
        for _ in 0..PLAIN_POLLS {
            pause.wait().await;
            stage.clock.advance(Duration::from_secs(5));
            pause.wait().await;
        }
    }
    let mut done = Vec::new();
    while let Some(outcome) = running.join_next().await {
        done.push(outcome??);
    }
    Ok(done)
}

async fn sign_in(stage: Arc<Stage>, mut device: Device, way: Way, pause: Arc<Barrier>) -> anyhow::Result<Device> {
    device.requests += 1;
    let code = device.device.request_code(None, None).await?.user_code;
    let approver = device.approver.clone();
    match way {
        Way::Plain => {
            let mut number = None;
            for poll in 1..=PLAIN_POLLS {
                pause.wait().await;
                pause.wait().await;
                match (device.poll(None).await?, poll) {
                    (TokenAnswer::Pending { .. }, 1) => {}
                    // After ten seconds the person has the page open, after fifteen it has read the number.
                    (TokenAnswer::Pending { .. }, 2) => number = Some(stage.claim(&approver, &code).await?),
                    (TokenAnswer::Pending { confirmation_number: Some(_) }, 3) => {
                        let (grant, number) = number.take().context("a number")?;
                        stage.approve(&approver, grant, &number).await?;
                    }
                    (TokenAnswer::Tokens(_), PLAIN_POLLS) => {}
                    (other, poll) => bail!("poll {poll} was answered with {other:?}"),
                }
            }
        }
        Way::Held => {
            let (polled, claimed) = tokio::join!(device.poll(Some(25)), stage.claim(&approver, &code));
            let TokenAnswer::Pending { confirmation_number: Some(_) } = polled? else { bail!("no number") };
            let (grant, number) = claimed?;
            let (polled, approved) = tokio::join!(device.poll(Some(25)), stage.approve(&approver, grant, &number));
            approved?;
            let TokenAnswer::Tokens(_) = polled? else { bail!("no tokens") };
        }
        Way::Mqtt => {
            let (grant, number) = stage.claim(&approver, &code).await?;
            anyhow::ensure!(device.told("confirmation_number").await?.as_ref() == Some(&number), "another number");
            stage.approve(&approver, grant, &number).await?;
            device.told("poll_now").await?;
            let TokenAnswer::Tokens(_) = device.poll(None).await? else { bail!("no tokens") };
        }
    }
    Ok(device)
}

impl Device {
    async fn poll(&mut self, wait: Option<u32>) -> anyhow::Result<TokenAnswer> {
        self.requests += 1;
        Ok(self.device.poll_token(wait).await?)
    }

    async fn told(&mut self, event: &str) -> anyhow::Result<Option<String>> {
        let told = self.radio.told(&self.device, SOON).await.context("nothing was told")?;
        anyhow::ensure!(told.event == event, "told {} in place of {event}", told.event);
        self.messages += 1;
        Ok(told.number)
    }
}
