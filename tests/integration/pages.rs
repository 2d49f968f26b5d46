//! The pages for people: what is typed into them, what they tell, who is signed in and for how long.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::model::operator::Role;
use pairgate::simulator::{DeviceKey, PairingStatus, SimulatedDevice, TokenAnswer, Wire, form};

use crate::support::visitor::{FORM, SAME_ORIGIN, Visitor, encode, hidden, said};
use crate::support::{Setup, TestBroker, post};

/// Fields of a device that is fine, with these changed.
fn fields<'a>(changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![("id", "lobby-printer-01"), ("kind", "printer"), ("name", "Lobby printer")];
    fields.retain(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    fields.extend(changed);
    fields
}

#[tokio::test]
async fn hostile_names_are_refused_and_what_was_typed_stays_a_049() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    let (long, long_note) = ("x".repeat(10_000), "x".repeat(501));
    for (field, value, says) in [
        ("name", "Printer-3\u{202E}gpj", "U+202E"),
        ("name", "Print\u{200B}er", "U+200B"),
        ("name", "Prin\u{0442}er", "mixes alphabets"),
        ("name", "\u{0391}dmin", "mixes alphabets"),
        ("name", "a\u{1b}[31mb", "control characters"),
        ("name", "a\nb", "control characters"),
        ("name", "a\u{0}b", "control characters"),
        ("name", long.as_str(), "longer than 80"),
        ("room", "\u{2066}1", "U+2066"),
        ("serial", "1\u{FEFF}2", "U+FEFF"),
        ("asset_tag", "4\u{E0041}711", "U+E0041"),
        ("maker", "Ac\u{0441}e", "mixes alphabets"),
        ("model", "M\u{AD}480f", "U+00AD"),
        ("note", long_note.as_str(), "longer than 500"),
        ("id", "Lobby-Printer", "3 to 64 characters"),
        ("id", "lobby printer", "3 to 64 characters"),
        ("id", "lobby-prіnter", "3 to 64 characters"),
        ("id", "../etc", "3 to 64 characters"),
        ("id", "#", "3 to 64 characters"),
        ("kind", "submarine", "is unknown"),
    ] {
        let mut typed = fields(&[(field, value)]);
        if field != "note" {
            typed.push(("note", "a <b>note</b> & more"));
        }
        let answer = dana.post("/devices", &typed).await;
        assert_eq!(answer.status, 422, "{field} {value:?}");
        assert!(said(&answer).contains(says), "{field} {value:?}: {}", said(&answer));
        let form = form::forms(&answer.body)
            .into_iter()
            .find(|form| form.action == "/devices" && form.method == "post")
            .unwrap();
        for (name, typed) in typed.iter().filter(|(name, _)| !["kind", "note"].contains(name)) {
            assert_eq!(form.value(name), Some(*typed), "{field} {value:?}: {name} stays");
        }
        assert!(!answer.body.contains("<b>note"), "escaped");
        assert!(
            field == "note" || form::unescape(&answer.body).contains("a <b>note</b> & more</textarea>"),
            "the note stays"
        );
    }
    assert_eq!(test.count("device.registered").await, 0);
    // All that is wrong is said at once.
    let answer = dana.post("/devices", &fields(&[("name", "a\u{202E}b"), ("room", "c\u{202E}d")])).await;
    assert!(said(&answer).contains("Name") && said(&answer).contains("oom"), "{}", said(&answer));
}

