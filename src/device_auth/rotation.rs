//! A device's present key vouches for its next one: the claim `previous` of a pairing request (`docs/api.md` section 1.4). Whether the key *is* the
//! present one, the store finds out in the transaction that stores the pairing.

use serde::Deserialize;

use crate::id::DeviceId;
use crate::oauth::jose::{JoseError, UnverifiedJwt, VerifiedJwt};
use crate::secret::{Bytes32, b64u, is_equal, sha256};
use crate::store::Voucher;

/// `typ` of the statement.
const STATEMENT: &str = "key-rotation+jwt";

/// What the statement must be about.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The device.
    pub device: &'a DeviceId,
    /// Our issuer.
    pub issuer: &'a str,
    /// The key that signed the request: the next one.
    pub jkt: &'a Bytes32,
    /// The request's commitment, as text.
    pub commitment: &'a str,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    #[serde(rename = "iat")]
    _iat: f64,
    jti: String,
    jkt: String,
    commitment: String,
}

/// Why nobody vouches. For the audit log only.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// No statement of this use, or its signature does not fit.
    #[error("{0}")]
    Jose(#[from] JoseError),
    /// It is about something else.
    #[error("its claim {0} is not the one of this request")]
    Claim(&'static str),
    /// A key can't vouch for itself.
    #[error("the new key is the old one")]
    Itself,
}

/// Checks the statement: which key vouches.
///
/// # Errors
/// [`RotationError`].
pub fn check(previous: &str, expected: &Expected<'_>) -> Result<Voucher, RotationError> {
    let VerifiedJwt { key, claims } = UnverifiedJwt::<Claims>::parse(previous, STATEMENT)?.verify()?;
    // Without `jkt` and `commitment`, whoever reads one statement could put it into a request of his own.
    let checks = [
        ("iss", claims.iss == expected.device.as_str()),
        ("aud", claims.aud == expected.issuer),
        ("jti", (16..=64).contains(&claims.jti.len())),
        ("jkt", claims.jkt == b64u(expected.jkt)),
        ("commitment", claims.commitment == expected.commitment),
    ];
    if let Some((name, _)) = checks.iter().find(|(_, fits)| !fits) {
        return Err(RotationError::Claim(name));
    }
    let jkt = key.jkt();
    if is_equal(&jkt, expected.jkt) {
        return Err(RotationError::Itself);
    }
    Ok(Voucher { jkt, statement_hash: sha256(&[&jkt, claims.jti.as_bytes()]) })
}
