//! What a sign-in at the organisation's provider must not be fooled by: one mutation per row, against a provider that says what the row wants.

use pairgate::broker::Caller;
use pairgate::broker::people::UsedBy;
use pairgate::model::audit::{Actor, Context};
use pairgate::model::operator::{Rights, Role};
use pairgate::simulator::{RawAnswer, TokenAnswer};
use pairgate::store::NewPasskey;
use serde_json::{Value, json};

use crate::support::openid::{Rogue, Says, SignedBy, challenge, settings};
use crate::support::visitor::{FORM, SAME_ORIGIN, Visitor, said};
use crate::support::{Setup, TestBroker};
use crate::two_persons::approve;

const CALLBACK: &str = "/sign-in/sso/callback";

struct Bench {
    test: TestBroker,
    rogue: Rogue,
}

/// A sign-in that has begun: the browser's cookie, and what its address asks for.
struct Begun {
    cookie: String,
    asks: std::collections::BTreeMap<String, String>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut pairgate::config::Sso)) -> Self {
        let rogue = Rogue::start().await;
        let mut sso = settings(&rogue.issuer);
        change(&mut sso);
        let test = TestBroker::with(Setup { sso: Some(sso), ..Setup::default() }).await;
        Self { test, rogue }
    }

    /// Where browsers have passkeys.
    async fn localhost() -> Self {
        let rogue = Rogue::start().await;
        let setup = Setup { sso: Some(settings(&rogue.issuer)), is_localhost: true, ..Setup::default() };
        Self { test: TestBroker::with(setup).await, rogue }
    }

    async fn begin(&self, visitor: &Visitor, body: &str) -> Begun {
        let answer = visitor.send("/sign-in/sso", body, FORM, &[SAME_ORIGIN]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let refresh = answer.header("refresh").unwrap();
        let to: url::Url = refresh.strip_prefix("0; url=").unwrap().parse().unwrap();
        assert!(to.as_str().starts_with(&format!("{}/authorize?", self.rogue.issuer)), "{to}");
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("__Host-sso="), "{cookie}");
        Begun { cookie, asks: to.query_pairs().into_owned().collect() }
    }

    /// Claims of a good token for this sign-in.
    fn claims(&self, begun: &Begun) -> Value {
        let now = self.test.broker.now().seconds();
        json!({
            "iss": self.rogue.issuer, "aud": "pairgate", "sub": "0001", "iat": now, "exp": now + 300, "auth_time": now,
            "nonce": begun.asks["nonce"], "preferred_username": "dana", "email": "dana@contoso.example", "groups": ["it"],
        })
    }

    /// The provider's answer, as a good one.
    fn answer(&self, begun: &Begun) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![pair("code", "c0de"), pair("state", &begun.asks["state"]), pair("iss", &self.rogue.issuer)]
    }

    async fn come_back(&self, cookies: &str, answer: &[(String, String)]) -> RawAnswer {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(answer).finish();
        let browser = self.test.passer_by();
        browser.get_with(&format!("{CALLBACK}?{query}"), &[("cookie", cookies), ("sec-fetch-site", "cross-site")]).await
    }

    /// From the beginning to the end, with whatever the provider says.
    async fn sign_in(&self, change: impl FnOnce(&mut Says)) -> RawAnswer {
        let begun = self.begin(&self.test.passer_by(), "").await;
        let claims = self.claims(&begun);
        self.rogue.change(|says| {
            says.claims = claims;
            says.header = json!({"alg": "ES256", "kid": "one"});
            says.signed_by = SignedBy::Provider;
            change(says);
        });
        self.come_back(&begun.cookie, &self.answer(&begun)).await
    }
}

/// The session's cookie, if the answer gives one.
fn session(answer: &RawAnswer) -> Option<String> {
    let lines = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.map(|line| line.split(';').next().unwrap_or_default().to_owned());
    pairs.into_iter().find(|pair| pair.starts_with("__Host-pairgate=") && pair.len() > 20)
}

fn is_refused(answer: &RawAnswer) -> bool {
    answer.status == 403 && session(answer).is_none()
}

