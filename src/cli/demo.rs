//! `pairgate demo`: a story in ten steps, played for real on this machine, and checked while it is told.
//!
//! A broker on loopback, a simulated printer, an operator (you, in the browser; or the simulator's, in the same pages)
//! and a thief. Every step that does not happen as it is told ends the demo with that step's number and exit code 1.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::broker::Caller;
use crate::config::mqtt::place;
use crate::config::{Config, Mqtt};
use crate::model::operator::Role;
use crate::simulator::routine::{self, DeviceEvent};
use crate::simulator::screen::grouped;
use crate::simulator::story::{Ending, Story};
use crate::simulator::{
    DeviceForm, DeviceKey, MqttDoor, MqttLogin, MqttRadio, PageOperator, SimulatedDevice, SimulatorError, TokenAnswer,
    Tokens, Wire,
};

const PRINTER: &str = "lobby-printer-01";
const SERIAL: &str = "VNB3K12345";
/// The client id of Microsoft's Authentication Broker, which the phishing campaigns since 2024 ask for codes with.
const PHISHING_CLIENT_ID: &str = "29d9ed98-a469-4536-ade2-f981bc1d605e";

/// See a device get paired and sign in, and a thief get nothing.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Do the operator's part too; otherwise you do it in the browser
    #[arg(long)]
    auto: bool,
    /// The printer is paired and told over MQTT, at an endpoint of the broker's own
    #[arg(long)]
    mqtt: bool,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
}

/// Runs the command.
pub async fn run(args: DemoArgs, data: Option<PathBuf>, json: bool) -> anyhow::Result<ExitCode> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let is_auto = args.auto || json || !is_terminal;
    let mut story = Story::new(json);
    story.opening(is_auto);
    story.step(1, "The broker starts");
    let outcome = match Stage::set(&args, data.as_deref()).await {
        Ok(stage) => {
            let cast = Cast { is_auto, stage };
            let outcome = tokio::select! {
                outcome = tell(&cast, &mut story) => outcome,
                _ = tokio::signal::ctrl_c() => Ok(Ending::Stopped),
            };
            cast.stage.clear().await;
            outcome
        }
        Err(error) => Err(error),
    };
    let ending = outcome.unwrap_or_else(|error| Ending::Failed(format!("{error:#}")));
    story.end(&ending);
    Ok(if matches!(ending, Ending::AsTold) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that the demo needs of the broker itself. All the rest goes over HTTP.
struct Stage {
    running: crate::cli::serve::Running,
    issuer: String,
    data: PathBuf,
    is_kept: bool,
    _folder: Option<tempfile::TempDir>,
}

impl Stage {
    async fn set(args: &DemoArgs, data: Option<&Path>) -> anyhow::Result<Self> {
        let (data, folder) = match data {
            Some(data) => (data.to_owned(), None),
            None => {
                let folder = tempfile::tempdir().context("no temporary directory can be made")?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], args.port));
        let mqtt_listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let mqtt = args.mqtt.then(|| Mqtt { listen: Some(mqtt_listen), ..Mqtt::default() });
        let config = Config { data: data.clone(), listen, mqtt, ..Config::default() };
        let running = crate::cli::serve::start(config, false).await?;
        let issuer = running.issuer().as_str().trim_end_matches('/').to_owned();
        Ok(Self { running, issuer, data, is_kept: folder.is_none(), _folder: folder })
    }

    /// Where the printer connects over MQTT, if it does.
    fn mqtt_door(&self) -> Option<MqttDoor> {
        let (host, port, _) = place(self.running.mqtt_url()?).ok()?;
        Some(MqttDoor::Plain(host, port))
    }

    /// A sign-in link for an operator of this name, who is added first if need be.
    async fn operator_link(&self, name: &str) -> anyhow::Result<String> {
        let (broker, caller) = (self.running.broker(), Caller::command_line());
        if !broker.operators().await?.iter().any(|operator| operator.name == name) {
            broker.add_operator(&caller, name, Role::Admin).await?;
        }
        Ok(broker.operator_link(&caller, name).await?)
    }

    /// Checks the audit chain; the number of its entries.
    async fn audit_verify(&self) -> anyhow::Result<i64> {
        let verdict = self.running.broker().audit_verify().await?;
        match verdict.first_bad {
            Some(bad) => bail!("audit entry {bad} is bad"),
            None => Ok(verdict.records),
        }
    }

    async fn clear(self) {
        self.running.stop().await;
    }
}

