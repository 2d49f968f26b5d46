//! Polling and redeeming (RFC 8628 section 3.4), and refreshing (RFC 6749 section 6).

use std::collections::BTreeSet;
use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::clock::{Clock, Timestamp};
use pairgate::model::operator::Role;
use pairgate::simulator::{CodeShown, PageOperator, RawAnswer, SimulatedDevice, TokenAnswer, Tokens, jose};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::probe::{
    CODE, DEVICE_CODE_GRANT, Mark, TOKEN, error_of, is_error, jti, poll_of, refresh_of, tokens,
};
use crate::support::{START, Setup, TestBroker};

/// A broker, an approver, and a device with a pending code.
struct Bench {
    test: TestBroker,
    ida: PageOperator,
    device: SimulatedDevice,
    code: CodeShown,
}

impl Bench {
    async fn new() -> Self {
        let test = TestBroker::start().await;
        let ida = test.operator("ida", Role::Admin).await;
        let mut device = test.paired("lobby-printer-01", "printer").await;
        let code = device.request_code(None, None).await.unwrap();
        Self { test, ida, device, code }
    }

    async fn approve(&mut self) {
        self.test.approve(&self.ida, &mut self.device, &self.code.verification_uri_complete).await;
    }

    async fn poll(&self) -> RawAnswer {
        self.test.poll(&self.device, &self.code.device_code).await
    }

    /// Polls, held open; returns once the broker holds it.
    async fn hold(&self, preference: &'static str) -> JoinHandle<RawAnswer> {
        let proof = self.test.proof(&self.device, TOKEN).await;
        let twin = self.test.twin(&self.device.id, &self.device.key);
        let code = self.code.device_code.clone();
        let held = tokio::spawn(async move {
            let headers = [("dpop", proof.as_str()), ("prefer", preference)];
            twin.post_form(TOKEN, &poll_of(&code, &twin.id), &headers).await.unwrap()
        });
        self.test.until_held().await;
        held
    }

    /// Seconds between polls, as stored.
    async fn interval(&self) -> i64 {
        self.test.broker.pending_grants(&Caller::command_line(), 10).await.unwrap()[0].grant.interval
    }
}

/// A broker, an approver, and a device that is signed in.
struct SignedIn {
    test: TestBroker,
    ida: PageOperator,
    device: SimulatedDevice,
    code: CodeShown,
    tokens: Tokens,
}

impl SignedIn {
    async fn new() -> Self {
        let mut bench = Bench::new().await;
        bench.approve().await;
        let tokens = tokens(&bench.device.poll_token(None).await.unwrap());
        let Bench { test, ida, device, code } = bench;
        Self { test, ida, device, code, tokens }
    }

    fn refresh_token(&self) -> &str {
        self.tokens.refresh_token.as_deref().unwrap()
    }
}

/// An answer that came without the wait running out.
async fn at_once(held: JoinHandle<RawAnswer>) -> RawAnswer {
    tokio::time::timeout(Duration::from_secs(15), held).await.expect("answered at once").unwrap()
}

