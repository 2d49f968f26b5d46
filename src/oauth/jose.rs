//! JOSE: compact JWTs, public keys and their thumbprints. The library verifies signatures; the strict checks that it leaves to its caller stand here.
//!
//! [`UnverifiedJwt`] → [`UnverifiedJwt::verify`] → [`VerifiedJwt`]: claims of the first may be looked at, those of the second may be believed.
//! RFC 7515 (JWS), 7517 and 7638 (keys, thumbprints), 8037 and 9864 (EdDSA), 8725 (what to refuse).

use std::fmt;

use jsonwebtoken::{Algorithm as LibraryAlgorithm, DecodingKey, EncodingKey};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::secret::{Bytes32, SecretError, b64u, bytes32_from_b64u, from_b64u, sha256};

/// The longest JWT that anybody may send, in bytes. An honest proof has about 600.
pub const MAX_JWT: usize = 4096;

/// Why a JWT or a key was refused. The words go into `error_description`: they are for firmware writers and hold no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JoseError(pub &'static str);

/// Signature algorithms that a device may use. `none` and HMAC can't even be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 (RFC 7518 section 3.4).
    Es256,
    /// Ed25519 (RFC 8037 section 3.1; RFC 9864 names it `Ed25519`, older libraries `EdDSA`).
    EdDsa,
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }

    const fn of_crate(self) -> LibraryAlgorithm {
        match self {
            Self::Es256 => LibraryAlgorithm::ES256,
            Self::EdDsa => LibraryAlgorithm::EdDSA,
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
    d: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
}

/// A public key that passed every check, with its thumbprint.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    x: String,
    y: String,
    decoding: DecodingKey,
    jkt: Bytes32,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", b64u(&self.jkt))
    }
}

impl PublicKey {
    /// Checks a JWK.
    ///
    /// # Errors
    /// For another key type or curve than P-256 and Ed25519, coordinates of the wrong length or form, and any private member: whoever sends
    /// his private key has lost it (RFC 9449 section 4.3).
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, JoseError> {
        if jwk.d.is_some() || jwk.k.is_some() || jwk.p.is_some() || jwk.q.is_some() {
            return Err(JoseError("The jwk holds private members. Send only the public key, and make a new one."));
        }
        let coordinate = |value: &Option<String>| {
            value.as_deref().filter(|text| bytes32_from_b64u(text).is_some()).map(str::to_owned)
        };
        let wrong = JoseError("The jwk must be an EC key on P-256 or an OKP key on Ed25519.");
        let x = coordinate(&jwk.x).ok_or(wrong)?;
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                let y = coordinate(&jwk.y).ok_or(wrong)?;
                let jkt = sha256(&[
                    br#"{"crv":"P-256","kty":"EC","x":""#,
                    x.as_bytes(),
                    br#"","y":""#,
                    y.as_bytes(),
                    br#""}"#,
                ]);
                let decoding = DecodingKey::from_ec_components(&x, &y).map_err(|_| wrong)?;
                Ok(Self { algorithm: Algorithm::Es256, x, y, decoding, jkt })
            }
            ("OKP", Some("Ed25519")) if jwk.y.is_none() => {
                let jkt = sha256(&[br#"{"crv":"Ed25519","kty":"OKP","x":""#, x.as_bytes(), br#""}"#]);
                let decoding = DecodingKey::from_ed_components(&x).map_err(|_| wrong)?;
                Ok(Self { algorithm: Algorithm::EdDsa, x, y: String::new(), decoding, jkt })
            }
            _ => Err(wrong),
        }
    }

    /// From the JSON text that [`PublicKey::to_json`] makes.
    ///
    /// # Errors
    /// As [`PublicKey::from_jwk`], and for text that is no JWK.
    pub fn from_json(json: &str) -> Result<Self, JoseError> {
        let jwk: Jwk = serde_json::from_str(json).map_err(|_| JoseError("This is no JWK."))?;
        Self::from_jwk(&jwk)
    }