struct Cast {
    stage: Stage,
    is_auto: bool,
}

/// The ten steps, in order; each returns what the next one needs.
async fn tell(cast: &Cast, story: &mut Story) -> anyhow::Result<Ending> {
    let issuer = &cast.stage.issuer;
    let kept = if cast.stage.is_kept { cast.stage.data.display().to_string() } else { "a temporary directory".into() };
    story.line("broker", &format!("listens on {issuer} and keeps its data in {kept}"));
    if let Some(url) = cast.stage.running.mqtt_url() {
        story.line(
            "broker",
            &format!("takes devices over MQTT at {url}; the bytes are believed only where they are signed"),
        );
    }

    let facilities = register(cast, story).await?;
    let mut printer = ask_to_be_paired(cast, story).await?;
    confirm_pairing(cast, story, &facilities, &mut printer).await?;
    let printer = printer.device().await?;
    let mut printer = ask_for_code(cast, story, printer).await?;
    let tokens = approve(cast, story, &facilities, &mut printer).await?;
    let mut printer = printer.device().await?;
    use_tokens(story, &mut printer, &tokens).await?;
    unenrolled(cast, story).await?;
    stolen_code(cast, story, &mut printer).await?;

    story.step(10, "The audit log is checked");
    let entries = cast.stage.audit_verify().await?;
    story.proved(&format!("the chain of {entries} entries holds: none was changed, left out or put in between"));
    Ok(Ending::AsTold)
}

/// Step 2. Facilities is always played by the simulator, through the pages.
async fn register(cast: &Cast, story: &mut Story) -> anyhow::Result<PageOperator> {
    story.step(2, "Facilities registers a printer and opens pairing");
    let facilities = PageOperator::new(&cast.stage.issuer, Wire::new()?)?;
    facilities.sign_in(&cast.stage.operator_link("facilities").await?).await?;
    let form = DeviceForm {
        id: PRINTER.to_owned(),
        kind: "printer".to_owned(),
        name: "Lobby printer, ground floor".to_owned(),
        serial: SERIAL.to_owned(),
        asset_tag: "4711".to_owned(),
        maker: "HP".to_owned(),
        model: "M480f".to_owned(),
        room: "Lobby".to_owned(),
        ..DeviceForm::default()
    };
    if facilities.is_registered(PRINTER).await? {
        story.line("facilities", &format!("finds {PRINTER} registered already"));
    } else {
        facilities.register(&form).await?;
        story.line("facilities", &format!("registers {PRINTER}: {}, serial number {SERIAL}", form.name));
    }
    facilities.open_window(PRINTER).await?;
    story.line("facilities", "opens pairing for this one printer; it closes by itself");
    Ok(facilities)
}

/// Step 3.
async fn ask_to_be_paired(cast: &Cast, story: &mut Story) -> anyhow::Result<Actor> {
    story.step(3, "The printer asks to be paired");
    let key = DeviceKey::generate_es256()?;
    story.line("printer", &format!("makes a key of its own, {}; the secret half never leaves it", key.short()));
    let mut printer = SimulatedDevice::new(PRINTER, &cast.stage.issuer, key, Wire::new()?);
    printer.serial = SERIAL.to_owned();
    printer.model = "M480f".to_owned();
    printer.firmware = "simulated".to_owned();
    story.line("printer", "sends its serial number and a commitment, signed with that key");
    let door = cast.stage.mqtt_door();
    if door.is_some() {
        story.line("printer", "sends them over MQTT, on the one topic where it may");
    }
    Ok(Actor::start(printer, |mut device, show| async move {
        let tell = |event| drop(show.send(event));
        match door {
            Some(door) => drop(radio(&device, &door, false).await?.pair(&mut device, tell).await?),
            None => drop(routine::pair(&mut device, tell).await?),
        }
        Ok(device)
    }))
}

