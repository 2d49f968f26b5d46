//! Kinds and resources that change while the broker runs: what is refused, what holds at once, and whom it takes.

use std::sync::Arc;

use pairgate::broker::policy::Applied;
use pairgate::broker::{Broker, Caller, UseCaseError};
use pairgate::config::policy::{MAX_POLICY, PolicyTables};
use pairgate::model::audit::Actor;
use pairgate::model::operator::{Rights, Role};
use pairgate::simulator::TokenAnswer;
use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::test_runner::TestRunner;

use crate::support::{Setup, TestBroker};

/// An administrator who has just signed in.
fn admin(test: &TestBroker, name: &str) -> Caller {
    Caller {
        actor: Actor::Operator(name.into()),
        rights: Rights::everywhere(Role::Admin),
        operator: Some(pairgate::id::OperatorId(7)),
        proved_at: Some(test.broker.now()),
        peer: None,
    }
}

async fn apply(broker: &Broker, caller: &Caller, text: &str) -> Result<Applied, UseCaseError> {
    let change = broker.propose_policy(caller, text).await?;
    broker.apply_policy(caller, &change, change.base).await
}

fn lines<T: std::fmt::Debug>(outcome: Result<T, UseCaseError>) -> String {
    outcome.expect_err("it must be refused").to_string()
}

const KIOSK: &str = "[kinds.kiosk]\nprefix = 'KSK'\nscopes = { 'menu.read' = 'show the menu' }\n";

#[tokio::test]
async fn what_is_weak_or_wrong_is_refused_also_by_import_a_040_a_081() {
    let test = TestBroker::start().await;
    let caller = Caller::command_line();
    let long = format!("# {}", "x".repeat(MAX_POLICY));
    let many: String = (0..201).map(|index| format!("[kinds.k{index}]\nlabel = 'x'\n")).collect();
    for (text, advice) in [
        ("[kinds.printer]\nscopes = { 'Mail.Read' = 'x' }", "no device may have it"),
        ("[kinds.printer]\nscopes = { 'https://graph.microsoft.com/Chat.Read.All' = 'x' }", "no device may have it"),
        ("[resources.'https://x.example']\nscopes = { 'Files.Read.All' = 'x' }", "people's mail"),
        ("[kinds.printer]\nscopes = { 'offline_access' = 'x' }", "offline_access"),
        ("[kinds.printer]\nscopes = { 'a b' = 'x' }", "characters"),
        ("[kinds.printer]\nscopes = { 'a' = '' }", "needs words"),
        ("[kinds.printer]\nscopes = { 'a' = \"put \\u202escans\" }", "invisible"),
        ("[kinds.printer]\nscopes = {}", "at least one scope"),
        ("[kinds.printer]\ncode_lifetime = 601", "60 to 600"),
        ("[kinds.printer]\ncode_lifetime = -1", "invalid value"),
        ("[kinds.printer]\naccess_token_lifetime = 59", "60 to 3600"),
        ("[kinds.printer]\nrefresh_absolute = 9000000000", "400 days"),
        ("[kinds.printer]\ncodes_per_hour = 0", "1 to 3600"),
        ("[kinds.printer]\nprefix = 'TVX'", "share the prefix"),
        ("[kinds.printer]\nprefix = 'prn'", "three letters"),
        ("[kinds.printer]\nconfirmation_number = false", "site_network"),
        ("[kinds.printer]\nkey_assurance = 'attested'", "attestation_roots"),
        ("[kinds.printer]\nclient_certificate = 'pki'", "client_ca"),
        ("[kinds.printer]\nuser_code_letters = 4", "unknown field"),
        ("[kinds.printer]\nresources = ['https://x.example/#part']", "without fragment"),
        ("[kinds.printer]\nresources = []", "one resource"),
        ("[kinds.kiosk]\nlabel = 'kiosk'", "needs prefix and scopes"),
        ("[kinds.K]\nprefix = 'KSK'\nscopes = { a = 'b' }", "2 to 32 characters"),
        ("[resources.'https://x.example']\nkeys = ['/etc/passwd']", "as jwks"),
        ("[resources.'https://x.example']\njwks = 'none'", "no public key"),
        ("[resources.'https://x.example']\njwks = '{\"kty\":\"oct\",\"k\":\"AAAA\"}'", "private"),
        ("[resources.'https://x.example']\nsigning_algorithm = 'HS256'", "ES256 or RS256"),
        ("[resources.'https://x.example']\naccess_token_lifetime = 7200", "60 to 3600"),
        ("[resources.'relative']", "absolute URI"),
        ("[resources.'https://x.example/#part']", "without fragment"),
        ("[sites.berlin]\nquiet_hours = 'at night'", "22:00-06:00"),
        ("[sites.BERLIN]\nname = 'Berlin'", "2 to 32 characters"),
        ("[sites.berlin]\nnetworks = ['everywhere']", "invalid"),
        ("listen = '0.0.0.0:80'", "unknown field"),
        ("kinds = 1", "invalid type"),
        ("[kinds.printer\n", "TOML"),
        (long.as_str(), "longer than 262144 bytes"),
        (many.as_str(), "at most 200"),
    ] {
        let refused = lines(apply(&test.broker, &caller, text).await);
        assert!(refused.contains(advice), "{text:.80}: {refused}");
    }
    assert_eq!(test.broker.policy().version(), 0);
    assert_eq!(test.count("policy.applied").await, 0);
}

