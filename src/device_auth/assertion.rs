//! Client assertions: `private_key_jwt` (RFC 7523 with rfc7523bis, RFC 8725). Pure checks; the key comes from the registry.

use serde::Deserialize;

use crate::clock::Timestamp;
use crate::oauth::form::Form;
use crate::oauth::jose::KeylessJwt;
use crate::oauth::jwk::{Algorithm, PublicKey};
use crate::secret::{Bytes32, sha256};

/// Value of `client_assertion_type` (RFC 7523 section 2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How far two clocks may be apart, in seconds.
pub const LEEWAY: i64 = 60;
/// An assertion may live this long, in seconds: the longest that common libraries make.
const MAX_LIFETIME: i64 = 3600;

/// `aud` as libraries write it: one text, or an array.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Claims of an assertion. Times may have fractions; a claim that stands twice is refused.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: String,
}

/// An assertion that is well formed, for this issuer, and in time. Its signature has not been checked.
#[derive(Debug)]
pub struct TimelyAssertion<'a> {
    jwt: KeylessJwt<'a, Claims>,
    exp: i64,
}

/// The one use of an assertion: to be noted until `exp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssertionUse {
    /// Of the client.
    pub client: Bytes32,
    /// Of client and `jti`.
    pub hash: Bytes32,
    /// Seconds since 1970.
    pub exp: i64,
}

/// The assertion of a request, if it has one.
///
/// # Errors
/// Words, if there is only half of one.
pub fn of_form<'f>(form: &'f Form<'_>) -> Result<Option<&'f str>, &'static str> {
    match (form.get("client_assertion"), form.get("client_assertion_type")) {
        (None, None) => Ok(None),
        (Some(assertion), Some(ASSERTION_TYPE)) => Ok(Some(assertion)),
        _ => Err(
            "client_assertion needs the client_assertion_type urn:ietf:params:oauth:client-assertion-type:jwt-bearer.",
        ),
    }
}

/// A key that nobody has (the examples of RFC 9449 section 6.1, RFC 8037 appendix A.2 and RFC 7638 section 3.1), of the algorithm that an assertion names:
/// so that each costs the same signature check, whether the client is unknown, or known with a key of this or of another algorithm (A-002).
pub const fn decoy(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Es256 => {
            r#"{"kty":"EC","crv":"P-256","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}"#
        }
        Algorithm::EdDsa => r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        Algorithm::Rs256 => {
            r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#
        }
    }
}

/// Everything that can be judged without the registry. So the words may say what is wrong: they are the same for known and unknown clients.
///
/// # Errors
/// What to mend.
pub fn inspect<'a>(text: &'a str, issuer: &str, now: Timestamp) -> Result<TimelyAssertion<'a>, &'static str> {
    let jwt = KeylessJwt::<Claims>::parse(text).map_err(|error| error.0)?;
    // rfc7523bis section 3.2 names the first; libraries send the second or none. A proof or a token must not pass for an assertion (R-9449-09).
    let typ = jwt.typ().map(str::to_ascii_lowercase);
    if !matches!(typ.as_deref(), None | Some("client-authentication+jwt" | "jwt")) {
        return Err("The assertion's typ must be client-authentication+jwt, JWT, or absent.");
    }
    let claims = jwt.peek();
    let is_for_us = match &claims.aud {
        Audience::One(audience) => audience == issuer,
        Audience::Many(audiences) => matches!(audiences.as_slice(), [audience] if audience == issuer),
    };
    if !is_for_us {
        return Err("The assertion's aud must be the issuer, alone: not an endpoint, and no second value.");
    }
    if claims.iss != claims.sub {
        return Err("The assertion's iss and sub must both be the client id.");
    }
    if !(8..=256).contains(&claims.jti.len()) {
        return Err("The assertion's jti must have 8 to 256 characters.");
    }
    let now = now.seconds();
    let (Some(exp), nbf, iat) = (seconds(claims.exp), claims.nbf.map(seconds), claims.iat.map(seconds)) else {
        return Err("The assertion's exp is no time.");
    };
    if exp <= now - LEEWAY {
        return Err("The assertion has expired. Make a new one for each request, and check the clock.");
    }
    if exp > now + MAX_LIFETIME + LEEWAY {
        return Err("The assertion lives too long: exp may be an hour ahead at the most.");
    }
    let is_present = |time: Option<Option<i64>>| time.is_none_or(|time| time.is_some_and(|time| time <= now + LEEWAY));
    if !is_present(nbf) || !is_present(iat) {
        return Err("The assertion is from the future (nbf, iat). Check the clock.");
    }
    Ok(TimelyAssertion { jwt, exp })
}

/// A NumericDate in whole seconds (RFC 7519 section 2), if it is a time.
pub fn seconds(time: f64) -> Option<i64> {
    // Up to the year 9999; beyond it the conversion would not be exact.
    #[allow(clippy::cast_possible_truncation)]
    (time.is_finite() && (0.0..253_402_300_800.0).contains(&time)).then_some(time as i64)
}

