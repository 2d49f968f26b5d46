//! The real binary as a child process: served, killed, started again on the same data and port.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use pairgate::simulator::{DeviceKey, PageOperator, PairingStatus, SimulatedDevice, Wire};

/// A `pairgate serve` that the test started, and ends.
pub struct Served {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    pub issuer: String,
    port: u16,
}

/// A command on a data directory; no variable of the caller's reaches it.
pub fn pairgate(data: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pairgate"));
    command.args(words).arg("--data").arg(data).current_dir(data).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// Runs one to its end.
pub fn run(data: &Path, words: &[&str]) -> Output {
    pairgate(data, words).output().unwrap()
}

/// Runs one with `--json` that must succeed; what it prints.
pub fn json(data: &Path, words: &[&str]) -> serde_json::Value {
    let output = pairgate(data, words).arg("--json").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A port that was free a moment ago, and that nobody takes while the broker is down: below those that the kernel gives to clients, and apart
/// from those of other tests.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + 50 * u16::try_from(std::process::id() % 240).unwrap();
    (0..50)
        .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 50)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Waits until somebody listens on a port.
pub async fn until_it_listens(port: u16) {
    let mut moments = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..2000 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        moments.tick().await;
    }
    panic!("nobody listens on port {port}");
}

impl Served {
    pub fn start(data: &Path, port: u16) -> Self {
        Self::with(data, port, &[]).expect("serve ended before it listened")
    }

    /// With more arguments; `None` if it ends before it listens.
    pub fn with(data: &Path, port: u16, more: &[&str]) -> Option<Self> {
        let listen = format!("127.0.0.1:{port}");
        let mut child = pairgate(data, &["serve", "--listen", &listen])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(first) = lines.next() else {
            child.wait().unwrap();
            return None;
        };
        let first = first.unwrap();
        let issuer = first.strip_prefix("listening on ").unwrap_or_else(|| panic!("{first}")).to_owned();
        Some(Self { child, lines, issuer, port })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL, then a start on the same data and port.
    pub fn killed_and_started(mut self, data: &Path) -> Self {
        self.kill();
        Self::start(data, self.port)
    }

    /// Sends it a signal, by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM; how it ended.
    pub fn stopped(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// A device with a new key, and with connections of its own.
    pub fn stranger(&self, id: &str) -> SimulatedDevice {
        SimulatedDevice::new(id, &self.issuer, DeviceKey::generate_es256().unwrap(), Wire::new().unwrap())
    }

    /// A device that is registered and paired, by the command line.
    pub async fn paired(&self, data: &Path, id: &str) -> SimulatedDevice {
        json(data, &["device", "add", id, "--kind", "printer"]);
        json(data, &["pairing", "open", id]);
        let mut device = self.stranger(id);
        device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        json(data, &["pairing", "confirm", id, "--number", &digits]);
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
        device
    }

    /// Somebody in front of the pages.
    pub async fn operator(&self, data: &Path, name: &str) -> PageOperator {
        json(data, &["operator", "add", name, "--role", "admin"]);
        let link = json(data, &["operator", "link", name])["url"].as_str().unwrap().to_owned();
        let operator = PageOperator::new(&self.issuer, Wire::new().unwrap()).unwrap();
        operator.sign_in(&link).await.unwrap();
        operator
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
