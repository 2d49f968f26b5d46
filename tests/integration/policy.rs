//! Kinds and resources that change while the broker runs: what is refused, what holds at once, and whom it takes.

use std::sync::Arc;

use pairgate::broker::policy::Applied;
use pairgate::broker::{Broker, Caller, UseCaseError};
use pairgate::config::policy::{MAX_POLICY, PolicyTables};
use pairgate::model::audit::Actor;
use pairgate::model::operator::{Rights, Role};
use pairgate::model::site::Site;
use pairgate::simulator::{RawAnswer, TokenAnswer, form};
use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::test_runner::TestRunner;

use crate::support::chromium::{Chromium, Look, browse};
use crate::support::visitor::{SAME_ORIGIN, Visitor, said};
use crate::support::{Setup, TestBroker};

/// An administrator who has just signed in.
fn admin(test: &TestBroker, name: &str) -> Caller {
    Caller {
        actor: Actor::Operator(name.into()),
        rights: Rights::everywhere(Role::Admin),
        operator: Some(pairgate::id::OperatorId(7)),
        proved_at: Some(test.broker.now()),
        session: None,
        only_device: None,
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
    let text =
        "[kinds.printer]\ncode_lifetime = 120\naccess_token_lifetime = 60\nscopes = { 'print.read' = 'fetch jobs' }";
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
    assert!(!matches!(device.refresh().await, Ok(TokenAnswer::Tokens(_))));
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
    let text = format!(
        "{KIOSK}resources = ['https://menu.example']\n[resources.'https://menu.example']\nsigning_algorithm = 'RS256'"
    );
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
    let other =
        TestBroker::on(Arc::clone(&test.data), "127.0.0.1:0".parse().unwrap(), test.clock.clone(), Setup::default())
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
    let overridden: Vec<_> = change.changes.iter().map(|change| (change.setting.as_str(), change.overridden)).collect();
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
        let stored =
            stored.clone().map(|stored| pairgate::store::PolicyVersion { document: document.into(), ..stored });
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
    assert!(matches!(broker.confirm_policy(&machine, 2).await, Err(UseCaseError::OnlyPeople)), "A-085");
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
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
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

/// What the form of a kind is filled with.
fn typed(page: &str, changed: &[(&str, &str)]) -> Vec<(String, String)> {
    let forms = form::forms(page);
    let form = forms.iter().find(|form| form.value("base").is_some() && page.contains("code_lifetime")).unwrap();
    let mut fields: Vec<(String, String)> =
        [("base", form.value("base").unwrap_or_default().to_owned())].map(|(name, value)| (name.into(), value)).into();
    for (name, value) in [
        ("label", "printer"),
        ("prefix", "PRN"),
        ("scopes", "scan.write = put scans into the scan folder\r\nprint.read = fetch print jobs that were sent to it"),
        ("resources", "urn:pairgate:resource:default"),
        ("code_lifetime", "300"),
        ("access_token_lifetime", "600"),
        ("refresh", "yes"),
        ("refresh_idle", "7200"),
        ("refresh_absolute", "28800"),
        ("confirmation_number", "yes"),
        ("codes_per_hour", "60"),
        ("key_assurance", "software"),
        ("key_rotation", "operator"),
        ("client_certificate", "pinned"),
    ] {
        fields.push((name.into(), value.into()));
    }
    for (name, value) in changed {
        fields.retain(|(known, _)| known != name);
        fields.push(((*name).into(), (*value).into()));
    }
    fields
}

async fn post(visitor: &Visitor, path: &str, fields: &[(String, String)]) -> RawAnswer {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    visitor.post(path, &fields).await
}

#[tokio::test]
async fn a_kind_is_edited_in_two_steps_and_the_first_changes_nothing() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let page = dana.get("/settings/kinds/printer").await;
    assert_eq!(page.status, 200);
    let same = post(&dana, "/settings/kinds/printer", &typed(&page.body, &[])).await;
    assert!(same.body.contains("Nothing would change"), "{}", same.body);

    let refused =
        post(&dana, "/settings/kinds/printer", &typed(&page.body, &[("code_lifetime", "3600"), ("label", "copier")]))
            .await;
    assert_eq!(refused.status, 422);
    assert!(said(&refused).contains("60 to 600"), "{}", said(&refused));
    assert!(refused.body.contains("value=\"copier\""), "what was typed stays");
    let refused = post(&dana, "/settings/kinds/printer", &typed(&page.body, &[("code_lifetime", "soon")])).await;
    assert!(said(&refused).contains("whole number"), "{}", said(&refused));

    let mut fields = typed(&page.body, &[("code_lifetime", "120")]);
    let shown = post(&dana, "/settings/kinds/printer", &fields).await;
    assert!(shown.body.contains("kinds.printer.code_lifetime") && shown.body.contains("120"), "{}", shown.body);
    assert_eq!(test.broker.kind("printer").unwrap().code_lifetime.as_secs(), 300);
    fields.push(("sure".into(), "yes".into()));
    let done = post(&dana, "/settings/kinds/printer", &fields).await;
    assert_eq!(done.header("location"), Some("/settings/policy?applied=1"));
    assert_eq!(test.broker.kind("printer").unwrap().code_lifetime.as_secs(), 120);
    // The page was filled from the version before.
    let stale = post(&dana, "/settings/kinds/printer", &fields).await;
    assert!(stale.status == 303 || said(&stale).contains("changed by somebody else"), "{}", stale.body);
    let mut other = typed(&page.body, &[("code_lifetime", "130")]);
    other.push(("sure".into(), "yes".into()));
    let stale = post(&dana, "/settings/kinds/printer", &other).await;
    assert!(said(&stale).contains("changed by somebody else"), "{}", said(&stale));

    let history = dana.get("/settings/policy?applied=1").await.body;
    assert!(history.contains("Done: version 1 holds.") && history.contains("300 → 120"), "{history}");
    test.advance(301);
    let late = post(&dana, "/settings/kinds/printer", &other).await;
    assert_eq!(late.header("location"), Some("/sign-in/again?back=%2Fsettings%2Fkinds%2Fprinter"));
}

#[tokio::test]
async fn what_the_file_sets_can_not_be_changed_from_a_page_a_081() {
    let file = PolicyTables::parse("[kinds.printer]\ncode_lifetime = 90").unwrap();
    let test = TestBroker::with(Setup { file, ..Setup::default() }).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let page = dana.get("/settings/kinds/printer").await.body;
    assert!(page.contains("set in pairgate.toml"));
    let mut fields = typed(&page, &[("code_lifetime", "600"), ("label", "copier")]);
    fields.push(("sure".into(), "yes".into()));
    assert_eq!(post(&dana, "/settings/kinds/printer", &fields).await.status, 303);
    let kind = test.broker.kind("printer").unwrap();
    assert_eq!((kind.code_lifetime.as_secs(), kind.label.as_str()), (90, "copier"));
    let export = test.broker.export_policy(&Caller::command_line()).await.unwrap();
    assert!(export.contains("code_lifetime = 300"), "not behind its back either: {export}");
}

#[tokio::test]
async fn whoever_administers_one_site_sees_its_settings_and_no_others_a_080() {
    let test = TestBroker::start().await;
    let shell = Caller::command_line();
    test.broker.add_site(&shell, Site::plain("paris", "Paris, rue X")).await.unwrap();
    test.broker.add_person(&shell, "mia", None).await.unwrap();
    test.broker.set_role(&shell, "mia", "default", Some(Role::Admin)).await.unwrap();
    let mia = test.another_session("mia").await;
    for path in
        ["/settings", "/settings/sites", "/settings/sites/default", "/settings/kinds", "/settings/kinds/printer"]
    {
        let answer = mia.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.contains("rue X"), "{path}");
    }
    let site = [("name", "Mine"), ("networks", "10.0.0.0/8")];
    assert_eq!(mia.get("/settings/sites/paris").await.status, 404);
    assert_eq!(mia.get("/settings/sites/nowhere").await.status, 404);
    assert_eq!(mia.post("/settings/sites/paris", &site).await.status, 404);
    let shown = mia.get("/settings/sites/default").await.body;
    let own = [("name", "Mine"), ("networks", "10.0.0.0/8"), ("seen", seen_in(&shown))];
    assert_eq!(mia.post("/settings/sites/default", &own).await.status, 303, "her own");
    let late = mia.post("/settings/sites/default", &own).await;
    assert!(said(&late).contains("omebody changed this site meanwhile"), "{}", said(&late));
    assert_eq!(seen_in(&late.body), seen_in(&shown), "nor by saying it once more");
    for path in [
        "/settings/policy",
        "/settings/policy/1",
        "/settings/import",
        "/settings/export",
        "/settings/kind",
        "/settings/resource",
    ] {
        assert_eq!(mia.get(path).await.status, 403, "{path}");
    }
    let fields = typed(&mia.get("/settings/kinds/printer").await.body, &[("code_lifetime", "60"), ("sure", "yes")]);
    for path in ["/settings/kinds/printer", "/settings/policy", "/settings/policy/1", "/settings/resource"] {
        let mut fields = fields.clone();
        fields.push(("id".into(), "https://x.example".into()));
        assert_eq!(post(&mia, path, &fields).await.status, 403, "{path}");
    }
    assert_eq!(mia.post("/settings/sites", &[("id", "rome"), ("name", "Rome")]).await.status, 403);
    let theo = test.visitor("theo", Role::Approver).await;
    for path in [
        "/settings",
        "/settings/sites",
        "/settings/sites/default",
        "/settings/kinds",
        "/settings/kinds/printer",
        "/settings/resources",
    ] {
        assert_eq!(theo.get(path).await.status, 403, "{path}");
    }
    assert_eq!(test.broker.policy().version(), 0);
}

