//! DPoP proofs (RFC 9449 section 4.3). By themselves they are client authentication, our profile: the key of the proof is the identity. Beside an
//! assertion or a certificate they say what the token is bound to, and must be by the same pinned key.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::clock::Timestamp;
use crate::device_auth::Proofs;
use crate::device_auth::replay::Seen;
use crate::oauth::jose::UnverifiedJwt;
use crate::secret::{Bytes32, b64u, is_equal, sha256};

/// Claims of a proof. `iat` must be there (section 4.2) and is not judged: the nonce tells the time. A claim that stands twice is refused.
#[derive(Debug, Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    #[serde(rename = "iat")]
    _iat: f64,
    nonce: Option<String>,
    ath: Option<Value>,
}

/// What a proof must be for besides, where it comes with an access token (RFC 9449 section 4.3, checks 11 and 12).
#[derive(Clone, Copy)]
pub struct WithToken<'a> {
    /// The token as sent: `ath` is its hash.
    pub token: &'a str,
    /// The key that the token is bound to.
    pub jkt: Bytes32,
}

/// Why a proof was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// Well formed, but without a nonce of ours that is fresh.
    Nonce {
        /// The key that the proof names; its signature was not checked.
        claimed: Bytes32,
    },
    /// Fails a check.
    Invalid(&'static str),
    /// Too many proofs to remember.
    Overloaded,
}

/// A proof that is well formed, for this endpoint, and carries a fresh nonce. Its signature has not been checked.
#[derive(Debug)]
pub struct FreshProof<'a>(UnverifiedJwt<'a, Claims>);

/// A proof whose signature fits. It may have been used before.
#[derive(Debug)]
pub struct ProvenProof {
    /// Thumbprint of the key that made it.
    pub jkt: Bytes32,
    jti: String,
}

/// The checks that come before any signature; `endpoint` is the configured address.
///
/// They cost a hundredth of a signature, and a client without a nonce has not shown anything yet.
///
/// # Errors
/// [`ProofError`].
pub fn inspect<'a>(
    proofs: &Proofs,
    proof: &'a str,
    method: &str,
    endpoint: &str,
    now: Timestamp,
) -> Result<FreshProof<'a>, ProofError> {
    inspect_with(proofs, proof, method, endpoint, None, now)
}

/// The whole check at a resource, where the proof comes with an access token. `endpoint` is the resource's public address with the request's path.
///
/// # Errors
/// [`ProofError`].
pub fn check_with_token(
    proofs: &Proofs,
    proof: &str,
    method: &str,
    endpoint: &str,
    with: WithToken<'_>,
    now: Timestamp,
) -> Result<(), ProofError> {
    inspect_with(proofs, proof, method, endpoint, Some(with), now)?.verify()?.use_up(proofs, now)
}

fn inspect_with<'a>(
    proofs: &Proofs,
    proof: &'a str,
    method: &str,
    endpoint: &str,
    with: Option<WithToken<'_>>,
    now: Timestamp,
) -> Result<FreshProof<'a>, ProofError> {
    let unverified = UnverifiedJwt::<Claims>::parse(proof, "dpop+jwt").map_err(|error| ProofError::Invalid(error.0))?;
    let claims = unverified.peek();
    if claims.htm != method {
        return Err(ProofError::Invalid("The proof's htm is not this request's method."));
    }
    if !is_same_address(&claims.htu, endpoint) {
        return Err(ProofError::Invalid("The proof's htu is not this endpoint's public address."));
    }
    if !(16..=128).contains(&claims.jti.len()) {
        return Err(ProofError::Invalid("The proof's jti must have 16 to 128 characters."));
    }
    let jkt = unverified.claimed_key().jkt();
    if let Some(with) = with {
        // Before the nonce and the memory of `jti`: a thief's own key gets neither.
        if !is_equal(&jkt, &with.jkt) {
            return Err(ProofError::Invalid("The proof is not by the key that the token is bound to."));
        }
        if claims.ath.as_ref().and_then(Value::as_str) != Some(&*b64u(&sha256(&[with.token.as_bytes()]))) {
            return Err(ProofError::Invalid("The proof's ath is not the SHA-256 of this access token."));
        }
    }
    if !claims.nonce.as_deref().is_some_and(|nonce| proofs.nonces.is_good(nonce, &jkt, now)) {
        return Err(ProofError::Nonce { claimed: jkt });
    }
    Ok(FreshProof(unverified))
}

