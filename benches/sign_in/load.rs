//! Devices with real keys, and keep-alive connections that send what they have signed beforehand.

use std::collections::VecDeque;

use anyhow::Context as _;
use pairgate::simulator::DeviceKey;
use pairgate::simulator::host::{new_jti, now_s};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Connections at a time.
pub const CONNECTIONS: usize = 16;

/// A device as far as the load needs it.
#[derive(Clone)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: DeviceKey,
    /// The nonce of the last answer. The control wants none, but its requests shall be as long.
    pub nonce: String,
    /// The code of its pending sign-in; the same.
    pub device_code: String,
    /// Of the addresses in its proofs.
    pub scheme: &'static str,
}

impl Device {
    /// With a new ES256 key.
    pub fn new(id: String) -> anyhow::Result<Self> {
        let (nonce, device_code) = ("A".repeat(32), "A".repeat(54));
        Ok(Self { id, key: DeviceKey::generate_es256()?, nonce, device_code, scheme: "http" })
    }

    /// `POST /device_authorization`, signed.
    pub fn code_request(&self, authority: &str) -> anyhow::Result<Vec<u8>> {
        self.request(authority, "/device_authorization", &format!("client_id={}", self.id), "")
    }

    /// `POST /token`, signed; `more` are further header lines.
    pub fn poll(&self, authority: &str, more: &str) -> anyhow::Result<Vec<u8>> {
        let grant_type = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        let body = format!("grant_type={grant_type}&device_code={}&client_id={}", self.device_code, self.id);
        self.request(authority, "/token", &body, more)
    }

    /// A signed form.
    pub fn request(&self, authority: &str, path: &str, body: &str, more: &str) -> anyhow::Result<Vec<u8>> {
        let claims = json!({"jti": new_jti()?, "htm": "POST", "htu": format!("{}://{authority}{path}", self.scheme), "iat": now_s(), "nonce": self.nonce});
        let proof = self.key.sign_raw(&self.key.header("dpop+jwt"), &claims)?;
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\naccept: */*\r\ndpop: {proof}\r\n\
             content-type: application/x-www-form-urlencoded\r\n{more}content-length: {length}\r\n\r\n{body}"
        );
        Ok(text.into_bytes())
    }

    /// Takes what an answer to a code request brings.
    pub fn take_code(&mut self, answer: &Answer) -> anyhow::Result<serde_json::Value> {
        anyhow::ensure!(answer.status == 200, "a code request was answered with {} {}", answer.status, answer.body);
        let body: serde_json::Value = serde_json::from_str(&answer.body)?;
        self.device_code = body["device_code"].as_str().context("no device_code")?.to_owned();
        Ok(body)
    }

    /// Takes the nonce of an answer, if it has one.
    pub fn take_nonce(&mut self, answer: &Answer) {
        if let Some(nonce) = &answer.nonce {
            self.nonce.clone_from(nonce);
        }
    }
}

/// An answer, as far as anybody looks at it.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `DPoP-Nonce`.
    pub nonce: Option<String>,
    /// Body.
    pub body: String,
}

/// One keep-alive connection. A browser-like client costs more than the server that it measures.
pub struct Connection<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(authority: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream that is open.
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    /// Sends one request, and reads its answer.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more().await?;
        };
        let text = std::str::from_utf8(&self.buffer[..head])?.to_ascii_lowercase();
        let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length: usize = header("content-length").unwrap_or("0").parse()?;
        let status = text.split(' ').nth(1).context("no status line")?.parse()?;
        let has_nonce = header("dpop-nonce").is_some();
        while self.buffer.len() < head + length {
            self.read_more().await?;
        }
        // Its value as it came: nonces are not in lower case.
        let original = std::str::from_utf8(&self.buffer[..head])?;
        let nonce = original.lines().filter(|_| has_nonce).find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("dpop-nonce").then(|| value.to_owned())
        });
        Ok(Answer { status, nonce, body: String::from_utf8(self.buffer[head..head + length].to_vec())? })
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        anyhow::ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

/// Sends all requests over [`CONNECTIONS`] connections, each with one request under way; answers in the order of the requests.
pub async fn drive(authority: &str, requests: Vec<Vec<u8>>) -> anyhow::Result<Vec<Answer>> {
    let count = requests.len();
    let mut shares: Vec<VecDeque<Vec<u8>>> = vec![VecDeque::new(); CONNECTIONS];
    for (index, request) in requests.into_iter().enumerate() {
        shares[index % CONNECTIONS].push_back(request);
    }
    let mut tasks = Vec::new();
    for mut share in shares {
        let authority = authority.to_owned();
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(&authority).await?;
            let mut answers = VecDeque::with_capacity(share.len());
            while let Some(request) = share.pop_front() {
                answers.push_back(connection.send(&request).await?);
            }
            anyhow::Ok(answers)
        }));
    }
    let mut answered = Vec::new();
    for task in tasks {
        answered.push(task.await??);
    }
    (0..count).map(|index| answered[index % CONNECTIONS].pop_front().context("an answer is missing")).collect()
}
