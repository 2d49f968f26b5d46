//! For resource servers in Rust: accept only enrolled devices. `docs/resource-servers.md` has the same as a list of checks for any language.
//!
//! A [`Guard`] is a tower layer. It lets a request through if it carries an access token of the broker, for this resource, *and* the proof of the key
//! (RFC 9449) or the client certificate (RFC 8705) that the token is bound to. There are no bearer tokens here: what was stolen without the key is
//! worth nothing.
//!
//! ```
//! use axum::{Extension, Router, body::Body, routing::put};
//! use http::{Request, StatusCode};
//! use pairgate::resource::{Device, Guard, Jwks};
//! use tower::ServiceExt as _;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let keys = Jwks::parse(br#"{"keys":[]}"#)?;
//! let guard = Guard::for_resource("https://scan.example/")
//!     .issuer("https://pairgate.example")
//!     .public_url("https://scan.example")
//!     .scope("scan.write")
//!     .keys(keys) // leave this out, and they are fetched from the issuer
//!     .build()?;
//! let service = Router::new()
//!     .route("/scans/{name}", put(|Extension(device): Extension<Device>| async move { format!("thanks, {}", device.id) }))
//!     .layer(guard);
//!
//! let answer = service.oneshot(Request::put("/scans/1.pdf").body(Body::empty())?).await?;
//! assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
//! assert_eq!(answer.headers()["www-authenticate"], r#"DPoP algs="ES256 EdDSA Ed25519 RS256""#);
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: `guard` (the checks in their order) → `credentials`, `claims`, `keys`, `introspection` → `refusal`, `service`. The check of proofs is
//! the broker's own ([`crate::device_auth::dpop`]).

pub mod claims;
pub mod credentials;
pub mod device;
pub mod fetch;
pub mod guard;
mod introspection;
pub mod keys;
pub mod refusal;
pub mod service;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

pub use device::{Binding, ClientCertificate, Device, KeyAssurance};
pub use fetch::{Fetch, FetchError, HttpClient};
pub use guard::{Guard, GuardBuilder, GuardError, Verdict};
pub use keys::Jwks;
pub use refusal::Refusal;
pub use service::Guarded;
