//! Requests whose body is held back until the person has lost every right.

use pairgate::broker::Caller;
use pairgate::model::operator::Role;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::TestBroker;
use crate::support::visitor::{FORM, SAME_ORIGIN, encode, hidden};

const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A request of which the broker has the head, and waits for the body.
struct Held {
    stream: TcpStream,
    body: String,
}

impl Held {
    async fn new(test: &TestBroker, cookie: &str, (path, media, body): (&str, &str, &str)) -> Self {
        let authority = test.issuer.split_once("://").unwrap().1;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: {media}\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(authority.replace("localhost", "127.0.0.1")).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // Sent when the body is first asked for (RFC 9110 section 10.1.1): all that is looked at before it has been looked at by then.
        let mut go_on = [0; GO_ON.len()];
        stream.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, GO_ON);
        Self { stream, body: body.to_owned() }
    }

    /// Sends the body; the answer.
    async fn end(mut self) -> String {
        self.stream.write_all(self.body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn is_sent_to_sign_in(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 303") && answer.contains("location: /sign-in\r\n")
}

#[tokio::test]
async fn a_request_that_is_held_open_acts_with_no_right_that_is_gone_a_047() {
    let test = TestBroker::at_localhost().await;
    test.visitor("dana", Role::Admin).await;
    let emil = test.visitor("emil", Role::Admin).await;
    let csrf = emil.csrf().await;
    let form = encode(&[("csrf", &csrf), ("action", "disable")]);
    let asked = json!({"csrf": csrf, "name": "blue Pixel"}).to_string();
    let part =
        |name: &str, text: &str| format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
    let file = format!("{}{}--edge--", part("csrf", &csrf), part("file", "id\nlobby-printer-01\n"));
    let requests = [
        ("/operators/dana", FORM, form.as_str()),
        ("/account/passkeys/begin", "application/json", asked.as_str()),
        ("/devices/import", "multipart/form-data; boundary=edge", file.as_str()),
    ];
    // Held open by somebody who may, they do what they should: a ceremony begins, and the list has a mistake.
    for (request, status) in requests[1..].iter().zip(["200", "422"]) {
        let answer = Held::new(&test, &emil.cookie, *request).await.end().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{}: {answer}", request.0);
    }
    let mut held = Vec::new();
    for request in requests {
        held.push(Held::new(&test, &emil.cookie, request).await);
    }
    test.broker.disable_operator(&Caller::command_line(), "emil").await.unwrap();
    let mut answers = Vec::new();
    for held in held {
        answers.push(held.end().await);
    }
    assert!(is_sent_to_sign_in(&answers[0]), "{}", answers[0]);
    assert!(answers[1].starts_with("HTTP/1.1 401") && !answers[1].contains("__Host-ceremony"), "{}", answers[1]);
    assert!(is_sent_to_sign_in(&answers[2]), "{}", answers[2]);
    let dana = test.broker.person(&Caller::command_line(), "dana").await.unwrap();
    assert_eq!(dana.operator.disabled_at, None);
}

#[tokio::test]
async fn a_technicians_request_that_is_held_open_ends_with_the_pass_a_047() {
    let test = TestBroker::start().await;
    test.visitor("admin", Role::Admin).await;
    let dana = test.visitor("dana", Role::Technician).await;
    test.register("printer-01", "printer").await;
    let page = dana.post("/technician/codes?device=printer-01", &[("action", "page")]).await;
    let code = page.body.split("<span class=\"key\">TECH-").nth(1).unwrap()[..11].to_owned();
    let mut tom = test.passer_by();
    let entered = encode(&[("device", "printer-01"), ("code", &code)]);
    let answer = tom.send("/technician", &entered, FORM, &[SAME_ORIGIN]).await;
    tom.cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let csrf = hidden(&tom.get("/technician").await.body, "csrf");
    let body = encode(&[("csrf", &csrf), ("action", "open_window")]);
    let held = Held::new(&test, &tom.cookie, ("/technician/pass", FORM, &body)).await;
    // The pass stands for who made the code.
    test.broker.disable_operator(&Caller::command_line(), "dana").await.unwrap();
    let answer = held.end().await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    assert_eq!(test.count("window.opened").await, 0);
}
