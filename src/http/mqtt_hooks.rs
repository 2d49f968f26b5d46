//! `/mqtt/auth` and `/mqtt/acl`: the organisation's MQTT broker asks who may connect, and who may use which topic. Formats are in
//! [`mqtt_questions`](crate::http::mqtt_questions), set-up in `docs/mqtt-emqx.md`.
//!
//! The broker is believed which client it is that it asks about, if it shows the secret: where it can set a header, as `Authorization: Bearer`; as password
//! of HTTP Basic; else as the last segment of the address. Whether that client may, is not its word but that of the registry.
//!
//! | who | connects | topics below the prefix | other topics |
//! | --- | --- | --- | --- |
//! | a device, an operator | by [`Broker::connect`] | its own; no others, no wildcards, nothing retained | the next rule |
//! | Pairgate itself | by its password | all | the next rule |
//! | somebody else | the next rule, but under nobody's client id of ours | the next rule | the next rule |

use std::sync::Arc;

use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::broker::Broker;
use crate::broker::connections::{Connect, ConnectError, Connected};
use crate::config::mqtt::{Mqtt, OutsideBroker, read_secret};
use crate::config::{ConfigError, Hidden};
use crate::http::Edge;
use crate::http::extract::{Peer, SmallBody};
use crate::http::mqtt_questions::{Action, Question, Use, Verdict, What, answer, parse};
use crate::id::DeviceId;
use crate::mqtt::topics::Topics;
use crate::secret::is_equal;
use crate::store::StoreError;

/// A shorter secret could be guessed.
const MIN_SECRET: usize = 32;
/// Longer than any client id of ours: a device id, 16 characters of a key, a name; or `operator.<name>.` and what the console likes.
const MAX_CLIENT_ID: usize = 100;

/// What is needed to answer.
#[derive(Debug)]
pub struct Hooks {
    secret: Hidden,
    topics: Topics,
    own: Option<Own>,
}

/// Our own client, if it connects by a password. By a certificate, it is the broker that knows it.
#[derive(Debug)]
struct Own {
    client_id: String,
    user_name: String,
    password: Hidden,
}

impl Hooks {
    /// As configured; none if brokers are not to be answered.
    ///
    /// # Errors
    /// If a file can't be read, or the secret is too short.
    pub fn load(mqtt: &Mqtt) -> Result<Option<Self>, ConfigError> {
        let Some(path) = &mqtt.hook_secret_file else { return Ok(None) };
        let secret = read_secret("mqtt.hook_secret_file", path)?;
        if secret.0.len() < MIN_SECRET {
            let path = path.display();
            return Err(ConfigError(format!(
                "mqtt.hook_secret_file: {path}: the secret needs at least {MIN_SECRET} characters: openssl rand -hex 32"
            )));
        }
        let own = match &mqtt.broker {
            Some(OutsideBroker { client_id, user_name: Some(name), password_file: Some(path), .. }) => {
                let password = read_secret("mqtt.password_file", path)?;
                Some(Own { client_id: client_id.clone(), user_name: name.clone(), password })
            }
            _ => None,
        };
        Ok(Some(Self { secret, topics: Topics::new(&mqtt.prefix), own }))
    }

    /// Does the broker show the secret?
    fn is_shown(&self, headers: &HeaderMap, segment: Option<&str>) -> bool {
        let shown = shown(headers).or_else(|| segment.map(str::to_owned));
        shown.is_some_and(|shown| is_equal(shown.as_bytes(), self.secret.0.as_bytes()))
    }

    fn is_own(&self, user_name: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.user_name == user_name)
    }
}

/// What stands in the one `Authorization` header: a bearer token (RFC 6750), or the password of Basic (RFC 7617).
fn shown(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, value) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    let plain = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(value).ok()).flatten()?;
    String::from_utf8(plain).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

/// The routes.
pub fn routes(hooks: Hooks) -> Router<Edge> {
    Router::new()
        .route("/mqtt/auth", post(asked::<true>))
        .route("/mqtt/auth/{secret}", post(asked::<true>))
        .route("/mqtt/acl", post(asked::<false>))
        .route("/mqtt/acl/{secret}", post(asked::<false>))
        .layer(Extension(Arc::new(hooks)))
}