/// Step 4 (and the end of step 3: what the printer shows).
async fn confirm_pairing(
    cast: &Cast,
    story: &mut Story,
    facilities: &PageOperator,
    printer: &mut Actor,
) -> anyhow::Result<()> {
    let event = printer.next().await?;
    story.screen(&event)?;
    let DeviceEvent::PairingShown(shown, digits) = event else { bail!("the printer did not show a pairing code") };
    story.proved("the broker's answer is signed by the very key that the six digits are made of");

    story.step(4, "A technician confirms the key");
    if cast.is_auto {
        if cast.stage.mqtt_door().is_some() {
            facilities.pair_by_number(&shown.pairing_id, &digits).await?;
            story.line("technician", &format!("reads {} off the printer and types it", grouped(&digits)));
        } else {
            facilities.pair_by_qr(&shown.uri_complete).await?;
            story.line("technician", "scans the code; the page compares all 256 bits of the key by itself");
        }
    } else {
        let link = cast.stage.operator_link("you").await?;
        story.wait_for(&[
            "you are the technician. First sign in (the link works once):".to_owned(),
            format!("  {link}"),
            format!("then open the code above, or compare the digits {}:", grouped(&digits)),
            format!("  {}", shown.uri_complete),
        ]);
    }
    match printer.next().await? {
        DeviceEvent::Paired(_) => {}
        other => bail!("the printer expected to be paired, and got {other:?}"),
    }
    story.line("printer", "hears that it is paired, and pins the broker's keys");
    story.proved(&format!("from now on only this key is {PRINTER}"));
    Ok(())
}

/// Step 5.
async fn ask_for_code(cast: &Cast, story: &mut Story, printer: SimulatedDevice) -> anyhow::Result<Actor> {
    story.step(5, "The printer asks for a code");
    story.line("printer", "asks with its own key; only therefore does a code exist at all");
    let door = cast.stage.mqtt_door();
    if door.is_some() {
        story.line("printer", "connects to MQTT with its key, and will not poll until it is told to");
    }
    let mut actor = Actor::start(printer, |mut device, show| async move {
        let tell = |event| drop(show.send(event));
        match door {
            Some(door) => drop(radio(&device, &door, true).await?.sign_in(&mut device, None, tell).await?),
            None => drop(routine::sign_in(&mut device, None, tell).await?),
        }
        Ok(device)
    });
    let event = actor.next().await?;
    story.screen(&event)?;
    let DeviceEvent::CodeShown(shown) = event else { bail!("the printer did not show a code") };
    actor.link = shown.verification_uri_complete;
    Ok(actor)
}

/// Step 6.
async fn approve(
    cast: &Cast,
    story: &mut Story,
    facilities: &PageOperator,
    printer: &mut Actor,
) -> anyhow::Result<Tokens> {
    story.step(6, "An approver lets it sign in");
    let grant = if cast.is_auto {
        story.line("approver", "opens the code and sees which device asks, where it stands and what for");
        Some(facilities.claim(&printer.link).await?)
    } else {
        story.wait_for(&["you are the approver. Open the code:".to_owned(), format!("  {}", printer.link)]);
        None
    };
    let event = printer.next().await?;
    story.screen(&event)?;
    let DeviceEvent::NumberShown(number) = event else { bail!("the printer did not show a number") };
    match grant {
        Some(grant) => {
            facilities.approve(&grant, &number).await?;
            story.line("approver", &format!("reads {number} off the printer, types it and approves"));
        }
        None => story.wait_for(&[format!("type {number} on the page, then approve")]),
    }
    let tokens = match printer.next().await? {
        DeviceEvent::SignedIn(tokens) => tokens,
        other => bail!("the printer expected its token, and got {other:?}"),
    };
    story.proved("who approved has read the number that this very printer showed");
    Ok(tokens)
}

/// Step 7. The printer checks its token with the keys that it pinned in step 4.
async fn use_tokens(story: &mut Story, printer: &mut SimulatedDevice, tokens: &Tokens) -> anyhow::Result<()> {
    story.step(7, "The printer has its token");
    let bound_to = printer.bound_key(tokens).await?;
    story.line("printer", &format!("token type {}, for {} s", tokens.token_type, tokens.expires_in));
    story.line("printer", &format!("it may: {}", tokens.scope));
    story.proved(&format!("the token is signed by a pinned key and bound to key {bound_to}: useless to a thief"));
    if !printer.may_refresh() {
        bail!("the printer got no refresh token");
    }
    match printer.refresh().await? {
        TokenAnswer::Tokens(again) => {
            printer.bound_key(&again).await?;
            story.line(
                "printer",
                &format!("refreshes once: a new token for {} s, and a new refresh token", again.expires_in),
            );
            Ok(())
        }
        other => bail!("the refresh was answered with {other:?}"),
    }
}