#[track_caller]
fn refreshed(answer: &RawAnswer) -> Tokens {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// The text with its character at `place` changed.
fn flipped(text: &str, place: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

/// Refused, without a change, with an alarm that names the owner and the thief.
async fn is_foreign(test: &TestBroker, mark: &Mark, answer: &RawAnswer, thief: &SimulatedDevice) {
    is_error(answer, 400, "invalid_grant", "thief");
    let records = test.untouched(mark, &["code.foreign_key"], "thief").await;
    let record = &records[0];
    assert_eq!((record.severity.as_str(), record.device.as_deref()), ("alert", Some("lobby-printer-01")));
    assert_eq!(record.actor, format!("device:{}", thief.id));
    assert!(record.detail.contains(&thief.key.short()), "{}", record.detail);
}

#[tokio::test]
async fn a_stolen_device_code_is_worth_nothing_to_another_enrolled_device_a_031_d_01() {
    let mut bench = Bench::new().await;
    let thief = bench.test.paired("attic-printer-02", "printer").await;
    let unknown = bench.test.poll(&thief, "AAAA").await;
    bench.test.pending(&mut bench.device).await;
    for _ in 0..3 {
        let mark = bench.test.mark().await;
        let answer = bench.test.poll(&thief, &bench.code.device_code).await;
        is_foreign(&bench.test, &mark, &answer, &thief).await;
        assert_eq!(answer.body, unknown.body, "not to be told from a code that never was");
    }
    // Nor when he is patient: a held poll is answered at once.
    let proof = bench.test.proof(&thief, TOKEN).await;
    let mark = bench.test.mark().await;
    let headers = [("dpop", proof.as_str()), ("prefer", "wait=25")];
    let answer = thief.post_form(TOKEN, &poll_of(&bench.code.device_code, &thief.id), &headers).await.unwrap();
    is_foreign(&bench.test, &mark, &answer, &thief).await;
    bench.test.advance(5);
    bench.test.pending(&mut bench.device).await;
    bench.approve().await;
    let mark = bench.test.mark().await;
    let answer = bench.test.poll(&thief, &bench.code.device_code).await;
    is_foreign(&bench.test, &mark, &answer, &thief).await;
    assert_eq!(bench.test.count("token.issued").await, 0);
    tokens(&bench.device.poll_token(None).await.unwrap());
}

#[tokio::test]
async fn a_thief_who_repeats_himself_does_not_fill_the_audit_log_a_031_a_091() {
    let mut bench = Bench::new().await;
    let thief = bench.test.paired("attic-printer-02", "printer").await;
    let rows = bench.test.rows();
    for _ in 0..30 {
        is_error(&bench.test.poll(&thief, &bench.code.device_code).await, 400, "invalid_grant", "thief");
    }
    assert_eq!(bench.test.rows(), rows);
    assert_eq!(bench.test.count("code.foreign_key").await, 20);
    bench.test.advance(60);
    bench.test.poll(&thief, &bench.code.device_code).await;
    let records = bench.test.records().await;
    let suppressed: Vec<_> = records.iter().filter(|record| record.event == "audit.suppressed").collect();
    assert_eq!(suppressed.len(), 1);
    assert!(suppressed[0].detail.starts_with("10 more"), "{}", suppressed[0].detail);
    bench.test.pending(&mut bench.device).await;
}

#[tokio::test]
async fn a_stolen_device_code_is_worth_nothing_to_an_unenrolled_client_a_032() {
    let mut bench = Bench::new().await;
    bench.approve().await;
    let code = bench.code.device_code.clone();
    let (stranger, mask) = (bench.test.stranger("attic-printer-02"), bench.test.stranger("lobby-printer-01"));
    bench.test.register("known-printer-03", "printer").await;
    let expected = bench.test.stranger("known-printer-03");
    for (thief, event) in [(&stranger, "code.unenrolled"), (&mask, "key.mismatch"), (&expected, "code.unenrolled")] {
        let mark = bench.test.mark().await;
        is_error(&bench.test.poll(thief, &code).await, 401, "invalid_client", event);
        bench.test.untouched(&mark, &[event], event).await;
    }
    let mark = bench.test.mark().await;
    let answer = stranger.post_form(TOKEN, &poll_of(&code, "lobby-printer-01"), &[]).await.unwrap();
    is_error(&answer, 401, "invalid_client", "without a proof");
    bench.test.untouched(&mark, &["code.unenrolled"], "without a proof").await;
    tokens(&bench.device.poll_token(None).await.unwrap());
}

#[tokio::test]
async fn device_codes_are_made_by_the_server_of_256_bits_a_033() {
    let test = TestBroker::with_kind("printer", |kind| kind.codes_per_hour = 1000).await;
    let device = test.paired("lobby-printer-01", "printer").await;
    let chosen = jose::b64u(&[7; 40]);
    let params = [("client_id", device.id.as_str()), ("device_code", chosen.as_str()), ("user_code", "PRN-BBBB-BBBBB")];
    let (mut secrets, mut user_codes) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..50 {
        let body = test.ask(&device, CODE, &params).await.json().unwrap();
        let bytes = jose::from_b64u(body["device_code"].as_str().unwrap()).unwrap();
        assert_eq!(bytes.len(), 8 + 32, "row and secret");
        secrets.insert(bytes[8..].to_vec());
        user_codes.insert(body["user_code"].as_str().unwrap().to_owned());
        assert_ne!(body["device_code"], chosen.as_str(), "what the client proposes is ignored");
        assert_ne!(body["user_code"], "PRN-BBBB-BBBBB");
    }
    assert_eq!((secrets.len(), user_codes.len()), (50, 50));
    // Every bit of the secrets is used: none is the same in all of them.
    let ones = secrets.iter().fold(vec![0_u8; 32], |all, secret| all.iter().zip(secret).map(|(a, b)| a | b).collect());
    assert!(ones.iter().all(|byte| *byte == 0xFF), "{ones:?}");
}

#[tokio::test]
async fn a_made_up_or_altered_device_code_is_invalid_and_changes_nothing_a_033() {
    let mut bench = Bench::new().await;
    let mut neighbour = bench.test.paired("attic-printer-02", "printer").await;
    let other = neighbour.request_code(None, None).await.unwrap().device_code;
    let code = bench.code.device_code.clone();
    let secret_of_other = jose::from_b64u(&other).unwrap();
    let mut mixed = jose::from_b64u(&code).unwrap();
    mixed[8..].copy_from_slice(&secret_of_other[8..]);
    let mut made_up: Vec<String> = (0..code.len()).step_by(3).map(|place| flipped(&code, place)).collect();
    made_up.extend([
        jose::b64u(&mixed),
        jose::b64u(&[0; 40]),
        jose::b64u(&[0xFF; 40]),
        format!("{code}A"),
        format!("{code}="),
        format!(" {code}"),
        code[..code.len() - 1].to_owned(),
        bench.code.user_code.clone(),
        "1' OR '1'='1".to_owned(),
        "x".repeat(5000),
    ]);
    for (index, made_up) in made_up.iter().enumerate() {
        // The log takes twenty refusals of an address a minute.
        if index % 15 == 14 {
            bench.test.advance(60);
        }
        let mark = bench.test.mark().await;
        is_error(&bench.test.poll(&bench.device, made_up).await, 400, "invalid_grant", made_up);
        let records = bench.test.untouched(&mark, &["token.refused"], made_up).await;
        assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
        assert!(!records[0].detail.contains(made_up), "the code itself is not written down");
    }
    assert_eq!(bench.test.pending(&mut bench.device).await, None);
}

#[tokio::test]
async fn a_redeemed_code_is_spent_for_its_device_too_a_034() {
    let mut signed_in = SignedIn::new().await;
    let SignedIn { test, device, code, .. } = &mut signed_in;
    for _ in 0..2 {
        test.advance(5);
        let mark = test.mark().await;
        is_error(&test.poll(device, &code.device_code).await, 400, "invalid_grant", "spent");
        let records = test.untouched(&mark, &["token.refused"], "spent").await;
        assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
    }
    tokens(&device.refresh().await.unwrap());
    assert_eq!(test.count("token.issued").await, 1);
}

#[tokio::test]
async fn a_redeemed_code_in_the_hands_of_another_key_ends_the_sign_in_a_034() {
    let mut signed_in = SignedIn::new().await;
    let thief = signed_in.test.paired("attic-printer-02", "printer").await;
    let mark = signed_in.test.mark().await;
    let answer = signed_in.test.poll(&thief, &signed_in.code.device_code).await;
    is_error(&answer, 400, "invalid_grant", "thief");
    let records = signed_in.test.recorded(&mark).await;
    assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["code.foreign_key"]);
    assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
    let mark = signed_in.test.mark().await;
    assert_eq!(error_of(&signed_in.device.refresh().await.unwrap()), "invalid_grant", "the first tokens are revoked");
    signed_in.test.untouched(&mark, &["token.refused"], "refresh").await;
    // The device itself is not locked out.
    signed_in.test.signed_in(&signed_in.ida, &mut signed_in.device).await;
}

/// Polls one code many times at once, on each of these brokers; how many got tokens.
async fn stampede(nodes: &[&TestBroker], device: &SimulatedDevice, code: &str, each: usize) -> usize {
    let mut polls = tokio::task::JoinSet::new();
    for node in nodes {
        let twin = node.twin(&device.id, &device.key);
        let nonce = node.nonce(&twin).await;
        for _ in 0..each {
            let proof = twin.proof("POST", &node.url(TOKEN), Some(&nonce), &jti()).unwrap();
            let twin = node.twin(&device.id, &device.key);
            let code = code.to_owned();
            polls.spawn(
                async move { twin.post_form(TOKEN, &poll_of(&code, &twin.id), &[("dpop", &proof)]).await.unwrap() },
            );
        }
    }
    let answers = polls.join_all().await;
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let error = answer.oauth_error().expect("an error").0;
        assert!(["slow_down", "invalid_grant"].contains(&error.as_str()), "{}", answer.body);
        assert!(!answer.body.contains("access_token"));
    }
    answers.iter().filter(|answer| answer.status == 200).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_polls_at_one_instant_exactly_one_gets_the_tokens_a_035() {
    let mut bench = Bench::new().await;
    for round in 1..=4 {
        bench.code = bench.device.request_code(None, None).await.unwrap();
        bench.approve().await;
        assert_eq!(stampede(&[&bench.test], &bench.device, &bench.code.device_code, 64).await, 1, "round {round}");
        assert_eq!(bench.test.count("token.issued").await, round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_polls_on_four_nodes_exactly_one_gets_the_tokens_a_035() {
    let mut bench = Bench::new().await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let address = ([127, 0, 0, 1], 0).into();
        let (data, clock) = (bench.test.data.clone(), bench.test.clock.clone());
        others.push(TestBroker::on(data, address, clock, Setup::default()).await);
    }
    for round in 1..=4 {
        bench.code = bench.device.request_code(None, None).await.unwrap();
        bench.approve().await;
        let nodes: Vec<&TestBroker> = others.iter().chain([&bench.test]).collect();
        // Each node paces for itself, so several polls reach the redemption itself.
        assert_eq!(stampede(&nodes, &bench.device, &bench.code.device_code, 16).await, 1, "round {round}");
        assert_eq!(bench.test.count("token.issued").await, round);
    }
}

#[tokio::test]
async fn polling_too_fast_slows_down_for_good_and_never_gets_a_token_early_a_036() {
    let mut bench = Bench::new().await;
    let is_slow = |answer: &RawAnswer| answer.oauth_error().is_some_and(|(error, _)| error == "slow_down");
    is_error(&bench.poll().await, 400, "authorization_pending", "the first poll is never too fast");
    let mark = bench.test.mark().await;
    is_error(&bench.poll().await, 400, "slow_down", "at once");
    assert_eq!(bench.interval().await, 10);
    bench.test.advance(5);
    assert!(is_slow(&bench.poll().await), "the interval is 10 now");
    bench.test.advance(15);
    is_error(&bench.poll().await, 400, "authorization_pending", "after the longer interval");
    assert!(bench.test.recorded(&mark).await.is_empty(), "a hasty device is no incident");
    bench.test = bench.test.restart().await;
    assert_eq!(bench.interval().await, 15, "kept over the restart");
    bench.poll().await;
    bench.test.advance(10);
    assert!(is_slow(&bench.poll().await), "still 15 s after the restart");
    bench.test.advance(20);
    let path = bench.ida.claim(&bench.code.verification_uri_complete).await.unwrap();
    let number = bench.test.pending(&mut bench.device).await.unwrap();
    bench.test.advance(19);
    bench.ida.approve(&path, &number).await.unwrap();
    let mark = bench.test.mark().await;
    assert!(is_slow(&bench.poll().await), "a token is no reward for haste");
    assert!(bench.test.recorded(&mark).await.is_empty());
    bench.test.advance(25);
    assert_eq!(bench.poll().await.status, 200);
    assert_eq!(bench.test.count("token.issued").await, 1);
}

#[tokio::test]
async fn the_interval_stops_growing_at_a_minute_a_036() {
    let bench = Bench::new().await;
    bench.poll().await;
    for _ in 0..15 {
        is_error(&bench.poll().await, 400, "slow_down", "hammering");
    }
    assert_eq!(bench.interval().await, 60);
    bench.test.advance(59);
    is_error(&bench.poll().await, 400, "slow_down", "a second early");
    bench.test.advance(60);
    is_error(&bench.poll().await, 400, "authorization_pending", "slow, but not locked out");
}

#[tokio::test]
async fn a_denied_code_stays_denied_a_037() {
    let bench = Bench::new().await;
    let path = bench.ida.claim(&bench.code.verification_uri_complete).await.unwrap();
    bench.ida.deny(&path).await.unwrap();
    assert_eq!(bench.test.count("grant.denied").await, 1);
    for seconds in [0, 5, 300] {
        bench.test.advance(seconds);
        let mark = bench.test.mark().await;
        is_error(&bench.poll().await, 400, "access_denied", "denied");
        bench.test.untouched(&mark, &[], "denied").await;
    }
}

#[tokio::test]
async fn a_code_expires_exactly_when_it_says_a_037() {
    let bench = Bench::new().await;
    assert_eq!(bench.code.expires_in, 300);
    bench.test.clock.advance(Duration::from_millis(299_999));
    is_error(&bench.poll().await, 400, "authorization_pending", "a millisecond before");
    bench.test.clock.advance(Duration::from_millis(1));
    for seconds in [0, 5, 86_400] {
        bench.test.advance(seconds);
        let mark = bench.test.mark().await;
        is_error(&bench.poll().await, 400, "expired_token", "after");
        bench.test.untouched(&mark, &[], "after").await;
    }
}

#[tokio::test]
async fn an_approved_code_of_a_device_that_was_suspended_since_is_dead_a_037() {
    let mut bench = Bench::new().await;
    bench.approve().await;
    bench.test.suspend("lobby-printer-01").await;
    let mark = bench.test.mark().await;
    is_error(&bench.poll().await, 401, "invalid_client", "suspended");
    let records = bench.test.untouched(&mark, &["token.refused"], "suspended").await;
    assert_eq!(
        (records[0].device.as_deref(), records[0].detail.as_str()),
        (Some("lobby-printer-01"), "the device is suspended")
    );
    bench.test.resume("lobby-printer-01").await;
    is_error(&bench.poll().await, 400, "invalid_grant", "resumed");
    assert_eq!(bench.test.count("token.issued").await, 0);
}

#[tokio::test]
async fn an_approver_who_was_disabled_since_has_approved_nothing_a_037_a_047_d_02() {
    let mut bench = Bench::new().await;
    bench.approve().await;
    bench.test.broker.add_operator(&Caller::command_line(), "root", Role::Admin).await.unwrap();
    bench.test.broker.disable_operator(&Caller::command_line(), "ida").await.unwrap();
    let mark = bench.test.mark().await;
    is_error(&bench.poll().await, 400, "access_denied", "disabled");
    let records = bench.test.recorded(&mark).await;
    assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["token.refused"]);
    assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
    assert!(records[0].detail.contains("approver"), "{}", records[0].detail);
    bench.test.advance(5);
    let mark = bench.test.mark().await;
    is_error(&bench.poll().await, 400, "access_denied", "for good");
    bench.test.untouched(&mark, &[], "for good").await;
    assert_eq!(bench.test.count("token.issued").await, 0);
}

#[tokio::test]
async fn an_approval_that_nobody_fetched_ends_with_the_code_a_038() {
    let mut bench = Bench::new().await;
    bench.approve().await;
    let fresh = bench.device.request_code(None, None).await.unwrap();
    bench.code = fresh;
    bench.approve().await;
    bench.test.clock.advance(Duration::from_millis(180_000));
    for seconds in [0, 86_400] {
        bench.test.advance(seconds);
        let mark = bench.test.mark().await;
        is_error(&bench.poll().await, 400, "expired_token", "approved, and too late");
        bench.test.untouched(&mark, &[], "approved, and too late").await;
    }
    assert!(!bench.test.rows().contains(&bench.code.device_code), "only a hash is on the disk");
    assert_eq!(bench.test.count("token.issued").await, 0);
}

#[tokio::test]
async fn setting_the_servers_clock_back_gives_no_code_more_time_a_089() {
    let bench = Bench::new().await;
    bench.test.advance(200);
    bench.test.clock.set_wall(START.minus(Duration::from_secs(3_600)));
    is_error(&bench.poll().await, 400, "authorization_pending", "time did not jump");
    bench.test.advance(99);
    is_error(&bench.poll().await, 400, "authorization_pending", "and goes on");
    bench.test.advance(1);
    is_error(&bench.poll().await, 400, "expired_token", "at its time");
}

#[tokio::test]
async fn a_process_that_starts_with_a_late_clock_gives_no_code_more_time_a_089() {
    let bench = Bench::new().await;
    bench.test.advance(200);
    bench.test.register("attic-printer-02", "printer").await;
    let late = Clock::manual(Timestamp::from_millis(START.millis() - 60_000));
    let address = ([127, 0, 0, 1], 0).into();
    let node = TestBroker::on(bench.test.data.clone(), address, late, Setup::default()).await;
    let device = node.twin(&bench.device.id, &bench.device.key);
    node.advance(99);
    is_error(&node.poll(&device, &bench.code.device_code).await, 400, "authorization_pending", "not yet");
    node.advance(1);
    is_error(&node.poll(&device, &bench.code.device_code).await, 400, "expired_token", "at its time");
}

#[tokio::test]
async fn a_held_poll_answers_at_once_when_the_number_appears_and_when_it_is_approved() {
    let bench = Bench::new().await;
    let held = bench.hold("wait=25").await;
    let path = bench.ida.claim(&bench.code.verification_uri_complete).await.unwrap();
    let answer = at_once(held).await;
    is_error(&answer, 400, "authorization_pending", "news");
    assert_eq!(answer.header("preference-applied"), Some("wait=25"));
    let number = answer.json().unwrap()["confirmation_number"].as_str().unwrap().to_owned();
    assert!(number.len() == 2 && number.bytes().all(|digit| digit.is_ascii_digit()), "{number}");
    // Right after news a device may wait again at once; that is no haste.
    let held = bench.hold("wait=25").await;
    bench.ida.approve(&path, &number).await.unwrap();
    let answer = at_once(held).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("preference-applied"), Some("wait=25"));
    assert_eq!(bench.test.count("token.issued").await, 1);
}

#[tokio::test]
async fn a_held_poll_answers_at_once_when_the_answer_is_there_already() {
    let bench = Bench::new().await;
    bench.poll().await;
    bench.test.advance(5);
    let path = bench.ida.claim(&bench.code.verification_uri_complete).await.unwrap();
    let send = async || {
        let proof = bench.test.proof(&bench.device, TOKEN).await;
        let headers = [("dpop", proof.as_str()), ("prefer", "wait=25")];
        let params = poll_of(&bench.code.device_code, &bench.device.id);
        let answer = bench.device.post_form(TOKEN, &params, &headers);
        tokio::time::timeout(Duration::from_secs(15), answer).await.expect("at once").unwrap()
    };
    let answer = send().await;
    is_error(&answer, 400, "authorization_pending", "the number was there before");
    let number = answer.json().unwrap()["confirmation_number"].as_str().unwrap().to_owned();
    bench.ida.approve(&path, &number).await.unwrap();
    assert_eq!(send().await.status, 200);
}

#[tokio::test]
async fn a_held_poll_answers_at_once_when_it_is_denied_replaced_or_suspended() {
    for (what, status, error) in
        [("denied", 400, "access_denied"), ("suspended", 401, "invalid_client"), ("replaced", 400, "invalid_grant")]
    {
        let bench = Bench::new().await;
        let path = match what {
            "denied" => Some(bench.ida.claim(&bench.code.verification_uri_complete).await.unwrap()),
            _ => None,
        };
        if path.is_some() {
            is_error(&bench.poll().await, 400, "authorization_pending", "the number");
            bench.test.advance(5);
        }
        let held = bench.hold("wait=25").await;
        match what {
            "denied" => bench.ida.deny(&path.unwrap()).await.unwrap(),
            "suspended" => bench.test.suspend("lobby-printer-01").await,
            _ => assert_eq!(bench.test.ask(&bench.device, CODE, &[("client_id", &bench.device.id)]).await.status, 200),
        }
        let answer = at_once(held).await;
        is_error(&answer, status, error, what);
        assert_eq!(answer.header("preference-applied"), Some("wait=25"), "{what}");
        assert_eq!(bench.test.count("token.issued").await, 0);
    }
}

#[tokio::test]
async fn a_held_poll_is_woken_by_another_process_and_by_the_end_of_its_own() {
    let bench = Bench::new().await;
    let held = bench.hold("wait=25").await;
    let address = ([127, 0, 0, 1], 0).into();
    let (data, clock) = (bench.test.data.clone(), bench.test.clock.clone());
    let other = TestBroker::on(data, address, clock, Setup::default()).await;
    other.suspend("lobby-printer-01").await;
    bench.test.broker.look_for_changes_of_others().await.unwrap();
    is_error(&at_once(held).await, 401, "invalid_client", "suspended from the command line");
    other.resume("lobby-printer-01").await;
    drop(other);
    let bench = Bench::new().await;
    let held = bench.hold("wait=25").await;
    let test = bench.test.restart().await;
    is_error(&at_once(held).await, 400, "authorization_pending", "the process stopped");
    is_error(&test.poll(&bench.device, &bench.code.device_code).await, 400, "authorization_pending", "it goes on");
}

#[tokio::test]
async fn how_long_to_hold_is_the_devices_wish_within_limits() {
    for (preference, applied) in
        [("wait=25", "wait=25"), ("wait=3600", "wait=25"), ("respond-async, wait=20", "wait=20")]
    {
        let bench = Bench::new().await;
        let held = bench.hold(preference).await;
        bench.ida.claim(&bench.code.verification_uri_complete).await.unwrap();
        assert_eq!(at_once(held).await.header("preference-applied"), Some(applied), "{preference}");
    }
}

#[tokio::test]
async fn senseless_preferences_are_ignored_and_a_held_poll_is_paced_like_any_other() {
    let bench = Bench::new().await;
    for preference in ["wait=0", "wait=-1", "wait=x", "wait", "return=minimal"] {
        let proof = bench.test.proof(&bench.device, TOKEN).await;
        let headers = [("dpop", proof.as_str()), ("prefer", preference)];
        let params = poll_of(&bench.code.device_code, &bench.device.id);
        let answer = bench.device.post_form(TOKEN, &params, &headers).await.unwrap();
        is_error(&answer, 400, "authorization_pending", preference);
        assert_eq!(answer.header("preference-applied"), None, "{preference}");
        bench.test.advance(5);
    }
    bench.poll().await;
    let proof = bench.test.proof(&bench.device, TOKEN).await;
    let headers = [("dpop", proof.as_str()), ("prefer", "wait=25")];
    let answer =
        bench.device.post_form(TOKEN, &poll_of(&bench.code.device_code, &bench.device.id), &headers).await.unwrap();
    is_error(&answer, 400, "slow_down", "too early, patient or not");
    assert_eq!(bench.interval().await, 10);
}

#[tokio::test]
async fn a_refresh_rotates_and_a_retry_within_seconds_gets_the_same_token_a_073() {
    let signed_in = SignedIn::new().await;
    let (test, device, first) = (&signed_in.test, &signed_in.device, signed_in.refresh_token());
    let mark = test.mark().await;
    let second = refreshed(&test.renew(device, first).await);
    let records = test.recorded(&mark).await;
    assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["token.refreshed"]);
    let second_token = second.refresh_token.as_deref().unwrap();
    assert_ne!(second_token, first);
    for millis in [0, 4_000, 6_000] {
        test.clock.advance(Duration::from_millis(millis));
        let mark = test.mark().await;
        let again = refreshed(&test.renew(device, first).await);
        assert_eq!(again.refresh_token.as_deref(), Some(second_token), "the answer was lost; it comes again");
        test.untouched(&mark, &[], "retry").await;
    }
    let third = refreshed(&test.renew(device, second_token).await);
    let rows = test.rows();
    for token in [first, second_token, third.refresh_token.as_deref().unwrap()] {
        assert!(!rows.contains(token) && !rows.contains(&third.access_token), "only hashes are stored");
    }
    for (tokens, what) in [(&signed_in.tokens, "first"), (&second, "second"), (&third, "third")] {
        assert_eq!(device.claims_of(tokens).unwrap()["cnf"]["jkt"], device.key.jkt(), "{what}");
    }
}

