//! Kills and clocks: whatever was acknowledged is never lost, nothing happens twice, and time does not go back.
//!
//! The broker is the real program in a process of its own, killed with SIGKILL. A device polls here only for the first time, held, or after a
//! restart, so that nothing has to be waited for.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pairgate::broker::{Broker, Caller, OpenError, Parts, Policy};
use pairgate::clock::Clock;
use pairgate::model::audit::{Actor, Context, Event};
use pairgate::model::operator::Role;
use pairgate::secret::{MasterKey, Random, from_b64u};
use pairgate::simulator::device::DEVICE_CODE_GRANT;
use pairgate::simulator::{
    CodeShown, PageOperator, PairingStatus, RawAnswer, SimulatedDevice, SimulatorError, TokenAnswer, Tokens,
};
use pairgate::store;
use tokio::task::JoinSet;

use crate::support::child::{Served, free_port, json, pairgate, run};
use crate::support::{START, TestBroker};

/// Longer than any test waits: these polls are answered at once.
const HELD: Option<u32> = Some(25);

async fn tokens(device: &mut SimulatedDevice) -> Tokens {
    match device.poll_token(HELD).await.unwrap() {
        TokenAnswer::Tokens(tokens) => tokens,
        other => panic!("no tokens: {other:?}"),
    }
}

async fn number(device: &mut SimulatedDevice) -> String {
    match device.poll_token(HELD).await.unwrap() {
        TokenAnswer::Pending { confirmation_number: Some(number) } => number,
        other => panic!("no number: {other:?}"),
    }
}

fn is_error(answer: &TokenAnswer, expected: &str) -> bool {
    matches!(answer, TokenAnswer::Error { error, .. } if error == expected)
}

/// A token request with exactly this nonce and no second try.
async fn ask_once(device: &SimulatedDevice, params: &[(&str, &str)], nonce: Option<&str>, jti: &str) -> RawAnswer {
    let proof = device.proof("POST", &format!("{}/token", device.issuer()), nonce, jti).unwrap();
    device.post_form("/token", params, &[("dpop", &proof)]).await.unwrap()
}

