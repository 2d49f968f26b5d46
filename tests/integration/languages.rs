//! Every language says everything: what pages and the broker say is read off the source, and compared with the files of each language.
//!
//! The tests of pages hold what is said in English; `browser.rs` looks at German pages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use pairgate::broker::UseCaseError;
use pairgate::model::audit::Event;
use pairgate::model::device::{DeviceState, KeyAssurance};
use pairgate::model::kind::Kind;
use pairgate::model::operator::Role;
use pairgate::store::PairingRefusal;

use crate::browser::{an_ordinary_day, link};
use crate::support::TestBroker;
use crate::support::chromium::{Chromium, Look, browse};
use crate::support::marked::{
    File, assigned, calls, files, marked_in_template, strings, unmarked_in_template, with_holes,
};

const LANGUAGES: &str = "src/http/lang";

/// Templates that are not converted yet.
const TEMPLATES_TO_COME: [&str; 0] = [];

/// Pages whose Rust is not converted yet.
const PAGES_TO_COME: [&str; 0] = [];

/// What of `src/http` speaks to programs, in English only: files and folders.
const FOR_PROGRAMS: [&str; 11] = [
    "api/",
    "assets.rs",
    "device.rs",
    "events.rs",
    "extract.rs",
    "lang/mod.rs",
    "mod.rs",
    "mqtt_hooks.rs",
    "mqtt_questions.rs",
    "path.rs",
    "serve.rs",
];

/// Names that others gave begin so.
const NAMES: [&str; 1] = ["Avery "];

/// Calls in pages whose arguments are texts: which of them.
const MARKS: [(&str, &[usize]); 3] = [("t", &[0]), ("tf", &[0]), ("tn", &[1, 2])];

/// Where the broker says lines to people: files, the call, which argument, and what stands before it when it arrives.
const LINES: [(&str, &str, usize, &str); 25] = [
    ("src/broker", "refused", 0, ""),
    ("src/broker", "Refused", 0, ""),
    ("src/broker", "NotFound", 0, ""),
    ("src/broker", "push", 0, ""),
    ("src/broker/pairing.rs", "Some", 0, ""),
    ("src/broker/pairing.rs", "refuse_poll", 1, ""),
    ("src/broker/operator_keys.rs", "Err", 0, ""),
    ("src/broker/operator_keys.rs", "with_key", 0, ""),
    ("src/broker/refusals.rs", "then_some", 0, ""),
    ("src/model/device.rs", "field", 0, ""),
    ("src/id.rs", "error", 0, ""),
    ("src/model/text.rs", "refuse", 0, "{field}: "),
    ("src/model/kind.rs", "refuse", 0, "kind '{id}': "),
    ("src/model/kind.rs", "push", 0, ""),
    ("src/model/resource.rs", "refuse", 0, "resource '{id}': "),
    ("src/broker", "note_refusal", 2, ""),
    ("src/broker", "no_token", 1, ""),
    ("src/broker", "refuse_pairing", 0, ""),
    ("src/device_auth", "stranger", 0, "'{client}' "),
    ("src/device_auth", "not_its_key", 1, ""),
    ("src/broker/connections.rs", "refuse_connection", 1, "'{client}': "),
    ("src/device_auth/connection.rs", "Err", 0, "'{client}': "),
    ("src/mqtt", "refuse", 0, ""),
    ("src/store/sqlite", "append", 3, ""),
    ("src/store/sqlite", "push_str", 0, ""),
];

/// Variables that become the detail of a record, or a refusal.
const ASSIGNED: [(&str, &str); 6] = [
    ("src/mqtt/desk.rs", "why"),
    ("src/mqtt/session.rs", "why"),
    ("src/broker", "detail"),
    ("src/broker", "why"),
    ("src/device_auth", "detail"),
    ("src/store/sqlite", "detail"),
];

/// A text, and the form for many if it is about a count.
type Text = (String, Option<String>);