#[tokio::test]
async fn what_is_asked_of_the_provider_is_bound_to_this_browser() {
    let bench = Bench::new().await;
    let begun = bench.begin(&bench.test.passer_by(), "").await;
    let asks = |name: &str| begun.asks.get(name).map(String::as_str);
    assert_eq!(asks("response_type"), Some("code"));
    assert_eq!(asks("client_id"), Some("pairgate"));
    assert_eq!(asks("redirect_uri"), Some(format!("{}{CALLBACK}", bench.test.issuer).as_str()));
    assert_eq!(asks("scope"), Some("openid profile email groups"));
    assert_eq!(asks("code_challenge_method"), Some("S256"));
    assert_eq!((asks("prompt"), asks("max_age")), (None, None));
    for secret in ["state", "nonce", "code_challenge"] {
        assert_eq!(begun.asks[secret].len(), 43, "256 bits: {secret}");
        assert!(!begun.cookie.contains(&begun.asks[secret]));
    }
    let claims = bench.claims(&begun);
    bench.rogue.change(|says| says.claims = claims);
    let answer = bench.come_back(&begun.cookie, &bench.answer(&begun)).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{}", answer.body);
    let asked = bench.rogue.asked();
    assert_eq!(challenge(&asked[0]["code_verifier"]), begun.asks["code_challenge"], "PKCE");
    assert_eq!(
        (asked.len(), asked[0]["grant_type"].as_str(), asked[0]["code"].as_str()),
        (1, "authorization_code", "c0de")
    );
    // And the session is one: with the roles of the groups, opened by this method.
    let visitor = Visitor { cookie: session(&answer).unwrap(), ..bench.test.passer_by() };
    assert_eq!(visitor.get("/operators").await.status, 200);
    let people = bench.test.broker.people(&Caller::command_line()).await.unwrap();
    assert_eq!((people[0].operator.name.as_str(), people[0].has_sso), ("dana", true));
    assert_eq!(people[0].by_groups, Rights::everywhere(Role::Admin));
    assert_eq!(people[0].given, Rights::default());
}

#[tokio::test]
async fn an_answer_that_this_browser_did_not_ask_for_signs_nobody_in_a_048() {
    let bench = Bench::new().await;
    let replace = |answer: &mut Vec<(String, String)>, name: &str, value: Option<&str>| {
        answer.retain(|(known, _)| known != name);
        answer.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    };
    let other = bench.begin(&bench.test.passer_by(), "").await;
    for (what, name, value) in [
        ("no state", "state", None),
        ("an empty state", "state", Some("")),
        ("the state of another browser", "state", Some(other.asks["state"].as_str())),
        ("no iss, though it is promised", "iss", None),
        ("another iss", "iss", Some("https://evil.example")),
        ("iss with a slash", "iss", Some(&*format!("{}/", bench.rogue.issuer))),
        ("no code", "code", None),
    ] {
        let begun = bench.begin(&bench.test.passer_by(), "").await;
        let claims = bench.claims(&begun);
        bench.rogue.change(|says| says.claims = claims);
        let mut answer = bench.answer(&begun);
        replace(&mut answer, name, value);
        let refused = bench.come_back(&begun.cookie, &answer).await;
        assert!(is_refused(&refused), "{what}: {} {}", refused.status, refused.body);
        let again = bench.come_back(&begun.cookie, &bench.answer(&begun)).await;
        assert!(is_refused(&again), "{what}: the cookie was good for one answer");
    }
    assert!(bench.rogue.asked().is_empty(), "no code was ever sent to the provider");

    let begun = bench.begin(&bench.test.passer_by(), "").await;
    let claims = bench.claims(&begun);
    bench.rogue.change(|says| says.claims = claims);
    for cookies in ["", "__Host-sso=", "__Host-sso=AAAA", &other.cookie] {
        let refused = bench.come_back(cookies, &bench.answer(&begun)).await;
        assert!(is_refused(&refused), "in another browser: {cookies}");
    }
    let twice: Vec<_> = bench.answer(&begun).into_iter().chain([("code".to_owned(), "x".to_owned())]).collect();
    assert_eq!(bench.come_back(&begun.cookie, &twice).await.status, 404, "a field that stands twice");
    bench.test.advance(600);
    assert!(is_refused(&bench.come_back(&begun.cookie, &bench.answer(&begun)).await), "after ten minutes");
    assert_eq!(bench.test.count("operator.signed_in").await, 0);
}