impl FreshProof<'_> {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`ProofError::Invalid`].
    pub fn verify(self) -> Result<ProvenProof, ProofError> {
        let verified = self.0.verify().map_err(|error| ProofError::Invalid(error.0))?;
        Ok(ProvenProof { jkt: verified.key.jkt(), jti: verified.claims.jti })
    }
}

impl ProvenProof {
    /// Uses up the `jti`. Only after the signature, and for a key that is somebody's: or else anybody could use up somebody's `jti`, or, by a key made
    /// for it, our memory.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn use_up(&self, proofs: &Proofs, now: Timestamp) -> Result<(), ProofError> {
        match proofs.replay.note(&self.jkt, &self.jti, now) {
            Seen::New => Ok(()),
            Seen::Before => Err(ProofError::Invalid("This proof was used before. Make a new one for each request.")),
            Seen::Full => Err(ProofError::Overloaded),
        }
    }
}

/// Is `htu` the endpoint's address? Query and fragment are ignored; scheme and host in any case, the default port and percent-case are the same
/// (RFC 9449 section 4.3, RFC 3986 section 6.2). Dot segments are not resolved but refused: no honest client writes them.
fn is_same_address(htu: &str, endpoint: &str) -> bool {
    if htu == endpoint {
        return true;
    }
    // The endpoint too: at a resource its path comes from the request, and parsing would resolve what the router behind takes literally.
    let has_tricks = has_tricks(htu) || has_tricks(endpoint);
    // What the library would mend: `https:host/path`, `https:////host/path`.
    let has_authority = htu.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    let has_tricks = has_tricks || !has_authority;
    let (Ok(mut presented), Ok(configured), false) = (Url::parse(htu), Url::parse(endpoint), has_tricks) else {
        return false;
    };
    if !presented.username().is_empty() || presented.password().is_some() {
        return false;
    }
    presented.set_query(None);
    presented.set_fragment(None);
    presented.origin() == configured.origin() && percent_normal(presented.path()) == percent_normal(configured.path())
}

fn has_tricks(address: &str) -> bool {
    let is_odd = |character: char| character == '\\' || character.is_whitespace() || character.is_control();
    let path = address.split(['?', '#']).next().unwrap_or(address);
    address.len() > 2048
        || address.contains(is_odd)
        || path.split('/').any(|segment| {
            matches!(segment.to_ascii_lowercase().as_str(), "." | ".." | "%2e" | "%2e%2e" | ".%2e" | "%2e.")
        })
}

