//! `pairgate serve`, and the composition root: from configuration to a running broker.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use crate::broker::{Broker, Caller, Parts, Policy};
use crate::cli::output::line;
use crate::cli::transport::Transport;
use crate::clock::Clock;
use crate::config::{Api, ClientCertificates, Config, Sso, Tls, is_wide};
use crate::device_auth::mtls::ClientTrust;
use crate::http::mqtt_hooks::Hooks;
use crate::http::serve::Door;
use crate::http::{Edge, Sides, serve};
use crate::model::kind::Kind;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::{MasterKey, Random};
use crate::tls::local_ca::LocalCa;
use crate::tls::server::TlsDoor;
use crate::{mqtt, store, telemetry};

/// In the data directory: the address that the last `serve` had.
const ISSUER_FILE: &str = "issuer";

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Address and port, instead of the configured one; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Start although the newest record is from the future
    #[arg(long)]
    accept_clock: bool,
}

/// Makes the broker of a data directory. Commands use it without serving.
///
/// # Errors
/// If the directory, the database or the master key is not as it should be.
pub async fn open_broker(
    config: &Config,
    issuer: Url,
    mtls_url: Option<Url>,
    accept_clock: bool,
) -> anyhow::Result<Broker> {
    use std::os::unix::fs::DirBuilderExt as _;
    let attestation_roots = config.load_attestation_roots()?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data)
        .with_context(|| format!("data directory {}", config.data.display()))?;
    let random = Random::system();
    let store = store::open(&config.data)?;
    let is_new = store.signing_keys().await?.is_empty();
    let master = match &config.master_key {
        Some(text) => MasterKey::from_text(text)?,
        // Only a new database may get a new key: with another one, an old database can't be read.
        None => MasterKey::from_file(&config.data.join("master.key"), is_new, &random)?,
    };
    let client = &config.client;
    let sso = config.sso.clone().map(Sso::load).transpose()?;
    let policy = Policy {
        sso,
        kinds: Kind::built_in(),
        resources: Vec::new(),
        file: config.policy.clone(),
        mtls_url,
        client_trust: client_trust(client)?,
        attestation_roots,
        signing_algorithms: BTreeSet::from([SigningAlgorithm::Es256]),
        signing_key_lifetime: config.signing_key_lifetime,
        address_file: Some(config.address_file.clone()),
        ca_pem: if config.tls == Some(Tls::LocalCa) { LocalCa::in_data(&config.data).ca_pem().ok() } else { None },
    };
    let parts = Parts { store, master, issuer, clock: Clock::system(), random, policy };
    Ok(Broker::open(parts, accept_clock).await?)
}

/// The issuer: as configured, or the listening address; that of this machine alone by its name, because browsers have no passkeys for a number.
pub fn issuer(config: &Config, listen: SocketAddr) -> anyhow::Result<Url> {
    let is_local = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].contains(&listen.ip());
    match (&config.public_url, &config.tls) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(_)) => Ok(Url::parse(&format!("https://{listen}"))?),
        (None, None) if is_local => Ok(Url::parse(&format!("http://localhost:{}", listen.port()))?),
        (None, None) => Ok(Url::parse(&format!("http://{listen}"))?),
    }
}

/// The broker of a data directory, for a command that runs beside `serve`.
///
/// Without the check of the clock, one command would write a record of the earlier time, and `serve` would then find nothing amiss.
pub async fn broker_beside(config: &Config) -> anyhow::Result<Broker> {
    open_broker(config, issuer_beside(config)?, config.client.url.clone(), false).await
}

/// The same, for a command that only looks: whatever the clock says.
pub async fn broker_to_look_at(config: &Config) -> anyhow::Result<Broker> {
    open_broker(config, issuer_beside(config)?, config.client.url.clone(), true).await
}

/// What `serve` last served as on this data directory.
pub fn served_issuer(config: &Config) -> Option<Url> {
    std::fs::read_to_string(config.data.join(ISSUER_FILE)).ok().and_then(|text| Url::parse(&text).ok())
}

/// What `serve --listen` serves on may not be what is configured; the links that a command makes must lead there.
fn issuer_beside(config: &Config) -> anyhow::Result<Url> {
    match served_issuer(config).filter(|_| config.public_url.is_none()) {
        Some(served) => Ok(served),
        None => issuer(config, config.listen),
    }
}

/// A broker that serves.
pub struct Running {
    api: Option<String>,
    issuer: Url,
    broker: Arc<Broker>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
    transport: Option<Arc<Transport>>,
    mqtt: Option<Mqtt>,
}

impl Running {
    /// Address of our own MQTT endpoint, if there is one.
    pub fn mqtt_url(&self) -> Option<&str> {
        self.mqtt.as_ref()?.url.as_deref()
    }

    /// Its issuer.
    pub const fn issuer(&self) -> &Url {
        &self.issuer
    }

