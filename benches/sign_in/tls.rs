//! Polls over TLS: by a proof and by a certificate, on a connection that stays and on one that is resumed for each poll; beside an answer that costs nothing.

use std::sync::Arc;

use anyhow::Context as _;
use pairgate::simulator::jose;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Plan;
use crate::load::{Answer, Connection, Device};
use crate::process::Server;
use crate::rounds::{micros_each, settled};
use crate::seed::{self, Workplace};
use crate::table::Table;

/// Devices of each kind; each asks for a code in each round, and has 60 in an hour.
const DEVICES: usize = 100;

/// A device and how it connects.
struct Client {
    device: Device,
    config: Arc<ClientConfig>,
    is_mtls: bool,
}

type Tls = Connection<TlsStream<TcpStream>>;

/// What is sent on a connection.
#[derive(Clone, Copy)]
enum Ask {
    Hello,
    Poll,
}

/// Runs all rounds.
pub async fn run(plan: &Plan, work: &Workplace, table: &mut Table) -> anyhow::Result<()> {
    let devices = (0..2 * DEVICES)
        .map(|index| {
            let id = seed::device_id(seed::spread(index, 2 * DEVICES, plan.active));
            Ok(Device { scheme: "https", ..Device::new(id)? })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let data = work.registry("tls", plan.active, &devices)?;
    std::fs::write(data.join("pairgate.toml"), "[tls]\nlocal_ca = true\nmtls_listen = \"127.0.0.1:0\"\n")?;
    seed::command(&data, &["tls", "init", "--host", "127.0.0.1"])?;
    let ca = CertificateDer::from_pem_slice(seed::command(&data, &["tls", "ca"])?.as_bytes())?;
    let server = Server::product(&data)?;
    let mut clients = devices
        .into_iter()
        .enumerate()
        .map(|(index, device)| Client::new(device, &ca, index >= DEVICES))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let names = ["kept connection", "resumed session"];
    let mut costs: [[Vec<f64>; 3]; 2] = Default::default();
    println!("{} rounds of {} devices over TLS …", plan.rounds, 2 * DEVICES);
    for round in 0..=plan.rounds {
        for is_resumed in [false, true] {
            let (by_proof, by_certificate) = clients.split_at_mut(DEVICES);
            let hello = measured(&server, by_proof, Ask::Hello, is_resumed).await?;
            let proof = measured(&server, by_proof, Ask::Poll, is_resumed).await?;
            let certificate = measured(&server, by_certificate, Ask::Poll, is_resumed).await?;
            // The first round warms up, and fills the clients' stores of sessions.
            if round > 0 {
                for (list, cost) in costs[usize::from(is_resumed)].iter_mut().zip([hello, proof, certificate]) {
                    list.push(cost);
                }
            }
        }
    }
    for (name, [hello, proof, certificate]) in names.iter().zip(&costs) {
        table.ratio(&format!("poll by proof, {name}"), proof, hello, None);
        table.ratio(&format!("poll by certificate, {name}"), certificate, hello, None);
    }
    Ok(())
}

/// CPU time of the server per request. Codes are asked for before, and connections that are kept are opened before.
async fn measured(server: &Server, clients: &mut [Client], ask: Ask, is_resumed: bool) -> anyhow::Result<f64> {
    let mut kept = Vec::new();
    for client in &mut *clients {
        let mut connection = client.connect(server).await?;
        if matches!(ask, Ask::Poll) {
            client.fetch_code(&mut connection, server).await?;
        } else {
            // The ticket comes with the first answer.
            client.send(&mut connection, server, Ask::Hello).await?;
        }
        if !is_resumed {
            kept.push(connection);
        }
    }
    let before = settled(server).await?;
    for (index, client) in clients.iter_mut().enumerate() {
        let mut fresh = None;
        let connection = match kept.get_mut(index) {
            Some(connection) => connection,
            None => fresh.insert(client.connect(server).await?),
        };
        let answer = client.send(connection, server, ask).await?;
        let is_right = match ask {
            Ask::Hello => answer.status == 200,
            Ask::Poll => answer.body.contains("authorization_pending"),
        };
        anyhow::ensure!(is_right, "an answer was {} {}", answer.status, answer.body);
        client.device.take_nonce(&answer);
    }
    Ok(micros_each(settled(server).await?.saturating_sub(before), clients.len()))
}

impl Client {
    fn new(device: Device, ca: &CertificateDer<'static>, is_mtls: bool) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.clone())?;
        let builder = ClientConfig::builder_with_provider(pairgate::tls::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = if is_mtls {
            let pkcs8 = jose::from_b64u(&device.key.to_pkcs8_b64u()?).context("the device's key")?;
            let key = rcgen::KeyPair::try_from(pkcs8.as_slice())?;
            let certificate = rcgen::CertificateParams::default().self_signed(&key)?.der().clone();
            let secret = PrivateKeyDer::try_from(pkcs8).map_err(anyhow::Error::msg)?;
            builder.with_client_auth_cert(vec![certificate], secret)?
        } else {
            builder.with_no_client_auth()
        };
        Ok(Self { device, config: Arc::new(config), is_mtls })
    }

    fn authority<'a>(&self, server: &'a Server) -> &'a str {
        if self.is_mtls { &server.mtls } else { &server.authority }
    }

    async fn connect(&self, server: &Server) -> anyhow::Result<Tls> {
        let stream = TcpStream::connect(self.authority(server)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        Ok(Connection::over(TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?))
    }

    async fn fetch_code(&mut self, connection: &mut Tls, server: &Server) -> anyhow::Result<()> {
        for _ in 0..2 {
            let request = if self.is_mtls {
                self.form(server, "/device_authorization", &format!("client_id={}", self.device.id))
            } else {
                self.device.code_request(&server.authority)?
            };
            let answer = connection.send(&request).await?;
            self.device.take_nonce(&answer);
            // The first one without a nonce is answered with one.
            if answer.status == 200 {
                return self.device.take_code(&answer).map(drop);
            }
        }
        anyhow::bail!("no code for {}", self.device.id)
    }

    async fn send(&self, connection: &mut Tls, server: &Server, ask: Ask) -> anyhow::Result<Answer> {
        let request = match (ask, self.is_mtls) {
            (Ask::Hello, _) => format!("GET /jwks HTTP/1.1\r\nhost: {}\r\n\r\n", self.authority(server)).into_bytes(),
            (Ask::Poll, false) => self.device.poll(&server.authority, "")?,
            (Ask::Poll, true) => {
                let grant_type = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
                let code = &self.device.device_code;
                let body = format!("grant_type={grant_type}&device_code={code}&client_id={}", self.device.id);
                self.form(server, "/token", &body)
            }
        };
        connection.send(&request).await
    }

    fn form(&self, server: &Server, path: &str, body: &str) -> Vec<u8> {
        let (authority, length) = (self.authority(server), body.len());
        format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\naccept: */*\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}
