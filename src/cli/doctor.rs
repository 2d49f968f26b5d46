//! `pairgate doctor`: is this installation as it should be? Looks, and mends nothing; opens the database as every command does.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::output;
use crate::cli::serve::broker_to_look_at;
use crate::cli::transport::hosts;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Tls, is_wide};
use crate::mqtt::relay;
use crate::oauth::certificate::Certificate;
use crate::tls::files::{CertificateFiles, Facts, facts_of};
use crate::tls::local_ca::LocalCa;

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    Warn,
    Fail,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One finding: what was looked at, how it is, and what to do.
struct Finding(State, &'static str, String);

/// Runs the command; exit code 1 if anything fails.
///
/// # Errors
/// If the output can't be written.
pub async fn run(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = vec![Finding(State::Good, "configuration", "is good".into())];
    findings.extend(files(config));
    findings.push(database(config).await);
    findings.extend(transport(config, Clock::system().now()));
    findings.extend(proxies(config));
    findings.extend(mqtt(config, Clock::system().now()));
    let has_failed = findings.iter().any(|Finding(state, ..)| *state == State::Fail);
    if json {
        let list: Vec<_> = findings
            .iter()
            .map(|Finding(state, what, text)| json!({"check": what, "state": state.as_str(), "text": text}))
            .collect();
        output::json(&json!({"checks": list}))?;
    } else {
        for Finding(state, what, text) in &findings {
            output::line(&format!("{:<5} {what:<20} {text}", state.as_str()))?;
        }
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What others could read.
fn files(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut look = |what: &'static str, path: &Path, open: State| {
        let absent =
            Finding(State::Warn, what, format!("{}: is not there yet; pairgate serve makes it", path.display()));
        findings.push(owners_only(what, path, open).unwrap_or(absent));
    };
    // What is in it is for its owner only by itself; a look at the names is no harm, but no use either.
    look("data directory", &config.data, State::Warn);
    if config.master_key.is_some() {
        findings.push(Finding(State::Good, "master key", "comes from the environment".into()));
    } else {
        look("master key", &config.data.join("master.key"), State::Fail);
    }
    findings
}

/// Whether only its owner may read a file; nothing if it is not there.
fn owners_only(what: &'static str, path: &Path, open: State) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    Some(if mode & 0o077 == 0 {
        Finding(State::Good, what, format!("{} is for its owner only", path.display()))
    } else {
        Finding(open, what, format!("others may read it (mode {mode:o}); run: chmod go= {}", path.display()))
    })
}

async fn database(config: &Config) -> Finding {
    const WHAT: &str = "database";
    if !config.data.join("pairgate.db").exists() {
        return Finding(State::Warn, WHAT, "is not there yet; pairgate serve makes it".into());
    }
    let verdict = match broker_to_look_at(config).await {
        Ok(broker) => broker.audit_verify().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match verdict {
        Ok(verdict) => match verdict.first_bad {
            None => Finding(State::Good, WHAT, format!("opens; the audit log of {} entries holds", verdict.records)),
            Some(bad) => Finding(
                State::Fail,
                WHAT,
                format!("audit entry {bad} was changed, or one before it left out; keep this copy and compare backups"),
            ),
        },
        Err(error) => Finding(State::Fail, WHAT, format!("{error:#}")),
    }
}

fn transport(config: &Config, now: Timestamp) -> Vec<Finding> {
    const WHAT: &str = "TLS certificate";
    let local = LocalCa::in_data(&config.data);
    let (certificate, key) = match &config.tls {
        None if config.public_url.as_ref().is_some_and(|url| url.scheme() == "https") => {
            return vec![Finding(
                State::Warn,
                "TLS",
                format!(
                    "is served by a proxy in front of {}; it must strip what clients send in Client-Cert, X-Forwarded-For and Forwarded",
                    config.listen
                ),
            )];
        }
        None => return vec![Finding(State::Good, "TLS", "is not served; only this machine can connect".into())],
        Some(Tls::Files { certificate, key }) => (certificate.clone(), key.clone()),
        Some(Tls::LocalCa) => (local.certificate(), local.key()),
        Some(Tls::Acme(_)) => (config.data.join("tls/acme.pem"), config.data.join("tls/acme.key")),
    };
    let mut findings = Vec::new();
    match (CertificateFiles::open(&certificate, &key), facts_of(&certificate)) {
        (Err(error), _) => {
            let advice = if config.tls == Some(Tls::LocalCa) { "; make one with: pairgate tls init" } else { "" };
            findings.push(Finding(State::Fail, WHAT, format!("{error}{advice}")));
        }
        (Ok(_), facts) => findings.push(expiry(WHAT, facts, now)),
    }
    let missing: Vec<String> = hosts([config.public_url.as_ref(), config.client.url.as_ref()])
        .into_iter()
        .filter(|host| !names(&certificate).iter().any(|name| covers(name, host)))
        .collect();
    if !missing.is_empty() && certificate.exists() {
        let text = format!("is not for {}; clients will refuse it", missing.join(", "));
        findings.push(Finding(State::Fail, WHAT, text));
    }
    findings.push(match (&config.client.listen, &config.client.url) {
        (None, None) => Finding(State::Good, "client certificates", "nobody is asked for one".into()),
        (Some(listen), _) => Finding(State::Good, "client certificates", format!("are asked for on {listen}")),
        (None, Some(url)) => Finding(State::Good, "client certificates", format!("are asked for at {url}")),
    });
    findings
}

/// Files for the organisation's MQTT broker. What that broker lets through, only a try can tell.
fn mqtt(config: &Config, now: Timestamp) -> Vec<Finding> {
    const WHAT: &str = "MQTT";
    let mut findings = Vec::new();
    let Some(mqtt) = &config.mqtt else { return findings };
    if let Some(listen) = mqtt.listen {
        let how = if config.tls.is_some() { "with TLS" } else { "in clear, for this machine alone" };
        findings.push(Finding(State::Good, WHAT, format!("devices may connect to {listen}, {how}")));
    }
    if let Some(path) = &mqtt.hook_secret_file {
        let absent = Finding(State::Fail, WHAT, format!("hook_secret_file: {} is not there", path.display()));
        findings.push(owners_only("MQTT hook secret", path, State::Fail).unwrap_or(absent));
    }
    let Some(broker) = &mqtt.broker else { return findings };
    findings.push(match relay::readable(broker) {
        Ok(()) => {
            let text = format!(
                "the broker is {} port {}; whether its rules hold: pairgate mqtt check",
                broker.host, broker.port
            );
            Finding(State::Good, WHAT, text)
        }
        Err(error) => Finding(State::Fail, WHAT, format!("{error:#}")),
    });
    if let Some((certificate, key)) = &broker.certificate {
        findings.push(expiry("MQTT certificate", facts_of(certificate), now));
        findings.extend(owners_only("MQTT key", key, State::Fail));
    }
    findings.extend(broker.password_file.iter().filter_map(|path| owners_only("MQTT password", path, State::Fail)));
    findings
}

fn expiry(what: &'static str, facts: Option<Facts>, now: Timestamp) -> Finding {
    let Some(facts) = facts else {
        return Finding(
            State::Warn,
            what,
            "its end can't be read; its key is of a kind that only clients with pins need".into(),
        );
    };
    let days = facts.not_after.since(now).as_secs() / 86_400;
    match days {
        0 => Finding(State::Fail, what, format!("ended, or ends today ({})", facts.not_after.rfc3339())),
        1..=13 => Finding(State::Warn, what, format!("ends in {days} days; who renews it?")),
        _ => Finding(State::Good, what, format!("is good for {days} days")),
    }
}

fn names(certificate: &Path) -> Vec<String> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_file(certificate)
        .ok()
        .map(|der| Certificate::names(&der))
        .unwrap_or_default()
}