#[tokio::test]
async fn an_answer_counts_once() {
    let bench = Bench::new().await;
    let begun = bench.begin(&bench.test.passer_by(), "").await;
    let claims = bench.claims(&begun);
    bench.rogue.change(|says| says.claims = claims);
    let answer = bench.answer(&begun);
    assert!(session(&bench.come_back(&begun.cookie, &answer).await).is_some());
    assert!(is_refused(&bench.come_back(&begun.cookie, &answer).await), "replayed");
    assert_eq!(bench.rogue.asked().len(), 1, "the code went out once");
    bench.rogue.change(|says| {
        says.token_error = Some(json!({"error": "invalid_grant", "error_description": "used <b>before</b>"}))
    });
    let refused = bench.sign_in(|_| {}).await;
    assert!(is_refused(&refused) && refused.body.contains("used &#60;b&#62;before&#60;/b&#62;"), "{}", refused.body);
}

/// One mutation per row.
#[tokio::test]
async fn an_id_token_that_is_not_wholly_good_signs_nobody_in_a_048() {
    let bench = Bench::new().await;
    let now = bench.test.broker.now().seconds();
    type Change = Box<dyn FnOnce(&mut Says)>;
    let claim = |name: &'static str, value: Value| -> Change { Box::new(move |says| says.claims[name] = value) };
    let without = |name: &'static str| -> Change {
        Box::new(move |says| {
            says.claims.as_object_mut().unwrap().remove(name);
        })
    };
    let signed = |alg: &'static str, by: SignedBy| -> Change {
        Box::new(move |says| {
            says.header["alg"] = json!(alg);
            says.signed_by = by;
        })
    };
    let rows: Vec<(&str, Change)> = vec![
        ("another nonce", claim("nonce", json!("x"))),
        ("no nonce", without("nonce")),
        ("another issuer", claim("iss", json!("https://evil.example"))),
        ("no issuer", without("iss")),
        ("another audience", claim("aud", json!("payroll"))),
        ("no audience", claim("aud", json!([]))),
        ("one more audience", claim("aud", json!(["pairgate", "payroll"]))),
        ("made for another client", claim("azp", json!("payroll"))),
        ("expired", claim("exp", json!(now))),
        ("no end", without("exp")),
        ("from the future", claim("iat", json!(now + 61))),
        ("too old", claim("iat", json!(now - 601))),
        ("no beginning", without("iat")),
        ("no subject", without("sub")),
        ("an empty subject", claim("sub", json!(""))),
        ("a subject that is a number", claim("sub", json!(1))),
        ("alg none", signed("none", SignedBy::Nobody)),
        ("no signature", signed("ES256", SignedBy::Nobody)),
        ("HMAC with the client secret", signed("HS256", SignedBy::Secret)),
        ("HMAC with the public key", signed("HS256", SignedBy::PublicKey)),
        ("another key", signed("ES256", SignedBy::Another)),
        ("another algorithm's name", signed("RS256", SignedBy::Provider)),
        ("an unknown key id", Box::new(|says: &mut Says| says.header["kid"] = json!("two"))),
        (
            "no token",
            Box::new(|says: &mut Says| says.token_error = Some(json!({"access_token": "x", "token_type": "Bearer"}))),
        ),
    ];
    for (what, change) in rows {
        let answer = bench.sign_in(change).await;
        assert!(is_refused(&answer), "{what}: {} {}", answer.status, answer.body);
        bench.rogue.change(|says| says.token_error = None);
        assert_eq!(bench.test.count("operator.added").await, 0, "{what}");
    }
    assert!(session(&bench.sign_in(|_| {}).await).is_some(), "and a good one does");
    assert!(session(&bench.sign_in(|says| says.claims["azp"] = json!("pairgate")).await).is_some());
    assert!(session(&bench.sign_in(|says| says.claims["aud"] = json!(["pairgate"])).await).is_some());
}

