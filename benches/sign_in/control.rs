//! The control: a bare handler behind the same accept loop that does only the unavoidable work, with the same libraries and without a check, a
//! rule or a record more. It is what the product is compared with, and no model of anything: it lets everybody in.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use pairgate::http::Sides;
use pairgate::http::places::Places;
use pairgate::http::serve::{self, Door};
use pairgate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use pairgate::secret::from_b64u;
use rusqlite::{Connection, OpenFlags, params};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

/// What handlers share.
struct Control {
    database: PathBuf,
    encoding: EncodingKey,
    queue: mpsc::Sender<Insert>,
}

type Shared = State<Arc<Control>>;

/// A row to be stored; answered with its number, after COMMIT.
struct Insert {
    device: String,
    secret: String,
    stored: oneshot::Sender<i64>,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
}

/// Serves until it is killed.
pub fn run(data: &Path) -> anyhow::Result<()> {
    let database = data.join("pairgate.db");
    let writer = Connection::open(&database)?;
    writer.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         CREATE TABLE control (id INTEGER PRIMARY KEY, device TEXT NOT NULL, secret TEXT NOT NULL, at INTEGER NOT NULL) STRICT",
    )?;
    let (queue, inserts) = mpsc::channel(1024);
    std::thread::spawn(move || write(&writer, inserts));
    let encoding = EncodingKey::from_ec_der(&SigningKey::generate(SigningAlgorithm::Es256)?);
    let control = Arc::new(Control { database, encoding, queue });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        let router = Router::new()
            .route("/token", post(poll))
            .route("/device_authorization", post(code))
            .route("/redeem", post(redeem))
            .route("/page", get(page).post(decide))
            .with_state(control);
        // Nobody sends: it ends when it is killed.
        let (_running, stopping) = watch::channel(false);
        let sides = Sides { main: router, mtls: Router::new(), places: Places::new(&[]) };
        serve::serve(listener, Door::Plain, sides, stopping).await;
        Ok(())
    })
}

/// One verification, one read.
async fn poll(State(control): Shared, headers: HeaderMap, body: Bytes) -> Result<(StatusCode, String), Wrong> {
    let claims = verified(&headers)?;
    let state = read(&control, client_id(&body)?)?;
    Ok((StatusCode::BAD_REQUEST, json!({"error": state, "jti": claims.jti}).to_string()))
}

/// One verification, one durable insert.
async fn code(State(control): Shared, headers: HeaderMap, body: Bytes) -> Result<String, Wrong> {
    let claims = verified(&headers)?;
    let row = insert(&control, client_id(&body)?, claims.jti).await?;
    Ok(json!({"device_code": format!("{row:054}")}).to_string())
}

/// One verification, one durable insert, one signature.
async fn redeem(State(control): Shared, headers: HeaderMap, body: Bytes) -> Result<String, Wrong> {
    let claims = verified(&headers)?;
    let row = insert(&control, client_id(&body)?, claims.jti).await?;
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &json!({"sub": row}), &control.encoding)?;
    Ok(json!({"access_token": token}).to_string())
}

/// One read, as for a session.
async fn page(State(control): Shared, headers: HeaderMap) -> Result<String, Wrong> {
    Ok(read(&control, session(&headers)?)?)
}

/// One read and one durable insert.
async fn decide(State(control): Shared, headers: HeaderMap, body: Bytes) -> Result<String, Wrong> {
    let state = read(&control, session(&headers)?)?;
    insert(&control, client_id(&body)?, state).await?;
    Ok("done".to_owned())
}

fn verified(headers: &HeaderMap) -> anyhow::Result<Claims> {
    let proof = headers.get("dpop").context("no proof")?.to_str()?;
    let jwk = jsonwebtoken::decode_header(proof)?.jwk.context("no jwk")?;
    let key = DecodingKey::from_jwk(&jwk)?;
    let (input, signature) = proof.rsplit_once('.').context("no signature")?;
    // Not `decode`, which would read the header a second time.
    let fits = jsonwebtoken::crypto::verify(signature, input.as_bytes(), &key, Algorithm::ES256)?;
    anyhow::ensure!(fits, "the signature does not fit");
    let (_, claims) = input.split_once('.').context("no claims")?;
    Ok(serde_json::from_slice(&from_b64u(claims).context("no base64url")?)?)
}

fn client_id(body: &Bytes) -> anyhow::Result<&str> {
    let (_, id) = std::str::from_utf8(body)?.rsplit_once("client_id=").context("no client_id")?;
    Ok(id)
}

fn session(headers: &HeaderMap) -> anyhow::Result<&str> {
    Ok(headers.get("cookie").context("no cookie")?.to_str()?)
}

/// A point read by the unique text index, on the thread that asks.
fn read(control: &Control, id: &str) -> anyhow::Result<String> {
    thread_local! {
        static READER: RefCell<Option<Connection>> = const { RefCell::new(None) };
    }
    READER.with_borrow_mut(|reader| {
        if reader.is_none() {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            *reader = Some(Connection::open_with_flags(&control.database, flags)?);
        }
        let connection = reader.as_ref().context("no connection")?;
        let mut statement = connection.prepare_cached("SELECT state, jkt FROM devices WHERE id = ?")?;
        Ok(statement.query_row([id], |row| {
            row.get::<_, [u8; 32]>(1)?;
            row.get(0)
        })?)
    })
}

async fn insert(control: &Control, device: &str, secret: String) -> anyhow::Result<i64> {
    let (stored, row) = oneshot::channel();
    control.queue.try_send(Insert { device: device.to_owned(), secret, stored })?;
    Ok(row.await?)
}

/// All that wait in one transaction, answered after its commit.
fn write(connection: &Connection, mut inserts: mpsc::Receiver<Insert>) {
    let run = |sql: &str| connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).is_ok();
    while let Some(first) = inserts.blocking_recv() {
        run("BEGIN IMMEDIATE");
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(insert) = next {
            let stored = connection
                .prepare_cached("INSERT INTO control (device, secret, at) VALUES (?, ?, 1795000000000)")
                .and_then(|mut statement| statement.insert(params![insert.device, insert.secret]));
            waiting.push((insert.stored, stored));
            next = if waiting.len() < 512 { inserts.try_recv().ok() } else { None };
        }
        let is_committed = run("COMMIT");
        for (answer, stored) in waiting {
            if let (true, Ok(row)) = (is_committed, stored) {
                // Who asked may have gone.
                let _ = answer.send(row);
            }
        }
    }
}

/// Any failure: it says what, and fails the bench.
struct Wrong(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl axum::response::IntoResponse for Wrong {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}", self.0)).into_response()
    }
}