impl TimelyAssertion<'_> {
    /// The client that it speaks for.
    pub fn client_id(&self) -> &str {
        &self.jwt.peek().sub
    }

    /// The algorithm that it names.
    pub const fn algorithm(&self) -> Algorithm {
        self.jwt.algorithm()
    }

    /// Checks the signature by the client's key; what is to be noted as used.
    ///
    /// # Errors
    /// Words for the record.
    pub fn verify(self, key: &PublicKey) -> Result<AssertionUse, &'static str> {
        let exp = self.exp;
        let verified = self.jwt.verify_with(key).map_err(|error| error.0)?;
        // The length keeps client and jti apart.
        let client = verified.claims.sub.as_bytes();
        let length = client.len().to_be_bytes();
        let hash = sha256(&[b"assertion", &length, client, verified.claims.jti.as_bytes()]);
        Ok(AssertionUse { client: sha256(&[client]), hash, exp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
    use serde_json::{Value, json};

    const ISSUER: &str = "https://pairgate.example";
    const NOW: i64 = 1_800_000_000;

    fn key(algorithm: SigningAlgorithm) -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate(algorithm).unwrap()).unwrap()
    }

    fn claims() -> Value {
        json!({"iss": "tv-1", "sub": "tv-1", "aud": ISSUER, "exp": NOW + 60, "iat": NOW, "nbf": NOW, "jti": "0123456789"})
    }

    fn judged(text: &str, key: &SigningKey) -> Result<AssertionUse, &'static str> {
        inspect(text, ISSUER, Timestamp::from_millis(NOW * 1000))?.verify(key.public())
    }

    #[test]
    fn assertions_as_libraries_make_them_are_taken() {
        for algorithm in SigningAlgorithm::ALL {
            let key = key(algorithm);
            for typ in ["client-authentication+jwt", "JWT"] {
                assert!(judged(&key.sign(typ, &claims(), false).unwrap(), &key).is_ok());
            }
        }
        let key = key(SigningAlgorithm::Es256);
        for change in [
            json!({"aud": [ISSUER]}),
            json!({"nbf": null}),
            json!({"iat": null}),
            json!({"exp": NOW + 3600}),
            json!({"exp": NOW as f64 + 60.5}),
            json!({"iat": NOW + 59, "nbf": NOW + 59}),
            json!({"exp": NOW - 59}),
            json!({"unknown": {"x": 1}}),
        ] {
            let mut claims = claims();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            assert!(judged(&key.sign("JWT", &claims, false).unwrap(), &key).is_ok(), "{change}");
        }
    }

    /// One mutation a row (R-7523-01 to R-7523-05).
    #[test]
    fn each_wrong_claim_of_an_assertion_is_refused_a_029_a_030() {
        let key = key(SigningAlgorithm::Es256);
        for change in [
            json!({"aud": "https://pairgate.example/token"}),
            json!({"aud": "https://pairgate.example/"}),
            json!({"aud": "https://other.example"}),
            json!({"aud": [ISSUER, "https://other.example"]}),
            json!({"aud": [ISSUER, ISSUER]}),
            json!({"aud": []}),
            json!({"aud": null}),
            json!({"iss": "tv-2"}),
            json!({"sub": "tv-2"}),
            json!({"iss": null}),
            json!({"exp": null}),
            json!({"exp": NOW - 60}),
            json!({"exp": NOW + 3661}),
            json!({"exp": NOW + 365 * 86_400}),
            json!({"exp": -1}),
            json!({"exp": "1800000060"}),
            json!({"exp": 1e300}),
            json!({"nbf": NOW + 61}),
            json!({"iat": NOW + 61}),
            json!({"jti": null}),
            json!({"jti": "short"}),
            json!({"jti": "x".repeat(257)}),
        ] {
            let mut claims = claims();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            assert!(judged(&key.sign("JWT", &claims, false).unwrap(), &key).is_err(), "{change}");
        }
        for typ in ["dpop+jwt", "at+jwt", "pairing-request+jwt", "refresh+jwt"] {
            assert!(judged(&key.sign(typ, &claims(), false).unwrap(), &key).is_err(), "typ {typ}");
        }
        assert!(judged(&key.sign("JWT", &claims(), true).unwrap(), &key).is_err(), "embedded jwk");
        let other = super::tests::key(SigningAlgorithm::Es256);
        assert!(judged(&other.sign("JWT", &claims(), false).unwrap(), &key).is_err(), "signed by another key");
    }

    #[test]
    fn there_is_a_decoy_of_every_algorithm_a_002() {
        for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
            assert_eq!(PublicKey::from_json(decoy(algorithm)).unwrap().algorithm(), algorithm);
        }
    }

    #[test]
    fn a_use_belongs_to_one_client_and_one_jti() {
        let key = key(SigningAlgorithm::Es256);
        let use_of = |id: &str, jti: &str| {
            let mut claims = claims();
            (claims["iss"], claims["sub"], claims["jti"]) = (id.into(), id.into(), jti.into());
            judged(&key.sign("JWT", &claims, false).unwrap(), &key).unwrap().hash
        };
        assert_eq!(use_of("tv-1", "0123456789"), use_of("tv-1", "0123456789"));
        assert_ne!(use_of("tv-1", "0123456789"), use_of("tv-10", "123456789"));
        assert_ne!(use_of("tv-1", "0123456789"), use_of("tv-1", "0123456780"));
    }
}
