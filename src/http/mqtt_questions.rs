//! What MQTT brokers ask, and what they take for an answer. Only reading and writing, no decision; `docs/mqtt-emqx.md` shows how each is set up.
//!
//! | who asks | how it is known | yes | no | not my business |
//! | --- | --- | --- | --- | --- |
//! | VerneMQ's webhooks | header `vernemq-hook` | `{"result":"ok"}` | `{"result":{"error":"not_allowed"}}`; of several filters, the one with QoS 128 (135 in MQTT 5) | `{"result":"next"}` |
//! | EMQX 5 | `action` of an authorization, `peerhost` of an authentication | `{"result":"allow"}` | `{"result":"deny"}` | `{"result":"ignore"}` |
//! | mosquitto-go-auth | all others | 200 `{"ok":true}` | 403 `{"ok":false}` | as no: it then asks its next backend |
//!
//! mosquitto-go-auth takes any 2xx for a yes, whatever stands in the body. So nobody gets a 200 with a no in it who has not shown that he reads bodies.

use std::net::IpAddr;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::oauth::form::Form;

/// More filters than a device or an operator ever asks for at once.
const MAX_FILTERS: usize = 64;

/// Who asks: it decides how the answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// EMQX, HTTP authentication and authorization.
    Emqx,
    /// VerneMQ, webhooks.
    Vernemq {
        /// For a client that speaks MQTT 5?
        is_v5: bool,
    },
    /// Mosquitto, with mosquitto-go-auth.
    GoAuth,
}

/// A question about one client. Who it is, is the broker's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub asker: Asker,
    /// Client id.
    pub client_id: String,
    /// User name; empty if there is none.
    pub user_name: String,
    /// Where the client is, if the broker says so.
    pub peer: Option<IpAddr>,
    /// What is asked.
    pub what: What,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq)]
pub enum What {
    /// May it connect, with this password?
    Connect(Option<String>),
    /// Is it above all rules? Nobody is.
    Superuser,
    /// May it do all of these?
    Use(Vec<Use>),
}

impl std::fmt::Debug for What {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(_) => formatter.write_str("Connect(…)"),
            Self::Superuser => formatter.write_str("Superuser"),
            Self::Use(uses) => formatter.debug_tuple("Use").field(uses).finish(),
        }
    }
}

/// One use of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Topic, or filter.
    pub topic: String,
    /// What it is to do there.
    pub action: Action,
}

/// What a client does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publishes.
    Publish {
        /// A message that the broker keeps?
        is_retained: bool,
    },
    /// Subscribes, or gets a message.
    Subscribe {
        /// The quality of service that it wants.
        qos: u8,
    },
}

/// What is answered, for each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No, whatever other rules say.
    Deny,
    /// Whatever other rules say.
    Ignore,
}

/// It was no question of any of these brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(pub &'static str);

/// Reads a question.
///
/// # Errors
/// [`Unreadable`] for any other shape. A member that stands twice makes two readings possible (A-017).
pub fn parse(content_type: &str, vernemq_hook: Option<&str>, body: &[u8]) -> Result<Question, Unreadable> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let is_json = media.eq_ignore_ascii_case("application/json");
    match vernemq_hook {
        Some(hook) if is_json => vernemq(hook, body),
        None if is_json => {
            let plain = serde_json::from_slice(body).map_err(|_| Unreadable("the JSON is none that brokers send"))?;
            plain_question(plain)
        }
        None if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") => {
            let form = Form::parse(body).map_err(|_| Unreadable("the form has a field twice, or too many"))?;
            plain_question(Plain::from_form(&form))
        }
        _ => Err(Unreadable("the content type must be application/json, or a form")),
    }
}

/// The body of VerneMQ's hooks, as far as it matters.
#[derive(Deserialize)]
struct Hook {
    client_id: String,
    username: Option<String>,
    password: Option<String>,
    peer_addr: Option<String>,
    topic: Option<String>,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    topics: Vec<Filter>,
}

#[derive(Deserialize)]
struct Filter {
    topic: String,
    qos: u8,
}

