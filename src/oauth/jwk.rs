//! Public keys: JWKs as received (RFC 7517), checked, with their thumbprint (RFC 7638). What signs with them is in `jose.rs`, the broker's own in
//! `signing_key.rs`.

use std::fmt;

use jsonwebtoken::{Algorithm as LibraryAlgorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::oauth::jose::{JoseError, Object};
use crate::secret::{Bytes32, b64u, bytes32_from_b64u, from_b64u, sha256};

/// Signature algorithms that a device may use. `none` and HMAC can't even be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 (RFC 7518 section 3.4).
    Es256,
    /// Ed25519 (RFC 8037 section 3.1; RFC 9864 names it `Ed25519`, older libraries `EdDSA`).
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with 2048 to 4096 bits (RFC 7518 section 3.3): for hardware that can do nothing else.
    Rs256,
}

impl Algorithm {
    /// Every name that a header may carry, as the metadata lists them.
    pub const NAMES: [&str; 4] = ["ES256", "EdDSA", "Ed25519", "RS256"];

    /// From the `alg` of a header.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }

    /// The name that we write.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    pub(super) const fn of_crate(self) -> LibraryAlgorithm {
        match self {
            Self::Es256 => LibraryAlgorithm::ES256,
            Self::EdDsa => LibraryAlgorithm::EdDSA,
            Self::Rs256 => LibraryAlgorithm::RS256,
        }
    }
}

/// A JWK as received. Members that are private are read only to be refused.
#[derive(Clone, Debug, Deserialize)]
pub struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
}

/// The members that make the key, and that its thumbprint covers.
#[derive(Clone, PartialEq, Eq)]
enum Material {
    P256 { x: String, y: String },
    Ed25519 { x: String },
    Rsa { n: String },
}

/// A public key as a certificate carries it.
#[derive(Clone, Copy, Debug)]
pub enum RawKey<'a> {
    /// Uncompressed point on P-256 (SEC 1 section 2.3.3), 65 bytes.
    P256(&'a [u8]),
    /// 32 bytes.
    Ed25519(&'a [u8]),
    /// Modulus and exponent, big endian.
    Rsa(&'a [u8], &'a [u8]),
}

/// A public key that passed every check, with its thumbprint.
#[derive(Clone)]
pub struct PublicKey {
    material: Material,
    pub(super) decoding: DecodingKey,
    jkt: Bytes32,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", b64u(&self.jkt))
    }
}

const WRONG: JoseError =
    JoseError("The key must be EC on P-256, OKP on Ed25519, or RSA with 2048 to 4096 bits and exponent 65537.");
/// The only exponent in use (65537).
const EXPONENT: &str = "AQAB";