#[tokio::test]
async fn metadata_of_another_issuer_or_towards_other_doors_is_not_used() {
    for (name, value) in [
        ("issuer", json!("https://evil.example")),
        ("authorization_endpoint", json!("http://evil.example/authorize")),
        ("authorization_endpoint", json!("javascript:alert(1)")),
        ("token_endpoint", json!("http://169.254.169.254/latest")),
        ("jwks_uri", json!("http://10.0.0.1/jwks")),
        ("jwks_uri", json!("file:///etc/passwd")),
    ] {
        let bench = Bench::new().await;
        bench.rogue.change(|says| says.metadata[name] = value.clone());
        let answer = bench.test.passer_by().send("/sign-in/sso", "", FORM, &[SAME_ORIGIN]).await;
        assert_eq!((answer.status, answer.header("refresh")), (403, None), "{name} {value}");
        assert!(answer.body.contains("did not answer"), "{}", answer.body);
    }
    // Without leave for private networks, not even loopback is asked.
    let bench = Bench::with(|sso| sso.allow_private_network = false).await;
    let answer = bench.test.passer_by().send("/sign-in/sso", "", FORM, &[SAME_ORIGIN]).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_provider_that_stumbles_locks_nobody_out_for_a_day_a_067() {
    let bench = Bench::new().await;
    assert!(session(&bench.sign_in(|_| {}).await).is_some());
    bench.rogue.change(|says| says.metadata["jwks_uri"] = json!(format!("{}/nowhere", bench.rogue.issuer)));
    for seconds in [601, 1, 16, 12 * 3600] {
        bench.test.advance(seconds);
        assert!(session(&bench.sign_in(|_| {}).await).is_some(), "{seconds} seconds later");
    }
    bench.test.advance(12 * 3600);
    let answer = bench.test.passer_by().send("/sign-in/sso", "", FORM, &[SAME_ORIGIN]).await;
    assert!(answer.status == 403 && answer.body.contains("did not answer"), "{}", answer.body);
}

#[tokio::test]
async fn a_person_is_issuer_and_subject_never_an_address_or_a_name_a_048() {
    let bench = Bench::new().await;
    let test = &bench.test;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    let name = |answer: RawAnswer| async move {
        let visitor = Visitor { cookie: session(&answer).unwrap(), ..test.passer_by() };
        let page = visitor.get("/audit").await.body;
        let (_, rest) = page.split_once("href=\"/account\"").unwrap();
        rest.split_once("<bdi>").unwrap().1.split_once("</bdi>").unwrap().0.to_owned()
    };
    assert_eq!(
        name(bench.sign_in(|_| {}).await).await,
        "dana-2",
        "the name is taken, and stays with whom it belongs to"
    );
    assert_eq!(name(bench.sign_in(|_| {}).await).await, "dana-2", "the same person");
    let other = bench.sign_in(|says| says.claims["sub"] = json!("0002")).await;
    assert_eq!(name(other).await, "dana-3", "the same address and name, another person");
    let renamed = bench.sign_in(|says| {
        says.claims["preferred_username"] = json!("root");
        says.claims["email"] = json!("root@contoso.example");
    });
    assert_eq!(name(renamed.await).await, "dana-2", "another address and name, the same person");
    let looks_alike = bench.sign_in(|says| {
        says.claims["sub"] = json!("0003");
        says.claims["preferred_username"] = json!("DANA");
    });
    assert_eq!(name(looks_alike.await).await, "dana-4", "nobody's look-alike");
    let people = test.broker.people(&Caller::command_line()).await.unwrap();
    let by_hand = people.iter().find(|person| person.operator.name == "dana").unwrap();
    assert_eq!((by_hand.has_sso, by_hand.seen_at), (false, None), "nobody took the account over");
}

#[tokio::test]
async fn with_a_tenant_it_is_tenant_and_object_id_a_048() {
    const TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";
    let bench = Bench::with(|sso| sso.tenant = Some(TENANT.into())).await;
    let entra = |says: &mut Says, tid: Option<&str>, oid: Option<&str>, sub: &str| {
        says.claims["sub"] = json!(sub);
        says.claims["tid"] = json!(tid);
        says.claims["oid"] = json!(oid);
    };
    for (what, tid, oid) in [
        ("another tenant", Some("00000000-0000-0000-0000-000000000000"), Some("o1")),
        ("no tenant", None, Some("o1")),
        ("no object id", Some(TENANT), None),
        ("an empty object id", Some(TENANT), Some("")),
    ] {
        let answer = bench.sign_in(|says| entra(says, tid, oid, "s1")).await;
        assert!(is_refused(&answer), "{what}");
    }
    assert!(session(&bench.sign_in(|says| entra(says, Some(TENANT), Some("o1"), "s1")).await).is_some());
    assert!(session(&bench.sign_in(|says| entra(says, Some(TENANT), Some("o1"), "s2")).await).is_some());
    assert_eq!(bench.test.count("operator.added").await, 1, "sub is another one for each application");
    let many = bench.sign_in(|says| {
        entra(says, Some(TENANT), Some("o1"), "s1");
        says.claims.as_object_mut().unwrap().remove("groups");
        says.claims["_claim_names"] = json!({"groups": "src1"});
    });
    let many = many.await;
    assert!(is_refused(&many) && many.body.contains("so many groups"), "{}", many.body);
}

#[tokio::test]
async fn groups_are_roles_and_a_lost_group_is_a_lost_role_a_047() {
    let bench = Bench::new().await;
    let test = &bench.test;
    let site = pairgate::model::site::Site::plain("berlin", "Berlin");
    test.broker.add_site(&Caller::command_line(), site).await.unwrap();
    let rights = || async {
        let people = test.broker.people(&Caller::command_line()).await.unwrap();
        people.iter().find(|person| person.operator.name == "dana").unwrap().operator.rights.clone()
    };
    let sign_in = |groups: Value| bench.sign_in(move |says| says.claims["groups"] = groups);
    for groups in [json!([]), json!(["sales"]), json!(null), json!({"it": true}), json!([7, ["it"]]), json!("IT")] {
        assert!(is_refused(&sign_in(groups.clone()).await), "{groups}");
    }
    assert_eq!(test.count("operator.added").await, 0, "who has no group here is not even added");
    let first = sign_in(json!(["berlin", "sales"])).await;
    assert!(session(&first).is_some());
    assert_eq!(rights().await, Rights::at("berlin", Role::Approver));
    let known = test.count("operator.role").await;
    sign_in(json!("berlin")).await;
    assert_eq!(test.count("operator.role").await, known, "nothing has changed, and no record says so");
    test.broker.set_role(&Caller::command_line(), "dana", "default", Some(Role::Viewer)).await.unwrap();
    sign_in(json!(["it"])).await;
    let mut expected = Rights::everywhere(Role::Admin);
    expected.add("default", Role::Viewer);
    assert_eq!(rights().await, expected, "given by hand, and by groups");
    let visitor = Visitor { cookie: session(&sign_in(json!(["it"])).await).unwrap(), ..test.passer_by() };
    assert_eq!(visitor.get("/operators").await.status, 200);
    // A session that no group is asked for has no role by groups: it could be opened anew for ever.
    assert_eq!(test.another_session("dana").await.get("/operators").await.status, 403);
    // Out of the group: no sign-in any more, and the session that is open has lost the right, too.
    let refused = sign_in(json!([])).await;
    assert!(is_refused(&refused) && refused.body.contains("none of its groups"), "{}", refused.body);
    assert_eq!(rights().await, Rights::at("default", Role::Viewer));
    assert_eq!(visitor.get("/operators").await.status, 403);

    test.broker.disable_operator(&Caller::command_line(), "dana").await.unwrap();
    let refused = sign_in(json!(["it"])).await;
    assert!(is_refused(&refused) && refused.body.contains("disabled"), "{}", refused.body);
    assert_eq!(rights().await, Rights::at("default", Role::Viewer), "and gets nothing");
}

#[tokio::test]
async fn what_a_person_approved_is_void_once_the_group_is_lost_a_047() {
    let bench = Bench::new().await;
    let test = &bench.test;
    let dana = Visitor { cookie: session(&bench.sign_in(|_| {}).await).unwrap(), ..test.passer_by() };
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    assert_eq!(said(&approve(test, &dana, &mut device, &code.user_code).await), "Approved");
    test.advance(60);
    assert!(is_refused(&bench.sign_in(|says| says.claims["groups"] = json!([])).await));
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Denied));
    assert_eq!(test.count("token.issued").await, 0);
}