fn vernemq(name: &str, body: &[u8]) -> Result<Question, Unreadable> {
    let hook: Hook = serde_json::from_slice(body).map_err(|_| Unreadable("the JSON is none that VerneMQ sends"))?;
    let (name, is_v5) = name.strip_suffix("_m5").map_or((name, false), |name| (name, true));
    let what = match (name, hook.topic) {
        ("auth_on_register", _) => What::Connect(hook.password),
        ("auth_on_publish", Some(topic)) => {
            What::Use(vec![Use { topic, action: Action::Publish { is_retained: hook.retain } }])
        }
        ("auth_on_subscribe", _) if (1..=MAX_FILTERS).contains(&hook.topics.len()) => {
            let wanted = hook.topics.into_iter();
            What::Use(wanted.map(|Filter { topic, qos }| Use { topic, action: Action::Subscribe { qos } }).collect())
        }
        _ => return Err(Unreadable("the hook is none that is answered, or its topics are missing")),
    };
    Ok(Question {
        asker: Asker::Vernemq { is_v5 },
        client_id: hook.client_id,
        user_name: hook.username.unwrap_or_default(),
        peer: address(hook.peer_addr.as_deref()),
        what,
    })
}

/// EMQX fills a template, in which `retain` may be a text; mosquitto-go-auth sends numbers in JSON and texts in forms.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Flag(bool),
    Number(u64),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// The body of the two others, as far as it matters.
#[derive(Default, Deserialize)]
struct Plain {
    username: Option<String>,
    clientid: Option<String>,
    password: Option<String>,
    peerhost: Option<String>,
    topic: Option<String>,
    action: Option<String>,
    retain: Option<Scalar>,
    acc: Option<Scalar>,
}

impl Plain {
    fn from_form(form: &Form<'_>) -> Self {
        let text = |name| form.get(name).map(str::to_owned);
        let scalar = |name| text(name).map(Scalar::Text);
        Self {
            username: text("username"),
            clientid: text("clientid"),
            password: text("password"),
            peerhost: text("peerhost"),
            topic: text("topic"),
            action: text("action"),
            retain: scalar("retain"),
            acc: scalar("acc"),
        }
    }
}

fn plain_question(plain: Plain) -> Result<Question, Unreadable> {
    let is_retained = match plain.retain.map(Scalar::into_text).as_deref() {
        None | Some("" | "false" | "0") => false,
        // Whatever else it is: a message that may be retained is refused.
        Some(_) => true,
    };
    let (publish, subscribe) = (Action::Publish { is_retained }, Action::Subscribe { qos: 0 });
    let uses = |topic: &str, actions: &[Action]| {
        What::Use(actions.iter().map(|action| Use { topic: topic.to_owned(), action: *action }).collect())
    };
    let (acc, action) = (plain.acc.map(Scalar::into_text), plain.action);
    let (asker, what) = match (plain.topic, action.as_deref(), acc.as_deref()) {
        (Some(topic), Some("publish"), None) => (Asker::Emqx, uses(&topic, &[publish])),
        (Some(topic), Some("subscribe"), None) => (Asker::Emqx, uses(&topic, &[subscribe])),
        // 1 is to get a message, 4 to subscribe (Mosquitto's MOSQ_ACL_READ, _WRITE and _SUBSCRIBE); 3 is both of the first.
        (Some(topic), None, Some("1" | "4")) => (Asker::GoAuth, uses(&topic, &[subscribe])),
        (Some(topic), None, Some("2")) => (Asker::GoAuth, uses(&topic, &[publish])),
        (Some(topic), None, Some("3")) => (Asker::GoAuth, uses(&topic, &[publish, subscribe])),
        (None, None, None) if plain.clientid.is_none() && plain.password.is_none() => (Asker::GoAuth, What::Superuser),
        (None, None, None) if plain.peerhost.is_some() => (Asker::Emqx, What::Connect(plain.password)),
        (None, None, None) => (Asker::GoAuth, What::Connect(plain.password)),
        _ => return Err(Unreadable("topic, action and acc fit none of the brokers")),
    };
    Ok(Question {
        asker,
        client_id: plain.clientid.unwrap_or_default(),
        user_name: plain.username.unwrap_or_default(),
        peer: address(plain.peerhost.as_deref()),
        what,
    })
}

