//! A program with a token, in front of the administration API.

use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::model::operator::{EVERYWHERE, Rights, Role};
use pairgate::model::site::Site;
use pairgate::simulator::{RawAnswer, Wire};
use serde_json::Value;

use super::{Setup, TestBroker};

/// A token, and where to show it.
#[derive(Clone)]
pub struct Program {
    pub wire: Wire,
    pub issuer: String,
    pub token: String,
}

impl TestBroker {
    /// With the administration API, and the sites berlin and paris beside the default one.
    pub async fn with_api() -> Self {
        let test = Self::with(Setup { has_api: true, ..Setup::default() }).await;
        for site in ["berlin", "paris"] {
            test.broker.add_site(&Caller::command_line(), Site::plain(site, site)).await.unwrap();
        }
        test
    }

    /// A token for a day with one role.
    pub async fn token(&self, name: &str, site: &str, role: Role) -> String {
        let rights = Rights::at(site, role);
        self.broker.add_api_token(&Caller::command_line(), name, rights, Duration::from_secs(86_400)).await.unwrap()
    }

    pub async fn program(&self, name: &str, site: &str, role: Role) -> Program {
        let token = self.token(name, site, role).await;
        Program { wire: self.wire.clone(), issuer: self.issuer.clone(), token }
    }

    /// A program that may everything that a program may.
    pub async fn administrator(&self) -> Program {
        self.program("administrator", EVERYWHERE, Role::Admin).await
    }
}

impl Program {
    pub async fn get(&self, path: &str) -> RawAnswer {
        self.ask("GET", path, None).await
    }

    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> RawAnswer {
        let address = format!("{}/api/v1{path}", self.issuer);
        let mut request = self.wire.request(method.parse().unwrap(), &address);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.wire.send(request).await.unwrap()
    }

    /// The JSON of an answer that must be a success.
    pub async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.ask(method, path, body).await;
        assert!(matches!(answer.status, 200 | 201), "{method} {path}: {} {}", answer.status, answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {path}");
        answer.json().unwrap()
    }
}

/// The lines of a problem that must be one (RFC 9457).
#[track_caller]
pub fn problem(answer: &RawAnswer, status: u16, what: &str) -> String {
    assert_eq!(answer.status, status, "{what}: {}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    let problem = answer.json().unwrap();
    assert_eq!((&problem["type"], &problem["status"]), (&"about:blank".into(), &status.into()), "{what}");
    assert!(
        !problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty(),
        "{what}"
    );
    let lines: Vec<&str> = problem["errors"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(problem["detail"], lines.join(" "), "{what}");
    lines.join("\n")
}