/// A name, or a wildcard for one label (RFC 9525 section 6.3).
fn covers(name: &str, host: &str) -> bool {
    name.eq_ignore_ascii_case(host)
        || name
            .strip_prefix("*.")
            .zip(host.split_once('.'))
            .is_some_and(|(domain, (_, rest))| domain.eq_ignore_ascii_case(rest))
}

/// What is believed of whom (R-9700-14).
fn proxies(config: &Config) -> Vec<Finding> {
    const WHAT: &str = "trusted proxies";
    let mut findings = Vec::new();
    for network in &config.trusted_proxies {
        if is_wide(network) {
            let text = format!("{network} is wide: everybody in it may say who he is. Name the proxy's own address");
            findings.push(Finding(State::Warn, WHAT, text));
        }
    }
    if config.client.from_header {
        let text = "are believed which certificate a client has (Client-Cert): each must strip that header from what clients send, and every other way to \
                    this port must be closed";
        findings.push(Finding(State::Warn, WHAT, text.into()));
    }
    if findings.is_empty() {
        let text = match config.trusted_proxies.len() {
            0 => "none; every header about addresses and certificates is ignored".to_owned(),
            count => format!("{count}; they must strip X-Forwarded-For from what clients send"),
        };
        findings.push(Finding(State::Good, WHAT, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_one_label() {
        for (name, host, expected) in [
            ("pairgate.example", "pairgate.example", true),
            ("Pairgate.Example", "pairgate.example", true),
            ("*.example", "pairgate.example", true),
            ("*.example", "a.pairgate.example", false),
            ("*.example", "example", false),
            ("other.example", "pairgate.example", false),
        ] {
            assert_eq!(covers(name, host), expected, "{name} {host}");
        }
    }

    #[test]
    fn files_for_an_mqtt_broker_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let states = |text: &str| -> Vec<State> {
            let config = Config::from_parts(&format!("[mqtt]\n{text}"), []).unwrap();
            mqtt(&config, Timestamp::from_millis(0)).into_iter().map(|Finding(state, ..)| state).collect()
        };
        assert_eq!(states("listen = '127.0.0.1:1'"), [State::Good]);
        let password = file("password", "secret\n", 0o600);
        let login = format!("url = 'mqtts://b.example'\nuser_name = 'x'\npassword_file = '{password}'");
        assert_eq!(states(&login), [State::Good, State::Good]);
        file("password", "secret\n", 0o644);
        assert_eq!(states(&login), [State::Good, State::Fail], "others may read the password");
        let certificate = file("certificate", "no certificate", 0o600);
        let by_certificate = format!("url = 'mqtts://b.example'\ncertificate = '{certificate}'\nkey = '{certificate}'");
        assert_eq!(states(&by_certificate)[0], State::Fail);
        assert_eq!(states("listen = '127.0.0.1:1'\nhook_secret_file = '/nowhere'"), [State::Good, State::Fail]);
    }

    #[test]
    fn what_is_believed_of_proxies_is_said_r_9700_14() {
        let finding = |text: &str| {
            let config = Config::from_parts(text, []).unwrap();
            proxies(&config).into_iter().map(|Finding(state, _, text)| (state, text)).next().unwrap()
        };
        assert_eq!(finding("").0, State::Good);
        assert_eq!(finding("trusted_proxies = ['10.0.0.7']").0, State::Good);
        let (state, text) = finding("trusted_proxies = ['0.0.0.0/0']");
        assert!(state == State::Warn && text.contains("wide"), "{text}");
        let (state, text) = finding("trusted_proxies = ['10.0.0.7']\nclient_cert_header = true");
        assert!(state == State::Warn && text.contains("strip"), "{text}");
    }
}
