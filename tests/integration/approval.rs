//! Opening a code and deciding: who may, what counts, and what an attacker on the web gets (design section 4, steps 4 and 5).

use std::sync::Arc;

use pairgate::broker::Caller;
use pairgate::model::operator::Role;
use pairgate::simulator::{RawAnswer, SimulatedDevice, TokenAnswer};

use crate::support::visitor::{FORM, SAME_ORIGIN, Visitor, encode, hidden, said};
use crate::support::{Setup, TestBroker};

/// A code of the right shape that is nobody's; each number gives another one.
fn nobodys(number: usize) -> String {
    const ALPHABET: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";
    let letter = |place: u32| char::from(ALPHABET[number / 20_usize.pow(place) % 20]);
    format!("PRN-BBBB-B{}{}{}{}", letter(3), letter(2), letter(1), letter(0))
}

async fn claim(visitor: &Visitor, code: &str) -> RawAnswer {
    visitor.post("/approve", &[("user_code", code)]).await
}

/// Claims a code that is good; the path of its page, without the query.
async fn claimed(visitor: &Visitor, code: &str) -> String {
    let answer = claim(visitor, code).await;
    assert_eq!(answer.status, 303, "{}", said(&answer));
    answer.header("location").unwrap().split('?').next().unwrap().to_owned()
}

/// The digest of what a page shows.
async fn shown(visitor: &Visitor, path: &str) -> String {
    hidden(&visitor.get(path).await.body, "shown")
}

/// Presses a button on an approve page.
async fn press(visitor: &Visitor, path: &str, action: &str, number: &str) -> RawAnswer {
    let shown = shown(visitor, path).await;
    visitor.post(path, &[("shown", &shown), ("number", number), ("action", action)]).await
}

