//! Polls, redemption and refresh (RFC 8628 sections 3.4 and 3.5, RFC 6749 section 6).

use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::clock::Timestamp;
use pairgate::model::operator::Role;
use pairgate::simulator::{CodeShown, RawAnswer, SimulatedDevice, TokenAnswer};

use crate::support::TestBroker;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Polls with somebody's device code, as `client_id`, with the device's own key; nonce retried once.
async fn poll_raw(device: &SimulatedDevice, device_code: &str, headers: &[(&str, &str)]) -> RawAnswer {
    let form = [("grant_type", GRANT), ("device_code", device_code), ("client_id", device.id.as_str())];
    raw(device, &form, headers).await
}

async fn refresh_raw(device: &SimulatedDevice, refresh_token: &str, more: &[(&str, &str)]) -> RawAnswer {
    let mut form =
        vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("client_id", device.id.as_str())];
    form.extend(more);
    raw(device, &form, &[]).await
}

async fn raw(device: &SimulatedDevice, form: &[(&str, &str)], headers: &[(&str, &str)]) -> RawAnswer {
    let htu = format!("{}/token", device.issuer());
    let mut nonce = device.dpop_nonce().map(str::to_owned);
    loop {
        let jti = pairgate::simulator::jose::b64u(&pairgate::secret::Random::system().bytes32().unwrap());
        let proof = device.proof("POST", &htu, nonce.as_deref(), &jti).unwrap();
        let mut all = vec![("dpop", proof.as_str())];
        all.extend(headers);
        let answer = device.post_form("/token", form, &all).await.unwrap();
        if error_of(&answer) != "use_dpop_nonce" {
            return answer;
        }
        nonce = answer.header("dpop-nonce").map(str::to_owned);
    }
}

fn error_of(answer: &RawAnswer) -> String {
    answer.oauth_error().map(|(error, _)| error).unwrap_or_default()
}

struct Scene {
    test: TestBroker,
    owner: SimulatedDevice,
    code: CodeShown,
}

async fn asked() -> Scene {
    let test = TestBroker::start().await;
    let mut owner = test.paired("lobby-printer-01", "printer").await;
    let code = owner.request_code(None, None).await.unwrap();
    Scene { test, owner, code }
}

async fn approved() -> Scene {
    let mut scene = asked().await;
    let dana = scene.test.operator("dana", Role::Approver).await;
    scene.test.approve(&dana, &mut scene.owner, &scene.code.verification_uri_complete).await;
    scene
}

#[tokio::test]
async fn a_stolen_device_code_is_worth_nothing_to_another_enrolled_device_a_031() {
    let mut scene = asked().await;
    let thief = scene.test.paired("hall-tv-01", "tv").await;
    for _ in 0..3 {
        let answer = poll_raw(&thief, &scene.code.device_code, &[]).await;
        assert_eq!((answer.status, error_of(&answer).as_str()), (400, "invalid_grant"));
    }
    let records = scene.test.records().await;
    let alert = records.iter().find(|record| record.event == "code.foreign_key").unwrap();
    assert_eq!((alert.device.as_deref(), alert.severity.as_str()), (Some("lobby-printer-01"), "alert"));
    assert_eq!(scene.test.pending(&mut scene.owner).await, None, "the owner is not slowed down");
}

#[tokio::test]
async fn a_stolen_device_code_is_worth_nothing_to_a_stranger_a_032() {
    let mut scene = asked().await;
    let thief = scene.test.stranger("lobby-printer-01");
    let answer = poll_raw(&thief, &scene.code.device_code, &[]).await;
    assert_eq!((answer.status, error_of(&answer).as_str()), (401, "invalid_client"));
    let bare = thief
        .post_form(
            "/token",
            &[("grant_type", GRANT), ("device_code", &scene.code.device_code), ("client_id", "lobby-printer-01")],
            &[],
        )
        .await
        .unwrap();
    assert_eq!(bare.status, 401);
    assert_eq!(scene.test.pending(&mut scene.owner).await, None, "state and pace are the owner's");
}