/// Everything that a language must say, with where it stands.
fn wanted() -> BTreeMap<Text, String> {
    let mut wanted = BTreeMap::new();
    let mut want = |text: &str, many: Option<&str>, place: &str| {
        if holes(text).1.chars().any(char::is_alphabetic) {
            wanted.entry((text.to_owned(), many.map(str::to_owned))).or_insert_with(|| place.to_owned());
        }
    };
    for File { path, text } in files("src/http/templates", "html") {
        marked_in_template(&text).iter().for_each(|text| want(text, None, &path));
    }
    for File { path, text } in files("src/http", "rs").into_iter().filter(|file| !file.path.ends_with("lang/mod.rs")) {
        for (name, places) in MARKS {
            for all in calls(&text, name) {
                let texts: Vec<Vec<String>> =
                    places.iter().filter_map(|place| all.get(*place)).map(|text| strings(text)).collect();
                match texts.as_slice() {
                    [one, many] if !one.is_empty() => want(&one[0], many.first().map(String::as_str), &path),
                    [texts] => texts.iter().for_each(|text| want(text, None, &path)),
                    _ => {}
                }
            }
        }
    }
    for (below, call, place, before) in LINES {
        for File { path, text } in files(below, "rs") {
            for all in calls(&text, call) {
                for line in all.get(place).into_iter().flat_map(|code| strings(code)) {
                    // A line with something before it has one hole more.
                    want(
                        &if before.is_empty() {
                            line.clone()
                        } else {
                            with_holes(&format!("{before}{}", unholed(&line)))
                        },
                        None,
                        &path,
                    );
                }
            }
        }
    }
    for (below, name) in ASSIGNED {
        for File { path, text } in files(below, "rs") {
            assigned(&text, name).into_iter().flat_map(strings).for_each(|line| want(&line, None, &path));
        }
    }
    for (place, words) in words() {
        want(&words, None, place);
    }
    wanted
}

/// Words of the model that pages show.
fn words() -> Vec<(&'static str, String)> {
    let mut words: Vec<(&str, String)> = Vec::new();
    words.extend(Event::ALL.iter().map(|event| ("an event", event.words().to_owned())));
    words.extend(Role::ALL.iter().map(|role| ("a role", role.as_str().to_owned())));
    words.extend(DeviceState::ALL.iter().map(|state| ("a state", state.as_str().to_owned())));
    words.extend(KeyAssurance::ALL.iter().map(|assurance| ("how a key is kept", assurance.words().to_owned())));
    words.extend(PairingRefusal::ALL.iter().map(|refusal| ("a refusal", refusal.words().to_owned())));
    words.extend(
        [UseCaseError::NotAllowed, UseCaseError::NotFresh, UseCaseError::OnlyPeople]
            .map(|error| ("a refusal", error.to_string())),
    );
    for kind in Kind::built_in() {
        words.push(("a kind", kind.label));
        words.extend(kind.scopes.into_iter().map(|(_, does)| ("a scope", does)));
    }
    words
}

/// `{0}` becomes `{}`.
fn unholed(line: &str) -> String {
    (0..10).fold(line.to_owned(), |line, hole| line.replace(&format!("{{{hole}}}"), "{}"))
}

/// The holes of a text, and the text without them. `{0|t}` is the hole `{0}`.
fn holes(text: &str) -> (BTreeSet<usize>, String) {
    let (mut found, mut rest) = (BTreeSet::new(), text.replace("|t}", "}"));
    for hole in 0..10 {
        let name = format!("{{{hole}}}");
        if rest.contains(&name) {
            found.insert(hole);
            rest = rest.replace(&name, "");
        }
    }
    (found, rest)
}

