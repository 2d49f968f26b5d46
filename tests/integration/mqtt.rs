//! Pairing, events and connections over the broker's own MQTT endpoint (docs/mqtt.md).

use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::config::mqtt::OutsideBroker;
use pairgate::model::operator::Role;
use pairgate::mqtt::relay::Relay;
use pairgate::simulator::mqtt::Heard;
use pairgate::simulator::routine::DeviceEvent;
use pairgate::simulator::{
    DeviceKey, MqttDoor, MqttLogin, MqttRadio, PairingStatus, SimulatedDevice, TokenAnswer, jose,
};
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use serde_json::json;

use crate::support::mqtt::{PREFIX, TestMqtt, in_step};
use crate::support::{TestBroker, probe};

const SOON: Duration = Duration::from_secs(5);
/// Long enough to be sure that nothing comes.
const SILENCE: Duration = Duration::from_millis(700);

/// A broker with its endpoint, and a registered device that may be paired.
async fn stage(id: &str) -> (TestBroker, TestMqtt, SimulatedDevice) {
    let test = TestBroker::start().await;
    let mqtt = TestMqtt::embedded(&test).await;
    test.register(id, "printer").await;
    test.open_window(id).await;
    let device = in_step(test.stranger(id), &test);
    (test, mqtt, device)
}