#[tokio::test]
async fn who_came_by_the_provider_proves_it_there_once_more_and_keeps_the_roles_by_groups() {
    let bench = Bench::localhost().await;
    let test = &bench.test;
    let by_provider = Visitor { cookie: session(&bench.sign_in(|_| {}).await).unwrap(), ..test.passer_by() };
    let by_link = test.another_session("dana").await;
    let id = by_link.cookie.split_once('=').unwrap().1;
    let opened = test.broker.session(id, UsedBy::Person).await.unwrap().unwrap();
    let passkey = NewPasskey {
        credential: vec![7; 16],
        operator: opened.operator.id,
        name: "phone".into(),
        data: "{}".into(),
        session: opened.hash,
    };
    let context = Context { now: test.broker.now(), actor: Actor::CommandLine, peer: None };
    let store = pairgate::store::open(test.data.path()).unwrap();
    assert!(store.add_passkey(&passkey, &context).await.unwrap());
    test.advance(301);
    let offers = async |visitor: &Visitor| {
        let page = visitor.get("/sign-in/again?back=/operators").await.body;
        (page.contains("passkey"), page.contains("action=\"/sign-in/sso\""))
    };
    assert_eq!(offers(&by_link).await, (true, true));
    assert_eq!(offers(&by_provider).await, (false, true));
}