#[tokio::test]
async fn device_codes_are_made_by_the_broker_and_can_t_be_guessed_or_bent_a_033() {
    let scene = asked().await;
    let raw_code = pairgate::secret::from_b64u(&scene.code.device_code).unwrap();
    assert_eq!(raw_code.len(), 40, "a row and 256 secret bits");
    for place in 0..raw_code.len() {
        let mut bent = raw_code.clone();
        bent[place] ^= 1;
        let answer = poll_raw(&scene.owner, &pairgate::secret::b64u(&bent), &[]).await;
        assert_eq!(error_of(&answer), "invalid_grant", "byte {place}");
    }
    for made_up in ["x", "AAAA", &"A".repeat(54), "a b", "<script>"] {
        assert_eq!(error_of(&poll_raw(&scene.owner, made_up, &[]).await), "invalid_grant", "{made_up}");
    }
}

#[tokio::test]
async fn a_spent_code_is_unknown_and_a_thief_who_shows_it_ends_the_sign_in_a_034() {
    let mut scene = approved().await;
    let TokenAnswer::Tokens(tokens) = scene.owner.poll_token(None).await.unwrap() else { panic!("no tokens") };
    let again = poll_raw(&scene.owner, &scene.code.device_code, &[]).await;
    assert_eq!(error_of(&again), "invalid_grant");
    let refresh_token = tokens.refresh_token.unwrap();
    let refreshed = refresh_raw(&scene.owner, &refresh_token, &[]).await;
    assert_eq!(refreshed.status, 200, "its own second poll ends nothing");
    let next = refreshed.json().unwrap()["refresh_token"].as_str().unwrap().to_owned();
    let thief = scene.test.paired("hall-tv-01", "tv").await;
    assert_eq!(error_of(&poll_raw(&thief, &scene.code.device_code, &[]).await), "invalid_grant");
    assert_eq!(error_of(&refresh_raw(&scene.owner, &next, &[]).await), "invalid_grant", "ended");
    assert_eq!(scene.test.count("code.foreign_key").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_polls_of_one_approved_code_get_exactly_one_token_a_035() {
    for _ in 0..3 {
        let scene = approved().await;
        let nonce = scene.owner.dpop_nonce().unwrap();
        let htu = format!("{}/token", scene.test.issuer);
        let form = [
            ("grant_type", GRANT),
            ("device_code", scene.code.device_code.as_str()),
            ("client_id", "lobby-printer-01"),
        ];
        let polls: Vec<_> = (0..64)
            .map(|number| {
                let proof = scene.owner.proof("POST", &htu, Some(nonce), &format!("simultaneous-{number:04}")).unwrap();
                let request = scene.test.wire.post(&htu).form(&form).header("dpop", proof);
                let wire = scene.test.wire.clone();
                tokio::spawn(async move { wire.send(request).await.unwrap() })
            })
            .collect();
        let mut outcomes = Vec::new();
        for poll in polls {
            let answer = poll.await.unwrap();
            outcomes.push(if answer.status == 200 { "token".to_owned() } else { error_of(&answer) });
        }
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "token").count(), 1, "{outcomes:?}");
        assert!(
            outcomes.iter().all(|outcome| ["token", "invalid_grant", "slow_down"].contains(&outcome.as_str())),
            "{outcomes:?}"
        );
        assert_eq!(scene.test.count("token.issued").await, 1);
    }
}

#[tokio::test]
async fn polling_too_fast_lengthens_the_interval_for_good_and_never_pays_a_036() {
    let mut test = TestBroker::with_kind("printer", |kind| kind.code_lifetime = Duration::from_secs(600)).await;
    let mut owner = test.paired("lobby-printer-01", "printer").await;
    owner.request_code(None, None).await.unwrap();
    assert_eq!(test.pending(&mut owner).await, None);
    // 5, then 10, … then 60 and no longer: what would have been fast enough before is too fast now.
    for interval in (5..=60).step_by(5) {
        test.advance(interval - 2);
        assert!(matches!(owner.poll_token(None).await.unwrap(), TokenAnswer::SlowDown), "after {interval} s");
    }
    test = test.restart().await;
    assert_eq!(test.pending(&mut owner).await, None, "a restart forgives one poll");
    test.advance(50);
    assert!(
        matches!(owner.poll_token(None).await.unwrap(), TokenAnswer::SlowDown),
        "the interval survived the restart"
    );
    test.advance(60);
    assert_eq!(test.pending(&mut owner).await, None, "at its cap: slow, never locked out");
}