#[tokio::test]
async fn an_old_refresh_token_ends_the_whole_sign_in_a_073() {
    for (what, generations, millis) in [("too late for a retry", 1, 10_001), ("two generations old", 2, 0)] {
        let signed_in = SignedIn::new().await;
        let (test, device, first) = (&signed_in.test, &signed_in.device, signed_in.refresh_token());
        let mut newest = first.to_owned();
        for _ in 0..generations {
            newest = refreshed(&test.renew(device, &newest).await).refresh_token.unwrap();
        }
        test.clock.advance(Duration::from_millis(millis));
        let mark = test.mark().await;
        is_error(&test.renew(device, first).await, 400, "invalid_grant", what);
        let records = test.recorded(&mark).await;
        assert_eq!(
            records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(),
            ["refresh.reused"],
            "{what}"
        );
        assert_eq!((records[0].device.as_deref(), records[0].severity.as_str()), (Some("lobby-printer-01"), "alert"));
        let mark = test.mark().await;
        is_error(&test.renew(device, &newest).await, 400, "invalid_grant", "the newest is dead too");
        test.untouched(&mark, &["token.refused"], what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_at_one_instant_all_get_the_same_successor_a_073() {
    let signed_in = SignedIn::new().await;
    let (test, device) = (&signed_in.test, &signed_in.device);
    let nonce = test.nonce(device).await;
    let mut refreshes = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let proof = device.proof("POST", &test.url(TOKEN), Some(&nonce), &jti()).unwrap();
        let twin = test.twin(&device.id, &device.key);
        let token = signed_in.refresh_token().to_owned();
        refreshes.spawn(async move {
            twin.post_form(TOKEN, &refresh_of(&token, &twin.id), &[("dpop", &proof)]).await.unwrap()
        });
    }
    let successors: BTreeSet<_> =
        refreshes.join_all().await.iter().map(|answer| refreshed(answer).refresh_token.unwrap()).collect();
    assert_eq!(successors.len(), 1);
    assert_eq!(test.count("token.refreshed").await, 1);
    assert_eq!(test.count("refresh.reused").await, 0);
}

#[tokio::test]
async fn a_stolen_refresh_token_is_worth_nothing_to_another_key_and_ends_the_sign_in_a_071_a_072() {
    let mut signed_in = SignedIn::new().await;
    let thief = signed_in.test.paired("attic-printer-02", "printer").await;
    let (test, token) = (&signed_in.test, signed_in.refresh_token().to_owned());
    let mask = test.stranger("lobby-printer-01");
    // Who is nobody can't even end it.
    let mark = test.mark().await;
    is_error(&test.renew(&mask, &token).await, 401, "invalid_client", "unenrolled");
    test.untouched(&mark, &["key.mismatch"], "unenrolled").await;
    let mark = test.mark().await;
    let bare = thief.post_form(TOKEN, &refresh_of(&token, "lobby-printer-01"), &[]).await.unwrap();
    is_error(&bare, 401, "invalid_client", "without a proof");
    test.untouched(&mark, &["code.unenrolled"], "without a proof").await;
    let mark = test.mark().await;
    is_error(&test.renew(&thief, &flipped(&token, 20)).await, 400, "invalid_grant", "a guess at somebody's token");
    test.untouched(&mark, &["token.refused"], "a guess").await;
    let token = refreshed(&test.renew(&signed_in.device, &token).await).refresh_token.unwrap();
    let mark = test.mark().await;
    is_error(&test.renew(&thief, &token).await, 400, "invalid_grant", "the real one");
    let records = test.recorded(&mark).await;
    assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["code.foreign_key"]);
    assert_eq!((records[0].device.as_deref(), records[0].severity.as_str()), (Some("lobby-printer-01"), "alert"));
    is_error(&test.renew(&signed_in.device, &token).await, 400, "invalid_grant", "the family is dead");
    signed_in.test.signed_in(&signed_in.ida, &mut signed_in.device).await;
}

#[tokio::test]
async fn a_refresh_may_narrow_its_scope_but_not_widen_it_or_change_its_resource_a_074() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(Some("scan.write"), None).await.unwrap();
    test.approve(&ida, &mut device, &code.verification_uri_complete).await;
    let first = tokens(&device.poll_token(None).await.unwrap());
    assert_eq!(first.scope, "scan.write");
    let token = first.refresh_token.unwrap();
    let base = refresh_of(&token, &device.id);
    for (name, value, error) in [
        ("scope", "scan.write print.read", "invalid_scope"),
        ("scope", "print.read", "invalid_scope"),
        ("scope", "offline_access", "invalid_scope"),
        ("resource", "https://graph.microsoft.com", "invalid_target"),
    ] {
        let params: Vec<_> = base.into_iter().chain([(name, value)]).collect();
        let mark = test.mark().await;
        is_error(&test.ask(&device, TOKEN, &params).await, 400, error, value);
        let records = test.untouched(&mark, &["token.refused"], value).await;
        assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
    }
    let params: Vec<_> =
        base.into_iter().chain([("scope", "scan.write"), ("resource", "urn:pairgate:resource:default")]).collect();
    assert_eq!(refreshed(&test.ask(&device, TOKEN, &params).await).scope, "scan.write");
    // Narrower.
    let tokens = test.signed_in(&ida, &mut device).await;
    assert_eq!(tokens.scope, "print.read scan.write");
    let token = tokens.refresh_token.unwrap();
    let params: Vec<_> = refresh_of(&token, &device.id).into_iter().chain([("scope", "print.read")]).collect();
    let narrow = refreshed(&test.ask(&device, TOKEN, &params).await);
    assert_eq!(
        (narrow.scope.as_str(), &device.claims_of(&narrow).unwrap()["scope"]),
        ("print.read", &json!("print.read"))
    );
}