#[tokio::test]
async fn a_change_holds_for_the_next_code_and_the_next_token() {
    let test = TestBroker::start().await;
    let approver = test.operator("dana", Role::Approver).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let tokens = test.signed_in(&approver, &mut device).await;
    assert_eq!(device.request_code(None, None).await.unwrap().expires_in, 300);
    let text = "[kinds.printer]\ncode_lifetime = 120\naccess_token_lifetime = 60\nscopes = { 'print.read' = 'fetch jobs' }";
    let change = test.broker.propose_policy(&Caller::command_line(), text).await.unwrap();
    assert_eq!(test.broker.policy().version(), 0, "looking changes nothing");
    let applied = test.broker.apply_policy(&Caller::command_line(), &change, 0).await.unwrap();
    assert_eq!(applied, Applied::Applied(1));

    test.advance(60);
    let code = device.request_code(None, None).await.unwrap();
    assert_eq!(code.expires_in, 120);
    assert!(device.request_code(Some("scan.write"), None).await.is_err(), "that scope is gone");
    assert!(!test.broker.metadata_text().contains("scan.write"));
    // What was signed in with the scope that is gone gets no further tokens with it.
    assert!(tokens.scope.contains("scan.write"));
    assert!(device.refresh().await.is_err());
    let record = test.records().await.into_iter().find(|record| record.event == "policy.applied").unwrap();
    assert_eq!(record.actor, "command-line");
    assert!(record.detail.contains("kinds.printer.code_lifetime: 300 -> 120"), "{}", record.detail);
}

trait MetadataText {
    fn metadata_text(&self) -> String;
}

impl MetadataText for Arc<Broker> {
    fn metadata_text(&self) -> String {
        serde_json::to_string(&self.metadata()).unwrap()
    }
}

#[tokio::test]
async fn a_kind_that_is_added_pairs_and_signs_in_without_a_restart() {
    let test = TestBroker::start().await;
    let approver = test.operator("dana", Role::Approver).await;
    let text = format!("{KIOSK}resources = ['https://menu.example']\n[resources.'https://menu.example']\nsigning_algorithm = 'RS256'");
    apply(&test.broker, &Caller::command_line(), &text).await.unwrap();
    let mut device = test.paired("canteen-01", "kiosk").await;
    let code = device.request_code(None, None).await.unwrap();
    assert!(code.user_code.starts_with("KSK-"));
    test.approve(&approver, &mut device, &code.verification_uri_complete).await;
    // Signed by a key that was made for the change.
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
    assert!(test.broker.jwks().to_string().contains("RS256"));
}