#[tokio::test]
async fn an_approved_code_is_not_the_reward_for_polling_too_fast_a_036() {
    let mut scene = asked().await;
    let dana = scene.test.operator("dana", Role::Approver).await;
    let path = dana.claim(&scene.code.verification_uri_complete).await.unwrap();
    let number = scene.test.pending(&mut scene.owner).await.unwrap();
    dana.approve(&path, &number).await.unwrap();
    scene.test.advance(1);
    assert!(matches!(scene.owner.poll_token(None).await.unwrap(), TokenAnswer::SlowDown));
    scene.test.advance(10);
    assert!(matches!(scene.owner.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
}

#[tokio::test]
async fn what_a_poll_hears_after_a_denial_an_expiry_and_a_suspension_a_037() {
    let mut denied = asked().await;
    let dana = denied.test.operator("dana", Role::Approver).await;
    let path = dana.claim(&denied.code.verification_uri_complete).await.unwrap();
    dana.deny(&path).await.unwrap();
    assert!(matches!(denied.owner.poll_token(None).await.unwrap(), TokenAnswer::Denied));

    let mut expired = asked().await;
    expired.test.clock.advance(Duration::from_millis(299_999));
    assert_eq!(expired.test.pending(&mut expired.owner).await, None);
    expired.test.clock.advance(Duration::from_millis(1));
    assert!(matches!(expired.owner.poll_token(None).await.unwrap(), TokenAnswer::Expired));

    let suspended = approved().await;
    suspended.test.broker.suspend_device(&Caller::command_line(), "lobby-printer-01").await.unwrap();
    let answer = poll_raw(&suspended.owner, &suspended.code.device_code, &[]).await;
    assert_eq!((answer.status, error_of(&answer).as_str()), (401, "invalid_client"));
    suspended.test.broker.resume_device(&Caller::command_line(), "lobby-printer-01").await.unwrap();
    let answer = poll_raw(&suspended.owner, &suspended.code.device_code, &[]).await;
    assert_eq!(error_of(&answer), "invalid_grant", "resuming brings nothing back");
}

#[tokio::test]
async fn an_approver_who_was_disabled_before_the_device_came_has_approved_nothing_a_037_a_047() {
    let mut scene = approved().await;
    scene.test.broker.disable_operator(&Caller::command_line(), "dana").await.unwrap();
    assert!(matches!(scene.owner.poll_token(None).await.unwrap(), TokenAnswer::Denied));
    assert_eq!((scene.test.count("token.issued").await, scene.test.count("token.refused").await), (0, 1));
}

#[tokio::test]
async fn an_approval_expires_with_its_code_a_038() {
    let mut scene = approved().await;
    scene.test.advance(180);
    assert!(matches!(scene.owner.poll_token(None).await.unwrap(), TokenAnswer::Expired));
    assert_eq!(scene.test.count("token.issued").await, 0);
}

#[tokio::test]
async fn a_server_clock_set_back_gives_no_code_a_longer_life_a_089() {
    let mut scene = asked().await;
    scene.test.clock.set_wall(Timestamp::from_millis(0));
    scene.test.advance(299);
    assert_eq!(scene.test.pending(&mut scene.owner).await, None);
    scene.test.advance(1);
    assert!(matches!(scene.owner.poll_token(None).await.unwrap(), TokenAnswer::Expired));
}

#[tokio::test]
async fn a_device_whose_clock_is_years_off_signs_in_all_the_same_a_089() {
    for years in [-10_i64, 10] {
        let test = TestBroker::start().await;
        test.register("lobby-printer-01", "printer").await;
        let mut device = test.stranger("lobby-printer-01");
        device.clock_offset_s = years * 365 * 86_400;
        test.pair(&mut device).await;
        let code = device.request_code(None, None).await.unwrap();
        assert!(code.user_code.starts_with("PRN-"));
        assert_eq!(test.pending(&mut device).await, None);
    }
}

#[tokio::test]
async fn a_held_poll_hears_the_number_the_decision_and_the_suspension_at_once() {
    let scene = asked().await;
    let dana = scene.test.operator("dana", Role::Approver).await;
    let hold = [("prefer", "wait=25")];
    let held = |code: &str| {
        let (issuer, key) = (scene.test.issuer.clone(), scene.owner.key.clone());
        let (wire, code) = (scene.test.wire.clone(), code.to_owned());
        tokio::spawn(async move {
            poll_raw(&SimulatedDevice::new("lobby-printer-01", &issuer, key, wire), &code, &hold).await
        })
    };
    let first = held(&scene.code.device_code);
    let path = dana.claim(&scene.code.verification_uri_complete).await.unwrap();
    let answer = first.await.unwrap();
    assert_eq!(
        (error_of(&answer).as_str(), answer.header("preference-applied")),
        ("authorization_pending", Some("wait=25"))
    );
    let number = answer.json().unwrap()["confirmation_number"].as_str().unwrap().to_owned();
    assert_eq!(number.len(), 2);
    // At once again, without the clock moving: after news that is no haste.
    let second = held(&scene.code.device_code);
    dana.approve(&path, &number).await.unwrap();
    assert_eq!(second.await.unwrap().status, 200);

    let mut owner =
        SimulatedDevice::new("lobby-printer-01", &scene.test.issuer, scene.owner.key.clone(), scene.test.wire.clone());
    let code = owner.request_code(None, None).await.unwrap();
    let third = held(&code.device_code);
    scene.test.broker.suspend_device(&Caller::command_line(), "lobby-printer-01").await.unwrap();
    assert_eq!(error_of(&third.await.unwrap()), "invalid_client");
}

#[tokio::test]
async fn refresh_tokens_rotate_survive_a_lost_answer_and_end_on_reuse() {
    let mut scene = approved().await;
    let TokenAnswer::Tokens(tokens) = scene.owner.poll_token(None).await.unwrap() else { panic!("no tokens") };
    let first = tokens.refresh_token.unwrap();
    let answer = refresh_raw(&scene.owner, &first, &[]).await;
    let second = answer.json().unwrap()["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    scene.test.advance(9);
    let retried = refresh_raw(&scene.owner, &first, &[]).await;
    assert_eq!(retried.json().unwrap()["refresh_token"].as_str(), Some(second.as_str()), "the lost answer again");
    for (more, error) in [
        ([("scope", "scan.write Mail.Read")], "invalid_scope"),
        ([("resource", "https://other.example/")], "invalid_target"),
    ] {
        assert_eq!(error_of(&refresh_raw(&scene.owner, &second, &more).await), error);
    }
    let narrow = refresh_raw(&scene.owner, &second, &[("scope", "scan.write")]).await;
    assert_eq!(narrow.json().unwrap()["scope"].as_str(), Some("scan.write"));
    let third = narrow.json().unwrap()["refresh_token"].as_str().unwrap().to_owned();
    scene.test.advance(11);
    assert_eq!(error_of(&refresh_raw(&scene.owner, &second, &[]).await), "invalid_grant", "too late for a retry");
    assert_eq!(error_of(&refresh_raw(&scene.owner, &third, &[]).await), "invalid_grant", "reuse ended the sign-in");
    assert_eq!(scene.test.count("refresh.reused").await, 1);
}

#[tokio::test]
async fn a_refresh_token_in_another_key_s_hands_gets_nothing_and_ends_the_sign_in() {
    let mut scene = approved().await;
    let TokenAnswer::Tokens(tokens) = scene.owner.poll_token(None).await.unwrap() else { panic!("no tokens") };
    let token = tokens.refresh_token.unwrap();
    let thief = scene.test.paired("hall-tv-01", "tv").await;
    assert_eq!(error_of(&refresh_raw(&thief, &token, &[]).await), "invalid_grant");
    assert_eq!(error_of(&refresh_raw(&scene.owner, &token, &[]).await), "invalid_grant");
    assert_eq!(scene.test.count("code.foreign_key").await, 1);
}

#[tokio::test]
async fn access_tokens_say_who_for_what_how_long_and_by_which_key() {
    let mut scene = approved().await;
    let TokenAnswer::Tokens(tokens) = scene.owner.poll_token(None).await.unwrap() else { panic!("no tokens") };
    assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("DPoP", 600));
    let claims = scene.owner.claims_of(&tokens).unwrap();
    assert_eq!(claims["sub"], "device:lobby-printer-01");
    assert_eq!(claims["client_id"], "lobby-printer-01");
    assert_eq!(claims["iss"], scene.test.issuer.as_str());
    assert_eq!(claims["aud"], "urn:pairgate:resource:default");
    assert_eq!(claims["scope"], "print.read scan.write");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    assert_eq!(claims["cnf"]["jkt"], scene.owner.key.jkt().as_str());
    let refreshed = refresh_raw(&scene.owner, &tokens.refresh_token.unwrap(), &[]).await.json().unwrap();
    let head = refreshed["access_token"].as_str().unwrap().split('.').next().unwrap().to_owned();
    let header: serde_json::Value = serde_json::from_slice(&pairgate::secret::from_b64u(&head).unwrap()).unwrap();
    assert_eq!((header["typ"].as_str(), header["alg"].as_str()), (Some("at+jwt"), Some("ES256")));
}