fn seen_in(body: &str) -> &str {
    body.split("name=\"seen\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap()
}

#[tokio::test]
async fn with_two_persons_nobody_alone_makes_a_site_laxer_a_079_a_081() {
    let test = TestBroker::start().await;
    let (broker, shell) = (&test.broker, Caller::command_line());
    let strict = Site { two_persons: true, ..Site::plain("default", "HQ") };
    broker.set_site(&shell, None, strict.clone()).await.unwrap();
    apply(broker, &shell, "two_persons = true").await.unwrap();
    let dana = Caller { actor: Actor::Operator("dana".into()), ..Caller::command_line() };
    let networks = vec!["0.0.0.0/0".parse().unwrap()];
    for laxer in [Site { two_persons: false, ..strict.clone() }, Site { networks, ..strict.clone() }] {
        let outcome = broker.set_site(&dana, None, laxer.clone()).await;
        assert!(lines(outcome).contains("Settings → Import"), "{laxer:?}");
        assert_eq!(broker.site(&shell, "default").await.unwrap(), Some(strict.clone()));
    }
    let named = Site { name: "Main".into(), ..strict.clone() };
    broker.set_site(&dana, None, named).await.unwrap();
    broker.set_site(&shell, None, Site::plain("default", "HQ")).await.unwrap();
    broker.set_site(&dana, None, strict).await.unwrap();
}

#[tokio::test]
async fn a_version_that_waits_takes_back_nothing_of_a_site_that_changed_meanwhile_a_081() {
    let test = TestBroker::start().await;
    let (broker, shell) = (&test.broker, Caller::command_line());
    apply(broker, &shell, "two_persons = true").await.unwrap();
    let dana = Caller { actor: Actor::Operator("dana".into()), ..Caller::command_line() };
    let text = "[sites.default]\nname = 'Main'";
    assert_eq!(apply(broker, &dana, text).await.unwrap(), Applied::Proposed(2));
    let stored = broker.policy_version(&shell, 2).await.unwrap().document;
    assert!(stored.contains("Main") && !stored.contains("networks"), "only what it changes: {stored}");
    test.advance(1);
    let strict = Site { two_persons: true, ..Site::plain("default", "HQ") };
    broker.set_site(&shell, None, strict.clone()).await.unwrap();
    assert!(lines(broker.confirm_policy(&shell, 2).await).contains("changed by somebody else meanwhile"));
    assert_eq!(broker.site(&shell, "default").await.unwrap(), Some(strict));
}

#[tokio::test]
async fn a_site_without_networks_is_pointed_at_when_a_kind_needs_them() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    assert!(!dana.get("/settings").await.body.contains("Sites without networks"));
    apply(&test.broker, &Caller::command_line(), "[kinds.tv]\nsite_network = true").await.unwrap();
    for path in ["/settings", "/settings/sites", "/settings/kinds", "/settings/kinds/tv"] {
        assert!(dana.get(path).await.body.contains("Sites without networks"), "{path}");
    }
    let bad = dana.post("/settings/sites/default", &[("name", "HQ"), ("networks", "10.2.0.0/16, here")]).await;
    assert!(said(&bad).contains("here is no network"), "{}", said(&bad));
    let shown = dana.get("/settings/sites/default").await.body;
    let fields = [("name", "HQ"), ("networks", "10.2.0.0/16, fd00::/8"), ("seen", seen_in(&shown))];
    let good = dana.post("/settings/sites/default", &fields).await;
    assert_eq!(good.status, 303);
    assert!(!dana.get("/settings").await.body.contains("Sites without networks"));
    let history = dana.get("/settings/sites/default").await.body;
    assert!(history.contains("10.2.0.0/16 fd00::/8"), "{history}");
    test.advance(301);
    let late = dana.post("/settings/sites/default", &[("name", "HQ"), ("two_persons", "yes")]).await;
    assert_eq!(late.header("location"), Some("/sign-in/again?back=%2Fsettings%2Fsites%2Fdefault"));
}

