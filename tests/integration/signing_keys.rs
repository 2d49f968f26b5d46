//! Signing keys and their rotation: by age, by hand, in an emergency; and what devices and resources see of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use pairgate::broker::signing::KeyRotation;
use pairgate::broker::{Broker, Caller, OpenError, Parts, Policy, UseCaseError};
use pairgate::clock::Clock;
use pairgate::model::operator::{Rights, Role};
use pairgate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use pairgate::secret::{MasterKey, Random};
use pairgate::simulator::{PageOperator, PairingStatus, SimulatedDevice, TokenAnswer, Tokens, Wire, jose};
use pairgate::store;
use serde_json::{Value, json};

use crate::support::child::{self, Served, free_port, run};
use crate::support::probe::{error_of, tokens};
use crate::support::{START, Setup, TestBroker};

const DAY: u64 = 24 * 3600;
/// Ten minutes of an access token, and five of a copy of `/jwks`.
const OVERLAP: u64 = 900;

async fn jwks(issuer: &str, wire: &Wire) -> Value {
    let answer = wire.send(wire.get(&format!("{issuer}/jwks"))).await.unwrap();
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("max-age=300")));
    answer.json().unwrap()
}

fn kids(jwks: &Value) -> Vec<String> {
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn kid(jwt: &str) -> String {
    decode_header(jwt).unwrap().kid.unwrap()
}

/// What a resource finds that knows this set: the claims, if one of the keys signed.
fn verified(jwt: &str, jwks: &Value) -> Option<Value> {
    let set: JwkSet = serde_json::from_value(jwks.clone()).unwrap();
    let header = decode_header(jwt).unwrap();
    let key = set.find(&header.kid.unwrap())?;
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false; // the clock of most tests is not the machine's
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    decode(jwt, &DecodingKey::from_jwk(key).unwrap(), &validation).ok().map(|data| data.claims)
}

/// A broker, an approver, and a device that is signed in.
struct Bench {
    test: TestBroker,
    ida: PageOperator,
    device: SimulatedDevice,
    tokens: Tokens,
}

impl Bench {
    async fn new() -> Self {
        let test = TestBroker::start().await;
        let ida = test.operator("ida", Role::Admin).await;
        let mut device = test.paired("lobby-printer-01", "printer").await;
        let tokens = test.signed_in(&ida, &mut device).await;
        Self { test, ida, device, tokens }
    }

    async fn jwks(&self) -> Value {
        jwks(&self.test.issuer, &self.test.wire).await
    }

    async fn rotate(&self, rotation: KeyRotation) {
        let rotated = self.test.broker.rotate_signing_keys(&Caller::command_line(), rotation).await.unwrap();
        assert_eq!(rotated.len(), 1);
    }

    async fn refreshed(&mut self) -> Tokens {
        tokens(&self.device.refresh().await.unwrap())
    }
}

/// A second process on the data of a test.
async fn beside(test: &TestBroker, algorithms: &[SigningAlgorithm]) -> Result<Broker, OpenError> {
    let parts = Parts {
        store: store::open(test.data.path()).unwrap(),
        master: MasterKey::new([7; 32]),
        issuer: test.issuer.parse().unwrap(),
        policy: Policy { signing_algorithms: algorithms.iter().copied().collect(), ..Policy::default() },
        clock: test.clock.clone(),
        random: Random::system(),
    };
    Broker::open(parts, false).await
}

#[tokio::test]
async fn a_planned_rotation_lets_what_was_signed_live_to_its_end_and_not_a_second_longer() {
    let mut bench = Bench::new().await;
    let old = kid(&bench.tokens.access_token);
    bench.rotate(KeyRotation::Planned).await;
    let set = bench.jwks().await;
    let new = kids(&set)[0].clone();
    assert_eq!(kids(&set), [new.clone(), old.clone()], "the current one first");
    assert_ne!(new, old);
    assert!(verified(&bench.tokens.access_token, &set).is_some());

    let renewed = bench.refreshed().await;
    assert_eq!(kid(&renewed.access_token), new);
    assert!(bench.device.claims_of(&renewed).is_err(), "the device has pinned the former key");
    bench.device.bound_key(&renewed).await.expect("so it fetches the keys again");
    assert!(bench.device.claims_of(&renewed).is_ok(), "and pins them");
    assert!(bench.device.claims_of(&bench.tokens).is_ok());

    bench.test.advance(OVERLAP - 1);
    assert_eq!(kids(&bench.jwks().await), [new.clone(), old.clone()]);
    assert!(bench.test.broker.signing_keys().public(&old).is_some());
    bench.test.advance(1);
    let set = bench.jwks().await;
    assert_eq!(kids(&set), [new.as_str()], "gone to the second, also if nothing has dropped it yet");
    assert!(verified(&bench.tokens.access_token, &set).is_none());
    assert!(bench.test.broker.signing_keys().public(&old).is_none());
    assert!(bench.test.broker.signing_keys().public(&new).is_some());
    assert_eq!(bench.test.count("signing_key.dropped").await, 0);
    bench.test.broker.rotate_signing_keys_if_due().await.unwrap();
    assert_eq!(bench.test.count("signing_key.dropped").await, 1);
    assert_eq!(bench.test.count("signing_key.rotated").await, 1);
}

#[tokio::test]
async fn the_overlap_follows_the_longest_access_token_of_all_kinds() {
    let test = TestBroker::with_kind("tv", |kind| kind.access_token_lifetime = Duration::from_secs(3600)).await;
    let rotated = test.broker.rotate_signing_keys(&Caller::command_line(), KeyRotation::Planned).await.unwrap();
    assert_eq!(rotated[0].former_retires_at, Some(START.plus(Duration::from_secs(3900))));
}

#[tokio::test]
async fn keys_of_age_are_rotated_once_however_many_brokers_look() {
    let bench = Bench::new().await;
    let twin = beside(&bench.test, &[]).await.unwrap();
    let old = kid(&bench.tokens.access_token);
    let age = bench.test.broker.now().since(START).as_secs();
    for seconds in [0, 90 * DAY - age - 1] {
        bench.test.advance(seconds);
        bench.test.broker.rotate_signing_keys_if_due().await.unwrap();
        assert_eq!(kids(&bench.jwks().await), [old.as_str()], "{seconds}");
    }
    bench.test.advance(1);
    let (one, other) = tokio::join!(bench.test.broker.rotate_signing_keys_if_due(), twin.rotate_signing_keys_if_due());
    one.unwrap();
    other.unwrap();
    assert_eq!(bench.test.count("signing_key.rotated").await, 1);
    let set = bench.jwks().await;
    assert_eq!((kids(&set).len(), &kids(&set)[1]), (2, &old));
    assert_eq!(twin.jwks(), set, "both have the same");
    // The successor's age counts anew.
    bench.test.advance(OVERLAP);
    bench.test.broker.rotate_signing_keys_if_due().await.unwrap();
    assert_eq!(kids(&bench.jwks().await), kids(&set)[..1]);
    bench.test.advance(90 * DAY - OVERLAP);
    bench.test.broker.rotate_signing_keys_if_due().await.unwrap();
    assert_eq!(bench.test.count("signing_key.rotated").await, 2);
    assert_eq!(bench.test.broker.audit_verify().await.unwrap().first_bad, None);
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_rotation_keeps_the_keys() {
    let mut bench = Bench::new().await;
    bench.rotate(KeyRotation::Planned).await;
    let before = bench.jwks().await;
    bench.test.advance(OVERLAP - 1);
    bench.test = bench.test.restart().await;
    let after = bench.jwks().await;
    assert_eq!(after, before);
    assert!(verified(&bench.tokens.access_token, &after).is_some());
    let renewed = bench.refreshed().await;
    assert_eq!(kid(&renewed.access_token), kids(&after)[0]);
    bench.test.advance(1);
    bench.test = bench.test.restart().await;
    assert_eq!(kids(&bench.jwks().await), kids(&before)[..1]);
}

#[tokio::test]
async fn an_emergency_in_another_process_voids_every_token_and_keeps_the_sign_ins_a_098() {
    let mut bench = Bench::new().await;
    // One that is retiring already may be the one that leaked.
    bench.rotate(KeyRotation::Planned).await;
    let second = bench.refreshed().await;
    let before = bench.jwks().await;
    assert_eq!(kids(&before).len(), 2);
    let other = beside(&bench.test, &[]).await.unwrap();
    other.rotate_signing_keys(&Caller::command_line(), KeyRotation::Emergency).await.unwrap();
    assert!(!bench.test.broker.wake().is_anybody_waiting(), "it is noticed also if nobody waits");
    bench.test.broker.look_for_changes_of_others().await.unwrap();
    let set = bench.jwks().await;
    assert_eq!(kids(&set).len(), 1);
    for (tokens, old) in [(&bench.tokens, &kids(&before)[1]), (&second, &kids(&before)[0])] {
        assert_eq!(&kid(&tokens.access_token), old);
        assert!(verified(&tokens.access_token, &set).is_none());
        assert!(bench.test.broker.signing_keys().public(old).is_none());
    }
    let renewed = bench.refreshed().await;
    bench.device.bound_key(&renewed).await.unwrap();
    assert!(verified(&renewed.access_token, &set).is_some());
    assert!(bench.device.claims_of(&second).is_err(), "the device trusts the old keys no longer");
    assert_eq!(bench.test.count("signing_key.replaced").await, 1);

    assert_eq!(other.end_all_sign_ins(&Caller::command_line()).await.unwrap(), 1);
    assert_eq!(error_of(&bench.device.refresh().await.unwrap()), "invalid_grant");
    let again = bench.test.signed_in(&bench.ida, &mut bench.device).await;
    bench.device.bound_key(&again).await.unwrap();
}

#[tokio::test]
async fn an_emergency_prevails_over_rotations_at_the_same_moment_a_098() {
    for _ in 0..5 {
        let bench = Bench::new().await;
        let old = kid(&bench.tokens.access_token);
        let others = [beside(&bench.test, &[]).await.unwrap(), beside(&bench.test, &[]).await.unwrap()];
        let caller = Caller::command_line();
        let (emergency, _, _) = tokio::join!(
            bench.test.broker.rotate_signing_keys(&caller, KeyRotation::Emergency),
            others[0].rotate_signing_keys(&caller, KeyRotation::Planned),
            others[1].rotate_signing_keys(&caller, KeyRotation::Planned),
        );
        emergency.unwrap();
        bench.test.broker.look_for_changes_of_others().await.unwrap();
        let set = bench.jwks().await;
        assert!(!kids(&set).contains(&old), "{set}");
        assert!(verified(&bench.tokens.access_token, &set).is_none());
    }
}

#[tokio::test]
async fn only_an_administrator_rotates() {
    let test = TestBroker::start().await;
    for role in [Role::Viewer, Role::Technician, Role::Approver] {
        let caller = Caller { rights: Rights::everywhere(role), ..Caller::command_line() };
        for rotation in [KeyRotation::Planned, KeyRotation::Emergency] {
            let refused = test.broker.rotate_signing_keys(&caller, rotation).await;
            assert!(matches!(refused, Err(UseCaseError::NotAllowed)), "{role:?}");
        }
        assert!(matches!(test.broker.end_all_sign_ins(&caller).await, Err(UseCaseError::NotAllowed)), "{role:?}");
    }
    assert_eq!(test.count("signing_key.minted").await, 1);
}

#[tokio::test]
async fn an_rs256_key_is_made_when_it_is_asked_for_and_a_resource_verifies_by_it() {
    let test = TestBroker::start().await;
    let claims = json!({"iss": test.issuer, "sub": "device:lobby-printer-01"});
    let refused = test.broker.signing_keys().sign(SigningAlgorithm::Rs256, "at+jwt", &claims, false);
    assert!(refused.is_err(), "nobody asked for it");
    assert_eq!(kids(&jwks(&test.issuer, &test.wire).await).len(), 1);

    let setup = Setup { signing_algorithms: BTreeSet::from([SigningAlgorithm::Rs256]), ..Setup::default() };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let test = TestBroker::on(Arc::clone(&test.data), address, Clock::manual(START), setup).await;
    let sign = |algorithm| test.broker.signing_keys().sign(algorithm, "at+jwt", &claims, false).unwrap();
    let set = jwks(&test.issuer, &test.wire).await;
    assert_eq!(kids(&set).len(), 2);
    let old = [sign(SigningAlgorithm::Rs256), sign(SigningAlgorithm::Es256)];
    for (jwt, alg) in old.iter().zip(["RS256", "ES256"]) {
        let header = jose::peek(jwt).unwrap().header;
        assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some(alg), Some("at+jwt")));
        assert_eq!(verified(jwt, &set).unwrap()["sub"], "device:lobby-printer-01");
        let (input, _) = jwt.rsplit_once('.').unwrap();
        let (_, foreign) = old.iter().find(|other| *other != jwt).unwrap().rsplit_once('.').unwrap();
        assert!(verified(&format!("{input}.{foreign}"), &set).is_none());
    }
    // Two processes that are asked at once have one, and both algorithms rotate together.
    let (one, other) = tokio::join!(beside(&test, &SigningAlgorithm::ALL), beside(&test, &[]));
    assert_eq!(one.unwrap().jwks(), set);
    assert_eq!(other.unwrap().jwks(), set, "also who does not ask verifies by it");
    let rotated = test.broker.rotate_signing_keys(&Caller::command_line(), KeyRotation::Emergency).await.unwrap();
    assert_eq!(rotated.iter().map(|key| key.algorithm).collect::<Vec<_>>(), SigningAlgorithm::ALL);
    let set = jwks(&test.issuer, &test.wire).await;
    assert_eq!(kids(&set).len(), 2);
    assert!(old.iter().all(|jwt| verified(jwt, &set).is_none()));
    assert!(verified(&sign(SigningAlgorithm::Rs256), &set).is_some());
}

