//! The page of people, and what administrators of everything and of one site may do there.

use pairgate::broker::people::UsedBy;
use pairgate::broker::{Caller, UseCaseError};
use pairgate::model::kind::NewApprover;
use pairgate::model::operator::{EVERYWHERE, Rights, Role};
use pairgate::model::site::Site;
use pairgate::store::{NewPasskey, Person};

use crate::support::TestBroker;
use crate::support::visitor::{Visitor, said};

const SHELL: fn() -> Caller = Caller::command_line;

async fn person(test: &TestBroker, name: &str) -> Person {
    test.broker.person(&SHELL(), name).await.unwrap()
}

/// With the sites Berlin and Paris.
async fn two_sites() -> TestBroker {
    let test = TestBroker::start().await;
    for (id, name) in [("berlin", "Berlin"), ("paris", "Paris")] {
        test.broker.add_site(&SHELL(), Site::plain(id, name)).await.unwrap();
    }
    test
}

/// Somebody with a role at one site, signed in.
async fn at_site(test: &TestBroker, name: &str, site: &str, role: Role) -> Visitor {
    test.broker.add_person_at(&SHELL(), name, site, role).await.unwrap();
    test.another_session(name).await
}

#[tokio::test]
async fn an_administrator_adds_a_person_who_signs_in_by_the_link_that_is_shown_once() {
    let test = two_sites().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let alone = dana.get("/operators").await;
    assert!(alone.status == 200 && alone.body.contains("Nobody else is here yet"), "{}", alone.body);
    let added = dana.post("/operators", &[("name", "emil"), ("site", "berlin"), ("role", "approver")]).await;
    assert_eq!(added.status, 200, "{}", added.body);
    let start = added.body.find(&format!("{}/sign-in?token=", test.issuer)).expect("the link");
    let link = added.body[start..].split('<').next().unwrap().to_owned();
    assert!(added.body.contains("<svg"), "as a picture to scan, too");
    let page = dana.get("/operators/emil").await.body;
    assert!(!page.contains("token=") && page.contains("approver at Berlin") | page.contains("Berlin"), "once");
    let mut emil = test.passer_by();
    assert_eq!(emil.sign_in(link.strip_prefix(&test.issuer).unwrap()).await.status, 303);
    assert_eq!(person(&test, "emil").await.given, Rights::at("berlin", Role::Approver));
    assert_eq!(emil.get("/operators").await.status, 403, "who administers nothing has no business here");
    let list = dana.get("/operators").await.body;
    assert!(list.contains("approver at Berlin") && list.contains("administrator at all sites"), "{list}");
    for (fields, why) in [
        ([("name", "emil"), ("site", "berlin"), ("role", "viewer")], "taken"),
        ([("name", "a b"), ("site", "berlin"), ("role", "viewer")], "2 to 64 characters"),
        ([("name", "zoe"), ("site", "rome"), ("role", "viewer")], "no site"),
        ([("name", "zoe"), ("site", "berlin"), ("role", "root")], "choose what"),
    ] {
        let refused = dana.post("/operators", &fields).await;
        assert_eq!(refused.status, 422);
        assert!(said(&refused).to_lowercase().contains(why), "{}", said(&refused));
    }
    assert_eq!(test.count("operator.added").await, 2);
}

#[tokio::test]
async fn roles_are_given_and_taken_per_site_and_hold_at_once() {
    let test = two_sites().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let emil = at_site(&test, "emil", "berlin", Role::Viewer).await;
    let role = |site: &'static str, role: &'static str| {
        let dana = dana.clone();
        async move { dana.post("/operators/emil", &[("action", "role"), ("site", site), ("role", role)]).await }
    };
    assert_eq!(role("berlin", "admin").await.header("location"), Some("/operators/emil"));
    assert_eq!(emil.get("/operators").await.status, 200, "by the next request");
    assert_eq!(role("paris", "technician").await.status, 303);
    let mut rights = Rights::at("berlin", Role::Admin);
    rights.add("paris", Role::Technician);
    assert_eq!(person(&test, "emil").await.given, rights);
    assert_eq!(role("berlin", "none").await.status, 303);
    assert_eq!(emil.get("/operators").await.status, 403);
    assert_eq!(role("rome", "viewer").await.status, 404);
    assert_eq!(role("berlin", "root").await.status, 422);
    assert_eq!(
        dana.post("/operators/nobody", &[("action", "role"), ("site", "*"), ("role", "viewer")]).await.status,
        404
    );
    assert_eq!(dana.post("/operators/emil", &[("action", "dance")]).await.status, 422);
}

