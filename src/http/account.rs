//! `/account`: a person's own passkeys, keys for commands, sessions and roles. The ceremonies of passkeys are in [`super::passkeys`].

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::UseCaseError;
use crate::broker::people::session_handle;
use crate::clock::Timestamp;
use crate::http::Edge;
use crate::http::assets::ASSETS;
use crate::http::extract::{PageForm, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page, problems, refused_form, unavailable, when};
use crate::http::sign_in::signed_out;
use crate::http::views::{Chrome, When};
use crate::model::device::PinnedKey;
use crate::model::operator::{EVERYWHERE, Role, SignInMethod};
use crate::secret::{b64u, from_b64u};
use crate::store::OperatorKey;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    chrome: Chrome,
    /// Can passkeys work at this address?
    works: bool,
    /// Address of the script.
    script: &'static str,
    passkeys: Vec<PasskeyRow>,
    keys: Vec<KeyRow>,
    /// The name that was typed for a key that was refused. The key itself does not come back: it may be a private one.
    typed: String,
    sessions: Vec<SessionRow>,
    roles: Vec<String>,
    errors: Vec<String>,
}

struct PasskeyRow {
    credential: String,
    name: String,
    added: When,
    used: Option<When>,
}

/// A key for commands.
#[derive(Debug)]
pub struct KeyRow {
    /// Its whole thumbprint.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// Its thumbprint, to compare by eye.
    pub short: String,
    /// When it was added.
    pub added: When,
    /// When it last signed something.
    pub used: Option<When>,
}

impl KeyRow {
    /// As both pages show it.
    pub fn new(key: OperatorKey, now: Timestamp) -> Self {
        Self {
            id: b64u(&key.jkt),
            name: key.name,
            short: PinnedKey::short(&key.jkt),
            added: when(key.added_at, now),
            used: key.used_at.map(|used_at| when(used_at, now)),
        }
    }
}

struct SessionRow {
    handle: String,
    browser: String,
    peer: Option<String>,
    started: When,
    method: String,
    seen: When,
    this: bool,
}

/// `GET /account`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    render(&edge, &signed_in, String::new(), Vec::new()).await
}

/// `POST /account`.
pub async fn act(State(edge): State<Edge>, form: PageForm) -> Response {
    let (broker, PageForm { signed_in, .. }) = (edge.broker(), &form);
    let (session, peer) = (&signed_in.session, signed_in.peer);
    let mut typed = String::new();
    let done = match form.field("action").as_str() {
        "remove_passkey" => {
            let credential = from_b64u(&form.field("passkey")).unwrap_or_default();
            broker.remove_passkey(session, peer, &credential).await
        }
        "add_key" => {
            typed = form.field("key_name");
            let (caller, own) = (signed_in.caller(), &session.operator.name);
            broker.add_operator_key(&caller, own, &typed, &form.field("public_key")).await.map(drop)
        }
        "remove_key" => {
            broker.revoke_operator_key(&signed_in.caller(), &session.operator.name, &form.field("key")).await
        }
        "end_session" => broker.end_session(session, &form.field("session"), peer).await,
        "sign_out_everywhere" => match broker.sign_out_everywhere(session, peer).await {
            Ok(()) => return signed_out(),
            Err(error) => Err(error.into()),
        },
        _ => return refused_form(),
    };
    match done.map_err(problems) {
        Ok(()) => Redirect::to("/account").into_response(),
        Err(Ok(errors)) => render(&edge, signed_in, typed, errors).await,
        Err(Err(response)) => response,
    }
}

async fn render(edge: &Edge, signed_in: &SignedIn, typed: String, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match account(edge, signed_in, typed, errors).await {
        Ok(account) => page(status, &account),
        Err(error) => unavailable(&error),
    }
}

async fn account(
    edge: &Edge,
    signed_in: &SignedIn,
    typed: String,
    errors: Vec<String>,
) -> Result<AccountPage, UseCaseError> {
    let (broker, now, session) = (edge.broker(), edge.broker().now(), &signed_in.session);
    let passkeys = broker.passkeys(session).await?;
    let keys = broker.operator_keys(&signed_in.caller(), &session.operator.name).await?;
    let sessions = broker.sessions(session).await?;
    let sites = broker.sites(&signed_in.caller()).await?;
    let role = |(site, role): (&str, Role)| match sites.iter().find(|known| known.id == site) {
        _ if site == EVERYWHERE => tf("{0}, at all sites", &[&role_words(role)]),
        Some(site) => tf("{0}, at {1}", &[&role_words(role), &site.name]),
        None => tf("{0}, at {1}", &[&role_words(role), site]),
    };
    Ok(AccountPage {
        chrome: Chrome { live: false, ..chrome(edge, session, &t("Your account"), "account").await },
        works: broker.has_passkeys(),
        script: &ASSETS.passkey.href,
        passkeys: passkeys
            .into_iter()
            .map(|passkey| PasskeyRow {
                credential: b64u(&passkey.credential),
                name: passkey.name,
                added: when(passkey.added_at, now),
                used: passkey.used_at.map(|used_at| when(used_at, now)),
            })
            .collect(),
        keys: keys.into_iter().map(|key| KeyRow::new(key, now)).collect(),
        typed,
        sessions: sessions
            .into_iter()
            .map(|found| SessionRow {
                handle: session_handle(&found.hash),
                browser: browser_name(&found.agent),
                peer: found.peer,
                started: when(found.started_at, now),
                method: method_words(found.method),
                seen: when(found.seen_at, now),
                this: found.hash == session.hash,
            })
            .collect(),
        roles: session.operator.rights.iter().map(role).collect(),
        errors,
    })
}

fn role_words(role: Role) -> String {
    match role {
        Role::Viewer => t("Viewer"),
        Role::Technician => t("Technician"),
        Role::Approver => t("Approver"),
        Role::Admin => t("Administrator"),
    }
}

fn method_words(method: SignInMethod) -> String {
    match method {
        SignInMethod::Link => t("by a one-time link"),
        SignInMethod::Passkey => t("with a passkey"),
        SignInMethod::Sso => t("at the organisation's sign-in"),
    }
}

/// A browser as people call it, by its own word: nothing is decided by it.
fn browser_name(agent: &str) -> String {
    let first =
        |words: &[(&str, &'static str)]| words.iter().find(|(word, _)| agent.contains(word)).map(|(_, name)| *name);
    // Each names those that it wants to be taken for, so the order matters.
    let browser = first(&[
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => tf("{0} on {1}", &[browser, system]),
        _ if agent.is_empty() => t("A browser that does not say what it is"),
        _ => agent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_called_what_people_call_them() {
        for (agent, name) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            ("curl/8.5.0", "curl/8.5.0"),
            ("", "A browser that does not say what it is"),
        ] {
            assert_eq!(browser_name(agent), name);
        }
    }
}