#[tokio::test]
async fn a_pairing_under_way_outlasts_a_planned_rotation_and_no_emergency() {
    let bench = Bench::new().await;
    let (test, caller) = (&bench.test, Caller::command_line());
    test.register("hall-tv-01", "tv").await;
    let begin = async |device: &mut SimulatedDevice| {
        test.open_window("hall-tv-01").await;
        let shown = device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        (shown.pairing_id, digits)
    };
    let mut device = test.stranger("hall-tv-01");
    let (pairing, digits) = begin(&mut device).await;
    test.advance(1);
    bench.rotate(KeyRotation::Planned).await;
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { .. }));
    let confirm = pairgate::broker::pairing::Confirm::Number(&digits);
    test.broker.confirm_pairing(&caller, &pairing, &confirm).await.unwrap();
    let PairingStatus::Paired(pins) = device.poll_pairing().await.unwrap() else { panic!("not paired") };
    assert_eq!(pins.jwks, bench.jwks().await, "both keys are pinned");

    // The next pairing is over the new key.
    let mut device = test.stranger("hall-tv-01");
    let (pairing, digits) = begin(&mut device).await;
    test.advance(1);
    bench.rotate(KeyRotation::Emergency).await;
    let error = device.poll_pairing().await.unwrap_err();
    assert!(error.to_string().contains("key changed"), "{error}");
    let confirm = pairgate::broker::pairing::Confirm::Number(&digits);
    assert!(test.broker.confirm_pairing(&caller, &pairing, &confirm).await.is_err(), "digits of the key that leaked");
    let mut device = test.stranger("hall-tv-01");
    test.pair(&mut device).await;
}