#[tokio::test]
async fn with_admit_everybody_people_without_groups_get_in_and_see_nothing() {
    let bench = Bench::with(|sso| sso.admits_everybody = true).await;
    let answer = bench.sign_in(|says| says.claims["groups"] = json!([])).await;
    let visitor = Visitor { cookie: session(&answer).unwrap(), ..bench.test.passer_by() };
    bench.test.register("vault-tv-07", "tv").await;
    assert_eq!(visitor.get("/operators").await.status, 403);
    let devices = visitor.get("/devices").await;
    assert!(devices.status == 200 && !devices.body.contains("vault-tv-07"));
}

#[tokio::test]
async fn what_the_provider_says_is_shown_as_text_and_only_to_who_asked_a_050() {
    let bench = Bench::new().await;
    let begun = bench.begin(&bench.test.passer_by(), "").await;
    let script = format!("<script>alert(1)</script>\u{202E}{}", "x".repeat(400));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let answer = |state: &str| {
        vec![
            pair("error", "access_denied"),
            pair("error_description", &script),
            pair("state", state),
            pair("iss", &bench.rogue.issuer),
        ]
    };
    let stranger = bench.come_back("", &answer(&begun.asks["state"])).await;
    assert!(is_refused(&stranger) && !stranger.body.contains("alert(1)"), "a link shows nothing of itself");
    let shown = bench.come_back(&begun.cookie, &answer(&begun.asks["state"])).await;
    assert!(is_refused(&shown));
    assert!(!shown.body.contains("<script>alert") && shown.body.contains("&#60;script&#62;alert(1)"), "{}", shown.body);
    assert!(!shown.body.contains('\u{202E}') && !shown.body.contains(&"x".repeat(200)), "one line of 200 characters");
    let begun = bench.begin(&bench.test.passer_by(), "").await;
    let bare =
        vec![pair("error", "server_error"), pair("state", &begun.asks["state"]), pair("iss", &bench.rogue.issuer)];
    assert!(said(&bench.come_back(&begun.cookie, &bare).await).contains("Not signed in"));
}

