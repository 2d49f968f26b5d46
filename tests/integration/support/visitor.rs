//! A person's browser, request by request: any path, any header, any body.

use pairgate::broker::Caller;
use pairgate::model::operator::Role;
use pairgate::simulator::{RawAnswer, Wire, form};

use super::TestBroker;

/// What a browser sends with a form of ours.
pub const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A session of an operator, or none.
#[derive(Clone)]
pub struct Visitor {
    pub wire: Wire,
    pub issuer: String,
    /// `name=value`, or empty.
    pub cookie: String,
    /// Sent with each request, as by a proxy.
    pub headers: Vec<(String, String)>,
}

impl TestBroker {
    /// Somebody who is not signed in.
    pub fn passer_by(&self) -> Visitor {
        Visitor { wire: self.wire.clone(), issuer: self.issuer.clone(), cookie: String::new(), headers: Vec::new() }
    }

    /// A one-time link: the path of it.
    pub async fn link(&self, name: &str) -> String {
        let link = self.broker.operator_link(&Caller::command_line(), name).await.unwrap();
        link.strip_prefix(&self.issuer).unwrap().to_owned()
    }

    /// A new operator, signed in.
    pub async fn visitor(&self, name: &str, role: Role) -> Visitor {
        self.broker.add_operator(&Caller::command_line(), name, role).await.unwrap();
        self.another_session(name).await
    }

    /// An operator, signed in once more.
    pub async fn another_session(&self, name: &str) -> Visitor {
        let link = self.link(name).await;
        let mut visitor = self.passer_by();
        let answer = visitor.sign_in(&link).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        visitor
    }
}

impl Visitor {
    /// Spends a link; keeps the session's cookie.
    pub async fn sign_in(&mut self, link: &str) -> RawAnswer {
        let token = link.split_once("token=").unwrap().1;
        let answer = self.send("/sign-in", &encode(&[("token", token)]), FORM, &[SAME_ORIGIN]).await;
        let set = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
        if let Some(cookie) =
            set.map(|line| line.split(';').next().unwrap()).find(|pair| pair.starts_with("__Host-pairgate="))
        {
            self.cookie = cookie.to_owned();
        }
        answer
    }

    pub async fn get(&self, path: &str) -> RawAnswer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> RawAnswer {
        let request = self.wire.get(&format!("{}{path}", self.issuer));
        self.wire.send(self.with_headers(request, headers)).await.unwrap()
    }

    /// A POST as a page of ours makes it, with the session's token.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> RawAnswer {
        let csrf = self.csrf().await;
        let fields: Vec<_> = [("csrf", csrf.as_str())].into_iter().chain(fields.iter().copied()).collect();
        self.send(path, &encode(&fields), FORM, &[SAME_ORIGIN]).await
    }

    /// A POST of anything.
    pub async fn send(&self, path: &str, body: &str, media_type: &str, headers: &[(&str, &str)]) -> RawAnswer {
        let mut request = self.wire.post(&format!("{}{path}", self.issuer)).body(body.to_owned());
        if !media_type.is_empty() {
            request = request.header("content-type", media_type);
        }
        self.wire.send(self.with_headers(request, headers)).await.unwrap()
    }

    /// The token in the forms of this session.
    pub async fn csrf(&self) -> String {
        hidden(&self.get("/audit").await.body, "csrf")
    }

    pub fn with_headers(
        &self,
        mut request: reqwest::RequestBuilder,
        headers: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        if !self.cookie.is_empty() {
            request = request.header("cookie", &self.cookie);
        }
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        request
    }
}

/// The media type of forms.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Fields as a body.
pub fn encode(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// The first hidden field of this name on a page.
pub fn hidden(page: &str, name: &str) -> String {
    let forms = form::forms(page);
    let value = forms.iter().find_map(|form| form.value(name));
    value.unwrap_or_else(|| panic!("no field {name} on\n{page}")).to_owned()
}

/// What a page says: its alert, or its heading.
pub fn said(answer: &RawAnswer) -> String {
    form::error_text(&answer.body).or_else(|| form::heading(&answer.body)).unwrap_or_else(|| answer.body.clone())
}
