//! Mosquitto: a real MQTT broker, set up as `docs/mqtt-mosquitto.md` says. Two processes: one for who has a certificate, one at which devices are paired, with a
//! bridge between them. The rules are those that the program prints.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pairgate::config::mqtt::{MqttVersion, OutsideBroker};
use pairgate::mqtt::acl;
use pairgate::mqtt::topics::Topics;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::child::{free_port, until_it_listens};

const INSTALL: &str =
    "Install it: apt-get install --no-install-recommends mosquitto mosquitto-clients (or run tests/run, which does)";
/// What all devices know that are to be paired.
pub const PAIRING_PASSWORD: &str = "only for pairing";
/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As the documentation says.
    Good,
    /// TLS, and that is all: anybody may do anything.
    Open,
}

/// Both processes; ended when dropped.
pub struct Mosquitto {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    ports: [u16; 2],
    manner: Manner,
    running: Vec<Child>,
    /// PEM file with the authority of all certificates.
    pub ca: PathBuf,
}

impl Mosquitto {
    pub async fn start() -> Self {
        Self::with(Manner::Good).await
    }

    pub async fn with(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let mut params = named("Organisation");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&ca, authority.pem()).unwrap();
        let ports = [free_port(), free_port()];
        let mut mosquitto = Self { folder, authority, ports, manner, running: Vec::new(), ca };
        mosquitto.certify("localhost", &KeyPair::generate().unwrap());
        mosquitto.certify(acl::BRIDGE, &KeyPair::generate().unwrap());
        let topics = Topics::new("pairgate");
        // With the block of a console, which the file has as an example, for one of another name.
        let rules = acl::for_paired(&topics, acl::PAIRGATE).replace("# user operator:dana", "user operator:kim");
        let rules = rules.replace("\n# topic ", "\ntopic ").replace("THUMBPRINT-OF-ITS-KEY", "+");
        mosquitto.write("paired.acl", &rules);
        mosquitto.write("pairing.acl", &acl::for_pairing(&topics));
        let passwords = mosquitto.path("passwords");
        let made = Command::new("mosquitto_passwd")
            .args(["-c", "-b"])
            .arg(&passwords)
            .args([acl::PAIRING, PAIRING_PASSWORD])
            .status();
        assert!(made.unwrap_or_else(|error| panic!("mosquitto_passwd did not start: {error}. {INSTALL}")).success());
        mosquitto.start_again().await;
        mosquitto
    }

    /// On the same ports; nothing is remembered.
    pub async fn start_again(&mut self) {
        self.stop();
        let [paired, pairing] = self.configurations();
        self.write("paired.conf", &paired);
        self.write("pairing.conf", &pairing);
        self.run("paired.conf");
        until_it_listens(self.ports[0]).await;
        let lines = self.run("pairing.conf");
        until_it_listens(self.ports[1]).await;
        if self.manner == Manner::Good {
            until(&lines, |line| line.contains("Received SUBACK"));
        }
    }

    fn configurations(&self) -> [String; 2] {
        let [port, pairing_port] = self.ports;
        let folder = self.folder.path().display();
        // Started by root, it would become another user, who may not look into this folder.
        let common = "user root\nlog_type all\nlog_dest stderr\npersistence false\n";
        let listener = |port| {
            format!(
                "{common}listener {port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/localhost.pem\nkeyfile {folder}/localhost.key\n"
            )
        };
        if self.manner == Manner::Open {
            return [port, pairing_port].map(|port| listener(port) + "allow_anonymous true\n");
        }
        let paired = format!(
            "require_certificate true\nuse_identity_as_username true\nuse_username_as_clientid true\nallow_anonymous false\nacl_file {folder}/paired.acl\n"
        );
        let pairing = format!(
            "allow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/pairing.acl\n\n\
             connection pairing\naddress 127.0.0.1:{port}\nbridge_cafile {folder}/ca.pem\nbridge_certfile {folder}/{bridge}.pem\n\
             bridge_keyfile {folder}/{bridge}.key\nremote_clientid {bridge}\ncleansession true\nnotifications false\ntry_private false\n\
             topic pairgate/v1/+/pairing/request out 1\ntopic pairgate/v1/+/pairing/response in 1\n",
            bridge = acl::BRIDGE
        );
        [listener(port) + &paired, listener(pairing_port) + &pairing]
    }

    /// What it says goes to whoever reads it, and is seen when a test fails.
    fn run(&mut self, configuration: &str) -> Receiver<String> {
        let mut child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.path(configuration))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("Mosquitto did not start: {error}. {INSTALL}"));
        let output = BufReader::new(child.stderr.take().unwrap());
        self.running.push(child);
        let (lines, heard) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = lines.send(line);
            }
        });
        heard
    }

    /// SIGKILL.
    pub fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// For who has a certificate.
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// For devices that are to be paired.
    pub fn pairing_port(&self) -> u16 {
        self.ports[1]
    }

    /// A certificate of this name over this key: for a device, its own key. The files of both.
    pub fn certify(&self, name: &str, key: &KeyPair) -> (PathBuf, PathBuf) {
        let mut params = named(name);
        let hosts = ["localhost", "127.0.0.1"].map(|host| host.to_owned());
        params.subject_alt_names = CertificateParams::new(hosts).unwrap().subject_alt_names;
        self.write(&format!("{name}.pem"), &params.signed_by(key, &self.authority).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    /// As Pairgate's own client reaches it.
    pub fn outside_broker(&self, version: MqttVersion) -> OutsideBroker {
        OutsideBroker {
            host: "127.0.0.1".into(),
            port: self.port(),
            is_tls: true,
            ca: Some(self.ca.clone()),
            certificate: Some(self.certify(acl::PAIRGATE, &KeyPair::generate().unwrap())),
            user_name: None,
            password_file: None,
            client_id: "pairgate".into(),
            version,
            emqx: None,
        }
    }

    /// `[mqtt]` by this broker.
    pub fn section(&self) -> String {
        let broker = self.outside_broker(MqttVersion::V5);
        let (certificate, key) = broker.certificate.unwrap();
        format!(
            "[mqtt]\nurl = 'mqtts://127.0.0.1:{}'\nca = '{}'\ncertificate = '{}'\nkey = '{}'\n",
            self.port(),
            self.ca.display(),
            certificate.display(),
            key.display()
        )
    }

    /// Who has a certificate of this name.
    pub fn certified(&self, name: &str) -> Who {
        let (certificate, key) = self.certify(name, &KeyPair::generate().unwrap());
        let mut words = self.words(self.port());
        words.extend(["--cert".into(), text(&certificate), "--key".into(), text(&key)]);
        Who(words)
    }

    /// Who knows the password for pairing.
    pub fn unpaired(&self) -> Who {
        let mut words = self.words(self.pairing_port());
        words.extend(["-u", acl::PAIRING, "-P", PAIRING_PASSWORD].map(str::to_owned));
        Who(words)
    }

    /// Anybody.
    pub fn stranger(&self, port: u16) -> Who {
        Who(self.words(port))
    }

    fn words(&self, port: u16) -> Vec<String> {
        ["-h", "127.0.0.1", "-p", &port.to_string(), "--cafile", &text(&self.ca)].map(str::to_owned).into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Somebody with Mosquitto's own clients.
#[derive(Clone)]
pub struct Who(Vec<String>);

impl Who {
    /// Publishes, QoS 1, under a client id; has it been acknowledged?
    pub fn publish(&self, client_id: &str, topic: &str, message: &str) -> bool {
        let output = Command::new("mosquitto_pub")
            .args(&self.0)
            .args(["-V", "5", "-q", "1", "-i", client_id, "-t", topic, "-m", message])
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("mosquitto_pub did not start: {error}. {INSTALL}"));
        // It ends with 0 although the broker refused the message.
        output.status.success() && output.stderr.is_empty()
    }

    /// Subscribes, QoS 1; returns when the broker has answered.
    pub fn subscribe(&self, client_id: &str, filters: &[&str]) -> Subscriber {
        let filters = filters.iter().flat_map(|filter| ["-t", filter]);
        // Into a pipe it would say nothing of its subscription until something arrives.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args(&self.0)
            .args(["-V", "5", "-q", "1", "-d", "-F", "message %t %p", "-i", client_id])
            .args(filters)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("mosquitto_sub did not start: {error}. {INSTALL}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        until(&lines, |line| line.starts_with("Subscribed"));
        Subscriber { child, lines }
    }
}

/// Somebody who reads.
pub struct Subscriber {
    child: Child,
    lines: Receiver<String>,
}

impl Subscriber {
    /// The next message.
    pub fn next(&self) -> String {
        let line = until(&self.lines, |line| line.starts_with("message ")).pop().unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    }

    /// Topics and messages up to this message. A broker hands on in order, so nothing that was published before is still under way.
    pub fn until(&self, message: &str) -> Vec<String> {
        let lines = until(&self.lines, |line| line.starts_with("message ") && line.ends_with(message));
        let again = lines.iter().find(|line| line.contains("sending CONNECT"));
        assert_eq!(again, None, "it was pushed off");
        lines.iter().filter_map(|line| line.strip_prefix("message ")).map(str::to_owned).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn until(lines: &Receiver<String>, is_last: impl Fn(&str) -> bool) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error}, after {seen:?}"));
        seen.push(line.clone());
        if is_last(&line) {
            return seen;
        }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