/// A device with a code out, and the code.
async fn waiting(test: &TestBroker, id: &str) -> (SimulatedDevice, String) {
    let mut device = test.paired(id, "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    (device, code.user_code)
}

/// The number that the device shows now.
async fn number(test: &TestBroker, device: &mut SimulatedDevice) -> String {
    test.advance(60);
    test.pending(device).await.expect("a number")
}

/// Nothing has been decided.
async fn assert_undecided(test: &TestBroker, why: &str) {
    for event in ["grant.approved", "grant.denied", "grant.reported", "token.issued"] {
        assert_eq!(test.count(event).await, 0, "{event} after {why}");
    }
}

#[tokio::test]
async fn all_spellings_of_a_wrong_code_count_in_one_bucket_a_039() {
    let test = TestBroker::start().await;
    let (_, good) = waiting(&test, "lobby-printer-01").await;
    let dana = test.visitor("dana", Role::Approver).await;
    let wrong = nobodys(0);
    let wide: String = wrong
        .chars()
        .map(|c| if c.is_ascii_uppercase() { char::from_u32(u32::from(c) + 0xFEE0).unwrap() } else { c })
        .collect();
    let spellings = [
        wrong.clone(),
        wrong.to_lowercase(),
        wrong.replace('-', ""),
        wrong.replace('-', " "),
        wrong.replace('-', "–"),
        format!("\t{wrong} "),
        wrong[4..].to_owned(),
        wrong[4..].replace('-', "").to_lowercase(),
        wide,
        wrong.replace('-', "/"),
    ];
    for spelling in &spellings {
        assert_eq!(claim(&dana, spelling).await.status, 404, "{spelling}");
    }
    assert_eq!(test.count("user_code.refused").await, 10, "each counts once");
    assert_eq!(claim(&dana, &spellings[1]).await.status, 429);
    let answer = claim(&dana, &good).await;
    assert_eq!((answer.status, said(&answer).as_str()), (429, "Wait a little"), "a good code, too");
    assert_eq!(test.count("grant.claimed").await, 0);
    test.advance(599);
    assert_eq!(claim(&dana, &wrong).await.status, 429, "the ten minutes run from the first");
    test.advance(1);
    assert_eq!(claim(&dana, &wrong).await.status, 404);
}

#[tokio::test]
async fn a_right_code_gives_no_new_guesses_a_039() {
    let test = TestBroker::start().await;
    let (_, good) = waiting(&test, "lobby-printer-01").await;
    let dana = test.visitor("dana", Role::Approver).await;
    for guess in 0..9 {
        assert_eq!(claim(&dana, &nobodys(guess)).await.status, 404);
    }
    for _ in 0..3 {
        claimed(&dana, &good).await;
    }
    assert_eq!(claim(&dana, &nobodys(10)).await.status, 404, "the tenth: right codes cost nothing and reset nothing");
    assert_eq!(claim(&dana, &nobodys(11)).await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guesses_at_the_same_moment_are_not_cheaper_a_039() {
    let test = TestBroker::start().await;
    let dana = Arc::new(test.visitor("dana", Role::Approver).await);
    let csrf = dana.csrf().await;
    let guesses: Vec<_> = (0..40)
        .map(|guess| {
            let (dana, body) = (Arc::clone(&dana), encode(&[("csrf", &csrf), ("user_code", &nobodys(guess))]));
            tokio::spawn(async move { dana.send("/approve", &body, FORM, &[SAME_ORIGIN]).await.status })
        })
        .collect();
    let mut looked_up = 0;
    for guess in guesses {
        match guess.await.unwrap() {
            404 => looked_up += 1,
            status => assert_eq!(status, 429),
        }
    }
    assert_eq!(looked_up, 10, "of 40 guesses at once, as many are looked up as one after the other");
}

#[tokio::test]
async fn guesses_are_counted_per_address_and_in_all_a_039() {
    let setup = Setup { trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()], ..Setup::default() };
    let test = TestBroker::with(setup).await;
    let at = |mut visitor: Visitor, address: &str| {
        visitor.headers = vec![("x-forwarded-for".into(), address.into())];
        visitor
    };
    let mut people = Vec::new();
    for person in 0..32 {
        people.push(test.visitor(&format!("person-{person}"), Role::Approver).await);
    }
    let mut guess = 0;
    // Three people at one IPv6 network, each with an address of his own.
    for (person, visitor) in people.iter().take(3).enumerate() {
        let visitor = at(visitor.clone(), &format!("2001:db8::{person}"));
        for _ in 0..10 {
            guess += 1;
            assert_eq!(claim(&visitor, &nobodys(guess)).await.status, 404);
        }
    }
    assert_eq!(claim(&at(people[3].clone(), "2001:db8::ffff"), &nobodys(0)).await.status, 429, "the network is spent");
    assert_eq!(claim(&at(people[3].clone(), "2001:db8:0:1::1"), &nobodys(0)).await.status, 404, "another is not");
    // Many people, many addresses: 270 more make 300, and one was used above.
    for (person, visitor) in people.iter().enumerate().skip(4).take(27) {
        let visitor = at(visitor.clone(), &format!("198.51.100.{person}"));
        for _ in 0..if person == 30 { 9 } else { 10 } {
            guess += 1;
            assert_eq!(claim(&visitor, &nobodys(guess)).await.status, 404, "guess {guess}");
        }
    }
    assert_eq!(test.count("user_code.refused").await, 300);
    assert_eq!(claim(&at(people[31].clone(), "198.51.100.200"), &nobodys(0)).await.status, 429, "all are spent");
}

#[tokio::test]
async fn every_code_that_is_not_this_approvers_gets_one_answer_a_039() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let other = test.visitor("other", Role::Approver).await;

    let (mut device, spent) = waiting(&test, "printer-01").await;
    let path = claimed(&dana, &spent).await;
    let shows = number(&test, &mut device).await;
    assert_eq!(press(&dana, &path, "approve", &shows).await.status, 200);
    let (_, denied) = waiting(&test, "printer-02").await;
    let path = claimed(&dana, &denied).await;
    press(&dana, &path, "deny", "").await;
    let (_, expired) = waiting(&test, "printer-03").await;
    test.advance(300);
    let (_, anothers) = waiting(&test, "printer-04").await;
    claimed(&other, &anothers).await;
    let (mut device, replaced) = waiting(&test, "printer-05").await;
    device.request_code(None, None).await.unwrap();
    let (_, suspended) = waiting(&test, "printer-06").await;
    test.broker.suspend_device(&Caller::command_line(), "printer-06").await.unwrap();

    let unknown = claim(&dana, &nobodys(0)).await;
    assert_eq!(unknown.status, 404);
    let cases = [
        ("spent", spent),
        ("denied", denied),
        ("expired", expired),
        ("another's", anothers),
        ("replaced", replaced),
        ("suspended", suspended),
    ];
    for (what, code) in cases {
        let answer = claim(&dana, &code).await;
        assert_eq!((answer.status, &answer.body), (unknown.status, &unknown.body), "{what}");
        let names = |answer: &RawAnswer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&answer), names(&unknown), "{what}");
    }
    assert_eq!(claim(&dana, "").await.body, unknown.body);
    assert_eq!(claim(&dana, &"B".repeat(5000)).await.body, unknown.body);
}