/// Percent-encoded unreserved characters decoded, the other encodings in upper case (RFC 3986 section 6.2.2).
fn percent_normal(path: &str) -> String {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let hex = after.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => normal.push(char::from(byte)),
            Some(byte) => normal.push_str(&format!("%{byte:02X}")),
            None => normal.push('%'),
        }
        rest = if code.is_some() { &after[2..] } else { after };
    }
    normal.push_str(rest);
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
    use crate::secret::Random;
    use serde_json::{Value, json};

    const ENDPOINT: &str = "https://pairgate.example/token";

    struct Bench {
        proofs: Proofs,
        key: SigningKey,
        now: Timestamp,
    }

    impl Bench {
        fn new() -> Self {
            let key = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap();
            Self {
                proofs: Proofs::new(&Random::seeded("dpop")).unwrap(),
                key,
                now: Timestamp::from_millis(1_000_000_000),
            }
        }

        fn claims(&self) -> Value {
            let nonce = self.proofs.nonces.issue(&self.key.public().jkt(), self.now);
            json!({"jti": "0123456789abcdef", "htm": "POST", "htu": ENDPOINT, "iat": 1, "nonce": nonce})
        }

        fn check(&self, claims: &Value) -> Result<Bytes32, ProofError> {
            let proof = self.key.sign("dpop+jwt", claims, true).unwrap();
            let proven = inspect(&self.proofs, &proof, "POST", ENDPOINT, self.now)?.verify()?;
            proven.use_up(&self.proofs, self.now).map(|()| proven.jkt)
        }
    }

    #[test]
    fn a_good_proof_names_its_key_once_a_021() {
        let bench = Bench::new();
        assert_eq!(bench.check(&bench.claims()), Ok(bench.key.public().jkt()));
        assert!(matches!(bench.check(&bench.claims()), Err(ProofError::Invalid(what)) if what.contains("used before")));
    }

    /// One mutation a row.
    #[test]
    fn each_check_of_rfc_9449_section_4_3_refuses_a_022_a_024_a_025_a_026() {
        let nonce_missing = |error: &ProofError| matches!(error, ProofError::Nonce { .. });
        let invalid = |error: &ProofError| matches!(error, ProofError::Invalid(_));
        type Row = (&'static str, Value, fn(&ProofError) -> bool);
        let rows: Vec<Row> = vec![
            ("other method", json!({"htm": "GET"}), invalid as fn(&ProofError) -> bool),
            ("method in lower case", json!({"htm": "post"}), invalid),
            ("htm missing", json!({"htm": null}), invalid),
            ("htu missing", json!({"htu": null}), invalid),
            ("iat missing", json!({"iat": null}), invalid),
            ("iat as text", json!({"iat": "1"}), invalid),
            ("jti missing", json!({"jti": null}), invalid),
            ("jti short", json!({"jti": "short"}), invalid),
            ("jti huge", json!({"jti": "x".repeat(129)}), invalid),
            ("nonce missing", json!({"nonce": null}), nonce_missing),
            ("nonce invented", json!({"nonce": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}), nonce_missing),
        ];
        for (what, changes, expected) in rows {
            let bench = Bench::new();
            let mut claims = bench.claims();
            for (name, value) in changes.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let error = bench.check(&claims).unwrap_err();
            assert!(expected(&error), "{what}: {error:?}");
        }
    }

    #[test]
    fn htu_is_the_configured_address_and_nothing_like_it_a_022_a_023() {
        for same in [
            ENDPOINT,
            "HTTPS://PairGate.Example/token",
            "https://pairgate.example:443/token",
            "https://pairgate.example/%74oken",
            "https://pairgate.example/token?x=1",
            "https://pairgate.example/token#f",
        ] {
            assert!(is_same_address(same, ENDPOINT), "{same}");
        }
        for other in [
            "",
            "token",
            "/token",
            "http://pairgate.example/token",
            "https://pairgate.example:8443/token",
            "https://evil.example/token",
            "https://pairgate.example/token/",
            "https://pairgate.example/Token",
            "https://pairgate.example//token",
            "https://pairgate.example/a/../token",
            "https://pairgate.example/./token",
            "https://pairgate.example/%2e/token",
            "https://pairgate.example/a/%2E%2e/token",
            "https://pairgate.example/device_authorization",
            "https://pairgate.example@evil.example/token",
            "https://user@pairgate.example/token",
            "https://pairgate.example.evil.example/token",
            "https://pairgate.example\\token",
            "https://pairgate.example/to ken",
            "https://pairgate.example/token;x",
            "https:pairgate.example/token",
            "https:/pairgate.example/token",
            "https:///pairgate.example/token",
        ] {
            assert!(!is_same_address(other, ENDPOINT), "{other}");
        }
        for path in ["/a/../token", "/./token", "/%2e/token", "\\token"] {
            let requested = format!("https://pairgate.example{path}");
            assert!(!is_same_address(ENDPOINT, &requested), "asked for {path}");
        }
    }

    #[test]
    fn the_device_clock_does_not_matter_a_089() {
        for iat in [0_i64, -600, 4_102_444_800, 600] {
            let bench = Bench::new();
            let mut claims = bench.claims();
            claims["iat"] = iat.into();
            assert!(bench.check(&claims).is_ok(), "{iat}");
        }
    }
}
