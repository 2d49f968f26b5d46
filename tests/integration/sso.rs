//! Signing in at a real OpenID provider, in a real browser: out, back, groups, another person, and no.

use pairgate::broker::Caller;
use pairgate::model::operator::{Rights, Role};
use pairgate::model::site::Site;

use crate::support::TestBroker;
use crate::support::chromium::{Chromium, Look, browse};
use crate::support::openid::OpenIdProvider;

async fn sign_in_as(browser: &Chromium, test: &TestBroker, who: &str) {
    // Who was signed in there, too, is forgotten: cookies do not know ports.
    browser.client.delete_all_cookies().await.unwrap();
    browser.open(&format!("{}/sign-in", test.issuer)).await;
    browser.see_heading("Sign in").await;
    browser.inspect("sign-in-sso", &[]).await;
    browser.click("form[action='/sign-in/sso'] button").await;
    browser.see_heading("Who are you?").await;
    browser.click(&format!("button[value='{who}']")).await;
}

async fn people_come_and_go(look: Look) {
    let mut provider = OpenIdProvider::start();
    let test = provider.broker().await;
    test.broker.add_site(&Caller::command_line(), Site::plain("berlin", "Berlin")).await.unwrap();
    browse(look, move |browser| async move {
        let rights = |name: &'static str| {
            let test = &test;
            async move { test.broker.person(&Caller::command_line(), name).await.unwrap().operator.rights }
        };
        provider.set_groups(&[("dana", &["it", "sales"]), ("emil", &["berlin"])]);
        sign_in_as(&browser, &test, "dana").await;
        browser.see_heading("Overview").await;
        browser.click("nav a[href='/operators']").await;
        browser.see_heading("Operators").await;
        assert_eq!(rights("dana").await, Rights::everywhere(Role::Admin));

        // Another person with the same e-mail address is another person.
        sign_in_as(&browser, &test, "emil").await;
        browser.see_heading("Overview").await;
        assert!(browser.text().await.contains("emil-mueller"));
        assert_eq!(rights("emil-mueller").await, Rights::at("berlin", Role::Approver));

        sign_in_as(&browser, &test, "dana").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/operators", test.issuer)).await;
        browser.see_heading("Operators").await;
        assert!(browser.text().await.contains("Contoso account"));
        browser.inspect("operators", &[]).await;
        prove_anew(&browser, &test).await;
        add_change_disable(&browser, &test).await;

        // Out of the group: out.
        provider.set_groups(&[("dana", &["sales"]), ("emil", &["berlin"])]);
        sign_in_as(&browser, &test, "dana").await;
        browser.see_heading("Not signed in").await;
        assert!(browser.text().await.contains("none of its groups has a role here"));
        browser.inspect("sso-no-group", &["status of 403"]).await;
        assert_eq!(rights("dana").await, Rights::default());

        // The provider's own words are text.
        sign_in_as(&browser, &test, "").await;
        browser.see_heading("Not signed in").await;
        assert!(browser.text().await.contains("<script>document.title = 'owned'</script> You pressed Cancel."));
        assert_ne!(browser.run("return document.title").await, "owned");
        browser.inspect("sso-declined", &["status of 403"]).await;
        assert_eq!(test.count("operator.sso_refused").await, 3);
    })
    .await;
}

/// By clicking: a person is added, gets a role more, is disabled and let in again.
async fn add_change_disable(browser: &Chromium, test: &TestBroker) {
    browser.open(&format!("{}/operators", test.issuer)).await;
    browser.see_heading("Operators").await;
    if browser.run("return !document.getElementById('add').open").await == true {
        browser.click("#add summary").await;
    }
    browser.type_into("#name", "zoe").await;
    browser.inspect("operators-add", &[]).await;
    browser.click("#add button.primary").await;
    browser.see(".once-link").await;
    browser.inspect("operator-link", &[]).await;
    browser.open(&format!("{}/operators/zoe", test.issuer)).await;
    browser.see_heading("zoe").await;
    browser.inspect("operator", &[]).await;
    for (open, button) in [("details.danger:last-of-type summary", "button[value=disable]")] {
        browser.click(open).await;
        browser.click(button).await;
    }
    browser.see("button[value=enable]").await;
    browser.inspect("operator-disabled", &[]).await;
    browser.click("button[value=enable]").await;
    browser.see("button[value=link]").await;
    browser.assert_keyboard_reaches_everything("operator").await;
}

/// A fresh sign-in: the provider asks again, although it knows the person. The plain one before was none: this provider did not say how old it was.
async fn prove_anew(browser: &Chromium, test: &TestBroker) {
    let form = "const form = document.createElement('form'); form.method = 'post'; form.action = '/sign-in/sso';
        form.innerHTML = '<input name=back value=/operators/dana><button id=anew>x</button>'; document.querySelector('main').append(form);";
    for (who, heading) in [("emil", "Not signed in"), ("dana", "dana")] {
        browser.open(&format!("{}/operators", test.issuer)).await;
        browser.see_heading("Operators").await;
        browser.run(form).await;
        browser.click("#anew").await;
        browser.see_heading("Who are you?").await;
        browser.click(&format!("button[value='{who}']")).await;
        browser.see_heading(heading).await;
        browser.assert_calm("anew", &["status of 403"]).await;
    }
    assert_eq!(test.count("operator.sso_refused").await, 1, "another person came back");
}

#[tokio::test]
async fn people_sign_in_at_a_real_provider_and_groups_are_roles_on_a_phone_a_047_a_048() {
    people_come_and_go(Look::PHONE).await;
}

#[tokio::test]
async fn people_sign_in_at_a_real_provider_and_groups_are_roles_at_a_desk_a_047_a_048() {
    people_come_and_go(Look::DESK.dark()).await;
}