#[test]
fn a_weak_code_is_refused_before_anything_starts_a_040() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("pairgate.toml");
    for weak in ["user_code_length = 4", "device_code_bits = 64", "[kinds.printer]\ncode_lifetime = 86400"] {
        std::fs::write(&file, weak).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pairgate"))
            .env_clear()
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data")
            .arg(data.path().join("data"))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{weak}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("pairgate.toml"), "{weak}: says where");
        assert!(!data.path().join("data").exists(), "{weak}: nothing was made");
    }
}

/// What it is, body, media type, headers.
type Hostile<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

#[tokio::test]
async fn forms_of_other_sites_change_nothing_a_041() {
    let test = TestBroker::start().await;
    let (mut device, code) = waiting(&test, "lobby-printer-01").await;
    let dana = test.visitor("dana", Role::Admin).await;
    let eve = test.visitor("eve", Role::Admin).await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let (shown, csrf, foreign) = (shown(&dana, &path).await, dana.csrf().await, eve.csrf().await);
    let fields = |csrf: &str, more: &[(&str, &str)]| {
        let own = [("csrf", csrf), ("shown", shown.as_str()), ("number", shows.as_str())];
        encode(&own.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let posts: [(&str, &[(&str, &str)]); 9] = [
        (&path, &[("action", "approve")]),
        (&path, &[("action", "deny")]),
        ("/approve", &[("user_code", &code)]),
        ("/devices", &[("id", "evil-printer"), ("kind", "printer"), ("name", "x")]),
        ("/devices/lobby-printer-01", &[("action", "suspend")]),
        ("/devices/lobby-printer-01", &[("action", "open_window")]),
        ("/pair", &[("action", "open_window")]),
        ("/report", &[]),
        ("/sign-out", &[]),
    ];
    let before = test.records().await.len();
    let evil = ("origin", "https://evil.example");
    let like_ours = format!("{}.evil.example", test.issuer);
    for (path, more) in posts {
        let good = fields(&csrf, more);
        let json = "{\"action\":\"approve\"}";
        let twice = format!("{good}&csrf={csrf}");
        let hostile: [Hostile<'_>; 15] = [
            ("foreign origin", &good, FORM, &[evil]),
            ("no origin that can be named", &good, FORM, &[("origin", "null")]),
            ("an origin that begins like ours", &good, FORM, &[("origin", &like_ours)]),
            ("cross-site", &good, FORM, &[("sec-fetch-site", "cross-site")]),
            ("same-site", &good, FORM, &[("sec-fetch-site", "same-site")]),
            ("cross-site with a foreign origin", &good, FORM, &[evil, ("sec-fetch-site", "cross-site")]),
            ("no token", &fields("", more), FORM, &[SAME_ORIGIN]),
            ("a wrong token", &fields("AAAA", more), FORM, &[SAME_ORIGIN]),
            ("the token of another session", &fields(&foreign, more), FORM, &[SAME_ORIGIN]),
            ("the token twice", &twice, FORM, &[SAME_ORIGIN]),
            ("text/plain", &good, "text/plain", &[SAME_ORIGIN]),
            ("text/plain without headers", &good, "text/plain", &[]),
            ("JSON", json, "application/json", &[SAME_ORIGIN]),
            ("multipart", &good, "multipart/form-data; boundary=x", &[SAME_ORIGIN]),
            ("no type", &good, "", &[SAME_ORIGIN]),
        ];
        for (what, body, media_type, headers) in hostile {
            let answer = dana.send(path, body, media_type, headers).await;
            assert_eq!((answer.status, said(&answer).as_str()), (403, "Not accepted"), "{path}: {what}");
        }
        let answer = test.passer_by().send(path, &good, FORM, &[SAME_ORIGIN]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")), "{path}: nobody");
    }
    assert_eq!(test.records().await.len(), before, "nothing happened");
    assert_eq!(number(&test, &mut device).await, shows, "the sign-in waits as before");
    // The same form from the page itself. A browser without Sec-Fetch-Site sends our origin.
    let answer = dana.send(&path, &fields(&csrf, &[("action", "approve")]), FORM, &[("origin", &test.issuer)]).await;
    assert_eq!(answer.status, 200, "{}", said(&answer));
    assert_eq!(test.count("grant.approved").await, 1);
}

#[tokio::test]
async fn an_old_session_posts_nothing_a_041() {
    let test = TestBroker::start().await;
    let (mut device, code) = waiting(&test, "lobby-printer-01").await;
    let dana = test.visitor("dana", Role::Approver).await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let fields = [
        ("csrf", &dana.csrf().await),
        ("shown", &shown(&dana, &path).await),
        ("number", &shows),
        ("action", &"approve".into()),
    ];
    let body = encode(&fields.map(|(name, value)| (name, value.as_str())));
    assert_eq!(dana.post("/sign-out", &[]).await.status, 303);
    let answer = dana.send(&path, &body, FORM, &[SAME_ORIGIN]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")), "the tab of before");
    // Signed in again, the form of before is still of another session.
    let again = test.another_session("dana").await;
    let answer = again.send(&path, &body, FORM, &[SAME_ORIGIN]).await;
    assert_eq!((answer.status, said(&answer).as_str()), (403, "Not accepted"));
    assert_undecided(&test, "an old form").await;
}

#[tokio::test]
async fn no_page_can_be_framed_or_loads_anything_foreign_a_042() {
    let test = TestBroker::start().await;
    let (_, code) = waiting(&test, "lobby-printer-01").await;
    let dana = test.visitor("dana", Role::Admin).await;
    let path = claimed(&dana, &code).await;
    let mut answers = Vec::new();
    for page in [
        "/",
        "/sign-in",
        "/sign-in?token=x",
        "/devices",
        "/devices?q=%3Cb%3E",
        "/devices/lobby-printer-01",
        "/devices/none",
        "/devices/%3Cb%3E",
        "/pair",
        "/pair/none",
        "/approve",
        "/approve?user_code=x",
        &path,
        "/approve/999",
        "/approve/none",
        "/audit",
        "/audit?before=x",
        "/nowhere",
        "/events/x",
        "/assets",
    ] {
        answers.push((page.to_owned(), dana.get(page).await));
        answers.push((format!("{page} signed out"), test.passer_by().get(page).await));
    }
    answers.push(("no token".into(), dana.send("/devices", "", FORM, &[SAME_ORIGIN]).await));
    answers.push(("cross-site".into(), dana.send("/devices", "", FORM, &[("sec-fetch-site", "cross-site")]).await));
    answers.push(("not ours".into(), claim(&dana, "x").await));
    answers.push(("refused".into(), dana.post("/devices", &[("id", "!")]).await));
    answers.push(("too large".into(), dana.post("/devices", &[("id", &"x".repeat(20_000))]).await));
    answers.push(("wrong method".into(), dana.post("/audit", &[]).await));
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
                  frame-ancestors 'none'";
    let mut statuses = Vec::new();
    for (page, answer) in answers {
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ] {
            let values: Vec<_> = answer.headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{page} ({}): {name}", answer.status);
        }
        statuses.push(answer.status);
    }
    for status in [200, 303, 403, 404, 405, 413, 422] {
        assert!(statuses.contains(&status), "a page with status {status} was looked at");
    }
}

#[tokio::test]
async fn whoever_opens_a_link_changes_nothing_a_043() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    test.register("lobby-printer-02", "printer").await;
    test.open_window("lobby-printer-02").await;
    let mut unpaired = test.stranger("lobby-printer-02");
    let pairing = unpaired.request_pairing().await.unwrap();
    unpaired.poll_pairing().await.unwrap();
    test.broker.add_operator(&Caller::command_line(), "lee", Role::Approver).await.unwrap();
    let link = test.link("lee").await;

    let before = test.records().await.len();
    let path = |address: &str| address.strip_prefix(&test.issuer).unwrap().to_owned();
    let addresses = [
        path(&code.verification_uri_complete),
        path(&code.verification_uri),
        path(&pairing.uri_complete),
        path(&pairing.uri),
        link.clone(),
    ];
    for address in &addresses {
        for visitor in [&dana, &test.passer_by()] {
            for headers in [
                &[][..],
                &[("purpose", "prefetch"), ("sec-purpose", "prefetch;prerender")],
                &[("sec-fetch-site", "cross-site")],
            ] {
                let answer = visitor.get_with(address, headers).await;
                assert!(matches!(answer.status, 200 | 303), "{address}: {}", answer.status);
            }
            let head = visitor.wire.send(
                visitor.with_headers(
                    reqwest::Client::builder()
                        .no_proxy()
                        .redirect(reqwest::redirect::Policy::none())
                        .build()
                        .unwrap()
                        .head(format!("{}{address}", test.issuer)),
                    &[],
                ),
            );
            assert!(matches!(head.await.unwrap().status, 200 | 303), "HEAD {address}");
        }
    }
    assert_eq!(test.records().await.len(), before, "nothing happened");
    test.advance(60);
    assert_eq!(test.pending(&mut device).await, None, "not claimed: no number");
    assert!(matches!(unpaired.poll_pairing().await.unwrap(), pairgate::simulator::PairingStatus::Pending { .. }));
    assert_eq!(test.passer_by().sign_in(&link).await.status, 303, "the link is still good");
    claimed(&dana, &code.user_code).await;
}

#[tokio::test]
async fn what_one_tab_showed_approves_nothing_in_another_a_044() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let (_, first) = waiting(&test, "printer-01").await;
    let (mut second_device, second) = waiting(&test, "printer-02").await;
    let first_path = claimed(&dana, &first).await;
    let first_shown = shown(&dana, &first_path).await;
    let second_path = claimed(&dana, &second).await;
    let shows = number(&test, &mut second_device).await;
    let answer = dana
        .post(
            &second_path,
            &[("shown", &first_shown), ("number", &shows), ("action", "approve"), ("user_code", &second)],
        )
        .await;
    assert_eq!(answer.status, 422);
    assert_eq!(said(&answer), "Something has changed since you opened this page. Look again.");
    for shown in ["", "x"] {
        assert_eq!(
            dana.post(&second_path, &[("shown", shown), ("number", &shows), ("action", "approve")]).await.status,
            422
        );
    }
    assert_undecided(&test, "a foreign digest").await;
    assert_eq!(test.count("grant.wrong_number").await, 0, "and no try was spent");
    // What comes back is a page of the second device, which can be approved.
    let fresh = hidden(&answer.body, "shown");
    let answer = dana.post(&second_path, &[("shown", &fresh), ("number", &shows), ("action", "approve")]).await;
    assert_eq!(answer.status, 200);
    test.advance(60);
    assert!(matches!(second_device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
}

#[tokio::test]
async fn a_page_whose_facts_have_changed_approves_nothing_a_044() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    test.set_networks(&["127.0.0.0/8"]).await;
    let (mut device, code) = waiting(&test, "printer-01").await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let page = dana.get(&path).await;
    assert!(page.body.contains("On the network of Berlin HQ"));
    test.set_networks(&["10.0.0.0/8"]).await;
    let old = hidden(&page.body, "shown");
    let answer = dana.post(&path, &[("shown", &old), ("number", &shows), ("action", "approve")]).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("Not on the network of Berlin HQ"), "the page says what is new");
    assert_undecided(&test, "facts that changed").await;
    // Denying is safe whatever the page showed.
    assert_eq!(dana.post(&path, &[("shown", &old), ("action", "deny")]).await.status, 200);
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Denied));
}