#[tokio::test]
async fn a_sign_in_ends_when_it_is_idle_too_long_too_old_or_its_device_suspended() {
    // Idle: a printer's two hours.
    let idle = SignedIn::new().await;
    idle.test.advance(2 * 3_600);
    let mark = idle.test.mark().await;
    is_error(&idle.test.renew(&idle.device, idle.refresh_token()).await, 400, "invalid_grant", "idle");
    idle.test.untouched(&mark, &["token.refused"], "idle").await;
    // Absolute: eight hours, however busy.
    let busy = SignedIn::new().await;
    let mut token = busy.refresh_token().to_owned();
    for _ in 0..7 {
        busy.test.advance(3_600);
        token = refreshed(&busy.test.renew(&busy.device, &token).await).refresh_token.unwrap();
    }
    busy.test.advance(3_600);
    is_error(&busy.test.renew(&busy.device, &token).await, 400, "invalid_grant", "too old");
    // Suspended: at once, and for good.
    let stopped = SignedIn::new().await;
    stopped.test.suspend("lobby-printer-01").await;
    let mark = stopped.test.mark().await;
    is_error(&stopped.test.renew(&stopped.device, stopped.refresh_token()).await, 401, "invalid_client", "suspended");
    stopped.test.untouched(&mark, &["token.refused"], "suspended").await;
    stopped.test.resume("lobby-printer-01").await;
    is_error(&stopped.test.renew(&stopped.device, stopped.refresh_token()).await, 400, "invalid_grant", "resumed");
}

