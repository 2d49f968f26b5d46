//! The real program as a child process: one command and what it printed, or a broker that serves until it is killed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use pairgate::simulator::{DeviceKey, PageOperator, PairingStatus, SimulatedDevice, Wire};
use serde_json::Value;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Its output as one JSON value.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn program(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pairgate"));
    // In a directory without configuration file, and without the caller's settings.
    command
        .current_dir(data)
        .env_remove("PAIRGATE_CONFIG")
        .env_remove("PAIRGATE_DATA")
        .env_remove("PAIRGATE_MASTER_KEY");
    command.stdin(Stdio::null());
    command
}

/// Runs one command on a data directory, to its end.
pub fn pairgate(data: &Path, words: &[&str]) -> Ran {
    let output = program(data).args(words).arg("--data").arg(data).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A command that is not waited for.
pub fn spawn(data: &Path, words: &[&str]) -> Child {
    program(data).args(words).arg("--data").arg(data).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A broker in a process of its own. Killed when dropped.
pub struct ChildBroker {
    child: Child,
    out: BufReader<ChildStdout>,
    pub address: SocketAddr,
    pub issuer: String,
}

impl ChildBroker {
    /// Starts it on a free port.
    pub fn start(data: &Path) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Below the ports that the kernel gives to clients, and apart from those of other tests, so that nobody takes it while the broker is down.
        let first = 20_000 + 50 * u16::try_from(std::process::id() % 240).unwrap();
        (0..50)
            .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 50)
            .find_map(|port| Self::on(data, SocketAddr::from(([127, 0, 0, 1], port)), &[]))
            .expect("a free port")
    }

    /// Starts it on this address, as after a crash. `None` if it ends before it listens.
    pub fn on(data: &Path, address: SocketAddr, more: &[&str]) -> Option<Self> {
        let mut command = program(data);
        command.args(["serve", "--listen", &address.to_string(), "--data"]).arg(data).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let line = line(&mut out);
        let Some(issuer) = line.strip_prefix("listening on ") else {
            child.wait().unwrap();
            return None;
        };
        let (issuer, address) = (issuer.to_owned(), issuer.strip_prefix("http://").unwrap().parse().unwrap());
        Some(Self { child, out, address, issuer })
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        line(&mut self.out)
    }

    /// Ends it at once, wherever it is (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it, and starts it again on the same data and port.
    pub fn crash(mut self, data: &Path) -> Self {
        self.kill();
        Self::on(data, self.address, &[]).expect("it starts again")
    }

    /// Asks it to stop (SIGTERM); how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap()
    }

    /// A device with a new key.
    pub fn stranger(&self, id: &str) -> SimulatedDevice {
        SimulatedDevice::new(id, &self.issuer, DeviceKey::generate_es256().unwrap(), Wire::new().unwrap())
    }

    /// An operator of this role, made beside the running broker and signed in.
    pub async fn operator(&self, data: &Path, name: &str, role: &str) -> PageOperator {
        pairgate(data, &["operator", "add", name, "--role", role, "--json"]).json();
        let link = pairgate(data, &["operator", "link", name, "--json"]).json();
        let operator = PageOperator::new(&self.issuer, Wire::new().unwrap()).unwrap();
        operator.sign_in(link["url"].as_str().unwrap()).await.unwrap();
        operator
    }

    /// A device that is registered and paired, by the command line.
    pub async fn paired(&self, data: &Path, id: &str) -> SimulatedDevice {
        pairgate(data, &["device", "add", id, "--kind", "printer", "--json"]).json();
        pairgate(data, &["pairing", "open", id, "--json"]).json();
        let mut device = self.stranger(id);
        device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        pairgate(data, &["pairing", "confirm", id, "--number", &digits, "--json"]).json();
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
        device
    }
}

impl Drop for ChildBroker {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