#[tokio::test]
async fn a_second_person_gets_nothing_and_is_noticed_a_045() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let mallory = test.visitor("mallory", Role::Admin).await;
    let (mut device, code) = waiting(&test, "printer-01").await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let shown = shown(&dana, &path).await;

    assert_eq!(claim(&mallory, &code).await.status, 404);
    assert_eq!(test.count("grant.second_approver").await, 1, "an alert");
    let alert = test.records().await.into_iter().find(|record| record.event == "grant.second_approver").unwrap();
    assert_eq!(
        (alert.severity.as_str(), alert.actor.as_str(), alert.device.as_deref()),
        ("alert", "operator:mallory", Some("printer-01"))
    );
    let page = mallory.get(&path).await;
    assert_eq!(page.status, 404);
    assert_eq!(page.body, mallory.get("/approve/999").await.body, "as if there were none");
    for action in ["approve", "deny", "report"] {
        let answer = mallory.post(&path, &[("shown", &shown), ("number", &shows), ("action", action)]).await;
        assert_eq!((answer.status, said(&answer).as_str()), (409, "Not approved"), "{action}");
    }
    assert_undecided(&test, "a second person").await;
    assert_eq!(press(&dana, &path, "approve", &shows).await.status, 200, "the first still can");
    assert_eq!(test.count("grant.approved").await, 1);
}