#[tokio::test]
async fn access_tokens_are_bound_to_the_key_and_name_the_device_a_075_a_076() {
    let signed_in = SignedIn::new().await;
    let renewed = refreshed(&signed_in.test.renew(&signed_in.device, signed_in.refresh_token()).await);
    let test = &signed_in.test;
    for tokens in [&signed_in.tokens, &renewed] {
        assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("DPoP", 600));
        let header = jose::peek(&tokens.access_token).unwrap().header;
        assert_eq!(header["typ"], "at+jwt");
        assert_eq!(header["alg"], "ES256");
        assert!(header.get("jwk").is_none(), "who checks it uses the published keys");
        let claims = signed_in.device.claims_of(tokens).unwrap();
        assert_eq!(claims["iss"], json!(test.issuer));
        assert_eq!(claims["sub"], "device:lobby-printer-01");
        assert_eq!(claims["client_id"], "lobby-printer-01");
        assert_eq!(claims["aud"], "urn:pairgate:resource:default");
        assert_eq!(claims["scope"], "print.read scan.write");
        assert_eq!(claims["cnf"], json!({"jkt": signed_in.device.key.jkt()}));
        assert_eq!(claims["key_assurance"], "software");
        assert_eq!(claims["iat"], test.broker.now().seconds());
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
        assert_eq!(jose::from_b64u(claims["jti"].as_str().unwrap()).unwrap().len(), 16);
    }
    let id = |tokens: &Tokens| signed_in.device.claims_of(tokens).unwrap()["jti"].clone();
    assert_ne!(id(&signed_in.tokens), id(&renewed));
    let mut thief = test.stranger("lobby-printer-01");
    assert!(thief.bound_key(&renewed).await.is_err());
}

