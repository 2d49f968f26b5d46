//! JOSE as a device needs it: base64url, thumbprints (RFC 7638), compact JWTs (RFC 7515), ES256 checking.
//!
//! Signing is in `key.rs`.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::error::SimulatorError;

/// base64url without padding.
pub fn b64u(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of base64url text without padding.
pub fn from_b64u(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The 32 bytes of base64url text without padding.
pub fn from_b64u_32(text: &str) -> Option<[u8; 32]> {
    from_b64u(text)?.try_into().ok()
}

/// SHA-256 over the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0_u8; 32];
    hash.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    hash
}

/// RFC 7638: SHA-256 of the required members in lexical order, for EC, OKP and RSA keys.
pub fn thumbprint(jwk: &Value) -> Option<[u8; 32]> {
    let member = |name: &str| Some((name.to_owned(), jwk.get(name)?.as_str()?.to_owned()));
    let names: &[&str] = match jwk.get("kty")?.as_str()? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        _ => return None,
    };
    let required: Option<std::collections::BTreeMap<String, String>> = names.iter().map(|name| member(name)).collect();
    let canonical = serde_json::to_vec(&required?).ok()?;
    Some(sha256(&[&canonical]))
}

/// A compact JWT whose signature was checked.
#[derive(Debug, Clone)]
pub struct CheckedJwt {
    /// The protected header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
}

impl CheckedJwt {
    /// A text claim that must be there.
    pub fn text(&self, name: &str) -> Result<&str, SimulatorError> {
        self.claims.get(name).and_then(Value::as_str).ok_or_else(|| missing(name))
    }

    /// A whole number that must be there.
    pub fn seconds(&self, name: &str) -> Result<u64, SimulatorError> {
        self.claims.get(name).and_then(Value::as_u64).ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> SimulatorError {
    SimulatorError::Malformed(format!("the member {name} is missing or of the wrong type"))
}

/// Header and claims of a compact JWT whose signature was *not* checked: to look at only.
pub fn peek(jwt: &str) -> Result<CheckedJwt, SimulatorError> {
    let broken = |what: &str| SimulatorError::Malformed(format!("a JWT with {what}"));
    let mut parts = jwt.trim().split('.');
    let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(broken("other than three parts"));
    };
    let object = |part: &str| from_b64u(part).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    Ok(CheckedJwt {
        header: object(header).ok_or_else(|| broken("an unreadable header"))?,
        claims: object(claims).ok_or_else(|| broken("unreadable claims"))?,
    })
}

/// Checks an ES256 signature with the public key `jwk` and returns header and claims.
pub fn check(jwt: &str, jwk: &Value) -> Result<CheckedJwt, SimulatorError> {
    let looked_at = peek(jwt)?;
    if looked_at.header.get("alg").and_then(Value::as_str) != Some("ES256") {
        return Err(SimulatorError::NotAuthentic("it is not signed with ES256"));
    }
    let point = p256_point(jwk).ok_or(SimulatorError::NotAuthentic("its key is no P-256 key"))?;
    let (signed, signature) =
        jwt.trim().rsplit_once('.').ok_or_else(|| SimulatorError::Malformed("a JWT without signature".to_owned()))?;
    let signature = from_b64u(signature).ok_or(SimulatorError::NotAuthentic("its signature is unreadable"))?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| SimulatorError::NotAuthentic("its signature is wrong"))?;
    Ok(looked_at)
}

fn p256_point(jwk: &Value) -> Option<Vec<u8>> {
    if jwk.get("kty")?.as_str()? != "EC" || jwk.get("crv")?.as_str()? != "P-256" {
        return None;
    }
    let coordinate = |name: &str| from_b64u_32(jwk.get(name)?.as_str()?);
    Some([&[4_u8][..], &coordinate("x")?, &coordinate("y")?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_example_of_rfc_7638_has_its_thumbprint() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3\
                 oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6\
                 qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJ\
                 zKnqDKgw";
        let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        assert_eq!(b64u(&thumbprint(&jwk).unwrap()), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn the_ed25519_example_of_rfc_8037_has_its_thumbprint() {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(b64u(&thumbprint(&jwk).unwrap()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_key_of_an_unknown_type_has_no_thumbprint() {
        assert_eq!(thumbprint(&json!({"kty": "oct", "k": "AAAA"})), None);
    }
}