/// Answers who may connect, or else who may use which topic.
async fn asked<const IS_AUTH: bool>(
    State(edge): State<Edge>,
    Extension(hooks): Extension<Arc<Hooks>>,
    Peer(peer): Peer,
    segment: Option<Path<String>>,
    request: Request,
) -> Response {
    let broker = edge.broker();
    // Nobody reads what a stranger sends.
    if !hooks.is_shown(request.headers(), segment.as_ref().map(|Path(segment)| segment.as_str())) {
        broker.note_message_refused(None, "a broker's question without the right secret", peer).await;
        let headers = [(header::WWW_AUTHENTICATE, "Bearer"), (header::CACHE_CONTROL, "no-store")];
        return (StatusCode::UNAUTHORIZED, headers, "Show the secret of [mqtt] hook_secret_file.\n").into_response();
    }
    let content_type = text(request.headers(), "content-type").unwrap_or_default();
    let hook = text(request.headers(), "vernemq-hook");
    let body = match SmallBody::from_request(request, &()).await {
        Ok(SmallBody(body)) => body,
        Err(refused) => return refused.into_response(),
    };
    let question = match parse(&content_type, hook.as_deref(), &body) {
        Ok(question) if IS_AUTH != matches!(question.what, What::Use(_)) => question,
        Ok(_) => return unreadable("/mqtt/auth is for who connects, /mqtt/acl for topics"),
        Err(why) => return unreadable(why.0),
    };
    let verdicts = judge(broker, &hooks, &question).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a broker's question could not be judged; the answer is no");
        vec![Verdict::Deny]
    });
    let (status, body) = answer(&question, &verdicts);
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn unreadable(why: &str) -> Response {
    let advice = format!("No answer: {why}. See docs/mqtt-emqx.md.\n");
    (StatusCode::BAD_REQUEST, [(header::CACHE_CONTROL, "no-store")], advice).into_response()
}

async fn judge(broker: &Broker, hooks: &Hooks, question: &Question) -> Result<Vec<Verdict>, StoreError> {
    // A wildcard there may become one in somebody else's rule that names topics after client ids (A-056, D-14).
    if question.client_id.chars().any(|letter| "#+".contains(letter) || letter.is_control()) {
        broker.note_message_refused(None, "a client id with wildcards or control characters", question.peer).await;
        return Ok(vec![Verdict::Deny]);
    }
    match &question.what {
        What::Superuser => Ok(vec![Verdict::Deny]),
        What::Connect(password) => Ok(vec![may_connect(broker, hooks, question, password.as_deref()).await?]),
        What::Use(uses) => may_use(broker, hooks, question, uses).await,
    }
}

async fn may_connect(
    broker: &Broker,
    hooks: &Hooks,
    question: &Question,
    password: Option<&str>,
) -> Result<Verdict, StoreError> {
    let (client_id, user_name) = (question.client_id.as_str(), question.user_name.as_str());
    if let Some(own) = hooks.own.as_ref().filter(|own| own.user_name == user_name || own.client_id == client_id) {
        let shown = password.unwrap_or_default();
        if own.user_name == user_name && is_equal(shown.as_bytes(), own.password.0.as_bytes()) {
            return Ok(Verdict::Allow);
        }
        broker
            .note_message_refused(None, "Pairgate's own name or client id, without its password", question.peer)
            .await;
        return Ok(Verdict::Deny);
    }
    let name = if user_name.is_empty() { client_id } else { user_name };
    // Who wants to be paired has a name that nobody has registered, and a password that only our clients have.
    let is_signed = password.is_some_and(|password| password.split('.').count() == 3);
    let is_ours = user_name.starts_with("operator:")
        || (is_signed && DeviceId::new(user_name).is_ok())
        || broker.is_device(name).await?;
    if !is_ours {
        // The organisation's other clients: the next rule's business, but for the places of ours.
        if !is_place_of_ours(broker, client_id).await? {
            return Ok(Verdict::Ignore);
        }
        broker
            .note_message_refused(None, "a client id of a device or an operator under another name", question.peer)
            .await;
        return Ok(Verdict::Deny);
    }
    let user_name = (!user_name.is_empty()).then_some(user_name);
    let connect = Connect { client_id, user_name, password, certificates: &[], peer: question.peer };
    match broker.connect(&connect).await {
        Ok(_) => Ok(Verdict::Allow),
        Err(ConnectError::Refused | ConnectError::Unavailable) => Ok(Verdict::Deny),
    }
}

/// Would a connection under this client id end that of a device or an operator?
async fn is_place_of_ours(broker: &Broker, client_id: &str) -> Result<bool, StoreError> {
    let device = client_id.split('.').next().unwrap_or_default();
    Ok(client_id.starts_with("operator.") || broker.is_device(device).await?)
}

async fn may_use(
    broker: &Broker,
    hooks: &Hooks,
    question: &Question,
    uses: &[Use],
) -> Result<Vec<Verdict>, StoreError> {
    let (client_id, user_name) = (question.client_id.as_str(), question.user_name.as_str());
    let name = if user_name.is_empty() { client_id } else { user_name };
    let is_device = broker.is_device(name).await?;
    // A device that is called like our own client has a device's rights, not ours.
    if hooks.is_own(user_name) && !is_device {
        let allow = |one: &Use| if hooks.topics.is_below(&one.topic) { Verdict::Allow } else { Verdict::Ignore };
        return Ok(uses.iter().map(allow).collect());
    }
    let is_sound = client_id.len() <= MAX_CLIENT_ID && !client_id.contains('/');
    let connected = if is_sound { broker.connected(client_id, user_name).await? } else { None };
    if connected.is_none() && !is_device && !user_name.starts_with("operator:") {
        return Ok(vec![Verdict::Ignore; uses.len()]);
    }
    let verdicts: Vec<Verdict> = uses.iter().map(|one| of_ours(&hooks.topics, connected.as_ref(), one)).collect();
    if verdicts.contains(&Verdict::Deny) {
        let device = is_device.then(|| DeviceId::new(name).ok()).flatten();
        broker.note_message_refused(device.as_ref(), "a topic that is not its own", question.peer).await;
    }
    Ok(verdicts)
}