#[tokio::test]
async fn a_sites_administrator_sees_and_changes_nothing_of_other_sites_a_080() {
    let test = two_sites().await;
    let bea = at_site(&test, "bea", "berlin", Role::Admin).await;
    at_site(&test, "ben", "berlin", Role::Technician).await;
    at_site(&test, "pam", "paris", Role::Admin).await;
    test.broker.set_role(&SHELL(), "ben", "paris", Some(Role::Approver)).await.unwrap();
    test.visitor("dana", Role::Admin).await;
    let list = bea.get("/operators").await.body;
    assert!(
        list.contains("/operators/ben") && list.contains("/operators/dana") && list.contains("technician at Berlin")
    );
    assert!(!list.contains("pam") && !list.to_lowercase().contains("paris"), "{list}");
    let ben = bea.get("/operators/ben").await.body;
    assert!(!ben.to_lowercase().contains("paris") && !ben.contains("value=\"link\""), "{ben}");
    let unknown = bea.get("/operators/nobody").await;
    let foreign = bea.get("/operators/pam").await;
    assert_eq!((unknown.status, foreign.status), (404, 404));
    assert_eq!(unknown.body.replace("nobody", "x"), foreign.body.replace("pam", "x"), "nobody can tell them apart");
    let known = test.records().await.len();
    for (name, fields, status) in [
        ("pam", vec![("action", "role"), ("site", "berlin"), ("role", "viewer")], 404),
        ("ben", vec![("action", "role"), ("site", "paris"), ("role", "none")], 404),
        ("ben", vec![("action", "role"), ("site", "*"), ("role", "admin")], 422),
        ("bea", vec![("action", "role"), ("site", "*"), ("role", "admin")], 422),
        ("ben", vec![("action", "link")], 422),
        ("dana", vec![("action", "link")], 422),
        ("ben", vec![("action", "disable")], 422),
        ("ben", vec![("action", "enable")], 422),
        ("ben", vec![("action", "end_sessions")], 422),
        ("ben", vec![("action", "remove_passkeys")], 422),
    ] {
        let answer = bea.post(&format!("/operators/{name}"), &fields).await;
        assert_eq!(answer.status, status, "{name} {fields:?}: {}", answer.body);
        assert!(!answer.body.contains("token="));
    }
    let added = bea.post("/operators", &[("name", "new"), ("site", "berlin"), ("role", "viewer")]).await;
    assert_eq!(added.status, 403);
    assert_eq!(test.records().await.len(), known, "and nothing was changed");
    // What is theirs, they may.
    let own = bea.post("/operators/ben", &[("action", "role"), ("site", "berlin"), ("role", "approver")]).await;
    assert_eq!(own.header("location"), Some("/operators/ben"));
    let gone = bea.post("/operators/ben", &[("action", "role"), ("site", "berlin"), ("role", "none")]).await;
    assert_eq!(gone.header("location"), Some("/operators"), "there is nobody to show any more");
    assert_eq!(person(&test, "ben").await.given, Rights::at("paris", Role::Approver));
}

#[tokio::test]
async fn a_disabled_person_is_out_at_once_and_can_be_let_in_again() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let emil = test.visitor("emil", Role::Approver).await;
    assert_eq!(dana.post("/operators/emil", &[("action", "disable")]).await.status, 303);
    assert_eq!(emil.get("/audit").await.header("location"), Some("/sign-in"));
    let page = dana.get("/operators/emil").await.body;
    assert!(page.contains("Enable again") && !page.contains("New link"));
    assert_eq!(dana.post("/operators/emil", &[("action", "link")]).await.status, 404);
    assert_eq!(dana.post("/operators/emil", &[("action", "disable")]).await.status, 404);
    assert_eq!(dana.post("/operators/emil", &[("action", "enable")]).await.status, 303);
    assert_eq!(dana.post("/operators/emil", &[("action", "enable")]).await.status, 404);
    assert_eq!(emil.get("/audit").await.header("location"), Some("/sign-in"), "its session stays ended");
    assert_eq!(test.another_session("emil").await.get("/audit").await.status, 200);
    assert_eq!(person(&test, "emil").await.given, Rights::everywhere(Role::Approver));
}

#[tokio::test]
async fn the_last_person_who_administers_everything_can_neither_go_nor_be_less() {
    let test = two_sites().await;
    let dana = test.visitor("dana", Role::Admin).await;
    for fields in [
        vec![("action", "disable")],
        vec![("action", "role"), ("site", "*"), ("role", "approver")],
        vec![("action", "role"), ("site", "*"), ("role", "none")],
    ] {
        let refused = dana.post("/operators/dana", &fields).await;
        assert_eq!(refused.status, 422);
        assert!(said(&refused).contains("last person who administers everything"), "{}", said(&refused));
    }
    let refused = test.broker.disable_operator(&SHELL(), "dana").await.unwrap_err();
    assert!(matches!(refused, UseCaseError::Refused(_)), "{refused}");
    test.broker.add_operator(&SHELL(), "emil", Role::Admin).await.unwrap();
    test.broker.set_role(&SHELL(), "dana", EVERYWHERE, Some(Role::Viewer)).await.unwrap();
}