#[tokio::test]
async fn a_kind_with_devices_does_not_go() {
    let test = TestBroker::start().await;
    apply(&test.broker, &Caller::command_line(), KIOSK).await.unwrap();
    test.register("canteen-01", "kiosk").await;
    let refused = lines(apply(&test.broker, &Caller::command_line(), "").await);
    assert!(refused.contains("1 of its devices"), "{refused}");
    test.broker.retire_device(&Caller::command_line(), "canteen-01").await.unwrap();
    assert_eq!(apply(&test.broker, &Caller::command_line(), "").await.unwrap(), Applied::Applied(2));
    assert!(test.broker.kind("kiosk").is_none());
}

#[tokio::test]
async fn what_another_process_changed_is_seen_and_survives_a_restart() {
    let test = TestBroker::start().await;
    test.broker.look_for_changes_of_others().await.unwrap();
    let other = TestBroker::on(
        Arc::clone(&test.data),
        "127.0.0.1:0".parse().unwrap(),
        test.clock.clone(),
        Setup::default(),
    )
    .await;
    apply(&other.broker, &Caller::command_line(), KIOSK).await.unwrap();
    assert!(test.broker.kind("kiosk").is_none());
    test.broker.look_for_changes_of_others().await.unwrap();
    assert!(test.broker.kind("kiosk").is_some());
    let test = test.restart().await;
    assert_eq!(test.broker.policy().version(), 1);
    assert!(test.broker.kind("kiosk").is_some());
}

#[tokio::test]
async fn what_the_file_says_wins_and_is_said() {
    let file = PolicyTables::parse("[kinds.printer]\ncode_lifetime = 90").unwrap();
    let test = TestBroker::with(Setup { file, ..Setup::default() }).await;
    let change = test
        .broker
        .propose_policy(&Caller::command_line(), "[kinds.printer]\ncode_lifetime = 600\nlabel = 'copier'")
        .await
        .unwrap();
    let overridden: Vec<_> =
        change.changes.iter().map(|change| (change.setting.as_str(), change.overridden)).collect();
    assert_eq!(overridden, [("code_lifetime", true), ("label", false)]);
    test.broker.apply_policy(&Caller::command_line(), &change, 0).await.unwrap();
    let kind = test.broker.kind("printer").unwrap();
    assert_eq!((kind.code_lifetime.as_secs(), kind.label.as_str()), (90, "copier"));
    assert_eq!(test.broker.file_policy().fields("kinds", "printer"), ["code_lifetime"]);
    let export = test.broker.export_policy(&Caller::command_line()).await.unwrap();
    assert!(export.contains("code_lifetime = 600"), "the export is what the database says: {export}");
}