    /// The broker.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What shows the certificate, if TLS is served.
    pub const fn transport(&self) -> Option<&Arc<Transport>> {
        self.transport.as_ref()
    }

    /// Ends held answers, waits for the rest, and returns when nothing is served any more.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for serving in self.serving {
            let _ = serving.await;
        }
        if let Some(mqtt) = self.mqtt {
            mqtt.edge.ended().await;
        }
    }
}

/// Starts to serve.
///
/// # Errors
/// If the address is taken, there is no certificate, or as [`open_broker`].
pub async fn start(config: Config, accept_clock: bool) -> anyhow::Result<Running> {
    let listener = bind(config.listen).await?;
    let issuer = issuer(&config, listener.local_addr()?)?;
    let mtls_listener = match config.client.listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let mtls_url = match (&config.client.url, &mtls_listener) {
        (Some(url), _) => Some(url.clone()),
        (None, Some(listener)) => Some(Url::parse(&format!("https://{}", listener.local_addr()?))?),
        (None, None) => None,
    };
    let api_listener = match config.api.listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let mqtt_listener = match config.mqtt.as_ref().and_then(|mqtt| mqtt.listen) {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let (stop, stopping) = watch::channel(false);
    let transport = Transport::of(&config, &issuer, mtls_url.as_ref(), &stopping).await?.map(Arc::new);
    let broker = Arc::new(open_broker(&config, issuer.clone(), mtls_url.clone(), accept_clock).await?);
    std::fs::write(config.data.join(ISSUER_FILE), issuer.as_str()).context("the data directory can't be written")?;
    tokio::spawn(watch_others(Arc::clone(&broker), stopping.clone()));
    tokio::spawn(rotate_signing_keys(Arc::clone(&broker), stopping.clone()));
    for network in config.trusted_proxies.iter().filter(|network| is_wide(network)) {
        tracing::warn!(%network, "trusted_proxies is wide: everybody in it may say which address he has");
    }
    let from_header = config.client.from_header;
    let edge = Edge::new(Arc::clone(&broker), config.trusted_proxies.clone(), from_header, stopping.clone());
    let sides = if config.api.on_main { Sides::with_api(&edge) } else { Sides::new(&edge) };
    let sides = with_hooks(sides, &edge, &config)?;
    let mut serving = Vec::new();
    let mut api = config.api.on_main.then(|| issuer.as_str().trim_end_matches('/').to_owned());
    if let Some(listener) = api_listener {
        let hosts = api_hosts(&config.api, &issuer, listener.local_addr()?);
        let side = Sides::api_alone(&edge, hosts, &sides);
        // On this machine, nobody else can listen; elsewhere the certificate is that of the main listener.
        let door = match &transport {
            Some(transport) if !listener.local_addr()?.ip().is_loopback() => {
                Door::Tls(Arc::new(TlsDoor::main(transport.certificates(), None)?))
            }
            _ => Door::Plain,
        };
        let scheme = if matches!(door, Door::Plain) { "http" } else { "https" };
        api = Some(format!("{scheme}://{}", listener.local_addr()?));
        serving.push(tokio::spawn(serve::serve(listener, door, side, stopping.clone())));
    }
    let door = match &transport {
        Some(transport) => {
            let host = mtls_url.as_ref().filter(|_| mtls_listener.is_none()).and_then(Url::host_str);
            Door::Tls(Arc::new(TlsDoor::main(transport.certificates(), host.map(str::to_owned))?))
        }
        None => Door::Plain,
    };
    serving.push(tokio::spawn(serve::serve(listener, door, sides.clone(), stopping.clone())));
    if let (Some(listener), Some(transport)) = (mtls_listener, &transport) {
        let door = Door::Tls(Arc::new(TlsDoor::mtls(transport.certificates())?));
        serving.push(tokio::spawn(serve::serve(listener, door, sides, stopping.clone())));
    }
    let mqtt = start_mqtt(&config, &broker, mqtt_listener, transport.as_deref(), &stopping)?;
    if let Some(transport) = &transport {
        tokio::spawn(Arc::clone(transport).keep_fresh(Arc::clone(&broker), stopping));
    }
    Ok(Running { api, issuer, broker, stop, serving, transport, mqtt })
}

/// Our own MQTT endpoint, and the connection to the organisation's broker, as configured.
fn start_mqtt(
    config: &Config,
    broker: &Arc<Broker>,
    listener: Option<TcpListener>,
    transport: Option<&Transport>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Option<Mqtt>> {
    let Some(settings) = &config.mqtt else { return Ok(None) };
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let listener = match (listener, transport) {
        (Some(listener), Some(transport)) => Some((listener, Some(Arc::new(TlsDoor::mqtt(transport.certificates())?)))),
        (Some(listener), None) => Some((listener, None)),
        (None, _) => None,
    };
    let edge = mqtt::Edge::start(settings, broker, listener, stopping)?;
    Ok(Some(Mqtt { url: address.map(|address| mqtt::url(address, transport.is_some())), edge }))
}

/// MQTT as it runs.
struct Mqtt {
    /// Of our own endpoint.
    url: Option<String>,
    edge: mqtt::Edge,
}

/// Answers the questions of MQTT brokers, if that is configured.
fn with_hooks(sides: Sides, edge: &Edge, config: &Config) -> anyhow::Result<Sides> {
    let hooks = config.mqtt.as_ref().map(Hooks::load).transpose()?.flatten();
    Ok(match hooks {
        Some(hooks) => sides.with_hooks(edge, hooks),
        None => sides,
    })
}

/// By which names the administration API's own listener may be called: its configured address, the one that it listens on, and the host of the main one.
fn api_hosts(api: &Api, issuer: &Url, listen: SocketAddr) -> Vec<String> {
    let host = |url: &Url| url.host_str().map(str::to_owned);
    let port = listen.port();
    let mut hosts = vec![listen.to_string()];
    hosts.extend(listen.ip().is_loopback().then(|| format!("localhost:{port}")));
    hosts.extend(host(issuer).map(|host| format!("{host}:{port}")));
    hosts.extend(api.url.as_ref().and_then(|url| {
        host(url).map(|host| url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
    }));
    hosts
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "can't listen on {address}: if another program has it, choose another with --listen or in the configuration"
        )
    })
}

