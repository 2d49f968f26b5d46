//! JOSE: compact JWTs. The library verifies signatures; the strict checks that it leaves to its caller stand here.
//!
//! [`UnverifiedJwt`] → [`UnverifiedJwt::verify`] → [`VerifiedJwt`]: claims of the first may be looked at, those of the second may be believed.
//! RFC 7515 (JWS), 7519 (JWT), 8725 (what to refuse). Keys are in `jwk.rs`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::oauth::jwk::{Algorithm, Jwk, PublicKey};
use crate::secret::from_b64u;

/// The longest JWT that anybody may send, in bytes. An honest proof has about 600, with an RSA key 1,200.
pub const MAX_JWT: usize = 4096;

/// Why a JWT or a key was refused. The words go into `error_description`: they are for firmware writers and hold no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JoseError(pub &'static str);

/// A value that must stand as a JSON object. By itself serde also reads the members from an *array*, in their order: a message in which other readers see
/// no header, no claims and no key (RFC 7515 section 4, RFC 7519 section 7.2, RFC 7517 section 4).
#[derive(Clone, Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A JOSE header as received. Nothing of it says where to find a key: that comes from the registry or, to be compared with it, from `jwk`.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
    jwk: Option<Object<Jwk>>,
    jku: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<Vec<String>>,
}

/// The three parts of a compact JWT, parsed and held against what no use of ours allows.
#[derive(Debug)]
struct Parts<'a, C> {
    header: Header,
    algorithm: Algorithm,
    claims: C,
    signing_input: &'a str,
    signature: &'a str,
}

impl<'a, C: DeserializeOwned> Parts<'a, C> {
    fn parse(text: &'a str, longest: usize) -> Result<Self, JoseError> {
        if text.len() > longest {
            return Err(JoseError("The JWT is too long."));
        }
        let malformed = JoseError("This is no compact JWT (RFC 7515 section 3.1).");
        let (signing_input, signature) = text.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signing_input.split_once('.').ok_or(malformed)?;
        if claims.contains('.') {
            return Err(malformed);
        }
        let Object(header): Object<Header> =
            serde_json::from_slice(&from_b64u(header).ok_or(malformed)?).map_err(|_| malformed)?;
        if header.crit.is_some() {
            return Err(JoseError("The header names critical extensions; none is understood."));
        }
        let algorithm =
            Algorithm::parse(&header.alg).ok_or(JoseError("The alg must be ES256, EdDSA, Ed25519 or RS256."))?;
        let Object(claims) = serde_json::from_slice(&from_b64u(claims).ok_or(malformed)?)
            .map_err(|_| JoseError("A claim is missing, has the wrong type, or stands twice."))?;
        Ok(Self { header, algorithm, claims, signing_input, signature })
    }

    fn must_be(&self, typ: &str) -> Result<(), JoseError> {
        if self.header.typ.as_deref().is_some_and(|value| value.eq_ignore_ascii_case(typ)) {
            Ok(())
        } else {
            Err(JoseError("The header's typ is not the one for this use."))
        }
    }

    fn verify(self, key: PublicKey) -> Result<VerifiedJwt<C>, JoseError> {
        if key.algorithm() != self.algorithm {
            return Err(JoseError("The alg does not fit the key."));
        }
        let fits = jsonwebtoken::crypto::verify(
            self.signature,
            self.signing_input.as_bytes(),
            &key.decoding,
            self.algorithm.of_crate(),
        );
        if matches!(fits, Ok(true)) {
            Ok(VerifiedJwt { key, claims: self.claims })
        } else {
            Err(JoseError("The signature does not fit."))
        }
    }
}

/// The `typ` of a compact JWT in small letters, and some of its claims, as far as it has them: to choose who is to judge it. Nothing of it is believed.
pub fn glance<C: DeserializeOwned>(text: &str) -> Option<(String, C)> {
    #[derive(Deserialize)]
    struct Typ {
        typ: String,
    }
    let mut parts = text.split('.');
    let (header, claims) = (parts.next()?, parts.next()?);
    let Object(Typ { typ }) = serde_json::from_slice(&from_b64u(header)?).ok()?;
    let Object(claims) = serde_json::from_slice(&from_b64u(claims)?).ok()?;
    Some((typ.to_ascii_lowercase(), claims))
}

/// A JWT that carries its own key, and whose signature nobody has checked.
#[derive(Debug)]
pub struct UnverifiedJwt<'a, C> {
    parts: Parts<'a, C>,
    key: PublicKey,
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
        Self::parse_up_to(text, typ, MAX_JWT)
    }

    /// The same for the one use that needs more room.
    ///
    /// # Errors
    /// As [`UnverifiedJwt::parse`].
    pub fn parse_up_to(text: &'a str, typ: &str, longest: usize) -> Result<Self, JoseError> {
        let parts = Parts::parse(text, longest)?;
        parts.must_be(typ)?;
        let Object(jwk) = parts.header.jwk.as_ref().ok_or(JoseError("The header has no jwk."))?;
        let key = PublicKey::from_jwk(jwk)?;
        if key.algorithm() != parts.algorithm {
            return Err(JoseError("The alg does not fit the key."));
        }
        Ok(Self { parts, key })
    }

    /// The claims, before anybody checked the signature: good for refusing early, never for granting.
    pub const fn peek(&self) -> &C {
        &self.parts.claims
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
        self.parts.verify(self.key)
    }
}