#[tokio::test]
async fn a_lost_passkey_is_removed_and_sessions_end() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let emil = test.visitor("emil", Role::Approver).await;
    let new = NewPasskey {
        credential: vec![7; 16],
        operator: person(&test, "emil").await.operator.id,
        name: "phone".into(),
        data: "{}".into(),
        session: test
            .broker
            .session(emil.cookie.split_once('=').unwrap().1, UsedBy::Person)
            .await
            .unwrap()
            .unwrap()
            .hash,
    };
    let context = pairgate::model::audit::Context {
        now: test.broker.now(),
        actor: pairgate::model::audit::Actor::CommandLine,
        peer: None,
    };
    let store = pairgate::store::open(test.data.path()).unwrap();
    assert!(store.add_passkey(&new, &context).await.unwrap());
    assert!(dana.get("/operators").await.body.contains("1 passkey"));
    assert_eq!(dana.post("/operators/emil", &[("action", "remove_passkeys")]).await.status, 303);
    assert_eq!(person(&test, "emil").await.passkeys, 0);
    assert_eq!(emil.get("/audit").await.status, 303, "whoever has the passkey now is out");
    assert_eq!(test.count("operator.passkeys_removed").await, 1);
    let emil = test.another_session("emil").await;
    assert!(dana.get("/operators/emil").await.body.contains("1 session"));
    assert_eq!(dana.post("/operators/emil", &[("action", "end_sessions")]).await.status, 303);
    assert_eq!(emil.get("/audit").await.status, 303);
}

#[tokio::test]
async fn what_decides_who_may_do_what_needs_a_fresh_sign_in_a_081() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    test.visitor("emil", Role::Approver).await;
    test.advance(301);
    assert_eq!(dana.get("/operators/emil").await.status, 200, "to look is not dangerous");
    let known = test.records().await.len();
    for (path, fields) in [
        ("/operators", vec![("name", "zoe"), ("site", "*"), ("role", "viewer")]),
        ("/operators", vec![("name", "zoe"), ("site", "default"), ("role", "viewer")]),
        ("/operators/emil", vec![("action", "role"), ("site", "*"), ("role", "admin")]),
        ("/operators/emil", vec![("action", "link")]),
        ("/operators/emil", vec![("action", "disable")]),
        ("/operators/emil", vec![("action", "enable")]),
        ("/operators/emil", vec![("action", "end_sessions")]),
        ("/operators/emil", vec![("action", "remove_passkeys")]),
    ] {
        let answer = dana.post(path, &fields).await;
        let back: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
        let expected = format!("/sign-in/again?back={back}");
        assert_eq!((answer.status, answer.header("location")), (303, Some(expected.as_str())), "{path} {fields:?}");
    }
    assert_eq!(test.records().await.len(), known);
}

#[tokio::test]
async fn no_administrator_becomes_the_second_person_by_a_link_a_079_a_081() {
    let by_policy = TestBroker::start().await;
    let change = by_policy.broker.propose_two_persons(&SHELL(), true).await.unwrap();
    by_policy.broker.apply_policy(&SHELL(), &change, change.base).await.unwrap();
    let by_site = TestBroker::start().await;
    let site = by_site.broker.sites(&SHELL()).await.unwrap().remove(0);
    by_site.broker.set_site(&SHELL(), None, Site { two_persons: true, ..site }).await.unwrap();
    let by_kind = TestBroker::with_kind("printer", |kind| kind.two_persons = true).await;
    let by_list = TestBroker::with_kind("printer", |kind| kind.new_approver = NewApprover::Second).await;
    for test in [by_policy, by_site, by_kind, by_list] {
        let dana = test.visitor("dana", Role::Admin).await;
        test.broker.add_person(&SHELL(), "sam", Some(Role::Admin)).await.unwrap();
        let links = test.count("operator.link").await;
        let answer = dana.post("/operators/sam", &[("action", "link")]).await;
        assert!(answer.status == 422 && said(&answer).contains("operator link sam"), "{}", said(&answer));
        let answer = dana.post("/operators", &[("name", "zed"), ("site", "*"), ("role", "approver")]).await;
        assert!(answer.status == 422 && said(&answer).contains("operator link zed"), "{}", said(&answer));
        assert_eq!(test.count("operator.link").await, links);
        assert!(!dana.get("/operators/sam").await.body.contains("New link"));
        // A link for oneself makes nobody another person.
        assert_eq!(dana.post("/operators/dana", &[("action", "link")]).await.status, 200);
    }
}