/// One row of the error table: status, code, other members and headers that matter, description.
fn row(what: &str, answer: &RawAnswer) -> String {
    let mut body = answer.json().unwrap();
    let members = body.as_object_mut().unwrap();
    let mut take = |name: &str| members.remove(name).map(|value| value.as_str().unwrap().to_owned());
    let (error, description) = (take("error"), take("error_description").unwrap());
    let number = take("confirmation_number").map_or("", |_| " +confirmation_number");
    let retry_after = answer.header("retry-after").map_or_else(String::new, |after| format!(" Retry-After={after}"));
    let nonce = answer.header("dpop-nonce").map_or("", |_| " DPoP-Nonce");
    assert!(members.is_empty(), "{what}: {members:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    format!("{what}: {} {}{number}{retry_after}{nonce}: {description}", answer.status, error.as_deref().unwrap_or("-"))
}

#[tokio::test]
async fn every_error_of_the_code_endpoint_is_the_documented_one() {
    let test = TestBroker::with_kind("printer", |kind| kind.codes_per_hour = 1).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let id = device.id.clone();
    let id = id.as_str();
    let mut table = Vec::new();
    let mut note = |what: &str, answer: &RawAnswer| table.push(row(what, answer));
    note("missing parameter", &test.ask(&device, CODE, &[]).await);
    note("scope", &test.ask(&device, CODE, &[("client_id", id), ("scope", "Mail.Read")]).await);
    note("resource", &test.ask(&device, CODE, &[("client_id", id), ("resource", "urn:x")]).await);
    note("unenrolled", &test.ask(&test.stranger(id), CODE, &[("client_id", id)]).await);
    let proof = device.proof("POST", &test.url(CODE), None, &jti()).unwrap();
    note("no nonce", &device.post_form(CODE, &[("client_id", id)], &[("dpop", &proof)]).await.unwrap());
    note("no JWT", &device.post_form(CODE, &[("client_id", id)], &[("dpop", "x")]).await.unwrap());
    device.request_code(None, None).await.unwrap();
    note("over budget", &test.ask(&device, CODE, &[("client_id", id)]).await);
    test.suspend(id).await;
    note("suspended", &test.ask(&device, CODE, &[("client_id", id)]).await);
    insta::assert_snapshot!(table.join("\n"), @r"
    missing parameter: 400 invalid_request: The parameter client_id is missing.
    scope: 400 invalid_scope DPoP-Nonce: This scope is not allowed for devices of this kind.
    resource: 400 invalid_target DPoP-Nonce: This resource is unknown, not allowed for devices of this kind, or there is more than one.
    unenrolled: 401 invalid_client DPoP-Nonce: This device is not enrolled with this key. Pair it first.
    no nonce: 400 use_dpop_nonce DPoP-Nonce: Send a new proof with the nonce of this answer's DPoP-Nonce header.
    no JWT: 400 invalid_dpop_proof: This is no compact JWT (RFC 7515 section 3.1).
    over budget: 429 - Retry-After=3600 DPoP-Nonce: Too many codes were asked for. Wait, then try again.
    suspended: 400 unauthorized_client DPoP-Nonce: This device may not sign in now. Ask an administrator.
    ");
}

#[tokio::test]
async fn every_error_of_the_token_endpoint_is_the_documented_one() {
    let mut bench = Bench::new().await;
    let id = bench.device.id.clone();
    let id = id.as_str();
    let mut table = Vec::new();
    let mut note = |what: &str, answer: &RawAnswer| table.push(row(what, answer));
    let ask = async |params: &[(&str, &str)]| bench.test.ask(&bench.device, TOKEN, params).await;
    note("missing grant_type", &ask(&[("client_id", id)]).await);
    note("missing device_code", &ask(&[("client_id", id), ("grant_type", DEVICE_CODE_GRANT)]).await);
    note("other grant type", &ask(&[("client_id", id), ("grant_type", "password")]).await);
    note("unknown code", &bench.test.poll(&bench.device, "x").await);
    note("unknown refresh token", &bench.test.renew(&bench.device, "x").await);
    note("pending", &bench.poll().await);
    note("too fast", &bench.poll().await);
    let path = bench.ida.claim(&bench.code.verification_uri_complete).await.unwrap();
    bench.test.advance(10);
    note("claimed", &bench.poll().await);
    bench.ida.deny(&path).await.unwrap();
    note("denied", &bench.poll().await);
    bench.code = bench.device.request_code(None, None).await.unwrap();
    bench.test.advance(300);
    note("expired", &bench.poll().await);
    note("unenrolled", &bench.test.poll(&bench.test.stranger(id), &bench.code.device_code).await);
    insta::assert_snapshot!(table.join("\n"), @r"
    missing grant_type: 400 invalid_request DPoP-Nonce: The parameter grant_type is missing.
    missing device_code: 400 invalid_request DPoP-Nonce: The parameter device_code is missing.
    other grant type: 400 unsupported_grant_type DPoP-Nonce: Only the device code and the refresh token grants are served.
    unknown code: 400 invalid_grant DPoP-Nonce: This code or token is not valid. Start again.
    unknown refresh token: 400 invalid_grant DPoP-Nonce: This code or token is not valid. Start again.
    pending: 400 authorization_pending DPoP-Nonce: Nobody has decided yet. Poll again after the interval.
    too fast: 400 slow_down DPoP-Nonce: Too fast. The interval is now 5 seconds longer, for this and all later polls.
    claimed: 400 authorization_pending +confirmation_number DPoP-Nonce: Nobody has decided yet. Poll again after the interval.
    denied: 400 access_denied DPoP-Nonce: The request was denied.
    expired: 400 expired_token DPoP-Nonce: The code has expired. Start again.
    unenrolled: 401 invalid_client DPoP-Nonce: This device is not enrolled with this key. Pair it first.
    ");
}

#[tokio::test]
async fn an_outage_is_no_verdict_and_leaves_nothing_half_done() {
    let mut bench = Bench::new().await;
    bench.approve().await;
    let database = rusqlite::Connection::open(bench.test.data.path().join("pairgate.db")).unwrap();
    let params = poll_of(&bench.code.device_code, &bench.device.id);
    let proofs = [bench.test.proof(&bench.device, CODE).await, bench.test.proof(&bench.device, TOKEN).await];
    database.execute_batch("ALTER TABLE devices RENAME TO gone").unwrap();
    for (path, proof) in [CODE, TOKEN].into_iter().zip(&proofs) {
        let answer = bench.device.post_form(path, &params, &[("dpop", proof)]).await.unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.body);
        assert_eq!(answer.json().unwrap().get("error"), None, "a device would stop for good");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    database.execute_batch("ALTER TABLE gone RENAME TO devices").unwrap();
    assert!(matches!(bench.device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)), "it goes on where it was");
}