/// A form with a file, as a browser sends it.
async fn upload(visitor: &Visitor, fields: &[(&str, &str)]) -> RawAnswer {
    upload_in(visitor, fields, "en").await
}

async fn upload_in(visitor: &Visitor, fields: &[(&str, &str)], language: &str) -> RawAnswer {
    let csrf = visitor.csrf().await;
    let mut body = String::new();
    for (name, value) in [("csrf", csrf.as_str())].iter().chain(fields) {
        let file = if *name == "file" { "; filename=\"policy.toml\"" } else { "" };
        body.push_str(&format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"));
    }
    body.push_str("--edge--\r\n");
    let headers = [SAME_ORIGIN, ("accept-language", language)];
    visitor.send("/settings/import", &body, "multipart/form-data; boundary=edge", &headers).await
}

#[tokio::test]
async fn a_policy_is_imported_by_page_as_file_or_text_and_only_with_the_session_s_token() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let refused = upload(&dana, &[("text", "[kinds.printer]\nscopes = { 'Mail.Send' = 'x' }"), ("base", "0")]).await;
    assert_eq!(refused.status, 422);
    assert!(said(&refused).contains("no device may have it"), "{}", said(&refused));
    assert!(refused.body.contains("Mail.Send"), "what was typed stays");
    let long = upload(&dana, &[("text", &"#".repeat(300_000))]).await;
    assert!(said(&long).contains("longer than 262144 bytes"), "{}", said(&long));
    let large = upload(&dana, &[("text", &"#".repeat(600_000))]).await;
    assert_eq!((large.status, large.body.contains("256 KiB")), (413, true));

    let shown = upload(&dana, &[("file", KIOSK), ("text", "ignored"), ("base", "0")]).await;
    assert!(shown.status == 200 && shown.body.contains("kinds.kiosk.prefix"), "{}", shown.body);
    assert!(test.broker.kind("kiosk").is_none());
    let done = upload(&dana, &[("text", KIOSK), ("base", "0"), ("sure", "yes")]).await;
    assert_eq!(done.header("location"), Some("/settings/policy?applied=1"));
    assert!(test.broker.kind("kiosk").is_some());

    let forged = "--edge\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n\r\n--edge--\r\n";
    let forged = dana.send("/settings/import", forged, "multipart/form-data; boundary=edge", &[SAME_ORIGIN]).await;
    assert_eq!(forged.status, 403, "A-041");
    let export = dana.get("/settings/export").await;
    assert!(export.body.contains("[kinds.kiosk.scopes]") && export.body.contains("[sites.default]"), "{}", export.body);
    assert_eq!(export.header("content-disposition"), Some("attachment; filename=\"policy.toml\""));
}

