//! A scan folder that only enrolled devices can write to: `PUT /scans/{name}`, into one folder for each device.
//!
//! ```sh
//! cargo run --example scan_to_folder -- --issuer http://127.0.0.1:8628 --identifier urn:pairgate:resource:default --folder scans
//! ```
//!
//! All of the security is the `.layer(guard)` in [`router`].

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::put;
use axum::{Extension, Router};
use clap::Parser;
use pairgate::resource::{Device, Guard, HttpClient};

/// The largest scan, in bytes.
pub const MAX_SCAN: usize = 20 * 1024 * 1024;

/// Accepts scans of enrolled devices
#[derive(Parser)]
struct Arguments {
    /// The broker's address, as its metadata spells it
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// This service's identifier: what devices ask for as `resource`
    #[arg(long, value_name = "URI")]
    identifier: String,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8700")]
    listen: SocketAddr,
    /// The address that devices use, if a proxy with TLS is in front
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Where scans go
    #[arg(long, value_name = "DIRECTORY", default_value = "scans")]
    folder: PathBuf,
    /// Certificate to trust for the broker (PEM), if it has its own authority
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // What the guard could not fetch, and why, is said here.
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    anyhow::ensure!(
        arguments.listen.ip().is_loopback(),
        "this example has no TLS: listen on loopback, put a proxy in front"
    );
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    let public_url =
        arguments.public_url.map_or_else(|| Ok(format!("http://{}", listener.local_addr()?)), anyhow::Ok)?;
    let client = match &arguments.ca {
        Some(file) => HttpClient::trusting(&std::fs::read(file).with_context(|| file.display().to_string())?)?,
        None => HttpClient::new()?,
    };
    let guard = Guard::for_resource(&arguments.identifier)
        .issuer(&arguments.issuer)
        .public_url(&public_url)
        .scope("scan.write")
        .fetch(client)
        .build()?;
    std::fs::create_dir_all(&arguments.folder)?;
    println!("Scans go to {}, into a folder for each device.", arguments.folder.display());
    println!("A device signs in at {} with resource={} and scope=scan.write,", arguments.issuer, arguments.identifier);
    println!("then sends: PUT {public_url}/scans/NAME, with its token and a DPoP proof. Ctrl-C ends this.");
    axum::serve(listener, router(guard, arguments.folder)).await?;
    Ok(())
}

/// The service: whoever gets past the guard is an enrolled device, and its id is in the extensions.
pub fn router(guard: Guard, folder: PathBuf) -> Router {
    Router::new()
        .route("/scans/{name}", put(keep))
        .layer(DefaultBodyLimit::max(MAX_SCAN))
        .layer(guard)
        .with_state(folder)
}

async fn keep(
    State(folder): State<PathBuf>,
    Extension(device): Extension<Device>,
    UrlPath(name): UrlPath<String>,
    scan: Bytes,
) -> (StatusCode, String) {
    if !is_safe_name(&name) {
        let what = "A name has up to 100 letters, digits, '.', '-' and '_', and does not begin with a dot.\n";
        return (StatusCode::BAD_REQUEST, what.into());
    }
    // A device id is a safe name too: a-z, 0-9 and '-'.
    let path = folder.join(device.id.as_str()).join(&name);
    let kept = tokio::task::spawn_blocking(move || write_new(&path, &scan)).await;
    match kept.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(()) => {
            println!("{}: {name}", device.id);
            (StatusCode::CREATED, "Kept.\n".into())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            (StatusCode::CONFLICT, "There is a scan of this name. Use another name.\n".into())
        }
        Err(error) => {
            eprintln!("{}: {name}: {error}", device.id);
            (StatusCode::SERVICE_UNAVAILABLE, "The scan could not be kept. Try again later.\n".into())
        }
    }
}

fn is_safe_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// The file gets its name when it is complete, and takes nobody else's.
fn write_new(path: &Path, scan: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(scan)?;
    draft.as_file().sync_all()?;
    draft.persist_noclobber(path).map(drop).map_err(|error| error.error)
}
