//! Answers http-01 challenges (RFC 8555 section 8.3), in plain HTTP because the validator asks so. This port is open to everybody, so there is nothing
//! else on it: no page, no redirect, no token of an order that is over.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::tls::TlsError;

/// Before the token.
pub(super) const PREFIX: &str = "/.well-known/acme-challenge/";
/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// A connection is over after this long, whatever it does: silent ones must not keep the validator out.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a request's header; the least that hyper can do.
const MAX_HEADER: usize = 8192;

/// The listener, and what it answers.
#[derive(Debug)]
pub struct Challenges {
    address: SocketAddr,
    /// Key authorizations by token.
    answers: Mutex<BTreeMap<String, String>>,
}

/// While an order is under way; its answers end with it, however it ends.
#[derive(Debug)]
pub struct Answers<'a>(&'a Challenges);

impl Challenges {
    /// Listens until `stopping` turns true.
    ///
    /// # Errors
    /// If the address can't be had; says what to do.
    pub async fn listen(address: SocketAddr, stopping: watch::Receiver<bool>) -> Result<Arc<Self>, TlsError> {
        let failed = |error: std::io::Error| {
            TlsError(format!(
                "can't listen on tls.acme.http_listen = '{address}', where the ACME server's question is answered: {error}. If another program has the \
                 port, choose another one and have port 80 forwarded to it; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
            ))
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let challenges = Arc::new(Self { address, answers: Mutex::default() });
        tokio::spawn(serve(listener, Arc::clone(&challenges), stopping));
        Ok(challenges)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer for an order.
    pub const fn answers(&self) -> Answers<'_> {
        Answers(self)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = request.uri().path().strip_prefix(PREFIX).and_then(|token| answers.get(token));
        let (status, text) = match known.filter(|_| request.method() == Method::GET) {
            Some(answer) => (StatusCode::OK, answer.clone()),
            None => (StatusCode::NOT_FOUND, String::new()),
        };
        let mut response = Response::new(text);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }
}

impl Answers<'_> {
    /// What is said when somebody asks for `token`.
    pub fn add(&self, token: &str, key_authorization: &str) {
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(token.to_owned(), key_authorization.to_owned());
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn serve(listener: TcpListener, challenges: Arc<Challenges>, mut stopping: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let challenges = Arc::clone(&challenges);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer_one(stream, &challenges)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, usually: a moment later some are free again.
                tracing::warn!(%error, "a connection for an ACME challenge could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request; a body is not read.
async fn answer_one(stream: TcpStream, challenges: &Challenges) {
    let service = service_fn(async |request| Ok::<_, Infallible>(challenges.answer(&request)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for an ACME challenge ended early");
    }
}