impl PublicKey {
    /// Checks a JWK.
    ///
    /// # Errors
    /// For another key type or curve, numbers of the wrong length or form, and any private member: whoever sends his private key has lost it
    /// (RFC 9449 section 4.3).
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, JoseError> {
        // All of RFC 7518 sections 6.2.2, 6.3.2 and 6.4: half of a private key is enough to find the rest.
        let private = [&jwk.d, &jwk.k, &jwk.p, &jwk.q, &jwk.dp, &jwk.dq, &jwk.qi, &jwk.oth];
        if private.iter().any(|member| member.is_some()) {
            return Err(JoseError("The jwk holds private members. Send only the public key, and make a new one."));
        }
        let coordinate = |value: &Option<String>| {
            value.as_deref().filter(|text| bytes32_from_b64u(text).is_some()).map(str::to_owned).ok_or(WRONG)
        };
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => Self::p256(coordinate(&jwk.x)?, coordinate(&jwk.y)?),
            ("OKP", Some("Ed25519")) if jwk.y.is_none() => Self::ed25519(coordinate(&jwk.x)?),
            ("RSA", None) if jwk.e.as_deref() == Some(EXPONENT) => Self::rsa(jwk.n.clone().ok_or(WRONG)?),
            _ => Err(WRONG),
        }
    }

    /// From the key of a certificate.
    ///
    /// # Errors
    /// As [`PublicKey::from_jwk`].
    pub fn from_raw(raw: RawKey<'_>) -> Result<Self, JoseError> {
        match raw {
            RawKey::P256([4, xy @ ..]) if xy.len() == 64 => Self::p256(b64u(&xy[..32]), b64u(&xy[32..])),
            RawKey::Ed25519(x) if x.len() == 32 => Self::ed25519(b64u(x)),
            RawKey::Rsa(modulus, exponent) if b64u(unsigned(exponent)) == EXPONENT => {
                Self::rsa(b64u(unsigned(modulus)))
            }
            _ => Err(WRONG),
        }
    }

    fn p256(x: String, y: String) -> Result<Self, JoseError> {
        let jkt = sha256(&[br#"{"crv":"P-256","kty":"EC","x":""#, x.as_bytes(), br#"","y":""#, y.as_bytes(), br#""}"#]);
        let decoding = DecodingKey::from_ec_components(&x, &y).map_err(|_| WRONG)?;
        Ok(Self { material: Material::P256 { x, y }, decoding, jkt })
    }

    fn ed25519(x: String) -> Result<Self, JoseError> {
        let jkt = sha256(&[br#"{"crv":"Ed25519","kty":"OKP","x":""#, x.as_bytes(), br#""}"#]);
        let decoding = DecodingKey::from_ed_components(&x).map_err(|_| WRONG)?;
        Ok(Self { material: Material::Ed25519 { x }, decoding, jkt })
    }

    /// A modulus has one spelling: without leading zeros (RFC 7518 section 6.3.1.1); else one key would have many thumbprints.
    fn rsa(n: String) -> Result<Self, JoseError> {
        let is_good = from_b64u(&n).is_some_and(|modulus| {
            (256..=512).contains(&modulus.len()) && modulus[0] >= 0x80 && modulus[modulus.len() - 1] % 2 == 1
        });
        if !is_good {
            return Err(WRONG);
        }
        let jkt = sha256(&[br#"{"e":"AQAB","kty":"RSA","n":""#, n.as_bytes(), br#""}"#]);
        let decoding = DecodingKey::from_rsa_components(&n, EXPONENT).map_err(|_| WRONG)?;
        Ok(Self { material: Material::Rsa { n }, decoding, jkt })
    }

    /// From the JSON text that [`PublicKey::to_json`] makes.
    ///
    /// # Errors
    /// As [`PublicKey::from_jwk`], and for text that is no JWK.
    pub fn from_json(json: &str) -> Result<Self, JoseError> {
        let Object(jwk): Object<Jwk> = serde_json::from_str(json).map_err(|_| JoseError("This is no JWK."))?;
        Self::from_jwk(&jwk)
    }

    /// The canonical public JWK, only the members that the thumbprint covers (RFC 7638 section 3.2).
    pub fn to_json(&self) -> serde_json::Value {
        match &self.material {
            Material::P256 { x, y } => serde_json::json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}),
            Material::Ed25519 { x } => serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
            Material::Rsa { n } => serde_json::json!({"kty": "RSA", "n": n, "e": EXPONENT}),
        }
    }

    /// The one algorithm that this key signs with.
    pub const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::P256 { .. } => Algorithm::Es256,
            Material::Ed25519 { .. } => Algorithm::EdDsa,
            Material::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// RFC 7638 thumbprint, SHA-256.
    pub const fn jkt(&self) -> Bytes32 {
        self.jkt
    }
}

/// A DER integer without its sign byte.
fn unsigned(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(&[0]).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.3, RFC 9449 section 6.1, RFC 7638 section 3.1: the examples' thumbprints.
    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        for (json, jkt) in [
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
            (
                r#"{"kty":"EC","crv":"P-256","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}"#,
                "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
            ),
            (
                r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#,
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            ),
        ] {
            let key = PublicKey::from_json(json).unwrap();
            assert_eq!(b64u(&key.jkt()), jkt);
            assert_eq!(key.to_json(), serde_json::from_str::<serde_json::Value>(json).unwrap());
        }
    }

    #[test]
    fn weak_and_odd_rsa_keys_are_refused_a_026() {
        let modulus = |bytes: usize, first: u8, last: u8| {
            let mut modulus = vec![0xA5; bytes];
            modulus[0] = first;
            modulus[bytes - 1] = last;
            b64u(&modulus)
        };
        let key = |n: String, e: &str| PublicKey::from_json(&format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"}}"#));
        assert!(key(modulus(256, 0x80, 1), "AQAB").is_ok());
        for (what, n, e) in [
            ("1024 bits", modulus(128, 0x80, 1), "AQAB"),
            ("2040 bits", modulus(255, 0x80, 1), "AQAB"),
            ("2047 bits", modulus(256, 0x7F, 1), "AQAB"),
            ("8192 bits", modulus(1024, 0x80, 1), "AQAB"),
            ("leading zero", modulus(257, 0, 1), "AQAB"),
            ("even", modulus(256, 0x80, 2), "AQAB"),
            ("exponent 3", modulus(256, 0x80, 1), "Aw"),
            ("exponent spelled otherwise", modulus(256, 0x80, 1), "AAEAAQ"),
        ] {
            assert!(key(n, e).is_err(), "{what}");
        }
    }
}