#[tokio::test]
async fn nothing_starts_by_a_link_or_from_another_site_a_041() {
    let bench = Bench::new().await;
    let passer_by = bench.test.passer_by();
    assert_eq!(passer_by.get("/sign-in/sso").await.status, 405);
    let foreign = passer_by.send("/sign-in/sso", "", FORM, &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!((foreign.status, foreign.header("refresh")), (403, None));
    let plain = passer_by.send("/sign-in/sso", "", "text/plain", &[SAME_ORIGIN]).await;
    assert_eq!(plain.status, 403);
    let without = TestBroker::start().await;
    let answer = without.passer_by().send("/sign-in/sso", "", FORM, &[SAME_ORIGIN]).await;
    assert_eq!((answer.status, answer.header("refresh")), (403, None), "no provider, no way there");
    assert!(!without.passer_by().get("/sign-in").await.body.contains("/sign-in/sso"));
    assert!(passer_by.get("/sign-in").await.body.contains("Sign in with your Contoso account"));
}

#[tokio::test]
async fn a_plain_sign_in_is_as_fresh_as_the_provider_says_and_no_fresher_a_081() {
    let bench = Bench::new().await;
    let test = &bench.test;
    let is_fresh = |visitor: Visitor| async move {
        let answer = visitor.post("/operators/dana", &[("action", "link")]).await;
        let to = answer.header("location").unwrap_or_default().to_owned();
        assert!(answer.status == 200 || to.starts_with("/sign-in/again?back="), "{} {to}", answer.status);
        answer.status == 200
    };
    // Somebody sits down at a browser that was left, where the session is stale and the provider still knows the person.
    let dana = Visitor { cookie: session(&bench.sign_in(|_| {}).await).unwrap(), ..test.passer_by() };
    assert!(is_fresh(dana.clone()).await);
    test.advance(301);
    assert!(!is_fresh(dana.clone()).await);
    let now = test.broker.now().seconds();
    for (what, auth_time, expected) in [
        ("this morning", json!(now - 8 * 3600), false),
        ("a second too long ago", json!(now - 301), false),
        ("it does not say", json!(null), false),
        ("a minute ago", json!(now - 60), true),
        ("by a clock that is ahead", json!(now + 3600), true),
    ] {
        let begun = bench.begin(&dana, "").await;
        let mut claims = bench.claims(&begun);
        claims["auth_time"] = auth_time;
        bench.rogue.change(|says| says.claims = claims);
        let cookies = format!("{}; {}", begun.cookie, dana.cookie);
        let answer = bench.come_back(&cookies, &bench.answer(&begun)).await;
        let visitor = Visitor { cookie: session(&answer).expect(what), ..test.passer_by() };
        assert_eq!(is_fresh(visitor.clone()).await, expected, "{what}");
        if what == "by a clock that is ahead" {
            test.advance(301);
            assert!(!is_fresh(visitor).await, "it counts from now");
        }
    }
}

#[tokio::test]
async fn a_fresh_sign_in_is_of_the_same_person_who_was_asked_anew_a_081() {
    let bench = Bench::new().await;
    let test = &bench.test;
    let dana = Visitor { cookie: session(&bench.sign_in(|_| {}).await).unwrap(), ..test.passer_by() };
    let emil = bench.sign_in(|says| says.claims["sub"] = json!("0002")).await;
    assert!(session(&emil).is_some());
    test.advance(301);
    let stale = dana.post("/operators/dana", &[("action", "link")]).await;
    assert_eq!(stale.status, 303);
    assert!(stale.header("location").unwrap().starts_with("/sign-in/again?back="), "{:?}", stale.header("location"));
    let again = |change: fn(&mut Says)| {
        let (bench, dana) = (&bench, &dana);
        async move {
            let begun = bench.begin(dana, "back=%2Foperators%2Fdana").await;
            assert_eq!((begun.asks["prompt"].as_str(), begun.asks["max_age"].as_str()), ("login", "0"));
            let claims = bench.claims(&begun);
            bench.rogue.change(|says| {
                says.claims = claims;
                change(says);
            });
            bench.come_back(&format!("{}; {}", begun.cookie, dana.cookie), &bench.answer(&begun)).await
        }
    };
    for (what, answer) in [
        ("another person", again(|says| says.claims["sub"] = json!("0002")).await),
        ("somebody new", again(|says| says.claims["sub"] = json!("0009")).await),
        (
            "not asked anew",
            again(|says| says.claims["auth_time"] = json!(says.claims["iat"].as_i64().unwrap() - 61)).await,
        ),
        ("no auth_time", again(|says| says.claims["auth_time"] = json!(null)).await),
    ] {
        assert!(is_refused(&answer), "{what}: {} {}", answer.status, answer.body);
        assert_eq!(answer.body.contains("the claim auth_time"), what == "no auth_time", "{}", answer.body);
    }
    assert_eq!(dana.post("/operators/dana", &[("action", "link")]).await.status, 303, "still not fresh");
    // Without the session that asked, it is no use.
    let begun = bench.begin(&dana, "back=%2F").await;
    let claims = bench.claims(&begun);
    bench.rogue.change(|says| says.claims = claims);
    assert!(is_refused(&bench.come_back(&begun.cookie, &bench.answer(&begun)).await));
    let fresh = again(|_| {}).await;
    assert_eq!((fresh.status, fresh.header("location")), (303, Some("/operators/dana")), "{}", fresh.body);
    let fresh = Visitor { cookie: session(&fresh).unwrap(), ..test.passer_by() };
    assert_eq!(fresh.post("/operators/dana", &[("action", "link")]).await.status, 200);
    assert_eq!(dana.get("/audit").await.status, 303, "the former session has ended");
    let elsewhere = bench.begin(&fresh, "back=https%3A%2F%2Fevil.example").await;
    let claims = bench.claims(&elsewhere);
    bench.rogue.change(|says| says.claims = claims);
    let answer = bench.come_back(&format!("{}; {}", elsewhere.cookie, fresh.cookie), &bench.answer(&elsewhere)).await;
    assert_eq!(answer.header("location"), Some("/"), "only paths of ours are returned to");
}