/// May a device or an operator? Nobody is connected if it may not be any more.
fn of_ours(topics: &Topics, connected: Option<&Connected>, one: &Use) -> Verdict {
    let is_allowed = connected.is_some_and(|connected| match one.action {
        // What a broker keeps would still be there for a device that comes later.
        Action::Publish { is_retained } => !is_retained && topics.may_publish(connected, &one.topic),
        Action::Subscribe { .. } => topics.may_subscribe(connected, &one.topic),
    });
    match is_allowed {
        true => Verdict::Allow,
        false if topics.is_reached_by(&one.topic) => Verdict::Deny,
        false => Verdict::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn hooks() -> Hooks {
        Hooks { secret: Hidden(SECRET.into()), topics: Topics::new("pairgate"), own: None }
    }

    #[test]
    fn the_secret_is_shown_in_one_way_a_059() {
        let basic = |plain: &str| format!("Basic {}", STANDARD.encode(plain));
        let headers = |values: &[String]| {
            values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect::<HeaderMap>()
        };
        for value in [
            format!("Bearer {SECRET}"),
            format!("bearer {SECRET}"),
            basic(&format!("pairgate:{SECRET}")),
            basic(&format!(":{SECRET}")),
        ] {
            assert!(hooks().is_shown(&headers(std::slice::from_ref(&value)), None), "{value}");
            assert!(!hooks().is_shown(&headers(&[value.clone(), value.clone()]), None), "twice: {value}");
        }
        for value in [
            String::new(),
            SECRET.into(),
            "Bearer ".into(),
            format!("Bearer  {SECRET}"),
            format!("Bearer {SECRET}x"),
            format!("Bearer {}", &SECRET[1..]),
            format!("Digest {SECRET}"),
            format!("Basic {SECRET}"),
            basic(SECRET),
            basic(&format!("{SECRET}:")),
        ] {
            assert!(!hooks().is_shown(&headers(std::slice::from_ref(&value)), None), "{value}");
        }
        assert!(hooks().is_shown(&HeaderMap::new(), Some(SECRET)));
        assert!(!hooks().is_shown(&HeaderMap::new(), Some("")) && !hooks().is_shown(&HeaderMap::new(), None));
        let wrong = headers(&["Bearer wrong".into()]);
        assert!(!hooks().is_shown(&wrong, Some(SECRET)), "a wrong header is not saved by the address");
    }

    #[test]
    fn a_short_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let mqtt = Mqtt { hook_secret_file: Some(path.clone()), ..Mqtt::default() };
        assert!(Hooks::load(&mqtt).is_err(), "no file");
        std::fs::write(&path, "short\n").unwrap();
        assert!(Hooks::load(&mqtt).unwrap_err().to_string().contains("openssl"));
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        assert!(Hooks::load(&mqtt).unwrap().is_some());
        assert!(Hooks::load(&Mqtt::default()).unwrap().is_none());
    }

    #[test]
    fn what_is_not_allowed_below_the_prefix_is_denied_and_elsewhere_left_to_others_a_057_a_058() {
        let topics = Topics::new("pairgate");
        let id = DeviceId::new("tv-1").unwrap();
        let device = Connected::Device { id, jkt: [1; 32] };
        let publish = |topic: &str, is_retained| Use { topic: topic.into(), action: Action::Publish { is_retained } };
        let subscribe = |topic: &str| Use { topic: topic.into(), action: Action::Subscribe { qos: 1 } };
        for (one, active, gone) in [
            (publish("pairgate/v1/tv-1/pairing/request", false), Verdict::Allow, Verdict::Deny),
            (publish("pairgate/v1/tv-1/pairing/request", true), Verdict::Deny, Verdict::Deny),
            (publish("pairgate/v1/tv-2/pairing/request", false), Verdict::Deny, Verdict::Deny),
            (publish("pairgate/v1/tv-1/event", false), Verdict::Deny, Verdict::Deny),
            (publish("sensors/tv-1", true), Verdict::Ignore, Verdict::Ignore),
            (subscribe("pairgate/v1/tv-1/event"), Verdict::Allow, Verdict::Deny),
            (subscribe("pairgate/v1/+/event"), Verdict::Deny, Verdict::Deny),
            (subscribe("#"), Verdict::Deny, Verdict::Deny),
            (subscribe("$share/x/pairgate/v1/tv-1/event"), Verdict::Deny, Verdict::Deny),
            (subscribe("sensors/#"), Verdict::Ignore, Verdict::Ignore),
        ] {
            assert_eq!(of_ours(&topics, Some(&device), &one), active, "{one:?}");
            assert_eq!(of_ours(&topics, None, &one), gone, "{one:?}");
        }
    }
}
