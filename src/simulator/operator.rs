//! An operator in front of the broker's pages: same addresses, same forms, same hidden fields as a browser.
//!
//! It fetches a page, takes the hidden fields of the form on it, fills in the rest and posts. It keeps the session
//! cookie by hand, because the cookie is `Secure` and on loopback there is no TLS. It has no access that a person lacks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use url::Url;

use super::error::SimulatorError;
use super::form;
use super::wire::{RawAnswer, Wire};

/// What is typed to register a device. Empty: left empty.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names are those of the form")]
pub struct DeviceForm {
    pub id: String,
    pub kind: String,
    pub name: String,
    pub serial: String,
    pub asset_tag: String,
    pub maker: String,
    pub model: String,
    pub room: String,
    pub note: String,
}

/// A signed-in (or not yet signed-in) operator. May be shared by several tasks.
#[derive(Debug)]
pub struct PageOperator {
    wire: Wire,
    issuer: Url,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// Where a posted form led.
#[derive(Debug)]
enum Landing {
    /// 303 to this path (with query).
    Path(String),
    /// 200 with a page that says no error: its heading.
    Page(String),
}

/// A form to send: the page it stands on, where it goes, and which form it is.
struct Submission<'a> {
    page: &'a str,
    target: &'a str,
    action: Option<&'a str>,
    typed: &'a [(&'a str, &'a str)],
}

impl PageOperator {
    /// An operator who has not signed in yet.
    pub fn new(issuer: &str, wire: Wire) -> Result<Self, SimulatorError> {
        let issuer = Url::parse(issuer)
            .map_err(|error| SimulatorError::Malformed(format!("the issuer is no address ({error})")))?;
        Ok(Self { wire, issuer, cookies: Mutex::default() })
    }

    /// Signs in with an operator link. Only its path and query count; the broker is always the issuer.
    pub async fn sign_in(&self, link_url: &str) -> Result<(), SimulatorError> {
        let page = self.path_of(link_url)?;
        let submission = Submission { page: &page, target: "/sign-in", action: None, typed: &[] };
        self.submit(submission).await?;
        if self.cookies().is_empty() {
            return Err(SimulatorError::Malformed("a sign-in that sets no cookie".to_owned()));
        }
        Ok(())
    }

    /// Registers a device.
    pub async fn register(&self, device: &DeviceForm) -> Result<(), SimulatorError> {
        let typed = [
            ("id", device.id.as_str()),
            ("kind", &device.kind),
            ("name", &device.name),
            ("serial", &device.serial),
            ("asset_tag", &device.asset_tag),
            ("maker", &device.maker),
            ("model", &device.model),
            ("room", &device.room),
            ("note", &device.note),
        ];
        // The list is filtered to this id, so that a page stays short however many devices there are.
        let page = format!("/devices?q={}", encoded(&device.id));
        self.submit(Submission { page: &page, target: "/devices", action: None, typed: &typed }).await.map(drop)
    }

