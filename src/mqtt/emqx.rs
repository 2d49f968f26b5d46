//! Asks EMQX to end the connection of a device that may not be connected any more: `DELETE /api/v5/clients/{clientid}`, with an API key.
//!
//! Without it the device stays connected, and may do nothing: whatever it asks, it is asked for again at `/mqtt/acl`, and its events have ended. EMQX
//! answers 204, or 404 with a `code` if nobody of that client id is connected.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use crate::config::mqtt::{Emqx, read_secret};
use crate::id::DeviceId;

const TIMEOUT: Duration = Duration::from_secs(10);
/// No honest answer is longer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Before each further attempt.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// Why a connection was not ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Failure {
    /// It may work a little later.
    #[error("{0}")]
    Passing(String),
    /// Somebody must do something.
    #[error("{0}")]
    Lasting(String),
}

/// Ends the connections of these devices, one after another, until the process stops.
pub async fn end_connections(emqx: Emqx, kicked: mpsc::Receiver<DeviceId>, stopping: watch::Receiver<bool>) {
    end_with(&emqx, kicked, stopping, &PAUSES).await;
}

async fn end_with(
    emqx: &Emqx,
    mut kicked: mpsc::Receiver<DeviceId>,
    mut stopping: watch::Receiver<bool>,
    pauses: &[Duration],
) {
    let work = async {
        while let Some(device) = kicked.recv().await {
            match insist(emqx, &device, pauses).await {
                Ok(true) => tracing::info!(%device, "EMQX has ended its connection"),
                Ok(false) => tracing::debug!(%device, "it was not connected to EMQX"),
                Err(failure) => tracing::error!(
                    %device,
                    why = %failure,
                    "EMQX did not end the connection of a device; end it in EMQX's dashboard (Monitoring, Clients)"
                ),
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
    }
}

async fn insist(emqx: &Emqx, device: &DeviceId, pauses: &[Duration]) -> Result<bool, Failure> {
    let mut pauses = pauses.iter();
    loop {
        match (end(emqx, device).await, pauses.next()) {
            (Err(Failure::Passing(why)), Some(pause)) => {
                tracing::debug!(%device, why, "EMQX is asked again");
                tokio::time::sleep(*pause).await;
            }
            (ended, _) => return ended,
        }
    }
}

/// Asks once; whether there was a connection.
async fn end(emqx: &Emqx, device: &DeviceId) -> Result<bool, Failure> {
    let client = client(emqx)?;
    // A device id has no character that means anything in an address.
    let url = emqx.api.join(&format!("/api/v5/clients/{device}"));
    let url = url.map_err(|error| Failure::Lasting(format!("mqtt.emqx.api: {error}")))?;
    // Read each time: a key that was changed counts at once.
    let secret = read_secret("mqtt.emqx.secret_file", &emqx.secret_file);
    let secret = secret.map_err(|error| Failure::Lasting(error.to_string()))?;
    let passing = |error: reqwest::Error| Failure::Passing(format!("{:#}", error.without_url()));
    let key = STANDARD.encode(format!("{}:{}", emqx.key, secret.0));
    let mut answer =
        client.delete(url).header("authorization", format!("Basic {key}")).send().await.map_err(passing)?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(passing)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Failure::Lasting("the answer is too long for EMQX's; check mqtt.emqx.api".into()));
        }
        body.extend_from_slice(&chunk);
    }
    judge(status, &body)
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

fn judge(status: StatusCode, body: &[u8]) -> Result<bool, Failure> {
    let code = serde_json::from_slice::<Problem>(body).ok().map(|problem| problem.code);
    match status.as_u16() {
        200 | 204 => Ok(true),
        404 if code.is_some() => Ok(false),
        404 => Err(Failure::Lasting("there is no EMQX API at that address; check mqtt.emqx.api".into())),
        401 => Err(Failure::Lasting("EMQX does not know the key; check mqtt.emqx.key and its secret_file".into())),
        403 => Err(Failure::Lasting("the API key may not end connections; give it the role Administrator".into())),
        300..=399 => Err(Failure::Lasting("it sends elsewhere, which is not followed; check mqtt.emqx.api".into())),
        other => Err(Failure::Passing(format!("EMQX answers {other}"))),
    }
}