#[tokio::test]
async fn honest_names_of_any_language_are_kept_and_isolated_a_049() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    for (place, (typed, kept)) in [
        ("Étage 2 – “salle”", "Étage 2 – “salle”"),
        ("Bu\u{308}ro", "Büro"),
        ("Принтер 3", "Принтер 3"),
        ("プリンター 3", "プリンター 3"),
        ("طابعة الردهة", "طابعة الردهة"),
        ("מדפסת 3", "מדפסת 3"),
        ("  Lobby   printer  ", "Lobby printer"),
        ("📠 Fax", "📠 Fax"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("printer-{place}");
        let answer = dana.post("/devices", &fields(&[("id", &id), ("name", typed), ("room", typed)])).await;
        assert_eq!(answer.status, 303, "{typed}: {}", said(&answer));
        let isolated = format!("<bdi>{kept}</bdi>");
        for page in ["/devices".to_owned(), format!("/devices/{id}"), "/pair".to_owned()] {
            let body = dana.get(&page).await.body;
            assert!(body.contains(&isolated), "{page}: {kept}");
        }
    }
}

const SCRIPTS: [&str; 5] = [
    "\"><script>alert(1)</script>",
    "'><img src=x onerror=alert(1)>",
    "</textarea><svg onload=alert(1)>",
    "javascript:alert(1)//\" onfocus=alert(1) autofocus x=\"",
    "{{7*7}}${7*7}<%= 7*7 %>",
];

/// Does a page hold markup that came from outside, or has a template computed with it?
fn assert_escaped(place: &str, body: &str) {
    for live in [
        "<script>alert",
        "<img src=x",
        "<svg onload",
        "\" onfocus=",
        "' onfocus=",
        "href=\"javascript",
        "href='javascript",
    ] {
        assert!(!body.contains(live), "{place}: {live} in\n{body}");
    }
    assert!(!body.contains("49${"), "{place}: computed");
}

#[tokio::test]
async fn script_is_text_wherever_it_comes_from_a_050() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    let claim = dana.post("/approve", &[("user_code", &code.user_code)]).await;
    let grant = claim.header("location").unwrap().split('?').next().unwrap().to_owned();
    for (place, script) in SCRIPTS.into_iter().enumerate() {
        let in_query = encode(&[("x", script)]).split_off(2);
        let in_path = in_query.replace('+', "%20");
        for page in [
            format!("/approve?user_code={in_query}"),
            format!("{grant}?user_code={in_query}"),
            format!("/approve/{in_path}"),
            format!("/devices?q={in_query}"),
            format!("/devices/{in_path}"),
            format!("/pair/{in_path}?key={in_query}"),
            format!("/sign-in?token={in_query}"),
            format!("/audit?before={in_query}"),
            format!("/{in_path}"),
            format!("/assets/{in_path}"),
        ] {
            for visitor in [&dana, &test.passer_by()] {
                assert_escaped(&page, &visitor.get(&page).await.body);
            }
        }
        for (page, more) in [
            ("/approve", vec![("user_code", script)]),
            ("/devices", fields(&[("id", script), ("kind", script)])),
            ("/devices/lobby-printer-01", vec![("action", script)]),
            ("/devices/lobby-printer-01", vec![("action", "retire"), ("confirm", script)]),
            ("/pair/nowhere", vec![("action", "pair_by_qr"), ("key", script)]),
            (&grant, vec![("action", "approve"), ("shown", script), ("number", "1"), ("user_code", script)]),
            (&grant, vec![("action", script)]),
            ("/sign-in", vec![("token", script)]),
        ] {
            assert_escaped(page, &dana.post(page, &more).await.body);
        }
        // Stored: such a name is legal text, and is text on every page.
        let id = format!("printer-{place}");
        let stored = ["name", "serial", "asset_tag", "maker", "model", "room", "note"].map(|field| (field, script));
        let typed: Vec<_> = [("id", id.as_str()), ("kind", "printer")].into_iter().chain(stored).collect();
        assert_eq!(dana.post("/devices", &typed).await.status, 303, "{script}");
        let mut claims_much = test.stranger(&id);
        (claims_much.serial, claims_much.model, claims_much.firmware) = (script.into(), script.into(), script.into());
        test.open_window(&id).await;
        let pairing = claims_much.request_pairing().await.unwrap();
        claims_much.poll_pairing().await.unwrap();
        let pairing = format!("/pair/{}", pairing.pairing_id);
        for page in ["/", "/devices", &format!("/devices/{id}"), "/pair", &pairing, "/audit"] {
            let body = dana.get(page).await.body;
            assert_escaped(page, &body);
            if page == pairing {
                assert!(form::unescape(&body).contains(&format!("says it is {script}")), "shown as the device says it");
            }
        }
        let done = dana.post(&pairing, &[("action", "refuse")]).await;
        assert_eq!(done.status, 200);
        assert_escaped("refused", &done.body);
    }
}