#[tokio::test]
async fn nobody_decides_what_nobody_has_opened_a_045() {
    let test = TestBroker::start().await;
    let mallory = test.visitor("mallory", Role::Admin).await;
    let (mut device, _) = waiting(&test, "printer-01").await;
    for action in ["approve", "deny", "report"] {
        assert_eq!(
            mallory.post("/approve/1", &[("shown", "x"), ("number", ""), ("action", action)]).await.status,
            409,
            "{action}"
        );
    }
    assert_undecided(&test, "a decision without a claim").await;
    test.advance(60);
    assert_eq!(test.pending(&mut device).await, None);
}

#[tokio::test]
async fn only_the_word_approve_approves_a_046() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let (mut device, code) = waiting(&test, "printer-01").await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let shown = shown(&dana, &path).await;
    for action in ["foo", "", "Approve", "APPROVE", "approve,deny", "approved", "true", "pair_by_qr", "retire"] {
        let answer = dana.post(&path, &[("shown", &shown), ("number", &shows), ("action", action)]).await;
        assert_eq!((answer.status, said(&answer).as_str()), (403, "Not accepted"), "'{action}'");
    }
    assert_eq!(dana.post(&path, &[("shown", &shown), ("number", &shows)]).await.status, 403, "no action");
    for both in [["approve", "deny"], ["deny", "approve"], ["approve", "approve"]] {
        let answer =
            dana.post(&path, &[("shown", &shown), ("number", &shows), ("action", both[0]), ("action", both[1])]).await;
        assert_eq!(answer.status, 403, "{both:?}");
    }
    assert_undecided(&test, "a wrong word").await;
    assert_eq!(number(&test, &mut device).await, shows);
}