#[tokio::test]
async fn a_key_that_was_put_into_another_row_or_algorithm_stops_the_start() {
    for (sql, advice) in [
        ("UPDATE signing_keys SET algorithm = 'RS256'", "not of the algorithm"),
        ("UPDATE signing_keys SET kid = 'another'", "master key is not the one"),
        ("UPDATE signing_keys SET sealed = zeroblob(100)", "master key is not the one"),
    ] {
        let test = TestBroker::start().await;
        let set = jwks(&test.issuer, &test.wire).await;
        let hand = rusqlite::Connection::open(test.data.path().join("pairgate.db")).unwrap();
        assert_eq!(hand.execute(sql, []).unwrap(), 1);
        let error = beside(&test, &[]).await.err().unwrap().to_string();
        assert!(error.contains(advice), "{sql}: {error}");
        // Who runs goes on with what it has.
        let _ = test.broker.look_for_changes_of_others().await;
        assert_eq!(jwks(&test.issuer, &test.wire).await, set, "{sql}");
    }
}

/// The lines of the runbook that are commands.
fn commands_of_the_runbook() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/signing-key-leak.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix("sh\n")).flat_map(str::lines).map(str::to_owned).collect()
}

/// What the thief has: the database and the master key.
async fn stolen_key(data: &Path) -> SigningKey {
    let master = MasterKey::from_file(&data.join("master.key"), false, &Random::system()).unwrap();
    let key = store::open(data).unwrap().signing_keys().await.unwrap().remove(0);
    SigningKey::from_pkcs8(&master.unseal(&format!("signing_keys/{}", key.kid), &key.sealed).unwrap()).unwrap()
}