#[tokio::test]
async fn a_code_of_somebody_else_is_recognised_and_can_be_reported_a_051_a_053() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    // An attacker's box gets no code of ours; so what a victim is sent is a code of somebody else.
    let error = test.stranger("conference-room-app").request_code(None, None).await.unwrap_err();
    assert_eq!(error.oauth_error(), Some("invalid_client"));
    let foreign =
        ["A1B2C3D4E", "WDJB-MJHT", "ABC-DEF-GHI", "ABCD-1234", "123 456 789", "https://evil.example/d?c=QQQQ1111"];
    for code in foreign {
        let answer = dana.post("/approve", &[("user_code", code)]).await;
        assert_eq!(
            (answer.status, said(&answer).as_str()),
            (404, "That code did not come from one of our devices."),
            "{code}"
        );
        assert!(!answer.body.contains(code), "not repeated");
        assert!(form::forms(&answer.body).iter().any(|form| form.action == "/report"));
    }
    assert_eq!(test.count("user_code.refused").await, foreign.len());
    assert!(test.broker.pending_grants(&Caller::command_line(), 10).await.unwrap().is_empty(), "nothing was minted");
    assert_eq!(test.count("user_code.reported").await, 0);
    let answer = dana.post("/report", &[]).await;
    assert_eq!((answer.status, said(&answer).as_str()), (200, "Reported"));
    let report = test.records().await.into_iter().find(|record| record.event == "user_code.reported").unwrap();
    assert_eq!((report.severity.as_str(), report.actor.as_str()), ("alert", "operator:dana"));
    for needle in ["A1B2C3D4E", "WDJB", "ABCD-1234", "QQQQ1111"] {
        assert_nowhere_in(test.data.path(), needle);
    }
}

/// No file below a directory holds this.
fn assert_nowhere_in(directory: &std::path::Path, needle: &str) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!found, "{needle} is in {}", path.display());
    }
}

