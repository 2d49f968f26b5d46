//! The way of somebody new, in a real browser against the real program: from an empty directory to a paired device.

use pairgate::simulator::{PairingStatus, screen};

use crate::field::scanned;
use crate::support::child::{Served, free_port};
use crate::support::chromium::{Chromium, Look, browse};

/// The link that `serve` prints when nobody can sign in yet.
fn printed_link(served: &mut Served) -> String {
    let said = served.line();
    assert!(said.starts_with("nobody can sign in yet"), "{said}");
    served.line().trim().to_owned()
}

/// Back to the list of steps, where this one is next.
async fn next(browser: &Chromium, issuer: &str, heading: &str) {
    browser.open(&format!("{issuer}/setup")).await;
    browser.see_heading("Set up Pairgate").await;
    let step = browser.words("li[aria-current=step] h2").await;
    assert!(step.contains(heading), "{step} is next, not {heading}");
}

async fn from_nothing_to_a_paired_device(look: Look) {
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path(), free_port());
    let link = printed_link(&mut served);
    let list = folder.path().join("devices.csv");
    std::fs::write(&list, "Name;Art;Etage;Raum\nDrucker am Empfang;Drucker;EG;1\n").unwrap();
    browse(look, move |browser| async move {
        let issuer = served.issuer.clone();
        browser.plug_authenticator_in(true).await;
        browser.open(&link).await;
        browser.click("main button.primary").await;
        browser.see_heading("Set up Pairgate").await;
        browser.inspect("setup-begin", &[]).await;
        browser.click("main form button.wide-button").await;
        next(&browser, &issuer, "You: sign in without a link").await;
        browser.click("li[aria-current=step] a.button").await;
        browser.type_into("#passkey-name", "my phone").await;
        browser.click("form.add button").await;
        browser.see("button[value=remove_passkey]").await;

        next(&browser, &issuer, "Your first site").await;
        browser.type_into("#site_name", "Berlin HQ").await;
        browser.click("button[value=site]").await;
        // The answer, before another page is opened: else that could come before the form has arrived.
        browser.see("li[aria-current=step] button[value=kinds]").await;
        next(&browser, &issuer, "What devices may do").await;
        browser.click("button[value=kinds]").await;
        browser.see("li[aria-current=step] a.button.primary").await;
        next(&browser, &issuer, "Your devices").await;
        browser.click("li[aria-current=step] a.button.primary").await;
        browser.type_into("#file", &list.display().to_string()).await;
        browser.click("form[enctype] button.primary").await;
        browser.click("#result .wide-button").await;
        browser.see(".receipt").await;

        next(&browser, &issuer, "Pair the first one").await;
        browser.inspect("setup-half", &[]).await;
        browser.click("li[aria-current=step] a.button").await;
        browser.click("button[value=open_window]").await;
        browser.see("button[value=close_window]").await;
        let id = browser.run("return document.querySelector('main .id').textContent").await;
        let mut device = served.stranger(id.as_str().unwrap());
        let shown = device.request_pairing().await.unwrap();
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { .. }));
        // As a phone's camera does it: what opens is what the picture says.
        browser.open(&scanned(&screen::png_qr(&shown.uri_complete).unwrap())).await;
        browser.click("button[value=pair_by_qr]").await;
        browser.see_heading("Paired").await;
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));

        next(&browser, &issuer, "The risk assessment").await;
        browser.click("li[aria-current=step] a.button").await;
        browser.see_heading("Risk assessment").await;
        browser.type_into("#residual", "Somebody may be talked into reading a number out.").await;
        browser.type_into("#accepted_by", "Dana Weber, head of IT").await;
        browser.click("main form button.primary").await;
        browser.see(".fact.verified").await;
        browser.inspect("risk", &[]).await;
        browser.open(&format!("{issuer}/setup")).await;
        browser.inspect("setup-done", &[]).await;
        browser.click("button[value=finish]").await;
        browser.see_heading("Overview").await;
        browser.inspect("overview-first-day", &[]).await;
        drop(folder);
    })
    .await;
}

#[tokio::test]
async fn somebody_new_pairs_a_first_device_from_an_empty_directory_on_a_phone() {
    from_nothing_to_a_paired_device(Look::PHONE).await;
}

#[tokio::test]
async fn somebody_new_pairs_a_first_device_from_an_empty_directory_at_a_desk() {
    from_nothing_to_a_paired_device(Look::DESK).await;
}