#[tokio::test]
async fn the_first_decision_stands_a_046() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    for (device_id, first, second) in [
        ("printer-01", "approve", "deny"),
        ("printer-02", "deny", "approve"),
        ("printer-03", "report", "approve"),
        ("printer-04", "approve", "report"),
    ] {
        let (mut device, code) = waiting(&test, device_id).await;
        let path = claimed(&dana, &code).await;
        let shows = number(&test, &mut device).await;
        let shown = shown(&dana, &path).await;
        let post = async |action: &str| {
            dana.post(&path, &[("shown", &shown), ("number", &shows), ("action", action)]).await.status
        };
        assert_eq!(post(first).await, 200, "{first}");
        assert_eq!(post(second).await, 409, "{second} after {first}");
        assert_eq!(post(first).await, 409, "{first} twice");
        test.advance(60);
        let answer = device.poll_token(None).await.unwrap();
        match first {
            "approve" => assert!(matches!(answer, TokenAnswer::Tokens(_)), "{answer:?}"),
            _ => assert!(matches!(answer, TokenAnswer::Denied), "{answer:?}"),
        }
        assert_eq!(post(second).await, 409, "{second} after the device was told");
    }
    assert_eq!(
        (test.count("grant.approved").await, test.count("grant.denied").await, test.count("grant.reported").await),
        (2, 1, 1)
    );
    assert_eq!(test.count("token.issued").await, 2);
}

#[tokio::test]
async fn after_its_time_nothing_is_approved_a_046() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let (mut device, code) = waiting(&test, "printer-01").await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let shown = shown(&dana, &path).await;
    test.advance(240);
    assert_eq!(dana.post(&path, &[("shown", &shown), ("number", &shows), ("action", "approve")]).await.status, 409);
    assert_eq!(dana.get(&path).await.status, 404);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Expired));
    assert_undecided(&test, "expiry").await;
}

#[tokio::test]
async fn three_wrong_numbers_deny() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let (mut device, code) = waiting(&test, "printer-01").await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let wrong = if shows == "00" { "01" } else { "00" };
    for left in [2, 1] {
        let answer = press(&dana, &path, "approve", wrong).await;
        assert_eq!(answer.status, 422);
        assert_eq!(said(&answer), format!("That is not the number that the device shows. Tries left: {left}."));
    }
    // Opening the code again gives another number, but no new tries.
    claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let wrong = if shows == "00" { "01" } else { "00" };
    let answer = press(&dana, &path, "approve", wrong).await;
    assert_eq!(answer.status, 409);
    assert!(answer.body.contains("That was the third wrong number. The sign-in was denied."));
    assert_eq!((test.count("grant.wrong_number").await, test.count("grant.denied").await), (3, 1));
    assert_eq!(
        dana.post(&path, &[("shown", "x"), ("number", &shows), ("action", "approve")]).await.status,
        409,
        "too late"
    );
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Denied));
}