/// What a language's files say: to each text its forms, and in which file.
fn said(code: &str) -> BTreeMap<Text, (Vec<String>, String)> {
    let mut said: BTreeMap<Text, (Vec<String>, String)> = BTreeMap::new();
    for File { path, text } in files(&format!("{LANGUAGES}/{code}"), "po") {
        let catalog =
            polib::po_file::parse_from_reader(text.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
        for message in catalog.messages() {
            let many = message.msgid_plural().ok().map(str::to_owned);
            let forms = match message.msgstr_plural() {
                Ok(forms) => forms.clone(),
                Err(_) => vec![message.msgstr().unwrap_or_default().to_owned()],
            };
            assert!(forms.iter().all(|form| !form.is_empty()), "{path}: nothing for '{}'", message.msgid());
            let before = said.insert((message.msgid().to_owned(), many), (forms.clone(), path.clone()));
            if let Some((other, there)) = before {
                assert_eq!(other, forms, "'{}' is said in two ways, in {there} and {path}", message.msgid());
            }
        }
    }
    said
}

/// Codes of all languages but the source's.
fn codes() -> Vec<String> {
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(LANGUAGES)).unwrap();
    let folders = folders.map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_language_says_everything_that_pages_and_the_broker_say() {
    let wanted = wanted();
    assert!(wanted.len() > 200, "only {} texts were found", wanted.len());
    for code in codes() {
        let said = said(&code);
        let missing: Vec<String> = wanted
            .iter()
            .filter(|(text, _)| !said.contains_key(text))
            .map(|((text, many), place)| {
                let plural =
                    many.as_ref().map(|many| format!("msgid_plural {many:?}\nmsgstr[0] \"\"\nmsgstr[1] \"\"\n"));
                format!("#: {place}\nmsgid {text:?}\n{}", plural.unwrap_or_else(|| "msgstr \"\"\n".into()))
            })
            .collect();
        assert!(missing.is_empty(), "{LANGUAGES}/{code} lacks {}:\n\n{}", missing.len(), missing.join("\n"));
    }
}

/// Does one file of the source have all pieces of a text? For what is put together there in a way that the reader of marked texts does not follow.
fn stands_somewhere(text: &str) -> bool {
    static SOURCE: LazyLock<Vec<String>> = LazyLock::new(|| {
        let joined = |file: File| file.text.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\ ", "");
        files("src", "rs").into_iter().map(joined).collect()
    });
    // A problem of a policy stands behind the name of its kind or resource.
    let text = text.split_once("'{0}': ").map_or(text, |(_, problem)| problem);
    let pieces: Vec<&str> =
        text.split(['{', '}']).enumerate().filter(|(index, _)| index % 2 == 0).map(|(_, piece)| piece.trim()).collect();
    SOURCE.iter().any(|file| pieces.iter().all(|piece| file.contains(&piece.replace('"', "\\\""))))
}

#[test]
fn no_language_says_what_nobody_says_any_more() {
    let wanted = wanted();
    for code in codes() {
        let stale: Vec<String> = said(&code)
            .into_iter()
            .filter(|(text, _)| !wanted.contains_key(text) && !stands_somewhere(&text.0))
            .map(|((text, _), (_, path))| format!("{path}: {text:?}"))
            .collect();
        assert!(stale.is_empty(), "stale:\n{}", stale.join("\n"));
    }
}

#[test]
fn translations_have_the_holes_of_what_they_translate() {
    for code in codes() {
        for ((text, many), (forms, path)) in said(&code) {
            assert!(holes(&text).1.chars().any(char::is_alphabetic), "{path}: '{text}' would be found in any line");
            for form in &forms {
                let (wanted, found) = (holes(many.as_ref().unwrap_or(&text)).0, holes(form).0);
                // "a device" needs no number.
                let fits = if many.is_some() { found.is_subset(&wanted) } else { found == wanted };
                assert!(fits, "{path}: '{form}' has other holes than '{text}'");
            }
        }
    }
}

#[test]
fn each_language_is_read_from_all_of_its_files() {
    let list = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(LANGUAGES).join("mod.rs")).unwrap();
    for code in codes() {
        for file in files(&format!("{LANGUAGES}/{code}"), "po") {
            let name = file.path.rsplit('/').next().unwrap();
            assert!(list.contains(&format!("include_str!(\"{code}/{name}\")")), "mod.rs does not read {code}/{name}");
        }
    }
}

#[test]
fn templates_show_no_text_that_is_not_marked() {
    let is_to_come = |file: &File| TEMPLATES_TO_COME.iter().any(|name| file.path.ends_with(&format!("/{name}")));
    let found: Vec<String> = files("src/http/templates", "html")
        .iter()
        .filter(|file| !is_to_come(file))
        .flat_map(|file| unmarked_in_template(&file.text).into_iter().map(|text| format!("{}: {text:?}", file.path)))
        .collect();
    assert!(found.is_empty(), "mark these as {{{{ \"…\"|t }}}}:\n{}", found.join("\n"));
}

/// A sentence is told by its capital and a small word.
#[test]
fn pages_say_no_sentence_that_is_not_marked() {
    let wanted: BTreeSet<String> = wanted().into_keys().flat_map(|(one, many)| [Some(one), many]).flatten().collect();
    let is_left_out = |file: &File| {
        FOR_PROGRAMS.iter().chain(&PAGES_TO_COME).any(|name| file.path.starts_with(&format!("src/http/{name}")))
    };
    let is_name = |text: &str| NAMES.iter().any(|name| text.starts_with(name));
    let is_small = |word: &str| word.len() > 1 && word.bytes().all(|letter| letter.is_ascii_lowercase());
    let is_sentence = |text: &str| {
        text.starts_with(|letter: char| letter.is_ascii_uppercase()) && text.split(' ').skip(1).any(is_small)
    };
    let found: Vec<String> = files("src/http", "rs")
        .iter()
        .filter(|file| !is_left_out(file))
        .flat_map(|file| strings(&file.text).into_iter().map(|text| (file.path.clone(), text)))
        .filter(|(_, text)| is_sentence(text) && !is_name(text) && !wanted.contains(text))
        .map(|(path, text)| format!("{path}: {text:?}"))
        .collect();
    assert!(found.is_empty(), "mark these with t(), tf() or tn():\n{}", found.join("\n"));
}