    /// The canonical public JWK, only the members that the thumbprint covers (RFC 7638 section 3.2).
    pub fn to_json(&self) -> serde_json::Value {
        match self.algorithm {
            Algorithm::Es256 => serde_json::json!({"kty": "EC", "crv": "P-256", "x": self.x, "y": self.y}),
            Algorithm::EdDsa => serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": self.x}),
        }
    }

    /// RFC 7638 thumbprint, SHA-256.
    pub const fn jkt(&self) -> Bytes32 {
        self.jkt
    }
}

/// A JOSE header as received. `jku`, `x5u` and all else is not even read: a key comes from the registry or, to be compared with it, from `jwk`.
#[derive(Debug, Deserialize)]
pub struct Header {
    alg: String,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
    jwk: Option<Jwk>,
}

/// A JWT whose signature nobody has checked.
#[derive(Debug)]
pub struct UnverifiedJwt<'a, C> {
    algorithm: Algorithm,
    key: PublicKey,
    claims: C,
    signing_input: &'a str,
    signature: &'a str,
}

/// Claims under a signature that fits.
#[derive(Debug)]
pub struct VerifiedJwt<C> {
    /// The key that signed.
    pub key: PublicKey,
    /// What it signed.
    pub claims: C,
}

impl<'a, C: DeserializeOwned> UnverifiedJwt<'a, C> {
    /// Parses a compact JWT that carries its own public key in `jwk`, of one `typ`.
    ///
    /// Without the `typ` check a message signed for one purpose could be shown for another (RFC 8725 section 3.11).
    ///
    /// # Errors
    /// Anything that is not exactly that; see the table test.
    pub fn parse(text: &'a str, typ: &str) -> Result<Self, JoseError> {
        if text.len() > MAX_JWT {
            return Err(JoseError("The JWT is longer than 4096 bytes."));
        }
        let malformed = JoseError("This is no compact JWT (RFC 7515 section 3.1).");
        let (signing_input, signature) = text.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signing_input.split_once('.').ok_or(malformed)?;
        if claims.contains('.') {
            return Err(malformed);
        }
        let header: Header = serde_json::from_slice(&from_b64u(header).ok_or(malformed)?).map_err(|_| malformed)?;
        if header.crit.is_some() {
            return Err(JoseError("The header names critical extensions; none is understood."));
        }
        if header.typ.as_deref().is_none_or(|value| !value.eq_ignore_ascii_case(typ)) {
            return Err(JoseError("The header's typ is not the one for this use."));
        }
        let algorithm = Algorithm::parse(&header.alg).ok_or(JoseError("The alg must be ES256, EdDSA or Ed25519."))?;
        let key = PublicKey::from_jwk(&header.jwk.ok_or(JoseError("The header has no jwk."))?)?;
        if key.algorithm != algorithm {
            return Err(JoseError("The alg does not fit the key."));
        }
        let claims = serde_json::from_slice(&from_b64u(claims).ok_or(malformed)?)
            .map_err(|_| JoseError("A claim is missing, has the wrong type, or stands twice."))?;
        Ok(Self { algorithm, key, claims, signing_input, signature })
    }

    /// The claims, before anybody checked the signature: good for refusing early, never for granting.
    pub const fn peek(&self) -> &C {
        &self.claims
    }

    /// The key that the message *says* signed it.
    pub const fn claimed_key(&self) -> &PublicKey {
        &self.key
    }

    /// Checks the signature by the carried key. It proves possession of that key and nothing else: compare the thumbprint with the registry.
    ///
    /// # Errors
    /// [`JoseError`] if it does not fit.
    pub fn verify(self) -> Result<VerifiedJwt<C>, JoseError> {
        let fits = jsonwebtoken::crypto::verify(
            self.signature,
            self.signing_input.as_bytes(),
            &self.key.decoding,
            self.algorithm.of_crate(),
        );
        if matches!(fits, Ok(true)) {
            Ok(VerifiedJwt { key: self.key, claims: self.claims })
        } else {
            Err(JoseError("The signature does not fit."))
        }
    }
}

/// The broker's own signing key (ES256).
pub struct SigningKey {
    encoding: EncodingKey,
    public: PublicKey,
    kid: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.kid)
    }
}