/// The same, paired, with its connection.
async fn paired_stage(id: &str) -> (TestBroker, TestMqtt, SimulatedDevice, MqttRadio) {
    let test = TestBroker::start().await;
    let mqtt = TestMqtt::embedded(&test).await;
    let device = in_step(test.paired(id, "printer").await, &test);
    let radio = mqtt.radio(&device, true).await;
    (test, mqtt, device, radio)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_paired_by_number_with_two_messages_and_told_at_once() {
    let (test, mqtt, mut device) = stage("tv-1").await;
    let mut radio = mqtt.radio(&device, false).await;
    let (show, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let pairing = tokio::spawn(async move {
        let pins = radio.pair(&mut device, |event| drop(show.send(event))).await;
        (pins, device, radio)
    });
    let Some(DeviceEvent::PairingShown(pairing_shown, digits)) = shown.recv().await else { panic!("nothing shown") };
    test.broker
        .confirm_pairing(&Caller::command_line(), &pairing_shown.pairing_id, &Confirm::Number(&digits))
        .await
        .unwrap();
    let (pins, device, radio) = tokio::time::timeout(SOON, pairing).await.unwrap().unwrap();
    assert_eq!(pins.unwrap().issuer, test.issuer);
    assert_eq!((radio.sent, radio.got), (2, 3), "request and poll; their answers and 'paired'");
    // From now on it connects as itself.
    mqtt.radio(&device, true).await;
    assert_eq!(test.count("pairing.confirmed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_needs_no_pending_poll() {
    let (test, _mqtt, mut device, mut radio) = paired_stage("printer-1").await;
    let approver = test.operator("dana", Role::Approver).await;
    let code = device.request_code(None, None).await.unwrap();
    let page = approver.claim(&code.verification_uri_complete).await.unwrap();
    let told = radio.told(&device, SOON).await.unwrap();
    assert_eq!(told.event, "confirmation_number");
    approver.approve(&page, &told.number.unwrap()).await.unwrap();
    let told = radio.told(&device, SOON).await.unwrap();
    assert_eq!((told.event.as_str(), told.number), ("poll_now", None));
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)), "its first poll is its last");
    assert_eq!((radio.sent, radio.got), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_device_is_told_so_and_asks_once() {
    let (test, _mqtt, mut device, mut radio) = paired_stage("printer-1").await;
    let approver = test.operator("dana", Role::Approver).await;
    let code = device.request_code(None, None).await.unwrap();
    let page = approver.claim(&code.verification_uri_complete).await.unwrap();
    radio.told(&device, SOON).await.unwrap();
    approver.deny(&page).await.unwrap();
    assert_eq!(radio.told(&device, SOON).await.unwrap().event, "denied");
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Denied));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_lost_or_doubled_harm_nobody_a_058() {
    let (test, mqtt, mut device, mut radio) = paired_stage("printer-1").await;
    let approver = test.operator("dana", Role::Approver).await;
    // Doubled: the second one is no event.
    let code = device.request_code(None, None).await.unwrap();
    let page = approver.claim(&code.verification_uri_complete).await.unwrap();
    let event = radio.message("event", SOON).await.unwrap();
    let told = radio.authentic(&device, &event).unwrap();
    assert_eq!(radio.authentic(&device, &event), None);
    // Late: no event either.
    let mut other = mqtt.radio(&in_step(test.paired("printer-2", "printer").await, &test), true).await;
    device.clock_offset_s += 61;
    assert_eq!(other.authentic(&device, &event), None);
    device.clock_offset_s -= 61;
    // Lost: the connection is gone while the approver decides. A plain poll tells the same.
    drop(radio);
    approver.approve(&page, &told.number.unwrap()).await.unwrap();
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_for_one_device_and_by_the_pinned_key_a_057() {
    let (test, mqtt, mut device, mut radio) = paired_stage("printer-1").await;
    let other = in_step(test.paired("printer-2", "printer").await, &test);
    let mut others_radio = mqtt.radio(&other, true).await;
    let approver = test.operator("dana", Role::Approver).await;
    let code = device.request_code(None, None).await.unwrap();
    approver.claim(&code.verification_uri_complete).await.unwrap();
    let event = radio.message("event", SOON).await.unwrap();
    assert!(others_radio.message("event", SILENCE).await.is_none(), "nobody else got it");
    assert_eq!(others_radio.authentic(&other, &event), None, "and to another it says nothing");
    // One that somebody else signs, with the key in its header.
    let forger = DeviceKey::generate_es256().unwrap();
    let now = device.now_s();
    let claims = json!({"iss": test.issuer, "aud": device.id, "iat": now, "exp": now + 60, "jti": "0123456789abcdef", "event": "identify"});
    let forged = forger.sign_raw(&forger.header("device-event+jwt"), &claims).unwrap();
    assert_eq!(radio.authentic(&device, &forged), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_device_is_told_and_its_connection_ends_a_096() {
    let (test, mqtt, device, mut radio) = paired_stage("printer-1").await;
    test.broker.suspend_device(&Caller::command_line(), "printer-1").await.unwrap();
    assert_eq!(radio.told(&device, SOON).await.unwrap().event, "suspended");
    assert!(matches!(radio.hear(SOON).await, Some(Heard::Lost(_))));
    let again = MqttRadio::open(&device, &mqtt.door(), PREFIX, &MqttLogin::Password { is_paired: true }).await;
    assert!(again.is_err(), "and it does not get in again");
    test.broker.resume_device(&Caller::command_line(), "printer-1").await.unwrap();
    mqtt.radio(&device, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_looked_for_hears_it_paired_or_not() {
    let (test, mqtt, device, mut radio) = paired_stage("printer-1").await;
    test.broker.identify_device(&Caller::command_line(), "printer-1").await.unwrap();
    assert_eq!(radio.told(&device, SOON).await.unwrap().event, "identify");
    // One that is being paired gets its last poll answered once more.
    test.register("printer-2", "printer").await;
    test.open_window("printer-2").await;
    let mut new = in_step(test.stranger("printer-2"), &test);
    let mut radio = mqtt.radio(&new, false).await;
    let (request, nonce) = new.pairing_request().unwrap();
    radio.send("pairing/request", request).await.unwrap();
    new.requested(&nonce, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    let (poll, jti) = new.pairing_poll().unwrap();
    radio.send("pairing/request", poll).await.unwrap();
    new.polled(&jti, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    assert!(!new.identify);
    test.broker.identify_device(&Caller::command_line(), "printer-2").await.unwrap();
    new.polled(&jti, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    assert!(new.identify);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_goes_on_over_a_restart() {
    let (test, mqtt, mut device) = stage("tv-1").await;
    let mut radio = mqtt.radio(&device, false).await;
    let (request, nonce) = device.pairing_request().unwrap();
    radio.send("pairing/request", request).await.unwrap();
    let shown = device.requested(&nonce, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    mqtt.stop().await;
    let test = test.restart().await;
    let mqtt = TestMqtt::embedded(&test).await;
    let mut radio = mqtt.radio(&device, false).await;
    let (poll, jti) = device.pairing_poll().unwrap();
    radio.send("pairing/request", poll).await.unwrap();
    let status = device.polled(&jti, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    let PairingStatus::Pending { digits, .. } = status else { panic!("{status:?}") };
    let confirm = Confirm::Number(&digits);
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &confirm).await.unwrap();
    let status = device.polled(&jti, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    assert!(matches!(status, PairingStatus::Paired(_)));
}

/// How the endpoint answers a CONNECT.
async fn answer_to(mqtt: &TestMqtt, client_id: &str, login: Option<(&str, &str)>) -> Result<(), String> {
    answer_to_options(mqtt, client_id, login, |_| ()).await
}

/// A connection that stays.
async fn connected(mqtt: &TestMqtt, name: &str, password: &str) -> (AsyncClient, rumqttc::v5::EventLoop) {
    let mut options = MqttOptions::new(name, "127.0.0.1", mqtt.port);
    options.set_credentials(name, password);
    let (client, mut events) = AsyncClient::new(options, 8);
    let answer = tokio::time::timeout(SOON, events.poll()).await.expect("an answer in time").unwrap();
    assert!(matches!(answer, Event::Incoming(Packet::ConnAck(_))), "{answer:?}");
    (client, events)
}

async fn answer_to_options(
    mqtt: &TestMqtt,
    client_id: &str,
    login: Option<(&str, &str)>,
    change: impl FnOnce(&mut MqttOptions),
) -> Result<(), String> {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", mqtt.port);
    if let Some((name, password)) = login {
        options.set_credentials(name, password);
    }
    change(&mut options);
    let (_client, mut events) = AsyncClient::new(options, 8);
    match tokio::time::timeout(SOON, events.poll()).await.expect("an answer in time") {
        Ok(Event::Incoming(Packet::ConnAck(ack))) if ack.code == ConnectReturnCode::Success => Ok(()),
        Err(ConnectionError::ConnectionRefused(code)) => Err(format!("{code:?}")),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_ids_that_are_not_the_devices_own_are_refused_a_056_d_14() {
    let (_test, mqtt, device, _radio) = paired_stage("printer-1").await;
    let own = device.mqtt_client_id(false);
    for client_id in
        ["#", "+", "a/b", "", "printer-1/x", "printer-1\u{0}", "PRINTER-1", "printer-2", "printer-1.", "printer-1.#"]
            .into_iter()
            .chain([own.replace("printer-1", "printer-2").as_str(), &"x".repeat(300)])
            .chain(
                [&format!("{own}x"), &format!("{own}.a/b"), &format!("{own}.#"), &format!("{own}.")]
                    .map(String::as_str),
            )
    {
        let login = device.mqtt_password().unwrap();
        let answer = answer_to(&mqtt, client_id, Some(("printer-1", &login))).await;
        assert!(answer.is_err(), "{client_id:?} was let in");
    }
    for name in ["#", "+", "a/b", "printer-2", "operator:printer-1", ""] {
        let login = device.mqtt_password().unwrap();
        assert!(answer_to(&mqtt, "printer-1", Some((name, &login))).await.is_err(), "{name:?} was let in");
    }
    assert_eq!(answer_to(&mqtt, "printer-1", Some(("printer-1", &device.mqtt_password().unwrap()))).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_a_devices_place_without_its_key_a_059() {
    let (test, mqtt, device, mut radio) = paired_stage("printer-1").await;
    let refused = Err("NotAuthorized".to_owned());
    let thief = in_step(test.stranger("printer-1"), &test);
    assert_eq!(answer_to(&mqtt, "printer-1", Some(("printer-1", &thief.mqtt_password().unwrap()))).await, refused);
    assert_eq!(answer_to(&mqtt, "printer-1", None).await, refused, "anonymous");
    assert_eq!(answer_to(&mqtt, "printer-1", Some(("printer-1", "secret"))).await, refused, "a password that is none");
    assert_eq!(test.count("key.mismatch").await, 1);
    // As something that is to be paired it may connect, and pushes nobody out.
    assert_eq!(
        answer_to(&mqtt, &thief.mqtt_client_id(false), Some(("printer-1", &thief.mqtt_password().unwrap()))).await,
        Ok(())
    );
    test.broker.identify_device(&Caller::command_line(), "printer-1").await.unwrap();
    assert_eq!(radio.told(&device, SOON).await.unwrap().event, "identify", "the device is still connected");
    // A copy of the key can take the place; that shows.
    assert_eq!(test.count("mqtt.flapping").await, 0);
    let mut copies = Vec::new();
    for _ in 0..6 {
        copies.push(connected(&mqtt, "printer-1", &device.mqtt_password().unwrap()).await);
    }
    let shown = async {
        while test.count("mqtt.flapping").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, shown).await.expect("an alert");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_counts_once_and_a_will_or_a_retained_message_is_refused_a_058() {
    let (test, mqtt, device, mut radio) = paired_stage("printer-1").await;
    let password = device.mqtt_password().unwrap();
    assert_eq!(answer_to(&mqtt, "printer-1", Some(("printer-1", &password))).await, Ok(()));
    assert!(answer_to(&mqtt, "printer-1", Some(("printer-1", &password))).await.is_err(), "a replay");
    let password = device.mqtt_password().unwrap();
    let will = answer_to_options(&mqtt, "printer-1", Some(("printer-1", &password)), |options| {
        let topic = format!("{PREFIX}/v1/printer-1/pairing/request");
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        options.set_last_will(rumqttc::v5::mqttbytes::v5::LastWill::new(topic, "x", qos, true, None));
    });
    assert!(will.await.is_err());
    // The connection of before was pushed off by the first of these, and comes back by itself.
    assert!(radio.connected_again(SOON).await);
    let before = test.count("mqtt.refused").await;
    let (poll, _) = {
        let mut new = in_step(test.stranger("printer-1"), &test);
        test.open_window("printer-1").await;
        new.request_pairing().await.unwrap();
        new.pairing_poll().unwrap()
    };
    radio.send_to(&format!("{PREFIX}/v1/printer-1/pairing/request"), poll, true).await.unwrap();
    assert!(radio.message("pairing/response", SILENCE).await.is_none());
    assert_eq!(test.count("mqtt.refused").await, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_others_are_neither_written_nor_read_a_057() {
    let (test, mqtt, _device, mut radio) = paired_stage("printer-1").await;
    let victim = in_step(test.paired("printer-2", "printer").await, &test);
    let mut victims_radio = mqtt.radio(&victim, true).await;
    for filter in [
        "#",
        "+/v1/printer-2/event",
        "pairgate/v1/printer-2/event",
        "pairgate/v1/+/event",
        "$share/x/pairgate/v1/printer-2/event",
    ] {
        radio.subscribe(filter).await.unwrap();
    }
    for topic in
        ["printer-2/pairing/request", "printer-2/event", "printer-2/pairing/response", "operations/commands", "x"]
    {
        radio.send_to(&format!("{PREFIX}/v1/{topic}"), "planted".into(), false).await.unwrap();
    }
    test.broker.identify_device(&Caller::command_line(), "printer-2").await.unwrap();
    assert_eq!(victims_radio.told(&victim, SOON).await.unwrap().event, "identify");
    assert!(radio.message("event", SILENCE).await.is_none());
    assert_eq!(victims_radio.got, 1, "nothing that was planted arrived");
    assert_eq!(test.count("mqtt.refused").await, 5);
    // Its own message on the topic of another would be answered there.
    let mut squatter = in_step(test.stranger("printer-3"), &test);
    test.register("printer-3", "printer").await;
    test.open_window("printer-3").await;
    let (request, _) = squatter.pairing_request().unwrap();
    radio.send("pairing/request", request).await.unwrap();
    let answer = radio.message("pairing/response", SOON).await.unwrap();
    assert!(answer.contains("pairing_refused"), "{answer}");
    squatter.request_pairing().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_learn_nothing_of_which_devices_there_are_a_033() {
    let (test, mqtt, _device) = stage("tv-1").await;
    let mut answers = Vec::new();
    for id in ["tv-1", "tv-2", "unknown-9"] {
        // tv-1 is registered, with its window closed from now on; tv-2 has none, unknown-9 is not there.
        if id == "tv-2" {
            test.register(id, "tv").await;
        }
        if id == "tv-1" {
            test.advance(16 * 60);
        }
        let stranger = in_step(test.stranger(id), &test);
        let mut radio = mqtt.radio(&stranger, false).await;
        let (request, _) = stranger.pairing_request().unwrap();
        radio.send("pairing/request", request).await.unwrap();
        answers.push(radio.message("pairing/response", SOON).await.unwrap());
    }
    assert!(answers[0].contains("pairing_refused"), "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

/// MQTT 5: what came with a question comes back with its answer, which goes to the device's own topic or nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_brings_the_correlation_data_and_goes_to_no_other_topic_a_057() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::PublishProperties;
    let (test, mqtt, device) = stage("tv-1").await;
    let (client, mut events) = {
        let mut options = MqttOptions::new(device.mqtt_client_id(false), "127.0.0.1", mqtt.port);
        options.set_credentials("tv-1", device.mqtt_password().unwrap());
        AsyncClient::new(options, 8)
    };
    let own = |rest: &str| format!("{PREFIX}/v1/tv-1/pairing/{rest}");
    client.subscribe(own("response"), QoS::AtLeastOnce).await.unwrap();
    let send = async |response_topic: String, correlation: Vec<u8>| {
        let properties = PublishProperties {
            response_topic: Some(response_topic),
            correlation_data: Some(correlation.into()),
            ..PublishProperties::default()
        };
        let (request, _) = device.pairing_request().unwrap();
        client.publish_with_properties(own("request"), QoS::AtLeastOnce, false, request, properties).await.unwrap();
    };
    send(format!("{PREFIX}/v1/tv-2/pairing/response"), vec![1]).await;
    send(own("response"), vec![2; 256]).await;
    send(own("response"), vec![3; 257]).await;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let event = tokio::time::timeout(SOON, events.poll()).await.expect("an answer in time").unwrap();
        if let Event::Incoming(Packet::Publish(publish)) = event {
            assert_eq!(publish.topic, own("response"));
            answers
                .push(publish.properties.and_then(|properties| properties.correlation_data).map(|data| data.to_vec()));
        }
    }
    assert_eq!(answers, [Some(vec![2; 256]), None], "of the first there is none; over-long data is left out");
    assert_eq!(test.count("mqtt.refused").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_3_1_1_pairs_as_well() {
    let (test, mqtt, mut device) = stage("tv-1").await;
    let mut options = rumqttc::MqttOptions::new(device.mqtt_client_id(false), "127.0.0.1", mqtt.port);
    options.set_credentials("tv-1", device.mqtt_password().unwrap());
    let (client, mut events) = rumqttc::AsyncClient::new(options, 8);
    let (hear, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let polling = tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) = event {
                let _ = hear.send(String::from_utf8(publish.payload.to_vec()).unwrap());
            }
        }
    });
    let own = |rest: &str| format!("{PREFIX}/v1/tv-1/pairing/{rest}");
    client.subscribe(own("response"), rumqttc::QoS::AtLeastOnce).await.unwrap();
    let (request, nonce) = device.pairing_request().unwrap();
    client.publish(own("request"), rumqttc::QoS::AtLeastOnce, false, request).await.unwrap();
    let shown = device.requested(&nonce, &heard.recv().await.unwrap()).unwrap();
    let (poll, jti) = device.pairing_poll().unwrap();
    client.publish(own("request"), rumqttc::QoS::AtMostOnce, false, poll).await.unwrap();
    let PairingStatus::Pending { digits, .. } = device.polled(&jti, &heard.recv().await.unwrap()).unwrap() else {
        panic!()
    };
    let confirm = Confirm::Number(&digits);
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &confirm).await.unwrap();
    assert!(matches!(device.polled(&jti, &heard.recv().await.unwrap()).unwrap(), PairingStatus::Paired(_)));
    // A message that is not allowed can't be refused in words: the connection ends.
    client.publish("x", rumqttc::QoS::AtLeastOnce, false, "y").await.unwrap();
    tokio::time::timeout(SOON, polling).await.expect("the end").unwrap();
}

/// A person's program at the broker's own endpoint, by the key that the person registered.
#[tokio::test(flavor = "multi_thread")]
async fn a_console_sees_what_waits_and_confirms_it_by_a_signed_command() {
    let (test, mqtt, mut device) = stage("tv-1").await;
    let shell = Caller::command_line();
    let key = DeviceKey::generate_es256().unwrap();
    for (name, role) in [("kim", Role::Technician), ("lee", Role::Technician)] {
        test.broker.add_operator(&shell, name, role).await.unwrap();
    }
    test.broker.add_operator_key(&shell, "kim", "console", &key.jwk().to_string()).await.unwrap();
    let now = test.clock.now().seconds();
    let password = |name: &str| {
        let claims = json!({"iss": name, "aud": test.issuer, "iat": now, "exp": now + 120, "jti": probe::jti()});
        key.sign_raw(&key.header("mqtt+jwt"), &claims).unwrap()
    };
    // The key is kim's, and the client id is of her own.
    for (client_id, user_name, name) in [
        ("operator.lee.1", "operator:lee", "lee"),
        ("operator.lee.1", "operator:kim", "kim"),
        ("operator.kim", "operator:kim", "kim"),
        ("operator.kim.1", "operator:kim", "lee"),
        ("operator.kim.1", "kim", "kim"),
    ] {
        assert!(
            answer_to(&mqtt, client_id, Some((user_name, &password(name)))).await.is_err(),
            "{client_id} {user_name}"
        );
    }
    let mut options = MqttOptions::new("operator.kim.1", "127.0.0.1", mqtt.port);
    options.set_credentials("operator:kim", password("kim"));
    let (client, mut events) = AsyncClient::new(options, 16);
    let (hear, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(publish)) = event {
                let _ = hear.send((String::from_utf8(publish.topic.to_vec()).unwrap(), publish.payload.to_vec()));
            }
        }
    });
    let operations = |rest: &str| format!("{PREFIX}/v1/operations/{rest}");
    let results = format!("results/{}", key.jkt());
    for topic in ["pending", results.as_str(), "commands"] {
        client.subscribe(operations(topic), rumqttc::v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
    }
    let mut radio = mqtt.radio(&device, false).await;
    let (request, nonce) = device.pairing_request().unwrap();
    radio.send("pairing/request", request).await.unwrap();
    device.requested(&nonce, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    let (poll, jti) = device.pairing_poll().unwrap();
    radio.send("pairing/request", poll).await.unwrap();
    let status = device.polled(&jti, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    let PairingStatus::Pending { digits, .. } = status else { panic!("{status:?}") };
    let next = async |heard: &mut tokio::sync::mpsc::UnboundedReceiver<_>| {
        tokio::time::timeout(SOON, heard.recv()).await.expect("in time").unwrap()
    };
    let pairing = loop {
        let (topic, payload): (String, Vec<u8>) = next(&mut heard).await;
        assert_eq!(topic, operations("pending"));
        let feed: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        if let Some(id) = feed["pairings"][0]["pairing_id"].as_str() {
            break id.to_owned();
        }
    };
    let header = json!({"typ": "operator-command+jwt", "alg": key.alg(), "kid": key.jkt()});
    let claims = json!({
        "iss": "kim", "aud": test.issuer, "iat": now, "exp": now + 120, "jti": probe::jti(), "command": "confirm_pairing",
        "pairing_id": pairing, "digits": digits,
    });
    let command = key.sign_raw(&header, &claims).unwrap();
    client.publish(operations("commands"), rumqttc::v5::mqttbytes::QoS::AtLeastOnce, false, command).await.unwrap();
    let result = loop {
        let (topic, payload) = next(&mut heard).await;
        if topic == operations(&results) {
            break String::from_utf8(payload).unwrap();
        }
    };
    assert_eq!(jose::peek(&result).unwrap().claims["result"], "done");
    let status = device.polled(&jti, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    assert!(matches!(status, PairingStatus::Paired(_)));
    let records = test.records().await;
    assert_eq!(records.iter().find(|record| record.event == "pairing.confirmed").unwrap().actor, "operator:kim");
}

/// A person's rights are those of now, also on a connection that stands since the morning.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_may_see_less_loses_the_connection_a_047_a_080() {
    let test = TestBroker::start().await;
    let mqtt = TestMqtt::embedded(&test).await;
    let shell = Caller::command_line();
    let key = DeviceKey::generate_es256().unwrap();
    test.broker.add_operator(&shell, "lee", Role::Admin).await.unwrap();
    test.broker.add_operator(&shell, "kim", Role::Technician).await.unwrap();
    let added = test.broker.add_operator_key(&shell, "kim", "console", &key.jwk().to_string()).await.unwrap();
    let password = || {
        let now = test.clock.now().seconds();
        let claims = json!({"iss": "kim", "aud": test.issuer, "iat": now, "exp": now + 120, "jti": probe::jti()});
        key.sign_raw(&key.header("mqtt+jwt"), &claims).unwrap()
    };
    let connect = async || {
        let mut options = MqttOptions::new("operator.kim.1", "127.0.0.1", mqtt.port);
        options.set_credentials("operator:kim", password());
        let (client, mut events) = AsyncClient::new(options, 8);
        events.poll().await.unwrap();
        (client, events)
    };
    let ended = async |mut events: rumqttc::v5::EventLoop| {
        let end = async { while events.poll().await.is_ok() {} };
        tokio::time::timeout(SOON, end).await.expect("the end of the connection");
    };
    // She no longer sees all sites: she may come back, and what waits everywhere is not hers any more.
    let (_client, events) = connect().await;
    test.broker.set_role(&shell, "kim", "*", None).await.unwrap();
    test.broker.set_role(&shell, "kim", "default", Some(Role::Technician)).await.unwrap();
    ended(events).await;
    let (client, mut events) = connect().await;
    let pending = format!("{PREFIX}/v1/operations/pending");
    client.subscribe(pending, rumqttc::v5::mqttbytes::QoS::AtMostOnce).await.unwrap();
    let answered = async {
        loop {
            if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.unwrap() {
                return ack.return_codes;
            }
        }
    };
    let codes = tokio::time::timeout(SOON, answered).await.unwrap();
    assert_eq!(codes, [rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::NotAuthorized]);
    // The key is revoked: she may not come back.
    let thumbprint = pairgate::secret::b64u(&added.jkt);
    test.broker.revoke_operator_key(&shell, "kim", &thumbprint).await.unwrap();
    ended(events).await;
    assert!(answer_to(&mqtt, "operator.kim.1", Some(("operator:kim", &password()))).await.is_err());
}

/// By TLS: the certificate says which key, the key says which device.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_connects_by_its_certificate_and_nobody_by_anothers_a_059() {
    let test = TestBroker::with_tls(crate::support::Setup::default()).await;
    let mqtt = TestMqtt::embedded_tls(&test).await;
    test.register("printer-1", "printer").await;
    let pair = rcgen::KeyPair::generate().unwrap();
    let key = DeviceKey::from_pkcs8_b64u("ES256", &pairgate::secret::b64u(&pair.serialize_der())).unwrap();
    let mut device = SimulatedDevice::new("printer-1", &test.issuer, key, test.wire.clone());
    test.pair(&mut device).await;
    let device = in_step(device, &test);
    let folder = tempfile::tempdir().unwrap();
    let relay = |name: &str, pair: &rcgen::KeyPair| {
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(pair).unwrap();
        let files = [format!("{name}.pem"), format!("{name}.key")].map(|file| folder.path().join(file));
        std::fs::write(&files[0], certificate.pem()).unwrap();
        std::fs::write(&files[1], pair.serialize_pem()).unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, test.ca_pem()).unwrap();
        let [certificate, key] = files;
        let at = OutsideBroker::at("127.0.0.1".into(), mqtt.port, true);
        Relay::start(&OutsideBroker { ca: Some(ca), certificate: Some((certificate, key)), ..at }).unwrap()
    };
    let own = relay("own", &pair);
    let door = MqttDoor::Socket(own.socket());
    let mut radio = MqttRadio::open(&device, &door, PREFIX, &MqttLogin::Certificate).await.unwrap();
    test.broker.identify_device(&Caller::command_line(), "printer-1").await.unwrap();
    assert_eq!(radio.told(&device, SOON).await.unwrap().event, "identify");
    let others = relay("others", &rcgen::KeyPair::generate().unwrap());
    let door = MqttDoor::Socket(others.socket());
    assert!(MqttRadio::open(&device, &door, PREFIX, &MqttLogin::Certificate).await.is_err(), "another key");
    let (door, login) = (MqttDoor::Socket(own.socket()), MqttLogin::Password { is_paired: true });
    let both = MqttRadio::open(&device, &door, PREFIX, &login);
    assert!(both.await.is_err(), "two ways at once");
}