/// By the form in the foot of each page; no script is needed for it.
async fn choose(browser: &Chromium, code: &str) {
    browser.click(&format!(".foot option[value={code}]")).await;
    browser.click(".foot button").await;
    browser.see(&format!("html[lang={code}]")).await;
}

/// The entry of the navigation that is current.
async fn current(browser: &Chromium) -> String {
    browser.words("nav a[aria-current=page]").await
}

async fn pages_speak_german(look: Look) {
    let test = TestBroker::start().await;
    let (to_approve, to_pair) = an_ordinary_day(&test).await;
    let link = link(&test, "dana").await;
    browse(look, move |browser| async move {
        browser.open(&format!("{}/sign-in", test.issuer)).await;
        browser.see("html[lang=en]").await;
        choose(&browser, "de").await;
        browser.see_heading("Anmelden").await;
        browser.open(&link).await;
        browser.see_heading("Anmelden").await;
        browser.inspect("de-sign-in", &[]).await;
        browser.click("main button").await;
        assert_eq!(current(&browser).await, "Übersicht");

        let to_pair_unscanned = to_pair.split('?').next().unwrap().to_owned();
        let own = |path: &str| format!("{}{path}", test.issuer);
        for (page, address) in [
            ("de-overview", own("/")),
            ("de-devices", own("/devices")),
            ("de-device", own("/devices/lobby-printer-01")),
            ("de-device-unpaired", own("/devices/post-printer-01")),
            ("de-pair-list", own("/pair")),
            ("de-pair-scanned", to_pair),
            ("de-pair", to_pair_unscanned),
            ("de-approve-entry", own("/approve")),
            ("de-approve-compare", to_approve),
        ] {
            browser.open(&address).await;
            browser.see("html[lang=de] h1").await;
            browser.inspect(page, &[]).await;
        }
        browser.click("main form button.primary").await;
        browser.see("#number").await;
        browser.inspect("de-approve", &[]).await;
        browser.click("button[value=deny]").await;
        browser.see("html[lang=de] h1").await;
        browser.open(&own("/devices/nowhere")).await;
        browser.see_heading("Nicht vorhanden").await;
        assert!(browser.text().await.contains("Es gibt kein Gerät 'nowhere'."), "{}", browser.text().await);
        browser.inspect("de-not-here", &["status of 404"]).await;
        browser.open(&own("/audit?before=10000")).await;
        browser.see_heading("Protokoll").await;
        let log = browser.text().await;
        assert!(log.contains("Anmeldung abgelehnt von 127.0.0.1 aus: Anmeldung"), "{log}");
        browser.inspect("de-audit", &[]).await;

        // Back to English and to German again, on the same page; then it stays, signed out as well.
        choose(&browser, "en").await;
        browser.see_heading("Audit").await;
        choose(&browser, "de").await;
        browser.see_heading("Protokoll").await;
        let address = browser.run("return location.search").await;
        assert_eq!(address, "?before=10000", "the page that it was chosen on");
        browser.click("header .who button").await;
        browser.see_heading("Anmelden").await;
        browser.see("html[lang=de]").await;
    })
    .await;
}

#[tokio::test]
async fn pages_speak_german_on_a_phone() {
    pages_speak_german(Look::PHONE).await;
}

#[tokio::test]
async fn pages_speak_german_at_a_desk() {
    pages_speak_german(Look::DESK.dark()).await;
}

#[tokio::test]
async fn the_first_page_speaks_what_the_browser_prefers_and_then_what_was_chosen() {
    let test = TestBroker::start().await;
    browse(Look::PHONE, move |browser| async move {
        browser.stop_scripts().await;
        browser.prefer("de-AT,de;q=0.9,en;q=0.5").await;
        browser.open(&format!("{}/sign-in", test.issuer)).await;
        browser.see_heading("Anmelden").await;
        browser.see("html[lang=de]").await;
        choose(&browser, "en").await;
        browser.see_heading("Sign in").await;
        browser.open(&format!("{}/approve", test.issuer)).await;
        browser.see_heading("Sign in").await;
        browser.prefer("fr").await;
        choose(&browser, "de").await;
        browser.see_heading("Anmelden").await;
    })
    .await;
}