impl SigningKey {
    /// A new P-256 key as PKCS#8.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn generate() -> Result<zeroize::Zeroizing<Vec<u8>>, SecretError> {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let random = aws_lc_rs::rand::SystemRandom::new();
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map(|document| zeroize::Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| SecretError::Random)
    }

    /// From PKCS#8.
    ///
    /// # Errors
    /// If it is no P-256 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, JoseError> {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let wrong = JoseError("The signing key is no P-256 key in PKCS#8.");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| wrong)?;
        let point = pair.public_key().as_ref();
        let (x, y) = point.get(1..).and_then(|xy| xy.split_at_checked(32)).ok_or(wrong)?;
        let jwk = serde_json::json!({"kty": "EC", "crv": "P-256", "x": b64u(x), "y": b64u(y)});
        let public = PublicKey::from_json(&jwk.to_string())?;
        let kid = b64u(&public.jkt());
        Ok(Self { encoding: EncodingKey::from_ec_der(pkcs8), public, kid })
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Key id: the thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs claims under `typ`. With `with_jwk` the header carries the public key, for those who have not pinned it yet.
    ///
    /// # Errors
    /// If the library can't sign.
    pub fn sign<C: Serialize>(&self, typ: &str, claims: &C, with_jwk: bool) -> Result<String, JoseError> {
        let failed = JoseError("Signing failed.");
        let mut header = serde_json::json!({"typ": typ, "alg": "ES256", "kid": self.kid});
        if with_jwk {
            header["jwk"] = self.public.to_json();
        }
        let claims = serde_json::to_vec(claims).map_err(|_| failed)?;
        let mut jwt = format!("{}.{}", b64u(header.to_string().as_bytes()), b64u(&claims));
        let signature =
            jsonwebtoken::crypto::sign(jwt.as_bytes(), &self.encoding, LibraryAlgorithm::ES256).map_err(|_| failed)?;
        jwt.push('.');
        jwt.push_str(&signature);
        Ok(jwt)
    }

    /// The key as it stands in the JWK Set (RFC 7517 section 4).
    pub fn jwk_set_entry(&self) -> serde_json::Value {
        let mut jwk = self.public.to_json();
        jwk["kid"] = self.kid.clone().into();
        jwk["alg"] = "ES256".into();
        jwk["use"] = "sig".into();
        jwk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Claims {
        jti: String,
    }

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap()
    }

    fn forged(header: &serde_json::Value, claims: &str, signer: &SigningKey) -> String {
        let input = format!("{}.{}", b64u(header.to_string().as_bytes()), b64u(claims.as_bytes()));
        let signature =
            jsonwebtoken::crypto::sign(input.as_bytes(), &signer.encoding, LibraryAlgorithm::ES256).unwrap();
        format!("{input}.{signature}")
    }

    #[test]
    fn a_signed_jwt_verifies_and_tells_its_key() {
        let signer = key();
        let text = signer.sign("test+jwt", &serde_json::json!({"jti": "one"}), true).unwrap();
        let verified = UnverifiedJwt::<Claims>::parse(&text, "test+jwt").unwrap().verify().unwrap();
        assert_eq!(verified.claims.jti, "one");
        assert_eq!(verified.key.jkt(), signer.public().jkt());
    }

    /// One mutation a row (A-026).
    #[test]
    fn malformed_and_hostile_jwts_are_refused_a_026() {
        let signer = key();
        let jwk = signer.public().to_json();
        let with = |member: &str, value: serde_json::Value| {
            let mut header = serde_json::json!({"typ": "test+jwt", "alg": "ES256", "jwk": jwk});
            header[member] = value;
            header
        };
        let with_jwk = |member: &str, value: serde_json::Value| {
            let mut changed = jwk.clone();
            changed[member] = value;
            with("jwk", changed)
        };
        let good = r#"{"jti":"one"}"#;
        assert!(
            UnverifiedJwt::<Claims>::parse(&forged(&with("typ", "test+jwt".into()), good, &signer), "test+jwt")
                .unwrap()
                .verify()
                .is_ok()
        );
        let rows = [
            ("alg none", with("alg", "none".into()), good),
            ("alg HS256 with the public key", with("alg", "HS256".into()), good),
            ("alg RS256", with("alg", "RS256".into()), good),
            ("alg EdDSA on an EC key", with("alg", "EdDSA".into()), good),
            ("alg in another case", with("alg", "es256".into()), good),
            ("typ of another use", with("typ", "JWT".into()), good),
            ("typ missing", with("typ", serde_json::Value::Null), good),
            ("crit", with("crit", serde_json::json!(["exp"])), good),
            ("jwk missing", with("jwk", serde_json::Value::Null), good),
            ("jwk with d", with_jwk("d", "AAAA".into()), good),
            ("jwk symmetric", with("jwk", serde_json::json!({"kty": "oct", "k": "AAAA"})), good),
            ("jwk RSA, weak", with("jwk", serde_json::json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})), good),
            ("jwk on another curve", with_jwk("crv", "P-384".into()), good),
            ("jwk x too short", with_jwk("x", "AAAA".into()), good),
            ("jwk x padded", with_jwk("x", format!("{}=", jwk["x"].as_str().unwrap()).into()), good),
            ("jwk y missing", with_jwk("y", serde_json::Value::Null), good),
            ("jwk point not on the curve", with_jwk("y", jwk["x"].clone()), good),
            ("claim missing", with("kid", "x".into()), "{}"),
            ("claim of the wrong type", with("kid", "x".into()), r#"{"jti":1}"#),
            ("claim twice", with("kid", "x".into()), r#"{"jti":"one","jti":"two"}"#),
        ];
        for (what, header, claims) in rows {
            let text = forged(&header, claims, &signer);
            let outcome = UnverifiedJwt::<Claims>::parse(&text, "test+jwt").and_then(UnverifiedJwt::verify);
            assert!(outcome.is_err(), "{what}");
        }
    }

    #[test]
    fn a_signature_by_another_key_or_over_other_bytes_is_refused() {
        let (signer, other) = (key(), key());
        let header = serde_json::json!({"typ": "test+jwt", "alg": "ES256", "jwk": signer.public().to_json()});
        let text = forged(&header, r#"{"jti":"one"}"#, &other);
        assert!(UnverifiedJwt::<Claims>::parse(&text, "test+jwt").unwrap().verify().is_err());
        let text = forged(&header, r#"{"jti":"one"}"#, &signer);
        let (input, signature) = text.rsplit_once('.').unwrap();
        let head = input.split_once('.').unwrap().0;
        let swapped = format!("{head}.{}.{signature}", b64u(br#"{"jti":"two"}"#));
        assert!(UnverifiedJwt::<Claims>::parse(&swapped, "test+jwt").unwrap().verify().is_err());
        for cut in ["", ".", "..", "a.b", "a.b.c.d", &text[..text.len() - 2], &format!("{text}=")] {
            assert!(UnverifiedJwt::<Claims>::parse(cut, "test+jwt").and_then(UnverifiedJwt::verify).is_err(), "{cut}");
        }
        let long = "a".repeat(MAX_JWT + 1);
        assert!(UnverifiedJwt::<Claims>::parse(&long, "test+jwt").is_err());
    }

    /// RFC 8037 appendix A.3: thumbprint of the Ed25519 example key.
    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let ed =
            PublicKey::from_json(r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#)
                .unwrap();
        assert_eq!(b64u(&ed.jkt()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        // RFC 9449 section 6.1: the DPoP example key.
        let ec = PublicKey::from_json(r#"{"kty":"EC","crv":"P-256","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}"#).unwrap();
        assert_eq!(b64u(&ec.jkt()), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    /// RFC 9449 section 4.2: the example proof, checked as it stands in the RFC.
    #[test]
    fn the_example_proof_of_rfc_9449_verifies() {
        #[derive(Deserialize)]
        struct Proof {
            htm: String,
        }
        let text = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
        let verified = UnverifiedJwt::<Proof>::parse(text, "dpop+jwt").unwrap().verify().unwrap();
        assert_eq!(verified.claims.htm, "POST");
    }
}