/// `pairgate serve` as a process of its own, logging all that it can.
struct Served {
    child: Child,
    issuer: String,
    link: String,
    data: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pairgate"))
            .env_clear()
            .env("PAIRGATE_DATA", data.path())
            .env("PAIRGATE_LOG", "trace")
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let issuer = lines.find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned())).unwrap();
        let link = lines.find(|line| line.contains("/sign-in?token=")).unwrap().trim().to_owned();
        Self { child, issuer, link, data }
    }

    /// Stops it as a service manager does and returns all that it logged.
    fn stop(&mut self) -> String {
        let mut stderr = self.child.stderr.take().unwrap();
        // The shell's own `kill`: not every machine has a program of that name.
        let asked =
            Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        assert!(self.child.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn neither_log_nor_database_nor_address_holds_a_secret_a_052() {
    let mut served = Served::start();
    let wire = Wire::new().unwrap();
    let mut visitor =
        Visitor { wire: wire.clone(), issuer: served.issuer.clone(), cookie: String::new(), headers: Vec::new() };
    let link = served.link.strip_prefix(&served.issuer).unwrap().to_owned();
    let mut answers = vec![visitor.get(&link).await, visitor.sign_in(&link).await];
    let csrf = visitor.csrf().await;
    answers.push(visitor.post("/devices", &fields(&[])).await);
    answers.push(visitor.post("/devices/lobby-printer-01", &[("action", "open_window")]).await);

    let key = DeviceKey::generate_es256().unwrap();
    let mut device = SimulatedDevice::new("lobby-printer-01", &served.issuer, key, wire.clone());
    let pairing = device.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
    let page = format!("/pair/{}", pairing.pairing_id);
    answers.push(visitor.post(&page, &[("action", "pair_by_number"), ("number", &digits)]).await);
    device.poll_pairing().await.unwrap();

    let code = device.request_code(None, None).await.unwrap();
    answers.push(visitor.get(code.verification_uri_complete.strip_prefix(&served.issuer).unwrap()).await);
    answers.push(visitor.post("/approve", &[("user_code", &code.user_code)]).await);
    let claimed = answers.last().unwrap().header("location").unwrap().to_owned();
    answers.push(visitor.get(&claimed).await);
    // A held poll is answered at once when there is news, and may then be followed at once.
    let TokenAnswer::Pending { confirmation_number: Some(number) } = device.poll_token(Some(20)).await.unwrap() else {
        panic!("no number")
    };
    let shown = hidden(&answers.last().unwrap().body, "shown");
    let path = claimed.split('?').next().unwrap();
    answers.push(visitor.post(path, &[("shown", &shown), ("number", &number), ("action", "approve")]).await);
    assert_eq!(answers.last().unwrap().status, 200);
    let TokenAnswer::Tokens(tokens) = device.poll_token(Some(20)).await.unwrap() else { panic!("no tokens") };
    let first_refresh = tokens.refresh_token.clone().unwrap();
    let TokenAnswer::Tokens(renewed) = device.refresh().await.unwrap() else { panic!("no tokens") };
    // What goes wrong is logged, too.
    answers.push(visitor.post("/approve", &[("user_code", &code.user_code)]).await);
    answers.push(visitor.get("/sign-in?token=c2VjcmV0LXRva2VuLXRoYXQtaXMtbm9uZQ").await);
    let scanned = format!("/approve?user_code={}", code.user_code);
    answers.push(visitor.send(&scanned, "", FORM, &[("sec-fetch-site", "cross-site")]).await);
    answers.push(visitor.get("/audit").await);
    answers.push(visitor.get("/devices/lobby-printer-01").await);
    for answer in &answers {
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{}", said(answer));
        assert!(!answer.headers.contains_key("refresh"));
    }

    let log = served.stop();
    assert!(log.lines().count() > 2, "something was logged:\n{log}");
    let plain: String = code.user_code.chars().filter(char::is_ascii_alphabetic).collect();
    let session = visitor.cookie.split_once('=').unwrap().1.to_owned();
    let sign_in_token = link.split_once("token=").unwrap().1.to_owned();
    let secrets = [
        ("user code", code.user_code.clone()),
        ("user code without dashes", plain.clone()),
        ("user code without prefix", plain[3..].to_owned()),
        ("user code without prefix, with dash", code.user_code[4..].to_owned()),
        ("device code", code.device_code.clone()),
        ("access token", tokens.access_token.clone()),
        ("its signature", tokens.access_token.rsplit('.').next().unwrap().to_owned()),
        ("refresh token", first_refresh),
        ("second refresh token", renewed.refresh_token.clone().unwrap()),
        ("second access token", renewed.access_token.clone()),
        ("session", session),
        ("sign-in link", sign_in_token),
        ("form token", csrf),
        ("digest of what was shown", shown),
        ("a wrong link", "c2VjcmV0LXRva2VuLXRoYXQtaXMtbm9uZQ".into()),
    ];
    let last_pages: String = answers.iter().rev().take(2).map(|answer| answer.body.as_str()).collect();
    for (what, secret) in &secrets {
        assert!(!log.contains(secret.as_str()), "the log holds the {what}");
        assert_nowhere_in(served.data.path(), secret);
        assert!(*what == "form token" || !last_pages.contains(secret.as_str()), "audit and history show the {what}");
    }
    for (what, secret) in secrets.iter().filter(|(what, _)| !what.starts_with("user code")) {
        for answer in &answers {
            assert!(
                answer.header("location").is_none_or(|location| !location.contains(secret.as_str())),
                "a redirect carries the {what}"
            );
        }
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_says_where_somebody_is_a_086() {
    let forwarded = [
        ("x-forwarded-for", "10.0.0.1, 203.0.113.9"),
        ("forwarded", "for=198.51.100.7"),
        ("x-real-ip", "198.51.100.8"),
    ];
    for (trusted, seen) in [(vec![], "127.0.0.1"), (vec!["127.0.0.0/8".parse().unwrap()], "203.0.113.9")] {
        let test = TestBroker::with(Setup { trusted_proxies: trusted, ..Setup::default() }).await;
        test.set_networks(&["203.0.113.0/24"]).await;
        let mut dana = test.visitor("dana", Role::Admin).await;
        dana.headers = forwarded.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        dana.post("/devices", &fields(&[])).await;
        let record = test.records().await.into_iter().find(|record| record.event == "device.registered").unwrap();
        assert_eq!(record.peer.as_deref(), Some(seen));
        // A device can't forge its way onto the site's network.
        let mut device = test.stranger("lobby-printer-01");
        test.pair(&mut device).await;
        let proof = |nonce: Option<&str>| {
            device
                .proof(
                    "POST",
                    &format!("{}/device_authorization", test.issuer),
                    nonce,
                    &format!("{:032}", nonce.map_or(0, str::len)),
                )
                .unwrap()
        };
        let ask = async |proof: &str| {
            device
                .post_form(
                    "/device_authorization",
                    &[("client_id", "lobby-printer-01")],
                    &[("dpop", proof), forwarded[0]],
                )
                .await
                .unwrap()
        };
        let nonce = ask(&proof(None)).await.header("dpop-nonce").unwrap().to_owned();
        let answer = ask(&proof(Some(&nonce))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let code = answer.json().unwrap()["user_code"].as_str().unwrap().to_owned();
        let claim = dana.post("/approve", &[("user_code", &code)]).await;
        let page = dana.get(claim.header("location").unwrap()).await.body;
        assert!(page.contains(if seen == "127.0.0.1" { "Not on the network" } else { "On the network of" }), "{page}");
        assert!(page.contains(seen));
    }
}

#[tokio::test]
async fn another_host_gets_nothing_a_087() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let port = test.issuer.rsplit(':').next().unwrap();
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        &format!("localhost:{port}"),
        "127.0.0.1",
        &format!("127.0.0.1.evil.example:{port}"),
        "",
    ] {
        for path in ["/", "/events", "/sign-in", "/jwks", "/assets/x"] {
            let answer = dana.get_with(path, &[("host", host)]).await;
            assert_eq!(answer.status, 421, "{host} {path}");
            assert!(!answer.body.contains('<'), "no page");
        }
        assert_eq!(
            post(&test.wire, &format!("{}/token", test.issuer), &[], &[("host", host)]).await.status,
            421,
            "{host}"
        );
    }
    // No page of another origin may read an answer: there are no CORS headers, and a preflight is not answered.
    for path in ["/", "/audit", "/jwks", "/.well-known/oauth-authorization-server", "/sign-in"] {
        let answer = dana.get_with(path, &[("origin", "https://evil.example")]).await;
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{path}");
    }
}

async fn is_in(visitor: &Visitor) -> bool {
    let answer = visitor.get("/").await;
    assert!(answer.status == 200 || answer.header("location") == Some("/sign-in"), "{}", answer.status);
    answer.status == 200
}

#[tokio::test]
async fn a_session_ends_after_an_hour_unused_and_twelve_hours_used() {
    let test = TestBroker::start().await;
    let idle = test.visitor("idle", Role::Viewer).await;
    let busy = test.visitor("busy", Role::Viewer).await;
    for _ in 0..12 {
        test.advance(3599);
        assert!(is_in(&busy).await, "used within the hour");
    }
    assert!(!is_in(&idle).await, "unused for an hour");
    test.advance(11);
    assert!(is_in(&busy).await, "a second before the twelve hours");
    test.advance(1);
    assert!(!is_in(&busy).await, "twelve hours after signing in, however busy");
    let short = test.another_session("idle").await;
    test.advance(3599);
    assert!(is_in(&short).await);
    test.advance(3600);
    assert!(!is_in(&short).await, "an hour after the last use");
}

#[tokio::test]
async fn a_page_that_is_left_open_does_not_keep_its_session_alive_a_047() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Viewer).await;
    let session = async |headers: &[(&str, &str)]| dana.get_with("/audit", headers).await.status;
    test.advance(3500);
    assert_eq!(session(&[("pairgate-live", "1")]).await, 200, "what its script fetches");
    let mut events = Events::open_as_browsers_do(&dana).await;
    test.broker.wake().pages();
    assert!(events.next().await.is_some(), "it looked at the session, and it lived");
    test.advance(100);
    assert_eq!(session(&[]).await, 303, "an hour after a person did anything");

    let dana = test.another_session("dana").await;
    test.advance(3500);
    let form = [("pairgate-live", "1"), SAME_ORIGIN];
    dana.send("/account", "", FORM, &form).await;
    test.advance(100);
    assert!(is_in(&dana).await, "what changes something is a person's");
}

#[tokio::test]
async fn signing_out_and_disabling_end_sessions_at_once() {
    let test = TestBroker::start().await;
    let here = test.visitor("dana", Role::Admin).await;
    let there = test.another_session("dana").await;
    let answer = here.post("/sign-out", &[]).await;
    assert_eq!(answer.status, 303);
    assert_eq!(
        answer.header("set-cookie"),
        Some("__Host-pairgate=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
    );
    assert!(!is_in(&here).await, "the cookie is worth nothing, even if kept");
    assert!(is_in(&there).await, "other sessions go on");
    let link = test.link("dana").await;
    test.broker.add_operator(&Caller::command_line(), "root", Role::Admin).await.unwrap();
    test.broker.disable_operator(&Caller::command_line(), "dana").await.unwrap();
    assert!(!is_in(&there).await, "disabled: out at once");
    assert_eq!(test.passer_by().sign_in(&link).await.status, 403, "and no link of before lets in");
    assert!(test.broker.operator_link(&Caller::command_line(), "dana").await.is_err());
}

#[tokio::test]
async fn a_link_works_once_and_ten_minutes_and_its_cookie_is_exact() {
    let test = TestBroker::start().await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    let (first, second) = (test.link("dana").await, test.link("dana").await);
    let mut visitor = test.passer_by();
    test.advance(599);
    let answer = visitor.sign_in(&first).await;
    let cookies: Vec<_> =
        answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    let id = visitor.cookie.split_once('=').unwrap().1;
    assert_eq!(id.len(), 43, "256 bits");
    assert_eq!(
        cookies,
        [
            format!("__Host-pairgate={id}; Path=/; Secure; HttpOnly; SameSite=Lax"),
            "__Host-return=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0".to_owned()
        ]
    );
    assert_eq!(answer.header("location"), Some("/"));
    let mut again = test.passer_by();
    let answer = again.sign_in(&first).await;
    assert_eq!(answer.status, 403);
    assert!(said(&answer).contains("used before"), "{}", said(&answer));
    assert_eq!(again.cookie, "");
    assert_eq!(test.passer_by().get(&first).await.status, 403, "opening it says so, too");
    test.advance(1);
    assert_eq!(again.sign_in(&second).await.status, 403, "ten minutes old");
    for wrong in ["", "x", &"A".repeat(43), &"A".repeat(5000)] {
        assert_eq!(again.sign_in(&format!("/sign-in?token={wrong}")).await.status, 403, "{wrong}");
    }
    assert_eq!(again.cookie, "");
    assert_eq!(test.count("operator.signed_in").await, 1);
    // Somebody else's page can't sign a victim in as the attacker.
    let third = test.link("dana").await;
    let body = encode(&[("token", third.split_once("token=").unwrap().1)]);
    for headers in [[("origin", "https://evil.example")], [("sec-fetch-site", "cross-site")]] {
        assert_eq!(test.passer_by().send("/sign-in", &body, FORM, &headers).await.status, 403);
    }
    assert_eq!(test.passer_by().send("/sign-in", &body, "text/plain", &[SAME_ORIGIN]).await.status, 403);
    assert_eq!(again.sign_in(&third).await.status, 303, "still good");
}

#[tokio::test]
async fn after_signing_in_one_comes_to_what_was_scanned_and_nowhere_else() {
    let test = TestBroker::start().await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    for scanned in ["/approve?user_code=PRN-WDJB-MJHTX", "/pair/AAAAAAAAAAAAAAAAAAAAAA?key=b-_C"] {
        let answer = test.passer_by().get(scanned).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")));
        let expected = format!("__Host-return={scanned}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600");
        assert_eq!(answer.header("set-cookie"), Some(expected.as_str()));
        let mut visitor = test.passer_by();
        visitor.cookie = format!("__Host-return={scanned}");
        assert_eq!(visitor.sign_in(&test.link("dana").await).await.header("location"), Some(scanned));
    }
    for other in [
        "/",
        "/devices",
        "/audit",
        "/approve",
        "/approve?user_code=%3Cscript%3E",
        "/approve?x=1",
        "//evil.example/approve?user_code=x",
        "/nowhere",
    ] {
        assert_eq!(test.passer_by().get(other).await.header("set-cookie"), None, "{other}");
    }
    for forged in [
        "https://evil.example/pair/",
        "//evil.example",
        "/\\evil.example",
        "/devices",
        "/pair/..%2f..",
        "/pair/@evil.example",
        "javascript:alert(1)",
    ] {
        let mut visitor = test.passer_by();
        visitor.cookie = format!("__Host-return={forged}");
        assert_eq!(visitor.sign_in(&test.link("dana").await).await.header("location"), Some("/"), "{forged}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_the_limit() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    for path in [
        "/devices",
        "/devices/x",
        "/pair",
        "/pair/x",
        "/approve",
        "/approve/1",
        "/report",
        "/sign-out",
        "/sign-in",
        "/token",
        "/device_authorization",
    ] {
        let answer = dana.send(path, &"x".repeat(16 * 1024 + 1), FORM, &[SAME_ORIGIN]).await;
        assert_eq!(answer.status, 413, "{path}");
        assert!(answer.body.contains("16384 bytes"), "{path}: {}", answer.body);
        let answer = dana.send(path, &"x".repeat(16 * 1024), FORM, &[SAME_ORIGIN]).await;
        assert_ne!(answer.status, 413, "{path}: exactly the limit");
    }
    assert!(is_in(&dana).await, "still signed in");
}

/// An open stream of events.
struct Events(reqwest::Response);

impl Events {
    async fn open(visitor: &Visitor) -> Self {
        Self::open_with(visitor, &[]).await
    }

    async fn open_as_browsers_do(visitor: &Visitor) -> Self {
        Self::open_with(visitor, &[("accept", "text/event-stream")]).await
    }

    async fn open_with(visitor: &Visitor, headers: &[(&str, &str)]) -> Self {
        let request = visitor.with_headers(visitor.wire.get(&format!("{}/events", visitor.issuer)), headers);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response)
    }

    /// What comes next; `None` at the end. Comments keep the connection alive and are left out.
    async fn next(&mut self) -> Option<String> {
        loop {
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.0.chunk())
                .await
                .expect("an event in time")
                .unwrap()?;
            let text = String::from_utf8(chunk.to_vec()).unwrap();
            if !text.starts_with(':') {
                return Some(text);
            }
        }
    }
}

#[tokio::test]
async fn events_say_only_that_something_changed_and_only_to_operators() {
    let test = TestBroker::start().await;
    let answer = test.passer_by().get("/events").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")));
    let viewer = test.visitor("viewer", Role::Viewer).await;
    let mut events = Events::open(&viewer).await;
    // A browser drops events without data.
    const CHANGED: &str = "event: changed\ndata: look\n\n";
    test.register("printer-01", "printer").await;
    assert_eq!(events.next().await.as_deref(), Some(CHANGED));
    // Many changes at once are one change more, not many.
    for number in 2..12 {
        test.register(&format!("printer-{number:02}"), "printer").await;
    }
    assert_eq!(events.next().await.as_deref(), Some(CHANGED));
    test.broker.disable_operator(&Caller::command_line(), "viewer").await.unwrap();
    let mut last = events.next().await;
    if last.is_some() {
        last = events.next().await;
    }
    assert_eq!(last, None, "a disabled operator hears no more");
}

#[tokio::test]
async fn events_end_when_the_broker_stops() {
    let test = TestBroker::start().await;
    let viewer = test.visitor("viewer", Role::Viewer).await;
    let mut events = Events::open(&viewer).await;
    let (ended, again) = tokio::join!(events.next(), test.restart());
    assert_eq!(ended, None);
    assert!(is_in(&viewer).await, "the session outlives the restart");
    drop(again);
}

#[tokio::test]
async fn every_page_is_there_for_every_role_in_every_state() {
    let test = TestBroker::start().await;
    let people = [
        test.visitor("viewer", Role::Viewer).await,
        test.visitor("technician", Role::Technician).await,
        test.visitor("approver", Role::Approver).await,
        test.visitor("admin", Role::Admin).await,
    ];
    let pages =
        ["/", "/devices", "/devices?q=none", "/pair", "/approve", "/approve?user_code=PRN-WDJB-MJHTX", "/audit"];
    let look = async |devices: &[&str]| {
        let mut bodies = BTreeSet::new();
        for person in &people {
            for page in pages.iter().map(ToString::to_string).chain(devices.iter().map(|id| format!("/devices/{id}"))) {
                let answer = person.get(&page).await;
                assert_eq!(answer.status, 200, "{page}: {}", said(&answer));
                assert!(answer.body.ends_with("</html>\n") || answer.body.ends_with("</html>"), "{page} is whole");
                bodies.insert(answer.body);
            }
        }
        bodies.len()
    };
    look(&[]).await;
    test.register("registered-01", "printer").await;
    look(&["registered-01"]).await;
    let mut active = test.paired("active-01", "tv").await;
    test.paired("suspended-01", "console").await;
    test.broker.suspend_device(&Caller::command_line(), "suspended-01").await.unwrap();
    test.paired("retired-01", "printer").await;
    test.broker.retire_device(&Caller::command_line(), "retired-01").await.unwrap();
    let _ = test.stranger("nobody").request_code(None, None).await;
    let all = ["registered-01", "active-01", "suspended-01", "retired-01"];
    look(&all).await;
    // With pairings, windows and sign-ins that wait.
    test.open_window("registered-01").await;
    people[3].post("/pair", &[("action", "open_window")]).await;
    let mut unpaired = test.stranger("registered-01");
    let pairing = unpaired.request_pairing().await.unwrap();
    look(&all).await;
    unpaired.poll_pairing().await.unwrap();
    let code = active.request_code(None, None).await.unwrap();
    look(&all).await;
    let claim = people[2].post("/approve", &[("user_code", &code.user_code)]).await;
    look(&all).await;
    let pairing = format!("/pair/{}", pairing.pairing_id);
    for (person, may_pair) in people.iter().zip([403, 200, 200, 200]) {
        assert_eq!(person.get(&pairing).await.status, may_pair);
    }
    for (person, status) in people.iter().zip([403, 403, 200, 404]) {
        assert_eq!(person.get(claim.header("location").unwrap()).await.status, status, "the claimant's alone");
    }
    // A device that was made up in between, or never: said calmly.
    assert_eq!(people[0].get("/devices/nobody").await.status, 404);
}