    /// Whether a device with this id is registered.
    pub async fn is_registered(&self, device_id: &str) -> Result<bool, SimulatorError> {
        let answer = self.get(&format!("/devices/{}", encoded(device_id))).await?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(page_error("/devices", answer)),
        }
    }

    /// Opens pairing for one device; nothing happens if it is open.
    pub async fn open_window(&self, device_id: &str) -> Result<(), SimulatorError> {
        self.open(&format!("/devices/{}", encoded(device_id))).await
    }

    /// Opens pairing for the site; nothing happens if it is open.
    pub async fn open_site_window(&self) -> Result<(), SimulatorError> {
        self.open("/pair").await
    }

    async fn open(&self, path: &str) -> Result<(), SimulatorError> {
        let shown = self.get(path).await?;
        // A page offers to close what is open, and only then.
        match form_for(&shown.body, path, Some("close_window")) {
            Some(_) => Ok(()),
            None => self.act(path, "open_window", &[]).await,
        }
    }

    /// Pairs as if the QR code had been scanned: opens the address in it and presses *Pair*.
    pub async fn pair_by_qr(&self, uri_complete: &str) -> Result<(), SimulatorError> {
        let page = self.path_of(uri_complete)?;
        let path = page.split('?').next().unwrap_or(&page);
        let submission = Submission { page: &page, target: path, action: Some("pair_by_qr"), typed: &[] };
        self.submit(submission).await.map(drop)
    }

    /// Pairs by typing the six digits that the device shows.
    pub async fn pair_by_number(&self, pairing_id: &str, digits: &str) -> Result<(), SimulatorError> {
        self.act(&format!("/pair/{}", encoded(pairing_id)), "pair_by_number", &[("number", digits)]).await
    }

    /// Opens the address in the sign-in QR code and claims the sign-in; the path of its page.
    pub async fn claim(&self, verification_uri_complete: &str) -> Result<String, SimulatorError> {
        let page = self.path_of(verification_uri_complete)?;
        let user_code = Url::parse(verification_uri_complete)
            .ok()
            .and_then(|url| url.query_pairs().find(|(name, _)| name == "user_code").map(|(_, code)| code.into_owned()))
            .ok_or_else(|| SimulatorError::Malformed("a verification address without user_code".to_owned()))?;
        let typed = [("user_code", user_code.as_str())];
        match self.submit(Submission { page: &page, target: "/approve", action: None, typed: &typed }).await? {
            Landing::Path(path) => Ok(path),
            Landing::Page(said) => Err(SimulatorError::Page { path: "/approve".to_owned(), status: 200, said }),
        }
    }

    /// Approves with the number that the device shows.
    pub async fn approve(&self, grant_path: &str, number: &str) -> Result<(), SimulatorError> {
        self.act(grant_path, "approve", &[("number", number)]).await
    }

    /// Denies.
    pub async fn deny(&self, grant_path: &str) -> Result<(), SimulatorError> {
        self.act(grant_path, "deny", &[]).await
    }

    async fn act(&self, path: &str, action: &str, typed: &[(&str, &str)]) -> Result<(), SimulatorError> {
        let target = path.split('?').next().unwrap_or(path);
        self.submit(Submission { page: path, target, action: Some(action), typed }).await.map(drop)
    }

    /// A page, whatever its status.
    ///
    /// # Errors
    /// If the broker can't be reached.
    pub async fn get(&self, path: &str) -> Result<RawAnswer, SimulatorError> {
        let request = self.with_cookies(self.wire.get(&self.address(path)?));
        let answer = self.wire.send(request).await?;
        self.keep_cookies(&answer);
        Ok(answer)
    }

    async fn submit(&self, submission: Submission<'_>) -> Result<Landing, SimulatorError> {
        let Submission { page, target, action, typed } = submission;
        let shown = self.get(page).await?;
        if shown.status != 200 {
            return Err(page_error(page, shown));
        }
        let form = form_for(&shown.body, target, action).ok_or_else(|| page_error(page, shown.clone()))?;
        let mut fields: BTreeMap<&str, &str> = form.hidden().collect();
        fields.extend(action.map(|action| ("action", action)));
        fields.extend(typed.iter().copied());
        let request = self
            .with_cookies(self.wire.post(&self.address(target)?))
            .header("origin", self.issuer.origin().ascii_serialization())
            .header("sec-fetch-site", "same-origin")
            .form(&fields);
        let answer = self.wire.send(request).await?;
        self.keep_cookies(&answer);
        match answer.status {
            303 => {
                let location = answer.header("location").unwrap_or("/").to_owned();
                self.path_of(&location).map(Landing::Path)
            }
            200 if form::error_text(&answer.body).is_none() => {
                Ok(Landing::Page(form::heading(&answer.body).unwrap_or_default()))
            }
            _ => Err(page_error(target, answer)),
        }
    }

    fn address(&self, path: &str) -> Result<String, SimulatorError> {
        self.issuer.join(path).map(String::from).map_err(|_| SimulatorError::Malformed(format!("the path {path}")))
    }

    /// Path and query of an address or of a path.
    fn path_of(&self, address: &str) -> Result<String, SimulatorError> {
        let url = self
            .issuer
            .join(address)
            .map_err(|error| SimulatorError::Malformed(format!("an address that is none ({error})")))?;
        Ok(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())))
    }

    fn cookies(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_cookies(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let cookies = self.cookies();
        if cookies.is_empty() {
            return request;
        }
        let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.header("cookie", pairs.join("; "))
    }

    fn keep_cookies(&self, answer: &RawAnswer) {
        for line in answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok()) {
            let Some((name, value)) = line.split(';').next().and_then(|pair| pair.split_once('=')) else { continue };
            let is_removal = line.to_ascii_lowercase().split(';').any(|part| part.trim() == "max-age=0");
            match is_removal {
                true => self.cookies().remove(name.trim()),
                false => self.cookies().insert(name.trim().to_owned(), value.trim().to_owned()),
            };
        }
    }
}

/// The form that goes to `target` with this action; its `action` attribute may be absent (then it goes to its page).
fn form_for(html: &str, target: &str, action: Option<&str>) -> Option<form::Form> {
    let is_posted = |form: &form::Form| form.method.eq_ignore_ascii_case("post");
    let goes_there = |form: &form::Form| is_posted(form) && (form.action == target || form.action.is_empty());
    form::forms(html)
        .into_iter()
        .filter(|form| action.is_none_or(|action| form.may_send("action", action)))
        .find(goes_there)
}

fn page_error(path: &str, answer: RawAnswer) -> SimulatorError {
    let retry_after_s = answer.header("retry-after").and_then(|text| text.trim().parse().ok());
    if matches!(answer.status, 429 | 503) {
        return SimulatorError::Busy { status: answer.status, retry_after_s: retry_after_s.unwrap_or(1) };
    }
    let said = form::error_text(&answer.body)
        .or_else(|| form::heading(&answer.body))
        .or_else(|| answer.header("location").map(|location| format!("go to {location}")))
        .unwrap_or_else(|| "nothing that can be read".to_owned());
    // The query of a sign-in link is a secret.
    let path = path.split('?').next().unwrap_or(path).to_owned();
    SimulatorError::Page { path, status: answer.status, said }
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_form_is_taken_among_several() {
        let html = r#"<form method="post" action="/sign-out"><input type="hidden" name="csrf" value="1"></form>
            <form action="/approve/g1"><input name="q"></form>
            <form method="post" action="/approve/g1"><input type="hidden" name="csrf" value="2">
            <input type="hidden" name="shown" value="9"><button name="action" value="approve">Approve</button>
            <button name="action" value="deny">Deny</button></form>"#;
        let form = form_for(html, "/approve/g1", Some("deny")).unwrap();
        assert_eq!(form.value("shown"), Some("9"));
        assert_eq!(form_for(html, "/approve/g1", Some("report")), None);
    }

    #[test]
    fn an_address_of_another_host_is_taken_for_its_path_only() {
        let operator = PageOperator::new("http://127.0.0.1:8628", Wire::new().unwrap()).unwrap();
        assert_eq!(operator.path_of("https://evil.example/sign-in?token=t").unwrap(), "/sign-in?token=t");
        assert_eq!(operator.path_of("/approve/1").unwrap(), "/approve/1");
    }
}