/// Somebody who does not see the device sends all numbers at once: the tries are for all of them together.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_numbers_at_the_same_moment_deny() {
    let test = TestBroker::start().await;
    let dana = Arc::new(test.visitor("dana", Role::Approver).await);
    let (mut device, code) = waiting(&test, "printer-01").await;
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let (csrf, shown) = (dana.csrf().await, shown(&dana, &path).await);
    let send = |typed: String| {
        let fields = [("csrf", csrf.as_str()), ("shown", &shown), ("number", &typed), ("action", "approve")];
        let (dana, path, body) = (Arc::clone(&dana), path.clone(), encode(&fields));
        tokio::spawn(async move { dana.send(&path, &body, FORM, &[SAME_ORIGIN]).await.status })
    };
    // The right one comes last: it must be none of the three that count.
    let wrong = (0..100).map(|typed| format!("{typed:02}")).filter(|typed| *typed != shows);
    let answers: Vec<_> = wrong.map(&send).collect();
    let mut tried = 0;
    for answer in answers {
        tried += usize::from(answer.await.unwrap() == 422);
    }
    assert!(tried <= 2, "{tried} answers leave further tries");
    assert_eq!(send(shows.clone()).await.unwrap(), 409, "the right one, too late");
    assert_eq!((test.count("grant.wrong_number").await, test.count("grant.denied").await), (3, 1));
    assert_eq!(test.count("grant.approved").await, 0);
}

#[tokio::test]
async fn what_is_no_number_is_a_wrong_one() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    for (place, typed) in ["", "7", "777", "٠٧", "0x1", "%", "-1", "７７"].into_iter().enumerate() {
        let (mut device, code) = waiting(&test, &format!("printer-{place}")).await;
        let path = claimed(&dana, &code).await;
        number(&test, &mut device).await;
        assert_eq!(press(&dana, &path, "approve", typed).await.status, 422, "'{typed}'");
    }
    assert_undecided(&test, "no number").await;
}

/// A kind whose devices can't show a number is approved on its site's network, and nowhere else.
#[tokio::test]
async fn without_a_number_the_network_is_what_counts() {
    let test = TestBroker::with_kind("printer", |kind| kind.confirmation_number = false).await;
    let dana = test.visitor("dana", Role::Approver).await;
    for (id, networks) in [("printer-01", &[][..]), ("printer-02", &["10.0.0.0/8"])] {
        test.set_networks(networks).await;
        let (mut device, code) = waiting(&test, id).await;
        let path = claimed(&dana, &code).await;
        assert!(!dana.get(&path).await.body.contains("name=\"number\""), "no number is asked for");
        test.advance(60);
        assert_eq!(test.pending(&mut device).await, None, "none is shown");
        for number in ["", "00"] {
            let answer = press(&dana, &path, "approve", number).await;
            assert_eq!(answer.status, 422, "{networks:?}");
            assert!(
                said(&answer).starts_with("This device is not known to be on its site's network"),
                "{}",
                said(&answer)
            );
        }
        assert_eq!(press(&dana, &path, "approve", "").await.status, 409, "the third time denies");
    }
    test.set_networks(&["127.0.0.0/8"]).await;
    let (mut device, code) = waiting(&test, "printer-03").await;
    let path = claimed(&dana, &code).await;
    assert_eq!(press(&dana, &path, "approve", "").await.status, 200);
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
    assert_eq!(test.count("grant.approved").await, 1);
}