/// A JWT whose key the verifier knows: an assertion by a registered key, a token of ours. Nobody has checked its signature.
#[derive(Debug)]
pub struct KeylessJwt<'a, C>(Parts<'a, C>);

impl<'a, C: DeserializeOwned> KeylessJwt<'a, C> {
    /// Parses a compact JWT. A header that would *bring* a key, or say where to fetch one, is refused: the key is the verifier's business
    /// (RFC 8725 section 3.10, A-030). `kid` may be any name, but nothing like a path.
    ///
    /// # Errors
    /// Anything that is not exactly that.
    pub fn parse(text: &'a str) -> Result<Self, JoseError> {
        Self::parse_up_to(text, MAX_JWT)
    }

    /// The same for the one use that needs more room, for its certificates.
    ///
    /// # Errors
    /// As [`KeylessJwt::parse`].
    pub fn parse_up_to(text: &'a str, longest: usize) -> Result<Self, JoseError> {
        let parts = Parts::parse(text, longest)?;
        let Header { jwk, jku, x5u, kid, .. } = &parts.header;
        if jwk.is_some() || jku.is_some() || x5u.is_some() {
            return Err(JoseError("The header must not carry or point to a key (jwk, jku, x5u)."));
        }
        let is_name = |kid: &String| {
            kid.len() <= 256 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:=+~#".contains(&byte))
        };
        if kid.as_ref().is_some_and(|kid| !is_name(kid)) {
            return Err(JoseError("The kid must be a plain name."));
        }
        Ok(Self(parts))
    }

    /// The algorithm that the header names; one that is taken here.
    pub const fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The `typ` of the header; which one is right is the caller's to say.
    pub fn typ(&self) -> Option<&str> {
        self.0.header.typ.as_deref()
    }

    /// The `kid` of the header: only to choose among keys that are known.
    pub fn kid(&self) -> Option<&str> {
        self.0.header.kid.as_deref()
    }

    /// The certificates of `x5c` (RFC 7515 section 4.1.6), base64 of DER, leaf first. What they are worth is the caller's to find out.
    pub fn x5c(&self) -> Option<&[String]> {
        self.0.header.x5c.as_deref()
    }

    /// The claims, before anybody checked the signature: good for finding the key and for refusing early, never for granting.
    pub const fn peek(&self) -> &C {
        &self.0.claims
    }

    /// Checks the signature by a known key.
    ///
    /// # Errors
    /// [`JoseError`] if it does not fit, or `alg` is not this key's.
    pub fn verify_with(self, key: &PublicKey) -> Result<VerifiedJwt<C>, JoseError> {
        self.0.verify(key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
    use crate::secret::b64u;

    #[derive(Debug, Deserialize)]
    struct Claims {
        jti: String,
    }

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap()
    }

    fn forged(header: &serde_json::Value, claims: &str, signer: &SigningKey) -> String {
        let input = format!("{}.{}", b64u(header.to_string().as_bytes()), b64u(claims.as_bytes()));
        let signature = signer.sign_bytes(input.as_bytes()).unwrap();
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
            ("jwk with dp", with_jwk("dp", "AAAA".into()), good),
            ("jwk with dq", with_jwk("dq", "AAAA".into()), good),
            ("jwk with qi", with_jwk("qi", "AAAA".into()), good),
            ("jwk with oth", with_jwk("oth", serde_json::json!([])), good),
            ("jwk symmetric", with("jwk", serde_json::json!({"kty": "oct", "k": "AAAA"})), good),
            ("jwk RSA, weak", with("jwk", serde_json::json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})), good),
            ("jwk on another curve", with_jwk("crv", "P-384".into()), good),
            ("jwk x too short", with_jwk("x", "AAAA".into()), good),
            ("jwk x padded", with_jwk("x", format!("{}=", jwk["x"].as_str().unwrap()).into()), good),
            ("jwk y missing", with_jwk("y", serde_json::Value::Null), good),
            ("jwk point not on the curve", with_jwk("y", jwk["x"].clone()), good),
            ("header as an array", serde_json::json!(["ES256", "test+jwt", null, null, jwk, null, null, null]), good),
            (
                "jwk as an array",
                with(
                    "jwk",
                    serde_json::json!([
                        "EC", "P-256", jwk["x"], jwk["y"], null, null, null, null, null, null, null, null, null, null
                    ]),
                ),
                good,
            ),
            ("claims as an array", with("kid", "x".into()), r#"["one"]"#),
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