#[tokio::test]
async fn two_administrators_change_the_policy_together_on_the_pages_a_081() {
    let test = TestBroker::start().await;
    let (dana, mia) = (test.visitor("dana", Role::Admin).await, test.visitor("mia", Role::Admin).await);
    let on = [("two_persons", "yes"), ("base", "0"), ("sure", "yes")];
    assert_eq!(dana.post("/settings/policy", &on).await.status, 303);
    let fields = typed(&dana.get("/settings/kinds/printer").await.body, &[("code_lifetime", "120"), ("sure", "yes")]);
    let proposed = post(&dana, "/settings/kinds/printer", &fields).await;
    assert_eq!(proposed.header("location"), Some("/settings/policy?proposed=2"));
    assert_eq!(test.broker.kind("printer").unwrap().code_lifetime.as_secs(), 300);
    let own = dana.get("/settings/policy/2").await.body;
    assert!(own.contains("You proposed this") && !own.contains("value=\"confirm\""), "{own}");
    let refused = dana.post("/settings/policy/2", &[("action", "confirm")]).await;
    assert!(refused.status == 422 && refused.body.contains("proposed this change yourself"), "{}", refused.body);
    assert!(mia.get("/settings/policy").await.body.contains("Waiting for a second person"));
    assert!(mia.get("/settings/policy/2").await.body.contains("value=\"confirm\""));
    let confirmed = mia.post("/settings/policy/2", &[("action", "confirm")]).await;
    assert_eq!(confirmed.header("location"), Some("/settings/policy?applied=2"));
    assert_eq!(test.broker.kind("printer").unwrap().code_lifetime.as_secs(), 120);
    let back = mia.post("/settings/policy/1", &[("action", "restore"), ("base", "2"), ("sure", "yes")]).await;
    assert_eq!(back.header("location"), Some("/settings/policy?proposed=3"));
    let withdrawn = dana.post("/settings/policy/3", &[("action", "withdraw")]).await;
    assert_eq!(withdrawn.header("location"), Some("/settings/policy"));
}