/// Step 8.
async fn unenrolled(cast: &Cast, story: &mut Story) -> anyhow::Result<()> {
    story.step(8, "Strangers ask for codes");
    let why = "its key is not paired: no code exists, nothing to phish with";
    for (id, tried) in
        [(PRINTER, "a code as lobby-printer-01, own key"), (PHISHING_CLIENT_ID, "a code as a Microsoft program")]
    {
        let mut stranger = SimulatedDevice::new(id, &cast.stage.issuer, DeviceKey::generate_es256()?, Wire::new()?);
        let answer = match stranger.request_code(None, None).await {
            Err(SimulatorError::Refused { status: 401, error, .. }) if error == "invalid_client" => {
                "401 invalid_client"
            }
            Err(other) => bail!("the stranger should have got 401 invalid_client, but: {other}"),
            Ok(_) => bail!("the stranger got a code"),
        };
        story.refused("a stranger", tried, answer, why);
    }
    Ok(())
}

/// Step 9.
async fn stolen_code(cast: &Cast, story: &mut Story, printer: &mut SimulatedDevice) -> anyhow::Result<()> {
    story.step(9, "A thief has stolen the printer's device code");
    let shown = printer.request_code(None, None).await?;
    story.line("printer", "asks for another code; the thief reads its secret half on the way");
    let key = DeviceKey::generate_es256()?;
    let mut thief = SimulatedDevice::new(PRINTER, &cast.stage.issuer, key, Wire::new()?);
    thief.adopt_device_code(&shown.device_code);
    for _ in 0..3 {
        match thief.poll_token(None).await? {
            TokenAnswer::Error { status: 401, error, .. } if error == "invalid_client" => {}
            other => bail!("the thief should have got 401 invalid_client, and got {other:?}"),
        }
    }
    story.refused(
        "a thief",
        "the stolen device code, three times",
        "401 invalid_client",
        "a device code is worth nothing without the printer's key",
    );
    match printer.poll_token(None).await? {
        TokenAnswer::Pending { confirmation_number: None } => {
            story.proved("the printer is not disturbed: its own poll is plain authorization_pending, not slow_down");
            Ok(())
        }
        other => bail!("the printer's own poll should be pending, and is {other:?}"),
    }
}

/// The printer's MQTT connection.
async fn radio(device: &SimulatedDevice, door: &MqttDoor, is_paired: bool) -> Result<MqttRadio, SimulatorError> {
    MqttRadio::open(device, door, &Mqtt::default().prefix, &MqttLogin::Password { is_paired }).await
}

/// A device that lives in its own task; the story only sees what it shows.
struct Actor {
    screen: mpsc::UnboundedReceiver<DeviceEvent>,
    /// One task. A `JoinSet`, because it ends with the actor.
    task: JoinSet<Result<SimulatedDevice, SimulatorError>>,
    link: String,
}

impl Actor {
    fn start<F>(
        device: SimulatedDevice,
        routine: impl FnOnce(SimulatedDevice, mpsc::UnboundedSender<DeviceEvent>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<SimulatedDevice, SimulatorError>> + Send + 'static,
    {
        let (show, screen) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(routine(device, show));
        Self { screen, task, link: String::new() }
    }

    /// The next thing that it shows, however long that takes; an error if its routine ends before.
    async fn next(&mut self) -> anyhow::Result<DeviceEvent> {
        while let Some(event) = self.screen.recv().await {
            // Whoever looks around on the pages may look for the printer; that is no step of the story.
            if !matches!(event, DeviceEvent::Identify) {
                return Ok(event);
            }
        }
        self.ended().await?;
        bail!("the printer had nothing more to show")
    }

    /// The device, when its routine has ended.
    async fn device(mut self) -> anyhow::Result<SimulatedDevice> {
        self.ended().await
    }

    async fn ended(&mut self) -> anyhow::Result<SimulatedDevice> {
        Ok(self.task.join_next().await.context("the printer is gone")???)
    }
}