/// Reads the authorities for client certificates and their revocation lists.
fn client_trust(client: &ClientCertificates) -> anyhow::Result<ClientTrust> {
    let mut trust = ClientTrust::default();
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    for path in &client.authorities {
        trust.add_authorities(&read(path)?).with_context(|| format!("client_ca: {}", path.display()))?;
    }
    for path in &client.revoked {
        trust.add_revoked(&read(path)?).with_context(|| format!("client_crl: {}", path.display()))?;
    }
    Ok(trust)
}

/// Looks once a second whether another process, the command line for example, has changed what somebody here waits for, or the signing keys.
async fn watch_others(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => {}
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
        }
        if let Err(error) = broker.look_for_changes_of_others().await {
            tracing::warn!(%error, "the database could not be looked at");
        }
    }
}

/// Looks at the start and once an hour whether a signing key is of age, or has retired.
async fn rotate_signing_keys(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
    let mut hour = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            _ = hour.tick() => {}
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
        }
        if let Err(error) = broker.rotate_signing_keys_if_due().await {
            tracing::error!(%error, "the signing keys could not be rotated");
        }
    }
}

/// Runs the command.
pub async fn run(args: ServeArgs, config: Config) -> anyhow::Result<ExitCode> {
    telemetry::init(&config.log).map_err(anyhow::Error::msg)?;
    let config = config.with_listen(args.listen)?;
    // Before anybody can know that it runs: who then asks it to stop gets a clean stop.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // A first certificate may take two minutes; who ends the process meanwhile need not wait for it.
    let running = tokio::select! {
        running = start(config, args.accept_clock) => running?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    let issuer = running.issuer().as_str().trim_end_matches('/').to_owned();
    if args.accept_clock {
        running.broker().record_accepted_clock(&Caller::command_line()).await?;
    }
    line(&format!("listening on {issuer}"))?;
    if let Some(mtls) = &running.broker().endpoints().mtls {
        line(&format!("client certificates at {}", mtls.token.trim_end_matches("/token")))?;
    }
    if let Some(api) = &running.api {
        line(&format!("administration API at {api}/api/v1"))?;
    }
    if let Some(url) = running.mqtt_url() {
        line(&format!("MQTT at {url}"))?;
    }
    if running.broker().operators().await?.is_empty() {
        let caller = Caller::command_line();
        running.broker().add_operator(&caller, "admin", crate::model::operator::Role::Admin).await?;
        let link = running.broker().operator_link(&caller, "admin").await?;
        line(&format!(
            "nobody can sign in yet, so there is an operator 'admin' now. Sign in, once, within 10 minutes:\n  {link}"
        ))?;
    }
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => break interrupted?,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => {
                if let Some(transport) = running.transport() {
                    transport.reload();
                }
            }
        }
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_on_this_machine_alone_is_a_name() {
        for (listen, public_url, expected) in [
            ("127.0.0.1:8628", None, "http://localhost:8628/"),
            ("[::1]:8628", None, "http://localhost:8628/"),
            ("127.0.0.2:8628", None, "http://127.0.0.2:8628/"),
            ("127.0.0.1:8628", Some("http://127.0.0.1:8628"), "http://127.0.0.1:8628/"),
            ("127.0.0.1:8628", Some("https://pairgate.example.org"), "https://pairgate.example.org/"),
        ] {
            let config = Config { public_url: public_url.map(|url| url.parse().unwrap()), ..Config::default() };
            assert_eq!(issuer(&config, listen.parse().unwrap()).unwrap().as_str(), expected, "{listen}");
        }
    }
}