fn address(text: Option<&str>) -> Option<IpAddr> {
    text?.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// What the asker understands. `verdicts` has one for each use, or one.
pub fn answer(question: &Question, verdicts: &[Verdict]) -> (StatusCode, Value) {
    let is_all = |wanted| verdicts.iter().all(|verdict| *verdict == wanted);
    let verdict = match verdicts {
        [] => Verdict::Deny,
        _ if is_all(Verdict::Allow) => Verdict::Allow,
        _ if is_all(Verdict::Ignore) => Verdict::Ignore,
        _ => Verdict::Deny,
    };
    match (question.asker, verdict) {
        (Asker::Emqx, Verdict::Allow) if matches!(question.what, What::Connect(_)) => {
            (StatusCode::OK, json!({"result": "allow", "is_superuser": false}))
        }
        (Asker::Emqx, Verdict::Allow) => (StatusCode::OK, json!({"result": "allow"})),
        (Asker::Emqx, Verdict::Deny) => (StatusCode::OK, json!({"result": "deny"})),
        (Asker::Emqx, Verdict::Ignore) => (StatusCode::OK, json!({"result": "ignore"})),
        (Asker::Vernemq { .. }, Verdict::Allow) => (StatusCode::OK, json!({"result": "ok"})),
        (Asker::Vernemq { .. }, Verdict::Ignore) => (StatusCode::OK, json!({"result": "next"})),
        (Asker::Vernemq { is_v5 }, Verdict::Deny) => (StatusCode::OK, some_of_them(question, verdicts, is_v5)),
        (Asker::GoAuth, Verdict::Allow) => (StatusCode::OK, json!({"ok": true, "error": ""})),
        (Asker::GoAuth, _) => (StatusCode::FORBIDDEN, json!({"ok": false, "error": "not allowed"})),
    }
}

/// VerneMQ's answer where one filter may be subscribed to and another not. What other rules might allow is refused beside it: they are not asked any more.
fn some_of_them(question: &Question, verdicts: &[Verdict], is_v5: bool) -> Value {
    let refused = || json!({"result": {"error": "not_allowed"}});
    let What::Use(uses) = &question.what else { return refused() };
    if !verdicts.contains(&Verdict::Allow) {
        return refused();
    }
    let refusal = if is_v5 { 135 } else { 128 };
    let mut topics = Vec::new();
    for (one, verdict) in uses.iter().zip(verdicts) {
        let Action::Subscribe { qos } = one.action else { return refused() };
        let qos = if *verdict == Verdict::Allow { qos } else { refusal };
        topics.push(json!({"topic": one.topic, "qos": qos}));
    }
    if is_v5 {
        json!({"result": "ok", "modifiers": {"topics": topics}})
    } else {
        json!({"result": "ok", "topics": topics})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn json_question(body: &Value) -> Result<Question, Unreadable> {
        parse("application/json; charset=utf-8", None, body.to_string().as_bytes())
    }

    fn publish(topic: &str, is_retained: bool) -> What {
        What::Use(vec![Use { topic: topic.into(), action: Action::Publish { is_retained } }])
    }

    fn subscribe(topic: &str, qos: u8) -> What {
        What::Use(vec![Use { topic: topic.into(), action: Action::Subscribe { qos } }])
    }

    #[test]
    fn emqx_and_go_auth_are_told_apart_by_what_only_one_of_them_sends() {
        let connect = || What::Connect(Some("p".into()));
        for (body, asker, what) in [
            (
                json!({"username": "u", "clientid": "c", "password": "p", "peerhost": "::ffff:10.0.0.1"}),
                Asker::Emqx,
                connect(),
            ),
            (json!({"username": "u", "clientid": "c", "password": "p"}), Asker::GoAuth, connect()),
            (
                json!({"username": "u", "clientid": "c", "password": null, "peerhost": ""}),
                Asker::Emqx,
                What::Connect(None),
            ),
            (json!({"username": "u"}), Asker::GoAuth, What::Superuser),
            (
                json!({"username": "u", "clientid": "c", "topic": "t", "action": "publish", "retain": "true", "qos": "1"}),
                Asker::Emqx,
                publish("t", true),
            ),
            (
                json!({"username": "u", "clientid": "c", "topic": "t", "action": "publish", "retain": false}),
                Asker::Emqx,
                publish("t", false),
            ),
            (
                json!({"username": "u", "clientid": "c", "topic": "t", "action": "publish", "retain": "maybe"}),
                Asker::Emqx,
                publish("t", true),
            ),
            (
                json!({"username": "u", "clientid": "c", "topic": "t", "action": "subscribe"}),
                Asker::Emqx,
                subscribe("t", 0),
            ),
            (json!({"username": "u", "clientid": "c", "topic": "t", "acc": 1}), Asker::GoAuth, subscribe("t", 0)),
            (json!({"username": "u", "clientid": "c", "topic": "t", "acc": 2}), Asker::GoAuth, publish("t", false)),
            (json!({"username": "u", "clientid": "c", "topic": "t", "acc": 4}), Asker::GoAuth, subscribe("t", 0)),
        ] {
            let question = json_question(&body).unwrap();
            assert_eq!((question.asker, &question.what, question.user_name.as_str()), (asker, &what, "u"), "{body}");
            let form: String = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(body.as_object().unwrap().iter().map(|(name, value)| {
                    (name, value.as_str().map_or_else(|| value.to_string().replace("null", ""), str::to_owned))
                }))
                .finish();
            // An empty field of a form is none.
            if body["peerhost"] != "" {
                assert_eq!(parse(FORM, None, form.as_bytes()), Ok(question), "{form}");
            }
        }
        let both = json_question(&json!({"username": "u", "clientid": "c", "topic": "t", "acc": 3})).unwrap();
        assert!(matches!(both.what, What::Use(uses) if uses.len() == 2));
        let peer =
            json_question(&json!({"username": "u", "clientid": "c", "peerhost": "::ffff:10.0.0.1"})).unwrap().peer;
        assert_eq!(peer, Some([10, 0, 0, 1].into()));
    }

    #[test]
    fn vernemqs_hooks_are_read() {
        let body = json!({
            "peer_addr": "127.0.0.1", "peer_port": 8888, "username": "u", "password": "p", "mountpoint": "", "client_id": "c",
            "clean_session": false, "topic": "t", "qos": 1, "retain": true, "payload": "aGVsbG8=", "properties": {"p_user_property": []},
            "topics": [{"topic": "a", "qos": 1}, {"topic": "b", "qos": 2, "no_local": false, "rap": true, "retain_handling": "send_retain"}],
        })
        .to_string();
        let two = |topic: &str, qos| Use { topic: topic.into(), action: Action::Subscribe { qos } };
        for (hook, what) in [
            ("auth_on_register", What::Connect(Some("p".into()))),
            ("auth_on_publish", publish("t", true)),
            ("auth_on_subscribe", What::Use(vec![two("a", 1), two("b", 2)])),
        ] {
            for (hook, is_v5) in [(hook.to_owned(), false), (format!("{hook}_m5"), true)] {
                let question = parse("application/json", Some(&hook), body.as_bytes()).unwrap();
                assert_eq!((question.asker, question.what), (Asker::Vernemq { is_v5 }, what.clone()), "{hook}");
                assert_eq!((question.client_id.as_str(), question.user_name.as_str()), ("c", "u"));
            }
        }
        let nobody = br#"{"client_id": "c", "username": null, "password": null}"#;
        let question = parse("application/json", Some("auth_on_register"), nobody).unwrap();
        assert_eq!((question.user_name.as_str(), question.what), ("", What::Connect(None)));
    }

    #[test]
    fn what_has_two_readings_or_none_is_refused_a_017() {
        for body in [
            r#"{"username": "a", "username": "b", "clientid": "c"}"#,
            r#"{"username": 7, "clientid": "c"}"#,
            r#"{"username": "a", "clientid": "c", "topic": "t"}"#,
            r#"{"username": "a", "clientid": "c", "action": "publish"}"#,
            r#"{"username": "a", "clientid": "c", "topic": "t", "action": "all"}"#,
            r#"{"username": "a", "clientid": "c", "topic": "t", "action": "publish", "acc": 2}"#,
            r#"{"username": "a", "clientid": "c", "topic": "t", "acc": 8}"#,
            r#"{"username": "a", "clientid": "c", "topic": "t", "acc": -1}"#,
            "[]",
            "",
            "{",
            "\u{0}",
        ] {
            assert!(parse("application/json", None, body.as_bytes()).is_err(), "{body}");
        }
        for body in ["username=a&username=b&clientid=c", "username=a&topic=t", "acc=1"] {
            assert!(parse(FORM, None, body.as_bytes()).is_err(), "{body}");
        }
        let many = json!({"client_id": "c", "topics": vec![json!({"topic": "t", "qos": 0}); 65]}).to_string();
        for (hook, body) in [
            ("on_publish", r#"{"client_id": "c", "topic": "t"}"#),
            ("auth_on_publish", r#"{"client_id": "c"}"#),
            ("auth_on_subscribe", r#"{"client_id": "c", "topics": []}"#),
            ("auth_on_subscribe", &many),
            ("auth_on_register", r#"{"username": "u"}"#),
            ("auth_on_register_m5_m5", r#"{"client_id": "c"}"#),
            ("", r#"{"client_id": "c"}"#),
        ] {
            assert!(parse("application/json", Some(hook), body.as_bytes()).is_err(), "{hook} {body}");
        }
        for media in ["", "text/plain", "text/json", "multipart/form-data"] {
            assert!(parse(media, None, br#"{"username": "u"}"#).is_err(), "{media}");
        }
        assert!(parse(FORM, Some("auth_on_register"), b"client_id=c").is_err());
    }

    /// One row a verdict: a status that go-auth would take for a yes is never a no.
    #[test]
    fn each_asker_gets_its_own_answer() {
        let question = |asker, what| Question { asker, client_id: "c".into(), user_name: "u".into(), peer: None, what };
        let rows = [
            (Asker::Emqx, 200, r#"{"result":"allow"}"#, 200, r#"{"result":"deny"}"#, 200, r#"{"result":"ignore"}"#),
            (
                Asker::Vernemq { is_v5: true },
                200,
                r#"{"result":"ok"}"#,
                200,
                r#"{"result":{"error":"not_allowed"}}"#,
                200,
                r#"{"result":"next"}"#,
            ),
            (
                Asker::GoAuth,
                200,
                r#"{"error":"","ok":true}"#,
                403,
                r#"{"error":"not allowed","ok":false}"#,
                403,
                r#"{"error":"not allowed","ok":false}"#,
            ),
        ];
        for (asker, yes, yes_body, no, no_body, next, next_body) in rows {
            for (verdict, status, body) in
                [(Verdict::Allow, yes, yes_body), (Verdict::Deny, no, no_body), (Verdict::Ignore, next, next_body)]
            {
                let (is_status, is_body) = answer(&question(asker, publish("t", false)), &[verdict]);
                assert_eq!((is_status.as_u16(), is_body.to_string().as_str()), (status, body), "{asker:?} {verdict:?}");
            }
        }
        let connect = answer(&question(Asker::Emqx, What::Connect(None)), &[Verdict::Allow]).1;
        assert_eq!(connect, json!({"result": "allow", "is_superuser": false}));
        let two = |topic: &str| Use { topic: topic.into(), action: Action::Subscribe { qos: 1 } };
        let mixed = |is_v5, verdicts: &[Verdict]| {
            answer(&question(Asker::Vernemq { is_v5 }, What::Use(vec![two("a"), two("b")])), verdicts).1
        };
        let topics = |refusal: u8| json!([{"topic": "a", "qos": 1}, {"topic": "b", "qos": refusal}]);
        for other in [Verdict::Deny, Verdict::Ignore] {
            assert_eq!(mixed(false, &[Verdict::Allow, other]), json!({"result": "ok", "topics": topics(128)}));
            let modifiers = json!({"topics": topics(135)});
            assert_eq!(mixed(true, &[Verdict::Allow, other]), json!({"result": "ok", "modifiers": modifiers}));
        }
        let refused = json!({"result": {"error": "not_allowed"}});
        assert_eq!(mixed(true, &[Verdict::Deny, Verdict::Ignore]), refused);
        assert_eq!(mixed(false, &[]), refused, "no verdict is a no");
    }
}
