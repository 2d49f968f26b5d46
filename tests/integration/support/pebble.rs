//! Pebble: a real ACME server (RFC 8555), made for tests, with a name server beside it that answers 127.0.0.1 for every name. It drives real validation:
//! it fetches the challenge over HTTP from the port that it is told.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pairgate::clock::Clock;
use pairgate::simulator::Wire;
use pairgate::tls::local_ca::LocalCa;

use crate::support::child::{free_port, until_it_listens};

const INSTALL: &str = "Install it: apt-get install --no-install-recommends pebble (or run tests/run, which does)";
/// Of a certificate that it makes: 90 days, as public servers do.
pub const LIFE: Duration = Duration::from_secs(90 * 86_400);

/// What may differ.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// Per cent of good nonces that it refuses.
    pub nonces_refused: u8,
    /// Per cent of valid authorizations that count for a later order, too.
    pub authorizations_kept: u8,
}

/// Both processes; ended when dropped.
pub struct Pebble {
    folder: tempfile::TempDir,
    ca: LocalCa,
    ports: [u16; 3],
    manner: Manner,
    /// Where it fetches challenges: what port 80 is elsewhere.
    pub http_port: u16,
    running: Vec<Child>,
}

impl Pebble {
    pub async fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = LocalCa::in_data(folder.path());
        ca.init(&["127.0.0.1".into()], Clock::system().now(), false).unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let mut pebble = Self { folder, ca, ports, manner, http_port: free_port(), running: Vec::new() };
        pebble.start_again().await;
        pebble
    }

    /// On the same ports; it remembers nothing, and has a new authority.
    pub async fn start_again(&mut self) {
        self.stop();
        let [acme, management, names] = self.ports;
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": self.ca.certificate(),
            "privateKey": self.ca.key(),
            "httpPort": self.http_port,
            "tlsPort": 1,
            "certificateValidityPeriod": LIFE.as_secs(),
        }});
        let file = self.folder.path().join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let names = format!("127.0.0.1:{names}");
        let none = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "", "-defaultIPv6", ""];
        self.run(Command::new("pebble-challtestsrv").args(["-dns01", &names]).args(none));
        self.run(
            Command::new("pebble")
                .args(["-strict", "-dnsserver", &names, "-config"])
                .arg(&file)
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_WFE_NONCEREJECT", self.manner.nonces_refused.to_string())
                .env("PEBBLE_AUTHZREUSE", self.manner.authorizations_kept.to_string()),
        );
        for port in self.ports {
            until_it_listens(port).await;
        }
    }

    fn run(&mut self, command: &mut Command) {
        let mut child = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("Pebble did not start: {error}. {INSTALL}"));
        // A full pipe would stop it, a closed one end it. Seen only when a test fails.
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        self.running.push(child);
    }

    /// SIGKILL.
    pub fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.ports[0])
    }

    /// The authority of its own address; not the one by which it signs.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("tls/ca.pem")
    }

    /// The authority by which it signs, PEM.
    pub async fn authority(&self) -> String {
        let wire = Wire::with_tls(&self.ca.ca_pem().unwrap(), None).unwrap();
        let url = format!("https://127.0.0.1:{}/roots/0", self.ports[1]);
        wire.send(wire.get(&url)).await.unwrap().body
    }

    /// `[tls.acme]` by this server.
    pub fn section(&self, http_listen: SocketAddr) -> String {
        let (directory, root) = (self.directory(), path(&self.root()));
        format!(
            "[tls.acme]\ndirectory = '{directory}'\nterms_agreed = true\nroot = '{root}'\nhttp_listen = '{http_listen}'\n"
        )
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