/// As elsewhere: our TLS, no redirects, no proxy, limits.
fn client(emqx: &Emqx) -> Result<reqwest::Client, Failure> {
    // Err only says that a provider is there already.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .user_agent("pairgate");
    if let Some(path) = &emqx.ca {
        let wrong = |why: &str| Failure::Lasting(format!("mqtt.emqx.ca: {}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| wrong(&error.to_string()))?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem).ok().filter(|roots| !roots.is_empty());
        builder = builder.tls_certs_only(roots.ok_or_else(|| wrong("there is no PEM certificate in it"))?);
    }
    builder.build().map_err(|error| Failure::Lasting(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::{Path, State};
    use axum::http::HeaderMap;
    use axum::response::{IntoResponse as _, Redirect, Response};
    use axum::routing::delete;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;

    const NO_PAUSES: [Duration; 3] = [Duration::ZERO; 3];

    /// Who was asked for, in order.
    type Asked = Arc<Mutex<Vec<String>>>;

    /// EMQX, as far as its documentation goes: <https://docs.emqx.com/en/emqx/latest/admin/api.html>.
    async fn kick(State(asked): State<Asked>, Path(client_id): Path<String>, headers: HeaderMap) -> Response {
        let count = {
            let mut asked = asked.lock().unwrap();
            asked.push(client_id.clone());
            asked.iter().filter(|asked| **asked == client_id).count()
        };
        let problem = |status: u16, code: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            (status, Json(json!({"code": code, "message": "…"}))).into_response()
        };
        if headers.get("authorization").unwrap() != &format!("Basic {}", STANDARD.encode("pairgate:s3cret")) {
            return problem(401, "BAD_API_KEY_OR_SECRET");
        }
        match client_id.as_str() {
            "tv-gone" => problem(404, "CLIENTID_NOT_FOUND"),
            "tv-slow" if count < 3 => problem(503, "SERVICE_UNAVAILABLE"),
            "tv-never" => problem(500, "INTERNAL_ERROR"),
            "tv-away" => Redirect::temporary("/api/v5/clients/tv-1").into_response(),
            "tv-page" => (StatusCode::NOT_FOUND, "<html>").into_response(),
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    }

    async fn emqx(folder: &tempfile::TempDir) -> (Emqx, Asked) {
        let asked = Asked::default();
        let router = Router::new().route("/api/v5/clients/{id}", delete(kick)).with_state(Arc::clone(&asked));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let secret_file = folder.path().join("secret");
        std::fs::write(&secret_file, "s3cret\n").unwrap();
        (Emqx { api, key: "pairgate".into(), secret_file, ca: None }, asked)
    }

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    #[tokio::test]
    async fn connections_are_ended_one_after_another_and_a_passing_trouble_is_survived() {
        let folder = tempfile::tempdir().unwrap();
        let (emqx, asked) = emqx(&folder).await;
        let (kicks, kicked) = mpsc::channel(8);
        for device in ["tv-1", "tv-gone", "tv-slow", "tv-never", "tv-2"] {
            kicks.send(id(device)).await.unwrap();
        }
        drop(kicks);
        let (_stop, stopping) = watch::channel(false);
        end_with(&emqx, kicked, stopping, &NO_PAUSES).await;
        let asked = asked.lock().unwrap().clone();
        let expected: Vec<&str> = ["tv-1", "tv-gone"]
            .into_iter()
            .chain(std::iter::repeat_n("tv-slow", 3))
            .chain(std::iter::repeat_n("tv-never", 4))
            .chain(["tv-2"])
            .collect();
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn what_will_not_pass_is_not_tried_again_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (emqx, asked) = emqx(&folder).await;
        let not_pem = folder.path().join("ca.pem");
        std::fs::write(&not_pem, "no certificate").unwrap();
        let wrong_key = Emqx { key: "other".into(), ..emqx.clone() };
        let wrong_ca = Emqx { ca: Some(not_pem), ..emqx.clone() };
        let no_secret = Emqx { secret_file: folder.path().join("absent"), ..emqx.clone() };
        for (emqx, device, advice, requests) in [
            (&emqx, "tv-away", "not followed", 1),
            (&emqx, "tv-page", "mqtt.emqx.api", 1),
            (&wrong_key, "tv-1", "mqtt.emqx.key", 1),
            (&wrong_ca, "tv-1", "mqtt.emqx.ca", 0),
            (&no_secret, "tv-1", "mqtt.emqx.secret_file", 0),
        ] {
            asked.lock().unwrap().clear();
            let failure = insist(emqx, &id(device), &NO_PAUSES).await.unwrap_err();
            assert!(matches!(&failure, Failure::Lasting(why) if why.contains(advice)), "{device}: {failure}");
            assert_eq!(asked.lock().unwrap().len(), requests, "{device}");
        }
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let away = Emqx { api: format!("http://{nobody}").parse().unwrap(), ..emqx };
        assert!(matches!(insist(&away, &id("tv-1"), &NO_PAUSES).await, Err(Failure::Passing(_))));
        assert_eq!(judge(StatusCode::FORBIDDEN, b"{}"), judge(StatusCode::FORBIDDEN, b""));
    }

    #[tokio::test]
    async fn a_process_that_stops_does_not_wait_for_emqx() {
        let folder = tempfile::tempdir().unwrap();
        let (emqx, _) = emqx(&folder).await;
        let (kicks, kicked) = mpsc::channel(8);
        kicks.send(id("tv-never")).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let ending = tokio::spawn(end_connections(emqx, kicked, stopping));
        stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), ending).await.unwrap().unwrap();
    }
}