#[tokio::test]
async fn a_number_is_good_for_one_sign_in_and_one_claim() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let (mut first, first_code) = waiting(&test, "printer-01").await;
    let (mut second, second_code) = waiting(&test, "printer-02").await;
    let first_path = claimed(&dana, &first_code).await;
    let second_path = claimed(&dana, &second_code).await;
    let first_shows = number(&test, &mut first).await;
    let mut second_shows = number(&test, &mut second).await;
    // One in a hundred is the same number.
    while second_shows == first_shows {
        claimed(&dana, &second_code).await;
        second_shows = number(&test, &mut second).await;
    }
    assert_eq!(press(&dana, &second_path, "approve", &first_shows).await.status, 422, "the number of another device");

    claimed(&dana, &first_code).await;
    let mut again = number(&test, &mut first).await;
    while again == first_shows {
        claimed(&dana, &first_code).await;
        again = number(&test, &mut first).await;
    }
    assert_eq!(
        press(&dana, &first_path, "approve", &first_shows).await.status,
        422,
        "a number that the device showed before"
    );
    assert_undecided(&test, "stale numbers").await;
    assert_eq!(
        press(&dana, &first_path, "approve", &format!(" {} {} ", &again[..1], &again[1..])).await.status,
        200,
        "spaces are forgiven"
    );
}

#[tokio::test]
async fn who_may_not_approve_can_neither_open_nor_decide() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let (mut device, code) = waiting(&test, "printer-01").await;
    for role in [Role::Viewer, Role::Technician] {
        let person = test.visitor(role.as_str(), role).await;
        let answer = claim(&person, &code).await;
        assert_eq!((answer.status, said(&answer).as_str()), (403, "Not allowed"), "{role:?}");
        assert_eq!(claim(&person, &nobodys(0)).await.body, answer.body, "{role:?}: learns nothing about codes");
    }
    test.advance(60);
    assert_eq!(test.pending(&mut device).await, None, "nothing was claimed");
    let path = claimed(&dana, &code).await;
    let shows = number(&test, &mut device).await;
    let shown = shown(&dana, &path).await;
    for name in ["viewer", "technician"] {
        let person = test.another_session(name).await;
        assert_eq!(person.get(&path).await.status, 403, "{name}");
        for action in ["approve", "deny", "report"] {
            let answer = person.post(&path, &[("shown", &shown), ("number", &shows), ("action", action)]).await;
            assert_eq!(answer.status, 403, "{name}: {action}");
        }
    }
    assert_undecided(&test, "roles that may not").await;
    assert_eq!(test.count("user_code.refused").await, 0);
}

#[tokio::test]
async fn each_role_does_what_the_table_says_and_no_more() {
    let test = TestBroker::start().await;
    test.paired("printer-01", "printer").await;
    for role in [Role::Viewer, Role::Technician, Role::Approver] {
        let person = test.visitor(role.as_str(), role).await;
        let pairs = if role.may_pair() { 303 } else { 422 };
        let new = format!("new-{}", role.as_str());
        assert_eq!(
            person.post("/devices", &[("id", &new), ("kind", "printer"), ("name", "x")]).await.status,
            pairs,
            "{role:?}: register"
        );
        for action in ["open_window", "close_window"] {
            assert_eq!(
                person.post("/devices/printer-01", &[("action", action)]).await.status,
                pairs,
                "{role:?}: {action}"
            );
            assert_eq!(person.post("/pair", &[("action", action)]).await.status, pairs, "{role:?}: site, {action}");
        }
        // Stopping is for everybody who pairs: a minute counts. Letting on again is not.
        for action in ["suspend", "stolen"] {
            let answer = person.post("/devices/printer-01", &[("action", action)]).await;
            assert_eq!(answer.status, pairs, "{role:?}: {action}");
            if role.may_pair() {
                test.broker.resume_stolen(&Caller::command_line(), "printer-01", "printer-01").await.unwrap();
            }
        }
        for action in ["resume", "resume_stolen", "retire", "replace"] {
            let answer = person.post("/devices/printer-01", &[("action", action), ("confirm", "printer-01")]).await;
            assert_eq!(answer.status, 422, "{role:?}: {action}");
            assert_eq!(said(&answer), "Your role does not allow this; ask an administrator.");
        }
    }
    for event in ["device.retired", "device.replaced"] {
        assert_eq!(test.count(event).await, 0, "{event}");
    }
    let admin = test.visitor("admin", Role::Admin).await;
    assert_eq!(admin.post("/devices/printer-01", &[("action", "suspend")]).await.status, 303);
    assert_eq!(admin.post("/devices/printer-01", &[("action", "resume")]).await.status, 303);
    assert_eq!(
        admin.post("/devices/printer-01", &[("action", "retire"), ("confirm", "printer-1")]).await.status,
        422,
        "another word"
    );
    assert_eq!(admin.post("/devices/printer-01", &[("action", "retire"), ("confirm", "printer-01")]).await.status, 303);
}