/// The way to tokens, by the machine's clock.
async fn signed_in(operator: &PageOperator, device: &mut SimulatedDevice) -> Tokens {
    let code = device.request_code(None, None).await.unwrap();
    let path = operator.claim(&code.verification_uri_complete).await.unwrap();
    let TokenAnswer::Pending { confirmation_number: Some(number) } = device.poll_token(Some(25)).await.unwrap() else {
        panic!("no number")
    };
    operator.approve(&path, &number).await.unwrap();
    tokens(&device.poll_token(Some(25)).await.unwrap())
}

/// Runs a command of the runbook, and returns when the broker has other keys, within two seconds; the new set.
async fn replaced(data: &Path, command: &str, issuer: &str, wire: &Wire) -> Value {
    let before = kids(&jwks(issuer, wire).await);
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let output = run(data, &words);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let other = async {
        loop {
            let set = jwks(issuer, wire).await;
            if !kids(&set).iter().any(|kid| before.contains(kid)) {
                return set;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(2), other).await.expect("within two seconds")
}

/// docs/runbooks/signing-key-leak.md, command by command.
#[tokio::test(flavor = "multi_thread")]
async fn the_drill_for_a_leaked_signing_key_works_beside_a_running_broker_a_098() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let commands = commands_of_the_runbook();
    let served = Served::start(data, free_port());
    let (issuer, wire) = (&served.issuer, Wire::new().unwrap());
    let operator = served.operator(data, "dana").await;
    let mut device = served.paired(data, "lobby-printer-01").await;
    let first = signed_in(&operator, &mut device).await;
    device.bound_key(&first).await.unwrap();
    let thief = stolen_key(data).await;
    let forge = || thief.sign("at+jwt", &json!({"iss": issuer, "sub": "device:payroll-printer"}), false).unwrap();
    let set = jwks(issuer, &wire).await;
    assert!(verified(&forge(), &set).is_some(), "a leaked key is as good as the broker's");

    assert_eq!(commands[0], "pairgate keys list");
    let listed = child::json(data, &["keys", "list"]);
    let noted = listed[0]["kid"].as_str().unwrap().to_owned();
    assert_eq!(kids(&set), [noted.as_str()]);

    assert_eq!(commands[1], "pairgate keys rotate --emergency --yes");
    let set = replaced(data, &commands[1], issuer, &wire).await;
    assert_eq!(kids(&set).len(), 1);
    for old in [&first.access_token, &forge()] {
        assert!(verified(old, &set).is_none(), "what the old key signed is void");
    }
    let renewed = tokens(&device.refresh().await.unwrap());
    device.bound_key(&renewed).await.expect("the device pins the new key by itself");
    assert!(verified(&renewed.access_token, &set).is_some());

    assert_eq!(commands[2], "pairgate keys rotate --emergency --end-sign-ins --yes");
    let set = replaced(data, &commands[2], issuer, &wire).await;
    assert_eq!(error_of(&device.refresh().await.unwrap()), "invalid_grant");
    assert!(verified(&renewed.access_token, &set).is_none());

    assert!(commands[3].starts_with("curl -s https://") && commands[3].ends_with("/jwks"), "{}", commands[3]);
    assert_eq!(commands[4], "pairgate keys list");
    let listed = child::json(data, &["keys", "list"]);
    assert_eq!((listed.as_array().unwrap().len(), listed[0]["state"].as_str()), (1, Some("current")));
    assert_eq!(kids(&set), [listed[0]["kid"].as_str().unwrap()]);
    let words: Vec<&str> = commands[5].split(' ').skip(1).collect();
    let tail = run(data, &words);
    let tail = String::from_utf8_lossy(&tail.stdout).into_owned();
    assert!(tail.contains("signing_key.replaced") && tail.contains("grant.all_revoked"), "{tail}");
    assert!(tail.contains(&noted), "the record names the key that leaked");
    assert_eq!(commands.len(), 6);

    let again = signed_in(&operator, &mut device).await;
    device.bound_key(&again).await.expect("and a new sign-in works");
    assert!(verified(&again.access_token, &set).is_some());
}