async fn settings_by_clicking(look: Look) {
    let test = TestBroker::start().await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    let link = test.broker.operator_link(&Caller::command_line(), "dana").await.unwrap();
    browse(look, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/settings", test.issuer)).await;
        browser.see_heading("Settings").await;
        browser.inspect("settings", &[]).await;
        add_a_site(&browser, &test).await;
        edit_a_kind(&browser, &test).await;
        import(&browser, &test).await;
        browser.open(&format!("{}/settings/resources", test.issuer)).await;
        browser.see_heading("Services").await;
        browser.inspect("settings-services", &[]).await;
        browser.open(&format!("{}/settings/resource", test.issuer)).await;
        browser.see_heading("Add a service").await;
        browser.inspect("settings-service", &[]).await;
    })
    .await;
}

async fn add_a_site(browser: &Chromium, test: &TestBroker) {
    browser.click("main a[href='/settings/sites']").await;
    browser.see_heading("Sites").await;
    browser.click("#add summary").await;
    for (field, text) in
        [("#id", "paris"), ("#name", "Paris, rue X"), ("#networks", "10.9.0.0/16"), ("#quiet_hours", "22:00-06:00")]
    {
        browser.type_into(field, text).await;
    }
    browser.click("#two_persons").await;
    browser.inspect("settings-sites", &[]).await;
    browser.click("#add form button.primary").await;
    browser.see_heading("Paris, rue X").await;
    browser.inspect("settings-site", &[]).await;
    let site = test.broker.site(&Caller::command_line(), "paris").await.unwrap().unwrap();
    assert!(site.two_persons && site.networks.len() == 1);
}

async fn edit_a_kind(browser: &Chromium, test: &TestBroker) {
    browser.open(&format!("{}/settings/kinds", test.issuer)).await;
    browser.see_heading("Kinds of devices").await;
    browser.inspect("settings-kinds", &[]).await;
    browser.click("main a[href='/settings/kinds/printer']").await;
    browser.see_heading("printer").await;
    browser.inspect("settings-kind", &[]).await;
    browser.run("document.querySelector('#code_lifetime').value = ''").await;
    browser.type_into("#code_lifetime", "120").await;
    browser.click("main form.fields button.primary").await;
    browser.see_heading("Look at the change").await;
    browser.inspect("settings-change", &[]).await;
    assert_eq!(test.broker.policy().version(), 0);
    browser.click("main form button.primary").await;
    browser.see_heading("Policy").await;
    assert!(browser.text().await.contains("Done: version 1 holds."));
    browser.inspect("settings-policy", &[]).await;
    assert_eq!(test.broker.kind("printer").unwrap().code_lifetime.as_secs(), 120);
}

async fn import(browser: &Chromium, test: &TestBroker) {
    browser.click("main a[href='/settings/import']").await;
    browser.see_heading("Import a policy").await;
    browser.type_into("#text", "[kinds.printer]\ncode_lifetime = 3600\n").await;
    browser.click("main form button.primary").await;
    browser.see(".problems").await;
    browser.inspect("settings-import-refused", &["422"]).await;
    browser.run("document.querySelector('#text').value = ''").await;
    browser.type_into("#text", KIOSK).await;
    browser.click("main form button.primary").await;
    browser.see_heading("Look at the change").await;
    browser.click("main form button.primary").await;
    browser.see_heading("Policy").await;
    assert_eq!(test.broker.kind("kiosk").unwrap().prefix, "KSK");
    browser.click("main a[href='/settings/policy/1']").await;
    browser.see_heading("Version 1").await;
    browser.inspect("settings-version", &[]).await;
}

#[tokio::test]
async fn settings_are_changed_by_clicking_on_a_phone() {
    settings_by_clicking(Look::PHONE).await;
}

#[tokio::test]
async fn settings_are_changed_by_clicking_at_a_desk_in_the_dark() {
    settings_by_clicking(Look::DESK.dark()).await;
}

#[tokio::test]
async fn the_settings_speak_german() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let page = dana.get_with("/settings/kinds/printer", &[("accept-language", "de")]).await.body;
    assert!(page.contains("Buchstaben vor jedem Code"), "{page}");
    let refused = upload_in(&dana, &[("text", "[kinds.printer]\ncode_lifetime = 3600")], "de").await;
    assert!(said(&refused).contains("muss 60 bis 600 Sekunden sein"), "{}", said(&refused));
}