#[tokio::test]
async fn a_policy_that_can_not_hold_here_keeps_the_broker_from_starting() {
    let test = TestBroker::start().await;
    apply(&test.broker, &Caller::command_line(), KIOSK).await.unwrap();
    let stored = pairgate::store::open(test.data.path()).unwrap().policy().await.unwrap();
    for (document, file, why) in [
        ("[kinds.kiosk]\nmoon_phase = 'full'", "", "unknown field"),
        (KIOSK, "[kinds.printer]\nprefix = 'KSK'", "together with pairgate.toml"),
    ] {
        let stored = stored.clone().map(|stored| pairgate::store::PolicyVersion { document: document.into(), ..stored });
        let opened = pairgate::broker::policy::Policies::open(
            pairgate::config::policy::Described::built_in(),
            PolicyTables::parse(file).unwrap(),
            pairgate::config::policy::Trusts::default(),
            stored,
        );
        let refused = opened.map(|_| ()).unwrap_err().to_string();
        assert!(refused.starts_with("version 1 of the policy") && refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn of_two_who_edit_the_same_version_the_second_is_told() {
    let test = TestBroker::start().await;
    let (dana, mia) = (admin(&test, "dana"), admin(&test, "mia"));
    let first = test.broker.propose_policy(&dana, KIOSK).await.unwrap();
    let second = test.broker.propose_policy(&mia, "[kinds.tv]\nlabel = 'screen'").await.unwrap();
    assert_eq!(test.broker.apply_policy(&dana, &first, first.base).await.unwrap(), Applied::Applied(1));
    let refused = lines(test.broker.apply_policy(&mia, &second, second.base).await);
    assert!(refused.contains("changed by somebody else"), "{refused}");
    let again = test.broker.propose_policy(&mia, "[kinds.tv]\nlabel = 'screen'").await.unwrap();
    let refused = lines(test.broker.apply_policy(&mia, &again, 0).await);
    assert!(refused.contains("changed by somebody else"), "the page was old: {refused}");
    assert!(test.broker.kind("kiosk").is_some());
}

#[tokio::test]
async fn a_change_needs_a_fresh_sign_in_of_an_administrator_of_everything_a_081() {
    let test = TestBroker::start().await;
    let dana = admin(&test, "dana");
    let change = test.broker.propose_policy(&dana, KIOSK).await.unwrap();
    test.advance(301);
    let outcome = test.broker.apply_policy(&dana, &change, change.base).await;
    assert!(matches!(outcome, Err(UseCaseError::NotFresh)), "{outcome:?}");
    for rights in [Rights::at("default", Role::Admin), Rights::everywhere(Role::Approver), Rights::default()] {
        let caller = Caller { rights, ..admin(&test, "mia") };
        let outcome = test.broker.apply_policy(&caller, &change, change.base).await;
        assert!(matches!(outcome, Err(UseCaseError::NotAllowed)), "{outcome:?}");
        assert!(matches!(test.broker.propose_policy(&caller, KIOSK).await, Err(UseCaseError::NotAllowed)));
        assert!(matches!(test.broker.export_policy(&caller).await, Err(UseCaseError::NotAllowed)));
        assert!(matches!(test.broker.policy_history(&caller).await, Err(UseCaseError::NotAllowed)));
        assert!(matches!(test.broker.confirm_policy(&caller, 1).await, Err(UseCaseError::NotAllowed)));
        assert!(matches!(test.broker.withdraw_policy(&caller, 1).await, Err(UseCaseError::NotAllowed)));
    }
}

#[tokio::test]
async fn with_two_persons_the_proposer_can_not_confirm_and_the_second_must_be_fresh_a_081() {
    let test = TestBroker::start().await;
    let (broker, dana, mia) = (&test.broker, admin(&test, "dana"), admin(&test, "mia"));
    let on = broker.propose_two_persons(&dana, true).await.unwrap();
    assert_eq!(broker.apply_policy(&dana, &on, 0).await.unwrap(), Applied::Applied(1), "on is at once");

    // Neither a change nor the way back is for one person.
    assert_eq!(apply(broker, &dana, KIOSK).await.unwrap(), Applied::Proposed(2));
    let off = broker.propose_two_persons(&dana, false).await.unwrap();
    assert!(off.wants_second);
    assert_eq!(broker.apply_policy(&dana, &off, 1).await.unwrap(), Applied::Proposed(3));
    assert!(broker.kind("kiosk").is_none() && broker.policy().two_persons());

    assert!(lines(broker.confirm_policy(&dana, 2).await).contains("proposed this change yourself"));
    let machine = Caller { actor: Actor::Machine("deploy".into()), operator: None, proved_at: None, ..mia.clone() };
    assert!(matches!(broker.confirm_policy(&machine, 2).await, Err(UseCaseError::NotAllowed)), "A-085");
    test.advance(301);
    assert!(matches!(broker.confirm_policy(&mia, 2).await, Err(UseCaseError::NotFresh)));
    let mia = admin(&test, "mia");
    broker.confirm_policy(&mia, 2).await.unwrap();
    assert!(broker.kind("kiosk").is_some());
    assert!(lines(broker.confirm_policy(&mia, 3).await).contains("changed by somebody else"));
    broker.withdraw_policy(&mia, 3).await.unwrap();
    assert!(lines(broker.confirm_policy(&mia, 3).await).contains("does not wait"));

    // Whoever has a shell needs nobody; the record says so.
    assert_eq!(apply(broker, &Caller::command_line(), "two_persons = false").await.unwrap(), Applied::Applied(4));
    assert!(!broker.policy().two_persons());
    let last = test.records().await.into_iter().rfind(|record| record.event == "policy.applied").unwrap();
    assert_eq!(last.actor, "command-line");
}

#[tokio::test]
async fn an_import_without_a_word_on_two_persons_does_not_switch_them_off_a_081() {
    let test = TestBroker::start().await;
    apply(&test.broker, &Caller::command_line(), "two_persons = true").await.unwrap();
    apply(&test.broker, &Caller::command_line(), KIOSK).await.unwrap();
    assert!(test.broker.policy().two_persons());
}

#[tokio::test]
async fn an_older_version_can_be_proposed_again_without_its_sites() {
    let test = TestBroker::start().await;
    let (broker, caller) = (&test.broker, Caller::command_line());
    let text = format!("{KIOSK}[sites.paris]\nname = 'Paris'\nnetworks = ['10.9.0.0/16']");
    apply(broker, &caller, &text).await.unwrap();
    apply(broker, &caller, "[sites.paris]\nname = 'Paris, rue X'").await.unwrap();
    assert!(broker.kind("kiosk").is_none());
    let change = broker.propose_version(&caller, 1).await.unwrap();
    broker.apply_policy(&caller, &change, 2).await.unwrap();
    assert!(broker.kind("kiosk").is_some());
    let paris = broker.site(&caller, "paris").await.unwrap().unwrap();
    assert_eq!((paris.name.as_str(), paris.networks.len()), ("Paris, rue X", 1));
    let history = broker.policy_history(&caller).await.unwrap();
    assert_eq!(history.iter().map(|(version, _)| version.version).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(history[0].1.iter().any(|change| change.of == "kinds.kiosk"));
    assert!(history[1].1.iter().any(|change| change.of == "kinds.kiosk" && change.after.is_none()));
}

/// Edits of all sorts.
fn edits() -> impl Strategy<Value = (u64, u64, bool, Option<String>, bool, u8)> {
    (60u64..=600, 60u64..=3600, any::<bool>(), prop::option::of("[a-zäöü\"'\\\\]{1,12}"), any::<bool>(), 0u8..=32)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_and_imported_changes_nothing() {
    let test = TestBroker::start().await;
    let caller = Caller::command_line();
    let key = pairgate::simulator::DeviceKey::generate_es256().unwrap().jwk().to_string();
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
    let handle = tokio::runtime::Handle::current();
    let outcome = tokio::task::block_in_place(|| {
        runner.run(&edits(), |(code, token, refresh, label, has_keys, prefix)| {
            let label = toml::Value::String(label.unwrap_or_else(|| "x".into()));
            let jwks = if has_keys { format!("jwks = '''{key}'''") } else { String::new() };
            let text = format!(
                "[kinds.printer]\ncode_lifetime = {code}\nrefresh = {refresh}\nlabel = {label}\n[kinds.kiosk]\nprefix = 'KSK'\nscopes = {{ 'a.b' = {label} }}\n\
                 resources = ['https://x.example/a?b=c']\n[resources.'https://x.example/a?b=c']\naccess_token_lifetime = {token}\n{jwks}\n\
                 [sites.paris]\nname = {label}\nnetworks = ['10.0.0.0/{prefix}', 'fd00::/8']\nquiet_hours = '22:00-06:00'\n"
            );
            handle.block_on(async {
                apply(&test.broker, &caller, &text).await.unwrap();
                let exported = test.broker.export_policy(&caller).await.unwrap();
                let again = test.broker.propose_policy(&caller, &exported).await.unwrap();
                assert!(again.changes.is_empty(), "{exported}\n{:?}", again.changes);
                assert_eq!(test.broker.export_policy(&caller).await.unwrap(), exported, "the same text");
                assert_eq!(apply(&test.broker, &caller, &exported).await.unwrap(), Applied::Unchanged);
            });
            Ok(())
        })
    });
    outcome.unwrap();
}