/// The audit chain holds, and no sign-in was redeemed twice.
fn nothing_happened_twice(data: &Path) {
    let verdict = json(data, &["audit", "verify"]);
    assert_eq!(verdict["good"], true, "{verdict}");
    let database = rusqlite::Connection::open(data.join("pairgate.db")).unwrap();
    let twice: i64 = database
        .query_row(
            "SELECT count(*) FROM (SELECT 1 FROM audit WHERE event = 'token.issued' GROUP BY detail HAVING count(*) > 1)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(twice, 0, "a sign-in was redeemed more than once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_step_is_lost_by_a_kill_right_after_it_a_088() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut broker = Served::start(data, free_port());
    let operator = broker.operator(data, "dana").await;
    json(data, &["device", "add", "lobby-printer-01", "--kind", "printer"]);
    json(data, &["pairing", "open", "lobby-printer-01"]);

    let mut device = broker.stranger("lobby-printer-01");
    let shown = device.request_pairing().await.unwrap();
    broker = broker.killed_and_started(data); // pairing requested
    let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
    broker = broker.killed_and_started(data); // nonce revealed
    let PairingStatus::Pending { digits: again, .. } = device.poll_pairing().await.unwrap() else {
        panic!("no digits")
    };
    assert_eq!(again, digits, "still the same two nonces and keys");
    operator.pair_by_number(&shown.pairing_id, &digits).await.unwrap();
    broker = broker.killed_and_started(data); // confirmed
    let PairingStatus::Paired(pins) = device.poll_pairing().await.unwrap() else { panic!("not paired") };
    assert_eq!(pins.issuer, broker.issuer);

    let code = device.request_code(None, None).await.unwrap();
    broker = broker.killed_and_started(data); // code minted
    let path = operator.claim(&code.verification_uri_complete).await.unwrap();
    broker = broker.killed_and_started(data); // claimed
    let shown = number(&mut device).await;
    broker = broker.killed_and_started(data); // number shown
    assert_eq!(number(&mut device).await, shown);
    operator.approve(&path, &shown).await.unwrap();
    broker = broker.killed_and_started(data); // approved
    let first = tokens(&mut device).await;
    device.bound_key(&first).await.expect("signed by the key that was pinned five crashes ago");
    broker = broker.killed_and_started(data); // redeemed
    assert!(is_error(&device.poll_token(HELD).await.unwrap(), "invalid_grant"), "a spent code stays spent");
    let TokenAnswer::Tokens(second) = device.refresh().await.unwrap() else { panic!("not refreshed") };
    broker = broker.killed_and_started(data); // refreshed

    // A device that did not hear the answer asks with the token before: it gets the same successor, from another process, too.
    let predecessor = first.refresh_token.unwrap();
    let params =
        [("grant_type", "refresh_token"), ("refresh_token", predecessor.as_str()), ("client_id", "lobby-printer-01")];
    let nonce =
        ask_once(&device, &params, None, "first-try-without-nonce").await.header("dpop-nonce").unwrap().to_owned();
    let retried = ask_once(&device, &params, Some(&nonce), "second-try-with-nonce").await;
    assert_eq!(retried.status, 200, "{}", retried.body);
    assert_eq!(retried.json().unwrap()["refresh_token"].as_str(), second.refresh_token.as_deref());
    assert!(matches!(device.refresh().await.unwrap(), TokenAnswer::Tokens(_)), "and that is the one in force");

    json(data, &["device", "suspend", "lobby-printer-01"]);
    let broker = broker.killed_and_started(data); // suspended
    assert!(is_error(&device.refresh().await.unwrap(), "invalid_client"));
    json(data, &["device", "resume", "lobby-printer-01"]);
    let _broker = broker.killed_and_started(data); // resumed
    assert!(is_error(&device.refresh().await.unwrap(), "invalid_grant"), "what was ended stays ended");
    assert!(device.request_code(None, None).await.is_ok());
    nothing_happened_twice(data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_stays_one_whatever_is_killed_after_it_a_088() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut broker = Served::start(data, free_port());
    let operator = broker.operator(data, "dana").await;
    let mut device = broker.paired(data, "lobby-printer-01").await;

    let code = device.request_code(None, None).await.unwrap();
    let path = operator.claim(&code.verification_uri_complete).await.unwrap();
    operator.deny(&path).await.unwrap();
    for _ in 0..2 {
        broker = broker.killed_and_started(data);
        assert!(matches!(device.poll_token(HELD).await.unwrap(), TokenAnswer::Denied));
        assert!(operator.approve(&path, "00").await.is_err(), "there is nothing to approve any more");
    }

    // Wrong numbers are counted across kills, too: two before, one after.
    let code = device.request_code(None, None).await.unwrap();
    let path = operator.claim(&code.verification_uri_complete).await.unwrap();
    let shown: u8 = number(&mut device).await.parse().unwrap();
    let wrong = format!("{:02}", (shown + 1) % 100);
    for _ in 0..2 {
        assert!(operator.approve(&path, &wrong).await.is_err());
    }
    let _broker = broker.killed_and_started(data);
    assert!(operator.approve(&path, &wrong).await.is_err());
    assert!(matches!(device.poll_token(HELD).await.unwrap(), TokenAnswer::Denied));
    nothing_happened_twice(data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonces_of_a_killed_process_are_refused_and_devices_recover_by_themselves_a_088_a_025() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let broker = Served::start(data, free_port());
    let operator = broker.operator(data, "dana").await;
    let mut device = broker.paired(data, "lobby-printer-01").await;
    let code = device.request_code(None, None).await.unwrap();
    let former = device.dpop_nonce().unwrap().to_owned();
    let params = [
        ("grant_type", DEVICE_CODE_GRANT),
        ("device_code", code.device_code.as_str()),
        ("client_id", "lobby-printer-01"),
    ];
    let recorded =
        device.proof("POST", &format!("{}/token", broker.issuer), Some(&former), "recorded-by-a-thief").unwrap();

    let _broker = broker.killed_and_started(data);
    let answer = ask_once(&device, &params, Some(&former), "a-new-jti-for-this").await;
    assert_eq!((answer.status, answer.oauth_error().unwrap().0.as_str()), (400, "use_dpop_nonce"));
    let replayed = device.post_form("/token", &params, &[("dpop", &recorded)]).await.unwrap();
    assert_eq!(replayed.oauth_error().unwrap().0, "use_dpop_nonce", "although this process never saw its jti");
    let path = operator.claim(&code.verification_uri_complete).await.unwrap();
    let shown = number(&mut device).await;
    assert_ne!(device.dpop_nonce(), Some(former.as_str()), "the device took the new nonce by itself");
    operator.approve(&path, &shown).await.unwrap();
    tokens(&mut device).await;
}

#[test]
fn a_first_start_that_is_killed_at_any_moment_does_not_spoil_the_data_a_088() {
    for moment in ["", "pairgate.lock", "pairgate.db", "pairgate.db-wal", "master.key"] {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let mut child = pairgate(folder.path(), &["serve", "--listen", "127.0.0.1:0"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while !folder.path().join(moment).exists() && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let mut broker = Served::start(folder.path(), free_port());
        assert!(broker.issuer.starts_with("http://localhost:"), "killed when there was '{moment}'");
        broker.kill();
        json(folder.path(), &["operator", "list"]);
        nothing_happened_twice(folder.path());
    }
}

/// Eight devices with approved codes fetch their tokens while the process is killed after the k-th answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_many_redemptions_issues_nothing_twice_a_088() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut served = Served::start(data, free_port());
    let dana = served.operator(data, "dana").await;
    json(data, &["pairing", "open", "--site"]);
    let mut devices = Vec::new();
    for number in 0..8 {
        let id = format!("printer-{number:02}");
        json(data, &["device", "add", &id, "--kind", "printer"]);
        let mut device = served.stranger(&id);
        let shown = device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        dana.pair_by_number(&shown.pairing_id, &digits).await.unwrap();
        device.poll_pairing().await.unwrap();
        devices.push(device);
    }
    for killed_after in 0..8 {
        let mut codes = Vec::new();
        for device in &mut devices {
            codes.push(approved(&dana, device).await);
        }
        let polls: Vec<_> = devices
            .drain(..)
            .map(|mut device| {
                tokio::spawn(async move {
                    let answer = device.poll_token(Some(1)).await;
                    (device, matches!(answer, Ok(TokenAnswer::Tokens(_))))
                })
            })
            .collect();
        let mut issued = Vec::new();
        for (number, poll) in polls.into_iter().enumerate() {
            if number == killed_after {
                served = served.killed_and_started(data);
            }
            let (device, is_issued) = poll.await.unwrap();
            devices.push(device);
            issued.push(is_issued);
        }
        for ((device, code), was_issued) in devices.iter_mut().zip(&codes).zip(issued) {
            device.adopt_device_code(code);
            let answer = device.poll_token(Some(1)).await.unwrap();
            let is_issued_now = matches!(answer, TokenAnswer::Tokens(_));
            assert!(!(was_issued && is_issued_now), "one code, two tokens");
        }
    }
    let records = json(data, &["audit", "verify"]);
    assert_eq!(records["good"], true);
}

async fn approved(dana: &PageOperator, device: &mut SimulatedDevice) -> String {
    let code = device.request_code(None, None).await.unwrap();
    let path = dana.claim(&code.verification_uri_complete).await.unwrap();
    let TokenAnswer::Pending { confirmation_number: Some(number) } = device.poll_token(Some(1)).await.unwrap() else {
        panic!("no number")
    };
    dana.approve(&path, &number).await.unwrap();
    code.device_code
}

/// Where a device is in its sign-in. A step that got no answer is done again after the restart.
#[derive(Clone, Debug)]
enum Step {
    Ask,
    Claim,
    Number,
    Approve(String),
    Redeem,
    Refresh(u8),
}

struct Player {
    device: SimulatedDevice,
    operator: Arc<PageOperator>,
    step: Step,
    /// The last step was sent, and the answer never came.
    is_unsure: bool,
    code: Option<CodeShown>,
    path: String,
    token_answers: HashMap<String, u32>,
    /// Codes that were redeemed by a poll whose answer was lost.
    lost: Vec<String>,
}

impl Player {
    fn code(&self) -> &CodeShown {
        self.code.as_ref().unwrap()
    }

    /// One step. Every answer that is neither right nor explained by a lost answer is a failure of the test.
    async fn advance(&mut self) -> Result<(), SimulatorError> {
        self.step = match self.step.clone() {
            Step::Ask => {
                self.code = Some(self.device.request_code(None, None).await?);
                Step::Claim
            }
            Step::Claim => {
                let address = self.code().verification_uri_complete.clone();
                self.path = self.operator.claim(&address).await?;
                Step::Number
            }
            Step::Number => match self.device.poll_token(HELD).await? {
                TokenAnswer::Pending { confirmation_number: Some(number) } => Step::Approve(number),
                other => panic!("{:?} instead of a number", other),
            },
            Step::Approve(number) => match self.operator.approve(&self.path, &number).await {
                Ok(()) => Step::Redeem,
                Err(SimulatorError::Page { status: 404, .. }) if self.is_unsure => Step::Redeem,
                Err(error) => return Err(error),
            },
            Step::Redeem => {
                let device_code = self.code().device_code.clone();
                match self.device.poll_token(HELD).await? {
                    TokenAnswer::Tokens(tokens) => {
                        self.device.bound_key(&tokens).await?;
                        *self.token_answers.entry(device_code).or_default() += 1;
                        Step::Refresh(0)
                    }
                    answer if self.is_unsure && is_error(&answer, "invalid_grant") => {
                        self.lost.push(device_code);
                        Step::Ask
                    }
                    other => panic!("{:?} for an approved code", other),
                }
            }
            Step::Refresh(done) => match self.device.refresh().await? {
                TokenAnswer::Tokens(_) if done < 2 => Step::Refresh(done + 1),
                TokenAnswer::Tokens(_) => Step::Ask,
                other => panic!("{:?} for the refresh token that was acknowledged last", other),
            },
        };
        Ok(())
    }
}

/// All play until the broker is killed, after so many answers.
async fn round(broker: Served, players: Vec<Player>, answers: usize) -> Vec<Player> {
    let (broker, answered) = (Arc::new(Mutex::new(broker)), Arc::new(AtomicUsize::new(0)));
    let mut playing = JoinSet::new();
    for mut player in players {
        let (broker, answered) = (Arc::clone(&broker), Arc::clone(&answered));
        playing.spawn(async move {
            loop {
                match player.advance().await {
                    Ok(()) => player.is_unsure = false,
                    Err(SimulatorError::Unreachable { .. }) => break,
                    Err(other) => panic!("{} at {:?}: {other}", player.device.id, player.step),
                }
                if answered.fetch_add(1, Ordering::SeqCst) + 1 == answers {
                    broker.lock().unwrap().kill();
                }
            }
            player.is_unsure = true;
            player
        });
    }
    playing.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_lose_nothing_acknowledged_and_redeem_nothing_twice_a_088() {
    const ROUNDS: usize = 12;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let port = free_port();
    let mut broker = Served::start(data, port);
    // Two, because one person has at most five sign-ins open.
    let operators = [broker.operator(data, "dana").await, broker.operator(data, "emil").await].map(Arc::new);
    let mut players = Vec::new();
    for index in 0..8 {
        let device = broker.paired(data, &format!("printer-{index}")).await;
        players.push(Player {
            device,
            operator: Arc::clone(&operators[index % 2]),
            step: Step::Ask,
            is_unsure: false,
            code: None,
            path: String::new(),
            token_answers: HashMap::new(),
            lost: Vec::new(),
        });
    }
    let random = Random::seeded("the moments of the kills");
    for _ in 0..ROUNDS {
        let checked = data.to_owned();
        let checking = tokio::task::spawn_blocking(move || nothing_happened_twice(&checked));
        players = round(broker, players, 1 + usize::from(random.below(60).unwrap())).await;
        broker = Served::start(data, port);
        checking.await.unwrap();
    }
    // Without further kills everybody gets through.
    for player in &mut players {
        while !matches!(player.step, Step::Refresh(1)) {
            player.advance().await.unwrap();
            player.is_unsure = false;
        }
    }
    let database = rusqlite::Connection::open(data.join("pairgate.db")).unwrap();
    let state = |device_code: &str| -> String {
        let id = i64::from_be_bytes(from_b64u(device_code).unwrap()[..8].try_into().unwrap());
        database.query_row("SELECT state FROM grants WHERE id = ?", [id], |row| row.get(0)).unwrap()
    };
    for player in &players {
        for (code, answers) in &player.token_answers {
            assert_eq!((*answers, state(code).as_str()), (1, "redeemed"));
        }
        for code in &player.lost {
            assert_eq!(state(code), "redeemed", "invalid_grant only where the answer was lost on the way");
            assert!(!player.token_answers.contains_key(code));
        }
    }
    assert!(players.iter().map(|player| player.token_answers.len()).sum::<usize>() > 8, "something was played");
    nothing_happened_twice(data);
    drop(broker);
}

#[tokio::test]
async fn a_device_whose_clock_is_years_off_signs_in_a_089() {
    const YEARS: i64 = 10 * 365 * 86_400;
    let test = TestBroker::start().await;
    let operator = test.operator("dana", Role::Approver).await;
    for (index, offset) in [600, -600, YEARS, -YEARS].into_iter().enumerate() {
        let id = format!("lobby-printer-{index}");
        test.register(&id, "printer").await;
        let mut device = test.stranger(&id);
        device.clock_offset_s = offset;
        test.pair(&mut device).await;
        let tokens = test.signed_in(&operator, &mut device).await;
        let claims = device.claims_of(&tokens).unwrap();
        let issued_at = claims["iat"].as_i64().unwrap();
        assert_eq!(issued_at, test.broker.now().seconds(), "the token has the broker's time");
        assert!(matches!(device.refresh().await.unwrap(), TokenAnswer::Tokens(_)));
    }
}

#[tokio::test]
async fn a_wall_clock_set_back_prolongs_no_code_no_nonce_and_no_session_a_089() {
    let test = TestBroker::start().await;
    let operator = test.operator("dana", Role::Approver).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    let nonce = device.dpop_nonce().unwrap().to_owned();
    test.clock.set_wall(START.minus(Duration::from_secs(3600)));
    test.advance(121);
    let params = [
        ("grant_type", DEVICE_CODE_GRANT),
        ("device_code", code.device_code.as_str()),
        ("client_id", "lobby-printer-01"),
    ];
    let answer = ask_once(&device, &params, Some(&nonce), "a-jti-of-this-test").await;
    assert_eq!(answer.oauth_error().unwrap().0, "use_dpop_nonce", "two minutes are two minutes");
    test.advance(179);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Expired), "and five are five");
    assert!(operator.claim(&code.verification_uri_complete).await.is_err());
    test.advance(3601);
    assert!(operator.is_registered("lobby-printer-01").await.is_err(), "an idle session ends");
}

#[tokio::test]
async fn a_clock_that_went_back_while_the_broker_was_down_is_raised_or_refused_a_089() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    let open = |clock: Clock, accept_clock| {
        let parts = Parts {
            store: store::open(test.data.path()).unwrap(),
            master: MasterKey::new([7; 32]),
            issuer: test.issuer.parse().unwrap(),
            clock,
            random: Random::system(),
            policy: Policy::default(),
        };
        Broker::open(parts, accept_clock)
    };
    let back = |seconds| Clock::manual(START.minus(Duration::from_secs(seconds)));
    let raised = open(back(300), false).await.unwrap();
    assert_eq!(raised.now(), START, "a little behind: time goes on from the newest record");
    let refused = open(back(301), false).await.err();
    assert!(matches!(refused, Some(OpenError::ClockBehind { .. })), "{refused:?}");
    let accepted = open(back(301), true).await.unwrap();
    assert_eq!(accepted.now(), START.minus(Duration::from_secs(301)), "if a person says that the record is wrong");
    // That is recorded, and from then on it is the newest record.
    accepted.record_accepted_clock(&Caller::command_line()).await.unwrap();
    assert!(open(back(301), false).await.is_ok());
    assert_eq!(test.count("clock.accepted").await, 1);
}

#[tokio::test]
async fn no_command_beside_the_broker_hides_that_the_clock_went_back_a_089() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    json(data, &["device", "add", "lobby-printer-01", "--kind", "printer"]);
    let future = Clock::system().now().plus(Duration::from_secs(86_400));
    let context = Context { now: future, actor: Actor::Broker, peer: None };
    store::open(data).unwrap().record(Event::SignedIn, None, "from tomorrow", &context).await.unwrap();
    let refused = run(data, &["device", "suspend", "lobby-printer-01"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("Set the clock") && said.contains("serve --accept-clock"), "{said}");
    assert!(run(data, &["audit", "verify"]).status.success(), "looking is allowed at any time");
    assert!(Served::with(data, free_port(), &[]).is_none(), "nor does the broker start");
    drop(Served::with(data, free_port(), &["--accept-clock"]).expect("a person said so"));
    json(data, &["device", "suspend", "lobby-printer-01"]);
}
